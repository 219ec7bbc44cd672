package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// diskFault is one way in which a disk fails.
type diskFault struct {
	name string
	ops  []string // which operations fail; nil is all
	err  error
	last bool  // from the nth operation on, until it is lifted; otherwise the nth only
	want error // what a call's error must be
}

var diskFaults = []diskFault{
	{"OneError", nil, syscall.EIO, false, syscall.EIO},
	{"DeadDisk", nil, syscall.EIO, true, syscall.EIO},
	{"OneSyncFails", []string{"sync"}, syscall.EIO, false, syscall.EIO},
	{"NoSyncWorks", []string{"sync"}, syscall.EIO, true, syscall.EIO},
	{"NoRenameWorks", []string{"rename"}, syscall.EACCES, true, syscall.EACCES},
	{"Full", []string{"create", "write", "reserve"}, syscall.ENOSPC, true, dray.ErrNoSpace},
	{"FullHalfway", []string{"write"}, errShort{syscall.ENOSPC}, true, dray.ErrNoSpace},
	{"OverQuota", []string{"create", "write", "reserve"}, syscall.EDQUOT, false, dray.ErrNoSpace},
	{"ShortWrite", []string{"write"}, errShort{nil}, false, io.ErrShortWrite},
}

// script is a store at work, one call after the other, each of which can be repeated when it failed.
type script struct {
	dir   string
	fs    *lossyFS
	index *vfs.MemFS
	s     *Store
	g     *Growing

	user, grown  *testFile
	small, large []dray.Block
	deleted      []dray.Block
	durable      []dray.Block // these must be served from now on
	written      []dray.Block // these will be durable once synced
}

func newScript(dir string) *script {
	c := &script{dir: dir, fs: newLossyFS(), index: vfs.NewMem()}
	c.user = makeLeaves(filepath.Join(dir, "user"), 1, 3, 2000)
	c.grown = makeLeaves(filepath.Join(dir, "grown"), 2, 4, 2000)
	for i := range 4 {
		c.small = append(c.small, storetest.Block(uint64(10+i), 100))
		c.large = append(c.large, storetest.Block(uint64(20+i), 3000))
	}
	c.deleted = []dray.Block{c.small[3], c.large[0], c.large[1], c.large[2]}
	c.fs.writeUser(c.user.path, c.user.data, true)
	return c
}

func (c *script) open(context.Context) (err error) {
	c.s, err = Open(Config{
		Dir: filepath.Join(c.dir, "home"), FS: c.fs, IndexFS: c.index,
		SmallBlock: 1000, SegmentSize: 7000, SyncInterval: time.Hour,
	})
	return err
}

func (c *script) put(blocks ...dray.Block) func(context.Context) error {
	return func(ctx context.Context) error {
		err := c.s.Put(ctx, blocks...)
		if err == nil {
			c.written = append(c.written, blocks...)
		}
		return err
	}
}

func (c *script) sync(ctx context.Context) error {
	err := c.s.Sync(ctx)
	if err == nil {
		c.durable = append(c.durable, c.written...)
		c.written = nil
	}
	return err
}

func (c *script) reference(ctx context.Context) error {
	r, err := c.s.Reference(ctx, c.user.path)
	if err != nil {
		return err
	}
	defer r.Close()
	for i, b := range c.user.leaves {
		if err := r.Index(b.CID(), nil, nil, c.user.offset(i), int64(b.Size())); err != nil {
			return err
		}
	}
	if err := r.Commit(ctx); err != nil {
		return err
	}
	c.written = append(c.written, c.user.leaves...)
	return nil
}

func (c *script) grow(ctx context.Context) error {
	g, err := c.s.Grow(ctx, c.grown.path, int64(len(c.grown.data)))
	for i, b := range c.grown.leaves {
		if err == nil {
			_, err = g.Expect(b.CID(), c.grown.offset(i), int64(b.Size()))
		}
	}
	if err == nil {
		_, _, err = g.Recover(ctx)
	}
	if err != nil && g != nil {
		g.Close()
	}
	c.g = g
	return err
}

func (c *script) finish(ctx context.Context) error {
	err := c.g.Finish(ctx)
	if errors.Is(err, dray.ErrClosed) { // moved, and only what comes after it had failed
		err = nil
	}
	return err
}

