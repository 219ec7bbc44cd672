package disk

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lossyFS is a file system in memory that remembers what was not synced, so that crash can lose it.
type lossyFS struct {
	mu    sync.Mutex
	names map[string]*lossyNode
	saved map[string]*lossyNode
	log   []nameChange // that no SyncDir covers yet
	ino   uint64
	free  int64 // -1 if not known

	ops   int
	watch func(n int, op string) error // called before the nth operation with mu held; nil is allowed
}

// nameChange says that name means node from now on, and old, if not empty, nothing any more.
type nameChange struct {
	name, old string
	node      *lossyNode // nil: removed
}

// lossyNode is a file, whatever its name.
type lossyNode struct {
	ino          uint64
	data         []byte
	saved        []byte
	lost         []dataChange // since the last Sync
	mtime, ctime int64
	savedMTime   int64
	links        int
}

// dataChange is a write, or with data nil a truncation to off.
type dataChange struct {
	off  int64
	data []byte
}

var errPowerOff = errors.New("the power is off")

func newLossyFS() *lossyFS {
	return &lossyFS{names: make(map[string]*lossyNode), saved: make(map[string]*lossyNode), free: -1}
}

// enter locks fs for one operation.
func (fs *lossyFS) enter(op string) error {
	fs.mu.Lock()
	fs.ops++
	if fs.watch != nil {
		return fs.watch(fs.ops, op)
	}
	return nil
}

// crash returns what is left when the power goes now: what was synced, and by chance some of the rest. fs.mu is held.
func (fs *lossyFS) crash(rng *rand.Rand) *lossyFS {
	after := newLossyFS()
	after.ino = fs.ino
	names := make(map[string]*lossyNode)
	for name, n := range fs.saved {
		names[name] = n
	}
	// Directories lose the newest changes.
	for _, c := range fs.log[:rng.IntN(len(fs.log)+1)] {
		c.apply(names)
	}
	done := make(map[*lossyNode]*lossyNode)
	var sorted []string
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted) // so that one seed always does the same
	for _, name := range sorted {
		n := names[name]
		if done[n] == nil {
			done[n] = n.crash(rng)
		}
		done[n].links++
		after.names[name], after.saved[name] = done[n], done[n]
	}
	return after
}

func (n *lossyNode) crash(rng *rand.Rand) *lossyNode {
	data := slices.Clone(n.saved)
	keep := rng.IntN(101) // percent, so that all and nothing happen as well
	for _, c := range n.lost {
		if rng.IntN(100) >= keep {
			continue
		}
		if len(c.data) > 0 && rng.IntN(4) == 0 { // torn: some of its sectors
			from := rng.IntN(len(c.data)) &^ 511
			c = dataChange{c.off + int64(from), c.data[from : from+rng.IntN(len(c.data)-from)]}
		}
		data = c.apply(data)
	}
	after := &lossyNode{ino: n.ino, data: data, saved: slices.Clone(data), mtime: n.savedMTime, ctime: n.ctime}
	if rng.IntN(2) == 0 {
		after.mtime = n.mtime
	}
	after.savedMTime = after.mtime
	return after
}

func (c nameChange) apply(names map[string]*lossyNode) {
	if c.old != "" {
		delete(names, c.old)
	}
	if c.node == nil {
		delete(names, c.name)
	} else {
		names[c.name] = c.node
	}
}

func (c dataChange) apply(data []byte) []byte {
	end := c.off + int64(len(c.data))
	if c.data == nil && end < int64(len(data)) {
		return data[:end]
	}
	if more := end - int64(len(data)); more > 0 {
		data = append(data, make([]byte, more)...)
	}
	copy(data[c.off:], c.data)
	return data
}

func (fs *lossyFS) change(c nameChange) {
	if c.old != "" {
		fs.names[c.old].links--
	}
	if was := fs.names[c.name]; was != nil {
		was.links--
	}
	if c.node != nil {
		c.node.links++
	}
	c.apply(fs.names)
	fs.log = append(fs.log, c)
}

// writeUser puts a file of the user's there, with its name synced and, if synced, its content too.
func (fs *lossyFS) writeUser(name string, data []byte, synced bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.ino++
	t := time.Now().Add(-time.Minute).UnixNano()
	n := &lossyNode{ino: fs.ino, data: slices.Clone(data), mtime: t, ctime: t, savedMTime: t, links: 1}
	if synced {
		n.saved = slices.Clone(data)
	} else {
		n.lost = []dataChange{{0, slices.Clone(data)}}
	}
	fs.names[name], fs.saved[name] = n, n
}

// content returns the bytes of a file, and whether it is there.
func (fs *lossyFS) content(name string) ([]byte, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.names[name]
	if n == nil {
		return nil, false
	}
	return slices.Clone(n.data), true
}

func (fs *lossyFS) Open(name string, flag int, _ os.FileMode) (File, error) {
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	err := fs.enter(op)
	defer fs.mu.Unlock()
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	n := fs.names[name]
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
		}
		fs.ino++
		n = &lossyNode{ino: fs.ino}
		n.touch()
		fs.change(nameChange{name: name, node: n})
	}
	f := &lossyFile{fs: fs, n: n, name: name}
	if flag&os.O_TRUNC != 0 {
		f.change(dataChange{})
	}
	return f, nil
}

