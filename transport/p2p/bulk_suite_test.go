package p2p_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
	"dray/transport/transporttest"
)

// TestBulkSuite runs the suite's tests of streams on bulk streams: in both modes, opened by the side that dialled and by
// the side that did not.
func TestBulkSuite(t *testing.T) {
	for _, mode := range []string{"encrypted", "authenticated"} {
		for _, by := range []string{"dialler", "acceptor"} {
			t.Run(mode+" by "+by, func(t *testing.T) {
				transporttest.Suite{Streams: 64}.RunStreams(t, func(*testing.T) transporttest.Factory {
					swap := &swapper{hosts: make(map[dray.PeerID]*bulkHost)}
					return func(t *testing.T) transport.Network {
						h, err := p2p.New(p2p.Config{
							Listen: []string{tcpAddr}, DataPlane: mode, Limits: p2p.Limits{BulkPerPeer: 64},
						})
						if err != nil {
							t.Fatal(err)
						}
						b := &bulkHost{Host: h, conns: make(map[transport.Conn]*bulkConn)}
						if by == "acceptor" {
							b.swap = swap
							swap.hosts[h.Self()] = b
						}
						return b
					}
				})
			})
		}
	}
}

// swapper finds the hosts of a test, so that they can dial the other way round.
type swapper struct{ hosts map[dray.PeerID]*bulkHost }

// bulkHost is a Host whose streams are all bulk streams.
type bulkHost struct {
	*p2p.Host
	swap *swapper // if not nil, who is to be dialled dials

	mu    sync.Mutex
	conns map[transport.Conn]*bulkConn
}

// bulkConn is a Conn whose streams are bulk streams.
type bulkConn struct{ transport.Bulker }

func (c *bulkConn) Open(ctx context.Context, protocols ...transport.Protocol) (transport.Stream, error) {
	var refused error
	for _, p := range protocols {
		s, err := c.OpenBulk(ctx, p)
		if !errors.Is(err, transport.ErrRefused) {
			return s, err
		}
		refused = err
	}
	return nil, refused
}

// of returns what wraps a connection, always the same for the same.
func (h *bulkHost) of(c transport.Conn) *bulkConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns[c] == nil {
		h.conns[c] = &bulkConn{c.(transport.Bulker)}
	}
	return h.conns[c]
}

func (h *bulkHost) Dial(ctx context.Context, peer dray.PeerID, addrs []string) (transport.Conn, error) {
	if h.swap != nil {
		if other := h.swap.hosts[peer]; other != nil {
			_, _ = other.Host.Dial(ctx, h.Self(), h.Addrs()) // if not, the next tells
		}
	}
	c, err := h.Host.Dial(ctx, peer, addrs) // if it was swapped, there is a connection by now or very soon
	if err != nil {
		return nil, err
	}
	return h.of(c), nil
}

func (h *bulkHost) Handle(protocols []transport.Protocol, accept func(transport.Conn, transport.Stream)) {
	h.Host.Handle(protocols, func(c transport.Conn, s transport.Stream) { accept(h.of(c), s) })
}

func (h *bulkHost) Notify(up func(transport.Conn), down func(dray.PeerID)) {
	h.Host.Notify(func(c transport.Conn) { up(h.of(c)) }, down)
}
