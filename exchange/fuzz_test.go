package exchange

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// fuzzed plays a driver and two peers by a string of bytes: whatever is said in whatever order, nothing panics, every
// invariant holds, and each answer comes to somebody who waits for it.
type fuzzed struct {
	t      *testing.T
	name   string // of the input, for failures
	e      *Engine
	in     []byte
	now    time.Duration
	blocks []dray.Block
	roots  []*dray.Manifest
	stores []dray.Block
	loads  []Load
	mans   []ManifestLoad
	walks  []WalkLoad
	sent   []BlockSend
	syncs  int
	open   map[SessionID]map[cid.Cid]waits // what each session waits for
	seq    map[dray.PeerID]uint64
}

// waits is how often a session wants a block, and whether it demands it as a leaf.
type waits struct {
	wants    int
	demanded bool
}

func (f *fuzzed) fatalf(format string, args ...any) {
	f.t.Helper()
	f.t.Fatalf(f.name+format, args...)
}

func (f *fuzzed) byte() int {
	if len(f.in) == 0 {
		return 0
	}
	b := f.in[0]
	f.in = f.in[1:]
	return int(b)
}

func (f *fuzzed) block() dray.Block { return f.blocks[f.byte()%len(f.blocks)] }

func (f *fuzzed) leaves() wire.Leaves {
	return wire.Leaves{Feed: uint32(f.byte() % 4), First: uint32(f.byte() % 10), Count: uint32(f.byte() % 4)}
}

func (f *fuzzed) bits() wire.Bits {
	var w wire.BitsWriter
	for b, i := f.byte(), uint32(0); b != 0; b, i = b>>1, i+1 {
		if b&1 != 0 {
			w.Add(i, 1)
		}
	}
	return w.Bits()
}

// message makes any message. Most have the number that is due.
func (f *fuzzed) message(from dray.PeerID) (*wire.Message, []dray.Block) {
	m := &wire.Message{}
	var blocks []dray.Block
	for n := f.byte()%4 + 1; n > 0; n-- {
		root := f.roots[f.byte()%len(f.roots)].Root()
		switch f.byte() % 12 {
		case 0, 1:
			blocks = append(blocks, f.block())
		case 2:
			m.Wants = append(m.Wants, wire.Entry{CID: f.block().CID(), Type: wire.WantType(f.byte() % 2), SendDontHave: true})
		case 3:
			m.Wants = append(m.Wants, wire.Entry{CID: f.block().CID(), Cancel: true})
		case 4:
			m.Wants = append(m.Wants, wire.Entry{Leaves: f.leaves(), Cancel: f.byte()%2 == 0})
		case 5:
			m.Presences = append(m.Presences, wire.Presence{CID: f.block().CID(), Have: f.byte()%2 == 0})
		case 6:
			m.Presences = append(m.Presences, wire.Presence{Leaves: f.leaves(), Have: f.byte()%2 == 0})
		case 7:
			b := f.byte()
			m.Follows = append(m.Follows, wire.Follow{
				Feed: uint32(b % 5), Root: root, Stop: b&64 != 0, Durable: b&128 != 0, First: uint32(f.byte() % 9),
				Count: uint32(f.byte() % 9),
			})
		case 8, 9:
			m.Haves = append(m.Haves, wire.Have{
				Feed: uint32(f.byte() % 4), Leaves: uint32(8 - f.byte()/250), Lost: f.byte()%3 == 0, Bits: f.bits(),
			})
		case 10:
			m.Walks = append(m.Walks, wire.Walk{
				ID: uint32(f.byte() % 20), Root: root, Bytes: uint64(f.byte()) * 10, Push: uint64(f.byte()) * 10,
				Stop: f.byte()%4 == 0, Spread: f.byte()%2 == 0,
			})
		case 11:
			m.Walked = append(m.Walked, wire.Walked{
				ID: uint32(f.byte() % 4), Status: wire.WalkStatus(f.byte() % 4), Leaves: 8, Pushed: f.bits(),
			})
		}
	}
	b := f.byte()
	m.Credit = uint64(f.byte()) * 20
	m.Info = wire.Info{Set: b&1 != 0, Uploading: b&6 != 0, Downloading: b&8 != 0}
	if b < 250 {
		f.seq[from]++
		m.Seq = f.seq[from]
		m.Full = m.Seq == 1
	}
	return m, blocks
}

