package transporttest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"dray"
	"dray/transport"
)

func testEcho(w *world) {
	a, b, _ := w.pair()
	c := w.dial(a, b)
	if c.Peer() != b.Self() {
		w.Fatalf("connected to %s, want %s", c.Peer(), b.Self())
	}
	for i := range 5 {
		w.echoes(c, fmt.Sprint("hello ", i))
	}
	// The other side can open streams, too.
	a.echo("/echo")
	b.hear("up " + a.Self().Short())
	w.echoes(b.conn(a.Self()), "hello back")
}

func testBig(w *world) {
	const size = 8 << 20
	a, b, given := w.pair()
	s := w.open(w.dial(a, b), "/give")
	w.write(s, []byte("!")) // makes the stream visible
	r := w.take(given)
	w.wantRead(r, []byte("!"))
	there, back := pattern(size, 1), pattern(size, 2)
	send := func(s transport.Stream, b []byte) func() {
		return w.soon("sending", func() {
			for len(b) > 0 {
				n, err := s.Write(b[:min(len(b), 300_000)])
				if err != nil {
					w.Errorf("write: %v", err)
					return
				}
				b = b[n:]
			}
			if err := s.CloseWrite(); err != nil {
				w.Errorf("close write: %v", err)
			}
		})
	}
	receive := func(s transport.Stream, want []byte) func() {
		return w.soon("receiving", func() {
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, want) {
				w.Errorf("got %d bytes, %v; want the %d that were sent", len(got), err, len(want))
			}
		})
	}
	for _, wait := range []func(){send(s, there), send(r, back), receive(r, there), receive(s, back)} {
		wait()
	}
}

// fill writes until the other side, which does not read, stops it, and returns how much was taken.
func fill(w *world, s transport.Stream) int64 {
	w.Helper()
	var total int64
	piece := pattern(64<<10, 3)
	for {
		w.must(s.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)))
		n, err := s.Write(piece)
		total += int64(n)
		if err != nil {
			w.wantError("write", err, os.ErrDeadlineExceeded)
			w.must(s.SetWriteDeadline(time.Time{}))
			return total
		}
		if total > 64<<20 {
			w.Fatalf("wrote %d bytes that nobody reads", total)
		}
	}
}

func testSlowReader(w *world) {
	a, b, given := w.pair()
	s := w.open(w.dial(a, b), "/give")
	taken := fill(w, s)
	if taken == 0 {
		w.Fatal("nothing could be written")
	}
	w.Logf("%d KiB were taken that nobody read", taken>>10)
	r := w.take(given)
	wait := w.soon("draining", func() {
		n, err := io.Copy(io.Discard, r)
		if n < taken || err != nil {
			w.Errorf("got %d bytes, %v; want at least the %d that were taken", n, err, taken)
		}
	})
	w.must(s.CloseWrite())
	wait()
}

func testSlowStream(w *world) {
	a, b, _ := w.pair()
	c := w.dial(a, b)
	s := w.open(c, "/give")
	fill(w, s)
	w.echoes(c, "past the full stream")
	w.must(s.Reset())
}

func testParallel(w *world) {
	a, b, _ := w.pair()
	c := w.dial(a, b)
	all := make([]transport.Stream, w.suite.Streams)
	for i := range all {
		all[i] = w.open(c, "/echo")
		w.write(all[i], pattern(1000+i, i))
	}
	for i, s := range all {
		w.wantRead(s, pattern(1000+i, i))
	}
	for _, s := range all {
		w.must(s.CloseWrite())
		w.wantEnd(s)
		w.must(s.Close())
	}
}

func testHalfClose(w *world) {
	a, b, given := w.pair()
	s := w.open(w.dial(a, b), "/give")
	w.write(s, []byte("question"))
	w.must(s.CloseWrite())
	r := w.take(given)
	w.wantRead(r, []byte("question"))
	w.wantEnd(r)
	if _, err := s.Write([]byte("more")); err == nil {
		w.Error("wrote after CloseWrite")
	}
	w.write(r, []byte("answer"))
	w.wantRead(s, []byte("answer"))
	w.must(r.CloseWrite())
	w.wantEnd(s)
	w.wantEnd(s) // and stays so
}

func testCloseDelivers(w *world) {
	a, b, given := w.pair()
	c := w.dial(a, b)
	for i, size := range []int{0, 1, 1000, 100_000} {
		s := w.open(c, "/give")
		w.write(s, pattern(size, i))
		w.must(s.Close())
		r := w.take(given)
		w.wantRead(r, pattern(size, i))
		w.wantEnd(r)
		w.must(r.Close())
	}
}

