package node

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/exchange"
	"dray/store"
	"dray/transport"
	"dray/unixfs"
)

// TestTrickle: of two holders, one sends a kilobyte a second. That costs a few seconds, whichever of them is asked first for
// the skeleton, and not the hours that the one would take, nor the half minute after which a walk is given up.
func TestTrickle(t *testing.T) {
	const size = 24 << 20
	for _, row := range []struct {
		name  string
		order exchange.Order
		slow  int           // which of the two is slow
		begin time.Duration // how long it is not
	}{
		{"from the start, first named", exchange.Rarest, 0, 0},
		{"from the start, second named", exchange.Rarest, 1, 0},
		{"in the middle", exchange.Rarest, 0, 600 * time.Millisecond},
		{"in order, from the start", exchange.InOrder, 0, 0},
		{"in order, in the middle", exchange.InOrder, 1, 600 * time.Millisecond},
		{"while the skeleton comes, first named", exchange.Rarest, 0, 15 * time.Millisecond},
		{"while the skeleton comes, second named", exchange.Rarest, 1, 15 * time.Millisecond},
		{"in order, while the skeleton comes", exchange.InOrder, 0, 15 * time.Millisecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alone := trickled(t, size, row.order, -1, 0)
				took := trickled(t, size, row.order, row.slow, row.begin)
				t.Logf("%v, %v with the other as fast", took, alone)
				// The other alone takes twice as long; the rest is for what was asked of the slow one in vain.
				if took > 2*alone+8*time.Second {
					t.Errorf("it takes %v; with the other as fast it is %v", took, alone)
				}
			})
		})
	}
}

// trickled returns how long a fetch from two peers of 10 MB/s takes, in the time of a synctest bubble, when one of them falls to
// a kilobyte a second.
func trickled(t *testing.T, size int, order exchange.Order, slow int, begin time.Duration) time.Duration {
	ctx := context.Background()
	mem := transport.NewMemory(transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: 10e6})
	path, _ := randomFile(t, size)
	var nodes []*Node
	var nets []transport.Network
	for range 3 {
		net := mem.NewHost()
		n, err := New(Config{Store: store.NewMem(0), Network: net})
		if err != nil {
			t.Fatal(err)
		}
		nodes, nets = append(nodes, n), append(nets, net)
	}
	getter, holders := nodes[0], nodes[1:]
	cfg := FetchConfig{Order: order}
	profile := unixfs.Native()
	profile.ChunkSize = 8 << 10 // so that the skeleton is of some size
	for _, h := range holders {
		added, err := h.Add(ctx, path, AddConfig{Copy: true, Profile: profile})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Root, cfg.Peers = added.Root, append(cfg.Peers, peerOf(h))
	}
	var wg sync.WaitGroup
	if slow >= 0 {
		trickle := func() { mem.SetLink(holders[slow].Self(), getter.Self(), 5*time.Millisecond, 1000) }
		if begin == 0 {
			trickle()
		} else {
			wg.Go(func() {
				time.Sleep(begin)
				trickle()
			})
		}
	}
	start := time.Now()
	p, err := getter.Fetch(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	wg.Wait()
	if p.Done != int64(size) {
		t.Errorf("%d of %d bytes are there", p.Done, size)
	}
	for i, n := range nodes {
		n.Close()
		nets[i].Close()
	}
	return took
}
