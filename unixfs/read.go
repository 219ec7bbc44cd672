package unixfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"dray"
)

// ReaderConfig tunes a [Reader]. The zero value is ready to use.
type ReaderConfig struct {
	// Ahead, if set, is called with blocks that sequential reading will need soon, nearest first, just before the Reader
	// itself waits for a block. It must not block, and must not keep the slice.
	Ahead func([]cid.Cid)
	// AheadBytes is how far beyond the current leaf Ahead looks, in content bytes. If zero, 16 MiB. To look beyond an
	// interior node the Reader must load it, and does so halfway there, so that Ahead has had time to bring it.
	AheadBytes int64
	// Nodes, if set, remembers interior nodes, for readers that are opened again and again.
	Nodes NodeCache
}

// NodeCache remembers nodes that were read, by the CID of their block. Nodes are not changed by anybody. It must be as safe for
// concurrent use as the readers that have it need.
type NodeCache interface {
	// Node returns a node that is remembered, if the reader may have it.
	Node(c cid.Cid) (Node, bool)
	// Keep may remember a node.
	Keep(c cid.Cid, n Node)
}

// Reader reads a file, block by block as needed. It holds the interior nodes on the way to the current place, and the
// current leaf. Leaves that are nothing but content are read by parts, and not held, as far as the Getter is a
// [dray.PartGetter] that has them. Read, Seek and WriteTo must not be called concurrently; ReadAt may be, with itself
// and with them.
type Reader struct {
	ctx    context.Context
	g      dray.Getter
	parts  dray.PartGetter // g, if it can; else nil
	missed bool            // a leaf could not be read by parts: those ahead may have to be asked for
	cfg    ReaderConfig
	size   int64
	root   readFrame
	path   []readFrame // from the root to the node above the current leaf
	offset int64       // of the next Read
	leaf   []byte      // content of the current leaf
	leafAt int64       // where it begins
	front  front
	closed bool
}

// readFrame is an interior node and a place in it.
type readFrame struct {
	own        []byte // content before that of the links
	links      []Link
	start, end int64
	i          int   // links[i] is the current child
	at         int64 // where it begins
}

var (
	_ io.ReadSeekCloser = (*Reader)(nil)
	_ io.ReaderAt       = (*Reader)(nil)
	_ io.WriterTo       = (*Reader)(nil)
)

// NewReader returns a Reader for the file under root. It gets the root block, and all others, from g with ctx. It
// returns an error wrapping [ErrNotFile] if root is a directory or a symlink, and those of [Parse] and of g.
func NewReader(ctx context.Context, g dray.Getter, root cid.Cid, cfg ReaderConfig) (*Reader, error) {
	if cfg.AheadBytes == 0 {
		cfg.AheadBytes = 16 << 20
	}
	r := &Reader{ctx: ctx, g: g, cfg: cfg}
	r.parts, _ = g.(dray.PartGetter)
	if r.parts != nil && root.Type() == cid.Raw {
		if _, size, err := r.parts.GetPart(ctx, root, nil, 0); err == nil {
			r.size, r.root = size, readFrame{links: []Link{{CID: root, Size: size}}, end: size}
			r.path = []readFrame{r.root}
			return r, nil
		}
	}
	n, err := r.get(root)
	if err != nil {
		return nil, err
	}
	r.size, r.root = n.Size, newFrame(n, 0)
	r.path = []readFrame{r.root}
	return r, nil
}

func newFrame(n Node, start int64) readFrame {
	return readFrame{own: n.Data, links: n.Links, start: start, end: start + n.Size, at: start + int64(len(n.Data))}
}

// get returns a block of the file.
func (r *Reader) get(c cid.Cid) (Node, error) {
	nodes := r.cfg.Nodes
	if c.Type() == cid.Raw {
		nodes = nil
	}
	if nodes != nil {
		if n, ok := nodes.Node(c); ok {
			return r.fileOnly(c, n)
		}
	}
	b, ok := identityBlock(c)
	if !ok {
		var err error
		if b, err = r.g.Get(r.ctx, c); err != nil {
			return Node{}, err
		}
	}
	n, err := Parse(b)
	if err != nil {
		return n, err
	}
	if nodes != nil && len(n.Links) > 0 {
		nodes.Keep(c, n)
	}
	return r.fileOnly(c, n)
}

func (r *Reader) fileOnly(c cid.Cid, n Node) (Node, error) {
	if n.Kind != Raw && n.Kind != File {
		return n, at("read", c, fmt.Errorf("%w: it is a %v", ErrNotFile, n.Kind))
	}
	return n, nil
}

// Size returns the file's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.load(p)
	if err == nil && n == 0 {
		n = copy(p, r.leaf[r.offset-r.leafAt:])
	}
	r.offset += int64(n)
	return n, err
}

