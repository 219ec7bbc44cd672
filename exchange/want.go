package exchange

import (
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray/exchange/health"
)

// WantState is where a want is on its way.
//
//	Pending → Waiting → Receiving → Done
//	Waiting → Failed → Pending      nobody asked will deliver; ask somebody else
//	Pending → Receiving             a late answer to an ask that was given up
//	any but Done → Cancelled        the last session left
//	Receiving → Failed              the store could not write it
//
// Every other edge is a bug and panics.
type WantState uint8

// The states. Done and Cancelled wants are gone from the table.
const (
	Pending   WantState = iota // nobody is expected to deliver it
	Waiting                    // at least one peer was asked for the block and is expected to deliver
	Receiving                  // a verified block has arrived and is being written
	Done                       // written and delivered
	Failed                     // passing state between Waiting and Pending
	Cancelled                  // no session asks any more
)

var wantEdges = [...]uint8{
	Pending:   1<<Waiting | 1<<Receiving | 1<<Cancelled,
	Waiting:   1<<Receiving | 1<<Failed | 1<<Cancelled,
	Receiving: 1<<Done | 1<<Failed | 1<<Cancelled,
	Failed:    1<<Pending | 1<<Cancelled,
	Done:      0,
	Cancelled: 0,
}

// want is one CID that some session misses. Owned by the engine; pooled.
//
// Invariant: heap >= 0 exactly when the want is Pending, not contested, and its home session is not paused or ended.
// Invariant: blocks counts the asks for the block that are expected to be answered; it is > 0 exactly in Waiting.
type want struct {
	cid   cid.Cid
	gen   uint64 // changes when the struct is reused
	state WantState
	rank  rank
	man   *manifest // in which it is a leaf, or nil
	leaf  uint32    // its index there
	size  int64     // expected bytes
	exact bool      // size is known, not guessed

	askers []asker
	home   *session // the session whose pending heap it is, or would be, in

	heap      int   // index in home.pending, or -1
	contested bool  // some peer was found not to have it, so it is offered peer by peer
	recalled  bool  // an ask of it was dropped and the peer told so
	lazy      bool  // made of a demanded leaf, and wanted in no other way
	lapses    uint8 // how often those who were asked in vain were asked again

	asks   askChain
	blocks int
	from   *peer         // who sent the block, in Receiving
	since  time.Duration // when it was first wanted
}

// asker is one session's interest in a want.
type asker struct {
	s        *session
	refs     int  // how many answers are waited for: one for each Want and one for Demand
	demanded bool // one of refs is Demand's
	class    Class
	deadline time.Duration
	order    uint64
	pos      uint64 // in the session's log
}

func (w *want) to(s WantState) {
	if wantEdges[w.state]&(1<<s) == 0 {
		panic(fmt.Sprintf("exchange: want %v: no edge from %v to %v", w.cid, w.state, s))
	}
	w.state = s
}

func (w *want) asker(s *session) *asker {
	for i := range w.askers {
		if w.askers[i].s == s {
			return &w.askers[i]
		}
	}
	return nil
}

// ask is one want announced, or about to be, to one peer. Owned by the engine; pooled.
type ask struct {
	w      *want
	p      *peer
	sp     *sessionPeer // the session's view that made us ask
	kind   askKind
	at     time.Duration // when it was put on the wire or, for askMissing and askLate, when it became so
	mark   int64         // bytes heard from the peer until then
	number uint64        // among the asks for blocks that the peer was told of
	again  uint8         // how often it was told before, in vain
	size   int64         // bytes charged to the peer's window, 0 when not charged

	block     bool     // the peer was asked for the block itself at some time
	paid      bool     // its size was taken from the buckets, see limit.go
	pushed    bool     // the peer sends the block without having been asked
	withdrawn bool     // and told since that it is not wanted
	told      bool     // the peer has heard of it, or of an earlier ask whose cancel this one replaced
	crossed   bool     // a block from the peer may answer an earlier ask than this one, which then still stands
	list      *askList // the peer's list that it is in

	next, prev   *ask // in list
	wnext, wprev *ask // in the want's chain
}

// askKind says what was asked and what came back.
type askKind uint8

const (
	askHave    askKind = iota // do you have it?
	askBlock                  // send it
	askHeld                   // answered HAVE
	askMissing                // answered DONT_HAVE; the peer still remembers our want
	askLate                   // asked for the block, given up, and left standing
)

