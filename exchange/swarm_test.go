package exchange

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/wire"
)

// testBlock returns a small distinct block.
func testBlock(t testing.TB, i, size int) dray.Block {
	t.Helper()
	data := make([]byte, max(size, 8))
	for k := range 8 {
		data[k] = byte(i >> (8 * k))
	}
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// event is something that happens at a time in a test swarm.
type event struct {
	at  time.Duration
	seq int
	do  func()
}

// swarm runs several engines against each other with a fixed delay between them, checking every engine after every step.
type swarm struct {
	t      testing.TB
	now    time.Duration
	seq    int
	events []event
	hosts  []*host
	rand   *rand.Rand
	check  bool
}

// host is one engine with a store in memory.
type host struct {
	sw     *swarm
	id     dray.PeerID
	e      *Engine
	has    map[cid.Cid]dray.Block
	got    map[cid.Cid]int
	ends   []SessionEvent
	mute   bool // answers nothing
	lies   bool // sends wrong bytes
	up     map[dray.PeerID]*host
	delay  time.Duration
	drops  int
	wake   time.Duration
	served int
}

func newSwarm(t testing.TB, n int, seed uint64) *swarm {
	sw := &swarm{t: t, rand: rand.New(rand.NewPCG(seed, 1)), check: true}
	for i := range n {
		h := &host{
			sw: sw, id: dray.PeerID(fmt.Sprintf("p%d", i)), has: map[cid.Cid]dray.Block{}, got: map[cid.Cid]int{},
			up: map[dray.PeerID]*host{}, delay: time.Duration(1+sw.rand.IntN(20)) * time.Millisecond,
		}
		h.e = New(Config{Seed: seed + uint64(i)})
		sw.hosts = append(sw.hosts, h)
	}
	return sw
}

func (sw *swarm) after(d time.Duration, do func()) {
	sw.seq++
	sw.events = append(sw.events, event{sw.now + d, sw.seq, do})
}

// step runs the earliest event and reports whether there was one.
func (sw *swarm) step() bool {
	if len(sw.events) == 0 {
		return false
	}
	best := 0
	for i, ev := range sw.events {
		if ev.at < sw.events[best].at || ev.at == sw.events[best].at && ev.seq < sw.events[best].seq {
			best = i
		}
	}
	ev := sw.events[best]
	sw.events = append(sw.events[:best], sw.events[best+1:]...)
	sw.now = ev.at
	ev.do()
	return true
}

func (sw *swarm) connect(a, b *host) {
	if a == b || a.up[b.id] != nil {
		return
	}
	a.up[b.id], b.up[a.id] = b, a
	a.e.PeerUp(sw.now, b.id, Caps{Haves: true})
	b.e.PeerUp(sw.now, a.id, Caps{Haves: true})
	a.turn()
	b.turn()
}

func (sw *swarm) cut(a, b *host) {
	if a.up[b.id] == nil {
		return
	}
	delete(a.up, b.id)
	delete(b.up, a.id)
	a.e.PeerDown(sw.now, b.id)
	b.e.PeerDown(sw.now, a.id)
	a.turn()
	b.turn()
}

// turn carries out what the host's engine asks for.
func (h *host) turn() {
	sw := h.sw
	r := h.e.Ready()
	if h.sw.check {
		if err := h.e.Check(); err != nil {
			sw.t.Fatalf("%v at %v: %v", h.id, sw.now, err)
		}
	}
	for _, s := range r.Sends {
		m := *s.Message
		m.Wants = append([]wire.Entry(nil), m.Wants...)
		m.Presences = append([]wire.Presence(nil), m.Presences...)
		to := s.Peer
		link := h.up[to]
		sw.after(time.Microsecond, func() { h.e.Sent(sw.now, to); h.turn() })
		if link == nil || h.mute {
			continue
		}
		sw.after(h.delay+link.delay, func() {
			if h.up[to] == link {
				link.e.Receive(sw.now, h.id, &m, nil)
				link.turn()
			}
		})
	}
	for _, b := range r.Blocks {
		link, id, c := h.up[b.Peer], b.Peer, b.CID
		sw.after(time.Millisecond, func() { h.e.BlockSent(sw.now, id, c); h.turn() })
		if link == nil || h.mute {
			continue
		}
		blk := h.has[c]
		if h.lies {
			blk = testBlock(sw.t, sw.rand.IntN(1<<30)+1<<30, 9)
		}
		h.served++
		sw.after(h.delay+link.delay+time.Millisecond, func() {
			if h.up[id] == link {
				link.e.Receive(sw.now, h.id, nil, []dray.Block{blk})
				link.turn()
			}
		})
	}
	for _, l := range r.Loads {
		sw.after(10*time.Microsecond, func() {
			b, ok := h.has[l.CID]
			var err error
			if !ok {
				err = dray.ErrNotFound
			}
			h.e.Loaded(sw.now, l, int64(b.Size()), b.Data(), err)
			h.turn()
		})
	}
	for _, s := range r.Stores {
		b := s.Block
		sw.after(50*time.Microsecond, func() {
			h.has[b.CID()] = b
			h.e.Stored(sw.now, b, nil)
			h.turn()
		})
	}
	for _, d := range r.Delivers {
		h.got[d.CID]++
	}
	for _, d := range r.Drops {
		h.drops++
		if o := h.up[d.Peer]; o != nil {
			sw.after(0, func() { sw.cut(h, o) })
		}
	}
	h.ends = append(h.ends, r.Sessions...)
	if r.Wake != 0 && r.Wake != h.wake {
		h.wake = r.Wake
		at := r.Wake
		sw.after(max(at-sw.now, 0), func() {
			if h.wake == at {
				h.wake = 0
				h.e.Advance(sw.now)
				h.turn()
			}
		})
	}
}

func TestSwarmDelivers(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		sw := newSwarm(t, 6, seed)
		n := 40 + sw.rand.IntN(300)
		var blocks []dray.Block
		for i := range n {
			blocks = append(blocks, testBlock(t, i, 8+sw.rand.IntN(4096)))
		}
		honest := sw.hosts[0]
		for _, b := range blocks {
			honest.has[b.CID()] = b
			for _, h := range sw.hosts[1:3] {
				if sw.rand.IntN(2) == 0 {
					h.has[b.CID()] = b
				}
			}
		}
		sw.hosts[1].mute = sw.rand.IntN(2) == 0
		sw.hosts[2].lies = sw.rand.IntN(2) == 0
		for i, a := range sw.hosts {
			for _, b := range sw.hosts[:i] {
				sw.connect(a, b)
			}
		}
		getters := sw.hosts[3:]
		for _, g := range getters {
			cfg := SessionConfig{Order: Order(sw.rand.IntN(2))}
			if sw.rand.IntN(2) == 0 {
				cfg.Peers = []dray.PeerID{honest.id}
			}
			s := g.e.OpenSession(sw.now, cfg)
			for i, b := range blocks {
				g.e.Want(sw.now, s, b.CID(), WantOptions{Order: uint64(i)})
			}
			g.e.Seal(sw.now, s)
			g.turn()
			if sw.rand.IntN(2) == 0 {
				cut := sw.hosts[1+sw.rand.IntN(2)]
				sw.after(time.Duration(sw.rand.IntN(100))*time.Millisecond, func() { sw.cut(g, cut) })
			}
		}
		done := func() bool {
			for _, g := range getters {
				if len(g.ends) == 0 {
					return false
				}
			}
			return true
		}
		for sw.now < 5*time.Minute && !done() && sw.step() {
		}
		for _, g := range getters {
			if len(g.ends) != 1 || g.ends[0].State != SessionCompleted {
				t.Fatalf("seed %d: %v ended with %v at %v; has %d of %d", seed, g.id, g.ends, sw.now, len(g.got), n)
			}
			for _, b := range blocks {
				if g.got[b.CID()] != 1 {
					t.Fatalf("seed %d: %v got %v %d times", seed, g.id, b.CID(), g.got[b.CID()])
				}
			}
		}
		if seed < 8 {
			t.Logf("seed %d: %d blocks, done at %v, duplicates %v", seed, n, sw.now, getters[0].e.Totals())
		}
	}
}

