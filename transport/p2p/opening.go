package p2p

import (
	"context"
	"errors"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/crypto/salsa20"
)

// Both ends of a connection over TCP and WebSocket begin, without waiting for each other, with the header of multistream-select: in
// the open as it is, and in a private swarm encrypted with the swarm key, after a nonce in clear. An end that has another key, or
// none where the other has one, reads noise instead. libp2p takes its first byte for the length of a line and waits for the rest,
// as much as noise will have it; when both ends wait, they do so until somebody gives up and nobody knows why. So what arrives is
// looked at on its way to libp2p, and reading ends with an error at the first byte that tells.

const (
	nonceBytes  = 24
	openingHead = "\x13" + selectHeader + "\n" // as appendLine writes it
	openingBusy = "\x11" + busyLine + "\n"
)

// Why a connection is not one of this host's swarm.
var (
	errNotInTheOpen = errors.New("the other end begins in another way than libp2p in the open")
	errInNoSwarm    = errors.New("the other host is in no private swarm")
	errOtherKey     = errors.New("the other end does not show that it has this swarm's key")
)

// opening checks how the other side begins. It is read by one goroutine at a time.
type opening struct {
	key  SwarmKey // zero in the open
	seen []byte   // what has come, until it is known that all is well
	well bool
	err  error
}

// see looks at what was read next. It returns an error, always the same from then on, when it does not belong at the beginning of a
// connection of this swarm.
func (o *opening) see(b []byte) error {
	if o.well || o.err != nil {
		return o.err
	}
	o.seen = append(o.seen, b[:min(len(b), nonceBytes+len(openingHead)-len(o.seen))]...)
	switch plain := beginsLike(o.seen, openingHead); {
	case plain == differs:
		o.err = o.other()
	case plain == same && o.key.IsZero():
		o.well = true
	case plain == same:
		o.err = errInNoSwarm // one nonce of 2^160 looks the same
	}
	if o.well || o.err != nil {
		o.seen = nil
	}
	return o.err
}

// other is see for what does not begin as libp2p does in the open.
func (o *opening) other() error {
	switch beginsLike(o.seen, openingBusy) {
	case same:
		return errBusy // which is said in clear, to whoever comes
	case undecided:
		return nil
	}
	if o.key.IsZero() {
		return errNotInTheOpen
	}
	if len(o.seen) <= nonceBytes {
		return nil
	}
	var expected [len(openingHead)]byte
	salsa20.XORKeyStream(expected[:], []byte(openingHead), o.seen[:nonceBytes], (*[32]byte)(&o.key))
	switch beginsLike(o.seen[nonceBytes:], string(expected[:])) {
	case same:
		o.well = true
	case differs:
		return errOtherKey
	}
	return nil
}

// reason returns what see has found if there is something, because that is why the connection failed, and otherwise err. (Who is
// looked at in the same way hangs up, so libp2p may only tell of a write that broke.)
func (o *opening) reason(err error) error {
	if err != nil && o.err != nil {
		return o.err
	}
	return err
}

// likeness is what a beginning says of the whole.
type likeness int

const (
	undecided likeness = iota // the same as far as it goes
	same
	differs
)

// beginsLike compares as much as there is of b with whole.
func beginsLike(b []byte, whole string) likeness {
	switch n := min(len(b), len(whole)); {
	case !strings.HasPrefix(whole, string(b[:n])):
		return differs
	case n == len(whole):
		return same
	}
	return undecided
}

// isForeign reports whether a connection ended because of how the other side began.
func isForeign(err error) bool {
	return errors.Is(err, errNotInTheOpen) || errors.Is(err, errInNoSwarm) || errors.Is(err, errOtherKey)
}

// watchedConn is a connection whose opening is looked at.
type watchedConn struct {
	manet.Conn
	opening opening
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if bad := c.opening.see(b[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// watchingUpgrader has the openings of connections looked at. It is for WebSocket; the others have quickUpgrader.
type watchingUpgrader struct {
	transport.Upgrader
	key SwarmKey
}

// Upgrade implements libp2p's transport.Upgrader.
func (u *watchingUpgrader) Upgrade(ctx context.Context, t transport.Transport, raw manet.Conn, dir network.Direction,
	p peer.ID, scope network.ConnManagementScope,
) (transport.CapableConn, error) {
	watched := &watchedConn{Conn: raw, opening: opening{key: u.key}}
	c, err := u.Upgrader.Upgrade(ctx, t, watched, dir, p, scope)
	return c, watched.opening.reason(err)
}

// UpgradeGatedMaListener implements libp2p's transport.Upgrader.
func (u *watchingUpgrader) UpgradeGatedMaListener(t transport.Transport, l transport.GatedMaListener) transport.Listener {
	return u.Upgrader.UpgradeGatedMaListener(t, &watchingListener{l, u.key})
}

// watchingListener accepts connections whose openings are looked at.
type watchingListener struct {
	transport.GatedMaListener
	key SwarmKey
}

// Accept implements libp2p's transport.GatedMaListener.
func (l *watchingListener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	c, scope, err := l.GatedMaListener.Accept()
	if err != nil {
		return nil, nil, err
	}
	return &watchedConn{Conn: c, opening: opening{key: l.key}}, scope, nil
}
