package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"
)

// problems verifies s and returns what is wrong, one line each.
func problems(t *testing.T, s *Store, cfg VerifyConfig) []Problem {
	t.Helper()
	var all []Problem
	cfg.Report = func(p Problem) { all = append(all, p) }
	st, err := s.Verify(t.Context(), cfg)
	must(t, err)
	if int(st.Problems) != len(all) {
		t.Errorf("%d problems are counted, %d reported", st.Problems, len(all))
	}
	return all
}

// Verify names what is wrong with its file and offset, and repair gets rid of it.
func TestVerifyFinds(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Config{Dir: filepath.Join(dir, "home"), SegmentSize: 90_000})
	f := writeFile(t, filepath.Join(dir, "f"), 1, 5, 20_000)
	f.reference(t, s)
	gone := writeFile(t, filepath.Join(dir, "gone"), 2, 5, 20_000)
	gone.reference(t, s)
	seg, small := storetest.Block(1, 50_000), storetest.Block(2, 50)
	must(t, s.Put(t.Context(), seg, small))
	if p := problems(t, s, VerifyConfig{Deep: true}); len(p) != 0 {
		t.Fatalf("problems with a sound store: %v", p)
	}

	overwrite(t, f.path, 40_123)
	must(t, os.Remove(gone.path))
	overwrite(t, s.segmentPath(1), 10_000)

	shallow := problems(t, s, VerifyConfig{})
	if len(shallow) != 2 || !names(shallow, f.path) || !names(shallow, gone.path) {
		t.Errorf("shallow: %v, want both files", shallow)
	}
	deep := problems(t, s, VerifyConfig{Deep: true})
	if len(deep) != 3 || !names(deep, gone.path) {
		t.Errorf("deep: %v, want a leaf, a file and a block", deep)
	}
	for _, p := range deep {
		switch {
		case p.Path == f.path:
			if p.Offset != 40_000 || p.Size != 20_000 || !p.CID.Equals(f.leaves[2].CID()) || !errors.Is(p.Err, dray.ErrChanged) {
				t.Errorf("problem: %v", p)
			}
		case p.Path == s.segmentPath(1):
			if !p.CID.Equals(seg.CID()) || !errors.Is(p.Err, dray.ErrCorrupt) {
				t.Errorf("problem: %v", p)
			}
		}
	}
	problems(t, s, VerifyConfig{Deep: true, Repair: true})
	if p := problems(t, s, VerifyConfig{Deep: true}); len(p) != 0 {
		t.Errorf("after repair: %v", p)
	}
	for i, b := range f.leaves {
		if i == 2 {
			wantErr(t, s, b, dray.ErrNotFound)
		} else {
			wantLeaf(t, s, b)
		}
	}
	wantErr(t, s, seg, dray.ErrNotFound)
	wantLeaf(t, s, small)
}

func names(all []Problem, path string) bool {
	for _, p := range all {
		if p.Path == path && strings.Contains(p.String(), path) {
			return true
		}
	}
	return false
}

// Deep verification with repair trusts a touched file again, and without leaves it be.
func TestVerifyTrusts(t *testing.T) {
	s := openStore(t, Config{})
	f := writeFile(t, filepath.Join(t.TempDir(), "f"), 1, 5, 20_000)
	f.reference(t, s)
	must(t, os.Chtimes(f.path, time.Time{}, time.Now().Add(-time.Hour)))
	for _, repair := range []bool{false, true} {
		if p := problems(t, s, VerifyConfig{Deep: true, Repair: repair}); len(p) != 0 {
			t.Errorf("problems with a touched file: %v", p)
		}
		if f.trusted(t, s) != repair {
			t.Errorf("trusted after a verification with repair %v: %v", repair, !repair)
		}
	}
}

