package exchange

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dray"
)

// This file holds transfers to what the operator allows: how many bytes a second go up and down, in all and per peer.
// It never slows a stream that runs: what would be too much is not begun.
//
//  1. Up: pull (serve.go) begins to read a block only while the bucket of all and the peer's are open, and takes its
//     bytes from both. While the bucket of all is closed nobody is passed over: whose turn it was goes on when it
//     opens. Answers to walks are begun under the same rule, and wait until everybody else has had as much.
//  2. Down: a block is asked for only while both buckets are open, and its bytes are taken then (charge). If it does
//     not come after all they are given back (uncharge); what comes without having been paid for is taken when it
//     comes. So the bytes that arrive are those that were let through, a round trip later, and no peer is made to wait
//     with what it was asked for: it is never blamed for this host's limits.
//  3. When a bucket has stopped somebody, Ready.Wake is when it opens again.

// blockFrame is what the header of a block, and those of the layers below, take on the wire beside its bytes.
const blockFrame = 40

const (
	turnTime     = 50 * time.Millisecond // what a turn of a peer takes under a limit
	leastQuantum = 16 << 10
	limitedAhead = time.Second     // of a limit's work may be asked of one peer at a time
	leastAhead   = 64 << 10        // bytes that may be asked of a peer, however low the limit
	leastWalk    = 256 << 10       // bytes of an answer to a walk that are asked for, however low the limit
	walkAhead    = 2 * time.Second // of a limit's work, otherwise
	limitedFor   = time.Second     // how long after something was held back the limits count as in use
	maxServices  = 1 << 14         // peers that may have a service of their own
)

// Limits are bounds on the bytes of blocks that pass, in bytes a second. The zero value has none.
type Limits struct {
	// Up and Down are for all peers together. If zero or negative, there is no limit.
	Up, Down int64
	// PeerUp and PeerDown are for each peer of [ServiceNormal]; others have what [Service] says times as much. If zero
	// or negative, there is no limit.
	PeerUp, PeerDown int64
}

// Service is how well one peer is treated beside others: its share of the limits for each peer, and of what is served
// when there is not enough for all.
type Service uint8

// The services. The zero Service is ServiceNormal.
const (
	// ServiceNormal is one share.
	ServiceNormal Service = iota
	// ServiceBestEffort is half a share.
	ServiceBestEffort
	// ServiceHigh is two shares.
	ServiceHigh
	// ServiceCritical is four shares.
	ServiceCritical
)

// share returns how many times as much as a normal peer one of this service gets.
func (s Service) share() float64 {
	switch s {
	case ServiceBestEffort:
		return 0.5
	case ServiceHigh:
		return 2
	case ServiceCritical:
		return 4
	}
	return 1
}

var serviceNames = []string{"normal", "best-effort", "high", "critical"}

// String returns the service's name: normal, best-effort, high or critical.
func (s Service) String() string { return nameOf(serviceNames, int(s)) }

// ServiceNames returns the names that [ParseService] reads, the best last.
func ServiceNames() []string { return []string{"best-effort", "normal", "high", "critical"} }

// ParseService reads a service as [Service.String] writes it.
func ParseService(s string) (Service, error) {
	if i := slices.Index(serviceNames, s); i >= 0 {
		return Service(i), nil
	}
	return 0, fmt.Errorf("there is no service %q; there are best-effort, normal, high and critical", s)
}

// Limiting is what the limits do now.
type Limiting struct {
	// Limits are in force.
	Limits Limits
	// UpRate and DownRate are the bytes of blocks a second that passed lately.
	UpRate, DownRate float64
	// Up and Down say that more would have passed within the last second but for the limits.
	Up, Down bool
	// Services are the peers whose service is not [ServiceNormal], in order of their ids.
	Services []PeerService
}

// PeerService is the service that one peer has.
type PeerService struct {
	// Peer names it.
	Peer dray.PeerID
	// Service is how it is treated.
	Service Service
}

