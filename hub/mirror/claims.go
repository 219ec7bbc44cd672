package mirror

import (
	"sort"

	"github.com/ipfs/go-cid"
)

// cut is a stretch of a file that becomes one leaf.
type cut struct {
	begin, end int64
	edge       edge
}

// edge says where in its section a cut lies. The zero edge is that of a file without sections.
type edge uint8

const (
	edgeInside edge = 1 << iota // there are sections
	edgeFirst                   // it begins one
	edgeLast                    // it ends one

	edges = edgeInside | edgeFirst | edgeLast
)

// What is known of a cut.
const (
	cutFree    uint8 = iota // nobody asks for it
	cutClaimed              // it has been asked for
	cutFilled               // its leaf is known
)

// claims says which bytes of a file have been asked of the upstream, so that none are asked for twice. Every cut is free,
// claimed or filled; a claim ends by filling or by releasing. It is not safe for concurrent use.
type claims struct {
	cuts  []cut
	state []uint8
}

func newClaims(cuts []cut) *claims { return &claims{cuts: cuts, state: make([]uint8, len(cuts))} }

// at returns the index of the cut that holds the byte at offset, or the number of cuts when it lies beyond the end.
func (c *claims) at(offset int64) int {
	return sort.Search(len(c.cuts), func(i int) bool { return c.cuts[i].end > offset })
}

// claim claims cuts from i on, up to the first that is not free or until they have most bytes, and at least one. It returns the
// first that it did not claim: i itself if that is not free.
func (c *claims) claim(i int, most int64) int {
	j := i
	for j < len(c.cuts) && c.state[j] == cutFree && (j == i || c.cuts[j].end-c.cuts[i].begin <= most) {
		c.state[j] = cutClaimed
		j++
	}
	return j
}

// release makes those cuts from i to before j free again that were claimed and have not been filled.
func (c *claims) release(i, j int) {
	for ; i < j; i++ {
		if c.state[i] == cutClaimed {
			c.state[i] = cutFree
		}
	}
}

func (c *claims) fill(i int) { c.state[i] = cutFilled }

// lose makes a cut free whose leaf turned out not to be had.
func (c *claims) lose(i int) { c.state[i] = cutFree }

// entry is a leaf and where its content goes.
type entry struct {
	begin, end int64
	edge       edge
	leaf       cid.Cid
}

// table lists the leaves of a file that are known: those from the beginning without a gap, and those beyond. It is not safe for
// concurrent use.
type table struct {
	size  int64
	run   []entry
	ahead []entry // in order, none of which follows on run
}

// front returns the first byte whose leaf is not known.
func (t *table) front() int64 {
	if len(t.run) == 0 {
		return 0
	}
	return t.run[len(t.run)-1].end
}

// find returns the entry that holds the byte at offset.
func (t *table) find(offset int64) (entry, bool) {
	for _, list := range [2][]entry{t.run, t.ahead} {
		i := sort.Search(len(list), func(i int) bool { return list[i].end > offset })
		if i < len(list) && list[i].begin <= offset {
			return list[i], true
		}
	}
	return entry{}, false
}

// add takes an entry. It reports false when that contradicts what is there; the same entry again is no contradiction.
func (t *table) add(e entry) (ok bool) {
	if e.begin < 0 || e.begin >= e.end || e.end > t.size || !e.leaf.Defined() || e.edge&^edges != 0 {
		return false
	}
	if e.begin == t.front() {
		if len(t.ahead) > 0 && e.end > t.ahead[0].begin {
			return t.ahead[0] == e
		}
		t.run = append(t.run, e)
		n := 0
		for n < len(t.ahead) && t.ahead[n].begin == t.front() {
			t.run = append(t.run, t.ahead[n])
			n++
		}
		t.ahead = append(t.ahead[:0], t.ahead[n:]...)
		return true
	}
	if e.begin < t.front() {
		old, _ := t.find(e.begin)
		return old == e
	}
	i := sort.Search(len(t.ahead), func(i int) bool { return t.ahead[i].end > e.begin })
	if i < len(t.ahead) && t.ahead[i].begin < e.end {
		return t.ahead[i] == e
	}
	t.ahead = append(t.ahead, entry{})
	copy(t.ahead[i+1:], t.ahead[i:])
	t.ahead[i] = e
	return true
}

// drop forgets the entry that begins at an offset, and everything that is not known without a gap any more becomes ahead.
func (t *table) drop(begin int64) {
	if begin >= t.front() {
		for i := range t.ahead {
			if t.ahead[i].begin == begin {
				t.ahead = append(t.ahead[:i], t.ahead[i+1:]...)
				return
			}
		}
		return
	}
	i := sort.Search(len(t.run), func(i int) bool { return t.run[i].end > begin })
	rest := append([]entry(nil), t.run[i+1:]...)
	t.ahead = append(rest, t.ahead...)
	t.run = t.run[:i]
}
