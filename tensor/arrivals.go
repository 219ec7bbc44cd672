package tensor

import (
	"fmt"
	"sort"

	"dray"
)

// Arrivals says when a tensor is complete, as the leaves of its file arrive in any order. It counts leaves by their
// place in the manifest, so that leaves with equal bytes are told apart. Memory is a bit a leaf and some bytes a
// range. It is not safe for concurrent use.
type Arrivals struct {
	manifest *dray.Manifest
	ranges   []Range
	missing  []int // leaves, per range
	seen     []uint64
	done     int
	empty    []int
}

// NewArrivals returns an Arrivals for ranges of the content of m, such as those of a file's tensors: ascending and
// without overlap. It fails when they are not, or go beyond the content.
func NewArrivals(m *dray.Manifest, ranges []Range) (*Arrivals, error) {
	a := &Arrivals{manifest: m, ranges: ranges, missing: make([]int, len(ranges)), seen: make([]uint64, (m.Len()+63)/64)}
	last := int64(0)
	for i, r := range ranges {
		if r.Begin < last || r.End < r.Begin || r.End > m.Size() {
			return nil, fmt.Errorf("range %d, [%d, %d), after %d in %d bytes", i, r.Begin, r.End, last, m.Size())
		}
		last = r.End
		first, end := Leaves(m, r)
		for k := first; k < end; k++ { // Leaves without content are waited for by nobody.
			if _, n := m.Extent(k); n > 0 {
				a.missing[i]++
			}
		}
		if a.missing[i] == 0 {
			a.empty = append(a.empty, i)
			a.done++
		}
	}
	return a, nil
}

// Empty returns the ranges that need no leaf. They are complete from the start, and Mark never returns them.
func (a *Arrivals) Empty() []int { return a.empty }

// Done returns how many ranges are complete.
func (a *Arrivals) Done() int { return a.done }

// Mark says that a leaf has arrived, and appends to dst the ranges that it completes, in ascending order, each once
// ever. A leaf that has arrived before changes nothing. It panics when the manifest has no such leaf.
func (a *Arrivals) Mark(dst []int, leaf int) []int {
	offset, n := a.manifest.Extent(leaf)
	if a.seen[leaf/64]&(1<<(leaf%64)) != 0 || n == 0 {
		return dst
	}
	a.seen[leaf/64] |= 1 << (leaf % 64)
	r := Range{offset, offset + n}
	i := sort.Search(len(a.ranges), func(k int) bool { return a.ranges[k].End > r.Begin })
	for ; i < len(a.ranges) && a.ranges[i].Begin < r.End; i++ {
		if a.ranges[i].Len() == 0 {
			continue
		}
		if a.missing[i]--; a.missing[i] == 0 {
			a.done++
			dst = append(dst, i)
		}
	}
	return dst
}
