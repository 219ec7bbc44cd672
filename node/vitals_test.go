package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
	"dray/store"
	"dray/transport"
)

// sickDisk is a store whose reads and writes fail or take long while the test wants it.
type sickDisk struct {
	dray.Store
	failReads, failWrites atomic.Bool
	slow                  atomic.Int64 // nanoseconds a write takes
}

func (d *sickDisk) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	if d.failReads.Load() {
		return dray.Block{}, syscall.EIO
	}
	return d.Store.Get(ctx, c)
}

// Sync is called in a synctest bubble only.
func (d *sickDisk) Sync(ctx context.Context) error {
	time.Sleep(time.Duration(d.slow.Load()))
	if d.failWrites.Load() {
		return syscall.ENOSPC
	}
	return d.Store.Sync(ctx)
}

// TestVitals: what goes wrong shows at the part that it happens to, after the checks that it takes, and at no other.
func TestVitals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(transport.MemoryConfig{})
		disk := &sickDisk{Store: store.NewMem(0)}
		n, err := New(Config{Store: disk, Network: mem.NewHost()})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, multihash.SHA2_256), []byte("a block"))
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		other, err := New(Config{Store: store.NewMem(0), Network: mem.NewHost()})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := other.Connect(t.Context(), peerAt(n)[0]); err != nil {
			t.Fatal(err)
		}
		s := other.NewSession(SessionConfig{})
		defer s.Close()
		if _, err := s.Get(t.Context(), b.CID()); err != nil { // so that there is something to try reading
			t.Fatal(err)
		}
		expect := func(after int, whole Condition, want string) {
			t.Helper()
			time.Sleep(time.Duration(after)*checkEvery + time.Second)
			synctest.Wait()
			got, parts := n.Vitals()
			var list []string
			for _, v := range parts {
				list = append(list, v.Condition.String())
			}
			if s := strings.Join(list, " "); got != whole || s != want {
				t.Errorf("after %d checks: %v, %s; want %v, %s", after, got, s, whole, want)
			}
		}
		expect(1, Healthy, "healthy healthy healthy")
		disk.failReads.Store(true)
		expect(1, Degraded, "degraded healthy healthy")
		expect(2, Failed, "failed healthy healthy")
		disk.failReads.Store(false)
		expect(1, Degraded, "degraded healthy healthy")
		expect(1, Healthy, "healthy healthy healthy")
		disk.failWrites.Store(true)
		expect(1, Degraded, "healthy degraded healthy")
		disk.failWrites.Store(false)
		disk.slow.Store(int64(2 * time.Second))
		expect(3, Unhealthy, "healthy unhealthy healthy")
		disk.slow.Store(0)
		expect(3, Healthy, "healthy healthy healthy")

		_, parts := n.Vitals()
		var history []string
		for _, c := range parts[1].History {
			history = append(history, fmt.Sprintf("%v-%v", c.From, c.To))
		}
		want := []string{"unknown-healthy", "healthy-degraded", "degraded-unhealthy", "unhealthy-degraded", "degraded-healthy"}
		if !slices.Equal(history, want) {
			t.Errorf("history %v, want %v", history, want)
		}
	})
}

// TestWatch: parts of others are judged as a Node's own, each for itself, no worse than they may be, and also while they do
// not answer.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{Store: store.NewMem(0)})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		var down, full, stuck atomic.Bool
		fails := func(b *atomic.Bool) func(context.Context) error {
			return func(context.Context) error {
				if b.Load() {
					return errors.New("injected")
				}
				return nil
			}
		}
		n.Watch("listener", Unknown, fails(&down))
		n.Watch("space", Unhealthy, fails(&full))
		n.Watch("door", Unknown, func(context.Context) error {
			for stuck.Load() {
				time.Sleep(time.Second)
			}
			return nil
		})
		expect := func(after time.Duration, whole Condition, want string) {
			t.Helper()
			time.Sleep(after + time.Second)
			synctest.Wait()
			got, parts := n.Vitals()
			var list []string
			for _, v := range parts[3:] { // behind the Node's own
				list = append(list, v.Condition.String())
			}
			if s := strings.Join(list, " "); got != whole || s != want {
				t.Errorf("%v later: %v, %s; want %v, %s", after, got, s, whole, want)
			}
		}
		expect(0, Healthy, "healthy healthy healthy")
		down.Store(true)
		expect(checkEvery, Degraded, "degraded healthy healthy")
		expect(checkEvery, Degraded, "degraded healthy healthy")
		expect(checkEvery, Failed, "failed healthy healthy")
		down.Store(false)
		expect(checkEvery, Degraded, "degraded healthy healthy")
		expect(checkEvery, Healthy, "healthy healthy healthy")
		full.Store(true)
		expect(5*checkEvery, Unhealthy, "healthy unhealthy healthy")
		full.Store(false)
		expect(2*checkEvery, Healthy, "healthy healthy healthy")
		stuck.Store(true)
		expect(2*checkEvery, Degraded, "healthy healthy degraded")
		expect(3*checkEvery, Failed, "healthy healthy failed")
		stuck.Store(false)
		expect(3*checkEvery, Healthy, "healthy healthy healthy")
		if err := n.Alive(t.Context()); err != nil {
			t.Error(err)
		}
		// While the loop is held, it is not alive, and says so in time.
		release := make(chan struct{})
		n.do(func() { <-release })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.Alive(ctx); !errors.Is(err, dray.ErrTimeout) {
			t.Errorf("a loop that is held: %v", err)
		}
		close(release)
		synctest.Wait()
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if err := n.Alive(t.Context()); !errors.Is(err, dray.ErrClosed) {
			t.Errorf("a closed node: %v", err)
		}
	})
}

// TestVitalRules: a part of which nothing is known is not healthy, and what failed now and then is not bad.
func TestVitalRules(t *testing.T) {
	now := time.Unix(0, 0)
	p := &vital{}
	if _, changed := p.check(now); changed || p.v.Condition != Unknown {
		t.Errorf("without any operation it is %v", p.v.Condition)
	}
	for i := range 20 {
		var err error
		if i%10 == 0 {
			err = errors.New("now and then")
		}
		p.note(time.Millisecond, err)
	}
	if p.check(now); p.v.Condition != Healthy {
		t.Errorf("with one failure in ten it is %v (%s)", p.v.Condition, p.v.Reason)
	}
	for range 3 { // half of it fails: bad, but not dead
		p.note(time.Millisecond, errors.New("no"))
		p.note(time.Millisecond, nil)
		p.check(now)
	}
	if p.v.Condition != Unhealthy || !strings.Contains(p.v.Reason, "1 of 2 failed") {
		t.Errorf("with every second failing it is %v (%s)", p.v.Condition, p.v.Reason)
	}
	for i := range 100 {
		p.note(0, nil)
		if i%2 == 0 {
			p.note(0, errors.New("no"))
		}
		p.check(now)
	}
	if n := len(p.snapshot().History); n > vitalHistory {
		t.Errorf("%d changes are remembered", n)
	}
}
