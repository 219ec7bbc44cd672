package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/digest"
	"dray/tensor"
	"dray/unixfs"
)

// The way of an added file, from disk to index:
//
//  1. The header of a file of tensors says where to cut; any other file is cut every so many bytes.
//  2. The calling goroutine reads chunks into buffers and submits them to the hash pool, up to a bound.
//  3. Chunks come back in the order in which they were read; each leaf's CID goes to the builder of its section, or of the
//     file where there are no sections, which emits interior nodes, and to the file's reference in the index. Nothing but
//     the few bytes around the content is kept. A section that is complete becomes a part of the file.
//  4. Interior nodes are put into the store; the reference is committed; waiting peers are told.

const addBytes = 32 << 20 // buffers of chunks read and not hashed yet

// chunk is a piece of a file on its way through the hash pool.
type chunk struct {
	job     digest.Job
	buf     []byte // the leaf's block, in a buffer from the pool
	content int64
	edge    edge
	done    chan struct{} // one slot
}

// edge says where in its section a chunk lies. The zero edge is that of a file without sections.
type edge struct {
	inside      bool // there are sections
	first, last bool // of its section
	tensor      bool // the section is a tensor
}

func (a *adder) addFile(path string) (ref unixfs.Ref, err error) {
	file, err := os.Open(path)
	if err != nil {
		return unixfs.Ref{}, err
	}
	defer file.Close()
	var index dray.Reference
	if !a.cfg.OnlyHash && !a.cfg.Copy {
		if a.files == nil {
			return unixfs.Ref{}, fmt.Errorf("add %s: the store keeps no references to files; add a copy", path)
		}
		if index, err = a.files.Reference(a.ctx, path); err != nil {
			return unixfs.Ref{}, err
		}
		defer index.Close()
	}
	l := &leafLine{
		a: a, index: index, room: len(a.cfg.Profile.AppendLeafHead(nil, a.cfg.Profile.ChunkSize)),
		whole: unixfs.NewBuilder(a.cfg.Profile, a.emit), part: unixfs.NewBuilder(a.cfg.Profile, a.emit),
	}
	defer l.abandon()
	a.progress.Path = path
	// The reference has the file's identity already, so a change after this is noticed.
	if err := l.read(file, path); err != nil {
		return unixfs.Ref{}, fmt.Errorf("add %s: %w", path, err)
	}
	ref, err = l.whole.Finish()
	if err != nil {
		return unixfs.Ref{}, err
	}
	if index != nil {
		if a.cfg.Guard.Defined() {
			a.guardAll(len(l.stats), func(i int) cid.Cid { return l.stats[i].CID })
		}
		if err := index.Commit(a.ctx); err != nil {
			return unixfs.Ref{}, err
		}
		a.result.Kept = append(a.result.Kept, path)
		a.n.Added(l.stats...)
	}
	a.result.Files++
	a.progress.Files++
	return ref, nil
}

// describe returns what a file of tensors says of itself, or nil for a file that is to be cut like any other.
func (a *adder) describe(file *os.File, path string) (*tensor.File, error) {
	if a.cfg.Layout != LayoutTensors {
		return nil, nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	promised := tensor.FormatOf(path)
	f, err := tensor.Read(file, info.Size())
	if errors.Is(err, tensor.ErrNotTensors) && promised != "" {
		f, err = tensor.ReadAs(promised, file, info.Size())
	}
	var wrong *tensor.HeaderError
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, tensor.ErrNotTensors):
		return nil, nil
	case !errors.As(err, &wrong):
		return nil, err
	}
	// Many files are zip files, and few of them are meant to hold arrays.
	if wrong.Format != tensor.NPZ || promised == tensor.NPZ {
		a.result.MalformedFiles++
		if len(a.result.Malformed) < keptMalformed {
			a.result.Malformed = append(a.result.Malformed, Malformed{Path: path, Err: wrong})
		}
	}
	return nil, nil
}

