package node

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/store"
	"dray/transport"
	"dray/wire"
)

// hopeful is a network on which a stream that is proposed with TensorSwap to a peer that does not speak it takes whatever is
// written, as a real one does, until the refusal is read one round trip later.
type hopeful struct {
	transport.Network
	refusal error // what Read returns
}

func (h *hopeful) Dial(ctx context.Context, id dray.PeerID, addrs []string) (transport.Conn, error) {
	c, err := h.Network.Dial(ctx, id, addrs)
	return &hopefulConn{c, h}, err
}

func (h *hopeful) Handle(p []transport.Protocol, accept func(transport.Conn, transport.Stream)) {
	h.Network.Handle(p, func(c transport.Conn, s transport.Stream) { accept(&hopefulConn{c, h}, s) })
}

func (h *hopeful) Notify(up func(transport.Conn), down func(dray.PeerID)) {
	h.Network.Notify(func(c transport.Conn) { up(&hopefulConn{c, h}) }, down)
}

type hopefulConn struct {
	transport.Conn
	h *hopeful
}

func (c *hopefulConn) Open(ctx context.Context, p ...transport.Protocol) (transport.Stream, error) {
	if len(p) == 1 && p[0] == wire.ProtocolSwap1 {
		return &refused{err: c.h.refusal, reset: make(chan struct{})}, nil
	}
	return c.Conn.Open(ctx, p...)
}

// refused is a stream that the peer refuses. What is written to it is lost.
type refused struct {
	once  sync.Once
	reset chan struct{}
	err   error
}

func (*refused) Protocol() transport.Protocol { return wire.ProtocolSwap1 }

func (r *refused) Read([]byte) (int, error) {
	t := time.NewTimer(2 * oneWay)
	defer t.Stop()
	select {
	case <-t.C:
		return 0, r.err
	case <-r.reset:
		return 0, transport.ErrReset
	}
}

func (r *refused) Write(b []byte) (int, error) {
	select {
	case <-r.reset:
		return 0, transport.ErrReset
	default:
		return len(b), nil
	}
}

func (r *refused) Reset() error                     { r.once.Do(func() { close(r.reset) }); return nil }
func (r *refused) Close() error                     { return r.Reset() }
func (*refused) CloseWrite() error                  { return nil }
func (*refused) SetReadDeadline(time.Time) error    { return nil }
func (*refused) SetWriteDeadline(t time.Time) error { return nil }

// bitswapOnly is the network of a peer that speaks no TensorSwap.
type bitswapOnly struct{ transport.Network }

func (b bitswapOnly) Handle(p []transport.Protocol, accept func(transport.Conn, transport.Stream)) {
	b.Network.Handle(p[1:], accept)
}

func (b bitswapOnly) Notify(up func(transport.Conn), down func(dray.PeerID)) {
	b.Network.Notify(func(c transport.Conn) { up(bitswapConn{c}) }, down)
}

type bitswapConn struct{ transport.Conn }

func (c bitswapConn) Open(ctx context.Context, _ ...transport.Protocol) (transport.Stream, error) {
	return c.Conn.Open(ctx, wire.ProtocolV120)
}

// TestRefusal: what is lost in a stream that the peer refuses is said again at once, however the refusal looks, and whether or
// not the peer has opened a stream of its own before. It costs no more than one round trip.
func TestRefusal(t *testing.T) {
	for _, refusal := range []error{fmt.Errorf("%w: na", transport.ErrRefused), transport.ErrReset, os.ErrDeadlineExceeded} {
		for _, heard := range []bool{false, true} {
			t.Run(fmt.Sprint(refusal, " heard ", heard), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					mem := transport.NewMemory(transport.MemoryConfig{Latency: oneWay, Bandwidth: gigabit})
					nets := []transport.Network{bitswapOnly{mem.NewHost()}, &hopeful{mem.NewHost(), refusal}}
					var nodes []*Node
					for _, net := range nets {
						n, err := New(Config{Store: store.NewMem(0), Network: net})
						if err != nil {
							t.Fatal(err)
						}
						nodes = append(nodes, n)
					}
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					root := tinyTree(t, ctx, nodes[0], 100)
					if heard { // the other side wants something, too
						nobody := junk(t, 1, 1, 100)[0]
						s := nodes[0].NewSession(SessionConfig{})
						var wg sync.WaitGroup
						wg.Go(func() { s.Get(ctx, nobody.CID()) })
						defer wg.Wait()
						defer s.Close()
					}
					start := time.Now()
					p, err := nodes[1].Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{peerOf(nodes[0])}})
					took := time.Since(start)
					if err != nil || p.Leaves != 100 {
						t.Fatalf("%+v, %v", p, err)
					}
					trips := float64(took) / float64(2*oneWay)
					t.Logf("%.1f round trips", trips)
					if trips > 4.5 { // to connect, to be refused, for the root and for the leaves
						t.Errorf("%.1f round trips", trips)
					}
					for i, n := range nodes {
						n.Close()
						nets[i].Close()
					}
				})
			})
		}
	}
}
