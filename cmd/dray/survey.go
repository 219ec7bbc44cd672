package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/node"
	"dray/unixfs"
)

const skeletonAhead = 64 // blocks of a skeleton asked for at a time

// survey looks at what lies at the destination before anything is written there. It returns progress when all is there
// already, and an error when something else is.
func (g *getting) survey(ctx context.Context) (*node.Progress, error) {
	_, err := os.Lstat(g.q.Output)
	if errors.Is(err, fs.ErrNotExist) || err == nil && g.q.Force && !g.q.Again {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ctx, a, err := g.h.ask(ctx, g.t, exchange.InOrder)
	if err != nil {
		return nil, err
	}
	defer a.close()
	w, err := skeleton(ctx, a.session, g.t.root)
	if errors.Is(err, unixfs.ErrNotUnixFS) {
		return nil, nil // it becomes an archive, which is compared as such
	}
	if err != nil {
		return nil, a.explain(ctx, err)
	}
	p, err := g.compare(ctx, w)
	var taken occupiedError
	if g.q.Force && errors.As(err, &taken) {
		return nil, nil
	}
	return p, err
}

// skeleton gets every block above the leaves and returns the finished walk over them.
func skeleton(ctx context.Context, blocks dray.Getter, root cid.Cid) (*unixfs.Walk, error) {
	w := unixfs.NewWalk(root, unixfs.WalkConfig{Ahead: skeletonAhead})
	for !w.Done() {
		need := w.Need(nil)
		if err := w.Err(); err != nil {
			return nil, err
		}
		got, err := getAll(ctx, blocks, need)
		if err != nil {
			return nil, err
		}
		for _, b := range got {
			if err := w.Feed(b); err != nil {
				return nil, err
			}
		}
	}
	return w, w.Err()
}

// getAll gets a bounded number of blocks at once, and returns them in order.
func getAll(ctx context.Context, blocks dray.Getter, cids []cid.Cid) ([]dray.Block, error) {
	got := make([]dray.Block, len(cids))
	errs := make([]error, len(cids))
	var wg sync.WaitGroup
	for i, c := range cids {
		wg.Go(func() { got[i], errs[i] = blocks.Get(ctx, c) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

// compare looks at every place that the target takes.
func (g *getting) compare(ctx context.Context, w *unixfs.Walk) (*node.Progress, error) {
	missing := false
	for i, e := range w.Entries() {
		path := g.q.Output
		if e.Path != "" {
			path = filepath.Join(path, filepath.FromSlash(e.Path))
		}
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			missing = true
			continue
		}
		if err != nil {
			return nil, err
		}
		same := false
		switch e.Kind {
		case unixfs.Directory:
			same = info.IsDir()
		case unixfs.Symlink:
			target, err := os.Readlink(path)
			same = err == nil && target == e.Target
		default:
			if info.Mode().IsRegular() && info.Size() == e.Size {
				if same, err = g.h.sameFile(ctx, path, w, i); err != nil {
					return nil, err
				}
			}
		}
		if !same {
			return nil, occupied(path)
		}
	}
	if missing {
		return nil, nil
	}
	m := w.Manifest()
	p := &node.Progress{
		Root: g.t.root, Total: m.Size(), Done: m.Size(), Reused: m.Size(), Leaves: m.Len(), Walked: true,
	}
	return p, g.rememberGot(ctx, p)
}

// occupiedError says that something else is where a get was to write.
type occupiedError struct{ path string }

func (o occupiedError) Error() string {
	return fmt.Sprintf("%s is there already and is different; name another place with -o, or overwrite it with --force", o.path)
}

func occupied(path string) error { return occupiedError{path} }

// sameFile reports whether the file at path has the content of entry i; if so, the store refers to it from now on.
func (h *house) sameFile(ctx context.Context, path string, w *unixfs.Walk, i int) (bool, error) {
	e, m := w.Entries()[i], w.Manifest()
	ref, err := h.store.Reference(ctx, path)
	if err != nil {
		return false, err
	}
	defer ref.Close()
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	var buf []byte
	for k := e.First; k < e.First+e.Leaves; k++ {
		if err := ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		leaf := m.Leaf(k)
		offset, size := m.Extent(k)
		head, tail, err := unixfs.LeafFrame(leaf, size)
		if err != nil {
			return false, nil // nobody could say whether the file is the same
		}
		buf = append(buf[:0], head...)
		buf = append(buf, make([]byte, size)...)
		if _, err := io.ReadFull(file, buf[len(head):]); err != nil {
			return false, err
		}
		buf = append(buf, tail...)
		if _, err := dray.NewBlock(leaf, buf); errors.Is(err, dray.ErrCorrupt) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		if err := ref.Index(leaf, head, tail, offset-e.Offset, size); err != nil {
			return false, err
		}
	}
	return true, ref.Commit(ctx)
}
