package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
)

const (
	tcpAddr  = "/ip4/127.0.0.1/tcp/0"
	quicAddr = "/ip4/127.0.0.1/udp/0/quic-v1"
)

// start makes a host that echoes on /echo.
func start(t *testing.T, c p2p.Config) *p2p.Host {
	t.Helper()
	h, err := p2p.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	h.Handle([]transport.Protocol{"/echo"}, func(_ transport.Conn, s transport.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	return h
}

func dialer(t *testing.T) *p2p.Host { return start(t, p2p.Config{Listen: []string{}}) }

func listener(t *testing.T, addrs ...string) *p2p.Host { return start(t, p2p.Config{Listen: addrs}) }

func dial(t *testing.T, h *p2p.Host, id dray.PeerID, addrs []string) transport.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := h.Dial(ctx, id, addrs)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func echo(t *testing.T, c transport.Conn, protocols ...transport.Protocol) {
	t.Helper()
	s, err := c.Open(context.Background(), protocols...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s)
	if string(got) != "hello" || err != nil {
		t.Fatalf("echoed %q, %v", got, err)
	}
}

func TestInfoNamesThePath(t *testing.T) {
	for i, want := range []string{"tcp tls", "quic-v1 tls", "ws tls", "webtransport noise"} {
		addr := p2p.LoopbackListen()[i]
		b := listener(t, addr)
		c := dial(t, dialer(t), b.Self(), b.Addrs())
		echo(t, c, "/echo")
		if info := c.Info(); info.Transport+" "+info.Security != want {
			t.Errorf("over %s: %+v, want %s", addr, info, want)
		}
	}
}

// TestDefaultListenWorks listens on every interface and dials over loopback.
func TestDefaultListenWorks(t *testing.T) {
	b := start(t, p2p.Config{})
	var addrs []string
	for _, a := range b.Addrs() {
		if strings.HasPrefix(a, "/ip4/127.0.0.1/") {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) != 4 {
		t.Fatalf("addresses on loopback are %v, want one per transport", addrs)
	}
	c := dial(t, dialer(t), b.Self(), addrs)
	echo(t, c, "/echo")
	if info := c.Info(); info.Transport != "tcp" || info.Security != "tls" {
		t.Errorf("all transports work and %+v was chosen", info)
	}
}

func TestListenErrorNamesTheAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	for _, addr := range []string{taken, "127.0.0.1:4001", "/ip4/127.0.0.1/tcp/x"} {
		h, err := p2p.New(p2p.Config{Listen: []string{addr}})
		if err == nil {
			h.Close()
			t.Errorf("listens on %s", addr)
		} else if !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error for %s: %v", addr, err)
		}
	}
}

// TestBlockedTransportLosesTheRace gives a dialler an address that swallows everything and one that works.
func TestBlockedTransportLosesTheRace(t *testing.T) {
	tcpHole, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer tcpHole.Close()
	udpHole, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udpHole.Close()
	deadTCP := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", tcpHole.Addr().(*net.TCPAddr).Port)
	deadUDP := fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", udpHole.LocalAddr().(*net.UDPAddr).Port)
	for _, row := range []struct {
		name, dead, listen, want string
	}{
		{"TCP blocked", deadTCP, quicAddr, "quic-v1"},
		{"UDP blocked", deadUDP, tcpAddr, "tcp"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := dialer(t), listener(t, row.listen)
			for range 2 { // the second time, too: nothing is given up for good
				begin := time.Now()
				c := dial(t, a, b.Self(), append([]string{row.dead}, b.Addrs()...))
				if d := time.Since(begin); d > time.Second {
					t.Errorf("took %v", d)
				}
				if c.Info().Transport != row.want {
					t.Errorf("connected over %s", c.Info().Transport)
				}
				echo(t, c, "/echo")
				c.Close()
			}
		})
	}
}