// leafLine is one file's chunks under way, oldest first.
type leafLine struct {
	a     *adder
	index dray.Reference
	room  int             // bytes before the content of a leaf, at most
	whole *unixfs.Builder // of the file
	part  *unixfs.Builder // of the section that leaves are being added to
	known bool            // all leaves of that section so far were here before
	line  []*chunk
	head  int
	bytes int64 // of the buffers under way
	at    int64 // where the next leaf begins
	free  []*chunk
	stats []dray.Stat
}

// read cuts the file and has every leaf filed.
func (l *leafLine) read(file *os.File, path string) error {
	size := l.a.cfg.Profile.ChunkSize
	parts, err := l.a.describe(file, path)
	if err != nil {
		return err
	}
	if parts == nil {
		for {
			if n, err := l.cut(file, size, edge{}); err != nil || n < size {
				return errors.Join(err, l.settle(0))
			}
		}
	}
	for c := range parts.Chunks(size) {
		e := edge{inside: true, first: c.First, last: c.Last, tensor: c.Section.Kind == tensor.Data}
		if n, err := l.cut(file, c.End-c.Begin, e); err != nil {
			return err
		} else if n < c.End-c.Begin {
			return fmt.Errorf("%w: it ended at byte %d of %d", dray.ErrChanged, c.Begin+n, parts.Size)
		}
	}
	switch n, err := file.Read(make([]byte, 1)); {
	case n > 0:
		return fmt.Errorf("%w: it grew beyond its %d bytes", dray.ErrChanged, parts.Size)
	case err != nil && !errors.Is(err, io.EOF):
		return err
	}
	return l.settle(0)
}

// cut reads the next leaf, of n bytes or what is left, and has it hashed. It returns the number of bytes.
func (l *leafLine) cut(file io.Reader, n int64, e edge) (int64, error) {
	a := l.a
	if a.ctx.Err() != nil {
		return 0, ctxError(a.ctx)
	}
	c := l.chunk()
	c.edge = e
	c.buf = a.n.buffers.get(int(n) + 2*l.room + 16)
	k, err := io.ReadFull(file, c.buf[l.room:l.room+int(n)])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err != nil || k == 0 {
		a.n.buffers.put(c.buf)
		l.free = append(l.free, c)
		return 0, err
	}
	if err := l.submit(c, k); err != nil {
		return 0, err
	}
	return int64(k), l.settle(addBytes)
}

func (l *leafLine) chunk() *chunk {
	if n := len(l.free); n > 0 {
		c := l.free[n-1]
		l.free = l.free[:n-1]
		return c
	}
	c := &chunk{done: make(chan struct{}, 1)}
	c.job.Done = func(*digest.Job) { c.done <- struct{}{} }
	return c
}

// submit lays head and tail around the k bytes that were read behind room for them, and has the block hashed.
func (l *leafLine) submit(c *chunk, k int) error {
	p := l.a.cfg.Profile
	var frame [64]byte
	h := p.AppendLeafHead(frame[:0], int64(k))
	if len(h) > l.room {
		return fmt.Errorf("node: a leaf's head takes %d bytes, room for %d", len(h), l.room)
	}
	from := l.room - len(h)
	copy(c.buf[from:], h)
	t := p.AppendLeafTail(frame[:0], int64(k))
	copy(c.buf[l.room+k:], t)
	c.content = int64(k)
	c.job.CID, c.job.Prefix = cid.Undef, p.LeafPrefix()
	c.job.Data = c.buf[from : l.room+k+len(t)]
	if l.head > 64 && l.head > len(l.line)/2 {
		n := copy(l.line, l.line[l.head:])
		clear(l.line[n:])
		l.line, l.head = l.line[:n], 0
	}
	l.line = append(l.line, c)
	l.bytes += int64(cap(c.buf))
	return l.a.n.hash.Submit(&c.job)
}

