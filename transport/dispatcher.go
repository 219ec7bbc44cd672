package transport

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dray"
)

// The way of what a Dispatcher writes:
//
//  1. Post puts an event into the ring, which drops its oldest when it is full. Wake says that the state lane has news.
//  2. The writer, one goroutine, opens the stream, and again after it broke, for ever, as Retry says.
//  3. On a new stream it says who it is, and after a break it hears what has arrived. What has not is written again. Then it
//     asks the State for its next difference, the first one in full, and takes events from the ring. The lanes take turns.
//  4. What was written is kept until the receiver acknowledges it. No more than a window is written ahead; behind it, events
//     wait in the ring, so that a slow receiver costs old events and no memory.

// State is the source of a [Dispatcher]'s state lane. Its messages are not queued: they are made when there is room for them, so
// that each says the difference between what is to be known and what was said, and none is ever lost. Its methods are called
// by one goroutine.
type State interface {
	// Next appends the next message to dst and reports whether there is one. When full is true nothing that was said counts any
	// more: the message must say everything. It goes on being true until there is a message.
	Next(dst []byte, s Stream, full bool) ([]byte, bool, error)

	// Written says that the last message was written as a whole. A stream that breaks before is followed by one on which the
	// message is full again.
	Written()
}

// Format writes messages as bytes of a stream, in place of the format of this package. Its messages are not acknowledged: the
// one under way when a stream breaks is written again, and those before it count as sent.
type Format interface {
	// AppendEvent appends an event to dst; again says that an earlier stream may have carried it already. It returns dst as it
	// was when the stream cannot carry events: then the event is dropped.
	AppendEvent(dst []byte, s Stream, e *Event, again bool) []byte
}

// DispatcherConfig says how a [Dispatcher] works. Only Open is required.
type DispatcherConfig struct {
	// Peer is to whom it writes, for logs and errors.
	Peer dray.PeerID
	// Open dials the peer if need be and opens the stream. It must return when ctx ends.
	Open func(ctx context.Context) (Stream, error)
	// State is the state lane. If nil, there is none.
	State State
	// Format writes messages. If nil, they are written in the format of this package, which a [Receiver] reads.
	Format Format
	// Events and EventBytes bound the events that wait. Beyond them the oldest are dropped; the newest is kept even if it is
	// larger alone. If zero, 512 and 1 MiB.
	Events, EventBytes int
	// Window and WindowBytes bound what was written and is not acknowledged, save that one message always may be. If zero,
	// 64 and 1 MiB.
	Window, WindowBytes int
	// MaxMessage is how large a message may be, in bytes. If zero, 1 MiB.
	MaxMessage int
	// Retry is asked, after an attempt to open the stream has failed or the stream broke, how long to wait before the next,
	// and whether there is to be one. The first attempt after a stream that worked has number 0. If nil, [Doubling] of a
	// second to 30 seconds, for ever.
	Retry func(attempt int, err error) (time.Duration, bool)
	// Lazy opens the stream only when there is something to say.
	Lazy bool
	// SetupTimeout bounds the first write to a stream, WriteTimeout each later one. A peer that takes nothing for so long gets
	// a new stream. If zero, 7 and 2 seconds.
	SetupTimeout, WriteTimeout time.Duration
	// OpenTimeout bounds a call of Open. If zero, 30 seconds.
	OpenTimeout time.Duration
	// Alive is asked when something was written and nothing was acknowledged for Silence: whether the peer is slow, which is no
	// fault, or its connection dead. An error breaks the stream; a later Open must then not return one of the same connection.
	// It must return when ctx ends, which is after half of Silence. If nil, nobody is asked.
	Alive func(ctx context.Context) error
	// Silence is how long nothing may be acknowledged before Alive is asked. If zero, 10 seconds.
	Silence time.Duration
	// Connected is told when the peer has acknowledged a stream, and when that has broken. If nil, nobody is. It must not block.
	Connected func(bool)
	// Log receives what an operator may want to know, at most once a second. If nil, nothing is logged.
	Log *slog.Logger

	counts *counts
}

