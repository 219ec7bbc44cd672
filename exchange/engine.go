package exchange

import (
	"math/rand/v2"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange/health"
	"dray/wire"
)

// Config sets an Engine's limits. The zero value works.
type Config struct {
	// Seed feeds the engine's random choices: two engines with the same seed and the same inputs do the same. If zero,
	// 1.
	Seed uint64
	// Window fixes how many bytes may be asked of one peer and not yet delivered. If zero, it is measured.
	Window int64
	// ReceiveBytes bounds the blocks that have arrived and are not written yet; beyond it nothing new is asked for. If
	// zero, 12 MiB.
	ReceiveBytes int64
	// ServeBytes bounds the blocks that are being read and written for all peers together, and PeerServeBytes for one.
	// While peers that take nothing hold all of the first, others may have one block each, up to as much again. If zero, 16
	// MiB and 4 MiB.
	ServeBytes, PeerServeBytes int64
	// PeerWants is how many wants of one peer are kept; more are refused. If zero, 1,024.
	PeerWants int
	// InlineBytes is the size up to which a block is sent in place of a HAVE. If zero, 1,024; if negative, never.
	InlineBytes int64
	// Strategy orders the peers that could be asked for a block. If zero, ExpectedFirst.
	Strategy Strategy
	// Score weighs what counts under BestScore. If zero, ScoreDefault. New panics if the weights do not sum to 1.
	Score Score
	// Withhold serves nobody: peers are told so, and that nothing is here if they ask nevertheless.
	Withhold bool
	// Gate says who may have what. If nil, everything is open to everybody, until SetGate.
	Gate Gate
	// Ban is how long a peer that breaks the protocol is refused. If zero, one hour.
	Ban time.Duration
	// Limits bound what passes. If zero, nothing does. [Engine.SetLimits] changes them.
	Limits Limits
}

func (c *Config) setDefaults() {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.ReceiveBytes, 12<<20)
	def(&c.ServeBytes, 16<<20)
	def(&c.PeerServeBytes, 4<<20)
	def(&c.InlineBytes, 1024)
	if c.PeerWants == 0 {
		c.PeerWants = maxEntries
	}
	if c.Ban == 0 {
		c.Ban = time.Hour
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.Score == (Score{}) {
		c.Score = ScoreDefault()
	}
	if err := c.Score.Check(); err != nil {
		panic("exchange: " + err.Error())
	}
}

// Engine decides. It is not safe for concurrent use: one goroutine, the driver's loop, owns it. See the package comment
// for the driver's contract.
type Engine struct {
	cfg  Config
	now  time.Duration
	rand *rand.Rand
	seq  uint64
	turn int64 // counts requests, for RoundRobin and Random

	wants map[cid.Cid]*want
	done  doneSet // recently ended wants

	sessions    map[SessionID]*session
	sessionList []*session // in order of creation
	lastSession SessionID

	parts    walkParts
	peers    map[dray.PeerID]*peer
	upPeers  []*peer              // in order of connection
	left     []*peer              // gone, oldest first
	kept     map[dray.PeerID]bool // see Keep
	lastSlot int
	accounts accounts
	shape    shaping

	view      health.Partition
	viewState health.PartitionState // as last acted on
	mode      health.Mode           // likewise
	modeSince time.Duration
	ticker    timer                        // of what concerns all peers
	classes   [Critical - Prefetch + 1]int // wants in the table, by the class of their rank
	drags     []*peer                      // reused

	serving servingQueue
	access  accesses
	timers  timers

	receiving int64         // bytes handed out in Stores and not answered
	storedAt  time.Duration // when the last of them was answered, or the first of them was handed out
	diskFull  time.Duration // since when the store says so, or 0

	dirtyPeers    []*peer
	dirtySessions []*session
	work          []*session
	freeWants     []*want
	freeAsks      []*ask

	manifests    map[cid.Cid]*manifest
	manifestList []*manifest // in the order in which they became known
	loading      map[cid.Cid]*loadingManifest
	early        map[cid.Cid]early
	earlyList    []cid.Cid // in the order in which they came; some may be gone
	earlyBytes   int64
	awaited      map[cid.Cid]int // roots that are not known here, and how many peers follow them
	changes      []change        // blocks written and removed while manifests are being loaded, the last ones
	changed      uint64          // how many there were in all
	unsynced     bool            // something was written that some peer wants to hear of once it is synced
	syncWait     bool            // for the driver
	counted      []cid.Cid       // roots whose copies are counted

	concluded []*session
	held      bool // the bound on bytes being written stopped somebody
	refused   []dray.Block

	ready Ready
	spare Ready
	stats Stats
}

