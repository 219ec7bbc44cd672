package jobs

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"dray"
)

// item is a job in a heap; it is out of date when the job's gen is another.
type item struct {
	e     *entry
	gen   uint32
	class Class         // the job's, when it was put in
	at    time.Duration // in timed
}

// items is a heap: by time, then class, then arrival.
type items []item

func (h items) Len() int { return len(h) }

func (h items) Less(i, k int) bool {
	a, b := &h[i], &h[k]
	switch {
	case a.at != b.at:
		return a.at < b.at
	case a.class != b.class:
		return a.class > b.class
	}
	return a.e.ID < b.e.ID
}

func (h items) Swap(i, k int) { h[i], h[k] = h[k], h[i] }

// Push is for package heap.
func (h *items) Push(x any) { *h = append(*h, x.(item)) }

// Pop is for package heap.
func (h *items) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = item{}
	*h = old[:len(old)-1]
	return x
}

// queue makes a job of the set Queued.
func (q *Queue) queue(e *entry) {
	e.State = Queued
	q.note(e)
	q.push(e)
}

// push puts a queued job in line.
func (q *Queue) push(e *entry) {
	e.gen++
	heap.Push(&q.ready, item{e: e, gen: e.gen, class: e.Class})
}

// wait makes a job wait.
func (q *Queue) wait(e *entry, until time.Duration) {
	e.gen++
	e.State = Waiting
	heap.Push(&q.timed, item{e: e, gen: e.gen, class: e.Class, at: until})
	q.note(e)
}

// Advance tells the queue what time it is.
func (q *Queue) Advance(now time.Duration) { q.dispatch(now) }

// dispatch gives jobs whose time has come to workers that are free.
func (q *Queue) dispatch(now time.Duration) {
	for len(q.timed) > 0 && q.timed[0].at <= now {
		it := heap.Pop(&q.timed).(item)
		if it.e.gen == it.gen && it.e.State == Waiting {
			it.e.State = Queued
			q.push(it.e)
		}
	}
	for q.running < q.cfg.Workers && len(q.ready) > 0 {
		it := heap.Pop(&q.ready).(item)
		if e := it.e; e.gen == it.gen && e.State == Queued {
			q.begin(now, e)
		}
	}
}

// place is what one attempt at a time may be at.
func (j *Job) place() string { return cmp.Or(j.Place, "\x00"+j.Key) }

// begin begins an attempt, unless the job's place is taken or all its sources are spared.
func (q *Queue) begin(now time.Duration, e *entry) {
	place := e.place()
	if _, taken := q.places[place]; taken {
		q.blocked[place] = append(q.blocked[place], e.ID)
		return
	}
	if e.hopeless() {
		e.Reason = Unreachable
		q.leave(e, Failed, q.at)
		return
	}
	ask, until := q.sources(now, e)
	if len(ask) == 0 && len(e.Sources) > 0 {
		e.Reason = Unreachable
		q.wait(e, until)
		return
	}
	q.places[place] = e.ID
	q.running++
	e.attempt++
	e.State, e.busy, e.began = Running, true, now
	job := e.clone()
	job.Sources = ask
	q.starts = append(q.starts, Start{Job: job, Attempt: e.attempt})
}

// sources returns those that may be asked now, or else when the first one may.
func (q *Queue) sources(now time.Duration, e *entry) (ask []Source, until time.Duration) {
	for _, s := range e.Sources {
		if s.Given {
			continue
		}
		if o := q.outages[s.Peer]; o != nil && o.until > now {
			if until == 0 || o.until < until {
				until = o.until
			}
			continue
		}
		ask = append(ask, s)
	}
	return ask, until
}

// Ended tells the queue how an attempt ended. One that the queue does not know of is not an error.
func (q *Queue) Ended(now time.Duration, id ID, attempt uint32, o Outcome) {
	q.at = max(q.at, o.At)
	e := q.attempt(id, attempt)
	if e == nil {
		q.dispatch(now)
		return
	}
	e.busy = false
	q.running--
	q.vacate(e)
	for _, p := range o.Gave {
		delete(q.outages, p)
	}
	if o.Moved {
		e.fails = 0
	}
	for _, p := range o.Unreached {
		if !slices.Contains(o.Gave, p) {
			q.failed(now, p, e.began)
		}
	}
	if e.State.active() {
		e.Bytes, e.Total = o.Bytes, o.Total
		q.settle(now, e, &o)
	}
	q.dispatch(now)
}

