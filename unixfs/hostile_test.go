package unixfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// fileNode is an interior node with links of the given sizes and Tsizes, true or not.
func fileNode(t testing.TB, links ...Link) dray.Block {
	t.Helper()
	var pb []byte
	var total uint64
	msg := []byte{tagType, typeFile}
	for _, l := range links {
		pb = append(pb, link("", l.CID, uint64(l.Tsize))...)
		msg = protowire.AppendVarint(append(msg, tagBlocksize), uint64(l.Size))
		total += uint64(l.Size)
	}
	return pbBlock(t, node(pb, protowire.AppendVarint(append(msg, tagFilesize), total)))
}

func wrapped(t testing.TB, content string) dray.Block {
	p := V0()
	n := int64(len(content))
	return pbBlock(t, p.AppendLeafTail(append(p.AppendLeafHead(nil, n), content...), n))
}

// blamed walks root and returns the block that the error names, and the error.
func blamed(t testing.TB, g dray.Getter, root cid.Cid, cfg WalkConfig) (cid.Cid, error) {
	t.Helper()
	_, err := contents(t, NewWalk(root, cfg), g, newRand(3))
	var e *dray.Error
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("not an Error: %v", err)
	}
	if err == nil {
		return cid.Undef, nil
	}
	return e.CID, err
}

func TestWalkHostileFiles(t *testing.T) {
	m := blockMap{}
	put := func(b dray.Block) dray.Block { m.put(b); return b }
	leaf, inner := put(rawLeaf), put(wrapped(t, "leaf"))
	two := put(fileNode(t, Link{CID: leaf.CID(), Size: 4, Tsize: 4}, Link{CID: leaf.CID(), Size: 4, Tsize: 4}))
	dir := put(pbBlock(t, []byte(emptyDir)))
	other := put(hashed(t, cid.DagCBOR, []byte{0xa0}))
	bad := put(pbBlock(t, []byte("\x0a\x00")))
	inside := Link{CID: identity(t, cid.Raw, []byte("abc")), Size: 9, Tsize: 9}
	for _, tc := range []struct {
		name  string
		root  dray.Block
		want  error
		blame cid.Cid
	}{
		{"raw leaf longer than said", fileNode(t, Link{CID: leaf.CID(), Size: 3, Tsize: 3}), ErrInvalid, leaf.CID()},
		{"raw leaf shorter", fileNode(t, Link{CID: leaf.CID(), Size: 5, Tsize: 5}), ErrInvalid, leaf.CID()},
		{"dag-pb leaf longer", fileNode(t, Link{CID: inner.CID(), Size: 3, Tsize: 12}), ErrInvalid, inner.CID()},
		{"dag-pb leaf shorter, no Tsize", fileNode(t, Link{CID: inner.CID(), Size: 9}), ErrInvalid, inner.CID()},
		{"interior node of the wrong size", fileNode(t, Link{CID: two.CID(), Size: 9, Tsize: 900}), ErrInvalid, two.CID()},
		{"directory inside a file", fileNode(t, Link{CID: dir.CID(), Size: 0, Tsize: 900}), ErrInvalid, dir.CID()},
		{"directory as a leaf", fileNode(t, Link{CID: dir.CID(), Size: 4, Tsize: 8}), ErrInvalid, dir.CID()},
		{"dag-cbor inside a file", fileNode(t, Link{CID: other.CID(), Size: 1, Tsize: 1}), ErrNotUnixFS, other.CID()},
		{"no UnixFS inside a file", fileNode(t, Link{CID: bad.CID(), Size: 1, Tsize: 900}), ErrInvalid, bad.CID()},
		{"a leaf of 5 MiB", fileNode(t, Link{CID: leaf.CID(), Size: 5 << 20, Tsize: 5 << 20}), ErrInvalid, cid.Undef},
		{"identity leaf of the wrong size", fileNode(t, inside), ErrInvalid, cid.Undef},
	} {
		put(tc.root)
		blame, err := blamed(t, m, tc.root.CID(), WalkConfig{})
		if !errors.Is(err, tc.want) || (tc.blame.Defined() && blame != tc.blame) {
			t.Errorf("%s: %v, want %v blaming %v", tc.name, err, tc.want, tc.blame)
		}
	}
}

