package node

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
)

// This file keeps the list of transfers: what calls and sessions are under way, and the last that ended, for people who look
// at the node. A call writes its own entry, a few times a second and once for each leaf that is in its place; a session's is
// made when somebody looks. So nothing is computed, and nothing runs, while nobody does.

// Origin says on whose behalf something is transferred, for people.
type Origin struct {
	// Who began it, such as "get", "job 3" or "gateway". If empty, nobody has said.
	Who string
	// Name is what the content is called. If empty, what its path ends in, or nothing.
	Name string
	// Trace is what it belongs to in a trace, as W3C Trace Context writes a traceparent. If empty, it begins one of its own.
	Trace string
}

// TransferKind says what call or session a transfer is.
type TransferKind string

// The kinds.
const (
	KindFetch   TransferKind = "fetch"   // Node.Fetch
	KindPart    TransferKind = "part"    // Node.FetchPart
	KindStream  TransferKind = "stream"  // Node.Stream
	KindGraph   TransferKind = "graph"   // Node.FetchDAG
	KindSession TransferKind = "session" // Node.NewSession
	KindOutside TransferKind = "outside" // Node.Track
)

// TransferState is where a transfer is in its life.
type TransferState string

// The states.
const (
	TransferRunning   TransferState = "running"
	TransferDone      TransferState = "done"
	TransferFailed    TransferState = "failed"
	TransferCancelled TransferState = "cancelled"
)

// GiftKind says where bytes came from.
type GiftKind string

// The kinds of gifts.
const (
	// GiftPeer: a peer gave them to this transfer.
	GiftPeer GiftKind = "peer"
	// GiftHere: they were on this host before.
	GiftHere GiftKind = "here"
	// GiftShared: they came while it ran, for another transfer of this node.
	GiftShared GiftKind = "shared"
	// GiftOrigin: they came from an origin outside of the swarm.
	GiftOrigin GiftKind = "origin"
)

// Gift is what one source gave to a transfer.
type Gift struct {
	// Kind says what the source is; Peer is who, if it is a peer, and Name what it is called, if it is an origin.
	Kind GiftKind
	Peer dray.PeerID
	Name string
	// Bytes of content are in their places because of it, and come at Rate bytes a second now.
	Bytes int64
	Rate  float64
	// Duplicates is how many bytes of blocks a peer sent besides that this transfer had already, of this peer or another.
	Duplicates int64
}

// Transfer describes one transfer.
type Transfer struct {
	// ID names it, as long as the Node lives.
	ID uint64
	// Kind and State say what it is and where in its life; Err is why it failed.
	Kind  TransferKind
	State TransferState
	Err   error
	// Origin is who began it. Path is where it goes, or "".
	Origin Origin
	Path   string
	// Began and Ended are when; Ended is zero while it runs. Moved is when bytes last came into their places.
	Began, Ended, Moved time.Time
	// Progress is how far it is. Of a session, Total is 0, because nobody knows what it will ask for.
	Progress Progress
	// Rate is the speed of the last seconds in bytes a second, steadier than Progress.Rate.
	Rate float64
	// Left is how long the rest is expected to take; negative when that cannot be told.
	Left time.Duration
	// Gifts says where the bytes came from, those who gave most first. They add up to Progress.Done.
	Gifts []Gift
	// Waits says why nothing more is there, for those that run.
	Waits []Wait
}

// Stalled returns for how long nothing has come into its place although something is missing, or 0 if that is not long.
func (t *Transfer) Stalled(now time.Time) time.Duration {
	if d := now.Sub(t.Moved); t.State == TransferRunning && d >= stalledAfter && len(t.Waits) > 0 {
		return d
	}
	return 0
}

// TransferList is what [Node.Transfers] returns.
type TransferList struct {
	// Running are under way, the latest first, and More is how many there are beyond those.
	Running []Transfer
	More    int
	// Ended are the last that ended, the latest first.
	Ended []Transfer
}

const (
	maxRunning   = 128 // that are told of
	maxEnded     = 64  // that are remembered
	maxGifts     = 250 // sources that are told apart
	maxMapped    = 1 << 22
	stalledAfter = 2 * time.Second
	rateOver     = 3 * time.Second  // over which a rate is smoothed
	leftOver     = 12 * time.Second // and the rate behind Left
)

// The values of docket.givers, beside the index of a gift.
const (
	giverNobody = 0   // the leaf is not in its place, as far as the transfer knows
	giverFirst  = 1   // the index of the first gift
	giverMany   = 255 // somebody beyond maxGifts
)

