package exchange

import (
	"slices"

	"github.com/ipfs/go-cid"

	"dray/wire"
)

const (
	maxFeeds      = 64       // roots that one peer may follow here; more are not answered
	maxEarlyHaves = 64       // answers kept until the manifest that they speak of is known
	maxEarlyBits  = 64 << 10 // bytes of them

)

// feed is a root about which this host and one peer talk by index. Owned by the engine.
type feed struct {
	p    *peer
	root cid.Cid
	m    *manifest // nil until it is known here

	// What this host was told.
	mine      uint32 // the number that this host gave, or 0
	following bool   // the peer is to tell, or will be with the next message
	said      bool   // and knows
	known     bool   // the peer has told something
	early     []wire.Have
	theirs    leafSet // what the peer has, once m and it are known
	n         int     // how many

	// What the peer is told.
	number  uint32 // the peer's, or 0 when it does not follow
	first   int    // the leaves it wants to hear of
	end     int
	durable bool
	told    bool    // that the root is known here, since it began to follow
	ever    bool    // at some time
	heard   leafSet // what the peer was told
	news    []uint32
	listed  bool // in the peer's list of feeds with news
}

// feed returns what is between this host and p about a root, made on first use.
func (p *peer) feed(root cid.Cid) *feed {
	f := p.feeds[root]
	if f == nil {
		if p.feeds == nil {
			p.feeds = make(map[cid.Cid]*feed)
		}
		f = &feed{p: p, root: root}
		p.feeds[root] = f
		p.feedList = append(p.feedList, f)
	}
	return f
}

// subscribe asks a peer to tell what it has of a root.
func (e *Engine) subscribe(p *peer, root cid.Cid) {
	f := p.feed(root)
	if f.following {
		return
	}
	f.following = true
	if f.mine == 0 {
		p.lastFeed++
		f.mine = p.lastFeed
		if p.mine == nil {
			p.mine = make(map[uint32]*feed)
		}
		p.mine[f.mine] = f
	}
	if mf := e.manifests[root]; mf != nil && f.m == nil {
		e.bindFeed(f, mf)
	}
	p.follows = append(p.follows, f)
	e.dirtyPeer(p)
}

// unsubscribe tells the peers that nothing more is to be told of a root, when no session uses it any more.
func (e *Engine) unsubscribe(root cid.Cid) {
	for _, s := range e.sessionList {
		if s.cfg.Root == root {
			return
		}
	}
	for _, p := range e.upPeers {
		f := p.feeds[root]
		if f == nil || !f.following || e.durableCopies(root) {
			continue
		}
		f.following, f.known, f.early = false, false, nil
		e.forgetTheirs(f)
		if i := slices.Index(p.follows, f); i >= 0 && !f.said {
			p.follows = slices.Delete(p.follows, i, i+1)
		} else if i < 0 {
			p.follows = append(p.follows, f)
			e.dirtyPeer(p)
		}
		e.unbindFeed(f)
	}
}

// CountCopies makes the engine ask every peer that follows root to say which leaves it holds so that they would survive a
// loss of power; [Engine.Copies] is the result.
func (e *Engine) CountCopies(root cid.Cid) {
	if !e.durableCopies(root) {
		e.counted = append(e.counted, root)
	}
	for _, p := range e.upPeers {
		if f := p.feeds[root]; f != nil && f.number != 0 {
			e.subscribe(p, root)
		}
	}
}

func (e *Engine) durableCopies(root cid.Cid) bool { return slices.Contains(e.counted, root) }

// bindFeed ties a feed to its manifest: what was kept until now is looked at, and the peer hears what is here.
func (e *Engine) bindFeed(f *feed, mf *manifest) {
	f.m = mf
	mf.feeds = append(mf.feeds, f)
	early := f.early
	f.early = nil
	for i := range early {
		if f.p.up {
			e.applyHave(f, &early[i])
		}
	}
	if f.number != 0 && f.p.up {
		e.answerFollow(f)
	}
}

