package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	"dray/transport"
)

// Config says how to make a [Host]. The zero value works.
type Config struct {
	// Key is the host's identity. If zero, a fresh one that is forgotten with the host.
	Key Key
	// Listen are the multiaddrs to accept connections on. If nil, [DefaultListen]; if empty but not nil, none: the host
	// only dials.
	Listen []string
	// Security names what secures TCP and WebSocket, most preferred first, of "tls" and "noise". If nil, both in this
	// order. (QUIC has TLS built in; WebTransport proves identity with Noise.)
	Security []string
	// DataPlane says what bulk connections (see [transport.Bulker]) are like: "encrypted", with TLS 1.3; or "authenticated",
	// where it is certain who is at the other end but the bytes are in clear, for networks that are private in themselves.
	// The latter is used with peers that chose it too; all others get the former. If empty, "encrypted".
	DataPlane string
	// SwarmKey makes the host one of a private swarm: it connects to hosts with the same key and no others, over TCP and
	// WebSocket only, and without bulk connections. If zero, the host is in the open.
	SwarmKey SwarmKey
	// Limits bound what peers can make the host spend.
	Limits Limits
	// Reach says how the host finds others and is found by them. If zero, it waits to be told whom to dial.
	Reach Reach
	// UserAgent is what peers see as the name of the software. If empty, "dray".
	UserAgent string
	// Log receives what the operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

// Host is a [transport.Network] over libp2p.
//
// Beyond the contract of the interface: up is called before the first stream of the peer is accepted and before Dial
// returns. A stream that is opened with one protocol only, or to a peer whose protocols are known, is proposed together
// with the first write; a refusal then shows in Read, as [transport.ErrRefused]. A stream must be ended by Close or Reset,
// or by CloseWrite and reading to the end. Close waits until the accept functions of bulk streams have returned, whose streams
// it resets.
type Host struct {
	host  host.Host
	swarm *swarm.Swarm
	plane *plane
	gate  *gate
	psk   bool // of a private swarm
	log   *slog.Logger
	wg    sync.WaitGroup // streams being closed

	// What Reach asked for; each nil if it did not. See reach.go.
	reach    *reach
	table    *table
	lan      *lan
	router   basichost.NATManager
	leases   atomic.Pointer[relays]
	relaying bool // it relays for others
	shares   bool // listeners share their ports with dials
	near     near
	tally    tally
	opening  sync.Once

	// tell is held while a connection is counted and up or down is called.
	tell sync.Mutex

	mu     sync.Mutex // guards what follows; taken after tell
	closed bool
	ups    []func(transport.Conn)
	downs  []func(dray.PeerID)
	peers  map[peer.ID]*conn
	// accepts holds what Handle was given.
	accepts map[transport.Protocol]func(transport.Conn, transport.Stream)
	// admitted is closed and replaced when a peer is added to peers.
	admitted chan struct{}
	room     room
}

// Listening returns the addresses that the host accepts connections at, as it was told or the system chose, one for each
// listener that works.
func (h *Host) Listening() []string {
	var list []string
	for _, a := range h.swarm.ListenAddresses() {
		if !has(a, ma.P_CIRCUIT) { // which is on whatever relays let through
			list = append(list, a.String())
		}
	}
	return list
}

// dialTimeout is how long a dial may take.
const dialTimeout = 15 * time.Second

// New makes a host and starts to listen. Errors say which address cannot be listened on and why.
func New(c Config) (*Host, error) {
	h, err := start(c)
	if err != nil {
		return nil, &dray.Error{Op: "start network", Err: err}
	}
	return h, nil
}

func start(c Config) (*Host, error) {
	if c.Key.priv == nil {
		k, err := NewKey()
		if err != nil {
			return nil, err
		}
		c.Key = k
	}
	if c.Listen == nil {
		if c.Listen = DefaultListen(); !c.SwarmKey.IsZero() {
			c.Listen = PrivateListen()
		}
	}
	if c.UserAgent == "" {
		c.UserAgent = "dray"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	listen := make([]ma.Multiaddr, 0, len(c.Listen))
	for _, s := range c.Listen {
		m, err := parseMultiaddr(s)
		if err != nil {
			return nil, err
		}
		if err := c.SwarmKey.private(m); err != nil {
			return nil, err
		}
		listen = append(listen, m)
	}
	limits := c.Limits.withDefaults()
	resources, err := limits.resources()
	if err != nil {
		return nil, err
	}
	options := []libp2p.Option{
		libp2p.Identity(c.Key.priv),
		libp2p.NoListenAddrs, // listening starts below, when errors can be told apart
		libp2p.UserAgent(c.UserAgent),
		libp2p.ResourceManager(resources),
		libp2p.ConnectionManager(&connmgr.NullConnMgr{}), // room.go does it,
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.DisableMetrics(),
		// The detectors give up on QUIC or IPv6 for good after failures; the dial race makes a failure cheap instead.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
	}
	bulk, err := newPlane(c, limits)
	if err != nil {
		return nil, err
	}
	h := &Host{
		plane: bulk, psk: !c.SwarmKey.IsZero(), log: c.Log, peers: make(map[peer.ID]*conn), admitted: make(chan struct{}),
		accepts:  make(map[transport.Protocol]func(transport.Conn, transport.Stream)),
		room:     newRoom(limits),
		relaying: c.Reach.ServeRelay, shares: c.Reach.Traverse,
	}
	options = append(options, libp2p.SwarmOpts(swarm.WithDialRanker(h.rank)), libp2p.AddrsFactory(h.withRelays))
	options = append(options, h.reachOptions(c.Reach, listen)...)
	h.gate = newGate(h.busy, c.SwarmKey)
	stack, err := h.stackOptions(c, limits)
	if err != nil {
		h.gate.close()
		return nil, err
	}
	lh, err := libp2p.New(append(options, stack...)...)
	if err != nil {
		h.gate.close()
		return nil, err
	}
	h.host = lh
	var ok bool
	if h.swarm, ok = lh.Network().(*swarm.Swarm); !ok {
		_ = lh.Close()
		h.gate.close()
		return nil, fmt.Errorf("libp2p made a %T", lh.Network())
	}
	lh.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, nc network.Conn) {
			h.tally.begin(nc)
			h.admit(nc)
		},
		DisconnectedF: func(_ network.Network, nc network.Conn) {
			h.tally.end(nc)
			h.dismiss(nc)
		},
	})
	bulk.begin(h)
	err = h.listen(listen, c.Listen)
	if err == nil {
		err = h.startReach(c)
	}
	if err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}

