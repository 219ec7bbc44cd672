package transport_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/transport"
)

// TestTentativeHandover: a stranger says 1000 things, of which 64 are kept; once it is a member they come, in order, with
// the number that is missing, and then what it says from then on.
func TestTentativeHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer p.close(t)
		p.la.Connect([]transport.Peer{memberOf(p.b)})
		for i := range 1000 {
			p.send(t, fmt.Sprint(i))
			if i%100 == 0 {
				synctest.Wait()
				if err := p.la.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, p.sink, p.a.Self())
		p.lb.Connect([]transport.Peer{memberOf(p.a)})
		p.send(t, "live")
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := []string{"936 (missed 936)"}
		for i := 937; i < 1000; i++ {
			want = append(want, fmt.Sprint(i))
		}
		wantEntries(t, p.sink, p.a.Self(), append(want, "live")...)
		if d := p.lb.Stats().Dropped["x"]; d.Messages != 936 {
			t.Errorf("%d dropped", d.Messages)
		}
	})
}

// TestPromotionRace lets messages arrive, the sender be admitted and its stream be cut at random moments of a few
// milliseconds, 300 times: what is heard is in order, none twice, and ends with the newest; Disconnected comes once for each
// stream that was heard, after its last message (invariant 10).
func TestPromotionRace(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			p := newPair(t, func(c *transport.LinksConfig) {
				c.Backoff = func(int) time.Duration { return time.Millisecond }
			})
			const n = 40
			p.la.Connect([]transport.Peer{memberOf(p.b)})
			if err := p.la.WaitFor(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			cuts, admit := rnd.IntN(3), rnd.IntN(n)
			var acting sync.WaitGroup
			acting.Go(func() {
				time.Sleep(time.Duration(admit) * 100 * time.Microsecond)
				p.lb.Connect([]transport.Peer{memberOf(p.a)})
			})
			at := time.Duration(rnd.IntN(n)) * 100 * time.Microsecond
			acting.Go(func() {
				for range cuts {
					time.Sleep(at)
					p.m.Drop(p.a.Self(), p.b.Self())
				}
			})
			for i := range n {
				p.send(t, fmt.Sprintf("%03d", i))
				time.Sleep(100 * time.Microsecond)
			}
			acting.Wait()
			if err := p.la.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			last, after := "", ""
			for _, e := range p.sink.of(p.a.Self()) {
				if e == "gone" {
					if after == "gone" {
						t.Errorf("seed %d: gone twice", seed)
					}
				} else {
					text, _, _ := strings.Cut(e, " ")
					if text <= last {
						t.Errorf("seed %d: %s after %s", seed, text, last)
					}
					last = text
				}
				after = e
			}
			// With a cut before the admission, what was kept is gone; what came later is not.
			if last != fmt.Sprintf("%03d", n-1) && (cuts == 0 || after == "") {
				t.Errorf("seed %d: the last is %q, with %d cuts", seed, last, cuts)
			}
			if cuts == 0 && len(p.sink.of(p.a.Self())) != n {
				t.Errorf("seed %d: heard %q", seed, p.sink.of(p.a.Self()))
			}
			p.close(t)
		})
	}
}

// TestTenThousandStrangers: each knocks and says something. Memory is bounded, members talk on, the oldest stranger goes
// first.
func TestTenThousandStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, func(c *transport.LinksConfig) { c.Tentative.Bytes = 4 << 10 })
		p.join(t)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		const strangers, atOnce, kept = 10000, 100, 64
		type stranger struct {
			transport.Network
			s transport.Stream
		}
		var there []stranger
		text := []byte(strings.Repeat("x", 1<<10))
		for i := range strangers {
			h := p.m.NewHost()
			c, err := h.Dial(t.Context(), p.b.Self(), p.b.Addrs())
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.Open(t.Context(), transport.LinkProtocol)
			if err != nil {
				t.Fatal(err)
			}
			hello := []byte("12345678") // and two frames of 1028 bytes
			for n := range byte(2) {
				hello = append(append(hello, 0x84, 0x08, 0, n+1, 1, 'x'), text...)
			}
			if _, err := s.Write(hello); err != nil {
				t.Fatal(err)
			}
			there = append(there, stranger{h, s})
			if i%1000 == 0 {
				p.send(t, fmt.Sprintf("member %d", i))
			}
			if len(there) > atOnce {
				if err := there[0].Close(); err != nil {
					t.Fatal(err)
				}
				there = there[1:]
			}
			synctest.Wait()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
			t.Errorf("memory grew by %d MiB", grown>>20)
		}
		// Of those that are connected, the last have not been dismissed, and all before them have: their streams are reset.
		time.Sleep(10 * time.Millisecond)
		for i, x := range there {
			_ = x.s.SetReadDeadline(time.Now())
			_, err := x.s.Read(make([]byte, 2)) // the acknowledgement, unless the stream was reset
			dismissed := errors.Is(err, transport.ErrReset)
			if want := i < len(there)-kept; dismissed != want {
				t.Errorf("stranger %d of %d: dismissed %v", i, len(there), dismissed)
			}
		}
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := 0; i < strangers; i += 1000 {
			want = append(want, fmt.Sprintf("member %d", i))
		}
		wantEntries(t, p.sink, p.a.Self(), want...)
		p.close(t)
		for _, x := range there {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestStopWhileConsumerIsBlocked: Stop returns although the application takes nothing.
func TestStopWhileConsumerIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.sink.block = make(chan struct{})
		p.join(t)
		p.send(t, "one", "two")
		synctest.Wait()
		time.Sleep(time.Second)
		if n := p.sink.waiting(); n != 1 {
			t.Errorf("%d messages are being taken", n)
		}
		p.close(t)
		wantEntries(t, p.sink, p.a.Self(), "gone")
	})
}

