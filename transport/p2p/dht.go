package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dray"
	"dray/transport"
)

// The choices of Reach.DHT.
const (
	DHTOff     = "off"
	DHTPrivate = "private"
	DHTPublic  = "public"
)

const (
	// dhtPrefix begins the protocol ids of the DHT that Drays have among themselves, so that it and IPFS's never mix.
	dhtPrefix   protocol.ID = "/dray"
	dhtProtocol             = dhtPrefix + "/kad/1.0.0"
	// dhtKept is how long Drays keep a record of who holds what, and dhtPublicKept how long until IPFS's hosts want to hear it
	// again; those keep it for 48 h.
	dhtKept       = 6 * time.Hour
	dhtPublicKept = 22 * time.Hour
	// dhtRecords bounds the records that this host keeps for others, some 20 MB of them.
	dhtRecords = 64 << 10
	// dhtFound is how many holders one search looks for.
	dhtFound = 32
	// joinFirst is how long a host waits before it tries again to enter the DHT, and joinLast how long at most.
	joinFirst = time.Second
	joinLast  = 5 * time.Minute
	// dhtAddrs bounds the addresses of a holder that are passed on.
	dhtAddrs = 32
)

// table is a host's part in a distributed hash table (Kademlia), where it finds who holds a root, and tells that it does.
type table struct {
	host *Host
	kind string // DHTPrivate or DHTPublic
	dht  *dht.IpfsDHT
	kept time.Duration
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Routing is a DHT: it finds holders, and tells that this host is one.
type Routing interface {
	transport.Finder
	transport.Announcer
}

// Routing returns the host's part in a DHT, nil if [Reach] says that it has none.
func (h *Host) Routing() Routing {
	if h.table == nil {
		return nil
	}
	return h.table
}

// startDHT joins a DHT, from the background.
func (h *Host) startDHT(r Reach) error {
	t := &table{host: h, kind: r.DHT, kept: dhtKept}
	known, err := addrInfos(slices.Concat(r.Bootstrap, r.Relays))
	if err != nil {
		return err
	}
	var options []dht.Option
	switch r.DHT {
	case DHTPrivate:
		options = append(options,
			dht.ProtocolPrefix(dhtPrefix), dht.Mode(dht.ModeAutoServer), dht.DisableValues(),
			dht.Datastore(newRecords(dhtRecords)), dht.ProviderManagerOpts(records.ProvideValidity(dhtKept)),
			dht.AddressFilter(h.useful))
	case DHTPublic:
		// A client only: whoever serves it keeps names and keys for strangers, too.
		t.kept = dhtPublicKept
		options = append(options, dht.Mode(dht.ModeClient), dht.AddressFilter(h.public),
			dht.QueryFilter(dht.PublicQueryFilter), dht.RoutingTableFilter(dht.PublicRoutingTableFilter))
		if len(r.Bootstrap) == 0 {
			known = append(known, dht.GetDefaultBootstrapPeerAddrInfos()...)
		}
	default:
		return fmt.Errorf("unknown DHT %q; right is %s, %s or %s", r.DHT, DHTOff, DHTPrivate, DHTPublic)
	}
	if t.dht, err = dht.New(h.host, append(options, dht.BootstrapPeers(known...))...); err != nil {
		return err
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	h.table = t
	t.wg.Go(func() { t.join(known) })
	return nil
}

func (t *table) close() error {
	t.stop()
	t.wg.Wait()
	return t.dht.Close()
}

// serving reports whether the host answers others.
func (t *table) serving() bool { return slices.Contains(t.host.host.Mux().Protocols(), dhtProtocol) }

// join connects to hosts of the DHT, again and again until there is one.
func (t *table) join(known []peer.AddrInfo) {
	wait := joinFirst
	for len(known) > 0 && t.dht.RoutingTable().Size() == 0 {
		var wg sync.WaitGroup
		for _, p := range known {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.ctx, dialTimeout)
				defer cancel()
				t.host.swarm.Backoff().Clear(p.ID)
				if err := t.host.host.Connect(ctx, p); err != nil {
					t.host.log.Debug("a known host of the DHT is not there", "peer", p.ID, "err", err)
				}
			})
		}
		wg.Wait()
		if !t.pause(wait) {
			return
		}
		wait = min(2*wait, joinLast)
	}
	_ = t.dht.Bootstrap(t.ctx) // only asks for what is done regularly anyhow
}

