package sim

import (
	"math"
	"time"

	"dray"
	"dray/exchange"
	"dray/wire"
)

const (
	packetBytes = 1400                   // for the probability of a loss
	beat        = 250 * time.Millisecond // how often a host notes that a large message is still arriving
	leastWindow = 1 << 20                // bytes that any connection may carry unread
	reconnect   = 200 * time.Millisecond // retransmission time-out, when a retransmission is lost too
)

// conn is one connection. Its halves are the directions; ends[i] is open while halves[i].from believes in it.
type conn struct {
	halves  [2]*half
	latency time.Duration
	version wire.Version
	loss    float64
}

// half is one direction of a connection: what from sends to to.
//
// Invariant: listed exactly when it is in from's ring.
type half struct {
	c        *conn
	from, to *Host
	back     *half // the other direction
	open     bool  // from believes in the connection
	streams  []stream
	next     int // data stream that the next block is queued on
	turn     int // stream that is looked at first
	listed   bool

	window  int64    // bytes that may be unread: of control, and of all data streams together
	unread  [2]int64 // bytes sent and not known to have been taken, of control and of data
	acks    []ack    // when the sender learns what was taken
	waking  bool     // an event is planned for the first ack
	frozen  []packet
	shadow  map[Ref]bool // what from has announced to want, as to sees it; true for the block itself
	foreign int          // announced CIDs that the World does not know
}

// stream is an ordered, reliable sequence of messages. The first of each half is for control.
type stream struct {
	queue []packet
	head  int
	last  time.Duration // arrival of the latest message: nothing on the stream overtakes it
}

// packet is one message on its way.
type packet struct {
	size    int64
	msg     *wire.Message // control, or nil
	block   dray.Block    // what travels when there is no codec
	frame   []byte        // what travels when there is
	ref     Ref           // the block that the engine meant to send, whatever travels
	stream  int
	carried int64 // bytes of blocks in msg
	posed   bool  // made up by a fault: the engine knows nothing of it
}

type ack struct {
	at   time.Duration
	size int64
	lane int
}

// lane is 0 for control and 1 for data.
func (p *packet) lane() int { return min(p.stream, 1) }

func (s *stream) empty() bool { return s.head == len(s.queue) }

func (s *stream) take() packet {
	p := s.queue[s.head]
	s.queue[s.head] = packet{}
	s.head++
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	return p
}

// Connect makes a connection, unless there is one already, or one side is not alive or refuses the other.
func (w *World) Connect(a, b *Host) {
	if a == b || !a.alive || !b.alive || a.conns[b.id] != nil && b.conns[a.id] != nil {
		return
	}
	if a.conns[b.id] != nil || b.conns[a.id] != nil {
		// One side has not noticed yet that the last connection broke.
		w.After(a.cfg.Delay+b.cfg.Delay, func() { w.Connect(a, b) })
		return
	}
	if a.bans(b) || b.bans(a) {
		return
	}
	c := &conn{latency: a.cfg.Delay + b.cfg.Delay, version: min(a.cfg.Version, b.cfg.Version)}
	c.loss = 1 - (1-a.cfg.Loss)*(1-b.cfg.Loss)
	for i, h := range [2]*Host{a, b} {
		to := [2]*Host{b, a}[i]
		rate := min(h.cfg.Up, to.cfg.Down)
		c.halves[i] = &half{
			c: c, from: h, to: to, streams: make([]stream, 1+h.cfg.Streams), shadow: make(map[Ref]bool), next: 1,
			window: max(leastWindow, int64(4*c.latency.Seconds()*rate)),
		}
	}
	c.halves[0].back, c.halves[1].back = c.halves[1], c.halves[0]
	w.trace.note("%v connect %s %s\n", w.now, a.name, b.name)
	// A pending entry keeps either side from connecting twice before both have noticed.
	a.conns[b.id], b.conns[a.id] = c.halves[0], c.halves[1]
	c.halves[0].come()
	w.After(c.latency, func() {
		if b.conns[a.id] == c.halves[1] {
			c.halves[1].come()
		}
	})
}

// come tells from's engine of the connection.
func (l *half) come() {
	h := l.from
	l.open = true
	h.halves = append(h.halves, l)
	caps := exchange.Caps{Protocol: wire.V120.Protocol(), Haves: true}
	if v := l.c.version; v.Indexes() {
		caps = exchange.Caps{Protocol: v.Protocol(), Haves: true, Indexes: true}
	}
	h.e.PeerUp(h.w.now, l.to.id, caps)
	if v := l.c.version; !v.Haves() {
		// What the peer really speaks shows after a round trip.
		life := h.life
		h.w.After(2*l.c.latency, func() {
			if l.open && h.life == life {
				h.e.PeerUp(h.w.now, l.to.id, exchange.Caps{Protocol: v.Protocol(), Haves: false})
				h.kick()
			}
		})
	}
	h.faultsOnUp(l)
	h.kick()
}

// Cut breaks the connection between two hosts, if there is one. The first notices at once, the second later.
func (w *World) Cut(a, b *Host) {
	l := a.conns[b.id]
	if l == nil {
		return
	}
	w.trace.note("%v cut %s %s\n", w.now, a.name, b.name)
	l.leave()
	w.After(l.c.latency, l.back.leave)
}

