package exchange

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// SessionID names a session of one engine. It is never 0 and never reused.
type SessionID uint64

// Order is how a session chooses among wants of the same class and deadline.
type Order uint8

const (
	// InOrder asks in the order given by [WantOptions.Order]: for a reader.
	InOrder Order = iota
	// Rarest asks first for what the fewest peers are known to hold, at random among equals: for many hosts that fetch
	// the same thing, so that they have something to give each other.
	Rarest
)

// SessionConfig describes a session. The zero value is a Normal, in-order session without a deadline.
type SessionConfig struct {
	// Order is how wants are chosen.
	Order Order
	// Class is the class of wants that do not name one.
	Class Class
	// Peers are expected to have the content: they are asked for blocks at once, without asking first whether they have
	// them. Other connected peers are asked whether they have the first few.
	Peers []dray.PeerID
	// Only says that no peers but Peers may be asked.
	Only bool
	// MaxWaiting bounds how many wants may wait for peers at a time. If zero, only the peers' windows bound it.
	MaxWaiting int
	// Root is the file, directory or other graph that the session fetches, if it is one. Peers who speak TensorSwap are
	// asked what they have of it; see [Engine.SetManifest].
	Root cid.Cid
	// Walk asks one peer who speaks TensorSwap for the nodes above the leaves at once.
	Walk WalkOptions
	// Deadline ends the session with SessionTimedOut at that time, on the driver's clock. If zero, never.
	Deadline time.Duration
	// Bystander says that who may have what comes does not depend on this session's asking for it: a block that others get
	// for a guarded root is guarded all the same.
	Bystander bool
}

// SessionState is where a session is in its life: Created → Active ⇄ Paused → Completed; Cancelled or TimedOut from any
// but the last two. The terminal states are announced exactly once, in [Ready.Sessions].
type SessionState uint8

// The states.
const (
	SessionCreated SessionState = iota
	SessionActive
	SessionPaused
	SessionCompleted
	SessionCancelled
	SessionTimedOut
)

var sessionEdges = [...]uint8{
	SessionCreated:   1<<SessionActive | 1<<SessionPaused | 1<<SessionCompleted | 1<<SessionCancelled | 1<<SessionTimedOut,
	SessionActive:    1<<SessionPaused | 1<<SessionCompleted | 1<<SessionCancelled | 1<<SessionTimedOut,
	SessionPaused:    1<<SessionActive | 1<<SessionCompleted | 1<<SessionCancelled | 1<<SessionTimedOut,
	SessionCompleted: 0,
	SessionCancelled: 0,
	SessionTimedOut:  0,
}

const (
	assumedSize  = 32 << 10 // a block whose size nobody knows
	probeLimit   = 64       // wants about which a peer of unknown use is asked
	probeFew     = 4        // the same while other peers are known to be useful
	followLimit  = 256      // wants about which a peer that holds part is asked at a time
	probeMax     = 64       // peers of unknown use that a session asks
	missesToPart = 2        // misses in a row after which a peer is asked first whether it has a block
	havesToHold  = 16       // haves in a row after which it is not
	findFirst    = time.Second
	findMax      = time.Minute
	forgiveAfter = 5 * time.Second // age at which a refusal is tried again, doubled each time
)

// session is a set of wants with one purpose. Owned by the engine.
type session struct {
	id    SessionID
	cfg   SessionConfig
	state SessionState
	seal  bool // no more wants will come

	pending wantHeap // wants that any useful peer may be asked for
	avail   spHeap   // peers that are asked for blocks without asking first, and have room
	peers   []*sessionPeer
	log     wantLog // every want, in the order of arrival, for peers that are asked about them one by one

	man      *manifest // of cfg.Root, once it is known
	demand   leafSet   // leaves that are missed and no wants yet
	demanded int       // how many
	low      int       // the first word of demand that may not be 0
	parts    spHeap    // peers that have some leaves, by what they told, and have room
	walk     walk

	wants   int    // wants of this session in the table
	waiting int    // of which home wants are Waiting
	unknown int    // peers of unknown use that were asked
	told    uint64 // place in log: what comes before is leaves of man, which peers tell of by themselves
	holders int    // peers that are asked for blocks at once
	hedged  int64  // bytes asked for twice on purpose that count against the share

	dirty     bool
	look      int   // where takeOver looked last among peers
	asked     int64 // bytes asked for under limits, for fairness; see inTurn
	passed    bool  // by inTurn
	offered   bool  // a peer may have room for one of its candidates
	timer     timer
	findAfter time.Duration // delay before the next search for peers
	findAt    time.Duration // when the next search may be
	foundAt   time.Duration // when somebody last turned out to have something
	since     time.Duration // when it was opened
	pausedAt  time.Duration
	stats     SessionStats
	sizes     int64 // sum of sizes of blocks received, for guess
	sized     int64
}

