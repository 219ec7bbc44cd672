package p2p

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"dray"
	"dray/transport"
)

// bulkTimeout is how long anything may take until a bulk connection is in use: the agreement, the dial, the handshake. A
// ticket lives as long.
const bulkTimeout = 10 * time.Second

// The choices of Config.DataPlane.
const (
	planeEncrypted     = "encrypted"
	planeAuthenticated = "authenticated"
)

// plane makes, accepts and counts a host's bulk connections. docs/data-plane.md says what passes between two of them. It
// works like a theatre: whoever is about to get a connection takes a seat, so that there are never too many, and the side
// that will accept it keeps a ticket by which the connection is known when it comes.
type plane struct {
	host     *Host // set by begin, before anything is accepted
	identity *libp2ptls.Identity
	clear    bool // this host is content with connections in clear
	perPeer  int  // seats for each peer and direction; 0 is none at all
	all      int  // seats in all
	log      *slog.Logger
	wg       sync.WaitGroup // every goroutine of the plane
	ctx      context.Context
	cancel   context.CancelFunc

	// turnedAway counts connections that came without a valid ticket.
	turnedAway atomic.Int64

	mu      sync.Mutex // guards what follows; may be held while taking host.mu, never the reverse
	closed  bool
	tickets map[uint64]*ticket
	seats   map[row]int
	taken   int // the sum of seats
	streams map[*bulkStream]struct{}
	young   map[net.Conn]struct{} // connections that are no stream yet
}

// row is where a peer's seats of one direction are.
type row struct {
	conn    *conn
	inbound bool // the peer opened the streams
}

// seat is the right to one bulk connection.
type seat struct {
	plane *plane
	row   row
	left  atomic.Bool
}

// ticket is kept by the side that will accept a connection, from the agreement until the connection comes.
type ticket struct {
	number   uint64
	want     token // what the other side must show
	show     token // what this side shows in turn
	conn     *conn
	protocol transport.Protocol
	clear    bool
	expires  time.Time
	seat     *seat
	// agreed has one slot: whether show and clear are known by now, or the ticket is void.
	agreed chan bool
	// arrived has one slot, for the stream that this host opened. nil if the other side opened it.
	arrived chan *bulkStream
	void    bool // guarded by plane.mu: nobody waits for arrived any more
}

func newPlane(c Config, limits Limits) (*plane, error) {
	p := &plane{
		clear: c.DataPlane == planeAuthenticated, perPeer: max(limits.BulkPerPeer, 0), all: limits.Bulk, log: c.Log,
		tickets: make(map[uint64]*ticket),
		seats:   make(map[row]int),
		streams: make(map[*bulkStream]struct{}),
		young:   make(map[net.Conn]struct{}),
	}
	if !c.SwarmKey.IsZero() {
		p.perPeer = 0 // whoever can connect would be asked for no swarm key
	}
	switch c.DataPlane {
	case "", planeEncrypted, planeAuthenticated:
	default:
		return nil, fmt.Errorf("unknown data plane %q; right is %s or %s", c.DataPlane, planeEncrypted, planeAuthenticated)
	}
	var err error
	p.identity, err = libp2ptls.NewIdentity(c.Key.priv)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, err
}

// begin lets peers ask for bulk connections.
func (p *plane) begin(h *Host) {
	p.host = h
	if p.perPeer > 0 {
		h.host.SetStreamHandler(bulkProtocol, p.asked)
	}
}

// close ends what there is. The caller waits for wg.
func (p *plane) close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	for c := range p.young {
		_ = c.Close()
	}
	streams := p.pick(func(*bulkStream) bool { return true })
	clear(p.tickets)
	p.mu.Unlock()
	for _, s := range streams {
		_ = s.Reset()
	}
}

// drop ends what there is with a peer that is gone.
func (p *plane) drop(c *conn) {
	p.mu.Lock()
	streams := p.pick(func(s *bulkStream) bool { return s.conn == c })
	var seats []*seat
	for n, t := range p.tickets {
		if t.conn == c {
			delete(p.tickets, n)
			seats = append(seats, t.seat)
		}
	}
	p.mu.Unlock()
	for _, s := range seats {
		s.leave()
	}
	for _, s := range streams {
		_ = s.Reset()
	}
}

