package sim

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var (
	oneSeed  = flag.Uint64("seed", 0, "run only the random scenario of this seed, and print its trace")
	seeds    = flag.Int("seeds", 0, "number of seeds of the random scenario; if 0, it depends on DRAY_TEST and the race detector")
	shrinkIt = flag.Bool("shrink", false, "with -seed or -schedule: print the shortest schedule that still fails the same way")
	schedule = flag.String("schedule", "", "run only the scenario in this file, and print its trace")
)

// TestMain runs only the scenario that the command line names, if it names one.
func TestMain(m *testing.M) {
	flag.Parse()
	if *oneSeed != 0 || *schedule != "" {
		for name, value := range map[string]string{"test.run": "^TestSeeds$", "test.v": "true"} {
			if err := flag.Set(name, value); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(2)
			}
		}
	}
	os.Exit(m.Run())
}

// named returns the scenario that the command line names, or nil.
func named() (*Schedule, error) {
	switch {
	case *schedule != "":
		text, err := os.ReadFile(*schedule)
		if err != nil {
			return nil, err
		}
		return ParseSchedule(string(text))
	case *oneSeed != 0:
		return Plan(*oneSeed), nil
	}
	return nil, nil
}

// count says how many seeds are run.
func count() int {
	switch {
	case *seeds != 0:
		return *seeds
	case os.Getenv("DRAY_TEST") != "":
		return 2000
	}
	return usualSeeds
}

// TestSeeds runs the random scenario with many seeds, each twice: the histories must be the same, and end well. Checking does
// not change a history, so the second run goes without.
func TestSeeds(t *testing.T) {
	s, err := named()
	if err != nil {
		t.Fatal(err)
	}
	if s != nil {
		runNamed(t, s)
		return
	}
	const shards = 8
	for k := range shards {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			bad := 0
			for seed := uint64(1 + k); seed <= uint64(count()) && bad < 4; seed += shards {
				a, err := Soup(seed, Config{})
				if err != nil {
					bad++
					t.Errorf("seed %d: %v\nreproduce: go test ./sim -seed %d, with -shrink for the shortest", seed, err, seed)
					continue
				}
				b, err := Soup(seed, Config{CheckEvery: -1})
				if err != nil || a.Trace != b.Trace {
					bad++
					t.Errorf("seed %d: traces %x and %x (%v)\nreproduce: go test ./sim -seed %d",
						seed, a.Trace, b.Trace, err, seed)
				}
			}
		})
	}
}

func runNamed(t *testing.T, s *Schedule) {
	if *shrinkIt {
		short, runs := Shrink(s, failure(Config{}))
		fmt.Printf("# the shortest of %d schedules:\n%s", runs, short)
		if _, err := short.Run(Config{}); err != nil {
			t.Fatal(err)
		}
		return
	}
	fmt.Print(s)
	res, err := s.Run(Config{Text: os.Stdout})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(res)
}

// failure returns what plays a Schedule and says how it fails.
func failure(cfg Config) func(*Schedule) string {
	return func(s *Schedule) string {
		_, err := s.Run(cfg)
		return Failure(err)
	}
}
