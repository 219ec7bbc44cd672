package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	"dray/transport"
)

// conn is a [transport.Conn]: all paths to a peer, from its up to its down.
type conn struct {
	host  *Host
	id    peer.ID
	paths []network.Conn // guarded by host.mu, oldest first
	// trials are the paths that came while there were others, until it is known whether those still answer; see newest.go.
	// Guarded by host.mu.
	trials map[network.Conn]chan struct{}
	since  time.Time // when it came
	// dialled says that this host's user wanted it, so that it is no stranger (room.go). Guarded by host.mu.
	dialled bool
	// moved is how many bytes have passed, and useful when that was last much, in nanoseconds since begun; 0 is never.
	moved, useful atomic.Int64
}

func (c *conn) Peer() dray.PeerID { return dray.PeerID(c.id) }

// best returns the path that new streams take: a direct one rather than a relayed one, TCP rather than the slower rest, and
// of those the oldest, so that both sides tend to agree. It returns nil when none is left.
func (c *conn) best() network.Conn {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	var best network.Conn
	score := 0
	for _, nc := range c.paths {
		if nc.IsClosed() {
			continue
		}
		s := 1
		if nc.ConnState().Transport == "tcp" {
			s++
		}
		if !isRelayed(nc) {
			s += 2
		}
		if s > score {
			best, score = nc, s
		}
	}
	return best
}

// Open implements [transport.Conn].
func (c *conn) Open(ctx context.Context, protocols ...transport.Protocol) (transport.Stream, error) {
	s, err := c.open(ctx, protocols)
	if err != nil {
		return nil, &dray.Error{Op: "open stream", Peer: c.Peer(), Err: err}
	}
	return s, nil
}

func (c *conn) open(ctx context.Context, protocols []transport.Protocol) (*stream, error) {
	if len(protocols) == 0 {
		return nil, fmt.Errorf("%w: no protocol given", transport.ErrRefused)
	}
	nc := c.best()
	if nc == nil {
		return nil, fmt.Errorf("%w: %w", dray.ErrClosed, transport.ErrReset)
	}
	s, err := nc.NewStream(network.WithAllowLimitedConn(ctx, "streams are wanted on every path"))
	if err != nil {
		return nil, cause(err)
	}
	// One protocol, or one that the peer has said it speaks, is proposed with the first write. Otherwise it takes a round
	// trip; waiting for the peer to identify itself would take as long.
	proposed := protocols[0]
	if len(protocols) > 1 {
		if proposed = c.known(protocols); proposed == "" {
			if proposed, err = c.negotiate(ctx, s, protocols); err != nil {
				_ = s.ResetWithError(network.StreamProtocolNegotiationFailed)
				return nil, err
			}
			if err := s.SetProtocol(protocol.ID(proposed)); err != nil {
				_ = s.Reset()
				return nil, cause(err)
			}
			return newAccepted(c, s, proposed), nil
		}
	}
	if err := s.SetProtocol(protocol.ID(proposed)); err != nil {
		_ = s.Reset()
		return nil, cause(err)
	}
	return newProposed(c, s, proposed), nil
}

// known returns the first of protocols that the peer is known to speak, or "".
func (c *conn) known(protocols []transport.Protocol) transport.Protocol {
	for _, p := range protocols {
		has, err := c.host.host.Peerstore().SupportsProtocols(c.id, protocol.ID(p))
		if err == nil && len(has) > 0 {
			return p
		}
	}
	return ""
}

// Info implements [transport.Conn].
func (c *conn) Info() transport.Info {
	nc := c.best()
	if nc == nil {
		return transport.Info{}
	}
	state := nc.ConnState()
	info := transport.Info{
		Local:     nc.LocalMultiaddr().String(),
		Remote:    nc.RemoteMultiaddr().String(),
		Transport: state.Transport,
		Security:  strings.TrimPrefix(strings.TrimSuffix(string(state.Security), "/1.0.0"), "/"),
		Inbound:   nc.Stat().Direction == network.DirInbound,
		Relayed:   isRelayed(nc),
		DataPlane: c.host.plane.describe(c),
	}
	if info.Relayed {
		// libp2p does not say on which cipher the ends have agreed.
		info.Via = dray.PeerID(relayID(nc.RemoteMultiaddr()))
		info.Transport, info.Security = transportOf(relayOf(nc.RemoteMultiaddr())), "encrypted"
		return info
	}
	switch state.Transport {
	case "websocket":
		info.Transport = "ws"
		if m := nc.RemoteMultiaddr(); has(m, ma.P_WSS) || has(m, ma.P_TLS) {
			info.Transport = "wss"
		}
	case "quic", "quic-v1":
		info.Transport, info.Security = "quic-v1", "tls"
	case "webtransport":
		info.Security = "noise"
	}
	return info
}

// isRelayed reports whether a path leads through a third host.
func isRelayed(nc network.Conn) bool { return has(nc.RemoteMultiaddr(), ma.P_CIRCUIT) }

// transportOf names the transport of an address.
func transportOf(m ma.Multiaddr) string {
	switch {
	case has(m, ma.P_WEBTRANSPORT):
		return "webtransport"
	case has(m, ma.P_QUIC_V1):
		return "quic-v1"
	case has(m, ma.P_WSS), has(m, ma.P_WS) && has(m, ma.P_TLS):
		return "wss"
	case has(m, ma.P_WS):
		return "ws"
	}
	return "tcp"
}

// Close implements [transport.Conn]. Once the peer is down it does nothing, whatever connections there are by then.
func (c *conn) Close() error {
	c.host.mu.Lock()
	paths := append([]network.Conn(nil), c.paths...)
	c.host.mu.Unlock()
	var errs []error
	for _, nc := range paths {
		errs = append(errs, nc.Close())
	}
	return errors.Join(errs...)
}

// cause translates what libp2p returns into what package transport promises.
func cause(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.Is(err, transport.ErrRefused), errors.Is(err, transport.ErrTooMany), errors.Is(err, dray.ErrClosed):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, network.ErrResourceLimitExceeded):
		return fmt.Errorf("%w: %w", transport.ErrTooMany, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.Is(err, network.ErrReset):
		return fmt.Errorf("%w: %w", transport.ErrReset, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
	}
	return fmt.Errorf("%w: %w", transport.ErrReset, err)
}