// TestQuickProposalIsRefused dials a peer that speaks Noise only, having assumed that it speaks TLS.
func TestQuickProposalIsRefused(t *testing.T) {
	b := start(t, p2p.Config{Listen: []string{tcpAddr}, Security: []string{"noise"}})
	a := dialer(t)
	c := dial(t, a, b.Self(), b.Addrs())
	echo(t, c, "/echo")
	if s := c.Info().Security; s != "noise" {
		t.Errorf("security %s, want noise", s)
	}
	// And one that has nothing in common is an error that says so.
	strict := start(t, p2p.Config{Listen: []string{}, Security: []string{"tls"}})
	if _, err := strict.Dial(context.Background(), b.Self(), b.Addrs()); !errors.Is(err, dray.ErrUnreachable) {
		t.Errorf("dialled a peer without common security: %v", err)
	}
}

// TestRoundTripsToFirstByte counts the round trips of a link with 25 ms each way until content arrives, from the moment
// that the TCP connection stands (which is one more).
func TestRoundTripsToFirstByte(t *testing.T) {
	const delay = 25 * time.Millisecond
	for _, row := range []struct {
		name  string
		offer []transport.Protocol
		trips float64
	}{
		{"one protocol", []transport.Protocol{"/echo"}, 1.5},
		{"a choice, nothing known", []transport.Protocol{"/echo", "/other"}, 2.5},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, err := p2p.New(p2p.Config{Listen: []string{tcpAddr}})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			arrived := make(chan time.Time, 1)
			b.Handle(row.offer, func(_ transport.Conn, s transport.Stream) {
				if _, err := s.Read(make([]byte, 1)); err == nil {
					arrived <- time.Now()
				}
				_ = s.Reset()
			})
			addr := startRelay(t, b.Addrs()[0], delay)
			best := math.Inf(1)
			for range attempts {
				a := dialer(t)
				begin := time.Now()
				c := dial(t, a, b.Self(), []string{addr})
				s, err := c.Open(context.Background(), row.offer...)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				best = min(best, float64((<-arrived).Sub(begin))/float64(2*delay))
				if best <= row.trips+0.9 {
					break
				}
			}
			t.Logf("%.2f round trips", best)
			if best < row.trips || best > row.trips+0.9 {
				t.Errorf("took %.2f round trips, want %.1f and a little", best, row.trips)
			}
		})
	}
}

// TestThroughputOverDistance moves 32 MiB over a link of 50 ms round trip and no limit: with a window of 256 KiB it would
// take 128 round trips.
func TestThroughputOverDistance(t *testing.T) {
	const size = 32 << 20
	b := listener(t, tcpAddr)
	done := make(chan int64, 1)
	b.Handle([]transport.Protocol{"/sink"}, func(_ transport.Conn, s transport.Stream) {
		n, _ := io.Copy(io.Discard, s)
		done <- n
		_ = s.Close()
	})
	addr := startRelay(t, b.Addrs()[0], 25*time.Millisecond)
	c := dial(t, dialer(t), b.Self(), []string{addr})
	best := math.Inf(1)
	for range attempts {
		begin := time.Now()
		s, err := c.Open(context.Background(), "/sink")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := s.Write(make([]byte, size)); err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n := <-done; n != size {
			t.Fatalf("got %d bytes", n)
		}
		if best = min(best, time.Since(begin).Seconds()/0.05); best <= 64 {
			break
		}
	}
	t.Logf("%.1f round trips", best)
	if best > 64 { // about 5 on an idle machine; the race detector's cipher takes 30
		t.Errorf("took %.1f round trips, want at most 64", best)
	}
}

// attempts is how often something is timed at most: other work on the machine makes it longer, and never shorter.
const attempts = 10

// TestPlainLibp2p talks to a host as go-libp2p makes it, both ways: its sizes, its security, its negotiation.
func TestPlainLibp2p(t *testing.T) {
	for _, addr := range []string{tcpAddr, quicAddr} {
		t.Run(addr, func(t *testing.T) {
			other, err := libp2p.New(libp2p.ListenAddrStrings(addr), libp2p.DisableMetrics())
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			other.SetStreamHandler("/echo", func(s network.Stream) {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			})
			h := listener(t, addr)
			var addrs []string
			for _, m := range other.Addrs() {
				addrs = append(addrs, m.String())
			}
			c := dial(t, h, dray.PeerID(other.ID()), addrs)
			echo(t, c, "/echo")
			echo(t, c, "/nobody", "/echo")
			echoMuch(t, c)

			m, err := ma.NewMultiaddr(h.Addrs()[0])
			if err != nil {
				t.Fatal(err)
			}
			info, err := peer.AddrInfoFromP2pAddr(m)
			if err != nil {
				t.Fatal(err)
			}
			caller, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
			if err != nil {
				t.Fatal(err)
			}
			defer caller.Close()
			if err := caller.Connect(context.Background(), *info); err != nil {
				t.Fatal(err)
			}
			s, err := caller.NewStream(context.Background(), info.ID, "/echo")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			_ = s.CloseWrite()
			if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
				t.Errorf("echoed %q, %v", got, err)
			}
		})
	}
}

