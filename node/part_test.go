package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/tensor"
	"dray/transport"
	"dray/unixfs"
)

// checkpoint is a safetensors file with random content.
type checkpoint struct {
	path string
	file *tensor.File
	data []byte
}

func makeCheckpoint(t testing.TB, path string, entries []tensor.Entry) *checkpoint {
	t.Helper()
	header, n, err := tensor.AppendHeader(nil, entries, map[string]string{"format": "pt", "made by": t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	data := append(header, make([]byte, n)...)
	rand.NewChaCha8(sha256.Sum256([]byte(path[max(0, len(path)-12):]))).Read(data[len(header):])
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return &checkpoint{path, readCheckpoint(t, data), data}
}

func readCheckpoint(t testing.TB, data []byte) *tensor.File {
	t.Helper()
	f, err := tensor.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func entry(name, dtype string, shape ...int64) tensor.Entry {
	d, ok := tensor.LookupDType(dtype)
	if !ok {
		panic(dtype)
	}
	return tensor.Entry{Name: name, DType: d, Shape: shape}
}

// layers are the tensors of a small model of the usual architecture: 9 MB in 4 layers.
func layers(from, to int) []tensor.Entry {
	var list []tensor.Entry
	for i := from; i < to; i++ {
		l := fmt.Sprintf("model.layers.%d.", i)
		list = append(list,
			entry(l+"input_layernorm.weight", "F32", 256),
			entry(l+"mlp.down_proj.weight", "BF16", 256, 704),
			entry(l+"mlp.up_proj.weight", "BF16", 704, 256),
			entry(l+"self_attn.k_proj.weight", "BF16", 64, 256),
			entry(l+"self_attn.o_proj.weight", "BF16", 256, 1024),
			entry(l+"self_attn.q_proj.weight", "BF16", 1024, 256),
			entry(l+"self_attn.none", "F32", 0, 4),
		)
	}
	return list
}

func smallModel() []tensor.Entry {
	list := []tensor.Entry{entry("lm_head.weight", "BF16", 1000, 256), entry("model.embed_tokens.weight", "BF16", 1000, 256)}
	return append(append(list, layers(0, 4)...), entry("model.norm.weight", "F32", 256))
}

// sliced returns the bytes that slices of a tensor select, element by element.
func sliced(c *checkpoint, x *tensor.Tensor, sl []tensor.Slice) (shape []int64, data []byte) {
	shape = slices.Clone(x.Shape)
	for _, s := range sl {
		shape[s.Axis] = 0
		for _, p := range s.Spans {
			shape[s.Axis] += p.End - p.Begin
		}
	}
	width := x.DType.Bits / 8
	for e := range x.Elements() {
		rest, in := e, true
		for a := len(x.Shape) - 1; a >= 0; a-- {
			at := rest % x.Shape[a]
			rest /= x.Shape[a]
			for _, s := range sl {
				in = in && (s.Axis != a || slices.ContainsFunc(s.Spans, func(p tensor.Span) bool { return p.Begin <= at && at < p.End }))
			}
		}
		if in {
			data = append(data, c.data[x.Begin+e*width:x.Begin+(e+1)*width]...)
		}
	}
	return shape, data
}

// wantPart checks that a file holds exactly the selected tensors.
func wantPart(t *testing.T, path string, from []*checkpoint, s Selection) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := readCheckpoint(t, data)
	if got.Metadata["format"] != "pt" || len(got.Metadata) != len(from[0].file.Metadata) {
		t.Errorf("metadata %v", got.Metadata)
	}
	table, err := tensor.NewTPTable(slices.Concat(s.Rules, tensor.TPRules(s.Architecture)))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range from {
		for i := range c.file.Tensors {
			x := &c.file.Tensors[i]
			chosen := len(s.Patterns) == 0
			for _, text := range s.Patterns {
				p, err := tensor.ParsePattern(text)
				if err != nil {
					t.Fatal(err)
				}
				chosen = chosen || p.Match(x.Name)
			}
			y := got.Find(x.Name)
			if (y != nil) != chosen {
				t.Errorf("%s: %v in the file, want %v", x.Name, y != nil, chosen)
			}
			if y == nil || !chosen {
				continue
			}
			n++
			var sl []tensor.Slice
			if s.TP.World > 0 {
				if sl, err = s.TP.Slice(x.Name, x.Shape, table); err != nil {
					t.Fatal(err)
				}
			}
			shape, want := sliced(c, x, sl)
			if y.DType != x.DType || !slices.Equal(y.Shape, shape) || !bytes.Equal(data[y.Begin:y.End], want) {
				t.Errorf("%s: %v %v, want %v %v, or its bytes differ", x.Name, y.DType, y.Shape, x.DType, shape)
			}
		}
	}
	if n == 0 || n != len(got.Tensors) {
		t.Errorf("%d tensors in the file, %d were selected", len(got.Tensors), n)
	}
}

// budget returns the most bytes that may come for a selection: the selection, two leaves for each run of bytes, and the
// skeleton with the leaves of the headers. No leaf is counted twice, so it is also at most the leaves that hold any of it.
func partBudget(t *testing.T, c *Catalog, s Selection) (strict, issue int64) {
	t.Helper()
	m, err := c.Pick()
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.plan(m, &s, "x")
	if err != nil {
		t.Fatal(err)
	}
	const frame = 64 // more than stands around a leaf's content
	var leafMax, skeleton, touched int64
	man := c.walk.Manifest()
	for i := range man.Len() {
		_, n := man.Extent(i)
		leafMax = max(leafMax, n+frame)
	}
	skeleton = int64(man.Len())*64 + 4096
	for _, f := range c.Files {
		skeleton += f.Tensors.HeaderBytes + 2*leafMax
	}
	var runs tensor.RangeSet
	for _, x := range p.placed {
		for r := range x.runs.All() {
			runs.Add(tensor.Range{Begin: r.Begin + x.base, End: r.End + x.base})
		}
	}
	for range p.leaves() {
	}
	for w := range p.leaves() {
		touched += w.size + frame
	}
	return touched + skeleton, runs.Bytes() + int64(runs.Len())*2*leafMax + skeleton
}

type partLayout struct {
	name string
	add  AddConfig
}

func partLayouts() []partLayout {
	odd := unixfs.Native()
	odd.Name, odd.ChunkSize, odd.MaxLinks = "odd", 99_991, 5
	return []partLayout{
		{"tensors", AddConfig{Layout: LayoutTensors}},
		{"plain", AddConfig{Layout: LayoutPlain}},
		{"256 KiB dag-pb", AddConfig{Profile: unixfs.V0(), Layout: LayoutPlain}},
		{"tensors of dag-pb", AddConfig{Profile: unixfs.V0(), Layout: LayoutTensors}},
		{"odd", AddConfig{Profile: odd, Layout: LayoutPlain}},
	}
}

func peerAt(n *Node) []transport.Peer { return []transport.Peer{{ID: n.Self(), Addrs: n.Addrs()}} }

func TestFetchPart(t *testing.T) {
	rows := []struct {
		name string
		s    Selection
	}{
		{"layers", Selection{Patterns: []string{"model.layers.[1-2].*"}}},
		{"two patterns", Selection{Patterns: []string{"*.norm.weight", "*.0.*.k_proj.weight"}}},
		{"all", Selection{}},
		{"rank 1 of 4", Selection{TP: tensor.TP{Rank: 1, World: 4}}},
		{"inner axis", Selection{Patterns: []string{"*.{down_proj,o_proj}.weight"}, TP: tensor.TP{Rank: 3, World: 8}}},
		{"by axis", Selection{
			Patterns: []string{"*.2.*.weight"}, TP: tensor.TP{Rank: 0, World: 2},
			Rules: []tensor.TPRule{{Pattern: "*.up_proj.*", Kind: tensor.ByAxis, Axis: 1}},
		}},
		{"in layers", Selection{Patterns: []string{"*.weight"}, Order: tensor.ByLayers}},
	}
	for _, l := range partLayouts() {
		mem := transport.NewMemory(transport.MemoryConfig{})
		seed := testNode(t, mem.NewHost())
		c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), smallModel())
		added, err := seed.Add(t.Context(), c.path, l.add)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			t.Run(l.name+"/"+row.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				n := testNode(t, mem.NewHost())
				cfg := PartConfig{
					TensorsConfig: TensorsConfig{Root: added.Root, Peers: peerAt(seed)},
					Selection:     row.s, Path: filepath.Join(t.TempDir(), "part.safetensors"),
				}
				p, err := n.FetchPart(ctx, cfg)
				if err != nil {
					t.Fatalf("%v (%+v)", err, p)
				}
				wantPart(t, cfg.Path, []*checkpoint{c}, row.s)
				catalog, err := seed.Tensors(ctx, TensorsConfig{Root: added.Root})
				if err != nil {
					t.Fatal(err)
				}
				strict, issue := partBudget(t, catalog, row.s)
				came := n.Totals().Bytes
				if came > strict || came > issue || came != p.Fetched || n.Totals().DuplicateBytes > 0 {
					t.Errorf("%d bytes came (%d by the progress), of %d selected; the bounds are %d and %d",
						came, p.Fetched, p.Total, strict, issue)
				}
				if p.Done != p.Total || p.Files != 1 || p.Reused != 0 {
					t.Errorf("progress %+v", p)
				}
				// The same again finds it done; another path is made from what is here, and asks for what is not.
				again, err := n.FetchPart(ctx, cfg)
				if err != nil || again.Fetched != 0 || again.Reused != again.Total || n.Totals().Bytes != came {
					t.Errorf("again: %v, %+v", err, again)
				}
			})
		}
	}
}