// Space in segments is given back, and what lives there is moved.
func TestReclaim(t *testing.T) {
	home := t.TempDir()
	cfg := Config{Dir: home, SegmentSize: 400_000, SyncInterval: time.Hour}
	s := openStore(t, cfg)
	var blocks []dray.Block
	for i := range 60 {
		blocks = append(blocks, storetest.Block(uint64(i), 40_000))
	}
	must(t, s.Put(t.Context(), blocks...))
	must(t, s.Sync(t.Context()))
	full := segmentBytes(t, home)
	var kept []dray.Block
	for i, b := range blocks {
		if i%20 == 7 {
			kept = append(kept, b)
			continue
		}
		must(t, s.Delete(t.Context(), b.CID()))
	}
	for range 10 {
		must(t, s.Sync(t.Context()))
		for _, b := range kept {
			wantLeaf(t, s, b)
		}
	}
	must(t, s.Close())
	if now := segmentBytes(t, home); now > full/3 {
		t.Errorf("%d bytes of %d are left in segments, for %d blocks", now, full, len(kept))
	}
	s = openStore(t, cfg)
	for _, b := range kept {
		wantLeaf(t, s, b)
	}
	if st := verifyStore(t, s, true); st.Problems != 0 || st.Blocks != int64(len(kept)) {
		t.Errorf("%+v, want %d blocks", st, len(kept))
	}
}

func segmentBytes(t *testing.T, home string) (n int64) {
	t.Helper()
	names, err := os.ReadDir(filepath.Join(home, "segments"))
	must(t, err)
	for _, de := range names {
		st, err := de.Info()
		must(t, err)
		n += st.Size()
	}
	return n
}

// Several writers, readers and a committer that never rests, on growing files that share leaves.
func TestGrowConcurrently(t *testing.T) {
	s := openStore(t, Config{SyncBytes: 100_000, OpenFiles: 3})
	dir := t.TempDir()
	var files []*testFile
	var gs []*Growing
	for i := range 4 {
		f := makeLeaves(filepath.Join(dir, fmt.Sprint(i)), uint64(1+i/2), 30, 20_000) // pairs are the same
		files = append(files, f)
		g, _ := f.grow(t, s)
		gs = append(gs, g)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 8))
			for range 250 {
				b := files[rng.IntN(4)].leaves[rng.IntN(30)]
				if err := s.Put(t.Context(), b); err != nil {
					t.Error(err)
				}
				wantLeaf(t, s, b)
			}
		})
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 9))
			for range 250 {
				b := files[rng.IntN(4)].leaves[rng.IntN(30)]
				if got, err := s.Get(t.Context(), b.CID()); err != nil && !errors.Is(err, dray.ErrNotFound) {
					t.Errorf("Get: %v, %v", got, err)
				}
				gs[w].Has(b.CID())
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if err := s.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	for i, f := range files {
		wg.Go(func() { f.finish(t, s, gs[i]) })
	}
	wg.Wait()
	if st := verifyStore(t, s, true); st.Problems != 0 || st.Files != 4 || st.Blocks != 120 {
		t.Errorf("%+v", st)
	}
}

// No goroutine outlives Close.
func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		s := openStore(t, Config{})
		must(t, s.Put(t.Context(), storetest.Block(1, 10), storetest.Block(2, 100_000)))
		must(t, s.Close())
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines more than before:\n%s", runtime.NumGoroutine()-before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

// The table of expectations agrees with a map of sets.
func TestExpectations(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	x := newExpectations()
	model := make(map[string]map[int64]bool)
	mhs := make([]string, 30)
	for i := range mhs {
		mhs[i] = string(storetest.Block(uint64(i), 10).CID().Hash())
		if i%3 == 0 {
			mhs[i] += "longer than most"
		}
	}
	for range 20_000 {
		mh, off := mhs[rng.IntN(len(mhs))], int64(rng.IntN(6))
		if rng.IntN(2) == 0 {
			if added := x.add(mh, spot{off: off, size: int32(off)}); added == model[mh][off] {
				t.Fatalf("add says %v", added)
			}
			if model[mh] == nil {
				model[mh] = make(map[int64]bool)
			}
			model[mh][off] = true
		} else {
			if removed := x.remove(mh, off); removed != model[mh][off] {
				t.Fatalf("remove says %v", removed)
			}
			if delete(model[mh], off); len(model[mh]) == 0 {
				delete(model, mh)
			}
		}
		if x.len() != len(model) {
			t.Fatalf("%d leaves, want %d", x.len(), len(model))
		}
	}
	n := 0
	x.each(func(mh string, sp spot) bool {
		if !model[mh][sp.off] || int64(sp.size) != sp.off {
			t.Errorf("unexpected %x at %d", mh, sp.off)
		}
		n++
		return true
	})
	for _, set := range model {
		n -= len(set)
	}
	if n != 0 || len(x.spots) > 30*6 {
		t.Errorf("%d spots too many; %d in use", n, len(x.spots))
	}
}
