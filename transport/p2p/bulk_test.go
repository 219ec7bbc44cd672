package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	"dray/transport"
)

// bulkHost makes a host on loopback that echoes on /echo and keeps what is opened to /keep.
func bulkHost(t *testing.T, c Config) *Host {
	t.Helper()
	if c.Listen == nil {
		c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	h, err := New(c)
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
	h.Handle([]transport.Protocol{"/keep"}, func(transport.Conn, transport.Stream) {})
	return h
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// join connects a to b and returns the connection as each side has it.
func join(t *testing.T, a, b *Host) (ab, ba *conn) {
	t.Helper()
	up := make(chan transport.Conn, 1)
	b.Notify(func(c transport.Conn) { up <- c }, func(dray.PeerID) {})
	c, err := a.Dial(soon(t), b.Self(), b.Addrs())
	if err != nil {
		t.Fatal(err)
	}
	return c.(*conn), (<-up).(*conn)
}

func echoBulk(t *testing.T, c *conn) {
	t.Helper()
	s, err := c.OpenBulk(soon(t), "/echo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
		t.Fatalf("echoed %q, %v", got, err)
	}
}

// until waits for something that has no event to wait for.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(20 * time.Second); !is(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestBulkMode: the bytes are in clear only if both sides chose that, whoever opens.
func TestBulkMode(t *testing.T) {
	for _, row := range []struct{ dialler, acceptor, want string }{
		{"", "", "tls x1"},
		{"authenticated", "", "tls x1"},
		{"encrypted", "authenticated", "tls x1"},
		{"authenticated", "authenticated", "clear x1"},
	} {
		a, b := bulkHost(t, Config{DataPlane: row.dialler}), bulkHost(t, Config{DataPlane: row.acceptor})
		ab, ba := join(t, a, b)
		for _, side := range [][2]*conn{{ab, ba}, {ba, ab}} {
			c, other := side[0], side[1]
			if got := c.Info().DataPlane; got != "libp2p streams" {
				t.Errorf("before: %s", got)
			}
			echoBulk(t, c)
			s, err := c.OpenBulk(soon(t), "/keep")
			if err != nil {
				t.Fatal(err)
			}
			// The other side may still be at its end of the handshake: what is dropped below must have come by then.
			until(t, "one stream on both sides", func() bool {
				return c.Info().DataPlane == row.want && other.Info().DataPlane == row.want
			})
			if err := s.Reset(); err != nil {
				t.Error(err)
			}
			if got := c.Info().DataPlane; got != "libp2p streams" {
				t.Errorf("after: %s", got)
			}
			// The other side keeps its end, of which it has not read.
			b.plane.drop(ba)
			a.plane.drop(ab)
		}
	}
	if _, err := New(Config{DataPlane: "clear"}); err == nil || !strings.Contains(err.Error(), "encrypted or authenticated") {
		t.Errorf("an unknown data plane: %v", err)
	}
}

// tap is a listener between two hosts that records what passes, so that tests see what an eavesdropper would.
type tap struct {
	net.Listener
	to string
	wg sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	seen  []*bytes.Buffer // of each connection, from its dialler
}

func newTap(t *testing.T, to string) *tap {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{Listener: l, to: to}
	p.wg.Go(p.run)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *tap) run() {
	for {
		in, err := p.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		heard := new(bytes.Buffer)
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.seen = append(p.seen, heard)
		p.mu.Unlock()
		p.wg.Go(func() {
			_, _ = io.Copy(out, io.TeeReader(in, &locked{mu: &p.mu, w: heard}))
			_ = out.(*net.TCPConn).CloseWrite()
		})
		p.wg.Go(func() {
			_, _ = io.Copy(in, out)
			_ = in.(*net.TCPConn).CloseWrite()
		})
	}
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// heard returns what the n-th connection's dialler has sent.
func (p *tap) heard(n int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n >= len(p.seen) {
		return nil
	}
	return bytes.Clone(p.seen[n].Bytes())
}

func (p *tap) multiaddr() string {
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", p.Addr().(*net.TCPAddr).Port)
}

// hostPort returns where a host listens.
func hostPort(t *testing.T, h *Host) string {
	t.Helper()
	at, _ := peer.SplitAddr(ma.StringCast(h.Addrs()[0]))
	a, err := tcpAddr(at)
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

// turnsAway writes to a host's port and checks that it closes the connection without a word, and counts it.
func turnsAway(t *testing.T, h *Host, what string, b []byte) {
	t.Helper()
	before := h.plane.turnedAway.Load()
	c, err := net.Dial("tcp", hostPort(t, h))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("%s: read %d bytes, %v", what, n, err)
	}
	until(t, what+" is counted", func() bool { return h.plane.turnedAway.Load() > before })
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestBulkEavesdropper replays what was heard of a connection in clear: it gets nothing. In the encrypted mode what passes
// cannot be read.
func TestBulkEavesdropper(t *testing.T) {
	for _, mode := range []string{planeEncrypted, planeAuthenticated} {
		t.Run(mode, func(t *testing.T) {
			a, b := bulkHost(t, Config{DataPlane: mode}), bulkHost(t, Config{DataPlane: mode})
			line := newTap(t, hostPort(t, b))
			c, err := a.Dial(soon(t), b.Self(), []string{line.multiaddr()})
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.(*conn).OpenBulk(soon(t), "/echo")
			if err != nil {
				t.Fatal(err)
			}
			secret := []byte("the weights of layer one")
			if _, err := s.Write(secret); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, len(secret))); err != nil {
				t.Fatal(err)
			}
			heard := line.heard(1)
			if !bytes.HasPrefix(heard, []byte(bulkMagic)) {
				t.Fatalf("the second connection began with %.20q", heard)
			}
			if plain := bytes.Contains(heard, secret); plain != (mode == planeAuthenticated) {
				t.Errorf("%s: heard in clear: %v", mode, plain)
			}
			turnsAway(t, b, "a replay", heard[:helloBytes])
		})
	}
}

// TestBulkTickets: a ticket is good once, for a while, and with its token.
func TestBulkTickets(t *testing.T) {
	a, b := bulkHost(t, Config{DataPlane: planeAuthenticated}), bulkHost(t, Config{DataPlane: planeAuthenticated})
	_, ba := join(t, a, b)
	issue := func() *ticket {
		taken, err := b.plane.sit(row{ba, true})
		if err != nil {
			t.Fatal(err)
		}
		k := &ticket{conn: ba, protocol: "/keep", clear: true, show: someToken(9), seat: taken}
		if err := b.plane.issue(k); err != nil {
			t.Fatal(err)
		}
		k.agreed <- true
		return k
	}
	hello := func(number uint64, tok token) []byte {
		h := bulkHello{number: number, token: tok}
		return h.append(nil)
	}
	k := issue()
	turnsAway(t, b, "an unknown number", hello(k.number+1, k.want))
	turnsAway(t, b, "a wrong token", hello(k.number, someToken(0)))
	turnsAway(t, b, "a greeting of another version", append([]byte("\xd7dray\x02\r\n"), make([]byte, helloBytes)...))

	c, err := net.Dial("tcp", hostPort(t, b))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(hello(k.number, k.want)); err != nil {
		t.Fatal(err)
	}
	var shown token
	if _, err := io.ReadFull(c, shown[:]); err != nil || shown != k.show {
		t.Fatalf("the right token was answered with %x, %v", shown, err)
	}
	turnsAway(t, b, "a used ticket", hello(k.number, k.want))

	late := issue()
	late.expires = time.Now().Add(-time.Second)
	turnsAway(t, b, "a late ticket", hello(late.number, late.want))
	late = issue()
	late.expires = time.Now().Add(-time.Second)
	b.plane.mu.Lock()
	b.plane.sweep(time.Now())
	left := len(b.plane.tickets)
	b.plane.mu.Unlock()
	if left != 0 {
		t.Errorf("%d tickets are kept beyond their time", left)
	}
	gone := issue()
	b.plane.drop(ba)
	turnsAway(t, b, "a ticket of a peer that is gone", hello(gone.number, gone.want))
	until(t, "all seats are free", func() bool { return b.plane.occupied() == 0 })
}

func (p *plane) occupied() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// TestBulkWrongPeer has a third host use a ticket of somebody else's in the encrypted mode: TLS finds out.
func TestBulkWrongPeer(t *testing.T) {
	a, b, thief := bulkHost(t, Config{}), bulkHost(t, Config{}), bulkHost(t, Config{})
	_, ba := join(t, a, b)
	stolen, _ := join(t, thief, b)
	taken, err := b.plane.sit(row{ba, true})
	if err != nil {
		t.Fatal(err)
	}
	k := &ticket{conn: ba, protocol: "/keep", show: someToken(9), seat: taken}
	if err := b.plane.issue(k); err != nil {
		t.Fatal(err)
	}
	k.agreed <- true
	mine := &ticket{conn: stolen, number: k.number, show: k.want, want: k.show}
	at, _ := peer.SplitAddr(ma.StringCast(b.Addrs()[0]))
	if _, err := thief.plane.dial(soon(t), at, mine); err == nil {
		t.Error("a thief was let in")
	}
	until(t, "the seat is free", func() bool { return b.plane.occupied() == 0 })
}

// TestBulkImpostor has somebody else answer where the peer was: without the token, or without its key.
func TestBulkImpostor(t *testing.T) {
	a, b := bulkHost(t, Config{}), bulkHost(t, Config{})
	ab, _ := join(t, a, b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, helloBytes))
			_, _ = c.Write(make([]byte, len(token{})))
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	at := ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port))
	for _, clear := range []bool{true, false} {
		k := &ticket{conn: ab, number: 1, show: newToken(), want: newToken(), clear: clear}
		if _, err := a.plane.dial(soon(t), at, k); err == nil || clear && !errors.Is(err, errImpostor) {
			t.Errorf("clear %v: %v", clear, err)
		}
	}
}

