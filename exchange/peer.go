package exchange

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange/health"
	"dray/wire"
)

// Caps is what a peer's protocol can say.
type Caps struct {
	// Protocol is its name, for reports, such as "/ipfs/bitswap/1.2.0".
	Protocol string
	// Haves says that the peer answers want-have, HAVE and DONT_HAVE (Bitswap 1.2.0 and later). Without it, silence is
	// the only way to say no.
	Haves bool
	// Indexes says that the peer speaks TensorSwap: it can be told of roots and of leaves by index.
	Indexes bool
}

const (
	maxEntries   = 1024    // wants that a standard peer keeps for us
	entryReserve = 32      // of which these are kept for urgent wants
	doneRing     = 1 << 13 // CIDs of ended wants that are remembered, to tell late blocks from uninvited ones
	maxForgotten = 4096    // peers that are remembered after they left
)

// peer is what the engine knows of one other host. Owned by the engine.
//
// Invariant: entries = the number of asks in the three lists; inflight = the sum of size over asks of kind askBlock.
type peer struct {
	id   dray.PeerID
	slot int // order of first appearance; breaks ties
	caps Caps
	up   bool

	health  health.Peer
	timer   timer
	silent  bool          // it let patience or a probe run out, and gave no sign of life since
	mute    time.Duration // since when probes have no answer, or 0
	failing bool          // as the view was told last
	useful  time.Duration // when the view was told last that it delivers
	probing bool          // a probe is out, since probed
	probed  time.Duration
	ping    time.Duration // the last round trip of a probe, or 0
	ticked  int64         // acct.Received at the last tick
	pace    int64         // bytes of the last ticks, the newest counting most
	acct    *Account      // nil when there is none, as there may be not once it has left

	// The state lane: what is to be announced. A cancel and an ask for one CID are never both pending.
	queue     askList   // asks to be announced, in order
	cancels   []cid.Cid // announced before, to be withdrawn
	presences []wire.Presence
	msg       wire.Message // the message being written, reused
	writing   bool         // until Sent
	dirty     bool
	greeted   bool   // the first message of this connection was written
	said      uint32 // wants announced so far, for the wire's priorities
	numbered  uint64 // asks for blocks announced so far
	newest    uint64 // the number of the latest of them that was answered

	// What was announced.
	flight askList // for the block, not answered, oldest first
	known  askList // the rest
	sps    []*sessionPeer

	entries  int
	inflight int64
	blocks   int // asks for the block, announced or about to be

	// Roots that are spoken of by index, see feed.go, and walks, see walk.go.
	feeds     map[cid.Cid]*feed
	feedList  []*feed
	mine      map[uint32]*feed   // by the number that this host gave
	numbers   map[uint32]*feed   // by the peer's
	spent     map[uint32]cid.Cid // roots of numbers that the peer gave and took back: it may follow them again
	lastFeed  uint32
	heardFeed uint32        // the highest number that the peer gave
	followed  int           // feeds that the peer follows
	follows   []*feed       // to be said
	stops     []wire.Follow // to be said before them
	newsy     []*feed       // with something to tell
	loading   int           // manifests that are being derived because of this peer
	walks     []*session
	stopWalks []uint32
	lastWalk  uint32
	heardWalk uint32
	answers   []*walked
	carried   int64    // bytes of blocks in the message being written
	refusals  []uint32 // walks that are not answered, to be said

	// Bytes of blocks that the peer was told it may send in all, that it sent, and of those the ones that nobody wanted
	// ever, which give it no new credit. Allowed may come unasked, for walks.
	creditTold, used, wasted, allowed int64
	seqOut, seqIn                     uint64
	info                              wire.Info // as last said
	withholds                         bool      // it answers no wants
	barred                            bool      // it is served nothing, see access.go
	opened                            []opened  // roots, by proofs
	denials, deniedWalks              []uint32  // follows and walks whose proofs are not accepted, to be said
	sated                             bool      // it wants nothing

	flow    flow
	merit   merit
	key     int64 // place under the engine's strategy, smaller first; the key of spHeap
	serve   serving
	shape   peerShape
	badness int // uninvited or wrong blocks since connected
}