// docket is one transfer in the list. Its call writes it and whoever looks reads it, so it has a lock.
type docket struct {
	list *transfers

	mu     sync.Mutex
	t      Transfer
	id     exchange.SessionID   // now; 0 when there is none
	ids    []exchange.SessionID // all that it has had; guarded by the list's lock
	leaves int                  // that are known
	givers []uint8              // by leaf, who gave it
	gifts  []gift
	twice  int64 // bytes that came once more, of all peers
	rate   pace
	slow   pace
	pulled bool // the engine's counts of the session are all there is
}

type gift struct {
	Gift
	pace pace
}

// transfers is the list. It is safe for concurrent use.
type transfers struct {
	n *Node

	mu      sync.Mutex
	last    uint64
	running map[uint64]*docket
	ended   []*docket                      // oldest first
	of      map[exchange.SessionID]*docket // those that are in the list, by what works for them
}

// begin enters a transfer.
func (l *transfers) begin(kind TransferKind, root cid.Cid, path string, o Origin) *docket {
	now := time.Now()
	e := &docket{list: l, rate: newPace(rateOver, now), slow: newPace(leftOver, now), pulled: kind == KindSession}
	e.t = Transfer{Kind: kind, State: TransferRunning, Origin: o, Path: path, Began: now, Moved: now, Left: -1}
	e.t.Progress.Root = root
	l.mu.Lock()
	l.last++
	e.t.ID = l.last
	l.running[e.t.ID] = e
	l.mu.Unlock()
	if kind != KindSession { // of which there may be one for each request at a door
		l.n.record(Record{Kind: RecordBegun, Root: root, Transfer: e.t.ID, Text: describe(&e.t)})
	}
	return e
}

// describe says in a few words what a transfer is.
func describe(t *Transfer) string {
	name := t.Origin.Name
	if name == "" {
		name = t.Path
	}
	if name == "" {
		name = t.Progress.Root.String()
	}
	if t.Origin.Who == "" {
		return string(t.Kind) + " of " + name
	}
	return t.Origin.Who + ": " + name
}

// end takes a transfer out of those that run.
func (e *docket) end(err error) {
	now := time.Now()
	e.mu.Lock()
	if e.t.State != TransferRunning {
		e.mu.Unlock()
		return
	}
	switch {
	case err == nil:
		e.t.State = TransferDone
	case errors.Is(err, context.Canceled) || errors.Is(err, dray.ErrClosed):
		e.t.State = TransferCancelled
	default:
		e.t.State, e.t.Err = TransferFailed, err
	}
	e.t.Ended, e.t.Left, e.t.Waits, e.t.Rate, e.id = now, -1, nil, 0, 0
	for i := range e.gifts {
		e.gifts[i].Rate = 0
	}
	idle := e.t.Kind == KindSession && e.t.Progress.Done == 0
	r := Record{Kind: RecordEnded, Root: e.t.Progress.Root, Transfer: e.t.ID, Text: string(e.t.State) + ": " + describe(&e.t)}
	if e.t.Err != nil {
		r.Grave, r.Text = true, r.Text+": "+e.t.Err.Error()
	}
	kind, last := e.t.Kind, e.look(now)
	e.mu.Unlock()
	l := e.list
	l.mu.Lock()
	delete(l.running, e.t.ID)
	if idle {
		l.disown(e)
	} else {
		if len(l.ended) == maxEnded {
			l.disown(l.ended[0])
			l.ended = slices.Delete(l.ended, 0, 1)
		}
		l.ended = append(l.ended, e)
	}
	l.mu.Unlock()
	if kind != KindSession {
		l.n.record(r)
	}
	if l.n.cfg.Ended != nil && !idle {
		l.n.cfg.Ended(last)
	}
}

// opened says as which session the engine knows it, which may be one of several in turn.
func (e *docket) opened(id exchange.SessionID) {
	e.list.mu.Lock()
	e.list.of[id] = e
	e.ids = append(e.ids, id)
	e.list.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.id = id
}

// disown forgets which sessions worked for a transfer that leaves the list. The caller holds the lock.
func (l *transfers) disown(e *docket) {
	for _, id := range e.ids {
		delete(l.of, id)
	}
}

// repeated counts a block that came once more for whom it was asked for, also if that has ended in the meantime.
func (l *transfers) repeated(x exchange.Repeat) {
	l.mu.Lock()
	e := l.of[x.Session]
	l.mu.Unlock()
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gifts[e.gift(GiftPeer, x.Peer, "")].Duplicates += x.Bytes
	e.twice += x.Bytes
}