func (c *DispatcherConfig) setDefaults() {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Events, 512)
	def(&c.EventBytes, 1<<20)
	def(&c.Window, 64)
	def(&c.WindowBytes, 1<<20)
	def(&c.MaxMessage, 1<<20)
	if c.Retry == nil {
		wait := Doubling(time.Second, 30*time.Second)
		c.Retry = func(attempt int, _ error) (time.Duration, bool) { return wait(attempt), true }
	}
	if c.SetupTimeout <= 0 {
		c.SetupTimeout = 7 * time.Second
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = 2 * time.Second
	}
	if c.OpenTimeout <= 0 {
		c.OpenTimeout = 30 * time.Second
	}
	if c.Silence <= 0 {
		c.Silence = 10 * time.Second
	}
	if c.Connected == nil {
		c.Connected = func(bool) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// batchBytes is how much is gathered before it is written.
const batchBytes = 64 << 10

// Dispatcher writes to one peer on one stream, which it opens again whenever it breaks. It has two lanes: the state lane, whose
// messages are made when they are written, and the event lane, a bounded queue that drops its oldest. It is safe for
// concurrent use: any number of goroutines may post, and none of them ever waits.
type Dispatcher struct {
	cfg    DispatcherConfig
	epoch  [epochBytes]byte
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	woken  chan struct{} // one slot: the writer has something to look at

	// Owned by the writer.
	buf        []byte
	complained time.Time
	silent     int // complaints that were not made

	mu       sync.Mutex // guards what follows; nothing is called while it is held
	ring     ring
	posted   uint64 // events
	said     uint64 // messages of the state lane
	flying   []flight
	flown    int // bytes of data in flying
	news     bool
	busy     bool      // the writer has taken something and not written it
	head     *Event    // in a Format: the event that is being written, or was when the stream broke
	stream   Stream    // being written to, or nil
	broken   error     // why the stream is no good any more, set by its reader
	heard    time.Time // when there was a sign of life, or something was written while none was due
	settled  bool      // the peer has said on this stream what it has received before
	quiet    []func()  // called when there is nothing left to write or to be acknowledged
	finished bool
}

// flight is a message that was written and is not known to have arrived.
type flight struct {
	event Event // with its data, to be written again; of a state message only the number and the label
	size  int
	state bool
	stale bool // of the state lane, written to an earlier stream: it is not written again
	again bool
}

// NewDispatcher starts a Dispatcher. Close ends it.
func NewDispatcher(cfg DispatcherConfig) *Dispatcher {
	cfg.setDefaults()
	d := &Dispatcher{
		cfg: cfg, woken: make(chan struct{}, 1), news: cfg.State != nil && !cfg.Lazy,
		ring: ring{count: cfg.Events, bytes: cfg.EventBytes},
	}
	_, _ = rand.Read(d.epoch[:]) // never fails
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.wg.Go(d.run)
	return d
}

// Post queues an event. It never waits: when the queue is full, the oldest events are dropped. Data belongs to the Dispatcher
// from then on. The error is one of size, or [dray.ErrClosed].
func (d *Dispatcher) Post(label string, data []byte) error {
	switch {
	case len(label) > MaxLabel:
		return &dray.Error{Op: "post", Peer: d.cfg.Peer, Err: fmt.Errorf("%w: a label of %d bytes", dray.ErrTooBig, len(label))}
	case len(data) > d.cfg.MaxMessage:
		return &dray.Error{Op: "post", Peer: d.cfg.Peer, Err: fmt.Errorf("%w: a message of %d bytes", dray.ErrTooBig, len(data))}
	}
	d.mu.Lock()
	if d.finished {
		d.mu.Unlock()
		return &dray.Error{Op: "post", Peer: d.cfg.Peer, Err: dray.ErrClosed}
	}
	d.posted++
	d.ring.push(Event{Label: label, Data: data, seq: d.posted}, d.drop)
	d.mu.Unlock()
	wake(d.woken)
	return nil
}

// drop counts an event that goes. The counts have a lock of their own, under every other.
func (d *Dispatcher) drop(e Event) { d.cfg.counts.dropped(e.Label, len(e.Data)) }

// Wake says that the State has something to say.
func (d *Dispatcher) Wake() {
	d.mu.Lock()
	d.news = true
	d.mu.Unlock()
	wake(d.woken)
}

// Drain waits until everything that was posted and all that the State has to say was written and, where receivers acknowledge,
// has arrived. It returns the error of ctx, or [dray.ErrClosed].
func (d *Dispatcher) Drain(ctx context.Context) error {
	done := make(chan struct{})
	d.mu.Lock()
	if d.finished || d.idle() {
		closed := d.finished
		d.mu.Unlock()
		if closed {
			return &dray.Error{Op: "drain", Peer: d.cfg.Peer, Err: dray.ErrClosed}
		}
		return nil
	}
	d.quiet = append(d.quiet, func() { close(done) })
	d.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-d.ctx.Done():
		return &dray.Error{Op: "drain", Peer: d.cfg.Peer, Err: dray.ErrClosed}
	case <-ctx.Done():
		return &dray.Error{Op: "drain", Peer: d.cfg.Peer, Err: ctx.Err()}
	}
}

