package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/unixfs"
)

// tree is the destination of a fetch: directories, symlinks and files that grow. It belongs to the fetch's goroutine; a
// few finishers sync and rename complete files.
type tree struct {
	n       *Node
	path    string // "" when nothing is written outside the store
	store   dray.FileStore
	files   map[int]*treeFile // by index of the entry
	grown   map[string]*treeFile
	next    int // the first entry that was not entered
	growing int // the first entry whose leaves are not all known

	slots    chan struct{} // bounds the finishers
	wg       sync.WaitGroup
	failed   chan error // one slot: the first failure
	finished atomic.Int64
	ctx      context.Context
	cancel   context.CancelFunc
}

// treeFile is one file of a tree.
type treeFile struct {
	path  string
	grow  dray.Growing // nil when nothing is written outside the store
	known int          // leaves known so far
	left  int          // of which not in place
	whole bool         // all leaves are known
	done  bool
}

func newTree(n *Node, path string) *tree {
	t := &tree{
		n: n, path: path, files: make(map[int]*treeFile), grown: make(map[string]*treeFile),
		slots: make(chan struct{}, finishers), failed: make(chan error, 1),
	}
	t.store, _ = n.store.(dray.FileStore)
	t.ctx, t.cancel = context.WithCancel(n.ctx)
	return t
}

// enter creates what has become known: all entries are complete but, unless walked, the last.
func (t *tree) enter(ctx context.Context, entries []unixfs.Entry, walked bool) error {
	for ; t.next < len(entries); t.next++ {
		if err := t.enterOne(ctx, t.next, &entries[t.next]); err != nil {
			return err
		}
	}
	for ; t.growing < len(entries); t.growing++ {
		whole := walked || t.growing < len(entries)-1
		if f := t.files[t.growing]; f != nil {
			f.learn(entries[t.growing].Leaves, whole)
			t.settle(f)
		}
		if !whole {
			break
		}
	}
	return nil
}

func (t *tree) enterOne(ctx context.Context, i int, e *unixfs.Entry) error {
	path := t.path
	if path != "" && e.Path != "" {
		path = filepath.Join(t.path, filepath.FromSlash(e.Path))
	}
	switch e.Kind {
	case unixfs.Directory:
		if path == "" {
			return nil
		}
		return os.MkdirAll(path, 0o777)
	case unixfs.Symlink:
		if path == "" {
			return nil
		}
		if old, err := os.Readlink(path); err == nil && old == e.Target {
			return nil
		}
		return os.Symlink(e.Target, path)
	}
	f := &treeFile{path: path}
	t.files[i] = f
	f.learn(e.Leaves, false)
	if path == "" {
		return nil
	}
	if t.store == nil {
		return fmt.Errorf("node: the store keeps no files, so %s cannot be written", path)
	}
	if old := t.grown[path]; old != nil {
		f.grow = old.grow
	} else {
		g, err := t.store.GrowAs(ctx, path, dray.Growth{Size: e.Size, Purpose: e.CID.String()})
		if err != nil {
			return err
		}
		f.grow = g
	}
	t.grown[path] = f
	return nil
}

// learn notes how many leaves of the file are known.
func (f *treeFile) learn(leaves int, whole bool) {
	f.left += leaves - f.known
	f.known = leaves
	f.whole = f.whole || whole
}

func (f *treeFile) expect(leaf cid.Cid, offset, size int64) (bool, error) {
	if f.grow == nil {
		return false, nil
	}
	return f.grow.Expect(leaf, offset, size)
}

// settle finishes a file that is complete, in the background.
func (t *tree) settle(f *treeFile) {
	if !f.whole || f.left > 0 || f.done {
		return
	}
	f.done = true
	if f.grow == nil {
		t.finished.Add(1)
		return
	}
	t.wg.Go(func() {
		select {
		case t.slots <- struct{}{}:
		case <-t.ctx.Done():
			return
		}
		defer func() { <-t.slots }()
		if err := f.grow.Finish(t.ctx); err != nil {
			select {
			case t.failed <- &dray.Error{Op: "finish " + f.path, Err: err}:
			default:
			}
			return
		}
		t.finished.Add(1)
	})
}

// restart forgets what was entered, because the walk starts over. Files that grow go on growing.
func (t *tree) restart() {
	t.files = make(map[int]*treeFile)
	t.next, t.growing = 0, 0
}

// finish waits until every file is at its name.
func (t *tree) finish(ctx context.Context) error {
	ended := make(chan struct{})
	var w sync.WaitGroup
	w.Go(func() {
		t.wg.Wait()
		close(ended)
	})
	select {
	case <-ended:
	case <-ctx.Done():
		t.cancel()
		<-ended
		return &dray.Error{Op: "finish", Err: ctxError(ctx)}
	}
	w.Wait()
	select {
	case err := <-t.failed:
		return err
	default:
		return nil
	}
}

// close leaves what is not complete for another time.
func (t *tree) close() {
	t.cancel()
	t.wg.Wait()
	for _, f := range t.grown {
		if err := f.grow.Close(); err != nil {
			t.n.cfg.Log.Warn("closing a growing file", "path", f.path, "err", err)
		}
	}
}
