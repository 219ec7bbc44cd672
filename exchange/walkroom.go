package exchange

import (
	"slices"
	"time"

	"dray/wire"
)

const (
	walkReads = 8               // parts of answers to walks that are being read at one time, for all peers
	walkRoom  = 8 << 20         // bytes of parts that were read and not taken by their peers, beyond which none is read
	walkStale = 1 * time.Second // a walk that could not be begun for so long is refused: nothing depends on it
)

// walkParts bounds what answers to walks take, over all peers: a peer can ask for megabytes with a few bytes, and read
// none of them. Owned by the engine.
//
// Invariant: reads = answers that are being read; held = the bytes of the blocks of all answers, and of those in
// messages that are being written.
type walkParts struct {
	queue []walkPart // to be read, in turn
	reads int
	held  int64
}

// walkPart is a part of an answer that is to be read.
type walkPart struct {
	p     *peer
	a     *walked
	first bool
	since time.Duration
}

// gone reports whether nobody waits for the part any more.
func (x *walkPart) gone() bool { return x.a.stopped || !slices.Contains(x.p.answers, x.a) }

// readPart has the next part of an answer read when it is its turn.
func (e *Engine) readPart(p *peer, a *walked, first bool) {
	a.loading = true
	e.parts.queue = append(e.parts.queue, walkPart{p: p, a: a, first: first, since: e.now})
}

// beginParts starts to read parts, as far as there is room.
func (e *Engine) beginParts() {
	q := &e.parts
	n := 0
	for _, x := range q.queue {
		switch {
		case x.gone():
		case q.reads >= walkReads || q.held >= walkRoom:
			if x.first {
				e.timers.setEarlier(&x.p.timer, x.since+walkStale)
			}
			q.queue[n] = x
			n++
		default:
			x.a.reading = true
			q.reads++
			e.ready.Walks = append(e.ready.Walks, WalkLoad{Peer: x.p.id, Walk: x.a.w, First: x.first})
		}
	}
	clear(q.queue[n:])
	q.queue = q.queue[:n]
}

// refuseStale refuses walks that could not be begun because others hold the room.
func (e *Engine) refuseStale() {
	q := &e.parts
	if q.held < walkRoom {
		return
	}
	for _, x := range q.queue {
		if !x.first || e.now < x.since+walkStale || x.gone() {
			continue
		}
		x.a.stopped = true
		x.p.answers = slices.DeleteFunc(x.p.answers, func(a *walked) bool { return a == x.a })
		x.p.refusals = append(x.p.refusals, x.a.w.ID)
		e.dirtyPeer(x.p)
	}
}

// partRead notes that a part was read.
func (e *Engine) partRead(a *walked, blocks []wire.Block) {
	a.reading = false
	e.parts.reads--
	for _, b := range blocks {
		e.parts.held += int64(len(b.Data))
	}
}

// partDropped gives back what an answer holds that will not be sent.
func (e *Engine) partDropped(a *walked) {
	if a.reading {
		a.reading = false
		e.parts.reads--
	}
	for _, b := range a.blocks {
		e.parts.held -= int64(len(b.Data))
	}
	a.blocks = nil
}

// uncarry gives back what the message that was being written to p carried, and returns how much that was.
func (e *Engine) uncarry(p *peer) int64 {
	n := p.carried
	e.parts.held -= n
	p.carried = 0
	return n
}

// dropAnswers forgets all answers to a peer's walks, without a word to the driver.
func (e *Engine) dropAnswers(p *peer) {
	for _, a := range p.answers {
		e.partDropped(a)
	}
	p.answers = nil
}
