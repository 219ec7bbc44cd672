package dray

import (
	"sort"

	"github.com/ipfs/go-cid"
)

// Manifest is the ordered list of leaves under a root, with their sizes. It is derived from the skeleton by whoever holds
// it and never sent, so index i means the same leaf on both sides of a connection. The zero Manifest is empty. It is built
// by one goroutine with [Manifest.Append], perhaps indexed with [Manifest.Index], and then only read, which is safe for
// concurrent use.
type Manifest struct {
	root    cid.Cid
	leaves  []cid.Cid
	offsets []int64 // offsets[i] is the byte at which leaf i begins; one more entry gives the total.

	places map[cid.Cid]int32 // after Index: the first place of each leaf
	again  map[int32]int32   // and for a leaf that comes more than once, from each place to the next
}

// NewManifest returns an empty Manifest for root, with room for n leaves.
func NewManifest(root cid.Cid, n int) *Manifest {
	m := &Manifest{root: root, leaves: make([]cid.Cid, 0, n), offsets: make([]int64, 1, n+1)}
	return m
}

// Append adds the next leaf in byte order. Size is the number of content bytes that the leaf holds; it must not be
// negative.
func (m *Manifest) Append(leaf cid.Cid, size int64) {
	if size < 0 {
		panic("dray: negative leaf size")
	}
	if len(m.offsets) == 0 {
		m.offsets = append(m.offsets, 0)
	}
	m.places = nil
	m.leaves = append(m.leaves, leaf)
	m.offsets = append(m.offsets, m.offsets[len(m.offsets)-1]+size)
}

// Root returns the CID that the leaves are under.
func (m *Manifest) Root() cid.Cid { return m.root }

// Len returns the number of leaves.
func (m *Manifest) Len() int { return len(m.leaves) }

// Size returns the number of content bytes under the root.
func (m *Manifest) Size() int64 {
	if len(m.offsets) == 0 {
		return 0
	}
	return m.offsets[len(m.offsets)-1]
}

// Leaf returns the CID of leaf i. It panics when i is out of range.
func (m *Manifest) Leaf(i int) cid.Cid { return m.leaves[i] }

// Extent returns where leaf i's content lies: the byte at which it begins and its length in bytes. It panics when i is
// out of range.
func (m *Manifest) Extent(i int) (offset, size int64) {
	return m.offsets[i], m.offsets[i+1] - m.offsets[i]
}

// At returns the index of the leaf that holds the byte at offset, or Len when offset is at or beyond the end.
func (m *Manifest) At(offset int64) int {
	if len(m.offsets) == 0 || offset < 0 {
		return 0
	}
	// The first leaf that ends after offset.
	return sort.Search(len(m.leaves), func(i int) bool { return m.offsets[i+1] > offset })
}

// Index makes [Manifest.Find] work. It takes memory and time in proportion to the number of leaves; a later Append undoes
// it.
func (m *Manifest) Index() {
	if m.places != nil {
		return
	}
	m.places = make(map[cid.Cid]int32, len(m.leaves))
	m.again = make(map[int32]int32)
	for i := len(m.leaves) - 1; i >= 0; i-- {
		if later, ok := m.places[m.leaves[i]]; ok {
			m.again[int32(i)] = later
		}
		m.places[m.leaves[i]] = int32(i)
	}
}

// Find returns the first index at which leaf occurs, and whether it does. It panics unless Index was called.
func (m *Manifest) Find(leaf cid.Cid) (int, bool) {
	if m.places == nil && len(m.leaves) > 0 {
		panic("dray: a manifest that is not indexed")
	}
	i, ok := m.places[leaf]
	return int(i), ok
}

// First returns the first index at which the leaf at i occurs. It panics unless Index was called, or when i is out of
// range.
func (m *Manifest) First(i int) int {
	if len(m.again) == 0 && m.places != nil {
		return i // every leaf occurs once
	}
	k, _ := m.Find(m.leaves[i])
	return k
}

// Next returns the next index after i at which the leaf at i occurs, and whether there is one. It panics unless Index was
// called.
func (m *Manifest) Next(i int) (int, bool) {
	k, ok := m.again[int32(i)]
	return int(k), ok
}