// askList is a list of asks of one peer. The zero value is empty.
type askList struct {
	head, tail *ask
	n          int
}

func (l *askList) push(a *ask) {
	a.list, a.prev, a.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = a
	} else {
		l.head = a
	}
	l.tail = a
	l.n++
}

func (a *ask) unlist() {
	l := a.list
	if l == nil {
		return
	}
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		l.head = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		l.tail = a.prev
	}
	l.n--
	a.list, a.next, a.prev = nil, nil, nil
}

// askChain is the chain of asks of one want, newest first, so that the ask a block answers is found at once.
type askChain struct {
	head *ask
	n    int
}

func (c *askChain) add(a *ask) {
	a.wnext, a.wprev = c.head, nil
	if c.head != nil {
		c.head.wprev = a
	}
	c.head = a
	c.n++
}

func (c *askChain) remove(a *ask) {
	if a.wprev != nil {
		a.wprev.wnext = a.wnext
	} else {
		c.head = a.wnext
	}
	if a.wnext != nil {
		a.wnext.wprev = a.wprev
	}
	a.wnext, a.wprev = nil, nil
	c.n--
}

func (c *askChain) of(p *peer) *ask {
	for a := c.head; a != nil; a = a.wnext {
		if a.p == p {
			return a
		}
	}
	return nil
}

// WantOptions say how urgent a want is and what is known of it.
type WantOptions struct {
	// Class is the coarse urgency. If zero, the session's.
	Class Class
	// Deadline is when the block is needed, on the driver's clock. If zero, there is none.
	Deadline time.Duration
	// Order is the place in the order of use: smaller is needed sooner. It orders wants of one class and deadline.
	Order uint64
	// Size is the block's size in bytes, if known. If zero, the session's average is assumed.
	Size int64
}

// Want registers that session s misses c. Wanting what the session wants already adds a reference, and may raise the
// urgency but never lower it. The answer is one entry in [Ready.Delivers]. Wants of an unknown or ended session are
// ignored.
func (e *Engine) Want(now time.Duration, s SessionID, c cid.Cid, opt WantOptions) {
	e.now = now
	sess := e.sessions[s]
	if sess == nil || sess.ended() {
		return
	}
	if e.answering(sess, c, false) {
		return
	}
	w := e.wants[c]
	demanded := sess.undemand(c)
	if w != nil {
		w.lazy = false
	}
	if w == nil {
		w = e.newWant(c)
		w.home = sess
		e.wants[c] = w
		if sess.man != nil {
			if i, ok := sess.man.m.Find(c); ok {
				w.setLeaf(sess.man, i)
			}
		}
	}
	if w.home.ended() {
		w.home = sess // it is being written for nobody; now it is for this session
	}
	if opt.Class == Normal {
		opt.Class = sess.cfg.Class
	}
	if opt.Size > 0 && !w.exact {
		w.size, w.exact = opt.Size, true
	}
	if a := w.asker(sess); a != nil {
		a.refs++
		a.class = max(a.class, opt.Class)
		if opt.Deadline != 0 && (a.deadline == 0 || opt.Deadline < a.deadline) {
			a.deadline = opt.Deadline
		}
		a.order = min(a.order, opt.Order)
	} else {
		w.askers = append(w.askers, asker{s: sess, refs: 1, class: opt.Class, deadline: opt.Deadline, order: opt.Order})
		sess.wants++
		pos := sess.log.push(w)
		a = &w.askers[len(w.askers)-1]
		a.pos = pos
		if demanded {
			a.demand()
		}
	}
	e.rerank(w)
	if w.state == Pending && !e.rehome(w) && w.heap < 0 && !w.contested {
		e.enqueue(w)
		e.offerToFeeds(w)
	}
	e.takeEarly(w)
	e.touchSession(sess)
	if opt.Deadline != 0 {
		e.timers.setEarlier(&sess.timer, nextBoost(opt.Deadline, now))
	}
	if w.state == Pending && w.rank.class >= Urgent {
		e.dirtySession(w.home)
	}
}

// Cancel withdraws one reference that [Engine.Want] added, and does nothing when there is none. When the last one of the
// session is gone, and the block is no leaf that it demands, the session hears no more of the CID; when the last session is
// gone, so do the peers.
func (e *Engine) Cancel(now time.Duration, s SessionID, c cid.Cid) {
	e.now = now
	e.withdraw(e.sessions[s], s, c, false)
}

// withdraw takes back one Want of a session, or its Demand. The session is nil if it has ended.
func (e *Engine) withdraw(s *session, id SessionID, c cid.Cid, demand bool) {
	w := e.wants[c]
	if s == nil || w == nil || w.asker(s) == nil {
		e.withhold(id, c, demand)
		return
	}
	a := w.asker(s)
	if !release(&a.refs, &a.demanded, demand) {
		return
	}
	e.leave(w, s)
	e.maybeComplete(s)
}

// release takes one reference away, Demand's or another, if there is one. It reports whether it was the last.
func release(refs *int, demanded *bool, demand bool) bool {
	if demand && !*demanded || !demand && *demanded && *refs == 1 {
		return false
	}
	if demand {
		*demanded = false
	}
	*refs--
	return *refs == 0
}

// demand adds Demand's reference, which is one however often a leaf is demanded.
func (a *asker) demand() {
	if !a.demanded {
		a.demanded = true
		a.refs++
	}
}

// answering adds a reference, of a Want or Demand's, to a want that was answered, if the answer has not been handed out yet:
// it is the answer to this one too. It reports whether there is such an answer.
func (e *Engine) answering(s *session, c cid.Cid, demand bool) bool {
	if len(e.ready.Delivers) == 0 || !e.done.contains(c) {
		return false
	}
	for i := range e.ready.Delivers {
		d := &e.ready.Delivers[i]
		if d.Session != s.id || d.CID != c {
			continue
		}
		if !demand || !d.demanded {
			d.refs++
		}
		d.demanded = d.demanded || demand
		return true
	}
	return false
}

// withhold takes back one Want that was answered, or a Demand, if the answer has not been handed out yet.
func (e *Engine) withhold(s SessionID, c cid.Cid, demand bool) {
	for i := range e.ready.Delivers {
		if d := &e.ready.Delivers[i]; d.Session == s && d.CID == c {
			if release(&d.refs, &d.demanded, demand) {
				e.ready.Delivers = slices.Delete(e.ready.Delivers, i, i+1)
			}
			return
		}
	}
}

// leave takes session s out of the askers of w, and w out of the table if it was the last.
func (e *Engine) leave(w *want, s *session) {
	for i := range w.askers {
		if w.askers[i].s == s {
			w.askers = append(w.askers[:i], w.askers[i+1:]...)
			break
		}
	}
	s.wants--
	if len(w.askers) > 0 {
		if w.home == s {
			e.dequeue(w)
			w.home = w.askers[0].s
			if w.state == Waiting {
				s.waiting--
				w.home.waiting++
			}
			w.contested = false
			if w.state == Pending {
				e.revisit(w)
				e.offer(w)
			}
			e.dirtySession(s)
		}
		e.rerank(w)
		return
	}
	if w.state == Receiving {
		return // it is being written; Stored finds that nobody asks any more
	}
	if w.state == Waiting {
		s.waiting--
		e.dirtySession(s) // another want may take its place
	}
	w.to(Cancelled)
	e.done.add(w.cid, s.id)
	e.retire(w)
}

// rerank recomputes the rank of w from its askers, and moves it in the heap it is in.
func (e *Engine) rerank(w *want) {
	r := rank{class: Prefetch, slack: maxSlack, rare: w.rank.rare, seq: w.rank.seq, order: ^uint64(0)}
	for i := range w.askers {
		a := &w.askers[i]
		r.class = max(r.class, boosted(a.class, a.deadline, e.now))
		if a.deadline != 0 {
			r.slack = min(r.slack, int64(a.deadline))
		}
		r.order = min(r.order, a.order)
	}
	if w.home.cfg.Order == Rarest && r.class <= Normal && r.slack == maxSlack {
		r.order = w.rank.order // random, fixed when the want was made
	} else {
		r.rare = 0
	}
	if r == w.rank {
		return
	}
	e.classes[w.rank.class-Prefetch]--
	e.classes[r.class-Prefetch]++
	w.rank = r
	if w.heap >= 0 {
		w.home.pending.fix(w.heap)
	}
}

// rarer notes that one more (or one fewer) peer is known to hold w.
func (e *Engine) rarer(w *want, by int32) {
	if w.home.cfg.Order != Rarest {
		return
	}
	w.rank.rare += by
	if w.heap >= 0 {
		w.home.pending.fix(w.heap)
	}
}

