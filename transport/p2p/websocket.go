package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	ws "github.com/gorilla/websocket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// webSockets is libp2p's WebSocket transport, over sockets whose bytes are counted. Libp2p lets nobody between WebSocket and the
// socket of a connection that it dials itself, so dialling is done here.
type webSockets struct {
	*websocket.WebsocketTransport
	upgrader transport.Upgrader
	rcmgr    network.ResourceManager
	tally    *tally
}

const (
	webHandshake = 15 * time.Second       // for TLS and the agreement on WebSocket
	webGoodbye   = 100 * time.Millisecond // for the message that closes
)

// newWebSockets returns a constructor for libp2p.
func newWebSockets(t *tally, key SwarmKey) func(
	transport.Upgrader, network.ResourceManager, *tcpreuse.ConnMgr,
) (*webSockets, error) {
	return func(u transport.Upgrader, r network.ResourceManager, shared *tcpreuse.ConnMgr) (*webSockets, error) {
		u = &watchingUpgrader{u, key}
		w, err := websocket.New(&countingUpgrader{u, t}, r, shared)
		return &webSockets{w, u, r, t}, err
	}
}

// countingUpgrader counts what passes the sockets below a listener.
type countingUpgrader struct {
	transport.Upgrader
	tally *tally
}

// GateMaListener implements libp2p's transport.Upgrader.
func (u *countingUpgrader) GateMaListener(l manet.Listener) transport.GatedMaListener {
	return &countingListener{u.Upgrader.GateMaListener(l), u.tally}
}

// Dial implements libp2p's transport.Transport.
func (t *webSockets) Dial(ctx context.Context, to ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := t.rcmgr.OpenConnection(network.DirOutbound, true, to)
	if err != nil {
		return nil, err
	}
	raw, err := t.dial(ctx, to)
	if err != nil {
		scope.Done()
		return nil, err
	}
	c, err := t.upgrader.Upgrade(ctx, t, raw, network.DirOutbound, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return &webCapable{c}, nil
}

// webCapable says which transport it is of.
type webCapable struct{ transport.CapableConn }

// ConnState implements libp2p's network.ConnSecurity.
func (c *webCapable) ConnState() network.ConnectionState {
	s := c.CapableConn.ConnState()
	s.Transport = "websocket"
	return s
}

// dial connects to an address that ends in ws, tls and ws with or without a name, or wss.
func (t *webSockets) dial(ctx context.Context, to ma.Multiaddr) (manet.Conn, error) {
	socket, rest := ma.SplitFunc(to, func(c ma.Component) bool {
		switch c.Protocol().Code {
		case ma.P_TLS, ma.P_WS, ma.P_WSS:
			return true
		}
		return false
	})
	system, at, err := manet.DialArgs(socket)
	if err != nil {
		return nil, err
	}
	d := ws.Dialer{
		HandshakeTimeout: webHandshake, Proxy: http.ProxyFromEnvironment,
	}
	u := url.URL{Scheme: "ws", Host: at}
	if has(rest, ma.P_TLS) || has(rest, ma.P_WSS) {
		u.Scheme, d.TLSClientConfig = "wss", &tls.Config{}
	}
	if name, err := rest.ValueForProtocol(ma.P_SNI); err == nil && u.Scheme == "wss" {
		d.TLSClientConfig.ServerName = name
		u.Host = net.JoinHostPort(name, u.Port())
	}
	d.NetDialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		if address == u.Host {
			address = at // and not where the name leads
		}
		var plain net.Dialer
		c, err := plain.DialContext(ctx, system, address)
		if err != nil {
			return nil, err
		}
		return &countedOther{c, t.tally}, nil
	}
	c, answer, err := d.DialContext(ctx, u.String(), nil)
	if err != nil {
		if answer != nil {
			err = fmt.Errorf("%w: the server says %s", err, answer.Status)
		}
		return nil, err
	}
	local, err := manet.FromNetAddr(c.LocalAddr())
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &webConn{Conn: c, local: local.Encapsulate(rest), remote: to}, nil
}

// webConn is a WebSocket as a stream of bytes: what a message's bounds are does not matter. One goroutine may read while another
// writes.
type webConn struct {
	*ws.Conn
	local, remote ma.Multiaddr
	message       io.Reader // that is being read; owned by the reader

	writing sync.Mutex // guards writes
	closing sync.Once
	closed  error
}

// Read implements [io.Reader].
func (c *webConn) Read(p []byte) (int, error) {
	for {
		if c.message == nil {
			_, m, err := c.NextReader()
			if ws.IsCloseError(err, ws.CloseNormalClosure, ws.CloseNoStatusReceived) {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			c.message = m
		}
		n, err := c.message.Read(p)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if c.message = nil; n > 0 {
			return n, nil
		}
	}
}

// Write implements [io.Writer].
func (c *webConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.WriteMessage(ws.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close says goodbye and closes the socket.
func (c *webConn) Close() error {
	c.closing.Do(func() {
		// The other side may be gone, and nobody waits for its answer.
		_ = c.WriteControl(ws.CloseMessage, ws.FormatCloseMessage(ws.CloseNormalClosure, "closed"), time.Now().Add(webGoodbye))
		c.closed = c.Conn.Close()
	})
	return c.closed
}

// SetDeadline implements [net.Conn].
func (c *webConn) SetDeadline(at time.Time) error {
	if err := c.SetReadDeadline(at); err != nil {
		return err
	}
	return c.SetWriteDeadline(at)
}

// SetWriteDeadline implements [net.Conn].
func (c *webConn) SetWriteDeadline(at time.Time) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.Conn.SetWriteDeadline(at)
}

// LocalMultiaddr and RemoteMultiaddr implement manet.Conn.
func (c *webConn) LocalMultiaddr() ma.Multiaddr { return c.local }

// RemoteMultiaddr is LocalMultiaddr of the other side.
func (c *webConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }
