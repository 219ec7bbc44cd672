package unixfs

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"

	"dray"
)

// ErrCodec means that a CID's codec is one whose links are not known how to find.
var ErrCodec = errors.New("unknown codec")

// Multicodec codes that go-cid has no name for.
const (
	codecCBOR = 0x51   // plain CBOR: no links
	codecJSON = 0x0200 // plain JSON: no links
)

// Links returns the CIDs that a block of any known codec links to, in the order in which they stand there and as
// often: raw, dag-pb, dag-cbor, dag-json, and plain CBOR and JSON, which have none. It returns an [*dray.Error]
// wrapping [ErrCodec] for another codec and [ErrInvalid] for a block that cannot be read.
func Links(b dray.Block) ([]cid.Cid, error) {
	links, err := linksOf(b)
	return links, at("read links of", b.CID(), err)
}

func linksOf(b dray.Block) ([]cid.Cid, error) {
	switch b.CID().Type() {
	case cid.Raw, codecCBOR, codecJSON:
		return nil, nil
	case cid.DagProtobuf:
		return pbLinks(b.Data())
	case cid.DagCBOR:
		return dataLinks(b.Data(), func(na datamodel.NodeAssembler, r *bytes.Reader) error {
			return dagcbor.DecodeOptions{AllowLinks: true, RelaxedDecode: true}.Decode(na, r)
		})
	case cid.DagJSON:
		return dataLinks(b.Data(), func(na datamodel.NodeAssembler, r *bytes.Reader) error {
			return dagjson.DecodeOptions{ParseLinks: true, ParseBytes: true}.Decode(na, r)
		})
	}
	return nil, fmt.Errorf("%w 0x%x", ErrCodec, b.CID().Type())
}

func pbLinks(block []byte) ([]cid.Cid, error) {
	pb, err := scanPB(block)
	if err != nil || pb.links == 0 {
		return nil, err
	}
	var r cidReader
	links := make([]cid.Cid, pb.links)
	rest := pb.linksAt.of(block)
	for i := range links {
		var l pbLink
		if l, rest, err = nextLink(rest); err != nil {
			return nil, err
		}
		if links[i], err = r.read(l.hash); err != nil {
			return nil, err
		}
	}
	return links, nil
}

// dataLinks decodes a block of the IPLD data model. The decoders bound depth and memory themselves.
func dataLinks(block []byte, decode func(datamodel.NodeAssembler, *bytes.Reader) error) ([]cid.Cid, error) {
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := decode(nb, bytes.NewReader(block)); err != nil {
		return nil, invalid("%v", err)
	}
	found, err := traversal.SelectLinks(nb.Build())
	if err != nil {
		return nil, invalid("%v", err)
	}
	links := make([]cid.Cid, 0, len(found))
	for _, l := range found {
		cl, ok := l.(cidlink.Link)
		if !ok {
			return nil, invalid("link of type %T", l)
		}
		if err := dray.CheckCID(cl.Cid); err != nil {
			return nil, fmt.Errorf("%w: link: %w", ErrInvalid, err)
		}
		links = append(links, cl.Cid)
	}
	return links, nil
}

// Sweep finds every block under some roots, whatever the codecs: each once, parents before children, depth first as
// far as the blocks' arrival allows. It is the counterpart of [Walk] for DAGs that are no files, and for whole
// copies. Like Walk it is a state machine without input or output. It is not safe for concurrent use.
type Sweep struct {
	stack    []cid.Cid // to be asked for, the next one last
	seen     map[cid.Cid]struct{}
	out      map[cid.Cid]struct{} // asked for and not fed
	maxBlock int
	err      error
}

// NewSweep returns a Sweep over everything under roots, of at most maxBlocks different blocks; if maxBlocks is zero,
// 2^26. Whatever maxBlocks, it gives up with [ErrTooLarge] when over four million links wait to be followed.
func NewSweep(maxBlocks int, roots ...cid.Cid) *Sweep {
	if maxBlocks == 0 {
		maxBlocks = 1 << 26
	}
	s := &Sweep{seen: make(map[cid.Cid]struct{}), out: make(map[cid.Cid]struct{}), maxBlock: maxBlocks}
	s.push(roots)
	s.settle()
	return s
}

// Need appends to dst the CIDs of up to n blocks that have not been asked for yet. Blocks that are inside their own
// CIDs are never asked for.
func (s *Sweep) Need(dst []cid.Cid, n int) []cid.Cid {
	for ; n > 0 && len(s.stack) > 0 && s.err == nil; n-- {
		c := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		s.seen[c] = struct{}{}
		s.out[c] = struct{}{}
		dst = append(dst, c)
		s.settle()
	}
	return dst
}

// Feed hands in a block. A block that is not outstanding is ignored. The error, if any, is that of [Links], or wraps
// [ErrTooLarge]; it ends the sweep and is returned by every later call.
func (s *Sweep) Feed(b dray.Block) error {
	if _, wanted := s.out[b.CID()]; s.err != nil || !wanted {
		return s.err
	}
	delete(s.out, b.CID())
	s.open(b)
	s.settle()
	return s.err
}

// Err returns what ended the sweep, or nil.
func (s *Sweep) Err() error { return s.err }

// Done reports whether everything was fed.
func (s *Sweep) Done() bool { return s.err == nil && len(s.stack) == 0 && len(s.out) == 0 }

// settle removes from the top of the stack what need not be asked for, so that what is then on top must be.
func (s *Sweep) settle() {
	for len(s.stack) > 0 && s.err == nil {
		c := s.stack[len(s.stack)-1]
		_, seen := s.seen[c]
		if !seen && len(s.seen) >= s.maxBlock {
			s.err = at("sweep", c, ErrTooLarge)
			return
		}
		b, inside := identityBlock(c)
		if !seen && !inside {
			return
		}
		s.stack = s.stack[:len(s.stack)-1]
		if !seen {
			s.seen[c] = struct{}{}
			s.open(b)
		}
	}
}

func (s *Sweep) open(b dray.Block) {
	links, err := Links(b)
	if err != nil {
		s.err = err
		return
	}
	s.push(links)
}

// maxPending is the most links that may wait on a Sweep's stack.
const maxPending = 1 << 22

// push puts links on the stack so that the first comes off first.
func (s *Sweep) push(links []cid.Cid) {
	if len(s.stack)+len(links) > maxPending {
		s.err = &dray.Error{Op: "sweep", Err: ErrTooLarge}
		return
	}
	for i := len(links) - 1; i >= 0; i-- {
		if _, seen := s.seen[links[i]]; !seen {
			s.stack = append(s.stack, links[i])
		}
	}
}
