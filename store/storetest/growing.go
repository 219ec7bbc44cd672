package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"dray"
)

// RunGrowing checks what a [dray.FileStore] says of growing files, in particular of those that are put together from parts
// of leaves. Open opens the store in a directory, which may have been used before; every test gets its own.
func RunGrowing(t *testing.T, open func(t *testing.T, dir string) dray.FileStore) {
	tests := []struct {
		name string
		test func(*testing.T, *growTest)
	}{
		{"whole leaves", testGrowWhole},
		{"parts", testGrowParts},
		{"parts twice", testGrowPartsTwice},
		{"refusals", testGrowRefusals},
		{"holes", testGrowHoles},
		{"purposes", testGrowPurposes},
		{"parts resumed", testGrowPartsResumed},
		{"parts together", testGrowPartsTogether},
		{"done before", testGrown},
	}
	for _, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			g := &growTest{dir: t.TempDir(), open: open}
			g.path = filepath.Join(g.dir, "file")
			g.reopen(t)
			defer func() { g.ok(t, g.s.Close()) }()
			x.test(t, g)
		})
	}
}

// growTest is a store with a file that grows in it.
type growTest struct {
	dir, path string
	open      func(t *testing.T, dir string) dray.FileStore
	s         dray.FileStore
}

func (g *growTest) ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reopen closes the store, if it is open, and opens it again.
func (g *growTest) reopen(t *testing.T) {
	t.Helper()
	if g.s != nil {
		g.ok(t, g.s.Close())
	}
	g.s = g.open(t, filepath.Join(g.dir, "store"))
}

func (g *growTest) grow(t *testing.T, as dray.Growth) dray.Growing {
	t.Helper()
	f, err := g.s.GrowAs(t.Context(), g.path, as)
	g.ok(t, err)
	return f
}

func (g *growTest) expect(t *testing.T, f dray.Growing, b dray.Block, want bool, parts ...dray.Part) {
	t.Helper()
	filled, err := f.ExpectParts(b.CID(), parts)
	g.ok(t, err)
	if filled != want {
		t.Errorf("parts %v: filled %v, want %v", parts, filled, want)
	}
}

func (g *growTest) finish(t *testing.T, f dray.Growing, want []byte) {
	t.Helper()
	g.ok(t, f.Finish(t.Context()))
	got, err := os.ReadFile(g.path)
	g.ok(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("the file is not what it should be: %d bytes, want %d", len(got), len(want))
	}
	if _, err := os.Stat(g.path + ".dray-part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the part file: %v", err)
	}
}

func testGrowWhole(t *testing.T, g *growTest) {
	a, b := Block(1, 5000), Block(2, 700)
	f := g.grow(t, dray.Growth{Size: 5703, Purpose: "whole"})
	g.ok(t, f.Fill(0, []byte("abc")))
	for _, x := range []struct {
		b  dray.Block
		at int64
	}{{a, 703}, {b, 3}} {
		if filled, err := f.Expect(x.b.CID(), x.at, int64(x.b.Size())); filled || err != nil {
			t.Fatal(filled, err)
		}
	}
	if n := f.Missing(); n != 2 {
		t.Errorf("%d missing, want 2", n)
	}
	g.ok(t, g.s.Put(t.Context(), a, b))
	if !f.Has(a.CID()) || !f.Has(b.CID()) || f.Missing() != 0 {
		t.Errorf("not all is there: %d are missing", f.Missing())
	}
	g.finish(t, f, append(append([]byte("abc"), b.Data()...), a.Data()...))
	wantBlock(t, g.s, a)
	wantBlock(t, g.s, b)
}

func testGrowParts(t *testing.T, g *growTest) {
	a, b := Block(1, 1000), Block(2, 1000)
	f := g.grow(t, dray.Growth{Size: 500, Purpose: "p"})
	g.expect(t, f, a, false, dray.Part{From: 10, Size: 100, To: 0}, dray.Part{From: 900, Size: 100, To: 100}, dray.Part{Size: 50, To: 450})
	g.expect(t, f, b, false, dray.Part{From: 999, Size: 1, To: 200})
	g.ok(t, f.Fill(201, make([]byte, 249)))
	if err := f.Finish(t.Context()); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Finish without the leaves: %v", err)
	}
	// Put keeps the leaf and fills nothing.
	g.ok(t, g.s.Put(t.Context(), b))
	wantBlock(t, g.s, b)
	if n := f.Missing(); n != 2 {
		t.Errorf("%d missing, want 2", n)
	}
	g.ok(t, f.FillParts(a))
	g.ok(t, f.FillParts(b))
	g.ok(t, f.FillParts(b))
	g.ok(t, f.FillParts(Block(3, 10))) // nobody wants any of it
	if _, err := g.s.Stat(t.Context(), a.CID()); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("a leaf of which there are parts: %v", err)
	}
	g.expect(t, f, a, true, dray.Part{From: 10, Size: 100, To: 0})
	want := make([]byte, 500)
	copy(want, a.Data()[10:110])
	copy(want[100:], a.Data()[900:])
	copy(want[450:], a.Data()[:50])
	want[200] = b.Data()[999]
	g.finish(t, f, want)
}

