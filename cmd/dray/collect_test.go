package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/rogpeppe/go-internal/testscript"

	"dray/store/disk"
)

// shelf is a home with random roots that share blocks.
type shelf struct {
	t    *testing.T
	h    *house
	rng  *rand.Rand
	dir  string
	pool [][]byte
	n    int
}

func newShelf(t *testing.T, seed uint64) *shelf {
	dir := t.TempDir()
	h := testHouse(t, filepath.Join(dir, "home"), access{})
	s := &shelf{t: t, h: h, rng: rand.New(rand.NewPCG(seed, 11)), dir: dir}
	for i := range 16 {
		data := make([]byte, 500+s.rng.IntN(40000))
		var key [32]byte
		key[0], key[1] = byte(i), byte(seed)
		rand.NewChaCha8(key).Read(data)
		s.pool = append(s.pool, data)
	}
	return s
}

// add adds a directory of some files of the pool, as copies or where they lie, with a random purpose and age.
func (s *shelf) add() {
	s.n++
	path := filepath.Join(s.dir, fmt.Sprint("dir", s.n))
	if err := os.Mkdir(path, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, k := range s.rng.Perm(len(s.pool))[:1+s.rng.IntN(5)] {
		if err := os.WriteFile(filepath.Join(path, fmt.Sprint("f", k)), s.pool[k], 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	q := addRequest{Path: path, Profile: "native", Layout: "auto", Copy: s.rng.IntN(3) > 0}
	r, err := addPath(s.t.Context(), s.h, q, pipes[addNote]{note: func(addNote) {}})
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := parseCID(r.CID)
	if err != nil {
		s.t.Fatal(err)
	}
	root, err := s.h.store.Root(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	root.Mode = []disk.Mode{disk.Once, disk.Once, disk.Once, disk.Keep, disk.Seed, disk.Both}[s.rng.IntN(6)]
	root.Pinned = s.rng.IntN(5) == 0
	root.Added = time.Unix(int64(1e9+s.rng.IntN(1000)), 0)
	if s.rng.IntN(2) == 0 {
		root.Used = root.Added.Add(time.Duration(s.rng.IntN(1000)) * time.Second)
	}
	if err := s.h.store.SetRoot(s.t.Context(), root); err != nil {
		s.t.Fatal(err)
	}
}

// own returns the bytes of the store's own copies of what the roots need, each block once.
func (s *shelf) own(roots []disk.Root) int64 {
	s.t.Helper()
	c, err := s.h.store.Collect(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	m := &marking{c: c, keep: make(disk.Marks)}
	for _, r := range roots {
		if err := m.add(s.t.Context(), r.CID); err != nil {
			s.t.Fatal(err)
		}
	}
	return m.own
}

func (s *shelf) roots() []disk.Root {
	list, err := s.h.store.Roots(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// Whatever the roots share, whatever is pinned and whatever grows: no needed block goes, the quota is reached if it can be,
// those unused the longest go first, no more go than must, and the numbers are right to the byte.
func TestCollectAnything(t *testing.T) {
	for seed := range uint64(25) {
		s := newShelf(t, seed)
		for range 4 + s.rng.IntN(8) {
			s.add()
		}
		var growing []cid.Cid
		for _, r := range s.roots() {
			if s.rng.IntN(6) == 0 {
				growing = append(growing, r.CID)
				defer s.h.grow(r.CID)()
			}
		}
		stays := func(r disk.Root) bool { return !r.Collectable() || slices.Contains(growing, r.CID) }
		before := s.roots()
		q := quota{Bytes: int64(s.rng.IntN(400_000)), None: s.rng.IntN(6) == 0}
		dry, err := s.h.collect(t.Context(), q, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.roots()) != len(before) {
			t.Fatalf("seed %d: a dry run removed roots", seed)
		}
		got, err := s.h.collect(t.Context(), q, false)
		if err != nil {
			t.Fatal(err)
		}
		if got.Freed != dry.Freed || got.Blocks != dry.Blocks || len(got.Roots) != len(dry.Roots) {
			t.Errorf("seed %d: it did %+v, and had said %+v", seed, got, dry)
		}
		after := s.roots()
		held, err := s.h.store.Held(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if held.Bytes != got.After || got.Before-got.Freed != got.After {
			t.Errorf("seed %d: held are %d bytes, said was %+v", seed, held.Bytes, got)
		}
		if own := s.own(after); own != held.Bytes {
			t.Errorf("seed %d: held are %d bytes, needed %d", seed, held.Bytes, own)
		}
		var left, gone, needed []disk.Root
		for _, r := range before {
			here := slices.ContainsFunc(after, func(o disk.Root) bool { return o.CID == r.CID })
			switch {
			case stays(r) || q.None:
				needed = append(needed, r)
				if !here {
					t.Errorf("seed %d: a root that is to stay is gone: %+v", seed, r)
				}
			case here:
				left = append(left, r)
			default:
				gone = append(gone, r)
			}
		}
		for _, r := range after {
			if missing, _, err := s.h.lacking(t.Context(), r.CID); missing > 0 || err != nil {
				t.Errorf("seed %d: %d blocks of a root that stays are gone (%v): %+v", seed, missing, err, r)
			}
		}
		if q.None {
			continue
		}
		for _, g := range gone {
			for _, l := range left {
				if g.LastUsed().After(l.LastUsed()) {
					t.Errorf("seed %d: one used %v went before one used %v", seed, g.LastUsed(), l.LastUsed())
				}
			}
		}
		if over := got.After > q.Bytes; over != got.Over || over && (len(left) > 0 || s.own(needed) != got.After) {
			t.Errorf("seed %d: %d bytes are left of a quota of %d, with %d roots that could go: %+v", seed, got.After, q.Bytes, len(left), got)
		}
		if stats, err := s.h.store.Verify(t.Context(), disk.VerifyConfig{Deep: true}); stats.Problems > 0 || err != nil {
			t.Errorf("seed %d: %d problems (%v)", seed, stats.Problems, err)
		}
	}
}

// A root that is damaged so that nobody can tell what it needs keeps everything from being collected.
func TestCollectDamaged(t *testing.T) {
	s := newShelf(t, 1)
	s.add()
	s.add()
	roots := s.roots()
	for i := range roots {
		roots[i].Mode = disk.Seed
		if err := s.h.store.SetRoot(t.Context(), roots[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.h.store.Delete(t.Context(), roots[0].CID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.h.collect(t.Context(), quota{}, false); err == nil {
		t.Error("collected, with a root of which it is not known what it needs")
	}
	if missing, _, err := s.h.lacking(t.Context(), roots[1].CID); missing > 0 || err != nil {
		t.Errorf("%d blocks of the other root are gone (%v)", missing, err)
	}
}

// What is added while garbage is collected over and over is whole.
func TestCollectWhileAdding(t *testing.T) {
	s := newShelf(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	ended := watch(func(<-chan struct{}) {
		for ctx.Err() == nil {
			if _, err := s.h.collect(ctx, quota{}, false); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for range 12 {
		s.n++
		path := filepath.Join(s.dir, fmt.Sprint("file", s.n))
		if err := os.WriteFile(path, s.pool[s.n%4], 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := addPath(t.Context(), s.h, addRequest{Path: path, Profile: "native", Layout: "auto", Copy: s.n%2 == 0},
			pipes[addNote]{note: func(addNote) {}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseCID(r.CID)
		if err != nil {
			t.Fatal(err)
		}
		if missing, _, err := s.h.lacking(t.Context(), c); missing > 0 || err != nil {
			t.Fatalf("round %d: %d blocks of what was just added are gone (%v)", s.n, missing, err)
		}
	}
	cancel()
	ended()
}

func TestParseQuota(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "200GB": 200e9, "200 gb": 200e9, "1.5T": 15e11, "512MiB": 512 << 20, "77": 77, "3k": 3000, "1kib": 1024,
	} {
		if q, err := parseQuota(text); err != nil || q.None || q.Bytes != want {
			t.Errorf("%q is %+v (%v), want %d", text, q, err, want)
		}
	}
	for _, text := range []string{"much", "-1", "1XB", "1e40GB", "NaN", "GB", "inf"} {
		if q, err := parseQuota(text); err == nil {
			t.Errorf("%q is %+v", text, q)
		}
	}
	if q, err := parseQuota(""); err != nil || !q.None {
		t.Errorf("no quota is %+v (%v)", q, err)
	}
}

// cmdCull collects garbage in a home, and kills that.
func cmdCull(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "cull NAME KILLS")
	kills, err := strconv.Atoi(args[1])
	ts.Check(err)
	rng := rand.New(rand.NewPCG(3, uint64(kills)))
	for range kills {
		p := launch(ts, "gc", "--home", ts.MkAbs(args[0]), "gc", "--quota", "0")
		t := time.NewTimer(time.Duration(rng.IntN(120)) * time.Millisecond)
		<-t.C
		_ = p.cmd.Process.Kill() // it may be done
		p.wait()
	}
}
