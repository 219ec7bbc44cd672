package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dray"
	"dray/transport"
)

// How a bulk stream comes about. The dialler is the side that dialled the libp2p connection over TCP, because the other may
// be behind something that lets nobody in; the acceptor is the other. Either may open the stream.
//
//  1. The opener takes a seat. An acceptor that opens keeps a ticket for what will come.
//  2. It sends a bulkRequest on a libp2p stream of that connection.
//  3. The other side takes a seat. An acceptor keeps a ticket. It sends a bulkAnswer.
//  4. The dialler dials the address that the libp2p connection goes to and sends a bulkHello.
//  5. The acceptor redeems the ticket. The sides shake hands (TLS or not), the acceptor shows its token.
//  6. The opener gets the stream from OpenBulk; the other side's accept function is called with it.

var _ transport.Bulker = (*conn)(nil)

// OpenBulk implements [transport.Bulker].
func (c *conn) OpenBulk(ctx context.Context, protocol transport.Protocol) (transport.Stream, error) {
	s, err := c.openBulk(ctx, protocol)
	if err != nil {
		return nil, &dray.Error{Op: "open bulk stream", Peer: c.Peer(), Err: cause(err)}
	}
	return s.public(), nil
}

func (c *conn) openBulk(ctx context.Context, protocol transport.Protocol) (_ *bulkStream, err error) {
	p := c.host.plane
	nc := c.direct()
	if nc == nil {
		return nil, fmt.Errorf("%w: bulk connections need a direct connection over TCP", transport.ErrRefused)
	}
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	taken, err := p.sit(row{conn: c})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			taken.leave()
		}
	}()
	t := &ticket{conn: c, protocol: protocol, seat: taken}
	if isDialler(nc) {
		t.want = newToken()
		a, err := c.ask(ctx, nc, bulkRequest{clear: p.clear, want: t.want, protocol: protocol})
		if err != nil {
			return nil, err
		}
		t.number, t.show, t.clear = a.number, a.want, a.clear && p.clear
		return p.dial(ctx, nc.RemoteMultiaddr(), t)
	}
	t.arrived = make(chan *bulkStream, 1)
	if err := p.issue(t); err != nil {
		return nil, err
	}
	a, err := c.ask(ctx, nc, bulkRequest{clear: p.clear, number: t.number, want: t.want, protocol: protocol})
	if err != nil {
		p.tear(t)
		t.agreed <- false
		return nil, err
	}
	t.show, t.clear = a.want, a.clear && p.clear
	t.agreed <- true
	select {
	case s := <-t.arrived:
		return s, nil
	case <-ctx.Done():
		if s := p.tear(t); s != nil { // at the last moment
			return s, nil
		}
		return nil, ctx.Err()
	}
}

// direct returns the oldest path over plain TCP, so that both sides tend to agree, or nil.
func (c *conn) direct() network.Conn {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	for _, nc := range c.paths {
		if !nc.IsClosed() && isDirect(nc) {
			return nc
		}
	}
	return nil
}

// isDirect reports whether a bulk connection can take the same way as nc.
func isDirect(nc network.Conn) bool {
	if isRelayed(nc) || nc.ConnState().Transport != "tcp" {
		return false
	}
	_, err := tcpAddr(nc.RemoteMultiaddr())
	return err == nil
}

// isDialler reports whether this side dialled nc, and dials the bulk connections beside it.
func isDialler(nc network.Conn) bool { return nc.Stat().Direction == network.DirOutbound }

func tcpAddr(m ma.Multiaddr) (*net.TCPAddr, error) {
	a, err := manet.ToNetAddr(m)
	if err != nil {
		return nil, err
	}
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("%s is not an address of TCP", m)
	}
	return t, nil
}

// ask sends a request on a path and reads the answer. Whether the peer makes bulk connections shows then, at the cost of a round
// trip: what it said that it speaks does not tell. libp2p sends a list that it makes in the background, so that a host that has just
// started may tell what it spoke a moment before, and an old list may arrive after a new one.
func (c *conn) ask(ctx context.Context, nc network.Conn, q bulkRequest) (bulkAnswer, error) {
	line, err := q.append(nil)
	if err != nil {
		return bulkAnswer{}, err
	}
	ns, err := nc.NewStream(ctx)
	if ctx.Err() != nil {
		err = ctx.Err() // libp2p tells something else
	}
	if err != nil {
		if ns != nil {
			_ = ns.Reset()
		}
		return bulkAnswer{}, err
	}
	if err := ns.SetProtocol(bulkProtocol); err != nil {
		_ = ns.Reset()
		return bulkAnswer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = ns.Reset() })
	defer stop()
	s := newProposed(c, ns, bulkProtocol)
	var a bulkAnswer
	if _, err = s.Write(line); err == nil {
		a, err = readBulkAnswer(s)
	}
	if err != nil {
		_ = s.Reset()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return a, err
	}
	return a, s.Close()
}

// asked is called by libp2p with a stream on which the peer asks for a bulk connection.
func (p *plane) asked(s network.Stream) {
	if !p.spawn(func() { p.serve(s) }) {
		_ = s.Reset()
	}
}

