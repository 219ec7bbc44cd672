package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	manet "github.com/multiformats/go-multiaddr/net"
)

// What a connection over TCP costs before the first byte of content arrives at the other side, in round trips, of
// a dialler that knows what the peer speaks:
//
//	                          go-libp2p   here
//	TCP                            1        1
//	agreement on TLS               1        0    sent together with the hello of TLS
//	TLS 1.3                        1        1
//	agreement on yamux             0        0    within TLS
//	identify                       1        0    not waited for
//	agreement on the protocol      0        0    sent together with the content
//	the content's way             1/2      1/2
//
// The agreement on security is multistream-select: the dialler proposes, the other side says the proposal back. Nearly
// everybody takes TLS, so the answer is taken for granted and checked when it comes. A peer that refuses closes
// the connection, and is dialled again in the long way.

// quickUpgrader makes outgoing connections without waiting for the agreement on TLS, and lets both directions' connections
// measure the round trip during the handshake, for the size of windows.
type quickUpgrader struct {
	transport.Upgrader
	quick bool // TLS is this host's first choice
	key   SwarmKey
	bulk  *plane // takes the connections that are not libp2p's
	gate  *gate  // lets the others in
	tally *tally // counts all of them
}

// Upgrade implements libp2p's transport.Upgrader.
func (u *quickUpgrader) Upgrade(ctx context.Context, t transport.Transport, raw manet.Conn, dir network.Direction,
	p peer.ID, scope network.ConnManagementScope,
) (transport.CapableConn, error) {
	if dir == network.DirOutbound {
		raw = u.tally.count(raw) // others were counted when they were accepted
	}
	if !u.quick || dir != network.DirOutbound {
		return u.upgrade(ctx, t, raw, dir, p, scope)
	}
	// A failed upgrade gives the scope back. It is still needed when the failure is a refusal.
	kept := &keptScope{ConnManagementScope: scope}
	kept.keep.Store(true)
	early := newEarlyConn(u.timed(raw), appendLine(appendLine(nil, selectHeader), libp2ptls.ID))
	c, err := u.Upgrader.Upgrade(ctx, t, early, dir, p, kept)
	kept.keep.Store(false)
	if err == nil {
		return c, nil
	}
	if !errors.Is(err, errNoTLS) {
		scope.Done()
		return nil, early.opening.reason(err)
	}
	var d manet.Dialer
	again, err := d.DialContext(ctx, raw.RemoteMultiaddr())
	if err != nil {
		scope.Done()
		return nil, err
	}
	return u.upgrade(ctx, t, u.tally.count(again), dir, p, scope)
}

// upgrade is Upgrade in the long way.
func (u *quickUpgrader) upgrade(ctx context.Context, t transport.Transport, raw manet.Conn, dir network.Direction,
	p peer.ID, scope network.ConnManagementScope,
) (transport.CapableConn, error) {
	timed := u.timed(raw)
	c, err := u.Upgrader.Upgrade(ctx, t, timed, dir, p, scope)
	return c, timed.opening.reason(err)
}

func (u *quickUpgrader) timed(raw manet.Conn) *timedConn {
	return &timedConn{Conn: raw, opening: opening{key: u.key}}
}

// UpgradeGatedMaListener implements libp2p's transport.Upgrader.
func (u *quickUpgrader) UpgradeGatedMaListener(t transport.Transport, l transport.GatedMaListener) transport.Listener {
	return u.Upgrader.UpgradeGatedMaListener(t, u.gate.guard(u.bulk.sort(&countingListener{l, u.tally})))
}

// keptScope is a resource scope that can be kept from being given back.
type keptScope struct {
	network.ConnManagementScope
	keep atomic.Bool
}

func (s *keptScope) Done() {
	if !s.keep.Load() {
		s.ConnManagementScope.Done()
	}
}

// errNoTLS means that the other side did not say the proposal of TLS back.
var errNoTLS = errors.New("the peer does not take TLS")

// earlyConn is a connection on which the answer to a proposal is pretended to have come already. The proposal is held back
// until there is something to send with it.
type earlyConn struct {
	*timedConn
	proposal []byte
	held     []byte // owned by the writer: how much of the proposal was written so far
	sent     bool   // owned by the writer
	echoed   int    // owned by the reader: how much of the pretended answer was read
	checked  bool   // owned by the reader: the true answer has come
	err      error  // owned by the reader
}

func newEarlyConn(c *timedConn, proposal []byte) *earlyConn {
	return &earlyConn{timedConn: c, proposal: proposal}
}

func (c *earlyConn) Write(b []byte) (int, error) {
	if c.sent {
		return c.timedConn.Write(b)
	}
	before := len(c.held)
	c.held = append(c.held, b...)
	if len(c.held) <= len(c.proposal) {
		return len(b), nil
	}
	c.sent = true
	n, err := c.timedConn.Write(c.held)
	c.held = nil
	return max(0, n-before), err
}

func (c *earlyConn) Read(b []byte) (int, error) {
	if c.echoed < len(c.proposal) {
		n := copy(b, c.proposal[c.echoed:])
		c.echoed += n
		return n, nil
	}
	if !c.checked {
		c.checked = true
		answer := make([]byte, len(c.proposal))
		n, err := io.ReadFull(c.timedConn, answer)
		switch {
		case string(answer[:n]) != string(c.proposal[:n]):
			c.err = errNoTLS
		case err != nil:
			c.err = err
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.timedConn.Read(b)
}

// timedConn measures how long the other side takes to answer, until the result is asked for, and looks at how it begins.
type timedConn struct {
	manet.Conn
	opening opening

	wrote  atomic.Int64 // when the last write began, in nanoseconds since begun; 0 is never
	answer atomic.Int64 // the longest answer, in nanoseconds; 0 is none
	done   atomic.Bool
	over   func() // called when the handshake is over; nil if nobody wants to know
}

var begun = time.Now()

func (c *timedConn) Write(b []byte) (int, error) {
	if !c.done.Load() {
		c.wrote.Store(int64(time.Since(begun)))
	}
	return c.Conn.Write(b)
}

func (c *timedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.done.Load() {
		if at := c.wrote.Load(); at > 0 {
			c.answer.Store(max(int64(time.Since(begun))-at, c.answer.Load()))
		}
	}
	if bad := c.opening.see(b[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// roundTrip returns the longest time that an answer took, or 0 if nothing was measured, and ends the measuring. It is not the
// shortest, because what the other side sent ahead is there at once and is no answer.
func (c *timedConn) roundTrip() time.Duration {
	c.finish()
	return time.Duration(c.answer.Load())
}

func (c *timedConn) finish() {
	if !c.done.Swap(true) && c.over != nil {
		c.over()
	}
}

func (c *timedConn) Close() error {
	c.finish()
	return c.Conn.Close()
}

// roundTripOf finds the measurement beneath a secured connection. It returns 0 if there is none.
func roundTripOf(c net.Conn) time.Duration {
	outer, ok := c.(interface{ NetConn() net.Conn })
	if !ok {
		return 0
	}
	switch inner := outer.NetConn().(type) {
	case *timedConn:
		return inner.roundTrip()
	case *earlyConn:
		return inner.roundTrip()
	}
	return 0
}
