package settings

import (
	"errors"
	"strings"
	"time"
)

// Reach says how this host finds others and is found by them. See docs/reach.md.
type Reach struct {
	// LAN has hosts on the local network see each other.
	LAN bool `toml:"lan" doc:"see, and be seen by, other Drays on the local network (mDNS)"`
	// DHT is the distributed hash table in which holders of a root are found: "off", "private" or "public".
	DHT string `toml:"dht" doc:"where holders are looked up: private (a DHT of Drays), public (that of IPFS) or off"`
	// Bootstrap are hosts by which the DHT is entered, addresses with ids.
	Bootstrap []string `toml:"bootstrap" doc:"addresses of hosts by which the DHT is entered, such as /dns4/a.example/tcp/4001/p2p/12D3KooW…"`
	// Traverse has the host get through routers that translate addresses.
	Traverse bool `toml:"traverse" doc:"find out whether others can connect, be reached through relays while they cannot, and punch holes"`
	// MapPorts asks the router to let connections through.
	MapPorts bool `toml:"map_ports" doc:"ask the router, by UPnP or NAT-PMP, to let connections through"`
	// Relays are hosts that relay for this one.
	Relays []string `toml:"relays" doc:"addresses of relays through which others reach this host, besides connected ones that offer it"`
	// Relay makes this host relay for others. The rest bounds what it does for them.
	Relay      bool     `toml:"relay" doc:"relay for others (--relay); for a host that everybody can connect to"`
	RelayData  Size     `toml:"relay_data" doc:"most bytes that a relayed connection carries each way; 0B is any number"`
	RelayFor   Duration `toml:"relay_for" doc:"how long a relayed connection lasts at most; 0s is for ever"`
	RelayPeers int      `toml:"relay_peers" doc:"for how many hosts a place is kept at most"`
}

func defaultReach() Reach {
	return Reach{
		LAN: true, DHT: "private", Traverse: true, MapPorts: true,
		RelayData: 64 << 20, RelayFor: Duration(10 * time.Minute), RelayPeers: 512,
	}
}

// dhts are the values of reach.dht.
var dhts = []string{"private", "public", "off"}

func (r *Reach) check() error {
	errs := []error{among("reach.dht", r.DHT, dhts)}
	for _, list := range []struct {
		key   string
		value []string
	}{{"bootstrap", r.Bootstrap}, {"relays", r.Relays}} {
		for _, a := range list.value {
			if !strings.HasPrefix(a, "/") || !strings.Contains(a, "/p2p/") {
				errs = append(errs, Wrong("reach."+list.key, a, "an address with an id, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"))
			}
		}
	}
	if r.RelayData > 0 {
		errs = append(errs, between("reach.relay_data", r.RelayData, 64<<10, 1<<50))
	}
	if r.RelayFor > 0 {
		errs = append(errs, between("reach.relay_for", r.RelayFor, Duration(time.Second), Duration(365*24*time.Hour)))
	}
	errs = append(errs, between("reach.relay_peers", r.RelayPeers, 1, 1<<16))
	return errors.Join(errs...)
}
