package disk

import (
	"slices"
	"strings"
)

// shortHash is the multihash of nearly every leaf: two bytes that say sha2-256 or blake3, and 32 of digest.
type shortHash [34]byte

// expectations says where the leaves that a growing file still lacks go. It is made for millions of them: about 80 bytes
// each, with no pointer to follow for the garbage collector. Owned by Store.mu.
type expectations struct {
	short map[shortHash]int32 // the first spot of a leaf
	long  map[string]int32    // the same for other hashes
	spots []spot
	parts map[string][]parts // of leaves that do not go there whole
	free  int32              // first unused spot, or -1
}

// spot is one place that a leaf goes to.
type spot struct {
	off    int64
	size   int32
	next   int32 // the leaf's next spot, or the next unused one, or -1
	framed bool  // the block is more than its content
}

func newExpectations() *expectations {
	return &expectations{
		short: make(map[shortHash]int32), long: make(map[string]int32), parts: make(map[string][]parts), free: -1,
	}
}

// len returns the number of leaves expected.
func (x *expectations) len() int { return len(x.short) + len(x.long) + len(x.parts) }

func (x *expectations) first(mh string) (int32, bool) {
	if len(mh) == len(shortHash{}) {
		i, ok := x.short[shortHash([]byte(mh))]
		return i, ok
	}
	i, ok := x.long[mh]
	return i, ok
}

// has reports whether mh goes to off.
func (x *expectations) has(mh string, off int64) bool {
	i, ok := x.first(mh)
	for ; ok && i >= 0; i = x.spots[i].next {
		if x.spots[i].off == off {
			return true
		}
	}
	return false
}

// add says that the leaf mh goes to sp as well. It reports false when it knew.
func (x *expectations) add(mh string, sp spot) bool {
	if x.has(mh, sp.off) {
		return false
	}
	sp.next = -1
	if head, ok := x.first(mh); ok {
		sp.next = head
	}
	i := x.free
	if i >= 0 {
		x.free = x.spots[i].next
		x.spots[i] = sp
	} else {
		i = int32(len(x.spots))
		x.spots = append(x.spots, sp)
	}
	x.set(mh, i)
	return true
}

// remove forgets that mh goes to off, and reports whether it did.
func (x *expectations) remove(mh string, off int64) bool {
	i, ok := x.first(mh)
	prev := int32(-1)
	for ; ok && i >= 0; prev, i = i, x.spots[i].next {
		if x.spots[i].off != off {
			continue
		}
		next := x.spots[i].next
		x.spots[i] = spot{next: x.free}
		x.free = i
		if prev >= 0 {
			x.spots[prev].next = next
		} else {
			x.set(mh, next)
		}
		return true
	}
	return false
}

// addParts says that parts of the leaf mh go to the file as well.
func (x *expectations) addParts(mh string, p parts) {
	list := x.parts[mh]
	if list == nil {
		mh = strings.Clone(mh)
	}
	x.parts[mh] = append(list, p)
}

// removeParts forgets the parts of mh that begin at an offset, and reports whether there were such.
func (x *expectations) removeParts(mh string, to int64) bool {
	list := x.parts[mh]
	i := slices.IndexFunc(list, func(p parts) bool { return p.to() == to })
	switch {
	case i < 0:
		return false
	case len(list) == 1:
		delete(x.parts, mh)
	default:
		x.parts[mh] = slices.Delete(list, i, i+1)
	}
	return true
}

// set makes i the first spot of mh; -1 means that there is none.
func (x *expectations) set(mh string, i int32) {
	switch short := len(mh) == len(shortHash{}); {
	case short && i >= 0:
		x.short[shortHash([]byte(mh))] = i
	case short:
		delete(x.short, shortHash([]byte(mh)))
	case i >= 0:
		x.long[string([]byte(mh))] = i
	default:
		delete(x.long, mh)
	}
}

// each calls f for every leaf until f returns false.
func (x *expectations) each(f func(mh string, sp spot) bool) {
	for h, i := range x.short {
		mh := string(h[:])
		for ; i >= 0; i = x.spots[i].next {
			if !f(mh, x.spots[i]) {
				return
			}
		}
	}
	for mh, i := range x.long {
		for ; i >= 0; i = x.spots[i].next {
			if !f(mh, x.spots[i]) {
				return
			}
		}
	}
}
