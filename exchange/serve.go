package exchange

import (
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

const (
	serveAhead   = 50 * time.Millisecond // what a peer takes in this time may be on the way to it, at least one block
	stuckAfter   = time.Second           // without taking anything, after which what a peer holds does not bound the others
	serveQuantum = 256 << 10             // bytes that a peer of weight 1 is served in its turn
	maxPresences = 2048                  // answers that may wait to be written to one peer; wants beyond are refused
)

// served is one want of a peer's. Owned by the engine.
type served struct {
	p        *peer
	cid      cid.Cid
	name     wire.Leaves // how the peer spelled it, if by index
	root     cid.Cid     // that it said the block lies under, if any
	kind     wire.WantType
	priority int32
	answer   bool // DONT_HAVE is asked for
	pushed   bool // the peer has not asked for it
	hidden   bool // when it was last looked at, the peer was not to have it
	state    serveState
	again    bool  // wanted once more while it was being sent, or added while it was being looked up
	copies   int32 // times that the block was sent to anybody, lately
	size     int64
	seq      uint64
	heap     int     // index in serving.tasks, or -1
	next     *served // other peers' wants of the same CID
	prev     *served
}

// serveState is where a peer's want is: looked up, then queued, loaded and written; or absent, and remembered until the
// block is added, the peer withdraws it or leaves.
type serveState uint8

const (
	serveLookup serveState = iota
	serveAbsent
	serveQueued
	serveLoading
	serveWriting
)

// serving is one peer's side of what this host serves.
//
// Invariant: queued = the sum of size over the tasks; out = over wants in Loading and Writing.
type serving struct {
	wants   map[cid.Cid]*served
	tasks   []*served // heap by priority, then age
	queued  int64
	out     int64
	credit  int64 // bytes that a peer who speaks TensorSwap lets us send in all
	sent    int64 // of which were begun
	ring    int   // index in servingQueue.ring, or -1
	deficit int64
	moved   time.Duration // when something of out was last taken, or out was 0
	rate    float64       // bytes a second that the peer takes while out is not 0; 0 when not known
	busy    time.Duration // of the present sample
	taken   int64         // in it
}

// servingQueue is what all peers wait for.
type servingQueue struct {
	ring    []*peer // peers with tasks, served in turn
	turn    int
	given   bool                // the peer whose turn it is got its bytes for it
	out     int64               // bytes being loaded and written for all
	stuck   int64               // of which for peers that take nothing, when that was last looked at
	lookAt  time.Duration       // when to look again
	waiting map[cid.Cid]*served // chain of every peer's want for a CID
	copies  copyCount
}

const maxCopies = 1 << 16 // blocks whose copies are counted

// copyCount counts how often each of the last blocks was sent, so that among wants of one priority the block goes first
// that the fewest have. The oldest counts are forgotten.
type copyCount struct {
	of   map[cid.Cid]int32
	ring []cid.Cid
	next int
}

func (n *copyCount) add(c cid.Cid) {
	if _, known := n.of[c]; !known {
		if len(n.ring) < maxCopies {
			n.ring = append(n.ring, c)
		} else {
			delete(n.of, n.ring[n.next])
			n.ring[n.next] = c
			n.next = (n.next + 1) % maxCopies
		}
	}
	n.of[c]++
}

// receiveWants files a peer's want list.
func (e *Engine) receiveWants(p *peer, m *wire.Message) {
	if m.Full {
		keep := make(map[cid.Cid]struct{}, len(m.Wants))
		for i := range m.Wants {
			if !m.Wants[i].Cancel {
				keep[m.Wants[i].CID] = struct{}{}
			}
		}
		var gone []*served
		for c, v := range p.serve.wants {
			if _, ok := keep[c]; !ok {
				gone = append(gone, v)
			}
		}
		for _, v := range gone {
			e.unserve(v) // no output depends on the order
		}
	}
	for i := range m.Wants {
		en := &m.Wants[i]
		if en.Leaves.Feed == 0 {
			root := cid.Undef
			if f := p.numbers[en.Feed]; f != nil {
				root = f.root
			}
			e.receiveEntry(p, en, wire.Leaves{}, root)
			continue
		}
		mf, ok := e.named(p, en.Leaves)
		if !p.up {
			return
		}
		if !ok {
			continue
		}
		for k := en.Leaves.First; k < en.Leaves.First+en.Leaves.N(); k++ {
			one := *en
			one.CID, one.Priority = mf.m.Leaf(int(k)), en.PriorityOf(k)
			e.receiveEntry(p, &one, wire.Leaves{Feed: en.Leaves.Feed, First: k}, mf.m.Root())
		}
	}
}

func (e *Engine) receiveEntry(p *peer, en *wire.Entry, name wire.Leaves, root cid.Cid) {
	if !en.Cancel {
		e.receiveWant(p, en, name, root)
	} else if v := p.serve.wants[en.CID]; v != nil {
		e.unserve(v)
	}
}

func (e *Engine) receiveWant(p *peer, en *wire.Entry, name wire.Leaves, root cid.Cid) {
	v := p.serve.wants[en.CID]
	if v == nil {
		if len(p.serve.wants) >= e.cfg.PeerWants || len(p.presences) >= maxPresences {
			e.stats.Refused++
			return
		}
		if p.serve.wants == nil {
			p.serve.wants = make(map[cid.Cid]*served)
		}
		e.seq++
		v = &served{name: name, root: root, p: p, cid: en.CID, kind: en.Type, priority: en.Priority, answer: en.SendDontHave, seq: e.seq, heap: -1}
		p.serve.wants[en.CID] = v
		v.copies = e.serving.copies.of[en.CID]
		if first := e.serving.waiting[en.CID]; first != nil {
			v.next, first.prev = first, v
		}
		e.serving.waiting[en.CID] = v
		e.ready.Loads = append(e.ready.Loads, Load{Peer: p.id, CID: v.cid, Stat: true})
		return
	}
	v.pushed = false
	if root.Defined() && !e.mayHave(p, v.cid, v.root) {
		v.root = root
	}
	if en.Type == wire.WantBlock {
		v.kind = wire.WantBlock // a want-have never replaces a want-block
	}
	v.answer = v.answer || en.SendDontHave
	v.priority = max(v.priority, en.Priority)
	switch v.state {
	case serveAbsent:
		v.state = serveLookup
		e.ready.Loads = append(e.ready.Loads, Load{Peer: p.id, CID: v.cid, Stat: true})
	case serveQueued:
		p.serve.fix(v.heap)
	case serveWriting:
		v.again = true
	}
}

// Loaded answers one [Load] of a block's bytes or, with Stat, of its size. A non-nil err means that the block is not
// there or cannot be read. It reports whether data is kept, to come back in [Ready.Blocks].
func (e *Engine) Loaded(now time.Duration, l Load, size int64, data []byte, err error) bool {
	e.now = now
	p := e.peers[l.Peer]
	if p == nil {
		return false
	}
	v := p.serve.wants[l.CID]
	if v == nil {
		return false
	}
	if l.Stat {
		switch {
		case v.state == serveLookup && err != nil && v.again:
			v.again = false
			e.ready.Loads = append(e.ready.Loads, l)
		case v.state == serveLookup:
			v.again = false
			e.lookedUp(v, size, err == nil)
		case v.state == serveAbsent && err == nil && e.mayHave(p, v.cid, v.root):
			e.lookedUp(v, size, true) // the answer before was to a want that was withdrawn meanwhile
		}
		return false
	}
	if v.state != serveLoading {
		return false
	}
	guarded := e.access.of(v.cid) != nil
	if err != nil || guarded && !e.mayHave(p, v.cid, v.root) {
		e.unload(v)
		p.serve.sent -= v.size // the peer will not see it
		e.giveUp(p, v.size)
		e.lookedUp(v, 0, false)
		return false
	}
	v.state = serveWriting
	e.ready.Blocks = append(e.ready.Blocks, BlockSend{Peer: p.id, CID: v.cid, Data: data, Guarded: guarded})
	return true
}

// lookedUp goes on with a want once it is known whether the block is here.
func (e *Engine) lookedUp(v *served, size int64, here bool) {
	p := v.p
	v.hidden = !e.mayHave(p, v.cid, v.root)
	switch {
	case !here || e.cfg.Withhold || v.hidden:
		v.state = serveAbsent
		if v.answer && p.caps.Haves {
			p.presences = append(p.presences, wire.Presence{CID: v.cid, Have: false, Leaves: v.name})
			e.dirtyPeer(p)
		}
		if v.pushed {
			e.forget(v) // the peer waits for it no longer, or asks
		}
	case v.kind == wire.WantHave && size > e.cfg.InlineBytes && p.caps.Haves:
		p.presences = append(p.presences, wire.Presence{CID: v.cid, Have: true, Leaves: v.name})
		e.dirtyPeer(p)
		e.forget(v)
	default:
		v.size = size
		v.state = serveQueued
		p.serve.push(v)
		p.serve.queued += size
		if p.serve.ring < 0 {
			p.serve.ring = len(e.serving.ring)
			e.serving.ring = append(e.serving.ring, p)
		}
	}
}

// announceAdded serves the peers that wait for a block which is now here.
func (e *Engine) announceAdded(c cid.Cid, size int64) {
	for v := e.serving.waiting[c]; v != nil; {
		next := v.next
		switch v.state {
		case serveAbsent:
			if e.mayHave(v.p, v.cid, v.root) { // else it was said to be absent, and is not said so again
				e.lookedUp(v, size, true)
			}
		case serveLookup:
			v.again = true // the look-up may have begun before
		}
		v = next
	}
}

// BlockSent says that the transport has taken a block named in [Ready.Blocks], or that its peer is gone. The bytes belong
// to the driver again.
func (e *Engine) BlockSent(now time.Duration, id dray.PeerID, c cid.Cid) {
	e.now = now
	p := e.peers[id]
	if p == nil {
		return
	}
	v := p.serve.wants[c]
	if v == nil || v.state != serveWriting {
		return
	}
	e.stats.Served++
	e.stats.ServedBytes += v.size
	p.acct.Sent += v.size
	e.shape.sent.add(now, v.size)
	e.unload(v)
	if v.again {
		v.again = false
		v.state = serveLookup
		e.ready.Loads = append(e.ready.Loads, Load{Peer: p.id, CID: c, Stat: true})
		return
	}
	e.forget(v)
}

// unload gives back what a want that was being loaded or written held of the bounds.
func (e *Engine) unload(v *served) {
	v.p.serve.out -= v.size
	v.p.serve.measure(e.now, v.size)
	e.serving.out -= v.size
}

// unserve withdraws a peer's want. A block that is being written is still written.
func (e *Engine) unserve(v *served) {
	switch v.state {
	case serveWriting:
		v.again = false
		return
	case serveLoading:
		e.unload(v)
		v.p.serve.sent -= v.size
		e.giveUp(v.p, v.size)
	case serveQueued:
		v.p.serve.remove(v)
		v.p.serve.queued -= v.size
		if len(v.p.serve.tasks) == 0 {
			e.leaveRing(v.p)
		}
	}
	e.forget(v)
}

// forget takes a want that is in no queue out of the tables.
func (e *Engine) forget(v *served) {
	delete(v.p.serve.wants, v.cid)
	if v.prev != nil {
		v.prev.next = v.next
	} else if v.next != nil {
		e.serving.waiting[v.cid] = v.next
	} else {
		delete(e.serving.waiting, v.cid)
	}
	if v.next != nil {
		v.next.prev = v.prev
	}
	v.next, v.prev = nil, nil
}

// stopServing forgets everything that p waits for.
func (e *Engine) stopServing(p *peer) {
	for _, v := range p.serve.wants {
		e.forget(v) // no output depends on the order
	}
	e.serving.out -= p.serve.out
	if p.serve.ring >= 0 {
		e.leaveRing(p)
	}
	p.serve = serving{ring: -1}
}

func (e *Engine) leaveRing(p *peer) {
	r, i := e.serving.ring, p.serve.ring
	copy(r[i:], r[i+1:])
	r[len(r)-1] = nil
	e.serving.ring = r[:len(r)-1]
	for k := i; k < len(e.serving.ring); k++ {
		e.serving.ring[k].serve.ring = k
	}
	switch {
	case i < e.serving.turn:
		e.serving.turn--
	case i == e.serving.turn:
		e.serving.given = false
		if i == len(e.serving.ring) {
			e.serving.turn = 0 // or the peer, back before the next turn, would have it again
		}
	}
	p.serve.ring = -1
	p.serve.deficit = 0
}

// pull starts reading blocks for peers, in turn by bytes, as far as the bounds allow: deficit round robin. While there is
// room for everybody the ledger plays no part.
func (e *Engine) pull() {
	q := &e.serving
	idle := 0 // peers in a row that could take nothing
	for len(q.ring) > 0 && q.out < e.cfg.ServeBytes && idle < len(q.ring) && e.upOpen() {
		if q.turn >= len(q.ring) {
			q.turn = 0
		}
		p := q.ring[q.turn]
		sv := &p.serve
		if !e.mayRead(p) {
			sv.deficit = 0
			q.turn++
			q.given = false
			idle++
			continue
		}
		if !q.given {
			sv.deficit += int64(e.quantum() * e.weight(p))
			q.given = true
		}
		idle = 0
		for len(sv.tasks) > 0 && sv.tasks[0].size <= sv.deficit && q.out < e.cfg.ServeBytes && e.upOpen() && e.mayRead(p) {
			e.read(sv)
		}
		if len(sv.tasks) == 0 {
			e.leaveRing(p)
			continue
		}
		if (q.out >= e.cfg.ServeBytes || !e.upOpen()) && sv.tasks[0].size <= sv.deficit && e.mayRead(p) {
			break // its turn is not over: it goes on when there is room again
		}
		q.turn++
		q.given = false
	}
	if len(q.ring) > 0 && q.out >= e.cfg.ServeBytes {
		e.pullPastStuck()
	}
}

// mayRead reports whether one more block may be begun for a peer. It has no more on the way than it takes in a while, or a
// few slow peers would hold all of what is served.
func (e *Engine) mayRead(p *peer) bool {
	sv := &p.serve
	return p.credited() && (sv.out == 0 || sv.out < e.cfg.PeerServeBytes && !sv.ahead()) && e.upOpenFor(p)
}

func (s *serving) ahead() bool { return s.rate > 0 && float64(s.out) >= s.rate*serveAhead.Seconds() }

// measure notes that the peer has taken size bytes.
func (s *serving) measure(now time.Duration, size int64) {
	s.busy += now - s.moved
	s.taken += size
	s.moved = now
	if s.busy < rateSample {
		return
	}
	sample := float64(s.taken) / s.busy.Seconds()
	if s.rate == 0 {
		s.rate = sample
	} else {
		s.rate += 0.3 * (sample - s.rate)
	}
	s.busy, s.taken = 0, 0
}

// pullPastStuck serves others while peers who do not read what they asked for hold the bound between them: what those
// hold does not count, up to as much again, and whoever holds nothing may have one block at a time.
func (e *Engine) pullPastStuck() {
	q := &e.serving
	if e.now >= q.lookAt {
		q.lookAt, q.stuck = e.now+stuckAfter/8, 0
		for _, p := range e.upPeers {
			switch sv := &p.serve; {
			case sv.out == 0:
			case e.now-sv.moved >= stuckAfter:
				q.stuck += sv.out
			default:
				e.timers.setEarlier(&p.timer, max(sv.moved+stuckAfter, q.lookAt))
			}
		}
	}
	bound := e.cfg.ServeBytes + min(q.stuck, e.cfg.ServeBytes)
	for n := len(q.ring); n > 0 && len(q.ring) > 0 && q.out < bound && e.upOpen(); n-- {
		// It goes round as in pull, or those at the end of the ring would never have their turn.
		if q.turn >= len(q.ring) {
			q.turn = 0
		}
		p := q.ring[q.turn]
		if p.serve.out == 0 && p.credited() && e.upOpenFor(p) {
			e.read(&p.serve)
			p.serve.deficit = 0
			if len(p.serve.tasks) == 0 {
				e.leaveRing(p)
				continue
			}
		}
		q.turn++
		q.given = false
	}
}

// credited reports whether the peer's credit, if it gives any, lets a block be begun.
func (p *peer) credited() bool { return !p.caps.Indexes || p.serve.sent < p.serve.credit }

// read starts reading the next block for a peer.
func (e *Engine) read(sv *serving) {
	v := sv.tasks[0]
	if sv.out == 0 {
		sv.moved = e.now
	}
	sv.remove(v)
	sv.queued -= v.size
	sv.deficit -= v.size
	sv.out += v.size
	sv.sent += v.size
	e.takeUp(v.p, v.size)
	e.serving.out += v.size
	v.state = serveLoading
	e.ready.Loads = append(e.ready.Loads, Load{Peer: v.p.id, CID: v.cid, Size: v.size})
	e.serving.copies.add(v.cid)
	for o := e.serving.waiting[v.cid]; o != nil; o = o.next {
		o.copies++
		if o.heap >= 0 {
			o.p.serve.fix(o.heap)
		}
	}
}

// weight is the peer's share of what is served in a turn: that of its service and, while there is not enough for all, of
// its account.
func (e *Engine) weight(p *peer) float64 {
	share := p.shape.service.share()
	if len(e.serving.ring) < 2 || !e.scarce() {
		return share
	}
	return share * p.acct.weight(share)
}

func (s *serving) before(i, j int) bool {
	a, b := s.tasks[i], s.tasks[j]
	if a.priority != b.priority {
		return a.priority > b.priority
	}
	if a.copies != b.copies {
		return a.copies < b.copies
	}
	return a.seq < b.seq
}

func (s *serving) swap(i, j int) {
	s.tasks[i], s.tasks[j] = s.tasks[j], s.tasks[i]
	s.tasks[i].heap, s.tasks[j].heap = i, j
}

func (s *serving) push(v *served) {
	s.tasks = append(s.tasks, v)
	v.heap = len(s.tasks) - 1
	s.fix(v.heap)
}

func (s *serving) remove(v *served) {
	i, n := v.heap, len(s.tasks)-1
	if i != n {
		s.swap(i, n)
	}
	s.tasks[n] = nil
	s.tasks = s.tasks[:n]
	v.heap = -1
	if i < n {
		s.fix(i)
	}
}

func (s *serving) fix(i int) {
	for i > 0 && s.before(i, (i-1)/2) {
		s.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		c := 2*i + 1
		if c >= len(s.tasks) {
			return
		}
		if c+1 < len(s.tasks) && s.before(c+1, c) {
			c++
		}
		if !s.before(c, i) {
			return
		}
		s.swap(i, c)
		i = c
	}
}
