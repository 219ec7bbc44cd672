package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/transport"
)

const (
	callFirst   = 500 * time.Millisecond // before a second attempt to reach a peer that the caller named
	callMax     = 15 * time.Second
	callLost    = 2 * time.Second  // the most before another attempt to reach a peer that was lost
	giveUpAfter = 3 * time.Second  // nobody has it: how long to wait for somebody who does
	giveUpLost  = 10 * time.Minute // the same while a peer is away that has given something
)

// Unreached is a peer that could not be dialled.
type Unreached struct {
	// Peer is who.
	Peer transport.Peer
	// Err is why.
	Err error
}

// calls keeps dialling the peers that a caller named, for as long as its request lasts.
type calls struct {
	n      *Node
	peers  []transport.Peer
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	failed map[dray.PeerID]error
	met    map[dray.PeerID]bool // was reached

	// Belong to the request's goroutine.
	since time.Time             // when it began to look hopeless
	had   map[dray.PeerID]int64 // bytes that a peer had given this host when the request began
}

func idsOf(peers []transport.Peer) []dray.PeerID {
	var ids []dray.PeerID
	for _, p := range peers {
		ids = append(ids, p.ID)
	}
	return ids
}

func (n *Node) call(peers []transport.Peer) *calls {
	c := &calls{
		n: n, peers: peers, failed: make(map[dray.PeerID]error), met: make(map[dray.PeerID]bool),
		had: make(map[dray.PeerID]int64),
	}
	c.ctx, c.cancel = context.WithCancel(n.ctx)
	if n.net == nil {
		return c
	}
	n.ask(func() {
		for _, p := range peers {
			c.had[p.ID] = n.engine.Account(p.ID).Received
		}
	})
	for _, p := range peers {
		if p.ID != n.net.Self() {
			c.wg.Go(func() { c.keep(p) })
		}
	}
	return c
}

// keep connects to a peer, and again when the connection is lost.
func (c *calls) keep(p transport.Peer) {
	wait := callFirst
	for c.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(c.ctx, openTimeout)
		_, err := c.n.net.Dial(ctx, p.ID, p.Addrs)
		cancel()
		c.mu.Lock()
		if err != nil {
			c.failed[p.ID] = err
			wait = min(2*wait, callMax)
			if c.met[p.ID] {
				wait = min(wait, callLost)
			}
		} else {
			delete(c.failed, p.ID)
			c.met[p.ID] = true
			wait = callFirst
		}
		c.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-c.ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// unreached returns the peers whose last dial failed, in the order in which they were named.
func (c *calls) unreached() []Unreached {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Unreached
	for _, p := range c.peers {
		if err := c.failed[p.ID]; err != nil {
			out = append(out, Unreached{Peer: p, Err: err})
		}
	}
	return out
}

func (c *calls) close() {
	c.cancel()
	c.wg.Wait()
}

// hopeless returns an error when, for a while, there has been nobody who could deliver: everybody who was named is
// unreachable or, like everybody who is connected, says that they do not have it, and nobody else is being looked for. A
// peer that restarts in time is waited for, and one that has given something much longer, because a path that was cut is
// mostly mended. It names each peer with the reason.
func (c *calls) hopeless(root cid.Cid, waits []exchange.Standing) error {
	err := c.verdict(root, waits, c.unreached())
	if err == nil {
		c.since = time.Time{}
		return nil
	}
	if c.since.IsZero() {
		c.since = time.Now()
	}
	patience := giveUpAfter
	if c.lost() {
		patience = giveUpLost
	}
	if time.Since(c.since) < patience {
		return nil
	}
	return err
}

// lost reports whether a peer cannot be reached that has given something since the request began.
func (c *calls) lost() bool {
	lost := false
	away := c.unreached()
	c.n.ask(func() {
		for _, u := range away {
			lost = lost || c.n.engine.Account(u.Peer.ID).Received > c.had[u.Peer.ID]
		}
	})
	return lost
}

func (c *calls) verdict(root cid.Cid, waits []exchange.Standing, unreached []Unreached) error {
	if c.n.cfg.Finder != nil || len(waits)+len(unreached) == 0 {
		return nil
	}
	connected := 0
	for _, w := range waits {
		if !w.Lacks || w.Asked > 0 {
			return nil
		}
		for _, p := range c.peers {
			if p.ID == w.Peer {
				connected++
			}
		}
	}
	if connected+len(unreached) < len(c.peers) {
		return nil // somebody is being dialled
	}
	if len(unreached) == 0 {
		return &dray.Error{
			Op: "get", CID: root,
			Err: fmt.Errorf("%w: asked %d peers, none of them has it", dray.ErrNotFound, len(waits)),
		}
	}
	errs := []error{dray.ErrUnreachable}
	for _, u := range unreached {
		errs = append(errs, fmt.Errorf("%v: %w", u.Peer.ID, u.Err))
	}
	for _, w := range waits {
		errs = append(errs, fmt.Errorf("%v: does not have it", w.Peer))
	}
	return &dray.Error{Op: "get", CID: root, Err: errors.Join(errs...)}
}
