package unixfs

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

func TestParseRefuses(t *testing.T) {
	c := rawLeaf.CID()
	huge := string(protowire.AppendVarint(nil, math.MaxInt64))
	over := string(protowire.AppendVarint(nil, math.MaxUint64))
	dir := func(links ...[]byte) string { return string(node(slices.Concat(links...), []byte("\x08\x01"))) }
	file := func(links []byte, msg string) string { return string(node(links, []byte("\x08\x02"+msg))) }
	shard := func(links []byte, bits string, rest string) string {
		msg := protowire.AppendString([]byte("\x08\x05\x12"), bits)
		return string(node(links, append(msg, rest...)))
	}
	const murmur256 = "\x28\x22\x30\x80\x02"
	two := slices.Concat(rawLink, rawLink)
	sha1short := cid.NewCidV1(cid.Raw, mh.Multihash("\x11\x04abcd"))
	for _, r := range []struct {
		name, block string
		want        error
	}{
		{"nothing", "", ErrNotUnixFS},
		{"plain dag-pb", string(rawLink), ErrNotUnixFS},
		{"metadata", string(node(nil, []byte("\x08\x03"))), ErrNotUnixFS},
		{"type 9", string(node(nil, []byte("\x08\x09"))), ErrNotUnixFS},
		{"field 3 in a node", "\x1a\x00", ErrInvalid},
		{"data twice", emptyDir + emptyDir, ErrInvalid},
		{"data between links", string(rawLink) + emptyDir + string(rawLink), ErrInvalid},
		{"length beyond the end", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ErrInvalid},
		{"varint without end", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ErrInvalid},
		{"link without CID", "\x12\x02\x18\x01" + emptyDir, ErrInvalid},
		{"link with a bad CID", "\x12\x05\x0a\x03abc" + emptyDir, ErrInvalid},
		{"bytes after a CID", dir(link2(c, "x")), ErrInvalid},
		{"name before CID", "\x12\x04\x12\x00\x0a\x00" + emptyDir, ErrInvalid},
		{"field 4 in a link", "\x12\x02\x22\x00" + emptyDir, ErrInvalid},
		{"hash function not allowed", dir(link("a", sha1short, 1)), dray.ErrBadCID},
		{"Tsize over 2^63", dir(link("a", c, math.MaxUint64)), ErrInvalid},
		{"name twice", dir(link("a", c, 4), link("a", c, 4)), ErrInvalid},
		{"name twice, apart", dir(link("b", c, 4), link("a", c, 4), link("b", c, 4)), ErrInvalid},
		{"directory with blocksizes", string(node(rawLink, []byte("\x08\x01\x20\x04"))), ErrInvalid},
		{"symlink with links", string(node(rawLink, []byte("\x08\x04\x12\x01x"))), ErrInvalid},
		{"too few blocksizes", file(two, "\x18\x04\x20\x04"), ErrInvalid},
		{"too many blocksizes", file(rawLink, "\x18\x08\x20\x04\x20\x04"), ErrInvalid},
		{"too many packed", file(rawLink, "\x18\x08\x22\x02\x04\x04"), ErrInvalid},
		{"packed cut short", file(rawLink, "\x22\x01\x80"), ErrInvalid},
		{"filesize too big", file(rawLink, "\x18\x05\x20\x04"), ErrInvalid},
		{"filesize too small", file(rawLink, "\x18\x03\x20\x04"), ErrInvalid},
		{"blocksizes overflow", file(two, "\x20"+huge+"\x20"+huge), ErrInvalid},
		{"blocksize over 2^63", file(rawLink, "\x20"+over), ErrInvalid},
		{"sum overflows with data", file(rawLink, "\x12\x01x\x20"+huge), ErrInvalid},
		{"shard without hash function", shard(nil, "", "\x30\x80\x02"), ErrInvalid},
		{"shard with sha2-256", shard(nil, "", "\x28\x12\x30\x80\x02"), ErrInvalid},
		{"shard without fanout", shard(nil, "", "\x28\x22"), ErrInvalid},
		{"shard of 100 slots", shard(nil, "", "\x28\x22\x30\x64"), ErrInvalid},
		{"shard of 2^31 slots", shard(nil, "", "\x28\x22\x30\x80\x80\x80\x80\x08"), ErrInvalid},
		{"bitmap too long", shard(nil, strings.Repeat("\x01", 33), murmur256), ErrInvalid},
		{"more links than bits", shard(link("00a", c, 4), "", murmur256), ErrInvalid},
		{"more bits than links", shard(link("00a", c, 4), "\x03", murmur256), ErrInvalid},
		{"link in another slot", shard(link("01a", c, 4), "\x01", murmur256), ErrInvalid},
		{"slot in lower case", shard(link("0aa", c, 4), "\x04\x00", murmur256), ErrInvalid},
		{"slot too short", shard(link("0", c, 4), "\x01", murmur256), ErrInvalid},
		{"slots out of order", shard(slices.Concat(link("01a", c, 4), link("00b", c, 4)), "\x03", murmur256), ErrInvalid},
	} {
		b := pbBlock(t, []byte(r.block))
		_, err := Parse(b)
		var e *dray.Error
		if !errors.Is(err, r.want) || !errors.As(err, &e) || e.CID != b.CID() {
			t.Errorf("%s: %v, want %v", r.name, err, r.want)
		}
	}
}

