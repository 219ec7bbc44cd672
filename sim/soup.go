package sim

import (
	"fmt"
	"time"
)

// soup is one Schedule being played.
type soup struct {
	w       *World
	plan    *Schedule
	file    []Ref
	root    *Root // above the file, some of whose blocks come several times
	hosts   map[int]*Host
	anchor  *Host
	getters []*getter
	opened  map[int]*Fetch // by the numbers that events gave them
	ends    time.Duration  // when the last event is over
}

// getter is a host that must end up with what it wants.
type getter struct {
	h     *Host
	cfg   FetchConfig
	need  refs // blocks that it must have in the end
	until time.Duration
	calm  time.Duration // since when nothing disturbs it
}

// Soup runs the random scenario of a seed: invariant 13 says that it ends well. Config's Seed is replaced; TurnDelay, Codec
// and Virtual are drawn.
func Soup(seed uint64, cfg Config) (Result, error) { return Plan(seed).Run(cfg) }

// patience is how long a scenario may take beyond the last of its events.
const patience = 15 * time.Minute

// Run plays a Schedule: every getter must end up with what it wants, if there is an anchor, and no invariant may break. Of
// cfg, Seed, Codec, TurnDelay and Virtual are replaced. The first thing that is wrong is returned as an error.
func (s *Schedule) Run(cfg Config) (Result, error) {
	r := s.set(cfg)
	w := r.w
	limit := s.Limit
	if limit == 0 {
		limit = patience + r.ends
	}
	w.Run(limit, r.done)
	var fetches []*Fetch
	for _, g := range r.getters {
		fetches = append(fetches, g.h.fetches...)
	}
	var seeds []*Host
	if r.anchor != nil {
		seeds = append(seeds, r.anchor)
	}
	res := w.measure(r.size(), seeds, fetches)
	if w.err != nil {
		return res, w.err
	}
	for _, g := range r.getters {
		if x := g.lacks(); x != noRef && r.anchor != nil {
			return res, fmt.Errorf("at %v %s lacks %s though %s has it and is connected: %s",
				w.now, g.h.name, w.content.names[x], r.anchor.name, g.h.waits())
		}
	}
	w.Run(r.ends, nil)
	if err := w.Settle(settleFor); err != nil {
		return res, err
	}
	res.Trace = w.Trace()
	return res, nil
}

// set makes the World of a Schedule, at time zero, with everything planned.
func (s *Schedule) set(cfg Config) *soup {
	cfg.Seed, cfg.Virtual, cfg.Codec, cfg.TurnDelay = s.Seed, s.Virtual, s.Codec, s.Turn
	w := NewWorld(cfg)
	w.alone = s.Alone
	r := &soup{w: w, plan: s, hosts: make(map[int]*Host), opened: make(map[int]*Fetch)}
	for _, size := range s.File {
		r.file = append(r.file, w.File(1, size)...)
	}
	r.file = append(r.file, w.File(s.Count, s.Size)...)
	leaves := r.file
	if len(s.Leaves) > 0 {
		leaves = r.blocks(s.Leaves)
	}
	r.root = w.Root(leaves, max(s.Bones, 1))
	for i := range s.Hosts {
		r.add(&s.Hosts[i])
	}
	for i := range s.Hosts {
		if p := &s.Hosts[i]; p.Role == Getter {
			r.getters = append(r.getters, r.getter(p))
		}
	}
	for _, l := range s.Links {
		w.Connect(r.hosts[l.A], r.hosts[l.B])
	}
	for _, g := range r.getters {
		w.After(s.host(g.h.number).Start, func() { g.h.wake(func() { g.h.Fetch(g.cfg) }) })
	}
	for i := range s.Events {
		r.planEvent(&s.Events[i])
	}
	if r.anchor != nil {
		r.watchWants()
	}
	return r
}

func (r *soup) blocks(numbers []int) []Ref {
	out := make([]Ref, len(numbers))
	for i, n := range numbers {
		out[i] = r.file[n]
	}
	return out
}

func (r *soup) add(p *HostPlan) {
	c := p.Config
	c.Number, c.Numbered = p.ID, true
	h := r.w.Add(c)
	r.hosts[p.ID] = h
	knows := p.Knows
	if p.Role == Anchor {
		r.anchor, knows = h, len(r.root.bones)
	}
	if p.All || p.Role == Anchor {
		h.Give(r.file...)
	}
	h.Give(r.blocks(p.Has)...)
	h.Give(r.root.bones[:knows]...)
}

func (r *soup) getter(p *HostPlan) *getter {
	g := &getter{h: r.hosts[p.ID], cfg: r.config(p.Fetch)}
	lists := [][]Ref{g.cfg.Blocks}
	if g.cfg.Root != nil {
		lists = [][]Ref{r.root.bones, r.root.leaves}
	}
	for _, list := range lists {
		for _, x := range list {
			g.need.add(x)
		}
	}
	return g
}

