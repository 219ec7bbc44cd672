package sim

import (
	"time"
)

// No admitted want starves: from time to time every want of every getter is looked at. While nothing goes wrong that is planned to
// end, and the getter is connected to the anchor, a want is answered within a bound that follows from the sizes and the lines.

const (
	starveLook  = 5 * time.Second // how often it is looked
	starveLeast = 4 * time.Minute // for what is lost several times, each time until the engine notices; back-offs, searches
	starveTimes = 10              // times that the bytes of all fetches take on the slowest line between
)

// watchWants begins to look.
func (r *soup) watchWants() {
	bound := r.starvesAfter()
	for _, g := range r.getters {
		r.watchGetter(g, bound)
	}
}

// starvesAfter is the longest that a want may wait.
func (r *soup) starvesAfter() time.Duration {
	slowest := r.anchor.cfg.Up
	sessions := 0
	bounds := func(rates ...float64) {
		for _, x := range rates {
			if x > 0 {
				slowest = min(slowest, x)
			}
		}
	}
	limits := r.anchor.cfg.Engine.Limits
	bounds(r.anchor.cfg.Disk.Rate, float64(limits.Up), float64(limits.PeerUp))
	for _, g := range r.getters {
		limits := g.h.cfg.Engine.Limits
		bounds(g.h.cfg.Down, g.h.cfg.Disk.Rate, float64(limits.Down), float64(limits.PeerDown))
		sessions += 2
	}
	return starveLeast + starveTimes*time.Duration(sessions)*took(r.size(), slowest)
}

func (r *soup) watchGetter(g *getter, bound time.Duration) {
	w := r.w
	if !r.calm(g) {
		g.calm = w.now
	} else {
		for _, f := range g.h.fetches {
			if b, waited := f.oldest(g.calm); waited > bound {
				w.fail("%s has waited %v for %s, which %s has: %s", g.h.name, waited, w.content.names[b], r.anchor.name, g.h.waits())
				return
			}
		}
	}
	w.After(starveLook, func() { r.watchGetter(g, bound) })
}

// calm reports whether nothing stands between a getter and the anchor at the moment but what the engine has to cope with at once.
func (r *soup) calm(g *getter) bool {
	l := g.h.conns[r.anchor.id]
	if !g.h.alive || l == nil || !l.open || !l.back.open {
		return false
	}
	for i := range r.plan.Events {
		e := &r.plan.Events[i]
		if e.For > 0 && r.w.now >= e.At && r.w.now <= e.At+e.For+e.Every {
			return false
		}
	}
	return true
}

// oldest returns the want that has waited longest since, and for how long.
func (f *Fetch) oldest(since time.Duration) (b Ref, waited time.Duration) {
	b = noRef
	if f.Done() || f.dead {
		return noRef, 0
	}
	for _, r := range f.cfg.Blocks {
		if f.open.of(r) == 0 {
			continue
		}
		from, ok := f.since[r]
		if !ok {
			from = f.asked
		}
		if d := f.h.w.now - max(from, since); b == noRef || d > waited {
			b, waited = r, d
		}
	}
	return b, waited
}