// A parent that gives every child the Tsize of a leaf is found out, and what lies below is read all the same.
func TestWalkRefute(t *testing.T) {
	m := blockMap{}
	put := func(b dray.Block) dray.Block { m.put(b); return b }
	a, b := put(wrapped(t, "aaaa")), put(wrapped(t, "bb"))
	mid := put(fileNode(t, Link{CID: a.CID(), Size: 4, Tsize: 4}, Link{CID: b.CID(), Size: 2, Tsize: 2}))
	lie := Link{CID: mid.CID(), Size: 6, Tsize: 6}
	top := put(fileNode(t, lie, Link{CID: a.CID(), Size: 4, Tsize: 4}, lie))
	w := NewWalk(top.CID(), WalkConfig{})
	files, err := contents(t, w, m, newRand(1))
	if err != nil || string(files[""]) != "aaaabbaaaaaaaabb" || w.Manifest().Len() != 5 || len(w.refuted) != 1 {
		t.Errorf("%q, %d leaves, %v", files[""], w.Manifest().Len(), err)
	}
	// Raw files in a directory whose Tsize is wrong, too big, or absent.
	raw := put(hashed(t, cid.Raw, []byte("raw file")))
	hash := protowire.AppendString([]byte{tagHash}, raw.CID().KeyString())
	noTsize := protowire.AppendBytes([]byte{tagPBLinks}, append(hash, "\x12\x01d"...))
	dir := put(pbBlock(t, slices.Concat(
		link("a", raw.CID(), 8), link("b", raw.CID(), 3), link("c", raw.CID(), 1<<40), noTsize, []byte(emptyDir))))
	w = NewWalk(dir.CID(), WalkConfig{})
	files, err = contents(t, w, m, newRand(1))
	if err != nil || len(files) != 4 {
		t.Fatalf("%q, %v", files, err)
	}
	for name, content := range files {
		if string(content) != "raw file" {
			t.Errorf("%s: %q", name, content)
		}
	}
	// Refuting what was right is no way to loop forever.
	if err := w.Refute(raw.CID()); !errors.Is(err, ErrInvalid) || w.Err() == nil || w.Done() {
		t.Errorf("second refutation: %v", err)
	}
}

