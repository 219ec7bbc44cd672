package sim

import (
	"fmt"
	"testing"
	"time"

	"dray"
	"dray/exchange"
	"dray/exchange/health"
	"dray/wire"
)

// cutWorld is one host that fetches a file of 12.5 MB, which takes 13 s, from three that have it.
type cutWorld struct {
	w       *World
	getter  *Host
	seeders []*Host
	fetch   *Fetch
	states  []health.PartitionState // of the getter, as they followed each other
}

func newCutWorld(seed uint64, delay time.Duration, seeders int) *cutWorld {
	c := &cutWorld{w: NewWorld(Config{Seed: seed})}
	file := c.w.File(200, 62500)
	config := func(up float64) HostConfig { return HostConfig{Delay: delay, Up: up, Down: 1e6, Version: wire.Swap1} }
	var ids []dray.PeerID
	for range seeders {
		h := c.w.Add(config(1e6 / float64(seeders)))
		h.Give(file...)
		c.seeders = append(c.seeders, h)
		ids = append(ids, h.ID())
	}
	c.getter = c.w.Add(config(Gbit))
	c.fetch = c.getter.Fetch(FetchConfig{
		Blocks: file, Window: 64, Sized: true, Session: exchange.SessionConfig{Peers: ids, Only: true},
	})
	return c
}

// run lets time pass, looking at the getter's view all the time.
func (c *cutWorld) run(t *testing.T, until time.Duration) {
	t.Helper()
	for c.w.Now() < until && !c.fetch.Done() {
		c.w.Run(min(c.w.Now()+50*time.Millisecond, until), c.fetch.Done)
		s := c.getter.e.PartitionState()
		if n := len(c.states); n == 0 || c.states[n-1] != s {
			c.states = append(c.states, s)
		}
	}
	if err := c.w.Err(); err != nil {
		t.Fatal(err)
	}
}

// entered counts how often the view came to a state.
func (c *cutWorld) entered(s health.PartitionState) (n int) {
	for _, o := range c.states {
		if o == s {
			n++
		}
	}
	return n
}

// TestPartition cuts a host off for a minute: nobody was named to it but by its session, so it finds everybody again by itself, within
// two seconds; what was wanted then comes exactly once, which the World watches. One run is like another.
func TestPartition(t *testing.T) {
	const cut, heal = 3 * time.Second, 63 * time.Second
	for _, delay := range []time.Duration{time.Millisecond, 40 * time.Millisecond} {
		for _, seeders := range []int{1, 3} {
			for _, silent := range []bool{false, true} {
				t.Run(fmt.Sprintf("delay=%v/seeders=%d/silent=%v", delay, seeders, silent), func(t *testing.T) {
					var traces [2]uint64
					for i := range traces {
						c := newCutWorld(5, delay, seeders)
						set := func(on bool) {
							if !silent {
								c.w.Darken(on, c.getter)
								return
							}
							for _, h := range append(c.seeders, c.getter) {
								h.SetFaults(Faults{Frozen: on})
							}
						}
						c.run(t, cut)
						before := c.fetch.Delivered
						if before < 20 {
							t.Fatalf("%d blocks in %v", before, cut)
						}
						set(true)
						c.run(t, cut+500*time.Millisecond)
						before = c.fetch.Delivered
						c.run(t, cut+30*time.Second)
						if s, m := c.getter.e.PartitionState(), c.getter.e.Mode(); s != health.Partitioned || m != health.Emergency {
							t.Errorf("after 30 s without a network: %v, %v", s, m)
						}
						c.run(t, heal)
						if c.fetch.Delivered != before {
							t.Errorf("%d blocks came over no network", c.fetch.Delivered-before)
						}
						set(false)
						c.run(t, heal+2500*time.Millisecond)
						if c.fetch.Delivered == before {
							t.Errorf("2.5 s after the network is back nothing came:\n%s", c.getter.waits())
						}
						c.run(t, heal+30*time.Second)
						if !c.fetch.Whole() {
							t.Fatalf("not complete 30 s after the network is back: %s", c.getter.waits())
						}
						if n := c.entered(health.Partitioned); n != 1 {
							t.Errorf("the view went %v", c.states)
						}
						if took := c.fetch.Ended; took > heal+15*time.Second {
							t.Errorf("complete at %v", took)
						}
						traces[i] = c.w.Trace()
					}
					if traces[0] != traces[1] {
						t.Error("two runs differ")
					}
				})
			}
		}
	}
}

// TestFlappingLink has the network of a host come and go: the view does not oscillate, and the fetch completes in the time that it
// needs, between the cuts.
func TestFlappingLink(t *testing.T) {
	for _, period := range []time.Duration{2 * time.Second, 5 * time.Second} {
		c := newCutWorld(7, time.Millisecond, 3)
		for at := period; at < 5*time.Minute && !c.fetch.Done(); at += period {
			c.run(t, at)
			c.w.Darken(true, c.getter)
			c.run(t, at+period/4)
			c.w.Darken(false, c.getter)
		}
		if !c.fetch.Whole() {
			t.Fatalf("cut every %v: not complete: %s", period, c.getter.waits())
		}
		if took := c.fetch.Ended; took > 40*time.Second {
			t.Errorf("cut every %v for a quarter of the time: complete after %v, without cuts 13 s", period, took)
		}
		if n := c.entered(health.Whole); n > 5 {
			t.Errorf("cut every %v: the view went %v", period, c.states)
		}
	}
}
