package node

import (
	"context"
	"slices"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/transport"
)

// Who has what is asked of the Finder, if there is one, for a session at a time and by the session's root:
//
//  1. The engine finds that nobody it knows delivers (Ready.Finds), or a call begins with nobody named (seekFirst).
//  2. The Finder calls found with each peer; its addresses go to the book, and the engine dials it as one whom the session names.
//  3. What became of it goes back, if the Finder is a Judge: reached or not (event), has it or not (calls).
//  4. While the Finder looks, or one whom it found is being dialled, a call is not hopeless (calls.verdict).

// maxFound is how many peers a session takes from the Finder.
const maxFound = 64

// seek is what came of looking for peers for one session. Owned by loop.
type seek struct {
	running int
	ended   bool               // a search has, so that all were asked
	cancel  context.CancelFunc // of all that run
	ctx     context.Context
	peers   []transport.Peer // that were found
}

// seekFirst begins to look at once for peers that hold root, for a session that has nobody to ask but who is connected.
func (n *Node) seekFirst(id exchange.SessionID, root cid.Cid, named bool) {
	if n.cfg.Finder != nil && n.net != nil && !named {
		n.ask(func() { n.find(exchange.Find{Session: id, CID: root, Root: root}) })
	}
}

// find asks the Finder for peers that hold what a session misses. Called on the loop.
func (n *Node) find(f exchange.Find) {
	if n.cfg.Finder == nil || n.net == nil {
		return
	}
	s := n.seeks[f.Session]
	if s == nil {
		s = &seek{}
		s.ctx, s.cancel = context.WithCancel(n.ctx)
		n.seeks[f.Session] = s
	}
	if s.running > 0 {
		return // it is still looking
	}
	c := f.CID
	if f.Root.Defined() {
		c = f.Root
	}
	s.running++
	n.wg.Go(func() {
		err := n.cfg.Finder.Find(s.ctx, c, func(p transport.Peer) {
			n.do(func() { n.found(f.Session, p) })
		})
		if err != nil && s.ctx.Err() == nil {
			n.cfg.Log.Debug("finding peers", "cid", c, "err", err)
		}
		n.do(func() { s.running, s.ended = s.running-1, true })
	})
}

// found takes a peer that the Finder found for a session, if that still goes on. Called on the loop.
func (n *Node) found(id exchange.SessionID, p transport.Peer) {
	s := n.seeks[id]
	if s == nil || p.ID == n.net.Self() || p.ID == "" {
		return
	}
	if !slices.ContainsFunc(s.peers, func(o transport.Peer) bool { return o.ID == p.ID }) {
		if len(s.peers) >= maxFound {
			return
		}
		s.peers = append(s.peers, p)
	}
	fresh := n.learn(p)
	n.engine.Found(n.now(), id, p.ID)
	if fresh {
		n.engine.Addressed(n.now(), p.ID)
	}
}

// seekEnded stops looking for a session that has ended. Called on the loop.
func (n *Node) seekEnded(id exchange.SessionID) {
	if s := n.seeks[id]; s != nil {
		s.cancel()
		delete(n.seeks, id)
	}
}

// sought reports whether peers are being looked for on behalf of a session, and returns those that were found.
func (n *Node) sought(id exchange.SessionID) (running bool, found []transport.Peer) {
	if n.cfg.Finder == nil {
		return false, nil
	}
	n.ask(func() {
		if s := n.seeks[id]; s != nil {
			running, found = s.running > 0, slices.Clone(s.peers)
		}
	})
	return running, found
}

// Sought reports whether the Node looks for peers for the session at this moment, and returns those that it has found so far.
// Those of them that could not be dialled [Node.Unreached] tells.
func (s *Session) Sought() (running bool, found []transport.Peer) { return s.n.sought(s.id) }

// judge tells the Finder who could be reached. Called on the loop.
func (n *Node) judge(e Event) {
	j, ok := n.cfg.Finder.(transport.Judge)
	if !ok {
		return
	}
	switch e := e.(type) {
	case PeerConnected:
		j.Reached(e.Peer, nil)
	case DialFailed:
		j.Reached(e.Peer, e.Err)
	}
}

// judge tells the Finder which peers have delivered some of root, and which say that they do not have it.
func (c *calls) judge(root cid.Cid, waits []exchange.Standing) {
	for _, w := range waits {
		switch {
		case w.Delivered > 0:
			c.held(root, w.Peer, true)
		case w.Lacks && w.Asked == 0:
			c.held(root, w.Peer, false)
		}
	}
}

// held tells the Finder whether a peer has some of root, once.
func (c *calls) held(root cid.Cid, peer dray.PeerID, has bool) {
	j, ok := c.n.cfg.Finder.(transport.Judge)
	if was, told := c.told[peer]; ok && (!told || was != has) {
		c.told[peer] = has
		j.Held(root, peer, has)
	}
}

// Mates returns the connected peers that hold or fetch a root and have said so.
func (n *Node) Mates(root cid.Cid) (list []exchange.Mate) {
	n.ask(func() { list = n.engine.Mates(root) })
	return list
}

// MayTell reports whether a connected peer may be told about a root, perhaps by a proof that it shows now. What it may not be told
// is to look like what is not here.
func (n *Node) MayTell(peer dray.PeerID, root cid.Cid, proof dray.Proof) (may bool) {
	n.ask(func() { may = n.engine.MayTell(n.now(), peer, root, proof) })
	return may
}

// Guarded reports whether a block lies under roots that are not for everybody, and under no open one.
func (n *Node) Guarded(c cid.Cid) (guarded bool) {
	n.ask(func() { guarded = n.engine.Guarded(c) })
	return guarded
}

// Prove returns what to show to a connected peer to be told about a root, or no proof.
func (n *Node) Prove(peer dray.PeerID, root cid.Cid) (proof dray.Proof) {
	n.ask(func() { proof = n.engine.Prove(peer, root) })
	return proof
}