func testReset(w *world) {
	a, b, given := w.pair()
	c := w.dial(a, b)
	for _, byOpener := range []bool{true, false} {
		s := w.open(c, "/give")
		w.write(s, []byte("x"))
		r := w.take(given)
		w.wantRead(r, []byte("x"))
		breaker, other := s, r
		if !byOpener {
			breaker, other = r, s
		}
		wait := w.soon("read while the stream is reset", func() {
			_, err := io.ReadFull(other, make([]byte, 1))
			if err == nil || err == io.EOF {
				w.Errorf("read of a stream that was reset: %v", err)
			}
		})
		w.must(breaker.Reset())
		wait()
		_, err := other.Read(make([]byte, 1))
		w.wantError("read after the other's reset", err, transport.ErrReset)
		_, err = other.Write([]byte("x"))
		w.wantError("write after the other's reset", err, transport.ErrReset)
		if _, err := breaker.Read(make([]byte, 1)); err == nil || err == io.EOF {
			w.Errorf("read after reset: %v", err)
		}
		if _, err := breaker.Write([]byte("x")); err == nil {
			w.Error("wrote after reset")
		}
	}
	w.echoes(c, "others live")
}

func testReadDeadline(w *world) {
	a, b, given := w.pair()
	s := w.open(w.dial(a, b), "/give")
	w.write(s, []byte("x"))
	r := w.take(given)
	w.wantRead(r, []byte("x"))
	for _, side := range []transport.Stream{s, r} {
		for range 2 {
			w.must(side.SetReadDeadline(time.Now().Add(30 * time.Millisecond)))
			_, err := side.Read(make([]byte, 1))
			w.wantError("read", err, os.ErrDeadlineExceeded)
		}
		w.must(side.SetReadDeadline(time.Time{}))
	}
	// The stream is none the worse for it.
	w.write(r, []byte("late"))
	w.wantRead(s, []byte("late"))
	w.write(s, []byte("later"))
	w.wantRead(r, []byte("later"))
}

func testWriteDeadline(w *world) {
	a, b, given := w.pair()
	s := w.open(w.dial(a, b), "/give")
	taken := fill(w, s) // ends by a deadline
	w.write(s, nil)     // which is gone
	r := w.take(given)
	wait := w.soon("draining", func() {
		got := make([]byte, taken)
		if _, err := io.ReadFull(r, got); err != nil {
			w.Errorf("read: %v", err)
			return
		}
		piece := pattern(64<<10, 3)
		for i := 0; i < len(got); i += len(piece) {
			if n := min(len(piece), len(got)-i); !bytes.Equal(got[i:i+n], piece[:n]) {
				w.Errorf("bytes from %d on are not what was written", i)
				return
			}
		}
	})
	wait()
}

func testDeadlinePending(w *world) {
	a, b, given := w.pair()
	s := w.open(w.dial(a, b), "/give")
	w.write(s, []byte("x"))
	r := w.take(given)
	w.wantRead(r, []byte("x"))
	w.must(r.SetReadDeadline(time.Time{}))
	started := make(chan struct{})
	wait := w.soon("read", func() {
		close(started)
		_, err := r.Read(make([]byte, 1))
		w.wantErrorLater("read", err)
	})
	<-started
	w.must(r.SetReadDeadline(time.Now().Add(50 * time.Millisecond)))
	wait()
}

// wantErrorLater checks for a deadline on another goroutine than the test's.
func (w *world) wantErrorLater(what string, err error) {
	if err == nil || !isDeadline(err) {
		w.Errorf("%s: got error %v, want a deadline's", what, err)
	}
}

