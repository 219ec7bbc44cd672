package p2p_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
)

// relayedAddrs are the addresses of a host that lead through a relay.
func relayedAddrs(h *p2p.Host) []string {
	return slices.DeleteFunc(h.Addrs(), func(a string) bool { return !strings.Contains(a, "/p2p-circuit/") })
}

// relayHost is one that relays for others, on one machine.
func relayHost(t *testing.T, l p2p.RelayLimits, swarm p2p.SwarmKey, addrs ...string) *p2p.Host {
	t.Helper()
	return start(t, p2p.Config{
		Listen: addrs, SwarmKey: swarm, Reach: p2p.Reach{Traverse: true, ServeRelay: true, RelayLimits: l},
	})
}

// TestRelayedThenDirect connects two hosts through a relay. Streams work on that, and it is said whose help was used; then a direct
// connection replaces it on both sides by itself, and streams are opened on it.
func TestRelayedThenDirect(t *testing.T) {
	for _, row := range []struct{ name, relay, hidden, direct string }{
		{"QUIC", quicAddr, quicAddr, "quic-v1"},
		{"TCP", tcpAddr, tcpAddr, "tcp"},
	} {
		t.Run(row.name, func(t *testing.T) {
			relay := relayHost(t, p2p.RelayLimits{}, p2p.SwarmKey{}, row.relay)
			hidden := start(t, p2p.Config{
				Listen: []string{row.hidden}, Reach: p2p.Reach{Traverse: true, Relays: []transport.Peer{contact(relay)}},
			})
			eventually(t, "the relay gives a lease", func() bool { return len(relayedAddrs(hidden)) > 0 })
			r := hidden.Reachability()
			if len(r.Leases) != 1 || r.Leases[0].Relay != relay.Self() || r.Leases[0].Data != 64<<20 || r.Leases[0].For != 10*time.Minute {
				t.Errorf("leases are %+v", r.Leases)
			}
			seeker := start(t, p2p.Config{Listen: []string{}, Reach: p2p.Reach{Traverse: true}})
			var mu sync.Mutex
			var told []string
			seeker.Notify(func(c transport.Conn) {
				mu.Lock()
				defer mu.Unlock()
				if c.Peer() == hidden.Self() {
					told = append(told, "up "+strings.Fields(c.Info().String())[0])
				}
			}, func(id dray.PeerID) {
				mu.Lock()
				defer mu.Unlock()
				if id == hidden.Self() {
					told = append(told, "down")
				}
			})
			latest := make(chan transport.Conn, 8)
			seeker.Notify(func(c transport.Conn) { latest <- c }, func(dray.PeerID) {})

			c := dial(t, seeker, hidden.Self(), relayedAddrs(hidden))
			if i := c.Info(); i.Relayed && i.Via != relay.Self() {
				t.Errorf("relayed via %v", i.Via)
			}
			eventually(t, "the connection is direct on both sides", func() bool {
				for len(latest) > 0 {
					if n := <-latest; n.Peer() == hidden.Self() {
						c = n
					}
				}
				return c.Info().String() == "direct over "+row.direct
			})
			echo(t, c, "/echo")
			eventually(t, "the relayed connection is gone", func() bool { return !seeker.HasRelayed(hidden.Self()) })
			echo(t, c, "/echo")
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(told, ", "); got != "up relayed, down, up direct" {
				t.Errorf("told: %s", got)
			}
		})
	}
}

