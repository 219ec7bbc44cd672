package exchange

import (
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// bar does something about who may have what.
func (f *fuzzed) bar() {
	e := f.e
	switch root := f.roots[f.byte()%2].Root(); f.byte() % 12 {
	case 0, 1:
		e.Guard(f.now, root, f.block().CID(), f.block().CID(), f.block().CID())
	case 2:
		e.Open(f.now, f.block().CID())
	case 3:
		e.Unguard(f.now, root)
	case 4:
		b := f.byte()
		g := &scriptGate{
			may: map[cid.Cid][]dray.PeerID{}, opens: map[byte]cid.Cid{1: root}, mine: map[cid.Cid]byte{root: byte(b % 3)},
		}
		if b&8 != 0 {
			g.may[root] = []dray.PeerID{"B"}
		}
		if b&16 != 0 {
			g.opens[2] = f.roots[0].Root()
		}
		if b&96 == 96 {
			g.only = []dray.PeerID{"A"}
		}
		e.SetGate(f.now, g)
	case 5, 6, 7:
		peer := dray.PeerID([]string{"A", "B"}[f.byte()%2])
		m, blocks := f.message(peer)
		for i := range m.Follows {
			if !m.Follows[i].Stop {
				m.Follows[i].Proof = dray.Proof{byte(f.byte() % 4)}
			}
		}
		for i := range m.Walks {
			if !m.Walks[i].Stop {
				m.Walks[i].Proof = dray.Proof{byte(f.byte() % 4)}
			}
		}
		for i := range m.Wants {
			if m.Wants[i].Leaves.Feed == 0 && !m.Wants[i].Cancel {
				m.Wants[i].Feed = uint32(f.byte() % 5)
			}
		}
		for i := range m.Haves {
			if f.byte()%3 == 0 {
				m.Haves[i] = wire.Have{Feed: m.Haves[i].Feed, Denied: true}
			}
		}
		e.Receive(f.now, peer, m, blocks)
	}
	for _, b := range e.ready.Blocks {
		p := e.peers[b.Peer]
		if guarded := e.access.of(b.CID) != nil; guarded && !b.Guarded {
			// It may have become so since.
			continue
		} else if b.Guarded && guarded && p.up && !e.mayHave(p, b.CID, p.serve.wants[b.CID].root) && !p.serve.wants[b.CID].hidden {
			f.fatalf("%v goes to %s, who may not have it", b.CID, string(b.Peer))
		}
	}
	f.turn()
}

// FuzzAccess is FuzzEngine with roots that become closed and open, and gates that change, in between.
func FuzzAccess(f *testing.F) {
	addNoise(f, 60, 900, 54321)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4000 {
			return
		}
		for z := newFuzzed(t, in); len(z.in) > 0; {
			z.bar()
			z.step()
		}
	})
}