// BenchmarkReceive is the cost of one block in the steady state: Receive, Ready, Stored, Ready and a new want, with
// 10,000 wants and 100 peers.
func BenchmarkReceive(b *testing.B) {
	const wants, peers = 10000, 100
	e := New(Config{Window: 16 << 20})
	now := time.Duration(1)
	ids := make([]dray.PeerID, peers)
	for i := range ids {
		ids[i] = dray.PeerID(fmt.Sprintf("peer%d", i))
		e.PeerUp(now, ids[i], Caps{Haves: true})
	}
	s := e.OpenSession(now, SessionConfig{Peers: ids})
	blocks := make([]dray.Block, 2*wants)
	asked := make([][]int, peers) // indices of blocks asked of each peer, oldest first
	index := make(map[cid.Cid]int)
	for i := range blocks {
		blocks[i] = testBlock(b, i, 16)
		index[blocks[i].CID()] = i
	}
	peerIndex := make(map[dray.PeerID]int)
	for i, id := range ids {
		peerIndex[id] = i
	}
	drain := func(r *Ready) {
		for _, sd := range r.Sends {
			k := peerIndex[sd.Peer]
			for i := range sd.Message.Wants {
				if w := &sd.Message.Wants[i]; !w.Cancel && w.Type == wire.WantBlock {
					asked[k] = append(asked[k], index[w.CID])
				}
			}
			e.Sent(now, sd.Peer)
		}
	}
	for i := range wants {
		e.Want(now, s, blocks[i].CID(), WantOptions{Size: 256 << 10, Order: uint64(i)})
	}
	drain(e.Ready())
	next, k, order := wants, 0, uint64(wants)
	one := make([]dray.Block, 1)
	step := func() {
		for len(asked[k]) == 0 {
			k = (k + 1) % peers
		}
		i := asked[k][0]
		asked[k] = asked[k][:copy(asked[k], asked[k][1:])]
		now += 10 * time.Microsecond
		one[0] = blocks[i]
		e.Receive(now, ids[k], nil, one)
		drain(e.Ready())
		e.Stored(now, blocks[i], nil)
		e.Want(now, s, blocks[next].CID(), WantOptions{Size: 256 << 10, Order: order})
		drain(e.Ready())
		next = (next + 1) % len(blocks)
		order++
		k = (k + 1) % peers
	}
	for range 2 * wants {
		step()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		step()
	}
}
