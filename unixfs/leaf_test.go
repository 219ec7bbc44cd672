package unixfs

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	boxofs "github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// pbBlock wraps bytes as a dag-pb block.
func pbBlock(t testing.TB, data []byte) dray.Block {
	t.Helper()
	b, err := dray.Hashed(V1().NodePrefix(), data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// node encodes a dag-pb node of encoded links and a UnixFS message.
func node(links, msg []byte) []byte {
	return protowire.AppendBytes(append(bytes.Clone(links), tagPBData), msg)
}

func link(name string, c cid.Cid, tsize uint64) []byte { return appendLink(nil, "", name, c, tsize) }

var (
	rawLeaf = func() dray.Block { b, _ := dray.Hashed(V1().LeafPrefix(), []byte("leaf")); return b }()
	rawLink = link("", rawLeaf.CID(), 4)
)

func TestSplitLeaf(t *testing.T) {
	v0, v1 := V0().LeafPrefix(), V1().LeafPrefix()
	pb := cid.NewCidV1(cid.DagProtobuf, rawLeaf.CID().Hash())
	type row struct {
		name             string
		c                cid.Cid
		head, body, tail string
	}
	rows := []row{
		{"raw", rawLeaf.CID(), "", "content", ""},
		{"empty raw", rawLeaf.CID(), "", "", ""},
		{"type Raw", pb, "\x0a\x08\x08\x00\x12\x02", "hi", "\x18\x02"},
		{"type File", pb, "\x0a\x08\x08\x02\x12\x02", "hi", "\x18\x02"},
		{"no filesize", pb, "\x0a\x06\x08\x02\x12\x02", "hi", ""},
		{"filesize first", pb, "\x0a\x08\x18\x02\x08\x02\x12\x02", "hi", ""},
		{"type last", pb, "\x0a\x08\x18\x02\x12\x02", "hi", "\x08\x02"},
		{"long varints", pb, "\x0a\x8b\x00\x08\x82\x00\x12\x82\x80\x00", "hi", "\x18\x02"},
		{"mode and mtime", pb, "\x0a\x0f\x08\x02\x12\x02", "hi", "\x18\x02\x38\xa4\x03\x42\x02\x08\x05"},
		{"unknown field", pb, "\x0a\x0b\x08\x02\x12\x02", "hi", "\x18\x02\x7a\x01x"},
		{"empty data", pb, "\x0a\x06\x08\x02\x12\x00", "", "\x18\x00"},
		{"no data", pb, "\x0a\x04\x08\x02\x18\x00", "", ""},
		{"own content and links", pb, string(rawLink) + "\x0a\x0a\x08\x02\x12\x02", "hi", "\x18\x06\x20\x04"},
		{"links after data", pb, "\x0a\x0a\x08\x02\x12\x02", "hi", "\x18\x06\x20\x04" + string(rawLink)},
	}
	for _, p := range []Profile{V0(), V1()} {
		for _, n := range []int64{0, 1, 127, 128, 16383, 16384, 1 << 18, 1 << 20} {
			c := mustSum(t, map[bool]cid.Prefix{true: v1, false: v0}[p.RawLeaves])
			head, tail := string(p.AppendLeafHead(nil, n)), string(p.AppendLeafTail(nil, n))
			rows = append(rows, row{p.Name, c, head, strings.Repeat("x", int(n)), tail})
		}
	}
	for _, r := range rows {
		block := []byte(r.head + r.body + r.tail)
		head, body, tail, err := SplitLeaf(r.c, block)
		if err != nil || string(body) != r.body || string(head)+string(body)+string(tail) != string(block) {
			t.Errorf("%s: %q, %d bytes, %q, %v", r.name, head, len(body), tail, err)
			continue
		}
		if r.body != "" && (string(head) != r.head || string(tail) != r.tail) {
			t.Errorf("%s: head %q, tail %q", r.name, head, tail)
		}
		if n := testing.AllocsPerRun(10, func() { SplitLeaf(r.c, block) }); n != 0 {
			t.Errorf("%s: %v allocations", r.name, n)
		}
	}
}

func mustSum(t testing.TB, p cid.Prefix) cid.Cid {
	b, err := dray.Hashed(p, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

func TestLeafEqualsReference(t *testing.T) {
	p := V0()
	for _, n := range []int{0, 1, 100, 127, 128, 16384, 1 << 18} {
		content := noise(uint64(n), n)
		var data []byte
		if n > 0 {
			data = content
		}
		want := merkledag.NodeWithData(boxofs.FilePBData(data, uint64(n))).RawData()
		got := p.AppendLeafTail(append(p.AppendLeafHead(nil, int64(n)), content...), int64(n))
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: leaves differ", n)
		}
	}
}

func TestSplitLeafRefuses(t *testing.T) {
	pb := cid.NewCidV1(cid.DagProtobuf, rawLeaf.CID().Hash())
	file := func(msg string) string { return string(node(nil, []byte(msg))) }
	for _, r := range []struct {
		name  string
		c     cid.Cid
		block string
		want  error
	}{
		{"dag-cbor", cid.NewCidV1(cid.DagCBOR, rawLeaf.CID().Hash()), "\xa0", ErrNotUnixFS},
		{"no data", pb, "", ErrNotUnixFS},
		{"interior node", pb, string(node(rawLink, []byte("\x08\x02\x18\x04\x20\x04"))), ErrNotLeaf},
		{"directory", pb, emptyDir, ErrNotLeaf},
		{"symlink", pb, file("\x08\x04\x12\x01x"), ErrNotLeaf},
		{"garbage", pb, "\x0a\x03garbage", ErrInvalid},
		{"cut short", pb, "\x0a\x08\x08\x02\x12\x02h", ErrInvalid},
		{"data in two pieces", pb, file("\x08\x02\x12\x01h\x12\x01i\x18\x02"), ErrInvalid},
		{"wrong filesize", pb, file("\x08\x02\x12\x02hi\x18\x03"), ErrInvalid},
		{"blocksize without link", pb, file("\x08\x02\x12\x02hi\x18\x03\x20\x01"), ErrInvalid},
		{"no type", pb, file("\x12\x02hi"), ErrInvalid},
		{"type of the wrong kind", pb, file("\x0a\x00"), ErrInvalid},
	} {
		_, _, _, err := SplitLeaf(r.c, []byte(r.block))
		var e *dray.Error
		if !errors.Is(err, r.want) || !errors.As(err, &e) || e.CID != r.c {
			t.Errorf("%s: %v, want %v", r.name, err, r.want)
		}
	}
}

func FuzzSplitLeaf(f *testing.F) {
	mixed := string(node(rawLink, []byte("\x08\x02\x12\x01x\x18\x05\x20\x04")))
	for _, s := range []string{"", emptyDir, "\x0a\x08\x08\x02\x12\x02hi\x18\x02", mixed} {
		f.Add([]byte(s))
	}
	pb := cid.NewCidV1(cid.DagProtobuf, rawLeaf.CID().Hash())
	f.Fuzz(func(t *testing.T, block []byte) {
		head, body, tail, err := SplitLeaf(pb, block)
		if err != nil {
			return
		}
		if !bytes.Equal(bytes.Join([][]byte{head, body, tail}, nil), block) {
			t.Fatal("the parts are not the whole")
		}
		// The reference must read the same content.
		n, err := merkledag.DecodeProtobuf(block)
		if err != nil {
			return // it wants CIDs in links, which SplitLeaf does not look at
		}
		fs, err := boxofs.FSNodeFromBytes(n.Data())
		if err != nil && hasStat(n.Data()) {
			return
		}
		if err != nil {
			t.Fatalf("the reference refuses what SplitLeaf takes: %v", err)
		}
		if !bytes.Equal(fs.Data(), body) {
			t.Fatalf("the reference reads %q, SplitLeaf %q", fs.Data(), body)
		}
	})
}

// FuzzParse checks that whatever Parse accepts, the library that defines dag-pb and boxo's UnixFS read the same way.
func FuzzParse(f *testing.F) {
	shard := node(link("00a", rawLeaf.CID(), 4), []byte("\x08\x05\x12\x01\x01\x28\x22\x30\x80\x02"))
	for _, s := range [][]byte{
		[]byte(emptyDir), node(rawLink, []byte("\x08\x02\x18\x04\x20\x04")),
		node(link("a", rawLeaf.CID(), 4), []byte("\x08\x01")),
		shard, node(nil, []byte("\x08\x04\x12\x01x")), []byte("\x0a\x08\x08\x02\x12\x02hi\x18\x02"),
	} {
		f.Add(s)
	}
	pb := cid.NewCidV1(cid.DagProtobuf, rawLeaf.CID().Hash())
	f.Fuzz(func(t *testing.T, block []byte) {
		n, err := parse(pb, block)
		if err != nil {
			return
		}
		nb := dagpb.Type.PBNode.NewBuilder()
		if err := dagpb.DecodeBytes(nb, block); err != nil {
			t.Fatalf("the library refuses what Parse takes: %v", err)
		}
		links, err := nb.Build().LookupByString("Links")
		if err != nil || links.Length() != int64(len(n.Links)) {
			t.Fatalf("%d links, the library has %d, %v", len(n.Links), links.Length(), err)
		}
		for i, l := range n.Links {
			want, _ := links.LookupByIndex(int64(i))
			if c := linkField(t, want); c != l.CID {
				t.Fatalf("link %d: %v, the library has %v", i, l.CID, c)
			}
		}
		data, _ := nb.Build().LookupByString("Data")
		msg, _ := data.AsBytes()
		fs, err := boxofs.FSNodeFromBytes(msg)
		if err != nil && hasStat(msg) {
			return
		}
		if err != nil {
			t.Fatalf("the reference refuses what Parse takes: %v", err)
		}
		if n.Kind == File && (len(fs.BlockSizes()) != len(n.Links) || !bytes.Equal(fs.Data(), n.Data)) {
			t.Fatal("the reference reads other content")
		}
	})
}

// hasStat reports whether a UnixFS message has a mode or mtime, or other fields that are skipped here but read
// elsewhere.
func hasStat(msg []byte) bool {
	for len(msg) > 0 {
		num, _, n := protowire.ConsumeField(msg)
		if n < 0 || num > 6 {
			return true
		}
		msg = msg[n:]
	}
	return false
}

func linkField(t testing.TB, l datamodel.Node) cid.Cid {
	h, err := l.LookupByString("Hash")
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.AsLink()
	if err != nil {
		t.Fatal(err)
	}
	return v.(cidlink.Link).Cid
}
