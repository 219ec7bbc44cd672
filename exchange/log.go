package exchange

// wantLog lists a session's wants in the order in which they came, so that each peer that is asked about them one by one
// can keep a cursor. Ended wants are skipped and trimmed. Positions count from the first want ever pushed.
type wantLog struct {
	base    uint64 // position of entries[0]
	entries []logEntry
	head    int // entries before it are trimmed
}

type logEntry struct {
	w   *want
	gen uint64
}

func (l *wantLog) push(w *want) {
	l.trim()
	if l.head > 64 && l.head*2 > len(l.entries) {
		n := copy(l.entries, l.entries[l.head:])
		clear(l.entries[n:])
		l.entries = l.entries[:n]
		l.head = 0
	}
	l.entries = append(l.entries, logEntry{w, w.gen})
}

// trim forgets ended wants at the front.
func (l *wantLog) trim() {
	for l.head < len(l.entries) && l.entries[l.head].w.gen != l.entries[l.head].gen {
		l.entries[l.head] = logEntry{w: ended}
		l.head++
		l.base++
	}
}

// ended stands in for wants that are gone, so that trimmed entries keep nothing alive.
var ended = &want{gen: 1}

// next returns the first live want at or after position i and the position after it, or nil and the end.
func (l *wantLog) next(i uint64) (*want, uint64) {
	i = max(i, l.base)
	for k := l.head + int(i-l.base); k < len(l.entries); k++ {
		i++
		if en := l.entries[k]; en.w.gen == en.gen {
			return en.w, i
		}
	}
	return nil, i
}

func (l *wantLog) each(f func(*want)) {
	for k := l.head; k < len(l.entries); k++ {
		if en := l.entries[k]; en.w.gen == en.gen {
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
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s[i].rank.before(s[parent].rank) {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
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

// spHeap orders a session's peers with room by when a block asked now would arrive.
type spHeap []*sessionPeer

func (h spHeap) before(i, j int) bool {
	a, b := h[i].p, h[j].p
	if a.eta != b.eta {
		return a.eta < b.eta
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