// A tensor has a CID where the layout gives it a block of its own; the CID is that of a file with just its bytes.
func TestTensors(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	for _, l := range partLayouts() {
		t.Run(l.name, func(t *testing.T) {
			seed, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
			c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), smallModel())
			added, err := seed.Add(t.Context(), c.path, l.add)
			if err != nil {
				t.Fatal(err)
			}
			at := TensorsConfig{Root: added.Root, Peers: peerAt(seed)}
			catalog, err := n.Tensors(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			came := n.Totals().Bytes
			if most := int64(1<<20 + 100_000); came > most {
				t.Errorf("listing took %d bytes, more than %d", came, most)
			}
			m, err := catalog.Pick()
			if err != nil || !slices.Equal(m.Names(), c.file.Names()) {
				t.Fatalf("%+v, %v", m, err)
			}
			named := 0
			for i := range m.Tensors {
				x := &m.Tensors[i]
				if !x.CID.Defined() {
					continue
				}
				named++
				out := filepath.Join(t.TempDir(), "tensor")
				if _, err := n.Fetch(t.Context(), FetchConfig{Root: x.CID, Path: out, Peers: peerAt(seed)}); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, c.data[x.Begin:x.End]) {
					t.Errorf("%s: %v has %d bytes, %v", x.Name, x.CID, len(got), err)
				}
			}
			if want := 27; l.add.Layout == LayoutTensors && named != want || l.add.Layout == LayoutPlain && named > 0 {
				t.Errorf("%d tensors have CIDs, with bytes %d", named, want)
			}
			// What is here is listed without asking anybody.
			before := n.Totals().Bytes
			if _, err := n.Tensors(t.Context(), TensorsConfig{Root: added.Root}); err != nil || n.Totals().Bytes != before {
				t.Errorf("listing again: %v, %d bytes", err, n.Totals().Bytes-before)
			}
		})
	}
}

