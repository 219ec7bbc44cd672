package main

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/find"
	delegated "dray/find/http"
	"dray/find/seek"
	"dray/node"
	"dray/settings"
	"dray/transport"
	"dray/transport/p2p"
	"dray/wire"
)

// A home's finders: who is asked who holds what, cheapest first. What they said before comes before all of them.
//
//	peers    those connected, and those whom these are connected to
//	static   those that the settings or --peer name and that are not connected
//	lan      those seen on the local network
//	URL      delegated routers
//	dht      the distributed hash table
//
// docs/finding.md says it to people.

const (
	staticAfter = 0 // a command without a daemon is connected to nobody at first
	lanAfter    = 100 * time.Millisecond
	routerAfter = 500 * time.Millisecond
	dhtAfter    = time.Second
	lanLook     = 2 * time.Second // how long a command without a daemon waits for the first neighbours to be seen
	lanTTL      = 15 * time.Minute
	lanKept     = 8 // neighbours that a daemon stays connected to
	routingTTL  = 24 * time.Hour
)

// finders belong to a house. They are a [transport.Judge].
type finders struct {
	seek    *seek.Finder
	peers   *seek.Peers
	self    dray.PeerID
	static  []transport.Peer
	lan     transport.Discoverer // nil if there is none
	dht     transport.Announcer  // nil if there is none
	routers int                  // how many are asked
	others  bool                 // there are routers, or a DHT that can be entered

	node   atomic.Pointer[node.Node] // set once there is one
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	look   sync.Once
	began  atomic.Int64  // when looking around began, in Unix nanoseconds
	came   chan struct{} // one slot: a neighbour was seen; whoever waits for one empties it
	stay   chan struct{} // one slot: there are others to stay connected to
}

// openFinders makes what a home that has a network finds with.
func openFinders(h *house, s *settings.Find, named []string) (*finders, error) {
	f := &finders{self: h.net.Self(), came: make(chan struct{}, 1), stay: make(chan struct{}, 1)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	var err error
	if f.static, err = parsePeers(append(slices.Clone(s.Peers), named...)); err != nil {
		return nil, err
	}
	var seen together
	if d := h.net.Neighbours(); d != nil {
		seen = append(seen, d)
	}
	if len(s.Hosts) > 0 {
		token, err := readToken(h.home, &h.settings.HTTP)
		if err != nil {
			return nil, err
		}
		seen = append(seen, newHosts(s.Hosts, token, f.self))
	}
	if len(seen) > 0 {
		f.lan = seen
	}
	f.peers = seek.NewPeers(seek.PeersConfig{Host: f, Self: f.self})
	list := []seek.Named{{Name: "peers", Source: find.Peers, Finder: f.peers.Connected(), TTL: time.Hour}}
	if len(f.static) > 0 {
		list = append(list, seek.Named{
			Name: "static", Source: find.Peers, Finder: f.peers.Named(func() []transport.Peer { return f.static }, true),
			After: staticAfter, TTL: time.Hour,
		})
	}
	if f.lan != nil {
		list = append(list, seek.Named{Name: "lan", Source: find.LAN, Finder: around{f}, After: lanAfter, TTL: lanTTL})
	}
	for _, r := range s.Routers {
		c, err := delegated.NewClient(delegated.ClientConfig{URL: r, UserAgent: "dray/" + version()})
		if err != nil {
			return nil, err
		}
		f.others = true
		f.routers++
		list = append(list, seek.Named{
			Name: r, Source: find.Routing, Finder: outside{f, scoped{c, placeOf(r)}}, After: routerAfter, TTL: routingTTL,
		})
	}
	if t := h.net.Routing(); t != nil {
		f.dht = t
		f.others = f.others || h.net.Reachability().DHT == p2p.DHTPublic // a private one is entered by who is connected
		list = append(list, seek.Named{Name: "dht", Source: find.DHT, Finder: outside{f, t}, After: dhtAfter, TTL: routingTTL})
	}
	f.seek = seek.New(seek.Config{Self: f.self, Finders: list, Log: h.env.log()})
	f.peers.Remember(f.seek)
	return f, nil
}

// close ends every search.
func (f *finders) close() error {
	if f == nil {
		return nil
	}
	f.cancel()
	err := f.seek.Close()
	f.wg.Wait()
	return err
}

// able reports whether a node that is connected to nobody could find somebody.
func (f *finders) able() bool { return f != nil && (len(f.static) > 0 || f.lan != nil || f.others) }

// inWords says by whom peers are found, without naming anybody.
func (f *finders) inWords() string {
	if f == nil {
		return ""
	}
	list := []string{"the peers' own peers"}
	if len(f.static) > 0 {
		list = append(list, "the named peers")
	}
	if f.lan != nil {
		list = append(list, "the local network")
	}
	if f.routers > 0 {
		list = append(list, plural(int64(f.routers), "router"))
	}
	if f.dht != nil {
		list = append(list, "the DHT")
	}
	return strings.Join(list, ", ")
}

// service is what other homes ask.
func (f *finders) service() node.Service {
	return node.Service{Protocol: find.AskProtocol, Serve: f.peers.Serve}
}

// Find implements [transport.Finder].
func (f *finders) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	return f.seek.Find(ctx, c, found)
}

