package p2p

import (
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	manet "github.com/multiformats/go-multiaddr/net"
)

// firstTimeout is how long an accepted connection may take to say what it is. Whoever dials speaks first, at once.
const firstTimeout = 10 * time.Second

// sorter is the listener that libp2p sees: it lets through what is libp2p's, and hands bulk connections to the plane. A
// connection is looked at on a goroutine of its own, so that one that says nothing holds up nobody. How many there may be
// is bounded by the connections that libp2p lets be in transition (maxHandshakes), to which they count until they are
// sorted.
type sorter struct {
	transport.GatedMaListener
	plane  *plane
	sorted chan arrival
	done   chan struct{}
	once   sync.Once
}

// arrival is what Accept returns.
type arrival struct {
	conn  manet.Conn
	scope network.ConnManagementScope
	err   error
}

// sort wraps a listener.
func (p *plane) sort(l transport.GatedMaListener) transport.GatedMaListener {
	if p.perPeer == 0 {
		return l
	}
	s := &sorter{GatedMaListener: l, plane: p, sorted: make(chan arrival), done: make(chan struct{})}
	if !p.spawn(s.run) {
		_ = s.Close()
	}
	return s
}

// run accepts until the listener is closed.
func (s *sorter) run() {
	for {
		c, scope, err := s.GatedMaListener.Accept()
		if err != nil {
			if !s.hand(arrival{err: err}) {
				return
			}
			continue
		}
		if !s.plane.hold(c) || !s.plane.spawn(func() { s.look(c, scope) }) {
			drop(c, scope)
		}
	}
}

func drop(c net.Conn, scope network.ConnManagementScope) {
	_ = c.Close()
	scope.Done()
}

// hand gives to Accept, unless the listener is closed.
func (s *sorter) hand(a arrival) bool {
	select {
	case s.sorted <- a:
		return true
	case <-s.done:
		return false
	}
}

// look reads how a connection begins.
func (s *sorter) look(c manet.Conn, scope network.ConnManagementScope) {
	defer s.plane.release(c)
	_ = c.SetReadDeadline(time.Now().Add(firstTimeout))
	var b [helloBytes]byte
	if _, err := c.Read(b[:1]); err != nil {
		drop(c, scope)
		return
	}
	if b[0] != bulkMagic[0] {
		_ = c.SetReadDeadline(time.Time{})
		if !s.hand(arrival{conn: &begunConn{Conn: c, first: b[0]}, scope: scope}) {
			drop(c, scope)
		}
		return
	}
	h, err := readHello(c, &b)
	_ = c.SetReadDeadline(time.Time{})
	raw, ok := c.(tcpConn)
	scope.Done()
	if err != nil || !ok {
		s.plane.turnAway(c, err)
		return
	}
	_ = raw.SetLinger(-1) // libp2p has every close be a reset
	s.plane.greet(raw, h)
}

// Accept implements libp2p's transport.GatedMaListener.
func (s *sorter) Accept() (manet.Conn, network.ConnManagementScope, error) {
	select {
	case a := <-s.sorted:
		return a.conn, a.scope, a.err
	case <-s.done:
		return nil, nil, net.ErrClosed
	}
}

// Close implements libp2p's transport.GatedMaListener.
func (s *sorter) Close() error {
	s.once.Do(func() { close(s.done) })
	return s.GatedMaListener.Close()
}

// begunConn is a connection of which one byte was read already. It is read by one goroutine at a time.
type begunConn struct {
	manet.Conn
	first byte
	given bool
}

func (c *begunConn) Read(b []byte) (int, error) {
	if c.given || len(b) == 0 {
		return c.Conn.Read(b)
	}
	c.given = true
	b[0] = c.first
	return 1, nil
}
