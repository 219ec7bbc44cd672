package exchange

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// A session on a graph that is not known yet begins with a walk: one peer that speaks TensorSwap is asked for all nodes
// above the leaves at once, and may begin to send leaves. While the answer comes, the session asks nobody for anything.
// Blocks of the answer that are not wanted yet are kept; when they are wanted, they are there. So a walk only saves round
// trips: nothing depends on it, and an answer that is wrong, late or not whole costs what it was worth.

const (
	maxWalks      = 4        // of one peer at a time; more are refused
	walkChunk     = 1 << 20  // bytes of blocks in one message of an answer
	maxWalkBytes  = 64 << 20 // of one answer, whatever was asked for
	maxPush       = 16 << 20
	maxPushed     = 512             // leaves
	walkPatience  = 5 * time.Second // without a sign of life, after which a walk is given up
	walkAttempts  = 2
	creditBase    = 4 << 20 // bytes that a peer may always send beyond what it was asked for
	maxEarlyBlock = 40 << 20
)

// WalkOptions say what a session's walk asks for. The zero value asks for none.
type WalkOptions struct {
	// Bytes bounds the blocks of the answer. If zero, there is no walk.
	Bytes int64
	// Depth bounds the number of links from the root down. If zero, there is no bound.
	Depth int
	// Leaves asks for leaves of files too.
	Leaves bool
	// Push is how many bytes of leaves may come after the skeleton.
	Push int64
}

// walk is a session's question. Owned by the engine.
type walk struct {
	p        *peer // who was asked; nil when nobody is
	id       uint32
	said     bool
	attempts int
	at       time.Duration
	allowed  int64     // bytes that may still come unasked
	pushed   wire.Bits // leaves that follow, until the manifest is known
	leaves   uint32
	from     *peer // who pushes them
	done     bool  // there was an answer
}

// WalkLoad asks the driver for the next blocks of a walk: parents before children, about [walkChunk] bytes, answered with
// exactly one [Engine.WalkLoaded]. The first WalkLoad of a walk has First.
type WalkLoad struct {
	Peer  dray.PeerID
	Walk  wire.Walk
	First bool
}

// walked is a peer's walk that is being answered.
type walked struct {
	w       wire.Walk
	blocks  []wire.Block // to be written
	loading bool
	last    bool
	status  wire.WalkStatus
	waits   bool // for the manifest, to push leaves
	pushed  wire.Bits
	leaves  uint32
}

// beginWalk asks p for the session's walk, if there is one that nobody was asked for.
func (e *Engine) beginWalk(s *session, p *peer) {
	w := &s.walk
	if s.cfg.Walk.Bytes == 0 || w.p != nil || w.done || w.attempts >= walkAttempts || !p.caps.Indexes || !p.usable() || s.ended() {
		return
	}
	p.lastWalk++
	*w = walk{p: p, id: p.lastWalk, attempts: w.attempts + 1, at: e.now, allowed: s.cfg.Walk.Bytes + s.cfg.Walk.Push}
	p.walks = append(p.walks, s)
	p.granted += w.allowed
	e.timers.setEarlier(&s.timer, e.now+walkPatience)
	e.dirtyPeer(p)
}

// walking reports whether the session waits for an answer to its walk, and asks nobody meanwhile.
func (s *session) walking() bool { return s.walk.p != nil }

// endWalk goes on without waiting for more of the answer.
func (e *Engine) endWalk(s *session) {
	w := &s.walk
	if w.p == nil {
		return
	}
	p := w.p
	if i := slices.Index(p.walks, s); i >= 0 {
		p.walks = slices.Delete(p.walks, i, i+1)
	}
	w.p = nil
	e.dirtySession(s)
}

// abandonWalk takes the question back.
func (e *Engine) abandonWalk(s *session) {
	if w := &s.walk; w.p != nil && w.said && w.p.up {
		w.p.stopWalks = append(w.p.stopWalks, w.id)
		e.dirtyPeer(w.p)
	}
	e.endWalk(s)
}

// walkDue gives up a walk that is silent for too long.
func (e *Engine) walkDue(s *session) {
	w := &s.walk
	if w.p == nil {
		return
	}
	if due := max(w.at, w.p.flow.heard) + walkPatience; e.now < due {
		e.timers.setEarlier(&s.timer, due)
		return
	}
	e.abandonWalk(s)
}

// early is a block that came before it was wanted, within what a walk allowed.
type early struct {
	b dray.Block
	p *peer
	s *session
}

// keepEarly keeps a block that nobody wants yet and reports whether it did.
func (e *Engine) keepEarly(p *peer, b dray.Block) bool {
	size := int64(b.Size())
	if _, twice := e.early[b.CID()]; twice || e.done.contains(b.CID()) || e.earlyBytes+size > maxEarlyBlock {
		return false
	}
	for _, s := range e.sessionList {
		if w := &s.walk; (w.p == p || w.from == p) && w.allowed >= size {
			w.allowed -= size
			e.early[b.CID()] = early{b, p, s}
			e.earlyList = append(e.earlyList, b.CID())
			e.earlyBytes += size
			p.flow.heard = e.now
			p.flow.answered(e.now)
			return true
		}
	}
	return false
}

