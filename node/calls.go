package node

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/transport"
)

const giveUpAfter = 3 * time.Second // nobody has it: how long to wait for somebody who does

// WaitForLost is how long a request waits for peers who gave some of what it asks for and were lost, before it gives up. Nobody
// who has given nothing, or is connected and says that it lacks the rest, is waited for longer than a few seconds.
const WaitForLost = 10 * time.Minute

// WaitForRoom is how long a request waits for peers that have no room for more connections, before it gives up.
const WaitForRoom = 2 * time.Minute

// Busy reports whether any of the peers was reached and has no room for more connections.
func Busy(unreached []Unreached) bool {
	return slices.ContainsFunc(unreached, func(u Unreached) bool { return errors.Is(u.Err, transport.ErrBusy) })
}

// Unreached is a peer that could not be dialled.
type Unreached struct {
	// Peer is who.
	Peer transport.Peer
	// Err is why.
	Err error
}

// calls are the peers that a caller named, for as long as its request lasts. The engine has them dialled, because the
// request's session names them, and again when they are lost.
type calls struct {
	n     *Node
	peers []transport.Peer
	gave  int64 // bytes that they had given before
	id    exchange.SessionID
	told  map[dray.PeerID]bool // what the Finder was told of peers: whether they have it

	since time.Time // when it began to look hopeless; belongs to the request's goroutine
}

func (n *Node) call(peers []transport.Peer, id exchange.SessionID) *calls {
	return &calls{n: n, peers: peers, gave: n.Given(peers...), id: id, told: make(map[dray.PeerID]bool)}
}

// Given returns how many bytes of blocks the peers have given in all, to whichever request.
func (n *Node) Given(peers ...transport.Peer) (sum int64) {
	n.ask(func() {
		for _, p := range peers {
			a := n.engine.Account(p.ID)
			sum += a.Received
		}
	})
	return sum
}

// unreached returns the peers whose last dial failed: in the order in which they were named, then those that were found.
func (c *calls) unreached() []Unreached {
	_, found := c.n.sought(c.id)
	return c.n.Unreached(append(slices.Clone(c.peers), besides(found, c.peers)...)...)
}

// patience is how long to wait for peers when it looks hopeless: longer for those who gave something and were lost.
func (c *calls) patience() time.Duration {
	unreached := c.unreached()
	switch {
	case len(unreached) > 0 && !AllRefuse(unreached) && c.n.Given(c.peers...) > c.gave:
		return WaitForLost
	case Busy(unreached):
		return WaitForRoom
	}
	return giveUpAfter
}

// hopeless returns an error when, for a while, there has been nobody who could deliver: everybody who was named is
// unreachable or, like everybody who is connected, says that they do not have it, and nobody else is being looked for. A
// peer that restarts in time is waited for, and for ten minutes one that gave some of it before. It names each peer with the
// reason.
func (c *calls) hopeless(root cid.Cid, waits []exchange.Standing) error {
	c.judge(root, waits)
	err := c.verdict(root, waits, c.unreached())
	if err == nil {
		c.since = time.Time{}
		return nil
	}
	if c.since.IsZero() {
		c.since = time.Now()
	}
	if time.Since(c.since) < c.patience() && !(len(waits) == 0 && c.nobody()) {
		return nil
	}
	return err
}

// nobody reports whether there never was anybody to ask: none is named, and none was found. Who may come back is not known.
func (c *calls) nobody() bool {
	_, found := c.n.sought(c.id)
	return len(c.peers)+len(found) == 0
}

func (c *calls) verdict(root cid.Cid, waits []exchange.Standing, unreached []Unreached) error {
	seeking, found := c.n.sought(c.id)
	if seeking || c.n.cfg.Finder == nil && len(waits)+len(unreached) == 0 {
		return nil
	}
	named := append(besides(found, c.peers), c.peers...)
	connected := 0
	var denied []dray.PeerID
	for _, w := range waits {
		if !w.Lacks || w.Asked > 0 {
			return nil
		}
		if w.Denied {
			denied = append(denied, w.Peer)
		}
		for _, p := range named {
			if p.ID == w.Peer {
				connected++
			}
		}
	}
	if connected+len(unreached) < len(named) {
		return nil // somebody is being dialled
	}
	if len(denied) > 0 {
		return RefusedError(root, Among(denied, c.peers))
	}
	if len(unreached) == 0 {
		return &dray.Error{Op: "get", CID: root, Err: NobodyHas(len(waits))}
	}
	if AllRefuse(unreached) {
		return c.n.NotAdmittedError(root, unreached)
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

// NobodyHas is why a get ends when so many connected peers were asked and lack it, and nobody else was found. It wraps
// [dray.ErrNotFound].
func NobodyHas(asked int) error {
	if asked == 0 {
		return fmt.Errorf("%w: nobody was found who has it", dray.ErrNotFound)
	}
	return fmt.Errorf("%w: asked %d peers, none of them has it", dray.ErrNotFound, asked)
}

// Among returns those of ids that were named, or all if none was: who was asked only because he is connected says nothing.
func Among(ids []dray.PeerID, named []transport.Peer) []dray.PeerID {
	var some []dray.PeerID
	for _, p := range named {
		if slices.Contains(ids, p.ID) {
			some = append(some, p.ID)
		}
	}
	if len(some) == 0 {
		return ids
	}
	return some
}

// besides returns those of list that are not in others.
func besides(list, others []transport.Peer) []transport.Peer {
	return slices.DeleteFunc(slices.Clone(list), func(p transport.Peer) bool {
		return slices.ContainsFunc(others, func(o transport.Peer) bool { return o.ID == p.ID })
	})
}