// SessionStats counts what a session has done.
type SessionStats struct {
	// Blocks and Bytes were delivered.
	Blocks, Bytes int64
	// Takeovers counts wants that were taken from one peer and given to another.
	Takeovers int64
	// Hedges counts those of them that the first peer may have been sending, so that they may come twice, and HedgedBytes
	// are theirs.
	Hedges, HedgedBytes int64
	// Again counts wants that a peer was told once more because it had passed them over.
	Again int64
}

// use says what a session thinks of a peer.
type use uint8

const (
	useUnknown use = iota // asked whether it has the first few wants
	useHolder             // asked for blocks at once
	usePart               // asked whether it has each want, and for blocks that it has
	useFeed               // asked for leaves that it said it has
)

// sessionPeer is a session's view of a peer.
type sessionPeer struct {
	s      *session
	p      *peer
	use    use
	hinted bool
	gone   bool
	heap   int  // index in s.avail or s.parts, or -1
	mute   bool // it is expected to have everything, and to say so soon
	dry    bool // by what it told, it has nothing that is demanded
	full   bool // it was asked for all that nobody else has
	denied bool // it does not accept the proof that it was shown
	misses int  // DONT_HAVEs in a row
	broken int  // DONT_HAVEs for leaves that it had said it has, since it delivered last
	haves  int  // HAVEs and blocks in a row
	cursor uint64
	asks   int
	cand   candHeap // wants that the peer is known or thought to have, and that are nobody's yet
	blocks int64
	bytes  int64
}

func (s *session) ended() bool { return s.state >= SessionCompleted }

func (s *session) active() bool { return s.state <= SessionActive }

func (s *session) to(t SessionState) bool {
	if sessionEdges[s.state]&(1<<t) == 0 {
		return false
	}
	s.state = t
	return true
}

func (s *session) guess() int64 {
	if s.sized == 0 {
		return assumedSize
	}
	return max(s.sizes/s.sized, 256)
}

func (s *session) peer(p *peer) *sessionPeer {
	for _, sp := range p.sps {
		if sp.s == s {
			return sp
		}
	}
	return nil
}

// OpenSession starts a session and returns its id.
func (e *Engine) OpenSession(now time.Duration, cfg SessionConfig) SessionID {
	e.now = now
	e.lastSession++
	s := &session{id: e.lastSession, cfg: cfg, findAfter: findFirst, since: now}
	s.timer = timer{heap: -1, sess: s}
	s.log.s = s
	e.sessions[s.id] = s
	e.sessionList = append(e.sessionList, s)
	e.idle(false)
	for _, id := range cfg.Peers {
		if p := e.remember(id); p.up {
			e.join(s, p)
		} else {
			e.reach(p)
		}
	}
	for _, p := range e.upPeers {
		e.join(s, p)
		if len(e.sessionList) == 1 && p.caps.Indexes {
			e.dirtyPeer(p) // it hears that something is wanted here
		}
	}
	if cfg.Deadline != 0 {
		e.timers.setEarlier(&s.timer, cfg.Deadline)
	}
	return s.id
}

// AddPeer says that a peer is expected to have the content of session s: it is asked for blocks at once, now or when it
// connects.
func (e *Engine) AddPeer(now time.Duration, id SessionID, peer dray.PeerID) {
	e.now = now
	s := e.sessions[id]
	if s == nil || s.ended() {
		return
	}
	if !s.hints(peer) {
		s.cfg.Peers = append(s.cfg.Peers, peer)
	}
	if p := e.remember(peer); !p.up {
		e.reach(p)
	} else {
		if sp := s.peer(p); sp != nil {
			sp.hinted = true
			if sp.use != useFeed {
				e.setUse(sp, useHolder)
			}
			e.beginWalk(s, p)
		} else {
			e.join(s, p)
		}
	}
}

func (s *session) hints(id dray.PeerID) bool {
	for _, h := range s.cfg.Peers {
		if h == id {
			return true
		}
	}
	return false
}

// Seal says that no more wants will come: the session completes when those it has are delivered.
func (e *Engine) Seal(now time.Duration, id SessionID) {
	e.now = now
	if s := e.sessions[id]; s != nil {
		s.seal = true
		e.maybeComplete(s)
	}
}

