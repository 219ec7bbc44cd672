package disk

// pendingSet is what is written but not yet in the index: for each block, by multihash, the places that hold it. A
// block's places are chained, because nearly every block has one. Owned by Store.mu.
type pendingSet struct {
	first  map[string]int32
	places []pendingPlace
	parts  []pendingParts
	begun  map[partsAt]int32 // the last of parts that begins there
	bytes  int64             // payload written by these, which the next commit will have to flush
	small  int64             // the part of bytes that is kept in memory
}

type pendingPlace struct {
	place
	next int32 // index of the block's next place, or -1
	gone bool  // deleted meanwhile; no longer to be recorded
}

// pendingParts are parts of a leaf that were written to a growing file.
type pendingParts struct {
	file uint64
	mh   string
	parts
	gone bool
}

// partsAt is where parts begin in a growing file.
type partsAt struct {
	file uint64
	to   int64
}

func newPendingSet() *pendingSet {
	return &pendingSet{first: make(map[string]int32), begun: make(map[partsAt]int32)}
}

func (s *pendingSet) empty() bool { return len(s.places)+len(s.parts) == 0 }

// addParts appends parts of the leaf mh in a file. It keeps mh and x.
func (s *pendingSet) addParts(file uint64, mh string, x parts) {
	s.begun[partsAt{file, x.to()}] = int32(len(s.parts))
	s.parts = append(s.parts, pendingParts{file: file, mh: mh, parts: x})
	s.bytes += x.bytes()
}

// hasParts reports whether the parts of mh that begin at an offset of a file are written.
func (s *pendingSet) hasParts(file uint64, mh string, to int64) bool {
	i, ok := s.begun[partsAt{file, to}]
	return ok && !s.parts[i].gone && s.parts[i].mh == mh
}

// add appends a place for mh. It keeps mh and p's slices.
func (s *pendingSet) add(mh string, p place) {
	next, ok := s.first[mh]
	if !ok {
		next = -1
	}
	s.places = append(s.places, pendingPlace{place: p, next: next})
	s.first[mh] = int32(len(s.places) - 1)
	s.bytes += p.blockSize()
	if p.kind == inIndex {
		s.small += p.blockSize()
	}
}

// find appends to dst the places of mh that still count.
func (s *pendingSet) find(dst []place, mh string) []place {
	i, ok := s.first[mh]
	if !ok {
		return dst
	}
	for ; i >= 0; i = s.places[i].next {
		if !s.places[i].gone {
			dst = append(dst, s.places[i].place)
		}
	}
	return dst
}

// drop marks the places of mh for which match returns true as gone.
func (s *pendingSet) drop(mh string, match func(*place) bool) {
	i, ok := s.first[mh]
	if !ok {
		return
	}
	for ; i >= 0; i = s.places[i].next {
		if p := &s.places[i]; !p.gone && match(&p.place) {
			p.gone = true
		}
	}
}

// each calls f for every place that still counts.
func (s *pendingSet) each(f func(mh string, p *place)) {
	for mh, i := range s.first {
		for ; i >= 0; i = s.places[i].next {
			if !s.places[i].gone {
				f(mh, &s.places[i].place)
			}
		}
	}
}

// reset empties the set and keeps its memory.
func (s *pendingSet) reset() {
	clear(s.first)
	clear(s.places)
	clear(s.parts)
	clear(s.begun)
	s.places, s.parts, s.bytes, s.small = s.places[:0], s.parts[:0], 0, 0
}
