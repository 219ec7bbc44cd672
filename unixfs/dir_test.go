package unixfs

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	boxofs "github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"dray"
)

// addDir makes a directory of links to children, with boxo.
func (r reference) addDir(t testing.TB, p Profile, children map[string]ipld.Node) ipld.Node {
	t.Helper()
	mode := uio.SizeEstimationLinks
	if p.ShardRule == BlockBytes {
		mode = uio.SizeEstimationBlock
	}
	d, err := uio.NewDirectory(r.dag, uio.WithCidBuilder(r.builder(p)), uio.WithMaxHAMTFanout(p.ShardFanout),
		uio.WithSizeEstimationMode(mode))
	if err != nil {
		t.Fatal(err)
	}
	d.SetHAMTShardingSize(int(p.ShardThreshold))
	for name, n := range children {
		if err := d.AddChild(context.Background(), name, n); err != nil {
			t.Fatal(err)
		}
	}
	n, err := d.GetNode()
	if err == nil {
		err = r.dag.Add(context.Background(), n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// compareDir makes the same directory with both and compares the roots and every block.
func compareDir(t *testing.T, p Profile, names []string) (root Ref, kind Kind) {
	t.Helper()
	ref := newReference()
	children := make(map[string]ipld.Node, len(names))
	m := blockMap{}
	d := NewDirBuilder(p, m.put)
	for i, name := range names {
		content := fmt.Appendf(nil, "file %d", i%7)
		var n ipld.Node = merkledag.NodeWithData(boxofs.FilePBData(content, uint64(len(content))))
		if p.RawLeaves {
			raw, err := merkledag.NewRawNodeWPrefix(content, r1(p))
			if err != nil {
				t.Fatal(err)
			}
			n = raw
		} else if err := n.(*merkledag.ProtoNode).SetCidBuilder(ref.builder(p)); err != nil {
			t.Fatal(err)
		}
		children[name] = n
		if err := d.Add(name, addFile(t, p, content, m.put)); err != nil {
			t.Fatal(err)
		}
	}
	want := ref.addDir(t, p, children)
	root, err := d.Finish()
	if err != nil {
		t.Fatal(err)
	}
	size, err := want.Size()
	if err != nil {
		t.Fatal(err)
	}
	if root.CID != want.Cid() || root.Tsize != int64(size) {
		t.Fatalf("%s, %d entries: got %v (Tsize %d), want %v (%d)",
			p.Name, len(names), root.CID, root.Tsize, want.Cid(), size)
	}
	n, err := Parse(m[root.CID])
	if err != nil {
		t.Fatal(err)
	}
	w := NewWalk(root.CID, WalkConfig{})
	if _, err := walkAll(t, w, m, newRand(5)); err != nil || len(w.Entries()) != len(names)+1 {
		t.Fatalf("%s, %d entries: walk finds %d, %v", p.Name, len(names), len(w.Entries())-1, err)
	}
	return root, n.Kind
}

func r1(p Profile) cid.Builder { x := p.LeafPrefix(); x.MhLength = -1; return x }

func namesOf(n int, format string) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(format, i)
	}
	return names
}

func TestDirEqualsReference(t *testing.T) {
	for _, start := range []Profile{V0(), V1(), Native()} {
		for _, tc := range []struct {
			name      string
			threshold int64
			fanout    int
			names     []string
			want      Kind
		}{
			{"empty", 256 << 10, 256, nil, Directory},
			{"one", 256 << 10, 256, []string{"a"}, Directory},
			{"order of bytes", 256 << 10, 256, []string{"b", "a", "B", "é", "a b", "日本語", "\xff\xfe", "aa"}, Directory},
			{"long names", 256 << 10, 256, namesOf(100, strings.Repeat("n", 250)+"-%d"), Directory},
			{"2,000 plain", 256 << 10, 256, namesOf(2000, "entry-%d"), Directory},
			{"one in a shard", 1, 256, []string{"lonely"}, Shard},
			{"300 in shards", 1000, 256, namesOf(300, "f%d"), Shard},
			{"fanout 8", 1000, 8, namesOf(500, "f%d"), Shard},
			{"fanout 16", 1000, 16, namesOf(500, "f%d"), Shard},
			{"fanout 512", 1000, 512, namesOf(2000, "f%d"), Shard},
			{"fanout 1024", 1000, 1024, namesOf(2000, "f%d"), Shard},
			{"10,000 in shards", 256 << 10, 256, namesOf(10000, "entry-%06d"), Shard},
		} {
			p := start
			p.ShardThreshold, p.ShardFanout = tc.threshold, tc.fanout
			if _, kind := compareDir(t, p, tc.names); kind != tc.want {
				t.Errorf("%s, %s: a %v, want a %v", p.Name, tc.name, kind, tc.want)
			}
		}
	}
}

// Around the threshold, byte by byte.
func TestDirThreshold(t *testing.T) {
	for _, start := range []Profile{V0(), V1(), Native()} {
		var kinds []Kind
		for threshold := range int64(40) {
			p := start
			p.ShardThreshold = 20*(34+6) - 20 + threshold
			if p.ShardRule == BlockBytes {
				p.ShardThreshold = 20*50 + 4 - 20 + threshold
			}
			if p.CIDVersion == 1 && p.ShardRule == LinksBytes {
				p.ShardThreshold += 40
			}
			_, kind := compareDir(t, p, namesOf(20, "file%02d"))
			kinds = append(kinds, kind)
		}
		if kinds[0] != Shard || kinds[len(kinds)-1] != Directory {
			t.Errorf("%s: the threshold does not lie in the tested range: %v", start.Name, kinds)
		}
	}
}

func TestDirNeverShards(t *testing.T) {
	p := V1()
	p.ShardThreshold = 0
	m := blockMap{}
	d := NewDirBuilder(p, m.put)
	child := addFile(t, p, []byte("x"), m.put)
	for i := range 6000 {
		d.Add(fmt.Sprint(i), child)
	}
	root, err := d.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Parse(m[root.CID]); err != nil || n.Kind != Directory || len(n.Links) != 6000 {
		t.Errorf("%v with %d links, %v", n.Kind, len(n.Links), err)
	}
}

func TestDirRefuses(t *testing.T) {
	child := addFile(t, V1(), []byte("x"), blockMap{}.put)
	for _, name := range []string{"", ".", "..", "a/b", "/", "nul\x00"} {
		if NewDirBuilder(V1(), blockMap{}.put).Add(name, child) == nil {
			t.Errorf("name %q accepted", name)
		}
	}
	for what, bad := range map[string]Ref{
		"no CID": {}, "negative size": {CID: child.CID, Size: -1}, "negative Tsize": {CID: child.CID, Tsize: -1},
		"overflow": {CID: child.CID, Tsize: 1<<63 - 1},
	} {
		if NewDirBuilder(V1(), blockMap{}.put).Add("a", bad) == nil {
			t.Errorf("%s accepted", what)
		}
	}
	d := NewDirBuilder(V1(), blockMap{}.put)
	d.Add("twice", child)
	d.Add("twice", child)
	if _, err := d.Finish(); err == nil {
		t.Error("a name was accepted twice")
	}
}

func TestSymlinkEqualsReference(t *testing.T) {
	for _, p := range []Profile{V0(), V1()} {
		for _, target := range []string{"a", "../../etc/passwd", strings.Repeat("long/", 200), "ünïcode"} {
			data, err := boxofs.SymlinkData(target)
			if err != nil {
				t.Fatal(err)
			}
			want := merkledag.NodeWithData(data)
			want.SetCidBuilder(newReference().builder(p))
			m := blockMap{}
			got, err := BuildSymlink(p, target, m.put)
			size, _ := want.Size()
			if err != nil || got.CID != want.Cid() || got.Tsize != int64(size) {
				t.Errorf("%s, %q: got %v, want %v; %v", p.Name, target, got, want.Cid(), err)
			}
			if n, err := Parse(m[got.CID]); err != nil || n.Kind != Symlink || string(n.Data) != target {
				t.Errorf("%s, %q: parsed as %v %q, %v", p.Name, target, n.Kind, n.Data, err)
			}
		}
	}
	for _, bad := range []string{"", "a\x00b"} {
		if _, err := BuildSymlink(V1(), bad, blockMap{}.put); err == nil {
			t.Errorf("symlink to %q accepted", bad)
		}
	}
}

// Two names with equal hashes cannot be told apart by any number of levels; building must end with an error, as
// boxo's does.
func TestShardTooDeep(t *testing.T) {
	p := V1()
	d := NewDirBuilder(p, func(dray.Block) error { return nil })
	child := addFile(t, p, []byte("x"), blockMap{}.put)
	_, err := d.shard([]dirEntry{{name: "a", hash: 42, ref: child}, {name: "b", hash: 42, ref: child}}, 0)
	if err == nil || !strings.Contains(err.Error(), "same hash") {
		t.Errorf("got %v", err)
	}
}
