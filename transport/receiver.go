package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"dray"
)

// Received is one message that a [Receiver] has read.
type Received struct {
	// Peer is who sent it; the network has proven that.
	Peer dray.PeerID
	// Label is what it was posted with, or [StateLabel].
	Label string
	// Data is the message. It is the taker's.
	Data []byte
	// State says that it is of the state lane, and Full that it replaces everything that the state lane has said before.
	State, Full bool
	// Again says that it may have come before, to a receiver that has forgotten it.
	Again bool
	// Missed is how many events were dropped right before it, on either side. To a receiver that has forgotten the peer, or has
	// just come to know it, they are all there were.
	Missed uint64
}

// Sink takes what peers say. Calls for one peer come one at a time, in order, and ctx ends when the link is closed. A Sink must
// not close a link itself, nor stop the [Links]: they wait for its calls to return.
type Sink interface {
	// Received takes a message. It may wait: the peer is then held back. An error ends the peer's stream.
	Received(ctx context.Context, m Received) error

	// Disconnected says that the peer's stream has ended, and why: io.EOF if the peer closed it. It is called once for each
	// stream, after the last Received from it.
	Disconnected(peer dray.PeerID, err error)
}

// ErrReplaced is why a stream ends when its peer has opened a newer one.
var ErrReplaced = errors.New("replaced by a newer stream of the same peer")

// ReceiverConfig says how a [Receiver] works. Peer and Sink are required.
type ReceiverConfig struct {
	// Peer is whom it hears.
	Peer dray.PeerID
	// Sink takes the messages.
	Sink Sink
	// MaxMessage is how large a message may be, in bytes. If zero, 1 MiB.
	MaxMessage int
	// WriteTimeout bounds the writing of an acknowledgement. If zero, 7 seconds.
	WriteTimeout time.Duration

	counts *counts
}

// Receiver reads what one peer's [Dispatcher] writes, from one stream at a time: the newest. It remembers what it has received,
// so that a message which is sent again after a break is not delivered again. It is safe for concurrent use.
type Receiver struct {
	cfg ReceiverConfig

	turn sync.Mutex // held by the stream that is read

	mu     sync.Mutex // guards what follows
	newest *incoming
	closed bool

	// Owned by whoever holds turn.
	epoch         [epochBytes]byte // of the dispatcher that was heard last
	known         bool
	events, state uint64 // the last numbers that were received of it
}

// incoming is one stream being read.
type incoming struct {
	s      Stream
	cancel context.CancelCauseFunc
}

// NewReceiver returns a Receiver that reads nothing yet.
func NewReceiver(cfg ReceiverConfig) *Receiver {
	if cfg.MaxMessage <= 0 {
		cfg.MaxMessage = 1 << 20
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = 7 * time.Second
	}
	return &Receiver{cfg: cfg}
}

// Run reads a stream until it ends, ctx ends, Close is called or Run is called with a newer one. It hands every whole message to
// the sink and at last says Disconnected, and returns the reason.
func (r *Receiver) Run(ctx context.Context, s Stream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in := &incoming{s: s, cancel: cancel}
	reset := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = s.Reset(); close(reset) })
	defer func() {
		if !stop() {
			<-reset
		}
	}()
	r.mu.Lock()
	old, closed := r.newest, r.closed
	if !closed {
		r.newest = in
	}
	r.mu.Unlock()
	if closed {
		_ = s.Reset()
		return dray.ErrClosed
	}
	if old != nil {
		old.cancel(ErrReplaced)
	}
	r.turn.Lock() // once the older stream's last message is delivered
	defer r.turn.Unlock()
	err := context.Cause(ctx)
	if err == nil {
		if err = r.read(ctx, s); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	if err == io.EOF {
		_ = s.Close()
	} else {
		_ = s.Reset()
	}
	r.mu.Lock()
	if r.newest == in {
		r.newest = nil
	}
	r.mu.Unlock()
	r.cfg.Sink.Disconnected(r.cfg.Peer, err)
	return err
}

// Close ends the stream that is being read, and keeps new ones from being. It does not wait for Run.
func (r *Receiver) Close() {
	r.mu.Lock()
	in := r.newest
	r.closed = true
	r.mu.Unlock()
	if in != nil {
		in.cancel(dray.ErrClosed)
	}
}

// read reads a stream's messages.
func (r *Receiver) read(ctx context.Context, s Stream) error {
	in := bufio.NewReaderSize(s, 16<<10)
	var epoch [epochBytes]byte
	if _, err := io.ReadFull(in, epoch[:]); err != nil {
		return err // io.EOF if there was nothing
	}
	if !r.known || r.epoch != epoch {
		r.epoch, r.known, r.events, r.state = epoch, true, 0, 0
	}
	if err := r.acknowledge(s); err != nil {
		return err
	}
	fresh := true // no message of the state lane was read from this stream
	for {
		f, err := readFrame(in, r.cfg.MaxMessage)
		if err != nil {
			return err
		}
		if err := r.take(ctx, &f, &fresh); err != nil {
			return err
		}
		if in.Buffered() == 0 {
			if err := r.acknowledge(s); err != nil {
				return err
			}
		}
	}
}

// take checks a frame and hands its message on, unless it has come before.
func (r *Receiver) take(ctx context.Context, f *frame, fresh *bool) error {
	m := Received{
		Peer: r.cfg.Peer, Label: f.label, Data: f.data, State: f.flags&frameState != 0, Full: f.flags&frameFull != 0,
		Again: f.flags&frameAgain != 0,
	}
	switch {
	case m.State && (m.Full != *fresh || f.seq <= r.state):
		return fmt.Errorf("%w: message %d of the state lane after %d, full %v", errFrame, f.seq, r.state, m.Full)
	case !m.State && f.seq <= r.events && !m.Again:
		return fmt.Errorf("%w: event %d after event %d", errFrame, f.seq, r.events)
	case !m.State && f.seq <= r.events:
		r.cfg.counts.repeated()
		return nil
	}
	if !m.State {
		m.Missed = f.seq - r.events - 1
	}
	if err := r.cfg.Sink.Received(ctx, m); err != nil {
		return err
	}
	r.cfg.counts.received(f.label, len(f.data))
	if m.State {
		*fresh, r.state = false, f.seq
	} else {
		r.events = f.seq
	}
	return nil
}

// acknowledge tells the sender what has been received.
func (r *Receiver) acknowledge(s Stream) error {
	var b [20]byte
	if err := s.SetWriteDeadline(time.Now().Add(r.cfg.WriteTimeout)); err != nil {
		return err
	}
	_, err := s.Write(appendAck(b[:0], r.events, r.state))
	return err
}