// shaping is what the engine remembers of the limits. Owned by the engine.
type shaping struct {
	limits   Limits
	up, down bucket
	services map[dray.PeerID]Service

	sent, got        meter
	heldUp, heldDown time.Duration // when something was last held back, upwards and downwards; 0 for never

	limitsUp, limitsDown bool // some bucket limits

	asks    bool    // sessions were stopped by the bucket of all; nobody asks for anything before Ready lets them
	thirsty []*peer // whose own bucket for downloads is closed
	answers []*peer // with answers to walks that wait for a bucket
	begun   int64   // bytes begun to be served, in turn
	asked   int64   // place of the session that asked last in the order of fairness
	wake    time.Duration
}

// peerShape is one peer's part of the limits.
//
// Invariant: thirsty exactly when the peer is in shaping.thirsty, answering when it is in shaping.answers.
type peerShape struct {
	service   Service
	up, down  bucket
	most      int64 // bytes that may be asked of it at a time; 0 for no bound
	thirsty   bool  // its bucket for downloads is closed: it is not asked for blocks
	answering bool
	turn      int64 // shaping.begun at which it may have the next part of an answer to a walk
}

// SetLimits changes the limits, at once. What was earned and not used under the old ones is kept as far as the new ones
// allow.
func (e *Engine) SetLimits(now time.Duration, l Limits) {
	e.now = now
	h := &e.shape
	l = Limits{max(l.Up, 0), max(l.Down, 0), max(l.PeerUp, 0), max(l.PeerDown, 0)}
	if h.limits.Down == 0 && l.Down > 0 || h.limits.PeerDown == 0 && l.PeerDown > 0 {
		for _, p := range e.upPeers { // what was asked for without a limit counts when it comes
			for _, list := range []*askList{&p.queue, &p.flight, &p.known} {
				for a := list.head; a != nil; a = a.next {
					a.paid = false
				}
			}
		}
	}
	h.limits = l
	h.up.set(now, float64(l.Up))
	h.down.set(now, float64(l.Down))
	h.limitsUp, h.limitsDown = l.Up+l.PeerUp > 0, l.Down+l.PeerDown > 0
	for _, p := range e.upPeers {
		e.limitPeer(p)
	}
	e.openBuckets()
}

// SetService changes how a peer is treated, at once. It need not be connected. Beyond 16,384 peers it does nothing but
// for those that have a service already.
func (e *Engine) SetService(now time.Duration, id dray.PeerID, s Service) {
	e.now = now
	h := &e.shape
	if _, known := h.services[id]; !known && len(h.services) >= maxServices {
		return
	}
	if s == ServiceNormal {
		delete(h.services, id)
	} else {
		if h.services == nil {
			h.services = make(map[dray.PeerID]Service)
		}
		h.services[id] = s
	}
	if p := e.peers[id]; p != nil && p.up {
		e.limitPeer(p)
		e.openBuckets()
	}
}

