package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"dray"
	"dray/transport"
)

// Service is a protocol beside the exchange's own: a question that a peer may ask on a stream of its own, and who answers it.
type Service struct {
	// Protocol is its name, such as "/dray/names/1". It must not be one of the exchange's.
	Protocol transport.Protocol
	// Serve answers one stream, which it closes or resets before it returns. It is called on a goroutine of the stream's, for
	// admitted peers only; ctx ends with the Node. What peer sends is a stranger's: Serve bounds what it reads.
	Serve func(ctx context.Context, peer dray.PeerID, s transport.Stream)
}

// serviceStreams is how many streams of all Services peers may have open here at a time; more are reset.
const serviceStreams = 256

// services are the Services of a Node, by protocol.
type services struct {
	by   map[transport.Protocol]Service
	open atomic.Int64
}

func servicesByProtocol(list []Service) (map[transport.Protocol]Service, error) {
	by := make(map[transport.Protocol]Service, len(list))
	for _, x := range list {
		if _, twice := by[x.Protocol]; twice || x.Protocol == "" || x.Serve == nil {
			return nil, fmt.Errorf("node: a Service needs a Protocol of its own and a Serve: %q", x.Protocol)
		}
		for _, own := range protocols() {
			if own == x.Protocol {
				return nil, fmt.Errorf("node: %q is a protocol of the exchange", own)
			}
		}
		by[x.Protocol] = x
	}
	return by, nil
}

// protocols returns what a Node accepts streams for: the exchange's, then the Services'.
func (n *Node) protocols() []transport.Protocol {
	list := protocols()
	for _, s := range n.cfg.Services {
		list = append(list, s.Protocol)
	}
	return list
}

// serveStream answers a stream of a Service's, if the peer is admitted and there are not too many.
func (n *Node) serveStream(conn transport.Conn, s transport.Stream, x Service) {
	defer n.services.open.Add(-1)
	admitted := false
	judge := func() {
		_, banned := n.engine.Banned(n.now(), conn.Peer())
		admitted = !banned && n.verdict(conn) == transport.Admitted
	}
	if n.services.open.Add(1) > serviceStreams || !n.ask(judge) || !admitted {
		s.Reset()
		return
	}
	x.Serve(n.ctx, conn.Peer(), s)
}

// Call opens a stream to a peer for a Service's protocol, and dials the peer if it is not connected; without addresses, at
// those that are known. The caller closes or resets the stream. The error wraps [dray.ErrUnreachable], or
// [transport.ErrRefused] when the peer has no such Service or does not admit this host. Some transports say the latter only
// when the stream is read from.
func (n *Node) Call(ctx context.Context, p transport.Peer, protocol transport.Protocol) (transport.Stream, error) {
	if n.net == nil {
		return nil, &dray.Error{Op: "call", Peer: p.ID, Err: fmt.Errorf("%w: the node is offline", dray.ErrUnreachable)}
	}
	conn, err := n.net.Dial(ctx, p.ID, p.Addrs)
	if err != nil {
		return nil, err
	}
	s, err := conn.Open(ctx, protocol)
	if err != nil {
		cause := err
		if !errors.Is(err, transport.ErrRefused) && ctx.Err() == nil {
			cause = fmt.Errorf("%w: %w", dray.ErrUnreachable, err)
		}
		return nil, &dray.Error{Op: "call", Peer: p.ID, Err: cause}
	}
	return s, nil
}