// PeerUp says that a peer is connected. It may be called again when the peer's capabilities have become known better.
func (e *Engine) PeerUp(now time.Duration, id dray.PeerID, caps Caps) {
	e.now = now
	p := e.peer(id)
	before := p.caps
	p.caps = caps
	p.health.Quiet(!caps.Haves)
	if p.up {
		e.capsChanged(p, before)
		return
	}
	p.up = true
	e.ready.Dials = slices.DeleteFunc(e.ready.Dials, func(o dray.PeerID) bool { return o == id })
	p.acct = e.account(id)
	e.admit(p)
	p.greeted = false
	p.badness = 0
	p.silent, p.probing, p.mute = false, false, 0
	p.ticked, p.pace = p.acct.Received, 0
	p.merit.seen = now
	p.flow.reset(e.cfg.Window)
	p.health.Connect(now)
	e.upPeers = append(e.upPeers, p)
	e.limitPeer(p)
	for _, s := range e.sessionList {
		e.join(s, p)
	}
	e.timeHealth(p)
	e.look(p)
}

// capsChanged follows what the peer's protocol can say, when it turns out to be another than was assumed.
func (e *Engine) capsChanged(p *peer, before Caps) {
	switch {
	case before.Indexes == p.caps.Indexes:
	case p.caps.Indexes:
		if p.greeted {
			e.reannounce(p) // the state lane of the other protocol begins with all that is wanted
		}
		for _, sp := range p.sps {
			e.rooted(sp)
		}
	default:
		for len(p.walks) > 0 {
			e.endWalk(p.walks[0])
		}
		e.forgetPushes(p)
		e.closeFeeds(p)
		e.stopAnswers(p)
		e.dropAnswers(p)
		p.refusals, p.stopWalks, p.denials, p.deniedWalks = nil, nil, nil, nil
		for _, sp := range p.sps {
			if sp.use == useFeed {
				e.setUse(sp, usePart)
			}
		}
		e.roomChanged(p)
	}
	if before.Haves && !p.caps.Haves {
		e.neverAnswers(p)
	}
	if before.Indexes != p.caps.Indexes {
		e.reconsiderPeer(p)
	}
}

// neverAnswers follows that the peer turns out to speak a protocol without HAVE: questions whether it has something stay unanswered,
// or were not even written, so it is asked for blocks at once.
func (e *Engine) neverAnswers(p *peer) {
	for _, l := range []*askList{&p.queue, &p.known} {
		for a := l.head; a != nil; {
			next := a.next
			if a.kind == askHave {
				e.dropAsk(a, false)
			}
			a = next
		}
	}
	for _, sp := range p.sps {
		e.setUse(sp, useHolder)
	}
}

// Restart says that what was announced to a peer was lost, because it does not speak the protocol that was assumed. With
// the next messages all that is still wanted of it is announced again; what the peer has said stands.
func (e *Engine) Restart(now time.Duration, id dray.PeerID, caps Caps) {
	e.now = now
	p := e.peers[id]
	if p == nil || !p.up {
		return
	}
	e.PeerUp(now, id, caps)
	e.reannounce(p)
	p.writing = false
	p.msg = wire.Message{} // the driver may still look at the last one
	e.uncarry(p)
	p.flow.asked = 0
}

// reannounce makes the next message for p say all that is wanted of it.
func (e *Engine) reannounce(p *peer) {
	for _, l := range []*askList{&p.flight, &p.known} {
		for a := l.head; a != nil; {
			next := a.next
			switch {
			case a.withdrawn:
				a.told = false // and stays so
			case a.kind != askHeld && a.kind != askMissing:
				a.unlist()
				a.told, a.crossed = false, false
				p.queue.push(a)
			}
			a = next
		}
	}
	p.cancels = p.cancels[:0]
	p.greeted, p.seqOut, p.info = false, 0, wire.Info{}
	e.dirtyPeer(p)
}