// Stats counts what the engine has seen since it was made.
type Stats struct {
	// Blocks and Bytes were asked for, received and accepted.
	Blocks, Bytes int64
	// Duplicates and DuplicateBytes were wanted once, but had come already.
	Duplicates, DuplicateBytes int64
	// Uninvited counts blocks that nobody wanted lately: wrong bytes or an attack.
	Uninvited int64
	// Stalls counts peers that let their patience run out.
	Stalls int64
	// Refused counts wants of peers beyond [Config.PeerWants].
	Refused int64
	// Served and ServedBytes were sent to peers.
	Served, ServedBytes int64
	// Banned counts peers that were dropped for an offence.
	Banned int64
}

// New returns an Engine that knows nobody and wants nothing.
func New(cfg Config) *Engine {
	cfg.setDefaults()
	e := &Engine{
		ticker:   timer{heap: -1},
		cfg:      cfg,
		access:   accesses{gate: cfg.Gate},
		rand:     rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)),
		wants:    make(map[cid.Cid]*want),
		sessions: make(map[SessionID]*session),
		peers:    make(map[dray.PeerID]*peer),
		serving: servingQueue{
			waiting: make(map[cid.Cid]*served), copies: copyCount{of: make(map[cid.Cid]int32)},
		},
		done:      doneSet{has: make(map[cid.Cid]SessionID)},
		manifests: make(map[cid.Cid]*manifest),
		loading:   make(map[cid.Cid]*loadingManifest),
		early:     make(map[cid.Cid]early),
		awaited:   make(map[cid.Cid]int),
	}
	e.accounts.init()
	e.SetLimits(0, cfg.Limits)
	return e
}

// Ready is what the driver must do now. Each slice is in order.
type Ready struct {
	// Sends are control messages, at most one per peer until [Engine.Sent].
	Sends []Send
	// Blocks are blocks to write to peers.
	Blocks []BlockSend
	// Loads are look-ups and reads in the store.
	Loads []Load
	// Stores are verified, wanted blocks to write.
	Stores []Store
	// Delivers answer wants.
	Delivers []Deliver
	// Finds are CIDs for which peers are sought, Dials peers to connect to, Drops peers to disconnect.
	Finds []Find
	Dials []dray.PeerID
	Drops []Drop
	// Probes are connected peers to be asked for a sign of life; each is answered with one [Engine.Probed].
	Probes []dray.PeerID
	// Hangups are peers whose connection has been dead for a while: the driver closes it, before it looks at Dials. To the
	// engine they are gone already, as after [Engine.PeerDown].
	Hangups []dray.PeerID
	// Sessions have ended.
	Sessions []SessionEvent
	// Manifests are roots whose leaves a peer wants to talk about, Walks parts of graphs that a peer asked for.
	Manifests []ManifestLoad
	Walks     []WalkLoad
	// WalksEnded are sessions that have had the answer to their walk, or wait for it no longer.
	WalksEnded []SessionID
	// Repeats are blocks that came although they had come already, as [Stats] counts them.
	Repeats []Repeat
	// Discards are blocks that were kept in case they would be wanted, and were not.
	Discards []dray.Block
	// Sync asks for one sync of the store, and [Engine.Synced] after it.
	Sync bool
	// Wake is when to call [Engine.Advance] at the latest; zero means never.
	Wake time.Duration
}

