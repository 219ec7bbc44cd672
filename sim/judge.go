package sim

import (
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"dray/wire"
)

// announced keeps what l.from has told l.to that it wants, as a standard Bitswap server remembers it: until it is cancelled or
// the block is sent.
func (l *half) announced(m *wire.Message) {
	w := l.from.w
	if m.Full {
		clear(l.shadow)
	}
	for _, en := range m.Wants {
		r := w.content.ref(en.CID)
		if r == noRef {
			l.foreign++
			continue
		}
		if en.Cancel {
			delete(l.shadow, r)
			continue
		}
		l.shadow[r] = l.shadow[r] || en.Type == wire.WantBlock
	}
	if len(l.shadow) > standardWants && l.from.faults.honest() {
		w.fail("%s has announced %d wants to %s, who keeps no more than %d", l.from.name, len(l.shadow), l.to.name, standardWants)
	}
}

const drainTurns = 20 // times that Settle waits longer for slow lines

const standardWants = 1024 // what a standard peer keeps (bitswap.md 1.3)

// Settle lets the World come to rest and judges what is left: peers must remember exactly what is still wanted of them, the ledgers must
// equal what the wire carried, and hosts whose fetches have ended must hold nothing. It returns the first thing that is wrong.
func (w *World) Settle(d time.Duration) error {
	w.Run(w.now+d, nil)
	for range drainTurns {
		if w.err != nil || !w.sending() {
			break
		}
		w.Run(w.now+d, nil) // a slow line empties its queue
	}
	if w.err != nil {
		return w.err
	}
	for _, h := range w.hosts {
		if !h.alive || !h.honest() {
			continue
		}
		if err := h.e.Check(); err != nil {
			return w.judged(h, err)
		}
		if err := h.judge(); err != nil {
			return w.judged(h, err)
		}
	}
	return nil
}

// sending reports whether any line is still busy.
func (w *World) sending() bool {
	for _, h := range w.hosts {
		if h.alive && h.sending && h.faults.honest() {
			return true
		}
	}
	return false
}

func (w *World) judged(h *Host, err error) error {
	w.fail("at rest: %s: %w", h.name, err)
	return w.err
}

// judge looks at one honest host at rest.
func (h *Host) judge() error {
	w := h.w
	for _, o := range w.hosts {
		if fault, heard := h.must[o.id]; heard && !h.banned[o.id] {
			return fmt.Errorf("%s misused the protocol (%d) and was not dropped", o.name, fault)
		}
	}
	if twice := h.e.Totals().DuplicateBytes; h.repeats != twice {
		return fmt.Errorf("%d bytes came twice; %d were told of", twice, h.repeats)
	}
	held := h.e.Held()
	kept := held.Early
	for _, l := range h.halves {
		if l.to.faults.Frozen || l.to.suspended {
			continue // it has not read what we said
		}
		if err := h.judgeLanes(l); err != nil {
			return err
		}
		for r := range refsOf(l.shadow, len(w.content.blocks)) {
			if h.wanted.of(r) == 0 {
				return fmt.Errorf("%s still has our want of %s, which nobody here wants", l.to.name, w.content.names[r])
			}
		}
		a := h.e.Account(l.to.id)
		if a.Sent != h.gave[l.to.id] {
			return fmt.Errorf("the ledger says %d bytes to %s; the wire carried %d", a.Sent, l.to.name, h.gave[l.to.id])
		}
		early := h.got[l.to.id] - a.Received - a.Duplicate // kept for a session that may want it yet
		if kept -= early; early < 0 || kept < 0 {
			return fmt.Errorf("the ledger says %d + %d bytes from %s; the wire carried %d",
				a.Received, a.Duplicate, l.to.name, h.got[l.to.id])
		}
	}
	if h.wanted.some != held.Wants {
		return fmt.Errorf("the engine holds %d wants; the application has %d", held.Wants, h.wanted.some)
	}
	open := 0
	for _, f := range h.fetches {
		if !f.Done() {
			open++
		}
	}
	if open != held.Sessions {
		return fmt.Errorf("the engine holds %d sessions; the application has %d", held.Sessions, open)
	}
	theirs := 0
	var stuck int64 // bytes of blocks that a peer does not read
	for _, l := range h.halves {
		theirs += len(l.back.shadow) + l.back.foreign
		n, bytes := l.queued()
		theirs += n // withdrawn or not, what is being written is still written
		stuck += bytes
	}
	switch {
	case held.Wants == 0 && held.Asks != 0:
		return fmt.Errorf("nothing is wanted, and %d asks are left", held.Asks)
	case held.Receiving != 0:
		return fmt.Errorf("%d bytes are being written", held.Receiving)
	case held.Serving != stuck:
		return fmt.Errorf("%d bytes are being served; %d wait for peers that do not read", held.Serving, stuck)
	case held.PeerWants > theirs:
		return fmt.Errorf("%d wants of peers are left, of %d announced", held.PeerWants, theirs)
	}
	return nil
}