// listen starts to listen on each address. An IPv6 wildcard that the machine lacks is no error when something else works.
func (h *Host) listen(addrs []ma.Multiaddr, texts []string) error {
	var failed []error
	good := 0
	for i, m := range addrs {
		err := h.taken(m)
		if err == nil {
			err = h.swarm.Listen(m)
		}
		if err == nil {
			good++
			continue
		}
		reason := strings.Join(strings.Fields(err.Error()), " ")
		err = fmt.Errorf("cannot listen on %s: %s", texts[i], reason)
		if strings.HasPrefix(texts[i], "/ip6/::/") {
			h.log.Debug("not listening", "addr", texts[i], "reason", reason)
			if good > 0 || i < len(addrs)-1 {
				continue
			}
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 && good == 0 && len(addrs) > 0 {
		return errors.New("cannot listen on any address")
	}
	return errors.Join(failed...)
}

// Self returns the host's id.
func (h *Host) Self() dray.PeerID { return dray.PeerID(h.host.ID()) }

// Addrs returns the addresses to reach the host at, wildcards replaced by the addresses of the machine's interfaces, and last those
// that lead through relays.
func (h *Host) Addrs() []string {
	id := "/p2p/" + h.host.ID().String()
	var direct, relayed []string
	for _, m := range h.host.Addrs() {
		if has(m, ma.P_CIRCUIT) {
			relayed = append(relayed, m.String()+id)
		} else {
			direct = append(direct, m.String()+id)
		}
	}
	slices.Sort(direct)
	slices.Sort(relayed)
	return slices.Compact(append(direct, relayed...))
}

// Handle implements [transport.Network].
func (h *Host) Handle(protocols []transport.Protocol, accept func(transport.Conn, transport.Stream)) {
	for _, p := range protocols {
		h.mu.Lock()
		h.accepts[p] = accept
		h.mu.Unlock()
		h.host.SetStreamHandler(protocol.ID(p), func(s network.Stream) {
			c := h.owner(s.Conn())
			if c == nil {
				_ = s.Reset() // its connection is gone already
				return
			}
			accept(c, newAccepted(c, s, p))
		})
	}
}

// Notify implements [transport.Network].
func (h *Host) Notify(up func(transport.Conn), down func(dray.PeerID)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ups = append(h.ups, up)
	h.downs = append(h.downs, down)
}

// Dial implements [transport.Network]. TCP is started first and the others within a quarter of a second; see [rank].
// Addresses that failed a moment ago are tried again: when to dial is the caller's decision.
func (h *Host) Dial(ctx context.Context, id dray.PeerID, addrs []string) (transport.Conn, error) {
	p := peer.ID(id)
	fail := func(err error) (transport.Conn, error) { return nil, &dray.Error{Op: "dial", Peer: id, Err: err} }
	if err := p.Validate(); err != nil {
		return fail(fmt.Errorf("%w: %w", dray.ErrUnreachable, err))
	}
	if p == h.host.ID() {
		return fail(fmt.Errorf("%w: that is this host itself", dray.ErrUnreachable))
	}
	if h.isClosed() {
		return fail(dray.ErrClosed)
	}
	if c := h.wanted(p, 1); c != nil && c.best() != nil {
		h.wanted(p, -1)
		h.settle()
		return c, nil
	}
	defer h.wanted(p, -1)
	var usable []ma.Multiaddr
	var reasons []string
	for _, s := range addrs {
		m, err := parseMultiaddr(s)
		if err == nil {
			at, named := peer.SplitAddr(m)
			switch {
			case named != "" && named != p:
				err = fmt.Errorf("names another peer, %s", named)
			case h.psk && (has(at, ma.P_QUIC_V1) || has(at, ma.P_WEBTRANSPORT)):
				err = errors.New("private swarms have no QUIC and no WebTransport")
			case !dialable(at):
				err = errors.New("no transport for it")
			default:
				usable = append(usable, at)
				continue
			}
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", s, err))
	}
	h.heed(usable)
	h.host.Peerstore().AddAddrs(p, usable, peerstore.RecentlyConnectedAddrTTL)
	h.swarm.Backoff().Clear(p)
	nc, err := h.swarm.DialPeer(ctx, p)
	if err != nil {
		if h.isClosed() {
			return fail(dray.ErrClosed)
		}
		return fail(h.dialError(err, addrs, reasons))
	}
	c, err := h.told(ctx, nc)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", dray.ErrUnreachable, err))
	}
	return c, nil
}

// told returns the Conn that a new connection belongs to, once up was called. Mostly that is so already; but when the peer
// has dialled this host at the same moment, libp2p returns that connection while it is still being counted.
func (h *Host) told(ctx context.Context, nc network.Conn) (*conn, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		c, admitted := h.peers[nc.RemotePeer()], h.admitted
		h.mu.Unlock()
		if c != nil {
			h.settle()
			return c, nil
		}
		select {
		case <-admitted:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
			if nc.IsClosed() {
				return nil, errors.New("the connection closed at once")
			}
		}
	}
}

// settle returns when calls of up and down that have begun are over.
func (h *Host) settle() {
	h.tell.Lock()
	defer h.tell.Unlock()
}

// dialError turns libp2p's error into one line that has a reason for each address.
func (h *Host) dialError(err error, addrs, reasons []string) error {
	var all *swarm.DialError
	if errors.As(err, &all) {
		for _, one := range all.DialErrors {
			if errors.Is(one.Cause, errBusy) {
				return fmt.Errorf("%w: %w", dray.ErrUnreachable, transport.ErrBusy)
			}
			reason := strings.Join(strings.Fields(one.Cause.Error()), " ") + h.swarmHint(one.Cause)
			reasons = append(reasons, fmt.Sprintf("%s: %s", one.Address, reason))
		}
		if all.Skipped > 0 {
			reasons = append(reasons, fmt.Sprintf("%d more", all.Skipped))
		}
		if len(reasons) == 0 && all.Cause != nil {
			reasons = append(reasons, all.Cause.Error())
		}
		return fmt.Errorf("%w: %s", dray.ErrUnreachable, strings.Join(reasons, "; "))
	}
	for _, a := range addrs {
		reasons = append(reasons, fmt.Sprintf("%s: no answer%s", a, h.swarmHint(err)))
	}
	if len(reasons) == 0 {
		return fmt.Errorf("%w: %w", dray.ErrUnreachable, err)
	}
	return fmt.Errorf("%w: %w (%s)", dray.ErrUnreachable, err, strings.Join(reasons, "; "))
}

// swarmHint says what a failure to agree on security may come from.
func (h *Host) swarmHint(err error) string {
	refused := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
	switch {
	case h.psk && !refused:
		return " (this host is in a private swarm: the other must have the same swarm key)"
	case isForeign(err), strings.Contains(err.Error(), "security protocol"):
		return " (the other host may be in a private swarm, and this one has no swarm key)"
	}
	return ""
}

// Close implements [transport.Network]. What libp2p itself leaves running is not waited for; see the tests.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.plane.close()
	if h.lan != nil {
		h.lan.close()
	}
	var errs []error
	if h.table != nil {
		errs = append(errs, h.table.close())
	}
	if h.reach != nil {
		h.reach.close()
	}
	errs = append(errs, h.host.Close())
	h.gate.close()
	h.plane.wg.Wait()
	h.wg.Wait()
	return errors.Join(errs...)
}

