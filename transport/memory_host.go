package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dray"
)

// helloBytes is what a dial, an answer and the opening of a stream cost on a link: about what TLS, or a header, do.
const (
	helloBytes  = 1024
	headerBytes = 64
)

// memoryHost is a host of a [Memory].
type memoryHost struct {
	net  *Memory
	id   dray.PeerID
	port int
	done chan struct{}  // closed by Close
	wg   sync.WaitGroup // accept functions and goodbyes

	// tell is held while a connection is counted and up or down is called, so that a peer's calls are in order and never
	// two at a time.
	tell sync.Mutex

	mu       sync.Mutex // guards what follows; taken after tell
	closed   bool
	handlers []memoryHandler
	ups      []func(Conn)
	downs    []func(dray.PeerID)
	known    map[dray.PeerID][]string
	peers    map[dray.PeerID]*memoryPeer
	dials    map[dray.PeerID]chan struct{} // closed when the dial under way is over
}

type memoryHandler struct {
	protocols []Protocol
	accept    func(Conn, Stream)
}

func (h *memoryHost) Self() dray.PeerID { return h.id }

func (h *memoryHost) Addrs() []string {
	return []string{fmt.Sprintf("%s/p2p/%s", h.addr(), h.id)}
}

func (h *memoryHost) addr() string { return fmt.Sprintf("/memory/%d", h.port) }

func (h *memoryHost) Handle(protocols []Protocol, accept func(Conn, Stream)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handlers = append(h.handlers, memoryHandler{slices.Clone(protocols), accept})
}

func (h *memoryHost) Notify(up func(Conn), down func(dray.PeerID)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ups = append(h.ups, up)
	h.downs = append(h.downs, down)
}

// Dial is [Network.Dial]. Two calls for one peer share one dial; two hosts that dial each other share one connection.
func (h *memoryHost) Dial(ctx context.Context, peer dray.PeerID, addrs []string) (Conn, error) {
	fail := func(err error) (Conn, error) { return nil, &dray.Error{Op: "dial", Peer: peer, Err: err} }
	if peer == h.id {
		return fail(fmt.Errorf("%w: that is this host itself", dray.ErrUnreachable))
	}
	for {
		if err := ctx.Err(); err != nil {
			return fail(fmt.Errorf("%w: %w", dray.ErrUnreachable, err))
		}
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return fail(dray.ErrClosed)
		}
		if p := h.peers[peer]; p != nil && p.best() != nil {
			h.mu.Unlock()
			return p, nil
		}
		running := h.dials[peer]
		if running == nil {
			running = make(chan struct{})
			h.dials[peer] = running
			if len(addrs) == 0 {
				addrs = h.known[peer]
			}
			h.mu.Unlock()
			c, err := h.race(ctx, peer, addrs)
			h.mu.Lock()
			delete(h.dials, peer)
			close(running)
			h.mu.Unlock()
			if err != nil {
				return fail(err)
			}
			return c, nil
		}
		h.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
		}
	}
}

// race connects to the first address that answers. All answers of this network take the same time, so the race is won by
// the first that is right.
func (h *memoryHost) race(ctx context.Context, peer dray.PeerID, addrs []string) (Conn, error) {
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%w: no address known", dray.ErrUnreachable)
	}
	out := h.net.between(h.id, peer)
	var reasons []string
	for _, addr := range addrs {
		other, err := h.net.at(addr)
		if f, _ := out[0].state(); err == nil && f == linkCut {
			err = errors.New("no route to host")
		}
		if err == nil && other.id != peer {
			err = fmt.Errorf("the host there is %s", other.id)
		}
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", addr, err))
			continue
		}
		if !out[0].cross(helloBytes, ctx.Done(), h.done) || !out[1].cross(helloBytes, ctx.Done(), h.done) {
			if ctx.Err() == nil {
				return nil, dray.ErrClosed
			}
			return nil, fmt.Errorf("%w: %s: %w", dray.ErrUnreachable, addr, ctx.Err())
		}
		c, err := h.connect(other)
		if err == nil {
			h.mu.Lock()
			h.known[peer] = slices.Clone(addrs)
			h.mu.Unlock()
			return c, nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", addr, err))
	}
	if f, _ := out[0].state(); f != linkCut {
		// A refusal takes its round trip, too.
		_ = out[0].cross(helloBytes, ctx.Done(), h.done) && out[1].cross(helloBytes, ctx.Done(), h.done)
	}
	return nil, fmt.Errorf("%w: %s", dray.ErrUnreachable, strings.Join(reasons, "; "))
}

