package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"golang.org/x/sys/unix"

	"dray/tensor"
)

// TestGraphs puts the CARs of the list and the star into a repository and walks them, as the rows do over a network.
func TestGraphs(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(path string, n int) (*dataset, error)
		n    int
		want int
	}{
		{"list", makeList, 20, 20},
		{"star", makeStar, 300, 301},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			set, err := tc.make(filepath.Join(dir, "car"), tc.n)
			if err != nil {
				t.Fatal(err)
			}
			if err := set.checkCAR(set.path); err != nil {
				t.Error(err)
			}
			st, err := openBoxoStore(t.Context(), filepath.Join(dir, "home"))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			f, err := os.Open(set.path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			root, err := boxoAdd(t.Context(), st, f, "", true)
			if err != nil {
				t.Fatal(err)
			}
			dag := merkledag.NewDAGService(blockservice.New(st, offline.Exchange(st)))
			got, err := boxoWalk(t.Context(), dag, fetched{}, root)
			if err != nil {
				t.Fatal(err)
			}
			if got.Blocks != tc.want || set.blocks != tc.want || !root.Equals(set.root) {
				t.Errorf("walked %d blocks under %v, want %d under %v", got.Blocks, root, tc.want, set.root)
			}
		})
	}
}

// TestCheckFile checks that a received file which is short or spoilt is noticed.
func TestCheckFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	set, err := makeFile(path, 100_000, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.checkFile(path); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	short := b[:len(b)-1]
	spoilt := append([]byte(nil), b...)
	spoilt[50_000] ^= 1
	for name, bad := range map[string][]byte{"short": short, "spoilt": spoilt} {
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if set.checkFile(path) == nil {
			t.Errorf("a %s file passes", name)
		}
		if sameFile(path, path) != nil {
			t.Errorf("a %s file differs from itself", name)
		}
		good := filepath.Join(t.TempDir(), "good")
		if err := os.WriteFile(good, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if sameFile(good, path) == nil || sameFile(path, good) == nil {
			t.Errorf("a %s file is the same as the good one", name)
		}
	}
}

// TestSparse checks that the file of holes is what it claims to be: valid tensors, little on the disk, no two parts
// alike.
func TestSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	set, err := makeSparse(path, 640<<20)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	layout, err := tensor.Read(f, set.size)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(layout.Tensors); n != sparseTensors {
		t.Errorf("%d tensors, want %d", n, sparseTensors)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != set.size || st.Blocks*512 > set.size/4 {
		t.Errorf("%d bytes long, %d on the disk; want %d and far fewer", st.Size, st.Blocks*512, set.size)
	}
	seen := map[[32]byte]int64{}
	part := make([]byte, 1<<20)
	for at := int64(0); at+int64(len(part)) <= set.size; at += int64(len(part)) {
		if _, err := f.ReadAt(part, at); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(part)
		if other, twice := seen[sum]; twice {
			t.Fatalf("the parts at %d and %d are alike", other, at)
		}
		seen[sum] = at
	}
}
