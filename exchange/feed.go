package exchange

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

const (
	maxFeeds      = 64        // roots that one peer may follow here; more are not answered
	maxSpent      = 1024      // numbers of roots no longer followed that may be taken up again
	maxEarlyHaves = 64        // answers kept until the manifest that they speak of is known
	maxEarlyBits  = 64 << 10  // bytes of them
	maxNews       = 4096      // leaves that are listed; when more have come or gone, all are looked at
	maxNewsBits   = 128 << 10 // bytes of bitmaps in one message
	repeatLeaves  = 4         // how often a peer may tell of each leaf of a root
	repeatRate    = 1 << 16   // and how many more leaves a second
)

// feed is a root about which this host and one peer talk by index. Owned by the engine.
type feed struct {
	p    *peer
	root cid.Cid
	m    *manifest // nil until it is known here

	// What this host was told.
	mine      uint32 // the number that this host gave when it last began to follow, or 0
	following bool   // the peer is to tell, or will be with the next message
	said      bool   // and knows
	known     bool   // the peer has told something
	early     []wire.Have
	lossy     bool    // there was too much to keep in early: the peer is asked anew once m is known
	theirs    leafSet // what the peer has, once m and it are known
	n         int     // how many
	spoken    uint64  // leaves that it told of, over and over if it did
	since     time.Duration
	shown     dray.Proof // with the follow

	// What the peer is told.
	number  uint32 // the peer's, or 0 when it does not follow
	first   int    // the leaves it wants to hear of
	end     int
	durable bool
	hidden  bool    // it may not be told anything
	awaited bool    // it waits for a root that is not known here
	owes    bool    // an answer, even if nothing is here
	told    bool    // that the root is known here
	heard   leafSet // what the peer was told; nil before it is
	news    []uint32
	rescan  bool // besides news, all leaves from at on may have come or gone
	at      int
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
	// Each time another number: answers that are still on their way under the last one are no answers to this.
	f.following, f.since, f.spoken = true, e.now, 0
	p.lastFeed++
	f.mine = p.lastFeed
	if p.mine == nil {
		p.mine = make(map[uint32]*feed)
	}
	p.mine[f.mine] = f
	if mf := e.manifests[root]; mf != nil && f.m == nil {
		e.bindFeed(f, mf)
	}
	p.follows = append(p.follows, f)
	e.dirtyPeer(p)
}

// unfollow takes back what subscribe said.
func (e *Engine) unfollow(f *feed) {
	p := f.p
	delete(p.mine, f.mine)
	if f.said {
		p.stops = append(p.stops, wire.Follow{Feed: f.mine, Root: f.root, Stop: true})
		e.dirtyPeer(p)
	} else if i := slices.Index(p.follows, f); i >= 0 {
		p.follows = slices.Delete(p.follows, i, i+1)
	}
	e.forgetTheirs(f)
	f.mine, f.following, f.said, f.known, f.early, f.lossy = 0, false, false, false, nil, false
}

// askAnew forgets what a peer told of a root and asks again.
func (e *Engine) askAnew(f *feed) {
	e.unfollow(f)
	e.subscribe(f.p, f.root)
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
		e.unfollow(f)
		e.unbindFeed(f)
	}
}

// CountCopies makes the engine ask every peer that follows root to say which leaves it holds so that they would survive a
// loss of power; [Engine.Copies] is the result.
func (e *Engine) CountCopies(root cid.Cid) {
	if e.durableCopies(root) {
		return
	}
	e.counted = append(e.counted, root)
	for _, p := range e.upPeers {
		switch f := p.feeds[root]; {
		case f == nil:
		case f.following:
			e.askAnew(f) // it was not asked for what is durable
		case f.number != 0:
			e.subscribe(p, root)
		}
	}
}

func (e *Engine) durableCopies(root cid.Cid) bool { return slices.Contains(e.counted, root) }

// bindFeed ties a feed to its manifest: what was kept until now is looked at, and the peer hears what is here.
func (e *Engine) bindFeed(f *feed, mf *manifest) {
	f.m = mf
	mf.feeds = append(mf.feeds, f)
	e.await(f, false)
	if f.lossy {
		e.askAnew(f)
	}
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
	if f.following || f.number != 0 {
		return
	}
	delete(f.p.feeds, f.root)
	if i := slices.Index(f.p.feedList, f); i >= 0 {
		f.p.feedList = slices.Delete(f.p.feedList, i, i+1)
	}
	if f.m == nil {
		return
	}
	mf := f.m
	f.m = nil
	if i := slices.Index(mf.feeds, f); i >= 0 {
		mf.feeds = slices.Delete(mf.feeds, i, i+1)
	}
	e.dropManifest(mf)
}

