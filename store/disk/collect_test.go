package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"dray"

	"github.com/ipfs/go-cid"
)

// loose makes blocks of a few kilobytes, some of which go to segments and some to the index.
func loose(t *testing.T, seed uint64, n int) []dray.Block {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	var list []dray.Block
	for range n {
		data := make([]byte, 1000+rng.IntN(40000))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		c, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: -1}.Sum(data)
		must(t, err)
		b, err := dray.NewBlock(c, data)
		must(t, err)
		list = append(list, b)
	}
	return list
}

func held(t *testing.T, s *Store) Held {
	t.Helper()
	h, err := s.Held(t.Context())
	must(t, err)
	return h
}

func bytesOf(list []dray.Block) (n int64) {
	for _, b := range list {
		n += int64(b.Size())
	}
	return n
}

// collect sweeps everything but keep, and returns what it freed.
func sweepAll(t *testing.T, s *Store, keep []dray.Block, meanwhile func()) Held {
	t.Helper()
	c, err := s.Collect(t.Context())
	must(t, err)
	defer c.Close()
	marks := make(Marks)
	for _, b := range keep {
		marks.Add(b.CID())
	}
	if meanwhile != nil {
		meanwhile()
	}
	h, err := c.Sweep(t.Context(), SweepConfig{Keep: marks})
	must(t, err)
	must(t, c.Reclaim(t.Context()))
	return h
}

func has(s *Store, t *testing.T, list []dray.Block) (n int) {
	t.Helper()
	for _, b := range list {
		got, err := s.Get(t.Context(), b.CID())
		switch {
		case err == nil && got.Size() == b.Size():
			n++
		case !errors.Is(err, dray.ErrNotFound):
			t.Fatal(err)
		}
	}
	return n
}

// What is not kept goes, to the byte, what is kept stays, also after the store was opened again, and segments are given
// back.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Config{Dir: dir, SegmentSize: 256 << 10})
	all := loose(t, 1, 200)
	must(t, s.Put(t.Context(), all...))
	if h := held(t, s); h.Bytes != bytesOf(all) || h.Blocks != 200 {
		t.Fatalf("held are %+v, want 200 blocks with %d bytes", h, bytesOf(all))
	}
	keep, rest := all[:60], all[60:]
	c, err := s.Collect(t.Context())
	must(t, err)
	marks := make(Marks)
	for _, b := range keep {
		marks.Add(b.CID())
	}
	dry, err := c.Sweep(t.Context(), SweepConfig{Keep: marks, DryRun: true})
	must(t, err)
	c.Close()
	if h := held(t, s); h.Bytes != bytesOf(all) {
		t.Fatalf("a dry run left %d bytes of %d", h.Bytes, bytesOf(all))
	}
	before := diskUse(t, dir)
	freed := sweepAll(t, s, keep, nil)
	if want := (Held{int64(len(rest)), bytesOf(rest)}); freed != want || dry != want {
		t.Errorf("freed %+v, dry %+v, want %+v", freed, dry, want)
	}
	if h := held(t, s); h.Bytes != bytesOf(keep) {
		t.Errorf("held are %d bytes, want %d", h.Bytes, bytesOf(keep))
	}
	if after := diskUse(t, dir); after > before/2 {
		t.Errorf("segments have %d bytes of %d", after, before)
	}
	must(t, s.Close())
	s = openStore(t, Config{Dir: dir})
	if has(s, t, keep) != len(keep) || has(s, t, rest) != 0 {
		t.Errorf("opened again it has %d of %d, and %d that are gone", has(s, t, keep), len(keep), has(s, t, rest))
	}
}

func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, "segments"))
	must(t, err)
	for _, e := range list {
		info, err := e.Info()
		must(t, err)
		n += info.Size()
	}
	return n
}

// What is used while garbage is collected is not collected, in whichever way it is used; neither is what somebody holds.
func TestUsedMeanwhile(t *testing.T) {
	s := openStore(t, Config{})
	b := loose(t, 2, 6)
	must(t, s.Put(t.Context(), b...))
	release := s.Hold()
	must(t, s.Put(t.Context(), b[4])) // it is there; the one who holds counts on it
	first, err := s.Collect(t.Context())
	must(t, err)
	if _, err := s.Collect(t.Context()); !errors.Is(err, ErrCollecting) {
		t.Fatalf("a second run: %v", err)
	}
	first.Close()
	first.Close()
	freed := sweepAll(t, s, b[:1], func() {
		if _, err := s.Get(t.Context(), b[1].CID()); err != nil {
			t.Error(err)
		}
		if _, err := s.Stat(t.Context(), b[2].CID()); err != nil {
			t.Error(err)
		}
		must(t, s.Put(t.Context(), b[3]))
	})
	if freed.Blocks != 1 || has(s, t, b[:5]) != 5 || has(s, t, b[5:]) != 0 {
		t.Errorf("freed %+v, has %d of the five in use", freed, has(s, t, b[:5]))
	}
	release()
	release()
}

