package transport

import (
	"math/rand/v2"
	"time"
)

// Doubling returns a schedule of waits: first for attempt 0, twice as long for each one after it up to most, each changed by
// up to a fifth at random, so that hosts that have lost a third at the same moment do not come back at the same moment.
func Doubling(first, most time.Duration) func(attempt int) time.Duration {
	return func(attempt int) time.Duration {
		wait := first
		for ; attempt > 0 && wait < most; attempt-- {
			wait *= 2
		}
		wait = min(wait, most)
		return wait + time.Duration((rand.Float64()*0.4-0.2)*float64(wait))
	}
}
