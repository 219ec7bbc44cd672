package exchange

import (
	"math/bits"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// What a host holds of a root, and what it misses, are sets of indexes into the root's manifest. A session that is given a
// manifest does not have an entry in the want table for every leaf: what it still misses is its demand, and a want is made
// of a leaf when a peer is asked for it. So a session of ten million leaves costs bits, and a choice looks at what the peer
// has and nobody was asked for yet.

// manifest is a root's leaves and which of them are here. Owned by the engine; what it points to is shared and only read.
type manifest struct {
	m        *dray.Manifest
	here     leafSet    // written
	synced   leafSet    // of which synced; nil until somebody follows durably
	unsynced leafSet    // written and not synced
	syncing  leafSet    // of which those that were written before the driver was last told to sync
	asked    leafSet    // leaves that are wants of the table
	avail    []uint16   // how many connected peers have each leaf, of those that are followed
	feeds    []*feed    // peers that follow it here or are followed, in order
	sessions []*session // that use it
	pinned   bool       // it stays, used or not
}

// ManifestLoad asks the driver for the manifest of a root, if the skeleton is in the store.
type ManifestLoad struct {
	Root cid.Cid
}

// loadingManifest is a manifest that was asked for. What is written and removed meanwhile may have been overlooked by the
// driver.
type loadingManifest struct {
	by    *peer  // who follows the root
	from  uint64 // the changes before it are known to the driver
	stale bool   // there were more changes than are remembered
}

// change is a block that was written or removed while some manifest was being loaded.
type change struct {
	c    cid.Cid
	gone bool
}

const (
	maxChanges = 1 << 16 // that are remembered
	maxLoading = 64      // manifests that one peer has us derive at a time
)

// wantManifest asks the driver for a root's manifest, unless it is known or asked for. It reports false when the peer who
// is the reason has us do too much of that.
func (e *Engine) wantManifest(root cid.Cid, by *peer) bool {
	if e.manifests[root] != nil || e.loading[root] != nil {
		return true
	}
	if by.loading >= maxLoading {
		e.stats.Refused++
		return false
	}
	by.loading++
	e.loading[root] = &loadingManifest{by: by, from: e.changed}
	e.ready.Manifests = append(e.ready.Manifests, ManifestLoad{root})
	return true
}

// noteChange remembers a change for the manifests that are being loaded.
func (e *Engine) noteChange(c cid.Cid, gone bool) {
	if len(e.loading) == 0 {
		e.changes = nil
		return
	}
	if len(e.changes) >= maxChanges {
		for _, l := range e.loading { // no output depends on the order
			l.stale = true
		}
		e.changes = e.changes[:0]
	}
	e.changes = append(e.changes, change{c, gone})
	e.changed++
}

// ManifestLoaded answers a [ManifestLoad]. A nil m says that the root's skeleton is not here, or not all of it. Here says
// which leaves are: bit i%64 of word i/64 for leaf i; the engine keeps it.
func (e *Engine) ManifestLoaded(now time.Duration, root cid.Cid, m *dray.Manifest, here []uint64) {
	e.now = now
	l := e.loading[root]
	if l == nil {
		return
	}
	if l.stale {
		l.stale, l.from = false, e.changed
		e.ready.Manifests = append(e.ready.Manifests, ManifestLoad{root}) // too much changed to remember: look again
		return
	}
	delete(e.loading, root)
	l.by.loading--
	since := e.changes[uint64(len(e.changes))-(e.changed-l.from):]
	if m == nil {
		e.refuseWalks(root)
		for _, x := range since {
			if x.c == root && !x.gone && e.awaited[root] > 0 {
				e.wantManifest(root, l.by) // it came while the driver looked
				break
			}
		}
		return
	}
	mf := e.manifests[root]
	if mf == nil {
		mf = e.keepManifest(m, nil)
	} else if mf.m.Len() != m.Len() {
		return
	}
	for _, x := range since {
		replay(mf.m, here, x)
	}
	mf.pinned = true
	for i := leafSet(here).next(0); i >= 0 && i < m.Len(); i = leafSet(here).next(i + 1) {
		e.markLeaf(mf, i)
		if len(mf.sessions) > 0 {
			e.found(mf.m.Leaf(i))
		}
	}
	e.useManifest(mf)
}

// replay does to what the driver found what happened while it was looking.
func replay(m *dray.Manifest, here leafSet, x change) {
	i, ok := m.Find(x.c)
	for ; ok && i>>6 < len(here); i, ok = m.Next(i) {
		if x.gone {
			here.remove(i)
		} else {
			here.add(i)
		}
	}
}

// keepManifest files a manifest.
func (e *Engine) keepManifest(m *dray.Manifest, here []uint64) *manifest {
	m.Index()
	mf := &manifest{m: m, here: newLeafSet(m.Len()), asked: newLeafSet(m.Len()), avail: make([]uint16, m.Len())}
	copy(mf.here, here)
	e.manifests[m.Root()] = mf
	e.manifestList = append(e.manifestList, mf)
	return mf
}

// useManifest goes on with what waited for a manifest: peers that follow the root, or are followed, and walks.
func (e *Engine) useManifest(mf *manifest) {
	root := mf.m.Root()
	mf.pinned = true // a peer may turn out to lie, and be gone, while others still follow
	for _, p := range append([]*peer(nil), e.upPeers...) {
		if f := p.feeds[root]; f != nil && f.m == nil {
			e.bindFeed(f, mf)
		}
	}
	e.pushWalks(mf)
	mf.pinned = false
	e.dropManifest(mf) // if nobody is interested any more
}

// dropManifest forgets a manifest that nobody uses.
func (e *Engine) dropManifest(mf *manifest) {
	if mf.pinned || len(mf.sessions)+len(mf.feeds) > 0 || e.manifests[mf.m.Root()] != mf {
		return
	}
	delete(e.manifests, mf.m.Root())
	for i, o := range e.manifestList {
		if o == mf {
			e.manifestList = append(e.manifestList[:i], e.manifestList[i+1:]...)
			break
		}
	}
}

// SetManifest tells the engine the leaves under the root of session s, which it was opened with. What the session asks for
// with [Engine.Demand] is an index into it. The manifest must not change any more, and is indexed by the engine. It reports
// false when the session must go on by CID: it has ended, or the root is known with other leaves.
func (e *Engine) SetManifest(now time.Duration, id SessionID, m *dray.Manifest) bool {
	e.now = now
	s := e.sessions[id]
	if s == nil || s.man != nil || m.Len() == 0 {
		return false
	}
	mf := e.manifests[m.Root()]
	if mf == nil {
		mf = e.keepManifest(m, nil)
	} else if mf.m.Len() != m.Len() {
		return false // one of them was refuted
	}
	s.man = mf
	s.demand = newLeafSet(m.Len())
	mf.sessions = append(mf.sessions, s)
	s.log.each(func(w *want) {
		if i, ok := mf.m.Find(w.cid); ok && w.man == nil {
			w.setLeaf(mf, i)
		}
	})
	for _, sp := range s.peers {
		if f := sp.p.feeds[m.Root()]; f != nil && f.m == mf {
			e.refeed(sp, f)
		}
	}
	for _, d := range e.ready.Delivers {
		if d.Err == nil {
			e.markHere(mf, d.CID) // written before the manifest was known, and the driver has not heard of it yet
		}
	}
	e.useManifest(mf)
	for _, sp := range s.peers {
		if f := sp.p.feeds[m.Root()]; f != nil && f.m == mf && !f.known {
			e.refeed(sp, f)
		}
	}
	return true
}

// Demand says that session s misses count leaves from first on. Leaves that are on their way, or were demanded before, are
// not asked for twice; each leaf that is missing is answered by one entry in [Ready.Delivers], however many places it has.
// It panics unless the session has a manifest with these leaves.
func (e *Engine) Demand(now time.Duration, id SessionID, first, count int) {
	e.now = now
	s := e.sessions[id]
	if s == nil || s.ended() {
		return
	}
	if s.man == nil {
		panic("exchange: Demand without a manifest")
	}
	m := s.man.m
	for i := first; i < first+count; i++ {
		k, c := m.First(i), m.Leaf(i)
		switch {
		case s.wants > 0 && s.asks(e.wants[c]):
			e.wants[c].asker(s).demand()
		case e.answering(s, c, true):
		case s.man.here.has(k):
			s.stats.Blocks++
			e.done.add(c, s.id)
			e.ready.Delivers = append(e.ready.Delivers, Deliver{CID: c, Local: true, Session: s.id, refs: 1, demanded: true})
		case s.demand.add(k):
			s.demanded++
			s.low = min(s.low, k>>6)
			if len(e.early) > 0 {
				e.demandEarly(s, k)
			}
		}
	}
	if s.state == SessionCreated {
		s.to(SessionActive)
	}
	e.takePushed(s)
	for _, sp := range s.peers {
		sp.dry = false
		e.roomChanged(sp.p)
	}
	e.touchSession(s)
	e.dirtySession(s)
}

// Undemand withdraws what [Engine.Demand] asked for and was not answered yet: nothing more of these leaves is delivered to
// the session, unless it wants them by [Engine.Want] as well.
func (e *Engine) Undemand(now time.Duration, id SessionID, first, count int) {
	e.now = now
	s := e.sessions[id]
	if s == nil {
		e.undemandEnded(id, first, count)
		return
	}
	if s.man == nil {
		return
	}
	m := s.man.m
	for i := first; i < first+count; i++ {
		k := m.First(i)
		if s.demand.remove(k) {
			s.demanded--
		} else if s.wants > 0 || len(e.ready.Delivers) > 0 {
			e.withdraw(s, id, m.Leaf(k), true)
		}
	}
	e.maybeComplete(s)
}

// undemandEnded withholds what a session was answered with that has just ended, if that has not been handed out yet.
func (e *Engine) undemandEnded(id SessionID, first, count int) {
	for i := range e.ready.Sessions {
		ev := &e.ready.Sessions[i]
		if ev.Session != id || ev.man == nil {
			continue
		}
		for k := first; k < first+count && len(e.ready.Delivers) > 0; k++ {
			e.withhold(id, ev.man.Leaf(k), true)
		}
	}
}

// asks reports whether the session asks for w, which may be nil.
func (s *session) asks(w *want) bool { return w != nil && w.asker(s) != nil }

// demandEarly takes leaf i, which session s demands, if it has come already.
func (e *Engine) demandEarly(s *session, i int) {
	if _, ok := e.early[s.man.m.Leaf(i)]; ok {
		e.takeEarly(e.instantiate(s, i))
	}
}

// markHere notes that a leaf was written, in one manifest, and reports whether it is one of its leaves.
func (e *Engine) markHere(mf *manifest, c cid.Cid) bool {
	i, ok := mf.m.Find(c)
	for more := ok; more; i, more = mf.m.Next(i) {
		e.markLeaf(mf, i)
	}
	return ok
}

// markLeaf notes that leaf i of a manifest is here.
func (e *Engine) markLeaf(mf *manifest, i int) {
	if !mf.here.add(i) {
		return
	}
	for _, f := range mf.feeds {
		if f.number != 0 && !f.durable {
			e.tell(f, i)
		}
	}
	if mf.synced != nil {
		mf.unsynced.add(i)
		e.unsynced = true
	}
}

// Here says that leaf i of a root is in the store, and was before: peers who follow the root are told.
func (e *Engine) Here(now time.Duration, root cid.Cid, i int) {
	e.now = now
	if mf := e.manifests[root]; mf != nil && i < mf.m.Len() {
		e.markHere(mf, mf.m.Leaf(i)) // wherever it occurs
		e.found(mf.m.Leaf(i))
	}
}

// written notes that a block is in the store, in every manifest.
func (e *Engine) written(c cid.Cid) {
	for _, mf := range e.manifestList {
		e.markHere(mf, c)
	}
	e.noteChange(c, false)
	if e.awaited[c] > 0 {
		e.wantManifest(c, e.awaiting(c))
	}
}

// awaiting returns a peer that follows a root which is not known here.
func (e *Engine) awaiting(root cid.Cid) *peer {
	for _, p := range e.upPeers {
		if f := p.feeds[root]; f != nil && f.awaited {
			return p
		}
	}
	panic("exchange: a root is awaited by nobody")
}

// Removed says that a block is no longer in the store: peers who were told that it is are told so.
func (e *Engine) Removed(now time.Duration, c cid.Cid) {
	e.now = now
	e.noteChange(c, true)
	for _, mf := range e.manifestList {
		i, ok := mf.m.Find(c)
		for ; ok; i, ok = mf.m.Next(i) {
			if !mf.here.remove(i) {
				continue
			}
			if mf.synced != nil {
				mf.synced.remove(i)
				mf.unsynced.remove(i)
				mf.syncing.remove(i) // if it comes back, the sync under way may have missed it
			}
			for _, f := range mf.feeds {
				if f.number != 0 {
					e.tell(f, i)
				}
			}
		}
	}
}

// meetDemand answers the sessions whose demand a block is. The caller ends those that have all.
func (e *Engine) meetDemand(c cid.Cid, d Deliver) {
	for _, mf := range e.manifestList {
		if len(mf.sessions) == 0 {
			continue
		}
		i, ok := mf.m.Find(c)
		if !ok {
			continue
		}
		for _, s := range mf.sessions {
			if !s.demand.remove(i) {
				continue
			}
			s.demanded--
			e.done.add(c, s.id)
			d.Session, d.refs, d.demanded = s.id, 1, true
			s.stats.Blocks++
			s.stats.Bytes += int64(d.Block.Size())
			e.ready.Delivers = append(e.ready.Delivers, d)
			e.concluded = append(e.concluded, s)
		}
	}
}

// instantiate makes a want of leaf i, which session s demands. It is Pending and in no heap: the caller asks for it.
func (e *Engine) instantiate(s *session, i int) *want {
	m := s.man.m
	s.demand.remove(i)
	s.demanded--
	c := m.Leaf(i)
	w := e.wants[c]
	if w == nil {
		w = e.newWant(c)
		w.home = s
		e.wants[c] = w
		_, w.size = m.Extent(i)
		w.exact = true
		w.contested = true // in no heap
		w.lazy = true
	}
	w.setLeaf(s.man, i)
	if w.home.ended() {
		w.home = s
	}
	w.askers = append(w.askers, asker{s: s, refs: 1, demanded: true, class: s.cfg.Class, order: uint64(i)})
	s.wants++
	w.askers[len(w.askers)-1].pos = s.log.push(w)
	if s.cfg.Order == Rarest {
		w.rank.rare = int32(s.man.avail[i])
	}
	e.rerank(w)
	return w
}

// demandedWant makes a want of a block that a session demands and nobody was asked for yet, or returns nil.
func (e *Engine) demandedWant(c cid.Cid) *want {
	for _, mf := range e.manifestList {
		if len(mf.sessions) == 0 {
			continue
		}
		if i, ok := mf.m.Find(c); ok {
			for _, s := range mf.sessions {
				if s.demand.has(i) {
					return e.instantiate(s, i)
				}
			}
		}
	}
	return nil
}

// rareSample is how many leaves are looked at to find a rare one.
const rareSample = 128

// pick chooses a leaf that session s demands and the peer behind sp has: the first, or one that few have.
func (e *Engine) pick(s *session, sp *sessionPeer) (int, bool) {
	var theirs leafSet
	if sp.use == useFeed {
		f := sp.p.feeds[s.man.m.Root()]
		if f == nil || f.theirs == nil {
			return 0, false // it is being asked anew
		}
		theirs = f.theirs
	}
	if s.cfg.Order == InOrder {
		for k := s.low; k < len(s.demand); k++ {
			word := s.demand[k]
			if word == 0 && k == s.low {
				s.low++
			}
			if theirs != nil {
				word &= theirs[k]
			}
			if word != 0 {
				return k<<6 + bits.TrailingZeros64(word), true
			}
		}
		return 0, false
	}
	best, least, seen := -1, ^uint16(0), 0
	start := e.rand.IntN(len(s.demand))
	turn := e.rand.IntN(64)
	for n := range s.demand {
		k := start + n
		if k >= len(s.demand) {
			k -= len(s.demand)
		}
		word := s.demand[k]
		if theirs != nil {
			word &= theirs[k]
		}
		for word = bits.RotateLeft64(word, -turn); word != 0; word &= word - 1 {
			i := k<<6 + (bits.TrailingZeros64(word)+turn)&63
			if a := s.man.avail[i]; best < 0 || a < least {
				best, least = i, a
			}
			seen++
		}
		if seen >= rareSample {
			break
		}
	}
	return best, best >= 0
}

// Synced says that everything that was written when [Ready] last said Sync would survive a loss of power.
func (e *Engine) Synced(now time.Duration) {
	e.now = now
	for _, mf := range e.manifestList {
		for i := mf.syncing.next(0); i >= 0; i = mf.syncing.next(i + 1) {
			mf.synced.add(i)
			for _, f := range mf.feeds {
				if f.number != 0 && f.durable {
					e.tell(f, i)
				}
			}
		}
		clear(mf.syncing)
	}
	e.syncWait = false
}

// beginSync notes what the sync that the driver is now told to make will have covered.
func (e *Engine) beginSync() {
	for _, mf := range e.manifestList {
		mf.unsynced, mf.syncing = mf.syncing, mf.unsynced
	}
	e.unsynced = false
	e.ready.Sync, e.syncWait = true, true
}

// durably makes a manifest keep apart what is synced. What is here already counts once it was synced.
func (e *Engine) durably(mf *manifest) {
	if mf.synced != nil {
		return
	}
	n := mf.m.Len()
	mf.synced, mf.unsynced, mf.syncing = newLeafSet(n), newLeafSet(n), newLeafSet(n)
	copy(mf.unsynced, mf.here)
	e.unsynced = e.unsynced || mf.here.next(0) >= 0
}

// Copies returns, for a root whose manifest is known, how many connected peers have said that they hold each leaf durably
// or not, as they were asked to say. It returns nil when the root is not known.
func (e *Engine) Copies(root cid.Cid) []uint16 {
	mf := e.manifests[root]
	if mf == nil {
		return nil
	}
	return append([]uint16(nil), mf.avail...)
}