// idle reports whether nothing is left to be done. The caller holds mu.
func (d *Dispatcher) idle() bool {
	return d.ring.len() == 0 && len(d.flying) == 0 && d.head == nil && !d.news && !d.busy
}

// hush tells those who wait for quiet. The caller holds mu.
func (d *Dispatcher) hush() {
	if !d.idle() {
		return
	}
	for _, f := range d.quiet {
		f()
	}
	d.quiet = nil
}

// Close ends the Dispatcher. When it returns nothing is written any more and no goroutine of the Dispatcher's runs. What has
// not been written is dropped; if nothing is left, the stream ends in an orderly way. It may be called more than once.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.finished = true
	s, busy := d.stream, d.busy
	d.cancel()
	d.mu.Unlock()
	if s != nil && busy {
		_ = s.Reset() // a write that waits for room would wait for its deadline
	}
	d.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for e, ok := d.ring.pop(); ok; e, ok = d.ring.pop() {
		d.drop(e)
	}
	for _, f := range d.flying {
		if !f.state {
			d.drop(f.event)
		}
	}
	if d.head != nil {
		d.drop(*d.head)
	}
	d.flying, d.flown, d.head = nil, 0, nil
}

// run opens the stream and writes to it until Close, or until Retry says no.
func (d *Dispatcher) run() {
	attempt := 0
	for d.cfg.Lazy && !d.something() {
		select {
		case <-d.woken:
		case <-d.ctx.Done():
			return
		}
	}
	for d.ctx.Err() == nil {
		s, err := d.open()
		if err == nil {
			var worked bool
			if worked, err = d.use(s); worked {
				attempt = 0
			}
		}
		if d.ctx.Err() != nil {
			return
		}
		d.complain(err)
		wait, again := d.cfg.Retry(attempt, err)
		if !again {
			return
		}
		attempt++
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-d.ctx.Done():
		}
		t.Stop()
	}
}

func (d *Dispatcher) open() (Stream, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.cfg.OpenTimeout)
	defer cancel()
	return d.cfg.Open(ctx)
}

// something reports whether there is something to say.
func (d *Dispatcher) something() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.news || d.ring.len() > 0
}

func (d *Dispatcher) complain(err error) {
	if now := time.Now(); now.Sub(d.complained) >= time.Second {
		d.cfg.Log.Warn("link is down", "peer", d.cfg.Peer, "err", err, "unsaid", d.silent)
		d.complained, d.silent = now, 0
		return
	}
	d.silent++
}

