package exchange

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// model plays the driver and every peer of one engine at random, and keeps what the engine should know in the most naive
// way: a map of references for each session, and for each peer the want list that it has been told.
type model struct {
	t      testing.TB
	rand   *rand.Rand
	e      *Engine
	now    time.Duration
	blocks []dray.Block
	index  map[cid.Cid]int

	sessions map[SessionID]*modelSession
	open     []SessionID
	peers    []*modelPeer
	stores   []dray.Block // not answered
	delivers int
	trace    []string
}

type modelSession struct {
	refs   map[int]int
	ended  bool
	gone   bool // cancelled; its end may not have been announced yet
	sealed bool
	paused bool
}

// modelPeer is what one peer remembers of our wants. It gets messages when they are written and answers as it likes.
type modelPeer struct {
	id      dray.PeerID
	up      bool
	haves   bool
	writing bool
	list    map[int]wire.WantType
}

func newModel(t testing.TB, seed uint64, peers, blocks int) *model {
	m := &model{
		t: t, rand: rand.New(rand.NewPCG(seed, 99)), index: map[cid.Cid]int{}, sessions: map[SessionID]*modelSession{},
		now: time.Millisecond,
	}
	cfg := Config{Seed: seed}
	cfg.Strategy = Strategy(m.rand.IntN(int(LeastLoaded) + 1))
	if m.rand.IntN(2) == 0 {
		cfg.Window = int64(1 + m.rand.IntN(400))
	}
	if m.rand.IntN(3) == 0 {
		cfg.ReceiveBytes = 300
	}
	if m.rand.IntN(3) == 0 {
		cfg.Limits = m.limits()
	}
	m.e = New(cfg)
	for i := range blocks {
		b := testBlock(t, i, 40+m.rand.IntN(100))
		m.blocks = append(m.blocks, b)
		m.index[b.CID()] = i
	}
	for i := range peers {
		m.peers = append(m.peers, &modelPeer{id: dray.PeerID(fmt.Sprintf("p%d", i)), haves: m.rand.IntN(4) > 0})
	}
	return m
}

// limits draws limits that hold back a few blocks.
func (m *model) limits() Limits {
	draw := func() int64 { return int64(m.rand.IntN(2) * m.rand.IntN(20000)) }
	return Limits{Up: draw(), Down: draw(), PeerUp: draw(), PeerDown: draw()}
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.trace[max(0, len(m.trace)-40):] {
		m.t.Log(line)
	}
	m.t.Fatalf(format, args...)
}

func (m *model) did(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf("%v "+format, append([]any{m.now}, args...)...))
}

// ready carries out what the engine asks for and compares it with the model.
func (m *model) ready() {
	r := m.e.Ready()
	if err := m.e.Check(); err != nil {
		m.fatalf("%v", err)
	}
	for _, id := range r.Hangups {
		m.did("hang up on %v", id)
		p := m.peer(id)
		p.up, p.writing, p.list = false, false, nil
	}
	for _, sd := range r.Sends {
		p := m.peer(sd.Peer)
		if !p.up || p.writing {
			m.fatalf("a message for %v, which is up %v, being written to %v", sd.Peer, p.up, p.writing)
		}
		p.writing = true
		p.apply(m, sd.Message)
	}
	for _, d := range r.Delivers {
		s, c := m.sessions[d.Session], m.index[d.CID]
		if s.ended || s.refs[c] == 0 {
			m.fatalf("session %d gets block %d, which it does not want; ended %v", d.Session, c, s.ended)
		}
		delete(s.refs, c)
		m.delivers++
	}
	m.stores = appendStores(m.stores, r.Stores)
	for _, ev := range r.Sessions {
		s := m.sessions[ev.Session]
		if s.ended {
			m.fatalf("session %d ends twice", ev.Session)
		}
		if ev.State == SessionCompleted && (!s.sealed || len(s.refs) > 0) {
			m.fatalf("session %d completes; sealed %v, %d wants", ev.Session, s.sealed, len(s.refs))
		}
		s.ended = true
	}
	for _, d := range r.Drops {
		m.fatalf("%v is dropped: %v", d.Peer, d.Violation)
	}
	for _, id := range r.Dials {
		if p := m.peer(id); p.up {
			m.fatalf("%v is dialled, who is here", id)
		}
	}
	probes, dials := slices.Clone(r.Probes), slices.Clone(r.Dials)
	m.compare()
	m.passedOver()
	m.network(probes, dials)
}

