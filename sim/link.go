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
// Invariant: listed[lane] exactly when it is in from's list of that lane.
type half struct {
	c        *conn
	from, to *Host
	back     *half // the other direction
	open     bool  // from believes in the connection
	streams  []stream
	next     int // data stream that the next block is queued on
	turn     int // stream that is looked at first
	listed   [2]bool

	window   int64    // bytes that may be unread: of control, and of all data streams together
	unread   [2]int64 // bytes sent and not known to have been taken, of control and of data
	acks     []ack    // when the sender learns what was taken
	passing  int      // control messages between the two lines: nothing slips past them
	waking   bool     // an event is planned for the first ack
	frozen   []*packet
	held     []heldStep // packets that wait for the network to heal
	flushing bool
	silent   bool                   // to cannot be heard
	again    bool                   // they were connected before, in this life of from's
	changes  int                    // of silent
	shadow   map[Ref]bool           // what from has announced to want, as to sees it; true for the block itself
	feeds    map[uint32]wire.Follow // roots that to follows, by its numbers
	foreign  int                    // announced CIDs that the World does not know
	guessing bool                   // what is said is in a protocol that the peer does not speak, and lost
	seq      uint64                 // of the last message of the state lane
}

// stream is an ordered, reliable sequence of messages. The first of each half is for control.
type stream struct {
	queue []*packet
	head  int
	last  time.Duration // arrival of the latest message: nothing on the stream overtakes it
}

// packet is one message on its way over l.
type packet struct {
	l       *half
	life    int // of the sender
	size    int64
	tail    time.Duration // from its first byte to its last, as it leaves
	msg     *wire.Message // control, or nil
	block   dray.Block    // what travels when there is no codec
	frame   []byte        // what travels when there is
	ref     Ref           // the block that the engine meant to send, whatever travels
	stream  int
	carried int64 // bytes of blocks in msg
	posed   bool  // made up by a fault: the engine knows nothing of it
}

// spare keeps packets and messages that have arrived, for those that are sent next.
type spare struct {
	packets  []*packet
	messages []*wire.Message
}

func (s *spare) packet() *packet {
	if n := len(s.packets); n > 0 {
		p := s.packets[n-1]
		s.packets = s.packets[:n-1]
		return p
	}
	return new(packet)
}

func (s *spare) message() *wire.Message {
	if n := len(s.messages); n > 0 {
		m := s.messages[n-1]
		s.messages = s.messages[:n-1]
		return m
	}
	return new(wire.Message)
}

// free takes back a packet that has arrived and been looked at.
func (s *spare) free(p *packet) {
	if p.msg != nil {
		p.msg.Reset()
		s.messages = append(s.messages, p.msg)
	}
	*p = packet{}
	s.packets = append(s.packets, p)
}

type ack struct {
	at   time.Duration
	size int64
	lane int
}

// lane is 0 for control and 1 for data.
func (p *packet) lane() int { return min(p.stream, 1) }

func (s *stream) empty() bool { return s.head == len(s.queue) }

func (s *stream) take() *packet {
	p := s.queue[s.head]
	s.queue[s.head] = nil
	s.head++
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	return p
}

