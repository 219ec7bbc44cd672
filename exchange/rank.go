package exchange

import "time"

// Class is the coarse urgency of a want. A higher class goes first, whatever the deadlines below it.
type Class int8

// The classes, least urgent first. The zero Class is Normal.
const (
	Prefetch Class = iota - 1
	Normal
	High
	Urgent
	Critical
)

// Deadlines closer than these raise a want to at least that class (inventory row A29).
const (
	highSlack   = 5 * time.Second
	urgentSlack = time.Second
)

// rank is the effective priority of a want: smaller goes first. The fields are compared in order.
type rank struct {
	class Class // higher first
	slack int64 // deadline, earlier first; maxSlack when there is none
	rare  int32 // known holders, fewer first; 0 unless the session fetches rarest first
	order uint64
	seq   uint64 // age: older first
}

const maxSlack = int64(^uint64(0) >> 1)

func (r rank) before(o rank) bool {
	switch {
	case r.class != o.class:
		return r.class > o.class
	case r.slack != o.slack:
		return r.slack < o.slack
	case r.rare != o.rare:
		return r.rare < o.rare
	case r.order != o.order:
		return r.order < o.order
	}
	return r.seq < o.seq
}

// boosted returns the class that a want of class c with this deadline has now. A deadline that is near, or past, raises
// the class; none (0) leaves it.
func boosted(c Class, deadline, now time.Duration) Class {
	if deadline == 0 {
		return c
	}
	switch left := deadline - now; {
	case left <= 0:
		return max(c, Critical)
	case left <= urgentSlack:
		return max(c, Urgent)
	case left <= highSlack:
		return max(c, High)
	}
	return c
}

// nextBoost returns when the class of a want with this deadline next changes, or a time far away.
func nextBoost(deadline, now time.Duration) time.Duration {
	for _, slack := range [...]time.Duration{highSlack, urgentSlack, 0} {
		if t := deadline - slack; t > now {
			return t
		}
	}
	return now + time.Hour
}

// wirePriority is the int32 that stands for a want's place among those of one peer: higher first, as Bitswap has it. It
// counts down from the top of each class's range, so that wants asked earlier come earlier within a class.
func wirePriority(c Class, n uint32) int32 {
	const span = 1 << 28
	return int32(int64(c+2)*span - int64(n%span))
}

// wantHeap is a binary heap of wants by rank, each knowing its place, so that removal and a change of rank cost O(log n).
type wantHeap []*want

func (h wantHeap) top() *want {
	if len(h) == 0 {
		return nil
	}
	return h[0]
}

func (h *wantHeap) push(w *want) {
	*h = append(*h, w)
	w.heap = len(*h) - 1
	h.up(w.heap)
}

func (h *wantHeap) remove(w *want) {
	i, n := w.heap, len(*h)-1
	if i != n {
		(*h)[i] = (*h)[n]
		(*h)[i].heap = i
	}
	(*h)[n] = nil
	*h = (*h)[:n]
	if i != n {
		h.fix(i)
	}
	w.heap = -1
}

func (h wantHeap) fix(i int) {
	if !h.up(i) {
		h.down(i)
	}
}

func (h wantHeap) up(i int) bool {
	moved := false
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].rank.before(h[parent].rank) {
			break
		}
		h.swap(i, parent)
		i, moved = parent, true
	}
	return moved
}

func (h wantHeap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].rank.before(h[c].rank) {
			c++
		}
		if !h[c].rank.before(h[i].rank) {
			return
		}
		h.swap(i, c)
		i = c
	}
}

func (h wantHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heap, h[j].heap = i, j
}
