package exchange

import (
	"fmt"
	"slices"
	"time"

	"dray"
	"dray/exchange/health"
)

// This file feeds package health with what happens to peers, and does what it says:
//
//  1. A peer whom a live session names, or [Engine.Keep], is dialled, and again after it is lost, whenever its back-off allows (reach).
//  2. What it owes and does not deliver makes it Slow, then BackedOff (stalled, findDragging); what it delivers heals it.
//  3. The view over the peers that were useful lately hears who fails and who works (look). While most fail, they are probed,
//     their back-offs stay short, and urgent wants come first (tickDue, sheds).
//
// A block that could not be written or read here is nobody's fault: [Engine.Stored] and [Engine.Loaded] feed nothing.

// Health is what the engine thinks of a peer's ability to deliver.
type Health = health.State

// The states of a peer, as package health describes them.
const (
	HealthUnknown   = health.Unknown
	HealthDialling  = health.Dialling
	HealthConnected = health.Connected
	HealthHealthy   = health.Healthy
	HealthSlow      = health.Slow
	HealthBackedOff = health.BackedOff
	HealthProbing   = health.Probing
	HealthBanned    = health.Banned
	HealthGone      = health.Gone
)

const (
	tickEvery     = time.Second
	dragAge       = 3 * time.Second  // since the peer was asked, and last delivered, before it may drag
	dragShare     = 50               // times less than another that could deliver the same
	dragLook      = 32               // others looked at
	usefulEvery   = time.Second      // how often the view hears that a peer is useful
	probePatience = 3 * time.Second  // with a probe
	hangupAfter   = 10 * time.Second // without an answer to probes
	shedFor       = 10 * time.Second // how long a mode may hold wants back
)

// PeerHealth describes what the engine thinks of a peer.
type PeerHealth struct {
	health.Status
	// Connected is whether there is a connection.
	Connected bool
	// Rate is its measured delivery in bytes a second, and RTT its round trip; 0 when not known yet.
	Rate float64
	RTT  time.Duration
}

// Health returns what the engine thinks of a peer. One that it never met, or has forgotten, is Unknown.
func (e *Engine) Health(id dray.PeerID) PeerHealth {
	p := e.peers[id]
	if p == nil {
		return PeerHealth{}
	}
	h := PeerHealth{Status: p.health.Status(), Connected: p.up, Rate: p.flow.rate, RTT: p.flow.rtt}
	if p.ping > 0 && (h.RTT == 0 || p.ping < h.RTT) {
		h.RTT = p.ping
	}
	return h
}

// Absent returns the peers that are not connected and are being dialled, backed off or banned, in order of first appearance.
// It is not for hot paths.
func (e *Engine) Absent() []dray.PeerID {
	var list []*peer
	for _, p := range e.peers {
		switch s := p.health.State(); {
		case p.up:
		case s == HealthDialling, s == HealthBackedOff, s == HealthBanned:
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *peer) int { return a.slot - b.slot })
	ids := make([]dray.PeerID, len(list))
	for i, p := range list {
		ids[i] = p.id
	}
	return ids
}

// Mode returns which wants come first, now that useful peers were lost, if they were.
func (e *Engine) Mode() health.Mode { return e.view.Mode() }

// PartitionState says whether this host is likely cut off from its peers.
func (e *Engine) PartitionState() health.PartitionState { return e.view.State() }

// Near says that a peer's addresses are those of a private network: it is dialled again sooner.
func (e *Engine) Near(now time.Duration, id dray.PeerID) {
	e.now = now
	e.remember(id).health.Near()
}

// peersOf returns the records of peers, in order of first appearance.
func (e *Engine) peersOf(ids map[dray.PeerID]bool) []*peer {
	var list []*peer
	for id := range ids {
		if p := e.peers[id]; p != nil {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *peer) int { return a.slot - b.slot })
	return list
}

// Addressed says that a new address of a peer became known: if it could not be reached, it may be dialled at once.
func (e *Engine) Addressed(now time.Duration, id dray.PeerID) {
	e.now = now
	if p := e.peers[id]; p != nil {
		p.health.Found()
		e.reach(p)
	}
}

