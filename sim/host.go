package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"dray"
	"dray/exchange"
	"dray/wire"
)

// Gbit is the rate of a line of one gigabit a second, in bytes a second.
const Gbit = 125e6

// HostConfig describes a host. The zero value is an honest one on a gigabit line with an instant disk.
type HostConfig struct {
	// Number, if Numbered, is the host's number, which its name is made of. Otherwise hosts are numbered as they come, or, if that
	// number is taken, from a thousand on.
	Number   int
	Numbered bool
	// Up and Down are the access line's rates in bytes a second. If zero, Gbit.
	Up, Down float64
	// Delay is the host's part of the one-way delay to anybody. If zero, 1 ms.
	Delay time.Duration
	// Loss is the probability that a packet to or from the host is lost and sent again.
	Loss float64
	// Streams is the number of data streams of each connection and direction. If zero, 2.
	Streams int
	// Version is the newest protocol that the host speaks. If zero, Bitswap 1.2.0.
	Version wire.Version
	// Disk models the store.
	Disk Disk
	// Faults make the host misbehave.
	Faults Faults
	// Engine configures the engine. Its seed is drawn from the World's if zero.
	Engine exchange.Config
}

// Host is one engine and what surrounds it.
type Host struct {
	w      *World
	name   string
	number int
	id     dray.PeerID
	cfg    HostConfig
	faults Faults
	lied   bool // it was not honest at times, by an event

	repeats   int64    // bytes that came once more, as the engine told it
	suspended bool     // it does nothing, and is not to blame
	late      []func() // what is due when it goes on
	side      uint64   // of cuts of the network
	truncate  float64  // probability that a block it sends ends in the middle
	dark      bool     // off the network, and everybody notices

	e      *exchange.Engine
	alive  bool
	life   int // how many times it was started
	conns  map[dray.PeerID]*half
	halves []*half // open connections, in the order in which they came

	planned  bool // a turn is planned
	inTurn   bool // the engine's wishes are being carried out
	again    bool // and it has more
	turnFunc func()
	wakes    time.Duration // when a call of Advance is planned
	turns    int

	lists    [2][]*half // connections with something to send, control and data, the next first
	sending  bool
	upDebt   time.Duration // what small messages took of the uplink since the last large one
	downFree time.Duration
	downDebt time.Duration

	walkers map[walkKey]*walker
	walked  bool // a fetch of this life began with a walk: what comes unasked may be kept, though not written
	disk    diskState
	has     refs // written blocks
	synced  refs // of which those that survive a loss of power, as the engine was told
	fresh   []freshBlock
	fetches []*Fetch
	byID    map[exchange.SessionID]*Fetch
	wanted  tally // sessions of this life that want a block
	asked   refs  // blocks that some session of this life wanted at some time, or that are under its root
	storing map[Ref]bool

	met       map[dray.PeerID]bool      // peers that were connected in this life
	gave, got map[dray.PeerID]int64     // block bytes on the wire in this life
	banned    map[dray.PeerID]bool      // peers that the engine dropped in this life
	must      map[dray.PeerID]SwapFault // peers that it has heard offend, and must have dropped
	total     Totals
}

// Totals counts what a host did in all its lives.
type Totals struct {
	// Up and Down are all bytes that left and reached the host.
	Up, Down int64
	// BlockUp and BlockDown are those of blocks.
	BlockUp, BlockDown int64
	// Duplicates and DuplicateBytes are blocks that came more than once, Garbage those that nobody wanted, both as the engines of
	// its lives count them.
	Duplicates, DuplicateBytes, Garbage int64
	// Stalls, Refused and Banned are what the engines of its lives count.
	Stalls, Refused, Banned int64
	// Takeovers were made by its finished sessions.
	Takeovers int64
}

