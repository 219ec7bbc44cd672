package exchange

import (
	"cmp"
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
	walkLongest   = 30 * time.Second
	walkLook      = time.Second // when somebody else could be asked, each time that so little came:
	walkLeast     = 16 << 10    // bytes
	maxAllowed    = 256 << 20   // bytes that one peer may send unasked, for all walks that it was asked for
	maxEarly      = 1 << 16     // blocks that are kept before they are wanted
	maxRefused    = 1 << 10     // walks that one peer may begin before it hears that too many are under way
	pushLook      = 1 << 14     // leaves that are looked at to choose those to push
	walkAttempts  = 2
	creditBase    = 4 << 20 // bytes that a peer may always send beyond what it was asked for
	maxEarlyBlock = 26 << 20
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
	looked   time.Duration // when it was last looked at how much had come, and how much that was
	came     int64
	allowed  int64     // bytes that may still come unasked
	pushed   wire.Bits // leaves that follow, until the manifest is known
	leaves   uint32    // in the manifest of the peer that pushes
	push     []uint32  // leaves that follow and are not demanded yet
	from     *peer     // who pushes them
	done     bool      // there was an answer
}

// WalkLoad asks the driver for the next blocks of a walk: parents before children, about [walkChunk] bytes, answered with
// exactly one [Engine.WalkLoaded]. The first WalkLoad of a walk has First.
//
// A Walk that says Stop is over before its end: there is nothing to answer, but a load under way still is.
type WalkLoad struct {
	Peer  dray.PeerID
	Walk  wire.Walk
	First bool
}

// walked is a peer's walk that is being answered.
type walked struct {
	w       wire.Walk
	blocks  []wire.Block // to be written
	loading bool         // the next part is to be read, or being read
	reading bool         // the driver is at it
	stopped bool         // taken back; while reading it counts until that is answered
	last    bool
	status  wire.WalkStatus
	waits   bool                 // for the manifest, to push leaves
	heads   map[cid.Cid]struct{} // leaves among the blocks
	pushed  wire.Bits
	leaves  uint32
	hidden  bool // the peer may not have it: the answer is that it is not here
}

// beginWalk asks p for the session's walk, if there is one that nobody was asked for.
func (e *Engine) beginWalk(s *session, p *peer) {
	w := &s.walk
	if w.p != nil && w.p != p && s.hints(p.id) {
		e.timers.setEarlier(&s.timer, e.now+walkLook) // it could be asked instead
	}
	if s.cfg.Walk.Bytes == 0 || w.p != nil || w.done || w.attempts >= walkAttempts || !p.caps.Indexes || !p.usable() || s.ended() {
		return
	}
	p.lastWalk++
	*w = walk{p: p, id: p.lastWalk, attempts: w.attempts + 1, at: e.now, allowed: s.cfg.Walk.Bytes + s.cfg.Walk.Push}
	w.looked, w.came = e.now, p.walkBytes()
	p.walks = append(p.walks, s)
	p.allowed = min(p.allowed+w.allowed, maxAllowed)
	due := e.now + walkPatience
	if e.otherWalk(s) != nil {
		due = e.now + walkLook
	}
	e.timers.setEarlier(&s.timer, due)
	e.dirtyPeer(p)
}

// walking reports whether the session waits for an answer to its walk, and asks nobody meanwhile.
func (s *session) walking() bool { return s.walk.p != nil }

// Walking reports whether a session waits for the answer to its walk.
func (e *Engine) Walking(id SessionID) bool {
	s := e.sessions[id]
	return s != nil && s.walking()
}

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
	if !s.ended() {
		e.ready.WalksEnded = append(e.ready.WalksEnded, s.id)
	}
	e.dirtySession(s)
}

// abandonWalk takes the question back.
func (e *Engine) abandonWalk(s *session) {
	switch w := &s.walk; {
	case w.p == nil || !w.p.up:
	case w.said: // what is on its way may still come
		w.p.stopWalks = append(w.p.stopWalks, w.id)
		e.dirtyPeer(w.p)
	default:
		w.p.allow(w.allowed)
	}
	e.endWalk(s)
}

