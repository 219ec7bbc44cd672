package node

import (
	"slices"

	"dray"
	"dray/transport"
)

// Some peers are kept connected: members, and those that the caller names. The engine dials them as it dials whom a session
// names, by their health, and again whenever they are lost. When only members are served, strangers who connect are refused;
// whom this host has dialled is wanted here.

// setMembers takes who the members are. Called on the loop, or before there is one.
func (n *Node) setMembers(a Access) {
	before := n.members
	n.members = make(map[dray.PeerID]bool)
	if a.MembersOnly {
		n.private.Store(true)
	}
	n.membersOnly = a.MembersOnly
	n.comrades = n.comrades[:0]
	for _, m := range a.Members.List() {
		n.members[m.ID] = true
		n.keepPeer(m.ID, true)
		if len(m.Addrs) > 0 {
			n.comrades = append(n.comrades, transport.Peer{ID: m.ID, Addrs: m.Addrs})
		}
	}
	for id := range before {
		if !n.members[id] && n.book[id] == nil {
			n.keepPeer(id, false)
		}
	}
	n.keepConnected()
	n.readmit()
}

// keepPeer has the network keep room for a peer, or no longer.
func (n *Node) keepPeer(id dray.PeerID, yes bool) {
	if k, ok := n.net.(transport.Keeper); ok {
		k.Keep(id, yes)
	}
}

// KeepConnected makes the Node stay connected to peers, besides members: it dials them now, and whenever they are lost. Each
// call replaces the peers of the one before. Addresses that are not given are those known already.
func (n *Node) KeepConnected(peers ...transport.Peer) {
	peers = slices.Clone(peers)
	n.ask(func() {
		n.wanted = peers
		n.keepConnected()
	})
}

// keepConnected tells the engine whom to stay connected to.
func (n *Node) keepConnected() {
	if n.net == nil {
		return
	}
	var ids []dray.PeerID
	n.kept = make(map[dray.PeerID]bool)
	for _, p := range slices.Concat(n.comrades, n.wanted) {
		if p.ID == n.Self() {
			continue
		}
		if !n.kept[p.ID] {
			n.kept[p.ID] = true
			ids = append(ids, p.ID)
		}
		if n.learn(p) {
			n.engine.Addressed(n.now(), p.ID)
		}
	}
	n.engine.Keep(n.now(), ids)
}
