package health

import (
	"fmt"
	"math"
	"time"
)

const (
	// Probes is how many blocks a peer in Probing may be asked for at a time.
	Probes = 2
	// SlowAsks is how many blocks a peer in Slow may be asked for at a time.
	SlowAsks = 8
	// NearRTT is the round trip below which a peer counts as near: on the same LAN.
	NearRTT = 5 * time.Millisecond

	successes     = 2                // deliveries in Probing that make a peer healthy
	threshold     = 5                // failures
	window        = time.Minute      // within this, that open the breaker
	waitFirst     = 20 * time.Second // the first back-off; see the package comment
	waitFirstNear = time.Second
	waitMax       = 10 * time.Minute
	waitHeld      = 2 * time.Second // the longest while the network is thought to be cut
	waitHeldNear  = time.Second
	waitHeldLong  = 10 * time.Second // the same after it was cut for
	heldLong      = 2 * time.Minute
	jitterShare   = 0.2
	banFailures   = 10 // back-offs in a row, connected, that ban
	banFor        = time.Hour
	dialFor       = time.Minute            // a dial that nobody reports on has failed
	redialAfter   = 250 * time.Millisecond // from losing a connection to the first dial
	redialNear    = 50 * time.Millisecond
)

// Peer is the health of one peer. The zero value is one that was never met. It is not safe for concurrent use.
//
// Invariant: until is 0 or when the state changes by itself; it is set in BackedOff, Banned and Dialling.
type Peer struct {
	state   State
	up      bool // connected
	near    bool
	quiet   bool // see Quiet
	held    bool // the network is thought to be cut, since heldAt
	heldAt  time.Duration
	doubt   bool          // it failed while connected: the next connection begins half open
	early   bool          // it is half open before its back-off was over: what comes of it does not count double
	until   time.Duration // see Due
	wait    time.Duration // the last back-off, 0 after a success
	good    int           // deliveries in Probing
	opened  int           // back-offs in a row of a connected peer
	dragged time.Duration // when it was last found to drag, or 0
	dialled time.Duration // when the dial under way began

	failures [threshold]time.Duration // the last ones, oldest first
	failed   int                      // how many
	counted  time.Duration            // when a failure was counted last

	reason Reason
	detail string
}

// Status describes a Peer.
type Status struct {
	// State is what is thought of it, and Until when that changes by itself; 0 if it does not.
	State State
	Until time.Duration
	// Reason and Detail say why it is banned.
	Reason Reason
	Detail string
	// Failures is how many were counted in a row, at most five, and BackOff the last back-off without the random part.
	Failures int
	BackOff  time.Duration
	// Near is whether it is taken to be on the same LAN.
	Near bool
}

// Status returns what there is to tell.
func (p *Peer) Status() Status {
	return Status{
		State: p.state, Until: p.until, Reason: p.reason, Detail: p.detail, Failures: p.failed, BackOff: p.wait, Near: p.near,
	}
}

// String says the state, and why.
func (p *Peer) String() string {
	switch {
	case p.state == Banned:
		return fmt.Sprintf("Banned until %v (%v: %s)", p.until, p.reason, p.detail)
	case p.state == BackedOff:
		return fmt.Sprintf("BackedOff until %v", p.until)
	}
	return p.state.String()
}

// State returns the state.
func (p *Peer) State() State { return p.state }

// Usable reports whether the peer may be asked for something now.
func (p *Peer) Usable() bool {
	switch p.state {
	case Connected, Healthy, Slow, Probing:
		return true
	}
	return false
}

// Limit is how many blocks the peer may be asked for at a time.
func (p *Peer) Limit() int {
	switch p.state {
	case Connected, Healthy:
		return math.MaxInt32
	case Slow:
		return SlowAsks
	case Probing:
		return Probes
	}
	return 0
}

// Near says that the peer is on the same LAN, by its address or by a round trip below [NearRTT]: it is dialled again sooner.
func (p *Peer) Near() { p.near = true }

// Quiet says whether the peer has no words for lacking something, as before Bitswap 1.2: its silence is then no reason for a ban.
func (p *Peer) Quiet(yes bool) { p.quiet = yes }

