package p2p

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dray"
	"dray/transport"
)

// TestBusyIsTold: a dialler that a host has no time for learns that, whatever else it may dial; and gets in when there is. In a private
// swarm it is told so in clear, where a nonce is expected.
func TestBusyIsTold(t *testing.T) {
	for _, key := range []SwarmKey{{}, NewSwarmKey()} {
		b := bulkHost(t, Config{SwarmKey: key})
		b.gate.mu.Lock()
		slots := b.gate.slots
		b.gate.slots = 0
		b.gate.mu.Unlock()
		a := bulkHost(t, Config{Listen: []string{}, SwarmKey: key})
		failed := make(chan error, 1)
		a.wg.Go(func() {
			_, err := a.Dial(soon(t), b.Self(), b.Addrs())
			failed <- err
		})
		until(t, "it waits at the gate", func() bool {
			b.gate.mu.Lock()
			defer b.gate.mu.Unlock()
			return b.gate.n > 0
		})
		b.gate.look(time.Now().Add(maxWait))
		if err := <-failed; !errors.Is(err, transport.ErrBusy) || !errors.Is(err, dray.ErrUnreachable) {
			t.Errorf("dialled: %v", err)
		}
		b.gate.mu.Lock()
		b.gate.slots = slots
		b.gate.mu.Unlock()
		if ab, _ := meet(t, a, b); key.IsZero() { // a private swarm has no bulk connections
			echoBulk(t, ab)
		}
	}
}

// queued is one end of a pipe that waits at a gate.
type queued struct {
	manet.Conn
	raw  net.Conn
	from ma.Multiaddr
	gone chan string // what it was told in the end
}

func (q *queued) RemoteMultiaddr() ma.Multiaddr     { return q.from }
func (q *queued) Write(b []byte) (int, error)       { return q.raw.Write(b) }
func (q *queued) Read(b []byte) (int, error)        { return q.raw.Read(b) }
func (q *queued) Close() error                      { return q.raw.Close() }
func (q *queued) SetDeadline(until time.Time) error { return q.raw.SetDeadline(until) }

// hall is a gate with nobody behind it, and a listener that nobody comes through.
func hall(t *testing.T, slots int, busy *atomic.Bool) (*gate, *gated, func(from string) *queued) {
	g := newGate(busy.Load, SwarmKey{})
	g.slots, g.rate, g.burst, g.tokens = slots, 1e-9, 2, 2
	at := &gated{gate: g, through: make(chan arrival, 1000), done: make(chan struct{})}
	t.Cleanup(g.close)
	return g, at, func(from string) *queued {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = near.Close() })
		q := &queued{raw: near, from: ma.StringCast("/ip4/" + from + "/tcp/1"), gone: make(chan string, 1)}
		g.wg.Go(func() {
			told, _ := io.ReadAll(far)
			_ = far.Close()
			q.gone <- string(told)
		})
		source, _ := sourceOf(q)
		g.enter(caller{arrival{conn: q, scope: &network.NullScope{}}, time.Now(), source, at})
		return q
	}
}

// through returns who has come through, in order.
func through(at *gated) (list []*queued) {
	for len(at.through) > 0 {
		list = append(list, (<-at.through).conn.(*timedConn).Conn.(*queued))
	}
	return list
}

// TestGateOrder: addresses take turns, the latest of one goes first, and no more go at a time than there are slots.
func TestGateOrder(t *testing.T) {
	var busy atomic.Bool
	g, at, come := hall(t, 1, &busy)
	first := come("192.0.2.1")
	a1, a2, a3 := come("192.0.2.1"), come("192.0.2.1"), come("192.0.2.1")
	b1, b2 := come("192.0.2.2"), come("192.0.2.2")
	for i, want := range []*queued{first, a3, b2, a2, b1, a1} {
		got := through(at)
		if len(got) != 1 || got[0] != want {
			t.Fatalf("at %d another came through, or %d did", i, len(got))
		}
		g.mu.Lock()
		var under *timedConn
		for c := range g.under {
			under = c
		}
		g.mu.Unlock()
		_ = under.Close()
	}
	if n := len(g.waiting) + len(g.turns) + g.n + len(g.under); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// TestGateWhenBusy: while much passes, no more handshakes begin than the rate allows; when nothing does, all do.
func TestGateWhenBusy(t *testing.T) {
	var busy atomic.Bool
	busy.Store(true)
	g, at, come := hall(t, 100, &busy)
	for range 10 {
		come("192.0.2.1")
	}
	if got := through(at); len(got) != 2 {
		t.Errorf("%d came through, want the burst of 2", len(got))
	}
	busy.Store(false)
	g.look(time.Now())
	if got := through(at); len(got) != 8 {
		t.Errorf("%d came through when nothing was to do, want the other 8", len(got))
	}
	// A handshake that takes long is not counted for longer than shakeTime.
	g.look(time.Now().Add(shakeTime))
	if len(g.under) != 0 {
		t.Errorf("%d are counted", len(g.under))
	}
}

// TestGateIsBounded: when too many wait, the oldest of whoever has most of them is told so.
func TestGateIsBounded(t *testing.T) {
	var busy atomic.Bool
	g, _, come := hall(t, 0, &busy)
	lone := come("192.0.2.2")
	oldest := come("192.0.2.1")
	for range maxWaiting - 1 {
		come("192.0.2.1")
	}
	if told := <-oldest.gone; told != string(appendLine(nil, busyLine)) {
		t.Errorf("it was told %q", told)
	}
	g.mu.Lock()
	if g.n != maxWaiting || g.waiting[g.turns[0]][0].conn != manet.Conn(lone) {
		t.Errorf("%d wait", g.n)
	}
	g.mu.Unlock()
	g.look(time.Now().Add(maxWait))
	if g.n != 0 {
		t.Errorf("%d wait for too long", g.n)
	}
	<-lone.gone
}
