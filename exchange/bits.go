package exchange

import "math/bits"

// leafSet is a set of leaves of a manifest: bit i%64 of word i/64 stands for leaf i.
type leafSet []uint64

func newLeafSet(n int) leafSet { return make(leafSet, (n+63)/64) }

func (s leafSet) has(i int) bool { return s[i>>6]>>(i&63)&1 == 1 }

// add puts i in and reports whether it was not.
func (s leafSet) add(i int) bool {
	if s.has(i) {
		return false
	}
	s[i>>6] |= 1 << (i & 63)
	return true
}

// remove takes i out and reports whether it was in.
func (s leafSet) remove(i int) bool {
	if !s.has(i) {
		return false
	}
	s[i>>6] &^= 1 << (i & 63)
	return true
}

// next returns the first i in s from the given one on, or -1.
func (s leafSet) next(i int) int {
	for k := i >> 6; k < len(s); k++ {
		w := s[k]
		if k == i>>6 {
			w &= ^uint64(0) << (i & 63)
		}
		if w != 0 {
			return k<<6 + bits.TrailingZeros64(w)
		}
	}
	return -1
}
