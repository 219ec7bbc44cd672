package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/store"
	"dray/transport"
)

// TestLostPeer cuts the path to the only peer when some of a file has come. A peer that is back after a minute is waited
// for, and so is the reason told; one that never comes back is given up in the end.
func TestLostPeer(t *testing.T) {
	for _, c := range []struct {
		name string
		away time.Duration
		most time.Duration // the fetch is over by then
		err  error
	}{
		{"back after a minute", time.Minute, time.Minute + 5*time.Second, nil},
		{"never back", time.Hour, WaitForLost + 10*time.Second, dray.ErrUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: 1 << 20})
				var all [2]*Node
				var nets [2]transport.Network
				for i := range all {
					nets[i] = mem.NewHost()
					n, err := New(Config{Store: store.NewMem(0), Network: nets[i]})
					if err != nil {
						t.Fatal(err)
					}
					all[i] = n
				}
				seed, getter := all[0], all[1]
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
				defer cancel()
				root := tinyTree(t, ctx, seed, 20_000)
				var cut, told bool
				heal := time.AfterFunc(2*time.Hour, func() { mem.Heal(seed.Self(), getter.Self()) })
				defer heal.Stop()
				start := time.Now()
				var struck time.Time
				p, err := getter.Fetch(ctx, FetchConfig{
					Root: root, Peers: []transport.Peer{peerOf(seed)},
					Progress: func(p Progress) {
						if !cut && p.Leaves > 2000 {
							cut, struck = true, time.Now()
							mem.Cut(seed.Self(), getter.Self())
							heal.Reset(c.away)
						}
						told = told || cut && len(p.Unreached) == 1
					},
				})
				if !errors.Is(err, c.err) {
					t.Errorf("%v, want %v; %+v", err, c.err, p)
				}
				if !cut || !told {
					t.Errorf("cut %v, told %v, after %v", cut, told, time.Since(start))
				}
				if took := time.Since(struck); took > c.most || took < min(c.away, WaitForLost) {
					t.Errorf("took %v after the cut", took)
				}
				for i, n := range all {
					n.Close()
					nets[i].Close()
				}
			})
		})
	}
}
