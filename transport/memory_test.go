package transport_test

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/transport"
	"dray/transport/transporttest"
)

// TestMemoryTakesTheTimeOfTheLink moves 8 MiB over 25 ms and 100 MB/s: a round trip to connect, one way for the header,
// and the bytes at full rate, because the window covers the link.
func TestMemoryTakesTheTimeOfTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		m := transport.NewMemory(transport.MemoryConfig{Latency: 25 * time.Millisecond, Bandwidth: 100e6})
		a, b := m.NewHost(), m.NewHost()
		defer a.Close()
		defer b.Close()
		start := time.Now()
		got := make(chan time.Duration, 1)
		b.Handle([]transport.Protocol{"/x"}, func(_ transport.Conn, s transport.Stream) {
			n, err := io.Copy(io.Discard, s)
			if n != size || err != nil {
				t.Errorf("copied %d bytes, %v", n, err)
			}
			got <- time.Since(start)
		})
		c, err := a.Dial(context.Background(), b.Self(), b.Addrs())
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 50*time.Millisecond || d > 51*time.Millisecond {
			t.Errorf("dialling took %v", d)
		}
		s, err := c.Open(context.Background(), "/x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		want := 75*time.Millisecond + time.Duration(size/100e6*float64(time.Second))
		if d := <-got; d < want || d > want+time.Millisecond {
			t.Errorf("took %v, the link needs %v", d, want)
		}
	})
}

func TestMemory(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Factory {
		m := transport.NewMemory(transport.MemoryConfig{})
		return func(t *testing.T) transport.Network { return m.NewHost() }
	})
}

func TestMemoryLinks(t *testing.T) {
	transporttest.RunLinks(t, func(t *testing.T) transporttest.Factory {
		m := transport.NewMemory(transport.MemoryConfig{})
		return func(t *testing.T) transport.Network { return m.NewHost() }
	})
}

func TestMemoryWithDelay(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Factory {
		m := transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond, Bandwidth: 400e6})
		return func(t *testing.T) transport.Network { return m.NewHost() }
	})
}

// faulty is two connected hosts in virtual time, and a stream between them.
type faulty struct {
	m    *transport.Memory
	a, b transport.Network
	s, r transport.Stream
	down chan dray.PeerID // who a was told is gone
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{
		m:    transport.NewMemory(transport.MemoryConfig{Latency: 10 * time.Millisecond}),
		down: make(chan dray.PeerID, 16),
	}
	f.a, f.b = f.m.NewHost(), f.m.NewHost()
	f.a.Notify(func(transport.Conn) {}, func(id dray.PeerID) { f.down <- id })
	given := make(chan transport.Stream, 16)
	f.b.Handle([]transport.Protocol{"/x"}, func(_ transport.Conn, s transport.Stream) { given <- s })
	f.s = f.open(t)
	f.r = <-given
	return f
}

func (f *faulty) open(t *testing.T) transport.Stream {
	t.Helper()
	c, err := f.a.Dial(context.Background(), f.b.Self(), f.b.Addrs())
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Open(context.Background(), "/x")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *faulty) close(t *testing.T) {
	for _, h := range []transport.Network{f.a, f.b} {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(t)
		defer f.close(t)
		f.m.Cut(f.a.Self(), f.b.Self())
		if _, err := f.s.Read(make([]byte, 1)); !errors.Is(err, transport.ErrReset) {
			t.Errorf("read over a cut link: %v", err)
		}
		if id := <-f.down; id != f.b.Self() {
			t.Errorf("told that %s is gone", id)
		}
		if _, err := f.a.Dial(context.Background(), f.b.Self(), f.b.Addrs()); !errors.Is(err, dray.ErrUnreachable) {
			t.Errorf("dialled over a cut link: %v", err)
		}
		f.m.Heal(f.a.Self(), f.b.Self())
		_ = f.open(t)
	})
}