// unbindFeed undoes bindFeed when neither side is interested any more.
func (e *Engine) unbindFeed(f *feed) {
	if f.following || f.number != 0 || f.m == nil {
		return
	}
	mf := f.m
	f.m = nil
	if i := slices.Index(mf.feeds, f); i >= 0 {
		mf.feeds = slices.Delete(mf.feeds, i, i+1)
	}
	e.dropManifest(mf)
}

// forgetTheirs takes back what was known of the peer's leaves.
func (e *Engine) forgetTheirs(f *feed) {
	if f.theirs == nil {
		return
	}
	for i := f.theirs.next(0); i >= 0; i = f.theirs.next(i + 1) {
		e.rarerLeaf(f.m, i, -1)
	}
	f.theirs, f.n = nil, 0
}

// rarerLeaf notes that one more (or one fewer) peer has a leaf.
func (e *Engine) rarerLeaf(mf *manifest, i int, by int) *want {
	mf.avail[i] += uint16(by)
	if mf.here.has(i) {
		return nil
	}
	w := e.wants[mf.m.Leaf(i)]
	if w != nil {
		e.rarer(w, int32(by))
	}
	return w
}

// closeFeeds forgets everything that was between this host and a peer that is gone.
func (e *Engine) closeFeeds(p *peer) {
	for _, f := range p.feedList {
		e.forgetTheirs(f)
		e.silence(f)
		f.following = false
		e.unbindFeed(f)
	}
	p.feeds, p.feedList, p.mine, p.numbers = nil, nil, nil, nil
	p.follows, p.newsy, p.lastFeed, p.followed = nil, nil, 0, 0
}

// receiveFollow files what a peer wants to hear about.
func (e *Engine) receiveFollow(p *peer, x *wire.Follow) {
	f := p.numbers[x.Feed]
	if f != nil && f.root != x.Root || x.Feed == 0 {
		e.violate(p, "a number of one root given to another")
		return
	}
	if f == nil {
		if x.Stop {
			return
		}
		if old := p.feeds[x.Root]; old != nil && old.number != 0 {
			e.violate(p, "a root followed under two numbers")
			return
		}
		if p.followed >= maxFeeds {
			e.stats.Refused++
			return
		}
		f = p.feed(x.Root)
		if p.numbers == nil {
			p.numbers = make(map[uint32]*feed)
		}
		p.numbers[x.Feed] = f
	}
	if x.Stop {
		e.silence(f)
		e.unbindFeed(f)
		return
	}
	if f.number == 0 {
		p.followed++
		f.number = x.Feed
	}
	f.first, f.end = int(x.First), int(x.First)+int(x.Count)
	if x.Count == 0 {
		f.end = int(^uint32(0))
	}
	f.durable = x.Durable
	f.heard, f.told = nil, false
	if f.m == nil {
		if mf := e.manifests[x.Root]; mf != nil {
			e.bindFeed(f, mf)
		} else {
			e.wantManifest(x.Root)
		}
		return
	}
	e.answerFollow(f)
}

// silence ends what the peer is told.
func (e *Engine) silence(f *feed) {
	if f.number == 0 {
		return
	}
	f.number, f.heard, f.news, f.told = 0, nil, nil, false
	f.p.followed--
	if f.listed {
		f.listed = false
		f.p.newsy = slices.DeleteFunc(f.p.newsy, func(o *feed) bool { return o == f })
	}
}

// answerFollow tells a peer what is here of a root that it has begun to follow.
func (e *Engine) answerFollow(f *feed) {
	f.heard = newLeafSet(f.m.m.Len())
	f.news = f.news[:0]
	has := f.m.here
	if f.durable {
		e.durably(f.m)
		has = f.m.synced
	}
	if e.cfg.Withhold {
		has = nil
	}
	for i := has.next(f.first); i >= 0 && i < f.end; i = has.next(i + 1) {
		f.news = append(f.news, uint32(i))
	}
	e.list(f)
	if e.durableCopies(f.root) {
		e.subscribe(f.p, f.root)
	}
}

