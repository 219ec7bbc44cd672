package exchange

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// leakWorld is one engine with its store, of which a stranger sees what is sent to it.
type leakWorld struct {
	t    *testing.T
	e    *Engine
	now  time.Duration
	has  map[string]dray.Block // by multihash
	man  *dray.Manifest        // if the root is here
	said bytes.Buffer          // to the stranger
}

const stranger = dray.PeerID("stranger")

// settle plays the driver until there is nothing to do.
func (w *leakWorld) settle() {
	for {
		r := w.e.Ready()
		if err := w.e.Check(); err != nil {
			w.t.Fatal(err)
		}
		if r.Empty() {
			return
		}
		w.now += time.Microsecond
		sends, loads, blocks := r.Sends, append([]Load(nil), r.Loads...), append([]BlockSend(nil), r.Blocks...)
		manifests, walks := append([]ManifestLoad(nil), r.Manifests...), append([]WalkLoad(nil), r.Walks...)
		for _, s := range sends {
			if s.Peer == stranger {
				v := wire.V120
				if w.e.peers[stranger].caps.Indexes {
					v = wire.Swap1
				}
				b, err := wire.AppendMessage(nil, v, s.Message)
				if err != nil {
					w.t.Fatal(err)
				}
				w.said.Write(b)
			}
		}
		for _, s := range sends {
			w.e.Sent(w.now, s.Peer)
		}
		for _, b := range blocks {
			if b.Peer == stranger {
				fmt.Fprintf(&w.said, "block %v", b.CID)
			}
			w.e.BlockSent(w.now, b.Peer, b.CID)
		}
		for _, l := range loads {
			b, ok := w.has[dray.HashKey(l.CID)]
			if !ok {
				w.e.Loaded(w.now, l, 0, nil, dray.ErrNotFound)
				continue
			}
			w.e.Loaded(w.now, l, int64(b.Size()), b.Data(), nil)
		}
		for _, m := range manifests {
			if w.man != nil && dray.HashKey(m.Root) == dray.HashKey(w.man.Root()) {
				here := newLeafSet(w.man.Len())
				for i := range w.man.Len() {
					here.add(i)
				}
				w.e.ManifestLoaded(w.now, m.Root, w.man, here)
			} else {
				w.e.ManifestLoaded(w.now, m.Root, nil, nil)
			}
		}
		for _, l := range walks {
			if !l.Walk.Stop {
				w.walk(l)
			}
		}
	}
}

// walk answers with the root's block, as a driver does that is bounded by the walk's bytes.
func (w *leakWorld) walk(l WalkLoad) {
	part := WalkPart{Last: true, Status: wire.WalkAbsent}
	if b, ok := w.has[dray.HashKey(l.Walk.Root)]; ok && uint64(b.Size()) <= l.Walk.Bytes {
		part.Status = wire.WalkWhole
		part.Blocks = []wire.Block{{Prefix: b.CID().Prefix(), Data: b.Data()}}
		part.CIDs = []cid.Cid{b.CID()}
	}
	w.e.WalkLoaded(w.now, l.Peer, l.Walk.ID, part)
}