func (fs *lossyFS) Stat(name string) (Identity, error) {
	err := fs.enter("stat")
	defer fs.mu.Unlock()
	n := fs.names[name]
	if err == nil && n == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return Identity{}, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return n.identity(), nil
}

func (fs *lossyFS) Rename(oldName, newName string) error {
	err := fs.enter("rename")
	defer fs.mu.Unlock()
	n := fs.names[oldName]
	if err == nil && n == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err}
	}
	fs.change(nameChange{name: newName, old: oldName, node: n})
	n.ctime = time.Now().UnixNano()
	return nil
}

func (fs *lossyFS) Remove(name string) error {
	err := fs.enter("remove")
	defer fs.mu.Unlock()
	if err == nil && fs.names[name] == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	fs.change(nameChange{name: name})
	return nil
}

func (fs *lossyFS) List(dir string) (names []string, err error) {
	err = fs.enter("readdir")
	defer fs.mu.Unlock()
	if err != nil {
		return nil, &os.PathError{Op: "readdir", Path: dir, Err: err}
	}
	for name := range fs.names {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.SortFunc(names, strings.Compare)
	return names, nil
}

func (fs *lossyFS) SyncDir(dir string) error {
	err := fs.enter("sync")
	defer fs.mu.Unlock()
	if err != nil {
		return &os.PathError{Op: "sync", Path: dir, Err: err}
	}
	var rest []nameChange
	for _, c := range fs.log {
		if filepath.Dir(c.name) == dir {
			c.apply(fs.saved)
		} else {
			rest = append(rest, c)
		}
	}
	fs.log = rest
	return nil
}

func (fs *lossyFS) Free(string) (int64, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.free, nil
}

func (n *lossyNode) touch() {
	n.mtime = time.Now().UnixNano()
	n.ctime = n.mtime
}

func (n *lossyNode) identity() Identity {
	return Identity{
		Ino: n.ino, Size: int64(len(n.data)), MTime: n.mtime, CTime: n.ctime, Allocated: int64(len(n.data)),
	}
}

// lossyFile is an open file of a lossyFS.
type lossyFile struct {
	fs   *lossyFS
	n    *lossyNode
	name string
}

func (f *lossyFile) enter(op string) error {
	if err := f.fs.enter(op); err != nil {
		return &os.PathError{Op: op, Path: f.name, Err: err}
	}
	return nil
}

func (f *lossyFile) change(c dataChange) {
	f.n.data = c.apply(f.n.data)
	f.n.lost = append(f.n.lost, c)
	f.n.touch()
}

func (f *lossyFile) ReadAt(b []byte, off int64) (int, error) {
	err := f.enter("read")
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

func (f *lossyFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.enter("write")
	defer f.fs.mu.Unlock()
	var short errShort
	if errors.As(err, &short) { // as a disk that fills up does it
		f.change(dataChange{off, slices.Clone(b[:len(b)/2])})
		return len(b) / 2, short.err
	}
	if err != nil {
		return 0, err
	}
	if len(b) > 0 {
		f.change(dataChange{off, slices.Clone(b)})
	}
	return len(b), nil
}

// errShort makes a write be cut short, with or without an error.
type errShort struct{ err error }

func (errShort) Error() string { return "short write" }

func (f *lossyFile) Close() error { return nil }

func (f *lossyFile) Identity() (Identity, error) {
	err := f.enter("stat")
	defer f.fs.mu.Unlock()
	if err == nil && f.n.links == 0 {
		err = &os.PathError{Op: "stat", Path: f.name, Err: os.ErrNotExist}
	}
	return f.n.identity(), err
}

// Sync makes the content durable, not the times.
func (f *lossyFile) Sync() error {
	err := f.enter("sync")
	defer f.fs.mu.Unlock()
	if err == nil {
		f.n.saved, f.n.lost = slices.Clone(f.n.data), nil
	}
	return err
}

func (f *lossyFile) Truncate(size int64) error {
	err := f.enter("truncate")
	defer f.fs.mu.Unlock()
	if err == nil {
		f.change(dataChange{off: size})
	}
	return err
}

func (f *lossyFile) Reserve(size int64) error {
	err := f.enter("reserve")
	defer f.fs.mu.Unlock()
	if err == nil {
		f.change(dataChange{off: size})
	}
	return err
}

func (f *lossyFile) NextData(off int64) (start, end int64, err error) {
	err = f.enter("seek")
	defer f.fs.mu.Unlock()
	if err == nil && off >= int64(len(f.n.data)) {
		err = io.EOF
	}
	return off, int64(len(f.n.data)), err
}

func (f *lossyFile) SetModTime(t time.Time) error {
	err := f.enter("set time")
	defer f.fs.mu.Unlock()
	if err == nil {
		f.n.mtime, f.n.ctime = t.UnixNano(), time.Now().UnixNano()
	}
	return err
}
