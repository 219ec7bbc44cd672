package main

import (
	"container/list"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
)

// conns bounds the connections of the HTTP server. A connection waits from when it is accepted until a request's header has
// arrived, and between two requests; it is busy while a request is answered, for however long its client reads. When there
// are too many, the one that has waited longest is closed: so connections that never say anything crowd out each other, and
// neither downloads nor newcomers. It is safe for concurrent use.
type conns struct {
	most, mostWaiting int // in all, and of one address that wait

	mu      sync.Mutex
	all     int
	waiting list.List // of *webConn, in order of how long they have waited
	by      map[netip.Addr]int
	closed  int // how many were closed to make room
}

func newConns(most, perAddress int) *conns {
	return &conns{most: most, mostWaiting: perAddress, by: make(map[netip.Addr]int)}
}

// webConn is a connection that is counted.
type webConn struct {
	net.Conn
	conns *conns
	from  netip.Addr    // invalid for loopback and unix sockets, which have no bound of their own
	place *list.Element // among those that wait, guarded by conns.mu, as is what follows
	busy  int           // requests being answered
	gone  bool
}

// ReadFrom hands a file to the kernel where that is possible.
func (c *webConn) ReadFrom(r io.Reader) (int64, error) {
	if f, ok := c.Conn.(io.ReaderFrom); ok {
		return f.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// Close closes the connection, which is then counted no more.
func (c *webConn) Close() error {
	c.conns.remove(c)
	return c.Conn.Close()
}

type connKey struct{}

// connOf returns what is counted of a connection as the HTTP server sees it.
func connOf(c net.Conn) *webConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	w, _ := c.(*webConn)
	return w
}

// countedListener is a listener whose connections are counted.
type countedListener struct {
	net.Listener
	conns *conns
}

// Accept returns the next connection.
func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.conns.add(c), nil
}

// add counts a connection that was accepted, and makes room for it. When all others are busy it is closed itself.
func (t *conns) add(inner net.Conn) *webConn {
	c := &webConn{Conn: inner, conns: t}
	if tcp, ok := inner.RemoteAddr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		c.from = tcp.AddrPort().Addr().Unmap()
	}
	t.mu.Lock()
	t.all++
	t.wait(c)
	var leave []*webConn
	if c.from.IsValid() && t.by[c.from] > t.mostWaiting {
		leave = append(leave, t.longest(c.from))
	}
	if t.all-len(leave) > t.most {
		leave = append(leave, t.waiting.Front().Value.(*webConn)) // c itself, if nobody else waits
	}
	for _, x := range leave {
		t.drop(x)
		t.closed++
	}
	t.mu.Unlock()
	for _, x := range leave {
		_ = x.Conn.Close()
	}
	return c
}

// longest returns who has waited longest of an address, of which somebody waits.
func (t *conns) longest(from netip.Addr) *webConn {
	for e := t.waiting.Front(); ; e = e.Next() {
		if c := e.Value.(*webConn); c.from == from {
			return c
		}
	}
}

func (t *conns) wait(c *webConn) {
	c.place = t.waiting.PushBack(c)
	if c.from.IsValid() {
		t.by[c.from]++
	}
}

func (t *conns) unwait(c *webConn) {
	if c.place == nil {
		return
	}
	t.waiting.Remove(c.place)
	c.place = nil
	if c.from.IsValid() {
		if t.by[c.from]--; t.by[c.from] == 0 {
			delete(t.by, c.from)
		}
	}
}

func (t *conns) drop(c *webConn) {
	if c.gone {
		return
	}
	c.gone = true
	t.all--
	t.unwait(c)
}

func (t *conns) remove(c *webConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

// begin and end say that a request of a connection is being answered; over HTTP/2 there may be several.
func (t *conns) begin(c *webConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.busy++
	t.unwait(c)
}

func (t *conns) end(c *webConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.busy--; c.busy == 0 && !c.gone {
		t.wait(c)
	}
}