// WriteTo implements [io.WriterTo]. It hands w each leaf's content without copying it.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if _, err := r.load(nil); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		n, err := w.Write(r.leaf[r.offset-r.leafAt:])
		r.offset += int64(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Seek implements [io.Seeker]. It loads nothing.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	default:
		return 0, fmt.Errorf("seek: unknown whence %d", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek: before the beginning of the file")
	}
	r.offset = offset
	return offset, nil
}

// ReadAt implements [io.ReaderAt]. It starts at the root each time, so it suits large reads in any order; the
// interior nodes come from g again and again.
func (r *Reader) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("read at: before the beginning of the file")
	}
	if r.closed {
		return 0, dray.ErrClosed
	}
	path := []readFrame{r.root}
	total := 0
	for total < len(p) {
		if offset >= r.size {
			return total, io.EOF
		}
		leaf, start, n, err := r.find(&path, offset, false, p[total:])
		if err != nil {
			return total, err
		}
		if n == 0 {
			n = copy(p[total:], leaf[offset-start:])
		}
		total += n
		offset += int64(n)
	}
	return total, nil
}

// Close makes later calls fail with [dray.ErrClosed]. It never fails.
func (r *Reader) Close() error {
	r.closed = true
	r.leaf, r.path, r.front = nil, nil, front{}
	return nil
}

// load makes the leaf at offset the current one; or it reads n bytes from there on into p and there is none.
func (r *Reader) load(p []byte) (n int, err error) {
	switch {
	case r.closed:
		return 0, dray.ErrClosed
	case r.offset >= r.size:
		return 0, io.EOF
	case r.offset >= r.leafAt && r.offset < r.leafAt+int64(len(r.leaf)):
		return 0, nil
	}
	leaf, start, n, err := r.find(&r.path, r.offset, true, p)
	if err != nil {
		return 0, err
	}
	r.leaf, r.leafAt = leaf, start
	return n, nil
}

// find returns the leaf that holds the byte at offset, and where it begins; or, where that needs no whole leaf, it
// reads n bytes from offset on into p. Path, which begins with the root, is left at the node above the leaf, so that
// the next leaf is found at once.
func (r *Reader) find(
	path *[]readFrame, offset int64, sequential bool, p []byte,
) (leaf []byte, start int64, n int, err error) {
	for len(*path) > 1 {
		if f := &(*path)[len(*path)-1]; offset >= f.start && offset < f.end {
			break
		}
		*path = (*path)[:len(*path)-1]
	}
	for {
		f := &(*path)[len(*path)-1]
		if offset < f.start+int64(len(f.own)) {
			return f.own, f.start, 0, nil
		}
		f.moveTo(offset)
		l := f.links[f.i]
		ahead := sequential && r.cfg.Ahead != nil
		if ahead && r.missed && looksLikeLeaf(l) {
			r.lookAhead(*path)
		}
		n, err := r.part(l, f.at, offset, p)
		if n > 0 || err != nil {
			return nil, 0, n, err
		}
		child, early := Node{}, false
		if ahead {
			if child, early = r.front.early[l.CID]; early {
				delete(r.front.early, l.CID)
			} else if !r.missed && looksLikeLeaf(l) {
				r.missed = r.parts != nil
				r.lookAhead(*path)
			}
		}
		if !early {
			if child, err = r.get(l.CID); err != nil {
				return nil, 0, 0, err
			}
		}
		if child.Size != l.Size {
			return nil, 0, 0, r.misfit(l, child.Size)
		}
		switch {
		case len(child.Links) > 0:
		case r.parts != nil && len(p) > 0 && child.Kind == Raw:
			return nil, 0, copy(p, child.Data[offset-f.at:]), nil // what comes next is read by parts, from where Get put it
		default:
			return child.Data, f.at, 0, nil
		}
		if len(*path) >= maxFileDepth {
			return nil, 0, 0, at("read", l.CID, ErrTooLarge)
		}
		*path = append(*path, newFrame(child, f.at))
	}
}

// part reads from a leaf that begins at start what is at offset and after, if that can be done without the whole leaf.
// It returns 0 if not.
func (r *Reader) part(l Link, start, offset int64, p []byte) (int, error) {
	if r.parts == nil || len(p) == 0 || l.CID.Type() != cid.Raw {
		return 0, nil
	}
	p = p[:min(int64(len(p)), start+l.Size-offset)]
	n, size, err := r.parts.GetPart(r.ctx, l.CID, p, offset-start)
	switch {
	case err != nil:
		return 0, nil // Get says what is wrong
	case size != l.Size:
		return 0, r.misfit(l, size)
	}
	return n, nil
}

func (r *Reader) misfit(l Link, size int64) error {
	return at("read", l.CID, invalid("holds %d bytes where its parent says %d", size, l.Size))
}

// moveTo makes the child that holds the byte at offset, which lies within the links, the current one.
func (f *readFrame) moveTo(offset int64) {
	if offset < f.at {
		f.i, f.at = 0, f.start+int64(len(f.own))
	}
	for offset-f.at >= f.links[f.i].Size {
		f.at += f.links[f.i].Size
		f.i++
	}
}
