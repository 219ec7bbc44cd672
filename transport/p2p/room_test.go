package p2p

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	"dray/transport"
)

// TestRoomUnderFlood: strangers fill a host, many times over. Whoever is kept, was served lately or was dialled stays, a
// member gets in, and so does a newcomer whom nobody knows.
func TestRoomUnderFlood(t *testing.T) {
	const room = 8
	b := bulkHost(t, Config{Limits: Limits{Conns: room, LowConns: room}})
	var mu sync.Mutex
	down := make(map[dray.PeerID]bool)
	b.Notify(func(transport.Conn) {}, func(id dray.PeerID) {
		mu.Lock()
		defer mu.Unlock()
		down[id] = true
	})
	served, dialled, member, early := bulkHost(t, Config{}), bulkHost(t, Config{}), bulkHost(t, Config{}), bulkHost(t, Config{})
	b.Keep(member.Self(), true)
	b.Keep(early.Self(), true)
	meet(t, early, b)
	_, bs := meet(t, served, b)
	bs.passed(usefulBytes)
	meet(t, b, dialled)

	for range 3 * room {
		meet(t, bulkHost(t, Config{Listen: []string{}}), b) // each gets in
	}
	until(t, "the host is within its room", func() bool { return b.count() <= room })
	ab, ba := meet(t, member, b)
	echoBulk(t, ab)
	echoBulk(t, ba)
	ab, _ = meet(t, bulkHost(t, Config{Listen: []string{}}), b)
	echoBulk(t, ab)
	mu.Lock()
	defer mu.Unlock()
	for name, h := range map[string]*Host{"served": served, "dialled": dialled, "member": member, "early": early} {
		if down[h.Self()] {
			t.Errorf("the one that is %s was disconnected", name)
		}
	}
	if len(down) < 2*room {
		t.Errorf("%d strangers were disconnected, want %d at least", len(down), 2*room)
	}
}

// TestRoomOfTheKept: nobody is disconnected for a stranger when all are kept, and kept ones get in beyond the limit.
func TestRoomOfTheKept(t *testing.T) {
	b := bulkHost(t, Config{Limits: Limits{Conns: 2}})
	var paths []*conn
	for range 4 {
		a := bulkHost(t, Config{Listen: []string{}})
		b.Keep(a.Self(), true)
		ab, _ := meet(t, a, b)
		paths = append(paths, ab)
	}
	a := bulkHost(t, Config{Listen: []string{}})
	gone := make(chan struct{}, 1)
	a.Notify(func(transport.Conn) {}, func(dray.PeerID) { gone <- struct{}{} })
	if _, err := a.Dial(soon(t), b.Self(), b.Addrs()); err == nil {
		select {
		case <-gone:
		case <-soon(t).Done():
			t.Fatal("a stranger got in where there are only kept ones")
		}
	}
	for _, ab := range paths {
		echoBulk(t, ab)
	}
}

// meet connects a to b, and returns the connection as each side has it.
func meet(t *testing.T, a, b *Host) (ab, ba *conn) {
	t.Helper()
	c, err := a.Dial(soon(t), b.Self(), b.Addrs())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the other side has it too", func() bool {
		ba = b.lookup(peer.ID(a.Self()))
		return ba != nil
	})
	return c.(*conn), ba
}

func (h *Host) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.room.open
}

// pretended is a connection of which only what room.go looks at is there.
type pretended struct {
	network.Conn
	from   ma.Multiaddr
	id     peer.ID
	out    bool
	closed chan struct{}
}

func (p *pretended) RemoteMultiaddr() ma.Multiaddr { return p.from }
func (p *pretended) RemotePeer() peer.ID           { return p.id }

func (p *pretended) Stat() (s network.ConnStats) {
	s.Direction = network.DirInbound
	if p.out {
		s.Direction = network.DirOutbound
	}
	return s
}

func (p *pretended) CloseWithError(network.ConnErrorCode) error {
	close(p.closed)
	return nil
}