// list puts a feed among those about which its peer is told something with the next message.
func (e *Engine) list(f *feed) {
	if !f.listed {
		f.listed = true
		f.p.newsy = append(f.p.newsy, f)
	}
	e.dirtyPeer(f.p)
}

// tell notes that leaf i has come, or gone, for a peer that follows.
func (e *Engine) tell(f *feed, i int) {
	if f.heard == nil || i < f.first || i >= f.end || e.cfg.Withhold {
		return
	}
	if len(f.news) > 2*f.m.m.Len()+64 { // the peer takes no messages: each leaf need be there only once
		slices.Sort(f.news)
		f.news = slices.Compact(f.news)
	}
	f.news = append(f.news, uint32(i))
	e.list(f)
}

// appendNews writes what the peer is to be told about a feed.
func (f *feed) appendNews(m *wire.Message) {
	f.listed = false
	has := f.m.here
	if f.durable {
		has = f.m.synced
	}
	slices.Sort(f.news)
	var come, gone wire.BitsWriter
	last := -1
	for _, x := range f.news {
		i := int(x)
		if i == last {
			continue
		}
		last = i
		switch {
		case has.has(i) && f.heard.add(i):
			come.Add(x, 1)
		case !has.has(i) && f.heard.remove(i):
			gone.Add(x, 1)
		}
	}
	f.news = f.news[:0]
	leaves := uint32(f.m.m.Len())
	if !gone.Empty() {
		m.Haves = append(m.Haves, wire.Have{Feed: f.number, Leaves: leaves, Lost: true, Bits: gone.Bits()})
	}
	if !come.Empty() || !f.told {
		m.Haves = append(m.Haves, wire.Have{Feed: f.number, Leaves: leaves, Bits: come.Bits()})
	}
	f.told, f.ever = true, true
}

// receiveHave takes what a peer says that it has.
func (e *Engine) receiveHave(p *peer, h *wire.Have) {
	f := p.mine[h.Feed]
	if f == nil {
		e.violate(p, "an answer about a root that it was not asked about")
		return
	}
	if !f.following {
		return // it had not heard yet that nothing more is to be told
	}
	p.flow.answered(e.now)
	if f.m == nil {
		size := len(h.Bits)
		for i := range f.early {
			size += len(f.early[i].Bits)
		}
		if len(f.early) >= maxEarlyHaves || size > maxEarlyBits {
			f.early = f.early[:0]
			return // too much to keep: without the first answers the others mean less, and misses show what is wrong
		}
		k := *h
		k.Bits = slices.Clone(h.Bits)
		f.early = append(f.early, k)
		return
	}
	e.applyHave(f, h)
}

// applyHave files what a peer has of a root whose manifest is known.
func (e *Engine) applyHave(f *feed, h *wire.Have) {
	mf := f.m
	n := mf.m.Len()
	if int(h.Leaves) != n {
		e.violate(f.p, "another manifest of the same root")
		return
	}
	for first, count := range h.Bits.Ones() {
		if uint64(first)+uint64(count) > uint64(n) {
			e.violate(f.p, "an index beyond the manifest")
			return
		}
	}
	f.known = true
	if f.theirs == nil {
		f.theirs = newLeafSet(n)
	}
	for first, count := range h.Bits.Ones() {
		for i := int(first); i < int(first+count); i++ {
			if h.Lost {
				if f.theirs.remove(i) {
					f.n--
					e.rarerLeaf(mf, i, -1)
				}
				continue
			}
			if f.theirs.add(i) {
				f.n++
				if w := e.rarerLeaf(mf, i, +1); w != nil {
					e.nowHas(f.p, w)
				}
			}
		}
	}
	for _, sp := range f.p.sps {
		if sp.s.man == mf {
			e.refeed(sp, f)
		}
	}
}

