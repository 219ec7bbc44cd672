package exchange

import "time"

const (
	firstWindow = 8 << 20  // bytes asked of a peer before its rate is known
	minWindow   = 1 << 20  // least window of a peer that works
	maxWindow   = 64 << 20 // most
	queueTime   = 40 * time.Millisecond
	rateSample  = 50 * time.Millisecond // shortest time over which a rate is measured
	assumedRTT  = 100 * time.Millisecond
	assumedRate = 4 << 20 // bytes a second, to rank peers that have delivered nothing yet

	stallFirst = 5 * time.Second // patience with a peer whose rate and round trip are not known
	stallMin   = time.Second
	stallMax   = 20 * time.Second
)

// flow measures one peer's delivery and sets its window: how many bytes may be asked of it and not yet delivered. The
// window follows bandwidth × delay, plus 40 ms of work so that the peer's queue never runs dry. Owned by the
// engine.
type flow struct {
	window int64
	fixed  int64 // window given by the configuration, or 0

	rtt    time.Duration // smallest seen from asking an idle peer to its first answer, slowly forgotten; 0 unknown
	rate   float64       // bytes a second while busy, smoothed; 0 unknown
	busy   time.Duration // start of the present sample
	got    int64         // bytes in the present sample
	asked  time.Duration // when an idle peer was asked, until it answers; else 0
	heard  time.Duration // last sign of life while something was asked of it
	filled bool          // the window was full since the last sample: more might have been delivered
	bytes  int64         // that were heard of, on the way to whole messages
	came   time.Duration // last block, or when an idle peer was asked
	cameAt int64         // bytes then
}

func (f *flow) reset(fixed int64) {
	*f = flow{window: firstWindow, fixed: fixed, rtt: f.rtt, rate: f.rate}
	if fixed > 0 {
		f.window = fixed
	} else if f.rate > 0 {
		f.setWindow()
	}
}

// begin notes that an idle peer was asked for a block.
func (f *flow) begin(now time.Duration) {
	f.asked, f.busy, f.got, f.heard = now, now, 0, now
	f.blockCame(now)
}

// blockCame notes that a block is complete, or that the wait for the first one begins.
func (f *flow) blockCame(now time.Duration) { f.came, f.cameAt = now, f.bytes }

// guessRate takes the bytes that have come of a first block for the rate, when they are enough to tell.
func (f *flow) guessRate(now time.Duration) {
	if d, bytes := now-f.came, f.bytes-f.cameAt; d >= crawlAfter && bytes >= crawlLeast {
		f.rate = float64(bytes) / d.Seconds()
		f.setWindow()
	}
}

// answered notes any answer, for the round trip.
func (f *flow) answered(now time.Duration) {
	f.heard = now
	if f.asked != 0 {
		d := max(now-f.asked, time.Microsecond)
		f.asked = 0
		if f.rtt == 0 || d < f.rtt {
			f.rtt = d
		} else {
			f.rtt += (d - f.rtt) / 16
		}
		f.busy, f.got = now, 0 // the wait for the first byte is not part of the rate
	}
}

// delivered notes that n bytes asked for have arrived; more says whether others are still expected.
func (f *flow) delivered(now time.Duration, n int64, more bool) {
	first, asked := f.asked != 0, f.asked
	f.answered(now)
	if first {
		// One answer alone, wait included, shows how slow the peer is at worst. Without this, a peer once thought slow would be
		// asked for one block at a time, and could never show better.
		if least := float64(n) / max(now-asked, time.Microsecond).Seconds(); f.rate > 0 && least > f.rate {
			f.rate = least
			f.setWindow()
		}
		return
	}
	f.got += n
	if d := now - f.busy; d >= max(rateSample, f.rtt/2) {
		sample := float64(f.got) / d.Seconds()
		if f.rate == 0 {
			f.rate = sample
		} else {
			f.rate += 0.3 * (sample - f.rate)
		}
		f.busy, f.got = now, 0
		f.setWindow()
	} else if f.rate == 0 && f.filled && f.fixed == 0 {
		f.window = min(f.window+n, maxWindow)
	}
	f.filled = f.filled && more
}

func (f *flow) setWindow() {
	if f.fixed > 0 {
		return
	}
	w := int64(f.rate * (2*f.rtt + queueTime).Seconds())
	f.window = min(max(w, minWindow), maxWindow)
}

// expect returns how long a block asked now would take to begin arriving, with ahead bytes asked before it.
func (f *flow) expect(ahead int64) time.Duration {
	rtt, rate := f.rtt, f.rate
	if rtt == 0 {
		rtt = assumedRTT
	}
	if rate <= 0 {
		rate = assumedRate
	}
	return rtt + time.Duration(float64(ahead)/rate*float64(time.Second))
}

// patience returns how long the peer may be silent, while something is asked of it, before it counts as stalled.
func (f *flow) patience() time.Duration {
	if f.rtt == 0 {
		return stallFirst
	}
	d := 8 * f.rtt
	if f.rate > 0 {
		d += time.Duration(float64(1<<20) / f.rate * float64(time.Second))
	} else {
		d += stallFirst
	}
	return min(max(d, stallMin), stallMax)
}