// settle takes finished chunks from the front until at most limit bytes of buffers are under way.
func (l *leafLine) settle(limit int64) error {
	for l.head < len(l.line) {
		c := l.line[l.head]
		if l.bytes <= limit {
			return nil
		}
		<-c.done
		l.line[l.head] = nil
		l.head++
		if l.head == len(l.line) {
			l.line, l.head = l.line[:0], 0
		}
		l.bytes -= int64(cap(c.buf))
		if err := l.leaf(c); err != nil {
			return err
		}
		l.a.n.buffers.put(c.buf)
		c.job.Block, c.job.Data, c.buf = dray.Block{}, nil, nil
		l.free = append(l.free, c)
	}
	return nil
}

// leaf files one hashed chunk.
func (l *leafLine) leaf(c *chunk) error {
	a := l.a
	if c.job.Err != nil {
		return c.job.Err
	}
	b := c.job.Block
	known, err := l.wasHere(b.CID())
	if err != nil {
		return err
	}
	if known {
		a.result.Known += c.content
	}
	if err := l.build(c, known); err != nil {
		return err
	}
	switch {
	case l.index != nil:
		head, _, tail, err := unixfs.SplitLeaf(b.CID(), b.Data())
		if err != nil {
			return err
		}
		// Index keeps head and tail, and the buffer goes back to the pool.
		head, tail = append([]byte(nil), head...), append([]byte(nil), tail...)
		if err := l.index.Index(b.CID(), head, tail, l.at, c.content); err != nil {
			return err
		}
		l.stats = append(l.stats, dray.Stat{CID: b.CID(), Size: int64(b.Size())})
	case a.cfg.Copy:
		a.guard(b)
		if err := a.n.Put(a.ctx, b); err != nil {
			return err
		}
	}
	l.at += c.content
	a.result.Leaves++
	a.result.Bytes += c.content
	a.progress.Bytes += c.content
	a.show(false)
	return nil
}

// wasHere reports whether the store had a leaf before this Add, elsewhere than in this file.
func (l *leafLine) wasHere(leaf cid.Cid) (bool, error) {
	a := l.a
	if a.cfg.OnlyHash {
		return false, nil
	}
	// Eight bytes of a digest tell leaves apart well enough to count them, at a few bytes a leaf.
	s := leaf.KeyString()
	key := binary.LittleEndian.Uint64([]byte(s[max(0, len(s)-8):]))
	if _, fresh := a.fresh[key]; fresh {
		return false, nil
	}
	var known bool
	var err error
	if l.index != nil {
		known, err = l.index.Elsewhere(leaf)
	} else if _, err = a.n.store.Stat(a.ctx, leaf); err == nil {
		known = true
	} else if errors.Is(err, dray.ErrNotFound) {
		err = nil
	}
	if err == nil && !known {
		a.fresh[key] = struct{}{}
	}
	return known, err
}

// build adds a leaf to the tree, and its section when it is the last of it.
func (l *leafLine) build(c *chunk, known bool) error {
	b := c.job.Block
	if !c.edge.inside {
		return l.whole.AddLeaf(b.CID(), c.content, int64(b.Size()))
	}
	if c.edge.first {
		l.part.Reset()
		l.known = true
	}
	if err := l.part.AddLeaf(b.CID(), c.content, int64(b.Size())); err != nil {
		return err
	}
	l.known = l.known && known
	if !c.edge.last {
		return nil
	}
	if c.edge.tensor {
		l.a.result.Tensors++
		if l.known {
			l.a.result.KnownTensors++
		}
	}
	section, err := l.part.Finish()
	if err != nil {
		return err
	}
	return l.whole.AddNode(section)
}

// abandon waits for what the pool still hashes, so that buffers are not used twice.
func (l *leafLine) abandon() {
	for ; l.head < len(l.line); l.head++ {
		c := l.line[l.head]
		select {
		case <-c.done:
			l.a.n.buffers.put(c.buf)
		case <-l.a.n.done: // the pool will not finish; the buffer is left to the garbage collector
		}
	}
}
