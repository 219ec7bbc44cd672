package transport_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/transport"
)

// diary is a Sink that remembers.
type diary struct {
	mu      sync.Mutex
	entries map[dray.PeerID][]string
	changed chan struct{} // closed and replaced with each entry
	block   chan struct{} // if not nil, Received waits for it
	stuck   int           // how many calls wait
}

func newDiary() *diary {
	return &diary{entries: make(map[dray.PeerID][]string), changed: make(chan struct{})}
}

func (d *diary) note(peer dray.PeerID, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries[peer] = append(d.entries[peer], fmt.Sprintf(format, args...))
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *diary) Received(ctx context.Context, m transport.Received) error {
	d.mu.Lock()
	block := d.block
	if block != nil {
		d.stuck++
	}
	d.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case m.Full:
		d.note(m.Peer, "full %s", m.Data)
	case m.State:
		d.note(m.Peer, "state %s", m.Data)
	case m.Missed > 0:
		d.note(m.Peer, "%s (missed %d)", m.Data, m.Missed)
	default:
		d.note(m.Peer, "%s", m.Data)
	}
	return nil
}

func (d *diary) Disconnected(peer dray.PeerID, err error) { d.note(peer, "gone") }

func (d *diary) of(peer dray.PeerID) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.entries[peer]...)
}

func (d *diary) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stuck
}

// links makes Links on a host.
func links(t testing.TB, n transport.Network, sink transport.Sink, change func(*transport.LinksConfig)) *transport.Links {
	cfg := transport.LinksConfig{Network: n, Sink: sink}
	if change != nil {
		change(&cfg)
	}
	t.Helper()
	l, err := transport.NewLinks(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func memberOf(n transport.Network) transport.Peer {
	return transport.Peer{ID: n.Self(), Addrs: n.Addrs()}
}

// pair is two hosts in virtual time with links to each other.
type pair struct {
	m    *transport.Memory
	a, b transport.Network
	la   *transport.Links
	lb   *transport.Links
	sink *diary // b's
}

// newPair makes a pair. It is called in a synctest bubble.
func newPair(t *testing.T, change func(*transport.LinksConfig)) *pair {
	t.Helper()
	p := &pair{m: transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond}), sink: newDiary()}
	p.a, p.b = p.m.NewHost(), p.m.NewHost()
	p.la = links(t, p.a, newDiary(), change)
	p.lb = links(t, p.b, p.sink, change)
	return p
}

func (p *pair) close(t *testing.T) {
	t.Helper()
	p.la.Stop()
	p.lb.Stop()
	for _, h := range []transport.Network{p.a, p.b} {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (p *pair) join(t *testing.T) {
	t.Helper()
	p.la.Connect([]transport.Peer{memberOf(p.b)})
	p.lb.Connect([]transport.Peer{memberOf(p.a)})
	for _, l := range []*transport.Links{p.la, p.lb} {
		if err := l.WaitFor(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *pair) send(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if err := p.la.Send(p.b.Self(), "x", []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
}

func wantEntries(t *testing.T, d *diary, from dray.PeerID, want ...string) {
	t.Helper()
	if got := d.of(from); !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}

func TestLinksDeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.join(t)
		p.send(t, "one", "two", "three")
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, p.sink, p.a.Self(), "one", "two", "three")
		sent, received := p.la.Stats(), p.lb.Stats()
		if want := (transport.Count{Messages: 3, Bytes: 11}); sent.Sent["x"] != want || received.Received["x"] != want {
			t.Errorf("sent %+v, received %+v", sent.Sent, received.Received)
		}
		p.close(t)
		wantEntries(t, p.sink, p.a.Self(), "one", "two", "three", "gone")
	})
}

// TestLinksReconnect cuts the link under a message, which arrives once, after the link is healed.
func TestLinksReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer p.close(t)
		p.join(t)
		p.send(t, "one")
		p.m.Cut(p.a.Self(), p.b.Self())
		p.send(t, "two")
		time.Sleep(10 * time.Second)
		wantEntries(t, p.sink, p.a.Self(), "gone")
		p.m.Heal(p.a.Self(), p.b.Self())
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, p.sink, p.a.Self(), "gone", "one", "two")
	})
}
