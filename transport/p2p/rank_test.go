package p2p

import (
	"slices"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

func TestRank(t *testing.T) {
	const (
		relay   = "/ip4/198.51.100.9"
		circuit = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit"
	)
	tests := []struct {
		name string
		// want are the addresses in the order in which they start, each after its delay in milliseconds.
		want []string
		at   []int
	}{
		{
			"far",
			[]string{"/ip4/198.51.100.7/tcp/1", "/ip4/198.51.100.7/udp/1/quic-v1", "/ip4/198.51.100.7/tcp/2/ws", "/ip4/198.51.100.7/udp/1/quic-v1/webtransport"},
			[]int{0, 200, 400, 500},
		},
		{
			"near, then far",
			[]string{"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip4/198.51.100.7/tcp/1"},
			[]int{0, 30, 60, 90},
		},
		{
			"a relay that is known",
			[]string{relay + "/udp/1/quic-v1", relay + "/tcp/1"},
			[]int{0, 200},
		},
		{
			"through a relay",
			[]string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1", relay + "/udp/1/quic-v1" + circuit, relay + "/tcp/1" + circuit},
			[]int{0, 30, 230, 430},
		},
		{
			"IPv4 and IPv6",
			[]string{"/ip4/198.51.100.7/tcp/1", "/ip6/2001:db8::7/tcp/1"},
			[]int{0, 0},
		},
	}
	for _, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			var h Host
			h.near.add([]ma.Multiaddr{ma.StringCast(relay + "/udp/1/quic-v1"), ma.StringCast(relay + "/tcp/1")})
			var in []ma.Multiaddr
			for _, s := range x.want {
				in = append(in, ma.StringCast(s))
			}
			if len(in) > 2 {
				slices.Reverse(in)
			}
			for i, d := range h.rank(in) {
				if d.Addr.String() != x.want[i] || d.Delay != time.Duration(x.at[i])*time.Millisecond {
					t.Errorf("%d: %s after %v, want %s after %d ms", i, d.Addr, d.Delay, x.want[i], x.at[i])
				}
			}
		})
	}
}

func TestGuesses(t *testing.T) {
	parse := func(list ...string) (out []ma.Multiaddr) {
		for _, s := range list {
			out = append(out, ma.StringCast(s))
		}
		return out
	}
	got := guesses(parse("/ip4/198.51.100.7/udp/4001/quic-v1"),
		parse("/ip4/0.0.0.0/tcp/4002", "/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/tcp/4002", "/ip4/127.0.0.1/tcp/1", "/p2p-circuit"))
	want := parse("/ip4/198.51.100.7/tcp/4002", "/ip4/198.51.100.7/udp/4001/quic-v1")
	if !slices.EqualFunc(got, want, ma.Multiaddr.Equal) {
		t.Errorf("guessed %v, want %v", got, want)
	}
}

func TestCircuitAddresses(t *testing.T) {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for text, right := range map[string]bool{
		"/ip4/198.51.100.9/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id:         true,
		"/ip4/198.51.100.9/udp/1/quic-v1/p2p/" + id + "/p2p-circuit/p2p/" + id: true,
		"/ip4/198.51.100.9/tcp/1/p2p-circuit/p2p/" + id:                        false, // which relay?
		"/p2p/" + id + "/p2p-circuit/p2p/" + id:                                false, // where is it?
		"/ip4/198.51.100.9/sctp/1/p2p/" + id + "/p2p-circuit/p2p/" + id:        false,
		"/ip4/198.51.100.9/tcp/1/p2p/" + id + "/p2p-circuit/tcp/1/p2p/" + id:   false,
		"/dns4/relay.example/tcp/443/wss/p2p/" + id + "/p2p-circuit/p2p/" + id: true,
		"/dnsaddr/relay.example/p2p/" + id + "/p2p-circuit/p2p/" + id:          true,
		"/ip4/198.51.100.9/tcp/1/p2p/" + id + "/p2p-circuit":                   false,
	} {
		if p, err := ParseAddr(text); (err == nil) != right {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
}
