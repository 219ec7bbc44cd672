package wire

import "iter"

// splitOverhead is what a message takes beside its items, at most: the want list's tag and length, its full flag, and
// pending bytes.
const splitOverhead = 1 + 4 + 2 + 1 + 10

// Split yields messages that together say what m says, each at most limit bytes long in version v; if limit is zero,
// [MaxWantlistSize], and never more than [MaxMessageSize]. A block that is too long for that travels alone. The first
// message carries Full, so that, read in order, the first replaces and the others add; the last carries PendingBytes. At
// least one message is yielded. Order is kept within wants, presences and blocks, which come in this order.
//
// Of TensorSwap, the first message also carries Credit and Info; the others have the same Seq, and Continues. No message has
// more than [MaxItems] items, and all lists come in the order that [Message] gives. What is written as one is not parted.
// A bitmap that is too long for a message is not split.
//
// The messages' slices alias m's, and each message is only valid until the next.
func (m *Message) Split(v Version, limit int) iter.Seq[*Message] {
	if limit <= 0 {
		limit = MaxWantlistSize
	}
	limit = min(limit, MaxMessageSize)
	if v == Swap1 {
		return m.splitSwap(limit)
	}
	limit -= splitOverhead
	return func(yield func(*Message) bool) {
		part := Message{Full: m.Full}
		var wants, presences, blocks, size int // where part begins in m's slices, and what it holds
		next := func(n int) bool {             // reports whether an item of n bytes goes into another message than part
			if size == 0 || size+n <= limit {
				size += n
				return false
			}
			size = n
			return true
		}
		cut := func(w, p, b int) bool {
			part.Wants = m.Wants[wants:w:w]
			part.Presences = m.Presences[presences:p:p]
			part.Blocks = m.Blocks[blocks:b:b]
			wants, presences, blocks = w, p, b
			ok := yield(&part)
			part = Message{}
			return ok
		}
		for i := range m.Wants {
			if next(m.Wants[i].Size(v)) && !cut(i, 0, 0) {
				return
			}
		}
		for i := range m.Presences {
			if next(m.Presences[i].Size(v)) && !cut(len(m.Wants), i, 0) {
				return
			}
		}
		for i := range m.Blocks {
			full := i-blocks == MaxBlocks
			if full {
				size = limit + 1
			}
			if next(m.Blocks[i].Size(v)) && !cut(len(m.Wants), len(m.Presences), i) {
				return
			}
		}
		part.PendingBytes = m.PendingBytes
		cut(len(m.Wants), len(m.Presences), len(m.Blocks))
	}
}