// The same leaf goes to several places, some of which become known only after others were filled.
func testGrowPartsTwice(t *testing.T, g *growTest) {
	a := Block(1, 100)
	f := g.grow(t, dray.Growth{Size: 300})
	g.expect(t, f, a, false, dray.Part{Size: 100, To: 200})
	g.expect(t, f, a, false, dray.Part{Size: 50, To: 0})
	g.expect(t, f, a, false, dray.Part{Size: 50, To: 0})
	if n := f.Missing(); n != 1 {
		t.Errorf("%d missing, want 1", n)
	}
	g.ok(t, f.FillParts(a))
	g.expect(t, f, a, false, dray.Part{From: 50, Size: 50, To: 100})
	g.ok(t, g.s.Sync(t.Context()))
	g.expect(t, f, a, true, dray.Part{Size: 100, To: 200})
	g.ok(t, f.FillParts(a))
	want := make([]byte, 300)
	copy(want, a.Data()[:50])
	copy(want[100:], a.Data()[50:])
	copy(want[200:], a.Data())
	g.finish(t, f, want)
}

func testGrowRefusals(t *testing.T, g *growTest) {
	a := Block(1, 100)
	f := g.grow(t, dray.Growth{Size: 100})
	for _, parts := range [][]dray.Part{
		{},
		{{From: -1, Size: 5}},
		{{Size: 0}},
		{{Size: -1}},
		{{Size: 5, To: -1}},
		{{Size: 5, To: 96}},
		{{Size: 5, To: 1 << 62}},
		{{From: 1 << 62, Size: 5}},
		{{Size: dray.MaxBlockSize + 1}},
		{{Size: 5}, {Size: 101}},
	} {
		if _, err := f.ExpectParts(a.CID(), parts); err == nil {
			t.Errorf("parts %v were taken", parts)
		}
	}
	if err := f.Fill(99, []byte("ab")); err == nil {
		t.Error("bytes beyond the end were taken")
	}
	if err := f.Fill(-1, []byte("ab")); err == nil {
		t.Error("bytes before the beginning were taken")
	}
	short := Block(2, 10)
	g.expect(t, f, short, false, dray.Part{From: 5, Size: 6, To: 0})
	if err := f.FillParts(short); !errors.Is(err, dray.ErrCorrupt) {
		t.Errorf("a leaf that is too short: %v", err)
	}
	for _, as := range []dray.Growth{{Size: -1}, {Size: 10, Holes: 11}, {Size: 10, Holes: -1}} {
		if _, err := g.s.GrowAs(t.Context(), g.path+"2", as); err == nil {
			t.Errorf("%+v was taken", as)
		}
	}
	g.ok(t, f.Close())
	if _, err := f.ExpectParts(a.CID(), []dray.Part{{Size: 1}}); !errors.Is(err, dray.ErrClosed) {
		t.Errorf("ExpectParts after Close: %v", err)
	}
	if err := f.FillParts(a); !errors.Is(err, dray.ErrClosed) {
		t.Errorf("FillParts after Close: %v", err)
	}
	if err := f.Fill(0, []byte("a")); !errors.Is(err, dray.ErrClosed) {
		t.Errorf("Fill after Close: %v", err)
	}
}

// Holes read as zeros, whatever lay in the part file before.
func testGrowHoles(t *testing.T, g *growTest) {
	const size = 1 << 20
	a := Block(1, 1000)
	f := g.grow(t, dray.Growth{Size: size, Purpose: "full"})
	g.ok(t, f.Fill(0, bytes.Repeat([]byte("x"), size)))
	g.ok(t, f.Close())
	f = g.grow(t, dray.Growth{Size: size, Holes: size - 500, Purpose: "sparse"})
	g.expect(t, f, a, false, dray.Part{From: 1, Size: 500, To: size / 2})
	g.ok(t, f.FillParts(a))
	g.ok(t, f.Close())
	// The same again keeps what is there.
	g.ok(t, g.s.Sync(t.Context()))
	f = g.grow(t, dray.Growth{Size: size, Holes: size - 500, Purpose: "sparse"})
	g.expect(t, f, a, true, dray.Part{From: 1, Size: 500, To: size / 2})
	want := make([]byte, size)
	copy(want[size/2:], a.Data()[1:501])
	g.finish(t, f, want)
}

