package exchange

import (
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// crowd is one engine that fetches a root of n leaves, rarest first, from peers who speak TensorSwap.
type crowd struct {
	t      testing.TB
	e      *Engine
	now    time.Duration
	man    *dray.Manifest
	blocks []dray.Block
	s      SessionID
	feed   map[dray.PeerID]uint32
	asked  map[dray.PeerID][]int // leaves asked of each peer and not cancelled, in order
	told   map[dray.PeerID][]int // leaves that each peer was told of with the latest message
}

func newCrowd(t testing.TB, n int, cfg Config, ids ...dray.PeerID) *crowd {
	c := &crowd{
		t: t, e: New(cfg), now: time.Millisecond,
		feed: map[dray.PeerID]uint32{}, asked: map[dray.PeerID][]int{}, told: map[dray.PeerID][]int{},
	}
	root := testBlock(t, 1<<20, 16).CID()
	c.man = dray.NewManifest(root, n)
	for i := range n {
		c.blocks = append(c.blocks, testBlock(t, i, 16))
		c.man.Append(c.blocks[i].CID(), 1<<20) // what the engine is told; the bytes do not matter
	}
	c.man.Index()
	for _, id := range ids {
		c.e.PeerUp(c.now, id, Caps{Haves: true, Indexes: true})
	}
	c.s = c.e.OpenSession(c.now, SessionConfig{Order: Rarest, Root: root})
	c.e.SetManifest(c.now, c.s, c.man)
	c.e.Demand(c.now, c.s, 0, n)
	c.turn()
	return c
}

// turn carries out what the engine says and files whom it asks for what.
func (c *crowd) turn() {
	c.t.Helper()
	r := c.e.Ready()
	for _, sd := range r.Sends {
		m := sd.Message
		for _, f := range m.Follows {
			c.feed[sd.Peer] = f.Feed
		}
		for i := range m.Wants {
			leaf, _ := c.man.Find(m.Wants[i].CID)
			if k := slices.Index(c.asked[sd.Peer], leaf); m.Wants[i].Cancel {
				if k < 0 {
					c.t.Fatalf("%s is told that leaf %d is not wanted, and was not asked for it", string(sd.Peer), leaf)
				}
				c.asked[sd.Peer] = slices.Delete(c.asked[sd.Peer], k, k+1)
			} else if k < 0 {
				c.asked[sd.Peer] = append(c.asked[sd.Peer], leaf)
			}
		}
		c.told[sd.Peer] = nil
		for _, h := range m.Haves {
			for first, count := range h.Bits.Ones() {
				for i := range count {
					c.told[sd.Peer] = append(c.told[sd.Peer], int(first+i))
				}
			}
		}
		c.e.Sent(c.now, sd.Peer)
	}
	if err := c.e.Check(); err != nil {
		c.t.Fatal(err)
	}
}

// has makes a peer say that it has (or, with lost, has no longer) count leaves from first on.
func (c *crowd) has(id dray.PeerID, first, count int, lost bool) {
	c.t.Helper()
	var b wire.BitsWriter
	if count > 0 {
		b.Add(uint32(first), uint32(count))
	}
	h := wire.Have{Feed: c.feed[id], Leaves: uint32(c.man.Len()), Bits: b.Bits(), Lost: lost}
	c.e.Receive(c.now, id, &wire.Message{Haves: []wire.Have{h}}, nil)
	c.turn()
}

// sends makes a peer deliver a leaf.
func (c *crowd) sends(id dray.PeerID, leaf int) {
	c.t.Helper()
	if refused := c.e.Receive(c.now, id, nil, []dray.Block{c.blocks[leaf]}); len(refused) > 0 {
		c.t.Fatalf("leaf %d of %s is refused", leaf, string(id))
	}
	if k := slices.Index(c.asked[id], leaf); k >= 0 {
		c.asked[id] = slices.Delete(c.asked[id], k, k+1)
	}
	c.turn()
	c.e.Stored(c.now, c.blocks[leaf], nil)
	c.turn()
}

// TestHolderIsAskedForMore: who has everything is asked for 16 leaves, whatever its window, so that it can send one that
// nobody has; but not for what another has, as long as there is other work.
func TestHolderIsAskedForMore(t *testing.T) {
	c := newCrowd(t, 64, Config{Window: 1 << 20}, "seed", "near")
	c.has("near", 0, 40, false)
	c.has("seed", 0, 64, false)
	if n := len(c.asked["near"]); n != 1 {
		t.Errorf("a peer that has some leaves is asked for %d beyond a window of one", n)
	}
	if n := len(c.asked["seed"]); n != spareAsks {
		t.Errorf("the holder of everything is asked for %d leaves, want %d", n, spareAsks)
	}
	for _, leaf := range c.asked["seed"] {
		if leaf < 40 {
			t.Errorf("the holder of everything is asked for leaf %d, which another has", leaf)
		}
	}
}

// TestLeafGoesToWhoHasJustGotIt: a leaf asked of the holder of everything is taken back as soon as another has it: asked of
// that one, or, while it has no room, of nobody.
func TestLeafGoesToWhoHasJustGotIt(t *testing.T) {
	c := newCrowd(t, 64, Config{Window: 1 << 20}, "seed", "near")
	c.has("near", 0, 0, false)
	c.has("seed", 0, 64, false)
	x, y := c.asked["seed"][3], c.asked["seed"][7]

	c.has("near", x, 1, false)
	if got := c.asked["near"]; !slices.Equal(got, []int{x}) {
		t.Fatalf("the peer that has just got leaf %d is asked for %v", x, got)
	}
	c.has("near", y, 1, false)
	if got := c.asked["near"]; !slices.Equal(got, []int{x}) {
		t.Fatalf("the peer whose window is full is asked for %v", got)
	}
	for _, leaf := range []int{x, y} {
		if slices.Contains(c.asked["seed"], leaf) {
			t.Errorf("the holder of everything is still asked for leaf %d", leaf)
		}
	}
	if n := len(c.asked["seed"]); n != spareAsks {
		t.Errorf("the holder of everything is asked for %d leaves, want %d others", n, spareAsks)
	}
	c.sends("near", x)
	if got := c.asked["near"]; !slices.Equal(got, []int{y}) {
		t.Errorf("the peer that has room again is asked for %v, want %d", got, y)
	}
	// What the holder had sent already is taken, though it was taken back.
	before := c.e.Totals()
	z := c.asked["seed"][0]
	c.has("near", z, 1, false)
	c.sends("seed", z)
	if after := c.e.Totals(); after.Blocks != before.Blocks+1 || after.Uninvited+after.Duplicates != 0 {
		t.Errorf("a leaf that crossed its cancel: %+v", after)
	}
}

// TestNobodyIsToldWhatHeHas: a peer is not told that a leaf is here which it has itself, until it has it no longer.
func TestNobodyIsToldWhatHeHas(t *testing.T) {
	c := newCrowd(t, 8, Config{}, "near")
	c.has("near", 3, 1, false)
	follow := wire.Follow{Feed: 1, Root: c.man.Root()}
	c.e.Receive(c.now, "near", &wire.Message{Follows: []wire.Follow{follow}}, nil)
	c.turn()
	c.e.Added(c.now, c.man.Leaf(3), 16)
	c.e.Added(c.now, c.man.Leaf(4), 16)
	c.turn()
	if got := c.told["near"]; !slices.Equal(got, []int{4}) {
		t.Errorf("the peer that has leaf 3 is told of %v, want 4 only", got)
	}
	c.has("near", 3, 1, true)
	if got := c.told["near"]; !slices.Equal(got, []int{3}) {
		t.Errorf("the peer that has lost leaf 3 is told of %v", got)
	}
}

// TestSlowPeerHoldsLittle: of a peer that takes a block in 84 ms, no more than one is on the way once that is known, so that
// the bound on all peers is left to the others.
func TestSlowPeerHoldsLittle(t *testing.T) {
	b := newBuffet(t, Config{}, 1<<20, 1<<20)
	b.want(0, 100)
	if n := len(b.queue); n != 4 {
		t.Fatalf("%d blocks are on the way to a peer of whom nothing is known, want 4 MiB", n)
	}
	most := 0
	for i := range 12 {
		s := b.queue[0]
		b.queue = b.queue[1:]
		b.now += 84 * time.Millisecond
		b.e.BlockSent(b.now, s.Peer, s.CID)
		b.turn()
		if i >= 4 {
			most = max(most, len(b.queue))
		}
	}
	if most != 1 {
		t.Errorf("%d blocks are on the way to a peer of 12 MB/s, want 1", most)
	}
}

// TestPastStuckGoesRound: while a peer that reads nothing holds the whole bound, the others are served in turn.
func TestPastStuckGoesRound(t *testing.T) {
	b := newBuffet(t, Config{ServeBytes: 2 << 20, PeerServeBytes: 2 << 20}, slices.Repeat([]int{1 << 20}, 8)...)
	b.want(0, 10)
	for i := 1; i < 8; i++ {
		b.want(i, 20)
	}
	b.now += 2 * stuckAfter
	b.e.Advance(b.now)
	b.turn()
	sent := make(map[cid.Cid]bool)
	for range 35 {
		k := slices.IndexFunc(b.queue, func(s BlockSend) bool { return s.Peer != b.ids[0] })
		if k < 0 {
			t.Fatalf("after %d blocks nobody is served any more", len(sent))
		}
		s := b.queue[k]
		b.queue = slices.Delete(b.queue, k, k+1)
		b.got[b.peer(s.Peer)]++
		sent[s.CID] = true
		b.e.BlockSent(b.now, s.Peer, s.CID)
		b.turn()
	}
	for i, n := range b.got[1:] {
		if n < 4 || n > 6 {
			t.Errorf("peer %d got %d of 35 blocks, want 5 of them", i+1, n)
		}
	}
}

// BenchmarkLeaf is one leaf of a swarm through Receive, Ready, Stored and Ready, and the next ask: 24 peers who have all but
// one leaf of many, rarest first.
func BenchmarkLeaf(b *testing.B) {
	const peers, leaves = 24, 1 << 15
	var c *crowd
	var ids []dray.PeerID
	begin := func() {
		ids = ids[:0]
		for i := range peers {
			ids = append(ids, dray.PeerID(string(rune('a'+i))))
		}
		c = newCrowd(b, leaves, Config{Window: 4 << 20}, ids...)
		for _, id := range ids {
			c.has(id, 0, leaves-1, false)
		}
	}
	begin()
	queue := make(map[dray.PeerID][]int)
	refill := func() {
		for _, id := range ids {
			queue[id] = append(queue[id][:0], c.asked[id]...)
		}
	}
	refill()
	drain := func(r *Ready) {
		for _, sd := range r.Sends {
			for i := range sd.Message.Wants {
				if en := &sd.Message.Wants[i]; !en.Cancel {
					leaf, _ := c.man.Find(en.CID)
					queue[sd.Peer] = append(queue[sd.Peer], leaf)
				}
			}
			c.e.Sent(c.now, sd.Peer)
		}
	}
	one := make([]dray.Block, 1)
	left := leaves - 1
	b.ReportAllocs()
	b.ResetTimer()
	for n := range b.N {
		id := ids[n%peers]
		if left < peers*8 {
			b.StopTimer()
			begin()
			refill()
			left = leaves - 1
			b.StartTimer()
		}
		q := queue[id]
		one[0] = c.blocks[q[0]]
		queue[id] = q[:copy(q, q[1:])]
		c.now += 10 * time.Microsecond
		c.e.Receive(c.now, id, nil, one)
		drain(c.e.Ready())
		c.e.Stored(c.now, one[0], nil)
		drain(c.e.Ready())
		left--
	}
}

// TestNamedPeerTellsFirst: a peer that was named as a source is not asked for leaves before it has told what it has, for a
// second at most, since it may have little.
func TestNamedPeerTellsFirst(t *testing.T) {
	c := newCrowd(t, 64, Config{})
	for _, id := range []dray.PeerID{"seed", "near"} {
		c.e.AddPeer(c.now, c.s, id)
		c.e.PeerUp(c.now, id, Caps{Haves: true, Indexes: true})
	}
	c.turn()
	if n := len(c.asked["seed"]) + len(c.asked["near"]); n != 0 {
		t.Fatalf("%d leaves are asked of peers who have not told what they have", n)
	}
	c.has("near", 0, 4, false)
	if n := len(c.asked["near"]); n == 0 || n > 4 {
		t.Errorf("a peer that told of 4 leaves is asked for %d", n)
	}
	if n := len(c.asked["seed"]); n != 0 {
		t.Errorf("the other, which has told nothing yet, is asked for %d", n)
	}
	c.now += tellPatience
	c.e.Advance(c.now)
	c.turn()
	if len(c.asked["seed"]) == 0 {
		t.Error("a peer that does not tell is never asked")
	}
}

// paced makes a peer a measured one: so many bytes a second, at a round trip of a millisecond.
func (c *crowd) paced(id dray.PeerID, rate float64) {
	f := &c.e.peers[id].flow
	f.rate, f.rtt = rate, time.Millisecond
	f.setWindow()
	c.e.roomChanged(c.e.peers[id])
}

// TestHolderIsSpared: what others have is asked of them and not of who has everything, unless they are much slower.
func TestHolderIsSpared(t *testing.T) {
	for _, row := range []struct {
		name       string
		seed, near float64
		spared     bool
	}{
		{"as fast", 100e6, 100e6, true},
		{"somewhat slower", 100e6, 40e6, true},
		{"much slower", 100e6, 20e6, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCrowd(t, 8, Config{}, "seed", "near")
			c.paced("seed", row.seed)
			c.paced("near", row.near)
			c.e.Pause(c.now, c.s)
			c.turn()
			c.has("near", 0, 8, false)
			c.has("near", 7, 1, true) // so that it is not a holder of everything
			c.has("seed", 0, 8, false)
			c.e.Resume(c.now, c.s)
			c.turn()
			shared := 0
			for _, leaf := range c.asked["seed"] {
				if leaf < 7 {
					shared++
				}
			}
			if spared := shared == 0; spared != row.spared {
				t.Errorf("of what the other has, %d leaves are asked of the holder of everything: %v, and of the other %v",
					shared, c.asked["seed"], c.asked["near"])
			}
		})
	}
}

