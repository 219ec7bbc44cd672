package p2p

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"
)

// Traffic is what passed sockets since a Host was made, in bytes: for TCP what was written to and read from them, and for QUIC the
// UDP payload of connections, those lost on the way included. What is not in it: TCP's and IP's headers, and datagrams that belong
// to no connection.
type Traffic struct {
	// TCPIn and TCPOut are those of all TCP connections: libp2p's, WebSocket's and bulk ones, handshakes included.
	TCPIn, TCPOut int64
	// QUICIn and QUICOut are those of QUIC and WebTransport.
	QUICIn, QUICOut int64
}

// Traffic returns what passed so far. It is safe for concurrent use.
func (h *Host) Traffic() Traffic { return h.tally.sum() }

// tally counts what passes sockets.
type tally struct {
	tcpIn, tcpOut atomic.Int64

	mu      sync.Mutex
	quicIn  int64 // of connections that have ended
	quicOut int64
	live    map[network.Conn]*quic.Conn
}

func (t *tally) sum() Traffic {
	s := Traffic{TCPIn: t.tcpIn.Load(), TCPOut: t.tcpOut.Load()}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.QUICIn, s.QUICOut = t.quicIn, t.quicOut
	for _, c := range t.live {
		x := c.ConnectionStats()
		s.QUICIn += int64(x.BytesReceived)
		s.QUICOut += int64(x.BytesSent)
	}
	return s
}

// begin counts what passes a connection, if it is QUIC's.
func (t *tally) begin(c network.Conn) {
	var q *quic.Conn
	if !c.As(&q) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live == nil {
		t.live = make(map[network.Conn]*quic.Conn)
	}
	t.live[c] = q
}

// end keeps what passed a connection that is over.
func (t *tally) end(c network.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.live[c]
	if q == nil {
		return
	}
	delete(t.live, c)
	x := q.ConnectionStats()
	t.quicIn += int64(x.BytesReceived)
	t.quicOut += int64(x.BytesSent)
}

// countTCP returns a connection whose bytes are counted. It can do what *net.TCPConn can and bulk streams need.
func (t *tally) countTCP(c tcpConn) tcpConn { return &countedTCP{tcpConn: c, tally: t} }

type countedTCP struct {
	tcpConn
	tally *tally
}

func (c *countedTCP) Read(p []byte) (int, error) {
	n, err := c.tcpConn.Read(p)
	c.tally.tcpIn.Add(int64(n))
	return n, err
}

func (c *countedTCP) Write(p []byte) (int, error) {
	n, err := c.tcpConn.Write(p)
	c.tally.tcpOut.Add(int64(n))
	return n, err
}

// ReadFrom lets the system take the bytes straight from a file.
func (c *countedTCP) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.tcpConn.ReadFrom(r)
	c.tally.tcpOut.Add(n)
	return n, err
}

// SyscallConn implements [syscall.Conn].
func (c *countedTCP) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.tcpConn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, syscall.EOPNOTSUPP
}

// countedConn is a countedTCP, or another connection, as libp2p sees it.
type countedConn struct {
	manet.Conn
	counted net.Conn
}

// count returns a connection of libp2p's whose bytes are counted.
func (t *tally) count(c manet.Conn) manet.Conn {
	if raw, ok := c.(tcpConn); ok {
		return &countedRaw{countedConn{c, t.countTCP(raw)}, raw}
	}
	return &countedConn{c, &countedOther{c, t}}
}

func (c *countedConn) Read(p []byte) (int, error)  { return c.counted.Read(p) }
func (c *countedConn) Write(p []byte) (int, error) { return c.counted.Write(p) }

// countedRaw is a countedConn that can become a bulk stream's.
type countedRaw struct {
	countedConn
	raw tcpConn
}

func (c *countedRaw) ReadFrom(r io.Reader) (int64, error) { return c.counted.(*countedTCP).ReadFrom(r) }
func (c *countedRaw) CloseWrite() error                   { return c.raw.CloseWrite() }
func (c *countedRaw) SetLinger(seconds int) error         { return c.raw.SetLinger(seconds) }
func (c *countedRaw) SyscallConn() (syscall.RawConn, error) {
	return c.counted.(*countedTCP).SyscallConn()
}

type countedOther struct {
	net.Conn
	tally *tally
}

func (c *countedOther) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.tally.tcpIn.Add(int64(n))
	return n, err
}

func (c *countedOther) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.tally.tcpOut.Add(int64(n))
	return n, err
}

// countingListener counts what passes the connections that it accepts.
type countingListener struct {
	transport.GatedMaListener
	tally *tally
}

// Accept implements libp2p's transport.GatedMaListener.
func (l *countingListener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	c, scope, err := l.GatedMaListener.Accept()
	if err == nil {
		c = l.tally.count(c)
	}
	return c, scope, err
}