// Ban refuses a peer until a time, for a reason that the operator gave: it is disconnected, hears nothing and is not
// dialled.
func (e *Engine) Ban(now time.Duration, id dray.PeerID, until time.Duration, reason string) {
	e.now = now
	if until <= now {
		return
	}
	e.refuse(e.remember(id), until, health.Manual, reason)
}

// Unban ends a ban, and reports whether there was one.
func (e *Engine) Unban(now time.Duration, id dray.PeerID) bool {
	e.now = now
	p := e.peers[id]
	if p == nil || !p.health.Unban() {
		return false
	}
	e.healthChanged(p)
	e.reach(p)
	return true
}

// Banned reports whether a peer is refused now, and why.
func (e *Engine) Banned(now time.Duration, id dray.PeerID) (reason string, banned bool) {
	p := e.peers[id]
	if p == nil {
		return "", false
	}
	s := p.health.Status()
	if s.State != HealthBanned || s.Until <= now {
		return "", false
	}
	return s.Detail, true
}

// Probed answers one of [Ready.Probes]: with the round trip, or why there was none.
func (e *Engine) Probed(now time.Duration, id dray.PeerID, rtt time.Duration, err error) {
	e.now = now
	p := e.peers[id]
	if p == nil || !p.probing {
		return
	}
	p.probing = false
	switch {
	case !p.up:
		return
	case err != nil:
		e.unanswered(p)
	default:
		p.silent, p.mute = false, 0
		if p.ping = rtt; rtt < health.NearRTT {
			p.health.Near()
		}
		if e.view.State() != health.Whole && p.health.Reprieve() {
			e.healed(p)
		}
		if e.working(p) {
			e.view.Works(now, id) // a sign of life, whatever was known
			p.failing = false
		}
	}
	e.look(p)
	e.viewed()
}

// DialFailed says that a peer could not be reached. It is not dialled again before a while, which doubles each time.
func (e *Engine) DialFailed(now time.Duration, id dray.PeerID) {
	e.now = now
	if p := e.remember(id); !p.up {
		p.health.Unreachable(now, e.rand.Float64())
		e.healthChanged(p)
	}
}

// remember returns the record of id, made on first use, and bounds how many are kept of peers who are not here.
func (e *Engine) remember(id dray.PeerID) *peer {
	p := e.peers[id]
	if p == nil {
		p = e.peer(id)
		e.forgetPeers(p)
	}
	return p
}

// Keep says which peers to stay connected to: they are dialled as those are whom a session names, and are not forgotten. Each
// call replaces the peers of the one before.
func (e *Engine) Keep(now time.Duration, ids []dray.PeerID) {
	e.now = now
	was := e.kept
	e.kept = make(map[dray.PeerID]bool, len(ids))
	for _, id := range ids {
		e.kept[id] = true
	}
	for _, id := range ids {
		if p := e.peer(id); !p.up {
			e.reach(p)
			e.timeHealth(p)
		}
		delete(was, id)
	}
	for _, p := range e.peersOf(was) {
		if !p.up {
			e.forgetPeers(p)
		}
	}
}

// sought reports whether the peer is one to stay connected to, or a live session names it.
func (e *Engine) sought(id dray.PeerID) bool {
	if e.kept[id] {
		return true
	}
	for _, s := range e.sessionList {
		if s.hints(id) {
			return true
		}
	}
	return false
}

// reach dials a peer that is not here and that a session names, when it may be dialled. It is looked at again when
// something about that changes.
func (e *Engine) reach(p *peer) {
	if p.up {
		return
	}
	if t, ok := p.health.Due(); ok && t <= e.now {
		p.health.Advance(e.now, e.rand.Float64())
	}
	if p.health.MayDial(e.now) && e.sought(p.id) {
		p.health.Dial(e.now)
		e.ready.Dials = append(e.ready.Dials, p.id)
	}
	e.timeHealth(p)
}

// timeHealth sets the peer's timer to when its health changes by itself.
func (e *Engine) timeHealth(p *peer) {
	if t, ok := p.health.Due(); ok {
		e.timers.setEarlier(&p.timer, max(t, e.now))
	}
}