// TestBulkLimits: each side has so many with a peer in each direction and so many in all, and what is over is refused.
func TestBulkLimits(t *testing.T) {
	few := Limits{BulkPerPeer: 2}
	for _, row := range []struct {
		name    string
		a, b    Limits
		most    int
		byOther bool
	}{
		{"opener's, per peer", few, Limits{}, 2, false},
		{"other side's, per peer", Limits{}, few, 2, false},
		{"in all", Limits{}, Limits{Bulk: 3}, 3, false},
		{"opened by the acceptor", few, Limits{}, 2, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := bulkHost(t, Config{Limits: row.a}), bulkHost(t, Config{Limits: row.b})
			c, ba := join(t, a, b)
			if row.byOther {
				c = ba
			}
			var open []transport.Stream
			for range row.most {
				s, err := c.OpenBulk(soon(t), "/keep")
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, s)
			}
			if _, err := c.OpenBulk(soon(t), "/keep"); !errors.Is(err, transport.ErrTooMany) {
				t.Errorf("one more: %v", err)
			}
			// The libp2p streams are none the worse.
			if s, err := c.Open(soon(t), "/echo"); err != nil {
				t.Error(err)
			} else {
				_ = s.Reset()
			}
			for _, s := range open {
				_ = s.Reset()
			}
			if n := c.host.plane.occupied(); n != 0 {
				t.Errorf("%d seats are taken after all is closed", n)
			}
		})
	}
	a, b := bulkHost(t, Config{}), bulkHost(t, Config{Limits: Limits{BulkPerPeer: -1}})
	ab, ba := join(t, a, b)
	for _, c := range []*conn{ab, ba} {
		if _, err := c.OpenBulk(soon(t), "/echo"); !errors.Is(err, transport.ErrRefused) {
			t.Errorf("with a host that makes none: %v", err)
		}
	}
}