// Add adds a host and starts it.
func (w *World) Add(cfg HostConfig) *Host {
	if cfg.Up == 0 {
		cfg.Up = Gbit
	}
	if cfg.Down == 0 {
		cfg.Down = Gbit
	}
	if cfg.Delay == 0 {
		cfg.Delay = time.Millisecond
	}
	if cfg.Streams == 0 {
		cfg.Streams = 2
	}
	if cfg.Version == 0 {
		cfg.Version = wire.V120
	}
	if !cfg.Numbered {
		cfg.Number = len(w.hosts)
		if w.byID[dray.PeerID(hostName(cfg.Number))] != nil {
			cfg.Number += 1000
		}
	}
	h := &Host{w: w, cfg: cfg, faults: cfg.Faults, name: hostName(cfg.Number), number: cfg.Number}
	h.id = dray.PeerID(h.name)
	w.hosts = append(w.hosts, h)
	w.byID[h.id] = h
	h.Start()
	return h
}

func hostName(number int) string { return fmt.Sprintf("h%d", number) }

// Start brings a host that crashed or left back, with the blocks that it had written and nothing else.
func (h *Host) Start() {
	if h.alive {
		return
	}
	cfg := h.cfg.Engine
	if cfg.Seed == 0 {
		cfg.Seed = h.w.rand.Uint64() | 1
	}
	if h.sabotaged(sabotageHoard) {
		cfg.PeerWants = 1 << 20
	}
	h.e, h.repeats = exchange.New(cfg), 0
	h.alive = true
	h.life++
	h.suspended, h.late = false, nil
	h.conns = make(map[dray.PeerID]*half)
	h.halves, h.lists = nil, [2][]*half{}
	h.upDebt = 0
	h.sending, h.planned, h.wakes = false, false, 0
	h.inTurn, h.turnFunc = false, h.newTurn()
	h.disk = diskState{}
	h.fetches, h.byID = nil, make(map[exchange.SessionID]*Fetch)
	h.walked, h.walkers = false, make(map[walkKey]*walker)
	h.wanted, h.asked, h.storing = tally{}, refs{}, make(map[Ref]bool)
	h.gave, h.got = make(map[dray.PeerID]int64), make(map[dray.PeerID]int64)
	h.met = make(map[dray.PeerID]bool)
	h.banned = make(map[dray.PeerID]bool)
	h.must = make(map[dray.PeerID]SwapFault)
}

// Crash ends a host's life as kill -9 does: written blocks stay, everything else is gone, and its peers notice that the
// connections broke. Start begins another life.
func (h *Host) Crash() {
	if !h.alive {
		return
	}
	h.w.trace.note("%v crash %s\n", h.w.now, h.name)
	h.tally()
	h.alive = false
	h.life++ // what was planned for the old life does not happen
	h.suspended, h.late = false, nil
	for len(h.halves) > 0 {
		h.w.Cut(h, h.halves[0].to)
	}
	for _, o := range h.w.hosts { // connections that this side had not noticed yet
		if h.conns[o.id] != nil {
			h.w.Cut(h, o)
		}
	}
}

// ID returns the host's name, h0, h1 and so on.
func (h *Host) ID() dray.PeerID { return h.id }

// Alive reports whether the host is running.
func (h *Host) Alive() bool { return h.alive }

// Give puts blocks into the host's store as a file that is added does.
func (h *Host) Give(list ...Ref) {
	for _, r := range list {
		h.has.add(r)
		if h.w.now == 0 {
			h.synced.add(r)
		} else {
			h.fresh = append(h.fresh, freshBlock{r, h.w.now})
		}
		if h.alive && h.w.now > 0 {
			b := h.w.content.blocks[r]
			h.e.Added(h.w.now, b.CID(), int64(b.Size()))
		}
	}
	h.kick()
}

// Lose takes blocks out of the host's store.
func (h *Host) Lose(list ...Ref) {
	for _, r := range list {
		if !h.has.has(r) || h.storing[r] {
			continue
		}
		h.has.remove(r)
		h.synced.remove(r)
		if h.alive {
			h.w.trace.note("%v %s loses %s\n", h.w.now, h.name, h.w.content.names[r])
			h.e.Removed(h.w.now, h.w.Block(r).CID())
		}
	}
	h.kick()
}

