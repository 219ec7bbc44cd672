// Package transport names what Dray needs from a network: authenticated connections between peers, streams on them, and
// somebody who finds peers. [Memory] is a network inside one process; package transport/p2p is libp2p. Package
// transport/transporttest holds the suite that every implementation passes.
//
// On top of these are links. A [Dispatcher] writes to one peer, on a stream that it opens again for as long as it lives, and
// has two lanes: in the state lane, changes of a state that is said anew when the stream breaks; in the event lane, a bounded
// queue that drops its oldest. A [Receiver] reads what a Dispatcher writes. [Tentative] keeps the last that undecided peers say.
// [Links] keeps one of each for the members of a group, as an [Admission] allows.
//
// # What it does not do
//
// It does not know what the streams carry or which peers are good. A Dispatcher dials again when it is told to.
package transport

import (
	"context"
	"io"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// Protocol is the id that both ends of a stream agree on, such as "/ipfs/bitswap/1.2.0".
type Protocol string

// Network is one host's view of the network. Implementations are safe for concurrent use.
type Network interface {
	// Self returns this host's id.
	Self() dray.PeerID

	// Addrs returns the addresses on which others can reach this host, each a multiaddr that ends in /p2p/ID.
	Addrs() []string

	// Dial returns a connection to peer: the one there is, or a new one to the first of addrs that answers. The
	// addresses are raced against each other, not tried in turn. Empty addrs means those that are known already.
	// Dialling a peer from two sides at once ends with connections that both sides can use. The error wraps
	// [dray.ErrUnreachable] and says for each address why.
	Dial(ctx context.Context, peer dray.PeerID, addrs []string) (Conn, error)

	// Handle accepts streams for the given protocols, most preferred first. accept is called once per stream, on a
	// goroutine of the network's; it may keep the stream beyond its return. Handle must be called before the first
	// connection is made.
	Handle(protocols []Protocol, accept func(Conn, Stream))

	// Notify calls up when a peer becomes connected and down when the last connection to it is gone, in order, one call
	// at a time per peer. The functions must not block.
	Notify(up func(Conn), down func(dray.PeerID))

	// Close drops every connection and returns when no goroutine of the network runs any more.
	Close() error
}

// Keeper is a [Network] with room for so many connections, which disconnects whom it does not know when it has no more.
type Keeper interface {
	Network

	// Keep says whether there is always room for a peer: it is never disconnected for want of room, and gets in when there is
	// none. Whom Dial has reached is kept anyhow. The caller bounds how many peers it keeps.
	Keep(peer dray.PeerID, keep bool)
}

// Conn is an authenticated connection to a peer: the peer has proven that it holds the key behind its id. When several
// connections to a peer exist, a Conn stands for all of them.
type Conn interface {
	// Peer returns the id that the other side has proven.
	Peer() dray.PeerID

	// Open starts a stream and agrees on the first of protocols that the other side accepts. With a peer whose
	// protocols are known already, this costs no round trip before the first write.
	Open(ctx context.Context, protocols ...Protocol) (Stream, error)

	// Info describes the path that the connection takes now.
	Info() Info

	// Ping asks the other side's network for a sign of life and returns how long it took to come, which is more than 0. It
	// says nothing of whether anybody there accepts streams. The error is ctx's, or says that the connection is gone.
	Ping(ctx context.Context) (time.Duration, error)

	// Close drops the connection and all its streams.
	Close() error
}

// Info describes a connection's path.
type Info struct {
	// Local and Remote are the addresses at both ends, as multiaddrs.
	Local, Remote string
	// Transport is "tcp", "quic-v1", "ws", "wss", "webtransport" or "memory"; of a relayed connection, what leads to the relay.
	Transport string
	// Security is "tls", "noise" or "none", or "encrypted" of a relayed connection, which is so between its ends: the relay cannot
	// read it.
	Security string
	// Relayed is true when the bytes pass through a third host, which is Via.
	Relayed bool
	Via     dray.PeerID
	// Inbound is true when the other side dialled.
	Inbound bool
	// DataPlane says what bulk data takes at this moment: "libp2p streams", those of the connection itself; or connections
	// of its own, of which there are so many: "tls x2", or "clear x2" when both sides chose not to encrypt it. "" is a
	// network that makes no difference. See [Bulker].
	DataPlane string
}

// String says how the path leads to the peer, as in "direct over quic-v1" or "relayed over tcp via 12D3KooW…". It is "" without one.
func (i Info) String() string {
	switch {
	case i.Transport == "":
		return ""
	case i.Relayed && i.Via != "":
		return "relayed over " + i.Transport + " via " + i.Via.String()
	case i.Relayed:
		return "relayed over " + i.Transport
	}
	return "direct over " + i.Transport
}

// Bulker is a [Conn] that can give a stream a connection of its own, with fewer layers than one that carries many. It is for
// few streams with much data: each costs both sides a socket.
type Bulker interface {
	Conn

	// OpenBulk opens a stream on a connection of its own to the same peer. The other side's accept function gets it like
	// any other stream. It takes a few round trips. An error leaves everything as it was: the path does not allow it, the
	// peer does not know of it or speaks no such protocol ([ErrRefused]), or either side has enough of them ([ErrTooMany]).
	// Such a stream breaks when the Conn goes down.
	OpenBulk(ctx context.Context, protocol Protocol) (Stream, error)
}

// Stream is an ordered, reliable, flow-controlled pair of byte streams with one peer. Read and Write may be called from
// one goroutine each.
type Stream interface {
	io.Reader
	io.Writer

	// Protocol returns what both sides agreed on.
	Protocol() Protocol

	// CloseWrite tells the other side that nothing more will be written; reading goes on.
	CloseWrite() error

	// Close ends both directions in an orderly way: what was written arrives.
	Close() error

	// Reset ends both directions at once; both sides' reads and writes fail.
	Reset() error

	// SetReadDeadline and SetWriteDeadline make later and pending calls fail with an error that wraps
	// [os.ErrDeadlineExceeded] once t has passed. The zero time means no deadline.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Exposed is a [Stream] whose bytes others on the way can read, and change unnoticed: it is certain that the peer began it,
// and no more. Only what proves itself, such as blocks by their hashes, may be taken from it.
type Exposed interface {
	Stream

	// Exposed does nothing; it is there to be told from other streams.
	Exposed()
}

// Peer is an id and the addresses where it was last known to be.
type Peer struct {
	// ID names the peer.
	ID dray.PeerID
	// Addrs are multiaddrs without the /p2p/ID suffix or with it; both are accepted wherever a Peer is.
	Addrs []string
}

// Finder finds peers that say they hold a block. Find calls found for each peer as it becomes known and returns when there
// will be no more or ctx ends. Implementations are safe for concurrent use.
type Finder interface {
	Find(ctx context.Context, c cid.Cid, found func(Peer)) error
}
