package node

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray/exchange"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// TestLimits times a transfer under each limit, in virtual time: it takes as long as the limit says, and without one as
// long as the line.
func TestLimits(t *testing.T) {
	const size, rate = 48 << 20, 6e6
	for _, c := range []struct {
		name     string
		from, to exchange.Limits
		want     float64 // bytes a second
	}{
		{"none", exchange.Limits{}, exchange.Limits{}, 100e6},
		{"up", exchange.Limits{Up: rate}, exchange.Limits{}, rate},
		{"down", exchange.Limits{}, exchange.Limits{Down: rate}, rate},
		{"each up", exchange.Limits{PeerUp: rate}, exchange.Limits{}, rate},
		{"each down", exchange.Limits{}, exchange.Limits{PeerDown: rate}, rate},
		{"all", exchange.Limits{Up: 2 * rate, PeerUp: 3 * rate}, exchange.Limits{Down: rate, PeerDown: 2 * rate}, rate},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: gigabit}, 2, func(ctx context.Context, n []*Node) {
				p := unixfs.V1()
				p.ChunkSize = 256 << 10
				path, _ := randomFile(t, size)
				r, err := n[0].Add(ctx, path, AddConfig{Profile: p, Copy: true})
				if err != nil {
					t.Fatal(err)
				}
				n[0].SetLimits(c.from)
				n[1].SetLimits(c.to)
				if got := n[1].Limits().Limits; got != c.to {
					t.Errorf("the limits are %+v", got)
				}
				start := time.Now()
				if _, err := n[1].Fetch(ctx, FetchConfig{Root: r.Root, Peers: []transport.Peer{peerOf(n[0])}}); err != nil {
					t.Fatal(err)
				}
				passed := size / time.Since(start).Seconds()
				t.Logf("%.2f MB/s", passed/1e6)
				if passed < 0.95*c.want || c.want == rate && passed > 1.05*c.want {
					t.Errorf("%.2f MB/s, want %.2f", passed/1e6, c.want/1e6)
				}
				var gave, got exchange.Account
				n[0].ask(func() { gave = n[0].engine.Account(n[1].Self()) })
				n[1].ask(func() { got = n[1].engine.Account(n[0].Self()) })
				if gave.Sent < size || gave.Sent != got.Received+got.Duplicate || gave.Sent != n[0].Totals().ServedBytes {
					t.Errorf("the ledgers say %+v here and %+v there, of %d bytes", gave, got, size)
				}
				up, down := n[0].Limits(), n[1].Limits()
				if up.Up != (c.from != exchange.Limits{}) && c.name != "all" || down.Down != (c.to != exchange.Limits{}) || up.Down || down.Up {
					t.Errorf("said to limit: %+v and %+v", up, down)
				}
			})
		})
	}
}

// counter is a proxy that counts what passes.
type counter struct {
	l    net.Listener
	to   string
	wg   sync.WaitGroup
	down atomic.Int64 // to whoever dialled
	up   atomic.Int64

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

func newCounter(t *testing.T, to string) *counter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{l: l, to: to}
	c.wg.Go(c.run)
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		c.closed = true
		for _, conn := range c.conns {
			conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

func (c *counter) run() {
	for {
		in, err := c.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, in, out)
		if c.closed {
			in.Close()
			out.Close()
		}
		c.mu.Unlock()
		pass := func(to, from net.Conn, n *atomic.Int64) {
			defer to.Close()
			defer from.Close()
			buf := make([]byte, 32<<10)
			for {
				k, err := from.Read(buf)
				n.Add(int64(k))
				if _, werr := to.Write(buf[:k]); err != nil || werr != nil {
					return
				}
			}
		}
		c.wg.Go(func() { pass(in, out, &c.down) })
		c.wg.Go(func() { pass(out, in, &c.up) })
	}
}

// TestLimitsOnTheWire counts bytes on real connections: at no time have more passed than the limit allows, what is saved and
// a block or two; and the whole takes no longer than a busy machine explains.
func TestLimitsOnTheWire(t *testing.T) {
	const size, rate = 9_000_000, 3e6
	for _, c := range []struct {
		name     string
		from, to exchange.Limits
	}{
		{"up", exchange.Limits{Up: rate}, exchange.Limits{}},
		{"down", exchange.Limits{}, exchange.Limits{Down: rate}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			host := func() transport.Network {
				h, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
				if err != nil {
					t.Fatal(err)
				}
				return h
			}
			a, b := testNode(t, host()), testNode(t, host())
			addr, id, _ := strings.Cut(a.Addrs()[0], "/p2p/")
			port := addr[strings.LastIndexByte(addr, '/')+1:]
			proxy := newCounter(t, "127.0.0.1:"+port)
			_, proxyPort, _ := net.SplitHostPort(proxy.l.Addr().String())
			peer, err := p2p.ParseAddr("/ip4/127.0.0.1/tcp/" + proxyPort + "/p2p/" + id)
			if err != nil {
				t.Fatal(err)
			}
			path, _ := randomFile(t, size)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			p := unixfs.V1()
			p.ChunkSize = 64 << 10
			r, err := a.Add(ctx, path, AddConfig{Profile: p})
			if err != nil {
				t.Fatal(err)
			}
			a.SetLimits(c.from)
			b.SetLimits(c.to)

			type sample struct {
				at time.Duration
				n  int64
			}
			start := time.Now()
			var samples []sample
			done := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-done:
						return
					case <-tick.C:
						n := proxy.down.Load()
						samples = append(samples, sample{time.Since(start), n})
					}
				}
			})
			_, err = b.Fetch(ctx, FetchConfig{Root: r.Root, Path: filepath.Join(t.TempDir(), "out"), Peers: []transport.Peer{peer}})
			took := time.Since(start)
			close(done)
			wg.Wait()
			if err != nil {
				t.Fatal(err)
			}
			n := proxy.down.Load()
			t.Logf("%.2f MB/s, %.3f bytes on the wire for one of the file", float64(n)/took.Seconds()/1e6, float64(n)/size)
			if n < size || n > size*11/10 {
				t.Errorf("%d bytes passed the proxy, of a file of %d", n, size)
			}
			if got := float64(n) / took.Seconds(); got > 1.1*rate || got < 0.3*rate {
				t.Errorf("%.2f MB/s over all, at a limit of %.0f MB/s", got/1e6, rate/1e6)
			}
			for _, x := range samples {
				most := rate*(x.at.Seconds()+0.2)*1.02 + 300e3 // what a rest saved, headers, handshakes and two blocks
				if float64(x.n) > most {
					t.Fatalf("%d bytes within %v, want no more than %.0f", x.n, x.at, most)
				}
			}
		})
	}
}
