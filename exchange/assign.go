package exchange

import (
	"time"
)

// This file gives wants to peers. The path of a want that nobody has been asked for:
//
//  1. fill: the best want of a session's pending heap goes to the useful peer that would deliver it first.
//  2. A peer that answers HAVE for a want that is still nobody's is asked for it at once, or keeps it as a candidate
//     until it has room (fillCandidates).
//  3. A want that some peer lacks is contested: it leaves the common heap and is offered to the others (offer).
//  4. When nothing is pending and a peer has room, it takes over what another would deliver much later (takeOver).
//  5. A peer that is silent beyond its patience loses what it was asked for (stalled), and a single answer that never
//     comes is asked of somebody else, or said again (overdue).
//  6. What was refused or lost is tried again after a while (forgive).
//
// The last three are in hedge.go.

const (
	fillQuantum  = 8           // wants given to one session before it is another's turn
	askAgain     = 64          // candidates looked at when one peer gets room
	tellPatience = time.Second // before a peer who speaks TensorSwap is asked about leaves one by one
)

// assign hands out wants in every session where something changed.
func (e *Engine) assign() {
	for len(e.dirtySessions) > 0 {
		e.work, e.dirtySessions = e.dirtySessions, e.work[:0]
		sortByUrgency(e.work)
		if e.shape.down.limits() {
			e.inTurn()
		}
		for again := !e.shape.down.limits(); again; {
			again = false
			for _, s := range e.work {
				if !s.ended() && e.fill(s, fillQuantum) == fillQuantum {
					again = true
				}
			}
		}
		for i, s := range e.work {
			s.dirty = false
			if !s.ended() {
				e.fillOffered(s)
				e.follow(s)
				e.takeOver(s)
			}
			e.work[i] = nil
		}
	}
}

// sortByUrgency puts sessions whose best want is of a higher class first; the rest take turns in order of age.
func sortByUrgency(list []*session) {
	for i := 1; i < len(list); i++ {
		for k := i; k > 0 && urgency(list[k]) > urgency(list[k-1]); k-- {
			list[k], list[k-1] = list[k-1], list[k]
		}
	}
}

func urgency(s *session) Class {
	if w := s.pending.top(); w != nil {
		return w.rank.class
	}
	return Prefetch
}

// fill gives up to n pending wants of s to its useful peers and returns how many it gave.
func (e *Engine) fill(s *session, n int) int {
	given := e.fillPending(s, n)
	return given + e.fillDemand(s, n-given)
}

// fillDemand does the same for leaves that are demanded: each goes to the peer that would deliver it first, of those that
// have one.
func (e *Engine) fillDemand(s *session, n int) int {
	given := 0
	for given < n && s.demanded > 0 && s.mayAsk() && !e.sheds(s.cfg.Class) {
		if e.full() {
			break
		}
		sp := s.first()
		if sp == nil {
			break
		}
		i, ok := e.pick(s, sp)
		if ok && sp.use == useHolder && sp.spread() && int(s.man.avail[i]) > s.holders {
			if o := s.spares(sp.p); o != nil {
				sp = o
				i, ok = e.pick(s, sp)
			}
		}
		if !ok {
			sp.dry = true
			e.roomChanged(sp.p)
			continue
		}
		if sp.use == useHolder && !sp.p.room() && (int(s.man.avail[i]) > s.holders || sp.p.prompt()) {
			sp.full = true
			e.roomChanged(sp.p)
			continue
		}
		w := e.instantiate(s, i)
		switch a := w.asks.of(sp.p); {
		case w.state != Pending || e.takeEarly(w):
		case a != nil && a.kind != askHave && a.kind != askHeld: // another session was told that it is not there
			e.dequeue(w)
			e.offer(w)
		default:
			e.askBlock(w, sp)
		}
		given++
	}
	return given
}

// first returns the peer with room that would deliver first.
func (s *session) first() *sessionPeer {
	switch {
	case len(s.avail) == 0 && len(s.parts) == 0:
		return nil
	case len(s.parts) == 0:
		return s.avail[0]
	case len(s.avail) == 0 || s.parts[0].p.key < s.avail[0].p.key:
		return s.parts[0]
	}
	return s.avail[0]
}