// Has reports whether the host has written a block.
func (h *Host) Has(r Ref) bool { return h.has.has(r) }

// SetFaults changes how the host misbehaves from now on. What a frozen host had not read it reads when it thaws.
func (h *Host) SetFaults(f Faults) {
	h.faults = f
	h.thaw()
}

// thaw reads what came while the host did not read, if it reads now.
func (h *Host) thaw() {
	if h.faults.Frozen || h.suspended {
		return
	}
	for _, l := range h.halves {
		in := l.back
		list := in.frozen
		in.frozen = nil
		for _, p := range list {
			p.arrive()
		}
	}
}

// Totals returns what the host did in all its lives.
func (h *Host) Totals() Totals {
	t := h.total
	if h.alive {
		t.engine(h.e.Totals())
	}
	return t
}

func (t *Totals) engine(s exchange.Stats) {
	t.Duplicates += s.Duplicates
	t.DuplicateBytes += s.DuplicateBytes
	t.Garbage += s.Uninvited
	t.Stalls += s.Stalls
	t.Refused += s.Refused
	t.Banned += s.Banned
}

func (h *Host) tally() { h.total.engine(h.e.Totals()) }

func (h *Host) bans(o *Host) bool {
	_, banned := h.e.Banned(h.w.now, o.id)
	return banned
}

// kick plans a turn, unless one is planned or goes on.
func (h *Host) kick() {
	if h.inTurn {
		h.again = true
	}
	if h.planned || h.inTurn || !h.alive {
		return
	}
	h.planned = true
	h.w.After(h.w.cfg.TurnDelay, h.turnFunc)
}

// newTurn returns what happens in a planned turn of this life.
func (h *Host) newTurn() func() {
	life := h.life
	turn := func() {
		h.planned = false
		h.takeTurn()
	}
	return func() {
		if h.life == life {
			h.wake(turn)
		}
	}
}

// during plans something that happens only if the host lives until then. In a turn, what takes no time happens at once, and
// the turn goes on with its result.
func (h *Host) during(d time.Duration, do func()) {
	if d <= 0 && h.inTurn {
		do()
		return
	}
	life := h.life
	h.w.After(d, func() {
		if h.life == life {
			h.wake(do)
		}
	})
}

// takeTurn asks the engine what to do and does it, until what is done at once leads to nothing more.
func (h *Host) takeTurn() {
	h.inTurn = true
	for h.again = true; h.again && h.alive && h.w.err == nil; {
		h.again = false
		h.doReady(h.e.Ready())
	}
	h.inTurn = false
}

func (h *Host) doReady(r *exchange.Ready) {
	w := h.w
	w.turns++
	h.turns++
	if n := w.cfg.CheckEvery; n > 0 && h.turns%n == 0 {
		if err := h.e.Check(); err != nil {
			w.fail("%s: %w", h.name, err)
			return
		}
		if err := h.checkHeld(); err != nil {
			w.fail("%s: %w", h.name, err)
			return
		}
	}
	w.trace.ready(w.now, h, r)
	for _, x := range r.Repeats {
		h.repeats += x.Bytes
	}
	for _, s := range r.Sends {
		h.sendControl(s)
	}
	for _, b := range r.Blocks {
		h.sendBlock(b)
	}
	for _, l := range r.Loads {
		h.load(l)
	}
	for _, s := range r.Stores {
		h.write(s)
	}
	h.deliverAll(r.Delivers)
	for _, f := range r.Finds {
		h.find(f)
	}
	for _, id := range r.Hangups {
		h.w.Cut(h, h.w.byID[id])
	}
	for _, id := range r.Dials {
		h.dial(w.byID[id])
	}
	for _, id := range r.Probes {
		h.probe(w.byID[id])
	}
	for _, d := range r.Drops {
		h.drop(d)
	}
	for _, s := range r.Sessions {
		h.sessionEnded(s)
	}
	for _, l := range r.Manifests {
		h.loadManifest(l)
	}
	for _, l := range r.Walks {
		h.loadWalk(l)
	}
	if r.Sync {
		h.sync()
	}
	if r.Wake != 0 && (h.wakes == 0 || r.Wake < h.wakes) {
		h.wakeAt(r.Wake)
	}
}