// pause waits, and reports whether the table is still open.
func (t *table) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// Find implements [transport.Finder].
func (t *table) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	n := 0
	for p := range t.dht.FindProvidersAsync(ctx, c, dhtFound) {
		if p.ID == t.host.host.ID() {
			continue
		}
		if len(p.Addrs) == 0 {
			one, done := context.WithTimeout(ctx, dialTimeout)
			p, _ = t.dht.FindPeer(one, p.ID) // who has no address is not there
			done()
		}
		if at := t.host.useful(p.Addrs); len(at) > 0 {
			n++
			found(transport.Peer{ID: dray.PeerID(p.ID), Addrs: texts(at)})
		}
	}
	if n == 0 && ctx.Err() == nil && t.dht.RoutingTable().Size() == 0 {
		return &dray.Error{Op: "ask the DHT", CID: c, Err: errNobody}
	}
	return ctx.Err()
}

// errNobody means that there is no DHT to speak of.
var errNobody = fmt.Errorf("%w: no other host of the DHT is known; name one with reach.bootstrap in the settings, or connect to a peer",
	dray.ErrUnreachable)

// Announce implements [transport.Announcer].
func (t *table) Announce(ctx context.Context, c cid.Cid) (kept time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	err = t.dht.Provide(ctx, c, true)
	switch {
	case err == nil:
		return t.kept, nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, kbucket.ErrLookupFailure):
		err = errNobody
	}
	return 0, &dray.Error{Op: "tell the DHT", CID: c, Err: err}
}

// useful leaves out addresses that mean nothing to this host or from it: loopback, unless this host is on loopback alone, and
// those without a transport.
func (h *Host) useful(all []ma.Multiaddr) []ma.Multiaddr {
	alone := h.alone()
	var out []ma.Multiaddr
	for _, m := range all {
		if len(m) == 0 || !dialable(m) || manet.IsIPUnspecified(m) || manet.IsIPLoopback(m) && !alone || manet.IsIP6LinkLocal(m) {
			continue
		}
		if out = append(out, m); len(out) == dhtAddrs {
			break
		}
	}
	return out
}

// public is useful without what is reachable on private networks only.
func (h *Host) public(all []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(h.useful(all), func(m ma.Multiaddr) bool { return !manet.IsPublicAddr(m) })
}

// alone reports whether only this machine can connect to the host, if anybody.
func (h *Host) alone() bool {
	some := false
	for _, m := range h.host.Network().ListenAddresses() {
		if has(m, ma.P_CIRCUIT) {
			continue
		}
		if !manet.IsIPLoopback(m) {
			return false
		}
		some = true
	}
	return some
}

// addrInfos reads peers in libp2p's terms.
func addrInfos(list []transport.Peer) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	for _, p := range list {
		info := peer.AddrInfo{ID: peer.ID(p.ID)}
		if err := info.ID.Validate(); err != nil {
			return nil, err
		}
		for _, s := range p.Addrs {
			m, err := parseMultiaddr(s)
			if err != nil {
				return nil, err
			}
			at, _ := peer.SplitAddr(m)
			info.Addrs = append(info.Addrs, at)
		}
		out = append(out, info)
	}
	return out, nil
}

func texts(all []ma.Multiaddr) []string {
	out := make([]string, 0, len(all))
	for _, m := range all {
		out = append(out, m.String())
	}
	return out
}
