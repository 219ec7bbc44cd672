package p2p

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
)

// A host that others cannot dial asks relays to keep a place for it (a reservation of circuit relay v2). Its addresses then lead
// through them. It keeps leases with two relays, renews each when half of its time is over, and looks for another one when a relay
// goes away. It needs none as long as others can dial it.

const (
	leasesWanted = 2
	// leaseTimeout is how long it may take to get a lease.
	leaseTimeout = 10 * time.Second
	// A relay that did not give a lease is asked again after refusedFirst, and then ever later up to refusedLast.
	refusedFirst = time.Second
	refusedLast  = 5 * time.Minute
	// leaseAddrs bounds the addresses of a relay by which others may come.
	leaseAddrs = 6
)

// RelayLimits bounds what a relay does for others.
type RelayLimits struct {
	// Data is how many bytes a relayed connection may carry each way before it is cut. If zero, 64 MiB; if negative, any number.
	Data int64
	// For is how long it may last. If zero, ten minutes; if negative, for ever.
	For time.Duration
	// Peers is for how many peers a place is kept. If zero, 512.
	Peers int
	// PerAddr is how many of these may come from one address, which may be a large office. If zero, 64.
	PerAddr int
	// Circuits is how many relayed connections one peer may have at a time. If zero, 64.
	Circuits int
}

func (l RelayLimits) resources() circuit.Resources {
	set := func(n, otherwise int) int { return cmp.Or(max(n, 0), otherwise) }
	r := circuit.DefaultResources()
	r.MaxReservations = set(l.Peers, 512)
	r.MaxReservationsPerIP = set(l.PerAddr, 64)
	r.MaxReservationsPerASN = r.MaxReservations
	r.MaxCircuits = set(l.Circuits, 64)
	r.BufferSize = 64 << 10
	if l.Data == 0 {
		l.Data = 64 << 20
	}
	if l.For == 0 {
		l.For = 10 * time.Minute
	}
	r.Limit = &circuit.RelayLimit{Data: max(l.Data, 0), Duration: max(l.For, 0)}
	if l.Data < 0 {
		r.Limit.Data = 1 << 62
	}
	if l.For < 0 {
		r.Limit.Duration = 10 * 365 * 24 * time.Hour
	}
	if l.Data < 0 && l.For < 0 {
		r.Limit = nil
	}
	return r
}

// Lease is a place that a relay keeps for this host.
type Lease struct {
	// Relay is who keeps it, and Until how long if it is not renewed.
	Relay dray.PeerID
	Until time.Time
	// Data and For are how many bytes a connection through it may carry each way, and how long it may last; 0 is without limit.
	Data int64
	For  time.Duration
}

// lease is one that this host has.
type lease struct {
	Lease
	renew time.Time
	addrs []ma.Multiaddr // of the relay
}

// refusal is a relay that gave no lease.
type refusal struct {
	until time.Time
	wait  time.Duration
}

// relays keeps leases. Its tend is called by one goroutine.
type relays struct {
	reach   *reach
	named   []peer.AddrInfo
	service *circuit.Relay // that this host is itself, or nil
	changed event.Emitter  // of event.EvtAutoRelayAddrsUpdated
	refused map[peer.ID]refusal

	mu   sync.Mutex // guards what follows
	held map[peer.ID]lease
}

func newRelays(x *reach, r Reach) (*relays, error) {
	named, err := addrInfos(r.Relays)
	if err != nil {
		return nil, err
	}
	s := &relays{reach: x, named: named, refused: make(map[peer.ID]refusal), held: make(map[peer.ID]lease)}
	if s.changed, err = x.host.host.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated)); err != nil {
		return nil, err
	}
	if r.ServeRelay {
		s.service, err = circuit.New(x.host.host, circuit.WithResources(r.RelayLimits.resources()),
			circuit.WithReservationAddressFilter(func(m ma.Multiaddr) bool { return len(x.host.useful([]ma.Multiaddr{m})) > 0 }))
		if err != nil {
			return nil, err
		}
	}
	for _, p := range named {
		x.host.near.add(p.Addrs)
		x.host.Keep(dray.PeerID(p.ID), true)
	}
	return s, nil
}

func (s *relays) close() {
	if s.service != nil {
		_ = s.service.Close()
	}
	_ = s.changed.Close()
}

// offers reports whether a peer relays for others.
func (s *relays) offers(p peer.ID) bool { return s.reach.host.speaks(p, proto.ProtoIDv2Hop) }

// lost gives a lease up whose relay is gone, and reports whether there was one.
func (s *relays) lost(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, had := s.held[p]
	delete(s.held, p)
	return had || slices.ContainsFunc(s.named, func(n peer.AddrInfo) bool { return n.ID == p })
}

