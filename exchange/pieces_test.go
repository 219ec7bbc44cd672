package exchange

import (
	"math/rand/v2"
	"testing"
	"time"

	"dray"
	"dray/wire"
)

// TestPieces compares a description by stretches with what is known of each leaf.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 63, 64, 65, 100, 1000, 1024, 1025, 5000} {
		for _, most := range []int{1, 3, 64, 1024} {
			e := New(Config{})
			root := testBlock(t, 1<<20, 8).CID()
			m := dray.NewManifest(root, n)
			for i := range n {
				m.Append(testBlock(t, i, 8).CID(), 8)
			}
			s := e.OpenSession(0, SessionConfig{Root: root})
			if !e.SetManifest(0, s, m) {
				t.Fatal("the manifest was refused")
			}
			mf := e.manifests[root]
			for i := range n {
				mf.avail[i] = uint16(r.IntN(5))
				if r.IntN(3) == 0 {
					e.Here(0, root, i)
				}
			}
			p := e.Pieces(root, most)
			if p.Leaves != n || len(p.Stretches) != min(n, most) {
				t.Fatalf("%d leaves in %d: %d in %d", n, most, p.Leaves, len(p.Stretches))
			}
			at := 0
			for k, x := range p.Stretches {
				if x.First != at || x.Leaves < 1 {
					t.Fatalf("%d in %d: stretch %d is %d+%d, want one from %d on", n, most, k, x.First, x.Leaves, at)
				}
				here, least := 0, ^uint16(0)
				for i := at; i < at+x.Leaves; i++ {
					if mf.here.has(i) {
						here++
					}
					least = min(least, mf.avail[i])
					if p.stretch(i) != k {
						t.Fatalf("%d in %d: leaf %d is in %d, want %d", n, most, i, p.stretch(i), k)
					}
				}
				if x.Here != here || x.Leaves <= copySample && x.Copies != int(least) || x.Copies < int(least) {
					t.Fatalf("%d in %d: stretch %d has %d here and %d copies, want %d and %d", n, most, k, x.Here, x.Copies, here, least)
				}
				at += x.Leaves
			}
			if at != n {
				t.Fatalf("%d in %d: the stretches end at %d", n, most, at)
			}
		}
	}
}

// TestPiecesAsked says who was asked for which leaves.
func TestPiecesAsked(t *testing.T) {
	const n = 16
	e := New(Config{})
	root := testBlock(t, 1<<20, 8).CID()
	m := dray.NewManifest(root, n)
	for i := range n {
		m.Append(testBlock(t, i, 8).CID(), 8)
	}
	e.PeerUp(0, "A", Caps{Haves: true})
	s := e.OpenSession(0, SessionConfig{Root: root, Peers: []dray.PeerID{"A"}})
	e.SetManifest(0, s, m)
	e.Here(0, root, 0)
	e.Demand(0, s, 1, n-1)
	for _, x := range e.Ready().Sends {
		e.Sent(time.Millisecond, x.Peer)
	}
	p := e.Pieces(root, 4)
	asked := 0
	for _, x := range p.Stretches {
		if asked += x.Asked; x.Asked > 0 && x.Peer != "A" {
			t.Fatalf("%+v: A was asked", x)
		}
	}
	if asked == 0 || p.Stretches[0].Here != 1 {
		t.Fatalf("%+v: one leaf is here and others were asked for", p)
	}
	b := testBlock(t, 1, 8)
	e.Receive(2*time.Millisecond, "A", &wire.Message{}, []dray.Block{b})
	e.Ready()
	e.Stored(3*time.Millisecond, b, nil)
	if q := e.Pieces(root, 4); q.Stretches[0].Here != 2 {
		t.Fatalf("%+v: a second leaf came", q.Stretches[0])
	}
	if q := e.Pieces(testBlock(t, 2, 8).CID(), 4); q.Leaves != 0 || q.Stretches != nil {
		t.Fatalf("%+v of a root that nobody knows", q)
	}
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkPieces is a look at ten million leaves.
func BenchmarkPieces(b *testing.B) {
	const n = 10_000_000
	e := New(Config{})
	root := testBlock(b, 1<<20, 8).CID()
	mf := &manifest{m: dray.NewManifest(root, n), here: newLeafSet(n), asked: newLeafSet(n), avail: make([]uint16, n)}
	leaf := testBlock(b, 1, 8).CID()
	for range n {
		mf.m.Append(leaf, 1)
	}
	e.manifests[root] = mf
	for b.Loop() {
		e.Pieces(root, 1024)
	}
}
