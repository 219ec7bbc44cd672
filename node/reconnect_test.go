package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/exchange/health"
	"dray/store"
	"dray/transport"
)

// lonely is a host that fetches a file of 20 MB from one other, over 2 MB/s, in virtual time.
type lonely struct {
	mem         *transport.Memory
	seeder, get *Node
	begun       time.Time
	done        atomic.Int64
	ended       chan error
}

// isolate runs a test of a lonely getter in a synctest bubble. What happens to the link, happens at times since the fetch
// began.
func isolate(t *testing.T, test func(t *testing.T, l *lonely)) {
	synctest.Test(t, func(t *testing.T) {
		l := &lonely{
			mem:   transport.NewMemory(transport.MemoryConfig{Latency: 2 * time.Millisecond, Bandwidth: 2e6}),
			ended: make(chan error, 1),
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		var nets [2]transport.Network
		var nodes [2]*Node
		for i := range nodes {
			nets[i] = l.mem.NewHost()
			var err error
			if nodes[i], err = New(Config{Store: store.NewMem(0), Network: nets[i]}); err != nil {
				t.Fatal(err)
			}
		}
		l.seeder, l.get = nodes[0], nodes[1]
		path, _ := randomFile(t, 20e6)
		f, err := l.seeder.Add(ctx, path, AddConfig{Copy: true})
		if err != nil {
			t.Fatal(err)
		}
		l.begun = time.Now()
		wg.Go(func() {
			_, err := l.get.Fetch(ctx, FetchConfig{
				Root: f.Root, Peers: []transport.Peer{peerOf(l.seeder)},
				Progress: func(p Progress) { l.done.Store(p.Done) },
			})
			l.ended <- err
		})
		test(t, l)
		cancel()
		wg.Wait()
		for i := range nodes {
			nodes[i].Close()
			nets[i].Close()
		}
	})
}

// at waits until a time after the fetch began, in a synctest bubble.
func (l *lonely) at(d time.Duration) { time.Sleep(time.Until(l.begun.Add(d))) }

// TestNetworkCut takes the only peer away for a minute, after a part has come: by connections that break, and by packets
// that vanish. The fetch waits, and goes on within two seconds after.
func TestNetworkCut(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(m *transport.Memory, a, b dray.PeerID)
	}{{"broken", (*transport.Memory).Cut}, {"silent", (*transport.Memory).Stall}} {
		t.Run(c.name, func(t *testing.T) {
			isolate(t, func(t *testing.T, l *lonely) {
				a, b := l.seeder.Self(), l.get.Self()
				l.at(3 * time.Second)
				c.cut(l.mem, a, b)
				l.at(20 * time.Second)
				before := l.done.Load()
				if s, m := l.get.Outlook(); s != health.Partitioned || m != health.Emergency || before == 0 {
					t.Errorf("17 s after the cut, with %d bytes: %v, %v", before, s, m)
				}
				l.at(63 * time.Second)
				l.mem.Heal(a, b)
				l.at(65 * time.Second)
				if got := l.done.Load(); got <= before {
					t.Errorf("2 s after the network is back there are %d bytes, and %d before", got, before)
				}
				if err := <-l.ended; err != nil {
					t.Error(err)
				}
				if took := time.Since(l.begun); took > 75*time.Second {
					t.Errorf("complete after %v; a minute of it was the cut, and without it takes 10 s", took)
				}
			})
		})
	}
}

// TestResets breaks the connection every five seconds.
func TestResets(t *testing.T) {
	isolate(t, func(t *testing.T, l *lonely) {
		for at := 5 * time.Second; ; at += 5 * time.Second {
			l.at(at)
			select {
			case err := <-l.ended:
				if err != nil {
					t.Error(err)
				}
				if at > 15*time.Second {
					t.Errorf("complete after %v; without resets it takes 10 s", at)
				}
				return
			default:
				l.mem.Drop(l.seeder.Self(), l.get.Self())
			}
			if at > time.Minute {
				t.Error("not complete after a minute")
				return
			}
		}
	})
}

// TestNeverThere gives up soon when nobody has ever given anything, and names the reason.
func TestNeverThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(transport.MemoryConfig{})
		net, other := mem.NewHost(), mem.NewHost()
		n, err := New(Config{Store: store.NewMem(0), Network: net})
		if err != nil {
			t.Fatal(err)
		}
		peer := transport.Peer{ID: other.Self(), Addrs: other.Addrs()}
		other.Close()
		start := time.Now()
		_, err = n.Fetch(context.Background(), FetchConfig{
			Root: firstLeaf(t), Peers: []transport.Peer{peer},
		})
		if took := time.Since(start); !errors.Is(err, dray.ErrUnreachable) || took > 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		if lost := n.Unreached(peer); len(lost) != 1 || lost[0].Err == nil {
			t.Errorf("unreached: %v", lost)
		}
		n.Close()
		net.Close()
	})
}