// TestLeafOnItsWayStays: a leaf that the holder of everything has probably sent already is not asked of another that has just
// got it: it would come twice.
func TestLeafOnItsWayStays(t *testing.T) {
	c := newCrowd(t, 64, Config{Window: 16 << 20}, "seed", "near")
	c.has("near", 0, 0, false)
	c.has("seed", 0, 64, false)
	c.paced("seed", 40e6) // 50 ms are 2 leaves, and 1 MiB is another
	first, last := c.asked["seed"][0], c.asked["seed"][len(c.asked["seed"])-1]
	c.has("near", first, 1, false)
	if !slices.Contains(c.asked["seed"], first) || slices.Contains(c.asked["near"], first) {
		t.Errorf("leaf %d is on its way, and is asked of the other: seed %v, near %v", first, c.asked["seed"], c.asked["near"])
	}
	c.has("near", last, 1, false)
	if slices.Contains(c.asked["seed"], last) || !slices.Contains(c.asked["near"], last) {
		t.Errorf("leaf %d, which comes last, is not asked of the other: seed %v, near %v", last, c.asked["seed"], c.asked["near"])
	}
}

// TestPromptHolderIsNotAskedForMore: who sends at once what it is asked for has nothing to choose from, and is asked for no
// more than its window.
func TestPromptHolderIsNotAskedForMore(t *testing.T) {
	for _, row := range []struct {
		rate float64
		most int
	}{{400e6, 2}, {20e6, spareAsks}} {
		c := newCrowd(t, 64, Config{Window: 2 << 20}, "seed")
		c.paced("seed", row.rate)
		c.has("seed", 0, 64, false)
		if n := len(c.asked["seed"]); n != row.most {
			t.Errorf("a holder of %v MB/s is asked for %d leaves, want %d", row.rate/1e6, n, row.most)
		}
	}
}

