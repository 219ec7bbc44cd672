package disk

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// failingIndex fails the writes and syncs of the index while on is set.
type failingIndex struct {
	vfs.FS
	on  atomic.Bool
	err error
}

func (f *failingIndex) failure() error {
	if f.on.Load() {
		return f.err
	}
	return nil
}

func (f *failingIndex) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &failingIndexFile{file, f}, nil
}

func (f *failingIndex) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.failure(); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.Create(name, c))
}

func (f *failingIndex) ReuseForWrite(oldName, newName string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.failure(); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.ReuseForWrite(oldName, newName, c))
}

type failingIndexFile struct {
	vfs.File
	fs *failingIndex
}

func (f *failingIndexFile) Write(b []byte) (int, error) {
	if err := f.fs.failure(); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *failingIndexFile) Sync() error {
	if err := f.fs.failure(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *failingIndexFile) SyncData() error {
	if err := f.fs.failure(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *failingIndexFile) SyncTo(n int64) (bool, error) {
	if err := f.fs.failure(); err != nil {
		return false, err
	}
	return f.File.SyncTo(n)
}

// When the index cannot be written, the store says so, goes on reading, closes, and has everything when it is opened
// again on a disk that works: what had been synced from the index, the rest from journal and segments.
func TestIndexErrors(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		t.Run(fmt.Sprint(cause), func(t *testing.T) {
			index := &failingIndex{FS: vfs.NewMem(), err: cause}
			cfg := Config{Dir: t.TempDir(), IndexFS: index, SyncInterval: time.Hour}
			s, err := Open(cfg)
			must(t, err)
			var blocks []dray.Block
			for i := range 20 {
				blocks = append(blocks, storetest.Block(uint64(i), []int{100, 50_000}[i%2]))
			}
			must(t, s.Put(t.Context(), blocks[:10]...))
			must(t, s.Sync(t.Context()))
			must(t, s.Put(t.Context(), blocks[10:]...))
			index.on.Store(true)
			for range 2 {
				if err := s.Sync(t.Context()); !errors.Is(err, cause) {
					t.Errorf("Sync: %v, want %v", err, cause)
				}
			}
			if err := s.Delete(t.Context(), blocks[0].CID()); !errors.Is(err, cause) {
				t.Errorf("Delete: %v, want %v", err, cause)
			}
			for _, b := range blocks {
				wantLeaf(t, s, b)
			}
			if err := s.Close(); err == nil || !strings.Contains(err.Error(), cause.Error()) {
				t.Errorf("Close: %v", err)
			}
			index.on.Store(false)
			s = openStore(t, cfg)
			for _, b := range blocks {
				wantLeaf(t, s, b)
			}
			if st := verifyStore(t, s, true); st.Problems != 0 || st.Blocks != 20 {
				t.Errorf("%+v", st)
			}
		})
	}
}
