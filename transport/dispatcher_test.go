package transport_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/transport"
)

// wiretap is a stream that notes what is written to it.
type wiretap struct {
	transport.Stream
	closed *atomic.Bool  // nothing may be written any more
	late   *atomic.Int64 // writes that happened nevertheless
}

func (w *wiretap) Write(b []byte) (int, error) {
	n, err := w.Stream.Write(b)
	if w.closed.Load() && n > 0 {
		w.late.Add(1)
	}
	return n, err
}

// route is a host from which streams go to a Receiver on another one. It lives in a synctest bubble.
type route struct {
	m     *transport.Memory
	a, b  transport.Network
	sink  *diary
	recv  *transport.Receiver
	opens []time.Time // owned by the Dispatcher's goroutine until it is closed
	began time.Time
	tap   func(transport.Stream) transport.Stream
}

func newRoute(accept func(*route, transport.Stream)) *route {
	r := &route{m: transport.NewMemory(transport.MemoryConfig{Window: 16 << 10}), sink: newDiary(), began: time.Now()}
	r.a, r.b = r.m.NewHost(), r.m.NewHost()
	r.recv = transport.NewReceiver(transport.ReceiverConfig{Peer: r.a.Self(), Sink: r.sink})
	r.b.Handle([]transport.Protocol{"/x"}, func(_ transport.Conn, s transport.Stream) { accept(r, s) })
	return r
}

func (r *route) open(ctx context.Context) (transport.Stream, error) {
	r.opens = append(r.opens, time.Now())
	c, err := r.a.Dial(ctx, r.b.Self(), r.b.Addrs())
	if err != nil {
		return nil, err
	}
	s, err := c.Open(ctx, "/x")
	if err == nil && r.tap != nil {
		s = r.tap(s)
	}
	return s, err
}

func (r *route) close(t *testing.T) {
	t.Helper()
	r.recv.Close()
	for _, h := range []transport.Network{r.a, r.b} {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func receive(r *route, s transport.Stream) { _ = r.recv.Run(context.Background(), s) }

// TestEightWritersOneSlowReader: the reader hears of each writer an increasing subsequence, and the newest event of all;
// what it does not hear is counted as dropped, by label; no writer waits.
func TestEightWritersOneSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const writers, each = 8, 2000
		r := newRoute(receive)
		r.sink.block = make(chan struct{})
		d := transport.NewDispatcher(transport.DispatcherConfig{Open: r.open, Events: 50, Window: 4})
		var writing sync.WaitGroup
		begin := time.Now()
		for w := range writers {
			writing.Go(func() {
				for i := range each {
					if err := d.Post(fmt.Sprintf("w%d", w), fmt.Appendf(nil, "%d %d", w, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		if took := time.Since(begin); took != 0 {
			t.Errorf("posting waited %v", took)
		}
		if err := d.Post("last", []byte("0 999999")); err != nil {
			t.Fatal(err)
		}
		close(r.sink.block)
		if err := d.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		heard := r.sink.of(r.a.Self())
		last := make(map[int]int)
		missed := 0
		for _, e := range heard {
			var w, i, m int
			if _, err := fmt.Sscanf(e, "%d %d (missed %d)", &w, &i, &m); err != nil && m != 0 {
				t.Fatal(e, err)
			}
			if before, ok := last[w]; ok && i <= before {
				t.Errorf("writer %d: %d after %d", w, i, before)
			}
			last[w] = i
			missed += m
		}
		if len(heard) > 50+4+1 || len(heard)+missed != writers*each+1 || heard[len(heard)-1] != "0 999999" &&
			!strings.HasPrefix(heard[len(heard)-1], "0 999999 ") {
			t.Errorf("heard %d, missed %d, the last is %q", len(heard), missed, heard[len(heard)-1])
		}
		d.Close()
		r.close(t)
	})
}

// TestStuckWriteEnds: a peer that takes nothing gets a new stream after seven seconds.
func TestStuckWriteEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoute(func(*route, transport.Stream) {}) // takes nothing, says nothing
		d := transport.NewDispatcher(transport.DispatcherConfig{
			Open: r.open, Lazy: true,
			Retry: func(int, error) (time.Duration, bool) { return time.Second, true },
		})
		if err := d.Post("big", make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		d.Close()
		if len(r.opens) < 2 || r.opens[1].Sub(r.began) != 8*time.Second {
			t.Errorf("opened after %v", r.opens)
		}
		r.close(t)
	})
}

// TestNothingIsWrittenAfterClose closes at random moments while events are posted: at a tap nothing passes after Close.
func TestNothingIsWrittenAfterClose(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			r := newRoute(receive)
			r.m.SetLink(r.a.Self(), r.b.Self(), time.Duration(rnd.IntN(2000))*time.Microsecond, 1e6)
			var closed atomic.Bool
			var late atomic.Int64
			r.tap = func(s transport.Stream) transport.Stream { return &wiretap{s, &closed, &late} }
			d := transport.NewDispatcher(transport.DispatcherConfig{Open: r.open, State: &counter{}})
			var posting sync.WaitGroup
			posting.Go(func() {
				for range 200 {
					if err := d.Post("x", make([]byte, 100)); errors.Is(err, dray.ErrClosed) {
						return
					}
					d.Wake()
					time.Sleep(10 * time.Microsecond)
				}
			})
			time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
			d.Close()
			closed.Store(true)
			posting.Wait()
			time.Sleep(time.Minute)
			if late.Load() > 0 {
				t.Errorf("seed %d: %d writes after Close", seed, late.Load())
			}
			if err := d.Post("x", nil); !errors.Is(err, dray.ErrClosed) {
				t.Errorf("post after Close: %v", err)
			}
			r.close(t)
		})
	}
}

