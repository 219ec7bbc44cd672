package sim

import (
	"testing"
	"time"
)

// TestNewsReachesWhoWaits adds a block to a host at every moment around the time when a peer asks for it: the peer must have it
// soon after, without asking again.
func TestNewsReachesWhoWaits(t *testing.T) {
	for step := range 60 {
		at := time.Duration(step) * 500 * time.Microsecond
		w := NewWorld(Config{Seed: uint64(step + 1)})
		file := w.File(1, 5000)
		a := w.Add(HostConfig{})
		b := w.Add(HostConfig{Disk: Disk{Latency: 5 * time.Millisecond, Jitter: 5 * time.Millisecond}})
		w.Connect(a, b)
		var f *Fetch
		w.After(time.Millisecond, func() { f = a.Fetch(FetchConfig{Blocks: file}) })
		w.After(at, func() { b.Give(file...) })
		w.Run(time.Minute, func() bool { return f != nil && f.Done() })
		if err := w.Err(); err != nil {
			t.Fatal(err)
		}
		if !f.Whole() || f.Ended > at+100*time.Millisecond {
			t.Errorf("added at %v: %v at %v", at, f.State, f.Ended)
		}
	}
}
