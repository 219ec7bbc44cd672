package unixfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"dray"
)

// addParts imports a file whose parts have the given sizes, and returns the parts' roots too.
func addParts(t testing.TB, p Profile, data []byte, sizes []int, put func(dray.Block) error) (root Ref, parts []Ref) {
	t.Helper()
	whole, part := NewBuilder(p, put), NewBuilder(p, put)
	for _, n := range sizes {
		part.Reset()
		for content := data[:n]; len(content) > 0; {
			k := min(int64(len(content)), p.ChunkSize)
			addLeaf(t, part, p, content[:k], put)
			content = content[k:]
		}
		data = data[n:]
		ref, err := part.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if err := whole.AddNode(ref); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, ref)
	}
	root, err := whole.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root, parts
}

// partSizes are cuts that make trees of different depths beside one another, for chunks of 10 bytes and nodes of 3.
var partSizes = map[string][]int{
	"one":           {7},
	"one deep":      {1000},
	"two":           {10, 10},
	"deep first":    {1000, 1, 2, 3},
	"deep last":     {1, 2, 3, 1000},
	"deep between":  {1, 91, 1, 10, 500, 9, 31, 30},
	"many tiny":     slices.Repeat([]int{1}, 82),
	"full and over": {30, 30, 30, 90, 90, 90, 270, 1},
}

// TestParts reads files whose branches differ in depth: by Reader, in order and by ranges, by Walk, and by boxo, and
// checks that each part has the CID that it has as a file.
func TestParts(t *testing.T) {
	for name, sizes := range partSizes {
		for _, start := range []Profile{V0(), V1(), Native()} {
			p := small(start, 10, 3)
			t.Run(name+"-"+p.Name, func(t *testing.T) {
				n := 0
				for _, k := range sizes {
					n += k
				}
				data := noise(uint64(n), n)
				m := blockMap{}
				root, parts := addParts(t, p, data, sizes, m.put)
				if root.Size != int64(n) {
					t.Fatalf("%d bytes, want %d", root.Size, n)
				}
				at := 0
				for i, part := range parts {
					alone := addFile(t, p, data[at:at+sizes[i]], func(dray.Block) error { return nil })
					if part != alone {
						t.Errorf("part %d is %v, and as a file %v", i, part, alone)
					}
					at += sizes[i]
				}
				if err := iotest.TestReader(newReader(t, m, root.CID, ReaderConfig{}), data); err != nil {
					t.Error(err)
				}
				w := NewWalk(root.CID, WalkConfig{})
				files, err := contents(t, w, m, newRand(uint64(n)))
				if err != nil || !bytes.Equal(files[""], data) {
					t.Errorf("walk: %d bytes, %v", len(files[""]), err)
				}
				leaves := 0
				for _, k := range sizes {
					leaves += (k + 9) / 10
				}
				if got := w.Manifest().Len(); got != leaves {
					t.Errorf("%d leaves in the manifest, want %d", got, leaves)
				}
				boxoReads(t, m, root.CID, data)
			})
		}
	}
}

// boxoReads has boxo read a file, whole and by ranges.
func boxoReads(t *testing.T, m blockMap, root cid.Cid, data []byte) {
	t.Helper()
	ctx := context.Background()
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	for _, b := range m {
		bb, err := blocks.NewBlockWithCid(b.Data(), b.CID())
		if err = errors.Join(err, bs.Put(ctx, bb)); err != nil {
			t.Fatal(err)
		}
	}
	dag := merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
	n, err := dag.Get(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	r, err := uio.NewDagReader(ctx, n, dag)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Size() != uint64(len(data)) {
		t.Errorf("boxo: %d bytes, want %d", r.Size(), len(data))
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("boxo: %d bytes, %v", len(got), err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		from := rng.IntN(len(data))
		to := from + rng.IntN(len(data)-from) + 1
		got := make([]byte, to-from)
		if _, err := r.Seek(int64(from), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[from:to]) {
			t.Fatalf("boxo: bytes %d to %d: %v", from, to, err)
		}
	}
}

// TestPartsOfLeaves checks that one part is itself, that parts of a leaf each make the tree that leaves make, and that a
// Builder after Reset is as good as new.
func TestPartsOfLeaves(t *testing.T) {
	p := small(Native(), 10, 3)
	data := noise(1, 1000)
	want := addFile(t, p, data, blockMap{}.put)
	for _, sizes := range [][]int{{1000}, slices.Repeat([]int{10}, 100)} {
		if root, _ := addParts(t, p, data, sizes, blockMap{}.put); root != want {
			t.Errorf("%d parts: %v, want %v", len(sizes), root, want)
		}
	}
	m := blockMap{}
	b := NewBuilder(p, m.put)
	for _, n := range []int{1000, 1, 0, 95, 10, 1000, 31} {
		b.Reset()
		for at := 0; at < n; at += 10 {
			addLeaf(t, b, p, data[at:min(n, at+10)], m.put)
		}
		got, err := b.Finish()
		if want := addFile(t, p, data[:n], blockMap{}.put); err != nil || got != want {
			t.Errorf("%d bytes after Reset: %v, %v, want %v", n, got, err, want)
		}
	}
	for what, part := range map[string]Ref{
		"no CID":                    {Size: 1, Tsize: 1},
		"nothing":                   {CID: want.CID, Tsize: 5},
		"less than it says to hold": {CID: want.CID, Size: 9, Tsize: 8},
	} {
		b.Reset()
		if err := b.AddNode(part); !errors.Is(err, ErrInvalid) {
			t.Errorf("a part with %s: %v", what, err)
		}
		if _, err := b.Finish(); !errors.Is(err, ErrInvalid) {
			t.Errorf("after a part with %s: %v", what, err)
		}
	}
}

// TestResetAllocates checks that many small parts cost no memory each, beyond what they hash to.
func TestResetAllocates(t *testing.T) {
	p := Native()
	leaf := addFile(t, p, noise(1, 100), blockMap{}.put)
	whole, part := NewBuilder(p, blockMap{}.put), NewBuilder(p, blockMap{}.put)
	if n := testing.AllocsPerRun(900, func() {
		part.Reset()
		if err := part.AddLeaf(leaf.CID, 100, 100); err != nil {
			t.Fatal(err)
		}
		ref, err := part.Finish()
		if err = errors.Join(err, whole.AddNode(ref)); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a part", n)
	}
}