// passedOver sees that no peer who is asked about wants one by one has been moved past one that nobody asks it about.
func (m *model) passedOver() {
	for _, s := range m.e.sessionList {
		for _, sp := range s.peers {
			if !s.active() || sp.use != useUnknown && sp.use != usePart || !sp.p.usable() {
				continue
			}
			s.log.each(func(w *want) {
				if pos := w.asker(s).pos; w.home == s && w.state == Pending && w.asks.of(sp.p) == nil && pos < sp.cursor {
					m.fatalf("session %d: %v, of use %d, has been moved past block %d", s.id, sp.p.id, sp.use, m.index[w.cid])
				}
			})
		}
	}
}

// network answers probes and dials, some of them.
func (m *model) network(probes, dials []dray.PeerID) {
	for _, id := range probes {
		if p := m.peer(id); !p.up {
			m.fatalf("%v is probed, who is not here", id)
		}
		switch m.rand.IntN(3) {
		case 0:
			m.e.Probed(m.now, id, time.Millisecond, nil)
		case 1:
			m.e.Probed(m.now, id, 0, dray.ErrTimeout)
		}
		m.ready()
	}
	for _, id := range dials {
		switch p := m.peer(id); {
		case p.up:
		case m.rand.IntN(2) == 0:
			m.up(p)
		default:
			m.e.DialFailed(m.now, id)
		}
		m.ready()
	}
}

func appendStores(list []dray.Block, stores []Store) []dray.Block {
	for _, st := range stores {
		list = append(list, st.Block)
	}
	return list
}

func (m *model) peer(id dray.PeerID) *modelPeer {
	for _, p := range m.peers {
		if p.id == id {
			return p
		}
	}
	m.fatalf("no peer %v", id)
	return nil
}

// apply does to the peer's list what Bitswap says.
func (p *modelPeer) apply(m *model, msg *wire.Message) {
	if msg.Full {
		p.list = map[int]wire.WantType{}
	}
	once := map[cid.Cid]bool{}
	for _, w := range msg.Wants {
		if once[w.CID] {
			m.fatalf("%v hears of block %d twice in one message", p.id, m.index[w.CID])
		}
		once[w.CID] = true
		c := m.index[w.CID]
		old, has := p.list[c]
		switch {
		case w.Cancel:
			delete(p.list, c)
		case !has || old == wire.WantHave:
			p.list[c] = w.Type
		}
	}
	if len(p.list) > maxEntries {
		m.fatalf("%v remembers %d wants", p.id, len(p.list))
	}
}

// compare checks that the engine wants the union of what the sessions want, with the same references, and that a peer to
// which nothing more is to be said remembers exactly what the engine thinks it does.
func (m *model) compare() {
	union := map[int]int{}
	for id, s := range m.sessions {
		for c, n := range s.refs {
			union[c]++
			w := m.e.wants[m.blocks[c].CID()]
			if w == nil || w.asker(m.e.sessions[id]) == nil || w.asker(m.e.sessions[id]).refs != n {
				m.fatalf("session %d wants block %d %d times and the engine does not", id, c, n)
			}
		}
	}
	for c, w := range m.e.wants {
		if len(w.askers) != union[m.index[c]] {
			m.fatalf("block %d is wanted by %d sessions, not %d", m.index[c], len(w.askers), union[m.index[c]])
		}
	}
	for _, p := range m.peers {
		ep := m.e.peers[p.id]
		if !p.up || ep.queue.n > 0 || len(ep.cancels) > 0 {
			continue
		}
		told := map[int]bool{}
		for _, l := range []*askList{&ep.flight, &ep.known} {
			for a := l.head; a != nil; a = a.next {
				if !a.withdrawn {
					told[m.index[a.w.cid]] = true
				}
			}
		}
		for c := range p.list {
			if !told[c] {
				m.fatalf("%v remembers block %d, and the engine does not know", p.id, c)
			}
		}
	}
}