func (c *script) delete(ctx context.Context) error {
	c.durable = slices.DeleteFunc(c.durable, c.isDeleted)
	c.written = slices.DeleteFunc(c.written, c.isDeleted)
	for _, b := range c.deleted {
		if err := c.s.Delete(ctx, b.CID()); err != nil {
			return err
		}
	}
	return nil
}

func (c *script) isDeleted(b dray.Block) bool {
	return slices.ContainsFunc(c.deleted, func(d dray.Block) bool { return d.CID() == b.CID() })
}

func (c *script) read(ctx context.Context) error {
	for _, b := range c.durable {
		got, err := c.s.Get(ctx, b.CID())
		if err != nil {
			return err
		}
		if !bytes.Equal(got.Data(), b.Data()) {
			return errors.New("wrong bytes")
		}
	}
	return nil
}

func (c *script) close(ctx context.Context) error {
	err := c.s.Close()
	if errors.Is(err, dray.ErrClosed) { // the Close that failed has closed it; what was left to do is done on Open
		if err = c.open(ctx); err == nil {
			err = c.s.Close()
		}
	}
	return err
}

func (c *script) calls() []func(context.Context) error {
	leaves := c.grown.leaves
	return []func(context.Context) error{
		c.open, c.put(c.small[0], c.large[0]), c.sync, c.put(c.large[1:]...), c.put(c.small[1:]...), c.reference, c.sync,
		c.grow, c.put(leaves[0], leaves[1]), c.sync, c.read, c.put(leaves[2]), c.delete, c.sync, c.sync, c.close,
		c.open, c.read, c.grow, c.put(leaves...), c.finish, c.put(c.deleted[0], c.deleted[1]), c.delete, c.sync, c.read, c.close,
	}
}

// TestEveryFault lets the disk fail at each operation of a script in turn, in every way. The call that fails says so,
// clearly; what was durable is served as soon as the disk works again; the same call then succeeds, and so does all that
// comes after it.
func TestEveryFault(t *testing.T) {
	for _, fault := range diskFaults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			failed := 0
			for n := 1; ; n++ {
				reached, calls := runFaulty(t, fault, n)
				failed += calls
				if t.Failed() {
					t.Fatalf("fault at operation %d", n)
				}
				if !reached {
					t.Logf("%d operations, %d calls failed", n, failed)
					break
				}
			}
			if failed == 0 {
				t.Error("no call ever failed")
			}
		})
	}
}

// runFaulty runs the script with the fault at the nth of the operations that it concerns. It reports whether there were
// as many, and how many calls failed.
func runFaulty(t *testing.T, fault diskFault, n int) (reached bool, failed int) {
	t.Helper()
	c := newScript(t.TempDir())
	count, lifted := 0, false
	c.fs.watch = func(_ int, op string) error {
		if lifted || fault.ops != nil && !slices.Contains(fault.ops, op) {
			return nil
		}
		count++
		if count == n || fault.last && count > n {
			reached = true
			return fault.err
		}
		return nil
	}
	lift := func(now bool) {
		c.fs.mu.Lock()
		lifted = now
		c.fs.mu.Unlock()
	}
	for i, call := range c.calls() {
		err := call(t.Context())
		if err == nil {
			continue
		}
		failed++
		var de *dray.Error
		if !errors.As(err, &de) || !errors.Is(err, fault.want) {
			t.Errorf("call %d: %v; want a *dray.Error for %v", i, err, fault.want)
		}
		lift(true)
		if c.s != nil && i > 0 {
			if err := c.read(t.Context()); err != nil && !errors.Is(err, dray.ErrClosed) {
				t.Errorf("call %d failed with %v, and then the durable blocks are not served: %v", i, de, err)
			}
		}
		if err := call(t.Context()); err != nil {
			t.Errorf("call %d, again after %v: %v", i, de, err)
		}
	}
	lift(true)
	must(t, c.open(t.Context()))
	must(t, c.read(t.Context()))
	for _, b := range c.deleted {
		wantErr(t, c.s, b, dray.ErrNotFound)
	}
	for _, b := range slices.Concat(c.user.leaves, c.grown.leaves, c.small[:3], c.large[3:]) {
		wantLeaf(t, c.s, b)
	}
	if got, _ := c.fs.content(c.grown.path); !bytes.Equal(got, c.grown.data) {
		t.Errorf("the fetched file has %d bytes, and not the right ones", len(got))
	}
	if st := verifyStore(t, c.s, true); st.Problems != 0 {
		t.Errorf("%+v", st)
	}
	must(t, c.s.Close())
	return reached, failed
}