// await notes whether a feed waits for a root that is not known here.
func (e *Engine) await(f *feed, waits bool) {
	if f.awaited == waits {
		return
	}
	f.awaited = waits
	if waits {
		e.awaited[f.root]++
	} else if e.awaited[f.root]--; e.awaited[f.root] == 0 {
		delete(e.awaited, f.root)
	}
}

// forgetTheirs takes back what was known of the peer's leaves.
func (e *Engine) forgetTheirs(f *feed) {
	if f.theirs == nil {
		return
	}
	for i := f.theirs.next(0); i >= 0; i = f.theirs.next(i + 1) {
		e.lacks(f, i)
	}
	f.theirs, f.n = nil, 0
}

// lacks notes that the peer does not have a leaf that it may have had, as far as is known.
func (e *Engine) lacks(f *feed, i int) {
	if !f.theirs.remove(i) {
		return
	}
	f.n--
	e.rarerLeaf(f.m, i, -1)
	if f.heard != nil && !f.heard.has(i) && f.m.here.has(i) {
		e.tell(f, i) // it was not told while it had the leaf
	}
}

// rarerLeaf notes that one more (or one fewer) peer has a leaf.
func (e *Engine) rarerLeaf(mf *manifest, i int, by int) *want {
	mf.avail[i] += uint16(by)
	if !mf.asked.has(i) {
		return nil
	}
	w := e.wants[mf.m.Leaf(i)]
	e.rarer(w, int32(by))
	return w
}

// closeFeeds forgets everything that was between this host and a peer that is gone.
func (e *Engine) closeFeeds(p *peer) {
	for _, f := range slices.Clone(p.feedList) {
		e.forgetTheirs(f)
		e.silence(f)
		f.following = false
		e.unbindFeed(f)
	}
	p.feeds, p.feedList, p.mine, p.numbers, p.spent = nil, nil, nil, nil, nil
	p.follows, p.stops, p.newsy, p.followed = nil, nil, nil, 0
}

// receiveFollow files what a peer wants to hear about.
func (e *Engine) receiveFollow(p *peer, x *wire.Follow) {
	f := p.numbers[x.Feed]
	switch {
	case f != nil && f.root != x.Root || x.Feed == 0:
		e.violate(p, "a number of one root given to another")
		return
	case x.Stop:
		if f != nil {
			e.silence(f)
			e.unbindFeed(f)
		}
		return
	case f == nil:
		if root, given := p.spent[x.Feed]; x.Feed <= p.heardFeed && (!given || root != x.Root) {
			e.violate(p, "a number of a root used twice")
			return
		}
		delete(p.spent, x.Feed)
		p.heardFeed = max(p.heardFeed, x.Feed)
		if old := p.feeds[x.Root]; old != nil && old.number != 0 {
			e.violate(p, "a root followed under two numbers")
			return
		}
		if !x.Proof.IsZero() && !e.opens(p, x.Proof, x.Root) {
			e.denyFollow(p, x.Feed)
			return
		}
		may := e.mayAbout(p, x.Root)
		if p.followed >= maxFeeds || may && e.manifests[x.Root] == nil && !e.wantManifest(x.Root, p) {
			e.stats.Refused++
			return
		}
		f = p.feed(x.Root)
		f.hidden = !may
		if p.numbers == nil {
			p.numbers = make(map[uint32]*feed)
		}
		p.numbers[x.Feed] = f
		p.followed++
		e.access.follow(f.root, +1)
		f.number = x.Feed
	case !x.Proof.IsZero() && !e.opens(p, x.Proof, x.Root):
		e.denyFollow(p, x.Feed)
		e.silence(f)
		e.unbindFeed(f)
		return
	}
	f.first, f.end = int(x.First), int(x.First)+int(x.Count)
	if x.Count == 0 {
		f.end = math.MaxInt
	}
	f.durable = x.Durable
	switch mf := e.manifests[x.Root]; {
	case f.m != nil:
		e.answerFollow(f)
	case mf != nil:
		e.bindFeed(f, mf)
	default:
		e.await(f, true)
	}
}