// What was written for another purpose does not count, nor what it left in the index.
func testGrowPurposes(t *testing.T, g *growTest) {
	a, b := Block(1, 1000), Block(2, 1000)
	f := g.grow(t, dray.Growth{Size: 2000, Purpose: "one"})
	_, err := f.Expect(a.CID(), 0, 1000)
	g.ok(t, err)
	g.expect(t, f, b, false, dray.Part{Size: 600, To: 1000})
	g.ok(t, g.s.Put(t.Context(), a))
	g.ok(t, f.FillParts(b))
	g.ok(t, g.s.Sync(t.Context()))
	g.ok(t, f.Close())
	f = g.grow(t, dray.Growth{Size: 2000, Purpose: "two"})
	g.expect(t, f, b, false, dray.Part{Size: 600, To: 1000})
	g.expect(t, f, a, false, dray.Part{From: 400, Size: 600, To: 400})
	if _, err := g.s.Stat(t.Context(), a.CID()); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("a leaf of the other purpose: %v", err)
	}
	g.ok(t, f.FillParts(b))
	g.ok(t, f.FillParts(a))
	g.ok(t, f.Fill(0, make([]byte, 400)))
	g.ok(t, f.Fill(1600, make([]byte, 400)))
	want := make([]byte, 2000)
	copy(want[400:], a.Data()[400:])
	copy(want[1000:], b.Data()[:600])
	g.finish(t, f, want)
}

// What was synced is there when another process continues; what comes after Close is not recorded.
func testGrowPartsResumed(t *testing.T, g *growTest) {
	const n = 20
	as := dray.Growth{Size: n * 100, Purpose: "p"}
	leaf := func(i int) (dray.Block, dray.Part) {
		return Block(uint64(i), 1000+i), dray.Part{From: int64(i), Size: 100, To: int64(i) * 100}
	}
	f := g.grow(t, as)
	for i := range n {
		b, p := leaf(i)
		g.expect(t, f, b, false, p)
		if i < 10 {
			g.ok(t, f.FillParts(b))
		}
	}
	g.ok(t, f.Close())
	g.reopen(t)
	f = g.grow(t, as)
	if !f.Resumed() {
		t.Error("not resumed")
	}
	want := make([]byte, 0, n*100)
	for i := range n {
		b, p := leaf(i)
		g.expect(t, f, b, i < 10, p)
		want = append(want, b.Data()[i:i+100]...)
	}
	if m := f.Missing(); m != 10 {
		t.Errorf("%d missing, want 10", m)
	}
	for i := 10; i < n; i++ {
		b, _ := leaf(i)
		g.ok(t, f.FillParts(b))
	}
	g.finish(t, f, want)
}

// Many goroutines fill parts of many leaves, and of the same.
func testGrowPartsTogether(t *testing.T, g *growTest) {
	const leaves, each = 60, 40
	f := g.grow(t, dray.Growth{Size: leaves * each * 3})
	want := make([]byte, leaves*each*3)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range leaves {
		b := Block(uint64(i), 4000)
		var parts []dray.Part
		for k := range each {
			p := dray.Part{From: int64(k * 100), Size: 3, To: int64((k*leaves + i) * 3)}
			copy(want[p.To:], b.Data()[p.From:p.From+p.Size])
			parts = append(parts, p)
		}
		rng.Shuffle(len(parts), func(i, k int) { parts[i], parts[k] = parts[k], parts[i] })
		g.expect(t, f, b, false, parts...)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 4*leaves)
	for w := range 4 {
		wg.Go(func() {
			for i := range leaves {
				if err := f.FillParts(Block(uint64((i+w)%leaves), 4000)); err != nil {
					errs <- fmt.Errorf("leaf %d: %w", i, err)
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if n := f.Missing(); n != 0 {
		t.Errorf("%d missing", n)
	}
	g.finish(t, f, want)
}

// A finished file is known by its purpose until it is changed.
func testGrown(t *testing.T, g *growTest) {
	if g.s.Grown(t.Context(), g.path, "p") {
		t.Error("a file that is not there")
	}
	f := g.grow(t, dray.Growth{Size: 3, Purpose: "p"})
	g.ok(t, f.Fill(0, []byte("abc")))
	if g.s.Grown(t.Context(), g.path, "p") {
		t.Error("a file that is not finished")
	}
	g.finish(t, f, []byte("abc"))
	g.reopen(t)
	if !g.s.Grown(t.Context(), g.path, "p") || g.s.Grown(t.Context(), g.path, "q") || g.s.Grown(t.Context(), g.path+"x", "p") {
		t.Error("a finished file is not known by its purpose, or by another one")
	}
	g.ok(t, os.WriteFile(g.path, []byte("abd"), 0o644))
	if g.s.Grown(t.Context(), g.path, "p") {
		t.Error("a file that was changed")
	}
}
