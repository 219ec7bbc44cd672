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

	"dray"
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
	// Name is "disk reads", "disk writes", "exchange" or what [Node.Watch] was given.
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

	probe func(context.Context) error // if nil, operations are noted by those who do them
	worst Condition                   // if not Unknown, no condition is worse
	tried time.Time                   // when the probe began that is under way, or zero
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
		if p.worst != Unknown {
			to = min(to, p.worst)
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
	if p.tried.IsZero() {
		return v
	}
	if silent := time.Since(p.tried); silent > checkEvery {
		// No check comes while it does not answer.
		v.Condition = max(v.Condition, Degraded)
		if silent > badChecks*checkEvery {
			v.Condition = Failed
		}
		if p.worst != Unknown {
			v.Condition = min(v.Condition, p.worst)
		}
		v.Since, v.Reason = p.tried, fmt.Sprintf("has not answered for %v", silent.Round(time.Second))
	}
	return v
}

// try asks something of the part and counts it.
func (p *vital) try(f func() error) {
	began := time.Now()
	p.mu.Lock()
	p.tried = began
	p.mu.Unlock()
	err := f()
	p.mu.Lock()
	p.tried = time.Time{}
	p.mu.Unlock()
	if p.probe != nil {
		p.note(time.Since(began), err)
	}
}

// vitals are the parts of a Node that are watched.
type vitals struct {
	reads, writes, exchange vital
	seen                    atomic.Pointer[cid.Cid] // a block that was in the store lately

	mu   sync.Mutex
	more []*vital // of others, see Watch; only appended to
}

func newVitals() *vitals {
	return &vitals{
		reads:    vital{v: Vital{Name: vitalDiskReads}},
		writes:   vital{v: Vital{Name: vitalDiskWrite}},
		exchange: vital{v: Vital{Name: vitalExchange}},
	}
}

func (v *vitals) all() []*vital {
	return append([]*vital{&v.reads, &v.writes, &v.exchange}, v.others()...)
}

func (v *vitals) others() []*vital {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.more[:len(v.more):len(v.more)]
}

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
		n.vitals.reads.try(func() error {
			began := time.Now()
			_, err := n.store.Get(n.ctx, *c)
			n.vitals.readDone(began, *c, err)
			return err
		})
	}
	if n.vitals.writes.idle() {
		n.vitals.writes.try(func() error {
			began := time.Now()
			err := n.store.Sync(context.WithoutCancel(n.ctx))
			n.vitals.wroteDone(began, err)
			return err
		})
	}
	for _, p := range n.vitals.others() {
		n.probePart(p)
	}
}

// probeTime is how long a probe's context lasts.
const probeTime = 10 * time.Second

func (n *Node) probePart(p *vital) {
	ctx, cancel := context.WithTimeout(n.ctx, probeTime)
	defer cancel()
	p.try(func() error { return p.probe(ctx) })
}

// Watch makes a part of the program around the Node one of its [Vital]s: probe is called now and at every check, on the Node's
// goroutine, and tells what is wrong. It must heed its context. The part is judged as the others are; it is never worse than
// worst, unless that is Unknown.
func (n *Node) Watch(name string, worst Condition, probe func(context.Context) error) {
	p := &vital{v: Vital{Name: name}, probe: probe, worst: worst}
	n.probePart(p)
	p.check(time.Now())
	n.vitals.mu.Lock()
	defer n.vitals.mu.Unlock()
	n.vitals.more = append(n.vitals.more, p)
}

// Alive returns nil when the Node's loop answers before ctx ends.
func (n *Node) Alive(ctx context.Context) error {
	answered := make(chan struct{})
	select {
	case n.inputs <- func() { close(answered) }:
	case <-n.done:
		return dray.ErrClosed
	case <-ctx.Done():
		return &dray.Error{Op: "alive", Err: fmt.Errorf("%w: the loop is behind", dray.ErrTimeout)}
	}
	select {
	case <-answered:
		return nil
	case <-n.ended:
		return dray.ErrClosed
	case <-ctx.Done():
		return &dray.Error{Op: "alive", Err: fmt.Errorf("%w: the loop does not answer", dray.ErrTimeout)}
	}
}

// Since is when the Node was made.
func (n *Node) Since() time.Time { return n.start }