// Pause stops session s from asking for anything new. What was asked for still arrives. It reports whether the session
// was active.
func (e *Engine) Pause(now time.Duration, id SessionID) bool {
	e.now = now
	s := e.sessions[id]
	if s == nil || !s.to(SessionPaused) {
		return false
	}
	s.pausedAt = now
	s.log.each(func(w *want) {
		if w.state == Pending && w.home == s {
			e.rehome(w)
		}
	})
	return true
}

// Resume undoes [Engine.Pause]. It reports whether the session was paused.
func (e *Engine) Resume(now time.Duration, id SessionID) bool {
	e.now = now
	s := e.sessions[id]
	if s == nil || s.state != SessionPaused || !s.to(SessionActive) {
		return false
	}
	e.dirtySession(s)
	return true
}

// CancelSession withdraws every want of the session and ends it. Nothing is delivered to it after this call, apart from
// the terminal event.
func (e *Engine) CancelSession(now time.Duration, id SessionID) {
	e.now = now
	if s := e.sessions[id]; s != nil {
		e.ready.Delivers = slices.DeleteFunc(e.ready.Delivers, func(d Deliver) bool { return d.Session == id })
		e.endSession(s, SessionCancelled)
	}
}

// Stats returns what the session has done so far, and whether it exists.
func (e *Engine) Stats(id SessionID) (SessionStats, bool) {
	if s := e.sessions[id]; s != nil {
		return s.stats, true
	}
	return SessionStats{}, false
}

func (e *Engine) endSession(s *session, state SessionState) {
	if !s.to(state) {
		return
	}
	e.abandonWalk(s)
	s.log.each(func(w *want) {
		if a := w.asker(s); a != nil {
			e.leave(w, s)
		}
	})
	for len(s.peers) > 0 {
		e.part(s.peers[len(s.peers)-1])
	}
	e.timers.stop(&s.timer)
	delete(e.sessions, s.id)
	e.leaveManifest(s)
	for i, t := range e.sessionList {
		if t == s {
			e.sessionList = append(e.sessionList[:i], e.sessionList[i+1:]...)
			break
		}
	}
	e.dropEarly(s)
	if s.cfg.Root.Defined() {
		e.unsubscribe(s.cfg.Root)
	}
	if len(e.sessionList) == 0 {
		e.idle(true)
		for _, p := range e.upPeers {
			if p.caps.Indexes {
				e.dirtyPeer(p)
			}
		}
	}
	ev := SessionEvent{Session: s.id, State: state, Stats: s.stats}
	if s.man != nil {
		ev.man = s.man.m
	}
	e.ready.Sessions = append(e.ready.Sessions, ev)
}

func (e *Engine) maybeComplete(s *session) {
	if s.seal && s.wants == 0 && s.demanded == 0 {
		e.endSession(s, SessionCompleted)
	}
}

// join makes peer p one that session s may ask. It does nothing when p is in it already or may not be.
func (e *Engine) join(s *session, p *peer) {
	hinted := s.hints(p.id)
	if s.peer(p) != nil || (s.cfg.Only && !hinted) {
		return
	}
	if !hinted && s.unknown >= probeMax {
		return
	}
	sp := &sessionPeer{s: s, p: p, hinted: hinted, heap: -1}
	s.peers = append(s.peers, sp)
	p.sps = append(p.sps, sp)
	s.count(useUnknown, +1)
	if hinted || !p.caps.Haves {
		e.setUse(sp, useHolder)
	}
	if p.caps.Indexes {
		e.rooted(sp)
	}
	e.dirtySession(s)
}

// rooted asks a peer who speaks TensorSwap about the session's root.
func (e *Engine) rooted(sp *sessionPeer) {
	s, p := sp.s, sp.p
	if !s.cfg.Root.Defined() {
		return
	}
	e.subscribe(p, s.cfg.Root)
	if f := p.feeds[s.cfg.Root]; s.man != nil && f.m == s.man {
		e.refeed(sp, f)
	}
	if sp.hinted || len(s.cfg.Peers) == 0 {
		e.beginWalk(s, p)
	}
}

// part undoes join. The asks that sp made are dropped by the caller, or handed to another session's view of the peer.
func (e *Engine) part(sp *sessionPeer) {
	sp.gone = true
	if sp.heap >= 0 {
		sp.room().remove(sp)
	}
	sp.s.count(sp.use, -1)
	for i, o := range sp.s.peers {
		if o == sp {
			sp.s.peers = append(sp.s.peers[:i], sp.s.peers[i+1:]...)
			break
		}
	}
	for i, o := range sp.p.sps {
		if o == sp {
			sp.p.sps = append(sp.p.sps[:i], sp.p.sps[i+1:]...)
			break
		}
	}
}

