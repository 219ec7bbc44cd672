package wire

import "iter"

// swapOverhead is what a TensorSwap message takes beside its items, at most: the header, the sections without items (seq,
// credit, info, pending), and type, length and count of the seven with items.
const swapOverhead = controlHead + 12 + 12 + 3 + 7 + 7*(1+4+3)

// splitSwap is Split for TensorSwap.
func (m *Message) splitSwap(limit int) iter.Seq[*Message] {
	return func(yield func(*Message) bool) {
		s := swapSplit{m: m, limit: limit - swapOverhead, yield: yield}
		s.part = Message{Full: m.Full, Seq: m.Seq, Credit: m.Credit, Info: m.Info}
		if m.Seq != 0 || m.Credit != 0 || m.Info.Set {
			s.size = 1 // so that what is too long for a part does not share this one
		}
		if !s.all() {
			return
		}
		s.part.PendingBytes = m.PendingBytes
		s.cut()
	}
}

// swapSplit is a message that is being split.
type swapSplit struct {
	m           *Message
	limit       int
	yield       func(*Message) bool
	part        Message // its lists are set by cut
	from, to    swapLists
	size, items int // of what part holds
}

// swapLists is a place in each list of a message.
type swapLists struct{ follows, wants, presences, haves, walks, blocks, walked int }

// all goes through the lists in the order of the sections. It returns false when there was enough.
func (s *swapSplit) all() bool {
	m := s.m
	for i := range m.Follows {
		if !s.room(m.Follows[i].swapSize()) {
			return false
		}
		s.to.follows = i + 1
	}
	for i := 0; i < len(m.Wants); {
		var e Entry
		e, i = m.swapWant(i)
		if !s.room(e.swapSize()) {
			return false
		}
		s.to.wants = i
	}
	for i := 0; i < len(m.Presences); {
		var p Presence
		p, i = m.swapPresence(i)
		if !s.room(p.swapSize()) {
			return false
		}
		s.to.presences = i
	}
	for i := range m.Haves {
		if !s.room(m.Haves[i].swapSize()) {
			return false
		}
		s.to.haves = i + 1
	}
	for i := range m.Walks {
		if !s.room(m.Walks[i].swapSize()) {
			return false
		}
		s.to.walks = i + 1
	}
	for i := range m.Blocks {
		if !s.room(m.Blocks[i].Size(Swap1)) {
			return false
		}
		s.to.blocks = i + 1
	}
	for i := range m.Walked {
		if !s.room(m.Walked[i].swapSize()) {
			return false
		}
		s.to.walked = i + 1
	}
	return true
}

// room makes room for an item of n bytes: in this part, or in another after yielding this one.
func (s *swapSplit) room(n int) bool {
	if s.size > 0 && (s.size+n > s.limit || s.items == MaxItems) && !s.cut() {
		return false
	}
	s.size += n
	s.items++
	return true
}

// cut yields the part.
func (s *swapSplit) cut() bool {
	m, p, a, b := s.m, &s.part, s.from, s.to
	p.Follows = m.Follows[a.follows:b.follows:b.follows]
	p.Wants = m.Wants[a.wants:b.wants:b.wants]
	p.Presences = m.Presences[a.presences:b.presences:b.presences]
	p.Haves = m.Haves[a.haves:b.haves:b.haves]
	p.Walks = m.Walks[a.walks:b.walks:b.walks]
	p.Blocks = m.Blocks[a.blocks:b.blocks:b.blocks]
	p.Walked = m.Walked[a.walked:b.walked:b.walked]
	ok := s.yield(p)
	s.part, s.from, s.size, s.items = Message{}, b, 0, 0
	return ok
}
