package sim

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray/exchange"
)

// FetchConfig describes what a host fetches and how.
type FetchConfig struct {
	// Blocks are what is wanted, in the order of use. What the host has already is not asked for.
	Blocks []Ref
	// Session configures the engine's session.
	Session exchange.SessionConfig
	// Window is how many wants are outstanding at a time. If zero, all.
	Window int
	// Sized says that the blocks' sizes are known beforehand, as they are from a manifest.
	Sized bool
	// Retry is how long after the store refused to write a block it is wanted again; each time twice as long. If zero, 100 ms.
	Retry time.Duration
	// GiveUp ends the fetch when a block cannot be written, and begins it again after Retry, which doubles each time.
	GiveUp bool
	// Deadlines gives wants random deadlines and classes.
	Deadlines bool
	// Root, if not nil, is what is fetched: the fetch begins with the skeleton, and Blocks, Window and the rest are not used.
	Root *Root
	// NoWalk fetches the skeleton of a root block by block. Otherwise there is a walk: the session's or, if that is zero, one
	// of 1 MiB that lets 8 MiB be pushed.
	NoWalk bool
}

// Fetch is the application: one session, its wants, and the answers. Every want gets exactly one answer while the session lives
// and none after it was cancelled; anything else fails the World.
type Fetch struct {
	h      *Host
	cfg    FetchConfig
	id     exchange.SessionID
	next   int
	open   tally                 // wants not answered: references
	since  map[Ref]time.Duration // when each was wanted, but for leaves of Root
	asked  time.Duration         // when those were
	dead   bool                  // cancelled by the application: nothing may arrive
	rooted bool                  // the skeleton is here
	failed map[Ref]bool          // could not be written, and will be wanted again

	// Started, Ended and State say when the session began and ended, and how. Worst is the longest that a want waited.
	Started, Ended, Worst time.Duration
	// State is how the session ended; SessionActive before.
	State exchange.SessionState
	// Delivered counts answers with a block, Local those that were in the store already, and Failed those with an error.
	Delivered, Local, Failed int
}

// Fetch starts a session on a living host.
func (h *Host) Fetch(cfg FetchConfig) *Fetch {
	if cfg.Retry == 0 {
		cfg.Retry = 100 * time.Millisecond
	}
	w := h.w
	f := &Fetch{
		h: h, cfg: cfg, Started: w.now, State: exchange.SessionActive,
		since: make(map[Ref]time.Duration), failed: make(map[Ref]bool),
	}
	if r := cfg.Root; r != nil {
		f.cfg.Blocks = append(append([]Ref(nil), r.bones...), r.leaves...)
		f.cfg.Session.Root = r.man.Root()
		switch {
		case cfg.NoWalk:
			f.cfg.Session.Walk = exchange.WalkOptions{}
		case cfg.Session.Walk.Bytes == 0:
			f.cfg.Session.Walk = exchange.WalkOptions{Bytes: 1 << 20, Push: 8 << 20}
		}
	}
	h.walked = h.walked || f.cfg.Session.Walk.Bytes > 0
	for _, r := range f.cfg.Blocks {
		h.asked.add(r)
	}
	f.id = h.e.OpenSession(w.now, f.cfg.Session)
	h.fetches = append(h.fetches, f)
	h.byID[f.id] = f
	if cfg.Root == nil {
		f.more()
	} else {
		f.grow()
	}
	h.kick()
	return f
}

// Fetches returns the fetches of the host's present life.
func (h *Host) Fetches() []*Fetch { return h.fetches }

// Done reports whether the session has ended.
func (f *Fetch) Done() bool { return f.State > exchange.SessionPaused }

// Whole reports whether the session completed.
func (f *Fetch) Whole() bool { return f.State == exchange.SessionCompleted }

// more wants as much as the window allows, and seals the session when everything is wanted.
func (f *Fetch) more() {
	for f.next < len(f.cfg.Blocks) && (f.cfg.Window == 0 || f.open.some < f.cfg.Window) {
		f.next++
		f.want(f.next - 1)
	}
	if f.next == len(f.cfg.Blocks) {
		f.next++
		f.h.e.Seal(f.h.w.now, f.id)
	}
}

func (f *Fetch) want(i int) {
	h, r := f.h, f.cfg.Blocks[i]
	if h.has.has(r) && !h.storing[r] {
		f.Local++
		return
	}
	w := h.w
	b := w.content.blocks[r]
	opt := exchange.WantOptions{Order: uint64(i)}
	if f.cfg.Sized {
		opt.Size = int64(b.Size())
	}
	if f.cfg.Deadlines {
		opt.Class = exchange.Class(w.rand.IntN(5) - 1)
		if w.chance(0.5) {
			opt.Deadline = w.now + w.between(0, 20*time.Second)
		}
	}
	if f.open.add(r, 1) == 1 {
		f.since[r] = w.now
		h.wanted.add(r, 1)
	}
	w.trace.note("%v %s wants %s in session %d\n", w.now, h.name, w.content.names[r], f.id)
	h.e.Want(w.now, f.id, b.CID(), opt)
}