// offerToFeeds gives a want to the peers that said they have it, and have not all that the session wants.
func (e *Engine) offerToFeeds(w *want) {
	s := w.home
	if w.man == nil || w.man != s.man || s.holders == len(s.peers) {
		return
	}
	for _, sp := range s.peers {
		if sp.use == useFeed && sp.mayHave(w) {
			sp.offerTo(w)
			s.offered = true
		}
	}
}

// fillPending gives up to n wants that nobody was asked for to the peers that have everything.
func (e *Engine) fillPending(s *session, n int) int {
	given := 0
	for given < n && s.mayAsk() {
		w := s.pending.top()
		if w == nil || e.full() || e.sheds(w.rank.class) {
			break
		}
		var sp *sessionPeer
		if len(s.avail) > 0 && s.avail[0].p.room() {
			sp = s.avail[0]
		} else if w.rank.class >= Urgent {
			sp = s.overtaking(w.rank.class)
		}
		if sp == nil {
			break
		}
		if a := w.asks.of(sp.p); a != nil && a.kind != askHave && a.kind != askHeld {
			e.dequeue(w)
			e.offer(w)
			continue
		}
		e.askBlock(w, sp)
		given++
	}
	return given
}

func (s *session) mayAsk() bool {
	return s.active() && !s.walking() && (s.cfg.MaxWaiting == 0 || s.waiting < s.cfg.MaxWaiting)
}

// overtaking finds a useful peer that may be asked beyond its window because the want is urgent.
func (s *session) overtaking(c Class) *sessionPeer {
	var best *sessionPeer
	for _, sp := range s.peers {
		if sp.use == useHolder && sp.p.roomFor(c) && (best == nil || sp.p.key < best.p.key) {
			best = sp
		}
	}
	return best
}

// askBlock asks the peer behind sp for w.
func (e *Engine) askBlock(w *want, sp *sessionPeer) {
	for a := w.asks.head; a != nil; {
		next := a.wnext
		switch {
		case a.p == sp.p || !a.standing():
		case a.list == &a.p.queue:
			e.dropAsk(a, true) // it was about to be announced again
		default:
			// The peer would send the block when it gets it, though somebody else is asked now.
			a.withdrawn = true
			a.p.cancel(w.cid)
			e.dirtyPeer(a.p)
		}
		a = next
	}
	a := w.asks.of(sp.p)
	if a == nil {
		a = e.newAsk(w, sp, askBlock)
	} else {
		if a.kind == askHeld {
			e.rarer(w, -1)
		}
		if a.list != &sp.p.queue {
			a.unlist()
			sp.p.queue.push(a)
		}
		sp.p.uncancel(w.cid)
		a.crossed = a.crossed || a.withdrawn || a.told && a.kind != askHeld
		a.withdrawn = false
		if a.sp != sp {
			a.sp.asks--
			sp.asks++
			a.sp = sp
		}
		e.dirtyPeer(sp.p)
	}
	a.block = true
	e.charge(a)
	if w.state == Pending {
		e.dequeue(w)
		w.contested = false
		w.to(Waiting)
		w.home.waiting++
	}
}

// standing reports whether the peer was asked for the block, is not expected to send it, and might.
func (a *ask) standing() bool {
	return a.block && !a.withdrawn && (a.kind == askMissing || a.kind == askLate)
}

// unwait takes a want that nobody is expected to deliver any more back to Pending, and offers it again.
func (e *Engine) unwait(w *want) {
	if w.state != Waiting || w.blocks > 0 {
		return
	}
	w.home.waiting--
	w.to(Failed)
	w.to(Pending)
	if !e.rehome(w) {
		e.revisit(w)
		e.offer(w)
	}
}

// rehome gives a Pending want to a session that asks more freely than its home does, if there is one: a session that is
// paused, or that may ask few peers, must not hold up another that wants the same. It reports whether it did.
func (e *Engine) rehome(w *want) bool {
	old := w.home
	if len(w.askers) < 2 || old.freedom() == 2 {
		return false
	}
	best := old
	for i := range w.askers {
		if s := w.askers[i].s; s.freedom() > best.freedom() {
			best = s
		}
	}
	if best == old {
		return false
	}
	e.dequeue(w)
	w.home, w.contested = best, false
	e.rerank(w)
	e.revisit(w)
	e.offer(w)
	return true
}

