package node

import (
	"fmt"
	"strings"

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

// PeerBanned says that this host refuses a peer from now on, and has disconnected it.
type PeerBanned struct {
	Peer   dray.PeerID
	Reason string
}

// GaveUp says that a connection whose other end has given no sign of life was closed.
type GaveUp struct {
	Peer dray.PeerID
}

// event tells the Finder and the log, and files a [Record]. Called on the loop.
func (n *Node) event(e Event) {
	n.judge(e)
	switch e := e.(type) {
	case PeerConnected:
		n.record(Record{Kind: RecordConnected, Peer: e.Peer, Text: "connected " + e.Info.String()})
		n.cfg.Log.Info("peer connected", "peer", e.Peer, "addr", e.Info.Remote, "path", e.Info.String(),
			"inbound", e.Info.Inbound)
	case PeerGone:
		n.record(Record{Kind: RecordGone, Peer: e.Peer, Text: "gone"})
		n.cfg.Log.Info("peer gone", "peer", e.Peer)
	case PeerBanned:
		n.record(Record{Kind: RecordBanned, Grave: true, Peer: e.Peer, Text: "refused from now on: " + e.Reason})
		n.cfg.Log.Warn("peer dropped", "peer", e.Peer, "reason", e.Reason)
	case GaveUp:
		n.record(Record{Kind: RecordGone, Grave: true, Peer: e.Peer, Text: "gives no sign of life: the connection is given up"})
		n.cfg.Log.Info("connection given up", "peer", e.Peer)
	case PeerRefuses:
		n.record(Record{Kind: RecordRefused, Grave: true, Peer: e.Peer, Text: "refuses this host: " + e.Reason})
		n.cfg.Log.Warn("a peer refuses this host", "peer", e.Peer, "reason", e.Reason)
	case DialFailed:
		n.record(Record{Kind: RecordUnreachable, Peer: e.Peer, Text: "could not be reached: " + firstLine(e.Err)})
		n.cfg.Log.Info("dial failed", "peer", e.Peer, "err", e.Err)
	case VitalChanged:
		text := fmt.Sprintf("%s: %v, was %v", e.Name, e.To, e.From)
		if e.Reason != "" {
			text += ": " + e.Reason
		}
		n.record(Record{Kind: RecordVital, Grave: e.To > Healthy, Text: text})
		say := n.cfg.Log.Warn
		if e.To == Healthy {
			say = n.cfg.Log.Info
		}
		say("health changed", "part", e.Name, "from", e.From, "to", e.To, "reason", e.Reason)
	}
}

// firstLine is an error's text up to the end of the line.
func firstLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}
