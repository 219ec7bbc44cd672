package exchange

import (
	"math/rand/v2"
	"testing"
	"time"

	"dray"
	"dray/wire"
)

// pair is two engines whose messages reach each other in order, and late when the test says so.
type pair struct {
	t    *testing.T
	e    [2]*Engine
	id   [2]dray.PeerID
	man  *dray.Manifest
	here [2]leafSet // the truth
	now  time.Duration
	way  [2][]*wire.Message // written by one, on their way to the other
	up   bool
}

func (p *pair) connect(up bool) {
	p.up = up
	for k := range p.e {
		p.way[k] = nil
		if up {
			p.e[k].PeerUp(p.now, p.id[1-k], Caps{Haves: true, Indexes: true})
		} else {
			p.e[k].PeerDown(p.now, p.id[1-k])
		}
	}
}

// turn does what both engines ask for. Each takes its next message only when late is false.
func (p *pair) turn(late bool) (busy bool) {
	for k, e := range p.e {
		if !late && len(p.way[1-k]) > 0 {
			m := p.way[1-k][0]
			p.way[1-k] = p.way[1-k][1:]
			e.Receive(p.now, p.id[1-k], m, nil)
			busy = true
		}
		r := e.Ready()
		if err := e.Check(); err != nil {
			p.t.Fatal(err)
		}
		for _, d := range r.Drops {
			p.t.Fatalf("%v is dropped: %s", d.Peer, d.Violation.What)
		}
		for range r.Manifests {
			e.ManifestLoaded(p.now, p.man.Root(), p.man, append(leafSet(nil), p.here[k]...))
		}
		for _, s := range r.Sends {
			p.way[k] = append(p.way[k], s.Message.Clone())
			e.Sent(p.now, s.Peer)
		}
		if r.Sync {
			e.Synced(p.now)
		}
		busy = busy || !r.Empty()
	}
	return busy || len(p.way[0])+len(p.way[1]) > 0
}

// TestFeedsConverge: whatever is added, removed, followed, ended and cut, once it is quiet each side knows of the other all
// leaves that it lacks itself, and believes in none that are gone (invariant 9).
func TestFeedsConverge(t *testing.T) {
	const leaves = 300
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		p := &pair{t: t, id: [2]dray.PeerID{"A", "B"}, man: dray.NewManifest(testBlock(t, 999, 10).CID(), leaves)}
		for i := range leaves {
			p.man.Append(testBlock(t, i, 10).CID(), 10)
		}
		p.man.Index()
		var sessions [2]SessionID
		for k := range p.e {
			p.e[k], p.here[k] = New(Config{Seed: seed + 1}), newLeafSet(leaves)
		}
		p.connect(true)
		for range 400 {
			p.now += time.Millisecond
			k := r.IntN(2)
			e, i := p.e[k], r.IntN(leaves)
			switch op := r.IntN(40); {
			case op < 18:
				p.here[k].add(i)
				e.Added(p.now, p.man.Leaf(i), 10)
			case op < 28:
				if p.here[k].remove(i) {
					e.Removed(p.now, p.man.Leaf(i))
				}
			case op < 30 && sessions[k] == 0:
				sessions[k] = e.OpenSession(p.now, SessionConfig{Root: p.man.Root()})
				e.SetManifest(p.now, sessions[k], p.man)
				for i := p.here[k].next(0); i >= 0; i = p.here[k].next(i + 1) {
					e.Here(p.now, p.man.Root(), i)
				}
			case op == 30:
				e.CancelSession(p.now, sessions[k])
				sessions[k] = 0
			case op == 31:
				p.connect(!p.up)
			}
			p.turn(r.IntN(3) > 0)
		}
		if !p.up {
			p.connect(true)
		}
		for n := 0; p.turn(false); n++ {
			if n > 1000 {
				t.Fatalf("seed %d: they do not stop talking", seed)
			}
		}
		for k, e := range p.e {
			f := e.peers[p.id[1-k]].feeds[p.man.Root()]
			if sessions[k] == 0 {
				continue
			}
			for i := range leaves {
				has, said := p.here[1-k].has(i), f.theirs != nil && f.theirs.has(i)
				if said && !has || has && !said && !p.here[k].has(i) {
					t.Fatalf("seed %d: %v has leaf %d: %v; %v believes %v", seed, p.id[1-k], i, has, p.id[k], said)
				}
			}
		}
	}
}