// TestBlockedHandover stops while what was kept of a peer is being handed over to an application that takes nothing.
func TestBlockedHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.sink.block = make(chan struct{})
		p.la.Connect([]transport.Peer{memberOf(p.b)})
		p.send(t, "one", "two")
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.lb.Connect([]transport.Peer{memberOf(p.a)})
		synctest.Wait()
		p.send(t, "three")
		time.Sleep(time.Second)
		p.close(t)
		wantEntries(t, p.sink, p.a.Self(), "gone")
	})
}

func TestStoppedLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		if err := p.la.Send(p.b.Self(), "x", nil); !errors.Is(err, transport.ErrNotMember) {
			t.Errorf("send without a link: %v", err)
		}
		p.join(t)
		p.la.Stop()
		p.la.Connect([]transport.Peer{memberOf(p.b)})
		if err := p.la.Send(p.b.Self(), "x", nil); !errors.Is(err, transport.ErrNotMember) {
			t.Errorf("send after Stop: %v", err)
		}
		if err := p.la.WaitFor(t.Context(), 0); !errors.Is(err, dray.ErrClosed) {
			t.Errorf("wait after Stop: %v", err)
		}
		p.la.Stop()
		p.close(t)
	})
}

// TestBadAddress: members whose addresses lead nowhere, or that have no id, cost the others nothing; when the address comes
// to life the link does, too.
func TestBadAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer p.close(t)
		late := p.m.NewHost()
		id, addrs := late.Self(), late.Addrs()
		if err := late.Close(); err != nil {
			t.Fatal(err)
		}
		p.la.Connect([]transport.Peer{
			{ID: "nobody", Addrs: []string{"nonsense"}}, {Addrs: p.b.Addrs()}, {ID: id, Addrs: addrs}, memberOf(p.b),
		})
		if err := p.la.WaitFor(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.la.WaitFor(ctx, 2); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 of 2") {
			t.Errorf("waited for two: %v", err)
		}
	})
}

// TestReconnectAfterFailedFirstDial: the member is not there at first.
func TestReconnectAfterFailedFirstDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer p.close(t)
		p.m.Cut(p.a.Self(), p.b.Self())
		p.la.Connect([]transport.Peer{memberOf(p.b)})
		p.send(t, "one")
		time.Sleep(10 * time.Minute)
		p.m.Heal(p.a.Self(), p.b.Self())
		p.lb.Connect([]transport.Peer{memberOf(p.a)})
		begin := time.Now()
		if err := p.la.WaitFor(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 36*time.Second {
			t.Errorf("the link came back after %v", took)
		}
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, p.sink, p.a.Self(), "one")
	})
}