// TestBulkWithAnOldList: what a peer spoke when it made the list of what it speaks is not what it speaks now.
func TestBulkWithAnOldList(t *testing.T) {
	ab, ba := join(t, bulkHost(t, Config{}), bulkHost(t, Config{}))
	for _, c := range []*conn{ab, ba} {
		if err := c.host.host.Peerstore().SetProtocols(c.id, "/ipfs/id/1.0.0", "/echo"); err != nil {
			t.Fatal(err)
		}
		echoBulk(t, c)
	}
}

// TestBulkNeedsTCP: over QUIC and WebSocket there is none.
func TestBulkNeedsTCP(t *testing.T) {
	for _, listen := range []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws"} {
		a, b := bulkHost(t, Config{}), bulkHost(t, Config{Listen: []string{listen}})
		ab, ba := join(t, a, b)
		for _, c := range []*conn{ab, ba} {
			if _, err := c.OpenBulk(soon(t), "/echo"); !errors.Is(err, transport.ErrRefused) {
				t.Errorf("over %s: %v", listen, err)
			}
		}
	}
}

// TestBulkDiallerIsClosedToTheWorld: a host that accepts nothing is reached all the same, because it dials.
func TestBulkDiallerIsClosedToTheWorld(t *testing.T) {
	a, b := bulkHost(t, Config{Listen: []string{}}), bulkHost(t, Config{})
	ab, ba := join(t, a, b)
	echoBulk(t, ab)
	echoBulk(t, ba)
}

