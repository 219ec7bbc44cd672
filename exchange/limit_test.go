package exchange

import (
	"math"
	"testing"
	"time"

	"dray"
	"dray/wire"
)

// limited is an engine whose driver takes no time and whose peers want without end: blocks, or walks. It counts what is
// begun.
type limited struct {
	t     *testing.T
	e     *Engine
	now   time.Duration
	gave  map[dray.PeerID]int64
	size  map[dray.PeerID]int64 // of the blocks that a peer wants; 0 for one that walks
	walks map[dray.PeerID]uint32
	next  int
	turns int
}

func newLimited(t *testing.T, l Limits) *limited {
	return &limited{
		t: t, e: New(Config{Limits: l}), now: time.Millisecond, gave: map[dray.PeerID]int64{}, size: map[dray.PeerID]int64{},
		walks: map[dray.PeerID]uint32{},
	}
}

// add connects a peer that wants blocks of a size or, if it is 0, answers to walks.
func (x *limited) add(id dray.PeerID, size int64) {
	x.size[id] = size
	x.e.PeerUp(x.now, id, Caps{Haves: true, Indexes: true})
	x.e.Receive(x.now, id, &wire.Message{Seq: 1, Full: true, Credit: 1 << 50}, nil)
	for range 20 {
		x.want(id)
	}
}

func (x *limited) want(id dray.PeerID) {
	if x.size[id] > 0 {
		x.next++
		c := testBlock(x.t, x.next, 8).CID()
		x.e.Receive(x.now, id, &wire.Message{Wants: []wire.Entry{{CID: c, SendDontHave: true}}}, nil)
	} else if len(x.e.peers[id].answers) < 2 {
		x.walks[id]++
		x.e.Receive(x.now, id, &wire.Message{Walks: []wire.Walk{{
			ID: x.walks[id], Root: testBlock(x.t, 1, 8).CID(), Bytes: 1 << 20,
		}}, Seq: x.e.peers[id].seqIn + 1}, nil)
	}
}

// run lets time pass as a driver does.
func (x *limited) run(d time.Duration) {
	x.t.Helper()
	for end := x.now + d; ; {
		r := x.e.Ready()
		if x.turns++; x.turns > 1e6 {
			x.t.Fatal("the engine does not come to rest")
		}
		if x.turns%100 == 0 {
			if err := x.e.Check(); err != nil {
				x.t.Fatal(err)
			}
		}
		if r.Empty() {
			if r.Wake == 0 || r.Wake > end {
				x.now = end
				x.e.Advance(end)
				return
			}
			if r.Wake <= x.now {
				x.t.Fatalf("at %v the engine is to be woken at %v", x.now, r.Wake)
			}
			x.now = r.Wake
			x.e.Advance(x.now)
			continue
		}
		loads := append([]Load(nil), r.Loads...)
		walks := append([]WalkLoad(nil), r.Walks...)
		blocks := append([]BlockSend(nil), r.Blocks...)
		for _, s := range r.Sends {
			for _, b := range s.Message.Blocks {
				x.gave[s.Peer] += int64(len(b.Data))
			}
			done := len(s.Message.Walked) > 0
			x.e.Sent(x.now, s.Peer)
			if done {
				x.want(s.Peer)
			}
		}
		for _, l := range loads {
			x.e.Loaded(x.now, l, x.size[l.Peer], nil, nil)
		}
		for _, w := range walks {
			x.e.WalkLoaded(x.now, w.Peer, w.Walk.ID, WalkPart{
				Blocks: []wire.Block{{Data: make([]byte, 1<<20)}}, Last: true, Status: wire.WalkWhole,
			})
		}
		for _, b := range blocks {
			x.gave[b.Peer] += x.size[b.Peer]
			x.e.BlockSent(x.now, b.Peer, b.CID)
			x.want(b.Peer)
		}
	}
}

// TestLimitWalks: answers to walks keep to the limits too, and a peer that walks without end gets as much as one that
// wants blocks, not more.
func TestLimitWalks(t *testing.T) {
	for _, l := range []Limits{{Up: 8e6}, {PeerUp: 8e6}, {Up: 8e6, PeerUp: 5e6}} {
		x := newLimited(t, l)
		x.add("walker", 0)
		x.add("other", 64<<10)
		x.add("third", 256<<10)
		x.run(2 * time.Second)
		clear(x.gave)
		x.run(30 * time.Second)
		want := 8e6 * 30 / 3.0
		if l.Up == 0 {
			want = 8e6 * 30
		}
		for id, n := range x.gave {
			if off := math.Abs(float64(n)/want - 1); off > 0.1 {
				t.Errorf("%+v: %s got %.3f of its share", l, string(id), float64(n)/want)
			}
		}
	}
	x := newLimited(t, Limits{Up: 8e6})
	x.add("walker", 0)
	x.run(20 * time.Second)
	if r := float64(x.gave["walker"]) / (8e6 * 20); r < 0.95 || r > 1.05 {
		t.Errorf("a walker alone gets %.3f of the limit", r)
	}
}