// takeEarly hands out a block that came before it was wanted.
func (e *Engine) takeEarly(w *want) bool {
	x, ok := e.early[w.cid]
	if !ok || w.state != Pending {
		return false
	}
	delete(e.early, w.cid)
	e.earlyBytes -= int64(x.b.Size())
	e.dequeue(w)
	e.accept(w, x.p, x.b)
	return true
}

// dropEarly gives back the blocks that were kept for a session that has ended.
func (e *Engine) dropEarly(s *session) {
	keep := e.earlyList[:0]
	for _, c := range e.earlyList {
		x, ok := e.early[c]
		switch {
		case !ok:
		case x.s == s:
			delete(e.early, c)
			e.earlyBytes -= int64(x.b.Size())
			x.p.acct.Duplicate += int64(x.b.Size())
			e.stats.Duplicates++
			e.stats.DuplicateBytes += int64(x.b.Size())
			e.ready.Discards = append(e.ready.Discards, x.b)
		default:
			keep = append(keep, c)
		}
	}
	clear(e.earlyList[len(keep):])
	e.earlyList = keep
}

// receiveWalked ends a walk of this host's.
func (e *Engine) receiveWalked(p *peer, x *wire.Walked) {
	for _, s := range p.walks {
		w := &s.walk
		if w.id != x.ID || !w.said {
			continue
		}
		w.pushed, w.leaves, w.from = slices.Clone(x.Pushed), x.Leaves, p
		w.done = x.Status == wire.WalkWhole || x.Status == wire.WalkPart
		e.endWalk(s)
		if x.Status == wire.WalkAbsent {
			if sp := s.peer(p); sp != nil && sp.use == useHolder && !sp.hinted {
				e.setUse(sp, useUnknown)
			}
		}
		e.takePushed(s)
		for _, sp := range s.peers {
			e.beginWalkIfAbsent(s, sp, x.Status)
		}
		return
	}
	if x.ID == 0 || x.ID > p.lastWalk {
		e.violate(p, "the end of a walk that it was not asked for")
	}
}

// beginWalkIfAbsent asks another peer when the first had nothing.
func (e *Engine) beginWalkIfAbsent(s *session, sp *sessionPeer, st wire.WalkStatus) {
	if (st == wire.WalkAbsent || st == wire.WalkRefused) && sp.p != s.walk.from {
		e.beginWalk(s, sp.p)
	}
}

// takePushed files the leaves that a peer sends unasked as asked for, once they are demanded.
func (e *Engine) takePushed(s *session) {
	w := &s.walk
	if s.man == nil || w.from == nil {
		return
	}
	p := w.from
	if !p.up || len(w.pushed) > 0 && int(w.leaves) != s.man.m.Len() {
		w.pushed = nil
		return
	}
	sp := s.peer(p)
	if sp == nil {
		return
	}
	for first, count := range w.pushed.Ones() {
		if uint64(first)+uint64(count) > uint64(s.man.m.Len()) {
			e.violate(p, "an index beyond the manifest")
			return
		}
		for i := int(first); i < int(first+count); i++ {
			if !s.demand.has(i) || p.entries >= maxEntries-entryReserve {
				continue
			}
			x := e.instantiate(s, i)
			if x.state != Pending {
				continue
			}
			if e.takeEarly(x) {
				continue
			}
			e.askBlock(x, sp)
			e.pushing(x.asks.of(p))
		}
	}
}

// pushing files an ask as announced: the peer sends the block without having been asked.
func (e *Engine) pushing(a *ask) {
	p := a.p
	a.unlist()
	a.told, a.at = true, e.now
	if p.flight.n == 0 {
		p.flow.busy, p.flow.got, p.flow.heard = e.now, 0, e.now
	}
	p.flight.push(a)
	e.watch(p)
}

// receiveWalk takes a peer's question.
func (e *Engine) receiveWalk(p *peer, x *wire.Walk) {
	if x.Stop {
		p.answers = slices.DeleteFunc(p.answers, func(a *walked) bool { return a.w.ID == x.ID })
		return
	}
	if x.ID == 0 || x.ID <= p.heardWalk {
		e.violate(p, "a number of a walk used twice")
		return
	}
	p.heardWalk = x.ID
	a := &walked{w: *x}
	p.answers = append(p.answers, a)
	if len(p.answers) > maxWalks || e.cfg.Withhold {
		a.last, a.status = true, wire.WalkRefused
		e.dirtyPeer(p)
		return
	}
	a.w.Bytes = min(x.Bytes, maxWalkBytes)
	a.w.Push = min(x.Push, maxPush)
	a.loading = true
	if a.w.Push > 0 && !x.Leaves {
		a.waits = e.manifests[x.Root] == nil && e.wantManifest(x.Root, p)
	}
	e.ready.Walks = append(e.ready.Walks, WalkLoad{Peer: p.id, Walk: a.w, First: true})
}

