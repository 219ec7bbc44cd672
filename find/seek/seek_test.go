package seek

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/find"
	"dray/transport"
)

func root(name string) cid.Cid {
	b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, 0x12), []byte(name))
	if err != nil {
		panic(err)
	}
	return b.CID()
}

// oracle is a Finder that takes a while and then knows some peers, and counts how often it is asked.
type oracle struct {
	takes time.Duration
	knows []dray.PeerID
	asked atomic.Int32
	err   error
}

func (o *oracle) Find(ctx context.Context, _ cid.Cid, found func(transport.Peer)) error {
	o.asked.Add(1)
	for _, id := range o.knows {
		select {
		case <-time.After(o.takes):
			found(transport.Peer{ID: id, Addrs: []string{"/ip4/192.0.2.7/tcp/1"}})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-time.After(o.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	return o.err
}

// look returns whom a Finder finds, each with the time from the beginning of the search.
func look(t *testing.T, f *Finder, c cid.Cid) (out []string) {
	began := time.Now()
	err := f.Find(t.Context(), c, func(p transport.Peer) {
		out = append(out, fmt.Sprintf("%s after %v", string(p.ID), time.Since(began)))
	})
	if err != nil {
		t.Errorf("find: %v", err)
	}
	return append(out, fmt.Sprintf("end after %v", time.Since(began)))
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestOrder: the cheap finder is asked first, the next when it has taken too long, and none when enough is known.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := &oracle{takes: 400 * time.Millisecond, knows: []dray.PeerID{"n1"}}, &oracle{takes: time.Second, knows: []dray.PeerID{"f1", "n1"}}
		f := New(Config{Enough: 2, Finders: []Named{
			{Name: "near", Source: find.Peers, Finder: near}, {Name: "far", Source: find.DHT, Finder: far, After: 300 * time.Millisecond},
		}})
		defer f.Close()
		expect(t, look(t, f, root("film")), "n1 after 400ms", "f1 after 1.3s", "end after 1.3s")
		expect(t, look(t, f, root("film")), "n1 after 0s", "f1 after 0s", "end after 0s")
		if near.asked.Load() != 1 || far.asked.Load() != 1 {
			t.Errorf("asked %d and %d times", near.asked.Load(), far.asked.Load())
		}
	})
}

// TestDead: who cannot be reached is not waited for again. He comes when nobody else does, and after his probation.
func TestDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{takes: 50 * time.Millisecond, knows: []dray.PeerID{"dead", "alive"}}
		f := New(Config{Enough: 1, Finders: []Named{{Name: "o", Source: find.Routing, Finder: o}}})
		defer f.Close()
		c := root("film")
		expect(t, look(t, f, c), "dead after 50ms", "end after 50ms")
		f.Reached("dead", errors.New("refused"))
		expect(t, look(t, f, c), "alive after 100ms", "end after 100ms")
		f.Held(c, "alive", true)
		expect(t, look(t, f, c), "alive after 0s", "end after 0s")
		f.Held(c, "alive", false)
		expect(t, look(t, f, c), "dead after 150ms", "alive after 150ms", "end after 150ms")
		time.Sleep(time.Minute)
		expect(t, look(t, f, c), "alive after 0s", "end after 0s") // its record is younger and its score no worse
		f.Reached("alive", errors.New("refused"))
		expect(t, look(t, f, c), "dead after 0s", "end after 0s")
	})
}

// TestMiss: after everybody was asked in vain nobody is for a while, unless something changes.
func TestMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{takes: time.Second, err: errors.New("no idea")}
		f := New(Config{Finders: []Named{{Name: "o", Source: find.DHT, Finder: o}}})
		defer f.Close()
		c := root("film")
		expect(t, look(t, f, c), "end after 1s")
		expect(t, look(t, f, c), "end after 0s")
		time.Sleep(time.Second)
		expect(t, look(t, f, c), "end after 1s")
		time.Sleep(time.Second)
		expect(t, look(t, f, c), "end after 0s")
		f.Reached("somebody", nil)
		expect(t, look(t, f, c), "end after 1s")
		f.Neighbour(transport.Peer{ID: "n"}, time.Minute)
		expect(t, look(t, f, c), "end after 1s")
		f.Learn(c, find.Provider{ID: "p", Source: find.Peers}, time.Minute)
		expect(t, look(t, f, c), "p after 0s", "end after 1s")
	})
}

// TestShared: many who look for the same ask once, and one who loses patience does not end it for the others.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{takes: time.Second, knows: []dray.PeerID{"p"}}
		f := New(Config{Finders: []Named{{Name: "o", Source: find.DHT, Finder: o}}})
		defer f.Close()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { expect(t, look(t, f, root("film")), "p after 1s", "end after 2s") })
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := f.Find(ctx, root("film"), func(transport.Peer) { t.Error("found") }); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the hasty one: %v", err)
			}
		})
		wg.Wait()
		if n := o.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		// Nobody waits any more: it ends.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		f.Find(ctx, root("book"), func(transport.Peer) {})
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.flights) != 0 || len(f.room) != 0 {
			t.Errorf("%d flights go on", len(f.flights))
		}
	})
}