// counter is a state lane that has something to say whenever it is asked after a Wake.
type counter struct{ n int }

func (c *counter) Next(dst []byte, _ transport.Stream, full bool) ([]byte, bool, error) {
	c.n++
	return append(dst, byte(c.n)), full || c.n%2 == 0, nil
}

func (c *counter) Written() {}

// TestDrainedCloseIsOrderly: after Drain, Close ends the stream so that the receiver sees its end, not a break.
func TestDrainedCloseIsOrderly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		r := newRoute(func(r *route, s transport.Stream) { ended <- r.recv.Run(context.Background(), s) })
		d := transport.NewDispatcher(transport.DispatcherConfig{Open: r.open})
		if err := d.Post("x", []byte("bye")); err != nil {
			t.Fatal(err)
		}
		if err := d.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.Close()
		if err := <-ended; err != io.EOF {
			t.Errorf("the stream ended with %v", err)
		}
		r.close(t)
	})
}

// TestComplaintsAreFew: a peer that cannot be reached is in the log once a second, however often it is dialled.
func TestComplaintsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		n := 0
		d := transport.NewDispatcher(transport.DispatcherConfig{
			Open:  func(context.Context) (transport.Stream, error) { n++; return nil, dray.ErrUnreachable },
			Retry: func(int, error) (time.Duration, bool) { return 10 * time.Millisecond, true },
			Log:   slog.New(slog.NewTextHandler(&log, nil)),
		})
		time.Sleep(10 * time.Second)
		d.Close()
		if got := log.count(); n < 900 || got < 9 || got > 11 {
			t.Errorf("%d attempts and %d lines in 10 s", n, got)
		}
	})
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), "\n")
}

// TestTornFrame ends a stream after each of its bytes: what is delivered is whole messages, and only an end between two
// frames is an orderly one.
func TestTornFrame(t *testing.T) {
	whole := binary.BigEndian.AppendUint64(nil, 77)
	var ends []int
	for i, text := range []string{"first", "", "the third"} {
		ends = append(ends, len(whole))
		f := append([]byte{0, byte(i + 1), 1, 'x'}, text...)
		whole = append(binary.AppendUvarint(whole, uint64(len(f))), f...)
	}
	ends = append(ends, len(whole))
	texts := []string{"first", "", "the third"}
	for n := range len(whole) + 1 {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error, 1)
			r := newRoute(func(r *route, s transport.Stream) { ended <- r.recv.Run(context.Background(), s) })
			s, err := r.open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write(whole[:n])
			_ = s.CloseWrite()
			err = <-ended
			var want []string
			clean := n == 0
			for i, e := range ends[1:] {
				if n >= e {
					want = append(want, texts[i])
				}
			}
			for _, e := range ends {
				clean = clean || n == e
			}
			if (err == io.EOF) != clean {
				t.Errorf("after %d bytes the stream ended with %v", n, err)
			}
			wantEntries(t, r.sink, r.a.Self(), append(want, "gone")...)
			r.close(t)
		})
	}
}