// Send is one control message. The driver encodes it for the peer's protocol; it is valid until [Engine.Sent].
type Send struct {
	Peer    dray.PeerID
	Message *wire.Message
}

// BlockSend is one block to write. Data is what [Engine.Loaded] brought.
type BlockSend struct {
	Peer dray.PeerID
	CID  cid.Cid
	Data []byte
	// Guarded says that the block is not for everybody: it must not travel where others can read it.
	Guarded bool
}

// Load asks the store for a block: with Stat for its size only, else for its bytes. Size is then what the look-up said,
// so that the driver can read small blocks together.
type Load struct {
	Peer dray.PeerID
	CID  cid.Cid
	Stat bool
	Size int64
}

// Store asks the store to write a block that came from a peer.
type Store struct {
	Peer  dray.PeerID
	Block dray.Block
}

// Deliver answers a session's want: with the block, or with Local, which says that it lies in the store, or with an
// error from the store.
type Deliver struct {
	Session SessionID
	CID     cid.Cid
	Block   dray.Block
	Peer    dray.PeerID
	Local   bool
	Err     error

	refs     int  // how many of the session's asks it answers, as in asker
	demanded bool // one of them is Demand's
}

// Find asks for peers that have a CID.
type Find struct {
	Session SessionID
	CID     cid.Cid
	Root    cid.Cid // what the session says that it lies under, if it does
}

// Repeat is a block that came once more.
type Repeat struct {
	// Session is on whose behalf it was asked for; it may have ended since. 0 if nobody knows.
	Session SessionID
	// Peer is who sent it, and Bytes its size.
	Peer  dray.PeerID
	Bytes int64
}

// Drop asks for a peer to be disconnected because of an offence.
type Drop struct {
	Peer      dray.PeerID
	Violation *Violation
}

// Empty reports whether there is nothing to do but wait.
func (r *Ready) Empty() bool {
	return len(r.Sends)+len(r.Blocks)+len(r.Loads)+len(r.Stores)+len(r.Delivers)+len(r.Finds)+len(r.Dials)+
		len(r.Drops)+len(r.Probes)+len(r.Hangups)+len(r.Sessions)+len(r.Manifests)+len(r.Walks)+len(r.WalksEnded)+len(r.Repeats)+
		len(r.Discards) == 0 && !r.Sync
}

func (r *Ready) reset() {
	clear(r.Blocks)
	clear(r.Stores)
	clear(r.Delivers)
	r.Sends, r.Blocks, r.Loads, r.Stores = r.Sends[:0], r.Blocks[:0], r.Loads[:0], r.Stores[:0]
	r.Delivers, r.Finds, r.Dials, r.Drops = r.Delivers[:0], r.Finds[:0], r.Dials[:0], r.Drops[:0]
	r.Sessions, r.Probes, r.Hangups, r.Wake = r.Sessions[:0], r.Probes[:0], r.Hangups[:0], 0
	clear(r.Discards)
	clear(r.Sessions)
	r.WalksEnded, r.Repeats = r.WalksEnded[:0], r.Repeats[:0]
	r.Manifests, r.Walks, r.Discards, r.Sync = r.Manifests[:0], r.Walks[:0], r.Discards[:0], false
}