// pick lists streams. The caller holds mu.
func (p *plane) pick(which func(*bulkStream) bool) []*bulkStream {
	var out []*bulkStream
	for s := range p.streams {
		if which(s) {
			out = append(out, s)
		}
	}
	return out
}

// describe says what bulk data of a peer takes; see [transport.Info].
func (p *plane) describe(c *conn) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind, n := "", 0
	for s := range p.streams {
		if s.conn == c {
			kind = s.kind
			n++
		}
	}
	if n == 0 {
		return "libp2p streams"
	}
	return fmt.Sprintf("%s x%d", kind, n)
}

// spawn runs f on a goroutine that the host's Close waits for, unless the host is closed.
func (p *plane) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// hold has close end a connection that is no stream yet; until then the caller must release it.
func (p *plane) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.young[c] = struct{}{}
	return true
}

func (p *plane) release(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.young, c)
}

// sit takes a seat.
func (p *plane) sit(r row) (*seat, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, dray.ErrClosed
	case p.perPeer == 0:
		return nil, fmt.Errorf("%w: this host makes no bulk connections", transport.ErrRefused)
	}
	p.sweep(time.Now())
	switch {
	case p.seats[r] >= p.perPeer:
		return nil, fmt.Errorf("%w: %d bulk connections with the peer", transport.ErrTooMany, p.seats[r])
	case p.taken >= p.all:
		return nil, fmt.Errorf("%w: %d bulk connections", transport.ErrTooMany, p.taken)
	}
	p.seats[r]++
	p.taken++
	return &seat{plane: p, row: r}, nil
}

// leave gives the seat back. Once is enough, more does no harm.
func (s *seat) leave() {
	s.plane.mu.Lock()
	defer s.plane.mu.Unlock()
	s.leaveLocked()
}

func (s *seat) leaveLocked() {
	if s.left.Swap(true) {
		return
	}
	p := s.plane
	p.taken--
	if p.seats[s.row]--; p.seats[s.row] == 0 {
		delete(p.seats, s.row)
	}
}

// sweep takes away tickets that were never used. There are no more of them than seats. The caller holds mu.
func (p *plane) sweep(now time.Time) {
	for n, t := range p.tickets {
		if now.After(t.expires) {
			delete(p.tickets, n)
			t.seat.leaveLocked()
		}
	}
}

// issue fills in and keeps a ticket. The holder of its seat has room for it.
func (p *plane) issue(t *ticket) error {
	t.want, t.expires, t.agreed = newToken(), time.Now().Add(bulkTimeout), make(chan bool, 1)
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	t.number = max(binary.BigEndian.Uint64(b[:]), 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dray.ErrClosed
	}
	p.tickets[t.number] = t
	return nil
}

// tear makes a ticket void. A stream that has arrived on it already is returned.
func (p *plane) tear(t *ticket) *bulkStream {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.void = true
	if p.tickets[t.number] == t {
		delete(p.tickets, t.number)
	}
	select {
	case s := <-t.arrived:
		return s
	default:
		return nil
	}
}

// arrive hands a stream to whoever waits for it.
func (p *plane) arrive(t *ticket, s *bulkStream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.void {
		return false
	}
	t.arrived <- s // the slot is free: a ticket is redeemed once
	return true
}

var (
	errNoTicket    = errors.New("no ticket of this number is out")
	errWrongTicket = errors.New("the token is not the ticket's")
	errLateTicket  = errors.New("the ticket has expired")
)

// redeem takes the ticket that a hello names. A wrong token leaves it valid: nobody who guesses can spoil it.
func (p *plane) redeem(h bulkHello) (*ticket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tickets[h.number]
	switch {
	case t == nil:
		return nil, errNoTicket
	case !t.want.equal(&h.token):
		return nil, errWrongTicket
	}
	delete(p.tickets, h.number)
	if time.Now().After(t.expires) {
		t.seat.leaveLocked()
		return nil, errLateTicket
	}
	return t, nil
}

// enrol makes a connection that has passed the handshake a stream, unless the peer is gone or the host closed.
func (p *plane) enrol(s *bulkStream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.host.lookup(s.conn.id) != s.conn {
		return false
	}
	p.streams[s] = struct{}{}
	return true
}

func (p *plane) strike(s *bulkStream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, s)
}
