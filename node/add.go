package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/digest"
	"dray/unixfs"
)

// The way of an added file, from disk to index:
//
//  1. The calling goroutine reads chunks into buffers and submits them to the hash pool, up to a bound.
//  2. Chunks come back in the order in which they were read; each leaf's CID goes to the layout, which emits interior
//     nodes, and to the file's reference in the index. Nothing but the few bytes around the content is kept.
//  3. Interior nodes are put into the store; the reference is committed; waiting peers are told.

const addBytes = 32 << 20 // chunks read and not hashed yet

// AddConfig says how a file or directory becomes blocks. The zero value adds in place with the native profile.
type AddConfig struct {
	// Profile fixes the CIDs. If zero, unixfs.Native.
	Profile unixfs.Profile
	// Copy takes a copy of the bytes into the store instead of referring to the files where they lie.
	Copy bool
	// OnlyHash computes the CID and stores nothing.
	OnlyHash bool
	// Hidden includes files whose names begin with a dot in directories; without it they are left out. A path named in
	// the call is always added.
	Hidden bool
	// Progress, if set, is called a few times a second, on the goroutine that called Add.
	Progress func(AddProgress)
}

// AddProgress is how far an Add is.
type AddProgress struct {
	// Path is the file being read.
	Path string
	// Bytes were read, of Total in all files; Total is 0 until known.
	Bytes, Total int64
	// Files counts files read.
	Files int
	// Elapsed is the time since the call.
	Elapsed time.Duration
}

// AddResult is what an Add made.
type AddResult struct {
	// Root is the CID of the file or directory.
	Root cid.Cid
	// Bytes is the number of content bytes, Leaves and Files what they are in.
	Bytes         int64
	Leaves, Files int
	// Blocks counts the blocks besides leaves: interior nodes and directories.
	Blocks int
	// Known is how many of the bytes were in the store before.
	Known int64
	// Kept is the files that the store refers to now, as absolute paths.
	Kept []string
}

// Add makes a file, directory or symlink available under a CID. The store refers to the files where they lie unless
// cfg.Copy is set, so they should stay there; if they change, the store notices and serves nothing wrong. Special files
// (devices, sockets) are refused. Errors of the file system come as they are; [dray.ErrChanged] means that a file changed
// while it was read.
func (n *Node) Add(ctx context.Context, path string, cfg AddConfig) (AddResult, error) {
	if cfg.Profile.Name == "" && cfg.Profile.ChunkSize == 0 {
		cfg.Profile = unixfs.Native()
	}
	if err := cfg.Profile.Check(); err != nil {
		return AddResult{}, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return AddResult{}, err
	}
	a := &adder{n: n, ctx: ctx, cfg: cfg, start: time.Now()}
	a.files, _ = n.store.(dray.FileStore)
	if cfg.Progress != nil {
		a.progress.Total = totalSize(abs, cfg.Hidden)
	}
	ref, err := a.add(abs, 0)
	if err == nil {
		err = a.flush()
	}
	if err != nil {
		return AddResult{}, err
	}
	a.result.Root = ref.CID
	a.show(true)
	return a.result, nil
}

// adder is one call of Add.
type adder struct {
	n        *Node
	ctx      context.Context
	cfg      AddConfig
	files    dray.FileStore
	result   AddResult
	progress AddProgress
	start    time.Time
	shown    time.Time
	nodes    []dray.Block // interior nodes not put yet
	size     int
}

const maxDirDepth = 256

func (a *adder) add(path string, depth int) (unixfs.Ref, error) {
	if depth > maxDirDepth {
		return unixfs.Ref{}, fmt.Errorf("add %s: directories are nested more than %d deep", path, maxDirDepth)
	}
	info, err := os.Lstat(path)
	if depth == 0 && err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(path) // a link named in the call stands for what it points to
	}
	if err != nil {
		return unixfs.Ref{}, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return a.addFile(path)
	case mode.IsDir():
		return a.addDir(path, depth)
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return unixfs.Ref{}, err
		}
		return unixfs.BuildSymlink(a.cfg.Profile, target, a.emit)
	}
	return unixfs.Ref{}, fmt.Errorf("add %s: neither a file, a directory nor a symbolic link", path)
}

func (a *adder) addDir(path string, depth int) (unixfs.Ref, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		return unixfs.Ref{}, err
	}
	dir := unixfs.NewDirBuilder(a.cfg.Profile, a.emit)
	for _, e := range list {
		if skip(e.Name(), a.cfg.Hidden) {
			continue
		}
		ref, err := a.add(filepath.Join(path, e.Name()), depth+1)
		if err != nil {
			return unixfs.Ref{}, err
		}
		if err := dir.Add(e.Name(), ref); err != nil {
			return unixfs.Ref{}, fmt.Errorf("add %s: %w", path, err)
		}
	}
	return dir.Finish()
}

// skip reports whether a directory entry is left out: hidden files unless wanted, and always files that are being fetched.
func skip(name string, hidden bool) bool {
	return !hidden && name[0] == '.' || filepath.Ext(name) == partSuffix
}