// use writes to a stream until it breaks or Close. It reports whether the stream has worked: whether its receiver has answered
// or, in a Format without answers, something was written.
func (d *Dispatcher) use(s Stream) (worked bool, err error) {
	d.mu.Lock()
	d.stream, d.broken, d.settled, d.heard = s, nil, d.cfg.Format != nil, time.Now()
	d.news = d.news || d.cfg.State != nil
	for i := range d.flying {
		f := &d.flying[i]
		f.stale, f.again = f.state, true
	}
	d.mu.Unlock()
	var reading sync.WaitGroup
	if d.cfg.Format == nil {
		reading.Go(func() { d.hear(s) })
	}
	wrote, err := d.write(s)
	d.mu.Lock()
	d.news = d.news || d.busy && d.cfg.State != nil // it may have been the State's message that was not written
	d.stream, d.busy = nil, false
	worked = d.settled && wrote
	tidy := d.finished && err == nil && d.idle() && d.settled
	d.mu.Unlock()
	if tidy {
		_ = s.Close()
	} else {
		_ = s.Reset()
	}
	reading.Wait()
	if d.cfg.Format == nil && worked {
		d.cfg.Connected(false)
	}
	return worked, err
}

// write is the writer's loop on one stream.
func (d *Dispatcher) write(s Stream) (wrote bool, err error) {
	o := outgoing{d: d, s: s, full: d.cfg.State != nil}
	if d.cfg.Format == nil {
		o.head = d.epoch[:]
	}
	for {
		if err := o.gather(); err != nil {
			return wrote, err
		}
		if len(d.buf) == 0 {
			if err := d.pause(); err != nil {
				return wrote, err
			}
			if d.ctx.Err() != nil {
				return wrote, nil
			}
			continue
		}
		timeout := d.cfg.WriteTimeout
		if !wrote {
			timeout = d.cfg.SetupTimeout
		}
		if err := s.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return wrote, err
		}
		if _, err := s.Write(d.buf); err != nil {
			return wrote, err
		}
		wrote = true
		o.written()
	}
}

// pause waits for something to do. When the peer is silent for too long about what was written to it, it is asked for a sign of
// life; the error says that there is none.
func (d *Dispatcher) pause() error {
	d.mu.Lock()
	owes := d.cfg.Alive != nil && d.cfg.Format == nil && (!d.settled || len(d.flying) > 0)
	due := d.heard.Add(d.cfg.Silence)
	d.mu.Unlock()
	if !owes {
		select {
		case <-d.woken:
		case <-d.ctx.Done():
		}
		return nil
	}
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	select {
	case <-d.woken:
		return nil
	case <-d.ctx.Done():
		return nil
	case <-t.C:
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.cfg.Silence/2)
	defer cancel()
	if err := d.cfg.Alive(ctx); err != nil {
		return fmt.Errorf("no sign of life for %v: %w", d.cfg.Silence, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = time.Now()
	return nil
}

// hear reads a stream's acknowledgements until it ends.
func (d *Dispatcher) hear(s Stream) {
	r := bufio.NewReaderSize(s, 512)
	first := true
	for {
		event, state, err := readAck(r)
		if err == nil {
			err = d.acknowledged(event, state)
		}
		if err != nil {
			d.mu.Lock()
			d.broken = fmt.Errorf("the receiver's answers: %w", unfinished(err))
			busy := d.busy && d.stream == s
			d.mu.Unlock()
			if busy {
				_ = s.Reset() // the writer may wait for room that nobody will make
			}
			wake(d.woken)
			return
		}
		if first {
			first = false
			d.cfg.Connected(true)
		}
	}
}

var errAck = errors.New("acknowledgement of what was not sent")

// acknowledged notes what has arrived.
func (d *Dispatcher) acknowledged(event, state uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if event > d.posted || state > d.said {
		return errAck
	}
	keep := d.flying[:0]
	for _, f := range d.flying {
		switch {
		case !f.state && f.event.seq > event, f.state && f.event.seq > state && !(f.stale && !d.settled):
			keep = append(keep, f)
			continue
		case !f.state, f.event.seq <= state:
			d.cfg.counts.sent(f.event.Label, f.size)
		default: // a state message that an earlier stream has lost: a full one follows it
		}
		d.flown -= f.size
	}
	clear(d.flying[len(keep):])
	d.flying = keep
	d.settled, d.heard = true, time.Now()
	d.hush()
	wake(d.woken)
	return nil
}