// duplicates returns how many bytes of blocks came that had come already.
func (e *docket) duplicates() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.twice
}

// report takes over how far the call is, in which session.
func (e *docket) report(p *Progress, id exchange.SessionID, leaves int) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.Done+p.Fetched != e.t.Progress.Done+e.t.Progress.Fetched {
		e.t.Moved = now
	}
	e.t.Progress, e.t.Waits, e.id, e.leaves = *p, p.Waiting, id, max(e.leaves, leaves)
	e.measure(now)
}

// measure brings the rates up to date. The caller holds the lock.
func (e *docket) measure(now time.Time) {
	p := &e.t.Progress
	came := p.Done - p.Reused
	e.rate.observe(now, came)
	e.slow.observe(now, came)
	e.t.Rate, e.t.Left = e.rate.perSecond(), -1
	if p.Walked && p.Total > 0 {
		e.t.Left = e.slow.left(p.Total - p.Done)
	}
	for i := range e.gifts {
		g := &e.gifts[i]
		g.pace.observe(now, g.Bytes)
		g.Rate = g.pace.perSecond()
	}
}

// placed notes that size bytes of content are in their place because of a source, and which leaf that is, or -1.
func (e *docket) placed(leaf int, kind GiftKind, peer dray.PeerID, name string, size int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.gift(kind, peer, name)
	e.gifts[k].Bytes += size
	if leaf < 0 || leaf >= maxMapped {
		return
	}
	if leaf >= len(e.givers) {
		e.givers = append(e.givers, make([]uint8, max(leaf+1, e.leaves)-len(e.givers))...)
	}
	e.givers[leaf] = uint8(min(k+giverFirst, giverMany))
}

// came is placed for a leaf that was delivered: by a peer, or by another session of this node.
func (e *docket) came(leaf int, peer dray.PeerID, size int64) {
	if peer == "" {
		e.placed(leaf, GiftShared, "", "", size)
		return
	}
	e.placed(leaf, GiftPeer, peer, "", size)
}

// gift returns the index of a source, made on first use. Sources beyond the bound are one. The caller holds the lock.
func (e *docket) gift(kind GiftKind, peer dray.PeerID, name string) int {
	for i := range e.gifts {
		if g := &e.gifts[i]; g.Kind == kind && g.Peer == peer && g.Name == name {
			return i
		}
	}
	if len(e.gifts) == maxGifts {
		return maxGifts - 1
	}
	if len(e.gifts) == maxGifts-1 {
		peer, name = "", "others"
	}
	// The count began at nothing when the transfer did.
	e.gifts = append(e.gifts, gift{Gift: Gift{Kind: kind, Peer: peer, Name: name}, pace: newPace(rateOver, e.t.Began)})
	return len(e.gifts) - 1
}

// restart forgets what was in its place: the call starts over.
func (e *docket) restart() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.gifts {
		e.gifts[i].Bytes = 0
	}
	e.givers, e.leaves = nil, 0
}