// Copies in the user's files are not touched, and a file is forgotten unless it is the only place of something needed.
func TestForgetFile(t *testing.T) {
	s := openStore(t, Config{})
	dir := t.TempDir()
	leaf := loose(t, 3, 1)[0]
	path := filepath.Join(dir, "f")
	must(t, os.WriteFile(path, leaf.Data(), 0o644))
	must(t, s.Put(t.Context(), leaf))
	ref, err := s.Reference(t.Context(), path)
	must(t, err)
	must(t, ref.Index(leaf.CID(), nil, nil, 0, int64(leaf.Size())))
	must(t, ref.Commit(t.Context()))
	if freed := sweepAll(t, s, nil, nil); freed.Bytes != int64(leaf.Size()) {
		t.Errorf("freed %+v, want the store's own copy", freed)
	}
	if has(s, t, []dray.Block{leaf}) != 1 {
		t.Fatal("the leaf in the user's file is gone")
	}
	c, err := s.Collect(t.Context())
	must(t, err)
	defer c.Close()
	marks := make(Marks)
	marks.Add(leaf.CID())
	if paths, quiet := c.Files(); !quiet || len(paths) != 1 || paths[0] != path {
		t.Errorf("files are %v, quiet %v", paths, quiet)
	}
	if ok, err := c.Forget(t.Context(), path, marks); ok || err != nil {
		t.Errorf("forgot the only place of what is needed (%v)", err)
	}
	marks.Remove(leaf.CID())
	if ok, err := c.Forget(t.Context(), path, marks); !ok || err != nil {
		t.Errorf("did not forget what is not needed: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// While garbage is collected over and over, a writer that holds finds everything that it has seen or put.
func TestSweepAndWrite(t *testing.T) {
	s := openStore(t, Config{SegmentSize: 256 << 10, SyncBytes: 1 << 16})
	all := loose(t, 4, 60)
	var wg sync.WaitGroup
	done := make(chan struct{})
	var runs atomic.Int64
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			c, err := s.Collect(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Sweep(t.Context(), SweepConfig{}); err != nil {
				t.Error(err)
			}
			c.Close()
			runs.Add(1)
		}
	})
	for round := 0; runs.Load() < 30; round++ {
		rng := rand.New(rand.NewPCG(uint64(round), 1))
		release := s.Hold()
		var seen []dray.Block
		for _, i := range rng.Perm(len(all))[:20] {
			if _, err := s.Stat(t.Context(), all[i].CID()); err != nil {
				if !errors.Is(err, dray.ErrNotFound) {
					t.Fatal(err)
				}
				must(t, s.Put(t.Context(), all[i]))
			}
			seen = append(seen, all[i])
		}
		if n := has(s, t, seen); n != len(seen) {
			t.Fatalf("round %d: %d of %d blocks that were seen or put are there", round, n, len(seen))
		}
		release()
	}
	close(done)
	wg.Wait()
	must(t, s.Sync(t.Context()))
	sweepAll(t, s, nil, nil)
	if h := held(t, s); h != (Held{}) {
		t.Errorf("held are %+v with nothing needed", h)
	}
}

// A run that is broken off anywhere, and a store that is opened anew, lose nothing that is needed.
func TestSweepBrokenOff(t *testing.T) {
	for round := range 5 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, Config{Dir: dir, SegmentSize: 128 << 10})
			all := loose(t, uint64(round), 4*sweepBatch)
			must(t, s.Put(t.Context(), all...))
			c, err := s.Collect(t.Context())
			must(t, err)
			marks := make(Marks)
			var keep []dray.Block
			for i, b := range all {
				if i%3 == 0 {
					keep = append(keep, b)
					marks.Add(b.CID())
				}
			}
			stop := errors.New("stop")
			parts := 0
			ctx, cancel := context.WithCancelCause(t.Context())
			_, err = c.Sweep(ctx, SweepConfig{Keep: marks, Gone: func([]cid.Cid) {
				if parts++; parts > round%3 {
					cancel(stop)
				}
			}})
			if !errors.Is(err, stop) && parts > round%3 {
				t.Errorf("broken off: %v", err)
			}
			c.Close()
			must(t, s.Close())
			s = openStore(t, Config{Dir: dir, SegmentSize: 128 << 10})
			if n := has(s, t, keep); n != len(keep) {
				t.Fatalf("%d of %d are left", n, len(keep))
			}
			sweepAll(t, s, keep, nil)
			if h := held(t, s); h.Bytes != bytesOf(keep) {
				t.Errorf("the next run leaves %d bytes, want %d", h.Bytes, bytesOf(keep))
			}
		})
	}
}
