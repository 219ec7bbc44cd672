package node

import (
	"context"
	"time"

	"dray/exchange"
)

// Pulse is what a call tells of whether it advances.
type Pulse struct {
	// Arrived grows while the call advances. It begins anew with every part of a call.
	Arrived int64
	// Waits is why nothing more is there, what weighs most first; nil when no peer and no disk is waited for.
	Waits []Wait
}

type pulseKey struct{}

// WithPulse returns a context under which every call of a Node that waits for peers tells f, a few times a second, whether it
// advances and what it waits for, and once before it is busy with the disk for a while. F is called on the calls'
// goroutines, perhaps by several at a time, and must not wait.
func WithPulse(ctx context.Context, f func(Pulse)) context.Context {
	return context.WithValue(ctx, pulseKey{}, f)
}

// pulse tells whoever is interested.
func pulse(ctx context.Context, p func() Pulse) {
	if f, ok := ctx.Value(pulseKey{}).(func(Pulse)); ok {
		f(p())
	}
}

// busy says that the call is about to do something that may take long on this machine.
func busy(ctx context.Context, r exchange.Reason, arrived int64) {
	pulse(ctx, func() Pulse {
		return Pulse{Arrived: arrived, Waits: []Wait{{Reason: r, Since: time.Now()}}}
	})
}

// pulse is the progress as it was last reported.
func (p *Progress) pulse() Pulse { return Pulse{Arrived: p.Done + p.Fetched, Waits: p.Waiting} }

// pulseOf tells of a session.
func (n *Node) pulseOf(ctx context.Context, id exchange.SessionID, calls *calls, arrived int64) {
	pulse(ctx, func() Pulse {
		p := Pulse{Arrived: arrived}
		unreached := calls.unreached()
		n.ask(func() { p.Waits = n.waits(id, unreached) })
		return p
	})
}

// Pulse tells whoever gave ctx to [WithPulse] how many bytes were delivered to the session and what it waits for, with
// the peers that the caller could not reach.
func (s *Session) Pulse(ctx context.Context, unreached ...Unreached) {
	pulse(ctx, func() (p Pulse) {
		s.n.ask(func() {
			st, _ := s.n.engine.Stats(s.id)
			p = Pulse{Arrived: st.Bytes, Waits: s.n.waits(s.id, unreached)}
		})
		return p
	})
}
