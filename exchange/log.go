package exchange

import (
	"cmp"
	"slices"
)

// wantLog lists a session's wants in the order in which they came, so that each peer that is asked about them one by one
// can keep a cursor. Wants that ended, or that the session left, are skipped and trimmed, so that the log is never much
// longer than what the session wants. Positions count the wants ever pushed.
type wantLog struct {
	s       *session
	end     uint64 // position of the next want
	entries []logEntry
	head    int // entries before it are trimmed
	kept    int // live entries when it was last compacted
}

// logEntry is live while the want is, and the session's interest in it is the one that was pushed.
type logEntry struct {
	w   *want
	gen uint64
	pos uint64
}

func (l *wantLog) live(en *logEntry) bool {
	if en.w.gen != en.gen {
		return false
	}
	a := en.w.asker(l.s)
	return a != nil && a.pos == en.pos
}

// push appends w, which the session has just begun to ask for, and returns its position.
func (l *wantLog) push(w *want) uint64 {
	l.trim()
	if l.head > 64 && l.head*2 > len(l.entries) {
		n := copy(l.entries, l.entries[l.head:])
		l.truncate(n)
	}
	if len(l.entries)-l.head > 2*l.kept+64 {
		n := 0
		for i := l.head; i < len(l.entries); i++ {
			if l.live(&l.entries[i]) {
				l.entries[n] = l.entries[i]
				n++
			}
		}
		l.truncate(n)
		l.kept = n
	}
	l.entries = append(l.entries, logEntry{w, w.gen, l.end})
	l.end++
	return l.end - 1
}

func (l *wantLog) truncate(n int) {
	clear(l.entries[n:])
	l.entries = l.entries[:n]
	l.head = 0
}

// trim forgets dead entries at the front.
func (l *wantLog) trim() {
	for l.head < len(l.entries) && !l.live(&l.entries[l.head]) {
		l.entries[l.head] = logEntry{w: ended}
		l.head++
	}
}

// ended stands in for wants that are gone, so that trimmed entries keep nothing alive.
var ended = &want{gen: 1}

// next returns the first live want at or after position i and the position after it, or nil and the end.
func (l *wantLog) next(i uint64) (*want, uint64) {
	if i >= l.end {
		return nil, l.end
	}
	list := l.entries[l.head:]
	k, _ := slices.BinarySearchFunc(list, i, func(en logEntry, i uint64) int { return cmp.Compare(en.pos, i) })
	for ; k < len(list); k++ {
		if l.live(&list[k]) {
			return list[k].w, list[k].pos + 1
		}
	}
	return nil, l.end
}

func (l *wantLog) each(f func(*want)) {
	for k := l.head; k < len(l.entries); k++ {
		if en := &l.entries[k]; l.live(en) {
			f(en.w)
		}
	}
}

// candHeap is a heap of wants that one peer may be asked for apart from the session's common heap. Entries go stale when
// a want is given to somebody or ends; they are skipped when they come up.
type candHeap []candidate

type candidate struct {
	rank rank
	w    *want
	gen  uint64
}

func (h *candHeap) push(w *want) {
	*h = append(*h, candidate{w.rank, w, w.gen})
	h.up(len(*h) - 1)
}

func (h *candHeap) up(i int) {
	s := *h
	for i > 0 {
		parent := (i - 1) / 2
		if !s[i].rank.before(s[parent].rank) {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

// compact drops stale and repeated entries, and those of wants that session home has left.
func (h *candHeap) compact(home *session) {
	old := *h
	seen := make(map[*want]struct{}, len(old))
	*h = old[:0]
	for i, c := range old {
		if _, twice := seen[c.w]; !twice && c.w.gen == c.gen && c.w.state == Pending && c.w.asker(home) != nil {
			seen[c.w] = struct{}{}
			old[len(*h)] = old[i]
			*h = old[:len(*h)+1]
			h.up(len(*h) - 1)
		}
	}
	clear(old[len(*h):])
}

// peek returns the best want that is still nobody's, dropping stale entries above it.
func (h *candHeap) peek() *want {
	for len(*h) > 0 {
		c := (*h)[0]
		if c.w.gen == c.gen && c.w.state == Pending {
			return c.w
		}
		h.pop()
	}
	return nil
}

func (h *candHeap) pop() {
	s := *h
	n := len(s) - 1
	s[0] = s[n]
	s[n] = candidate{}
	s = s[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && s[c+1].rank.before(s[c].rank) {
			c++
		}
		if !s[c].rank.before(s[i].rank) {
			break
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
	*h = s
}

// spHeap orders a session's peers with room by their key under the engine's strategy.
type spHeap []*sessionPeer

func (h spHeap) before(i, j int) bool {
	a, b := h[i].p, h[j].p
	if a.key != b.key {
		return a.key < b.key
	}
	return a.slot < b.slot
}

func (h spHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heap, h[j].heap = i, j
}

func (h *spHeap) push(sp *sessionPeer) {
	*h = append(*h, sp)
	sp.heap = len(*h) - 1
	h.fix(sp.heap)
}

func (h *spHeap) remove(sp *sessionPeer) {
	i, n := sp.heap, len(*h)-1
	if i != n {
		h.swap(i, n)
	}
	(*h)[n] = nil
	*h = (*h)[:n]
	sp.heap = -1
	if i < n {
		h.fix(i)
	}
}

func (h spHeap) fix(i int) {
	for i > 0 && h.before(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h.before(c+1, c) {
			c++
		}
		if !h.before(c, i) {
			return
		}
		h.swap(i, c)
		i = c
	}
}