// healthChanged does what follows from a change of a peer's health.
func (e *Engine) healthChanged(p *peer) {
	if s := p.health.Status(); s.State == HealthBanned && p.up {
		e.stats.Banned++
		e.ready.Drops = append(e.ready.Drops, Drop{Peer: p.id, Violation: &Violation{What: s.Detail}})
		e.view.Forget(e.now, p.id)
		e.PeerDown(e.now, p.id)
	}
	e.timeHealth(p)
	e.roomChanged(p)
	e.look(p)
}

// healed lets a peer that may be asked again be asked.
func (e *Engine) healed(p *peer) {
	e.roomChanged(p)
	e.fillCandidates(p)
	for _, sp := range p.sps {
		e.dirtySession(sp.s)
	}
}

// refuse bans a peer and disconnects it.
func (e *Engine) refuse(p *peer, until time.Duration, why health.Reason, what string) {
	p.health.Ban(until, why, what)
	e.view.Forget(e.now, p.id)
	e.healthChanged(p)
	e.viewed()
}

// violate bans a peer for an offence.
func (e *Engine) violate(p *peer, what string) {
	e.refuse(p, e.now+e.cfg.Ban, health.ProtocolViolation, what)
}

// working reports whether the peer could deliver now, as far as is known.
func (e *Engine) working(p *peer) bool { return p.up && !p.silent && p.health.Usable() }

// last reports whether nobody else who was useful lately works, and something is wanted: to wait long for the peer would be
// to wait for nothing else.
func (e *Engine) last(p *peer) bool {
	others := e.view.Live()
	if !p.failing {
		others--
	}
	return others == 0 && e.view.Knows(p.id) && len(e.sessionList) > 0
}

// look tells the view whether the peer works, when that has changed.
func (e *Engine) look(p *peer) {
	if works := e.working(p); works == p.failing {
		p.failing = !works
		switch {
		case works:
			e.view.Works(e.now, p.id)
		case len(e.sessionList) == 0:
			e.view.Forget(e.now, p.id) // nothing is wanted of it: it may leave
		default:
			e.view.Fails(e.now, p.id)
		}
		e.viewed()
	}
}

// delivered notes a block that the peer was asked for.
func (e *Engine) delivered(p *peer) {
	p.health.Deliver()
	if p.flow.rtt > 0 && p.flow.rtt < health.NearRTT {
		p.health.Near()
	}
	p.silent, p.mute = false, 0
	if p.failing || p.useful == 0 || e.now-p.useful >= usefulEvery {
		p.useful = e.now
		p.failing = false
		e.view.Useful(e.now, p.id)
		e.viewed()
	}
}

// viewed does what follows from a change of the view.
func (e *Engine) viewed() {
	if s := e.view.State(); s != e.viewState {
		before := e.viewState
		e.viewState = s
		switch {
		case s == health.Partitioned && before != health.Recovering:
			e.view.Each(func(id dray.PeerID) {
				if p := e.peers[id]; p != nil {
					p.health.Hold(e.now, true)
					e.timeHealth(p)
				}
			})
		case s == health.Whole:
			for _, p := range e.peers {
				p.health.Hold(e.now, false) // changes no timer, so the order does not matter
			}
		}
	}
	if m := e.view.Mode(); m != e.mode {
		e.mode, e.modeSince = m, e.now
		e.held = true
		e.dirtyAll()
	}
	e.timeView()
}

// idle tells the view whether anything is wanted of anybody.
func (e *Engine) idle(yes bool) {
	e.view.Idle(e.now, yes)
	e.timeView()
}

func (e *Engine) timeView() {
	if t, ok := e.view.Due(); ok {
		e.timers.setEarlier(&e.ticker, max(t, e.now))
	}
	if e.mode != health.Normal && e.now < e.modeSince+shedFor {
		e.timers.setEarlier(&e.ticker, e.modeSince+shedFor)
	}
}

