package p2p

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/observedaddrs"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dray/transport"
)

// Reach says how a host finds others and is found by them. The zero value is a host that waits to be told whom to dial, and can
// be dialled where it listens.
type Reach struct {
	// LAN says that hosts on the local network see this one and are seen, by multicast DNS. A host that listens on loopback only
	// is not seen.
	LAN bool
	// DHT is the distributed hash table to join: "private" is the one that Drays have among themselves, "public" IPFS's. If empty
	// or "off", none.
	DHT string
	// Bootstrap are hosts by which the DHT is entered. If nil, the private one is entered by whoever is connected, and the public
	// one by the hosts that libp2p's library names.
	Bootstrap []transport.Peer
	// Traverse says that the host finds out whether others can dial it and, as long as they cannot, asks relays to let them through,
	// and that it makes connections direct that have come about through a relay.
	Traverse bool
	// Relays are hosts that relay for this one. Besides them those are asked that are connected and offer it.
	Relays []transport.Peer
	// MapPorts asks the router, by UPnP or NAT-PMP, to let connections through.
	MapPorts bool
	// ServeRelay makes the host one that relays for others; RelayLimits bounds what it does for them.
	ServeRelay  bool
	RelayLimits RelayLimits
}

func (r *Reach) on() bool { return r.Traverse || r.ServeRelay || len(r.Relays) > 0 }

// Standing is how a host can be reached, as far as it knows.
type Standing string

// The values of Standing.
const (
	// Reachable means that somebody else has dialled one of the host's addresses.
	Reachable Standing = "public"
	// Unreachable means that others see another address than the host has, and dialling it did not work.
	Unreachable Standing = "private"
	// Unclear means that nobody has tried, which is so on a local network.
	Unclear Standing = "unknown"
)

// Reachability is what a host knows about how others can reach it.
type Reachability struct {
	// Standing is the whole.
	Standing Standing
	// Addrs says it of each address of the host, relayed ones excluded.
	Addrs map[string]Standing
	// Mapped are addresses that the router was asked for and lets through.
	Mapped []string
	// Leases are the relays that let others through to this host.
	Leases []Lease
	// Relaying says that this host relays for others.
	Relaying bool
	// DHT is "private", "public" or "". Serving says that the host answers others in it, and Known is how many hosts of it it
	// knows.
	DHT     string
	Serving bool
	Known   int
	// LAN says that the host is seen on the local network.
	LAN bool
}

// idHost is what libp2p's host can besides.
type idHost interface {
	IDService() identify.IDService
	AllAddrs() []ma.Multiaddr
}

// reach is what a host does to be reached. One goroutine hears of what happens, and another one acts on it, which may take long.
type reach struct {
	host     *Host
	ids      idHost
	observed *observedaddrs.Manager
	emit     event.Emitter // of event.EvtLocalReachabilityChanged, for the DHT
	relays   *relays
	punch    *puncher
	wake     chan struct{} // one slot
	ctx      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu        sync.Mutex // guards what follows
	reachable []ma.Multiaddr
	not       []ma.Multiaddr
	standing  Standing
}

// reachOptions says how libp2p is made for a Reach, before it listens.
func (h *Host) reachOptions(r Reach, listen []ma.Multiaddr) []libp2p.Option {
	var out []libp2p.Option
	if !r.on() {
		out = append(out, libp2p.DisableRelay())
	} else {
		out = append(out, libp2p.EnableRelay())
	}
	outside := slices.ContainsFunc(listen, func(m ma.Multiaddr) bool { return !manet.IsIPLoopback(m) })
	if !r.Traverse || !outside {
		out = append(out, libp2p.DisableIdentifyAddressDiscovery())
	} else {
		out = append(out, libp2p.EnableAutoNATv2())
	}
	if r.MapPorts && outside {
		out = append(out, libp2p.NATManager(func(n network.Network) basichost.NATManager {
			h.router = basichost.NewNATManager(n)
			return h.router
		}))
	}
	return out
}

// startReach begins what a Reach asks for, once the host listens.
func (h *Host) startReach(c Config) (err error) {
	r := c.Reach
	if r.on() {
		if err := h.startTraversal(r); err != nil {
			return err
		}
	}
	if r.DHT != "" && r.DHT != DHTOff {
		if err := h.startDHT(r); err != nil {
			return err
		}
	}
	if r.LAN {
		h.startLAN(c.SwarmKey)
	}
	return nil
}

func (h *Host) startTraversal(r Reach) (err error) {
	x := &reach{host: h, standing: Unclear, wake: make(chan struct{}, 1)}
	x.ids, _ = h.host.(idHost)
	x.ctx, x.stop = context.WithCancel(context.Background())
	h.reach = x
	if x.emit, err = h.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged)); err != nil {
		return err
	}
	if x.observed, err = observedaddrs.NewManager(h.host.EventBus(), h.host.Network()); err != nil {
		return err
	}
	x.observed.Start(h.host.Network())
	if x.relays, err = newRelays(x, r); err != nil {
		return err
	}
	h.leases.Store(x.relays)
	if r.Traverse {
		x.punch = newPuncher(x)
	}
	events, err := h.host.EventBus().Subscribe([]any{
		new(event.EvtHostReachableAddrsChanged), new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerProtocolsUpdated),
		new(event.EvtPeerConnectednessChanged), new(event.EvtLocalAddressesUpdated),
	}, eventbus.BufSize(256))
	if err != nil {
		return err
	}
	x.wg.Go(func() { x.hear(events) })
	x.wg.Go(x.act)
	return nil
}