func testProtocolOrder(w *world) {
	a, b, _ := w.pair()
	got := make(chan transport.Protocol, 1)
	b.Handle([]transport.Protocol{"/p/3", "/p/2", "/p/1"}, func(_ transport.Conn, s transport.Stream) {
		got <- s.Protocol()
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	c := w.dial(a, b)
	for _, row := range []struct {
		offer []transport.Protocol
		want  transport.Protocol
	}{
		{[]transport.Protocol{"/p/1"}, "/p/1"},
		{[]transport.Protocol{"/p/2", "/p/3"}, "/p/2"}, // the opener's order counts
		{[]transport.Protocol{"/p/9", "/p/1"}, "/p/1"},
		{[]transport.Protocol{"/p/9", "/p/8", "/p/3", "/p/1"}, "/p/3"},
	} {
		s := w.open(c, row.offer...)
		w.write(s, []byte("x"))
		if p := <-got; p != row.want || s.Protocol() != row.want {
			w.Errorf("offered %v: agreed on %s and %s, want %s", row.offer, s.Protocol(), p, row.want)
		}
		w.wantRead(s, []byte("x"))
		w.must(s.Close())
	}
}

func testRefused(w *world) {
	a, b, _ := w.pair()
	c := w.dial(a, b)
	for _, offer := range [][]transport.Protocol{{"/nobody/1"}, {"/nobody/1", "/nobody/2"}} {
		s, err := c.Open(w.within(), offer...)
		if err == nil {
			_, _ = s.Write([]byte("x"))
			w.must(s.SetReadDeadline(time.Now().Add(patience)))
			_, err = s.Read(make([]byte, 1))
			_ = s.Reset()
		}
		w.wantError(fmt.Sprintf("offering %v", offer), err, transport.ErrRefused)
	}
	w.echoes(c, "others are accepted")
}

// testFreed opens far more streams, one after the other, than may be open at one time.
func testFreed(w *world) {
	a, b, given := w.pair()
	c := w.dial(a, b)
	for i := range 1500 {
		s := w.open(c, "/give")
		w.write(s, []byte("x"))
		r := w.take(given)
		switch i % 3 {
		case 0: // both close
			w.must(s.Close())
			w.wantRead(r, []byte("x"))
			w.must(r.Close())
		case 1: // both read to the end
			w.must(s.CloseWrite())
			w.must(r.CloseWrite())
			w.wantRead(r, []byte("x"))
			w.wantEnd(r)
			w.wantEnd(s)
		case 2:
			w.must(s.Reset())
			w.must(r.Reset())
		}
	}
}

func testVanish(w *world) {
	a, b, given := w.pair()
	c := w.dial(a, b)
	s := w.open(c, "/give")
	w.write(s, []byte("x"))
	r := w.take(given)
	w.wantRead(r, []byte("x"))
	wait := w.soon("read from a peer that vanished", func() {
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
			w.Errorf("read from a peer that vanished: %v", err)
		}
	})
	w.must(b.Close())
	wait()
	a.hear("up "+b.Self().Short(), "down "+b.Self().Short())
	if _, err := c.Open(w.within(), "/echo"); err == nil {
		w.Error("opened a stream to a peer that vanished")
	}
	_, err := s.Write(make([]byte, 1))
	w.wantError("write to a peer that vanished", err, transport.ErrReset)
}

func testCloseUnblocks(w *world) {
	a, b, given := w.pair()
	c := w.dial(a, b)
	full, empty := w.open(c, "/give"), w.open(c, "/give")
	fill(w, full)
	w.write(empty, []byte("x"))
	w.take(given)
	w.take(given)
	var woken atomic.Int32
	writing := w.soon("write while the host is closed", func() {
		if _, err := full.Write(make([]byte, 1<<20)); err != nil {
			woken.Add(1)
		}
	})
	w.must(empty.SetReadDeadline(time.Time{}))
	reading := w.soon("read while the host is closed", func() {
		if _, err := empty.Read(make([]byte, 1)); err != nil && err != io.EOF {
			woken.Add(1)
		}
	})
	w.must(a.Close())
	writing()
	reading()
	if n := woken.Load(); n != 2 {
		w.Errorf("%d of 2 blocked calls failed, want both", n)
	}
	b.hear("up "+a.Self().Short(), "down "+a.Self().Short())
}

func testAfterClose(w *world) {
	a, b, _ := w.pair()
	c := w.dial(a, b)
	s := w.open(c, "/echo")
	w.write(s, []byte("x"))
	w.must(a.Close())
	w.must(a.Close()) // twice does no harm
	_, err := a.Dial(w.within(), b.Self(), b.Addrs())
	w.wantError("dial after close", err, dray.ErrClosed)
	if _, err := c.Open(w.within(), "/echo"); err == nil {
		w.Error("opened a stream after close")
	}
	if _, err := s.Write([]byte("x")); err == nil {
		w.Error("wrote after close")
	}
	a.hear("up "+b.Self().Short(), "down "+b.Self().Short())
}
