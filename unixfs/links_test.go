package unixfs

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

// dataBlock is a block of codec cbor or json: {"deep": [[link0]], "links": [link1, …], "text": "no link"}.
func dataBlock(t testing.TB, codec uint64, links ...cid.Cid) dray.Block {
	t.Helper()
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(m datamodel.MapAssembler) {
		if len(links) > 0 {
			qp.MapEntry(m, "deep", qp.List(-1, func(l datamodel.ListAssembler) {
				qp.ListEntry(l, qp.List(-1, func(l datamodel.ListAssembler) {
					qp.ListEntry(l, qp.Link(cidlink.Link{Cid: links[0]}))
				}))
			}))
			qp.MapEntry(m, "links", qp.List(-1, func(l datamodel.ListAssembler) {
				for _, c := range links[1:] {
					qp.ListEntry(l, qp.Link(cidlink.Link{Cid: c}))
				}
			}))
		}
		qp.MapEntry(m, "text", qp.String(rawLeaf.CID().String()))
	})
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if codec == cid.DagCBOR {
		err = dagcbor.Encode(n, &buf)
	} else {
		err = dagjson.Encode(n, &buf)
	}
	if err != nil {
		t.Fatal(err)
	}
	return hashed(t, codec, buf.Bytes())
}

func hashed(t testing.TB, codec uint64, data []byte) dray.Block {
	t.Helper()
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: codec, MhType: mh.SHA2_256, MhLength: 32}, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func identity(t testing.TB, codec uint64, data []byte) cid.Cid {
	t.Helper()
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: codec, MhType: mh.IDENTITY, MhLength: -1}, data)
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

