package unixfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

// blockMap is a Getter over a map, and a place for builders to emit to.
type blockMap map[cid.Cid]dray.Block

func (m blockMap) put(b dray.Block) error { m[b.CID()] = b; return nil }

func (m blockMap) Get(_ context.Context, c cid.Cid) (dray.Block, error) {
	if b, ok := m[c]; ok {
		return b, nil
	}
	return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
}

// small returns p with chunks and nodes so small that a few kilobytes make a deep tree.
func small(p Profile, chunk int64, links int) Profile {
	p.Name = fmt.Sprintf("%s-%d-%d", p.Name, chunk, links)
	p.ChunkSize, p.MaxLinks = chunk, links
	return p
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed))).Read(b)
	return b
}

// addFile imports data with the package under test.
func addFile(t testing.TB, p Profile, data []byte, put func(dray.Block) error) Ref {
	t.Helper()
	b := NewBuilder(p, put)
	for len(data) > 0 {
		n := min(int64(len(data)), p.ChunkSize)
		addLeaf(t, b, p, data[:n], put)
		data = data[n:]
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func addLeaf(t testing.TB, b *Builder, p Profile, content []byte, put func(dray.Block) error) {
	t.Helper()
	n := int64(len(content))
	block := p.AppendLeafTail(append(p.AppendLeafHead(nil, n), content...), n)
	if int64(len(block)) != p.LeafBlockSize(n) {
		t.Fatalf("leaf block has %d bytes, LeafBlockSize says %d", len(block), p.LeafBlockSize(n))
	}
	leaf, err := dray.Hashed(p.LeafPrefix(), block)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(leaf); err != nil {
		t.Fatal(err)
	}
	if err := b.AddLeaf(leaf.CID(), n, int64(len(block))); err != nil {
		t.Fatal(err)
	}
}

// reference is boxo's importer over an in-memory store of its own.
type reference struct {
	bs  blockstore.Blockstore
	dag ipld.DAGService
}

func newReference() reference {
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	return reference{bs, merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))}
}

func (r reference) builder(p Profile) cid.Builder {
	return cid.Prefix{Version: uint64(p.CIDVersion), Codec: cid.DagProtobuf, MhType: p.Hash, MhLength: -1}
}

type layout func(*helpers.DagBuilderHelper) (ipld.Node, error)

func (r reference) addFile(t testing.TB, p Profile, data []byte, lay layout) ipld.Node {
	t.Helper()
	params := helpers.DagBuilderParams{
		Maxlinks: p.MaxLinks, RawLeaves: p.RawLeaves, CidBuilder: r.builder(p), Dagserv: r.dag,
	}
	db, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), p.ChunkSize))
	if err != nil {
		t.Fatal(err)
	}
	n, err := lay(db)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Get makes a reference a dray.Getter.
func (r reference) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	b, err := r.bs.Get(ctx, c)
	if err != nil {
		return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
	}
	return dray.NewBlock(c, b.RawData())
}

func TestFileEqualsReference(t *testing.T) {
	rawV0 := V0()
	rawV0.RawLeaves = true
	wrappedV1 := V1()
	wrappedV1.RawLeaves = false
	for _, start := range []Profile{V0(), V1(), Native(), rawV0, wrappedV1} {
		for _, p := range []Profile{small(start, 16, 2), small(start, 10, 3), small(start, 7, 174), small(start, 5, 1024)} {
			c, l := int(p.ChunkSize), p.MaxLinks
			sizes := []int{0, 1, c - 1, c, c + 1, 2*c - 1, 2 * c, 2*c + 1, c*l - 1, c * l, c*l + 1, c*(l+1) + 1}
			if l <= 3 {
				sizes = append(sizes, c*l*l-1, c*l*l, c*l*l+1, c*l*l*l, c*l*l*l+1, c*l*l*l*l*l+c+3)
			} else {
				sizes = append(sizes, 2*c*l, 2*c*l+1)
			}
			for _, n := range sizes {
				data := noise(uint64(n), n)
				want := newReference().addFile(t, p, data, balanced.Layout)
				got := blockMap{}
				root := addFile(t, p, data, got.put)
				size, err := want.Size()
				if err != nil {
					t.Fatal(err)
				}
				if root.CID != want.Cid() || root.Size != int64(n) || root.Tsize != int64(size) {
					t.Errorf("%s, RawLeaves %v, %d bytes: got %+v, want %v with Tsize %d",
						p.Name, p.RawLeaves, n, root, want.Cid(), size)
				}
			}
		}
	}
}