// tend renews leases, and gets more or gives them up as they are needed. It returns when to look again.
func (s *relays) tend(ctx context.Context) time.Duration {
	h := s.reach.host
	now := time.Now()
	wanted := 0
	if s.service == nil && h.listens() && s.reach.now() != Reachable {
		wanted = leasesWanted
	}
	next := lookEvery
	var due []peer.AddrInfo
	s.mu.Lock()
	before := len(s.held)
	for p, l := range s.held {
		if wanted == 0 || now.After(l.Until) || h.host.Network().Connectedness(p) == network.NotConnected {
			delete(s.held, p)
			h.Keep(dray.PeerID(p), s.isNamed(p))
			continue
		}
		if !now.Before(l.renew) {
			due = append(due, peer.AddrInfo{ID: p})
		} else {
			next = min(next, l.renew.Sub(now))
		}
	}
	gone := len(s.held) != before
	missing := wanted - len(s.held)
	s.mu.Unlock()

	for _, p := range s.candidates() {
		if missing <= 0 {
			break
		}
		if r, ok := s.refused[p.ID]; ok && now.Before(r.until) {
			next = min(next, r.until.Sub(now))
			continue
		}
		due = append(due, p)
		missing--
	}
	got := false
	for _, p := range due {
		if s.lease(ctx, p) {
			got = true
		}
		if r, ok := s.refused[p.ID]; ok {
			next = min(next, max(time.Until(r.until), 0))
		}
	}
	if got || gone {
		s.publish()
	}
	return max(next, settleFor)
}

func (s *relays) isNamed(p peer.ID) bool {
	return slices.ContainsFunc(s.named, func(n peer.AddrInfo) bool { return n.ID == p })
}

// candidates are the relays that could be asked: those that were named, then those that are connected and offer it.
func (s *relays) candidates() []peer.AddrInfo {
	h := s.reach.host
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []peer.AddrInfo
	for _, p := range s.named {
		if _, held := s.held[p.ID]; !held {
			out = append(out, p)
		}
	}
	for _, p := range h.host.Network().Peers() {
		if _, held := s.held[p]; !held && !s.isNamed(p) && s.offers(p) && h.isDirectly(p) {
			out = append(out, peer.AddrInfo{ID: p})
		}
	}
	for p, r := range s.refused { // of whoever is none of them nothing is remembered for long
		if time.Since(r.until) > refusedLast {
			delete(s.refused, p)
		}
	}
	return out
}

// lease asks a relay for a lease, new or longer.
func (s *relays) lease(ctx context.Context, p peer.AddrInfo) bool {
	h := s.reach.host
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	h.swarm.Backoff().Clear(p.ID)
	err := h.host.Connect(network.WithForceDirectDial(ctx, "a relay is reached without another one"), p)
	var r *client.Reservation
	if err == nil {
		r, err = client.Reserve(ctx, h.host, peer.AddrInfo{ID: p.ID})
	}
	if err != nil {
		wait := min(2*s.refused[p.ID].wait, refusedLast)
		wait = max(wait, refusedFirst)
		s.refused[p.ID] = refusal{time.Now().Add(wait), wait}
		h.log.Debug("no lease from a relay", "relay", p.ID, "err", err)
		return false
	}
	delete(s.refused, p.ID)
	now := time.Now()
	l := lease{
		Lease: Lease{
			Relay: dray.PeerID(p.ID), Until: r.Expiration, Data: int64(min(r.LimitData, 1<<62)), For: r.LimitDuration,
		},
		renew: now.Add(r.Expiration.Sub(now) / 2), addrs: s.ways(p, r.Addrs),
	}
	s.mu.Lock()
	_, had := s.held[p.ID]
	s.held[p.ID] = l
	s.mu.Unlock()
	h.Keep(l.Relay, true)
	if !had {
		h.log.Info("a relay lets others through to this host", "relay", p.ID, "until", r.Expiration)
	}
	return true
}

// ways are the addresses of a relay by which others may come.
func (s *relays) ways(p peer.AddrInfo, vouched []ma.Multiaddr) []ma.Multiaddr {
	h := s.reach.host
	var all []ma.Multiaddr
	for _, m := range slices.Concat(p.Addrs, vouched, h.host.Peerstore().Addrs(p.ID)) {
		at, _ := peer.SplitAddr(m)
		if len(at) > 0 && !has(at, ma.P_CIRCUIT) && !has(at, ma.P_WEBTRANSPORT) {
			all = append(all, at)
		}
	}
	all = ma.Unique(h.useful(all))
	slices.SortStableFunc(all, func(a, b ma.Multiaddr) int { return cmp.Compare(kind(a), kind(b)) })
	return all[:min(len(all), leaseAddrs)]
}

// addrs are the host's addresses through relays.
func (s *relays) addrs() []ma.Multiaddr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ma.Multiaddr
	for id, l := range s.held {
		via, err := ma.NewMultiaddr("/p2p/" + id.String() + "/p2p-circuit")
		if err != nil {
			continue
		}
		for _, m := range l.addrs {
			out = append(out, m.Encapsulate(via))
		}
	}
	return out
}

// publish has the host look at its addresses anew.
func (s *relays) publish() {
	_ = s.changed.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: s.addrs()}) // fails when the host is closed
}

func (s *relays) leases() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Lease
	for _, l := range s.held {
		out = append(out, l.Lease)
	}
	slices.SortFunc(out, func(a, b Lease) int { return cmp.Compare(a.Relay, b.Relay) })
	return out
}

// withRelays adds the addresses through relays to those of the host.
func (h *Host) withRelays(own []ma.Multiaddr) []ma.Multiaddr {
	x := h.leases.Load()
	if x == nil {
		return own
	}
	return slices.Concat(own, x.addrs())
}
