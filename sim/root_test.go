package sim

import (
	"fmt"
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

func BenchmarkRootSwarm(b *testing.B) {
	for _, c := range []struct{ getters, degree, blocks int }{{8, 0, 256}, {32, 0, 1024}, {32, 12, 1024}, {256, 24, 1024}} {
		b.Run(fmt.Sprintf("%d getters of degree %d", c.getters, c.degree), func(b *testing.B) {
			var res Result
			for i := range b.N {
				var err error
				res, err = Swarm(SwarmConfig{
					World:   Config{Seed: uint64(i + 1), Virtual: true, CheckEvery: -1, Thin: true, TurnDelay: 100 * time.Microsecond},
					Getters: c.getters, Degree: c.degree, Blocks: c.blocks, BlockSize: 1 << 20, Order: exchange.Rarest, Rooted: true,
					Host: HostConfig{Version: wire.Swap1},
				})
				if err != nil {
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