// PeerDown says that the last connection to a peer is gone. What was asked of it is asked of others, at once.
func (e *Engine) PeerDown(now time.Duration, id dray.PeerID) {
	e.now = now
	p := e.peers[id]
	if p == nil || !p.up {
		return
	}
	p.up, p.probing = false, false
	if e.last(p) {
		p.health.Hold(now, true) // until most work again
	}
	p.health.Lose(now, p.blocks > 0, e.rand.Float64())
	e.timers.stop(&p.timer)
	for i, o := range e.upPeers {
		if o == p {
			e.upPeers = append(e.upPeers[:i], e.upPeers[i+1:]...)
			break
		}
	}
	e.roomChanged(p)
	for _, l := range []*askList{&p.queue, &p.flight, &p.known} {
		for l.head != nil {
			a := l.head
			w := a.w
			e.dropAsk(a, false)
			e.unwait(w)
		}
	}
	for len(p.sps) > 0 {
		e.part(p.sps[len(p.sps)-1])
	}
	e.closeFeeds(p)
	e.forgetPushes(p)
	e.ready.Walks = slices.DeleteFunc(e.ready.Walks, func(l WalkLoad) bool { return l.Peer == id })
	e.ready.Probes = slices.DeleteFunc(e.ready.Probes, func(o dray.PeerID) bool { return o == id })
	for len(p.walks) > 0 {
		e.endWalk(p.walks[len(p.walks)-1])
	}
	e.dropAnswers(p)
	p.stopWalks, p.refusals, p.lastWalk, p.heardWalk = nil, nil, 0, 0
	p.lastFeed, p.heardFeed = 0, 0
	p.creditTold, p.used, p.wasted, p.allowed, p.seqOut, p.seqIn = 0, 0, 0, 0, 0, 0
	p.withholds, p.sated, p.info = false, false, wire.Info{}
	p.opened, p.denials, p.deniedWalks = nil, nil, nil
	p.cancels = p.cancels[:0]
	p.presences = p.presences[:0]
	p.writing = false
	p.msg = wire.Message{} // the driver may still be writing the last one
	e.uncarry(p)
	e.stopServing(p)
	e.leaveAccount(id)
	e.forgetPeers(p)
	e.timeHealth(p)
	e.look(p)
}

// peer returns the record of id, made on first use.
func (e *Engine) peer(id dray.PeerID) *peer {
	p := e.peers[id]
	if p == nil {
		e.lastSlot++
		p = &peer{id: id, slot: e.lastSlot, merit: merit{trust: 1}}
		p.timer = timer{heap: -1, peer: p}
		p.serve.ring = -1
		p.flow.reset(e.cfg.Window)
		e.peers[id] = p
	}
	return p
}

// forgetPeers bounds how many peers that left are remembered, oldest first. Peers under a ban are remembered longest.
func (e *Engine) forgetPeers(p *peer) {
	e.left = append(e.left, p)
	for n := len(e.left); n > maxForgotten; n = len(e.left) {
		q := e.left[0]
		e.left = e.left[1:]
		if !q.up && !e.kept[q.id] && e.peers[q.id] == q {
			e.timers.stop(&q.timer)
			delete(e.peers, q.id)
		}
	}
}

// Sent says that the control message that [Ready.Sends] named for this peer was written.
func (e *Engine) Sent(now time.Duration, id dray.PeerID) {
	e.now = now
	if p := e.peers[id]; p != nil && p.writing {
		p.writing = false
		if p.carried > 0 {
			e.stats.Served += int64(len(p.msg.Blocks))
			n := e.uncarry(p)
			e.stats.ServedBytes += n
			p.acct.Sent += n
			e.shape.sent.add(now, n)
		}
		if e.hasNews(p) {
			e.dirtyPeer(p)
		}
	}
}

