package node

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/store"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// TestBlocksMoveToBulk: what is large travels on connections of its own, in clear only if both sides chose that, and a peer
// that makes none is served as well.
func TestBlocksMoveToBulk(t *testing.T) {
	profile := unixfs.Profiles()[0]
	for _, row := range []struct {
		name       string
		seed, get  p2p.Config
		size       int
		wantPrefix string
	}{
		{"encrypted", p2p.Config{}, p2p.Config{DataPlane: "authenticated"}, 64 << 20, "tls x"},
		{"authenticated", p2p.Config{DataPlane: "authenticated"}, p2p.Config{DataPlane: "authenticated"}, 64 << 20, "clear x"},
		{"none is made", p2p.Config{}, p2p.Config{Limits: p2p.Limits{BulkPerPeer: -1}}, 64 << 20, "libp2p streams"},
		{"small", p2p.Config{}, p2p.Config{}, 1 << 20, "libp2p streams"},
	} {
		t.Run(row.name, func(t *testing.T) {
			host := func(c p2p.Config) transport.Network {
				c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
				h, err := p2p.New(c)
				if err != nil {
					t.Fatal(err)
				}
				return h
			}
			seed, getter := testNode(t, host(row.seed)), testNode(t, host(row.get))
			fetchAndCompare(t, seed, getter, profile, row.size)
			for _, n := range []*Node{seed, getter} {
				peers := n.Peers()
				if len(peers) != 1 || !strings.HasPrefix(peers[0].Info.DataPlane, row.wantPrefix) {
					t.Errorf("afterwards the peers are %+v, want data over %s…", peers, row.wantPrefix)
				}
			}
		})
	}
}

// bulkNet is a network whose connections give bulk streams, which break or cannot be opened.
type bulkNet struct {
	transport.Network
	err   error // of OpenBulk
	after int   // bytes written after which a bulk stream breaks; 0 is never

	mu   sync.Mutex
	asks []time.Time
}

func (b *bulkNet) Notify(up func(transport.Conn), down func(dray.PeerID)) {
	b.Network.Notify(func(c transport.Conn) { up(&bulkNetConn{c, b}) }, down)
}

type bulkNetConn struct {
	transport.Conn
	net *bulkNet
}

func (c *bulkNetConn) OpenBulk(ctx context.Context, p transport.Protocol) (transport.Stream, error) {
	c.net.mu.Lock()
	c.net.asks = append(c.net.asks, time.Now())
	c.net.mu.Unlock()
	if c.net.err != nil {
		return nil, c.net.err
	}
	s, err := c.Open(ctx, p)
	return &frailStream{Stream: s, left: c.net.after, frail: c.net.after > 0}, err
}

type frailStream struct {
	transport.Stream
	left  int
	frail bool
}

func (s *frailStream) Write(b []byte) (int, error) {
	if s.left -= len(b); s.frail && s.left < 0 {
		s.Reset()
		return 0, transport.ErrReset
	}
	return s.Stream.Write(b)
}

// TestBulkFails: a transfer goes on when bulk streams cannot be opened, or break, and there is a pause between attempts.
func TestBulkFails(t *testing.T) {
	for _, row := range []struct {
		name  string
		err   error
		after int
	}{
		{"works", nil, 0},
		{"cannot be opened", errors.New("no"), 0},
		{"breaks", nil, 3 << 20},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond, Bandwidth: gigabit})
				under := &bulkNet{Network: mem.NewHost(), err: row.err, after: row.after}
				seed, getter := testNode(t, under), testNode(t, mem.NewHost())
				fetchAndCompare(t, seed, getter, unixfs.Profiles()[0], 48<<20)
				asks := under.asks
				if len(asks) == 0 {
					t.Fatal("no bulk stream was asked for")
				}
				for i := 2; row.name != "works" && i < len(asks); i++ { // both writers may ask at first
					if d := asks[i].Sub(asks[i-2]); d < bulkPause/2 {
						t.Errorf("asked again %v later", d)
					}
				}
				if row.name == "works" && len(asks) != 2 {
					t.Errorf("%d bulk streams were asked for, want one for each writer", len(asks))
				}
			})
		})
	}
}

// exposedNet is a network whose accepted streams others can write on.
type exposedNet struct{ transport.Network }

type exposedStream struct{ transport.Stream }

func (exposedStream) Exposed() {}

func (e exposedNet) Handle(p []transport.Protocol, accept func(transport.Conn, transport.Stream)) {
	e.Network.Handle(p, func(c transport.Conn, s transport.Stream) { accept(c, exposedStream{s}) })
}

// TestExposedStreamsCarryBlocksOnly: blocks that come on a stream in clear are taken, requests on one are not heard.
func TestExposedStreamsCarryBlocksOnly(t *testing.T) {
	for _, row := range []struct {
		name          string
		atSeed, heard bool
	}{
		{"blocks", false, true},
		{"requests", true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond})
				open := func(exposed bool) *Node {
					net := mem.NewHost()
					if exposed {
						net = exposedNet{net}
					}
					n, err := New(Config{Store: store.NewMem(0), Network: net})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { n.Close(); net.Close() })
					return n
				}
				seed, getter := open(row.atSeed), open(!row.atSeed)
				b, err := dray.Hashed(rawPrefix, []byte("what travels in clear"))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := seed.Put(ctx, b); err != nil {
					t.Fatal(err)
				}
				if err := getter.Connect(ctx, peerOf(seed)); err != nil {
					t.Fatal(err)
				}
				s := getter.NewSession(SessionConfig{Peers: []dray.PeerID{seed.Self()}})
				defer s.Close()
				got, err := s.Get(ctx, b.CID())
				switch {
				case row.heard && (err != nil || string(got.Data()) != string(b.Data())):
					t.Errorf("got %v, %v", got, err)
				case !row.heard && !errors.Is(err, dray.ErrTimeout):
					t.Errorf("a request that anybody may have made was answered: %v", err)
				}
			})
		})
	}
}
