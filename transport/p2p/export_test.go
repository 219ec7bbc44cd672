package p2p

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"dray"
)

// HasRelayed reports whether there is a connection with a peer that leads through a relay.
func (h *Host) HasRelayed(id dray.PeerID) bool {
	return slices.ContainsFunc(h.host.Network().ConnsToPeer(peer.ID(id)), isRelayed)
}
