package tensor

import (
	"fmt"
	"iter"
	"slices"
	"sort"

	"dray"
)

// Range is a half-open interval of bytes of a file: from Begin up to and not including End.
type Range struct{ Begin, End int64 }

// Len returns the number of bytes.
func (r Range) Len() int64 { return r.End - r.Begin }

// Overlaps reports whether r and s have a byte in common.
func (r Range) Overlaps(s Range) bool { return max(r.Begin, s.Begin) < min(r.End, s.End) }

// FromTo returns the bytes of a file of size bytes from first up to and including last, as HTTP's "bytes=first-last"
// means it: a last beyond the end is the end. It reports false when nothing is left.
func FromTo(first, last, size int64) (Range, bool) {
	if first < 0 || last < first || first >= size {
		return Range{}, false
	}
	return Range{first, min(last, size-1) + 1}, true
}

// Suffix returns the last n bytes of a file of size bytes, or all of a shorter one: HTTP's "bytes=-n". It reports false
// when nothing is left.
func Suffix(n, size int64) (Range, bool) {
	if n <= 0 || size <= 0 {
		return Range{}, false
	}
	return Range{max(size-n, 0), size}, true
}

// Leaves returns the leaves of m that hold the bytes of r, from first up to and not including end. The part of r
// beyond the content has no leaves.
func Leaves(m *dray.Manifest, r Range) (first, end int) {
	if r.End <= r.Begin || r.Begin >= m.Size() {
		return 0, 0
	}
	return m.At(r.Begin), m.At(min(r.End, m.Size())-1) + 1
}

// RangeSet is a set of bytes of a file, kept as ranges that neither overlap nor touch. Memory follows the number of
// ranges, not of bytes. The zero RangeSet is empty and ready for use. It is not safe for concurrent use.
type RangeSet struct {
	rs    []Range
	bytes int64
}

// Add adds the bytes of r; a range without bytes, or one that begins before the file, changes nothing. It takes O(log
// n) for n ranges when r touches the ones before it, as when a file grows in order, and else O(n).
func (s *RangeSet) Add(r Range) {
	if r.End <= r.Begin || r.Begin < 0 {
		return
	}
	// Those from i up to j touch r and become one with it.
	i := sort.Search(len(s.rs), func(k int) bool { return s.rs[k].End >= r.Begin })
	j := i
	for j < len(s.rs) && s.rs[j].Begin <= r.End {
		r.Begin, r.End = min(r.Begin, s.rs[j].Begin), max(r.End, s.rs[j].End)
		s.bytes -= s.rs[j].Len()
		j++
	}
	s.bytes += r.Len()
	if j == i+1 {
		s.rs[i] = r
		return
	}
	s.rs = slices.Replace(s.rs, i, j, r)
}

// AddAll adds every range of a sequence, such as [Runs.All].
func (s *RangeSet) AddAll(seq iter.Seq[Range]) {
	for r := range seq {
		s.Add(r)
	}
}

// Bytes returns the number of bytes in the set.
func (s *RangeSet) Bytes() int64 { return s.bytes }

// Len returns the number of ranges.
func (s *RangeSet) Len() int { return len(s.rs) }

// All yields the ranges in ascending order.
func (s *RangeSet) All() iter.Seq[Range] { return slices.Values(s.rs) }

// Contains reports whether all bytes of r are in the set.
func (s *RangeSet) Contains(r Range) bool {
	if r.End <= r.Begin {
		return true
	}
	i := sort.Search(len(s.rs), func(k int) bool { return s.rs[k].End > r.Begin })
	return i < len(s.rs) && s.rs[i].Begin <= r.Begin && s.rs[i].End >= r.End
}

// Missing yields, in ascending order, the parts of r that are not in the set.
func (s *RangeSet) Missing(r Range) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		at := r.Begin
		for i := sort.Search(len(s.rs), func(k int) bool { return s.rs[k].End > at }); i < len(s.rs) && at < r.End; i++ {
			if gap := (Range{at, min(s.rs[i].Begin, r.End)}); gap.Len() > 0 && !yield(gap) {
				return
			}
			at = max(at, s.rs[i].End)
		}
		if at < r.End {
			yield(Range{at, r.End})
		}
	}
}

// String lists the ranges, for tests and messages.
func (s *RangeSet) String() string { return fmt.Sprint(s.rs) }
