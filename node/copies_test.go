package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/store"
	"dray/transport"
)

// gated is a store whose Sync waits until the test lets it go on. What it would find after a loss of power is durable.
type gated struct {
	dray.Store
	let chan error // one value for each Sync; closed: all go on

	mu      sync.Mutex
	written map[string]bool // by multihash
	durable map[string]bool
}

func newGated() *gated {
	return &gated{
		Store: store.NewMem(0), let: make(chan error),
		written: make(map[string]bool), durable: make(map[string]bool),
	}
}

func (g *gated) Put(ctx context.Context, blocks ...dray.Block) error {
	err := g.Store.Put(ctx, blocks...)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range blocks {
		g.written[string(b.CID().Hash())] = true
	}
	return err
}

func (g *gated) Sync(ctx context.Context) error {
	g.mu.Lock()
	var covered []string
	for h := range g.written {
		covered = append(covered, h)
	}
	g.mu.Unlock()
	select {
	case err := <-g.let:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range covered {
		g.durable[h] = true
	}
	return nil
}

// counted checks that no leaf counts as a copy that would not last, and returns how many count.
func (g *gated) counted(t *testing.T, seed *Node, root cid.Cid, leaves []cid.Cid) (n int) {
	t.Helper()
	copies := seed.Copies(root)
	for i, c := range leaves {
		if copies == nil || copies[i] == 0 {
			continue
		}
		n++
		g.mu.Lock()
		ok := g.durable[string(c.Hash())]
		g.mu.Unlock()
		if !ok || copies[i] > 1 {
			t.Errorf("leaf %d counts %d times, and would last: %v", i, copies[i], ok)
		}
	}
	return n
}

// leavesOf lists the leaves of a tinyTree by index.
func leavesOf(t *testing.T, n *Node, root cid.Cid) []cid.Cid {
	t.Helper()
	m, _ := n.derive(root)
	if m == nil {
		t.Fatal("no manifest")
	}
	var out []cid.Cid
	for i := range m.Len() {
		out = append(out, m.Leaf(i))
	}
	return out
}

// TestCopies: a copy counts when it was synced, not before, and all that was synced counts, also after a sync that failed. A
// peer that is gone counts no more.
func TestCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const leaves = 4000
		// 64 bytes each: the transfer takes some seconds.
		mem := transport.NewMemory(transport.MemoryConfig{Latency: oneWay, Bandwidth: 40_000})
		nets := []transport.Network{mem.NewHost(), mem.NewHost()}
		seed, err := New(Config{Store: store.NewMem(0), Network: nets[0]})
		if err != nil {
			t.Fatal(err)
		}
		g := newGated()
		getter, err := New(Config{Store: g, Network: nets[1]})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		root := tinyTree(t, ctx, seed, leaves)
		list := leavesOf(t, seed, root)
		seed.CountCopies(root)
		var wg sync.WaitGroup
		wg.Go(func() {
			p, err := getter.Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{peerOf(seed)}})
			if err != nil || p.Leaves != leaves {
				t.Errorf("%+v, %v", p, err)
			}
		})
		seen := make(map[int]bool)
		failure := errors.New("the disk does not answer") // the first time
		for range 60 {
			time.Sleep(400 * time.Millisecond)
			seen[g.counted(t, seed, root, list)] = true
			select {
			case g.let <- failure:
				failure = nil
			default: // nobody syncs
			}
		}
		close(g.let)
		wg.Wait()
		time.Sleep(10 * time.Second)
		if n := g.counted(t, seed, root, list); n != leaves {
			t.Errorf("%d leaves count in the end", n)
		}
		if len(seen) < 4 {
			t.Errorf("only %d different numbers of leaves counted on the way", len(seen))
		}
		getter.Close()
		nets[1].Close()
		time.Sleep(time.Second)
		for i, n := range seed.Copies(root) {
			if n != 0 {
				t.Fatalf("leaf %d counts %d times after the only peer has gone", i, n)
			}
		}
		seed.Close()
		nets[0].Close()
	})
}

// TestFileChangesUnderFollower: of two that serve a file, the near one loses part of it while others fetch. They learn of it,
// and get the rest from the far one. It waits in a synctest bubble.
func TestFileChangesUnderFollower(t *testing.T) {
	for _, told := range []bool{true, false} {
		bubble(t, transport.MemoryConfig{Latency: time.Millisecond, Bandwidth: 200_000}, 3, func(ctx context.Context, n []*Node) {
			near, far, getter := n[0], n[1], n[2]
			const leaves = 4000
			root := tinyTree(t, ctx, near, leaves)
			tinyTree(t, ctx, far, leaves)
			list := leavesOf(t, near, root)
			var wg sync.WaitGroup
			wg.Go(func() {
				p, err := getter.Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{peerOf(near), peerOf(far)}})
				if err != nil || p.Leaves != leaves {
					t.Errorf("%+v, %v", p, err)
				}
				got := make(map[dray.PeerID]int64)
				for _, s := range p.Sources {
					got[s.Peer] = s.Bytes
				}
				if got[far.Self()] < 64*leaves/4 {
					t.Errorf("%d bytes came from the near one and %d from the far one", got[near.Self()], got[far.Self()])
				}
			})
			time.Sleep(1300 * time.Millisecond)
			gone := list[leaves/4:]
			for _, c := range gone {
				if err := near.Store().Delete(ctx, c); err != nil {
					t.Error(err)
				}
			}
			if told {
				near.Removed(gone...)
				stale := leaves
				for range 20 { // what is on its way comes first
					time.Sleep(100 * time.Millisecond)
					stale = 0
					for i, c := range getter.Copies(root) {
						if i >= leaves/4 && c > 1 {
							stale++
						}
					}
					if stale == 0 {
						break
					}
				}
				if stale > 0 {
					t.Errorf("%d leaves are still said to be at two peers", stale)
				}
			}
			start := time.Now()
			wg.Wait()
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			for _, x := range n {
				if x != getter {
					wantRest(t, "a seed", x)
				}
			}
			wantRest(t, "the getter", getter)
		})
	}
}
