package transporttest

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"

	"dray"
	"dray/transport"
)

func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func testInfo(w *world) {
	a, b, _ := w.pair()
	c := w.dial(a, b)
	b.hear("up " + a.Self().Short())
	out, in := c.Info(), b.conn(a.Self()).Info()
	if out.Inbound || !in.Inbound {
		w.Errorf("dialler's inbound %v, listener's %v", out.Inbound, in.Inbound)
	}
	if out.Transport == "" || out.Transport != in.Transport || out.Security == "" || out.Security != in.Security {
		w.Errorf("the sides disagree: %+v and %+v", out, in)
	}
	if out.Relayed || in.Relayed {
		w.Error("relayed, with nobody in between")
	}
	if !strings.HasPrefix(out.Remote, "/") || !strings.HasPrefix(out.Local, "/") {
		w.Errorf("addresses %q and %q are no multiaddrs", out.Local, out.Remote)
	}
	if !strings.HasSuffix(b.Addrs()[0], "/p2p/"+b.Self().String()) {
		w.Errorf("address %q does not end in the id", b.Addrs()[0])
	}
}

// testPing asks for signs of life from both sides, and from somebody who is gone.
func testPing(w *world) {
	a, b, _ := w.pair()
	c := w.dial(a, b)
	b.hear("up " + a.Self().Short())
	for range 3 {
		for _, side := range []transport.Conn{c, b.conn(a.Self())} {
			if rtt, err := side.Ping(w.within()); err != nil || rtt <= 0 {
				w.Errorf("ping of %s took %v: %v", side.Peer(), rtt, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.Ping(ctx)
	w.wantError("ping with a context that has ended", err, context.Canceled)
	w.must(b.Close())
	a.hear("up "+b.Self().Short(), "down "+b.Self().Short())
	var failure *dray.Error
	if _, err := c.Ping(w.within()); err == nil || !errors.As(err, &failure) || failure.Peer != b.Self() {
		w.Errorf("ping of a peer that is gone: %v", err)
	}
}

// testWrongID dials an address where somebody else answers.
func testWrongID(w *world) {
	a, b, _ := w.pair()
	other := w.host()
	var addrs []string
	for _, s := range b.Addrs() {
		addrs = append(addrs, strings.TrimSuffix(s, "/p2p/"+b.Self().String()))
	}
	_, err := a.Dial(w.within(), other.Self(), addrs)
	w.wantError("dial with the wrong id", err, dray.ErrUnreachable)
	// The right id there, without it in the address, is fine.
	c, err := a.Dial(w.within(), b.Self(), addrs)
	w.must(err)
	w.echoes(c, "hello")
	if news := a.hear("up " + b.Self().Short()); len(news) != 1 {
		w.Errorf("told %v", news)
	}
}

func testDialErrors(w *world) {
	a, b, _ := w.pair()
	gone := w.host()
	addrs := gone.Addrs()
	w.must(gone.Close())
	var failure *dray.Error

	_, err := a.Dial(w.within(), gone.Self(), nil)
	w.wantError("dial without an address", err, dray.ErrUnreachable)

	_, err = a.Dial(w.within(), gone.Self(), addrs)
	w.wantError("dial where nobody listens", err, dray.ErrUnreachable)
	if !errors.As(err, &failure) || failure.Peer != gone.Self() {
		w.Errorf("error %v does not name the peer", err)
	}
	for _, s := range addrs {
		if bare, _, _ := strings.Cut(s, "/p2p/"); !strings.Contains(err.Error(), bare) {
			w.Errorf("error %q does not name %s", err, bare)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		w.Errorf("error %q has more than one line", err)
	}

	_, err = a.Dial(w.within(), gone.Self(), []string{"nonsense", "/dns4"})
	w.wantError("dial nonsense", err, dray.ErrUnreachable)
	if !strings.Contains(err.Error(), "nonsense") {
		w.Errorf("error %q does not name the address", err)
	}

	_, err = a.Dial(w.within(), a.Self(), a.Addrs())
	w.wantError("dial oneself", err, dray.ErrUnreachable)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = a.Dial(ctx, b.Self(), b.Addrs())
	w.wantError("dial with a context that has ended", err, context.Canceled)

	// One right address among wrong ones is enough, and failures before do not matter.
	c, err := a.Dial(w.within(), b.Self(), append([]string{"nonsense"}, b.Addrs()...))
	w.must(err)
	w.echoes(c, "hello")
}

func testDialKnown(w *world) {
	a, b, _ := w.pair()
	w.must(w.dial(a, b).Close())
	up, down := "up "+b.Self().Short(), "down "+b.Self().Short()
	a.hear(up, down)
	c, err := a.Dial(w.within(), b.Self(), nil)
	w.must(err)
	w.echoes(c, "found again")
}

func testNotify(w *world) {
	a, b, _ := w.pair()
	up, down := "up "+b.Self().Short(), "down "+b.Self().Short()
	var want, other []string
	for range 5 {
		c := w.dial(a, b)
		want = append(want, up)
		a.hear(want...)
		if again := w.dial(a, b); again.Peer() != b.Self() {
			w.Errorf("dialling again gave a connection to %s", again.Peer())
		}
		w.echoes(c, "hello")
		w.must(c.Close())
		want = append(want, down)
		a.hear(want...)
		// The other side is told, too. Only then is the next dial a new beginning for it.
		other = append(other, "up "+a.Self().Short(), "down "+a.Self().Short())
		b.hear(other...)
	}
}

func testConcurrentDials(w *world) {
	a, b, _ := w.pair()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c, err := a.Dial(w.within(), b.Self(), b.Addrs())
			if err != nil {
				w.Errorf("dial: %v", err)
				return
			}
			if c.Peer() != b.Self() {
				w.Errorf("connected to %s", c.Peer())
			}
		})
	}
	wg.Wait()
	if news := a.hear("up " + b.Self().Short()); len(news) != 1 {
		w.Errorf("told %v, want one up", news)
	}
	w.echoes(a.conn(b.Self()), "hello")
}

// testSimultaneous lets two hosts dial each other at once, and uses both sides' connections before and after things have
// settled.
func testSimultaneous(w *world) {
	for range 5 {
		a, b, _ := w.pair()
		a.echo("/echo")
		var ab, ba transport.Conn
		var errAB, errBA error
		there := w.soon("dial", func() { ab, errAB = a.Dial(w.within(), b.Self(), b.Addrs()) })
		back := w.soon("dial", func() { ba, errBA = b.Dial(w.within(), a.Self(), a.Addrs()) })
		there()
		back()
		if errAB != nil || errBA != nil {
			w.Fatalf("dials: %v, %v", errAB, errBA)
		}
		for range 3 {
			w.echoes(ab, "from a")
			w.echoes(ba, "from b")
		}
		if news := a.hear("up " + b.Self().Short()); len(news) != 1 {
			w.Errorf("told %v, want one up", news)
		}
		if news := b.hear("up " + a.Self().Short()); len(news) != 1 {
			w.Errorf("told %v, want one up", news)
		}
		// Either side may still be about to learn of the other's dial, so it takes both to close everything.
		w.must(ab.Close())
		w.must(ba.Close())
		a.hear("up "+b.Self().Short(), "down "+b.Self().Short())
		b.hear("up "+a.Self().Short(), "down "+a.Self().Short())
	}
}

func testConnClose(w *world) {
	a, b, given := w.pair()
	c := w.dial(a, b)
	s := w.open(c, "/give")
	w.write(s, []byte("x"))
	r := w.take(given)
	w.wantRead(r, []byte("x"))
	w.must(c.Close())
	_, err := s.Read(make([]byte, 1))
	w.wantError("read after the connection's close", err, transport.ErrReset)
	_, err = r.Read(make([]byte, 1))
	w.wantError("the other's read after the connection's close", err, transport.ErrReset, os.ErrDeadlineExceeded)
	up, down := "up "+b.Self().Short(), "down "+b.Self().Short()
	a.hear(up, down)
	b.hear("up "+a.Self().Short(), "down "+a.Self().Short())
	// A Conn of before does not touch the connection of after.
	again := w.dial(a, b)
	w.must(c.Close())
	w.echoes(again, "still there")
	a.hear(up, down, up)
}

func testManyHosts(w *world) {
	const hosts = 16
	hub := w.host()
	hub.echo("/echo")
	var wg sync.WaitGroup
	for range hosts {
		p := w.host()
		wg.Go(func() {
			c, err := p.Dial(w.within(), hub.Self(), hub.Addrs())
			if err != nil {
				w.Errorf("dial: %v", err)
				return
			}
			s, err := c.Open(w.within(), "/echo")
			if err != nil {
				w.Errorf("open: %v", err)
				return
			}
			if _, err := s.Write([]byte(p.Self())); err != nil {
				w.Errorf("write: %v", err)
			}
			got := make([]byte, len(p.Self()))
			if _, err := s.Read(got); err != nil || string(got) != string(p.Self()) {
				w.Errorf("read %x, %v", got, err)
			}
			_ = s.Close()
		})
	}
	wg.Wait()
	hub.mu.Lock()
	defer hub.mu.Unlock()
	if len(hub.conns) != hosts {
		w.Errorf("%d hosts are connected, want %d", len(hub.conns), hosts)
	}
}