// Leaves that lie in the selection in one piece are served from the new file, the others are not kept.
func TestFetchPartServes(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, relay, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), smallModel())
	added, err := seed.Add(t.Context(), c.path, AddConfig{Profile: unixfs.V0(), Layout: LayoutPlain})
	if err != nil {
		t.Fatal(err)
	}
	s := Selection{Patterns: []string{"model.layers.[1-3].*"}}
	cfg := PartConfig{
		TensorsConfig: TensorsConfig{Root: added.Root, Peers: peerAt(seed)},
		Selection:     s, Path: filepath.Join(t.TempDir(), "part"),
	}
	if _, err := relay.FetchPart(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	var loose int64
	for st, err := range relay.Store().All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if st.Size > 200<<10 {
			loose++
		}
	}
	whole := 0
	catalog, err := relay.Tensors(t.Context(), TensorsConfig{Root: added.Root})
	if err != nil {
		t.Fatal(err)
	}
	m, err := catalog.Pick()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := catalog.plan(m, &s, "x")
	if err != nil {
		t.Fatal(err)
	}
	for w := range plan.leaves() {
		leaf := plan.man.Leaf(w.leaf)
		_, err := relay.Store().Get(t.Context(), leaf)
		header := w.leaf == 0
		if w.whole() {
			whole++
		}
		if held := err == nil; held != (w.whole() || header) {
			t.Errorf("leaf %d: %v; whole %v", w.leaf, err, w.whole())
		}
	}
	if whole < 20 || loose > int64(whole)+1 {
		t.Errorf("%d leaves lie whole in the part, %d large blocks are held", whole, loose)
	}
	// Somebody else gets each of them from there.
	if err := n.Connect(t.Context(), peerAt(relay)[0]); err != nil {
		t.Fatal(err)
	}
	session := n.NewSession(SessionConfig{Peers: []dray.PeerID{relay.Self()}, Only: true})
	defer session.Close()
	for w := range plan.leaves() {
		if w.whole() {
			if _, err := session.Get(t.Context(), plan.man.Leaf(w.leaf)); err != nil {
				t.Errorf("leaf %d: %v", w.leaf, err)
			}
		}
	}
}