// step does one random thing.
func (m *model) step() {
	m.now += time.Duration(m.rand.IntN(1000)) * time.Microsecond
	switch m.rand.IntN(17) {
	case 16:
		if m.rand.IntN(4) == 0 {
			l := m.limits()
			m.did("limits %+v", l)
			m.e.SetLimits(m.now, l)
		}
		m.e.SetService(m.now, m.peers[m.rand.IntN(len(m.peers))].id, Service(m.rand.IntN(4)))
	case 0:
		if len(m.open) < 5 {
			m.openSession()
		}
	case 1, 2, 3:
		m.want()
	case 4:
		if id, s := m.session(); s != nil {
			m.ready()
			c := m.rand.IntN(len(m.blocks))
			m.did("cancel %d %d", id, c)
			m.e.Cancel(m.now, id, m.blocks[c].CID())
			if s.refs[c]--; s.refs[c] <= 0 {
				delete(s.refs, c)
			}
		}
	case 5:
		m.control()
	case 6:
		p := m.peers[m.rand.IntN(len(m.peers))]
		if !p.up {
			m.up(p)
		} else if m.rand.IntN(4) == 0 {
			m.did("down %v", p.id)
			p.up, p.writing, p.list = false, false, nil
			if m.rand.IntN(2) == 0 {
				m.e.PeerDown(m.now, p.id)
			} else {
				m.e.Goodbye(m.now, p.id)
			}
		}
	case 7, 8:
		m.sent(m.peers[m.rand.IntN(len(m.peers))])
	case 9, 10, 11, 12:
		m.answer(m.peers[m.rand.IntN(len(m.peers))])
	case 13, 14:
		m.stored(m.rand.IntN(8) == 0)
	case 15:
		switch m.rand.IntN(4) {
		case 0:
			m.now += time.Duration(m.rand.IntN(7000)) * time.Millisecond
			m.did("advance")
			m.e.Advance(m.now)
		case 1:
			c := m.rand.IntN(len(m.blocks))
			m.did("added %d", c)
			m.e.Added(m.now, m.blocks[c].CID(), 100)
		default:
			m.e.Advance(m.now)
		}
	}
	if m.rand.IntN(3) > 0 {
		m.ready() // several inputs may come before one Ready
	}
}

func (m *model) openSession() {
	cfg := SessionConfig{Order: Order(m.rand.IntN(2)), Class: Class(m.rand.IntN(2))}
	for _, p := range m.peers {
		if m.rand.IntN(2) == 0 {
			cfg.Peers = append(cfg.Peers, p.id)
		}
	}
	if m.rand.IntN(4) == 0 {
		cfg.Only = true
		cfg.Peers = append(cfg.Peers, m.peers[0].id)
	}
	if m.rand.IntN(3) == 0 {
		cfg.MaxWaiting = 1 + m.rand.IntN(4)
	}
	id := m.e.OpenSession(m.now, cfg)
	m.did("open %d %+v", id, cfg)
	m.sessions[id] = &modelSession{refs: map[int]int{}}
	m.open = append(m.open, id)
}

// session returns an open session, or nil.
func (m *model) session() (SessionID, *modelSession) {
	for len(m.open) > 0 {
		k := m.rand.IntN(len(m.open))
		id := m.open[k]
		if s := m.sessions[id]; !s.ended && !s.gone && !s.sealed {
			return id, s
		}
		m.open = append(m.open[:k], m.open[k+1:]...)
	}
	return 0, nil
}

