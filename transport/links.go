package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dray"
)

// LinkProtocol is what the streams of [Links] are opened with, unless told otherwise.
const LinkProtocol Protocol = "/dray/link/1"

// ErrNotMember means that there is no link to the peer that was named.
var ErrNotMember = errors.New("not a member")

// LinksConfig says what [Links] are made of. Network and Sink are required.
type LinksConfig struct {
	// Network connects to members. Links do not close it.
	Network Network
	// Sink takes what members say.
	Sink Sink
	// Protocol is what the streams speak. If empty, [LinkProtocol].
	Protocol Protocol
	// State returns what a member's state lane says. If nil, there are no state lanes.
	State func(peer dray.PeerID) State
	// Admission decides about peers that are no members, and may refuse members. If nil, members are heard, and what others
	// say is kept for the case that they become members.
	Admission Admission
	// Tentative bounds what is kept of those others.
	Tentative TentativeConfig
	// Backoff says how long to wait before attempt 0, 1 and so on of dialling a member again. If nil, [Doubling] of a second to
	// 30 seconds.
	Backoff func(attempt int) time.Duration
	// Dispatcher sets the bounds and timeouts of outgoing streams: Events to WriteTimeout, and
	// Silence. The rest is not looked at.
	Dispatcher DispatcherConfig
	// Log receives what an operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

// Links keeps a link to each member of a group: one stream for writing, opened again for ever, and one for reading. Other
// peers may connect before they are members. It is safe for concurrent use.
type Links struct {
	cfg    LinksConfig
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // of what is started here
	counts *counts

	mu        sync.Mutex // guards what follows; nothing is called while it is held but Tentative's methods
	stopped   bool
	members   map[dray.PeerID]*member
	inbounds  map[dray.PeerID]*inbound
	tentative *Tentative[Received]
	changed   chan struct{} // closed and replaced when a member becomes connected, and when everything stops
	expiring  bool
}

// member is a peer that this host keeps a link to.
type member struct {
	peer       Peer
	dispatcher *Dispatcher
	connected  bool // guarded by Links.mu
}

// NewLinks returns Links without members. It must be called before the network's first connection.
func NewLinks(cfg LinksConfig) (*Links, error) {
	if cfg.Network == nil || cfg.Sink == nil {
		return nil, fmt.Errorf("transport: LinksConfig needs a Network and a Sink")
	}
	if cfg.Protocol == "" {
		cfg.Protocol = LinkProtocol
	}
	if cfg.Backoff == nil {
		cfg.Backoff = Doubling(time.Second, 30*time.Second)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Links{
		cfg: cfg, counts: newCounts(), members: make(map[dray.PeerID]*member), inbounds: make(map[dray.PeerID]*inbound),
		tentative: NewTentative[Received](cfg.Tentative), changed: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	cfg.Network.Handle([]Protocol{cfg.Protocol}, func(c Conn, s Stream) { l.accept(c.Peer(), s) })
	return l, nil
}

// Connect makes links to those of peers that have none yet, in the background, and hears what they have said before. A peer
// whose address is wrong costs the others nothing. It returns at once; after Stop it does nothing.
func (l *Links) Connect(peers []Peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	for _, p := range peers {
		switch {
		case p.ID == "":
			l.cfg.Log.Warn("a member without an id is left out", "addrs", p.Addrs)
		case l.members[p.ID] == nil:
			m := &member{peer: Peer{ID: p.ID, Addrs: slices.Clone(p.Addrs)}}
			l.members[p.ID] = m
			m.dispatcher = l.dispatch(m)
		}
	}
	l.wg.Go(l.Readmit)
}

// dispatch starts a member's Dispatcher. The caller holds mu.
func (l *Links) dispatch(m *member) *Dispatcher {
	cfg, peer := l.cfg.Dispatcher, m.peer
	cfg.Peer, cfg.Format, cfg.Lazy, cfg.Log, cfg.counts = peer.ID, nil, false, l.cfg.Log, l.counts
	cfg.State = nil
	if l.cfg.State != nil {
		cfg.State = &laterState{get: func() State { return l.cfg.State(peer.ID) }}
	}
	cfg.Retry = func(attempt int, _ error) (time.Duration, bool) { return l.cfg.Backoff(attempt), true }
	cfg.Connected = func(yes bool) { l.connected(m, yes) }
	if peer.ID == l.cfg.Network.Self() {
		cfg.Open, cfg.Alive = func(context.Context) (Stream, error) { return l.openSelf() }, nil
		return NewDispatcher(cfg)
	}
	var conn Conn // of the Dispatcher's goroutine
	cfg.Open = func(ctx context.Context) (Stream, error) {
		var err error
		if conn, err = l.cfg.Network.Dial(ctx, peer.ID, peer.Addrs); err != nil {
			return nil, err
		}
		return conn.Open(ctx, l.cfg.Protocol)
	}
	cfg.Alive = func(ctx context.Context) error {
		_, err := conn.Ping(ctx)
		if err != nil && l.ctx.Err() == nil {
			_ = conn.Close() // so that the next dial makes another
		}
		return err
	}
	return NewDispatcher(cfg)
}

// laterState asks for the state when it is first needed: on the Dispatcher's goroutine, where no lock is held.
type laterState struct {
	get func() State
	s   State
}

func (s *laterState) Next(dst []byte, to Stream, full bool) ([]byte, bool, error) {
	if s.s == nil {
		s.s = s.get()
	}
	if s.s == nil {
		return dst, false, nil
	}
	return s.s.Next(dst, to, full)
}

func (s *laterState) Written() { s.s.Written() }

// openSelf opens a stream to this host itself.
func (l *Links) openSelf() (Stream, error) {
	a, b := newSelfStream(l.cfg.Network.Self(), l.cfg.Protocol)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil, dray.ErrClosed
	}
	l.wg.Go(func() { l.accept(a.peer, b) })
	return a, nil
}

func (l *Links) connected(m *member, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.connected = yes
	if yes {
		l.news()
	}
}

// news wakes those who wait. The caller holds mu.
func (l *Links) news() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// WaitFor waits until n members have answered, this host included if it is one.
func (l *Links) WaitFor(ctx context.Context, n int) error {
	for {
		l.mu.Lock()
		have := 0
		for _, m := range l.members {
			if m.connected {
				have++
			}
		}
		changed, stopped := l.changed, l.stopped
		l.mu.Unlock()
		switch {
		case stopped:
			return &dray.Error{Op: "wait for members", Err: dray.ErrClosed}
		case have >= n:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &dray.Error{Op: "wait for members", Err: fmt.Errorf("%d of %d answer: %w", have, n, ctx.Err())}
		}
	}
}

// Send queues an event for a member. It never waits; see [Dispatcher.Post]. The error is [ErrNotMember] when there is no link.
func (l *Links) Send(peer dray.PeerID, label string, data []byte) error {
	d := l.dispatcher(peer)
	if d == nil {
		return &dray.Error{Op: "send", Peer: peer, Err: ErrNotMember}
	}
	return d.Post(label, data)
}

// Wake says that the state of a member's state lane has something to say.
func (l *Links) Wake(peer dray.PeerID) {
	if d := l.dispatcher(peer); d != nil {
		d.Wake()
	}
}

// Drain waits until what was sent to all members has arrived. Those whose links are closed meanwhile are not waited for.
func (l *Links) Drain(ctx context.Context) error {
	var errs []error
	for _, d := range l.dispatchers(func(dray.PeerID) bool { return true }) {
		if err := d.Drain(ctx); err != nil && !errors.Is(err, dray.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *Links) dispatcher(peer dray.PeerID) *Dispatcher {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.members[peer]; m != nil {
		return m.dispatcher
	}
	return nil
}

func (l *Links) dispatchers(which func(dray.PeerID) bool) []*Dispatcher {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*Dispatcher
	for id, m := range l.members {
		if which(id) {
			out = append(out, m.dispatcher)
		}
	}
	return out
}

// CloseOld closes the links to all who are not among peers, at the same time, and returns when nothing more is written to them
// or handed over from them.
func (l *Links) CloseOld(peers []Peer) {
	stays := make(map[dray.PeerID]bool)
	for _, p := range peers {
		stays[p.ID] = true
	}
	l.close(func(id dray.PeerID) bool { return !stays[id] })
}

// close closes the links to the members that which names.
func (l *Links) close(which func(dray.PeerID) bool) {
	l.mu.Lock()
	var gone []*member
	var ended []*inbound
	for id, m := range l.members {
		if !which(id) {
			continue
		}
		delete(l.members, id)
		gone = append(gone, m)
		if in := l.inbounds[id]; in != nil {
			delete(l.inbounds, id)
			l.forget(in)
			ended = append(ended, in)
		}
	}
	l.mu.Unlock()
	var closing sync.WaitGroup
	for _, in := range ended {
		in.end()
	}
	for _, m := range gone {
		closing.Go(m.dispatcher.Close)
	}
	closing.Wait()
	for _, in := range ended {
		in.idle.Wait()
	}
}

// Stop closes every link and returns when nothing more is written or handed over and no goroutine of the Links runs. The
// network stays open. It may be called more than once.
func (l *Links) Stop() {
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		l.cancel()
		l.news()
	}
	l.mu.Unlock()
	l.close(func(dray.PeerID) bool { return true })
	l.mu.Lock()
	var ended []*inbound
	for id, in := range l.inbounds {
		delete(l.inbounds, id)
		l.forget(in)
		ended = append(ended, in)
	}
	l.mu.Unlock()
	for _, in := range ended {
		in.end()
	}
	for _, in := range ended {
		in.idle.Wait()
	}
	l.wg.Wait()
}

// Stats returns what the links have carried.
func (l *Links) Stats() Stats { return l.counts.snapshot() }