// Cancel withdraws one want.
func (f *Fetch) Cancel(r Ref) {
	if f.open.of(r) == 0 || f.Done() || f.dead || f.cfg.Root != nil && !f.rooted {
		return
	}
	if f.open.add(r, -1) == 0 {
		f.close(r)
	}
	f.h.w.trace.note("%v %s cancels %s in session %d\n", f.h.w.now, f.h.name, f.h.w.content.names[r], f.id)
	if f.h.sabotaged(sabotageCancelled) {
		return
	}
	if f.cfg.Root != nil {
		f.h.e.Undemand(f.h.w.now, f.id, slices.Index(f.cfg.Root.leaves, r), 1)
	} else {
		f.h.e.Cancel(f.h.w.now, f.id, f.h.w.content.blocks[r].CID())
		f.more()
	}
	f.h.kick()
}

// Abandon cancels the whole session.
func (f *Fetch) Abandon() {
	if f.Done() || f.dead {
		return
	}
	f.dead = true
	for _, r := range f.cfg.Blocks {
		if f.open.of(r) > 0 {
			f.close(r)
		}
	}
	f.h.w.trace.note("%v %s cancels session %d\n", f.h.w.now, f.h.name, f.id)
	if !f.h.sabotaged(sabotageCancelled) {
		f.h.e.CancelSession(f.h.w.now, f.id)
	}
	f.h.kick()
}

// close notes that the session does not want r any more.
func (f *Fetch) close(r Ref) {
	f.open.add(r, -f.open.of(r))
	since, ok := f.since[r]
	if !ok {
		since = f.asked
	}
	f.Worst = max(f.Worst, f.h.w.now-since)
	delete(f.since, r)
	f.h.wanted.add(r, -1)
}

// deliverAll takes the answers of one turn from the engine, and only then wants more: a want made now is not among those that
// are being answered.
func (h *Host) deliverAll(list []exchange.Deliver) {
	if len(list) == 0 {
		return
	}
	for i := range list {
		if h.sabotaged(sabotageSilence) && h.w.chance(0.2) {
			continue
		}
		h.deliver(&list[i])
		if h.sabotaged(sabotageTwice) {
			h.deliver(&list[i])
		}
	}
	for _, f := range h.fetches {
		switch {
		case f.Done() || f.dead:
		case f.cfg.Root == nil:
			f.more()
		default:
			f.grow()
		}
	}
	h.kick()
}

func (h *Host) deliver(d *exchange.Deliver) {
	w := h.w
	f := h.byID[d.Session]
	r := w.content.ref(d.CID)
	switch {
	case f == nil:
		w.fail("%s: an answer for session %d, which never was", h.name, d.Session)
		return
	case f.dead:
		w.fail("%s: %s arrives after session %d was cancelled", h.name, w.content.name(d.CID), d.Session)
		return
	case f.Done():
		w.fail("%s: %s arrives after session %d ended", h.name, w.content.name(d.CID), d.Session)
		return
	case f.open.of(r) == 0:
		w.fail("%s: session %d is told of %s, which it does not wait for", h.name, d.Session, w.content.name(d.CID))
		return
	}
	f.close(r)
	if d.Err != nil {
		f.Failed++
		if f.cfg.GiveUp {
			f.giveUp()
			return
		}
		f.failed[r] = true
		h.during(f.cfg.Retry, func() { f.again(r) })
		return
	}
	if !h.has.has(r) {
		w.fail("%s: session %d is told of %s before it is written", h.name, d.Session, w.content.name(d.CID))
	}
	if !d.Local {
		if err := w.content.genuine(d.Block); err != nil {
			w.fail("%s: session %d gets wrong bytes: %w", h.name, d.Session, err)
		}
	}
	f.Delivered++
}

// giveUp ends the fetch, and begins it again later.
func (f *Fetch) giveUp() {
	if f.Failed > 1 {
		return // it has
	}
	f.h.during(0, f.Abandon)
	cfg := f.cfg
	cfg.Retry *= 2
	f.h.during(f.cfg.Retry, func() { f.h.Fetch(cfg) })
}

const longestRetry = 5 * time.Second

// again wants a block that could not be written once more, in a session of its own if the first has ended.
func (f *Fetch) again(r Ref) {
	if f.dead {
		return
	}
	if f.cfg.Root != nil && !f.rooted && !f.Done() {
		delete(f.failed, r)
		f.grow() // the session is not sealed yet
		f.h.kick()
		return
	}
	if f.h.has.has(r) {
		return
	}
	if f.cfg.Root != nil && f.h.wanted.of(r) > 0 {
		// Another fetch is at it. It may give up, so look again.
		f.h.during(f.cfg.Retry, func() { f.again(r) })
		return
	}
	cfg := f.cfg
	cfg.Root, cfg.Session.Root, cfg.Session.Walk = nil, cid.Undef, exchange.WalkOptions{}
	cfg.Blocks = []Ref{r}
	cfg.Retry = min(2*cfg.Retry, longestRetry)
	f.h.Fetch(cfg)
}

func (h *Host) sessionEnded(s exchange.SessionEvent) {
	f := h.byID[s.Session]
	switch {
	case f == nil:
		h.w.fail("%s: session %d ends and never was", h.name, s.Session)
		return
	case f.Done():
		h.w.fail("%s: session %d ends twice", h.name, s.Session)
		return
	case s.State == exchange.SessionCompleted && f.open.some > 0 && !f.dead:
		h.w.fail("%s: session %d completes and %d wants have no answer", h.name, s.Session, f.open.some)
	}
	f.State, f.Ended = s.State, h.w.now
	h.total.Takeovers += s.Stats.Takeovers
	for _, r := range f.cfg.Blocks {
		if f.open.of(r) > 0 {
			f.close(r)
		}
	}
}
