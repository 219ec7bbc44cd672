package p2p

import (
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Limits bound what peers can make this host spend. They are fixed numbers, not shares of the machine, so that a transfer
// that works on one machine works on the next.
//
//	what                                  default    why
//	connections                             1,024    500 peers in a swarm, twice
//	  beyond LowConns (3/4 of it)                    strangers go, who were there for longest; see room.go
//	connections with one peer                   8    one per transport, and both sides' dials
//	connections from one address              256    a rack behind one NAT; loopback is free
//	streams in                             16,384
//	streams in from one peer                  512    256 requests in parallel, and as many of other protocols
//	handshakes under way                      256
//	bulk connections                          256    64 peers at full rate; more share one connection each
//	  with one peer, each way                   4    two keep two cores busy; the others are on their way out
//	memory of windows                       1 GiB
//	the same, one peer                    256 MiB    512 streams at 256 KiB, and eight at the largest window
//
// Memory counts 256 KiB per stream and what windows have grown by. Windows grow only while less than half of it is in use.
type Limits struct {
	// Conns is how many connections the host has before a newcomer takes the place of a stranger. Only peers that are kept
	// (see [Host.Keep]) get in beyond it, and no more than 512. If zero, 1024.
	Conns int
	// LowConns is the number of connections above which strangers are disconnected that were there for a while. If zero, three quarters of Conns.
	LowConns int
	// ConnsPerPeer is how many connections a peer may have with the host. If zero, 8.
	ConnsPerPeer int
	// ConnsPerIP is how many connections may come from one IPv4 address or one IPv6 /56, except loopback. If zero, 256.
	ConnsPerIP int
	// StreamsPerPeer is how many streams a peer may have opened at one time. If zero, 512.
	StreamsPerPeer int
	// Streams is how many streams all peers together may have opened. If zero, 32 × StreamsPerPeer.
	Streams int
	// BulkPerPeer is how many bulk connections a peer may have opened at one time, and how many this host opens to it.
	// If zero, 4; if negative, none are made or taken.
	BulkPerPeer int
	// Bulk is how many bulk connections there may be with all peers together, both ways. If zero, 256.
	Bulk int
	// MemoryPerPeer bounds, in bytes, the windows of one peer's streams. If zero, 256 MiB.
	MemoryPerPeer int64
	// Memory bounds those of all peers. If zero, 1 GiB.
	Memory int64
}

func (l Limits) withDefaults() Limits {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&l.Conns, 1024)
	set(&l.LowConns, l.Conns*3/4)
	set(&l.ConnsPerPeer, 8)
	set(&l.ConnsPerIP, 256)
	set(&l.StreamsPerPeer, 512)
	set(&l.Streams, 32*l.StreamsPerPeer)
	if l.BulkPerPeer == 0 {
		l.BulkPerPeer = 4
	}
	set(&l.Bulk, 256)
	if l.MemoryPerPeer <= 0 {
		l.MemoryPerPeer = 256 << 20
	}
	if l.Memory <= 0 {
		l.Memory = 1 << 30
	}
	return l
}

// maxHandshakes is how many connections may be under negotiation at one time.
const maxHandshakes = 256

// resources makes libp2p's accountant. What is opened by this host itself is not limited per stream and protocol: nobody
// else decides about it.
func (l Limits) resources() (network.ResourceManager, error) {
	const free = rcmgr.Unlimited
	streams := func(in int) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{
			Streams: free, StreamsInbound: rcmgr.LimitVal(in), StreamsOutbound: free,
			Conns: free, ConnsInbound: free, ConnsOutbound: free, FD: free, Memory: rcmgr.Unlimited64,
		}
	}
	system := streams(l.Streams)
	// Who comes while the table is full is let through the handshake, because only then it is known who that is.
	all := rcmgr.LimitVal(l.Conns + 2*maxHandshakes)
	system.Conns, system.ConnsInbound, system.ConnsOutbound = all, all, all
	system.Memory = rcmgr.LimitVal64(l.Memory)

	transient := streams(2 * maxHandshakes)
	transient.Conns = maxHandshakes
	transient.ConnsInbound = maxHandshakes
	transient.ConnsOutbound = maxHandshakes
	transient.Memory = 64 << 20

	onePeer := streams(l.StreamsPerPeer)
	onePeer.Conns = rcmgr.LimitVal(l.ConnsPerPeer)
	onePeer.ConnsInbound = rcmgr.LimitVal(l.ConnsPerPeer)
	onePeer.ConnsOutbound = rcmgr.LimitVal(l.ConnsPerPeer)
	onePeer.Memory = rcmgr.LimitVal64(l.MemoryPerPeer)

	conn := streams(l.StreamsPerPeer)
	conn.Memory = rcmgr.LimitVal64(l.MemoryPerPeer)
	limits := rcmgr.PartialLimitConfig{
		System: system, AllowlistedSystem: system,
		Transient: transient, AllowlistedTransient: transient,
		ServiceDefault: streams(l.Streams), ServicePeerDefault: streams(l.StreamsPerPeer),
		ProtocolDefault: streams(l.Streams), ProtocolPeerDefault: streams(l.StreamsPerPeer),
		PeerDefault: onePeer, Conn: conn, Stream: streams(1),
	}.Build(rcmgr.InfiniteLimits)
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: l.ConnsPerIP + maxHandshakes}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: l.ConnsPerIP + maxHandshakes}},
		),
		// The bounds above count what there is at one time; how fast peers come is not held against them, because
		// a cluster starts all at once.
		rcmgr.WithConnRateLimiters(&rate.Limiter{}),
	)
}
