package sim

import (
	"fmt"
	"math/bits"
	"os"
	"testing"
	"time"

	"dray/exchange"
	"dray/wire"
)

// TestRootPair: one getter fetches by root. A walk with pushed leaves makes the first of them arrive a round trip after the
// connection, and the whole takes one round trip more than the bytes.
func TestRootPair(t *testing.T) {
	const delay = 12500 * time.Microsecond // a quarter of the round trip: each host's part
	for _, order := range []exchange.Order{exchange.InOrder, exchange.Rarest} {
		res := twice(t, SwarmConfig{
			World: Config{Virtual: true, CheckEvery: 100}, Blocks: 64, BlockSize: 1 << 20, Rooted: true, Order: order,
			Host: HostConfig{Delay: delay, Version: wire.Swap1},
		})
		if limit := res.Bound + 8*delay; res.Time > limit {
			t.Errorf("64 MiB took %v, want at most %v", res.Time, limit)
		}
		if res.SeedUp > 1.001 {
			t.Errorf("the seed sent %.3f times the file", res.SeedUp)
		}
	}
}

// crowd is one seed and many getters of a file that they fetch by its root, on gigabit lines with 2 ms between any two.
type crowd struct {
	getters, degree, seedDegree int // a degree of 0 means all
	leaves, leaf                int // leaf in MiB
	turn                        time.Duration
	vary                        func(i int, c *HostConfig)
}

func (c crowd) String() string {
	connected := "all connected"
	if c.degree > 0 {
		connected = fmt.Sprintf("degree %d", c.degree)
		if c.seedDegree > 0 {
			connected += fmt.Sprintf(", the seed's %d", c.seedDegree)
		}
	}
	return fmt.Sprintf("%d getters, %s, %d leaves of %d MiB", c.getters, connected, c.leaves, c.leaf)
}

func (c crowd) config(seed uint64, check int) SwarmConfig {
	return SwarmConfig{
		World:   Config{Seed: seed, Virtual: true, CheckEvery: check, Thin: true, TurnDelay: c.turn},
		Getters: c.getters, Degree: c.degree, SeedDegree: c.seedDegree, Vary: c.vary,
		Blocks: c.leaves, BlockSize: c.leaf << 20, Order: exchange.Rarest, Rooted: true, Host: HostConfig{Version: wire.Swap1},
	}
}

// limit is what a swarm may take: 1.15 times the fluid bound and a round trip for each doubling.
func (c crowd) limit(bound time.Duration) time.Duration {
	const roundTrip = 4 * time.Millisecond
	return bound*115/100 + time.Duration(bits.Len(uint(c.getters)))*roundTrip
}

// TestRootSwarm holds swarms against the fluid bound. With DRAY_TEST=long files of 10 GiB come to it, and with
// DRAY_TEST=huge 2,048 getters: that takes half an hour.
func TestRootSwarm(t *testing.T) {
	const ms = time.Millisecond
	rows := []crowd{
		{getters: 8, leaves: 256, leaf: 1, turn: ms / 10},
		{getters: rootGetters, degree: 12, seedDegree: 12, leaves: 1024, leaf: 1, turn: ms},
		{getters: rootGetters / 2, leaves: 512, leaf: 1, turn: ms, vary: func(i int, c *HostConfig) {
			if i == 0 {
				c.Delay = 10 * ms
			}
		}},
	}
	switch long := os.Getenv("DRAY_TEST"); long {
	case "huge":
		rows = append(rows, crowd{getters: 2048, degree: 24, seedDegree: 40, leaves: 2560, leaf: 4, turn: 50 * ms})
		fallthrough
	case "long":
		rows = append(rows,
			crowd{getters: 32, leaves: 10240, leaf: 1, turn: ms},
			crowd{getters: 256, degree: 24, seedDegree: 40, leaves: 10240, leaf: 1, turn: 20 * ms},
		)
	}
	for _, c := range rows {
		t.Run(c.String(), func(t *testing.T) {
			res, err := Swarm(c.config(1, 1000))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(res)
			if limit := c.limit(res.Bound); res.Time > limit {
				t.Errorf("it took %v, want at most %v", res.Time, limit)
			}
			if res.SeedUp > 1.3 {
				t.Errorf("the seed sent %.2f times the file, want at most 1.3", res.SeedUp)
			}
			if res.Waste > 0.01 {
				t.Errorf("%.2f %% arrived twice, want at most 1 %%", 100*res.Waste)
			}
		})
	}
}

// TestRootSwarmOfUnequals has getters on lines of 100 Mbit/s among others of 1 Gbit/s. The slow ones are done when their
// lines allow, and do not hold up the fast ones; where only their uplinks are slow, the others' carry the load.
func TestRootSwarmOfUnequals(t *testing.T) {
	slow := func(up, down float64) func(int, *HostConfig) {
		return func(i int, c *HostConfig) {
			if i%8 == 0 {
				c.Up, c.Down = up, down
			}
		}
	}
	c := crowd{getters: rootGetters / 2, leaves: 512, leaf: 1, turn: time.Millisecond}

	c.vary = slow(Gbit/10, Gbit/10)
	res := twice(t, c.config(1, 1000))
	if limit := c.limit(res.Bound); res.Time > limit {
		t.Errorf("the slow ones took %v, want at most %v", res.Time, limit)
	}
	fast := took(int64(c.leaves)<<20, Gbit)
	if limit := fast * 5 / 4; res.Median > limit {
		t.Errorf("half of the getters had it after %v, want at most %v", res.Median, limit)
	}

	c.vary = slow(Gbit/10, Gbit)
	res = twice(t, c.config(1, 1000))
	if limit := res.Bound * 5 / 4; res.Median > limit {
		t.Errorf("with slow uplinks half of the getters had it after %v, want at most %v", res.Median, limit)
	}
	if limit := res.Bound * 3 / 2; res.Time > limit {
		t.Errorf("with slow uplinks it took %v, want at most %v", res.Time, limit)
	}
}

// BenchmarkRootSwarm prints what swarms need for 256 MiB or 1 GiB.
func BenchmarkRootSwarm(b *testing.B) {
	const turn = 100 * time.Microsecond
	for _, c := range []crowd{
		{getters: 8, leaves: 256, leaf: 1, turn: turn},
		{getters: 32, leaves: 1024, leaf: 1, turn: turn},
		{getters: 32, degree: 12, leaves: 1024, leaf: 1, turn: turn},
		{getters: 256, degree: 24, seedDegree: 40, leaves: 1024, leaf: 1, turn: 20 * time.Millisecond},
	} {
		b.Run(c.String(), func(b *testing.B) {
			var res Result
			for i := range b.N {
				var err error
				if res, err = Swarm(c.config(uint64(i+1), -1)); err != nil {
					b.Fatal(err)
				}
			}
			b.Log(res)
			b.ReportMetric(res.Ratio(), "×bound")
			b.ReportMetric(res.SeedUp, "files/seed")
			b.ReportMetric(100*res.Waste, "%wasted")
		})
	}
}