func TestRoomIsMadeFor(t *testing.T) {
	old, young := 20*time.Second, time.Second
	type who struct {
		from string
		age  time.Duration
		what string // "", "kept", "useful", "dialled"; "out" is dialled by libp2p for its own ends
	}
	tests := []struct {
		name string
		l    Limits
		here []who
		who  who
		goes int // index in here, len(here) is the newcomer, -1 nobody
	}{
		{"there is room", Limits{Conns: 4}, []who{{"192.0.2.1", old, ""}}, who{"192.0.2.2", 0, ""}, -1},
		{"it fills", Limits{Conns: 4, LowConns: 2}, []who{{"192.0.2.1", young, ""}, {"192.0.2.3", old, ""}}, who{"192.0.2.2", 0, ""}, 1},
		{"it fills fast", Limits{Conns: 4, LowConns: 2}, []who{{"192.0.2.1", young, ""}, {"192.0.2.3", young, ""}}, who{"192.0.2.2", 0, ""}, -1},
		{"full", Limits{Conns: 2}, []who{{"192.0.2.1", young, ""}, {"192.0.2.3", 2 * young, ""}}, who{"192.0.2.2", 0, ""}, 1},
		{"full, a kept one comes", Limits{Conns: 2}, []who{{"192.0.2.1", young, ""}, {"192.0.2.3", old, "useful"}}, who{"192.0.2.2", 0, "kept"}, 0},
		{"full of kept", Limits{Conns: 2}, []who{{"192.0.2.1", old, "kept"}, {"192.0.2.3", old, "dialled"}}, who{"192.0.2.2", 0, ""}, 2},
		{"full of kept, another comes", Limits{Conns: 2}, []who{{"192.0.2.1", old, "kept"}, {"192.0.2.3", old, "dialled"}}, who{"192.0.2.2", 0, "kept"}, -1},
		{"full of kept and one of libp2p's", Limits{Conns: 2}, []who{{"192.0.2.1", old, "kept"}, {"192.0.2.3", old, "out"}}, who{"192.0.2.2", 0, ""}, 1},
		{"one address", Limits{Conns: 9, ConnsPerIP: 2}, []who{{"192.0.2.9", old, ""}, {"192.0.2.1", old, ""}, {"192.0.2.1", young, ""}}, who{"192.0.2.1", 0, ""}, 1},
		{"loopback is free", Limits{Conns: 9, ConnsPerIP: 2}, []who{{"127.0.0.1", old, ""}, {"127.0.0.1", old, ""}, {"127.0.0.1", young, ""}}, who{"127.0.0.1", 0, ""}, -1},
	}
	for _, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			h := bulkHost(t, Config{Listen: []string{}})
			h.room = newRoom(x.l.withDefaults())
			var all []*pretended
			for i, w := range append(x.here, x.who) {
				p := &pretended{
					from: ma.StringCast("/ip4/" + w.from + "/tcp/1"), id: peer.ID(fmt.Sprint("peer ", i)),
					out: w.what == "out", closed: make(chan struct{}),
				}
				all = append(all, p)
				h.Keep(dray.PeerID(p.id), w.what == "kept")
				c := &conn{host: h, id: p.id, since: time.Now().Add(-w.age), paths: []network.Conn{p}, dialled: w.what == "dialled"}
				if w.what == "useful" {
					c.passed(usefulBytes)
				}
				h.mu.Lock()
				h.peers[p.id] = c
				h.room.count(p)
				if i == len(x.here) {
					h.makeRoom(c, p)
				}
				h.mu.Unlock()
			}
			h.wg.Wait()
			for i, p := range all {
				went := false
				select {
				case <-p.closed:
					went = true
				default:
				}
				if went != (i == x.goes) {
					t.Errorf("%d went: %v", i, went)
				}
				h.mu.Lock()
				delete(h.peers, p.id)
				h.room.discount(p)
				h.mu.Unlock()
			}
			if h.room.open != 0 || len(h.room.from)+len(h.room.leaving) != 0 {
				t.Errorf("left: %d open, %v, %v", h.room.open, h.room.from, h.room.leaving)
			}
		})
	}
}

func TestSourceOf(t *testing.T) {
	for text, want := range map[string]string{
		"/ip4/192.0.2.7/tcp/1":            "192.0.2.7/32",
		"/ip6/2001:db8:1:2:3::4/tcp/1":    "2001:db8:1::/56",
		"/ip6/::ffff:192.0.2.7/udp/1":     "192.0.2.7/32",
		"/ip4/127.0.0.1/tcp/1":            "",
		"/ip6/::1/tcp/1":                  "",
		"/dns4/dray.example/tcp/1":        "",
		"/ip4/192.0.2.7/udp/4001/quic-v1": "192.0.2.7/32",
	} {
		got, ok := sourceOf(&pretended{from: ma.StringCast(text)})
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s is from %v, %v; want %q", text, got, ok, want)
		}
	}
}