// look returns the transfer as it is. The caller holds the lock.
func (e *docket) look(now time.Time) Transfer {
	t := e.t
	if t.State == TransferRunning {
		// A call that waits for its disk does not report.
		t.Rate, t.Left = e.rate.at(now), e.t.Left
	}
	t.Gifts = make([]Gift, 0, len(e.gifts))
	t.Progress.Duplicates = e.twice
	sum := int64(0)
	for i := range e.gifts {
		if g := &e.gifts[i]; g.Bytes == 0 && g.Duplicates == 0 {
			continue // of before the call started over
		}
		t.Gifts = append(t.Gifts, e.gifts[i].Gift)
		sum += e.gifts[i].Bytes
	}
	if t.State == TransferRunning {
		t.Progress.Done = sum // the call counts the same, and reports it now and then
	}
	slices.SortStableFunc(t.Gifts, func(a, b Gift) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return t
}

// pull brings a session's entry up to date from the engine. Called on the loop.
func (e *docket) pull(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.list.n
	st, ok := n.engine.Stats(e.id)
	if !e.pulled || e.id == 0 || !ok {
		return
	}
	p := &e.t.Progress
	if p.Done != st.Bytes {
		e.t.Moved = now
	}
	p.Done, p.Fetched, p.Leaves, p.Elapsed = st.Bytes, st.Bytes, int(st.Blocks), now.Sub(e.t.Began)
	p.Peers, p.Waiting = n.engine.Standings(e.id), n.waits(e.id, nil)
	e.t.Waits = p.Waiting
	sum := int64(0)
	for _, s := range p.Peers {
		if s.Delivered > 0 {
			g := &e.gifts[e.gift(GiftPeer, s.Peer, "")]
			g.Bytes = max(g.Bytes, s.Delivered) // of a peer that was lost and is back the engine counts anew
		}
	}
	for i := range e.gifts {
		if e.gifts[i].Kind == GiftPeer {
			sum += e.gifts[i].Bytes
		}
	}
	if rest := st.Bytes - sum; rest > 0 {
		e.gifts[e.gift(GiftShared, "", "")].Bytes = rest
	}
	e.measure(now)
}

// Transfers lists what is being transferred, and what was lately.
func (n *Node) Transfers() TransferList {
	l := &n.transfers
	now := time.Now()
	l.mu.Lock()
	running := make([]*docket, 0, len(l.running))
	for _, e := range l.running {
		running = append(running, e)
	}
	ended := slices.Clone(l.ended)
	l.mu.Unlock()
	slices.SortFunc(running, func(a, b *docket) int { return cmp.Compare(b.t.ID, a.t.ID) }) // an ID never changes
	out := TransferList{More: max(len(running)-maxRunning, 0)}
	running = running[:len(running)-out.More]
	if slices.ContainsFunc(running, func(e *docket) bool { return e.pulled }) {
		n.ask(func() {
			for _, e := range running {
				e.pull(now)
			}
		})
	}
	for _, e := range running {
		out.Running = append(out.Running, e.locked(now))
	}
	for _, e := range slices.Backward(ended) {
		out.Ended = append(out.Ended, e.locked(now))
	}
	return out
}

func (e *docket) locked(now time.Time) Transfer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.look(now)
}

// Transfer describes one transfer that runs, or ended lately, with its pieces in at most so many cells.
func (n *Node) Transfer(id uint64, cells int) (Transfer, PieceMap, bool) {
	l := &n.transfers
	l.mu.Lock()
	e := l.running[id]
	for _, o := range l.ended {
		if e == nil && o.t.ID == id {
			e = o
		}
	}
	l.mu.Unlock()
	if e == nil {
		return Transfer{}, PieceMap{}, false
	}
	now := time.Now()
	e.mu.Lock()
	root, live := e.t.Progress.Root, e.t.State == TransferRunning
	e.mu.Unlock()
	var known exchange.Pieces
	if live {
		n.ask(func() {
			e.pull(now)
			known = n.engine.Pieces(root, cells)
		})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.look(now), e.pieces(known, cells), true
}

// pace estimates how fast a count grows: the mean of its speed, in which what was a time over ago weighs 1/e as much as what is
// now. Its first samples count in full, so it is right from the beginning. The zero value must not be used.
type pace struct {
	over   time.Duration
	since  time.Time // of the last sample
	count  int64
	rate   float64
	weight float64 // of all samples together, below 1
}

const paceStep = 100 * time.Millisecond // samples closer than that are put together

func newPace(over time.Duration, now time.Time) pace { return pace{over: over, since: now} }

// observe takes a sample. A count that falls begins anew.
func (p *pace) observe(now time.Time, count int64) {
	d := now.Sub(p.since)
	if count < p.count {
		p.count, p.since = count, now
		return
	}
	if d < paceStep {
		return
	}
	w := 1 - math.Exp(-d.Seconds()/p.over.Seconds())
	p.rate += w * (float64(count-p.count)/d.Seconds() - p.rate)
	p.weight += w * (1 - p.weight)
	p.since, p.count = now, count
}

// perSecond returns the estimate.
func (p *pace) perSecond() float64 {
	if p.weight == 0 {
		return 0
	}
	return p.rate / p.weight
}

// at returns the estimate as it would be if nothing had come since the last sample, some time after it.
func (p *pace) at(now time.Time) float64 {
	if now.Sub(p.since) < 2*progressGap {
		return p.perSecond()
	}
	q := *p
	q.observe(now, q.count)
	return q.perSecond()
}

// left returns how long so much takes at this pace, and -1 when that would be a guess: too little was seen, or nothing moves.
func (p *pace) left(count int64) time.Duration {
	rate := p.perSecond()
	if count <= 0 {
		return 0
	}
	const longest = 1000 * time.Hour
	if p.weight < 0.05 || rate < 1 || float64(count)/rate > longest.Seconds() {
		return -1
	}
	return time.Duration(float64(count) / rate * float64(time.Second))
}