// Reached implements [transport.Judge].
func (f *finders) Reached(p dray.PeerID, err error) {
	f.seek.Reached(p, err)
	if err == nil {
		f.peers.Reached(p)
	}
}

// Held implements [transport.Judge].
func (f *finders) Held(c cid.Cid, p dray.PeerID, has bool) { f.seek.Held(c, p, has) }

// lasting are the peers to stay connected to: those that are named, and a few neighbours.
func (f *finders) lasting() []transport.Peer {
	if f == nil {
		return nil
	}
	list := slices.Clone(f.static)
	for _, p := range f.seek.Neighbours() {
		if len(list) >= len(f.static)+lanKept {
			break
		}
		if !p.Exhausted {
			list = append(list, transport.Peer{ID: p.ID, Addrs: p.Addrs})
		}
	}
	return list
}

// lookAround begins to notice neighbours.
func (f *finders) lookAround() {
	if f.lan == nil {
		return
	}
	f.look.Do(func() {
		f.began.Store(time.Now().UnixNano())
		f.wg.Go(func() {
			_ = f.lan.Discover(f.ctx, func(p transport.Peer) { // without neighbours there are the other finders
				if !f.seek.Neighbour(p, lanTTL) {
					return
				}
				for _, slot := range []chan struct{}{f.came, f.stay} {
					select {
					case slot <- struct{}{}:
					default:
					}
				}
			})
		})
	})
}

// around is the finder that asks neighbours. When the home has just begun to look, it waits a while for them to be seen.
type around struct{ f *finders }

// Find implements [transport.Finder].
func (a around) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	f := a.f
	f.lookAround()
	asked := make(map[dray.PeerID]bool)
	fresh := func() (list []transport.Peer) {
		for _, p := range f.seek.Neighbours() {
			if !asked[p.ID] && !p.Exhausted {
				asked[p.ID] = true
				list = append(list, transport.Peer{ID: p.ID, Addrs: p.Addrs})
			}
		}
		return list
	}
	seen := time.NewTimer(time.Until(time.Unix(0, f.began.Load()).Add(lanLook)))
	defer seen.Stop()
	for {
		if err := f.peers.Named(fresh, false).Find(ctx, c, found); err != nil && ctx.Err() != nil {
			return err
		}
		select {
		case <-f.came:
		case <-seen.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outside is a finder that strangers answer: it is not asked about what is private.
type outside struct {
	f *finders
	transport.Finder
}

// Find implements [transport.Finder].
func (o outside) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	if n := o.f.node.Load(); n == nil || n.Guarded(c) {
		return nil
	}
	return o.Finder.Find(ctx, c, found)
}

// scoped is a finder that is believed no addresses that lead where it cannot go itself.
type scoped struct {
	transport.Finder
	place string // an address of whoever says it
}

// Find implements [transport.Finder].
func (s scoped) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	return s.Finder.Find(ctx, c, func(p transport.Peer) {
		p.Addrs = seek.Reachable(p.Addrs, s.place, true)
		found(p)
	})
}

