package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"

	gw "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-cid"

	"dray"
	"dray/unixfs"
)

// carStream is a CAR that is made while it is read: parents before children, depth first, children in the order in
// which their parent names them. It holds the way down to where it is, and a piece of a block.
type carStream struct {
	q    *request
	dups bool
	head []byte           // bytes to be sent before the body
	body *blockFile       // the block that is being sent; nil between two
	todo []carStep        // the last is next
	sent map[cid.Cid]bool // blocks that were sent; true: with all that is under them. Nil if they may be sent again.
	buf  []byte
}

// carStep is a part of a graph that is still to be sent.
type carStep struct {
	c    cid.Cid
	what carPart
	// from and to are the bytes of a file's part that are wanted, relative to its beginning, and size is its length.
	from, to, size int64
}

// carPart says how much of what is below a block belongs to a CAR.
type carPart uint8

const (
	onlyBlock  carPart = iota // nothing
	everything                // all
	fileBytes                 // the blocks that hold the wanted bytes
	allShards                 // the other blocks of a sharded directory, but not its entries
)

const (
	carAhead = 32 // blocks that are asked for ahead, once one was missing
	// maxCARSteps bounds what is to be sent and waits: siblings of all that is on the way down.
	maxCARSteps = 4 << 20
)

// newCARStream returns a CAR with some blocks in it.
func newCARStream(q *request, root cid.Cid, blocks []cid.Cid, params gw.CarParams) *carStream {
	s := &carStream{q: q, dups: params.Duplicates.Bool()}
	if !s.dups {
		s.sent = make(map[cid.Cid]bool)
	}
	s.head = appendCARHeader(nil, root)
	for i := len(blocks) - 1; i >= 0; i-- {
		s.todo = append(s.todo, carStep{c: blocks[i]})
	}
	return s
}

// openCAR returns the CAR for what a path names. That block is there when it returns.
func (q *request) openCAR(ctx context.Context, p followed, params gw.CarParams) (*carStream, error) {
	step, err := q.carOf(ctx, p.last, params)
	if err != nil {
		return nil, err
	}
	s := newCARStream(q, p.last, p.visited, params)
	s.todo = append([]carStep{step}, s.todo...)
	return s, nil
}

// carOf says what of a graph belongs to a CAR, trustless gateway, "dag-scope" and "entity-bytes".
func (q *request) carOf(ctx context.Context, c cid.Cid, params gw.CarParams) (carStep, error) {
	step := carStep{c: c}
	scope := params.Scope
	if params.Range != nil {
		scope = gw.DagScopeEntity // it implies that
	}
	if scope == gw.DagScopeAll {
		step.what = everything
	}
	if scope != gw.DagScopeEntity || c.Type() != cid.DagProtobuf {
		f, err := q.openBlock(c) // so that what is absent is so before anything is sent
		if err == nil && params.Range != nil && c.Type() == cid.Raw {
			if _, _, err = window(params.Range, f.size); errors.Is(err, errEmpty) {
				err = nil
			}
		}
		return step, err
	}
	n, err := q.node(ctx, c)
	switch {
	case errors.Is(err, unixfs.ErrNotUnixFS):
		return step, nil // what is no UnixFS is an entity by itself
	case err != nil:
		return step, err
	case n.Kind == unixfs.Shard:
		step.what = allShards
	case n.Kind == unixfs.File:
		step.size = n.Size
		step.from, step.to, err = window(params.Range, n.Size)
		if errors.Is(err, errEmpty) {
			return step, nil
		}
		step.what = fileBytes
	}
	return step, err
}

// errEmpty means that a range has no bytes; the root of the file says why.
var errEmpty = errors.New("no bytes")

// window returns the bytes [from, to) that a range means in a file.
func window(r *gw.DagByteRange, size int64) (from, to int64, err error) {
	if r == nil {
		return 0, size, nil
	}
	from, to = r.From, size-1
	if from < 0 {
		from = max(from+size, 0)
	}
	if r.To != nil {
		to = *r.To
		if to < 0 {
			to += size
		}
		to = min(to, size-1)
	}
	switch {
	case r.From >= size && size > 0:
		return 0, 0, gw.NewErrorStatusCode(
			fmt.Errorf("entity-bytes begins at %d, and there are %d bytes", r.From, size), http.StatusBadRequest)
	case to < from:
		return 0, 0, errEmpty
	}
	return from, to + 1, nil
}