// Ready hands out wants and returns everything to be done since the last call. The result is valid until the next call.
func (e *Engine) Ready() *Ready {
	e.openBuckets()
	e.refuseStale()
	e.assign()
	for i, p := range e.dirtyPeers {
		p.dirty = false
		if e.announce(p) {
			e.ready.Sends = append(e.ready.Sends, Send{Peer: p.id, Message: &p.msg})
		}
		e.dirtyPeers[i] = nil
	}
	e.dirtyPeers = e.dirtyPeers[:0]
	e.beginParts()
	e.pull()
	if e.unsynced && !e.syncWait {
		e.beginSync()
	}
	e.ready.Wake = 0
	if t, ok := e.timers.next(); ok {
		e.ready.Wake = max(t, 1)
	}
	e.ready.Wake = e.wakeForBuckets(e.ready.Wake)
	e.ready, e.spare = e.spare, e.ready
	e.ready.reset()
	return &e.spare
}

// Advance lets time pass: what is due at now is done.
func (e *Engine) Advance(now time.Duration) {
	e.now = now
	for t := e.timers.pop(now); t != nil; t = e.timers.pop(now) {
		switch {
		case t.peer != nil:
			e.peerDue(t.peer)
		case t.sess != nil:
			e.sessionDue(t.sess)
		default:
			e.tickDue()
		}
	}
}

// Receive takes a message from a peer, and its blocks with the CIDs that their bytes hash to. The slices and m may be
// reused after the call; the blocks' bytes may not, until the block comes back in a [Store] and was answered, or is
// returned here as refused: refused lists the blocks that the engine does not keep, in a slice valid until the next call.
func (e *Engine) Receive(now time.Duration, from dray.PeerID, m *wire.Message, blocks []dray.Block) (refused []dray.Block) {
	e.now = now
	e.refused = e.refused[:0]
	p := e.peers[from]
	if p == nil || !p.up || p.health.State() == HealthBanned {
		e.refused = append(e.refused, blocks...)
		return e.refused
	}
	e.alive(p)
	walked := m != nil && m.Seq != 0 // only answers to walks travel in the state lane
	for _, b := range blocks {
		if !p.up || !e.receiveBlock(p, b, walked) {
			e.refused = append(e.refused, b)
		}
	}
	if m != nil && p.up {
		e.receiveMessage(p, m)
	}
	if p.up && p.badness >= maxBadness {
		e.refuse(p, now+e.cfg.Ban, health.InvalidData, "blocks that nobody asked for, or with wrong bytes")
	}
	return e.refused
}

func (e *Engine) receiveMessage(p *peer, m *wire.Message) {
	if m.Full && p.seqIn > 0 {
		e.takenBack(p)
	}
	if m.Seq != 0 {
		next := p.seqIn + 1
		switch {
		case m.Full:
			next = 1
		case m.Continues:
			next = p.seqIn
		}
		if m.Seq != next {
			e.violate(p, "a message of the state lane out of order")
			return
		}
		p.seqIn = m.Seq
	}
	if m.Credit > 0 {
		p.serve.credit = max(p.serve.credit, int64(min(m.Credit, 1<<62)))
		if len(p.answers) > 0 {
			e.dirtyPeer(p)
		}
	}
	if m.Info.Set {
		p.withholds, p.sated = !m.Info.Uploading, !m.Info.Downloading
		e.roomChanged(p)
		for _, sp := range p.sps {
			e.dirtySession(sp.s)
		}
	}
	for i := range m.Follows {
		if p.up && p.caps.Indexes {
			e.receiveFollow(p, &m.Follows[i])
		}
	}
	if p.up && (len(m.Wants) > 0 || m.Full) {
		e.receiveWants(p, m)
	}
	for i := range m.Presences {
		if p.up {
			e.receivePresences(p, &m.Presences[i])
		}
	}
	if !p.caps.Indexes {
		return // it is thought to speak Bitswap: it cannot have said more
	}
	for i := range m.Haves {
		if p.up {
			e.receiveHave(p, &m.Haves[i])
		}
	}
	for i := range m.Walks {
		if p.up {
			e.receiveWalk(p, &m.Walks[i])
		}
	}
	for i := range m.Walked {
		if p.up {
			e.receiveWalked(p, &m.Walked[i])
		}
	}
}

