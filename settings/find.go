package settings

import (
	"errors"
	"net"
	"strconv"
	"strings"
)

// Find says who is asked who holds what, besides those whom the section reach finds.
type Find struct {
	// Peers are asked first, and a daemon stays connected to them.
	Peers []string `toml:"peers" doc:"peers to stay connected to and to ask, each a multiaddr that ends in /p2p/ID"`
	// Hosts are names in DNS that other daemons share.
	Hosts []string `toml:"hosts" doc:"names in DNS, HOST:PORT, behind which other daemons speak HTTP with the same token, such as a service's in a cluster"`
	// Routers are delegated routers.
	Routers []string `toml:"routers" doc:"URLs of delegated routers that are asked who holds what, such as https://router.example"`
}

func (f *Find) check() error {
	var errs []error
	for _, a := range f.Peers {
		if _, id, ok := strings.Cut(a, "/p2p/"); !ok || id == "" || !strings.HasPrefix(a, "/") {
			errs = append(errs, Wrong("find.peers", a, "multiaddrs that end in /p2p/ID, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"))
		}
	}
	for _, h := range f.Hosts {
		host, port, err := net.SplitHostPort(h)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" || strings.ContainsAny(host, "/ @") {
			errs = append(errs, Wrong("find.hosts", h, "names with ports, such as dray-swarm:4871"))
		}
	}
	for _, r := range f.Routers {
		if !isWebURL(r) {
			errs = append(errs, Wrong("find.routers", r, "URLs with http or https and no query, such as https://router.example"))
		}
	}
	return errors.Join(errs...)
}
