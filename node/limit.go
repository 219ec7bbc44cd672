package node

import (
	"dray"
	"dray/exchange"
)

// SetLimits changes how many bytes of blocks a second may pass, at once. [Config.Engine] says what is in force at
// first.
func (n *Node) SetLimits(l exchange.Limits) { n.ask(func() { n.engine.SetLimits(n.now(), l) }) }

// SetService changes how well a peer is treated beside others, at once. It need not be connected. What is set lasts as
// long as the Node.
func (n *Node) SetService(id dray.PeerID, s exchange.Service) {
	n.ask(func() { n.engine.SetService(n.now(), id, s) })
}

// Limits tells what the limits are and do.
func (n *Node) Limits() exchange.Limiting {
	var l exchange.Limiting
	n.ask(func() { l = n.engine.Limits(n.now()) })
	return l
}
