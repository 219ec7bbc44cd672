package node

import (
	"time"

	"dray"
	"dray/exchange"
	"dray/exchange/health"
	"dray/transport"
)

// PeerStatus describes one peer that is connected, or that the Node stays away from.
type PeerStatus struct {
	// ID names the peer.
	ID dray.PeerID
	// Info is the path to it, if it is connected.
	Info transport.Info
	// Protocol is what was agreed on for sending to it, or "" before the first message.
	Protocol string
	// Account is what passed between this host and the peer.
	Account exchange.Account
	// Health is what the engine thinks of it. Its Until is on the engine's clock.
	Health exchange.PeerHealth
	// Left is how long the back-off or ban still lasts, or 0.
	Left time.Duration
}

// Peers describes the connected peers, in no particular order.
func (n *Node) Peers() []PeerStatus {
	var out []PeerStatus
	n.ask(func() {
		for id, l := range n.links {
			s := n.peerStatus(id)
			s.Info, s.Protocol = l.conn.Info(), l.protocolName()
			out = append(out, s)
		}
	})
	return out
}

// Absent describes the peers that are not connected and that the Node dials, or stays away from for a while, or refuses.
func (n *Node) Absent() []PeerStatus {
	var out []PeerStatus
	n.ask(func() {
		for _, id := range n.engine.Absent() {
			out = append(out, n.peerStatus(id))
		}
	})
	return out
}

func (n *Node) peerStatus(id dray.PeerID) PeerStatus {
	s := PeerStatus{ID: id, Account: n.engine.Account(id), Health: n.engine.Health(id)}
	if h := s.Health.State; h == health.BackedOff || h == health.Banned {
		s.Left = max(s.Health.Until-n.now(), 0)
	}
	return s
}

// Ban refuses a peer for a time: it is disconnected, hears nothing, and is not dialled. The reason is told to whoever asks.
func (n *Node) Ban(id dray.PeerID, d time.Duration, reason string) {
	n.ask(func() {
		if n.links[id] == nil { // else there is a connection to be dropped, which is told
			n.event(PeerBanned{Peer: id, Reason: reason})
		}
		n.engine.Ban(n.now(), id, n.now()+d, reason)
	})
}

// Unban ends a ban, the operator's or one for an offence, and reports whether there was one.
func (n *Node) Unban(id dray.PeerID) (was bool) {
	n.ask(func() {
		if was = n.engine.Unban(n.now(), id); was {
			n.record(Record{Kind: RecordBanned, Peer: id, Text: "is accepted again"})
		}
	})
	return was
}

// Outlook says whether this host is likely cut off from its peers, and which wants come first because of peers that it lost.
func (n *Node) Outlook() (s health.PartitionState, m health.Mode) {
	n.ask(func() { s, m = n.engine.PartitionState(), n.engine.Mode() })
	return s, m
}