func (f *fuzzed) step() {
	e, peer := f.e, dray.PeerID([]string{"A", "B"}[f.byte()%2])
	id := SessionID(f.byte()%3 + 1)
	f.now += time.Millisecond // which ends a ban
	e.Advance(f.now)
	if p := e.peers[peer]; !p.up && f.byte()%4 != 0 {
		f.seq[peer] = 0
		e.PeerUp(f.now, peer, Caps{Haves: true, Indexes: f.byte()%8 != 0})
	}
	switch op := f.byte() % 25; op {
	case 0:
		f.seq[peer] = 0
		e.PeerUp(f.now, peer, Caps{Haves: true, Indexes: f.byte()%4 != 0})
	case 1:
		if f.byte()%2 == 0 {
			e.PeerDown(f.now, peer)
		} else {
			e.Goodbye(f.now, peer)
		}
	case 2:
		if len(f.open) < 3 {
			f.openSession()
		}
	case 3:
		e.SetManifest(f.now, id, f.roots[int(id)%2])
	case 4, 5:
		if s := e.sessions[id]; s != nil && s.man != nil {
			i := f.byte() % 8
			x := f.open[id][s.man.m.Leaf(i)]
			x.demanded = true
			f.open[id][s.man.m.Leaf(i)] = x
			e.Demand(f.now, id, i, 1)
		}
	case 6:
		if s := e.sessions[id]; s != nil && s.man != nil {
			i := f.byte() % 8
			if x := f.open[id][s.man.m.Leaf(i)]; x.wants == 0 {
				delete(f.open[id], s.man.m.Leaf(i))
			} else {
				f.open[id][s.man.m.Leaf(i)] = waits{wants: x.wants}
			}
			e.Undemand(f.now, id, i, 1)
		}
	case 7:
		if e.sessions[id] != nil {
			f.want(id)
		}
	case 8:
		e.CancelSession(f.now, id)
	case 9:
		if f.byte()%2 == 0 {
			e.Pause(f.now, id)
		} else {
			e.Resume(f.now, id)
		}
	case 10:
		c := f.block().CID()
		if w := e.wants[c]; w == nil || w.state != Receiving {
			e.Added(f.now, c, 100)
		}
	case 11:
		e.Removed(f.now, f.block().CID())
	case 12:
		f.now += time.Duration(f.byte()) * 50 * time.Millisecond
		e.Advance(f.now)
	case 13:
		e.CountCopies(f.roots[f.byte()%2].Root())
	case 14:
		e.Restart(f.now, peer, Caps{Haves: true, Indexes: f.byte()%2 == 0})
	case 15:
		e.Seal(f.now, id)
	case 16:
		f.network(peer)
	case 24:
		e.SetLimits(f.now, Limits{
			Up: 500 * int64(f.byte()%8), Down: 500 * int64(f.byte()%8), PeerUp: 500 * int64(f.byte()%4), PeerDown: 500 * int64(f.byte()%4),
		})
		e.SetService(f.now, peer, Service(f.byte()%4))
	default:
		m, blocks := f.message(peer)
		e.Receive(f.now, peer, m, blocks)
	}
	b := f.byte()
	if b%3 != 0 {
		f.answer()
	}
	if b < 200 { // else more comes before the engine is asked what to do
		f.turn()
	}
}

// want wants a block, or withdraws a want, in a session that exists.
func (f *fuzzed) want(id SessionID) {
	b := f.byte()
	c := f.blocks[b%len(f.blocks)].CID()
	x := f.open[id][c]
	if b < 198 {
		x.wants++
		f.open[id][c] = x
		f.e.Want(f.now, id, c, WantOptions{})
		return
	}
	if x.wants > 0 {
		x.wants--
		f.open[id][c] = x
	}
	if x == (waits{}) {
		delete(f.open[id], c)
	}
	f.e.Cancel(f.now, id, c)
}

