package node

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/store"
	"dray/tensor"
	"dray/transport"
	"dray/unixfs"
)

// noted is a store that remembers in which order blocks came.
type noted struct {
	*store.Mem
	mu   sync.Mutex
	puts []cid.Cid
}

func (s *noted) Put(ctx context.Context, blocks ...dray.Block) error {
	s.mu.Lock()
	for _, b := range blocks {
		s.puts = append(s.puts, b.CID())
	}
	s.mu.Unlock()
	return s.Mem.Put(ctx, blocks...)
}

// graphModel is what layerGraph computes with, in another order than that of use.
func graphModel() []tensor.Entry {
	return []tensor.Entry{
		entry("head", "U8", 70_000), entry("down.1", "U8", 50_000), entry("up.1", "U8", 50_001), entry("down.0", "U8", 50_002),
		entry("up.0", "U8", 50_003), entry("unused", "U8", 1_000), entry("embedding", "U8", 60_000),
	}
}

// layerGraph is a model of two layers.
func layerGraph(t *testing.T) *tensor.Graph {
	g := &tensor.Graph{}
	add := func(output, expr string, inputs ...string) {
		t.Helper()
		if err := g.AddExpr(output, expr, inputs...); err != nil {
			t.Fatal(err)
		}
	}
	add("x.0", "bv,vd->bd", "tokens", "embedding")
	add("x.1", "bd,df,fd->bd", "x.0", "up.0", "down.0")
	add("x.2", "bd,df,fd->bd", "x.1", "up.1", "down.1")
	add("logits", "bd,vd->bv", "x.2", "head")
	return g
}

// inBubble streams a model between two nodes in virtual time, and returns the order of the tensors and that of the leaves
// on the wire.
func inBubble(t *testing.T, entries []tensor.Entry, p unixfs.Profile, cfg StreamConfig) (names []string, wire []cid.Cid, m *dray.Manifest) {
	t.Helper()
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), entries)
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(transport.MemoryConfig{Latency: oneWay, Bandwidth: gigabit})
		nets := []transport.Network{mem.NewHost(), mem.NewHost()}
		into := &noted{Mem: store.NewMem(0)}
		var nodes []*Node
		for i, s := range []dray.Store{store.NewMem(0), into} {
			n, err := New(Config{Store: s, Network: nets[i]})
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, n)
		}
		added, err := nodes[0].Add(t.Context(), c.path, AddConfig{Copy: true, Profile: p, Layout: LayoutTensors})
		if err != nil {
			t.Error(err)
		}
		cfg.Root, cfg.Peers = added.Root, []transport.Peer{peerOf(nodes[0])}
		for p, err := range nodes[1].Stream(t.Context(), cfg) {
			if err != nil {
				t.Error(err)
				break
			}
			if p.Last {
				names = append(names, p.Name)
			}
		}
		m, _ = nodes[0].derive(added.Root)
		for i := range nodes {
			nodes[i].Close()
			nets[i].Close()
		}
		for _, c := range into.puts {
			if _, leaf := m.Find(c); leaf {
				wire = append(wire, c)
			}
		}
	})
	return names, wire, m
}

// oneLeaf is a window that has room for one leaf.
var oneLeaf = tensor.Marks{
	Resume: tensor.Load{Bytes: 1, Count: 1}, Pause: tensor.Load{Bytes: 2, Count: 2}, Refuse: tensor.Load{Bytes: 2, Count: 2},
}

