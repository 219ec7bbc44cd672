package tensor

import (
	"cmp"
	"slices"
	"time"
)

// flow is what a fair policy knows of one flow. Its jobs wait in order of arrival.
type flow struct {
	id         uint64
	head, tail *waiting
	n          int

	// Under WFQ.
	start, end int64 // in virtual time: of the job at the head, and of the last one served
	slot       int   // in fairQueue.heap, while it has jobs

	// Under MLFQ.
	level int
	used  int64  // at this level
	turn  uint64 // flows of a level are served in this order
}

func (f *flow) push(w *waiting) {
	w.flow, w.prev = f, f.tail
	if f.tail == nil {
		f.head = w
	} else {
		f.tail.next = w
	}
	f.tail = w
	f.n++
}

func (f *flow) remove(w *waiting) {
	if w.prev == nil {
		f.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		f.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	f.n--
}

// fairQueue is the policy WFQ: start-time fair queueing (Goyal, Vin, Cheng 1996). Only the first job of each flow has
// a start; so a job that is removed costs its flow nothing.
type fairQueue struct {
	config SchedulerConfig
	jobs   map[uint64]*waiting
	flows  map[uint64]*flow
	heap   heap[*flow] // those with jobs
	now    int64       // virtual
	seq    uint64
}

func (q *fairQueue) Len() int { return len(q.jobs) }

func (q *fairQueue) Push(job Job, _ time.Duration) bool {
	if _, twice := q.jobs[job.ID]; twice || len(q.jobs) >= q.config.Limit {
		return false
	}
	f := q.flows[job.Flow]
	if f == nil {
		q.forget()
		f = &flow{id: job.Flow}
		q.flows[job.Flow] = f
	}
	q.seq++
	w := &waiting{Job: job, seq: q.seq, key: q.now} // key is the virtual time of arrival.
	q.jobs[job.ID] = w
	f.push(w)
	if f.n == 1 {
		f.begin()
		q.heap.push(f)
	}
	return true
}

func (q *fairQueue) Pop(time.Duration) (Job, bool) {
	if len(q.heap) == 0 {
		return Job{}, false
	}
	f := q.heap[0]
	w := f.head
	q.now = f.start
	f.end = virtualEnd(f.start, cost(q.config.size(w.Job), w.Weight))
	q.take(w)
	return w.Job, true
}

func (q *fairQueue) Remove(id uint64) bool {
	w, ok := q.jobs[id]
	if ok {
		q.take(w)
	}
	return ok
}

// take removes a job and puts its flow where it now belongs.
func (q *fairQueue) take(w *waiting) {
	f := w.flow
	delete(q.jobs, w.ID)
	f.remove(w)
	if f.n > 0 {
		f.begin()
		q.heap.fix(f)
		return
	}
	q.heap.remove(f)
	if f.end <= q.now {
		delete(q.flows, f.id)
	}
	if len(q.jobs) == 0 {
		// The end of a busy period: virtual time moves to the end of all work, and no flow owes anything.
		for _, f := range q.flows {
			q.now = max(q.now, f.end)
		}
		clear(q.flows)
	}
}

// forget keeps the number of flows in proportion to that of jobs: it drops those that have none, and their debts.
func (q *fairQueue) forget() {
	if len(q.flows) < 2*q.config.Limit {
		return
	}
	for id, f := range q.flows {
		if f.n == 0 {
			delete(q.flows, id)
		}
	}
}

// begin gives the flow's first job its start.
func (f *flow) begin() { f.start = max(f.head.key, f.end) }

func (f *flow) before(o *flow) bool {
	return f.start < o.start || f.start == o.start && f.head.seq < o.head.seq
}

func (f *flow) place() *int { return &f.slot }

// feedback is the policy MLFQ.
type feedback struct {
	config SchedulerConfig
	jobs   map[uint64]*waiting
	flows  map[uint64]*flow
	levels [][]*flow // those with jobs, in turn
	turn   uint64
	seq    uint64
	boost  time.Duration // when the last one was
}

func newFeedback(c SchedulerConfig) *feedback {
	return &feedback{
		config: c, jobs: make(map[uint64]*waiting), flows: make(map[uint64]*flow), levels: make([][]*flow, c.Levels),
	}
}

func (q *feedback) Len() int { return len(q.jobs) }

func (q *feedback) Push(job Job, now time.Duration) bool {
	q.advance(now)
	if _, twice := q.jobs[job.ID]; twice || len(q.jobs) >= q.config.Limit {
		return false
	}
	f := q.flows[job.Flow]
	if f == nil {
		if len(q.flows) >= 2*q.config.Limit {
			q.dropIdle()
		}
		f = &flow{id: job.Flow}
		q.flows[job.Flow] = f
	}
	q.seq++
	w := &waiting{Job: job, seq: q.seq}
	q.jobs[job.ID] = w
	f.push(w)
	if f.n == 1 {
		q.enqueue(f)
	}
	return true
}

func (q *feedback) Pop(now time.Duration) (Job, bool) {
	q.advance(now)
	for level := range q.levels {
		if len(q.levels[level]) == 0 {
			continue
		}
		f := q.levels[level][0]
		q.levels[level] = q.levels[level][1:]
		w := f.head
		delete(q.jobs, w.ID)
		f.remove(w)
		f.used += q.config.size(w.Job)
		if f.used >= q.config.Allotment<<level && level < len(q.levels)-1 {
			f.level, f.used = level+1, 0
		}
		if f.n > 0 {
			q.enqueue(f)
		}
		return w.Job, true
	}
	return Job{}, false
}

func (q *feedback) Remove(id uint64) bool {
	w, ok := q.jobs[id]
	if !ok {
		return false
	}
	f := w.flow
	delete(q.jobs, id)
	f.remove(w)
	if f.n == 0 {
		// Turns ascend within a level.
		level := q.levels[f.level]
		i, _ := slices.BinarySearchFunc(level, f.turn, func(g *flow, turn uint64) int { return cmp.Compare(g.turn, turn) })
		q.levels[f.level] = slices.Delete(level, i, i+1)
	}
	return true
}

func (q *feedback) enqueue(f *flow) {
	q.turn++
	f.turn = q.turn
	q.levels[f.level] = append(q.levels[f.level], f)
}

// advance brings all flows back to the top when it is time, those of higher levels first.
func (q *feedback) advance(now time.Duration) {
	if now-q.boost < q.config.Boost {
		return
	}
	q.boost = now
	q.dropIdle()
	for level := range q.levels {
		flows := q.levels[level]
		q.levels[level] = nil
		for _, f := range flows {
			f.level, f.used = 0, 0
			q.enqueue(f)
		}
	}
}

// dropIdle forgets flows without jobs.
func (q *feedback) dropIdle() {
	for id, f := range q.flows {
		if f.n == 0 {
			delete(q.flows, id)
		}
	}
}