// enqueue puts a Pending want among those that any useful peer of its home session may be asked for.
func (e *Engine) enqueue(w *want) {
	w.home.pending.push(w)
	e.dirtySession(w.home)
}

// dequeue takes w out of its home session's pending heap, if it is there.
func (e *Engine) dequeue(w *want) {
	if w.heap >= 0 {
		w.home.pending.remove(w)
	}
}

func (e *Engine) newWant(c cid.Cid) *want {
	var w *want
	if n := len(e.freeWants); n > 0 {
		w, e.freeWants = e.freeWants[n-1], e.freeWants[:n-1]
		*w = want{gen: w.gen + 1, askers: w.askers[:0]}
	} else {
		w = &want{}
	}
	e.seq++
	w.cid, w.heap, w.since = c, -1, e.now
	w.recalled = e.done.contains(c)
	w.rank = rank{class: Prefetch, slack: maxSlack, seq: e.seq, order: e.rand.Uint64() >> 1}
	e.classes[0]++
	return w
}

// setLeaf notes that w is leaf i of a manifest.
func (w *want) setLeaf(mf *manifest, i int) {
	if w.man != nil {
		w.man.asked.remove(int(w.leaf))
		for i := range w.askers {
			a := &w.askers[i]
			a.s.told = min(a.s.told, a.pos)
		}
	}
	w.man, w.leaf = mf, uint32(i)
	if mf != nil {
		mf.asked.add(i)
	}
}

// retire ends w, which is Done or Cancelled: the table forgets it, and the peers that were asked are told to. The ask of
// the peer that sent the block was dropped when it came.
func (e *Engine) retire(w *want) {
	e.dequeue(w)
	for a := w.asks.head; a != nil; {
		next := a.wnext
		e.dropAsk(a, true)
		a = next
	}
	delete(e.wants, w.cid)
	if e.classes[w.rank.class-Prefetch]--; e.mode != health.Normal {
		e.dirtyAll()
	}
	w.setLeaf(nil, 0)
	w.gen++
	w.home = nil
	w.askers = w.askers[:0]
	e.freeWants = append(e.freeWants, w)
}

// newAsk announces w to the peer behind sp.
func (e *Engine) newAsk(w *want, sp *sessionPeer, kind askKind) *ask {
	var a *ask
	if n := len(e.freeAsks); n > 0 {
		a, e.freeAsks = e.freeAsks[n-1], e.freeAsks[:n-1]
		*a = ask{}
	} else {
		a = &ask{}
	}
	p := sp.p
	a.w, a.p, a.sp, a.kind = w, p, sp, kind
	w.asks.add(a)
	if p.entries++; p.entries == maxEntries-entryReserve {
		e.roomChanged(p)
	}
	sp.asks++
	a.told = p.uncancel(w.cid)
	a.crossed = w.recalled
	p.queue.push(a)
	e.dirtyPeer(p)
	return a
}

// dropAsk forgets an ask. With tell, the peer is told to forget it too, if it has heard of it.
func (e *Engine) dropAsk(a *ask, tell bool) {
	p, w := a.p, a.w
	if tell && !a.withdrawn && a.told {
		p.cancel(w.cid)
		w.recalled = true
		e.dirtyPeer(p)
	}
	w.recalled = w.recalled || a.withdrawn // it was told already
	e.uncharge(a)
	if a.kind == askHeld {
		e.rarer(w, -1)
	}
	a.unlist()
	w.asks.remove(a)
	if p.entries--; p.entries == maxEntries-entryReserve-1 {
		e.roomChanged(p)
	}
	a.sp.asks--
	a.w, a.p, a.sp = nil, nil, nil
	e.freeAsks = append(e.freeAsks, a)
}

// charge makes a an ask for the block that is expected to be answered, and counts its bytes against the peer's window.
func (e *Engine) charge(a *ask) {
	a.kind = askBlock
	if !a.w.exact {
		a.w.size = a.w.home.guess() // better known now than when it was wanted
	}
	a.size = a.w.size
	a.p.inflight += a.size
	e.pay(a)
	a.p.blocks++
	a.w.blocks++
	e.took(a.p)
	e.roomChanged(a.p)
}

// uncharge undoes charge, if it was done.
func (e *Engine) uncharge(a *ask) {
	if a.kind != askBlock {
		return
	}
	a.kind = askLate
	a.p.inflight -= a.size
	e.unpay(a)
	a.p.blocks--
	a.w.blocks--
	a.size = 0
	e.roomChanged(a.p)
}
