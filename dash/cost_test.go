package dash

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/node"
	"dray/store"
	"dray/transport"
)

// crowd is a node with peers and transfers, as a busy host has them.
func crowd(tb testing.TB, peers, transfers int) (*Server, []*node.Tracked) {
	tb.Helper()
	mem := transport.NewMemory(transport.MemoryConfig{})
	host := func() *node.Node {
		net := mem.NewHost()
		n, err := node.New(node.Config{Store: store.NewMem(1 << 20), Network: net})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { n.Close(); net.Close() })
		return n
	}
	n := host()
	var wg sync.WaitGroup
	for range peers {
		o := host()
		wg.Go(func() {
			if err := n.Connect(tb.Context(), transport.Peer{ID: o.Self(), Addrs: o.Addrs()}); err != nil {
				tb.Error(err)
			}
		})
	}
	wg.Wait()
	var open []*node.Tracked
	for i := range transfers {
		t := n.Track(node.TrackConfig{Path: fmt.Sprintf("/models/%d", i), Origin: node.Origin{Who: "job"}, Total: 1 << 40})
		for k := range 8 {
			t.Came(fmt.Sprint("origin ", k), 1<<20)
		}
		open = append(open, t)
	}
	s, err := New(Config{Node: n})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s, open
}

// look does what one look for one listener costs, with everything changed since the last.
func look(s *Server, open []*node.Tracked, at cursor, now time.Time) (int, cursor) {
	for _, t := range open {
		t.Came("origin 3", 1000)
	}
	s.view.refresh(context.Background(), now, 0)
	body, next := s.view.since(at, now)
	return len(body), next
}

// BenchmarkLook is 50 peers and 5 transfers; a page causes two looks a second.
func BenchmarkLook(b *testing.B) {
	s, open := crowd(b, 50, 5)
	at, now := cursor{}, time.Now()
	bytes := 0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(busyTick)
		n, next := look(s, open, at, now)
		at, bytes = next, bytes+n
	}
	b.ReportMetric(float64(bytes)/float64(b.N), "bytes/look")
}

// TestCost: two looks a second with 50 peers and 5 transfers stay below a hundredth of a core.
func TestCost(t *testing.T) {
	s, open := crowd(t, 50, 5)
	at, now := cursor{}, time.Now()
	var took []time.Duration
	for range 60 {
		now = now.Add(busyTick)
		began := time.Now()
		_, at = look(s, open, at, now)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if most := busyTick / 100; took[len(took)/2] > most {
		t.Errorf("a look takes %v, want at most %v; the slowest took %v", took[len(took)/2], most, took[len(took)-1])
	}
}

// TestManyPeers is about the bounds of what is sent.
func TestManyPeers(t *testing.T) {
	s, _ := crowd(t, 3, 0)
	now := time.Now()
	s.view.refresh(t.Context(), now, 0)
	if p := s.view.peers(now); len(p.List) != 3 || p.More != 0 {
		t.Fatalf("%d peers and %d more", len(p.List), p.More)
	}
	r := &rates{at: now}
	total := int64(0)
	for range 20 {
		now = now.Add(time.Second)
		total += 5e6
		r.take(now, total, 2*total)
	}
	if up, down := r.take(now.Add(time.Second), total+5e6, 2*total+10e6); up < 4.9e6 || up > 5.1e6 || down < 9.8e6 || down > 10.2e6 {
		t.Errorf("%.0f up and %.0f down, want 5 and 10 MB/s", up, down)
	}
	now = now.Add(time.Hour)
	if up, _ := r.take(now, total, total); up != 0 {
		t.Errorf("%.0f after an hour of nothing", up)
	}
	v := &view{cfg: &Config{}}
	list := node.TransferList{Running: make([]node.Transfer, 2*shownTransfers), More: 5, Ended: make([]node.Transfer, 2*shownEnded)}
	for i := range list.Running {
		list.Running[i].Progress.Sources = []node.Source{{Peer: dray.PeerID("x")}}
	}
	if x := v.running(&list, now); len(x.List) != shownTransfers || x.More != shownTransfers+5 {
		t.Errorf("%d transfers and %d more", len(x.List), x.More)
	}
	if x := v.ended(&list, now); len(x) != shownEnded {
		t.Errorf("%d that have ended", len(x))
	}
}

// TestCursor reads what it writes, and takes anything else for nothing.
func TestCursor(t *testing.T) {
	c := cursor{epoch: 1 << 60, version: 2, record: 3, second: 4}
	if got := parseCursor(c.String()); got != c {
		t.Errorf("%+v, want %+v", got, c)
	}
	for _, s := range []string{"", "1", "1-2-3", "1-2-3-4-5", "a-2-3-4", "1--2-3-4", "1-2-3-x"} {
		if got := parseCursor(s); got != (cursor{}) {
			t.Errorf("%q is %+v", s, got)
		}
	}
}