// wakeAt plans a call of Advance. A later wish replaces an earlier one only when that comes due.
func (h *Host) wakeAt(at time.Duration) {
	h.wakes = at
	h.during(at-h.w.now, func() {
		if h.wakes == at {
			h.wakes = 0
			h.e.Advance(h.w.now)
			h.kick()
		}
	})
}

func (h *Host) sendControl(s exchange.Send) {
	l := h.conns[s.Peer]
	if l == nil || !l.open {
		h.w.fail("%s: a message for %s, who is not connected", h.name, string(s.Peer))
		return
	}
	if l.guessing {
		h.during(0, func() {
			if l.open {
				h.e.Sent(h.w.now, s.Peer)
				h.kick()
			}
		})
		return
	}
	l.send(h.packet(l, s.Message))
}

// packet copies a message, which the engine will reuse, into what travels on l.
func (h *Host) packet(l *half, m *wire.Message) *packet {
	v := l.c.version
	p := h.w.spare.packet()
	p.msg = h.w.spare.message()
	p.msg.Full, p.msg.PendingBytes = m.Full, m.PendingBytes
	if v.Indexes() {
		copyMessage(p.msg, m)
		m = p.msg
		h.sabotagePacket(l, m)
		if h.faults.Swap == SwapNoCredit {
			m.Credit = 0
		}
		l.durable(m)
		// What a fault makes up is numbered too.
		if l.seq++; l.seq > 1 && h.faults.Swap == SwapSkips && h.w.chance(0.1) {
			l.seq++
		}
		m.Seq, m.Full = l.seq, l.seq == 1
		for _, b := range m.Blocks {
			p.carried += int64(len(b.Data))
		}
	}
	p.size = int64(m.Size(v))
	if h.w.cfg.Codec {
		frame, err := wire.AppendMessage(nil, v, m)
		if err != nil {
			h.w.fail("%s: a message that cannot be written: %w", h.name, err)
			return p
		}
		p.frame = frame
		return p
	}
	if v.Indexes() {
		return p
	}
	for _, en := range m.Wants {
		if en.Size(v) > 0 {
			p.msg.Wants = append(p.msg.Wants, en)
		}
	}
	if v.Haves() {
		p.msg.Presences = append(p.msg.Presences, m.Presences...)
	}
	h.sabotagePacket(l, p.msg)
	return p
}

// copyMessage makes to, which is empty, a copy of m that shares nothing with it but the bytes of blocks and of bitmaps.
func copyMessage(to, m *wire.Message) {
	c := *m
	c.Wants = append(to.Wants, m.Wants...)
	c.Blocks = append(to.Blocks, m.Blocks...)
	c.Presences = append(to.Presences, m.Presences...)
	c.Follows = append(to.Follows, m.Follows...)
	c.Haves = append(to.Haves, m.Haves...)
	c.Walks = append(to.Walks, m.Walks...)
	c.Walked = append(to.Walked, m.Walked...)
	*to = c
}

func (h *Host) sendBlock(b exchange.BlockSend) {
	l := h.conns[b.Peer]
	if l == nil || !l.open {
		return // the engine was told that the peer is gone; the bytes are the driver's again
	}
	if h.sabotaged(sabotageLedger) && h.w.chance(0.2) {
		h.sabotageSend(b)
		return
	}
	r := h.w.content.ref(b.CID)
	block := h.w.content.blocks[r]
	if h.w.chance(h.faults.WrongBytes) {
		block = h.w.Block(h.w.content.add("g", block.Size()))
	}
	p := h.blockPacket(l, block)
	p.ref = r
	if h.w.chance(h.faults.Swallow) {
		p.l = l
		h.during(0, func() { h.blockLeft(p, false) })
		return
	}
	again := *p
	l.send(p)
	if h.w.chance(h.faults.Repeat) {
		again.posed = true
		l.send(&again)
	}
}