// network is what the driver tells of a peer's reachability.
func (f *fuzzed) network(peer dray.PeerID) {
	e := f.e
	switch f.byte() % 8 {
	case 0:
		e.Probed(f.now, peer, time.Duration(f.byte())*time.Millisecond, nil)
	case 1:
		e.Probed(f.now, peer, 0, dray.ErrTimeout)
	case 2:
		e.DialFailed(f.now, peer)
	case 3:
		e.Near(f.now, peer)
	case 4:
		e.Addressed(f.now, peer)
	case 5:
		e.Ban(f.now, peer, f.now+time.Duration(f.byte())*time.Millisecond, "because")
	case 6:
		e.Unban(f.now, peer)
	case 7:
		e.Heard(f.now, peer, 1)
	}
}

func (f *fuzzed) openSession() {
	b := f.byte()
	cfg := SessionConfig{Order: Order(b % 2), Only: b&64 != 0, Peers: []dray.PeerID{"A"}}
	if b&2 != 0 {
		cfg.Walk = WalkOptions{Bytes: 1000, Push: int64(f.byte()) * 4}
	}
	next := f.e.lastSession + 1
	cfg.Root = f.roots[int(next)%2].Root()
	f.open[f.e.OpenSession(f.now, cfg)] = map[cid.Cid]waits{}
}

// answer is the driver answering the oldest of what it was asked.
func (f *fuzzed) answer() {
	e := f.e
	fails := f.byte()%5 == 0
	switch {
	case len(f.stores) > 0:
		b := f.stores[0]
		f.stores = f.stores[1:]
		if fails {
			e.Stored(f.now, b, dray.ErrNoSpace)
		} else {
			e.Stored(f.now, b, nil)
		}
	case len(f.loads) > 0:
		l := f.loads[0]
		f.loads = f.loads[1:]
		if fails {
			e.Loaded(f.now, l, 0, nil, dray.ErrNotFound)
		} else {
			e.Loaded(f.now, l, 100, make([]byte, 100), nil)
		}
	case len(f.sent) > 0:
		e.BlockSent(f.now, f.sent[0].Peer, f.sent[0].CID)
		f.sent = f.sent[1:]
	case len(f.mans) > 0:
		root := f.mans[0].Root
		f.mans = f.mans[1:]
		for _, m := range f.roots {
			if m.Root() == root && !fails {
				e.ManifestLoaded(f.now, root, m, []uint64{uint64(f.byte())})
				return
			}
		}
		e.ManifestLoaded(f.now, root, nil, nil)
	case len(f.walks) > 0:
		l := f.walks[0]
		f.walks = f.walks[1:]
		part := WalkPart{Last: f.byte()%2 == 0, Status: wire.WalkStatus(f.byte() % 3)}
		for range f.byte() % 3 {
			b := f.block()
			part.Blocks = append(part.Blocks, wire.Block{Prefix: b.CID().Prefix(), Data: b.Data()})
		}
		e.WalkLoaded(f.now, l.Peer, l.Walk.ID, part)
	case f.syncs > 0:
		f.syncs--
		e.Synced(f.now)
	}
}

// turn takes what the engine asks for.
func (f *fuzzed) turn() {
	r := f.e.Ready()
	if err := f.e.Check(); err != nil {
		f.fatalf("%v", err)
	}
	for _, x := range r.Stores {
		f.stores = append(f.stores, x.Block)
	}
	f.loads = append(f.loads, r.Loads...)
	f.mans = append(f.mans, r.Manifests...)
	f.sent = append(f.sent, r.Blocks...)
	for _, l := range r.Walks {
		if !l.Walk.Stop {
			f.walks = append(f.walks, l)
		}
	}
	if r.Sync {
		f.syncs++
	}
	for _, s := range r.Sends {
		if !s.Message.Full && s.Message.Empty() {
			f.fatalf("an empty message for %v", s.Peer)
		}
		f.e.Sent(f.now, s.Peer)
	}
	for _, d := range r.Delivers {
		if f.open[d.Session][d.CID] == (waits{}) {
			f.fatalf("session %d is told of %v, which it does not wait for", d.Session, d.CID)
		}
		delete(f.open[d.Session], d.CID)
	}
	for _, ev := range r.Sessions {
		if n := len(f.open[ev.Session]); n > 0 && ev.State == SessionCompleted {
			f.fatalf("session %d completes and still waits for %d blocks", ev.Session, n)
		}
		f.open[ev.Session] = nil
	}
	f.compare()
}