// connect makes a connection to other, or returns the one that other has made meanwhile.
func (h *memoryHost) connect(other *memoryHost) (Conn, error) {
	// A host that was closed and made again may be connected still, as far as the other one knows: the newest wins.
	for _, e := range h.outlived(other) {
		e.abort()
	}
	for _, e := range other.outlived(h) {
		e.abort()
	}

	// Both hosts' tell locks are taken in the order of the ports, so that two hosts that connect to each other do not wait
	// for each other.
	first, second := h, other
	if first.port > second.port {
		first, second = second, first
	}
	first.tell.Lock()
	defer first.tell.Unlock()
	second.tell.Lock()
	defer second.tell.Unlock()

	h.mu.Lock()
	p := h.peers[other.id]
	there := p != nil && p.best() != nil
	h.mu.Unlock()
	if there {
		return p, nil
	}
	links := h.net.between(h.id, other.id)
	if f, _ := links[0].state(); f == linkCut {
		return nil, errors.New("connection reset")
	}
	a := &memoryEnd{
		host: h, out: links[0], done: make(chan struct{}), admitted: make(chan struct{}),
		streams: make(map[*memoryStream]struct{}),
	}
	b := &memoryEnd{
		host: other, out: links[1], inbound: true, done: make(chan struct{}), admitted: make(chan struct{}),
		streams: make(map[*memoryStream]struct{}),
	}
	a.other, b.other = b, a
	if !other.admit(b) {
		return nil, errors.New("connection refused")
	}
	if !h.admit(a) {
		b.abortLater()
		return nil, dray.ErrClosed
	}
	return a.peer, nil
}

// outlived returns the connections with earlier hosts of the same id as other.
func (h *memoryHost) outlived(other *memoryHost) []*memoryEnd {
	return slices.DeleteFunc(h.ends(other.id), func(e *memoryEnd) bool { return e.other.host == other })
}

// admit counts a new connection and calls up if it is the first. The caller holds tell. It returns false when the host is
// closed.
func (h *memoryHost) admit(e *memoryEnd) bool {
	id := e.other.host.id
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return false
	}
	p := h.peers[id]
	first := p == nil
	if first {
		p = &memoryPeer{host: h, id: id}
		h.peers[id] = p
	}
	e.peer = p
	p.ends = append(p.ends, e)
	ups := h.ups
	h.mu.Unlock()
	close(e.admitted)
	if first {
		for _, up := range ups {
			up(p)
		}
	}
	return true
}

// dismiss is the reverse of admit. The caller does not hold tell.
func (h *memoryHost) dismiss(e *memoryEnd) {
	h.tell.Lock()
	defer h.tell.Unlock()
	h.mu.Lock()
	p := e.peer
	p.ends = slices.DeleteFunc(p.ends, func(x *memoryEnd) bool { return x == e })
	last := len(p.ends) == 0
	if last && h.peers[p.id] == p {
		delete(h.peers, p.id)
	}
	downs := h.downs
	h.mu.Unlock()
	if last {
		for _, down := range downs {
			down(p.id)
		}
	}
}

// ends returns the connections with a peer.
func (h *memoryHost) ends(peer dray.PeerID) []*memoryEnd {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.peers[peer]; p != nil {
		return slices.Clone(p.ends)
	}
	return nil
}

// spawn runs f on a goroutine that Close waits for, unless the host is closed.
func (h *memoryHost) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Go(f)
	return true
}

// pick returns the first of the wanted protocols that the host accepts, and the handler for it.
func (h *memoryHost) pick(wanted []Protocol) (Protocol, func(Conn, Stream)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range wanted {
		for _, handler := range h.handlers {
			if slices.Contains(handler.protocols, w) {
				return w, handler.accept
			}
		}
	}
	return "", nil
}

func (h *memoryHost) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		h.wg.Wait()
		return nil
	}
	h.closed = true
	close(h.done)
	var ends []*memoryEnd
	for _, p := range h.peers {
		ends = append(ends, p.ends...)
	}
	h.mu.Unlock()

	h.net.mu.Lock()
	delete(h.net.hosts, h.id)
	delete(h.net.ports, h.port)
	h.net.mu.Unlock()

	slices.SortFunc(ends, func(a, b *memoryEnd) int { return a.other.host.port - b.other.host.port })
	for _, e := range ends {
		e.abort()
		e.other.abortLater()
	}
	h.wg.Wait()
	return nil
}