func (h *Host) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// accept returns what accepts streams of a protocol, or nil.
func (h *Host) accept(p transport.Protocol) func(transport.Conn, transport.Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.accepts[p]
}

// wanted begins (1) or ends (-1) a dial of the host's user, whose peer is no stranger, and returns the peer's Conn if there is one.
func (h *Host) wanted(p peer.ID, n int) *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.room.calling[p] += n; h.room.calling[p] == 0 {
		delete(h.room.calling, p)
	}
	c := h.peers[p]
	if c != nil {
		c.dialled = true
	}
	return c
}

func (h *Host) lookup(p peer.ID) *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peers[p]
}

// spawn runs f on a goroutine that Close waits for, unless the host is closed.
func (h *Host) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Go(f)
	return true
}

// admit counts a new connection and calls up if it is the peer's first. libp2p calls it before any stream is accepted.
func (h *Host) admit(nc network.Conn) {
	h.tell.Lock()
	defer h.tell.Unlock()
	p := nc.RemotePeer()
	h.mu.Lock()
	c := h.peers[p]
	first := c == nil
	if first {
		c = &conn{host: h, id: p, since: time.Now(), dialled: h.room.calling[p] > 0}
		h.peers[p] = c
		close(h.admitted)
		h.admitted = make(chan struct{})
	}
	direct := !first && h.isStraighter(c, nc)
	if !first && !direct && nc.Stat().Direction == network.DirInbound {
		h.try(c, nc)
	}
	c.paths = append(c.paths, nc)
	h.room.count(nc)
	h.makeRoom(c, nc)
	if direct {
		h.straighten(c, nc)
		return
	}
	ups := h.ups
	h.mu.Unlock()
	if h.reach != nil && h.reach.punch != nil && isRelayed(nc) && nc.Stat().Direction == network.DirInbound {
		h.reach.punch.relayed(p)
	}
	if first {
		for _, up := range ups {
			up(c)
		}
	}
}

// dismiss is the reverse of admit.
func (h *Host) dismiss(nc network.Conn) {
	h.tell.Lock()
	defer h.tell.Unlock()
	p := nc.RemotePeer()
	h.mu.Lock()
	h.room.discount(nc)
	c := h.peers[p]
	if c == nil {
		h.mu.Unlock()
		return
	}
	c.paths = slices.DeleteFunc(c.paths, func(x network.Conn) bool { return x == nc })
	last := len(c.paths) == 0
	if last {
		delete(h.peers, p)
	}
	downs := h.downs
	h.mu.Unlock()
	if last {
		h.plane.drop(c)
		for _, down := range downs {
			down(dray.PeerID(p))
		}
	}
}