// TestGraphOnTheWire: with a window of one leaf, leaves come in the topological order of the graph (row A24).
func TestGraphOnTheWire(t *testing.T) {
	g := layerGraph(t)
	p := unixfs.Native()
	p.Name, p.ChunkSize = "small", 16<<10
	names, wire, m := inBubble(t, graphModel(), p, StreamConfig{Graph: g, Window: oneLeaf})
	order, err := g.Order()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range order {
		if slices.ContainsFunc(graphModel(), func(e tensor.Entry) bool { return e.Name == n }) {
			want = append(want, n)
		}
	}
	want = append(want, "unused")
	if !slices.Equal(names, want) {
		t.Fatalf("consumed in the order %q, want %q", names, want)
	}
	// The tensors' places in the file say which leaves they have.
	var wantWire []cid.Cid
	header, _, err := tensor.AppendHeader(nil, graphModel(), map[string]string{"format": "pt", "made by": t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range want {
		at := int64(len(header))
		for _, e := range graphModel() {
			size := e.Shape[0]
			if e.Name == n {
				first, end := tensor.Leaves(m, tensor.Range{Begin: at, End: at + size})
				for k := first; k < end; k++ {
					wantWire = append(wantWire, m.Leaf(k))
				}
			}
			at += size
		}
	}
	if len(wire) > len(wantWire) {
		wire = wire[len(wire)-len(wantWire):] // after the header
	}
	if !slices.Equal(wire, wantWire) || len(wire) < 20 {
		t.Errorf("leaves came in the order\n%v, want\n%v", wire, wantWire)
	}
}

// position returns where each name is in the order.
func position(order []string) map[string]int {
	at := make(map[string]int)
	for i, n := range order {
		at[n] = i
	}
	return at
}

// TestUrgency: a class, or a deadline, lifts what it is given to and all that this needs, and nothing comes before what it
// needs.
func TestUrgency(t *testing.T) {
	rows := []struct {
		name   string
		uses   map[string]Use
		policy tensor.Policy
		first  []string // these come first, in any order
	}{
		{"class", map[string]Use{"head": {Class: exchange.High}}, "", []string{"head"}},
		{"deadline", map[string]Use{"down.1": {Deadline: time.Second}, "up.1": {Deadline: time.Minute}}, "", []string{"down.1"}},
		{"lent by a result", map[string]Use{"x.1": {Class: exchange.Urgent}}, "", []string{"embedding", "up.0", "down.0"}},
		{"lent a deadline", map[string]Use{"x.1": {Deadline: time.Second}}, tensor.EDF, []string{"embedding", "up.0", "down.0"}},
		{"prefetch is last", map[string]Use{"logits": {}, "unused": {Class: exchange.Critical}}, tensor.SJF, []string{"unused"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			names, _, _ := inBubble(t, graphModel(), unixfs.Native(), StreamConfig{Graph: layerGraph(t), Uses: row.uses, Policy: row.policy})
			got := slices.Sorted(slices.Values(names[:len(row.first)]))
			slices.Sort(row.first)
			if !slices.Equal(got, row.first) || len(names) != len(graphModel()) {
				t.Errorf("the order is %q, and first should be %q", names, row.first)
			}
		})
	}
}

// TestPolicies: the tensors come in the order in which a scheduler of the policy gives them, and with a graph none before
// what it needs.
func TestPolicies(t *testing.T) {
	uses := map[string]Use{
		"head": {Flow: 1, Deadline: 3 * time.Second}, "down.1": {Flow: 1, Deadline: time.Second}, "up.1": {Flow: 1},
		"down.0": {Flow: 1}, "up.0": {Flow: 2, Deadline: 2 * time.Second}, "unused": {Flow: 2}, "embedding": {Flow: 2, Weight: 4},
	}
	orders := make(map[string]bool)
	for _, policy := range []tensor.Policy{tensor.FIFO, tensor.EDF, tensor.SJF, tensor.WFQ, tensor.MLFQ} {
		t.Run(string(policy), func(t *testing.T) {
			tune := tensor.SchedulerConfig{Allotment: 60_000}
			s, err := tensor.NewScheduler(policy, tune)
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range graphModel() {
				u := uses[e.Name]
				s.Push(tensor.Job{ID: uint64(i), Flow: u.Flow, Weight: u.Weight, Size: e.Shape[0], Deadline: u.Deadline}, 0)
			}
			var want []string
			for job, ok := s.Pop(0); ok; job, ok = s.Pop(0) {
				want = append(want, graphModel()[job.ID].Name)
			}
			cfg := StreamConfig{Uses: uses, Policy: policy, Schedule: tune}
			names, _, _ := inBubble(t, graphModel(), unixfs.Native(), cfg)
			if !slices.Equal(names, want) {
				t.Errorf("the order is %q, want %q", names, want)
			}
			orders[strings.Join(names, " ")] = true
			// A tensor that is made from another one may not come before it, whatever the policy says.
			g := &tensor.Graph{}
			g.Add("unused", "head", "up.1")
			g.Add("down.1", "result")
			g.Add("result", "unused")
			cfg.Graph = g
			names, _, _ = inBubble(t, graphModel(), unixfs.Native(), cfg)
			at := position(names)
			if len(names) != len(graphModel()) || at["unused"] < at["head"] || at["unused"] < at["up.1"] || at["down.1"] < at["unused"] {
				t.Errorf("with a graph the order is %q", names)
			}
		})
	}
	if len(orders) < 4 {
		t.Errorf("five policies give %d different orders", len(orders))
	}
}

func TestStreamRefusals(t *testing.T) {
	n := testNode(t, nil)
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), graphModel())
	added, err := n.Add(t.Context(), c.path, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	g := &tensor.Graph{}
	g.Add("up.0", "down.0")
	g.Add("down.0", "x")
	g.Add("x", "up.0")
	rows := []struct {
		cfg  StreamConfig
		want string
	}{
		{StreamConfig{Graph: g}, "dependency cycle: up.0 needs down.0 needs x needs up.0"},
		{StreamConfig{Policy: "lifo"}, `unknown policy "lifo"`},
	}
	for _, row := range rows {
		row.cfg.Root = added.Root
		var got error
		for _, err := range n.Stream(t.Context(), row.cfg) {
			got = err
		}
		if got == nil || !strings.Contains(got.Error(), row.want) || row.cfg.Graph != nil && !errors.Is(got, tensor.ErrCycle) {
			t.Errorf("%v, want %s", got, row.want)
		}
	}
}

// TestReadAtOvertakes: what a reader waits for comes before what was only asked for ahead, of which there is a bound.
func TestReadAtOvertakes(t *testing.T) {
	const size, bandwidth = 96 << 20, 8 << 20
	path, data := randomFile(t, size)
	bubble(t, transport.MemoryConfig{Latency: oneWay, Bandwidth: bandwidth}, 2, func(ctx context.Context, n []*Node) {
		added, err := n[0].Add(ctx, path, AddConfig{Copy: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := n[1].Connect(ctx, peerOf(n[0])); err != nil {
			t.Fatal(err)
		}
		s := n[1].NewSession(SessionConfig{Peers: []dray.PeerID{n[0].Self()}, Order: exchange.InOrder})
		defer s.Close()
		f, err := s.Open(ctx, added.Root)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1000)
		if _, err := f.Read(b); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var held exchange.Held
		n[1].ask(func() { held = n[1].engine.Held() })
		if most := readAhead>>20 + 2; held.Wants > most || held.Wants < 16 {
			t.Errorf("%d leaves are wanted ahead, at most %d should be", held.Wants, most)
		}
		start := time.Now()
		if _, err := f.ReadAt(b, size-2000); err != nil || string(b) != string(data[size-2000:size-1000]) {
			t.Fatal(err)
		}
		ahead := time.Duration(float64(readAhead) / bandwidth * float64(time.Second))
		if took := time.Since(start); took > ahead/4 {
			t.Errorf("reading far away took %v; what was asked for ahead takes %v", took, ahead)
		} else {
			t.Logf("reading far away took %v; what was asked for ahead takes %v", took, ahead)
		}
	})
}

// TestDeadlineOvertakes: a block with a deadline rises above blocks of a higher class by itself, as the deadline comes near
// (row A59).
func TestDeadlineOvertakes(t *testing.T) {
	const leaves, bandwidth = 160, 8 << 20
	path, _ := randomFile(t, leaves<<20)
	bubble(t, transport.MemoryConfig{Latency: oneWay, Bandwidth: bandwidth}, 2, func(ctx context.Context, n []*Node) {
		added, err := n[0].Add(ctx, path, AddConfig{Copy: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := n[1].Connect(ctx, peerOf(n[0])); err != nil {
			t.Fatal(err)
		}
		m, _ := n[0].derive(added.Root)
		start := time.Now()
		s := n[1].NewSession(SessionConfig{Order: exchange.InOrder})
		for i := range 4 { // so that the session knows how large blocks are, and does not ask for all of them at once
			if _, err := s.Get(ctx, m.Leaf(i)); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for i := 4; i < leaves-2; i++ {
			wg.Go(func() {
				if _, err := s.get(ctx, m.Leaf(i), exchange.High); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		const deadline = 9 * time.Second
		var with, without time.Duration
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, deadline)
			defer cancel()
			if _, err := s.Get(ctx, m.Leaf(leaves-1)); err != nil {
				t.Errorf("the deadline was missed: %v", err)
			}
			with = time.Since(start)
		})
		wg.Go(func() {
			if _, err := s.Get(ctx, m.Leaf(leaves-2)); err != nil {
				t.Error(err)
			}
			without = time.Since(start)
		})
		wg.Wait()
		all := time.Since(start)
		t.Logf("with a deadline of %v it came after %v, without after %v; all took %v", deadline, with, without, all)
		if with < 3*time.Second || with > deadline || without < all-2*time.Second {
			t.Errorf("with a deadline of %v it came after %v, without after %v; all took %v", deadline, with, without, all)
		}
		s.Close()
	})
}