func (h *Host) blockPacket(l *half, b dray.Block) *packet {
	p := h.w.spare.packet()
	p.block = b
	m := wire.Message{Blocks: []wire.Block{{Prefix: b.CID().Prefix(), Data: b.Data()}}}
	p.size = int64(m.Size(l.c.version))
	if h.w.cfg.Codec {
		frame, err := wire.AppendMessage(nil, l.c.version, &m)
		if err != nil {
			h.w.fail("%s: a block that cannot be written: %w", h.name, err)
		}
		p.frame = frame
	}
	return p
}

// left is called when the uplink has taken a message.
func (h *Host) left(p *packet) {
	l := p.l
	h.total.Up += p.size
	switch {
	case p.msg == nil:
		h.blockLeft(p, true)
	case !p.posed && l.open:
		if p.carried > 0 {
			h.total.BlockUp += p.carried
			h.gave[l.to.id] += p.carried
		}
		h.e.Sent(h.w.now, l.to.id)
		h.kick()
	}
}

// blockLeft tells the engine, and the World's own ledger, that a block is on its way.
func (h *Host) blockLeft(p *packet, carried bool) {
	l := p.l
	if carried {
		h.total.BlockUp += int64(p.block.Size())
	}
	if p.posed || !l.open {
		return
	}
	b := h.w.content.blocks[p.ref]
	h.gave[l.to.id] += int64(b.Size())
	h.e.BlockSent(h.w.now, l.to.id, b.CID())
	h.kick()
}

// heard notes that so many bytes of a large message have arrived.
func (h *Host) heard(l *half, bytes int64) {
	if h.alive && l.back.open && !h.faults.Frozen && !h.suspended && h.reaches(l.from) {
		h.e.Heard(h.w.now, l.from.id, bytes)
		h.kick()
	}
}

// receive takes a message that arrived from l.from.
func (h *Host) receive(l *half, p *packet) {
	w := h.w
	h.total.Down += p.size
	m, block := p.msg, p.block
	if p.frame != nil {
		var ok bool
		if m, block, ok = h.decode(l, p.frame); !ok {
			return
		}
	}
	if p.msg == nil {
		h.receiveBlock(l, block)
		return
	}
	if l.c.version.Indexes() {
		l.announced(p.msg) // what was meant: a message that travelled names leaves by index
	} else {
		l.announced(m)
	}
	l.back.follow(p.msg)
	h.total.BlockDown += p.carried
	if h.faultsOnMessage(l, m) {
		return
	}
	blocks := h.blocksOf(m)
	if p.carried > 0 && !h.bans(l.from) {
		h.got[l.from.id] += p.carried
	}
	if f := l.from.faults.Swap; p.posed && caught[f] && (f != SwapIndexBeyond || len(p.msg.Wants) > 0) && h.faults.honest() {
		h.must[l.from.id] = l.from.faults.Swap
	}
	h.e.Receive(w.now, l.from.id, m, blocks)
	h.kick()
}

// decode reads a frame as package node does: parse, then hash.
func (h *Host) decode(l *half, frame []byte) (*wire.Message, dray.Block, bool) {
	w := h.w
	n := len(frame)
	m := new(wire.Message)
	if !l.c.version.Indexes() {
		_, k := binary.Uvarint(frame)
		frame = frame[k:]
	}
	if err := wire.Decode(l.c.version, frame, m); err != nil {
		if l.from.faults.honest() {
			w.fail("%s sent %s %d bytes that cannot be read: %w", l.from.name, h.name, n, err)
		}
		h.e.Offend(w.now, l.from.id, &exchange.Violation{What: "malformed message"})
		h.kick()
		return nil, dray.Block{}, false
	}
	if len(m.Blocks) == 0 || len(m.Walked) > 0 || m.Seq != 0 {
		return m, dray.Block{}, true
	}
	b, err := dray.Hashed(m.Blocks[0].Prefix, m.Blocks[0].Data)
	if err != nil {
		w.fail("%s sent %s a block that cannot be hashed: %w", l.from.name, h.name, err)
		return nil, dray.Block{}, false
	}
	return m, b, true
}

