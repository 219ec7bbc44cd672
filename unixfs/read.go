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
}

// Reader reads a file, block by block as needed. It holds the interior nodes on the way to the current place, and the
// current leaf. Read, Seek and WriteTo must not be called concurrently; ReadAt may be, with itself and with them.
type Reader struct {
	ctx    context.Context
	g      dray.Getter
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
	b, ok := identityBlock(c)
	if !ok {
		var err error
		if b, err = r.g.Get(r.ctx, c); err != nil {
			return Node{}, err
		}
	}
	n, err := Parse(b)
	if err == nil && n.Kind != Raw && n.Kind != File {
		err = at("read", c, fmt.Errorf("%w: it is a %v", ErrNotFile, n.Kind))
	}
	return n, err
}

// Size returns the file's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.load(); err != nil {
		return 0, err
	}
	n := copy(p, r.leaf[r.offset-r.leafAt:])
	r.offset += int64(n)
	return n, nil
}

// WriteTo implements [io.WriterTo]. It hands w each leaf's content without copying it.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if err := r.load(); err != nil {
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
		leaf, start, err := r.find(&path, offset, false)
		if err != nil {
			return total, err
		}
		n := copy(p[total:], leaf[offset-start:])
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

// load makes the leaf at offset the current one.
func (r *Reader) load() error {
	switch {
	case r.closed:
		return dray.ErrClosed
	case r.offset >= r.size:
		return io.EOF
	case r.offset >= r.leafAt && r.offset < r.leafAt+int64(len(r.leaf)):
		return nil
	}
	leaf, start, err := r.find(&r.path, r.offset, true)
	if err != nil {
		return err
	}
	r.leaf, r.leafAt = leaf, start
	return nil
}

// find returns the leaf that holds the byte at offset, and where it begins. Path, which begins with the root, is left
// at the node above the leaf, so that the next leaf is found at once.
func (r *Reader) find(path *[]readFrame, offset int64, sequential bool) (leaf []byte, start int64, err error) {
	for len(*path) > 1 {
		if f := &(*path)[len(*path)-1]; offset >= f.start && offset < f.end {
			break
		}
		*path = (*path)[:len(*path)-1]
	}
	for {
		f := &(*path)[len(*path)-1]
		if offset < f.start+int64(len(f.own)) {
			return f.own, f.start, nil
		}
		f.moveTo(offset)
		l := f.links[f.i]
		n, early := Node{}, false
		if sequential && r.cfg.Ahead != nil {
			if n, early = r.front.early[l.CID]; early {
				delete(r.front.early, l.CID)
			} else if looksLikeLeaf(l) {
				r.lookAhead(*path)
			}
		}
		if !early {
			if n, err = r.get(l.CID); err != nil {
				return nil, 0, err
			}
		}
		if n.Size != l.Size {
			return nil, 0, at("read", l.CID, invalid("holds %d bytes where its parent says %d", n.Size, l.Size))
		}
		if len(n.Links) == 0 {
			return n.Data, f.at, nil
		}
		if len(*path) >= maxFileDepth {
			return nil, 0, at("read", l.CID, ErrTooLarge)
		}
		*path = append(*path, newFrame(n, f.at))
	}
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