// TestMemoryStall holds the link up for an hour: nothing arrives, nothing fails, and then all of it arrives.
func TestMemoryStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(t)
		defer f.close(t)
		f.m.Stall(f.a.Self(), f.b.Self())
		if _, err := f.s.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if err := f.r.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n, err := f.r.Read(make([]byte, 4)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read %d bytes over a stalled link, %v", n, err)
		}
		conn, err := f.a.Dial(context.Background(), f.b.Self(), f.b.Addrs())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if _, err := conn.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ping over a stalled link: %v", err)
		}
		cancel()
		f.m.Heal(f.a.Self(), f.b.Self())
		if rtt, err := conn.Ping(context.Background()); err != nil {
			t.Errorf("ping over a healed link took %v: %v", rtt, err)
		}
		_ = f.r.SetReadDeadline(time.Time{})
		got := make([]byte, 4)
		if _, err := io.ReadFull(f.r, got); err != nil || string(got) != "late" {
			t.Errorf("read %q, %v", got, err)
		}
		select {
		case id := <-f.down:
			t.Errorf("told that %s is gone", id)
		default:
		}
	})
}

func TestMemoryPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := transport.NewMemory(transport.MemoryConfig{})
		var hosts []transport.Network
		var ids []dray.PeerID
		for range 4 {
			h := m.NewHost()
			defer h.Close()
			hosts = append(hosts, h)
			ids = append(ids, h.Self())
		}
		check := func(when string, together func(i, j int) bool) {
			for i, a := range hosts {
				for j, b := range hosts {
					if i == j {
						continue
					}
					_, err := a.Dial(context.Background(), b.Self(), b.Addrs())
					if (err == nil) != together(i, j) {
						t.Errorf("%s: %d dials %d: %v", when, i, j, err)
					}
				}
			}
		}
		check("before", func(i, j int) bool { return true })
		m.Partition(ids[:2], ids[2:])
		check("parted", func(i, j int) bool { return i/2 == j/2 })
		m.Partition(ids)
		check("healed", func(i, j int) bool { return true })
	})
}

// TestMemoryNewestWins: a host is gone without a word, and made again. When it connects, the other learns that it was gone, and
// what it opens reaches the new one.
func TestMemoryNewestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(t)
		id := f.b.Self()
		f.m.SetLink(f.a.Self(), id, time.Hour, 0) // the news of its end takes so long
		if err := f.b.Close(); err != nil {
			t.Fatal(err)
		}
		f.m.SetLink(f.a.Self(), id, 10*time.Millisecond, 0)
		f.b = f.m.Host(id)
		defer f.close(t)
		given := make(chan transport.Stream, 1)
		f.b.Handle([]transport.Protocol{"/x"}, func(_ transport.Conn, s transport.Stream) { given <- s })
		if _, err := f.b.Dial(context.Background(), f.a.Self(), f.a.Addrs()); err != nil {
			t.Fatal(err)
		}
		if got := <-f.down; got != id {
			t.Errorf("told that %s is gone", got)
		}
		_ = f.open(t)
		<-given
	})
}

// TestMemoryLinkIsShared lets two streams share a link: each gets half of it.
func TestMemoryLinkIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4 << 20
		m := transport.NewMemory(transport.MemoryConfig{Bandwidth: 10e6, Window: 64 << 10})
		a, b := m.NewHost(), m.NewHost()
		defer a.Close()
		defer b.Close()
		start := time.Now()
		took := make(chan time.Duration, 2)
		b.Handle([]transport.Protocol{"/x"}, func(_ transport.Conn, s transport.Stream) {
			_, _ = io.Copy(io.Discard, s)
			took <- time.Since(start)
		})
		c, err := a.Dial(context.Background(), b.Self(), b.Addrs())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		for range 2 {
			s, err := c.Open(context.Background(), "/x")
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				_, _ = s.Write(make([]byte, size))
				_ = s.Close()
			})
		}
		whole := time.Duration(2 * size / 10e6 * float64(time.Second))
		for range 2 {
			if d := <-took; d < whole*95/100 || d > whole*105/100 {
				t.Errorf("a stream took %v, want about %v", d, whole)
			}
		}
	})
}
