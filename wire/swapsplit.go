package wire

import "iter"

// swapOverhead is what a TensorSwap message takes beside its items, at most: the header, the sections without items (seq,
// credit, info, pending), and type, length and count of the seven with items.
const swapOverhead = controlHead + 12 + 12 + 3 + 7 + 7*(1+4+3)

// splitSwap is Split for TensorSwap.
func (m *Message) splitSwap(limit int) iter.Seq[*Message] {
	limit -= swapOverhead
	return func(yield func(*Message) bool) {
		var (
			part     = Message{Full: m.Full, Seq: m.Seq, Continues: m.Continues, Credit: m.Credit, Info: m.Info}
			from, to [sections]int // where part begins and ends in m's lists
			size, n  int           // what part holds, and how many items
		)
		if m.Credit != 0 || m.Info.Set {
			size = 1 // so that a block which is too long for any part does not share this one
		}
		cut := func(last bool) bool {
			part.Follows = span(m.Follows, &from, &to, sectionFollows)
			part.Wants = span(m.Wants, &from, &to, sectionWants)
			part.Presences = span(m.Presences, &from, &to, sectionPresences)
			part.Haves = span(m.Haves, &from, &to, sectionHaves)
			part.Walks = span(m.Walks, &from, &to, sectionWalks)
			part.Blocks = span(m.Blocks, &from, &to, sectionBlocks)
			part.Walked = span(m.Walked, &from, &to, sectionWalked)
			if last {
				part.PendingBytes = m.PendingBytes
			}
			ok := yield(&part)
			part, from, size, n = Message{Seq: m.Seq, Continues: m.Seq != 0}, to, 0, 0
			return ok
		}
		all := m.swapItems(func(s section, next, bytes int) bool {
			if size > 0 && (size+bytes > limit || n == MaxItems) && !cut(false) {
				return false
			}
			size, n, to[s] = size+bytes, n+1, next
			return true
		})
		if all {
			cut(true)
		}
	}
}

// span returns a section's part of list, with no room to grow into what follows.
func span[T any](list []T, from, to *[sections]int, s section) []T { return list[from[s]:to[s]:to[s]] }