func TestLinks(t *testing.T) {
	a, b := hashed(t, cid.Raw, []byte("a")).CID(), hashed(t, cid.Raw, []byte("b")).CID()
	c := identity(t, cid.Raw, []byte("c"))
	for _, tc := range []struct {
		name  string
		block dray.Block
		want  []cid.Cid
	}{
		{"raw", rawLeaf, nil},
		{"dag-pb", pbBlock(t, slices.Concat(link("x", a, 1), link("x", b, 1), link("", a, 1))), []cid.Cid{a, b, a}},
		{"dag-pb without links", pbBlock(t, []byte(emptyDir)), nil},
		{"dag-cbor", dataBlock(t, cid.DagCBOR, a, b, c, a), []cid.Cid{a, b, c, a}},
		{"dag-json", dataBlock(t, cid.DagJSON, a, b, c, a), []cid.Cid{a, b, c, a}},
		{"dag-cbor without links", dataBlock(t, cid.DagCBOR), nil},
		{"plain cbor", hashed(t, codecCBOR, []byte{0xa0}), nil},
		{"plain json", hashed(t, codecJSON, []byte("{}")), nil},
	} {
		got, err := Links(tc.block)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}

func TestLinksRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		block dray.Block
		want  error
	}{
		{"git", hashed(t, cid.GitRaw, nil), ErrCodec},
		{"broken dag-pb", hashed(t, cid.DagProtobuf, []byte("\x12")), ErrInvalid},
		{"broken dag-cbor", hashed(t, cid.DagCBOR, []byte{0x82, 0x01}), ErrInvalid},
		{"empty dag-cbor", hashed(t, cid.DagCBOR, nil), ErrInvalid},
		{"broken dag-json", hashed(t, cid.DagJSON, []byte("[")), ErrInvalid},
		{"deep dag-cbor", hashed(t, cid.DagCBOR, bytes.Repeat([]byte{0x81}, 1<<20)), ErrInvalid},
		{"deep dag-json", hashed(t, cid.DagJSON, bytes.Repeat([]byte("["), 1<<20)), ErrInvalid},
		{"a list that claims 2^60 items", hashed(t, cid.DagCBOR, []byte{0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0, 1}), ErrInvalid},
	} {
		_, err := Links(tc.block)
		var e *dray.Error
		if !errors.Is(err, tc.want) || !errors.As(err, &e) || e.CID != tc.block.CID() {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// graph is a DAG of every codec, with diamonds, and its blocks in depth-first order.
func graph(t testing.TB) (m blockMap, root cid.Cid, order []cid.Cid) {
	m = blockMap{}
	leaf := hashed(t, cid.Raw, []byte("leaf"))
	shared := dataBlock(t, cid.DagJSON, leaf.CID())
	hidden := identity(t, cid.DagCBOR, []byte{0x81, 0x01})
	pb := pbBlock(t, slices.Concat(link("a", shared.CID(), 1), link("b", leaf.CID(), 1)))
	top := dataBlock(t, cid.DagCBOR, pb.CID(), shared.CID(), hidden, leaf.CID(), pb.CID())
	for _, b := range []dray.Block{leaf, shared, pb, top} {
		m.put(b)
	}
	return m, top.CID(), []cid.Cid{top.CID(), pb.CID(), shared.CID(), leaf.CID()}
}

func TestSweep(t *testing.T) {
	m, root, order := graph(t)
	for _, width := range []int{1, 3, 100} {
		s := NewSweep(0, root, root)
		var got, wants []cid.Cid
		for !s.Done() {
			wants = s.Need(wants, width)
			if len(wants) == 0 {
				t.Fatal("not done and wants nothing")
			}
			got = append(got, wants[0])
			if err := s.Feed(m[wants[0]]); err != nil {
				t.Fatal(err)
			}
			wants = wants[1:]
		}
		if width == 1 && !slices.Equal(got, order) {
			t.Errorf("order %v, want %v", got, order)
		}
		slices.SortFunc(got, func(a, b cid.Cid) int { return strings.Compare(a.KeyString(), b.KeyString()) })
		if len(slices.Compact(got)) != len(order) {
			t.Errorf("width %d: %d blocks, want %d", width, len(got), len(order))
		}
	}
}

func TestSweepRefuses(t *testing.T) {
	m, root, _ := graph(t)
	s := NewSweep(2, root)
	for s.Err() == nil && !s.Done() {
		for _, c := range s.Need(nil, 1) {
			s.Feed(m[c])
		}
	}
	if !errors.Is(s.Err(), ErrTooLarge) {
		t.Errorf("more blocks than allowed: %v", s.Err())
	}
	bad := hashed(t, cid.DagCBOR, nil)
	s = NewSweep(0, bad.CID())
	s.Need(nil, 1)
	if err := s.Feed(bad); !errors.Is(err, ErrInvalid) || s.Done() || s.Feed(bad) == nil {
		t.Errorf("broken block: %v", err)
	}
}

func TestSplitPath(t *testing.T) {
	const c = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
	for in, want := range map[string]string{
		c: "", c + "/": "", c + "/a": "a", "/ipfs/" + c + "/a/b": "a,b", "ipfs://" + c + "//a//b/": "a,b", c + "/ü ": "ü ",
		"QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW/x": "x",
	} {
		root, names, err := SplitPath(in)
		if err != nil || strings.Join(names, ",") != want || !root.Defined() {
			t.Errorf("SplitPath(%q) = %v, %q, %v", in, root, names, err)
		}
	}
	for in, want := range map[string]error{
		"": dray.ErrBadCID, "hello": dray.ErrBadCID, "/ipfs/": dray.ErrBadCID, c + "x": dray.ErrBadCID,
		c + "/..": ErrInvalid, c + "/a/./b": ErrInvalid, c + "/a\x00": ErrInvalid,
	} {
		if _, _, err := SplitPath(in); !errors.Is(err, want) {
			t.Errorf("SplitPath(%q): %v, want %v", in, err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	ctx := context.Background()
	for _, threshold := range []int64{1 << 18, 100} {
		p := V1()
		p.ShardThreshold, p.ShardFanout = threshold, 8
		m := blockMap{}
		sub := NewDirBuilder(p, m.put)
		want := map[string]cid.Cid{}
		for _, name := range namesOf(300, "entry %d ü") {
			f := addFile(t, p, []byte(name), m.put)
			sub.Add(name, f)
			want[name] = f.CID
		}
		dir, err := sub.Finish()
		if err != nil {
			t.Fatal(err)
		}
		link, err := BuildSymlink(p, "sub", m.put)
		if err != nil {
			t.Fatal(err)
		}
		top := NewDirBuilder(p, m.put)
		top.Add("sub", dir)
		top.Add("link", link)
		root, err := top.Finish()
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range want {
			got, err := ResolvePath(ctx, m, root.CID, []string{"sub", name})
			if err != nil || got != c {
				t.Fatalf("threshold %d, %q: %v, %v", threshold, name, got, err)
			}
		}
		r, asked := NewResolve(root.CID, []string{"sub", "entry 7 ü"}), 0
		for ; !r.Done(); asked++ {
			if err := r.Feed(m[r.Need()]); err != nil {
				t.Fatal(err)
			}
		}
		if asked > 8 || (threshold > 300 && asked != 2) || r.Need().Defined() {
			t.Errorf("threshold %d: looked into %d blocks of %d", threshold, asked, len(m))
		}
		if got, err := ResolvePath(ctx, m, root.CID, nil); got != root.CID || err != nil {
			t.Errorf("empty path: %v, %v", got, err)
		}
		for _, names := range [][]string{
			{"nope"}, {"sub", "nope"}, {"sub", ""}, {"sub", "entry 7 ü", "below a file"}, {"link", "x"},
		} {
			if _, err := ResolvePath(ctx, m, root.CID, names); !errors.Is(err, dray.ErrNotFound) {
				t.Errorf("%q: %v", names, err)
			}
		}
		delete(m, dir.CID)
		var e *dray.Error
		if _, err := ResolvePath(ctx, m, root.CID, []string{"sub", "x"}); !errors.As(err, &e) || e.CID != dir.CID {
			t.Errorf("missing block: %v", err)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	// A directory where a deeper shard should be, and a shard of another fanout.
	var slot [4]byte
	hash := nameHash("name")
	s, _ := slotAt(hash, 0, 256)
	inner := pbBlock(t, []byte(emptyDir))
	other := pbBlock(t, node(nil, []byte("\x08\x05\x28\x22\x30\x08")))
	for what, below := range map[string]dray.Block{"directory": inner, "other fanout": other} {
		bitmap := make([]byte, 32)
		bitmap[31-s/8] = 1 << (s % 8)
		msg := append([]byte("\x08\x05\x12\x20"), bitmap...)
		links := link(string(appendSlot(slot[:0], s, 256)), below.CID(), 1)
		root := pbBlock(t, node(links, append(msg, "\x28\x22\x30\x80\x02"...)))
		m := blockMap{}
		m.put(root)
		m.put(below)
		if _, err := ResolvePath(context.Background(), m, root.CID(), []string{"name"}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := ResolvePath(context.Background(), blockMap{}, identity(t, cid.DagCBOR, []byte{0xa0}), []string{"a"})
	if !errors.Is(err, ErrNotUnixFS) {
		t.Errorf("identity dag-cbor: %v", err)
	}
	c := identity(t, cid.DagProtobuf, slices.Concat(link("a", rawLeaf.CID(), 4), []byte(emptyDir)))
	if got, err := ResolvePath(context.Background(), blockMap{}, c, []string{"a"}); err != nil || got != rawLeaf.CID() {
		t.Errorf("directory inside its CID: %v, %v", got, err)
	}
}