// Connect makes a connection, unless there is one already, or one side is not alive or refuses the other.
func (w *World) Connect(a, b *Host) {
	if a == b || !a.alive || !b.answers(a) || a.suspended || a.apart(b) || a.conns[b.id] != nil && b.conns[a.id] != nil {
		return
	}
	if a.conns[b.id] != nil || b.conns[a.id] != nil {
		// One side has not noticed yet that the last connection broke. It does when it hears of the new one.
		w.After(a.cfg.Delay+b.cfg.Delay, func() {
			for _, l := range [2]*half{a.conns[b.id], b.conns[a.id]} {
				if l != nil && !l.back.open {
					l.leave()
				}
			}
			w.Connect(a, b)
		})
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
	life := b.life
	w.After(c.latency, func() {
		if b.life == life {
			b.wake(func() {
				if b.conns[a.id] == c.halves[1] {
					c.halves[1].come()
				}
			})
		}
	})
}

// come tells from's engine of the connection.
func (l *half) come() {
	h := l.from
	l.open = true
	h.halves = append(h.halves, l)
	l.again, h.met[l.to.id] = h.met[l.to.id], true
	caps := exchange.Caps{Protocol: wire.V120.Protocol(), Haves: true}
	if v := l.c.version; v.Indexes() || h.guesses() {
		v = wire.Swap1
		caps = exchange.Caps{Protocol: v.Protocol(), Haves: true, Indexes: true}
	}
	h.e.PeerUp(h.w.now, l.to.id, caps)
	if v := l.c.version; caps.Indexes && !v.Indexes() {
		life, lost := h.life, h.w.chance(0.5)
		l.guessing = lost
		h.w.After(2*l.c.latency, func() {
			if !l.open || h.life != life {
				return
			}
			l.guessing = false
			if truth := (exchange.Caps{Protocol: v.Protocol(), Haves: v.Haves()}); lost {
				h.e.Restart(h.w.now, l.to.id, truth)
			} else {
				h.e.PeerUp(h.w.now, l.to.id, truth)
			}
			h.kick()
		})
	} else if !v.Haves() {
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
	if l.mute() {
		h.w.pathsChanged()
	}
}

// guesses reports whether a host that speaks TensorSwap takes a peer for another.
func (h *Host) guesses() bool { return h.cfg.Version.Indexes() && h.w.chance(0.3) }

// Cut breaks the connection between two hosts, if there is one. The first notices at once, the second later.
func (w *World) Cut(a, b *Host) {
	l := a.conns[b.id]
	if l == nil {
		return
	}
	w.trace.note("%v cut %s %s\n", w.now, a.name, b.name)
	l.leave()
	if !a.reaches(b) {
		w.After(deadAfter, l.back.leave)
		return
	}
	w.After(l.c.latency, l.back.leave)
}

// leave tells from's engine that the connection is gone.
func (l *half) leave() {
	h := l.from
	if h.suspended {
		h.wake(l.leave)
		return
	}
	if h.conns[l.to.id] == l {
		delete(h.conns, l.to.id)
	}
	if !l.open {
		return
	}
	l.open = false
	for i := range l.streams {
		l.streams[i] = stream{last: l.streams[i].last} // what is on its way arrives, and in order
	}
	l.back.frozen, l.back.held = nil, nil
	for i, o := range h.halves {
		if o == l {
			h.halves = append(h.halves[:i], h.halves[i+1:]...)
			break
		}
	}
	h.unlist(l, 0)
	h.unlist(l, 1)
	if h.alive {
		h.e.PeerDown(h.w.now, l.to.id)
		h.kick()
	}
}

const slipBytes = 1400 // control that fits one datagram slips between those of larger messages

// send queues a packet. Small control goes at once; what it takes of the lines is added to the next large message.
func (l *half) send(p *packet) {
	if !l.open {
		return
	}
	h := l.from
	p.l, p.life = l, h.life
	if p.msg == nil {
		p.stream = l.next
		if l.next++; l.next == len(l.streams) {
			l.next = 1
		}
	}
	s := &l.streams[p.stream]
	if p.msg != nil && p.size <= slipBytes && s.empty() && l.passing == 0 && l.c.loss == 0 && l.fits(p) {
		l.slip(p)
		return
	}
	s.queue = append(s.queue, p)
	if lane := p.lane(); !l.listed[lane] {
		l.listed[lane] = true
		h.lists[lane] = append(h.lists[lane], l)
	}
	h.pump()
}

// slip sends a small packet past everything that is queued.
func (l *half) slip(p *packet) {
	w, h := l.from.w, l.from
	l.unread[0] += p.size
	out, in := took(p.size, h.cfg.Up), took(p.size, l.to.cfg.Down)
	h.upDebt += out
	l.to.downDebt += in
	s := &l.streams[0]
	s.last = max(s.last, w.now+out+l.c.latency+in)
	w.plan(s.last-w.now, p, arrives)
	h.left(p)
}

func (h *Host) unlist(l *half, lane int) {
	if !l.listed[lane] {
		return
	}
	l.listed[lane] = false
	list := h.lists[lane]
	for i, o := range list {
		if o == l {
			n := copy(list[i:], list[i+1:])
			list[i+n] = nil
			h.lists[lane] = list[:i+n]
			return
		}
	}
}

// pump gives the idle uplink the next message: control first, then the connections with room in turn. A connection that
// was served goes to the end of the line.
func (h *Host) pump() {
	if h.sending || h.suspended {
		return
	}
	for _, l := range h.lists[0] {
		if s := &l.streams[0]; l.fits(s.queue[s.head]) {
			h.transmit(l, s.take())
			return
		}
	}
	for _, l := range h.lists[1] {
		for range len(l.streams) {
			if l.turn++; l.turn >= len(l.streams) {
				l.turn = 1
			}
			if s := &l.streams[l.turn]; !s.empty() && l.fits(s.queue[s.head]) {
				h.transmit(l, s.take())
				return
			}
		}
		if h.sabotaged(sabotageOneLine) {
			return
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
		l.wakeIn(l.acks[0].at - now)
	}
	return false
}

func (h *Host) transmit(l *half, p *packet) {
	w, lane := h.w, p.lane()
	h.unlist(l, lane)
	for i := range l.streams {
		if !l.streams[i].empty() && min(i, 1) == lane {
			l.listed[lane] = true
			h.lists[lane] = append(h.lists[lane], l)
			break
		}
	}
	h.sending = true
	l.unread[lane] += p.size
	l.passing += 1 - lane
	p.tail = took(p.size, h.cfg.Up)
	if p.tail > pieceOver {
		h.pieces(l, p, p.size)
		return
	}
	w.plan(p.tail+h.upDebt, p, leaves)
	w.plan(l.c.latency+h.upDebt, p, enters)
	h.upDebt = 0
}

// left is called when the packet's last byte has left.
func (p *packet) left() {
	h := p.l.from
	if h.life != p.life {
		return
	}
	if h.suspended {
		q := *p // it may arrive before the sender goes on
		h.wake(func() { q.left() })
		return
	}
	h.sending = false
	h.left(p)
	h.pump()
}

// enter lets a message into the receiver's downlink, which its last byte leaves no sooner than p.tail from now.
func (p *packet) enter() {
	if p.holds(enters) {
		return
	}
	l := p.l
	w, to := l.from.w, l.to
	l.passing -= 1 - p.lane()
	if !l.back.open {
		return
	}
	takes := took(p.size, to.cfg.Down)
	begin := max(w.now, to.downFree) + to.downDebt
	to.downDebt = 0
	to.downFree = begin + takes
	if p.msg != nil {
		begin = w.now // small messages slip between large ones
	}
	end := max(begin+takes, w.now+p.tail)
	if l.c.loss > 0 && w.chance(1-math.Pow(1-l.c.loss, math.Ceil(float64(p.size)/packetBytes))) {
		end += 2 * l.c.latency
		for w.chance(l.c.loss) {
			end += reconnect
		}
	}
	s := &l.streams[p.stream]
	end = max(end, s.last)
	s.last = end
	share := int64(float64(p.size) * float64(beat) / float64(max(end-w.now, 1)))
	for t := w.now + beat; t < end; t += beat {
		w.After(t-w.now, func() { to.heard(l, share) })
	}
	w.plan(end-w.now, p, arrives)
}

// arrive hands a message to the receiver, or keeps it in the connection while the receiver does not read.
func (p *packet) arrive() {
	l := p.l
	if !l.back.open || p.holds(arrives) {
		return
	}
	if l.to.faults.Frozen || l.to.suspended {
		l.frozen = append(l.frozen, p)
		return
	}
	if l.cuts(p) {
		return
	}
	w := l.from.w
	l.acks = append(l.acks, ack{w.now + l.c.latency, p.size, p.lane()})
	l.to.receive(l, p)
	w.spare.free(p)
	if (l.listed[0] || l.listed[1]) && !l.waking {
		l.wakeIn(l.c.latency)
	}
}

// wakeIn plans another look at what the connection has queued.
func (l *half) wakeIn(d time.Duration) {
	l.waking = true
	l.from.w.After(d, func() {
		l.waking = false
		l.from.pump()
	})
}

func took(size int64, rate float64) time.Duration {
	return time.Duration(float64(size) / rate * float64(time.Second))
}
