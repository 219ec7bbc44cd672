package seek

import (
	"net/netip"
	"strings"

	"dray/origin"
)

// scope is from where an address can be reached.
type scope int

const (
	nowhere  scope = iota // it is malformed, or of no use to others
	anywhere              // the internet
	named                 // wherever its name leads
	network               // a private network
	machine               // this machine only
)

// shared is what carriers give to customers behind their translators, and overlay networks to their hosts.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// scopeOf returns from where a multiaddr can be reached, by its first part.
func scopeOf(addr string) scope {
	part := strings.Split(addr, "/")
	if len(part) < 3 || part[0] != "" {
		return nowhere
	}
	switch part[1] {
	case "memory":
		return machine
	case "dns", "dns4", "dns6", "dnsaddr":
		return named
	case "ip4", "ip6":
		ip, err := netip.ParseAddr(part[2])
		ip = ip.Unmap()
		switch {
		case err != nil:
			return nowhere
		case ip.IsLoopback():
			return machine
		case ip.IsPrivate(), shared.Contains(ip):
			return network
		case origin.Public(ip):
			return anywhere
		}
		return nowhere // link-local, multicast, reserved
	}
	return nowhere
}

// Reachable returns those of a peer's addresses that can be reached from where another one is, whose address on a connection is
// remote: private ones only within private networks, and this machine's only within it. Names are kept only if own is set: a
// stranger could make them lead anywhere.
func Reachable(addrs []string, remote string, own bool) (out []string) {
	from := scopeOf(remote)
	for _, a := range addrs {
		switch s := scopeOf(a); {
		case s == anywhere, s == named && own, s == network && from >= network, s == machine && from == machine:
			out = append(out, a)
		}
	}
	return out
}