func TestWalkHostileDirectories(t *testing.T) {
	m := blockMap{}
	put := func(b dray.Block) dray.Block { m.put(b); return b }
	c := put(rawLeaf).CID()
	shard := func(fanout int, links ...[]byte) dray.Block { return put(shardNode(t, fanout, links...)) }
	name := "name"
	s0, _ := slotAt(nameHash(name), 0, 256)
	s1, _ := slotAt(nameHash(name), 1, 256)
	at0 := func(name string, c cid.Cid) []byte { return link(slotName(s0, 256)+name, c, 4) }
	deep, astray := shard(256, link(slotName(s1, 256)+name, c, 4)), shard(256, link(slotName(s1^1, 256)+name, c, 4))
	for _, tc := range []struct {
		name string
		root dray.Block
		want error
	}{
		{"a good shard", shard(256, at0("", deep.CID())), nil},
		{"an empty root shard", shard(256), nil},
		{"slash", pbBlock(t, slices.Concat(link("a/b", c, 4), []byte(emptyDir))), ErrInvalid},
		{"dot dot", pbBlock(t, slices.Concat(link("..", c, 4), []byte(emptyDir))), ErrInvalid},
		{"no name", pbBlock(t, slices.Concat(link("", c, 4), []byte(emptyDir))), ErrInvalid},
		{"NUL", pbBlock(t, slices.Concat(link("a\x00", c, 4), []byte(emptyDir))), ErrInvalid},
		{"dot dot in a shard", shard(256, link(slotName(slotOf("..", 256), 256)+"..", c, 4)), ErrInvalid},
		{"name in the wrong slot", shard(256, link(slotName(s0^1, 256)+name, c, 4)), ErrInvalid},
		{"name in the wrong deeper slot", shard(256, at0("", astray.CID())), ErrInvalid},
		{"shard of another fanout below", shard(256, at0("", shard(8, link("0"+name, c, 4)).CID())), ErrInvalid},
		{"directory as a shard", shard(256, at0("", pbBlock(t, []byte(emptyDir)).CID())), ErrInvalid},
		{"empty shard below", shard(256, at0("", shard(256).CID())), ErrInvalid},
		{"leaf as a shard", shard(256, at0("", c)), ErrInvalid},
	} {
		put(tc.root)
		m.put(pbBlock(t, []byte(emptyDir)))
		if _, err := blamed(t, m, tc.root.CID(), WalkConfig{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func slotOf(name string, fanout int) int { s, _ := slotAt(nameHash(name), 0, fanout); return s }

func slotName(slot, fanout int) string { return string(appendSlot(nil, slot, fanout)) }

// shardNode is a shard with the given links, in order of slot.
func shardNode(t testing.TB, fanout int, links ...[]byte) dray.Block {
	bitmap := make([]byte, fanout/8)
	for _, l := range links {
		pb, _, err := nextLink(l)
		if err != nil {
			t.Fatal(err)
		}
		slot, _, _ := parseSlot(string(pb.name), fanout)
		bitmap[len(bitmap)-1-slot/8] |= 1 << (slot % 8)
	}
	msg := protowire.AppendBytes([]byte{tagType, typeShard, tagData}, bitmap)
	msg = protowire.AppendVarint(append(msg, tagHashType), hashMurmur3)
	msg = protowire.AppendVarint(append(msg, tagFanout), uint64(fanout))
	return pbBlock(t, node(slices.Concat(links...), msg))
}

// A chain of shards that is longer than a hash has bits.
func TestWalkShardChain(t *testing.T) {
	m := blockMap{}
	m.put(rawLeaf)
	b := shardNode(t, 256, link("00x", rawLeaf.CID(), 4))
	for range 12 {
		m.put(b)
		b = shardNode(t, 256, link("00", b.CID(), 4))
	}
	m.put(b)
	if _, err := blamed(t, m, b.CID(), WalkConfig{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// Diamonds: n blocks that stand for 2^n leaves or entries. The limits must stop them, soon and in little memory.
func TestWalkDiamonds(t *testing.T) {
	m := blockMap{}
	m.put(rawLeaf)
	for _, size := range []int64{4, 0} { // with content, and without any
		leaf := rawLeaf
		if size == 0 {
			leaf = hashed(t, cid.Raw, nil)
			m.put(leaf)
		}
		l := Link{CID: leaf.CID(), Size: size, Tsize: size}
		b, total := fileNode(t, l, l), 2*size
		for range 50 {
			m.put(b)
			l = Link{CID: b.CID(), Size: total, Tsize: total + 1000}
			b = fileNode(t, l, l)
			total *= 2
		}
		m.put(b)
		w := NewWalk(b.CID(), WalkConfig{MaxLeaves: 10000})
		asked, err := walkAll(t, w, m, newRand(1))
		if !errors.Is(err, ErrTooLarge) || asked > 60 {
			t.Errorf("file of %d bytes: %v after asking for %d blocks", total, err, asked)
		}
	}
	b := pbBlock(t, slices.Concat(link("a", rawLeaf.CID(), 4), link("b", rawLeaf.CID(), 4), []byte(emptyDir)))
	for range 50 {
		m.put(b)
		b = pbBlock(t, slices.Concat(link("a", b.CID(), 4), link("b", b.CID(), 4), []byte(emptyDir)))
	}
	m.put(b)
	w := NewWalk(b.CID(), WalkConfig{MaxEntries: 10000})
	asked, err := walkAll(t, w, m, newRand(1))
	if !errors.Is(err, ErrTooLarge) || asked > 60 {
		t.Errorf("directory: %v after asking for %d blocks", err, asked)
	}
}

func TestWalkTooDeep(t *testing.T) {
	m := blockMap{}
	m.put(rawLeaf)
	b := fileNode(t, Link{CID: rawLeaf.CID(), Size: 4, Tsize: 4})
	d := pbBlock(t, []byte(emptyDir))
	for i := range 300 {
		m.put(b)
		m.put(d)
		if i == maxFileDepth-2 {
			if _, err := blamed(t, m, b.CID(), WalkConfig{}); err != nil {
				t.Errorf("file of %d levels: %v", i+1, err)
			}
		}
		if i == 255 {
			if _, err := blamed(t, m, d.CID(), WalkConfig{}); err != nil {
				t.Errorf("directories %d deep: %v", i, err)
			}
		}
		b = fileNode(t, Link{CID: b.CID(), Size: 4, Tsize: 1 << 20})
		d = pbBlock(t, slices.Concat(link("d", d.CID(), 4), []byte(emptyDir)))
	}
	m.put(b)
	m.put(d)
	for what, c := range map[string]cid.Cid{"file": b.CID(), "directory": d.CID()} {
		if _, err := blamed(t, m, c, WalkConfig{}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := newReader(t, m, b.CID(), ReaderConfig{}).Read(make([]byte, 1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("reader: %v", err)
	}
}

// Sizes that add up to more than a number holds.
func TestWalkSizeOverflow(t *testing.T) {
	m := blockMap{}
	huge := fileNode(t, Link{CID: fileNode(t).CID(), Size: math.MaxInt64 - 1, Tsize: math.MaxInt64})
	m.put(huge)
	dir := pbBlock(t, slices.Concat(link("a", rawLeaf.CID(), 4), link("b", huge.CID(), 4), []byte(emptyDir)))
	m.put(dir)
	if blame, err := blamed(t, m, dir.CID(), WalkConfig{}); !errors.Is(err, ErrInvalid) || blame != huge.CID() {
		t.Errorf("%v, blaming %v", err, blame)
	}
}

// However much a hostile DAG makes known far ahead, the walk holds a bounded part of it, and still gets everywhere.
func TestWalkHoldsLittle(t *testing.T) {
	m := blockMap{}
	const dirs, each = 300, 2000
	var top []byte
	for i := range dirs {
		var links []byte
		for j := range each {
			links = append(links, link(fmt.Sprintf("%d-%d", i, j), wrappedCID, 12)...)
		}
		b := pbBlock(t, append(links, emptyDir...))
		m.put(b)
		top = append(top, link(fmt.Sprintf("%03d", i), b.CID(), 12)...)
	}
	root := pbBlock(t, append(top, emptyDir...))
	m.put(root)
	m.put(wrapped(t, "small file"))
	w := NewWalk(root.CID(), WalkConfig{})
	// Always feed what was asked for last, so that the front comes late.
	var wants []cid.Cid
	most := 0
	for !w.Done() {
		wants = w.Need(wants)
		if w.Done() || w.Err() != nil {
			break
		}
		last := wants[len(wants)-1]
		wants = wants[:len(wants)-1]
		if err := w.Feed(m[last]); err != nil {
			t.Fatal(err)
		}
		most = max(most, w.buffered)
	}
	if w.Err() != nil || len(w.Entries()) != 1+dirs*(each+1) {
		t.Errorf("%d entries, %v", len(w.Entries()), w.Err())
	}
	if most > 3*aheadLinks {
		t.Errorf("held %d links", most)
	}
}

var wrappedCID = func() cid.Cid {
	p := V0()
	b, _ := dray.Hashed(V1().NodePrefix(), p.AppendLeafTail(append(p.AppendLeafHead(nil, 10), "small file"...), 10))
	return b.CID()
}()

func TestWalkIgnoresUnasked(t *testing.T) {
	m := blockMap{}
	root := addFile(t, small(V0(), 10, 3), noise(1, 100), m.put)
	w := NewWalk(root.CID, WalkConfig{})
	if err := w.Feed(m[root.CID]); err != nil || w.Done() || len(w.Entries()) != 0 {
		t.Errorf("a block that was not asked for had an effect: %v", err)
	}
	if got := w.Need(nil); !slices.Equal(got, []cid.Cid{root.CID}) {
		t.Errorf("needs %v", got)
	}
	if got := w.Need(nil); len(got) != 0 {
		t.Errorf("asks twice: %v", got)
	}
	w.Feed(m[root.CID])
	before := len(w.Entries())
	w.Feed(m[root.CID])
	if len(w.Entries()) != before {
		t.Error("feeding twice had an effect")
	}
}

// Leaves become known while the skeleton is still incomplete, in order.
func TestWalkIncremental(t *testing.T) {
	m := blockMap{}
	root := addFile(t, small(V1(), 10, 4), noise(2, 640), m.put)
	w := NewWalk(root.CID, WalkConfig{})
	var known []int
	for !w.Done() {
		for _, c := range w.Need(nil) {
			if err := w.Feed(m[c]); err != nil {
				t.Fatal(err)
			}
			known = append(known, w.Manifest().Len())
		}
		if e := w.Entries()[0]; e.Leaves != w.Manifest().Len() || e.Size != 640 {
			t.Fatalf("%+v with %d leaves known", e, w.Manifest().Len())
		}
	}
	if known[len(known)-1] != 64 || len(slices.Compact(slices.Clone(known))) < 16 {
		t.Errorf("leaves known after each block: %v", known)
	}
}

func TestWalkIdentity(t *testing.T) {
	leaf := identity(t, cid.Raw, []byte("abc"))
	inner := fileNode(t, Link{CID: leaf, Size: 3, Tsize: 3}, Link{CID: leaf, Size: 3, Tsize: 3})
	for _, root := range []cid.Cid{leaf, identity(t, cid.DagProtobuf, inner.Data())} {
		w := NewWalk(root, WalkConfig{})
		if got := w.Need(nil); len(got) != 0 || !w.Done() {
			t.Errorf("%v: needs %v, %v", root, got, w.Err())
		}
		if n := w.Manifest().Size(); n%3 != 0 || n == 0 {
			t.Errorf("%v: %d bytes", root, n)
		}
	}
	w := NewWalk(identity(t, cid.DagCBOR, []byte{0xa0}), WalkConfig{})
	if !errors.Is(w.Err(), ErrNotUnixFS) || w.Done() {
		t.Errorf("identity dag-cbor: %v", w.Err())
	}
}

func FuzzWalk(f *testing.F) {
	m := blockMap{}
	addTree(f, small(V0(), 20, 2), tree{"a": noise(1, 100), "s": "target", "d": tree{"b": []byte("x")}}, m.put)
	for _, b := range m {
		f.Add(b.Data(), b.Data())
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		// Two blocks that the walk is fed with whatever it asks for: roots and children alike.
		ra := pbBlock(t, a)
		w := NewWalk(ra.CID(), WalkConfig{MaxEntries: 1000, MaxLeaves: 1000})
		for range 100 {
			wants := w.Need(nil)
			if w.Done() || w.Err() != nil || len(wants) == 0 {
				break
			}
			for _, c := range wants {
				block := ra
				if c != ra.CID() {
					if block = pbBlock(t, b); c != block.CID() {
						continue
					}
				}
				w.Feed(block)
				checkWalk(t, w)
			}
		}
		var size int64
		for _, e := range w.Entries() {
			size += e.Size
		}
		if w.Done() && size != w.Manifest().Size() {
			t.Fatalf("entries of %d bytes, manifest of %d", size, w.Manifest().Size())
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	p := V1()
	m := blockMap{}
	bl := NewBuilder(p, m.put)
	const leaves = 64 << 10 // 64 GiB
	for range leaves {
		bl.AddLeaf(rawLeaf.CID(), p.ChunkSize, p.ChunkSize)
	}
	root, err := bl.Finish()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		w := NewWalk(root.CID, WalkConfig{})
		for !w.Done() {
			for _, c := range w.Need(nil) {
				w.Feed(m[c])
			}
		}
		if w.Manifest().Len() != leaves {
			b.Fatal("leaves are missing")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/leaves, "ns/leaf")
}

func BenchmarkReader(b *testing.B) {
	p := V1()
	m := blockMap{}
	root := addFile(b, p, noise(1, 16<<20), m.put)
	b.SetBytes(16 << 20)
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewReader(context.Background(), m, root.CID, ReaderConfig{})
		if err != nil {
			b.Fatal(err)
		}
		if n, err := r.WriteTo(io.Discard); n != 16<<20 || err != nil {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkWalkDirectory walks a sharded directory of 10,000 small dag-pb files, fed as a distant peer would.
func BenchmarkWalkDirectory(b *testing.B) {
	p := V0()
	m := blockMap{}
	d := NewDirBuilder(p, m.put)
	for i := range 10000 {
		name := fmt.Sprintf("entry-%06d", i)
		d.Add(name, addFile(b, p, []byte(name), m.put))
	}
	root, err := d.Finish()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	trips := 0
	for b.Loop() {
		w := NewWalk(root.CID, WalkConfig{})
		for trips = 0; !w.Done(); trips++ {
			for _, c := range w.Need(nil) {
				w.Feed(m[c])
			}
		}
	}
	b.ReportMetric(float64(trips), "trips")
}