// Heard says that bytes of a block are arriving from a peer, so that a big block on a slow path does not count as
// silence, and bytes how many since the last call. Calling it a few times a second is enough.
func (e *Engine) Heard(now time.Duration, from dray.PeerID, bytes int64) {
	e.now = now
	if p := e.peers[from]; p != nil && p.up {
		p.flow.heard = now
		p.flow.bytes += bytes
		e.alive(p)
	}
}

// Offend says that a peer broke the protocol in a way that the driver noticed: a malformed or oversized message. The peer
// is dropped and refused for a while.
func (e *Engine) Offend(now time.Duration, from dray.PeerID, v *Violation) {
	e.now = now
	if p := e.peers[from]; p != nil && p.health.State() != HealthBanned {
		e.violate(p, v.What)
	}
}

// Found says that a peer may hold what session s asked for in [Ready.Finds].
func (e *Engine) Found(now time.Duration, s SessionID, id dray.PeerID) {
	e.now = now
	if _, banned := e.Banned(now, id); banned {
		return
	}
	e.AddPeer(now, s, id)
}

// Totals returns what the engine has counted.
func (e *Engine) Totals() Stats { return e.stats }

const maxBadness = 3 // uninvited blocks after which a peer is dropped

// receiveBlock files a verified block and reports whether it was wanted. One that is part of a walk's answer is no answer
// to a want.
func (e *Engine) receiveBlock(p *peer, b dray.Block, walked bool) bool {
	size := int64(b.Size())
	if p.caps.Indexes {
		// The last block that was begun with credit may be a large one, and may overtake the others.
		if p.used >= p.creditTold+wire.MaxMessageSize {
			e.violate(p, "more bytes than it was given credit for")
			return false
		}
		p.used += size
		if p.creditTold-p.used < creditBase/2 {
			e.dirtyPeer(p)
		}
	}
	w := e.wants[b.CID()]
	if w == nil {
		w = e.demandedWant(b.CID())
	}
	e.arrived(p, w, size)
	if w == nil && e.keepEarly(p, b) {
		return true
	}
	if w == nil || w.state == Receiving {
		e.acct(p).Duplicate += size
		p.flow.heard = e.now
		if w == nil && !e.done.contains(b.CID()) && !p.allow(size) {
			e.stats.Uninvited++
			p.badness++
			p.wasted += size
			return false
		}
		e.repeated(e.askedFor(w, p, b.CID()), p, size)
		return false
	}
	e.accept(w, p, b, walked)
	return true
}

// repeated counts a block that has come once more, on behalf of a session.
func (e *Engine) repeated(id SessionID, p *peer, size int64) {
	e.stats.Duplicates++
	e.stats.DuplicateBytes += size
	e.ready.Repeats = append(e.ready.Repeats, Repeat{id, p.id, size})
}

// askedFor returns on whose behalf a peer was asked for a block that is not wanted any more, or 0.
func (e *Engine) askedFor(w *want, p *peer, c cid.Cid) SessionID {
	if w != nil {
		return w.home.id
	}
	if id, ok := e.done.has[c]; ok {
		return id
	}
	if x, ok := e.early[c]; ok {
		return x.s.id
	}
	for _, s := range e.sessionList { // what a walk answered with, after it was given up, or is pushed after it
		if s.walk.p == p || s.walk.from == p || s.walk.attempts > 0 && s.peer(p) != nil {
			return s.id
		}
	}
	return 0
}