// judgeLanes compares what one side of a connection believes to have told the other with what the other has heard: after any number
// of cuts they are the same.
func (h *Host) judgeLanes(l *half) error {
	w := h.w
	if l.listed[0] || !l.back.open || l.guessing {
		return nil // something is still to be said
	}
	var lost error
	h.e.Told(l.to.id, func(c cid.Cid, block bool) {
		if asked, heard := l.shadow[w.content.ref(c)]; (!heard || block && !asked) && lost == nil {
			lost = fmt.Errorf("%s was asked for %s, and has never heard it", l.to.name, w.content.name(c))
		}
	})
	if lost != nil || !l.to.honest() || l.back.listed[0] {
		return lost
	}
	for _, c := range w.all() {
		root := w.roots[w.Block(c).CID()]
		if root == nil {
			continue
		}
		theirs, durable := h.e.Theirs(l.to.id, root.man.Root())
		if theirs == nil {
			continue
		}
		has := &l.to.has
		if durable {
			has = &l.to.synced
		}
		for i, leaf := range root.leaves {
			told := theirs[i>>6]&(1<<(i&63)) != 0
			if told != has.has(leaf) && (durable || !h.has.has(leaf)) {
				return fmt.Errorf("%s believes that %s has leaf %d: %v; it has it: %v", h.name, l.to.name, i, told, !told)
			}
		}
	}
	return nil
}

// follow notes which roots the peer at the other end follows, and how.
func (l *half) follow(m *wire.Message) {
	for _, f := range m.Follows {
		switch {
		case f.Stop:
			delete(l.feeds, f.Feed)
		case l.feeds == nil:
			l.feeds = map[uint32]wire.Follow{f.Feed: f}
		default:
			l.feeds[f.Feed] = f
		}
	}
}

// durable fails the World if the message says of a leaf that it would survive a loss of power, and it is not synced.
func (l *half) durable(m *wire.Message) {
	h := l.from
	for _, have := range m.Haves {
		f := l.feeds[have.Feed]
		root := h.w.roots[f.Root]
		if !f.Durable || root == nil || have.Lost || !h.honest() {
			continue
		}
		for first, n := range have.Bits.Ones() {
			for i := first; i < first+n && int(i) < len(root.leaves); i++ {
				if r := root.leaves[i]; !h.synced.has(r) {
					h.w.fail("%s says that %s is durable, which is not synced", h.name, h.w.content.names[r])
				}
			}
		}
	}
}

// peerBytes is about what an engine may keep because of one peer at most, whatever it does.
const peerBytes = 2 << 20

// checkHeld verifies that what peers make an engine keep is bounded.
func (h *Host) checkHeld() error {
	for _, l := range h.halves {
		if n := h.e.HeldFor(l.to.id).Bytes(); n > peerBytes {
			return fmt.Errorf("%d bytes are kept for %s, at most %d may be", n, l.to.name, peerBytes)
		}
	}
	return nil
}

// queued returns the number and the bytes of blocks that wait for room in the connection.
func (l *half) queued() (n int, bytes int64) {
	for i := range l.streams {
		for _, p := range l.streams[i].queue[l.streams[i].head:] {
			if p.msg == nil && !p.posed {
				n++
				bytes += int64(p.block.Size())
			}
		}
	}
	return n, bytes
}

// refsOf yields the keys of a set in order, so that what is reported first does not depend on the run.
func refsOf(set map[Ref]bool, n int) func(func(Ref) bool) {
	return func(yield func(Ref) bool) {
		if len(set) == 0 {
			return
		}
		for r := range Ref(n) {
			if _, ok := set[r]; ok && !yield(r) {
				return
			}
		}
	}
}
