package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
)

// Condition is how a part of a Node fares. A worse one is greater, save that Unknown says nothing.
type Condition uint8

// The conditions.
const (
	// Unknown is a part of which nothing was seen yet.
	Unknown Condition = iota
	// Healthy parts do what they are asked.
	Healthy
	// Degraded parts fail or take long now and then, or have just begun to do better.
	Degraded
	// Unhealthy parts have done so in three checks in a row.
	Unhealthy
	// Failed parts have done nothing right in three checks in a row.
	Failed
)

var conditionNames = []string{"unknown", "healthy", "degraded", "unhealthy", "failed"}

// String returns the condition's name, in lower case.
func (c Condition) String() string {
	if int(c) < len(conditionNames) {
		return conditionNames[c]
	}
	return fmt.Sprintf("Condition(%d)", uint8(c))
}

// MarshalText returns the condition's name.
func (c Condition) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a condition's name.
func (c *Condition) UnmarshalText(text []byte) error {
	i := slices.Index(conditionNames, string(text))
	if i < 0 {
		return fmt.Errorf("%q is no condition", text)
	}
	*c = Condition(i)
	return nil
}

// Vital is one part of a Node, and how it fares. What is asked of a part is counted from check to check; a check is bad when
// more than a tenth of that failed, or took longer than a second on average.
type Vital struct {
	// Name is "disk reads", "disk writes" or "exchange".
	Name string
	// Condition is what the checks say.
	Condition Condition
	// Since is when the condition began.
	Since time.Time
	// Reason says why the condition is not Healthy, for people.
	Reason string
	// Operations, Errors and Latency (the mean) are those of the last check in which something was asked of the part.
	Operations, Errors int64
	Latency            time.Duration
	// History holds the last changes, oldest first, at most 32.
	History []VitalChange
}

// VitalChange is a change of a part's condition.
type VitalChange struct {
	At       time.Time
	From, To Condition
	Reason   string
}

const (
	checkEvery     = 30 * time.Second
	badChecks      = 3 // in a row, after which a part is Unhealthy
	goodChecks     = 2 // in a row, after which it is Healthy again
	latencyLimit   = time.Second
	errorShare     = 0.1
	vitalHistory   = 32
	vitalDiskReads = "disk reads"
	vitalDiskWrite = "disk writes"
	vitalExchange  = "exchange"
)

// vital judges one part. It is safe for concurrent use.
type vital struct {
	mu        sync.Mutex
	v         Vital
	ops, errs int64 // since the last check
	took      time.Duration
	last      error
	bad, good int // checks in a row
	dead      int // bad ones in which nothing went well
}

// note counts one operation.
func (p *vital) note(took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ops++
	p.took += took
	if err != nil {
		p.errs++
		p.last = err
	}
}

// idle reports whether nothing was asked of the part since the last check.
func (p *vital) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ops == 0
}

// check judges what was counted since the check before, and returns the change of condition, if there was one.
func (p *vital) check(now time.Time) (change VitalChange, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ops == 0 {
		return VitalChange{}, false
	}
	v := &p.v
	v.Operations, v.Errors, v.Latency = p.ops, p.errs, p.took/time.Duration(p.ops)
	dead := p.errs == p.ops
	reason := ""
	switch {
	case float64(p.errs) > errorShare*float64(p.ops):
		reason = fmt.Sprintf("%d of %d failed, the last with: %v", p.errs, p.ops, p.last)
	case v.Latency > latencyLimit:
		reason = fmt.Sprintf("each takes %v", v.Latency.Round(time.Millisecond))
	}
	p.ops, p.errs, p.took, p.last = 0, 0, 0, nil
	to := v.Condition
	if reason == "" {
		p.bad, p.dead = 0, 0
		p.good++
		switch {
		case to <= Healthy || p.good >= goodChecks:
			to = Healthy
		default:
			to, reason = Degraded, "recovering: one check was good again"
		}
	} else {
		p.good = 0
		p.bad++
		if p.dead++; !dead {
			p.dead = 0
		}
		switch {
		case p.dead >= badChecks:
			to = Failed
		case p.bad >= badChecks:
			to = max(to, Unhealthy)
		default:
			to = max(to, Degraded)
		}
	}
	v.Reason = reason
	if to == v.Condition {
		return VitalChange{}, false
	}
	change = VitalChange{At: now, From: v.Condition, To: to, Reason: reason}
	v.Condition, v.Since = to, now
	if len(v.History) == vitalHistory {
		v.History = slices.Delete(v.History, 0, 1)
	}
	v.History = append(v.History, change)
	return change, true
}

func (p *vital) snapshot() Vital {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.v
	v.History = slices.Clone(v.History)
	return v
}

// vitals are the parts of a Node that are watched.
type vitals struct {
	reads, writes, exchange vital
	seen                    atomic.Pointer[cid.Cid] // a block that was in the store lately
}

func newVitals() *vitals {
	return &vitals{
		reads:    vital{v: Vital{Name: vitalDiskReads}},
		writes:   vital{v: Vital{Name: vitalDiskWrite}},
		exchange: vital{v: Vital{Name: vitalExchange}},
	}
}

func (v *vitals) all() []*vital { return []*vital{&v.reads, &v.writes, &v.exchange} }

// readDone and wroteDone count what was asked of the disk. That something is not there is an answer, and so is the end of
// whoever asked.
func (v *vitals) readDone(began time.Time, c cid.Cid, err error) {
	switch {
	case err == nil:
		if v.seen.Load() == nil {
			v.seen.Store(&c)
		}
	case isMissing(err) || errors.Is(err, context.Canceled):
		if seen := v.seen.Load(); seen != nil && *seen == c {
			v.seen.Store(nil)
		}
		err = nil
	}
	v.reads.note(time.Since(began), err)
}

func (v *vitals) wroteDone(began time.Time, err error) { v.writes.note(time.Since(began), err) }

// Vitals tells how the parts of the Node fare, and how it fares as a whole: as badly as the worst of them. As long as
// nothing is known of any part, that is Unknown.
func (n *Node) Vitals() (whole Condition, parts []Vital) {
	for _, p := range n.vitals.all() {
		v := p.snapshot()
		parts = append(parts, v)
		whole = max(whole, v.Condition)
	}
	return whole, parts
}

// VitalChanged says that a part of the Node fares better or worse than before.
type VitalChanged struct {
	Name string
	VitalChange
}

// watchVitals checks the parts from time to time until the Node is closed. A part of which nothing was asked is tried.
func (n *Node) watchVitals() {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		n.tryVitals()
		for _, p := range n.vitals.all() {
			if c, changed := p.check(time.Now()); changed {
				n.do(func() { n.event(VitalChanged{p.v.Name, c}) })
			}
		}
		select {
		case <-tick.C:
		case <-n.done:
			return
		}
	}
}

// tryVitals asks something harmless of each part that was not needed for a while.
func (n *Node) tryVitals() {
	began := time.Now()
	if !n.ask(func() {}) {
		return
	}
	n.vitals.exchange.note(time.Since(began), nil)
	if c := n.vitals.seen.Load(); c != nil && n.vitals.reads.idle() {
		began = time.Now()
		_, err := n.store.Get(n.ctx, *c)
		n.vitals.readDone(began, *c, err)
	}
	if n.vitals.writes.idle() {
		began = time.Now()
		n.vitals.wroteDone(began, n.store.Sync(context.WithoutCancel(n.ctx)))
	}
}

// Since is when the Node was made.
func (n *Node) Since() time.Time { return n.start }
