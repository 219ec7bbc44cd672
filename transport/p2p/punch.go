package p2p

import (
	"context"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-reuseport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Two hosts behind routers that translate addresses meet at a relay, tell each other there where others see them, and dial each
// other at the same moment: each dial opens the way for the other's (DCUtR). For that a dial has to come from the port that others
// know, the one that is listened on. QUIC's always do. TCP's do so in two cases only, see portDialer.

const (
	// punchTimeout is how long one of three attempts may take.
	punchTimeout = 4 * time.Second
	// punchers is how many relayed peers are tried again at a time; more wait until one of them is done.
	punchers = 16
)

// punchAfter is when it is tried again, after the library's own attempts failed or came too early.
var punchAfter = []time.Duration{3 * time.Second, 30 * time.Second, 5 * time.Minute}

// puncher makes relayed connections direct.
type puncher struct {
	reach *reach
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	turn  chan struct{} // one slot for each that is tried

	mu      sync.Mutex
	service *holepunch.Service // nil until the host has an address to tell
}

func newPuncher(x *reach) *puncher {
	p := &puncher{reach: x, turn: make(chan struct{}, punchers)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

func (p *puncher) close() {
	p.stop()
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.service != nil {
		_ = p.service.Close()
	}
}

// begin lets peers ask for holes, as soon as there is an address to tell them.
func (p *puncher) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.service != nil || p.ctx.Err() != nil || len(p.addrs()) == 0 {
		return
	}
	s, err := holepunch.NewService(p.reach.host.host, p.reach.ids.IDService(), p.addrs, holepunch.DirectDialTimeout(punchTimeout))
	if err != nil {
		p.reach.host.log.Warn("no holes are punched", "err", err)
		return
	}
	p.service = s
}

// addrs are those at which this host may be dialled: where others see it, even if it is one only; what most routers make of the
// other ports of the host, which is the same port; and those of its interfaces, for peers behind the same router.
func (p *puncher) addrs() []ma.Multiaddr {
	h := p.reach.host
	seen := p.reach.observed.Addrs(1)
	all := slices.Concat(seen, guesses(seen, h.host.Network().ListenAddresses()), h.ownAddrs())
	return slices.DeleteFunc(ma.Unique(h.useful(all)), func(m ma.Multiaddr) bool { return has(m, ma.P_CIRCUIT) || kind(m) > 1 })
}

// guesses are the addresses of listeners at the host parts of addresses at which others see them.
func guesses(seen, listeners []ma.Multiaddr) (out []ma.Multiaddr) {
	for _, s := range seen {
		for _, l := range listeners {
			if len(s) > 1 && len(l) > 1 && s[0].Protocol().Code == l[0].Protocol().Code && !manet.IsIPLoopback(l) {
				out = append(out, slices.Concat(s[:1], l[1:]))
			}
		}
	}
	return out
}

// relayed has a peer tried again for a while whose only connection is relayed.
func (p *puncher) relayed(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	p.wg.Go(func() {
		for _, d := range punchAfter {
			timer := time.NewTimer(d)
			select {
			case <-timer.C:
			case <-p.ctx.Done():
			}
			timer.Stop()
			if p.ctx.Err() != nil || !p.reach.host.isRelayed(id) || !p.try(id) {
				return
			}
		}
	})
}

// try punches, and reports whether it may be of use to try again.
func (p *puncher) try(id peer.ID) bool {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-p.ctx.Done():
		return false
	}
	p.mu.Lock()
	s := p.service
	p.mu.Unlock()
	if s == nil {
		return true
	}
	err := s.DirectConnect(id)
	if err != nil {
		p.reach.host.log.Debug("no hole", "peer", id, "err", err)
	}
	return err != nil
}

// near is the relays that the host knows, by address and port. It dials them from where it listens, and over QUIC if it can, so
// that they see it at the address that others need.
type near struct {
	mu  sync.Mutex
	set map[string]struct{}
}

// maxNear bounds how many addresses are remembered.
const maxNear = 1024

func waist(m ma.Multiaddr) string {
	if len(m) < 2 {
		return ""
	}
	return m[:2].String()
}

func (n *near) add(all []ma.Multiaddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		n.set = make(map[string]struct{})
	}
	for _, m := range all {
		if len(n.set) < maxNear {
			n.set[waist(m)] = struct{}{}
		}
	}
}

func (n *near) has(m ma.Multiaddr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.set[waist(m)]
	return ok
}