// TestOneAnswerRaisesTheRate: a peer that was once thought slow, and is asked for one block at a time since, shows by a single
// answer that it is faster.
func TestOneAnswerRaisesTheRate(t *testing.T) {
	f := flow{rate: 1e4, rtt: time.Millisecond}
	f.setWindow()
	f.begin(time.Second)
	f.delivered(time.Second+10*time.Millisecond, 1<<20, false)
	if f.rate < 50e6 {
		t.Errorf("a block of 1 MiB that took 10 ms makes the rate %.0f bytes a second", f.rate)
	}
	if f.window <= minWindow {
		t.Errorf("its window stays %d bytes", f.window)
	}
	before := f.rate
	f.begin(2 * time.Second)
	f.delivered(3*time.Second, 1<<20, false)
	if f.rate != before {
		t.Errorf("one slow answer, of which the wait is a part, makes the rate %.0f", f.rate)
	}
}

// TestHolderGone: leaves that the holder of everything was asked for when it left are asked of a peer that has told of them
// before: it need not tell again.
func TestHolderGone(t *testing.T) {
	c := newCrowd(t, 16, Config{Window: 16 << 20}, "seed", "near")
	c.has("near", 0, 0, false)
	c.has("seed", 0, 16, false)
	c.paced("seed", 100e6)
	c.has("near", 0, 15, false)
	if len(c.asked["seed"]) < 2 {
		t.Fatalf("the holder of everything is asked for %v when another has most of it", c.asked["seed"])
	}
	c.e.PeerDown(c.now, "seed")
	c.turn()
	if n := len(c.asked["near"]); n != 15 {
		t.Errorf("the peer that has 15 leaves is asked for %v", c.asked["near"])
	}
}