// TestSilentConnections: connections that say nothing, or half of what they should, hold up nobody.
func TestSilentConnections(t *testing.T) {
	b := bulkHost(t, Config{})
	for i := range 100 {
		c, err := net.Dial("tcp", hostPort(t, b))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte(bulkMagic)[:i%len(bulkMagic)]); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	ab, ba := join(t, bulkHost(t, Config{}), b)
	echoBulk(t, ab)
	echoBulk(t, ba)
	if d := time.Since(start); d > firstTimeout/2 {
		t.Errorf("it took %v beside them", d)
	}
	if err := b.Close(); err != nil { // which does not wait for them either
		t.Error(err)
	}
	if d := time.Since(start); d > firstTimeout {
		t.Errorf("with Close it took %v", d)
	}
}

// TestBulkHalfHandshake: a peer that stops in the middle of the handshake is let go, and Close does not wait for it.
func TestBulkHalfHandshake(t *testing.T) {
	a, b := bulkHost(t, Config{}), bulkHost(t, Config{})
	_, ba := join(t, a, b)
	taken, err := b.plane.sit(row{ba, true})
	if err != nil {
		t.Fatal(err)
	}
	k := &ticket{conn: ba, protocol: "/keep", seat: taken}
	if err := b.plane.issue(k); err != nil {
		t.Fatal(err)
	}
	k.agreed <- true
	c, err := net.Dial("tcp", hostPort(t, b))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := bulkHello{number: k.number, token: k.want}
	if _, err := c.Write(h.append(nil)); err != nil {
		t.Fatal(err)
	}
	until(t, "the ticket is used", func() bool {
		b.plane.mu.Lock()
		defer b.plane.mu.Unlock()
		return len(b.plane.tickets) == 0
	})
	start := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > bulkTimeout/2 {
		t.Errorf("Close took %v", d)
	}
	if n := b.plane.occupied(); n != 0 {
		t.Errorf("%d seats are taken after Close", n)
	}
}

// TestBulkUnanswered: whoever opens gets an error in time when the other side never answers.
func TestBulkUnanswered(t *testing.T) {
	a, b := bulkHost(t, Config{}), bulkHost(t, Config{})
	_, ba := join(t, a, b)
	until(t, "the peer is identified", func() bool {
		all, err := b.host.Peerstore().GetProtocols(ba.id)
		return err == nil && len(all) > 0
	})
	for i := range a.plane.perPeer { // a will answer, but not dial
		if _, err := a.plane.sit(row{conn: a.lookup(b.host.ID()), inbound: true}); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := ba.OpenBulk(soon(t), "/keep"); !errors.Is(err, transport.ErrTooMany) {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ba.OpenBulk(ctx, "/keep"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if n := b.plane.occupied(); n != 0 {
		t.Errorf("%d seats are taken", n)
	}
	if n := len(b.plane.tickets); n != 0 {
		t.Errorf("%d tickets are out", n)
	}
}

// TestBulkManyPeers has 24 hosts open bulk streams to one at the same time, both ways, and leaves no goroutine of the
// package's after Close.
func TestBulkManyPeers(t *testing.T) {
	hub, err := New(Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	echo := func(_ transport.Conn, s transport.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	}
	hub.Handle([]transport.Protocol{"/echo"}, echo)
	var peers []*Host
	for range 24 {
		h, err := New(Config{Listen: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		h.Handle([]transport.Protocol{"/echo"}, echo)
		peers = append(peers, h)
	}
	var wg sync.WaitGroup
	use := func(c *conn) {
		s, err := c.OpenBulk(soon(t), "/echo")
		if err != nil {
			t.Error(err)
			return
		}
		sent := bytes.Repeat([]byte(c.Peer()), 10_000)
		wg.Go(func() {
			_, _ = s.Write(sent)
			_ = s.CloseWrite()
		})
		if got, err := io.ReadAll(s); !bytes.Equal(got, sent) || err != nil {
			t.Errorf("got %d of %d bytes, %v", len(got), len(sent), err)
		}
	}
	for _, h := range peers {
		wg.Go(func() {
			c, err := h.Dial(soon(t), hub.Self(), hub.Addrs())
			if err != nil {
				t.Error(err)
				return
			}
			use(c.(*conn))
			if back := hub.lookup(h.host.ID()); back != nil {
				use(back)
			}
		})
	}
	wg.Wait()
	for _, h := range append(peers, hub) {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if n := h.plane.occupied(); n != 0 {
			t.Errorf("%d seats are taken after Close", n)
		}
	}
	buf := make([]byte, 8<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "dray/transport/p2p.(*plane)") || strings.Contains(g, "dray/transport/p2p.(*sorter)") ||
			strings.Contains(g, "dray/transport/p2p.(*bulkStream)") {
			t.Errorf("left after Close:\n%s", g)
		}
	}
}
