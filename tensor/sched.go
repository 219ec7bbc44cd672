package tensor

import (
	"fmt"
	"math/bits"
	"time"
)

// Job is a piece of work that waits its turn: a leaf or a tensor to be fetched or sent.
type Job struct {
	// ID names the job; it is unique in its scheduler.
	ID uint64
	// Flow names on whose behalf the job is done: a session, a peer. Policies that are fair are fair between flows.
	Flow uint64
	// Size is the work in bytes. If zero or negative, it is unknown, and counts as [SchedulerConfig.UnknownSize].
	Size int64
	// Deadline is when the job should be done, on the clock of now. If zero, there is none.
	Deadline time.Duration
	// Weight is the job's share under WFQ relative to that of other flows, 1 to 65536. If zero, it is 1.
	Weight int64
}

// Scheduler decides which of the waiting jobs is next. Now is the time since a fixed start and never runs backwards; a
// scheduler has no clock of its own. The same calls give the same results. No job waits for ever, whatever arrives
// after it, as long as jobs are popped; each policy says why. A Scheduler is not safe for concurrent use.
type Scheduler interface {
	// Push adds a job. It reports false, and adds nothing, when the scheduler is full or holds a job with the same ID:
	// the caller keeps the job and tries again after a Pop.
	Push(job Job, now time.Duration) bool

	// Pop removes the next job and returns it, or false when there is none.
	Pop(now time.Duration) (Job, bool)

	// Remove takes a job out, and reports whether it was there.
	Remove(id uint64) bool

	// Len returns the number of jobs that wait.
	Len() int
}

// Policy names a way to schedule.
type Policy string

// The policies.
const (
	// FIFO serves in order of arrival.
	FIFO Policy = "fifo"
	// EDF serves the earliest deadline first. A job without one gets its arrival plus Patience, and a deadline that has
	// passed on arrival counts as the arrival; so whatever arrives after a job's deadline is served after it.
	EDF Policy = "edf"
	// SJF serves the shortest job first, where every job shrinks by Aging bytes for each second that it waits. As all
	// shrink alike, what arrives Size/Aging after a job is served after it.
	SJF Policy = "sjf"
	// WFQ shares the work between flows by weight (start-time fair queueing): each job starts, in virtual time, when
	// its flow's job before it ends or when it arrives, whichever is later, and lasts size / weight; the job that
	// starts first is next. Virtual time is the start of the last job served. While two flows have jobs, the work
	// done for them, by weight, differs by at most one job of each.
	WFQ Policy = "wfq"
	// MLFQ keeps each flow at a level: the highest level with jobs is served, flows of one level in turn, and a flow that
	// has used the allotment of its level goes down one. Every Boost all flows are back at the top.
	MLFQ Policy = "mlfq"
)

// SchedulerConfig tunes the policies. The zero value works.
type SchedulerConfig struct {
	// Limit is the most jobs that wait. If zero, 65,536.
	Limit int
	// Patience is the deadline, after arrival, of jobs without one, under EDF. If zero, one minute.
	Patience time.Duration
	// UnknownSize stands for sizes that are not known. If zero, 64 MiB, so that they are not served first.
	UnknownSize int64
	// Aging is how many bytes a job shrinks each second, under SJF, at most 1 GiB. If zero, 16 MiB.
	Aging int64
	// Levels is the number of levels of MLFQ, at most 16. If zero, 4.
	Levels int
	// Allotment is how many bytes a flow may use at the top level of MLFQ; each level below has twice that of the one
	// above. If zero, 4 MiB.
	Allotment int64
	// Boost is how often all flows of MLFQ return to the top. If zero, 10 seconds.
	Boost time.Duration
}

// maxSize bounds what one job counts, so that sums cannot overflow.
const maxSize = 1 << 40

func (c SchedulerConfig) withDefaults() SchedulerConfig {
	def := func(v *int64, d, most int64) {
		if *v <= 0 {
			*v = d
		}
		*v = min(*v, most)
	}
	limit, levels := int64(c.Limit), int64(c.Levels)
	def(&limit, 1<<16, 1<<31-1)
	def(&levels, 4, 16)
	c.Limit, c.Levels = int(limit), int(levels)
	def((*int64)(&c.Patience), int64(time.Minute), 1<<60)
	def((*int64)(&c.Boost), int64(10*time.Second), 1<<60)
	def(&c.UnknownSize, 64<<20, maxSize)
	def(&c.Aging, 16<<20, 1<<30)
	def(&c.Allotment, 4<<20, maxSize)
	return c
}

