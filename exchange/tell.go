package exchange

import (
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// Mate is a connected peer that this host shares a root with.
type Mate struct {
	// Peer is who.
	Peer dray.PeerID
	// Leaves is how many leaves of the root the peer has said that it has, if they can be counted.
	Leaves int
	// Whole says that it has all of them, Fetches that it wants to hear of more.
	Whole, Fetches bool
}

// Mates returns the connected peers that have told of leaves of root, or want to hear of them and may, in order of connection.
func (e *Engine) Mates(root cid.Cid) []Mate {
	var out []Mate
	for _, p := range e.upPeers {
		f := p.feeds[root]
		if f == nil || f.hidden {
			continue
		}
		m := Mate{Peer: p.id, Leaves: f.n, Fetches: f.number != 0}
		m.Whole = f.m != nil && f.n > 0 && f.n == f.m.m.Len()
		if m.Fetches || m.Leaves > 0 {
			out = append(out, m)
		}
	}
	return out
}

// MayTell reports whether a connected peer may be told about a root: it is open; or the peer has shown a proof for it, also
// before, or with this call; or it is a member and the root is for members.
func (e *Engine) MayTell(now time.Duration, id dray.PeerID, root cid.Cid, proof dray.Proof) bool {
	e.now = now
	p := e.peers[id]
	if p == nil || !p.up {
		return false
	}
	if !proof.IsZero() && e.access.of(root) != nil {
		e.opens(p, proof, root)
	}
	return e.mayAbout(p, root)
}

// Guarded reports whether c lies under roots that are not open, and under no open one.
func (e *Engine) Guarded(c cid.Cid) bool { return e.access.of(c) != nil }

// Prove returns what to show to a connected peer to be told about a root, or no proof.
func (e *Engine) Prove(id dray.PeerID, root cid.Cid) dray.Proof {
	p := e.peers[id]
	if p == nil || !p.up {
		return dray.Proof{}
	}
	return e.prove(root, p)
}