// allow takes what came unasked from what the peer may send so, and reports whether it may.
func (p *peer) allow(size int64) bool {
	if p.allowed < size {
		return false
	}
	p.allowed -= size
	return true
}

// walkDue gives up a walk that is silent, or lasts, for too long.
func (e *Engine) walkDue(s *session) {
	w := &s.walk
	if w.p == nil {
		return
	}
	due := min(max(w.at, w.p.flow.heard)+walkPatience, w.at+walkLongest)
	if other := e.otherWalk(s); other != nil {
		if e.now-w.looked >= walkLook {
			if w.p.walkBytes()-w.came < walkLeast {
				e.abandonWalk(s)
				e.beginWalk(s, other)
				return
			}
			w.looked, w.came = e.now, w.p.walkBytes()
		}
		due = min(due, w.looked+walkLook)
	}
	if e.now < due {
		e.timers.setEarlier(&s.timer, due)
		return
	}
	e.abandonWalk(s)
}

// walkBytes is how much has come from the peer that may be part of an answer to a walk: what was heard of, or the blocks.
func (p *peer) walkBytes() int64 { return max(p.flow.bytes, p.used) }

// otherWalk returns a peer that was named as having the content and could be asked for the walk in place of the one that is.
func (e *Engine) otherWalk(s *session) *peer {
	if s.walk.attempts >= walkAttempts {
		return nil
	}
	for i, sp := range s.peers {
		if i == takeOverLook {
			break
		}
		if sp.hinted && sp.p != s.walk.p && sp.p.caps.Indexes && sp.p.usable() {
			return sp.p
		}
	}
	return nil
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
	if _, twice := e.early[b.CID()]; twice || e.done.contains(b.CID()) || e.earlyBytes+size > maxEarlyBlock ||
		len(e.early) >= maxEarly || p.allowed < size {
		return false
	}
	for _, s := range e.sessionList {
		if w := &s.walk; (w.p == p || w.from == p) && w.allowed >= size {
			w.allowed -= size
			p.allow(size)
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
	e.accept(w, x.p, x.b, true)
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
			e.acct(x.p).Duplicate += int64(x.b.Size())
			e.repeated(s.id, x.p, int64(x.b.Size()))
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
		// All else of the answer has come: only what is pushed may still come unasked.
		if left := w.allowed; len(w.pushed) == 0 {
			w.allowed = 0
			p.allow(left)
		} else if w.allowed = min(left, s.cfg.Walk.Push); w.allowed < left {
			p.allow(left - w.allowed)
		}
		w.done = x.Status == wire.WalkWhole || x.Status == wire.WalkPart
		e.endWalk(s)
		if x.Status == wire.WalkDenied {
			e.denied(p, s.cfg.Root)
		}
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
	if st >= wire.WalkAbsent && sp.p != s.walk.from {
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
	if len(w.pushed) > 0 {
		list, what := w.readPushed(s)
		if w.pushed = nil; what != "" {
			e.violate(p, what)
			return
		}
		w.push = list
		// No more than these may come unasked, and of these some have.
		var left int64
		for _, i := range list {
			if _, came := e.early[s.man.m.Leaf(int(i))]; !came {
				_, size := s.man.m.Extent(int(i))
				left += size
			}
		}
		if left < w.allowed {
			p.allow(w.allowed - left)
			w.allowed = left
		}
	}
	sp := s.peer(p)
	if sp == nil {
		return
	}
	left := w.push[:0]
	for _, i := range w.push {
		if !s.demand.has(int(i)) || p.entries >= maxEntries-entryReserve {
			left = append(left, i)
			continue
		}
		x := e.instantiate(s, int(i))
		if x.state == Pending && !e.takeEarly(x) {
			e.askBlock(x, sp)
			e.pushing(x.asks.of(p))
		}
	}
	w.push = left
}

// forgetPushes expects nothing unasked from a peer any more.
func (e *Engine) forgetPushes(p *peer) {
	for _, s := range e.sessionList {
		if s.walk.from == p {
			s.walk.from, s.walk.pushed, s.walk.push = nil, nil, nil
		}
	}
}

// readPushed returns the leaves that a peer said it pushes or, if it may not, what it does wrong.
func (w *walk) readPushed(s *session) (list []uint32, what string) {
	m := s.man.m
	if int(w.leaves) != m.Len() {
		return nil, "another manifest of the same root"
	}
	left := s.cfg.Walk.Push
	for first, count := range w.pushed.Ones() {
		if uint64(first)+uint64(count) > uint64(m.Len()) {
			return nil, "an index beyond the manifest"
		}
		for i := first; i < first+count; i++ {
			_, size := m.Extent(int(i))
			if left -= size; left < 0 || len(list) >= maxEarly {
				return nil, "more leaves pushed than it may"
			}
			list = append(list, i)
		}
	}
	return list, ""
}

// pushing files an ask as announced: the peer sends the block without having been asked.
func (e *Engine) pushing(a *ask) {
	p := a.p
	a.unlist()
	a.told, a.pushed = true, true
	e.number(a)
	if p.flight.n == 0 {
		p.flow.busy, p.flow.got, p.flow.heard = e.now, 0, e.now
		p.flow.blockCame(e.now)
	}
	p.flight.push(a)
	e.watch(p)
}

// receiveWalk takes a peer's question.
func (e *Engine) receiveWalk(p *peer, x *wire.Walk) {
	if x.Stop {
		p.answers = slices.DeleteFunc(p.answers, func(a *walked) bool { return a.w.ID == x.ID && e.stopAnswer(p, a) })
		return
	}
	if x.ID == 0 || x.ID <= p.heardWalk {
		e.violate(p, "a number of a walk used twice")
		return
	}
	p.heardWalk = x.ID
	if len(p.answers) >= maxWalks || e.cfg.Withhold {
		if p.refusals = append(p.refusals, x.ID); len(p.refusals) > maxRefused {
			e.violate(p, "a flood of walks")
			return
		}
		e.dirtyPeer(p)
		return
	}
	if !x.Proof.IsZero() && !e.opens(p, x.Proof, x.Root) {
		e.denyWalk(p, x.ID)
		return
	}
	a := &walked{w: *x}
	p.answers = append(p.answers, a)
	a.w.Bytes = min(x.Bytes, maxWalkBytes)
	a.w.Push = min(x.Push, maxPush)
	if a.hidden = !e.mayAbout(p, x.Root); a.hidden {
		a.w.Bytes, a.w.Push = 0, 0 // the root is looked up, and no more
	}
	if a.w.Push > 0 && !x.Leaves {
		a.waits = e.manifests[x.Root] == nil && e.wantManifest(x.Root, p)
	}
	e.readPart(p, a, true)
}

// stopAnswer takes a walk of a peer's back, and reports whether it is over: if not, it still counts among those that the
// peer has under way, or starting and stopping walks would have the driver read without bound.
func (e *Engine) stopAnswer(p *peer, a *walked) (over bool) {
	if a.stopped {
		return false
	}
	e.ready.Walks = append(e.ready.Walks, WalkLoad{Peer: p.id, Walk: wire.Walk{ID: a.w.ID, Stop: true}})
	a.stopped, a.waits = true, false
	if a.reading {
		return false
	}
	e.partDropped(a)
	return true
}

// stopAnswers takes all walks of a peer's back.
func (e *Engine) stopAnswers(p *peer) {
	p.answers = slices.DeleteFunc(p.answers, func(a *walked) bool { return e.stopAnswer(p, a) })
	p.refusals = p.refusals[:0]
}

// WalkPart is the next part of the answer to a walk. Blocks are the engine's until they come back in [Ready.Sends].
type WalkPart struct {
	// Blocks are the next, parents before children.
	Blocks []wire.Block
	// CIDs name Blocks, one each. If empty, all that they may be is open.
	CIDs []cid.Cid
	// Heads are the leaves among them, which need not be pushed after the walk.
	Heads []cid.Cid
	// Last says that there are no more, and Status then how the walk ended.
	Last   bool
	Status wire.WalkStatus
}

// WalkLoaded answers a [WalkLoad].
func (e *Engine) WalkLoaded(now time.Duration, id dray.PeerID, walkID uint32, part WalkPart) {
	e.now = now
	p := e.peers[id]
	if p == nil {
		return
	}
	for i, a := range p.answers {
		if a.w.ID == walkID && a.reading {
			if a.stopped {
				e.partRead(a, nil)
				p.answers = slices.Delete(p.answers, i, i+1)
				return
			}
			e.withholdWalk(p, a, &part)
			e.partRead(a, part.Blocks)
			a.loading, a.blocks, a.last, a.status = false, part.Blocks, part.Last, part.Status
			for _, c := range part.Heads {
				if a.heads == nil {
					a.heads = make(map[cid.Cid]struct{})
				}
				a.heads[c] = struct{}{}
			}
			if a.last && a.status == wire.WalkAbsent {
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
	if !a.last || a.waits || a.w.Push == 0 || p.sated || a.w.Leaves || a.status != wire.WalkWhole || a.pushed != nil {
		return
	}
	mf := e.manifests[a.w.Root]
	if mf == nil {
		return
	}
	var out wire.BitsWriter
	for _, i := range e.choosePush(p, mf, a) {
		out.Add(uint32(i), 1)
		en := wire.Entry{CID: mf.m.Leaf(i), Priority: wirePriority(Normal, 0), SendDontHave: true}
		e.receiveWant(p, &en, wire.Leaves{}, a.w.Root)
		if v := p.serve.wants[en.CID]; v != nil {
			v.pushed = true
		}
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
		if _, sent := a.heads[c]; sent {
			return true
		}
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
		for i, n := mf.here.next(0), 0; i >= 0 && n < pushLook && take(i); n++ {
			i = mf.here.next(i + 1)
		}
		return out
	}
	// From a random place on, those that were sent least often.
	var near []int
	start := e.rand.IntN(mf.m.Len())
	for i := mf.here.next(start); i >= 0 && len(near) < pushLook; i = mf.here.next(i + 1) {
		near = append(near, i)
	}
	for i := mf.here.next(0); i >= 0 && i < start && len(near) < pushLook; i = mf.here.next(i + 1) {
		near = append(near, i)
	}
	copies := e.serving.copies.of
	slices.SortStableFunc(near, func(x, y int) int { return cmp.Compare(copies[mf.m.Leaf(x)], copies[mf.m.Leaf(y)]) })
	for _, i := range near {
		if copies[mf.m.Leaf(i)] > 0 || !take(i) {
			break // what was sent to somebody may come from there
		}
	}
	slices.Sort(out)
	return out
}

// appendAnswer writes the next part of an answer to p's walks into m.
func (e *Engine) appendAnswer(p *peer, m *wire.Message) {
	for _, id := range p.refusals {
		m.Walked = append(m.Walked, wire.Walked{ID: id, Status: wire.WalkRefused})
	}
	p.refusals = p.refusals[:0]
	for i, a := range p.answers {
		if !e.canAnswer(p, a) {
			continue
		}
		var size int64
		for _, b := range a.blocks {
			size += int64(len(b.Data))
		}
		m.Blocks, a.blocks = a.blocks, nil
		p.serve.sent += size
		p.carried = size
		e.answered(p, size)
		if !a.last {
			e.readPart(p, a, false)
			return
		}
		if a.waits {
			return
		}
		m.Walked = append(m.Walked, wire.Walked{ID: a.w.ID, Status: a.status, Leaves: a.leaves, Pushed: a.pushed})
		p.answers = slices.Delete(p.answers, i, i+1)
		return
	}
}

// answersWalk reports whether there is something to write of an answer to a walk.
func (e *Engine) answersWalk(p *peer) bool {
	if len(p.refusals) > 0 {
		return true
	}
	for _, a := range p.answers {
		if e.canAnswer(p, a) {
			return true
		}
	}
	return false
}

// canAnswer reports whether there is something to write of an answer, and credit for it.
func (e *Engine) canAnswer(p *peer, a *walked) bool {
	switch {
	case a.loading:
		return false
	case len(a.blocks) > 0:
		return p.credited() && e.mayAnswer(p)
	}
	return !a.last || !a.waits
}