// silence ends what the peer is told.
func (e *Engine) silence(f *feed) {
	if f.number == 0 {
		return
	}
	delete(f.p.numbers, f.number)
	if len(f.p.spent) < maxSpent {
		if f.p.spent == nil {
			f.p.spent = make(map[uint32]cid.Cid)
		}
		f.p.spent[f.number] = f.root
	}
	f.number, f.heard, f.news, f.told, f.owes, f.rescan, f.hidden = 0, nil, nil, false, false, false, false
	f.p.followed--
	e.access.follow(f.root, -1)
	e.await(f, false)
	if f.listed {
		f.listed = false
		f.p.newsy = slices.DeleteFunc(f.p.newsy, func(o *feed) bool { return o == f })
	}
}

// answerFollow tells a peer what is here of a root that it has begun to follow, or follows otherwise than before. Only the
// next message costs time: a peer may say a lot in one of its own.
func (e *Engine) answerFollow(f *feed) {
	if f.hidden {
		return
	}
	if f.durable {
		e.durably(f.m)
	}
	f.heard, f.news, f.owes = nil, nil, true
	f.rescan, f.at = !e.cfg.Withhold, f.first
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
	if i < f.first || i >= f.end || e.cfg.Withhold || f.hidden || f.rescan && i >= f.at {
		return
	}
	if len(f.news) >= maxNews { // the peer takes no messages
		f.news, f.rescan, f.at = f.news[:0], true, f.first
	} else {
		f.news = append(f.news, uint32(i))
	}
	e.list(f)
}

// appendNews writes what the peer is to be told about a feed, as far as there is room for bitmaps of about so many bytes. It
// returns the room that is left; without any, the feed may have more to tell.
func (f *feed) appendNews(m *wire.Message, room int) int {
	has := f.m.here
	if f.durable {
		has = f.m.synced
	}
	if f.heard == nil {
		f.heard = newLeafSet(f.m.m.Len())
	}
	slices.Sort(f.news)
	var come, gone wire.BitsWriter
	last := -1
	for _, x := range f.news { // all before f.at, if there is a rescan
		i := int(x)
		if i == last {
			continue
		}
		last = i
		switch {
		case has.has(i) && !f.durable && f.theirs != nil && f.theirs.has(i):
			// It has the leaf itself. Should it lose it, it is told then: see lacks.
		case has.has(i) && f.heard.add(i):
			come.Add(x, 1)
			room -= 2
		case !has.has(i) && f.heard.remove(i):
			gone.Add(x, 1)
			room -= 2
		}
	}
	f.news = f.news[:0]
	for f.rescan {
		k := f.at >> 6
		if k >= len(has) || f.at >= f.end {
			f.rescan = false
			break
		}
		if room <= 0 {
			break
		}
		diff := (has[k] ^ f.heard[k]) &^ (1<<(f.at&63) - 1)
		if f.at = (k + 1) << 6; f.at > f.end {
			diff &= 1<<(f.end&63) - 1
		}
		if diff != 0 {
			room -= 8
		}
		for f.heard[k] ^= diff; diff != 0; diff &= diff - 1 {
			i := k<<6 + bits.TrailingZeros64(diff)
			if has.has(i) {
				come.Add(uint32(i), 1)
			} else {
				gone.Add(uint32(i), 1)
			}
		}
	}
	leaves := uint32(f.m.m.Len())
	if !gone.Empty() {
		m.Haves = append(m.Haves, wire.Have{Feed: f.number, Leaves: leaves, Lost: true, Bits: gone.Bits()})
	}
	if !come.Empty() || f.owes {
		m.Haves = append(m.Haves, wire.Have{Feed: f.number, Leaves: leaves, Bits: come.Bits()})
	}
	f.told, f.owes = true, false
	return room
}

// appendAllNews writes what p is to be told about the roots that it follows: what does not fit waits for the next message.
func (p *peer) appendAllNews(m *wire.Message) {
	room := maxNewsBits
	left := p.newsy[:0]
	for _, f := range p.newsy {
		if room > 0 {
			room = f.appendNews(m, room)
		}
		if f.listed = f.rescan || len(f.news) > 0 || f.owes; f.listed {
			left = append(left, f)
		}
	}
	clear(p.newsy[len(left):])
	p.newsy = left
}

// takenBack forgets what a peer has said of roots: its control stream broke and a new one begins, which says again what
// still holds. Numbers and credit belong to the connection and stay, and so does what this host has said.
func (e *Engine) takenBack(p *peer) {
	for _, f := range slices.Clone(p.feedList) {
		e.silence(f)
		if f.theirs != nil || f.known {
			e.forgetTheirs(f)
			f.known = false
		}
		e.unbindFeed(f)
	}
	for _, sp := range p.sps {
		if sp.use == useFeed {
			e.setUse(sp, usePart)
		}
	}
	e.stopAnswers(p)
}