// accept takes a block that was wanted.
func (e *Engine) accept(w *want, p *peer, b dray.Block, walked bool) {
	size := int64(b.Size())
	home := w.home
	e.guardArriving(w)
	if w.state == Waiting {
		home.waiting--
	} else {
		e.dequeue(w)
	}
	w.to(Receiving)
	w.from = p
	asked := false
	if a := w.asks.of(p); a != nil {
		asked = a.kind == askBlock || a.kind == askLate
		p.newest = max(p.newest, a.number)
		if a.pushed {
			p.allow(size)
		} else if p.allowed >= size {
			walked = true // it may have been pushed before the ask was heard, which then still stands
		}
		if sp := a.sp; !sp.gone {
			sp.misses, sp.broken = 0, 0
			sp.full = false
			sp.haves++
			sp.blocks++
			sp.bytes += size
			if sp.use != useHolder && sp.use != useFeed && (sp.use == useUnknown || sp.haves >= havesToHold) {
				e.setUse(sp, useHolder)
			}
		}
		e.dropAsk(a, a.crossed || walked)
	}
	if asked {
		p.flow.delivered(e.now, size, p.flight.n > 0)
		p.flow.filled = p.flow.filled || p.inflight+size >= p.flow.window
	} else {
		p.flow.answered(e.now) // it came by itself, with a walk: how fast says nothing
	}
	p.flow.blockCame(e.now)
	e.delivered(p)
	e.acct(p).Received += size
	p.merit.succeeded(e.now)
	if p.flight.n == 0 {
		p.flow.asked = 0
	}
	e.stats.Blocks++
	e.stats.Bytes += size
	home.findAfter, home.foundAt = findFirst, e.now
	home.sizes += size
	home.sized++
	if e.receiving == 0 {
		e.storedAt = e.now
	}
	e.receiving += size
	e.ready.Stores = append(e.ready.Stores, Store{Peer: p.id, Block: b})
	e.roomChanged(p)
	e.fillCandidates(p)
	e.dirtySession(home)
}

// receivePresence takes a HAVE or DONT_HAVE.
func (e *Engine) receivePresence(p *peer, c cid.Cid, have bool) {
	p.flow.answered(e.now)
	w := e.wants[c]
	if w == nil {
		return
	}
	a := w.asks.of(p)
	if a == nil || w.state == Receiving {
		return
	}
	sp := a.sp
	if sp.gone || sp.s != w.home && w.asker(sp.s) == nil {
		if sp = w.home.peer(p); sp != nil {
			a.sp.asks--
			sp.asks++
			a.sp = sp
		} else if have {
			return // the session that asked has left, and the one that wants it now may not ask this peer
		}
	}
	if have {
		sp.misses = 0
		sp.haves++
		if a.kind == askBlock || a.kind == askHeld {
			return
		}
		a.kind = askHeld
		e.rarer(w, +1)
		if sp.use == useUnknown || sp.use == usePart && sp.haves >= havesToHold {
			e.setUse(sp, useHolder)
		}
		switch {
		case w.state != Pending:
		case sp.s.mayAsk() && (p.roomFor(w.rank.class) || p.roomHeld()) && !e.dry() && !e.sheds(w.rank.class):
			e.askBlock(w, sp)
		default:
			sp.offerTo(w)
			sp.s.offered = true
		}
		return
	}
	if sp != nil {
		sp.haves = 0
		sp.misses++
	}
	if a.kind == askHeld {
		e.rarer(w, -1)
	}
	asked := a.kind == askBlock
	if asked {
		if sp != nil && sp.told(w) {
			sp.broken++
			p.merit.failed()
		}
		e.uncharge(a)
	}
	if a.list != &p.queue {
		a.kind, a.at = askMissing, e.now
		if a.list == &p.flight {
			a.unlist()
			p.known.push(a)
		}
	}
	if sp != nil && (sp.use == useUnknown || sp.use == useHolder && sp.misses >= missesToPart && p.caps.Haves) {
		e.setUse(sp, usePart)
	}
	if asked {
		e.unwait(w)
	}
	e.dirtySession(w.home)
}

