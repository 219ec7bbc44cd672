package p2p_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
	"dray/transport/transporttest"
)

// TestNewestConnectionWins: a process loses its network and another one with the same key takes its place. Within about a
// second the host that both have dialled knows, and what the new one says reaches it on the new connection.
func TestNewestConnectionWins(t *testing.T) {
	key, err := p2p.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	start := func(k p2p.Key, listen ...string) *p2p.Host {
		h, err := p2p.New(p2p.Config{Key: k, Listen: listen})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		return h
	}
	server := start(p2p.Key{}, "/ip4/127.0.0.1/tcp/0")
	var mu sync.Mutex
	var conns []transport.Conn
	news := make(chan string, 16)
	server.Notify(func(c transport.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
		news <- "up"
	}, func(dray.PeerID) { news <- "down" })
	given := make(chan transport.Stream, 16)
	server.Handle([]transport.Protocol{"/x"}, func(c transport.Conn, s transport.Stream) {
		mu.Lock()
		newest := conns[len(conns)-1]
		mu.Unlock()
		if c != newest {
			t.Error("a stream of an older connection")
		}
		given <- s
	})
	_, rest, _ := strings.Cut(server.Addrs()[0], "/tcp/")
	port, _, _ := strings.Cut(rest, "/")
	way := transporttest.NewTube(t, "127.0.0.1:"+port)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	say := func(h *p2p.Host, text string) {
		t.Helper()
		c, err := h.Dial(ctx, server.Self(), []string{way.Addr(server.Self())})
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Open(ctx, "/x")
		if err == nil {
			_, err = s.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) transport.Stream {
		t.Helper()
		select {
		case s := <-given:
			got := make([]byte, len(want))
			if _, err := io.ReadFull(s, got); err != nil || string(got) != want {
				t.Fatalf("heard %q, %v", got, err)
			}
			return s
		case <-ctx.Done():
			t.Fatalf("%q was not heard", want)
			return nil
		}
	}
	old := start(key, []string{}...)
	say(old, "old")
	first := hear("old")
	way.Freeze()
	begin := time.Now()
	young := start(key, []string{}...)
	say(young, "new")
	s := hear("new")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the new process was heard after %v", took)
	}
	for _, want := range []string{"up", "down", "up"} {
		if got := <-news; got != want {
			t.Fatalf("told %q, want %q", got, want)
		}
	}
	mu.Lock()
	c := conns[1]
	mu.Unlock()
	if _, err := c.Open(ctx, "/x"); err != nil {
		t.Errorf("no stream to the new process: %v", err)
	}
	if err := first.SetReadDeadline(time.Now().Add(10 * time.Second)); err == nil {
		if _, err := first.Read(make([]byte, 1)); err == nil {
			t.Error("the old stream still works")
		}
	}
	_ = s.Reset()
	select {
	case got := <-news:
		t.Errorf("told %q", got)
	default:
	}
}

// TestSecondConnectionOfALivePeer: both sides dial each other at once, again and again. Nobody is told that the other is gone.
func TestSecondConnectionOfALivePeer(t *testing.T) {
	for range 10 {
		var hosts [2]*p2p.Host
		downs := make(chan dray.PeerID, 4)
		for i := range hosts {
			h, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
			if err != nil {
				t.Fatal(err)
			}
			h.Handle([]transport.Protocol{"/x"}, func(_ transport.Conn, s transport.Stream) {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			})
			h.Notify(func(transport.Conn) {}, func(id dray.PeerID) { downs <- id })
			hosts[i] = h
		}
		var dialling sync.WaitGroup
		for i, h := range hosts {
			other := hosts[1-i]
			dialling.Go(func() {
				c, err := h.Dial(t.Context(), other.Self(), other.Addrs())
				if err != nil {
					t.Error(err)
					return
				}
				s, err := c.Open(t.Context(), "/x")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = s.Write([]byte("hello"))
				_ = s.CloseWrite()
				if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
					t.Errorf("heard %q, %v", got, err)
				}
				_ = s.Close()
			})
		}
		dialling.Wait()
		select {
		case <-downs:
			t.Error("told that a live peer is gone")
		default:
		}
		for _, h := range hosts {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
