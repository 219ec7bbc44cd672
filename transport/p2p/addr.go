package p2p

import (
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	"dray/transport"
)

// example is what error messages show as a right address.
const example = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"

// ParseAddr reads an address with a peer id, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…. The error is one line that
// says what is wrong and what would be right.
func ParseAddr(s string) (transport.Peer, error) {
	fail := func(format string, args ...any) (transport.Peer, error) {
		return transport.Peer{}, &dray.Error{Op: "parse address", Err: fmt.Errorf(format, args...)}
	}
	m, err := parseMultiaddr(s)
	if err != nil {
		return fail("%w", err)
	}
	at, id := peer.SplitAddr(m)
	if id == "" {
		return fail("%q lacks the peer's id at the end; right is %s", s, example)
	}
	if len(at) == 0 {
		return fail("%q has an id but no address; right is %s", s, example)
	}
	if !dialable(at) {
		return fail("%q is no address that can be dialled; right is tcp, quic-v1, ws or webtransport, as in %s", s, example)
	}
	return transport.Peer{ID: dray.PeerID(id), Addrs: []string{m.String()}}, nil
}

// parseMultiaddr reads a multiaddr with or without an id.
func parseMultiaddr(s string) (ma.Multiaddr, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, fmt.Errorf("the address is empty; right is %s", example)
	}
	if !strings.HasPrefix(s, "/") {
		return nil, fmt.Errorf("%q does not begin with a slash; right is %s", s, example)
	}
	m, err := ma.NewMultiaddr(s)
	if err != nil {
		reason := strings.Join(strings.Fields(err.Error()), " ")
		return nil, fmt.Errorf("%q is no multiaddr (%s); right is %s", s, reason, example)
	}
	return m, nil
}

// dialable reports whether an address without id ends in one of this package's transports.
func dialable(m ma.Multiaddr) bool {
	if _, err := m.ValueForProtocol(ma.P_DNSADDR); err == nil {
		return true // stands for addresses that are looked up when it is dialled
	}
	if at := relayOf(m); has(m, ma.P_CIRCUIT) {
		return len(at) > 0 && relayID(m) != "" && m[len(m)-1].Protocol().Code == ma.P_CIRCUIT && dialable(at)
	}
	last := m[len(m)-1].Protocol().Code
	return last == ma.P_TCP || last == ma.P_QUIC_V1 || last == ma.P_WS || last == ma.P_WSS || has(m, ma.P_WEBTRANSPORT)
}

func has(m ma.Multiaddr, code int) bool {
	for _, c := range m {
		if c.Protocol().Code == code {
			return true
		}
	}
	return false
}

// DefaultListen returns the addresses that a host listens on unless told otherwise: every transport on every interface, on
// ports that the system chooses.
func DefaultListen() []string {
	var all []string
	for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
		all = append(all, listenOn(ip)...)
	}
	return all
}

// LoopbackListen returns what [DefaultListen] does, for 127.0.0.1 only.
func LoopbackListen() []string { return listenOn("/ip4/127.0.0.1") }

func listenOn(ip string) []string {
	return []string{ip + "/tcp/0", ip + "/udp/0/quic-v1", ip + "/tcp/0/ws", ip + "/udp/0/quic-v1/webtransport"}
}