// cancel makes the peer be told that c is not wanted any more.
func (p *peer) cancel(c cid.Cid) { p.cancels = append(p.cancels, c) }

// uncancel withdraws a cancel that was not announced yet, because c is wanted again, and reports whether there was one.
func (p *peer) uncancel(c cid.Cid) bool {
	for i := len(p.cancels) - 1; i >= 0; i-- {
		if p.cancels[i] == c {
			p.cancels = append(p.cancels[:i], p.cancels[i+1:]...)
			return true
		}
	}
	return false
}

// usable reports whether the peer may be asked for blocks now.
func (p *peer) usable() bool { return p.up && !p.withholds && p.health.Usable() }

// room reports whether the peer may be asked for one more block of an ordinary want.
func (p *peer) room() bool {
	return p.entries < maxEntries-entryReserve && p.roomHeld()
}

// roomHeld is room for a block that the peer was asked about already: it takes the place of that question.
func (p *peer) roomHeld() bool {
	return p.usable() && !p.shape.thirsty && p.blocks < p.health.Limit() &&
		(p.inflight == 0 || p.inflight < p.flow.window && (p.shape.most == 0 || p.inflight < p.shape.most))
}

// roomFor is room for a want of the given class: urgent ones overtake the window.
func (p *peer) roomFor(c Class) bool {
	return p.room() || c >= Urgent && p.usable() && !p.shape.thirsty && p.entries < maxEntries && p.blocks < p.health.Limit()
}

// roomChanged recomputes the key of p under the engine's strategy, and its place in the heaps of its sessions.
func (e *Engine) roomChanged(p *peer) {
	p.key = e.key(p)
	room := p.room()
	for _, sp := range p.sps {
		if len(sp.cand) > 0 && (room || p.roomHeld()) {
			sp.s.offered = true
			e.dirtySession(sp.s)
		}
		switch in := sp.listed(); {
		case in && sp.heap < 0:
			sp.room().push(sp)
			e.dirtySession(sp.s)
		case in:
			sp.room().fix(sp.heap)
		case sp.heap >= 0:
			sp.room().remove(sp)
		}
	}
}

// ready reports whether the peer behind sp is asked for blocks without asking first, when it has room.
func (sp *sessionPeer) ready() bool { return sp.use == useHolder || sp.use == useFeed && !sp.dry }

// hasNews reports whether there is something to announce.
func (e *Engine) hasNews(p *peer) bool {
	if p.queue.n > 0 || len(p.cancels) > 0 || len(p.presences) > 0 {
		return true
	}
	return p.caps.Indexes && (len(p.follows)+len(p.stops)+len(p.newsy) > 0 || p.greeted && p.info != e.info() || len(p.stopWalks) > 0 || p.asksToWalk() ||
		e.answersWalk(p) || p.creditDue() || len(p.denials)+len(p.deniedWalks) > 0)
}

// credit is what the peer may send in all, as of now: what it has sent, what it was asked for or may send unasked, and a
// base that is enough for what this host does not count.
func (p *peer) credit() int64 { return p.used - p.wasted + p.inflight + p.allowed + creditBase }

// creditDue reports whether the peer is to be told of its credit now, whatever else there is to say.
func (p *peer) creditDue() bool {
	return p.creditTold-p.used < creditBase/2 && p.credit() > p.creditTold
}

// info says what this host is up to.
func (e *Engine) info() wire.Info {
	return wire.Info{Set: true, Uploading: !e.cfg.Withhold, Downloading: len(e.sessionList) > 0}
}

func (p *peer) asksToWalk() bool {
	for _, s := range p.walks {
		if !s.walk.said {
			return true
		}
	}
	return false
}