// placeOf writes where a router is, as an address of a connection to it.
func placeOf(router string) string {
	u, err := url.Parse(router)
	if err != nil {
		return ""
	}
	name := u.Hostname()
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return "/ip4/127.0.0.1"
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return "/dns/" + name
	}
	return placeOfIP(ip)
}

// placeOfIP writes an IP address as the begin of a multiaddr.
func placeOfIP(ip netip.Addr) string {
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return "/ip4/" + ip.String()
	}
	return "/ip6/" + ip.String()
}

const (
	rootsLook = 5 * time.Second  // between looks whether roots were added or removed
	rootsRead = 10 * time.Minute // and whether they are what is thought, whatever was done
)

// startAnnouncing has the open roots of a daemon found by others, and returns what waits for its end. Other Drays that are
// connected, or on the local network, need not be told: they ask.
func (h *house) startAnnouncing(ctx context.Context) (end func()) {
	if h.finders.dht == nil {
		return func() {}
	}
	var (
		wg      sync.WaitGroup
		list    []cid.Cid
		changes = int64(-1)
		read    time.Time
	)
	roots := func(ctx context.Context) ([]cid.Cid, error) {
		if now := h.changes.Load(); now != changes || time.Since(read) >= rootsRead {
			all, err := h.openRoots(ctx)
			if err != nil {
				return nil, err
			}
			list, changes, read = all, now, time.Now()
		}
		return list, nil
	}
	wg.Go(func() {
		seek.Announce(ctx, seek.AnnounceConfig{
			To: h.finders.dht, Name: "dht", Roots: roots, Look: rootsLook, Log: h.env.log(),
			// At first there may be nobody in the DHT, which is found out at once.
			Schedule: find.ScheduleConfig{Retry: 2 * time.Second, RetryMost: 5 * time.Minute},
		})
	})
	return wg.Wait
}

// openRoots are the roots that everybody may have. What is private is announced to nobody.
func (h *house) openRoots(ctx context.Context) (list []cid.Cid, err error) {
	if h.door.only {
		return nil, nil
	}
	all, err := h.store.Roots(ctx)
	for _, r := range all {
		if _, closed := h.door.rule(r.CID); !closed && !h.node.Guarded(r.CID) {
			list = append(list, r.CID)
		}
	}
	return list, err
}

// What [seek.Peers] needs of the node.

// Addrs implements [seek.Host].
func (f *finders) Addrs() []string {
	if n := f.node.Load(); n != nil {
		return n.Addrs()
	}
	return nil
}

// Connected implements [seek.Host].
func (f *finders) Connected() (list []seek.Contact) {
	n := f.node.Load()
	if n == nil {
		return nil
	}
	for _, p := range n.Peers() {
		if p.Protocol == "" || p.Protocol == wire.Swap1.Protocol() {
			list = append(list, seek.Contact{ID: p.ID, Remote: p.Info.Remote})
		}
	}
	return list
}

// Call implements [seek.Host].
func (f *finders) Call(ctx context.Context, p transport.Peer, protocol transport.Protocol) (transport.Stream, error) {
	n := f.node.Load()
	if n == nil {
		return nil, &dray.Error{Op: "call", Peer: p.ID, Err: dray.ErrClosed}
	}
	return n.Call(ctx, p, protocol)
}

// Share implements [seek.Host].
func (f *finders) Share(root cid.Cid) seek.Share {
	n := f.node.Load()
	if n == nil {
		return seek.Share{}
	}
	s := seek.Share{Whole: make(map[dray.PeerID]bool)}
	for _, m := range n.Mates(root) {
		s.Mates = append(s.Mates, m.Peer)
		s.Whole[m.Peer] = m.Whole
	}
	_, err := n.Store().Stat(f.ctx, root)
	s.Holds = err == nil
	return s
}

// MayTell implements [seek.Host].
func (f *finders) MayTell(peer dray.PeerID, root cid.Cid, proof dray.Proof) bool {
	n := f.node.Load()
	return n != nil && n.MayTell(peer, root, proof)
}

// Prove implements [seek.Host].
func (f *finders) Prove(peer dray.PeerID, root cid.Cid) dray.Proof {
	if n := f.node.Load(); n != nil {
		return n.Prove(peer, root)
	}
	return dray.Proof{}
}
