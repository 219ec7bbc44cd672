package p2p

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dray"
	"dray/transport"
)

// A host has room for Limits.Conns connections. Who may stay when that is not enough:
//
//   - Peers that Host.Dial has reached, those that it was told to keep (Host.Keep), relays of connections, and those with which
//     much passed in the last minute are never disconnected for want of room. They get in even when they alone fill the table.
//     (Whom only libp2p has dialled, for the DHT and the like, is a stranger.)
//   - All others are strangers. A newcomer that finds the table full takes the place of the stranger who has been there for
//     longest; a stranger that finds nobody to replace is disconnected.
//   - From LowConns on, strangers that have had idleAfter to be served go already, the oldest first, one for each newcomer.
//
// The same holds for the strangers from one address, so that one machine cannot take the others' room.

const (
	// usefulBytes must have passed with a peer before it is more than a stranger: more than the windows of a few streams
	// hold, so that one who asks and reads nothing does not count.
	usefulBytes = 4 << 20
	// usefulStep must have passed since for it to count anew, and usefulFor is how long that counts.
	usefulStep = 1 << 20
	usefulFor  = time.Minute
	// idleAfter is how long a stranger is left alone while the table is filling.
	idleAfter = 10 * time.Second
)

// room counts a host's connections. Guarded by the host's mu, save for lately.
type room struct {
	all, low, perAddr int

	open    int
	from    map[netip.Prefix]int      // connections from each address
	leaving map[network.Conn]struct{} // those that are being closed and still counted
	calling map[peer.ID]int           // whom the host's user is dialling
	via     map[peer.ID]int           // connections that lead through each relay
	kept    map[peer.ID]struct{}
	// lately is when a peer was last useful, in nanoseconds since begun; 0 is never.
	lately atomic.Int64
}

func newRoom(l Limits) room {
	return room{
		all: l.Conns, low: min(l.LowConns, l.Conns), perAddr: l.ConnsPerIP,
		from:    make(map[netip.Prefix]int),
		leaving: make(map[network.Conn]struct{}),
		kept:    make(map[peer.ID]struct{}),
		calling: make(map[peer.ID]int),
		via:     make(map[peer.ID]int),
	}
}

var _ transport.Keeper = (*Host)(nil)

// Keep implements [transport.Keeper].
func (h *Host) Keep(id dray.PeerID, keep bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if keep {
		h.room.kept[peer.ID(id)] = struct{}{}
	} else {
		delete(h.room.kept, peer.ID(id))
	}
}

// sourceOf returns what one machine, or one site, dials from: an IPv4 address, or an IPv6 /56. Ok is false for this machine,
// and when it is not known, as of whom a relay lets through.
func sourceOf(nc interface{ RemoteMultiaddr() ma.Multiaddr }) (source netip.Prefix, ok bool) {
	if has(nc.RemoteMultiaddr(), ma.P_CIRCUIT) {
		return source, false
	}
	ip, err := manet.ToIP(nc.RemoteMultiaddr())
	if err != nil {
		return source, false
	}
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok || a.IsLoopback() {
		return source, false
	}
	bits := 32
	if a.Is6() {
		bits = 56
	}
	source, err = a.Prefix(bits)
	return source, err == nil
}

// passed notes that n bytes were read from or written to a peer.
func (c *conn) passed(n int) {
	now := c.moved.Add(int64(n))
	if now < usefulBytes || now/usefulStep == (now-int64(n))/usefulStep {
		return
	}
	at := int64(time.Since(begun))
	c.useful.Store(at)
	c.host.room.lately.Store(at)
}

// busy reports whether much passes with a peer now.
func (h *Host) busy() bool {
	at := h.room.lately.Load()
	return at > 0 && time.Since(begun)-time.Duration(at) < busyFor
}

// count adds a connection. The caller holds mu.
func (r *room) count(nc network.Conn) {
	r.open++
	if id := relayID(nc.RemoteMultiaddr()); id != "" {
		r.via[id]++
	}
	if s, ok := sourceOf(nc); ok {
		r.from[s]++
	}
}

// discount is the reverse of count.
func (r *room) discount(nc network.Conn) {
	r.open--
	delete(r.leaving, nc)
	if id := relayID(nc.RemoteMultiaddr()); id != "" {
		if r.via[id]--; r.via[id] <= 0 {
			delete(r.via, id)
		}
	}
	if s, ok := sourceOf(nc); ok {
		if r.from[s]--; r.from[s] <= 0 {
			delete(r.from, s)
		}
	}
}

// stranger reports whether a peer may be disconnected for want of room. The caller holds mu.
func (h *Host) stranger(c *conn) bool {
	if _, kept := h.room.kept[c.id]; kept || c.dialled || h.room.via[c.id] > 0 || len(c.paths) == 0 {
		return false
	}
	if at := c.useful.Load(); at > 0 && time.Since(begun)-time.Duration(at) < usefulFor {
		return false
	}
	for _, nc := range c.paths {
		if _, leaving := h.room.leaving[nc]; leaving {
			return false
		}
	}
	return true
}

// oldest returns the stranger who has been there for longest, of those that which admits, other than c. The caller holds mu.
func (h *Host) oldest(c *conn, which func(*conn) bool) *conn {
	var best *conn
	for _, o := range h.peers {
		if o != c && (best == nil || o.since.Before(best.since)) && h.stranger(o) && which(o) {
			best = o
		}
	}
	return best
}

// makeRoom disconnects whoever has to go because a connection has come. The caller holds mu.
func (h *Host) makeRoom(c *conn, nc network.Conn) {
	r := &h.room
	anybody := func(*conn) bool { return true }
	source, known := sourceOf(nc)
	if known && r.from[source] > r.perAddr {
		h.displace(c, func(o *conn) bool {
			from, ok := sourceOf(o.paths[0])
			return ok && from == source
		})
	}
	switch now := r.open - len(r.leaving); {
	case now > r.all:
		h.displace(c, anybody)
	case now > r.low:
		if o := h.oldest(c, func(o *conn) bool { return time.Since(o.since) >= idleAfter }); o != nil {
			h.leave(o, network.ConnGarbageCollected)
		}
	}
}

// displace disconnects the oldest stranger, or the newcomer if there is none and it is one itself.
func (h *Host) displace(c *conn, which func(*conn) bool) {
	if o := h.oldest(c, which); o != nil {
		h.leave(o, network.ConnGarbageCollected)
		return
	}
	if h.stranger(c) {
		h.log.Debug("no room for a stranger", "peer", c.Peer())
		h.leave(c, network.ConnResourceLimitExceeded)
	}
}

// leave closes all connections with a peer, in the background. The caller holds mu.
func (h *Host) leave(c *conn, why network.ConnErrorCode) {
	if h.closed {
		return
	}
	for _, nc := range c.paths {
		h.room.leaving[nc] = struct{}{}
		h.wg.Go(func() { _ = nc.CloseWithError(why) })
	}
}
