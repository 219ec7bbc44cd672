package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dray"
)

// Ways in which a user may change a file that is referenced, and what is served afterwards.
func TestChangedFile(t *testing.T) {
	const n, size = 4, 20_000
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, f *testFile)
		served [n]bool
	}{
		{"Untouched", func(*testing.T, *testFile) {}, [n]bool{true, true, true, true}},
		{"Touched", func(t *testing.T, f *testFile) {
			must(t, os.Chtimes(f.path, time.Time{}, time.Now()))
		}, [n]bool{true, true, true, true}},
		{"ModeChanged", func(t *testing.T, f *testFile) {
			must(t, os.Chmod(f.path, 0o644))
		}, [n]bool{true, true, true, true}},
		{"RewrittenInPart", func(t *testing.T, f *testFile) {
			overwrite(t, f.path, size+5)
		}, [n]bool{true, false, true, true}},
		{"RewrittenWithTimePutBack", func(t *testing.T, f *testFile) {
			st, err := os.Stat(f.path)
			must(t, err)
			overwrite(t, f.path, size+5)
			must(t, os.Chtimes(f.path, time.Time{}, st.ModTime()))
		}, [n]bool{true, false, true, true}},
		{"Truncated", func(t *testing.T, f *testFile) {
			must(t, os.Truncate(f.path, 2*size+10))
		}, [n]bool{true, true, false, false}},
		{"Appended", func(t *testing.T, f *testFile) {
			must(t, os.WriteFile(f.path, append(f.data, 1, 2, 3), 0o600))
		}, [n]bool{true, true, true, true}},
		{"ReplacedByRename", func(t *testing.T, f *testFile) {
			g := writeFile(t, f.path+".new", 99, n, size)
			must(t, os.Rename(g.path, f.path))
		}, [n]bool{}},
		{"ReplacedBySame", func(t *testing.T, f *testFile) {
			g := writeFile(t, f.path+".new", 1, n, size)
			must(t, os.Rename(g.path, f.path))
		}, [n]bool{true, true, true, true}},
		{"Deleted", func(t *testing.T, f *testFile) { must(t, os.Remove(f.path)) }, [n]bool{}},
		{"ReplacedByDirectory", func(t *testing.T, f *testFile) {
			must(t, os.Remove(f.path))
			must(t, os.Mkdir(f.path, 0o700))
		}, [n]bool{}},
	} {
		for _, cached := range []bool{false, true} {
			name := tt.name + "/NotOpen"
			if cached {
				name = tt.name + "/Open"
			}
			t.Run(name, func(t *testing.T) {
				s := openStore(t, Config{})
				f := writeFile(t, filepath.Join(t.TempDir(), "f"), 1, n, size)
				f.reference(t, s)
				if cached {
					for _, b := range f.leaves {
						wantLeaf(t, s, b)
					}
				}
				tt.change(t, f)
				for range 2 {
					for i, b := range f.leaves {
						if tt.served[i] {
							wantLeaf(t, s, b)
							continue
						}
						if got, err := s.GetRaw(t.Context(), b.CID(), nil); err == nil {
							t.Errorf("leaf %d: %d bytes are served", i, len(got))
						} else if !errors.Is(err, dray.ErrChanged) && !errors.Is(err, dray.ErrNotFound) {
							t.Errorf("leaf %d: %v", i, err)
						}
						if _, err := s.Stat(t.Context(), b.CID()); !errors.Is(err, dray.ErrNotFound) {
							t.Errorf("leaf %d: Stat: %v", i, err)
						}
					}
				}
				// What was lost can be put again, and the file can be added again.
				must(t, s.Put(t.Context(), f.leaves...))
				for _, b := range f.leaves {
					wantLeaf(t, s, b)
				}
			})
		}
	}
}

func TestChangedSaysSoOnce(t *testing.T) {
	s := openStore(t, Config{})
	f := writeFile(t, filepath.Join(t.TempDir(), "f"), 1, 2, 20_000)
	f.reference(t, s)
	overwrite(t, f.path, 5)
	wantErr(t, s, f.leaves[0], dray.ErrChanged)
	wantErr(t, s, f.leaves[0], dray.ErrNotFound)
	wantLeaf(t, s, f.leaves[1])
}