// What a stranger gets to see of a host that has a root which is not for it is, byte for byte, what it gets to see of one
// that has never heard of the root: whatever it asks, over either protocol, with proofs or without.
func TestNothingLeaks(t *testing.T) {
	for seed := range 400 {
		r := rand.New(rand.NewPCG(uint64(seed), 77))
		root := testBlock(t, 1, 300)
		var leaves []dray.Block
		man := dray.NewManifest(root.CID(), 8)
		for i := range 8 {
			b := testBlock(t, 10+i, 50+700*i)
			leaves = append(leaves, b)
			man.Append(b.CID(), int64(b.Size()))
		}
		man.Index()
		open := testBlock(t, 50, 2000)
		gate := &scriptGate{opens: map[byte]cid.Cid{1: root.CID()}}
		full := &leakWorld{t: t, e: New(Config{Gate: gate}), has: map[string]dray.Block{}, man: man, now: 1}
		empty := &leakWorld{t: t, e: New(Config{Gate: &scriptGate{}}), has: map[string]dray.Block{}, now: 1}
		full.e.Guard(full.now, root.CID(), man.Leaf(0), man.Leaf(1), man.Leaf(2), man.Leaf(3), man.Leaf(4), man.Leaf(5), man.Leaf(6), man.Leaf(7))
		full.has[dray.HashKey(root.CID())] = root
		late := leaves[6:]
		for _, b := range leaves[:6] {
			full.has[dray.HashKey(b.CID())] = b
		}
		caps := Caps{Haves: true, Indexes: seed%3 > 0}
		for _, w := range []*leakWorld{full, empty} {
			w.has[dray.HashKey(open.CID())] = open
			w.e.PeerUp(w.now, stranger, caps)
		}
		full.e.PeerUp(full.now, "friend", Caps{Haves: true, Indexes: true})
		full.e.Receive(full.now, "friend", &wire.Message{
			Full: true, Seq: 1, Credit: 1 << 30, Follows: []wire.Follow{{Feed: 1, Root: root.CID(), Proof: dray.Proof{1}}},
		}, nil)
		name := func() cid.Cid {
			all := append([]dray.Block{root, open}, leaves...)
			c := all[r.IntN(len(all))].CID()
			if r.IntN(4) == 0 {
				return cid.NewCidV1(cid.DagCBOR, c.Hash())
			}
			return c
		}
		seq, feed, walk := uint64(0), uint32(0), uint32(0)
		friendSeq := uint64(1)
		for range 30 {
			m := &wire.Message{}
			for range r.IntN(5) {
				en := wire.Entry{CID: name(), SendDontHave: r.IntN(4) > 0, Priority: int32(r.IntN(3)), Cancel: r.IntN(6) == 0}
				en.Type = wire.WantType(r.IntN(2))
				if caps.Indexes && feed > 0 && r.IntN(2) == 0 {
					en.Feed = 1 + uint32(r.IntN(int(feed)))
				}
				m.Wants = append(m.Wants, en)
			}
			if caps.Indexes {
				seq++
				m.Seq, m.Full, m.Credit = seq, seq == 1, 1<<30
				proof := func() dray.Proof { return dray.Proof{byte(r.IntN(2) * 9)} }
				if r.IntN(3) == 0 {
					feed++
					if !followed(full.e, m, root.CID()) {
						m.Follows = append(m.Follows, wire.Follow{Feed: feed, Root: root.CID(), Proof: proof()})
					}
				}
				if r.IntN(3) == 0 {
					walk++
					m.Walks = append(m.Walks, wire.Walk{ID: walk, Root: name(), Bytes: 1 << 20, Push: 1 << 20, Proof: proof()})
				}
			}
			copied := *m
			full.e.Receive(full.now, stranger, m, nil)
			empty.e.Receive(empty.now, stranger, &copied, nil)
			if r.IntN(4) == 0 && len(late) > 0 { // more of the root comes
				b := late[0]
				late = late[1:]
				full.has[dray.HashKey(b.CID())] = b
				full.e.Added(full.now, b.CID(), int64(b.Size()))
			}
			if r.IntN(3) == 0 { // somebody else gets it meanwhile
				friendSeq++
				full.e.Receive(full.now, "friend", &wire.Message{Seq: friendSeq, Wants: []wire.Entry{
					{CID: leaves[r.IntN(8)].CID(), Feed: 1, SendDontHave: true},
				}}, nil)
			}
			full.settle()
			empty.settle()
			if !bytes.Equal(full.said.Bytes(), empty.said.Bytes()) {
				t.Fatalf("seed %d: a host that has the root says\n%q\nand one that does not\n%q", seed, full.said.String(), empty.said.String())
			}
		}
		if full.e.Account("friend").Sent == 0 {
			t.Fatalf("seed %d: who may have the root got nothing of it", seed)
		}
	}
}

// followed reports whether the stranger follows a root already: following it under two numbers would be an offence.
func followed(e *Engine, _ *wire.Message, root cid.Cid) bool {
	f := e.peers[stranger].feeds[root]
	return f != nil && f.number != 0
}

// Blocks are under the roots that were named, whatever the order, and open when none is left.
func TestGuardSets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	e := New(Config{})
	const roots, blocks = 5, 40
	cids := make([]cid.Cid, blocks)
	for i := range cids {
		cids[i] = testBlock(t, i, 10).CID()
	}
	model := make(map[int]map[int]bool) // block → roots
	guarded := make(map[int]bool)
	for step := range 3000 {
		root, i := r.IntN(roots), r.IntN(blocks)
		switch r.IntN(8) {
		case 0:
			e.Unguard(0, cids[root])
			delete(guarded, root)
			for _, m := range model {
				delete(m, root)
			}
		case 1:
			e.Open(0, cids[i])
			delete(model, i)
		default:
			e.Guard(0, cids[root], cids[i])
			under := []int{i}
			if !guarded[root] {
				guarded[root] = true
				under = append(under, root)
			}
			for _, k := range under {
				if model[k] == nil {
					model[k] = make(map[int]bool)
				}
				model[k][root] = true
			}
		}
		for k, c := range cids {
			set := e.access.of(c)
			n := 0
			if set != nil {
				n = len(set.list)
			}
			if n != len(model[k]) {
				t.Fatalf("step %d: block %d is under %d roots, want %v", step, k, n, model[k])
			}
			for root := range model[k] {
				if !set.has(e.access.guards[keyOf(cids[root])]) {
					t.Fatalf("step %d: block %d is not under root %d", step, k, root)
				}
			}
		}
	}
	if n := len(e.access.sets); n > 1<<roots {
		t.Errorf("%d sets of %d roots", n, roots)
	}
}

// A guarded block costs a host about as much as the design says: 100 bytes at most.
func TestGuardMemory(t *testing.T) {
	const n = 100_000
	cids := make([]cid.Cid, n)
	for i := range cids {
		cids[i] = testBlock(t, i, 8).CID()
	}
	e := New(Config{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	for i := 0; i < n; i += 4096 {
		e.Guard(0, cids[0], cids[i:min(i+4096, n)]...)
	}
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%d blocks: %.0f bytes each, %v", n, each, took)
	if each > 100 {
		t.Errorf("a guarded block costs %.0f bytes", each)
	}
	runtime.KeepAlive(e)
	runtime.KeepAlive(cids)
}
