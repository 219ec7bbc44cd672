package exchange

import "time"

// This file makes many hosts that fetch one root share the work. Whoever holds everything is the bottleneck: while it sends
// anything twice, something has not been sent once. So sessions that fetch the rarest first
//
//  1. ask a holder of everything for more than its window explains, but only for leaves that nobody else is known to have
//     (spare): it can then always choose one that it has sent to nobody yet;
//  2. take such a leaf back as soon as somebody else has it (relieve, giveBack), so that it comes from there;
//  3. ask others for what they have, even if the holder would send it sooner (spares);
//  4. and the holder serves, of what a peer asked for, what it has sent least often (copies, in serve.go).

// spareAsks is how many leaves a holder of everything may be asked for beyond its window, so that it can choose.
const spareAsks = 16

// spareQueue is how long the window of a holder must last for it to be asked for more: one that sends at once what it is
// asked for has nothing to choose from.
const spareQueue = 40 * time.Millisecond

// sentAhead is how many bytes a peer is taken to have sent already of those that it was asked for, beyond 50 ms of its
// work: they are in the buffers of both kernels. To ask somebody else for them would bring them twice.
const sentAhead = 1 << 20

// prompt reports whether the peer soon sends what it was asked for.
func (p *peer) prompt() bool { return p.flow.rate > 0 && p.flow.expect(p.inflight) <= spareQueue }

// onItsWay reports whether a is among what its peer is likely to have sent already.
func (a *ask) onItsWay() bool {
	left := int64(sentAhead) + int64(a.p.flow.rate/20)
	for o := a.p.flight.head; o != nil && left > 0; o = o.next {
		if o == a {
			return true
		}
		left -= o.size
	}
	return false
}

// spread reports whether the session and the peer behind sp take part in this.
func (sp *sessionPeer) spread() bool {
	return sp.s.cfg.Order == Rarest && sp.s.man != nil && sp.p.caps.Indexes
}

// roomToSpare reports whether the peer behind sp may be asked for a leaf that nobody else has, beyond its window.
func (sp *sessionPeer) roomToSpare() bool {
	p := sp.p
	return sp.use == useHolder && sp.spread() && !sp.full && p.usable() && !p.shape.thirsty && p.entries < maxEntries-entryReserve &&
		p.blocks < min(spareAsks, p.health.Limit())
}

// listed reports whether sp belongs into its session's heap of peers with room.
func (sp *sessionPeer) listed() bool {
	return !sp.gone && !sp.mute && sp.ready() && (sp.p.room() || sp.roomToSpare())
}

// moves reports whether a leaf that was asked of the peer behind old should come from another that has just got it,
// whatever the one was measured to deliver: the one has everything, and the other has not.
func (old *sessionPeer) moves(to *sessionPeer) bool {
	return old.use == useHolder && to.use != useHolder && old.spread() && to.spread()
}

// giveBack takes back a leaf that was asked of one peer: it is demanded as before, and the next peer with room that has
// it is asked. It reports whether it did.
func (e *Engine) giveBack(w *want) bool {
	s := w.home
	if w.state != Waiting || w.man == nil || w.man != s.man || !w.lazy || len(w.askers) != 1 || w.asks.n != 1 {
		return false
	}
	e.dropAsk(w.asks.head, true)
	w.to(Cancelled)
	e.done.add(w.cid, s.id) // the block may be on its way already
	s.waiting--
	s.wants--
	i := int(w.leaf)
	e.retire(w)
	s.demand.add(i)
	s.demanded++
	s.low = min(s.low, i>>6)
	for _, sp := range s.peers {
		if f := sp.p.feeds[s.man.m.Root()]; sp.dry && sp.use == useFeed && f.theirs != nil && f.theirs.has(i) {
			sp.dry = false
			e.roomChanged(sp.p)
		}
	}
	e.dirtySession(s)
	return true
}

// spareWait is how much of its time, and spareBytes how much at least, a peer is asked for before a leaf that it has comes
// from a holder of everything.
const (
	spareWait  = 500 * time.Millisecond
	spareBytes = 4 << 20
)

// spares returns a peer to be asked in place of a holder of everything, when others have all that it would be asked for:
// it is spared while the others, if they are not much slower, are not asked for much more than they deliver at once. It
// returns nil when they are.
func (s *session) spares(holder *peer) *sessionPeer {
	if len(s.parts) > 0 {
		return s.parts[0]
	}
	var best *sessionPeer
	for _, sp := range s.peers {
		p := sp.p
		if 3*p.flow.rate < holder.flow.rate {
			continue // its line is slow: it would only take longer
		}
		if sp.use != useFeed || sp.dry || !p.usable() || p.shape.thirsty || p.health.State() == HealthSlow || p.entries >= maxEntries-entryReserve ||
			p.blocks >= p.health.Limit() || p.inflight >= spareBytes && p.flow.expect(p.inflight) >= spareWait {
			continue
		}
		if best == nil || p.key < best.p.key {
			best = sp
		}
	}
	return best
}
