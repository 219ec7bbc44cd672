package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/settings"
	"dray/transport"
	"dray/transport/p2p"
)

// relayFlag adds --relay.
func relayFlag(e *env, c *cobra.Command) {
	c.Flags().BoolVar(&e.relay, "relay", false,
		"relay for hosts that others cannot connect to; for a host that everybody can connect to (see docs/reach.md)")
}

// reachOf is what the settings say, in the network's terms.
func reachOf(s *settings.Reach) (r p2p.Reach, err error) {
	r = p2p.Reach{
		LAN: s.LAN, DHT: s.DHT, Traverse: s.Traverse, MapPorts: s.MapPorts, ServeRelay: s.Relay,
		RelayLimits: p2p.RelayLimits{Data: int64(s.RelayData), For: time.Duration(s.RelayFor), Peers: s.RelayPeers},
	}
	// In the settings zero is without bound; the network's zero is its own default.
	if s.RelayData == 0 {
		r.RelayLimits.Data = -1
	}
	if s.RelayFor == 0 {
		r.RelayLimits.For = -1
	}
	if r.Bootstrap, err = namedPeers("reach.bootstrap", s.Bootstrap); err != nil {
		return r, err
	}
	r.Relays, err = namedPeers("reach.relays", s.Relays)
	return r, err
}

// namedPeers reads the addresses that a key of the settings lists.
func namedPeers(key string, list []string) ([]transport.Peer, error) {
	peers, err := parsePeers(list)
	if err != nil {
		return nil, usagef("%s: %w", key, err)
	}
	return peers, nil
}

// reached is how others reach the daemon, in dray status.
type reached struct {
	// Standing is "public" when others have connected to one of its addresses, "private" when a router is in the way, and
	// "unknown" as long as nobody has tried, such as on a local network.
	Standing string `json:"standing"`
	// Addrs says the same of each address.
	Addrs  map[string]string `json:"addrs"`
	Mapped []string          `json:"mapped,omitempty"`
	Relays []leased          `json:"relays,omitempty"`
	// Relaying says that the daemon relays for others, LAN that it is seen on the local network.
	Relaying bool `json:"relaying"`
	LAN      bool `json:"lan"`
	// DHT is "private", "public" or "off"; in it the daemon is "server" or "client" and knows so many hosts.
	DHT      string `json:"dht"`
	DHTRole  string `json:"dht_role,omitempty"`
	DHTHosts int    `json:"dht_hosts"`
}

// relayWait is how long a ticket waits for a relay that the settings name.
const relayWait = 3 * time.Second

// awaitRelay waits until a relay that the settings name lets others through, or none is needed, or for long enough.
func (h *house) awaitRelay(ctx context.Context) {
	if h.net == nil || len(h.settings.Reach.Relays) == 0 || h.settings.Reach.Relay {
		return
	}
	for end := time.Now().Add(relayWait); time.Now().Before(end); {
		if r := h.net.Reachability(); len(r.Leases) > 0 || r.Standing == p2p.Reachable {
			return
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
	h.env.tell("no relay of reach.relays answers yet; if others cannot connect to this host, make the ticket again later")
}

// leased is a relay that lets others through to the daemon.
type leased struct {
	Peer string    `json:"peer"`
	To   time.Time `json:"until"`
	// Bytes and Seconds bound each connection through it; 0 is without bound.
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func (h *house) reachability() *reached {
	if h.net == nil {
		return nil
	}
	n := h.net.Reachability()
	r := &reached{
		Standing: string(n.Standing), Addrs: make(map[string]string), Mapped: n.Mapped, Relaying: n.Relaying, LAN: n.LAN,
		DHT: n.DHT, DHTHosts: n.Known,
	}
	for a, s := range n.Addrs {
		r.Addrs[a] = string(s)
	}
	for _, l := range n.Leases {
		r.Relays = append(r.Relays, leased{Peer: l.Relay.String(), To: l.Until, Bytes: l.Data, Seconds: l.For.Seconds()})
	}
	switch {
	case n.DHT == "":
		r.DHT = p2p.DHTOff
	case n.Serving:
		r.DHTRole = "server"
	default:
		r.DHTRole = "client"
	}
	return r
}

// print says it in a few lines.
func (r *reached) print(e *env) {
	line := "reachability: " + r.Standing
	switch p2p.Standing(r.Standing) {
	case p2p.Reachable:
		line += ", others connect to it"
	case p2p.Unreachable:
		line += ", a router is in the way"
	case p2p.Unclear:
		line += ", nobody outside has tried"
	}
	if r.LAN {
		line += "; seen on the local network"
	}
	if r.Relaying {
		line += "; relays for others"
	}
	e.printf("%s", line)
	for _, a := range slices.Sorted(maps.Keys(r.Addrs)) {
		if s := r.Addrs[a]; s != string(p2p.Unclear) {
			e.printf("  %s: %s", a, s)
		}
	}
	if len(r.Mapped) > 0 {
		e.printf("  the router lets through: %s", strings.Join(r.Mapped, " "))
	}
	for _, l := range r.Relays {
		text := fmt.Sprintf("  relay %s until %s", l.Peer, l.To.Local().Format(time.TimeOnly))
		if l.Bytes > 0 {
			text += fmt.Sprintf(", %s each way a connection", size(l.Bytes))
		}
		if l.Seconds > 0 {
			text += ", for " + inSeconds(l.Seconds)
		}
		e.printf("%s", text)
	}
	if r.DHT != p2p.DHTOff {
		e.printf("DHT: %s, as a %s that knows %s", r.DHT, r.DHTRole, plural(int64(r.DHTHosts), "host"))
	}
}

// pathWords says how a peer is connected, for people, or "".
func pathWords(i transport.Info) string { return shortPath(i.String()) }

// shortPath shortens the relay's id in what says how a peer is connected.
func shortPath(path string) string {
	way, relay, ok := strings.Cut(path, " via ")
	if !ok {
		return path
	}
	return way + " via " + shortID(relay)
}

// trace notes how each source is connected, or was last.
func (g *getting) trace(list []source) []source {
	if g.paths == nil {
		g.paths = make(map[string]string)
	}
	for _, p := range g.h.node.Peers() {
		g.paths[p.ID.String()] = p.Info.String()
	}
	for i := range list {
		list[i].Path = g.paths[list[i].Peer]
	}
	return list
}

// checkReach tells whether hosts outside can reach the daemon.
func checkReach(ctx context.Context, r *remote) check {
	s, err := taskStatus.do(ctx, r, nothing{}, pipes[nothing]{})
	if err != nil || s.Reach == nil {
		return failed("reachability", err, "restart `dray serve`")
	}
	c := check{Name: "reachability", OK: true, Value: s.Reach.Standing}
	switch {
	case len(s.Reach.Relays) > 0:
		c.Value += fmt.Sprintf("; reached through %s", plural(int64(len(s.Reach.Relays)), "relay"))
	case p2p.Standing(s.Reach.Standing) == p2p.Unreachable:
		c.OK, c.Advice = false, "name a relay with reach.relays in config.toml, or have the router let connections through"
	}
	return c
}
