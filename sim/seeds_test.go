package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run only this seed of the random scenario, and print its trace")
	seeds   = flag.Int("seeds", 1000, "number of seeds of the random scenario")
)

// TestSeeds runs the random scenario with many seeds, each twice: the histories must be the same, and end well. Checking does
// not change a history, so the second run goes without.
func TestSeeds(t *testing.T) {
	if *oneSeed != 0 {
		res, err := Soup(*oneSeed, Config{Text: os.Stdout})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(res)
		return
	}
	const shards = 8
	for k := range shards {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			bad := 0
			for seed := uint64(1 + k); seed <= uint64(*seeds) && bad < 4; seed += shards {
				a, err := Soup(seed, Config{})
				if err != nil {
					bad++
					t.Errorf("seed %d: %v\nreproduce: go test ./sim -run TestSeeds -seed %d", seed, err, seed)
					continue
				}
				b, err := Soup(seed, Config{CheckEvery: -1})
				if err != nil || a.Trace != b.Trace {
					bad++
					t.Errorf("seed %d: traces %x and %x (%v)\nreproduce: go test ./sim -run TestSeeds -seed %d",
						seed, a.Trace, b.Trace, err, seed)
				}
			}
		})
	}
}