func (h *Host) receiveBlock(l *half, b dray.Block) {
	w := h.w
	size := int64(b.Size())
	h.total.BlockDown += size
	r := w.content.ref(b.CID())
	delete(l.back.shadow, r)
	if h.faults.Mute || h.faults.Liar {
		return
	}
	if !h.bans(l.from) {
		h.got[l.from.id] += size
	}
	wanted := h.asked.has(r)
	if wanted && h.sabotaged(sabotageBytes) {
		b = h.sabotageBlock(b)
	}
	if h.sabotaged(sabotageBan) && w.chance(0.1) {
		h.e.Offend(w.now, l.from.id, &exchange.Violation{What: "nothing"})
	}
	refused := h.e.Receive(w.now, l.from.id, nil, []dray.Block{b})
	switch {
	case len(refused) == 0 && !wanted && !h.walked:
		w.fail("%s keeps %s, which nobody asked for", h.name, w.content.name(b.CID()))
	case len(refused) > 0 && h.sabotaged(sabotageUninvited):
		h.write(exchange.Store{Peer: l.from.id, Block: b})
	}
	h.kick()
}

// drop disconnects a peer that the engine says broke the protocol.
func (h *Host) drop(d exchange.Drop) {
	o := h.w.byID[d.Peer]
	h.banned[d.Peer] = true
	if h.honest() && o.honest() {
		h.w.fail("%s drops %s, who is honest: %s", h.name, o.name, d.Violation.What)
	}
	h.during(0, func() { h.w.Cut(h, o) })
}

func (h *Host) dial(o *Host) {
	if o == nil {
		return
	}
	h.knock(o, dialTimeout)
}

// knock sends the first packet of a dial, and again every second until the time is up, if nobody answers.
func (h *Host) knock(o *Host, left time.Duration) {
	h.during(2*(h.cfg.Delay+o.cfg.Delay), func() {
		switch {
		case !o.alive || h.apart(o) || o.bans(h) || left <= 0:
			h.e.DialFailed(h.w.now, o.id)
			h.kick()
		case !o.answers(h) || o.faults.Frozen:
			h.during(min(left, time.Second), func() { h.knock(o, left-time.Second) })
		default:
			h.w.Connect(h, o)
		}
	})
}

// probe asks a peer for a sign of life. One that does not read, or whose connection is broken, gives none.
func (h *Host) probe(o *Host) {
	l := h.conns[o.id]
	if l == nil || !l.open {
		return // the engine has heard that the peer is gone
	}
	answers := func() bool { return l.open && l.back.open && o.answers(h) && !o.faults.Frozen && !h.faults.Frozen }
	h.during(2*l.c.latency, func() {
		if answers() {
			h.e.Probed(h.w.now, o.id, 2*l.c.latency, nil)
			h.kick()
			return
		}
		h.during(probeTimeout, func() {
			err := errNoSign
			if answers() {
				err = nil // it read the question meanwhile
			}
			h.e.Probed(h.w.now, o.id, probeTimeout, err)
			h.kick()
		})
	})
}

// probeTimeout is how long a host waits for a sign of life.
const probeTimeout = 3 * time.Second

var errNoSign = errors.New("no sign of life")

// find looks for hosts that hold a block, in the World's knowledge of everybody's stores.
func (h *Host) find(f exchange.Find) {
	w := h.w
	r := w.content.ref(f.CID)
	var holders []*Host
	for _, o := range w.hosts {
		if o != h && o.alive && o.has.has(r) && o.faults.honest() {
			holders = append(holders, o)
		}
	}
	w.rand.Shuffle(len(holders), func(i, k int) { holders[i], holders[k] = holders[k], holders[i] })
	if len(holders) > 4 {
		holders = holders[:4]
	}
	h.during(w.between(20*time.Millisecond, 200*time.Millisecond), func() {
		for _, o := range holders {
			h.e.Found(w.now, f.Session, o.id)
		}
		h.kick()
	})
}
