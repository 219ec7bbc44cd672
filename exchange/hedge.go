package exchange

import "time"

// This file sees to it that no single request holds a session up. A peer as a whole is watched by its patience (flow.go,
// peerDue); here each ask is, because a peer may send everything but one block, or that one block a byte at a time:
//
//  1. When nothing is left to ask for, a peer with room takes over what another would deliver clearly later (takeOver):
//     what was not begun is withdrawn there, what may be on its way is asked for twice, within a budget (hedge).
//  2. A peer that sends bytes but no block is judged by those bytes (crawl).
//  3. An ask beyond its limit goes to somebody else; if nobody else has the block, the same peer is told again (overdue).
//  4. A peer that was silent, or said that it lacks a block, is asked again after a while that doubles (forgive).

const (
	takeOverGain  = 2                      // a takeover must halve the wait
	takeOverSlack = 200 * time.Millisecond // and be worth this much
	takeOverLook  = 32                     // peers looked at
	takeOverTurn  = 16                     // at most so many in one turn of the loop
	lateAfter     = 5 * time.Second        // beyond what the peer's queue explains, while the session has other work
	overdueLook   = 32                     // asks of one peer looked at

	hedgeShare = 100 // one part in this many of a session's bytes may be asked for twice; one block in any case
	tailShare  = 50  // only while no more than one part in this many is missing
	tailAsks   = 16  // or so few asks

	crawlAfter = time.Second // a peer that sends no whole block for so long is judged by the bytes that come
	crawlLeast = 64 << 10    // bytes that show how fast a peer is that has delivered no block yet
	crawlSure  = 4           // how many times too slow a peer must be for its answer not to count as a duplicate to come

	lateFirst   = 2 * time.Second // age at which a lost request is tried again with the same peer, doubled each time
	forgiveMost = time.Minute
)

// takeOver lets peers with nothing to do take what others would deliver much later. A request that the other has not
// begun to answer is withdrawn there; the very one that it may be sending is asked for twice, see hedge.
func (e *Engine) takeOver(s *session) {
	for n := 0; n < takeOverTurn; n++ {
		sp := s.taker()
		if sp == nil || !sp.p.room() || len(s.pending) > 0 || s.waiting == 0 || !s.active() || s.demanded > 0 && sp.spread() || e.dry() {
			return
		}
		lost, victim, worst := e.slowest(sp)
		if lost != nil {
			w, p := lost.w, lost.p
			p.merit.failed()
			e.askBlock(w, sp)
			e.dropAsk(lost, true)
			s.stats.Takeovers++
			continue
		}
		if victim == nil {
			return
		}
		a := victim.stealable(sp)
		if a == nil {
			return
		}
		least := takeOverGain*sp.p.flow.expect(sp.p.inflight+a.size) + takeOverSlack
		if worst <= least {
			e.lookAgain(s, victim.p, least)
			return
		}
		w := a.w
		if a == victim.p.flight.head {
			if !e.hedge(s, a, least) {
				e.lookAgain(s, victim.p, least)
				return
			}
			e.askBlock(w, sp)
		} else {
			e.askBlock(w, sp)
			e.dropAsk(a, true)
		}
		s.stats.Takeovers++
	}
}

// taker returns the peer with room that would deliver first, of those that keep their word: what is on its way from others
// would come twice if it went to one that has not what it says.
func (s *session) taker() *sessionPeer {
	best := s.first()
	if best == nil || best.broken == 0 {
		return best
	}
	best = nil
	for _, sp := range s.peers {
		if sp.broken == 0 && sp.ready() && sp.p.room() && (best == nil || sp.p.key < best.p.key) {
			best = sp
		}
	}
	return best
}

// lookAgain sets the session's timer to when p may have become so slow that somebody else takes over: the longer it is
// silent, or sends no whole block, the more that is worth.
func (e *Engine) lookAgain(s *session, p *peer, least time.Duration) {
	at := e.now + crawlAfter
	if t := p.flow.heard + least/2; t > e.now {
		at = min(at, t)
	}
	if t := p.flow.came + max(least, crawlAfter); t > e.now {
		at = min(at, t)
	}
	if a := p.flight.head; a != nil {
		if t := a.at + a.limit(); t > e.now {
			at = min(at, t)
		}
	}
	e.timers.setEarlier(&s.timer, at+time.Millisecond)
}