// The default sizes against the reference, at their real chunk and node sizes.
func TestFileEqualsReferenceFullSize(t *testing.T) {
	for _, p := range []Profile{V0(), V1(), Native()} {
		for _, n := range []int64{p.ChunkSize - 1, p.ChunkSize, p.ChunkSize + 1, 3*p.ChunkSize + 17} {
			data := noise(1, int(n))
			want := newReference().addFile(t, p, data, balanced.Layout)
			if root := addFile(t, p, data, blockMap{}.put); root.CID != want.Cid() {
				t.Errorf("%s, %d bytes: got %v, want %v", p.Name, n, root.CID, want.Cid())
			}
		}
	}
}

func TestBuilderRefuses(t *testing.T) {
	leaf, _ := dray.Hashed(V1().LeafPrefix(), []byte("leaf"))
	for _, tc := range []struct {
		name           string
		c              cid.Cid
		content, block int64
	}{
		{"undefined CID", cid.Undef, 1, 1},
		{"empty leaf", leaf.CID(), 0, 6},
		{"negative", leaf.CID(), -1, 6},
		{"block shorter than content", leaf.CID(), 10, 9},
		{"huge block", leaf.CID(), 10, dray.MaxBlockSize + 1},
	} {
		b := NewBuilder(V1(), blockMap{}.put)
		err := b.AddLeaf(tc.c, tc.content, tc.block)
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
		}
		if _, again := b.Finish(); again == nil {
			t.Errorf("%s: Finish succeeded after the error", tc.name)
		}
	}
	bad := V1()
	bad.MaxLinks = 1
	if err := NewBuilder(bad, blockMap{}.put).AddLeaf(leaf.CID(), 4, 4); err == nil {
		t.Error("profile with one link per node accepted")
	}
}

func TestAddLeafAllocates(t *testing.T) {
	p := V1()
	leaf, _ := dray.Hashed(p.LeafPrefix(), []byte("leaf"))
	b := NewBuilder(p, func(dray.Block) error { return nil })
	for range 3 * p.MaxLinks { // until every buffer has its room
		b.AddLeaf(leaf.CID(), 4, 4)
	}
	// A node costs a few allocations, shared by 1024 leaves.
	if n := testing.AllocsPerRun(p.MaxLinks*2, func() { b.AddLeaf(leaf.CID(), 4, 4) }); n > 0 {
		t.Errorf("AddLeaf allocates %v times", n)
	}
}

func TestLookupProfile(t *testing.T) {
	for _, p := range Profiles() {
		got, err := LookupProfile(p.Name)
		if err != nil || got != p {
			t.Errorf("LookupProfile(%q) = %v, %v", p.Name, got, err)
		}
		if err := p.Check(); err != nil {
			t.Error(err)
		}
	}
	if p, err := LookupProfile(""); err != nil || p != Native() {
		t.Errorf("default is %v, %v", p, err)
	}
	_, err := LookupProfile("nativ")
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("unixfs-v1-2025")) {
		t.Errorf("unknown profile: %v", err)
	}
}

func TestProfileCheck(t *testing.T) {
	for name, edit := range map[string]func(*Profile){
		"version 2":        func(p *Profile) { p.CIDVersion = 2 },
		"identity":         func(p *Profile) { p.Hash = mh.IDENTITY },
		"unknown hash":     func(p *Profile) { p.Hash = 0xdead },
		"v0 with blake3":   func(p *Profile) { p.CIDVersion, p.Hash = 0, mh.BLAKE3 },
		"no chunk":         func(p *Profile) { p.ChunkSize = 0 },
		"huge chunk":       func(p *Profile) { p.ChunkSize = dray.MaxBlockSize + 1 },
		"one link":         func(p *Profile) { p.MaxLinks = 1 },
		"too many links":   func(p *Profile) { p.MaxLinks = 1 << 20 },
		"fanout 255":       func(p *Profile) { p.ShardFanout = 255 },
		"fanout 4":         func(p *Profile) { p.ShardFanout = 4 },
		"unknown rule":     func(p *Profile) { p.ShardRule = 9 },
		"the zero Profile": func(p *Profile) { *p = Profile{} },
	} {
		p := V1()
		edit(&p)
		if p.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
