package node

import (
	"dray"
	"dray/exchange"
)

// PieceMap is where the leaves of a transfer are, in cells of neighbours.
type PieceMap struct {
	// Leaves is how many there are, as far as is known; 0 when the transfer has no map.
	Leaves int
	// Cells divide them in order.
	Cells []PieceCell
}

// PieceCell is a run of leaves.
type PieceCell struct {
	// Leaves is how many there are. Here are in their places, of which Reused were on this host before; Asked are on their way.
	Leaves, Here, Reused, Asked int
	// From is who gave the most of those that are here, and Of who is asked for the most of those on their way; "" if nobody is
	// known.
	From, Of dray.PeerID
	// Copies is how many connected peers have the leaf that the fewest have; -1 when not known.
	Copies int
}

// pieces puts together what the transfer and the engine know. The caller holds the lock.
func (e *docket) pieces(known exchange.Pieces, most int) PieceMap {
	m := PieceMap{Leaves: known.Leaves}
	if m.Leaves == 0 {
		m.Leaves = max(e.leaves, len(e.givers))
	}
	if m.Leaves == 0 || most <= 0 {
		return PieceMap{}
	}
	n := min(m.Leaves, most)
	m.Cells = make([]PieceCell, n)
	var from [giverMany + 1]int
	for i := range m.Cells {
		first, end := int(int64(i)*int64(m.Leaves)/int64(n)), int(int64(i+1)*int64(m.Leaves)/int64(n))
		c := &m.Cells[i]
		*c = PieceCell{Leaves: end - first, Copies: -1}
		clear(from[:])
		for k := first; k < min(end, len(e.givers)); k++ {
			from[e.givers[k]]++
		}
		best := 0
		for k := range e.gifts {
			g := &e.gifts[k]
			count := from[min(k+giverFirst, giverMany)]
			if c.Here += count; g.Kind == GiftHere {
				c.Reused += count
			}
			if g.Kind == GiftPeer && count > best {
				best, c.From = count, g.Peer
			}
		}
		if i < len(known.Stretches) && known.Leaves == m.Leaves {
			s := &known.Stretches[i]
			c.Copies, c.Asked, c.Of = s.Copies, s.Asked, s.Peer
			if e.t.Kind == KindFetch {
				c.Here = max(c.Here, s.Here) // what was written and is not counted yet
			}
		}
		c.Asked = min(c.Asked, c.Leaves-c.Here)
	}
	return m
}