// hedge reports whether the block that a is for may be asked of a second peer while the first may be sending it, and
// counts it. Only at the end of a session is that worth anything, and only within its share; a peer that is so slow that
// its answer would hardly come before the session's end costs no share.
func (e *Engine) hedge(s *session, a *ask, least time.Duration) bool {
	if a.p.crawl(e.now) <= crawlSure*least {
		most := max(s.stats.Bytes/hedgeShare, a.size)
		if !s.tail() || s.hedged+a.size > most {
			return false
		}
		s.hedged += a.size
	}
	s.stats.Hedges++
	s.stats.HedgedBytes += a.size
	return true
}

// tail reports whether the session has asked for all that it misses, and that is little.
func (s *session) tail() bool {
	return s.demanded == 0 && len(s.pending) == 0 &&
		(s.waiting <= tailAsks || int64(s.waiting)*s.guess() <= s.stats.Bytes/tailShare)
}

// finish returns when the peer will have delivered all that was asked of it, by its measured rate or, when it is silent
// for longer than that explains, by its silence.
func (p *peer) finish(now time.Duration) time.Duration {
	silent := 2 * (now - p.flow.heard)
	if p.flow.rate == 0 {
		return silent // not measured yet: only silence speaks against it
	}
	return max(p.flow.expect(p.inflight), silent)
}

// crawl returns how long the next block will take of a peer that has sent none for a while, by the bytes that have come
// meanwhile, or 0 if it sends blocks.
func (p *peer) crawl(now time.Duration) time.Duration {
	f := &p.flow
	a := p.flight.head
	if a == nil || now-f.came < crawlAfter {
		return 0
	}
	d, bytes := now-f.came, f.bytes-f.cameAt
	if bytes <= 0 {
		return d // it may take as long again
	}
	left := float64(a.size - bytes)
	if left <= 0 {
		return 0
	}
	return time.Duration(min(float64(d)*left/float64(bytes), float64(time.Hour)))
}

// stealable returns the newest request to v that the peer behind sp could answer instead, or nil.
func (v *sessionPeer) stealable(sp *sessionPeer) *ask {
	a := v.p.flight.tail
	for range 32 {
		if a == nil {
			return nil
		}
		if sp.couldTake(a) {
			return a
		}
		a = a.prev
	}
	return nil
}

// couldTake reports whether the peer behind sp may be asked for what only a's peer was asked for.
func (sp *sessionPeer) couldTake(a *ask) bool {
	return a.w.home == sp.s && a.w.blocks == 1 && a.w.state == Waiting && (sp.mayHave(a.w) || sp.recovered(a.w))
}

// slowest returns an ask of some peer's that has been passed over for too long, and that the peer behind sp could answer; or
// else the peer that will have delivered last what it was asked for, and when. Among many peers only some are looked at in
// one turn, others in the next.
func (e *Engine) slowest(sp *sessionPeer) (lost *ask, victim *sessionPeer, worst time.Duration) {
	s := sp.s
	for range min(len(s.peers), takeOverLook) {
		if s.look++; s.look >= len(s.peers) {
			s.look = 0
		}
		v := s.peers[s.look]
		p := v.p
		a := p.flight.head
		if v == sp || a == nil {
			continue
		}
		for i := 0; a != nil && i < tailAsks && e.now-a.at > stallMin; i++ { // the oldest come first
			if a.overtaken() && e.now-a.at > a.limit() && sp.couldTake(a) && sp.p.proven() {
				return a, nil, 0
			}
			a = a.next
		}
		if t := max(p.finish(e.now), p.crawl(e.now)); victim == nil || t > worst {
			victim, worst = v, t
		}
	}
	return nil, victim, worst
}

// limit returns how old an ask may become before it counts as lost: twice what the peer's queue explains, and a few round
// trips. While its session has other work there is no hurry. What was said again is waited for longer each time.
func (a *ask) limit() time.Duration {
	f := &a.p.flow
	d := stallFirst
	if f.rtt > 0 {
		d = min(max(8*f.rtt, stallMin), stallMax)
	}
	d += 2 * f.expect(a.p.inflight)
	if s := a.w.home; s.cfg.Order == Rarest && !s.tail() {
		d += lateAfter
	}
	return d << min(a.again, 4)
}

// overtaken reports whether the peer has sent what it was asked for later.
func (a *ask) overtaken() bool { return a.p.newest > a.number }

// starved reports whether so little came from the peer since it was asked that it cannot be sending the block.
func (a *ask) starved() bool { return a.p.flow.bytes-a.mark < a.size/4 }

