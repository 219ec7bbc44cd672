package disk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The power goes at every operation of Finish, which replaces an older file. Afterwards the path holds the one or the
// other, whole; what Finish had returned for is there; and else nothing that was synced need be fetched again.
func TestFinishInterrupted(t *testing.T) {
	for cut := 1; ; cut++ {
		p := &power{dir: t.TempDir(), fs: newLossyFS(), index: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(1, 1))}
		f := p.file("grown", 1)
		old := bytes.Repeat([]byte("older"), 1000)
		p.fs.writeUser(f.path, old, true)
		s, err := p.open()
		must(t, err)
		g, _ := f.grow(t, s)
		must(t, s.Put(t.Context(), f.leaves[:powerLeaves-2]...))
		must(t, s.Sync(t.Context()))
		must(t, s.Put(t.Context(), f.leaves[powerLeaves-2:]...))
		p.fs.mu.Lock()
		p.fs.ops = 0
		p.fs.watch = func(n int, _ string) error {
			if n == cut {
				p.cutPower(uint64(cut))
			}
			if p.gone {
				return errPowerOff
			}
			return nil
		}
		p.fs.mu.Unlock()
		finished := false
		err = p.note(g.Finish(t.Context()), func() { finished = true })
		if err != nil && !p.isGone() {
			t.Fatal(err)
		}
		p.fs.mu.Lock()
		p.cutPower(uint64(cut))
		p.fs.mu.Unlock()
		s.Close()
		p.fs, p.index = p.fsAfter, p.diskAfter
		s, err = p.open()
		must(t, err)
		got, there := p.fs.content(f.path)
		switch {
		case !there || !bytes.Equal(got, old) && !bytes.Equal(got, f.data):
			t.Errorf("cut at %d: the path holds %d bytes that are neither file", cut, len(got))
		case bytes.Equal(got, f.data):
			p.checkFinished(t, s, 1)
		case finished:
			t.Errorf("cut at %d: Finish had returned, and the older file is there", cut)
		default:
			g, filled := f.grow(t, s)
			if filled < powerLeaves-2 {
				t.Errorf("cut at %d: only %d places are filled", cut, filled)
			}
			for _, b := range f.leaves {
				must(t, s.Put(t.Context(), b))
			}
			must(t, g.Finish(t.Context()))
			p.checkFinished(t, s, 1)
		}
		if st := verifyStore(t, s, true); st.Problems != 0 {
			t.Errorf("cut at %d: %+v", cut, st)
		}
		must(t, s.Close())
		if t.Failed() || finished {
			if cut < 8 {
				t.Errorf("Finish did only %d operations", cut)
			}
			return
		}
	}
}

// A file that is written once more while Finish syncs it, as after a failed flush, is trusted all the same.
func TestFinishWrittenAgain(t *testing.T) {
	fs := newLossyFS()
	s := openStore(t, Config{FS: fs, IndexFS: vfs.NewMem()})
	f := makeLeaves(filepath.Join(t.TempDir(), "f"), 1, 3, 2000)
	g, _ := f.grow(t, s)
	must(t, s.Put(t.Context(), f.leaves...))
	fs.mu.Lock()
	written := false
	fs.watch = func(_ int, op string) error {
		if op == "sync" && !written {
			written = true
			fs.names[partPath(f.path)].touch()
		}
		return nil
	}
	fs.mu.Unlock()
	must(t, g.Finish(t.Context()))
	if !written {
		t.Fatal("nothing was synced")
	}
	id, err := s.fileAt(f.path)
	must(t, err)
	rec, err := s.fileRecord(id)
	must(t, err)
	now, err := fs.Stat(f.path)
	must(t, err)
	if rec.Unsure || !rec.Identity.same(now) || rec.State != standing || rec.Leaves != 3 || now.racy(time.Now()) {
		t.Errorf("recorded as %+v, the file is %+v", rec, now)
	}
}

// Many files are finished at once, each by two goroutines; one of the two succeeds, and each file costs one flush of its
// content and one of its directory.
func TestFinishTogether(t *testing.T) {
	const n = 40
	fs, dir := newLossyFS(), t.TempDir()
	s := openStore(t, Config{Dir: filepath.Join(dir, "home"), FS: fs, IndexFS: vfs.NewMem(), SyncInterval: time.Hour})
	var files []*testFile
	var gs []*Growing
	for i := range n {
		f := makeLeaves(filepath.Join(dir, fmt.Sprint(i)), uint64(i), 2, 20)
		g, _ := f.grow(t, s)
		must(t, s.Put(t.Context(), f.leaves...))
		files, gs = append(files, f), append(gs, g)
	}
	fs.mu.Lock()
	syncs := 0
	fs.watch = func(_ int, op string) error {
		if op == "sync" {
			syncs++
		}
		return nil
	}
	fs.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([][2]error, n)
	for i, g := range gs {
		for j := range 2 {
			wg.Go(func() { errs[i][j] = g.Finish(t.Context()) })
		}
	}
	wg.Wait()
	for i, f := range files {
		if (errs[i][0] == nil) == (errs[i][1] == nil) {
			t.Errorf("file %d: %v; want one success", i, errs[i])
		}
		if got, _ := fs.content(f.path); !bytes.Equal(got, f.data) {
			t.Errorf("file %d has %d bytes, and not the right ones", i, len(got))
		}
		for _, b := range f.leaves {
			wantLeaf(t, s, b)
		}
	}
	if syncs > 2*n {
		t.Errorf("%d flushes for %d files", syncs, n)
	}
	if st := verifyStore(t, s, true); st.Problems != 0 || st.Blocks != 2*n {
		t.Errorf("%+v", st)
	}
}

// TestFinishedFilesLeaveNoRanges: finishing many small files, which have no parts, deletes no ranges of the index: each would cost
// all later look-ups.
func TestFinishedFilesLeaveNoRanges(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Config{Dir: filepath.Join(dir, "home")})
	for i := range 20 {
		f := makeLeaves(filepath.Join(dir, fmt.Sprint(i)), uint64(i), 1, 1000)
		g, err := s.Grow(t.Context(), f.path, int64(len(f.data)))
		must(t, err)
		_, err = g.Expect(f.leaves[0].CID(), 0, int64(len(f.data)))
		must(t, err)
		must(t, s.Put(t.Context(), f.leaves[0]))
		must(t, g.Finish(t.Context()))
	}
	must(t, s.db.Flush())
	levels, err := s.db.SSTables(pebble.WithProperties())
	must(t, err)
	tables := 0
	for _, level := range levels {
		for _, x := range level {
			tables++
			if n := x.Properties.NumRangeDeletions; n > 0 {
				t.Errorf("%d ranges were deleted", n)
			}
		}
	}
	if tables == 0 {
		t.Error("nothing was written to the index")
	}
}