// echoMuch echoes 16 MiB, more than every window.
func echoMuch(t *testing.T, c transport.Conn) {
	t.Helper()
	const size = 16 << 20
	s, err := c.Open(context.Background(), "/echo")
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	spawn := group(t)
	spawn(func() {
		_, err := s.Write(make([]byte, size))
		_ = s.CloseWrite()
		wrote <- err
	})
	n, err := io.Copy(io.Discard, s)
	if n != size || err != nil {
		t.Fatalf("echoed %d bytes, %v", n, err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
}

// TestStreamLimit lets a peer open more streams than it may.
func TestStreamLimit(t *testing.T) {
	b := start(t, p2p.Config{Listen: []string{tcpAddr}, Limits: p2p.Limits{StreamsPerPeer: 16}})
	c := dial(t, dialer(t), b.Self(), b.Addrs())
	echo(t, c, "/echo")
	var open []transport.Stream
	refused := 0
	for range 64 {
		s, err := c.Open(context.Background(), "/echo")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("x"))
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := s.Read(make([]byte, 1)); errors.Is(err, transport.ErrReset) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if refused < 64-16 || refused == 64 {
		t.Errorf("%d of 64 streams were refused, want at least 48 and not all", refused)
	}
	for _, s := range open {
		_ = s.Reset()
	}
	// The connection has outlived it, and there is room again. The other side may still be tidying up.
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		s, err := c.Open(context.Background(), "/echo")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("y"))
		_, err = s.Read(make([]byte, 1))
		_ = s.Reset()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no stream after the others were reset: %v", err)
		}
	}
}

// ofLibp2p are the goroutines that libp2p and its libraries do not wait for when they close: they end by themselves, soon.
var ofLibp2p = []string{
	"github.com/libp2p/",
	"github.com/quic-go/",
	"github.com/multiformats/go-multistream",
	"go.uber.org/fx",
	"golang.org/x/net/http2",
	"net/http.(*",
	"internal/poll.runtime_pollWait", // sockets of the above that are being closed
	"runtime.runCleanups",            // the runtime's own, seen while it runs what crypto/tls has given it
}

// TestCloseLeavesNothing closes hosts in the midst of traffic. When Close has returned, no goroutine is left but libp2p's
// own, and those end soon.
func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		b, err := p2p.New(p2p.Config{Listen: p2p.LoopbackListen()})
		if err != nil {
			t.Fatal(err)
		}
		b.Handle([]transport.Protocol{"/echo"}, func(_ transport.Conn, s transport.Stream) {
			_, _ = io.Copy(s, s)
			_ = s.Close()
		})
		for _, addr := range b.Addrs() {
			a, err := p2p.New(p2p.Config{Listen: []string{}})
			if err != nil {
				t.Fatal(err)
			}
			c := dial(t, a, b.Self(), []string{addr})
			s, err := c.Open(context.Background(), "/echo")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
next:
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "testing.") {
			continue
		}
		for _, name := range ofLibp2p {
			if strings.Contains(g, name) {
				continue next
			}
		}
		t.Errorf("left at once after Close:\n%s", g)
	}
	timer := time.NewTicker(20 * time.Millisecond)
	defer timer.Stop()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; <-timer.C {
		if time.Now().After(deadline) {
			buf = buf[:cap(buf)]
			t.Fatalf("%d goroutines more than before:\n%s", runtime.NumGoroutine()-before, buf[:runtime.Stack(buf, true)])
		}
	}
}