func (x *reach) close() {
	x.stop()
	if x.punch != nil {
		x.punch.close()
	}
	x.wg.Wait()
	if x.relays != nil {
		x.relays.close()
	}
	if x.observed != nil {
		_ = x.observed.Close()
	}
	if x.emit != nil {
		_ = x.emit.Close()
	}
}

// lookEvery is how often the host looks whether something has changed that nobody says.
const lookEvery = time.Minute

// hear follows what happens to the host.
func (x *reach) hear(events event.Subscription) {
	defer events.Close()
	for {
		select {
		case e := <-events.Out():
			if x.note(e) {
				x.rouse()
			}
		case <-x.ctx.Done():
			return
		}
	}
}

// rouse has it looked at soon what there is to do.
func (x *reach) rouse() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// settleFor is how long what has changed may change on before something is done about it.
const settleFor = 50 * time.Millisecond

// act does what there is to do.
func (x *reach) act() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-x.wake:
			timer.Reset(settleFor)
		case <-timer.C:
			x.judge()
			if x.punch != nil {
				x.punch.begin()
			}
			timer.Reset(min(x.relays.tend(x.ctx), lookEvery))
		case <-x.ctx.Done():
			return
		}
	}
}

// note takes an event, and reports whether there may be something to do.
func (x *reach) note(e any) (soon bool) {
	switch e := e.(type) {
	case event.EvtHostReachableAddrsChanged:
		x.mu.Lock()
		x.reachable, x.not = e.Reachable, e.Unreachable
		x.mu.Unlock()
		return true
	case event.EvtPeerIdentificationCompleted:
		return true
	case event.EvtPeerProtocolsUpdated:
		return x.relays.offers(e.Peer)
	case event.EvtPeerConnectednessChanged:
		return e.Connectedness == network.NotConnected && x.relays.lost(e.Peer)
	case event.EvtLocalAddressesUpdated:
		return true
	}
	return false
}

// judge decides how the host can be reached.
func (x *reach) judge() {
	x.mu.Lock()
	before := x.standing
	switch {
	case len(x.reachable) > 0:
		x.standing = Reachable
	case x.translated():
		x.standing = Unreachable
	default:
		x.standing = Unclear
	}
	now := x.standing
	x.mu.Unlock()
	if now == before {
		return
	}
	x.host.log.Info("reachability", "standing", now)
	r := network.ReachabilityUnknown
	switch now {
	case Reachable:
		r = network.ReachabilityPublic
	case Unreachable:
		r = network.ReachabilityPrivate
	}
	_ = x.emit.Emit(event.EvtLocalReachabilityChanged{Reachability: r}) // fails when the host is closed
}

// translated reports whether somebody sees this host at an address that none of its interfaces has.
func (x *reach) translated() bool {
	own, err := manet.InterfaceMultiaddrs()
	if err != nil {
		return false
	}
	for _, seen := range x.observed.Addrs(1) {
		ip, err := manet.ToIP(seen)
		if err != nil {
			continue
		}
		if !slices.ContainsFunc(own, func(m ma.Multiaddr) bool {
			o, err := manet.ToIP(m)
			return err == nil && o.Equal(ip)
		}) {
			return true
		}
	}
	return false
}

// now returns how the host can be reached.
func (x *reach) now() Standing {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.standing
}

// ownAddrs are the addresses that the host has on its interfaces or at its router, without relays.
func (h *Host) ownAddrs() []ma.Multiaddr {
	if x, ok := h.host.(idHost); ok {
		return x.AllAddrs()
	}
	return h.host.Addrs()
}

// Reachability says how others can reach the host.
func (h *Host) Reachability() Reachability {
	r := Reachability{Standing: Unclear, Addrs: make(map[string]Standing), LAN: h.lan != nil && len(h.lan.text()) > 0}
	for _, m := range h.ownAddrs() {
		r.Addrs[m.String()] = Unclear
	}
	if x := h.reach; x != nil {
		r.Leases, r.Relaying = x.relays.leases(), x.relays.service != nil
		x.mu.Lock()
		r.Standing = x.standing
		for _, m := range x.reachable {
			r.Addrs[m.String()] = Reachable
		}
		for _, m := range x.not {
			r.Addrs[m.String()] = Unreachable
		}
		x.mu.Unlock()
	}
	if h.router != nil {
		for _, m := range h.host.Network().ListenAddresses() {
			if at := h.router.GetMapping(m); at != nil {
				r.Mapped = append(r.Mapped, at.String())
			}
		}
	}
	if t := h.table; t != nil {
		r.DHT, r.Serving, r.Known = t.kind, t.serving(), t.dht.RoutingTable().Size()
	}
	return r
}

// speaks reports whether a peer has said that it speaks a protocol.
func (h *Host) speaks(p peer.ID, name protocol.ID) bool {
	all, err := h.host.Peerstore().GetProtocols(p)
	return err == nil && slices.Contains(all, name)
}