// TestSelfLinkIsLikeAnother sends the same to another host and to this one, with a consumer that is slow at first: the same is
// heard, dropped and counted. No connection is made for it.
func TestSelfLinkIsLikeAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bounds := func(c *transport.LinksConfig) { c.Dispatcher.Events, c.Dispatcher.Window = 10, 3 }
		p := newPair(t, bounds)
		c := p.m.NewHost()
		own := newDiary()
		lc := links(t, c, own, bounds)
		p.sink.block, own.block = make(chan struct{}), make(chan struct{})
		lc.Connect([]transport.Peer{memberOf(c)})
		p.la.Connect([]transport.Peer{memberOf(p.b)})
		p.lb.Connect([]transport.Peer{memberOf(p.a)})
		for _, l := range []*transport.Links{lc, p.la} {
			if err := l.WaitFor(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		send := func(texts ...string) {
			for _, s := range texts {
				if err := lc.Send(c.Self(), "x", []byte(s)); err != nil {
					t.Fatal(err)
				}
			}
			p.send(t, texts...)
		}
		send("a", "b", "c")
		time.Sleep(time.Second) // they are under way
		for i := range 20 {
			send(fmt.Sprint(i))
		}
		close(p.sink.block)
		close(own.block)
		for _, l := range []*transport.Links{lc, p.la} {
			if err := l.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if here, there := own.of(c.Self()), p.sink.of(p.a.Self()); !slices.Equal(here, there) || len(here) != 13 {
			t.Errorf("heard from itself %q, from another %q", here, there)
		}
		here, sent, received := lc.Stats(), p.la.Stats(), p.lb.Stats()
		if here.Sent["x"] != sent.Sent["x"] || here.Received["x"] != received.Received["x"] || here.Dropped["x"] != sent.Dropped["x"] {
			t.Errorf("counted %+v of itself, %+v and %+v of another", here, sent, received)
		}
		lc.Stop()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		p.close(t)
		wantEntries(t, own, c.Self(), append(p.sink.of(p.a.Self())[:13], "gone")...)
	})
}

// TestAdmissionChanges: one who is refused is not heard, one who is admitted is without being a member, and one who is so no
// longer is closed.
func TestAdmissionChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		verdict := transport.Undecided
		p := newPair(t, func(c *transport.LinksConfig) {
			c.Admission = transport.AdmissionFunc(func(dray.PeerID) transport.Verdict {
				mu.Lock()
				defer mu.Unlock()
				return verdict
			})
			c.Backoff = func(int) time.Duration { return time.Second }
		})
		defer p.close(t)
		say := func(v transport.Verdict) {
			mu.Lock()
			verdict = v
			mu.Unlock()
			p.lb.Readmit()
			synctest.Wait()
		}
		p.la.Connect([]transport.Peer{memberOf(p.b)})
		p.send(t, "one")
		time.Sleep(5 * time.Second)
		wantEntries(t, p.sink, p.a.Self())
		say(transport.Admitted)
		wantEntries(t, p.sink, p.a.Self(), "one")
		say(transport.Refused)
		p.send(t, "two")
		time.Sleep(5 * time.Second)
		wantEntries(t, p.sink, p.a.Self(), "one", "gone")
		say(transport.Admitted) // it has been forgotten: what it said before counts as missed
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, p.sink, p.a.Self(), "one", "gone", "two (missed 1)")
		say(transport.Undecided)
		wantEntries(t, p.sink, p.a.Self(), "one", "gone", "two (missed 1)", "gone")
	})
}

// TestVerdictNames fixes what is printed.
func TestVerdictNames(t *testing.T) {
	for v, want := range map[transport.Verdict]string{
		transport.Undecided: "undecided", transport.Admitted: "admitted", transport.Refused: "refused", 9: "unknown",
	} {
		if got := v.String(); got != want {
			t.Errorf("%d is %q, want %q", v, got, want)
		}
	}
}

// TestDeadConnectionIsNoticed: the way carries nothing any more and nobody is told. What was sent is not acknowledged, so the
// peer is pinged and, when it does not answer, dialled anew; when the way works again, everything arrives.
func TestDeadConnectionIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer p.close(t)
		p.join(t)
		down := make(chan time.Time, 16)
		p.a.Notify(func(transport.Conn) {}, func(dray.PeerID) { down <- time.Now() })
		begin := time.Now()
		p.m.Stall(p.a.Self(), p.b.Self())
		p.send(t, "one")
		if took := (<-down).Sub(begin); took > 16*time.Second {
			t.Errorf("noticed after %v", took)
		}
		p.m.Heal(p.a.Self(), p.b.Self())
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		heard := p.sink.of(p.a.Self())
		if heard = slices.DeleteFunc(heard, func(e string) bool { return e == "gone" }); !slices.Equal(heard, []string{"one"}) {
			t.Errorf("heard %q", heard)
		}
	})
}

// TestSlowConsumerIsAlive: a peer whose application takes nothing for an hour answers pings, and keeps its stream.
func TestSlowConsumerIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer p.close(t)
		p.sink.block = make(chan struct{})
		p.join(t)
		p.send(t, "one", "two")
		time.Sleep(time.Hour)
		close(p.sink.block)
		if err := p.la.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, p.sink, p.a.Self(), "one", "two")
	})
}