// A file that was written as it was indexed may be written again without its time telling.
func TestRacyFile(t *testing.T) {
	s := openStore(t, Config{})
	f := makeLeaves(filepath.Join(t.TempDir(), "f"), 1, 3, 20_000)
	mtime := time.Now().Add(time.Second).Truncate(time.Second)
	f.write(t, mtime)
	f.reference(t, s)
	id, err := s.fileAt(f.path)
	must(t, err)
	rec, err := s.fileRecord(id)
	must(t, err)
	if !rec.Unsure {
		t.Fatal("a file written just now is trusted")
	}
	// Rewrite it and make the index believe that the times are equal, as on a file system with coarse ones.
	overwrite(t, f.path, 25_000)
	now, err := s.cfg.FS.Stat(f.path)
	must(t, err)
	e := s.begin()
	rec.Identity = now
	must(t, putFileRecord(e.batch, id, &rec))
	must(t, e.finish())
	s.files.remove(id)
	wantLeaf(t, s, f.leaves[0])
	wantErr(t, s, f.leaves[1], dray.ErrChanged)
	wantLeaf(t, s, f.leaves[2])
}

// A touched file is hashed once for each leaf, and then trusted again.
func TestTouchedFileIsTrustedAgain(t *testing.T) {
	home := t.TempDir()
	s := openStore(t, Config{Dir: home})
	f := writeFile(t, filepath.Join(t.TempDir(), "f"), 1, 3, 20_000)
	f.reference(t, s)
	must(t, os.Chtimes(f.path, time.Time{}, time.Now().Add(-time.Hour)))
	for i, b := range f.leaves {
		if f.trusted(t, s) {
			t.Errorf("trusted after %d leaves", i)
		}
		wantLeaf(t, s, b)
	}
	if !f.trusted(t, s) {
		t.Error("not trusted after every leaf was hashed")
	}
}

// trusted reports whether the file's identity is the recorded one.
func (f *testFile) trusted(t *testing.T, s *Store) bool {
	t.Helper()
	id, err := s.fileAt(f.path)
	must(t, err)
	rec, err := s.fileRecord(id)
	must(t, err)
	now, err := s.cfg.FS.Stat(f.path)
	must(t, err)
	return !rec.Unsure && rec.Identity.same(now)
}

func TestReferenceOfFileThatChangesMeanwhile(t *testing.T) {
	s := openStore(t, Config{})
	f := writeFile(t, filepath.Join(t.TempDir(), "f"), 1, 3, 20_000)
	r, err := s.Reference(t.Context(), f.path)
	must(t, err)
	must(t, r.Index(f.leaves[0].CID(), nil, nil, 0, 20_000))
	overwrite(t, f.path, 30_000)
	if err := r.Commit(t.Context()); !errors.Is(err, dray.ErrChanged) {
		t.Errorf("Commit: %v", err)
	}
	wantErr(t, s, f.leaves[0], dray.ErrNotFound)
}

func TestReferenceAgain(t *testing.T) {
	s := openStore(t, Config{})
	path := filepath.Join(t.TempDir(), "f")
	old := writeFile(t, path, 1, 5, 20_000)
	old.reference(t, s)
	f := writeFile(t, path, 2, 5, 20_000)
	f.reference(t, s)
	for _, b := range old.leaves {
		wantErr(t, s, b, dray.ErrNotFound)
	}
	for _, b := range f.leaves {
		wantLeaf(t, s, b)
	}
	// One that is not committed leaves everything as it was.
	r, err := s.Reference(t.Context(), path)
	must(t, err)
	must(t, r.Index(old.leaves[0].CID(), nil, nil, 0, 20_000))
	must(t, r.Close())
	wantErr(t, s, old.leaves[0], dray.ErrNotFound)
	for _, b := range f.leaves {
		wantLeaf(t, s, b)
	}
	if got := verifyStore(t, s, true); got.Files != 1 || got.Blocks != 5 || got.Problems != 0 {
		t.Errorf("%+v", got)
	}
}

// The same leaf in two files is served from either.
func TestLeafInTwoFiles(t *testing.T) {
	s := openStore(t, Config{})
	a := writeFile(t, filepath.Join(t.TempDir(), "a"), 1, 3, 20_000)
	b := writeFile(t, filepath.Join(t.TempDir(), "b"), 1, 3, 20_000)
	a.reference(t, s)
	b.reference(t, s)
	must(t, os.Remove(a.path))
	for _, leaf := range a.leaves {
		wantLeaf(t, s, leaf)
	}
	overwrite(t, b.path, 0)
	wantErr(t, s, a.leaves[0], dray.ErrChanged)
	wantLeaf(t, s, a.leaves[1])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// overwrite changes one byte of a file.
func overwrite(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	must(t, err)
	b[0]++
	_, err = f.WriteAt(b, off)
	must(t, err)
}

// verifyStore verifies s and logs what is wrong.
func verifyStore(t *testing.T, s *Store, deep bool) VerifyStats {
	t.Helper()
	st, err := s.Verify(t.Context(), VerifyConfig{Deep: deep, Report: func(p Problem) { t.Logf("problem: %v", p) }})
	must(t, err)
	return st
}