// WalkLoaded answers a [WalkLoad] with the next blocks, which are the engine's until they come back in [Ready.Sends]. Last
// says that there are no more, and status how the walk ended.
func (e *Engine) WalkLoaded(now time.Duration, id dray.PeerID, walkID uint32, blocks []wire.Block, last bool,
	status wire.WalkStatus,
) {
	e.now = now
	p := e.peers[id]
	if p == nil {
		return
	}
	for _, a := range p.answers {
		if a.w.ID == walkID && a.loading {
			a.loading, a.blocks, a.last, a.status = false, blocks, last, status
			if last && a.status == wire.WalkAbsent {
				a.waits = false
			}
			e.readyToPush(p, a)
			e.dirtyPeer(p)
			return
		}
	}
}

// refuseWalks lets walks end that wait for a manifest which is not to be had.
func (e *Engine) refuseWalks(root cid.Cid) {
	for _, p := range e.upPeers {
		for _, a := range p.answers {
			if a.waits && a.w.Root == root {
				a.waits = false
				e.dirtyPeer(p)
			}
		}
	}
}

// pushWalks lets walks end that waited for a manifest.
func (e *Engine) pushWalks(mf *manifest) {
	for _, p := range e.upPeers {
		for _, a := range p.answers {
			if a.waits && a.w.Root == mf.m.Root() {
				a.waits = false
				e.readyToPush(p, a)
				e.dirtyPeer(p)
			}
		}
	}
}

// readyToPush chooses the leaves that follow a walk, when all before them is there.
func (e *Engine) readyToPush(p *peer, a *walked) {
	if !a.last || a.waits || a.w.Push == 0 || p.sated || a.w.Leaves || a.status == wire.WalkAbsent || a.pushed != nil {
		return
	}
	mf := e.manifests[a.w.Root]
	if mf == nil {
		return
	}
	var out wire.BitsWriter
	for _, i := range e.choosePush(p, mf, a) {
		out.Add(uint32(i), 1)
		e.receiveWant(p, &wire.Entry{CID: mf.m.Leaf(i), Priority: wirePriority(Normal, 0)}, wire.Leaves{})
	}
	a.pushed, a.leaves = out.Bits(), uint32(mf.m.Len())
}

// choosePush returns the leaves to push, in order: the first that are here or, with Spread, those sent least often.
func (e *Engine) choosePush(p *peer, mf *manifest, a *walked) []int {
	var out []int
	left := int64(a.w.Push)
	room := min(maxPushed, e.cfg.PeerWants-len(p.serve.wants))
	take := func(i int) bool {
		c := mf.m.Leaf(i)
		if k, _ := mf.m.Find(c); k != i || p.serve.wants[c] != nil {
			return true
		}
		_, size := mf.m.Extent(i)
		if left < size || len(out) >= room {
			return false
		}
		left -= size
		out = append(out, i)
		return true
	}
	if !a.w.Spread {
		for i := mf.here.next(0); i >= 0 && take(i); {
			i = mf.here.next(i + 1)
		}
		return out
	}
	// From a random place on, those that were sent as often as the least sent, then the next.
	n := mf.m.Len()
	start := e.rand.IntN(n)
	least := ^int32(0)
	for most := int32(0); left > 0 && most < 1<<16; most = least {
		least = 1 << 16
		full := false
		for k := range n {
			i := (start + k) % n
			if !mf.here.has(i) {
				continue
			}
			switch c := e.serving.copies.of[mf.m.Leaf(i)]; {
			case c == most && !full:
				full = !take(i)
			case c > most:
				least = min(least, c)
			}
		}
		if full {
			break
		}
	}
	slices.Sort(out)
	return out
}

// appendAnswer writes the next part of an answer to p's walks into m.
func (e *Engine) appendAnswer(p *peer, m *wire.Message) {
	if len(p.answers) == 0 {
		return
	}
	for i, a := range p.answers {
		if a.loading {
			continue
		}
		var size int64
		for _, b := range a.blocks {
			size += int64(len(b.Data))
		}
		m.Blocks, a.blocks = a.blocks, nil
		p.serve.sent += size
		e.stats.Served += int64(len(m.Blocks))
		e.stats.ServedBytes += size
		p.acct.Sent += size
		if !a.last {
			a.loading = true
			e.ready.Walks = append(e.ready.Walks, WalkLoad{Peer: p.id, Walk: a.w})
			return
		}
		if a.waits {
			if len(m.Blocks) == 0 {
				continue
			}
			return
		}
		m.Walked = append(m.Walked, wire.Walked{ID: a.w.ID, Status: a.status, Leaves: a.leaves, Pushed: a.pushed})
		p.answers = slices.Delete(p.answers, i, i+1)
		return
	}
}

// answering reports whether there is something to write of an answer to a walk.
func (p *peer) answering() bool {
	for _, a := range p.answers {
		if !a.loading && (len(a.blocks) > 0 || a.last && !a.waits || !a.last) {
			return true
		}
	}
	return false
}
