package digest

import (
	"crypto/sha256"
	"math"
	"sync"
	"time"

	"dray"
)

// summer is what one goroutine needs to hash: scratch for each way of doing it.
type summer struct {
	lanes  lanes
	blake3 blake3
	digest [dray.MaxDigest]byte // Here and not on the stack, from where the errors that show it would move it.
	laned  [4 * laneCount]*Job  // More than lanes, so that a lane that ends early has a next job.
}

var summers = sync.Pool{New: func() any { return new(summer) }}

func getSummer() *summer  { return summers.Get().(*summer) }
func putSummer(s *summer) { summers.Put(s) }

// SumAll hashes jobs on the calling goroutine and returns when all have their results and their Done, where set, was
// called. It is safe for concurrent use with different jobs.
func SumAll(jobs []*Job) { sumAll(jobs, lanesPay()) }

// sumAll is SumAll with lanes used for sha2-256 when there are at least minLanes such jobs.
func sumAll(jobs []*Job, minLanes int) {
	s := getSummer()
	defer putSummer(s)
	if minLanes >= never {
		s.batch(jobs, never)
		return
	}
	n := 0
	for _, j := range jobs {
		if !j.laneable() {
			j.sum(s)
			j.finish()
			continue
		}
		s.laned[n] = j
		if n++; n == len(s.laned) {
			s.batch(s.laned[:n], minLanes)
			n = 0
		}
	}
	s.batch(s.laned[:n], minLanes)
	clear(s.laned[:])
}

// batch hashes jobs, all of them laneable if minLanes is not never.
func (s *summer) batch(jobs []*Job, minLanes int) {
	if len(jobs) >= minLanes {
		s.lanes.run(jobs, minLanes)
		return
	}
	for _, j := range jobs {
		j.sum(s)
		j.finish()
	}
}

// lanesPay returns how many lanes must be busy for the kernel to be faster than the standard library, never if it is not.
// It is measured, once, because neither the CPU's name nor its features say: SHA instructions take the place of four lanes
// on some CPUs, of seven on others. It takes about 0.2 ms, and its outcome changes nothing but speed.
var lanesPay = sync.OnceValue(func() int {
	if !kernelWorks {
		return never
	}
	data := make([]byte, stepBlocks*blockSize)
	alone := fastest(func() { sha256.Sum256(data) })

	var l lanes
	for i := range laneCount {
		l.inputs[i] = data
	}
	for i := range l.masks {
		l.masks[i] = 1<<laneCount - 1
	}
	together := fastest(func() { runKernel(&l.state, &l.scratch, l.masks[:], &l.inputs) })

	// The kernel takes the same time however many lanes are busy. One lane more than break-even, or nothing is gained. On a
	// CPU with SHA instructions it is half of the lanes at least, lest a disturbed measurement choose the slower way.
	n := int(math.Ceil(float64(together)/float64(alone))) + 1
	if shaInstructions {
		n = max(n, laneCount/2)
	}
	return min(n, never)
})

// fastest returns how long f takes when nothing disturbs it.
func fastest(f func()) time.Duration {
	best := time.Duration(math.MaxInt64)
	for range 4 {
		start := time.Now()
		f()
		best = min(best, max(time.Since(start), 1))
	}
	return best
}
