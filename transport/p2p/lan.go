package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dray"
	"dray/transport"
)

// On a local network hosts announce themselves by multicast DNS (RFC 6762, 6763), as libp2p's mDNS discovery does, under a
// name of Dray's own: only Drays are asked and answer. A record names the host's id and addresses and nothing that it holds.

const (
	lanDomain = "local"
	// lanPort is what the record of type SRV says. Nobody reads it: addresses are in the TXT record.
	lanPort = 4001
	// lanTTL is how long, in seconds, others may believe an announcement that is not repeated.
	lanTTL = 600
	// lanMost bounds how many neighbours one Discover tells of, and lanWaiting how many may wait to be told. Beyond them new ones
	// are ignored.
	lanMost    = 256
	lanWaiting = 64
	// lanText bounds the bytes of addresses in an announcement, so that it fits a packet (RFC 6762, section 17).
	lanText   = 1000
	lanPrefix = "dnsaddr="
)

// lanService is the name under which hosts of a swarm know each other. That of a private swarm has the first half of the key's
// fingerprint in it, so that hosts which cannot talk to each other do not try.
func lanService(k SwarmKey) string {
	if k.IsZero() {
		return "_dray._udp"
	}
	return "_dray-" + k.String()[:8] + "._udp"
}

// lan is a host on its local network.
type lan struct {
	host    *Host
	service string
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

var _ transport.Discoverer = (*lan)(nil)

// Neighbours sees the hosts on the local network; nil if [Reach] says not to look.
func (h *Host) Neighbours() transport.Discoverer {
	if h.lan == nil {
		return nil
	}
	return h.lan
}

// startLAN lets others on the local network see the host, from the background: to join groups takes a while.
func (h *Host) startLAN(k SwarmKey) {
	l := &lan{host: h, service: lanService(k)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	h.lan = l
	l.wg.Go(l.announce)
}

func (l *lan) close() {
	l.stop()
	l.wg.Wait()
}

// announce tells others where the host is, anew whenever that changes.
func (l *lan) announce() {
	changes, err := l.host.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
	if err != nil {
		l.host.log.Warn("the local network is told nothing", "err", err)
		return
	}
	defer changes.Close()
	var server *zeroconf.Server
	var told []string
	for {
		if now := l.text(); !slices.Equal(now, told) {
			if server != nil {
				server.Shutdown()
				server = nil
			}
			told = now
			if len(now) > 0 {
				if server, err = l.register(now); err != nil {
					told = nil // when addresses change the next time, it may work
					l.host.log.Info("the local network is told nothing", "err", err)
				}
			}
		}
		select {
		case <-changes.Out():
		case <-l.ctx.Done():
			if server != nil {
				server.Shutdown()
			}
			return
		}
	}
}

func (l *lan) register(text []string) (*zeroconf.Server, error) {
	// The name must be unlike all others' and means nothing.
	name := strings.ToLower(rand.Text())
	// The records of type A and AAAA have to be there.
	var ips []string
	for _, t := range text {
		m, err := ma.NewMultiaddr(strings.TrimPrefix(t, lanPrefix))
		if err != nil {
			return nil, err
		}
		if ip, err := manet.ToIP(m); err == nil && !slices.Contains(ips, ip.String()) {
			ips = append(ips, ip.String())
		}
	}
	return zeroconf.RegisterProxy(name, l.service, lanDomain, lanPort, name, ips, text, lanInterfaces(), zeroconf.TTL(lanTTL))
}

// lanInterfaces lists those on which there can be neighbours.
func lanInterfaces() []net.Interface {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	const wanted = net.FlagUp | net.FlagMulticast
	return slices.DeleteFunc(all, func(i net.Interface) bool {
		return i.Flags&wanted != wanted || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0
	})
}

// text lists the addresses that are of use on the local network, as many as fit: TCP first, then QUIC.
func (l *lan) text() []string {
	var all []string
	size := 0
	for _, code := range []int{ma.P_TCP, ma.P_QUIC_V1} {
		for _, m := range l.host.ownAddrs() {
			if m[len(m)-1].Protocol().Code != code || !onLAN(m) {
				continue
			}
			t := lanPrefix + m.String() + "/p2p/" + l.host.host.ID().String()
			if size += len(t) + 1; size > lanText {
				return all
			}
			all = append(all, t)
		}
	}
	return all
}

// onLAN reports whether neighbours can dial an address: it is one of an interface with others on it.
func onLAN(m ma.Multiaddr) bool {
	ip, err := manet.ToIP(m)
	return err == nil && !has(m, ma.P_CIRCUIT) && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast()
}

// Discover implements [transport.Discoverer]. It tells of at most 256 neighbours. Queries are sent when it begins, after
// four seconds, and ever more rarely up to once a minute.
func (l *lan) Discover(ctx context.Context, found func(transport.Peer)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	if l.ctx.Err() != nil {
		return &dray.Error{Op: "look around", Err: dray.ErrClosed}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	on := lanInterfaces()
	if len(on) == 0 {
		return &dray.Error{Op: "look around", Err: errors.New("no interface of this machine has a local network behind it")}
	}
	entries := make(chan *zeroconf.ServiceEntry, lanWaiting)
	var wg sync.WaitGroup
	wg.Go(func() {
		seen := make(map[peer.ID]bool)
		for e := range entries {
			for _, p := range l.read(e.Text) {
				if seen[peer.ID(p.ID)] || len(seen) < lanMost {
					seen[peer.ID(p.ID)] = true
					found(p)
				}
			}
		}
	})
	err := zeroconf.Browse(ctx, l.service, lanDomain, entries, zeroconf.SelectIfaces(on), zeroconf.SelectIPTraffic(ipTraffic()))
	if err != nil {
		close(entries) // it has failed before it began; else the channel is closed already
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		err = &dray.Error{Op: "look around", Err: err}
	}
	return err
}

// ipTraffic says which versions of IP the machine has sockets for.
func ipTraffic() (t zeroconf.IPType) {
	for _, v := range []struct {
		network string
		t       zeroconf.IPType
	}{{"udp4", zeroconf.IPv4}, {"udp6", zeroconf.IPv6}} {
		if c, err := net.ListenUDP(v.network, nil); err == nil {
			c.Close()
			t |= v.t
		}
	}
	return t
}

// read returns who an announcement is of. It is a stranger's claim.
func (l *lan) read(text []string) []transport.Peer {
	addrs := make(map[peer.ID][]string)
	for _, t := range text[:min(len(text), lanWaiting)] {
		s, ok := strings.CutPrefix(t, lanPrefix)
		if !ok {
			continue
		}
		m, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		at, id := peer.SplitAddr(m)
		if id == "" || id == l.host.host.ID() || len(at) == 0 || !dialable(at) || !onLAN(at) {
			continue
		}
		addrs[id] = append(addrs[id], at.String())
	}
	var out []transport.Peer
	for id, list := range addrs {
		out = append(out, transport.Peer{ID: dray.PeerID(id), Addrs: list})
	}
	slices.SortFunc(out, func(a, b transport.Peer) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}
