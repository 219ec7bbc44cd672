// Package p2p is the [transport.Network] that runs over libp2p: TCP with TLS 1.3 or Noise, QUIC, WebSocket and
// WebTransport. It is the only package that imports libp2p, so everything above speaks in dray's own terms.
//
// # Terms
//
// A Key is a host's identity; its public half hashes to the host's [dray.PeerID]. A multiaddr is an address as text, such as
// /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…. A connection is one path to a peer; a [transport.Conn] stands for all of them.
// A relayed connection leads through a third host, the relay, by circuit relay v2; a lease is the place that a relay keeps for a host
// that others cannot dial. docs/reach.md says how hosts find each other and get through.
// A bulk connection is a TCP connection for one stream, beside libp2p's; docs/data-plane.md specifies it.
//
// # What it does not do
//
// It does not decide whom to dial or when to dial again, save for relays and the hosts by which a DHT is entered. What it finds is
// a stranger's claim.
package p2p
