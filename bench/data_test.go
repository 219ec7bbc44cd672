package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
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
	}
}
