package exchange

import "time"

// timer is one thing that is due at a time. Peers and sessions each embed one; a timer that is not set is not in the heap.
type timer struct {
	at   time.Duration
	heap int // index in timers, or -1
	seq  uint64
	peer *peer
	sess *session
}

// timers is a binary heap of the timers that are set, earliest first, ties in the order in which they were set.
type timers struct {
	heap []*timer
	seq  uint64
}

func (t *timers) before(i, j int) bool {
	a, b := t.heap[i], t.heap[j]
	if a.at != b.at {
		return a.at < b.at
	}
	return a.seq < b.seq
}

func (t *timers) swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.heap[i].heap, t.heap[j].heap = i, j
}

func (t *timers) up(i int) {
	for i > 0 && t.before(i, (i-1)/2) {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (t *timers) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(t.heap) {
			return
		}
		if c+1 < len(t.heap) && t.before(c+1, c) {
			c++
		}
		if !t.before(c, i) {
			return
		}
		t.swap(i, c)
		i = c
	}
}

// set makes x due at the given time, moving it if it was set already.
func (t *timers) set(x *timer, at time.Duration) {
	if x.heap >= 0 {
		if x.at == at {
			return
		}
		x.at = at
		t.up(x.heap)
		t.down(x.heap)
		return
	}
	t.seq++
	x.at, x.seq = at, t.seq
	t.heap = append(t.heap, x)
	x.heap = len(t.heap) - 1
	t.up(x.heap)
}

// setEarlier makes x due at the given time unless it is due sooner.
func (t *timers) setEarlier(x *timer, at time.Duration) {
	if x.heap < 0 || at < x.at {
		t.set(x, at)
	}
}

// stop unsets x.
func (t *timers) stop(x *timer) {
	if x.heap < 0 {
		return
	}
	i, n := x.heap, len(t.heap)-1
	if i != n {
		t.swap(i, n)
	}
	t.heap[n] = nil
	t.heap = t.heap[:n]
	x.heap = -1
	if i < n {
		t.up(i)
		t.down(i)
	}
}

// next returns the earliest time at which something is due, and whether there is any.
func (t *timers) next() (time.Duration, bool) {
	if len(t.heap) == 0 {
		return 0, false
	}
	return t.heap[0].at, true
}

// pop unsets and returns the earliest timer that is due at now, or nil.
func (t *timers) pop(now time.Duration) *timer {
	if len(t.heap) == 0 || t.heap[0].at > now {
		return nil
	}
	x := t.heap[0]
	t.stop(x)
	return x
}