// TestLimitWakes counts how often an engine that only waits for its bucket is woken: about once for each block, and
// never more than a thousand times a second.
func TestLimitWakes(t *testing.T) {
	for _, l := range []Limits{{Up: 4e6}, {PeerUp: 4e6}, {Up: 1e9}} {
		x := newLimited(t, l)
		x.add("a", 64<<10)
		x.run(300 * time.Millisecond)
		x.turns = 0
		x.run(time.Second)
		perBlock := 4 // Ready after the wake-up, the load, the block and the next want
		most := perBlock * (int(max(l.Up, l.PeerUp))/(64<<10) + 1000)
		if l.Up < 1e8 {
			most = perBlock*4e6/(64<<10) + 10
		}
		if x.turns > most {
			t.Errorf("%+v: %d turns in a second, want no more than %d", l, x.turns, most)
		}
	}
}

// TestLimitTurns: at the lowest limits too every peer has its turn, and block sizes do not matter.
func TestLimitTurns(t *testing.T) {
	x := newLimited(t, Limits{Up: 200e3})
	x.add("a", 4<<10)
	x.add("b", 64<<10)
	x.add("c", 16<<10)
	x.run(time.Second)
	for range 4 {
		clear(x.gave)
		x.run(10 * time.Second)
		for _, id := range []dray.PeerID{"a", "b", "c"} {
			if r := float64(x.gave[id]) / (200e3 * 10 / 3); r < 0.9 || r > 1.1 {
				t.Errorf("%s got %.3f of its share of ten seconds", string(id), r)
			}
		}
	}
}

// TestLimitBlamesNobody: a peer that is asked little because of the limit, and answers each, is never late or slow.
func TestLimitBlamesNobody(t *testing.T) {
	r := newRig(t, 1, Config{Limits: Limits{Down: 10e3}})
	var wanted []dray.Block
	for i := range 40 {
		b := testBlock(t, i, 20000)
		wanted = append(wanted, b)
		r.e.Want(r.now, r.s, b.CID(), WantOptions{Order: uint64(i), Size: 20000})
	}
	got := 0
	asked := []dray.Block{}
	limited := 0
	for got < len(wanted) && r.now < 5*time.Minute {
		out := r.ready()
		for _, s := range out.Sends {
			for _, en := range s.Message.Wants {
				for _, b := range wanted {
					if b.CID() == en.CID && !en.Cancel {
						asked = append(asked, b)
					}
				}
			}
		}
		if r.e.Limited(r.ids[0]) {
			limited++
		}
		if len(asked) == 0 {
			if out.Wake == 0 {
				t.Fatal("nothing is asked for, and nobody is woken")
			}
			r.now = max(out.Wake, r.now)
			r.e.Advance(r.now)
			continue
		}
		r.now += 30 * time.Millisecond
		r.e.Advance(r.now)
		r.deliver(asked[0], 0)
		asked = asked[1:]
		got++
	}
	if s := r.e.Totals(); s.Stalls > 0 || r.e.peers[r.ids[0]].health.State() == HealthSlow {
		t.Errorf("%d stalls; the peer is %v", s.Stalls, r.e.peers[r.ids[0]].health.State())
	}
	if got != len(wanted) || limited == 0 {
		t.Errorf("%d of %d arrived by %v; limited %d times", got, len(wanted), r.now, limited)
	}
	if want := 78 * time.Second; r.now < want || r.now > want*11/10 {
		t.Errorf("800 kB at 10 kB/s took %v", r.now)
	}
}

// TestLimitPaysBack: what was asked for and does not come costs nothing in the end.
func TestLimitPaysBack(t *testing.T) {
	r := newRig(t, 2, Config{Limits: Limits{Down: 100e3, PeerDown: 100e3}})
	b := testBlock(t, 1, 10000)
	r.e.Want(r.now, r.s, b.CID(), WantOptions{Size: 10000})
	r.now += 100 * time.Millisecond
	r.e.Advance(r.now)
	r.ready()
	level := func() float64 { r.e.shape.down.open(r.now); return r.e.shape.down.level }
	before := level()
	p := r.e.peers[r.ids[0]]
	if p.inflight == 0 {
		p = r.e.peers[r.ids[1]]
	}
	if p.inflight != 10000 || p.shape.down.level > 1 {
		t.Fatalf("%d bytes are asked for, the peer's bucket holds %v", p.inflight, p.shape.down.level)
	}
	r.e.PeerDown(r.now, p.id)
	if got := level() - before; math.Abs(got-10040) > 1 {
		t.Errorf("%v bytes are paid back", got)
	}
	// The other is asked, and what it sends is larger than was thought.
	r.now += 100 * time.Millisecond
	r.e.Advance(r.now)
	r.ready()
	r.e.Advance(r.now)
	before = level()
	if refused := r.e.Receive(r.now, r.ids[0], nil, nil); len(refused) > 0 {
		t.Fatal(refused)
	}
	big := testBlock(t, 2, 50000)
	other := r.e.peers[r.ids[0]]
	if other == p {
		other = r.e.peers[r.ids[1]]
	}
	r.e.Receive(r.now, other.id, nil, []dray.Block{big}) // nobody asked for it
	if got := before - level(); math.Abs(got-50040) > 1 {
		t.Errorf("a block that nobody asked for costs %v", got)
	}
	r.e.Receive(r.now, other.id, nil, []dray.Block{b})
	if got := before - level(); math.Abs(got-50040) > 1 {
		t.Errorf("a block that was paid for costs %v", got-50040)
	}
}
