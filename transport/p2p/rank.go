package p2p

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// The head start that one kind of address has over the next. TCP with TLS is several times faster than QUIC in
// user space, so it goes first; the head start is about a round trip, so that QUIC wins only where TCP is blocked or slow.
const (
	nearHeadStart = 30 * time.Millisecond
	farHeadStart  = 200 * time.Millisecond
)

// rank orders a dial race: loopback, then private, then public addresses; in each, TCP, then QUIC, then WebSocket and
// WebTransport, each a head start apart. IPv4 and IPv6 race each other. Nothing waits for a failure: a start that fails
// brings the next one forward, and the last one starts within half a second.
//
// Relays that are known as such are the exception: to them QUIC goes first, because they tell from where it comes, and that is what
// peers need to punch holes. Relayed addresses come last, when the direct ones have had a chance.
func (h *Host) rank(addrs []ma.Multiaddr) []network.AddrDelay {
	return rank(addrs, h.near.has)
}

func rank(addrs []ma.Multiaddr, isRelay func(ma.Multiaddr) bool) []network.AddrDelay {
	type entry struct {
		addr  ma.Multiaddr
		place int
		kind  int
	}
	entries := make([]entry, 0, len(addrs))
	for _, a := range addrs {
		e := entry{a, place(a), kind(a)}
		circuit := has(a, ma.P_CIRCUIT)
		if circuit {
			e.place = placeRelayed
		}
		if (circuit || isRelay(a)) && e.kind <= 1 {
			e.kind = 1 - e.kind
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.kind, b.kind))
	})
	out := make([]network.AddrDelay, 0, len(addrs))
	var delay time.Duration
	for i, e := range entries {
		if i > 0 && (e.place != entries[i-1].place || e.kind != entries[i-1].kind) {
			step := nearHeadStart
			if entries[i-1].place == placePublic || e.place == placeRelayed {
				step = farHeadStart
			}
			delay = min(delay+step, lastStart)
		}
		out = append(out, network.AddrDelay{Addr: e.addr, Delay: delay})
	}
	return out
}

// lastStart is when the last address of a race starts, whatever the others do.
const lastStart = 500 * time.Millisecond

const (
	placeLoopback = iota
	placePrivate
	placePublic
	placeRelayed
)

func place(a ma.Multiaddr) int {
	switch {
	case manet.IsIPLoopback(a):
		return placeLoopback
	case manet.IsPrivateAddr(a):
		return placePrivate
	}
	return placePublic
}

func kind(a ma.Multiaddr) int {
	switch {
	case has(a, ma.P_WEBTRANSPORT):
		return 3
	case has(a, ma.P_WS), has(a, ma.P_WSS):
		return 2
	case has(a, ma.P_QUIC_V1):
		return 1
	}
	return 0
}