// Stored says that a block named in [Ready.Stores] was written, or why not. The same call answers the wants: with the
// block, or with the error.
func (e *Engine) Stored(now time.Duration, b dray.Block, err error) {
	e.now = now
	e.receiving -= int64(b.Size())
	e.noteStored(now, err)
	w := e.wants[b.CID()]
	if w == nil || w.state != Receiving {
		panic("exchange: Stored without a Store")
	}
	from := w.from
	w.from = nil
	if err != nil {
		w.to(Failed)
		e.conclude(w, Deliver{CID: w.cid, Err: err})
		e.dirtyAll()
		return
	}
	w.to(Done)
	e.conclude(w, Deliver{CID: w.cid, Block: b, Peer: from.id})
	e.written(b.CID())
	e.announceAdded(b.CID(), int64(b.Size()))
	e.dirtyAll()
}

// Added says that a block was put into the store by somebody else than a peer. It answers wants for it, and peers that
// wait for it are served.
func (e *Engine) Added(now time.Duration, c cid.Cid, size int64) {
	e.now = now
	e.found(c)
	e.written(c)
	e.announceAdded(c, size)
}

// found answers whoever misses a block that turns out to be here.
func (e *Engine) found(c cid.Cid) {
	if w := e.wants[c]; w != nil && w.state != Receiving {
		if w.state == Waiting {
			w.home.waiting--
		}
		e.dequeue(w)
		w.to(Receiving)
		w.to(Done)
		e.conclude(w, Deliver{CID: c, Local: true})
	} else {
		e.meetDemand(c, Deliver{CID: c, Local: true})
		e.completeConcluded()
	}
}

// conclude answers every session that asks for w with d, and ends w.
func (e *Engine) conclude(w *want, d Deliver) {
	if w.state == Failed {
		w.to(Cancelled)
	}
	e.done.add(w.cid, w.home.id)
	for len(w.askers) > 0 {
		last := w.askers[len(w.askers)-1]
		s := last.s
		w.askers = w.askers[:len(w.askers)-1]
		s.wants--
		d.Session, d.refs, d.demanded = s.id, last.refs, last.demanded
		if d.Err == nil {
			s.stats.Blocks++
			s.stats.Bytes += int64(d.Block.Size())
		}
		e.ready.Delivers = append(e.ready.Delivers, d)
		e.dirtySession(s)
		e.concluded = append(e.concluded, s)
	}
	if d.Err == nil {
		e.meetDemand(w.cid, d)
	}
	e.retire(w)
	e.completeConcluded()
}

// completeConcluded ends the sessions that were answered and have all now.
func (e *Engine) completeConcluded() {
	for i, s := range e.concluded {
		e.maybeComplete(s)
		e.concluded[i] = nil
	}
	e.concluded = e.concluded[:0]
}

func (e *Engine) dirtyPeer(p *peer) {
	if !p.dirty && p.up {
		p.dirty = true
		e.dirtyPeers = append(e.dirtyPeers, p)
	}
}

func (e *Engine) dirtySession(s *session) {
	if !s.dirty && !s.ended() {
		s.dirty = true
		e.dirtySessions = append(e.dirtySessions, s)
	}
}

// dirtyAll looks at every session again after the bound on bytes being written had stopped them all.
func (e *Engine) dirtyAll() {
	if !e.held {
		return
	}
	e.held = false
	for _, s := range e.sessionList {
		e.dirtySession(s)
	}
}

// doneSet remembers the last wants that ended and whose they were, to tell blocks that come late from blocks that nobody asked for.
type doneSet struct {
	has  map[cid.Cid]SessionID
	ring []cid.Cid
	next int
}

func (d *doneSet) contains(c cid.Cid) bool {
	_, ok := d.has[c]
	return ok
}

func (d *doneSet) add(c cid.Cid, s SessionID) {
	if d.contains(c) {
		d.has[c] = s
		return
	}
	if len(d.ring) < doneRing {
		d.ring = append(d.ring, c)
	} else {
		delete(d.has, d.ring[d.next])
		d.ring[d.next] = c
		d.next = (d.next + 1) % doneRing
	}
	d.has[c] = s
}
