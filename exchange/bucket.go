package exchange

import "time"

const (
	// bucketTime is how long a bucket saves what is not used. It is what may pass at once after a rest, so over ten
	// seconds it adds 2 %; and a driver that comes later than this after a wake-up loses the rest.
	bucketTime = 200 * time.Millisecond
	// leastWake is how far ahead a wake-up lies at least: at high rates many messages pass in it.
	leastWake = time.Millisecond
)

// bucket is a token bucket: it lets through a number of bytes a second. A message passes when there is anything in the
// bucket, and takes all that it has, so that the bucket is left with a debt of at most that message: nothing is too
// large to pass, and over any time t no more passes than rate·t + bucketTime·rate + one message. The zero bucket lets
// everything through.
//
// Invariant: level <= bucketTime·rate.
type bucket struct {
	rate  float64 // bytes a second; 0 is unlimited
	level float64 // bytes that may pass now, as of at; negative is a debt
	at    time.Duration
}

// limits reports whether the bucket holds anything back, ever.
func (b *bucket) limits() bool { return b.rate > 0 }

// set changes the rate. What was earned at the old rate stays, up to what the new one lets be saved, and so does a
// debt. A bucket that had no limit begins empty.
func (b *bucket) set(now time.Duration, rate float64) {
	if rate <= 0 {
		*b = bucket{}
		return
	}
	if b.rate == 0 {
		b.level, b.at = 0, now
	}
	b.fill(now)
	b.rate = rate
	b.level = min(b.level, b.most())
}

// most is what the bucket holds when it is full.
func (b *bucket) most() float64 { return b.rate * bucketTime.Seconds() }

func (b *bucket) fill(now time.Duration) {
	if d := now - b.at; d > 0 {
		b.level = min(b.level+b.rate*d.Seconds(), b.most())
		b.at = now
	}
}

// open reports whether a message may pass now.
func (b *bucket) open(now time.Duration) bool {
	if b.rate == 0 {
		return true
	}
	b.fill(now)
	return b.level > 0
}

// full reports whether the bucket cannot save any more: nobody uses it.
func (b *bucket) full(now time.Duration) bool {
	if b.rate == 0 {
		return true
	}
	b.fill(now)
	return b.level >= b.most()
}

// take notes that n bytes pass. With a negative n bytes are put back that were taken and did not pass after all.
func (b *bucket) take(now time.Duration, n int64) {
	if b.rate > 0 {
		b.fill(now)
		b.level = min(b.level-float64(n), b.most())
	}
}

// opens returns when a bucket that is not open will be: not before, and at most leastWake late.
func (b *bucket) opens(now time.Duration) time.Duration {
	if b.open(now) {
		return now
	}
	// One byte more than nothing, or rounding could make it a wake-up too early, over and over.
	return now + max(time.Duration((1-b.level)/b.rate*float64(time.Second)), leastWake)
}

// fills returns when a bucket from which nobody takes will be full.
func (b *bucket) fills(now time.Duration) time.Duration {
	if b.full(now) {
		return now
	}
	return now + max(time.Duration((b.most()-b.level+1)/b.rate*float64(time.Second)), leastWake)
}

// meterTime is how long a meter looks back.
const meterTime = time.Second

// meter measures a rate over about the last second. The zero meter has seen nothing.
type meter struct {
	from  time.Duration // start of the present slot
	bytes int64         // in it
	last  int64         // in the slot before
}

func (m *meter) add(now time.Duration, n int64) {
	m.turn(now)
	m.bytes += n
}

func (m *meter) turn(now time.Duration) {
	switch d := now - m.from; {
	case d < meterTime:
	case d < 2*meterTime:
		m.from, m.last, m.bytes = m.from+meterTime, m.bytes, 0
	default:
		m.from, m.last, m.bytes = now, 0, 0
	}
}

// rate returns bytes a second: the present slot, and of the one before as much as is less than a slot ago.
func (m *meter) rate(now time.Duration) float64 {
	m.turn(now)
	old := 1 - (now-m.from).Seconds()/meterTime.Seconds()
	return (float64(m.bytes) + float64(m.last)*max(old, 0)) / meterTime.Seconds()
}