// overdue deals with the asks of a peer that is not silent but has not answered them in time. Somebody else is asked; if
// nobody else is known to have the block, the peer is told again, in case it has forgotten: without a cancel, because
// peers that decode a message into a table of CIDs would take a want and a cancel in one message for a cancel.
func (e *Engine) overdue(p *peer) {
	if p.flow.rate == 0 {
		p.flow.guessRate(e.now)
	}
	a, before := p.flight.head, p.flight.n
	for i := 0; a != nil; i++ {
		if i == overdueLook {
			if p.flight.n < before { // and there may be more: many small blocks can be lost at once
				e.timers.setEarlier(&p.timer, e.now+time.Millisecond)
			}
			return
		}
		next := a.next
		limit := a.limit()
		if due := a.at + limit; e.now <= due {
			e.timers.setEarlier(&p.timer, due+time.Millisecond)
			a = next
			continue
		}
		switch {
		case e.someoneElse(a) && !(a.overtaken() && a.again == 0 && !e.provenElse(a)):
			p.merit.failed()
			failed := p.health.Fail(e.now, a.at, e.rand.Float64())
			e.late(a)
			if failed {
				e.healthChanged(p)
				return
			}
		case a.overtaken() || p.flow.heard > a.at && a.starved() && e.now-a.at > 2*limit: // else its patience counts
			p.merit.failed()
			e.sayAgain(a)
		default:
			e.timers.setEarlier(&p.timer, e.now+limit)
		}
		a = next
	}
}

// proven reports whether the peer has been seen to deliver. One that has not may take longer than telling the first again.
func (p *peer) proven() bool { return p.flow.rate > 0 }

// provenElse is someoneElse among peers that have been seen to deliver.
func (e *Engine) provenElse(a *ask) bool {
	for _, sp := range a.w.home.peers {
		if sp.p != a.p && sp.p.usable() && sp.p.proven() && sp.mayHave(a.w) {
			return true
		}
	}
	return false
}

// someoneElse reports whether another peer could be asked for what a asks for.
func (e *Engine) someoneElse(a *ask) bool {
	for _, sp := range a.w.home.peers {
		if sp.p != a.p && sp.p.usable() && (sp.mayHave(a.w) || sp.recovered(a.w)) {
			return true
		}
	}
	return false
}

// sayAgain asks the peer that a asks once more.
func (e *Engine) sayAgain(a *ask) {
	w, p, again := a.w, a.p, a.again
	sp := w.home.peer(p)
	if sp == nil || w.blocks > 1 {
		e.late(a)
		return
	}
	e.dropAsk(a, true) // the new ask takes the cancel back
	e.askBlock(w, sp)
	w.asks.of(p).again = again + 1
	w.home.stats.Again++
}

// late writes off an answer that is overdue. The request stands: if the block comes after all it is taken.
func (e *Engine) late(a *ask) {
	w, p := a.w, a.p
	a.at = e.now
	e.uncharge(a)
	a.unlist()
	p.known.push(a)
	e.unwait(w)
	if w.state == Pending {
		e.timers.setEarlier(&w.home.timer, e.now+w.patience(askLate)+time.Millisecond)
	}
}

// patience returns how old a refusal of w, or a request that was given up, must be for the peer to be asked again. It
// doubles each time that this was done.
func (w *want) patience(k askKind) time.Duration {
	first := forgiveAfter
	if k == askLate {
		first = lateFirst
	}
	return min(first<<min(w.lapses, 5), forgiveMost)
}

// forgive makes wants that were refused or lost a while ago askable again.
func (e *Engine) forgive(s *session) {
	found := false
	s.log.each(func(w *want) {
		if w.state != Pending || w.home != s {
			return
		}
		forgiven := false
		for a := w.asks.head; a != nil; {
			next := a.wnext
			if (a.kind == askMissing || a.kind == askLate) && a.list != &a.p.queue && e.now-a.at >= w.patience(a.kind) {
				e.dropAsk(a, true) // a new ask of the same peer withdraws the cancel again
				forgiven = true
			}
			a = next
		}
		if forgiven {
			found = true
			w.lapses = min(w.lapses+1, 8)
		}
		if w.heap < 0 && w.state == Pending {
			w.contested = false
			e.offer(w)
		}
	})
	if found {
		for _, sp := range s.peers {
			if sp.use == usePart || sp.use == useUnknown { // the ask may have been another session's
				sp.cursor = 0
			}
		}
		e.dirtySession(s)
	}
}