// compare checks that the engine is after all that the sessions wait for, and nothing else.
func (f *fuzzed) compare() {
	for _, s := range f.e.sessionList {
		open := f.open[s.id]
		if s.wants+s.demanded != len(open) {
			f.fatalf("session %d waits for %d blocks, and the engine for %d and %d leaves", s.id, len(open), s.wants, s.demanded)
		}
		for c, x := range open {
			n := x.wants
			if x.demanded {
				n++
			}
			if w := f.e.wants[c]; w != nil && w.asker(s) != nil {
				if a := w.asker(s); a.refs != n || a.demanded != x.demanded {
					f.fatalf("session %d waits for %v: %+v, and the engine %d times, demanded %v", s.id, c, x, a.refs, a.demanded)
				}
			} else if i, ok := s.leaf(c); !ok || !s.demand.has(i) || x.wants > 0 {
				f.fatalf("session %d waits for %v: %+v, and the engine does not", s.id, c, x)
			}
		}
	}
}

// leaf returns the place where a leaf of the session's manifest comes first.
func (s *session) leaf(c cid.Cid) (int, bool) {
	if s.man == nil {
		return 0, false
	}
	return s.man.m.Find(c)
}

func newFuzzed(t *testing.T, in []byte) *fuzzed {
	f := &fuzzed{
		t: t, e: New(Config{Ban: time.Millisecond}), in: in, now: time.Millisecond, open: map[SessionID]map[cid.Cid]waits{}, seq: map[dray.PeerID]uint64{},
	}
	for i := range 18 {
		f.blocks = append(f.blocks, testBlock(t, i, 100))
	}
	for k := range 2 {
		m := dray.NewManifest(f.blocks[16+k].CID(), 8)
		for i := range 8 {
			m.Append(f.blocks[(5*k+i%7)%16].CID(), 100) // one leaf comes twice, some are under both roots
		}
		m.Index()
		f.roots = append(f.roots, m)
	}
	for _, id := range []dray.PeerID{"A", "B"} {
		f.e.PeerUp(f.now, id, Caps{Haves: true, Indexes: true})
	}
	f.openSession()
	f.turn()
	return f
}

// TestRandomInputs is what FuzzEngine and FuzzAccess do, with inputs that are long and random, and the same each time.
func TestRandomInputs(t *testing.T) {
	for seed := range uint64(6000) {
		r := rand.New(rand.NewPCG(seed, 5))
		in := make([]byte, 200+r.IntN(1500))
		for i := range in {
			in[i] = byte(r.Uint32())
			if r.IntN(4) == 0 {
				in[i] &= 7
			}
		}
		z := newFuzzed(t, in)
		z.name = fmt.Sprintf("seed %d: ", seed)
		for len(z.in) > 0 {
			if seed%2 == 0 {
				z.bar()
			}
			z.step()
		}
	}
}

// addNoise adds inputs of n bytes to a corpus.
func addNoise(f *testing.F, inputs uint32, n int, salt uint32) {
	for seed := range inputs {
		in := make([]byte, n)
		x := seed*2654435761 + salt
		for i := range in {
			x = x*1664525 + 1013904223
			in[i] = byte(x >> 24)
		}
		f.Add(in)
	}
}

// FuzzEngine drives an engine with two peers and up to three sessions by arbitrary inputs.
func FuzzEngine(f *testing.F) {
	f.Add([]byte{})
	addNoise(f, 40, 600, 12345)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4000 {
			return
		}
		for z := newFuzzed(t, in); len(z.in) > 0; {
			z.step()
		}
	})
}
