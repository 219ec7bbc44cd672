package node

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/tensor"
	"dray/unixfs"
)

// Layout says where files are cut into leaves.
type Layout uint8

const (
	// LayoutAuto does as the profile says: see [unixfs.Profile.Tensors].
	LayoutAuto Layout = iota
	// LayoutTensors cuts files that package tensor can read at the borders of tensors: see docs/tensors.md.
	LayoutTensors
	// LayoutPlain cuts every file every so many bytes.
	LayoutPlain
)

// AddConfig says how a file or directory becomes blocks. The zero value adds in place with the native profile.
type AddConfig struct {
	// Profile fixes the CIDs. If zero, unixfs.Native.
	Profile unixfs.Profile
	// Layout says whether files of tensors are cut at the borders of tensors. If zero, the profile decides.
	Layout Layout
	// Copy takes a copy of the bytes into the store instead of referring to the files where they lie.
	Copy bool
	// OnlyHash computes the CID and stores nothing.
	OnlyHash bool
	// Hidden includes files whose names begin with a dot in directories; without it they are left out. A path named in
	// the call is always added.
	Hidden bool
	// Follow takes symbolic links to files for those files; one to anything else is an error. Without it links are added as links.
	Follow bool
	// Guard, if set, is a CID that nobody has: what is added is nobody's until the caller, who has closed the root by then,
	// calls [Node.Unguard] with it.
	Guard cid.Cid
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
	// Known is how many of the bytes were in the store before the call: copied, or in files other than the one added.
	Known int64
	// Tensors counts the tensors, other than empty ones, of files that were cut at their borders; KnownTensors those of
	// which every byte is counted in Known.
	Tensors, KnownTensors int
	// Malformed is the files that claim to hold tensors, break the rules of their format, and were therefore cut like any
	// other file: the first hundred. MalformedFiles counts all.
	Malformed      []Malformed
	MalformedFiles int
	// Kept is the files that the store refers to now, as absolute paths.
	Kept []string
}

// Malformed is a file that could not be cut at the borders of tensors.
type Malformed struct {
	// Path is the file, absolute.
	Path string
	// Err says what is wrong at which byte.
	Err *tensor.HeaderError
}

const keptMalformed = 100 // files named in a result

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
	if cfg.Layout == LayoutAuto {
		cfg.Layout = LayoutPlain
		if cfg.Profile.Tensors {
			cfg.Layout = LayoutTensors
		}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return AddResult{}, err
	}
	a := &adder{n: n, ctx: ctx, cfg: cfg, start: time.Now(), fresh: make(map[uint64]struct{})}
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
	fresh    map[uint64]struct{} // leaves that were not in the store before, by the end of their digests
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
	case mode&fs.ModeSymlink != 0 && a.cfg.Follow:
		return a.addLinked(path)
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return unixfs.Ref{}, err
		}
		return unixfs.BuildSymlink(a.cfg.Profile, target, a.emit)
	}
	return unixfs.Ref{}, fmt.Errorf("add %s: neither a file, a directory nor a symbolic link", path)
}

// addLinked adds the file that a symbolic link leads to, by the path at which it lies.
func (a *adder) addLinked(path string) (unixfs.Ref, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return unixfs.Ref{}, err
	}
	if info, err := os.Stat(real); err != nil {
		return unixfs.Ref{}, err
	} else if !info.Mode().IsRegular() {
		return unixfs.Ref{}, fmt.Errorf("add %s: the link leads to %s, which is no file", path, real)
	}
	return a.addFile(real)
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
	a.guard(a.nodes...)
	err := a.n.Put(a.ctx, a.nodes...)
	a.nodes, a.size = a.nodes[:0], 0
	return err
}

// guard keeps blocks from everybody before they are in the store, if so asked.
func (a *adder) guard(blocks ...dray.Block) {
	if a.cfg.Guard.Defined() {
		a.guardAll(len(blocks), func(i int) cid.Cid { return blocks[i].CID() })
	}
}

func (a *adder) guardAll(n int, at func(int) cid.Cid) {
	cids := make([]cid.Cid, n)
	for i := range cids {
		cids[i] = at(i)
	}
	a.n.ask(func() { a.n.guard(a.cfg.Guard, cids...) })
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