// announceRoots writes what only TensorSwap has into the next message.
func (e *Engine) announceRoots(p *peer, m *wire.Message) {
	p.seqOut++
	m.Seq = p.seqOut
	if g := p.credit(); g > p.creditTold {
		p.creditTold = g
		m.Credit = uint64(g)
	}
	m.Info = wire.Info{}
	if i := e.info(); i != p.info {
		m.Info, p.info = i, i
	}
	m.Follows = append(m.Follows, p.stops...)
	p.stops = p.stops[:0]
	for _, f := range p.follows {
		f.shown = e.prove(f.root, p)
		m.Follows = append(m.Follows, wire.Follow{Feed: f.mine, Root: f.root, Durable: e.durableCopies(f.root), Proof: f.shown})
		f.said = true
	}
	p.follows = p.follows[:0]
	p.appendAllNews(m)
	p.appendDenials(m)
	for _, id := range p.stopWalks {
		m.Walks = append(m.Walks, wire.Walk{ID: id, Stop: true})
	}
	p.stopWalks = p.stopWalks[:0]
	for _, s := range p.walks {
		if s.walk.said {
			continue
		}
		s.walk.said = true
		o := s.cfg.Walk
		bytes, push := e.walkWithin(p, o)
		m.Walks = append(m.Walks, wire.Walk{
			ID: s.walk.id, Root: s.cfg.Root, Depth: uint32(o.Depth), Bytes: bytes, Leaves: o.Leaves,
			Push: push, Spread: s.cfg.Order == Rarest, Proof: e.prove(s.cfg.Root, p),
		})
		if p.flight.n == 0 {
			p.flow.begin(e.now)
		}
	}
	e.appendAnswer(p, m)
}

// priority is what a want is announced with. Wants of a session that fetches rarest first are equal within their class: the
// server then chooses what it has sent least often, which the swarm needs most.
func (p *peer) priority(w *want) int32 {
	if w.home.cfg.Order == Rarest {
		return wirePriority(w.rank.class, 0)
	}
	p.said++
	return wirePriority(w.rank.class, p.said)
}

// announce builds the next control message for p, and files the asks in it as announced. It returns false when there is
// nothing to say.
func (e *Engine) announce(p *peer) bool {
	if !p.up || p.writing || !e.hasNews(p) {
		return false
	}
	m := &p.msg
	m.Wants, m.Presences, m.Blocks = m.Wants[:0], m.Presences[:0], nil
	m.Follows, m.Haves, m.Walks, m.Walked, m.Credit = m.Follows[:0], m.Haves[:0], m.Walks[:0], m.Walked[:0], 0
	// The first message replaces whatever the peer remembers of an earlier connection that it has not seen end.
	m.Full, m.PendingBytes = !p.greeted, 0
	p.greeted = true
	for _, c := range p.cancels {
		m.Wants = append(m.Wants, wire.Entry{CID: c, Cancel: true})
	}
	p.cancels = p.cancels[:0]
	for p.queue.head != nil {
		a := p.queue.head
		a.unlist()
		a.told = true
		en := wire.Entry{CID: a.w.cid, Priority: p.priority(a.w), SendDontHave: true, Leaves: p.spell(a.w)}
		if en.Leaves.Feed == 0 {
			en.Feed = e.feedFor(p, a.w)
		}
		a.at = e.now
		if a.kind == askBlock {
			if p.flight.n == 0 {
				p.flow.begin(e.now)
			}
			e.number(a)
			p.flight.push(a)
		} else {
			en.Type = wire.WantHave
			p.known.push(a)
		}
		m.Wants = append(m.Wants, en)
	}
	m.Presences, p.presences = p.presences, m.Presences
	if p.caps.Indexes {
		e.announceRoots(p, m)
		if m.Empty() {
			p.seqOut-- // what there was to tell came and went
			return false
		}
	}
	m.PendingBytes = int32(min(p.serve.queued, 1<<31-1))
	p.writing = true
	if p.flight.n > 0 {
		e.watch(p)
	}
	return true
}

// number notes when the peer was asked for a block, in what order, and how much had come from it until then.
func (e *Engine) number(a *ask) {
	p := a.p
	p.numbered++
	a.at, a.number, a.mark = e.now, p.numbered, p.flow.bytes
}
