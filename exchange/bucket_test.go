package exchange

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestBucketBound lets messages of random sizes pass whenever the bucket is open, at random times: over any stretch no
// more passes than the rate, what a rest may save and one message; and in the long run as much as the rate.
func TestBucketBound(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		rate := math.Exp(r.Float64()*math.Log(1e9/1e3)) * 1e3 // 1 kB/s to 1 GB/s
		size := int64(1) << r.IntN(23)
		var b bucket
		var now time.Duration
		b.set(now, rate)
		type pass struct {
			at   time.Duration
			sum  int64 // before it
			size int64
		}
		var passed []pass
		var sum int64
		for len(passed) < 2000 {
			if b.open(now) {
				n := 1 + r.Int64N(size)
				passed = append(passed, pass{now, sum, n})
				b.take(now, n)
				sum += n
				continue
			}
			at := b.opens(now)
			if at <= now {
				t.Fatalf("seed %d: closed, and opens at %v, which is not after %v", seed, at, now)
			}
			if r.IntN(10) == 0 { // somebody else calls before
				now += time.Duration(r.Int64N(int64(at - now)))
				continue
			}
			now = at
			if !b.open(now) {
				t.Fatalf("seed %d: not open when it said, level %v", seed, b.level)
			}
			if r.IntN(100) == 0 {
				now += time.Duration(r.ExpFloat64() * float64(time.Second)) // a rest
			}
		}
		saved := rate * bucketTime.Seconds()
		for k := 0; k < 4000; k++ {
			i, j := r.IntN(len(passed)), r.IntN(len(passed))
			if i > j {
				i, j = j, i
			}
			n := float64(passed[j].sum + passed[j].size - passed[i].sum)
			most := rate*(passed[j].at-passed[i].at).Seconds() + saved + float64(passed[j].size)
			if n > most*(1+1e-9)+1 {
				t.Fatalf("seed %d: %.0f bytes passed between %v and %v; at %.0f a second no more than %.0f may",
					seed, n, passed[i].at, passed[j].at, rate, most)
			}
		}
	}
}

// TestBucketLongRun uses all that a bucket gives: within a hundredth of the rate, for messages much smaller and much
// larger than what it saves.
func TestBucketLongRun(t *testing.T) {
	for _, rate := range []float64{1e4, 1e6, 1e8, 2e9} {
		for _, size := range []int64{1000, 64 << 10, 4 << 20} {
			var b bucket
			b.set(0, rate)
			var now time.Duration
			var sum int64
			each := time.Duration(float64(size) / rate * 1e9)
			end := max(min(10*time.Second, 2e6*each), 200*each)
			wakes := 0
			for now < end {
				for b.open(now) {
					b.take(now, size)
					sum += size
				}
				now = b.opens(now)
				wakes++
			}
			got := float64(sum) / now.Seconds()
			if off := math.Abs(got/rate - 1); off > 0.01 {
				t.Errorf("messages of %d at %.0f a second: %.0f a second", size, rate, got)
			}
			if most := int(end/leastWake) + 2; wakes > most {
				t.Errorf("messages of %d at %.0f a second: %d wake-ups in %v", size, rate, wakes, end)
			}
		}
	}
}

// TestBucketLarge: a message a hundred times what the bucket saves passes at once, and then its debt is paid.
func TestBucketLarge(t *testing.T) {
	var b bucket
	b.set(0, 1e6)
	now := 10 * time.Second
	size := int64(100 * b.most())
	if !b.open(now) {
		t.Fatal("a rested bucket is closed")
	}
	b.take(now, size)
	if at := b.opens(now); at < now+19*time.Second || at > now+20*time.Second {
		t.Errorf("a debt of 19.8 s is paid after %v", at-now)
	}
}

// TestBucketLive changes the rate while it is used: nothing that was earned is lost and nothing is earned by changing.
func TestBucketLive(t *testing.T) {
	var b bucket
	now := time.Second
	if !b.open(now) || b.limits() {
		t.Error("the zero bucket limits")
	}
	b.take(now, 1<<40)
	b.set(now, 1e6)
	if b.open(now) {
		t.Error("what passed without a limit left something to pass")
	}
	now += 100 * time.Millisecond // 100 kB earned
	for range 50 {
		b.set(now, 2e6)
		b.set(now, 1e6)
	}
	b.take(now, 100e3)
	if math.Abs(b.level) > 1 {
		t.Errorf("after 100 ms at 1 MB/s and fifty changes 100 kB leave %v", b.level)
	}
	b.take(now, 1e6)
	b.set(now, 1e7)
	if at := b.opens(now) - now; at < 100*time.Millisecond || at > 102*time.Millisecond {
		t.Errorf("a debt of 1 MB is paid at 10 MB/s after %v", at)
	}
	now += time.Minute
	b.set(now, 1e5)
	if b.level > 1e5*bucketTime.Seconds()+1 {
		t.Errorf("%v was saved at the higher rate and kept", b.level)
	}
	b.take(now, -1<<30)
	if b.level > b.most() {
		t.Error("what is given back mints")
	}
	b.set(now, 0)
	if b.limits() || !b.open(now) {
		t.Error("no limit, and closed")
	}
}

func TestBucketAllocates(t *testing.T) {
	var b bucket
	var m meter
	b.set(0, 1e9)
	now := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += time.Microsecond
		if b.open(now) {
			b.take(now, 1000)
		}
		b.opens(now)
		m.add(now, 1000)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMeter(t *testing.T) {
	var m meter
	now := 5 * time.Second
	for range 3000 {
		now += time.Millisecond
		m.add(now, 1000)
	}
	if r := m.rate(now); math.Abs(r/1e6-1) > 0.01 {
		t.Errorf("a million bytes a second are measured as %.0f", r)
	}
	if r := m.rate(now + 3*time.Second); r != 0 {
		t.Errorf("after three seconds of nothing, %.0f", r)
	}
}
