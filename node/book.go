package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dray"
	"dray/transport"
)

const (
	bookPeers    = 4096            // peers whose addresses are kept, besides those to stay connected to
	bookAddrs    = 64              // addresses of each
	nearTimeout  = 5 * time.Second // for a dial on a LAN: one that takes longer meets a cut, and the next is due soon
	probeTimeout = 3 * time.Second
	settleStep   = 100 * time.Millisecond
	roomRetry    = 2 * time.Second // until a peer that had no room is dialled again
	roomTries    = 15
	settleTries  = 10 // steps until a connection that was found must have become a link
)

// contact is what is known of reaching a peer. Owned by loop.
type contact struct {
	addrs []string // the latest first
	near  bool     // an address is of a private network
	err   error    // why the last dial failed, or with what words the peer refused this host since; or nil
}

// Introduce tells the Node addresses of peers, for sessions that name them: the Node dials them as long as such a session
// lives, and again when they are lost.
func (n *Node) Introduce(peers ...transport.Peer) { n.ask(func() { n.named(peers) }) }

// Unreached returns those of the peers that are not connected and whose last dial failed, in the order given.
func (n *Node) Unreached(peers ...transport.Peer) []Unreached {
	var out []Unreached
	n.ask(func() {
		for _, p := range peers {
			if c := n.book[p.ID]; c != nil && c.err != nil && n.links[p.ID] == nil {
				out = append(out, Unreached{Peer: p, Err: c.err})
			}
		}
	})
	return out
}

// AllRefuse reports whether there are such peers and all of them have said that they do not admit this host, so that waiting
// does not help.
func AllRefuse(list []Unreached) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(u Unreached) bool { return !errors.Is(u.Err, dray.ErrRefused) })
}

// named notes the addresses of peers that somebody names now, and returns their ids without this host's own. They may be
// dialled at once, whatever happened before: somebody asks for it. Called on the loop.
func (n *Node) named(peers []transport.Peer) []dray.PeerID {
	var ids []dray.PeerID
	for _, p := range peers {
		if p.ID == n.Self() {
			continue
		}
		ids = append(ids, p.ID)
		if n.net == nil {
			continue
		}
		n.learn(p)
		n.book[p.ID].err = nil
		n.keepPeer(p.ID, true)
		n.engine.Addressed(n.now(), p.ID)
	}
	return ids
}

// learn notes addresses of a peer and reports whether any is new. Called on the loop.
func (n *Node) learn(p transport.Peer) (fresh bool) {
	c := n.book[p.ID]
	if c == nil {
		if len(n.book)-len(n.kept) >= bookPeers {
			for id := range n.book { // any that is not here will do
				if n.links[id] == nil && !n.dialling[id] && !n.kept[id] {
					delete(n.book, id)
					n.keepPeer(id, n.members[id])
					break
				}
			}
		}
		c = &contact{}
		n.book[p.ID] = c
	}
	for _, a := range slices.Backward(p.Addrs) {
		known := len(c.addrs)
		c.addrs = slices.DeleteFunc(c.addrs, func(o string) bool { return o == a })
		fresh = fresh || len(c.addrs) == known
		c.addrs = slices.Insert(c.addrs, 0, a)
		c.near = c.near || private(a)
	}
	if len(c.addrs) > bookAddrs {
		c.addrs = c.addrs[:bookAddrs]
	}
	if c.near {
		n.engine.Near(n.now(), p.ID)
	}
	return fresh
}

// private reports whether an address is of a network that is not the internet, or of this process.
func private(addr string) bool {
	part := strings.Split(addr, "/")
	if len(part) < 3 {
		return false
	}
	switch part[1] {
	case "memory":
		return true
	case "ip4", "ip6":
		ip, err := netip.ParseAddr(part[2])
		return err == nil && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast())
	}
	return false
}

// dial connects to a peer in the background, one dial per peer at a time, because the engine says that it is time. It
// answers with a link or with DialFailed.
func (n *Node) dial(id dray.PeerID) {
	if n.net == nil {
		n.engine.DialFailed(n.now(), id)
		return
	}
	if n.links[id] != nil || n.dialling[id] {
		return
	}
	var addrs []string
	timeout := openTimeout
	if c := n.book[id]; c != nil {
		addrs = n.tried.Fresh(n.now(), id, slices.Clone(c.addrs))
		if c.near {
			timeout = nearTimeout
		}
	}
	n.dialling[id] = true
	n.wg.Go(func() {
		err := n.reach(id, addrs, timeout)
		for try := 1; errors.Is(err, transport.ErrBusy) && try < roomTries; try++ {
			if !n.noRoom(id, err) {
				break
			}
			err = n.reach(id, addrs, timeout)
		}
		n.do(func() {
			delete(n.dialling, id)
			n.dialled(id, addrs, err)
		})
	})
}

// noRoom notes that a peer has no room for this host, and waits until it may be dialled again. It reports false when it is not
// to be: it has come by itself, or the Node is closed.
func (n *Node) noRoom(id dray.PeerID, err error) bool {
	linked := false
	n.ask(func() {
		if linked = n.links[id] != nil; linked {
			return
		}
		if c := n.book[id]; c != nil && !errors.Is(c.err, dray.ErrRefused) {
			c.err = err
		}
	})
	if linked {
		return false
	}
	wait := time.NewTimer(roomRetry - roomRetry/4 + rand.N(roomRetry/2))
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-n.done:
		return false
	}
}

// probe asks a connected peer for a sign of life, because the engine wants one.
func (n *Node) probe(id dray.PeerID) {
	l := n.links[id]
	if l == nil {
		return // the engine has heard that the peer is gone
	}
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, probeTimeout)
		defer cancel()
		rtt, err := l.conn.Ping(ctx)
		n.do(func() {
			if n.links[id] == l {
				n.engine.Probed(n.now(), id, rtt, err)
			}
		})
	})
}

// reach dials until there is a link. A connection that is being closed may still be found for a moment.
func (n *Node) reach(id dray.PeerID, addrs []string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(n.ctx, timeout)
	defer cancel()
	step := time.NewTicker(settleStep)
	defer step.Stop()
	for try := 1; ; try++ {
		conn, err := n.net.Dial(ctx, id, addrs)
		if err != nil {
			return err
		}
		linked, guest := false, false
		if !n.ask(func() { linked, guest = n.links[id] != nil, n.door.guests[id] != nil }) {
			return dray.ErrClosed
		}
		if linked {
			return nil
		}
		if try < settleTries {
			select {
			case <-step.C:
				continue
			case <-ctx.Done():
			}
		}
		// The network goes on handing out a connection that this Node has given up. Only without it there can be another one.
		if !guest {
			_ = conn.Close()
		}
		return &dray.Error{Op: "dial", Peer: id, Err: fmt.Errorf("%w: an old connection was still there", dray.ErrUnreachable)}
	}
}

// dialled notes what came of a dial.
func (n *Node) dialled(id dray.PeerID, addrs []string, err error) {
	c := n.book[id]
	told := c != nil && errors.Is(c.err, dray.ErrRefused)
	if linked := n.links[id] != nil; linked || err == nil {
		n.tried.Succeeded(id)
		if c != nil && (linked || !told) { // a link may have come and gone by now, and why it went is not forgotten
			c.err = nil
		}
		return
	}
	if c != nil && !told { // of a peer that hangs up, what it said before counts
		c.err = err
	}
	n.tried.Failed(n.now(), id, addrs)
	n.engine.DialFailed(n.now(), id)
	n.event(DialFailed{Peer: id, Err: err})
}
