package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/tensor"
	"dray/transport"
	"dray/unixfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// weight is a tensor of a test's file: bytes that follow from a seed.
type weight struct {
	name string
	seed string
	size int
}

func (w weight) data() []byte {
	var seed [32]byte
	copy(seed[:], w.seed)
	b := make([]byte, w.size)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// safetensors returns a file with some tensors, in that order.
func safetensors(weights ...weight) []byte {
	var header, data []byte
	for i, w := range weights {
		if i > 0 {
			header = append(header, ',')
		}
		header = fmt.Appendf(header, `%q:{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`,
			w.name, w.size, len(data), len(data)+w.size)
		data = append(data, w.data()...)
	}
	header = append(append([]byte{'{'}, header...), '}')
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), data...)
}

func write(t testing.TB, name string, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func add(t testing.TB, n *Node, path string, cfg AddConfig) AddResult {
	t.Helper()
	r, err := n.Add(t.Context(), path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// blob returns what content is called as a file of no known kind.
func blob(t testing.TB, n *Node, content []byte, p unixfs.Profile) cid.Cid {
	t.Helper()
	return add(t, n, write(t, "blob", content), AddConfig{Profile: p, OnlyHash: true, Layout: LayoutPlain}).Root
}

// tiny is the native profile with leaves and nodes so small that a kilobyte makes a deep tree.
func tiny() unixfs.Profile {
	p := unixfs.Native()
	p.Name, p.ChunkSize, p.MaxLinks = "tiny", 64, 4
	return p
}

// sections lists how a file is cut: each section with its name, place, number of leaves and CID, and then the root.
func sections(t *testing.T, n *Node, content []byte, p unixfs.Profile) string {
	t.Helper()
	f, err := tensor.Read(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "file", content)
	r := add(t, n, path, AddConfig{Profile: p})
	nodes := nodesOf(t, n.store, r.Root)
	var out strings.Builder
	for s := range f.Sections() {
		c := blob(t, n, content[s.Begin:s.End], p)
		name := map[tensor.SectionKind]string{tensor.Header: "header", tensor.Other: "other"}[s.Kind]
		if s.Kind == tensor.Data {
			name = f.Tensors[s.Tensor].Name
		}
		if at, ok := nodes[c]; !ok || !at[s.Begin] {
			t.Errorf("%s is %v as a file, and no such node begins at %d of the whole", name, c, s.Begin)
		}
		fmt.Fprintf(&out, "%8d %8d %3d %v %s\n", s.Begin, s.End-s.Begin, (s.End-s.Begin+p.ChunkSize-1)/p.ChunkSize, c, name)
	}
	fmt.Fprintf(&out, "%8d %8d %3d %v root\n", 0, r.Bytes, r.Leaves, r.Root)
	return out.String()
}

// nodesOf returns every node and leaf of a file, with the bytes at which it occurs.
func nodesOf(t *testing.T, g dray.Getter, root cid.Cid) map[cid.Cid]map[int64]bool {
	t.Helper()
	all := make(map[cid.Cid]map[int64]bool)
	var visit func(c cid.Cid, at int64)
	visit = func(c cid.Cid, at int64) {
		if all[c] == nil {
			all[c] = make(map[int64]bool)
		}
		all[c][at] = true
		b, err := g.Get(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		n, err := unixfs.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range n.Links {
			visit(l.CID, at)
			at += l.Size
		}
	}
	visit(root, 0)
	return all
}

// TestTensorLayoutGolden pins the layout: a change here is a change of every CID that users have.
func TestTensorLayoutGolden(t *testing.T) {
	n := testNode(t, nil)
	fixed, err := os.ReadFile("testdata/small.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	large := safetensors(
		weight{"a", "a", 3<<20 + 5}, weight{"bias", "b", 1024}, weight{"c", "c", 1 << 20}, weight{"a again", "a", 3<<20 + 5})
	var out strings.Builder
	for _, x := range []struct {
		name    string
		content []byte
		profile unixfs.Profile
	}{
		{"small.safetensors, native", fixed, unixfs.Native()},
		{"small.safetensors, leaves of 64 bytes and nodes of 4", fixed, tiny()},
		{"large, native", large, unixfs.Native()},
	} {
		fmt.Fprintf(&out, "%s\n%s\n", x.name, sections(t, n, x.content, x.profile))
	}
	const golden = "testdata/tensors.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the layout has changed:\n%s\nwant\n%s", &out, want)
	}
}

// TestTensorHasItsOwnCID puts one tensor into several files, under other names, in other places and formats, and expects
// it to be the same subtree everywhere.
func TestTensorHasItsOwnCID(t *testing.T) {
	n := testNode(t, nil)
	w := weight{"w", "the tensor", 5000}
	dict := fmt.Sprintf("%-117s\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (5000,), }")
	npy := "\x93NUMPY\x01\x00v\x00" + dict
	le := binary.LittleEndian
	gguf := le.AppendUint32([]byte("GGUF"), 3)
	gguf = le.AppendUint64(le.AppendUint64(gguf, 1), 0)              // one tensor, no metadata
	gguf = append(le.AppendUint64(gguf, 1), 'w')                     // its name
	gguf = le.AppendUint64(le.AppendUint32(gguf, 1), uint64(w.size)) // one axis
	gguf = le.AppendUint64(le.AppendUint32(gguf, 24), 0)             // I8, at offset 0
	gguf = append(gguf, make([]byte, -len(gguf)&31)...)
	for _, p := range []unixfs.Profile{tiny(), unixfs.Native(), unixfs.V0(), unixfs.V1()} {
		want := blob(t, n, w.data(), p)
		for name, content := range map[string][]byte{
			"only.safetensors":     safetensors(w),
			"renamed.safetensors":  safetensors(weight{"another.name", w.seed, w.size}),
			"in.safetensors":       safetensors(weight{"before", "x", 777}, w, weight{"after", "y", 3}),
			"array.npy":            append([]byte(npy), w.data()...),
			"with padding.gguf":    slices.Concat(gguf, w.data(), make([]byte, 24)),
			"no name that says it": safetensors(weight{"v", "v", 1}, w),
		} {
			r := add(t, n, write(t, name, content), AddConfig{Profile: p, Layout: LayoutTensors})
			if r.Tensors == 0 || r.MalformedFiles > 0 {
				t.Errorf("%s: %d tensors, malformed %v", name, r.Tensors, r.Malformed)
			}
			if _, ok := nodesOf(t, n.store, r.Root)[want]; !ok {
				t.Errorf("%s, %s: no node %v", p.Name, name, want)
			}
			out := filepath.Join(t.TempDir(), "out")
			if _, err := n.Fetch(t.Context(), FetchConfig{Root: r.Root, Path: out}); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s, %s: %d bytes of %d, %v", p.Name, name, len(got), len(content), err)
			}
		}
	}
}

// TestLayoutChoice checks who decides where a file is cut.
func TestLayoutChoice(t *testing.T) {
	n := testNode(t, nil)
	content := safetensors(weight{"a", "a", 100}, weight{"b", "b", 200})
	path := write(t, "m.safetensors", content)
	for _, x := range []struct {
		profile unixfs.Profile
		layout  Layout
		tensors int
	}{
		{unixfs.Profile{}, LayoutAuto, 2},
		{unixfs.Native(), LayoutAuto, 2},
		{unixfs.Native(), LayoutTensors, 2},
		{unixfs.Native(), LayoutPlain, 0},
		{unixfs.V1(), LayoutAuto, 0}, // its CIDs are those of `ipfs add`
		{unixfs.V0(), LayoutAuto, 0},
		{unixfs.V0(), LayoutTensors, 2},
	} {
		r := add(t, n, path, AddConfig{Profile: x.profile, Layout: x.layout, OnlyHash: true})
		if r.Tensors != x.tensors {
			t.Errorf("%s, layout %d: %d tensors, want %d", x.profile.Name, x.layout, r.Tensors, x.tensors)
		}
		if x.tensors == 0 && r.Root != blob(t, n, content, x.profile) {
			t.Errorf("%s, layout %d: not the CID of a plain file", x.profile.Name, x.layout)
		}
	}
}

// TestMalformedTensors adds files that are no files of tensors, and some that claim to be.
func TestMalformedTensors(t *testing.T) {
	n := testNode(t, nil)
	good := safetensors(weight{"a", "a", 100})
	for _, x := range []struct {
		name    string
		content []byte
		offset  int64 // -1: nothing is wrong
		reason  string
	}{
		{"cut.safetensors", good[:len(good)-1], 56, "data ends at 100 and the file has 99 bytes of data"},
		{"cut", good[:len(good)-1], 56, "data ends at 100"},
		{"text.safetensors", []byte("this is a text, and by far no model"), 0, "more than 100000000"},
		{"empty.safetensors", nil, 0, "no room"},
		{"old.gguf", []byte("GGUF\x01\x00\x00\x00 and more of it"), 4, "version 1"},
		{"old.npy", []byte("\x93NUMPY\x09\x00 and more of it"), 6, "version 9"},
		{"broken.npz", []byte("PK\x03\x04 and more of it"), 19, "without a directory"},
		{"broken.zip", []byte("PK\x03\x04 and more of it"), -1, ""},
		{"text.txt", []byte("this is a text, and by far no model"), -1, ""},
		{"empty", nil, -1, ""},
	} {
		path := write(t, x.name, x.content)
		r := add(t, n, path, AddConfig{})
		if want := blob(t, n, x.content, unixfs.Native()); r.Root != want || r.Tensors != 0 {
			t.Errorf("%s: %v with %d tensors, want %v", x.name, r.Root, r.Tensors, want)
		}
		if x.offset < 0 {
			if r.MalformedFiles > 0 {
				t.Errorf("%s: malformed: %v", x.name, r.Malformed[0].Err)
			}
			continue
		}
		if r.MalformedFiles != 1 || len(r.Malformed) != 1 {
			t.Errorf("%s: %d malformed", x.name, r.MalformedFiles)
			continue
		}
		m := r.Malformed[0]
		if m.Path != path || m.Err.Offset != x.offset || !strings.Contains(m.Err.Reason, x.reason) {
			t.Errorf("%s: %v, want byte %d: %s", x.name, m.Err, x.offset, x.reason)
		}
	}
}

// TestMalformedAreBounded adds more malformed files than a result names.
func TestMalformedAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range keptMalformed + 5 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.npy", i)), []byte{byte(i)}, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := add(t, testNode(t, nil), dir, AddConfig{})
	if r.MalformedFiles != keptMalformed+5 || len(r.Malformed) != keptMalformed {
		t.Errorf("%d malformed, %d named", r.MalformedFiles, len(r.Malformed))
	}
}