// Limits tells what the limits are and do.
func (e *Engine) Limits(now time.Duration) Limiting {
	h := &e.shape
	out := Limiting{
		Limits: h.limits, UpRate: h.sent.rate(now), DownRate: h.got.rate(now),
		Up:   h.limitsUp && h.heldUp > 0 && now-h.heldUp < limitedFor,
		Down: h.limitsDown && h.heldDown > 0 && now-h.heldDown < limitedFor,
	}
	for id, s := range h.services {
		out.Services = append(out.Services, PeerService{id, s})
	}
	slices.SortFunc(out.Services, func(a, b PeerService) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}

// Limited reports whether nothing more is asked of a peer now because of this host's limits.
func (e *Engine) Limited(id dray.PeerID) bool {
	p := e.peers[id]
	return p != nil && e.limited(p)
}

func (e *Engine) limited(p *peer) bool { return e.shape.asks || p.shape.thirsty }

// limitPeer gives a connected peer the buckets that it has under the limits and its service.
func (e *Engine) limitPeer(p *peer) {
	h := &e.shape
	p.shape.service = h.services[p.id]
	share := p.shape.service.share()
	p.shape.up.set(e.now, share*float64(h.limits.PeerUp))
	p.shape.down.set(e.now, share*float64(h.limits.PeerDown))
	p.shape.most = 0
	if r := e.downRate(p); r > 0 {
		p.shape.most = max(int64(r*limitedAhead.Seconds()), leastAhead)
	}
	e.roomChanged(p)
}

// downRate is the least of the limits on what comes from a peer; 0 when there is none.
func (e *Engine) downRate(p *peer) float64 {
	a, b := e.shape.down.rate, p.shape.down.rate
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// openBuckets looks, before anything is handed out, for whom buckets have opened. Nothing is handed out before, or
// whoever happens to be looked at first would always be first.
func (e *Engine) openBuckets() {
	h := &e.shape
	h.wake = 0
	if h.asks && h.down.open(e.now) {
		h.asks = false
		for _, s := range e.sessionList {
			s.offered = true
			e.dirtySession(s)
		}
	}
	if len(h.thirsty) > 0 {
		keep := h.thirsty[:0]
		for _, p := range h.thirsty {
			if p.up && !p.shape.down.open(e.now) {
				keep = append(keep, p)
				continue
			}
			p.shape.thirsty = false
			if p.up {
				e.roomChanged(p)
			}
		}
		clear(h.thirsty[len(keep):])
		h.thirsty = keep
	}
	for i, p := range h.answers {
		p.shape.answering = false
		e.dirtyPeer(p)
		h.answers[i] = nil
	}
	h.answers = h.answers[:0]
}

// wakeForBuckets adds to wake, 0 being never, when the next bucket opens for whoever waits for one.
func (e *Engine) wakeForBuckets(wake time.Duration) time.Duration {
	h := &e.shape
	if h.asks {
		h.wakeAt(h.down.opens(e.now))
	}
	for _, p := range h.thirsty {
		h.wakeAt(p.shape.down.opens(e.now))
	}
	if h.wake == 0 || wake > 0 && wake < h.wake {
		return wake
	}
	return h.wake
}

func (h *shaping) wakeAt(t time.Duration) {
	if h.wake == 0 || t < h.wake {
		h.wake = t
	}
}

// full reports whether nothing more may be asked for now: too much is being written, or the bucket of all is closed.
func (e *Engine) full() bool {
	if e.receiving >= e.cfg.ReceiveBytes {
		e.held = true
		return true
	}
	return e.dry()
}

// dry reports whether nothing more may be asked for because the bucket for downloads is closed. It stays so until the
// next Ready, which lets sessions ask in turn.
func (e *Engine) dry() bool {
	h := &e.shape
	switch {
	case h.asks:
	case h.down.open(e.now):
		return false
	default:
		h.asks = true
	}
	h.heldDown = e.now
	return true
}

// pay takes what a peer is asked for from the buckets.
func (e *Engine) pay(a *ask) {
	if !e.shape.limitsDown {
		return
	}
	a.paid = true
	s := a.w.home
	s.asked = max(s.asked, e.shape.asked) + a.size
	e.takeDown(a.p, a.size+blockFrame)
}

// unpay gives back what was taken for an ask that will not be answered.
func (e *Engine) unpay(a *ask) {
	if !a.paid {
		return
	}
	a.paid = false
	e.shape.down.take(e.now, -a.size-blockFrame)
	a.p.shape.down.take(e.now, -a.size-blockFrame)
}

// arrived takes what has come from a peer and was not paid for.
func (e *Engine) arrived(p *peer, w *want, size int64) {
	e.shape.got.add(e.now, size)
	if !e.shape.limitsDown {
		return
	}
	due := size + blockFrame
	if w != nil {
		if a := w.asks.of(p); a != nil && a.paid {
			a.paid = false
			due = size - a.size
		}
	}
	e.takeDown(p, due)
}

func (e *Engine) takeDown(p *peer, n int64) {
	e.shape.down.take(e.now, n)
	d := &p.shape.down
	d.take(e.now, n)
	if !p.shape.thirsty && !d.open(e.now) {
		p.shape.thirsty = true
		e.shape.thirsty = append(e.shape.thirsty, p)
		e.shape.heldDown = e.now
		e.roomChanged(p)
	}
}

// inTurn gives wants of the sessions in e.work to peers while there is a limit: the most urgent session first and, of
// equally urgent ones, the one that has asked for the fewest bytes.
func (e *Engine) inTurn() {
	for _, s := range e.work {
		s.passed = false
	}
	for !e.shape.asks {
		var best *session
		var class Class
		for _, s := range e.work {
			if s.passed || s.ended() {
				continue
			}
			c := max(urgency(s), s.cfg.Class) // what is demanded and what is offered to some peers has the session's
			if best == nil || c > class || c == class && s.asked < best.asked {
				best, class = s, c
			}
		}
		if best == nil {
			return
		}
		e.shape.asked = max(e.shape.asked, best.asked)
		if e.fill(best, 1) == 0 {
			e.fillOffered(best)
			best.passed = true
		}
	}
}

// walkWithin returns how much of a walk is asked for under the limits: its blocks come at once.
func (e *Engine) walkWithin(p *peer, o WalkOptions) (bytes, push uint64) {
	r := e.downRate(p)
	if r == 0 {
		return uint64(o.Bytes), uint64(o.Push)
	}
	return uint64(min(o.Bytes, max(int64(r*walkAhead.Seconds()), leastWalk))),
		uint64(min(o.Push, int64(r*bucketTime.Seconds())))
}

// upOpen reports whether anything may be sent, to anybody.
func (e *Engine) upOpen() bool {
	h := &e.shape
	if h.up.open(e.now) {
		return true
	}
	h.heldUp = e.now
	h.wakeAt(h.up.opens(e.now))
	return false
}

// upOpenFor reports whether the peer's own bucket lets something be sent to it.
func (e *Engine) upOpenFor(p *peer) bool {
	if p.shape.up.open(e.now) {
		return true
	}
	e.shape.heldUp = e.now
	e.shape.wakeAt(p.shape.up.opens(e.now))
	return false
}

// takeUp takes what is begun to be sent from the buckets.
func (e *Engine) takeUp(p *peer, n int64) {
	if e.shape.limitsUp {
		e.shape.begun += n
		e.shape.up.take(e.now, n+blockFrame)
		p.shape.up.take(e.now, n+blockFrame)
	}
}

// giveUp gives back what was taken for something that is not sent after all.
func (e *Engine) giveUp(p *peer, n int64) {
	if e.shape.limitsUp {
		e.shape.up.take(e.now, -n-blockFrame)
		p.shape.up.take(e.now, -n-blockFrame)
	}
}

// mayAnswer reports whether the next part of an answer to a walk may be sent under the limits. Walks are not served in
// the turns of pull, so after one part everybody who is has as much first, unless nobody uses what there is.
func (e *Engine) mayAnswer(p *peer) bool {
	h := &e.shape
	if !h.limitsUp {
		return true
	}
	ok := e.upOpen() && e.upOpenFor(p)
	if others := e.othersServed(p); ok && others > 0 && h.begun < p.shape.turn && !h.up.full(e.now) {
		h.wakeAt(h.up.fills(e.now))
		ok = false
	}
	if !ok && !p.shape.answering {
		p.shape.answering = true
		h.answers = append(h.answers, p)
	}
	return ok
}

// answered takes what a part of an answer to a walk brings to the peer.
func (e *Engine) answered(p *peer, n int64) {
	if !e.shape.limitsUp || n == 0 {
		return
	}
	e.takeUp(p, n)
	p.shape.turn = e.shape.begun + n*e.othersServed(p)
	p.serve.deficit -= n
}

// othersServed returns how many peers besides p wait for their turn.
func (e *Engine) othersServed(p *peer) int64 {
	n := len(e.serving.ring)
	if p.serve.ring >= 0 {
		n--
	}
	return int64(n)
}

// quantum is how many bytes a peer of weight 1 is served in its turn: under a limit little enough that all have their
// turn in a fraction of a second, if there are not too many of them.
func (e *Engine) quantum() float64 {
	if !e.shape.up.limits() {
		return serveQuantum
	}
	return min(max(e.shape.up.rate*turnTime.Seconds(), leastQuantum), serveQuantum)
}

// scarce reports whether more is wanted of this host than it may send.
func (e *Engine) scarce() bool {
	return e.serving.out >= e.cfg.ServeBytes/2 ||
		e.shape.up.limits() && e.shape.heldUp > 0 && e.now-e.shape.heldUp < limitedFor
}

// haveEntries is how many wants a peer may have been told of for it to be asked whether it has more. Under a limit such
// questions are answered sooner than blocks may be asked for, and must leave room for those.
func (e *Engine) haveEntries() int {
	if e.shape.limitsDown {
		return (maxEntries - entryReserve) / 2
	}
	return maxEntries - entryReserve
}