// memoryPeer is what a host calls a Conn: all connections with a peer from its up to its down.
type memoryPeer struct {
	host *memoryHost
	id   dray.PeerID
	ends []*memoryEnd // guarded by host.mu, oldest first
}

// best returns a connection that works, or nil. The caller holds host.mu.
func (p *memoryPeer) best() *memoryEnd {
	for _, e := range slices.Backward(p.ends) {
		select {
		case <-e.done:
		default:
			return e
		}
	}
	return nil
}

func (p *memoryPeer) Peer() dray.PeerID { return p.id }

func (p *memoryPeer) Open(ctx context.Context, protocols ...Protocol) (Stream, error) {
	p.host.mu.Lock()
	e := p.best()
	p.host.mu.Unlock()
	var err error
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case e == nil:
		err = fmt.Errorf("%w: %w", dray.ErrClosed, ErrReset)
	default:
		var s Stream
		if s, err = e.open(protocols); err == nil {
			return s, nil
		}
	}
	return nil, &dray.Error{Op: "open stream", Peer: p.id, Err: err}
}

func (p *memoryPeer) Info() Info {
	info := Info{Transport: "memory", Security: "none", Local: p.host.addr()}
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if len(p.ends) > 0 {
		e := p.ends[len(p.ends)-1]
		info.Remote = e.other.host.addr()
		info.Inbound = e.inbound
	}
	return info
}

func (p *memoryPeer) Close() error {
	p.host.mu.Lock()
	ends := slices.Clone(p.ends)
	p.host.mu.Unlock()
	for _, e := range ends {
		e.abort()
		e.other.abortLater()
	}
	return nil
}

// memoryEnd is one side of one connection.
type memoryEnd struct {
	host    *memoryHost
	peer    *memoryPeer // set by admit
	other   *memoryEnd
	out     *link // from this side to the other
	inbound bool
	once    sync.Once
	done    chan struct{} // closed by abort
	// admitted is closed once peer is set: the other side may have opened a stream before.
	admitted chan struct{}

	mu      sync.Mutex
	streams map[*memoryStream]struct{}
}

// open starts a stream. The other side's accept function is called when the header has crossed the link.
func (e *memoryEnd) open(protocols []Protocol) (Stream, error) {
	far := e.other
	protocol, accept := far.host.pick(protocols)
	if accept == nil {
		return nil, fmt.Errorf("%w: the peer speaks none of %v", ErrRefused, protocols)
	}
	window := e.host.net.config.Window
	there, back := newPipe(e.out, window), newPipe(far.out, window)
	s := &memoryStream{end: e, protocol: protocol, in: back, out: there}
	t := &memoryStream{end: far, protocol: protocol, in: there, out: back}
	if err := e.add(s); err != nil {
		return nil, err
	}
	if err := far.add(t); err != nil {
		e.remove(s)
		return nil, err
	}
	arrival := e.out.send(headerBytes, time.Now())
	ok := far.host.spawn(func() {
		if !e.out.until(arrival, far.done, nil) {
			return
		}
		select {
		case <-far.admitted:
			accept(far.peer, t)
		case <-far.done:
		}
	})
	if !ok {
		_ = s.Reset()
		return nil, ErrReset
	}
	return s, nil
}

func (e *memoryEnd) add(s *memoryStream) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.done:
		return ErrReset
	default:
	}
	if len(e.streams) >= e.host.net.config.MaxStreams {
		return fmt.Errorf("%w: %d streams on one connection", ErrTooMany, len(e.streams))
	}
	e.streams[s] = struct{}{}
	return nil
}

func (e *memoryEnd) remove(s *memoryStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, s)
}

// abort ends this side of the connection at once.
func (e *memoryEnd) abort() {
	e.once.Do(func() {
		e.mu.Lock()
		close(e.done)
		streams := e.streams
		e.streams = nil
		e.mu.Unlock()
		for s := range streams {
			s.in.breakRead(time.Time{})
			s.out.breakWrite(time.Time{})
		}
		e.host.dismiss(e)
	})
}

// abortLater ends this side when the news that the other has ended has crossed the link.
func (e *memoryEnd) abortLater() {
	in := e.other.out
	arrival := in.send(headerBytes, time.Now())
	e.host.spawn(func() {
		if in.until(arrival, e.done, e.host.done) {
			e.abort()
		}
	})
}