// receiveHave takes what a peer says that it has.
func (e *Engine) receiveHave(p *peer, h *wire.Have) {
	f, ok := e.asked(p, h.Feed)
	if !ok || f == nil {
		return
	}
	p.flow.answered(e.now)
	if h.Denied {
		e.forgetTheirs(f)
		f.known, f.early, f.lossy = false, nil, false
		e.denied(p, f.root)
		return
	}
	if f.m == nil {
		size := len(h.Bits)
		for i := range f.early {
			size += len(f.early[i].Bits)
		}
		if f.lossy || len(f.early) >= maxEarlyHaves || size > maxEarlyBits {
			f.early, f.lossy = nil, true // later answers say only what changed
			return
		}
		k := *h
		k.Bits = slices.Clone(h.Bits)
		f.early = append(f.early, k)
		return
	}
	e.applyHave(f, h)
}

// asked returns the feed that a peer answers about. It is nil when the peer has not heard yet that nothing more is to be
// told, and not ok when the peer was never asked.
func (e *Engine) asked(p *peer, number uint32) (f *feed, ok bool) {
	f = p.mine[number]
	if number == 0 || number > p.lastFeed || f != nil && !f.said {
		e.violate(p, "an answer about a root that it was not asked about")
		return nil, false
	}
	return f, true
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
		f.spoken += uint64(count)
	}
	// A few bytes can speak of all leaves: saying so over and over would cost this host more than the peer.
	if f.spoken > repeatLeaves*uint64(n)+uint64(repeatRate*(1+(e.now-f.since).Seconds())) {
		e.violate(f.p, "the same leaves told of over and over")
		return
	}
	f.known = true
	if f.theirs == nil {
		f.theirs = newLeafSet(n)
	}
	for first, count := range h.Bits.Ones() {
		for i := int(first); i < int(first+count); i++ {
			if h.Lost {
				e.lacks(f, i)
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
	if sp.mute = sp.use == useHolder && sp.p != sp.s.walk.from && sp.mayTell(e.now); sp.mute {
		e.timers.setEarlier(&sp.s.timer, f.since+tellPatience)
	}
	if !f.known {
		e.roomChanged(sp.p) // it may have become mute, or ceased to be, or have room to spare now that the manifest is known
		return
	}
	sp.dry, sp.denied = false, false
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
	if w.blocks != 1 || sp.broken > 0 {
		return
	}
	var a *ask
	for a = w.asks.head; a != nil && a.kind != askBlock; {
		a = a.wnext
	}
	switch {
	case a == nil || a.p == sp.p:
		return
	case a.sp.moves(sp):
		// Not what is on its way already: it would come twice.
		if a.p.flow.rate > 0 && a.onItsWay() {
			return
		}
		if !sp.p.room() {
			e.giveBack(w)
			return
		}
		e.askBlock(w, sp)
		e.dropAsk(a, true)
		return
	case !sp.p.room():
		return
	}
	wait, least := a.p.finish(e.now), takeOverGain*sp.p.flow.expect(sp.p.inflight+a.size)+takeOverSlack
	switch {
	case sp.spread() && sp.s.demanded > 0:
		// It can be asked for something else: only a long wait, in which the leaf is hardly being sent yet, is worth it.
		if wait <= 4*least {
			return
		}
	case a == a.p.flight.head || wait <= least:
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
	if f == nil || !f.said || !f.known || f.m != w.man {
		return wire.Leaves{}
	}
	return wire.Leaves{Feed: f.mine, First: w.leaf, Count: 1}
}

// named returns the leaves that a peer names by index, in a root that it follows here.
func (e *Engine) named(p *peer, l wire.Leaves) (*manifest, bool) {
	f := p.numbers[l.Feed]
	if f == nil || !f.told {
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
	f, ok := e.asked(p, pr.Leaves.Feed)
	if !ok || f == nil || f.m == nil {
		return
	}
	if uint64(pr.Leaves.First)+uint64(pr.Leaves.N()) > uint64(f.m.m.Len()) {
		e.violate(p, "an index beyond the manifest")
		return
	}
	// What the peer told of the root stands: it may have failed to read the leaf only now, and does not tell of it again.
	for i := pr.Leaves.First; i < pr.Leaves.First+pr.Leaves.N(); i++ {
		e.receivePresence(p, f.m.m.Leaf(int(i)), pr.Have)
	}
	for _, sp := range p.sps {
		if sp.s.man == f.m {
			e.refeed(sp, f)
		}
	}
}
