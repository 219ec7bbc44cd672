package exchange

import (
	"math/bits"

	"github.com/ipfs/go-cid"

	"dray"
)

// Pieces is what is known of a root's leaves at one moment, by stretches of leaves: for people who look at a transfer.
type Pieces struct {
	// Leaves is how many leaves the root has; 0 when its manifest is not known here.
	Leaves int
	// Stretches divide them, in order, into parts that are as even as can be.
	Stretches []Stretch
}

// Stretch is a run of leaves.
type Stretch struct {
	// First is its first leaf, and Leaves how many there are.
	First, Leaves int
	// Here is how many of them are on this host, and Asked how many more a peer was asked for.
	Here, Asked int
	// Peer is who was asked for the most of them, or "".
	Peer dray.PeerID
	// Copies is how many connected peers have the leaf that the fewest have, by what they told, of at most 64 leaves that lie
	// evenly in the stretch.
	Copies int
}

// copySample is how many leaves of a stretch are looked at for how many peers have them.
const copySample = 64

// Pieces describes the leaves of a root in at most so many stretches. It changes nothing. What it costs is bounded by the
// number of stretches, of requests under way, and a sixty-fourth of the leaves.
func (e *Engine) Pieces(root cid.Cid, most int) Pieces {
	mf := e.manifests[root]
	if mf == nil || mf.m.Len() == 0 || most <= 0 {
		return Pieces{}
	}
	n := mf.m.Len()
	p := Pieces{Leaves: n, Stretches: make([]Stretch, min(n, most))}
	k := len(p.Stretches)
	for i := range p.Stretches {
		s := &p.Stretches[i]
		// In 64 bits, so that ten million leaves times a thousand stretches do not overflow where int has 32.
		s.First = int(int64(i) * int64(n) / int64(k))
		end := int(int64(i+1) * int64(n) / int64(k))
		s.Leaves = end - s.First
		s.Here = mf.here.within(s.First, end)
		least, step := ^uint16(0), max(s.Leaves/copySample, 1)
		for at := s.First; at < end; at += step {
			least = min(least, mf.avail[at])
		}
		s.Copies = int(least)
	}
	e.addAsked(mf, &p)
	return p
}

// addAsked counts what peers were asked for. A leaf that two were asked for counts once, for the first of them.
func (e *Engine) addAsked(mf *manifest, p *Pieces) {
	var seen leafSet
	count, most := make([]int, len(p.Stretches)), make([]int, len(p.Stretches))
	for _, o := range e.upPeers {
		clear(count)
		for a := o.flight.head; a != nil; a = a.next {
			if a.w.man != mf {
				continue
			}
			if seen == nil {
				seen = newLeafSet(p.Leaves)
			}
			i := int(a.w.leaf)
			if mf.here.has(i) || !seen.add(i) {
				continue
			}
			k := p.stretch(i)
			s := &p.Stretches[k]
			s.Asked++
			if count[k]++; count[k] > most[k] {
				most[k], s.Peer = count[k], o.id
			}
		}
	}
}

// stretch returns the index of the stretch in which leaf i lies.
func (p *Pieces) stretch(i int) int {
	k := int(int64(i) * int64(len(p.Stretches)) / int64(p.Leaves))
	for k+1 < len(p.Stretches) && p.Stretches[k+1].First <= i {
		k++ // the division before was rounded down
	}
	return k
}

// within returns how many leaves from one to before another are in s.
func (s leafSet) within(from, end int) int {
	n := 0
	for k := from >> 6; k<<6 < end; k++ {
		w := s[k]
		if k == from>>6 {
			w &= ^uint64(0) << (from & 63)
		}
		if end-k<<6 < 64 {
			w &= 1<<(end-k<<6) - 1
		}
		n += bits.OnesCount64(w)
	}
	return n
}
