package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"
)

// TestElsewhere asks, while a file is being indexed, which of its leaves the store has in other places.
func TestElsewhere(t *testing.T) {
	s := openStore(t, Config{})
	dir := t.TempDir()
	a := writeFile(t, filepath.Join(dir, "a"), 1, 4, 20_000)
	check := func(what, path string, b dray.Block, want bool) {
		t.Helper()
		r, err := s.Reference(t.Context(), path)
		must(t, err)
		got, err := r.Elsewhere(b.CID())
		must(t, err)
		if got != want {
			t.Errorf("%s: elsewhere is %v", what, got)
		}
		must(t, r.Close())
		if _, err := r.Elsewhere(b.CID()); err == nil {
			t.Errorf("%s: an answer after Close", what)
		}
	}
	check("what nobody has", a.path, a.leaves[0], false)

	a.reference(t, s)
	b := writeFile(t, filepath.Join(dir, "b"), 1, 4, 20_000)
	check("what the same path had", a.path, a.leaves[0], false)
	check("what another file has", b.path, b.leaves[0], true)

	// While a file is being indexed again, its own leaves are nowhere else, committed or not.
	r, err := s.Reference(t.Context(), a.path)
	must(t, err)
	for i, leaf := range a.leaves {
		must(t, r.Index(leaf.CID(), nil, nil, a.offset(i), int64(leaf.Size())))
	}
	if got, err := r.Elsewhere(a.leaves[1].CID()); got || err != nil {
		t.Errorf("a leaf of the file itself: %v, %v", got, err)
	}
	must(t, r.Close())

	b.reference(t, s)
	check("what another file has, too", a.path, a.leaves[0], true)
	must(t, os.Chtimes(b.path, time.Time{}, time.Now().Add(time.Hour)))
	check("what a file had that was changed since", a.path, a.leaves[0], false)
	must(t, os.Remove(b.path))
	check("what a file had that is gone", a.path, a.leaves[1], false)

	// A copy of the store's own.
	small, large := storetest.Block(5, 100), storetest.Block(6, 300_000)
	for _, block := range []dray.Block{small, large} {
		check("what was never put", a.path, block, false)
		must(t, s.Put(t.Context(), block))
		check("what was put", a.path, block, true)
	}
}