// Read implements [io.Reader].
func (s *carStream) Read(p []byte) (int, error) {
	for {
		if len(s.head) > 0 {
			n := copy(p, s.head)
			s.head = s.head[n:]
			return n, nil
		}
		if s.body != nil {
			n, err := s.body.Read(p)
			if n > 0 || len(p) == 0 {
				return n, nil
			}
			if !errors.Is(err, io.EOF) {
				return 0, err
			}
			s.body = nil
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
}

// WriteTo implements [io.WriterTo], by pieces. What breaks it off is the writer's too, which cuts the connection.
func (s *carStream) WriteTo(w io.Writer) (total int64, err error) {
	if s.q.ask.r.Method == http.MethodHead {
		return 0, nil
	}
	total, err = s.q.copyPieces(w, s, true)
	if err != nil {
		s.q.breakOff(err)
	}
	return total, err
}

// Close implements [io.Closer].
func (s *carStream) Close() error { return nil }

// next makes the next block the one to be sent, or returns [io.EOF].
func (s *carStream) next() error {
	for len(s.todo) > 0 {
		if err := s.q.ctx.Err(); err != nil {
			return context.Cause(s.q.ctx)
		}
		step := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		whole, again := s.sent[step.c]
		if again && (whole || step.what == onlyBlock) {
			continue
		}
		if s.q.g.parts != nil && !dray.IsIdentity(step.c) && !s.q.local(s.q.ctx, step.c) {
			s.ahead()
		}
		if err := s.expand(step); err != nil {
			return err
		}
		if s.sent != nil {
			s.sent[step.c] = step.complete()
		}
		if again || dray.IsIdentity(step.c) { // trustless gateway, "CAR dups": identity blocks are not included
			continue
		}
		b, err := s.q.openBlock(step.c)
		if err != nil {
			return err
		}
		s.body = b
		s.head = binary.AppendUvarint(s.buf[:0], uint64(step.c.ByteLen())+uint64(b.size))
		s.head = append(s.head, step.c.KeyString()...)
		s.buf = s.head
		if b.size == 0 {
			s.body = nil
		}
		return nil
	}
	return io.EOF
}

// complete reports whether all that is under the block is sent with it.
func (x *carStep) complete() bool {
	switch x.what {
	case everything, allShards:
		return true
	case fileBytes:
		return x.from <= 0 && x.to >= x.size
	}
	return x.c.Type() == cid.Raw
}

// expand puts what is under a block, and belongs to the CAR, before everything else that is to be done.
func (s *carStream) expand(x carStep) error {
	if x.what == onlyBlock || x.c.Type() == cid.Raw {
		return nil
	}
	b, err := s.q.Get(s.q.ctx, x.c)
	if err != nil {
		return err
	}
	var below []carStep
	if x.what == everything {
		links, err := unixfs.Links(b)
		if err != nil && !errors.Is(err, unixfs.ErrCodec) {
			return err
		}
		for _, l := range links {
			below = append(below, carStep{c: l, what: everything})
		}
	} else {
		n, err := unixfs.Parse(b)
		if err != nil {
			return err
		}
		if below, err = x.children(&n); err != nil {
			return err
		}
	}
	if len(s.todo)+len(below) > maxCARSteps {
		return fmt.Errorf("%w: a graph with so many links", unixfs.ErrTooLarge)
	}
	for i := len(below) - 1; i >= 0; i-- {
		s.todo = append(s.todo, below[i])
	}
	return nil
}

// children returns the parts of a file or sharded directory that belong to the CAR.
func (x *carStep) children(n *unixfs.Node) (below []carStep, err error) {
	switch {
	case x.what == allShards && n.Kind == unixfs.Shard:
		for _, l := range n.Links {
			if l.Name == "" {
				below = append(below, carStep{c: l.CID, what: allShards})
			}
		}
	case x.what == fileBytes && n.Kind == unixfs.File:
		at := int64(len(n.Data))
		for _, l := range n.Links {
			if at < x.to && at+l.Size > x.from {
				below = append(below, carStep{c: l.CID, what: fileBytes, from: x.from - at, to: x.to - at, size: l.Size})
			}
			at += l.Size
		}
		if n.Size != x.size {
			return nil, fmt.Errorf("%w: %v holds %d bytes where its parent says %d", unixfs.ErrInvalid, x.c, n.Size, x.size)
		}
	default:
		return nil, fmt.Errorf("%w: %v is a %v, which does not belong there", unixfs.ErrInvalid, x.c, n.Kind)
	}
	return below, nil
}

// ahead asks for what comes next.
func (s *carStream) ahead() {
	var next []cid.Cid
	for i := len(s.todo) - 1; i >= 0 && len(next) < carAhead; i-- {
		if !dray.IsIdentity(s.todo[i].c) {
			next = append(next, s.todo[i].c)
		}
	}
	if len(next) > 0 {
		s.q.ahead(next)
	}
}

// appendCARHeader appends the header of a CAR of version 1 with one root: DAG-CBOR of {"roots": [root], "version": 1}.
func appendCARHeader(dst []byte, root cid.Cid) []byte {
	link := append([]byte{0}, root.Bytes()...) // a CID in CBOR begins with the identity multibase
	h := []byte{0xa2, 0x65}
	h = append(h, "roots"...)
	h = append(h, 0x81, 0xd8, 42)
	switch {
	case len(link) < 24:
		h = append(h, 0x40|byte(len(link)))
	case len(link) < 256:
		h = append(h, 0x58, byte(len(link)))
	default:
		h = append(h, 0x59, byte(len(link)>>8), byte(len(link)))
	}
	h = append(h, link...)
	h = append(h, 0x67)
	h = append(h, "version"...)
	h = append(h, 1)
	return append(binary.AppendUvarint(dst, uint64(len(h))), h...)
}