// Hold says whether the network is thought to be cut: back-offs do not grow then, and are short.
func (p *Peer) Hold(now time.Duration, on bool) {
	if on && !p.held {
		p.heldAt = now
	}
	p.held = on
	if on && p.state == BackedOff {
		p.until = min(p.until, now+p.holdWait(now))
	}
}

func (p *Peer) holdWait(now time.Duration) time.Duration {
	switch {
	case now-p.heldAt >= heldLong:
		return waitHeldLong
	case p.near:
		return waitHeldNear
	}
	return waitHeld
}

// MayDial reports whether the peer may be dialled now.
func (p *Peer) MayDial(now time.Duration) bool {
	return !p.up && (p.state == Unknown || p.state == Gone) && p.until <= now
}

// Dial notes that a dial has begun, which [Peer.MayDial] allowed.
func (p *Peer) Dial(now time.Duration) {
	p.to(Dialling)
	p.dialled, p.until = now, now+dialFor
}

// Unreachable notes that a dial failed. One that was begun before the last back-off counts no more; who dials without
// having asked may report it too.
func (p *Peer) Unreachable(now time.Duration, jitter float64) {
	switch p.state {
	case Unknown, Dialling, Gone:
		p.backOff(now, jitter)
	}
}

// Found says that a new address became known: a peer that could not be reached may be dialled at once.
func (p *Peer) Found() {
	if p.state == BackedOff && !p.up && !p.doubt {
		p.to(Gone)
		p.until = 0
	}
}

// Connect notes a connection. A second one changes nothing.
func (p *Peer) Connect(now time.Duration) {
	if p.up {
		return
	}
	p.up = true
	switch {
	case p.state == Banned, p.doubt && p.state == BackedOff && now < p.until:
	case p.doubt:
		p.probe()
	case p.state == Unknown || p.state == Dialling || p.state == Gone || p.state == BackedOff:
		p.to(Connected)
		p.until, p.wait = 0, 0
	}
}

// Lose notes that the last connection is gone; asked says that the peer owed something, which makes it a failure.
func (p *Peer) Lose(now time.Duration, asked bool, jitter float64) {
	if !p.up {
		return
	}
	p.up = false
	switch p.state {
	case Connected, Healthy, Slow:
		if asked && p.count(now) {
			p.open(now, jitter)
			return
		}
		p.to(Gone)
		wait := redialAfter
		if p.near {
			wait = redialNear
		}
		p.until = now + stretched(wait, jitter)
	case Probing:
		p.open(now, jitter)
	}
}

// Deliver notes a block that was asked for, and reports whether the state changed.
func (p *Peer) Deliver() bool {
	switch p.state {
	case Healthy:
		p.succeed()
		return false
	case Connected, Slow:
		p.to(Healthy)
		p.succeed()
	case Probing:
		if p.good++; p.good < successes {
			return false
		}
		p.to(Healthy)
		p.succeed()
	case BackedOff:
		if !p.up {
			return false
		}
		p.probe() // it was only late
		p.good = 1
	default:
		return false
	}
	return true
}

func (p *Peer) succeed() {
	p.failed, p.wait, p.opened, p.doubt, p.early = 0, 0, 0, false, false
}

// Fail notes that a request which was begun at a time was not answered. Requests that were under way when a failure was
// counted fail with it, and count no more. It reports whether the peer backs off now.
func (p *Peer) Fail(now, begun time.Duration, jitter float64) bool {
	if p.counted > 0 && begun <= p.counted {
		return false
	}
	switch p.state {
	case Connected, Healthy, Slow:
		if !p.count(now) {
			return false
		}
	case Probing:
	default:
		return false
	}
	p.open(now, jitter)
	return true
}

// Stall notes that the peer was silent beyond any patience while it owed something. The first time it is Slow; the second,
// with nothing delivered in between, it backs off, which is reported.
func (p *Peer) Stall(now time.Duration, jitter float64) bool {
	switch p.state {
	case Connected, Healthy:
		if !p.count(now) {
			p.to(Slow)
			return false
		}
	case Slow, Probing:
	default:
		return false
	}
	p.open(now, jitter)
	return true
}