// leave tells from's engine that the connection is gone.
func (l *half) leave() {
	h := l.from
	if h.conns[l.to.id] == l {
		delete(h.conns, l.to.id)
	}
	if !l.open {
		return
	}
	l.open = false
	l.streams = make([]stream, len(l.streams))
	l.back.frozen = nil
	for i, o := range h.halves {
		if o == l {
			h.halves = append(h.halves[:i], h.halves[i+1:]...)
			break
		}
	}
	h.unlist(l)
	if h.alive {
		h.e.PeerDown(h.w.now, l.to.id)
		h.kick()
	}
}

// send queues a packet.
func (l *half) send(p packet) {
	if !l.open {
		return
	}
	if p.msg == nil {
		p.stream = l.next
		if l.next++; l.next == len(l.streams) {
			l.next = 1
		}
	}
	s := &l.streams[p.stream]
	s.queue = append(s.queue, p)
	if !l.listed {
		l.listed = true
		l.from.ring = append(l.from.ring, l)
	}
	l.from.pump()
}

func (h *Host) unlist(l *half) {
	if !l.listed {
		return
	}
	l.listed = false
	for i, o := range h.ring {
		if o == l {
			h.ring = append(h.ring[:i], h.ring[i+1:]...)
			if i < h.turn {
				h.turn--
			}
			return
		}
	}
}

// pump gives the idle uplink the next message: control first, then the connections with room in turn.
func (h *Host) pump() {
	if h.sending {
		return
	}
	for _, l := range h.ring {
		if s := &l.streams[0]; !s.empty() && l.fits(&s.queue[s.head]) {
			h.transmit(l, l.streams[0].take())
			return
		}
	}
	for range len(h.ring) {
		if h.turn >= len(h.ring) {
			h.turn = 0
		}
		l := h.ring[h.turn]
		h.turn++
		for range len(l.streams) {
			if l.turn++; l.turn >= len(l.streams) {
				l.turn = 1
			}
			if s := &l.streams[l.turn]; !s.empty() && l.fits(&s.queue[s.head]) {
				h.transmit(l, s.take())
				return
			}
		}
	}
}

// fits reports whether the window of the packet's lane has room, and plans another look when it has not.
func (l *half) fits(p *packet) bool {
	now := l.from.w.now
	k := 0
	for ; k < len(l.acks) && l.acks[k].at <= now; k++ {
		l.unread[l.acks[k].lane] -= l.acks[k].size
	}
	l.acks = l.acks[:copy(l.acks, l.acks[k:])]
	if n := l.unread[p.lane()]; n == 0 || n+p.size <= l.window {
		return true
	}
	if len(l.acks) > 0 && !l.waking {
		l.waking = true
		l.from.w.After(l.acks[0].at-now, func() {
			l.waking = false
			l.from.pump()
		})
	}
	return false
}

func (h *Host) transmit(l *half, p packet) {
	w := h.w
	empty := true
	for i := range l.streams {
		empty = empty && l.streams[i].empty()
	}
	if empty {
		h.unlist(l)
	}
	h.sending = true
	l.unread[p.lane()] += p.size
	leaves := took(p.size, h.cfg.Up)
	life := h.life
	w.After(leaves, func() {
		if h.life != life {
			return
		}
		h.sending = false
		h.left(l, p)
		h.pump()
	})
	w.After(l.c.latency, func() { l.enter(p, leaves) })
}

// enter lets a message into the receiver's downlink, which its last byte leaves no sooner than tail from now.
func (l *half) enter(p packet, tail time.Duration) {
	w, to := l.from.w, l.to
	if !l.back.open {
		return
	}
	takes := took(p.size, to.cfg.Down)
	begin := max(w.now, to.downFree)
	to.downFree = begin + takes
	if p.msg != nil {
		begin = w.now // small messages slip between large ones
	}
	end := max(begin+takes, w.now+tail)
	if l.c.loss > 0 && w.chance(1-math.Pow(1-l.c.loss, math.Ceil(float64(p.size)/packetBytes))) {
		end += 2 * l.c.latency
		for w.chance(l.c.loss) {
			end += reconnect
		}
	}
	s := &l.streams[p.stream]
	end = max(end, s.last)
	s.last = end
	for t := w.now + beat; t < end; t += beat {
		w.After(t-w.now, func() { to.heard(l) })
	}
	w.After(end-w.now, func() { l.arrive(p) })
}

// arrive hands a message to the receiver, or keeps it in the connection while the receiver does not read.
func (l *half) arrive(p packet) {
	if !l.back.open {
		return
	}
	if l.to.faults.Frozen {
		l.frozen = append(l.frozen, p)
		return
	}
	l.acks = append(l.acks, ack{l.from.w.now + l.c.latency, p.size, p.lane()})
	l.to.receive(l, p)
	if l.listed && !l.waking {
		l.waking = true
		l.from.w.After(l.c.latency, func() {
			l.waking = false
			l.from.pump()
		})
	}
}

func took(size int64, rate float64) time.Duration {
	return time.Duration(float64(size) / rate * float64(time.Second))
}
