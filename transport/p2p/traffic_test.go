package p2p

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray/transport"
)

// relay passes on what comes at an address of loopback to another, and counts it: up is what the dialler sends.
type relay struct {
	port     int
	up, down atomic.Int64
}

func relayTCP(t *testing.T, to int) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{port: l.Addr().(*net.TCPAddr).Port}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns []net.Conn
	)
	pass := func(dst, src net.Conn, n *atomic.Int64) {
		_, _ = io.Copy(dst, io.TeeReader(src, tellTo(n)))
		_ = dst.(*net.TCPConn).CloseWrite()
	}
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to))
			if err != nil {
				in.Close()
				return
			}
			mu.Lock()
			conns = append(conns, in, out)
			mu.Unlock()
			wg.Go(func() { pass(out, in, &r.up) })
			wg.Go(func() { pass(in, out, &r.down) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return r
}

// countWriter counts what is written.
type countWriter struct{ n *atomic.Int64 }

func tellTo(n *atomic.Int64) io.Writer { return countWriter{n} }

func (w countWriter) Write(p []byte) (int, error) {
	w.n.Add(int64(len(p)))
	return len(p), nil
}

// relayUDP relays one client.
func relayUDP(t *testing.T, to int) *relay {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadBuffer(4 << 20) // a loss here would be a difference
		return c
	}
	front, back := listen(), listen()
	r := &relay{port: front.LocalAddr().(*net.UDPAddr).Port}
	server := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(to))
	var client atomic.Pointer[netip.AddrPort]
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			client.Store(&from)
			r.up.Add(int64(n))
			_, _ = back.WriteToUDPAddrPort(buf[:n], server)
		}
	})
	wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := back.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.down.Add(int64(n))
			_, _ = front.WriteToUDPAddrPort(buf[:n], *client.Load())
		}
	})
	t.Cleanup(func() {
		front.Close()
		back.Close()
		wg.Wait()
	})
	return r
}

// TestTrafficIsWhatPasses compares what both ends count with what a relay between them saw.
func TestTrafficIsWhatPasses(t *testing.T) {
	for _, x := range []struct {
		name, listen string
		relay        func(*testing.T, int) *relay
		size         int // what a system's buffers hold, where a loss would be a difference
		bulk         bool
		plane        string
		in, out      func(Traffic) int64
	}{
		{"tcp", "/ip4/127.0.0.1/tcp/0", relayTCP, 1 << 20, false, "", tcpIn, tcpOut},
		{"bulk", "/ip4/127.0.0.1/tcp/0", relayTCP, 1 << 20, true, "", tcpIn, tcpOut},
		{"clear", "/ip4/127.0.0.1/tcp/0", relayTCP, 1 << 20, true, "authenticated", tcpIn, tcpOut},
		{"ws", "/ip4/127.0.0.1/tcp/0/ws", relayTCP, 1 << 20, false, "", tcpIn, tcpOut},
		{"quic", "/ip4/127.0.0.1/udp/0/quic-v1", relayUDP, 32 << 10, false, "", quicIn, quicOut},
	} {
		t.Run(x.name, func(t *testing.T) {
			a := bulkHost(t, Config{Listen: []string{x.listen}, DataPlane: x.plane})
			b := bulkHost(t, Config{Listen: []string{}, DataPlane: x.plane})
			addr := a.Addrs()[0]
			var port int
			if _, err := fmt.Sscanf(strings.Split(addr, "/")[4], "%d", &port); err != nil {
				t.Fatal(err)
			}
			r := x.relay(t, port)
			addr = strings.Replace(addr, fmt.Sprintf("/%d/", port), fmt.Sprintf("/%d/", r.port), 1)
			addr = strings.Replace(addr, fmt.Sprintf("/%d", port), fmt.Sprintf("/%d", r.port), 1)
			tc, err := b.Dial(soon(t), a.Self(), []string{addr})
			if err != nil {
				t.Fatal(err)
			}
			echoes(t, tc.(*conn), x.size, x.bulk)
			deadline := time.Now().Add(10 * time.Second)
			for {
				there, here := a.Traffic(), b.Traffic()
				got := [4]int64{x.out(here), x.in(there), x.out(there), x.in(here)}
				up, down := r.up.Load(), r.down.Load()
				if got == [4]int64{up, up, down, down} && up > int64(x.size) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("up sent, up received, down sent and down received are %v; the relay saw %d and %d", got, up, down)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				<-ctx.Done()
				cancel()
			}
		})
	}
}

func tcpIn(t Traffic) int64   { return t.TCPIn }
func tcpOut(t Traffic) int64  { return t.TCPOut }
func quicIn(t Traffic) int64  { return t.QUICIn }
func quicOut(t Traffic) int64 { return t.QUICOut }

// echoes sends size bytes and gets them back, on a stream.
func echoes(t *testing.T, c *conn, size int, bulk bool) {
	t.Helper()
	var (
		s   transport.Stream
		err error
	)
	if bulk {
		s, err = c.OpenBulk(soon(t), "/echo")
	} else {
		s, err = c.Open(soon(t), "/echo")
	}
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = s.Write(text)
		_ = s.CloseWrite()
	})
	got, err := io.ReadAll(s)
	wg.Wait()
	if err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d bytes came back of %d, %v", len(got), len(text), err)
	}
}
