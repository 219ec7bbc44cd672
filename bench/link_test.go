package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

func TestLinkAdmit(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	l := newLink(linkConfig{Delay: 25 * time.Millisecond, Rate: 1e6, Queue: 10 * time.Millisecond})
	steps := []struct {
		why  string
		now  time.Duration
		n    int
		due  time.Duration
		hold time.Duration // asked for right after; 0 stands for nothing to wait for
	}{
		{"an idle line sends at once", 0, 1000, 26 * time.Millisecond, 0},
		{"the next piece waits for the one before", 0, 1000, 27 * time.Millisecond, 0},
		{"idle time is not saved up", 50 * time.Millisecond, 1000, 76 * time.Millisecond, 0},
		{"a sender far ahead is held back", 50 * time.Millisecond, 19_000, 95 * time.Millisecond, 10 * time.Millisecond},
	}
	for _, s := range steps {
		if got := l.admit(at(s.now), s.n); !got.Equal(at(s.due)) {
			t.Errorf("%s: due %v, want %v", s.why, got.Sub(start), s.due)
		}
		if got := max(0, l.holdBack(at(s.now))); got != s.hold {
			t.Errorf("%s: held back for %v, want %v", s.why, got, s.hold)
		}
	}
	if got := newLink(linkConfig{}).holdBack(start); got > 0 {
		t.Errorf("a link that was never used holds back for %v", got)
	}
}

// TestRelay sends bytes both ways and checks that they arrive unchanged and no earlier than the link allows.
func TestRelay(t *testing.T) {
	const (
		size  = 1 << 20
		delay = 10 * time.Millisecond
		rate  = 20e6
	)
	var m meter
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	target, front := listen(t), listen(t)
	defer target.Close()
	wg.Go(func() {
		if err := relay(ctx, front, target.Addr().String(), linkConfig{Delay: delay, Rate: rate}, &m); err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	wg.Go(func() {
		c, err := target.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.Close()
		if _, err := io.Copy(c, c); err != nil {
			t.Errorf("echo: %v", err)
		}
	})

	sent := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(sent) // never fails
	start := time.Now()
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wg.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Errorf("write: %v", err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, not the %d sent", len(got), len(sent))
	}
	// Opening takes one round trip, the bytes another, and all of them pass the line once before the last comes back.
	sending := time.Duration(float64(size) / rate * float64(time.Second))
	took := time.Since(start)
	if least := 4*delay + sending; took < least {
		t.Errorf("took %v, the link allows no less than %v", took, least)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	least := 4*delay + time.Duration(float64(firstPayload)/rate*float64(time.Second))
	if m.first < least || m.first > took {
		t.Errorf("first payload after %v, not between %v and %v", m.first, least, took)
	}
	if m.down != size {
		t.Errorf("the meter saw %d bytes come back, not %d", m.down, size)
	}
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