// TestBounded: no more searches go on at a time than may, one search takes no longer than it may, and a closed Finder refuses.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{takes: time.Hour}
		f := New(Config{Flights: 2, Most: 10 * time.Second, Finders: []Named{{Name: "o", Source: find.DHT, Finder: o}}})
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() { look(t, f, root(fmt.Sprint(i))) })
		}
		synctest.Wait()
		if n := o.asked.Load(); n != 2 {
			t.Errorf("%d searches at once", n)
		}
		began := time.Now()
		wg.Wait()
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("six searches of ten seconds, two at a time, took %v", took)
		}
		f.Close()
		if err := f.Find(t.Context(), root("x"), nil); !errors.Is(err, dray.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// crier is an Announcer that notes when what was announced.
type crier struct {
	mu   sync.Mutex
	said []string
	kept time.Duration
	err  error
	at   time.Time
}

func (c *crier) Announce(_ context.Context, r cid.Cid) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := map[cid.Cid]string{root("film"): "film", root("book"): "book"}[r]
	c.said = append(c.said, fmt.Sprintf("%s at %v", name, time.Since(c.at).Round(time.Second)))
	return c.kept, c.err
}

// TestAnnounce: roots are announced, again before the record expires, sooner after a failure, and not when they are gone.
func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &crier{kept: 90 * time.Minute, at: time.Now()}
		var (
			wg   sync.WaitGroup
			mu   sync.Mutex
			list = []cid.Cid{root("film")}
		)
		set := func(roots ...cid.Cid) {
			mu.Lock()
			defer mu.Unlock()
			list = roots
		}
		wg.Go(func() {
			Announce(ctx, AnnounceConfig{To: c, Name: "c", Roots: func(context.Context) ([]cid.Cid, error) {
				mu.Lock()
				defer mu.Unlock()
				return list, nil
			}})
		})
		time.Sleep(90*time.Minute - 30*time.Second)
		c.mu.Lock()
		if len(c.said) != 2 || c.said[0] != "film at 0s" {
			t.Errorf("announced %q: once, and again within an hour", c.said)
		}
		c.said, c.err = nil, errors.New("nobody there")
		c.mu.Unlock()
		set(root("book"))
		time.Sleep(8 * time.Minute)
		c.mu.Lock()
		expect(t, c.said, "book at 1h30m0s", "book at 1h31m0s", "book at 1h33m0s", "book at 1h37m0s")
		c.mu.Unlock()
		cancel()
		wg.Wait()
	})
}

// TestReachable: a teller's addresses are believed as far as he could reach them himself.
func TestReachable(t *testing.T) {
	all := []string{
		"/ip4/8.8.8.8/tcp/1", "/ip4/10.1.2.3/tcp/1", "/ip4/100.64.1.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/fe80::1/tcp/1",
		"/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/udp/1", "/ip4/169.254.169.254/tcp/80", "/dns4/internal/tcp/1", "/memory/7", "/unix/x", "junk", "",
		"/ip6/::ffff:10.0.0.1/tcp/1", "/ip4/255.255.255.255/udp/1", "/ip6/2606:4700::1/udp/1/quic-v1",
	}
	public := []string{"/ip4/8.8.8.8/tcp/1", "/ip6/2606:4700::1/udp/1/quic-v1"}
	for remote, want := range map[string][]string{
		"/ip4/1.1.1.1/tcp/9":     public,
		"/dns4/example.org/tcp/": public,
		"":                       public,
		"/ip4/192.168.1.1/tcp/9": {
			"/ip4/8.8.8.8/tcp/1", "/ip4/10.1.2.3/tcp/1", "/ip4/100.64.1.1/tcp/1", "/ip6/::ffff:10.0.0.1/tcp/1", "/ip6/2606:4700::1/udp/1/quic-v1",
		},
		"/ip4/127.0.0.1/tcp/9": {
			"/ip4/8.8.8.8/tcp/1", "/ip4/10.1.2.3/tcp/1", "/ip4/100.64.1.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/memory/7",
			"/ip6/::ffff:10.0.0.1/tcp/1", "/ip6/2606:4700::1/udp/1/quic-v1",
		},
	} {
		if got := Reachable(all, remote, false); !reflect.DeepEqual(got, want) {
			t.Errorf("of somebody at %q, %q are believed, want %q", remote, got, want)
		}
	}
	if got := Reachable([]string{"/dns4/example.org/tcp/443/wss"}, "/ip4/1.1.1.1/tcp/9", true); len(got) != 1 {
		t.Error("a peer's own name is not believed")
	}
}