func (p *plane) serve(s network.Stream) {
	ctx, cancel := context.WithTimeout(p.ctx, bulkTimeout)
	defer cancel()
	limit, _ := ctx.Deadline()
	_ = s.SetDeadline(limit)
	q, err := readRequest(s)
	c := p.host.owner(s.Conn())
	if err != nil || c == nil || isDialler(s.Conn()) && q.number == 0 {
		p.log.Debug("bulk request", "peer", s.Conn().RemotePeer(), "err", err)
		_ = s.Reset()
		return
	}
	a, t := p.consider(c, s.Conn(), q)
	_, err = s.Write(a.append(nil))
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		_ = s.Reset()
		if t != nil {
			p.tear(t)
			t.seat.leave()
		}
		return
	}
	if t == nil || !isDialler(s.Conn()) {
		return
	}
	b, err := p.dial(ctx, s.Conn().RemoteMultiaddr(), t)
	if err != nil {
		p.log.Debug("bulk connection", "peer", c.Peer(), "err", err)
		t.seat.leave()
		return
	}
	p.admit(b)
}

// consider decides about a request that came on a path. The ticket is nil when the answer is no.
func (p *plane) consider(c *conn, nc network.Conn, q bulkRequest) (bulkAnswer, *ticket) {
	if !isDirect(nc) || p.host.accept(q.protocol) == nil {
		return bulkAnswer{code: answerRefused}, nil
	}
	taken, err := p.sit(row{c, true})
	if err != nil {
		return bulkAnswer{code: answerTooMany}, nil
	}
	t := &ticket{conn: c, protocol: q.protocol, show: q.want, clear: q.clear && p.clear, seat: taken}
	a := bulkAnswer{clear: t.clear}
	if isDialler(nc) {
		t.number, t.want = q.number, newToken()
	} else {
		if err := p.issue(t); err != nil {
			taken.leave()
			return bulkAnswer{code: answerTooMany}, nil
		}
		t.agreed <- true
		a.number = t.number
	}
	a.want = t.want
	return a, t
}

// admit hands a stream that the peer opened to whoever accepts its protocol.
func (p *plane) admit(s *bulkStream) {
	accept := p.host.accept(s.protocol)
	accept(s.conn, s.public())
}

// dial makes the connection that a ticket of the other side's is for.
func (p *plane) dial(ctx context.Context, addr ma.Multiaddr, t *ticket) (*bulkStream, error) {
	to, err := tcpAddr(addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return p.shake(ctx, p.host.tally.countTCP(raw.(*net.TCPConn)), t, true)
}

// greet takes an accepted connection whose hello has come.
func (p *plane) greet(raw tcpConn, h bulkHello) {
	ctx, cancel := context.WithTimeout(p.ctx, bulkTimeout)
	defer cancel()
	t, err := p.redeem(h)
	if err != nil {
		p.turnAway(raw, err)
		return
	}
	select {
	case yes := <-t.agreed:
		if !yes {
			err = errNoTicket
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.turnAway(raw, err)
		t.seat.leave()
		return
	}
	s, err := p.shake(ctx, raw, t, false)
	switch {
	case err != nil:
		p.log.Debug("bulk connection", "peer", t.conn.Peer(), "err", err)
		t.seat.leave()
	case t.arrived == nil:
		p.admit(s)
	case !p.arrive(t, s):
		_ = s.Reset()
	}
}

// turnAway closes a connection that came without a valid ticket.
func (p *plane) turnAway(raw net.Conn, why error) {
	p.turnedAway.Add(1)
	p.log.Debug("bulk connection turned away", "from", raw.RemoteAddr(), "err", why)
	_ = raw.Close()
}

// shake makes a connection a stream, or closes it.
func (p *plane) shake(ctx context.Context, raw tcpConn, t *ticket, dialler bool) (*bulkStream, error) {
	if !p.hold(raw) {
		_ = raw.Close()
		return nil, dray.ErrClosed
	}
	defer p.release(raw)
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	s := &bulkStream{plane: p, conn: t.conn, protocol: t.protocol, seat: t.seat, tcp: raw, kind: "clear"}
	var err error
	if t.clear {
		s.lane = raw
		err = shakeClear(raw, t, dialler)
	} else {
		s.kind = "tls"
		s.lane, err = p.shakeTLS(ctx, raw, t, dialler)
	}
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil && !p.enrol(s) {
		err = transport.ErrReset
	}
	if err != nil {
		_ = raw.SetLinger(0)
		_ = raw.Close()
		return nil, err
	}
	shallow(raw)
	return s, nil
}

// errImpostor means that whoever answered on a bulk connection is not the peer.
var errImpostor = errors.New("the other end did not show the token")

func shakeClear(raw tcpConn, t *ticket, dialler bool) error {
	if !dialler {
		_, err := raw.Write(t.show[:])
		return err
	}
	hello := bulkHello{number: t.number, token: t.show}
	if _, err := raw.Write(hello.append(nil)); err != nil {
		return err
	}
	return t.check(raw)
}

// check reads the acceptor's token.
func (t *ticket) check(r io.Reader) error {
	var got token
	if _, err := io.ReadFull(r, got[:]); err != nil {
		return unexpected(err)
	}
	if !got.equal(&t.want) {
		return errImpostor
	}
	return nil
}
