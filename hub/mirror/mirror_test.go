package mirror

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"dray"
)

// Three clients of three nodes at once.
func TestAllAtOnce(t *testing.T) {
	h := upstream(t, model())
	list := swarm(t, h, 3, nil)
	all(list, func(p *party) { p.wants(t, h) })
	once(t, h)
}

// One client after the other.
func TestOneAfterAnother(t *testing.T) {
	h := upstream(t, model())
	for _, p := range swarm(t, h, 3, nil) {
		p.wants(t, h)
	}
	once(t, h)
}

// The upstream is gone when all is here; one node has not even heard of the commit's files.
func TestUpstreamDown(t *testing.T) {
	h := upstream(t, model())
	list := swarm(t, h, 3, nil)
	all(list, func(p *party) { p.wants(t, h) })
	h.Set(func() { h.Down = true })
	for _, p := range list {
		p.wants(t, h)
	}
	once(t, h)
}

// An upstream that breaks off every few hundred KiB.
func TestBreaksOff(t *testing.T) {
	h := upstream(t, model())
	h.Set(func() { h.BreakAt = 700 << 10 })
	list := swarm(t, h, 3, func(_ *Config, u *UpstreamConfig) { u.Backoff = time.Millisecond })
	all(list, func(p *party) { p.wants(t, h) })
	once(t, h)
}

// Five follow one, and get most of it from each other. How much depends on how busy the machine is, so it is only told.
func TestManyFollow(t *testing.T) {
	const path, size = "weights/extra.bin", 8 * mib
	h := upstream(t, map[string][]byte{path: noise(2, size)})
	h.Set(func() { h.Rate = 8 * mib })
	list := swarm(t, h, 6, nil)
	for _, r := range begin(list, path)() {
		if r.err != nil || string(r.data) != string(h.Files[path]) {
			t.Errorf("%d bytes, %v", len(r.data), r.err)
		}
	}
	once(t, h)
	for _, p := range list {
		t.Logf("%s has read %.2f copies for others", p.Self().Short(), float64(p.node.Load().Read)/size)
	}
}

// bystander is a Swarm for tests of who asks whom.
type bystander struct {
	Swarm
	self  dray.PeerID
	peers []dray.PeerID
}

func (b *bystander) Self() dray.PeerID                    { return b.self }
func (b *bystander) Peers() []dray.PeerID                 { return b.peers }
func (b *bystander) Session(bool, ...dray.PeerID) Session { return silent{} }

// silent is a Session that is never asked.
type silent struct{ dray.Getter }

func (silent) Close() error { return nil }

// Of those who follow the same peer, all say of each leaf that it belongs to the same one; each has about as many; and nobody asks
// one that is late again and again, or that is not connected.
func TestFellows(t *testing.T) {
	const n, leaves = 5, 2000
	var ids []dray.PeerID
	for i := range n {
		ids = append(ids, idOf(i))
	}
	var all []*fellows
	for i := range n {
		f := &fellows{
			swarm: &bystander{self: ids[i], peers: ids}, sessions: make(map[dray.PeerID]Session), late: make(map[dray.PeerID]int),
		}
		f.are(slices.DeleteFunc(slices.Clone(ids), func(id dray.PeerID) bool { return id == ids[i] }))
		f.are(append(slices.Clone(f.list), "a stranger"))
		all = append(all, f)
	}
	count := make(map[dray.PeerID]int)
	for k := range leaves {
		leaf := leafOf(t, fmt.Sprint(k))
		owner, _ := all[0].of(leaf)
		count[owner]++
		for i, f := range all {
			got, session := f.of(leaf)
			if got != owner || (session == nil) != (owner == ids[i]) {
				t.Fatalf("leaf %d belongs to %v, and to %v as %v says", k, owner, got, ids[i])
			}
		}
	}
	for id, k := range count {
		if k < leaves/n/2 || k > leaves/n*2 {
			t.Errorf("%v has %d leaves of %d", id, k, leaves)
		}
	}
	f := all[0]
	for _, soon := range []bool{false, false, true, false, false} {
		f.came(ids[1], soon)
	}
	owns := func() (n int) {
		for k := range leaves {
			if owner, _ := f.of(leafOf(t, fmt.Sprint(k))); owner == ids[1] {
				n++
			}
		}
		return n
	}
	if owns() != count[ids[1]] {
		t.Error("who is late twice in a row is not asked any more")
	}
	if f.came(ids[1], false); owns() != 0 {
		t.Error("who is late all the time is asked still")
	}
}