// sharded makes a directory with a model in three files.
func sharded(t *testing.T) (dir string, shards []*checkpoint) {
	t.Helper()
	dir = t.TempDir()
	weights := make(map[string]string)
	for i, list := range [][]tensor.Entry{
		append([]tensor.Entry{entry("model.embed_tokens.weight", "BF16", 1000, 256)}, layers(0, 2)...),
		layers(2, 4),
		{entry("lm_head.weight", "BF16", 1000, 256), entry("model.norm.weight", "F32", 256)},
	} {
		name := fmt.Sprintf("model-%05d-of-00003.safetensors", i+1)
		shards = append(shards, makeCheckpoint(t, filepath.Join(dir, name), list))
		for _, e := range list {
			weights[e.Name] = name
		}
	}
	index, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": 1}, "weight_map": weights})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		tensor.IndexName: string(index), "README.md": "# a model",
		"config.json": `{"model_type":"llama","num_key_value_heads":2,"hidden_size":256}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, shards
}

func TestFetchPartSharded(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	dir, shards := sharded(t)
	added, err := seed.Add(t.Context(), dir, AddConfig{Profile: unixfs.V0()})
	if err != nil {
		t.Fatal(err)
	}
	at := TensorsConfig{Root: added.Root, Peers: peerAt(seed)}
	catalog, err := n.Tensors(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	if came, most := n.Totals().Bytes, int64(4*(256<<10)+100_000); came > most {
		t.Errorf("listing took %d bytes, more than %d", came, most)
	}
	m, err := catalog.Pick()
	if err != nil || !m.Sharded || len(m.Tensors) != 31 || m.Tensors[0].Shard != "model-00001-of-00003.safetensors" ||
		m.Config != (ModelConfig{Architecture: "llama", KVHeads: 2}) {
		t.Fatalf("%+v, %v", m, err)
	}
	// One file out of three.
	s := Selection{Patterns: []string{"*.{1,2}.*", "lm_head.*"}, TP: tensor.TP{Rank: 2, World: 4}}
	out := filepath.Join(t.TempDir(), "part.safetensors")
	p, err := n.FetchPart(t.Context(), PartConfig{TensorsConfig: at, Selection: s, Path: out})
	if err != nil {
		t.Fatal(err)
	}
	s.TP.KVHeads = 2 // as the configuration says
	wantPart(t, out, shards, s)
	if strict, _ := partBudget(t, catalog, s); n.Totals().Bytes > strict {
		t.Errorf("%d bytes came, more than %d", n.Totals().Bytes, strict)
	}
	if p.Files != 1 {
		t.Errorf("%+v", p)
	}

	// A directory of sparse files.
	sparse := filepath.Join(t.TempDir(), "sparse")
	s = Selection{Patterns: []string{"*.2.*.q_proj.weight", "model.norm.weight"}, Sparse: true}
	if p, err = n.FetchPart(t.Context(), PartConfig{TensorsConfig: at, Selection: s, Path: sparse}); err != nil || p.Files != 4 {
		t.Fatalf("%+v, %v", p, err)
	}
	local, err := LocalTensors(sparse)
	if err != nil || len(local.Models) != 1 || len(local.Models[0].Tensors) != 31 {
		t.Fatalf("%+v, %v", local, err)
	}
	for _, c := range shards {
		wantSparse(t, filepath.Join(sparse, filepath.Base(c.path)), c, s.Patterns)
	}
}

// wantSparse checks that a file has the header and the tensors that patterns match, and zeros elsewhere.
func wantSparse(t *testing.T, path string, c *checkpoint, patterns []string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, len(c.data))
	copy(want, c.data[:c.file.DataStart])
	for i := range c.file.Tensors {
		x := &c.file.Tensors[i]
		if k, err := tensor.Select([]string{x.Name}, patterns[:1]); err == nil && len(k) > 0 {
			copy(want[x.Begin:x.End], c.data[x.Begin:x.End])
		}
		if k, err := tensor.Select([]string{x.Name}, patterns[1:]); err == nil && len(k) > 0 && len(patterns) > 1 {
			copy(want[x.Begin:x.End], c.data[x.Begin:x.End])
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: differs from the header and the selection", path)
	}
}

// A part that is given up leaves nothing behind: no wants, no cutters, no work for whoever was asked.
func TestFetchPartCancel(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), smallModel())
	added, err := seed.Add(t.Context(), c.path, AddConfig{Profile: unixfs.V0(), Layout: LayoutPlain})
	if err != nil {
		t.Fatal(err)
	}
	cfg := PartConfig{
		TensorsConfig: TensorsConfig{Root: added.Root, Peers: peerAt(seed)}, Path: filepath.Join(t.TempDir(), "part"),
		Selection: Selection{TP: tensor.TP{Rank: 1, World: 2}},
	}
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		cfg.Progress = func(p Progress) {
			if p.Walked {
				cancel() // the leaves are wanted next
			}
		}
		if _, err := n.FetchPart(ctx, cfg); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
		cancel()
		var held exchange.Held
		n.ask(func() { held = n.engine.Held() })
		// What was being written at that moment may take its time; nothing else is left.
		for until := time.Now().Add(10 * time.Second); held.Receiving > 0 && time.Now().Before(until); {
			n.ask(func() { held = n.engine.Held() })
		}
		cuts := 0
		n.ask(func() { cuts = len(n.cuts) })
		if held.Wants+held.Sessions+cuts > 0 || held.Receiving > 0 {
			t.Errorf("left over: %+v, %d cutters", held, cuts)
		}
		n.ask(func() {}) // what the loop was told has been sent
		for until := time.Now().Add(10 * time.Second); ; {
			seed.ask(func() { held = seed.engine.Held() })
			if held.Serving == 0 && held.PeerWants == 0 {
				break
			}
			if time.Now().After(until) {
				t.Fatalf("the seed still has work: %+v", held)
			}
		}
	}
	cfg.Progress = nil
	if _, err := n.FetchPart(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	wantPart(t, cfg.Path, []*checkpoint{c}, cfg.Selection)
}

func TestFetchPartErrors(t *testing.T) {
	n := testNode(t, nil)
	dir := t.TempDir()
	c := makeCheckpoint(t, filepath.Join(dir, "a.safetensors"), smallModel())
	added, err := n.Add(t.Context(), c.path, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	get := func(root cid.Cid, s Selection) error {
		_, err := n.FetchPart(t.Context(), PartConfig{TensorsConfig: TensorsConfig{Root: root}, Selection: s, Path: out})
		return err
	}
	var none *tensor.NoMatchError
	if err := get(added.Root, Selection{Patterns: []string{"*.norm.*", "model.layer.0.*"}}); !errors.As(err, &none) ||
		!errors.Is(err, dray.ErrNotFound) || !strings.HasPrefix(none.Near[0], "model.layers.0.") {
		t.Errorf("no match: %v", err)
	}
	if err := get(added.Root, Selection{TP: tensor.TP{Rank: 0, World: 7}}); !errors.Is(err, tensor.ErrUneven) {
		t.Errorf("seven ranks: %v", err)
	}
	if err := get(added.Root, Selection{Patterns: []string{"[0"}}); !errors.Is(err, tensor.ErrBadPattern) {
		t.Errorf("bad pattern: %v", err)
	}
	if err := os.WriteFile(out, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := get(added.Root, Selection{Patterns: []string{"*.norm.*"}}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("occupied: %v", err)
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != "mine" {
		t.Errorf("it was overwritten: %q, %v", b, err)
	}
	bad := filepath.Join(dir, "bad.safetensors")
	if err := os.WriteFile(bad, append([]byte("\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":{\"dtype\":4}"), 0, 0, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	added, err = n.Add(t.Context(), bad, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var he *tensor.HeaderError
	if err := get(added.Root, Selection{}); !errors.As(err, &he) || he.Offset < 8 {
		t.Errorf("malformed: %v", err)
	}
}