// tickDue looks at all peers together: who is to be probed, and who delivers too little.
func (e *Engine) tickDue() {
	if e.view.Advance(e.now, e.rand.Float64()) {
		e.view.Each(func(id dray.PeerID) {
			if p := e.peers[id]; p != nil {
				e.probe(p)
			}
		})
	}
	e.viewed()
	if e.mode != health.Normal && e.now >= e.modeSince+shedFor {
		e.dirtyAll()
	}
	if e.findDragging() {
		e.timers.setEarlier(&e.ticker, e.now+tickEvery)
	}
}

// probe asks the driver whether a connected peer is there, one question at a time.
func (e *Engine) probe(p *peer) {
	switch {
	case !p.up:
		e.reach(p)
	case !p.probing:
		p.probing, p.probed = true, e.now
		e.ready.Probes = append(e.ready.Probes, p.id)
	case e.now-p.probed >= probePatience:
		e.unanswered(p)
	}
}

// unanswered notes that a probe had no answer in time. A connection without any sign of life for long is given up while
// the network is thought to be cut: once that is over, a new one works at once, and an old one only when its end thinks that
// it is time to send again.
func (e *Engine) unanswered(p *peer) {
	p.silent = true
	switch {
	case p.mute == 0:
		p.mute = e.now
	case e.view.State() == health.Partitioned && e.now-p.mute >= hangupAfter:
		e.ready.Hangups = append(e.ready.Hangups, p.id)
		e.PeerDown(e.now, p.id)
		return
	}
	e.look(p)
}

// alive notes a sign of life.
func (e *Engine) alive(p *peer) {
	if p.mute = 0; p.silent {
		p.silent = false
		e.look(p)
	}
}

// findDragging finds the peers that deliver far less than others who could deliver the same, and has the others asked for
// it. It reports whether it is to be done again in a while.
func (e *Engine) findDragging() (again bool) {
	for _, p := range e.upPeers {
		got := e.acct(p).Received - p.ticked
		p.ticked = p.acct.Received
		p.pace = p.pace/2 + got
		again = again || p.flight.n > 0
	}
	for _, p := range e.upPeers {
		a := p.flight.head
		if a == nil || e.now-max(a.at, p.merit.seen) < dragAge || !a.elsewhere(dragShare*(p.pace+1)) {
			continue
		}
		p.merit.failed()
		for a = p.flight.head; a != nil; {
			next := a.next
			if a.elsewhere(0) {
				e.late(a)
			}
			a = next
		}
		p.health.Drag(e.now, e.rand.Float64())
		e.drags = append(e.drags, p)
	}
	for i, p := range e.drags { // a ban takes peers out of upPeers
		e.healthChanged(p)
		e.drags[i] = nil
	}
	e.drags = e.drags[:0]
	return again && len(e.upPeers) > 1
}

// elsewhere reports whether somebody else, whose pace is at least so much, could deliver what a asks for.
func (a *ask) elsewhere(pace int64) bool {
	peers := a.w.home.peers
	for i := range min(len(peers), dragLook) {
		sp := peers[i]
		if sp.p != a.p && sp.p.usable() && sp.p.pace > 0 && sp.p.pace >= pace && sp.mayHave(a.w) {
			return true
		}
	}
	return false
}

// sheds reports whether wants of a class wait for those of higher classes, because useful peers were lost: those that are
// left are not to be kept busy with what can wait. It ends when nothing of a higher class is missed and, so that nothing waits
// for what never comes, ten seconds after the mode began.
func (e *Engine) sheds(c Class) bool {
	if e.mode == health.Normal || e.now >= e.modeSince+shedFor {
		return false
	}
	least := High
	if e.mode == health.Degraded {
		least = Prefetch
	}
	if c > least {
		return false
	}
	for k := least + 1; k <= Critical; k++ {
		if e.classes[k-Prefetch] > 0 {
			e.held = true
			return true
		}
	}
	return false
}

// Violation is an offence of a peer's: something that an honest peer never sends. Anything else that goes wrong is ours.
type Violation struct {
	// What the peer did.
	What string
}

// Error names the offence.
func (v *Violation) Error() string { return fmt.Sprintf("the peer broke the protocol: %s", v.What) }
