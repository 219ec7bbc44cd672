package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// faultFS fails operations when told to, and can take back what was written and not synced, as a power cut would.
type faultFS struct {
	FS
	mu sync.Mutex
	// fail returns the error for an operation on a file, or nil. A write that fails has written half.
	fail func(op, name string) error
	// unsynced is what each file held before the writes since its last sync, oldest first.
	unsynced map[string][]preimage
	syncs    int
}

type preimage struct {
	off  int64
	data []byte
}

func newFaultFS() *faultFS {
	return &faultFS{FS: osFS{}, unsynced: make(map[string][]preimage)}
}

func (f *faultFS) setFail(fail func(op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *faultFS) check(op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op == "sync" {
		f.syncs++
	}
	if f.fail == nil {
		return nil
	}
	if err := f.fail(op, name); err != nil {
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// failing fails one kind of operation on files whose name contains part.
func failing(op, part string, err error) func(string, string) error {
	return func(o, name string) error {
		if o == op && strings.Contains(name, part) {
			return err
		}
		return nil
	}
}

func (f *faultFS) Open(name string, flag int, perm os.FileMode) (File, error) {
	if err := f.check("open", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f, name: name}, nil
}

func (f *faultFS) Free(dir string) (int64, error) {
	if err := f.check("free", dir); err != nil {
		return 0, nil
	}
	return f.FS.Free(dir)
}

func (f *faultFS) Rename(oldName, newName string) error {
	if err := f.check("rename", oldName); err != nil {
		return err
	}
	f.mu.Lock()
	f.unsynced[newName] = f.unsynced[oldName]
	delete(f.unsynced, oldName)
	f.mu.Unlock()
	return f.FS.Rename(oldName, newName)
}

// Remove holds the lock, so that nothing is removed once setFail has returned.
func (f *faultFS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail("remove", name); err != nil {
			return &os.PathError{Op: "remove", Path: name, Err: err}
		}
	}
	return f.FS.Remove(name)
}

// powerCut takes back about half of what was written and not synced.
func (f *faultFS) powerCut(t *testing.T, rng *rand.Rand) {
	t.Helper()
	for name, writes := range f.unsynced {
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		for i := len(writes) - 1; i >= 0; i-- {
			if rng.IntN(2) == 0 {
				continue
			}
			_, err := file.WriteAt(writes[i].data, writes[i].off)
			must(t, err)
		}
		must(t, file.Close())
	}
	clear(f.unsynced)
}

type faultFile struct {
	File
	fs   *faultFS
	name string
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.fs.check("write", f.name)
	f.fs.mu.Lock()
	was := make([]byte, len(b))
	n, _ := f.File.ReadAt(was, off)
	clear(was[n:])
	f.fs.unsynced[f.name] = append(f.fs.unsynced[f.name], preimage{off, was})
	f.fs.mu.Unlock()
	if err != nil {
		n, _ := f.File.WriteAt(b[:len(b)/2], off)
		return n, err
	}
	return f.File.WriteAt(b, off)
}

func (f *faultFile) Sync() error {
	if err := f.fs.check("sync", f.name); err != nil {
		return err
	}
	f.fs.mu.Lock()
	n := len(f.fs.unsynced[f.name])
	f.fs.mu.Unlock()
	if err := f.File.Sync(); err != nil {
		return err
	}
	f.fs.mu.Lock()
	f.fs.unsynced[f.name] = f.fs.unsynced[f.name][n:]
	f.fs.mu.Unlock()
	return nil
}

func (f *faultFile) Reserve(size int64) error {
	if err := f.fs.check("reserve", f.name); err != nil {
		return err
	}
	return f.File.Reserve(size)
}

// A write that fails fails its Put and nothing else, and works once the disk does.
func TestWriteErrors(t *testing.T) {
	for _, tt := range []struct {
		op, part string
		err      error
		want     error
	}{
		{"write", "journal", syscall.ENOSPC, dray.ErrNoSpace},
		{"write", "journal", syscall.EIO, syscall.EIO},
		{"write", ".seg", syscall.ENOSPC, dray.ErrNoSpace},
		{"write", ".seg", syscall.EIO, syscall.EIO},
		{"write", ".dray-part", syscall.EDQUOT, dray.ErrNoSpace},
		{"write", ".dray-part", syscall.EIO, syscall.EIO},
		{"open", ".seg", syscall.ENOSPC, dray.ErrNoSpace},
	} {
		t.Run(fmt.Sprintf("%s%s/%v", tt.op, tt.part, tt.err), func(t *testing.T) {
			fs := newFaultFS()
			dir := t.TempDir()
			home := filepath.Join(dir, "home")
			s := openStore(t, Config{Dir: home, FS: fs, SegmentSize: 50_000})
			f := makeLeaves(filepath.Join(dir, "f"), 1, 6, 30_000)
			g, _ := f.grow(t, s)
			blocks := append([]dray.Block{storetest.Block(7, 100), storetest.Block(8, 40_000)}, f.leaves...)
			before := []dray.Block{storetest.Block(9, 100), storetest.Block(10, 40_000)}
			must(t, s.Put(t.Context(), before...))
			must(t, s.Put(t.Context(), f.leaves[0]))
			must(t, s.Sync(t.Context()))

			fs.setFail(failing(tt.op, tt.part, tt.err))
			failed := 0
			for _, b := range blocks {
				if err := s.Put(t.Context(), b); err == nil {
					wantLeaf(t, s, b)
				} else if failed++; !errors.Is(err, tt.want) {
					t.Errorf("Put: %v, want %v", err, tt.want)
				} else if _, err := s.Get(t.Context(), b.CID()); !errors.Is(err, dray.ErrNotFound) {
					t.Errorf("Get of what was not written: %v", err)
				}
			}
			if failed == 0 {
				t.Error("no Put failed")
			}
			fs.setFail(nil)
			must(t, s.Put(t.Context(), blocks...))
			f.finish(t, s, g)
			must(t, s.Close())
			s = openStore(t, Config{Dir: home, FS: fs})
			for _, b := range append(blocks, before...) {
				wantLeaf(t, s, b)
			}
			if st := verifyStore(t, s, true); st.Problems != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// When flushing fails, nothing is recorded as held that may be lost; once it works everything is, without being put again.
func TestSyncErrors(t *testing.T) {
	for _, part := range []string{".seg", ".dray-part"} {
		t.Run(part, func(t *testing.T) {
			fs := newFaultFS()
			dir := t.TempDir()
			s := openStore(t, Config{Dir: filepath.Join(dir, "home"), FS: fs, SyncInterval: time.Hour})
			f := makeLeaves(filepath.Join(dir, "f"), 1, 6, 30_000)
			g, _ := f.grow(t, s)
			big := storetest.Block(8, 40_000)
			must(t, s.Put(t.Context(), f.leaves[0], f.leaves[1], big))
			fs.setFail(failing("sync", part, syscall.EIO))
			for range 2 {
				if err := s.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
					t.Errorf("Sync: %v", err)
				}
			}
			ok, err := g.recorded(string(f.leaves[0].CID().Hash()), 0)
			if ok || err != nil {
				t.Errorf("recorded although it is not synced: %v, %v", ok, err)
			}
			wantLeaf(t, s, f.leaves[0])
			wantLeaf(t, s, big)
			// The kernel may have dropped what it could not write: leaf 1 is gone when it is looked at again.
			if part == ".dray-part" {
				overwrite(t, partPath(f.path), 30_005)
			}
			fs.setFail(nil)
			must(t, s.Sync(t.Context()))
			wantLeaf(t, s, f.leaves[0])
			wantLeaf(t, s, big)
			if part == ".dray-part" {
				if g.Has(f.leaves[1].CID()) || g.Missing() != 5 {
					t.Errorf("a lost leaf is taken for held; %d missing", g.Missing())
				}
			}
			f.finish(t, s, g)
			if st := verifyStore(t, s, true); st.Problems != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// A full disk stops writing with a clear error, reading goes on, and everything continues when there is room.
func TestDiskFull(t *testing.T) {
	fs := newFaultFS()
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	s := openStore(t, Config{Dir: home, FS: fs, SyncInterval: time.Hour})
	f := makeLeaves(filepath.Join(dir, "f"), 1, 6, 30_000)
	g, _ := f.grow(t, s)
	must(t, s.Put(t.Context(), f.leaves[:2]...))
	must(t, s.Sync(t.Context()))
	must(t, s.Put(t.Context(), f.leaves[2]))
	fs.setFail(failing("free", "", syscall.ENOSPC))
	if err := s.Sync(t.Context()); !errors.Is(err, dray.ErrNoSpace) {
		t.Errorf("Sync: %v", err)
	}
	if err := s.Put(t.Context(), f.leaves[3]); !errors.Is(err, dray.ErrNoSpace) {
		t.Errorf("Put: %v", err)
	}
	if _, err := s.Grow(t.Context(), filepath.Join(dir, "g"), 1000); !errors.Is(err, dray.ErrNoSpace) {
		t.Errorf("Grow: %v", err)
	}
	for _, b := range f.leaves[:3] {
		wantLeaf(t, s, b)
	}
	fs.setFail(nil)
	f.finish(t, s, g)
	if st := verifyStore(t, s, true); st.Problems != 0 {
		t.Errorf("%+v", st)
	}
}

// Finish that cannot move the file can be tried again.
func TestFinishErrors(t *testing.T) {
	fs := newFaultFS()
	dir := t.TempDir()
	s := openStore(t, Config{Dir: filepath.Join(dir, "home"), FS: fs})
	f := makeLeaves(filepath.Join(dir, "f"), 1, 6, 30_000)
	g, _ := f.grow(t, s)
	must(t, s.Put(t.Context(), f.leaves...))
	for _, op := range []string{"sync", "rename"} {
		fs.setFail(failing(op, ".dray-part", syscall.EIO))
		if err := g.Finish(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("Finish when %s fails: %v", op, err)
		}
		for _, b := range f.leaves {
			wantLeaf(t, s, b)
		}
	}
	fs.setFail(nil)
	f.finish(t, s, g)
}

// Power is cut at random points of random work, many times on one store. What Sync had returned for is there, nothing
// wrong is ever served, and work continues.
func TestPowerCuts(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { powerCuts(t, rand.New(rand.NewPCG(seed, 77))) })
	}
}

func powerCuts(t *testing.T, rng *rand.Rand) {
	dir := t.TempDir()
	fs, index := newFaultFS(), vfs.NewCrashableMem()
	f := makeLeaves(filepath.Join(dir, "f"), 5, 40, 20_000)
	var blocks []dray.Block
	for i := range 60 {
		blocks = append(blocks, storetest.Block(uint64(1000+i), []int{50, 9000, 30_000, 70_000}[i%4]))
	}
	blocks = append(blocks, f.leaves...)
	durable := make(map[int]bool)
	finished := false
	for round := 0; round < 12; round++ {
		s := openStore(t, Config{
			Dir: filepath.Join(dir, "home"), FS: fs, IndexFS: index, SegmentSize: 150_000, SyncInterval: time.Hour,
		})
		for i := range durable {
			wantLeaf(t, s, blocks[i])
		}
		for _, b := range blocks {
			if got, err := s.Get(t.Context(), b.CID()); err == nil && got.CID() != b.CID() {
				t.Errorf("wrong block %v for %v", got, b)
			} else if err != nil && !errors.Is(err, dray.ErrNotFound) {
				t.Errorf("round %d: Get(%v): %v", round, b, err)
			}
		}
		if st := verifyStore(t, s, true); st.Problems != 0 {
			t.Errorf("round %d: %+v", round, st)
		}
		var g *Growing
		if !finished {
			g, _ = f.grow(t, s)
			_, _, err := g.Recover(t.Context())
			must(t, err)
		}
		written := make(map[int]bool)
		for range 5 + rng.IntN(40) {
			i := rng.IntN(len(blocks))
			if finished || rng.IntN(12) != 0 {
				must(t, s.Put(t.Context(), blocks[i]))
				written[i] = true
			} else {
				must(t, s.Sync(t.Context()))
				for i := range written {
					durable[i] = true
				}
			}
		}
		if round > 8 && !finished {
			f.finish(t, s, g)
			finished = true
			for i := 60; i < len(blocks); i++ {
				durable[i] = true
			}
		}
		// From the cut on nothing reaches the disk.
		fs.setFail(func(op, _ string) error {
			if op == "write" || op == "sync" || op == "remove" {
				return syscall.EIO
			}
			return nil
		})
		clone := index.CrashClone(vfs.CrashCloneCfg{
			UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(rng.Uint64(), 1)),
		})
		s.Close() // fails, as it must: the disk is gone
		fs.powerCut(t, rng)
		fs.setFail(nil)
		index = clone
	}
}
