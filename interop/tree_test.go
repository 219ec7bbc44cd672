package interop

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dray/transport"
	"dray/unixfs"
)

// The ids of Bitswap, newest first.
const (
	bitswap120 transport.Protocol = "/ipfs/bitswap/1.2.0"
	bitswap110 transport.Protocol = "/ipfs/bitswap/1.1.0"
	bitswap100 transport.Protocol = "/ipfs/bitswap/1.0.0"
	legacy     transport.Protocol = "/ipfs/bitswap"
)

// small returns p with leaves so small and nodes so narrow that files of a few KiB are trees of several levels.
func small(p unixfs.Profile) unixfs.Profile {
	p.Name += "-small"
	p.ChunkSize = 1 << 10
	p.MaxLinks = 4
	return p
}

// contents returns size reproducible bytes.
func contents(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// tree writes a directory with what file systems have: small and large files, directories in directories, an empty one, odd
// names and symlinks. It returns the directory. An empty file is in it unless noEmpty is set.
func tree(t testing.TB, noEmpty bool) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	for _, dir := range []string{"", "a", "a/b", "a/b/c", "empty"} {
		mkdir(t, filepath.Join(root, dir))
	}
	for i, f := range []struct {
		name string
		size int
	}{
		{"one byte", 1},
		{"a/one leaf", 1 << 10},
		{"a/one leaf and a byte", 1<<10 + 1},
		{"a/b/five levels", 300_000},
		{"a/b/c/ünïcödé ☃", 5_000},
		{"a/b/c/" + strings.Repeat("long", 50), 100},
	} {
		write(t, filepath.Join(root, f.name), contents(byte(i), f.size))
	}
	if !noEmpty {
		write(t, filepath.Join(root, "empty file"), nil)
	}
	for name, target := range map[string]string{"link": "a/b/five levels", "a/up": "../nowhere"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// crowd writes a directory with so many entries that both standard profiles make it a tree of shards.
func crowd(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "crowd")
	mkdir(t, root)
	for i := range 3500 {
		write(t, filepath.Join(root, fmt.Sprintf("entry %04d %s", i, strings.Repeat("x", 60))), fmt.Appendf(nil, "content %d", i))
	}
	return root
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sameTree fails the test unless the files, directories and symlinks at got are those at want.
func sameTree(t testing.TB, got, want string) {
	t.Helper()
	g, w := listing(t, got), listing(t, want)
	for name, entry := range w {
		if !bytes.Equal(g[name], entry) {
			t.Errorf("%q: got %.60q (%d bytes), want %.60q (%d bytes)", name, g[name], len(g[name]), entry, len(entry))
		}
	}
	for name := range g {
		if _, ok := w[name]; !ok {
			t.Errorf("%q: nobody put this there", name)
		}
	}
}

// listing returns what is under root: by path, a letter for what it is and its content.
func listing(t testing.TB, root string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			all[name] = []byte("d")
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			all[name] = []byte("l" + target)
		default:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[name] = append([]byte("f"), b...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
