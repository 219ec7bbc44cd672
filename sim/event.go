package sim

import "time"

// event is something that happens at a time: do, or the next step of a packet on its way. Events at one time happen in the
// order in which they were planned.
type event struct {
	at   time.Duration
	seq  uint64
	do   func()
	p    *packet
	step step
}

// step is what happens to a packet.
type step uint8

const (
	leaves  step = iota // its last byte has left the sender's line
	enters              // its first byte is at the receiver's line
	arrives             // its last byte is there
)

func (e *event) happen() {
	switch {
	case e.do != nil:
		e.do()
	case e.step == leaves:
		e.p.left()
	case e.step == enters:
		e.p.enter()
	default:
		e.p.arrive()
	}
}

// events is a binary heap, the next event first.
type events []event

func (h events) before(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (h *events) push(e event) {
	*h = append(*h, e)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s.before(i, parent) {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (h *events) pop() event {
	s := *h
	top, n := s[0], len(s)-1
	s[0] = s[n]
	s[n] = event{}
	s = s[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && s.before(c+1, c) {
			c++
		}
		if !s.before(c, i) {
			break
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
	*h = s
	return top
}