// count adds n to the number of peers of use u.
func (s *session) count(u use, n int) {
	switch u {
	case useUnknown:
		s.unknown += n
	case useHolder:
		s.holders += n
	}
}

// setUse changes what session thinks of the peer.
func (e *Engine) setUse(sp *sessionPeer, u use) {
	if sp.use == u {
		return
	}
	if sp.heap >= 0 {
		sp.room().remove(sp)
	}
	old := sp.use
	sp.s.count(old, -1)
	sp.s.count(u, +1)
	sp.use = u
	sp.misses, sp.haves = 0, 0
	if u == useHolder {
		e.offerContested(sp)
	} else {
		sp.cursor = 0
	}
	if old == useHolder && u == useFeed {
		e.offerTold(sp)
	}
	e.roomChanged(sp.p)
	e.dirtySession(sp.s)
}

// room is the heap of the session's that the peer is in while it has room.
func (sp *sessionPeer) room() *spHeap {
	if sp.use == useFeed {
		return &sp.s.parts
	}
	return &sp.s.avail
}

// undemand takes a leaf out of what the session misses, and reports whether it was in.
func (s *session) undemand(c cid.Cid) bool {
	if s.man == nil {
		return false
	}
	i, ok := s.man.m.Find(c)
	if !ok || !s.demand.remove(i) {
		return false
	}
	s.demanded--
	return true
}

// leaveManifest takes a session that has ended out of its manifest's.
func (e *Engine) leaveManifest(s *session) {
	if s.man == nil {
		return
	}
	mf := s.man
	if i := slices.Index(mf.sessions, s); i >= 0 {
		mf.sessions = slices.Delete(mf.sessions, i, i+1)
	}
	e.dropManifest(mf)
}

// SessionEvent is a session's end.
type SessionEvent struct {
	// Session is which.
	Session SessionID
	// State is SessionCompleted, SessionCancelled or SessionTimedOut.
	State SessionState
	// Stats are final.
	Stats SessionStats

	man *dray.Manifest // that the session used
}

// touchSession starts the session's life and its search for peers, when needed.
func (e *Engine) touchSession(s *session) {
	if s.state == SessionCreated {
		s.to(SessionActive)
	}
	if s.timer.heap < 0 || s.cfg.Deadline != 0 && s.timer.at == s.cfg.Deadline {
		if len(s.peers) == 0 {
			e.search(s)
		} else {
			e.timers.setEarlier(&s.timer, e.now+s.findAfter)
		}
	}
}

// search asks the driver to find peers for something that the session misses.
func (e *Engine) search(s *session) {
	if c, ok := s.missing(); ok && !s.cfg.Only {
		e.ready.Finds = append(e.ready.Finds, Find{Session: s.id, CID: c, Root: s.cfg.Root})
	}
	s.findAt = e.now + s.findAfter
	e.timers.setEarlier(&s.timer, s.findAt)
	s.findAfter = min(2*s.findAfter, findMax)
}

// missing returns a CID that the session still misses and nobody is expected to deliver.
func (s *session) missing() (c cid.Cid, ok bool) {
	if w := s.pending.top(); w != nil {
		return w.cid, true
	}
	if s.demanded > 0 {
		return s.man.m.Leaf(s.demand.next(0)), true
	}
	s.log.each(func(w *want) {
		if !ok && w.state == Pending {
			c, ok = w.cid, true
		}
	})
	return c, ok
}

// sessionDue handles the session's timer.
func (e *Engine) sessionDue(s *session) {
	if s.cfg.Deadline != 0 {
		if e.now >= s.cfg.Deadline {
			e.endSession(s, SessionTimedOut)
			return
		}
		e.timers.setEarlier(&s.timer, s.cfg.Deadline)
	}
	e.walkDue(s)
	for _, sp := range s.peers {
		if sp.mute && !sp.mayTell(e.now) {
			sp.mute = false
			e.roomChanged(sp.p)
		}
	}
	if s.wants == 0 && s.demanded == 0 {
		s.findAfter = findFirst
		return
	}
	if s.active() {
		e.forgive(s)
		if s.waiting == 0 && e.now >= s.findAt {
			e.search(s)
		}
	}
	e.timers.setEarlier(&s.timer, e.now+min(s.findAfter, forgiveAfter))
	// Deadlines come nearer without anybody calling.
	s.log.each(func(w *want) {
		if w.rank.slack != maxSlack {
			e.rerank(w)
			e.timers.setEarlier(&s.timer, nextBoost(time.Duration(w.rank.slack), e.now))
		}
	})
	e.dirtySession(s)
}