// size is what the getters' file comes to.
func (r *soup) size() (n int64) {
	for _, b := range r.file {
		n += int64(r.w.Block(b).Size())
	}
	return n
}

// done reports whether every getter has what it needs and all sessions have ended.
func (r *soup) done() bool {
	for _, g := range r.getters {
		if r.w.now < g.until || !g.h.alive || len(g.h.fetches) == 0 {
			return false
		}
		for _, f := range g.h.fetches {
			if !f.Done() {
				return false
			}
		}
		if g.lacks() != noRef {
			return false
		}
	}
	return true
}

// lacks returns a block that the getter needs and has not, or noRef.
func (g *getter) lacks() Ref {
	for i, b := range g.need.bits {
		var has uint64
		if i < len(g.h.has.bits) {
			has = g.h.has.bits[i]
		}
		if b&^has != 0 {
			left := refs{bits: make([]uint64, i+1)}
			left.bits[i] = b &^ has
			return left.first()
		}
	}
	return noRef
}

// planEvent plans one event and what undoes it.
func (r *soup) planEvent(e *Event) {
	w, h := r.w, r.hosts[e.Host]
	r.ends = max(r.ends, e.At+e.For)
	// The engine of a host that is suspended hears of what is done to it when it goes on.
	at := func(d time.Duration, do func()) { w.After(d, func() { h.wake(do) }) }
	switch e.Do {
	case DoConnect:
		w.After(e.At, func() { w.Connect(h, r.hosts[e.Peer]) })
	case DoCut:
		w.After(e.At, func() { w.Cut(h, r.hosts[e.Peer]) })
		if e.For > 0 {
			w.After(e.At+e.For, func() { w.rejoin(h, r.hosts[e.Peer]) })
		}
	case DoCrash:
		r.planCrash(e, h)
	case DoFetch:
		at(e.At, func() { r.opened[e.N] = h.Fetch(r.config(e.Fetch)) })
	case DoAbandon:
		at(e.At, func() { r.with(e, (*Fetch).Abandon) })
	case DoCancel:
		at(e.At, func() {
			r.with(e, func(f *Fetch) {
				for _, b := range r.blocks(e.Blocks) {
					f.Cancel(b)
				}
			})
		})
	case DoPause:
		at(e.At, func() { h.eachFetch(h.Pause) })
		if e.For > 0 {
			at(e.At+e.For, func() { h.eachFetch(h.Resume) })
		}
	case DoGive:
		at(e.At, func() {
			for _, b := range r.blocks(e.Blocks) {
				if !h.storing[b] {
					h.Give(b)
				}
			}
		})
	case DoLearn:
		at(e.At, func() {
			for i := range r.root.bones {
				h.Give(r.root.bones[len(r.root.bones)-1-i]) // the root is what is added last
			}
		})
	case DoLose:
		at(e.At, func() { h.Lose(r.blocks(e.Blocks)...) })
	case DoCount:
		at(e.At, func() {
			h.e.CountCopies(r.root.man.Root())
			h.kick()
		})
	default:
		r.planOutage(e, h)
	}
}

// with does something with the fetch that an event names, if it is one of the host's present life.
func (r *soup) with(e *Event, do func(*Fetch)) {
	if f := r.opened[e.N]; f != nil && f.h.byID[f.id] == f {
		do(f)
	}
}

// planCrash plans the end of a host's life and, after a while, the beginning of the next.
func (r *soup) planCrash(e *Event, h *Host) {
	w := r.w
	var mine *getter
	for _, g := range r.getters {
		if g.h == h {
			mine = g
			mine.until = max(mine.until, e.At+e.For)
		}
	}
	w.After(e.At, func() {
		h.Crash()
		if e.P > 0 {
			h.losePower(e.P)
		}
	})
	if e.For == 0 && mine == nil {
		return
	}
	w.After(e.At+e.For, func() {
		if h.alive {
			return
		}
		h.Start()
		for _, id := range e.Hosts {
			if o := r.hosts[id]; o != nil {
				w.rejoin(h, o)
			}
		}
		if mine != nil && !h.sabotaged(sabotageForgotten) {
			h.Fetch(mine.cfg)
		}
	})
}

// eachFetch does something with every fetch of the host's present life.
func (h *Host) eachFetch(do func(*Fetch)) {
	for _, f := range h.fetches {
		do(f)
	}
}

// Pause and Resume stop and continue one fetch.
func (h *Host) Pause(f *Fetch) {
	h.e.Pause(h.w.now, f.id)
	h.kick()
}

// Resume undoes Pause.
func (h *Host) Resume(f *Fetch) {
	h.e.Resume(h.w.now, f.id)
	h.kick()
}
