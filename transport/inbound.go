package transport

import (
	"context"
	"sync"
	"time"

	"dray"
)

// standing is where a peer that has connected is on its way in.
type standing int

const (
	standingTentative standing = iota // what it says is kept
	standingHandover                  // what was kept is being handed over; what comes waits
	standingLive                      // what it says is handed over at once
	standingGone                      // what it says is thrown away
)

// inbound is what comes from one peer. It is the Sink of the peer's Receiver.
//
// The order of what is handed over: what was kept, then what came during the handover, then what comes. During the handover
// the reader waits, so nothing passes.
type inbound struct {
	l        *Links
	peer     dray.PeerID
	receiver *Receiver
	ctx      context.Context
	cancel   context.CancelFunc
	idle     sync.WaitGroup // streams being read, and the handover

	// Guarded by Links.mu.
	standing standing
	heard    bool          // the peer was admitted at some time
	live     chan struct{} // closed when there is no handover under way nor to come
	streams  int
}

// newInbound returns what comes from a peer that has no stream yet. The caller holds mu.
func (l *Links) newInbound(peer dray.PeerID, s standing) *inbound {
	in := &inbound{l: l, peer: peer, standing: s, live: make(chan struct{})}
	in.ctx, in.cancel = context.WithCancel(l.ctx)
	in.receiver = NewReceiver(ReceiverConfig{
		Peer: peer, Sink: in, MaxMessage: l.cfg.Dispatcher.MaxMessage, counts: l.counts,
	})
	if s == standingLive {
		in.heard = true
		close(in.live)
	}
	l.inbounds[peer] = in
	return in
}

