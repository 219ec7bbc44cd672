package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

// Ref is the number of a block in its World.
type Ref int32

// noRef is what an unknown CID has.
const noRef Ref = -1

var rawPrefix = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}

// content is every block of a World, and what each is called in traces.
type content struct {
	virtual bool
	blocks  []dray.Block
	names   []string
	index   map[cid.Cid]Ref
	shared  []byte
}

// add makes a new block of the given size. Name begins what it is called.
func (c *content) add(name string, size int) Ref {
	r := Ref(len(c.blocks))
	var b dray.Block
	var err error
	if c.virtual {
		b, err = c.sealed(uint64(r), size)
	} else {
		data := make([]byte, max(size, 8))
		binary.BigEndian.PutUint64(data, uint64(r)+1)
		b, err = dray.Hashed(rawPrefix, data)
	}
	if err != nil {
		panic(fmt.Sprintf("sim: making a block: %v", err)) // the prefix is ours
	}
	return c.file(name, b)
}

// file keeps a block.
func (c *content) file(name string, b dray.Block) Ref {
	r := Ref(len(c.blocks))
	if c.index == nil {
		c.index = make(map[cid.Cid]Ref)
	}
	c.blocks = append(c.blocks, b)
	c.names = append(c.names, fmt.Sprintf("%s%d", name, r))
	c.index[b.CID()] = r
	return r
}

// sealed makes a block whose digest is drawn from its number.
func (c *content) sealed(n uint64, size int) (dray.Block, error) {
	if size > len(c.shared) {
		c.shared = make([]byte, size)
	}
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], n)
	digest := sha256.Sum256(key[:])
	id, err := dray.CIDFromDigest(rawPrefix, digest[:])
	if err != nil {
		return dray.Block{}, err
	}
	return dray.SealBlock(id, digest[:], c.shared[:size:size])
}

// ref returns the number of the block with a CID, or noRef.
func (c *content) ref(id cid.Cid) Ref {
	if r, ok := c.index[id]; ok {
		return r
	}
	return noRef
}

// name returns what a CID is called in traces.
func (c *content) name(id cid.Cid) string {
	if r := c.ref(id); r != noRef {
		return c.names[r]
	}
	return id.String()
}

// genuine reports why b is not the block that its CID names, or nil.
func (c *content) genuine(b dray.Block) error {
	r := c.ref(b.CID())
	if r == noRef {
		return fmt.Errorf("block %v exists nowhere", b.CID())
	}
	if c.virtual {
		if b.Size() != c.blocks[r].Size() {
			return fmt.Errorf("block %s is %d bytes long, not %d", c.names[r], b.Size(), c.blocks[r].Size())
		}
		return nil
	}
	_, err := dray.NewBlock(b.CID(), b.Data())
	return err
}

// refs is a set of blocks.
type refs struct {
	bits []uint64
	n    int
}

func (s *refs) has(r Ref) bool {
	i := int(r >> 6)
	return r >= 0 && i < len(s.bits) && s.bits[i]&(1<<(r&63)) != 0
}

func (s *refs) add(r Ref) {
	if s.has(r) {
		return
	}
	for int(r>>6) >= len(s.bits) {
		s.bits = append(s.bits, 0)
	}
	s.bits[r>>6] |= 1 << (r & 63)
	s.n++
}

func (s *refs) remove(r Ref) {
	if s.has(r) {
		s.bits[r>>6] &^= 1 << (r & 63)
		s.n--
	}
}

// first returns the lowest member, or noRef.
func (s *refs) first() Ref {
	for i, b := range s.bits {
		for k := range 64 {
			if b&(1<<k) != 0 {
				return Ref(i*64 + k)
			}
		}
	}
	return noRef
}

// tally counts something for each of many blocks.
type tally struct {
	n    []int32
	some int // blocks whose count is not 0
}

func (t *tally) of(r Ref) int {
	if r < 0 || int(r) >= len(t.n) {
		return 0
	}
	return int(t.n[r])
}

// add changes a count and returns what it is now.
func (t *tally) add(r Ref, by int) int {
	for int(r) >= len(t.n) {
		t.n = append(t.n, make([]int32, int(r)+64-len(t.n))...)
	}
	before := t.n[r]
	t.n[r] += int32(by)
	switch {
	case before == 0 && t.n[r] != 0:
		t.some++
	case before != 0 && t.n[r] == 0:
		t.some--
	}
	return int(t.n[r])
}
