package node

import (
	"dray"
	"dray/transport"
)

// Event is something that a Node tells those who watch: one of the types below.
type Event any

// PeerConnected says that a peer became connected.
type PeerConnected struct {
	Peer dray.PeerID
	Info transport.Info
}

// PeerGone says that the last connection to a peer ended.
type PeerGone struct {
	Peer dray.PeerID
}

// DialFailed says that a peer could not be reached.
type DialFailed struct {
	Peer dray.PeerID
	Err  error
}

// event tells the log. Called on the loop.
func (n *Node) event(e Event) {
	switch e := e.(type) {
	case PeerConnected:
		n.cfg.Log.Info("peer connected", "peer", e.Peer, "addr", e.Info.Remote, "transport", e.Info.Transport,
			"inbound", e.Info.Inbound)
	case PeerGone:
		n.cfg.Log.Info("peer gone", "peer", e.Peer)
	case PeerRefuses:
		n.cfg.Log.Warn("a peer refuses this host", "peer", e.Peer, "reason", e.Reason)
	case DialFailed:
		n.cfg.Log.Info("dial failed", "peer", e.Peer, "err", e.Err)
	case VitalChanged:
		say := n.cfg.Log.Warn
		if e.To == Healthy {
			say = n.cfg.Log.Info
		}
		say("health changed", "part", e.Name, "from", e.From, "to", e.To, "reason", e.Reason)
	}
}
