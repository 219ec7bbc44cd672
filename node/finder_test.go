package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/store"
	"dray/transport"
)

// guide is a Finder that says what a test wants, and notes what it is told.
type guide struct {
	find func(ctx context.Context, c cid.Cid, found func(transport.Peer)) error

	mu      sync.Mutex
	reached map[dray.PeerID]error
	held    map[dray.PeerID]bool
}

func (g *guide) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	return g.find(ctx, c, found)
}

func (g *guide) Reached(p dray.PeerID, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reached == nil {
		g.reached = make(map[dray.PeerID]error)
	}
	g.reached[p] = err
}

func (g *guide) Held(_ cid.Cid, p dray.PeerID, has bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(map[dray.PeerID]bool)
	}
	g.held[p] = has
}

// seekers are three nodes: one that asks its guide, one that has a block, and one that has nothing.
func seekers(t *testing.T, g *guide) (asks, has, lacks *Node, b dray.Block) {
	net := transport.NewMemory(transport.MemoryConfig{})
	start := func(f transport.Finder) *Node {
		n, err := New(Config{Store: store.NewMem(0), Network: net.NewHost(), Finder: f})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	asks, has, lacks = start(g), start(nil), start(nil)
	b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, 0x12), []byte("sought"))
	if err == nil {
		err = has.Put(t.Context(), b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return asks, has, lacks, b
}

func at(n *Node) transport.Peer { return transport.Peer{ID: n.Self(), Addrs: n.Addrs()} }

// TestFinderFinds: a get that nobody is named for asks the Finder at once, dials whom it finds, gets from who has it, and says
// who had it and who could not be reached.
func TestFinderFinds(t *testing.T) {
	g := &guide{}
	asks, has, lacks, b := seekers(t, g)
	gone := at(lacks)
	gone.ID += "x"
	g.find = func(_ context.Context, c cid.Cid, found func(transport.Peer)) error {
		if c != b.CID() {
			t.Errorf("asked for %v", c)
		}
		found(gone)
		found(at(lacks))
		found(at(has))
		return nil
	}
	began := time.Now()
	p, err := asks.Fetch(t.Context(), FetchConfig{Root: b.CID()})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(p.Sources) != 1 || p.Sources[0].Peer != has.Self() {
		t.Errorf("it came from %+v", p.Sources)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err, told := g.reached[has.Self()]; !told || err != nil {
		t.Errorf("of who has it, %v, %v", told, err)
	}
	if !g.held[has.Self()] || g.held[lacks.Self()] {
		t.Errorf("who has it: %v", g.held)
	}
}

// TestFinderIsWaitedFor: a get is not given up while the Finder looks, and is once it has found nobody.
func TestFinderIsWaitedFor(t *testing.T) {
	g := &guide{}
	asks, _, _, b := seekers(t, g)
	looked := 4 * time.Second // longer than a get without a Finder waits
	began := time.Now()
	g.find = func(ctx context.Context, _ cid.Cid, _ func(transport.Peer)) error {
		select {
		case <-time.After(max(looked-time.Since(began), 0)):
		case <-ctx.Done():
		}
		return nil
	}
	_, err := asks.Fetch(t.Context(), FetchConfig{Root: b.CID()})
	if !errors.Is(err, dray.ErrNotFound) || time.Since(began) < looked {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// TestFinderEndsWithItsSession: who gives up a get does not leave the Finder looking.
func TestFinderEndsWithItsSession(t *testing.T) {
	g := &guide{}
	asks, _, _, b := seekers(t, g)
	looks, ended := make(chan struct{}, 8), make(chan struct{}, 8)
	g.find = func(ctx context.Context, _ cid.Cid, _ func(transport.Peer)) error {
		looks <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { asks.Fetch(ctx, FetchConfig{Root: b.CID()}) })
	<-looks
	cancel()
	wg.Wait()
	<-ended
}

// TestNobodyLeftToAsk: a session says when nobody is left to ask: who is connected has answered, and the Finder too. Whoever waits all the
// same gets the block when somebody has it.
func TestNobodyLeftToAsk(t *testing.T) {
	g := &guide{}
	asks, has, lacks, b := seekers(t, g)
	ends, found := make(chan struct{}), false
	var mu sync.Mutex
	g.find = func(ctx context.Context, _ cid.Cid, tell func(transport.Peer)) error {
		select {
		case <-ends:
		case <-ctx.Done():
		}
		mu.Lock()
		defer mu.Unlock()
		if found {
			tell(at(has))
		}
		return nil
	}
	if err := asks.Connect(t.Context(), at(lacks)); err != nil {
		t.Fatal(err)
	}
	s := asks.NewSession(SessionConfig{Root: b.CID()})
	defer s.Close()
	got := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, err := s.Get(t.Context(), b.CID())
		got <- err
	})
	await := func(what string, ok func() bool) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range 500 {
			if ok() {
				return
			}
			<-tick.C
		}
		t.Fatalf("never: %s; it waits for %v", what, s.Waits())
	}
	await("the peer says that it lacks it", func() bool {
		list := s.Peers()
		return len(list) == 1 && list[0].Lacks
	})
	for range 5 { // also when the engine asks for a search
		if hopeless, sure := Hopeless(s.Waits()); hopeless || sure {
			t.Fatalf("while the Finder looks it waits for %v", s.Waits())
		}
		<-time.After(300 * time.Millisecond)
	}
	close(ends)
	await("it is sure", func() bool {
		_, sure := Hopeless(s.Waits())
		return sure
	})
	mu.Lock()
	found = true
	mu.Unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}