// verdict says whether a peer is heard. It is called without mu, because it asks others.
func (l *Links) verdict(peer dray.PeerID) Verdict {
	said := Undecided
	if l.cfg.Admission != nil {
		said = l.cfg.Admission.Admit(peer)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if said == Undecided && l.members[peer] != nil {
		return Admitted
	}
	return said
}

// accept reads one stream of a peer's until it ends.
func (l *Links) accept(peer dray.PeerID, s Stream) {
	verdict := l.verdict(peer)
	l.mu.Lock()
	in := l.inbounds[peer]
	var dismissed []*inbound
	switch {
	case l.stopped || verdict == Refused:
		l.mu.Unlock()
		_ = s.Reset()
		return
	case in == nil && verdict == Admitted:
		in = l.newInbound(peer, standingLive)
	case in == nil:
		dismissed = l.dismissed(l.tentative.Add(time.Now(), peer))
		in = l.newInbound(peer, standingTentative)
		l.expireLater()
	}
	in.streams++
	in.idle.Add(1)
	undecided := in.standing == standingTentative
	l.mu.Unlock()
	for _, d := range dismissed {
		d.end()
	}
	if undecided && l.verdict(peer) == Admitted {
		l.promote(in) // it was admitted between the question and now
	}
	_ = in.receiver.Run(in.ctx, s)
	l.mu.Lock()
	in.streams--
	l.leave(in)
	l.mu.Unlock()
	in.idle.Done()
}

// leave forgets a peer whose last stream has ended, unless it is a member: of a member it is remembered what has been received.
// The caller holds mu.
func (l *Links) leave(in *inbound) {
	if in.streams > 0 || l.inbounds[in.peer] != in || in.standing == standingHandover || l.members[in.peer] != nil {
		return
	}
	delete(l.inbounds, in.peer)
	l.forget(in)
	in.cancel()
}

// forget makes a peer that is no longer in inbounds one that is not heard. The caller holds mu.
func (l *Links) forget(in *inbound) {
	in.standing = standingGone
	if held, ok := l.tentative.Take(time.Now(), in.peer); ok {
		l.countLost(held.Messages)
		l.countLost(held.Aged)
	}
}

func (l *Links) countLost(list []Received) {
	for _, m := range list {
		l.counts.dropped(m.Label, len(m.Data))
	}
}

// dismissed takes peers that Tentative has let go out of inbounds; the caller ends them without mu. The caller holds mu.
func (l *Links) dismissed(list []Held[Received]) []*inbound {
	var out []*inbound
	for _, h := range list {
		l.countLost(h.Messages)
		l.countLost(h.Aged)
		if in := l.inbounds[h.Peer]; in != nil {
			delete(l.inbounds, h.Peer)
			in.standing = standingGone
			out = append(out, in)
		}
	}
	return out
}

// end closes a peer's streams.
func (in *inbound) end() {
	in.cancel()
	in.receiver.Close()
}

// expireLater dismisses peers when they have been undecided for too long. The caller holds mu.
func (l *Links) expireLater() {
	if l.expiring {
		return
	}
	due, ok := l.tentative.Due()
	if !ok {
		return
	}
	l.expiring = true
	l.wg.Go(func() {
		for ok {
			t := time.NewTimer(time.Until(due))
			select {
			case <-t.C:
			case <-l.ctx.Done():
				t.Stop()
				return
			}
			l.mu.Lock()
			gone := l.dismissed(l.tentative.Expire(time.Now()))
			due, ok = l.tentative.Due()
			l.expiring = ok
			l.mu.Unlock()
			for _, in := range gone {
				in.end()
			}
		}
	})
}

// Readmit asks again about every peer that has connected: because the Admission may say something else than before. Those that
// are admitted now are heard, what was kept of them first; the streams of those that are refused, and of those that were admitted
// and are so no longer, are closed. Connect does it by itself.
func (l *Links) Readmit() {
	l.mu.Lock()
	var all []*inbound
	for _, in := range l.inbounds {
		all = append(all, in)
	}
	l.mu.Unlock()
	for _, in := range all {
		verdict := l.verdict(in.peer)
		if verdict == Admitted {
			l.promote(in)
			continue
		}
		l.mu.Lock()
		shut := l.inbounds[in.peer] == in && (verdict == Refused || in.heard)
		if shut {
			delete(l.inbounds, in.peer)
			l.forget(in)
		}
		l.mu.Unlock()
		if shut {
			in.end()
		}
	}
}

// promote hands over what was kept of a peer, and lets what comes through after that.
func (l *Links) promote(in *inbound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || in.standing != standingTentative || l.inbounds[in.peer] != in {
		return
	}
	held, _ := l.tentative.Take(time.Now(), in.peer)
	l.countLost(held.Aged)
	in.standing, in.heard = standingHandover, true
	in.idle.Add(1)
	l.wg.Go(func() {
		defer in.idle.Done()
		l.handOver(in, held)
	})
}

func (l *Links) handOver(in *inbound, held Held[Received]) {
	for i, m := range held.Messages {
		if i == 0 {
			m.Missed += uint64(held.Dropped)
		}
		if l.cfg.Sink.Received(in.ctx, m) != nil {
			in.receiver.Close()
			l.counts.dropped(m.Label, len(m.Data))
			l.countLost(held.Messages[i+1:])
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if in.standing == standingHandover {
		in.standing = standingLive
	}
	close(in.live)
	l.leave(in)
}

// Received implements [Sink] for the peer's Receiver.
func (in *inbound) Received(ctx context.Context, m Received) error {
	l := in.l
	for {
		l.mu.Lock()
		switch in.standing {
		case standingTentative:
			l.countLost(l.tentative.Hold(time.Now(), in.peer, m, len(m.Data)))
			l.mu.Unlock()
			return nil
		case standingLive:
			l.mu.Unlock()
			return l.cfg.Sink.Received(ctx, m)
		case standingGone:
			l.mu.Unlock()
			return dray.ErrClosed
		}
		l.mu.Unlock()
		select {
		case <-in.live:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Disconnected implements [Sink] for the peer's Receiver: of peers that were never admitted nobody hears.
func (in *inbound) Disconnected(peer dray.PeerID, err error) {
	l := in.l
	l.mu.Lock()
	heard := in.heard
	l.mu.Unlock()
	if heard {
		<-in.live // after the last message that was kept
		l.cfg.Sink.Disconnected(peer, err)
	}
}
