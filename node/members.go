package node

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"dray"
	"dray/transport"
)

// Members are kept connected: whoever of them is not is dialled, and again with a back-off that doubles. When only members
// are served, strangers who have connected are let go after a while, and at once when there are many.

const (
	tendEvery      = time.Second
	memberFirst    = time.Second // before a second attempt to reach a member
	memberMax      = 5 * time.Minute
	memberDials    = 16               // members that are dialled at a time
	maxStrangers   = 32               // that are kept connected while only members are served
	strangersUntil = 30 * time.Second // how long one of them is
)

// fellow is a member that is to be connected. Owned by loop.
type fellow struct {
	transport.Peer
	wait, from time.Duration // the last back-off, and when to dial next
	dialling   bool
}

// setMembers takes who the members are. Called on the loop, or before there is one.
func (n *Node) setMembers(a Access) {
	before := n.members
	n.members, n.fellows = make(map[dray.PeerID]*fellow), nil
	n.strangersOut = a.MembersOnly
	for _, m := range a.Members.List() {
		if n.net == nil || m.ID == n.net.Self() {
			continue
		}
		f := before[m.ID]
		if f == nil {
			f = &fellow{}
		}
		f.Peer = transport.Peer{ID: m.ID, Addrs: m.Addrs}
		n.members[m.ID] = f
		n.keepPeer(m.ID, true)
		if len(m.Addrs) > 0 {
			n.fellows = append(n.fellows, f)
		}
	}
	for id := range before {
		if n.members[id] == nil && n.book[id] == nil {
			n.keepPeer(id, false)
		}
	}
	if (len(n.fellows) > 0 || n.strangersOut) && !n.tending {
		n.tending = true
		n.wg.Go(n.tend)
	}
}

// keepPeer has the network keep room for a peer, or no longer.
func (n *Node) keepPeer(id dray.PeerID, yes bool) {
	if k, ok := n.net.(transport.Keeper); ok {
		k.Keep(id, yes)
	}
}

// tend looks after members and strangers, now and then.
func (n *Node) tend() {
	t := time.NewTicker(tendEvery)
	defer t.Stop()
	for n.do(func() { n.dialMembers(); n.dismissStrangers() }) {
		select {
		case <-t.C:
		case <-n.done:
			return
		}
	}
}

func (n *Node) dialMembers() {
	now, under := n.now(), 0
	for _, f := range n.fellows {
		if f.dialling {
			under++
		}
	}
	for i := range n.fellows {
		f := n.fellows[i]
		switch {
		case under >= memberDials:
			return
		case n.links[f.ID] != nil:
			f.wait, f.from = 0, 0
		case !f.dialling && now >= f.from:
			under++
			n.dialMember(f)
		}
	}
}

func (n *Node) dialMember(f *fellow) {
	f.dialling = true
	f.wait = min(max(2*f.wait, memberFirst), memberMax)
	peer := f.Peer
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, openTimeout)
		defer cancel()
		_, err := n.net.Dial(ctx, peer.ID, peer.Addrs)
		n.do(func() {
			f.dialling = false
			f.from = n.now() + f.wait + rand.N(f.wait/4)
			if err != nil {
				n.cfg.Log.Debug("a member cannot be reached", "peer", peer.ID, "err", err)
			}
		})
	})
}

// dismissStrangers disconnects those who are not served and have connected themselves: all but the latest, and those after
// a while. Who was dialled is wanted here.
func (n *Node) dismissStrangers() {
	if !n.strangersOut {
		return
	}
	now := n.now()
	var kept []*link
	for _, l := range n.links {
		switch {
		case n.members[l.peer] != nil || !l.conn.Info().Inbound:
		case now-l.since >= strangersUntil:
			n.cfg.Log.Debug("a stranger is let go", "peer", l.peer)
			n.closeLink(l)
		default:
			kept = append(kept, l)
		}
	}
	slices.SortFunc(kept, func(a, b *link) int { return cmp.Compare(b.since, a.since) }) // the latest first
	for len(kept) > maxStrangers {
		n.closeLink(kept[len(kept)-1])
		kept = kept[:len(kept)-1]
	}
}