// Drag notes that the peer delivers too little while others deliver what it was asked for. The first time within a minute
// it is Slow, whatever it delivers after that; then it backs off, which is reported.
func (p *Peer) Drag(now time.Duration, jitter float64) bool {
	again := p.dragged != 0 && now-p.dragged < window
	switch p.state {
	case Connected, Healthy:
		p.dragged = now
		if !again {
			p.to(Slow)
			return false
		}
	case Slow, Probing:
		p.dragged = now
	default:
		return false
	}
	p.open(now, jitter)
	return true
}

// Reprieve makes a connected peer that is backed off half open at once, because there is nobody else and it gave a sign of
// life. It reports whether it did.
func (p *Peer) Reprieve() bool {
	if p.state != BackedOff || !p.up {
		return false
	}
	p.probe()
	p.early = true
	return true
}

// Ban refuses the peer until a time, which must lie ahead.
func (p *Peer) Ban(until time.Duration, why Reason, detail string) {
	if p.state != Banned {
		p.to(Banned)
	}
	p.until, p.reason, p.detail = until, why, detail
}

// Unban ends a ban, and reports whether there was one. What the peer did before is forgotten.
func (p *Peer) Unban() bool {
	if p.state != Banned {
		return false
	}
	*p = Peer{state: Banned, up: p.up, near: p.near, quiet: p.quiet, held: p.held, heldAt: p.heldAt}
	if p.up {
		p.to(Connected)
	} else {
		p.to(Gone)
	}
	return true
}

// Due returns when the state changes by itself, or in Gone when the peer may be dialled, if it does.
func (p *Peer) Due() (time.Duration, bool) { return p.until, p.until != 0 }

// Advance makes the changes that are due, and reports whether there was one.
func (p *Peer) Advance(now time.Duration, jitter float64) bool {
	if p.until == 0 || now < p.until {
		return false
	}
	switch {
	case p.state == Dialling:
		p.backOff(now, jitter)
		return true
	case p.state == BackedOff && p.up:
		p.probe()
	case p.state == BackedOff:
		p.to(Gone)
	case p.state == Banned:
		p.Unban()
	}
	p.until = 0
	return true
}

// count files a failure and reports whether it is one too many.
func (p *Peer) count(now time.Duration) bool {
	p.counted = now
	if p.failed == threshold {
		copy(p.failures[:], p.failures[1:])
		p.failed--
	}
	p.failures[p.failed] = now
	p.failed++
	return p.failed == threshold && now-p.failures[0] < window
}

// open backs a peer off that failed while it was connected, and bans it when it does nothing else. A connection that broke
// says nothing about who is at its end.
func (p *Peer) open(now time.Duration, jitter float64) {
	p.doubt = true
	if p.up && !p.quiet && !p.held && !p.early {
		p.opened++
	}
	p.backOff(now, jitter)
	if p.opened >= banFailures {
		p.Ban(now+banFor, RepeatedFailures, fmt.Sprintf("backed off %d times in a row", p.opened))
	}
}

// backOff begins the next interval.
func (p *Peer) backOff(now time.Duration, jitter float64) {
	first := waitFirst
	if p.near {
		first = waitFirstNear
	}
	wait := p.holdWait(now)
	switch {
	case p.held:
	case p.early && p.wait > 0:
		wait = p.wait
	default:
		p.wait = min(max(2*p.wait, first), waitMax)
		wait = p.wait
	}
	p.counted, p.early = now, false
	p.to(BackedOff)
	p.until = now + stretched(wait, jitter)
}

// probe makes the peer half open.
func (p *Peer) probe() {
	p.to(Probing)
	p.until, p.good = 0, 0
}

func stretched(wait time.Duration, jitter float64) time.Duration {
	return wait + time.Duration(float64(wait)*jitterShare*jitter)
}

func (p *Peer) to(s State) {
	if edges[p.state]&(1<<s) == 0 {
		panic(fmt.Sprintf("health: no edge from %v to %v", p.state, s))
	}
	p.state = s
}
