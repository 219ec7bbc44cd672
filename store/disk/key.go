package disk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"dray"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// The index is one ordered map. Each key begins with a letter that says what it is:
//
//	b multihash     → where the block lies: places, one after the other
//	f file          → the file's record (JSON)
//	p path          → file
//	l file offset   → the leaf at that offset: size, multihash, head, tail
//	c file offset   → in a growing file: the multihash of a leaf of which parts are there, the first at that offset
//	d file          → the file is being indexed or dropped; after a restart it is dropped
//	u file          → the file is recorded but not yet synced; after a restart its blocks are hashed before serving
//	s segment       → the segment's synced length and live bytes
//	R root          → a root's record (JSON)
//	j               → the first filling of the journal that is not in the index
//	n               → the last file number given out
//
// Files, offsets and segments are 8 bytes, most significant first.
const (
	keyBlock   = 'b'
	keyFile    = 'f'
	keyPath    = 'p'
	keyLeaf    = 'l'
	keyParts   = 'c'
	keyDropped = 'd'
	keyUnsync  = 'u'
	keySegment = 's'
	keyRoot    = 'R'
	keyJournal = 'j'
	keyNext    = 'n'
)

// maxKey is the length of the longest block key.
const maxKey = 1 + 2*binary.MaxVarintLen64 + dray.MaxDigest

// maxFraming bounds the bytes before, and those after, the content of a leaf that is kept as a reference.
const maxFraming = 1 << 10

// maxPlaces bounds the places remembered for one block: further ones are in the file's own list, not in the block's.
const maxPlaces = 8

var errIndex = errors.New("the index is damaged")

// hashOf returns the multihash inside c as a part of c's own memory.
func hashOf(c cid.Cid) (string, error) {
	s := c.KeyString()
	if s == "" {
		return "", &dray.Error{Op: "store", Err: fmt.Errorf("%w: undefined", dray.ErrBadCID)}
	}
	if len(s) == 34 && s[0] == 0x12 && s[1] == 0x20 {
		return s, nil // version 0
	}
	for range 2 { // version, codec
		n := 0
		for n < len(s) && s[n] >= 0x80 {
			n++
		}
		if n >= len(s) {
			return "", &dray.Error{Op: "store", Err: fmt.Errorf("%w: truncated", dray.ErrBadCID)}
		}
		s = s[n+1:]
	}
	if len(s) < 2 || len(s) > maxKey-1 {
		return "", &dray.Error{Op: "store", Err: fmt.Errorf("%w: multihash of %d bytes", dray.ErrBadCID, len(s))}
	}
	return s, nil
}

// identity returns the bytes that an identity multihash carries, and whether mh is one.
func identity(mh string) ([]byte, bool) {
	if mh[0] != 0 {
		return nil, false
	}
	n, k := binary.Uvarint([]byte(mh[1:]))
	if k <= 0 || n != uint64(len(mh)-1-k) {
		return nil, false
	}
	return []byte(mh[1+k:]), true
}

// rawCID returns the CID with the raw codec for a multihash.
func rawCID(mh string) cid.Cid { return cid.NewCidV1(cid.Raw, []byte(mh)) }

func blockKey(dst []byte, mh string) []byte { return append(append(dst, keyBlock), mh...) }

func numKey(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, n)
}

func leafKey(dst []byte, file uint64, off int64) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, keyLeaf), file)
	return binary.BigEndian.AppendUint64(dst, uint64(off))
}

// placeKind says what kind of thing holds a block's bytes.
type placeKind byte

const (
	inIndex placeKind = iota + 1
	inSegment
	inFile
)

// place is where a block's bytes lie. Its byte slices belong to whoever made it.
type place struct {
	kind placeKind
	id   uint64 // the segment or file
	off  int64  // where the bytes begin: of the whole block in a segment, of the content in a file
	size int64  // their number; in a file without head and tail
	head []byte // a file: what stands before the content
	tail []byte // a file: what stands after it
	data []byte // in the index: the block
}

// blockSize returns the size of the whole block.
func (p *place) blockSize() int64 {
	if p.kind == inIndex {
		return int64(len(p.data))
	}
	return p.size + int64(len(p.head)+len(p.tail))
}

// at reports whether p and q are the same spot.
func (p *place) at(q *place) bool { return p.kind == q.kind && p.id == q.id && p.off == q.off }

func appendPlace(dst []byte, p *place) []byte {
	dst = append(dst, byte(p.kind))
	if p.kind == inIndex {
		dst = binary.AppendUvarint(dst, uint64(len(p.data)))
		return append(dst, p.data...)
	}
	dst = binary.AppendUvarint(dst, p.id)
	dst = binary.AppendUvarint(dst, uint64(p.off))
	dst = binary.AppendUvarint(dst, uint64(p.size))
	if p.kind == inFile {
		dst = appendBytes(dst, p.head)
		dst = appendBytes(dst, p.tail)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// cutPlace reads the first place of b, whose slices it shares, and returns the rest.
func cutPlace(b []byte) (p place, rest []byte, err error) {
	p.kind = placeKind(b[0])
	b = b[1:]
	ok := true
	num := func() uint64 {
		n, k := binary.Uvarint(b)
		if k <= 0 {
			ok = false
			return 0
		}
		b = b[k:]
		return n
	}
	str := func() []byte {
		n := num()
		if !ok || n > uint64(len(b)) {
			ok = false
			return nil
		}
		s := b[:n:n]
		b = b[n:]
		return s
	}
	switch p.kind {
	case inIndex:
		p.data = str()
	case inSegment, inFile:
		p.id, p.off, p.size = num(), int64(num()), int64(num())
		if p.kind == inFile {
			p.head, p.tail = str(), str()
		}
	default:
		ok = false
	}
	if !ok {
		return place{}, nil, errIndex
	}
	return p, b, nil
}

// leaf is an entry of a file's own list.
type leaf struct {
	mh         string
	size       int64
	head, tail []byte
}

func appendLeaf(dst []byte, l *leaf) []byte {
	dst = binary.AppendUvarint(dst, uint64(l.size))
	dst = binary.AppendUvarint(dst, uint64(len(l.mh)))
	dst = append(dst, l.mh...)
	dst = appendBytes(dst, l.head)
	return appendBytes(dst, l.tail)
}

// parseLeaf reads what appendLeaf wrote; the result shares nothing with b.
func parseLeaf(b []byte) (l leaf, err error) {
	size, k := binary.Uvarint(b)
	if k <= 0 {
		return l, errIndex
	}
	b = b[k:]
	var parts [3][]byte
	for i := range parts {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return l, errIndex
		}
		parts[i] = append([]byte(nil), b[k:k+int(n)]...)
		b = b[k+int(n):]
	}
	return leaf{mh: string(parts[0]), size: int64(size), head: parts[1], tail: parts[2]}, nil
}

// lookup calls use with the value of key, which is valid during the call only. It reports whether the key exists.
func lookup(db pebble.Reader, key []byte, use func(value []byte) error) (bool, error) {
	v, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = use(v)
	if cerr := closer.Close(); err == nil {
		err = cerr
	}
	return true, err
}

// upperBound returns the first key after all those that begin with prefix.
func upperBound(prefix []byte) []byte {
	b := append([]byte(nil), prefix...)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return b[:i+1]
		}
	}
	return nil
}
