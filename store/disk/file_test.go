package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"
)

// testFile is a file made of leaves.
type testFile struct {
	path   string
	leaves []dray.Block
	data   []byte
}

func (f *testFile) offset(i int) int64 { return int64(i) * int64(f.leaves[0].Size()) }

// makeLeaves returns n leaves of size bytes as a file that will lie at path.
func makeLeaves(path string, seed uint64, n, size int) *testFile {
	f := &testFile{path: path}
	for i := range n {
		b := storetest.Block(seed<<32|uint64(i), size)
		f.leaves = append(f.leaves, b)
		f.data = append(f.data, b.Data()...)
	}
	return f
}

// writeFile makes such a file, last written a minute ago.
func writeFile(t *testing.T, path string, seed uint64, n, size int) *testFile {
	t.Helper()
	f := makeLeaves(path, seed, n, size)
	f.write(t, time.Now().Add(-time.Minute))
	return f
}

func (f *testFile) write(t *testing.T, mtime time.Time) {
	t.Helper()
	if err := os.WriteFile(f.path, f.data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(f.path, time.Time{}, mtime); err != nil {
		t.Fatal(err)
	}
}

// reference indexes the file where it lies.
func (f *testFile) reference(t *testing.T, s *Store) {
	t.Helper()
	r, err := s.Reference(t.Context(), f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i, b := range f.leaves {
		if err := r.Index(b.CID(), nil, nil, f.offset(i), int64(b.Size())); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// wantLeaf checks that s serves b.
func wantLeaf(t *testing.T, s *Store, b dray.Block) {
	t.Helper()
	got, err := s.GetRaw(t.Context(), b.CID(), nil)
	if err != nil || !bytes.Equal(got, b.Data()) {
		t.Errorf("GetRaw(%v): %d bytes, %v", b, len(got), err)
	}
	if n, err := s.Stat(t.Context(), b.CID()); err != nil || n != int64(b.Size()) {
		t.Errorf("Stat(%v) = %d, %v", b, n, err)
	}
}

func wantErr(t *testing.T, s *Store, b dray.Block, want error) {
	t.Helper()
	if got, err := s.GetRaw(t.Context(), b.CID(), nil); !errors.Is(err, want) {
		t.Errorf("GetRaw(%v): %d bytes, %v; want %v", b, len(got), err, want)
	}
}

func TestReference(t *testing.T) {
	dir := t.TempDir()
	f := writeFile(t, filepath.Join(dir, "f"), 1, 10, 30_000)
	home := filepath.Join(dir, "home")
	s := openStore(t, Config{Dir: home})
	f.reference(t, s)
	for _, b := range f.leaves {
		wantLeaf(t, s, b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Config{Dir: home})
	for _, b := range f.leaves {
		wantLeaf(t, s, b)
	}
	if err := s.Forget(t.Context(), f.path); err != nil {
		t.Fatal(err)
	}
	for _, b := range f.leaves {
		wantErr(t, s, b, dray.ErrNotFound)
	}
	if _, err := os.Stat(f.path); err != nil {
		t.Error(err)
	}
}

func TestGrow(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	s := openStore(t, Config{Dir: home})
	f := makeLeaves(filepath.Join(dir, "f"), 1, 10, 300_000)
	g, err := s.Grow(t.Context(), f.path, int64(len(f.data)))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range f.leaves {
		if filled, err := g.Expect(b.CID(), f.offset(i), int64(b.Size())); filled || err != nil {
			t.Fatal(filled, err)
		}
	}
	for i := range f.leaves {
		b := f.leaves[(i*3)%10]
		if g.Has(b.CID()) {
			t.Errorf("has %v already", b)
		}
		if err := s.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if !g.Has(b.CID()) || g.Missing() != 9-i {
			t.Errorf("has not got %v; %d missing", b, g.Missing())
		}
		wantLeaf(t, s, b)
		if i == 5 {
			if err := g.Finish(t.Context()); !errors.Is(err, dray.ErrNotFound) {
				t.Errorf("Finish of half a file: %v", err)
			}
		}
	}
	if _, err := os.Stat(f.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there before Finish: %v", err)
	}
	if err := g.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.path)
	if err != nil || !bytes.Equal(got, f.data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if segs, _ := os.ReadDir(filepath.Join(home, "segments")); len(segs) != 0 {
		t.Errorf("leaves went to segments: %v", segs)
	}
	for _, b := range f.leaves {
		wantLeaf(t, s, b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Config{Dir: home})
	for _, b := range f.leaves {
		wantLeaf(t, s, b)
	}
}

// Parts of blocks are what stands there, wherever a block lies, and only as long as that is certain.
func TestGetPart(t *testing.T) {
	s := openStore(t, Config{SmallBlock: 100})
	f := writeFile(t, filepath.Join(t.TempDir(), "f"), 1, 3, 20_000)
	f.reference(t, s)
	small, big := storetest.Block(7, 50), storetest.Block(8, 5000)
	must(t, s.Put(t.Context(), small, big))
	all := append([]dray.Block{small, big}, f.leaves...)
	for _, b := range all {
		wantLeaf(t, s, b) // which settles what was indexed too soon after it was written
		for _, r := range [][2]int{{0, 0}, {0, 1}, {3, 20}, {0, b.Size()}, {b.Size() - 5, 5}, {b.Size() - 5, 50}, {b.Size(), 9}} {
			p := make([]byte, r[1])
			n, size, err := s.GetPart(t.Context(), b.CID(), p, int64(r[0]))
			want := b.Data()[r[0]:min(r[0]+r[1], b.Size())]
			if err != nil || size != int64(b.Size()) || !bytes.Equal(p[:n], want) {
				t.Errorf("%v from %d, %d bytes: %d of %d, %v", b.CID(), r[0], r[1], n, size, err)
			}
		}
	}
	if _, _, err := s.GetPart(t.Context(), storetest.Block(9, 10).CID(), nil, 0); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("a block that is not here: %v", err)
	}
	overwrite(t, f.path, 20_005) // in the second leaf
	for i, b := range f.leaves {
		n, _, err := s.GetPart(t.Context(), b.CID(), make([]byte, 10), 0)
		if !errors.Is(err, dray.ErrNotFound) {
			t.Errorf("leaf %d of a file that has changed: %d bytes, %v", i, n, err)
		}
	}
	if _, _, err := s.GetPart(t.Context(), f.leaves[1].CID(), make([]byte, 10), 0); err == nil {
		t.Error("a leaf that is another now is served by parts")
	}
}
