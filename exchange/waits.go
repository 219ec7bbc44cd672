package exchange

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"dray"
)

// Reason is why a session does not advance.
type Reason uint8

// The reasons. Those that nothing can make up for come first.
const (
	// ReasonPaused: the session was paused, and asks for nothing until it is resumed.
	ReasonPaused Reason = iota + 1
	// ReasonDiskFull: the last block could not be written because there is no space.
	ReasonDiskFull
	// ReasonWriting: so much waits to be written that nothing new is asked for, or all that was asked for is being written.
	ReasonWriting
	// ReasonLimited: this host's own limit lets no more through now.
	ReasonLimited
	// ReasonAsked: the peer was asked for blocks and is within the time that it may take.
	ReasonAsked
	// ReasonSilent: the peer was asked for blocks, and nothing has come from it for longer than a round trip and its queue
	// explain.
	ReasonSilent
	// ReasonSlow: the peer sends bytes, but has sent no whole block for longer than its measured rate explains.
	ReasonSlow
	// ReasonAsking: the peer was asked what it has.
	ReasonAsking
	// ReasonDialling: the peer is expected to have the content and not connected; it is being dialled, or will be again.
	ReasonDialling
	// ReasonBackedOff: the peer did not deliver, and is left alone for a while.
	ReasonBackedOff
	// ReasonRefused: the peer serves nobody, or not this host.
	ReasonRefused
	// ReasonLacks: the peer says that it does not have what is missing. It is asked again later.
	ReasonLacks
	// ReasonBanned: the peer broke the protocol and is refused.
	ReasonBanned
	// ReasonLooking: peers that have the content are being sought.
	ReasonLooking
	// ReasonNobody: nobody is connected, and nobody is sought.
	ReasonNobody

	// ReasonChecking, ReasonFinishing and ReasonNotFound are a driver's: what an earlier attempt left is being looked through; what
	// was got is being synced and moved to its place; all who might know of somebody who has the content have been asked, and
	// nobody was found. They are asked again later.
	ReasonChecking
	ReasonFinishing
	ReasonNotFound
)

var reasonNames = [...]string{
	"", "paused", "disk full", "writing", "limited", "asked", "silent", "slow", "asking", "dialling", "backed off", "refused",
	"lacks it", "banned", "looking", "nobody", "checking", "finishing", "not found",
}

// String returns a word or two for the reason.
func (r Reason) String() string { return nameOf(reasonNames[:], int(r)) }

// Wait is one reason why a session does not advance.
type Wait struct {
	// Reason is why.
	Reason Reason
	// Peer is whom it is about, or "".
	Peer dray.PeerID
	// Since is when it began, on the driver's clock.
	Since time.Duration
	// Until is when it ends by itself or, for peers that were asked, when somebody else is asked or the same peer again. If
	// zero, nobody knows.
	Until time.Duration
	// Blocks and Bytes are what is waited for, of this session's.
	Blocks int
	Bytes  int64
	// Rate is what the peer was measured to deliver in bytes a second; 0 when not known. With ReasonSlow it is what comes now.
	Rate float64
}

const (
	maxWaits  = 16   // reasons that are told
	waitPeers = 1024 // peers of a session that are looked at
)

// Waits returns why session id does not advance, what weighs most first, at most sixteen reasons. It returns nil when the
// session is unknown or misses nothing. It changes nothing, and is not for hot paths.
func (e *Engine) Waits(id SessionID, now time.Duration) []Wait {
	s := e.sessions[id]
	if s == nil || s.ended() || s.wants == 0 && s.demanded == 0 && !s.walking() {
		return nil
	}
	var out []Wait
	add := func(w Wait) { out = append(out, w) }
	if s.state == SessionPaused {
		add(Wait{Reason: ReasonPaused, Since: s.pausedAt})
	}
	if e.diskFull != 0 {
		add(Wait{Reason: ReasonDiskFull, Since: e.diskFull})
	}
	if e.receiving >= e.cfg.ReceiveBytes || e.receiving > 0 && s.waiting == 0 && s.demanded == 0 && len(s.pending) == 0 {
		add(Wait{Reason: ReasonWriting, Since: e.storedAt, Bytes: e.receiving})
	}
	if b := e.shape.down; e.shape.asks { // a copy: opens brings a bucket up to date
		add(Wait{Reason: ReasonLimited, Since: max(s.foundAt, s.since), Until: b.opens(now)})
	}
	for i, sp := range s.peers {
		if i == waitPeers {
			break
		}
		add(sp.wait(now))
	}
	if s.state != SessionPaused {
		e.waitsForAbsent(s, now, add)
	}
	slices.SortStableFunc(out, func(a, b Wait) int {
		if c := cmp.Compare(a.Reason.weight(), b.Reason.weight()); c != 0 {
			return c
		}
		if c := cmp.Compare(b.Bytes, a.Bytes); c != 0 {
			return c
		}
		return cmp.Compare(a.Since, b.Since)
	})
	return out[:min(len(out), maxWaits)]
}

// weight orders the reasons by how much they matter: of the peers that were asked, those first that are in trouble.
func (r Reason) weight() int {
	switch r {
	case ReasonSilent, ReasonSlow:
		return int(ReasonAsked)
	case ReasonAsked:
		return int(ReasonSilent)
	}
	return int(r)
}

