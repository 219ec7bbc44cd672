package node

import (
	"context"
	"time"

	"dray/transport"
	"dray/wire"
)

// voice is what a link's Dispatcher writes on the control stream: the engine's messages in the state lane, and notes in the event
// lane. The engine has one message under way, which says the difference between what it wants and what it has said; after a
// stream that broke, it begins anew with everything (Engine.Restart, or a new connection), so nothing is kept here but the
// message that was being written.
type voice struct {
	l       *link
	control chan *wire.Message // bounded: one, or two after a Restart
	o       outStream
	last    *wire.Message // taken and not written
}

// noteEvents bounds the notes that wait for a peer; the oldest are dropped.
const noteEvents = 32

func (l *link) newVoice() *voice {
	return &voice{l: l, control: make(chan *wire.Message, 2), o: outStream{l: l}}
}

// dispatch starts the Dispatcher. It ends with the link, or when the stream breaks for good.
func (v *voice) dispatch() *transport.Dispatcher {
	return transport.NewDispatcher(transport.DispatcherConfig{
		Peer: v.l.peer, Open: v.open, State: v, Format: v, Retry: v.retry, Lazy: true,
		Events: noteEvents, MaxMessage: wire.MaxNote + 64,
		SetupTimeout: writeTimeout, WriteTimeout: writeTimeout,
	})
}

// say hands over a message of the engine's and reports whether there was room. Called on the loop.
func (v *voice) say(m *wire.Message) bool {
	select {
	case v.control <- m:
		return true
	default:
		return false
	}
}

func (v *voice) open(context.Context) (transport.Stream, error) {
	if err := v.o.open(); err != nil {
		return nil, err
	}
	return v.o.s, nil
}

// Next implements [transport.State].
func (v *voice) Next(dst []byte, _ transport.Stream, full bool) ([]byte, bool, error) {
	m := v.last
	if m == nil || !full {
		select {
		case m = <-v.control:
		default:
			return dst, false, nil
		}
	}
	v.last = m
	for part := range m.Split(v.o.version, wire.MaxWantlistSize) {
		var err error
		if dst, err = wire.AppendMessage(dst, v.o.version, part); err != nil {
			return dst, false, err
		}
	}
	return dst, true, nil
}

// Written implements [transport.State].
func (v *voice) Written() {
	v.last = nil
	l, n := v.l, v.l.n
	n.do(func() {
		if n.links[l.peer] == l {
			l.failures = 0
			n.engine.Sent(n.now(), l.peer)
		}
	})
}

// AppendEvent implements [transport.Format]: an event is a frame of notes, which only TensorSwap can carry.
func (v *voice) AppendEvent(dst []byte, _ transport.Stream, e *transport.Event, _ bool) []byte {
	if v.o.version != wire.Swap1 {
		return dst
	}
	return append(dst, e.Data...)
}

// retry opens another stream after a guess about the peer's protocols was wrong. Any other failure is the link's.
func (v *voice) retry(_ int, err error) (time.Duration, bool) {
	if v.o.refusedGuess() {
		return 0, true
	}
	l := v.l
	l.n.do(func() { l.n.linkFailed(l, err) })
	return 0, false
}