// refeed makes what a peer told of a root what a session thinks of it.
func (e *Engine) refeed(sp *sessionPeer, f *feed) {
	if !f.known {
		return
	}
	sp.dry = false
	switch {
	case f.n == f.m.m.Len():
		e.setUse(sp, useHolder)
	case sp.use != useFeed:
		e.setUse(sp, useFeed)
	}
	e.roomChanged(sp.p)
	if sp.s.demanded > 0 {
		e.dirtySession(sp.s)
	}
}

// nowHas goes on with a want that a peer has turned out to have.
func (e *Engine) nowHas(p *peer, w *want) {
	if a := w.asks.of(p); a != nil {
		if a.kind == askMissing && a.list != &p.queue {
			e.dropAsk(a, true)
		} else {
			return
		}
	}
	sp := w.home.peer(p)
	if sp == nil || !w.home.mayAsk() {
		return
	}
	switch w.state {
	case Pending:
		if p.roomFor(w.rank.class) && sp.mayHave(w) {
			e.askBlock(w, sp)
			return
		}
		sp.offerTo(w)
		sp.s.offered = true
	case Waiting:
		e.relieve(w, sp)
	}
}

// relieve lets a peer that has just got a leaf send it in place of one that would do so much later.
func (e *Engine) relieve(w *want, sp *sessionPeer) {
	if w.blocks != 1 || !sp.p.room() {
		return
	}
	var a *ask
	for a = w.asks.head; a != nil && a.kind != askBlock; {
		a = a.wnext
	}
	if a == nil || a.p == sp.p || a == a.p.flight.head {
		return
	}
	if a.p.finish(e.now) <= takeOverGain*sp.p.flow.expect(sp.p.inflight+a.size)+takeOverSlack {
		return
	}
	e.askBlock(w, sp)
	e.dropAsk(a, true)
	w.home.stats.Takeovers++
}

// spell returns how a want is named towards a peer: by index, if the peer has shown that it knows the manifest.
func (p *peer) spell(w *want) wire.Leaves {
	if w.man == nil {
		return wire.Leaves{}
	}
	f := p.feeds[w.man.m.Root()]
	if f == nil || f.mine == 0 || !f.known || !f.following {
		return wire.Leaves{}
	}
	return wire.Leaves{Feed: f.mine, First: w.leaf, Count: 1}
}

// named returns the leaves that a peer names by index, in a root that it follows here.
func (e *Engine) named(p *peer, l wire.Leaves) (*manifest, bool) {
	f := p.numbers[l.Feed]
	if f == nil || !f.ever {
		e.violate(p, "leaves of a root that it was told nothing about")
		return nil, false
	}
	if f.m == nil {
		return nil, false // it had not heard yet that nothing is known of the root any more
	}
	if uint64(l.First)+uint64(l.N()) > uint64(f.m.m.Len()) {
		e.violate(p, "an index beyond the manifest")
		return nil, false
	}
	return f.m, true
}

// receivePresences takes HAVE and DONT_HAVE, in either spelling.
func (e *Engine) receivePresences(p *peer, pr *wire.Presence) {
	if pr.Leaves.Feed == 0 {
		e.receivePresence(p, pr.CID, pr.Have)
		return
	}
	f := p.mine[pr.Leaves.Feed]
	if f == nil {
		e.violate(p, "an answer about a root that it was not asked about")
		return
	}
	if f.m == nil {
		return
	}
	if uint64(pr.Leaves.First)+uint64(pr.Leaves.N()) > uint64(f.m.m.Len()) {
		e.violate(p, "an index beyond the manifest")
		return
	}
	for i := pr.Leaves.First; i < pr.Leaves.First+pr.Leaves.N(); i++ {
		if !pr.Have && f.theirs != nil && f.theirs.remove(int(i)) {
			f.n--
			e.rarerLeaf(f.m, int(i), -1)
		}
		e.receivePresence(p, f.m.m.Leaf(int(i)), pr.Have)
	}
	for _, sp := range p.sps {
		if sp.s.man == f.m {
			e.refeed(sp, f)
		}
	}
}
