package sim

import (
	"fmt"
	"slices"
	"time"

	"dray/exchange"
)

// Result is what a scenario measured.
type Result struct {
	// Trace is the hash of the whole history, and Turns how many times an engine was asked what to do.
	Trace uint64
	Turns int
	// Time is when the last fetch of the scenario ended, and Bound the least time that any protocol could need for it in a fluid
	// model: max(F/us, F/dmin, N·F/(us+Σui)) plus nothing for latency; zero where it has no meaning.
	Time, Bound time.Duration
	// Median and First are the completion times of the median and the fastest getter.
	First, Median time.Duration
	// SeedUp is the bytes of blocks that left the seeds, divided by the size of the file.
	SeedUp float64
	// Waste is the bytes of blocks that arrived and were not needed, divided by those that were.
	Waste float64
	// Takeovers and Stalls are sums over all hosts.
	Takeovers, Stalls int64
	// Worst is the longest that any want waited for its answer.
	Worst time.Duration
}

// Ratio returns how many times longer than the bound the scenario took.
func (r Result) Ratio() float64 {
	if r.Bound == 0 {
		return 0
	}
	return r.Time.Seconds() / r.Bound.Seconds()
}

// String returns the measurements on one line.
func (r Result) String() string {
	return fmt.Sprintf("%.3fs, %.2f × bound (first %.3fs, median %.3fs), seeds sent %.2f × file, waste %.2f %%, %d takeovers, %d stalls, worst wait %.3fs, %d turns",
		r.Time.Seconds(), r.Ratio(), r.First.Seconds(), r.Median.Seconds(), r.SeedUp, 100*r.Waste,
		r.Takeovers, r.Stalls, r.Worst.Seconds(), r.Turns)
}

// Bound returns the fluid bound for moving a file of the given size from seeds, who have it, to getters (Kumar and Ross 2006).
func Bound(size int64, seeds, getters []*Host) time.Duration {
	var us, ui, dmin float64
	for _, h := range seeds {
		us += h.cfg.Up
	}
	for i, h := range getters {
		ui += h.cfg.Up
		if i == 0 || h.cfg.Down < dmin {
			dmin = h.cfg.Down
		}
	}
	if us == 0 || dmin == 0 {
		return 0
	}
	f, n := float64(size), float64(len(getters))
	s := max(f/us, f/dmin, n*f/(us+ui))
	return time.Duration(s * float64(time.Second))
}

// measure sums up what happened to fetches of a file of the given size.
func (w *World) measure(size int64, seeds []*Host, fetches []*Fetch) Result {
	r := Result{Trace: w.Trace(), Turns: w.turns}
	var times []time.Duration
	for _, f := range fetches {
		if f.State == exchange.SessionCompleted {
			times = append(times, f.Ended-f.Started)
			r.Time = max(r.Time, f.Ended)
		}
		r.Worst = max(r.Worst, f.Worst)
	}
	if len(times) > 0 {
		slices.Sort(times)
		r.First, r.Median = times[0], times[len(times)/2]
	}
	var up int64
	for _, h := range seeds {
		up += h.total.BlockUp
	}
	if size > 0 {
		r.SeedUp = float64(up) / float64(size)
	}
	var wasted, down int64
	for _, h := range w.hosts {
		t := h.Totals()
		wasted += t.DuplicateBytes
		down += t.BlockDown
		r.Takeovers += t.Takeovers
		r.Stalls += t.Stalls
	}
	if useful := down - wasted; useful > 0 {
		r.Waste = float64(wasted) / float64(useful)
	}
	return r
}