const partSuffix = ".dray-part"

// chunk is a piece of a file on its way through the hash pool.
type chunk struct {
	job     digest.Job
	buf     []byte // the leaf's block, in a buffer from the pool
	content int64
	done    chan struct{} // one slot
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
	l := &leafLine{a: a, index: index, builder: unixfs.NewBuilder(a.cfg.Profile, a.emit)}
	defer l.abandon()
	a.progress.Path = path
	if err := l.read(file); err != nil {
		return unixfs.Ref{}, fmt.Errorf("add %s: %w", path, err)
	}
	ref, err = l.builder.Finish()
	if err != nil {
		return unixfs.Ref{}, err
	}
	if index != nil {
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

// leafLine is one file's chunks under way, oldest first.
type leafLine struct {
	a       *adder
	index   dray.Reference
	builder *unixfs.Builder
	line    []*chunk
	head    int
	bytes   int64
	offset  int64
	free    []*chunk
	stats   []dray.Stat
}

func (l *leafLine) read(file io.Reader) error {
	a, p := l.a, l.a.cfg.Profile
	for {
		if err := a.ctx.Err(); err != nil {
			return ctxError(a.ctx)
		}
		c := l.chunk()
		head := len(p.AppendLeafHead(nil, p.ChunkSize))
		c.buf = a.n.buffers.get(int(p.ChunkSize) + 2*head + 16)
		k, err := io.ReadFull(file, c.buf[head:head+int(p.ChunkSize)])
		if k > 0 {
			if err := l.submit(c, head, k); err != nil {
				return err
			}
		} else {
			a.n.buffers.put(c.buf)
			l.free = append(l.free, c)
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return l.settle(0)
		case err != nil:
			return err
		}
		if err := l.settle(addBytes); err != nil {
			return err
		}
	}
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
func (l *leafLine) submit(c *chunk, room, k int) error {
	p := l.a.cfg.Profile
	var edge [64]byte
	h := p.AppendLeafHead(edge[:0], int64(k))
	if len(h) > room {
		return fmt.Errorf("node: a leaf's head takes %d bytes, room for %d", len(h), room)
	}
	from := room - len(h)
	copy(c.buf[from:], h)
	t := p.AppendLeafTail(edge[:0], int64(k))
	copy(c.buf[room+k:], t)
	c.content = int64(k)
	c.job.CID, c.job.Prefix = cid.Undef, p.LeafPrefix()
	c.job.Data = c.buf[from : room+k+len(t)]
	l.line = append(l.line, c)
	l.bytes += c.content
	return l.a.n.hash.Submit(&c.job)
}

// settle takes finished chunks from the front until at most limit bytes are under way.
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
		l.bytes -= c.content
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
	if err := l.builder.AddLeaf(b.CID(), c.content, int64(b.Size())); err != nil {
		return err
	}
	if !a.cfg.OnlyHash {
		if _, err := a.n.store.Stat(a.ctx, b.CID()); err == nil {
			a.result.Known += c.content
		}
	}
	switch {
	case l.index != nil:
		head, _, tail, err := unixfs.SplitLeaf(b.CID(), b.Data())
		if err != nil {
			return err
		}
		// Index keeps head and tail, and the buffer goes back to the pool.
		head, tail = append([]byte(nil), head...), append([]byte(nil), tail...)
		if err := l.index.Index(b.CID(), head, tail, l.offset, c.content); err != nil {
			return err
		}
		l.stats = append(l.stats, dray.Stat{CID: b.CID(), Size: int64(b.Size())})
	case a.cfg.Copy:
		if err := a.n.Put(a.ctx, b); err != nil {
			return err
		}
	}
	l.offset += c.content
	a.result.Leaves++
	a.result.Bytes += c.content
	a.progress.Bytes += c.content
	a.show(false)
	return nil
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

// emit takes an interior node, directory or symlink.
func (a *adder) emit(b dray.Block) error {
	a.result.Blocks++
	if a.cfg.OnlyHash {
		return nil
	}
	a.nodes = append(a.nodes, b)
	a.size += b.Size()
	if a.size > 4<<20 || len(a.nodes) >= 256 {
		return a.flush()
	}
	return nil
}

func (a *adder) flush() error {
	if len(a.nodes) == 0 {
		return nil
	}
	err := a.n.Put(a.ctx, a.nodes...)
	a.nodes, a.size = a.nodes[:0], 0
	return err
}

func (a *adder) show(last bool) {
	if a.cfg.Progress == nil {
		return
	}
	if now := time.Now(); last || now.Sub(a.shown) >= progressGap {
		a.shown = now
		a.progress.Elapsed = now.Sub(a.start)
		a.cfg.Progress(a.progress)
	}
}

// totalSize returns the number of bytes that Add will read, as far as can be seen beforehand.
func totalSize(path string, hidden bool) int64 {
	var total int64
	filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // Add will say so
		}
		if p != path && skip(d.Name(), hidden) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}