// relayOf returns what comes before /p2p-circuit in an address, without the relay's id, or nil.
func relayOf(m ma.Multiaddr) ma.Multiaddr {
	i := slices.IndexFunc(m, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	if i < 0 {
		return nil
	}
	at, _ := peer.SplitAddr(m[:i])
	return at
}

// relayID returns the id of the relay that an address leads through, or "".
func relayID(m ma.Multiaddr) peer.ID {
	i := slices.IndexFunc(m, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	if i < 0 {
		return ""
	}
	_, id := peer.SplitAddr(m[:i])
	return id
}

// portDialer dials over TCP. Two hosts that dial each other at the same moment, both from the ports that they listen on, get one
// connection on which both are clients, and both dials fail; so a dial has a port of its own, with two exceptions that use the
// listener's. Hosts that punch a hole have agreed on who is the client. And a relay never dials from its listener's port, so
// whoever dials a relay that it knows may.
type portDialer struct {
	host *Host
	to   ma.Multiaddr
}

func (h *Host) dialerFor(to ma.Multiaddr) (tcp.ContextDialer, error) { return &portDialer{h, to}, nil }

// DialContext implements libp2p's tcp.ContextDialer.
func (d *portDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var plain net.Dialer
	punching := isPunch(ctx)
	if !punching && !d.host.near.has(d.to) {
		return plain.DialContext(ctx, network, address)
	}
	from := d.host.listener(d.to)
	if from == nil {
		return plain.DialContext(ctx, network, address)
	}
	own := net.Dialer{LocalAddr: from, Control: func(network, address string, c syscall.RawConn) error {
		return reuseport.Control(network, address, c)
	}}
	c, err := own.DialContext(ctx, network, address)
	if err != nil && !punching && ctx.Err() == nil {
		return plain.DialContext(ctx, network, address) // such as when a connection from there is not quite over
	}
	return c, err
}

func isPunch(ctx context.Context) bool {
	ok, _, _ := network.GetSimultaneousConnect(ctx)
	return ok
}

// listener returns where plain TCP is listened on, for a connection to an address, or nil.
func (h *Host) listener(to ma.Multiaddr) *net.TCPAddr {
	if h.relaying {
		return nil
	}
	ip, err := manet.ToIP(to)
	if err != nil {
		return nil
	}
	for _, m := range h.host.Network().ListenAddresses() {
		if len(m) != 2 || m[1].Protocol().Code != ma.P_TCP {
			continue
		}
		a, err := tcpAddr(m)
		if err == nil && (a.IP.To4() == nil) == (ip.To4() == nil) && a.IP.IsLoopback() == ip.IsLoopback() {
			return a
		}
	}
	return nil
}

// heed prepares for what a dial may lead to: relays on the way become known, and a host that listens nowhere opens a port, because
// nobody could meet it otherwise when a hole is punched.
func (h *Host) heed(addrs []ma.Multiaddr) {
	if h.reach == nil || h.reach.punch == nil {
		return
	}
	var relays []ma.Multiaddr
	for _, m := range addrs {
		if at := relayOf(m); at != nil {
			relays = append(relays, at)
		}
	}
	if len(relays) == 0 {
		return
	}
	h.near.add(relays)
	h.opening.Do(func() {
		if h.listens() {
			return
		}
		ip := "/ip4/0.0.0.0"
		if !slices.ContainsFunc(relays, func(m ma.Multiaddr) bool { return !manet.IsIPLoopback(m) }) {
			ip = "/ip4/127.0.0.1"
		}
		ports := []string{ip + "/tcp/0"}
		if !h.psk {
			ports = append(ports, ip+"/udp/0/quic-v1")
		}
		for _, s := range ports {
			if err := h.swarm.Listen(ma.StringCast(s)); err != nil {
				h.log.Info("no port for holes", "addr", s, "err", err)
			}
		}
		h.reach.punch.begin()
	})
}

// listens reports whether others can dial the host somewhere, relays aside.
func (h *Host) listens() bool {
	return slices.ContainsFunc(h.host.Network().ListenAddresses(), func(m ma.Multiaddr) bool { return !has(m, ma.P_CIRCUIT) })
}

// isRelayed reports whether all connections with a peer lead through relays, and there are any.
func (h *Host) isRelayed(p peer.ID) bool {
	all := h.host.Network().ConnsToPeer(p)
	return len(all) > 0 && !slices.ContainsFunc(all, func(nc network.Conn) bool { return !isRelayed(nc) })
}

// isDirectly reports whether there is a connection with a peer that leads through no relay.
func (h *Host) isDirectly(p peer.ID) bool {
	return slices.ContainsFunc(h.host.Network().ConnsToPeer(p), func(nc network.Conn) bool { return !isRelayed(nc) })
}

// taken says that somebody else listens on a TCP port. Without this, two processes of one user could listen on the same one: the
// listener shares its port with the dials of holes.
func (h *Host) taken(m ma.Multiaddr) error {
	if !h.shares || len(m) != 2 || m[1].Protocol().Code != ma.P_TCP {
		return nil
	}
	a, err := tcpAddr(m)
	if err != nil || a.Port == 0 {
		return nil
	}
	l, err := net.ListenTCP("tcp", a)
	if err != nil {
		return err
	}
	return l.Close()
}