// TestKnown counts what was here before: in other files, not in older versions of the same, nor in the same call.
func TestKnown(t *testing.T) {
	n := testNode(t, nil)
	dir := t.TempDir()
	a, b, c := weight{"a", "a", 3 << 20}, weight{"b", "b", 1000}, weight{"c", "c", 2<<20 + 1}
	check := func(what, path string, cfg AddConfig, tensors, known int, bytes int64) {
		t.Helper()
		r := add(t, n, path, cfg)
		if r.Tensors != tensors || r.KnownTensors != known || r.Known != bytes {
			t.Errorf("%s: %d of %d tensors, %d bytes; want %d of %d, %d bytes",
				what, r.KnownTensors, r.Tensors, r.Known, known, tensors, bytes)
		}
	}
	put := func(name string, weights ...weight) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, safetensors(weights...), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	both := put("both.safetensors", a, b, weight{"twin", a.seed, a.size})
	check("a first file", both, AddConfig{}, 3, 0, 0)
	check("the same path again", both, AddConfig{}, 3, 0, 0)
	a.name, b.name = "a2", "b2"
	check("another file, renamed", put("other.safetensors", b, c, a), AddConfig{}, 3, 2, 3<<20+1000)
	check("the same path again, when its tensors are elsewhere too", both, AddConfig{}, 3, 3, 6<<20+1000)
	check("nothing is looked up", both, AddConfig{OnlyHash: true}, 3, 0, 0)

	check("a copy", put("copied.safetensors", c, weight{"d", "d", 10}), AddConfig{Copy: true}, 2, 1, 2<<20+1)
	check("what was copied", put("after.safetensors", weight{"e", "d", 10}), AddConfig{}, 1, 1, 10)

	// Two equal files in one call were not here before, whatever comes first.
	dir = filepath.Join(dir, "two")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put("1.safetensors", weight{"x", "x", 1 << 20}, a)
	put("2.safetensors", weight{"y", "x", 1 << 20})
	check("a directory", dir, AddConfig{}, 3, 1, 3<<20)

	// A file that was overwritten has nothing any more.
	gone := put("gone.safetensors", weight{"g", "g", 1 << 20})
	check("a file", gone, AddConfig{}, 1, 0, 0)
	put("gone.safetensors", weight{"g", "other", 1<<20 + 1})
	check("what was in a file that was overwritten", put("back.safetensors", weight{"g", "g", 1 << 20}), AddConfig{}, 1, 0, 0)
}