// freedom is 0 for a session that asks nobody now, 1 for one that asks only its own peers, and 2 for others.
func (s *session) freedom() int {
	switch {
	case !s.active():
		return 0
	case s.cfg.Only:
		return 1
	}
	return 2
}

// revisit makes the peers that are asked about wants one by one come back to w: they passed it while somebody else was
// expected to deliver it.
func (e *Engine) revisit(w *want) {
	s := w.home
	if s.holders == len(s.peers) {
		return
	}
	pos := w.asker(s).pos
	for _, sp := range s.peers {
		if sp.use != useHolder {
			sp.cursor = min(sp.cursor, pos)
		}
	}
	e.dirtySession(s)
}

// offer gives a Pending want to whoever may have it. Peers that said no, or did not deliver, are left out.
func (e *Engine) offer(w *want) {
	s := w.home
	refused := false
	for a := w.asks.head; a != nil; a = a.wnext {
		if a.kind == askMissing || a.kind == askLate {
			refused = true
			break
		}
	}
	if !refused {
		w.contested = false
		if w.heap < 0 {
			e.enqueue(w)
		}
		e.offerToFeeds(w) // who has all that the session wants takes it from the heap
		return
	}
	w.contested = true
	var best *sessionPeer
	for _, sp := range s.peers {
		if sp.mayHave(w) && sp.p.roomFor(w.rank.class) && (best == nil || sp.p.key < best.p.key) {
			best = sp
		}
	}
	if best != nil && s.mayAsk() && !e.dry() && !e.sheds(w.rank.class) {
		e.askBlock(w, best)
		return
	}
	for _, sp := range s.peers {
		if sp.mayHave(w) {
			sp.offerTo(w)
		}
	}
	s.offered = true
	e.dirtySession(s)
}

// offerTo makes w a candidate of the peer behind sp.
func (sp *sessionPeer) offerTo(w *want) {
	if len(sp.cand) > 2*sp.s.wants+64 {
		sp.cand.compact(sp.s)
	}
	sp.cand.push(w)
}

// mayHave reports whether it makes sense to ask the peer for w.
func (sp *sessionPeer) mayHave(w *want) bool {
	a := w.asks.of(sp.p)
	if a == nil || a.kind == askHave {
		return sp.use == useHolder || sp.use == useFeed && sp.told(w)
	}
	return a.kind == askHeld
}

// told reports whether the peer said that it has the leaf that w is.
func (sp *sessionPeer) told(w *want) bool {
	if w.man == nil {
		return false
	}
	f := sp.p.feeds[w.man.m.Root()]
	return f != nil && f.theirs != nil && f.theirs.has(int(w.leaf))
}

// recovered reports whether the peer was given up on for w and has shown since that it delivers.
func (sp *sessionPeer) recovered(w *want) bool {
	a := w.asks.of(sp.p)
	return a != nil && a.kind == askLate && sp.use == useHolder && sp.p.health.State() == HealthHealthy && sp.p.flow.heard > a.at
}

// offerContested makes the contested wants of the session candidates of a peer that has just become useful.
func (e *Engine) offerContested(sp *sessionPeer) {
	sp.s.log.each(func(w *want) {
		if w.state == Pending && w.contested && w.home == sp.s && sp.mayHave(w) {
			sp.offerTo(w)
		}
	})
	e.fillCandidates(sp.p)
}

// offerTold makes wants that nobody is asked for candidates of a peer that has not all any more: it took them from the heap
// before.
func (e *Engine) offerTold(sp *sessionPeer) {
	sp.s.log.each(func(w *want) {
		if w.state == Pending && w.home == sp.s && sp.mayHave(w) {
			sp.offerTo(w)
			sp.s.offered = true
		}
	})
}

// fillCandidates asks p for wants that it is known to have and nobody was asked for, while it has room.
func (e *Engine) fillCandidates(p *peer) {
	for _, sp := range p.sps {
		e.fillFrom(sp)
	}
}