// wait returns what the session waits for from one connected peer.
func (sp *sessionPeer) wait(now time.Duration) Wait {
	s, p := sp.s, sp.p
	w := Wait{Peer: p.id, Rate: p.flow.rate, Reason: ReasonAsking, Since: p.merit.seen}
	var first *ask
	for a := p.flight.head; a != nil; a = a.next {
		if a.w.home == s {
			if first == nil {
				first, w.Since = a, a.at
			}
			w.Blocks++
			w.Bytes += a.size
		}
	}
	if s.walk.p == p && first == nil {
		w.Since, w.Blocks = s.walk.at, 1
		w.Until = min(max(s.walk.at, p.flow.heard)+walkPatience, s.walk.at+walkLongest)
	}
	explained := p.flow.expect(p.inflight)
	switch {
	case p.health.State() == HealthBackedOff:
		w.Reason = ReasonBackedOff
		w.Until, _ = p.health.Due()
	case p.withholds || sp.denied && w.Blocks == 0:
		w.Reason = ReasonRefused
	case w.Blocks == 0 && p.shape.thirsty:
		b := p.shape.down
		w.Reason, w.Until = ReasonLimited, b.opens(now)
	case w.Blocks == 0:
		// It was asked whether it has something, or is about to be, unless it has answered.
		if lacks, again := sp.refused(); lacks {
			w.Reason, w.Until = ReasonLacks, again
		}
	case now-max(p.flow.heard, w.Since) > max(2*explained, crawlAfter):
		w.Reason, w.Since = ReasonSilent, max(p.flow.heard, w.Since)
	case first != nil && p.crawl(now) > 2*explained:
		w.Reason, w.Since = ReasonSlow, max(p.flow.came, w.Since)
		w.Rate = float64(p.flow.bytes-p.flow.cameAt) / (now - p.flow.came).Seconds()
	default:
		w.Reason = ReasonAsked
	}
	if first != nil && w.Reason != ReasonBackedOff {
		w.Until = max(min(first.at+first.limit(), p.flow.heard+p.flow.patience()), now)
	}
	return w
}

// refused reports whether the peer has said that it lacks what the session misses, and when it is asked again; 0 if nobody
// knows.
func (sp *sessionPeer) refused() (yes bool, again time.Duration) {
	yes = sp.misses > 0 || sp.dry && sp.use == useFeed
	for a := sp.p.known.head; a != nil; a = a.next {
		if a.w.home != sp.s || a.kind != askMissing && a.kind != askLate {
			continue
		}
		yes = true
		if t := a.at + a.w.patience(a.kind); again == 0 || t < again {
			again = t
		}
	}
	return yes, again
}

// waitsForAbsent adds what the session waits for from peers that are not connected.
func (e *Engine) waitsForAbsent(s *session, now time.Duration, add func(Wait)) {
	named := 0
	for _, id := range s.cfg.Peers {
		p := e.peers[id]
		switch {
		case p != nil && p.up:
			continue
		case named == waitPeers:
			return
		}
		named++
		w := Wait{Reason: ReasonDialling, Peer: id, Since: s.since}
		if p != nil {
			w.Since = max(w.Since, p.merit.seen)
			if _, banned := e.Banned(now, id); banned {
				w.Reason = ReasonBanned
			}
			if at, ok := p.health.Due(); ok && at > now && p.health.State() != HealthDialling {
				w.Until = at
			}
		}
		add(w)
	}
	switch {
	case s.cfg.Only && len(s.cfg.Peers) > 0:
	case s.findAt > 0 && s.waiting == 0:
		add(Wait{Reason: ReasonLooking, Since: max(s.since, s.foundAt), Until: max(s.findAt, now)})
	case len(s.peers)+named == 0:
		add(Wait{Reason: ReasonNobody, Since: s.since})
	}
}

// noteStored keeps what Waits tells of the store.
func (e *Engine) noteStored(now time.Duration, err error) {
	e.storedAt = now
	switch {
	case err == nil:
		e.diskFull = 0
	case errors.Is(err, dray.ErrNoSpace) && e.diskFull == 0:
		e.diskFull = max(now, 1)
	}
}

// Standings says, for a session, what each connected peer is expected to deliver. It allocates and is not for hot paths.
func (e *Engine) Standings(id SessionID) []Standing {
	s := e.sessions[id]
	if s == nil {
		return nil
	}
	var out []Standing
	for _, sp := range s.peers {
		out = append(out, Standing{
			Peer: sp.p.id, Health: sp.p.health.State(), Asked: sp.p.blocks, Bytes: sp.p.inflight,
			Silent: e.now - sp.p.flow.heard, Rate: sp.p.flow.rate, RTT: sp.p.flow.rtt,
			Lacks: sp.lacks(), Denied: sp.denied, Delivered: sp.bytes,
		})
	}
	return out
}

// lacks reports whether the peer's last answers were that it does not have what the session asked for.
func (sp *sessionPeer) lacks() bool {
	if sp.misses > 0 || sp.denied {
		return true
	}
	if sp.use != usePart || sp.haves > 0 || sp.bytes > 0 {
		return false
	}
	for a := sp.p.known.head; a != nil; a = a.next { // its first answer, which made it usePart, may be its last
		if a.kind == askMissing && a.w.home == sp.s {
			return true
		}
	}
	return false
}

// Standing is one peer's part in a session.
type Standing struct {
	// Peer is who.
	Peer dray.PeerID
	// Health is what the engine thinks of it.
	Health Health
	// Asked is the number of blocks that it is expected to send, in any session, and Bytes their size.
	Asked int
	Bytes int64
	// Silent is how long ago it last gave a sign of life.
	Silent time.Duration
	// Rate is its measured delivery in bytes a second, and RTT its round trip; 0 when not known yet.
	Rate float64
	RTT  time.Duration
	// Lacks is true when its last answers were that it does not have what the session asked for.
	Lacks bool
	// Denied is true when it does not accept the proof that this host may have the session's root.
	Denied bool
	// Delivered is the number of bytes that the session got from it.
	Delivered int64
}
