package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/exchange"
	"dray/tensor"
	"dray/transport"
)

// backwardModel is a model of 40 MiB whose file has the head first and the embedding last.
func backwardModel() []tensor.Entry {
	list := []tensor.Entry{entry("lm_head.weight", "BF16", 4096, 512), entry("model.norm.weight", "BF16", 512)}
	for i := 7; i >= 0; i-- {
		l := fmt.Sprintf("model.layers.%d.", i)
		list = append(list,
			entry(l+"mlp.down_proj.weight", "BF16", 1024, 1024),
			entry(l+"self_attn.q_proj.weight", "BF16", 1024, 1024),
			entry(l+"input_layernorm.weight", "BF16", 512),
			entry(l+"none", "F32", 0, 4),
		)
	}
	return append(list, entry("model.embed_tokens.weight", "BF16", 4096, 512))
}

// isFirst says whether a tensor is needed for the first layer.
func isFirst(name string) bool {
	return strings.Contains(name, "embed_tokens") || strings.Contains(name, ".layers.0.")
}

// watched collects the events of a fetch, and checks their order.
func watched(t *testing.T, w *Watch) (ready []TensorReady, last FetchCompleted) {
	n := 0
	seen := make(map[string]bool)
	for e := range w.Events(context.Background()) {
		switch e := e.(type) {
		case FetchStarted:
			if n > 0 {
				t.Errorf("started is event %d", n)
			}
		case TensorReady:
			if seen[e.Name] || e.Ready != len(ready)+1 {
				t.Errorf("%+v after %d others, known: %v", e, len(ready), seen[e.Name])
			}
			seen[e.Name] = true
			ready = append(ready, e)
		case FetchCompleted:
			last = e
		}
		n++
	}
	if last.Progress.Root.Defined() == false {
		t.Error("the fetch was never completed")
	}
	for range 2 {
		if e := w.take(); e != nil {
			t.Errorf("%T came after the last event", e)
		}
	}
	return ready, last
}

// TestOrderOfUse: the first layer can be computed with long before the file is there, though its bytes are at the end.
func TestOrderOfUse(t *testing.T) {
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), backwardModel())
	const bandwidth = 20 << 20
	for _, rarest := range []bool{false, true} {
		took := make(map[tensor.OrderKind]time.Duration)
		for _, use := range []tensor.OrderKind{tensor.ByFile, tensor.ByLayers} {
			net := transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: bandwidth}
			bubble(t, net, 2, func(ctx context.Context, n []*Node) {
				added, err := n[0].Add(ctx, c.path, AddConfig{Copy: true})
				if err != nil {
					t.Fatal(err)
				}
				cfg := FetchConfig{Root: added.Root, Peers: []transport.Peer{peerOf(n[0])}, Use: use, Watch: NewWatch()}
				if rarest {
					cfg.Order = exchange.Rarest
				}
				var ready []TensorReady
				var last FetchCompleted
				var wg sync.WaitGroup
				wg.Go(func() { ready, last = watched(t, cfg.Watch) })
				p, err := n[1].Fetch(ctx, cfg)
				wg.Wait()
				if err != nil || last.Err != nil || last.Progress.Done != p.Done || p.Done != int64(len(c.data)) {
					t.Fatalf("%+v, %v; %+v", p, err, last)
				}
				var names []string
				for _, r := range ready {
					if isFirst(r.Name) {
						took[use] = max(took[use], r.After)
					}
					if x := c.file.Find(r.Name); x == nil || x.Bytes() != r.Bytes || r.All != len(c.file.Tensors) {
						t.Errorf("%+v is not %+v", r, x)
					}
					names = append(names, r.Name)
				}
				want := c.file.Names()
				slices.Sort(want)
				slices.Sort(names)
				if !slices.Equal(names, want) {
					t.Errorf("ready were %q", names)
				}
				// What comes twice is what a slow start costs, and what was on its way when an answer took long.
				if p.Duplicates > 0 || p.Fetched > int64(len(c.data))+100_000 {
					t.Errorf("%d bytes came for %d, %d twice", p.Fetched, len(c.data), p.Duplicates)
				}
			})
		}
		whole := time.Duration(float64(len(c.data)) / bandwidth * float64(time.Second))
		t.Logf("rarest %v: of %v the first layer took %v in its order, %v in that of the file", rarest, whole, took[tensor.ByLayers], took[tensor.ByFile])
		if took[tensor.ByLayers] > whole/2 || !rarest && took[tensor.ByFile] < 4*whole/5 {
			t.Errorf("rarest %v: the first layer took %v, %v in the order of the file", rarest, took[tensor.ByLayers], took[tensor.ByFile])
		}
	}
}

// TestSlowWatch: a listener that takes nothing until the end delays nothing, and then hears all that counts.
func TestSlowWatch(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), smallModel())
	added, err := seed.Add(t.Context(), c.path, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w, part := NewWatch(), NewWatch()
	out := filepath.Join(t.TempDir(), "copy.safetensors")
	if _, err := n.Fetch(t.Context(), FetchConfig{Root: added.Root, Path: out, Peers: peerAt(seed), Watch: w}); err != nil {
		t.Fatal(err)
	}
	if ready, last := watched(t, w); len(ready) != len(c.file.Tensors) || last.Err != nil {
		t.Errorf("%d tensors of %d, %v", len(ready), len(c.file.Tensors), last.Err)
	}
	cfg := PartConfig{
		TensorsConfig: TensorsConfig{Root: added.Root, Peers: peerAt(seed)}, Path: out + ".part", Watch: part,
		Selection: Selection{Patterns: []string{"model.layers.[1-2].*"}},
	}
	if _, err := n.FetchPart(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ready, _ := watched(t, part)
	for _, r := range ready {
		if x := c.file.Find(r.Name); x == nil || r.Bytes != x.Bytes() || r.DType != x.DType || r.All != 14 {
			t.Errorf("%+v is not %+v", r, x)
		}
	}
	if len(ready) != 14 {
		t.Errorf("%d tensors of 14", len(ready))
	}
	// A fetch that fails is completed, too.
	w = NewWatch()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	missing := testNode(t, mem.NewHost())
	_, err = missing.Fetch(ctx, FetchConfig{Root: added.Root, Watch: w})
	if _, last := watched(t, w); err == nil || !errors.Is(last.Err, err) {
		t.Errorf("completed with %v, not %v", last.Err, err)
	}
}

// TestShardsInOrder: the layers of a model in several files come in their order, and all tensors are heard of.
func TestShardsInOrder(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	dir, shards := sharded(t)
	added, err := seed.Add(t.Context(), dir, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	all := 0
	for _, s := range shards {
		all += len(s.file.Tensors)
	}
	out := filepath.Join(t.TempDir(), "copy")
	for range 2 { // once from the peer, once from what is there
		cfg := FetchConfig{Root: added.Root, Path: out, Peers: peerAt(seed), Use: tensor.ByLayers, Watch: NewWatch()}
		if _, err := n.Fetch(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if ready, last := watched(t, cfg.Watch); len(ready) != all || last.Err != nil {
			t.Errorf("%d tensors of %d, %v", len(ready), all, last.Err)
		}
		out += " again"
	}
}