// link2 is a link whose CID has bytes after it.
func link2(c cid.Cid, after string) []byte {
	h := protowire.AppendString([]byte{tagHash}, c.KeyString()+after)
	return protowire.AppendBytes([]byte{tagPBLinks}, h)
}

func TestParseTruncated(t *testing.T) {
	m := blockMap{}
	root := addFile(t, small(V0(), 10, 4), noise(1, 40), m.put)
	whole := m[root.CID].Data()
	for n := range whole {
		// Cut within the links, what is left is a shorter list of links without Data; cut within Data, it is broken.
		if _, err := parse(root.CID, whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(whole))
		}
	}
}

func TestParsePackedAndLoose(t *testing.T) {
	loose := node(slices.Concat(rawLink, rawLink), []byte("\x08\x02\x18\x08\x20\x04\x20\x04"))
	packed := node(slices.Concat(rawLink, rawLink), []byte("\x08\x02\x18\x08\x22\x02\x04\x04"))
	for _, block := range [][]byte{loose, packed} {
		n, err := Parse(pbBlock(t, block))
		if err != nil || n.Size != 8 || n.Links[1].Size != 4 || n.Links[1].CID != rawLeaf.CID() || n.Links[1].Tsize != 4 {
			t.Errorf("%+v, %v", n, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "...": true, ".a": true, "a b": true, "ü": true, "\xff": true, "\\": true, strings.Repeat("n", 300): true,
		"": false, ".": false, "..": false, "/": false, "a/b": false, "\x00": false, "a\x00": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

// wideNode is an interior node of 1,024 raw leaves, as every GiB has one.
func wideNode(t testing.TB) dray.Block {
	p, m := V1(), blockMap{}
	b := NewBuilder(p, m.put)
	for i := range p.MaxLinks {
		leaf, err := dray.CIDFromDigest(p.LeafPrefix(), noise(uint64(i), 32))
		if err != nil {
			t.Fatal(err)
		}
		b.AddLeaf(leaf, p.ChunkSize, p.ChunkSize)
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return m[root.CID]
}

func TestParseAllocates(t *testing.T) {
	b := wideNode(t)
	// One for each CID, which outlives the block, and a few for the node.
	if n := testing.AllocsPerRun(20, func() { Parse(b) }); n > 1024+4 {
		t.Errorf("parsing 1,024 links allocates %v times", n)
	}
}

func BenchmarkParse1024(b *testing.B) {
	block := wideNode(b)
	b.SetBytes(int64(block.Size()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAddLeaf(b *testing.B) {
	p := V1()
	bl := NewBuilder(p, func(dray.Block) error { return nil })
	b.ReportAllocs()
	for b.Loop() {
		if err := bl.AddLeaf(rawLeaf.CID(), p.ChunkSize, p.ChunkSize); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSplitLeaf(b *testing.B) {
	p := V0()
	block := p.AppendLeafTail(append(p.AppendLeafHead(nil, p.ChunkSize), make([]byte, p.ChunkSize)...), p.ChunkSize)
	c := mustSum(b, p.LeafPrefix())
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := SplitLeaf(c, block); err != nil {
			b.Fatal(err)
		}
	}
}