// want registers a want, after whatever was delivered before was handed out.
func (m *model) want() {
	id, s := m.session()
	if s == nil {
		return
	}
	m.ready()
	if s.ended {
		return
	}
	c := m.rand.IntN(len(m.blocks))
	opt := WantOptions{Class: Class(m.rand.IntN(5) - 1), Order: uint64(c)}
	if m.rand.IntN(4) == 0 {
		opt.Deadline = m.now + time.Duration(m.rand.IntN(8000))*time.Millisecond
	}
	m.did("want %d %d %v", id, c, opt.Class)
	w := m.e.wants[m.blocks[c].CID()]
	var before rank
	asked := w != nil && len(w.askers) > 0
	if asked {
		before = w.rank
	}
	m.e.Want(m.now, id, m.blocks[c].CID(), opt)
	if asked && (w.rank.class < before.class || w.rank.slack > before.slack) {
		m.fatalf("wanting block %d again lowered it from %+v to %+v", c, before, w.rank)
	}
	s.refs[c]++
}

func (m *model) control() {
	id, s := m.session()
	if s == nil {
		return
	}
	switch m.rand.IntN(8) {
	case 0:
		m.did("cancel session %d", id)
		m.e.CancelSession(m.now, id)
		clear(s.refs)
		s.gone = true
	case 1:
		m.did("seal %d", id)
		m.ready()
		s.sealed = true
		m.e.Seal(m.now, id)
	case 2, 3:
		m.did("pause %d", id)
		if m.e.Pause(m.now, id) == s.paused {
			m.fatalf("pause of session %d, paused %v", id, s.paused)
		}
		s.paused = true
	default:
		m.did("resume %d", id)
		if m.e.Resume(m.now, id) != s.paused {
			m.fatalf("resume of session %d, paused %v", id, s.paused)
		}
		s.paused = false
	}
}

func (m *model) up(p *modelPeer) {
	m.did("up %v", p.id)
	p.up, p.writing, p.list = true, false, map[int]wire.WantType{}
	m.e.PeerUp(m.now, p.id, Caps{Haves: p.haves})
}

func (m *model) sent(p *modelPeer) {
	if p.up && p.writing {
		m.did("sent %v", p.id)
		p.writing = false
		m.e.Sent(m.now, p.id)
	}
}

// answer makes a peer say something about a want that it remembers, or nonsense about one that it does not.
func (m *model) answer(p *modelPeer) {
	if !p.up {
		return
	}
	c := m.rand.IntN(len(m.blocks))
	if m.rand.IntN(8) > 0 { // the next that it remembers
		for k := range m.blocks {
			if _, ok := p.list[(c+k)%len(m.blocks)]; ok {
				c = (c + k) % len(m.blocks)
				break
			}
		}
	}
	_, wanted := p.list[c]
	msg := &wire.Message{}
	var blocks []dray.Block
	switch k := m.rand.IntN(4); {
	case k < 2 && wanted:
		m.did("%v sends %d", p.id, c)
		delete(p.list, c)
		blocks = []dray.Block{m.blocks[c]}
	case p.haves:
		m.did("%v has %d: %v", p.id, c, k == 2)
		msg.Presences = []wire.Presence{{CID: m.blocks[c].CID(), Have: k == 2}}
	}
	m.e.Receive(m.now, p.id, msg, blocks)
}

func (m *model) stored(bad bool) {
	if len(m.stores) == 0 {
		return
	}
	k := m.rand.IntN(len(m.stores))
	b := m.stores[k]
	m.stores = append(m.stores[:k], m.stores[k+1:]...)
	var err error
	if bad {
		err = errors.New("disk full")
	}
	m.did("stored %d %v", m.index[b.CID()], err)
	m.e.Stored(m.now, b, err)
}

// settle lets everything be written and stored until nothing happens any more.
func (m *model) settle() {
	m.e.SetLimits(m.now, Limits{})
	for range 1000 {
		busy := false
		m.ready()
		for _, p := range m.peers {
			busy = busy || p.writing
			m.sent(p)
		}
		for len(m.stores) > 0 {
			busy = true
			m.stored(false)
		}
		if !busy && m.e.Ready().Empty() {
			return
		}
	}
	m.fatalf("the engine does not settle")
}