// TestRelayed has hosts that do not punch holes: what they say passes through the relay.
func TestRelayed(t *testing.T) {
	key := p2p.NewSwarmKey()
	for _, row := range []struct {
		name  string
		swarm p2p.SwarmKey
	}{{"in the open", p2p.SwarmKey{}}, {"in a private swarm", key}} {
		t.Run(row.name, func(t *testing.T) {
			relay := relayHost(t, p2p.RelayLimits{}, row.swarm, tcpAddr)
			hidden := start(t, p2p.Config{
				Listen: []string{tcpAddr}, SwarmKey: row.swarm, Reach: p2p.Reach{Relays: []transport.Peer{contact(relay)}},
			})
			eventually(t, "the relay gives a lease", func() bool { return len(relayedAddrs(hidden)) > 0 })
			seeker := start(t, p2p.Config{
				Listen: []string{}, SwarmKey: row.swarm, Reach: p2p.Reach{Relays: []transport.Peer{contact(relay)}},
			})
			c := dial(t, seeker, hidden.Self(), relayedAddrs(hidden))
			if got, want := c.Info().String(), "relayed over tcp via "+relay.Self().String(); got != want {
				t.Errorf("the path is %s, want %s", got, want)
			}
			echo(t, c, "/echo")
			echoMuch(t, c)
			if _, err := c.(transport.Bulker).OpenBulk(t.Context(), "/echo"); err == nil {
				t.Error("a bulk connection through a relay")
			}
			if rtt, err := c.Ping(t.Context()); err != nil || rtt <= 0 {
				t.Errorf("ping: %v, %v", rtt, err)
			}
		})
	}
}

// TestRelayCuts has a relay carry no more than it allows.
func TestRelayCuts(t *testing.T) {
	relay := relayHost(t, p2p.RelayLimits{Data: 256 << 10}, p2p.SwarmKey{}, tcpAddr)
	reach := p2p.Reach{Relays: []transport.Peer{contact(relay)}}
	hidden := start(t, p2p.Config{Listen: []string{tcpAddr}, Reach: reach})
	eventually(t, "the relay gives a lease", func() bool { return len(relayedAddrs(hidden)) > 0 })
	seeker := start(t, p2p.Config{Listen: []string{}, Reach: reach})
	c := dial(t, seeker, hidden.Self(), relayedAddrs(hidden))
	s, err := c.Open(t.Context(), "/echo")
	if err != nil {
		t.Fatal(err)
	}
	spawn := group(t)
	spawn(func() { _, _ = s.Write(make([]byte, 4<<20)) })
	if n, err := io.Copy(io.Discard, s); err == nil || n >= 4<<20 {
		t.Errorf("the relay carried %d bytes, %v", n, err)
	}
	_ = s.Reset()
}

// TestRelayComesBack loses a relay and finds another one, and that one again.
func TestRelayComesBack(t *testing.T) {
	one := relayHost(t, p2p.RelayLimits{}, p2p.SwarmKey{}, tcpAddr)
	two := relayHost(t, p2p.RelayLimits{}, p2p.SwarmKey{}, tcpAddr)
	hidden := start(t, p2p.Config{
		Listen: []string{tcpAddr}, Reach: p2p.Reach{Relays: []transport.Peer{contact(one)}},
	})
	eventually(t, "there is a lease", func() bool { return len(relayedAddrs(hidden)) > 0 })
	// One that nobody named, but that is connected, is as good.
	dial(t, hidden, two.Self(), two.Addrs())
	eventually(t, "there are two leases", func() bool { return len(hidden.Reachability().Leases) == 2 })
	if err := two.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "there is one lease", func() bool { return len(hidden.Reachability().Leases) == 1 })
	eventually(t, "it is the other one's", func() bool {
		return !slices.ContainsFunc(hidden.Addrs(), func(a string) bool { return strings.Contains(a, two.Self().String()) })
	})
}

// TestDialError says of a relayed address why it does not work.
func TestRelayedDialFails(t *testing.T) {
	relay := relayHost(t, p2p.RelayLimits{}, p2p.SwarmKey{}, tcpAddr)
	seeker := start(t, p2p.Config{Listen: []string{}, Reach: p2p.Reach{Traverse: true}})
	absent := listener(t, tcpAddr)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	at := relay.Addrs()[0] + "/p2p-circuit/p2p/" + absent.Self().String()
	if _, err := seeker.Dial(ctx, absent.Self(), []string{at}); err == nil || !strings.Contains(err.Error(), "NO_RESERVATION") {
		t.Errorf("dialled through a relay that keeps no place: %v", err)
	}
	plain := dialer(t)
	if _, err := plain.Dial(ctx, absent.Self(), []string{at}); err == nil {
		t.Error("a host without relays dialled through one")
	}
}