// TestChangedLayer has a host that holds one checkpoint fetch another, in which one layer differs and the rest is renamed
// and distributed over other shards: what comes over the wire is the layer and the skeleton.
func TestChangedLayer(t *testing.T) {
	const layers, layerSize = 8, 4<<20 + 4096
	var old, renamed []weight
	for i := range layers {
		w := weight{fmt.Sprintf("model.layers.%d.mlp.weight", i), fmt.Sprint("layer ", i), layerSize}
		old = append(old, w)
		w.name = fmt.Sprintf("transformer.h.%d.w", i)
		if i == 3 {
			w.seed = "trained on"
		}
		renamed = append(renamed, w)
	}
	layout := func(shards ...[]weight) string {
		dir := t.TempDir()
		for i, s := range shards {
			name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
			if err := os.WriteFile(filepath.Join(dir, name), safetensors(s...), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	a := layout(old)
	b := layout(renamed[:3], renamed[3:4], renamed[4:])

	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, getter := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	first := add(t, seed, a, AddConfig{})
	second := add(t, seed, b, AddConfig{})
	if second.Tensors != layers || second.KnownTensors != layers-1 || second.Known != (layers-1)*layerSize {
		t.Errorf("%d of %d tensors, %d bytes were here before", second.KnownTensors, second.Tensors, second.Known)
	}

	ctx := context.Background()
	fetch := func(root cid.Cid, want string) Progress {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		p, err := getter.Fetch(ctx, FetchConfig{Root: root, Path: out, Peers: []transport.Peer{peerOf(seed)}})
		if err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir(want)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			x, err := os.ReadFile(filepath.Join(want, e.Name()))
			y, err2 := os.ReadFile(filepath.Join(out, e.Name()))
			if err := errors.Join(err, err2); err != nil || !bytes.Equal(x, y) {
				t.Fatalf("%s differs: %v", e.Name(), err)
			}
		}
		return p
	}
	fetch(first.Root, a)
	p := fetch(second.Root, b)
	var wire int64
	for _, s := range p.Sources {
		wire += s.Bytes
	}
	t.Logf("%d bytes in all, %d were here, %d came, %d over the wire", p.Total, p.Reused, p.Fetched, wire)
	if p.Reused != (layers-1)*layerSize {
		t.Errorf("%d bytes were here, want %d", p.Reused, (layers-1)*layerSize)
	}
	if most := int64(layerSize + 16<<10); wire > most || wire < layerSize {
		t.Errorf("%d bytes over the wire, want %d and a skeleton", wire, layerSize)
	}
}