// attempt returns the job of an attempt that is under way, which may have been forgotten otherwise.
func (q *Queue) attempt(id ID, attempt uint32) *entry {
	e := q.jobs[id]
	if e == nil {
		for place, at := range q.places { // at most as many as there are workers
			if at == id {
				delete(q.places, place)
				q.running--
				q.unblock(place)
			}
		}
		return nil
	}
	if !e.busy || e.attempt != attempt {
		return nil
	}
	return e
}

// vacate frees the place of a job.
func (q *Queue) vacate(e *entry) {
	place := e.place()
	delete(q.places, place)
	q.unblock(place)
}

func (q *Queue) unblock(place string) {
	list := q.blocked[place]
	delete(q.blocked, place)
	for _, id := range list {
		if e := q.jobs[id]; e != nil && e.State == Queued {
			q.push(e)
		}
	}
}

// settle decides what becomes of a job of the set after an attempt.
func (q *Queue) settle(now time.Duration, e *entry, o *Outcome) {
	if o.Finished {
		e.Reason, e.Message = None, ""
		q.leave(e, Done, q.at)
		return
	}
	if e.State != Running {
		if e.State == Queued { // paused and resumed before the attempt had ended
			q.push(e)
		}
		q.note(e)
		return
	}
	if o.Reason == None {
		q.queue(e)
		return
	}
	e.Reason, e.Message = o.Reason, o.Message
	e.Tries++
	switch o.Reason {
	case NoSpace:
		q.wait(e, now+q.cfg.Space)
	case Unreachable, NotFound, TimedOut, Faulty:
		if e.fails++; e.fails == 1 {
			e.since = now
		}
		if now-e.since >= q.cfg.Patience || e.hopeless() {
			q.leave(e, Failed, q.at)
			return
		}
		q.wait(e, now+q.pause(e.fails))
	default:
		q.leave(e, Failed, q.at)
	}
}

// hopeless reports whether every source was given up.
func (e *entry) hopeless() bool {
	return len(e.Sources) > 0 && !slices.ContainsFunc(e.Sources, func(s Source) bool { return !s.Given })
}

// pause is how long to wait after so many failures.
func (q *Queue) pause(fails int) time.Duration {
	d := q.cfg.First
	for ; fails > 1 && d < q.cfg.Most; fails-- {
		d *= 2
	}
	return min(d, q.cfg.Most)
}

// failed notes that a source could not be reached by an attempt that began at a time. Attempts that were under way together
// count once. A source that has failed for too long is given up for every job that names it.
func (q *Queue) failed(now time.Duration, p dray.PeerID, began time.Duration) {
	o := q.outages[p]
	if o == nil {
		o = &outage{since: now}
		q.outages[p] = o
	} else if began < o.last {
		return
	}
	o.fails++
	o.last, o.until = now, now+q.pause(o.fails)
	if now-o.since < q.cfg.Patience {
		return
	}
	delete(q.outages, p)
	for _, e := range q.named(p) {
		for i := range e.Sources {
			e.Sources[i].Given = e.Sources[i].Given || e.Sources[i].Peer == p
		}
		q.note(e)
		if (e.State == Queued || e.State == Waiting) && e.hopeless() {
			e.Reason = Unreachable
			q.leave(e, Failed, q.at)
		}
	}
}

// named returns the jobs of the set that may ask a peer, in order.
func (q *Queue) named(p dray.PeerID) []*entry {
	var list []*entry
	for _, e := range q.jobs {
		if e.State.active() && e.open(p) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// SourceUp tells the queue that a peer became connected: what waited for it is tried now.
func (q *Queue) SourceUp(now time.Duration, p dray.PeerID) {
	delete(q.outages, p)
	for _, e := range q.named(p) {
		if e.State == Waiting && !e.Reason.local() {
			e.fails = 0
			q.queue(e)
		}
	}
	q.dispatch(now)
}

// Waits returns the peers that jobs wait for, in no particular order.
func (q *Queue) Waits() []dray.PeerID {
	seen := make(map[dray.PeerID]bool)
	for _, e := range q.jobs {
		if e.State != Waiting || e.Reason.local() {
			continue
		}
		for _, s := range e.Sources {
			seen[s.Peer] = true
		}
	}
	list := make([]dray.PeerID, 0, len(seen))
	for p := range seen {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

// SpaceFreed tells the queue that there may be room on the disk.
func (q *Queue) SpaceFreed(now time.Duration) {
	var list []*entry
	for _, e := range q.jobs {
		if e.State == Waiting && e.Reason == NoSpace {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
	for _, e := range list {
		q.queue(e)
	}
	q.dispatch(now)
}