// TestHolderLosesOne: when the only holder of everything loses one leaf it is asked for all others as before.
func TestHolderLosesOne(t *testing.T) {
	c := newCrowd(t, 16, Config{Window: 4 << 20}, "seed", "gone")
	c.has("gone", 0, 16, false)
	c.has("seed", 0, 16, false)
	// What was asked of the one that goes waits for room at the other.
	c.e.PeerDown(c.now, "gone")
	c.turn()
	lost := 15
	for slices.Contains(c.asked["seed"], lost) {
		lost--
	}
	c.has("seed", lost, 1, true)
	for range 16 {
		if len(c.asked["seed"]) == 0 {
			break
		}
		// A leaf that was asked of both may be withdrawn as it comes.
		leaf := c.asked["seed"][0]
		c.e.Receive(c.now, "seed", nil, []dray.Block{c.blocks[leaf]})
		c.turn()
		if k := slices.Index(c.asked["seed"], leaf); k >= 0 {
			c.asked["seed"] = slices.Delete(c.asked["seed"], k, k+1)
		}
		c.e.Stored(c.now, c.blocks[leaf], nil)
		c.turn()
	}
	if left := c.e.Held().Wants; left != 1 {
		t.Errorf("%d leaves are missed, and the one that has all but one is asked for %v", left, c.asked["seed"])
	}
}