// fillOffered does the same for every peer of a session, when one of them has got room otherwise than by delivering, or
// when the session may ask again.
func (e *Engine) fillOffered(s *session) {
	if !s.offered || !s.mayAsk() || e.dry() {
		return
	}
	s.offered = false
	for _, sp := range s.peers {
		e.fillFrom(sp)
	}
	s.offered = s.offered || !s.mayAsk() || e.shape.asks // then some candidates were not looked at
}

func (e *Engine) fillFrom(sp *sessionPeer) {
	for tries := 0; tries < askAgain && len(sp.cand) > 0 && sp.s.mayAsk(); tries++ {
		w := sp.cand.peek()
		if w == nil || !sp.p.roomFor(w.rank.class) && !(sp.p.roomHeld() && w.asks.of(sp.p) != nil) || e.dry() || e.sheds(w.rank.class) {
			break
		}
		sp.cand.pop()
		if sp.mayHave(w) {
			e.askBlock(w, sp)
		}
	}
}

// follow asks peers that are not known to have everything about the session's wants one by one.
func (e *Engine) follow(s *session) {
	if !s.active() || s.walking() || s.holders == len(s.peers) {
		return
	}
	// Leaves are passed once for all peers who tell of leaves, not once for each.
	w, next := s.log.next(s.told)
	for s.man != nil && w != nil && w.man == s.man {
		s.told = next
		w, next = s.log.next(next)
	}
	for _, sp := range s.peers {
		if sp.use == useFeed {
			if sp.cursor = max(sp.cursor, s.told); sp.cursor >= s.log.end {
				continue
			}
		}
		limit := followLimit
		switch {
		case sp.use == useHolder || !sp.p.usable() || sp.mayTell(e.now):
			continue
		case sp.use == useUnknown:
			limit = probeLimit
			if s.holders > 0 {
				limit = probeFew
			}
		}
		for sp.asks < limit && sp.p.entries < e.haveEntries() {
			w, next := s.log.next(sp.cursor)
			if w == nil {
				if sp.use == useFeed || !e.expose(s, sp) {
					break
				}
				continue
			}
			sp.cursor = next
			if w.state != Pending || w.asks.of(sp.p) != nil || sp.use == useFeed && w.man == s.man {
				continue
			}
			e.newAsk(w, sp, askHave)
		}
	}
}

// mayTell reports whether the peer may still say by itself what it has of the session's root. One that does not know the
// root may have leaves of it nevertheless.
func (sp *sessionPeer) mayTell(now time.Duration) bool {
	if !sp.p.caps.Indexes || sp.s.man == nil {
		return false // what is above the leaves nobody tells by itself
	}
	f := sp.p.feeds[sp.s.cfg.Root]
	return f != nil && !f.known && now < f.since+tellPatience
}

// expose makes a want of a leaf that the session demands, so that peers can be asked whether they have it.
func (e *Engine) expose(s *session, sp *sessionPeer) bool {
	if s.demanded == 0 {
		return false
	}
	i, ok := e.pick(s, sp)
	if !ok {
		return false
	}
	w := e.instantiate(s, i)
	if w.state == Pending && !e.takeEarly(w) && w.heap < 0 {
		e.offer(w)
	}
	return true
}

// watch sets the peer's timer to when its patience runs out.
func (e *Engine) watch(p *peer) {
	if e.ticker.heap < 0 && len(e.upPeers) > 1 {
		e.timers.set(&e.ticker, e.now+tickEvery)
	}
	e.timers.setEarlier(&p.timer, p.flow.heard+p.flow.patience())
}

// peerDue handles the peer's timer: back-offs and bans that end, silence, and single answers that do not come.
func (e *Engine) peerDue(p *peer) {
	if t, ok := p.health.Due(); ok && t <= e.now && p.health.Advance(e.now, e.rand.Float64()) {
		e.healed(p)
		e.look(p)
	}
	e.reach(p)
	e.timeHealth(p)
	if !p.up || p.flight.n == 0 {
		return
	}
	if e.now < p.flow.heard+p.flow.patience() {
		e.overdue(p)
		if p.flight.n > 0 {
			e.watch(p)
		}
		return
	}
	p.health.Stall(e.now, e.rand.Float64())
	p.silent = true
	e.stats.Stalls++
	p.merit.failed()
	for p.flight.head != nil {
		e.late(p.flight.head)
	}
	e.healthChanged(p)
}