// finish makes every peer honest, the first of which has everything, and sees that everything is delivered.
func (m *model) finish() {
	for id, s := range m.sessions {
		if !s.ended && s.paused {
			m.e.Resume(m.now, id)
		}
	}
	for _, p := range m.peers {
		if !p.up {
			m.up(p)
		}
	}
	end := m.now + 30*time.Minute
	for left := 1; left > 0; {
		m.settle()
		left = 0
		for _, s := range m.sessions {
			left += len(s.refs)
		}
		answered := false
		for i, p := range m.peers {
			for c := range len(m.blocks) {
				kind, wanted := p.list[c]
				if !wanted {
					continue
				}
				msg := &wire.Message{}
				var blocks []dray.Block
				switch {
				case i > 0:
					if !p.haves || m.rand.IntN(2) == 0 {
						continue // silence, or a refusal that is soon repeated
					}
					msg.Presences = []wire.Presence{{CID: m.blocks[c].CID()}}
				case kind == wire.WantHave:
					msg.Presences = []wire.Presence{{CID: m.blocks[c].CID(), Have: true}}
				default:
					delete(p.list, c)
					blocks = []dray.Block{m.blocks[c]}
				}
				answered = true
				m.e.Receive(m.now, p.id, msg, blocks)
				m.ready()
			}
		}
		m.now += 10 * time.Millisecond
		if wake := m.e.Ready().Wake; !answered && wake > m.now {
			m.now = wake
		}
		m.e.Advance(m.now)
		if m.now > end {
			m.describe()
			m.fatalf("%d wants are still open half an hour after the first peer has begun to answer", left)
		}
	}
}

// describe prints what the engine waits for.
func (m *model) describe() {
	for c := range m.blocks {
		w := m.e.wants[m.blocks[c].CID()]
		if w == nil {
			continue
		}
		m.did("block %d: %v in the heap at %d, contested %v, of session %d", c, w.state, w.heap, w.contested, w.home.id)
		for a := w.asks.head; a != nil; a = a.wnext {
			m.did("    %s was asked: kind %d, withdrawn %v, queued %v", string(a.p.id), a.kind, a.withdrawn, a.list == &a.p.queue)
		}
	}
	for _, s := range m.e.sessionList {
		m.did("session %d: %v %d waiting %+v", s.id, s.state, s.waiting, s.cfg)
		for _, sp := range s.peers {
			m.did("    %s: use %d %v room %v blocks %d cand %d", string(sp.p.id), sp.use, sp.p.health.State(), sp.p.room(), sp.p.blocks, len(sp.cand))
		}
	}
}

// empty cancels whatever is left and sees that nothing is left over, here or with any peer.
func (m *model) empty() {
	m.settle()
	for id, s := range m.sessions {
		if !s.ended {
			clear(s.refs)
			m.e.CancelSession(m.now, id)
		}
	}
	m.settle()
	for _, p := range m.peers {
		ep := m.e.peers[p.id]
		if len(p.list) > 0 {
			m.fatalf("%v remembers %v when nothing is wanted any more", p.id, p.list)
		}
		if ep != nil && ep.entries+ep.blocks+int(ep.inflight) != 0 {
			m.fatalf("%v is busy with %d asks, %d blocks and %d bytes", p.id, ep.entries, ep.blocks, ep.inflight)
		}
	}
	if len(m.e.wants)+len(m.e.sessions)+int(m.e.receiving) != 0 {
		m.fatalf("%d wants, %d sessions, %d bytes left over", len(m.e.wants), len(m.e.sessions), m.e.receiving)
	}
}

// TestModel is rows A29, A31, A32, B2 and B8: random orders of events never reach an undefined edge (which panics), the want
// list is what a naive one would be, every peer's list is what it was told, every want is delivered once a peer answers,
// and nothing is left over.
func TestModel(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 60
	}
	delivers := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		m := newModel(t, seed, 1+int(seed%6), 5+int(seed%30))
		for range 600 {
			m.step()
		}
		if seed%2 == 0 {
			m.settle()
			m.finish()
		}
		m.ready()
		m.empty()
		delivers += m.delivers
	}
	t.Logf("%d deliveries", delivers)
	if delivers < int(seeds)*10 {
		t.Errorf("only %d deliveries: the test has lost its teeth", delivers)
	}
}
