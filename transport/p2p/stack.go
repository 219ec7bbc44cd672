package p2p

import (
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	coretransport "github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	libp2pwebtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
)

// stackOptions says what a connection is made of.
func (h *Host) stackOptions(c Config, limits Limits) ([]libp2p.Option, error) {
	security := c.Security
	if security == nil {
		security = []string{"tls", "noise"}
	}
	// A private swarm's first bytes are a nonce, not an agreement on security that could be begun early.
	quick := len(security) > 0 && security[0] == "tls" && c.SwarmKey.IsZero()
	options := []libp2p.Option{
		libp2p.Transport(func(u coretransport.Upgrader, r network.ResourceManager, shared *tcpreuse.ConnMgr) (
			*tcp.TcpTransport, error,
		) {
			own := []tcp.Option{tcp.WithDialerForAddr(h.dialerFor)}
			if !c.Reach.Traverse {
				own = append(own, tcp.DisableReuseport()) // for the listener; dials are dialerFor's
			}
			return tcp.NewTCPTransport(&quickUpgrader{u, quick, c.SwarmKey, h.plane, h.gate, &h.tally}, r, shared, own...)
		}),
		libp2p.Transport(newWebSockets(&h.tally, c.SwarmKey)),
		libp2p.Muxer(yamux.ID, &muxer{uint32(limits.StreamsPerPeer)}),
	}
	if c.SwarmKey.IsZero() {
		options = append(options, libp2p.Transport(libp2pquic.NewTransport), libp2p.Transport(libp2pwebtransport.New))
	} else {
		options = append(options, libp2p.PrivateNetwork(c.SwarmKey[:]))
	}
	for _, s := range security {
		switch s {
		case "tls":
			options = append(options, libp2p.Security(libp2ptls.ID, libp2ptls.New))
		case "noise":
			options = append(options, libp2p.Security(noise.ID, noise.New))
		default:
			return nil, fmt.Errorf("unknown security %q; right is tls or noise", s)
		}
	}
	return options, nil
}