// size returns what a job counts.
func (c *SchedulerConfig) size(j Job) int64 {
	if j.Size <= 0 {
		return c.UnknownSize
	}
	return min(j.Size, maxSize)
}

// NewScheduler returns an empty scheduler, or an error for a policy that does not exist.
func NewScheduler(p Policy, c SchedulerConfig) (Scheduler, error) {
	c = c.withDefaults()
	switch p {
	case FIFO:
		return newKeyed(c, func(Job, time.Duration) int64 { return 0 }), nil
	case EDF:
		return newKeyed(c, func(j Job, now time.Duration) int64 {
			if j.Deadline == 0 {
				return int64(now + c.Patience)
			}
			return int64(max(j.Deadline, now))
		}), nil
	case SJF:
		return newKeyed(c, func(j Job, now time.Duration) int64 {
			// The size at the time zero, had the job waited since then: that order never changes.
			s, ns := int64(now/time.Second), int64(now%time.Second)
			return c.size(j) + s*c.Aging + ns*c.Aging/int64(time.Second)
		}), nil
	case WFQ:
		return &fairQueue{config: c, jobs: make(map[uint64]*waiting), flows: make(map[uint64]*flow)}, nil
	case MLFQ:
		return newFeedback(c), nil
	}
	return nil, fmt.Errorf("unknown policy %q; the policies are %s, %s, %s, %s and %s", string(p), FIFO, EDF, SJF, WFQ, MLFQ)
}

// waiting is a job in a scheduler.
type waiting struct {
	Job
	seq  uint64 // of arrival
	key  int64
	slot int // in keyed.heap

	// For the policies with flows.
	flow       *flow
	prev, next *waiting
}

// keyed serves by a key that is fixed on arrival, and by arrival among equals.
type keyed struct {
	config SchedulerConfig
	key    func(Job, time.Duration) int64
	jobs   map[uint64]*waiting
	heap   heap[*waiting]
	seq    uint64
}

func newKeyed(c SchedulerConfig, key func(Job, time.Duration) int64) *keyed {
	return &keyed{config: c, key: key, jobs: make(map[uint64]*waiting)}
}

func (k *keyed) Len() int { return len(k.heap) }

func (k *keyed) Push(job Job, now time.Duration) bool {
	if _, twice := k.jobs[job.ID]; twice || len(k.heap) >= k.config.Limit {
		return false
	}
	k.seq++
	w := &waiting{Job: job, seq: k.seq, key: k.key(job, now)}
	k.jobs[job.ID] = w
	k.heap.push(w)
	return true
}

func (k *keyed) Pop(time.Duration) (Job, bool) {
	if len(k.heap) == 0 {
		return Job{}, false
	}
	w := k.heap[0]
	k.remove(w)
	return w.Job, true
}

func (k *keyed) Remove(id uint64) bool {
	w, ok := k.jobs[id]
	if ok {
		k.remove(w)
	}
	return ok
}

func (k *keyed) remove(w *waiting) {
	delete(k.jobs, w.ID)
	k.heap.remove(w)
}

func (w *waiting) before(o *waiting) bool { return w.key < o.key || w.key == o.key && w.seq < o.seq }

func (w *waiting) place() *int { return &w.slot }

// cost is how long a job lasts in virtual time: at least 1, so that every job moves its flow on.
func cost(size, weight int64) int64 {
	if weight <= 0 {
		weight = 1
	}
	// 8 bits of fraction: sizes are at most 2^40.
	return max(size<<8/min(weight, 1<<16), 1)
}

// virtualEnd adds a cost to a virtual time and stays below overflow, after 2^55 bytes of weight 1.
func virtualEnd(start, cost int64) int64 {
	sum, carry := bits.Add64(uint64(start), uint64(cost), 0)
	if carry != 0 || sum > 1<<62 {
		return 1 << 62
	}
	return int64(sum)
}
