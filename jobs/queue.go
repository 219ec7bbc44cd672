package jobs

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"dray"
)

// The errors of a queue, for [errors.Is].
var (
	// ErrFull means that the set has as many jobs as it may have.
	ErrFull = errors.New("the queue of jobs is full")
	// ErrState means that a job is in a state in which that cannot be done.
	ErrState = errors.New("not possible now")
)

// Config bounds a queue. The zero value works.
type Config struct {
	// Workers is how many attempts may run at a time. If zero, 4; if negative, none: jobs are only kept.
	Workers int
	// Jobs is how many the set may have. If zero, 16,384.
	Jobs int
	// Ended is how many jobs that left the set are remembered, the newest ones. If zero, 1,000; if negative, none.
	Ended int
	// First is how long to wait after the first failure; it doubles up to Most. If zero, 20 s and 10 min.
	First, Most time.Duration
	// Space is how long to wait after the disk was full. If zero, 15 s.
	Space time.Duration
	// Patience is for how long a source, or all that a job asks, may fail with nothing coming in between, before it is
	// given up. If zero, 24 h.
	Patience time.Duration
}

func (c Config) withDefaults() Config {
	c.Workers = cmp.Or(c.Workers, 4)
	c.Jobs = cmp.Or(c.Jobs, 16384)
	c.Ended = cmp.Or(c.Ended, 1000)
	c.First = cmp.Or(c.First, 20*time.Second)
	c.Most = cmp.Or(c.Most, 10*time.Minute)
	c.Space = cmp.Or(c.Space, 15*time.Second)
	c.Patience = cmp.Or(c.Patience, 24*time.Hour)
	return c
}

// Start tells the driver to begin an attempt.
type Start struct {
	// Job is a copy; its Sources are those to ask now.
	Job Job
	// Attempt is to be named in Ended.
	Attempt uint32
}

// Stop tells the driver to end an attempt.
type Stop struct {
	ID      ID
	Attempt uint32
}

// Ready is what a driver has to do, see the contract in the package's documentation.
type Ready struct {
	// Records are jobs as they are now, each once.
	Records []Job
	Starts  []Start
	Stops   []Stop
	// Drained says that the set has become empty.
	Drained bool
	// Wake is when Advance is to be called, or negative if that is not needed.
	Wake time.Duration
}

// Outcome is how an attempt ended.
type Outcome struct {
	// Finished says that all is in place, and synced. Then Reason is None.
	Finished bool
	// Reason is why it is not. None, if it is not finished either, means that the attempt was told to stop.
	Reason  Reason
	Message string
	// Unreached are the sources that could not be reached, Gave those that gave something.
	Unreached, Gave []dray.PeerID
	// Bytes of Total are in place.
	Bytes, Total int64
	// Moved says that bytes came: then patience begins anew.
	Moved bool
	// At is the time of the day, in seconds of Unix time.
	At int64
}

// entry is a job in memory.
type entry struct {
	Job
	gen     uint32 // counts changes of state, so that old items of the heaps are known
	attempt uint32
	busy    bool // an attempt is under way, or told to stop
	began   time.Duration
	fails   int           // failures since something came
	since   time.Duration // the first of them
}

// outage is a source that could not be reached.
type outage struct {
	fails              int
	since, last, until time.Duration
}

// Queue decides about jobs. Make one with New. It is used by one goroutine. All its times are those that the driver gives,
// counted from wherever the driver likes; they must not go back.
type Queue struct {
	cfg     Config
	jobs    map[ID]*entry
	keys    map[string]*entry // of jobs in the set
	outages map[dray.PeerID]*outage
	places  map[string]ID   // at which an attempt is
	blocked map[string][]ID // jobs that wait for a place
	ready   items           // queued jobs, the next one first
	timed   items           // waiting jobs, by when
	next    ID
	running int
	active  int
	ended   []ID  // in the order in which they left the set
	at      int64 // the time of the day, as last heard

	dirty  []ID
	isNew  map[ID]bool // in dirty
	starts []Start
	stops  []Stop
	drain  bool
}

// New returns an empty queue.
func New(cfg Config) *Queue {
	return &Queue{
		cfg: cfg.withDefaults(), jobs: make(map[ID]*entry), keys: make(map[string]*entry), next: 1,
		outages: make(map[dray.PeerID]*outage), places: make(map[string]ID), blocked: make(map[string][]ID),
		isNew: make(map[ID]bool),
	}
}

// Restore fills an empty queue from records, of which a later one of the same job counts. What was running or waiting is
// queued, so that it is tried at once: the sources may be back.
func (q *Queue) Restore(now time.Duration, records []Job) {
	last := make(map[ID]*Job, len(records))
	for i := range records {
		j := &records[i]
		q.next = max(q.next, j.ID+1)
		if j.State == Gone {
			delete(last, j.ID)
			continue
		}
		last[j.ID] = j
	}
	ids := make([]ID, 0, len(last))
	for id := range last {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var over []*entry
	for _, id := range ids {
		e := &entry{Job: last[id].clone()}
		q.jobs[id] = e
		switch e.State {
		case Queued, Running, Waiting:
			for i := range e.Sources {
				e.Sources[i].Given = false
			}
			e.State = Queued
			q.push(e)
		case Paused:
		default:
			over = append(over, e)
			continue
		}
		q.active++
		q.keys[e.Key] = e
	}
	slices.SortStableFunc(over, func(a, b *entry) int { return cmp.Compare(a.Over, b.Over) })
	for _, e := range over {
		q.ended = append(q.ended, e.ID)
	}
	q.trim()
	q.dispatch(now)
}

// Add orders a job: its Key, Place, Name, Class, Order, Sources and Added count. When the set has one with that key, its
// sources are added to that one, and fresh is false. It returns [ErrFull] when the set is full; who fits in is not
// concerned.
func (q *Queue) Add(now time.Duration, j Job) (id ID, fresh bool, err error) {
	if j.Key == "" || j.Order != nil && !json.Valid(j.Order) {
		return 0, false, fmt.Errorf("%w: without key, or with an order that is not JSON", ErrRecord)
	}
	if e := q.keys[j.Key]; e != nil {
		q.merge(e, &j)
		q.dispatch(now)
		return e.ID, false, nil
	}
	if q.active >= q.cfg.Jobs {
		return 0, false, fmt.Errorf("%w: %d of %d", ErrFull, q.active, q.cfg.Jobs)
	}
	e := &entry{Job: Job{
		ID: q.next, Key: j.Key, Place: j.Place, Name: j.Name, Class: j.Class, Order: slices.Clone(j.Order), Added: j.Added,
		Total: j.Total, State: Queued,
	}}
	e.merge(j.Sources)
	q.next++
	q.jobs[e.ID], q.keys[e.Key] = e, e // in the set before any worker can see it
	q.active++
	q.note(e)
	q.push(e)
	q.dispatch(now)
	return e.ID, true, nil
}

// merge adds what a second order for a job says.
func (q *Queue) merge(e *entry, j *Job) {
	more := e.merge(j.Sources)
	if e.Name == "" && j.Name != "" {
		e.Name, more = j.Name, true
	}
	if j.Class > e.Class {
		e.Class, more = j.Class, true
		if e.State == Queued {
			q.push(e)
		}
	}
	if !more {
		return
	}
	q.note(e)
	if e.State == Waiting && !e.Reason.local() {
		q.queue(e) // there may be somebody new to ask
	}
}

// merge adds sources and reports whether there was anything new in them.
func (e *entry) merge(sources []Source) (more bool) {
	for _, s := range sources {
		i := slices.IndexFunc(e.Sources, func(o Source) bool { return o.Peer == s.Peer })
		if i < 0 {
			e.Sources, more = append(e.Sources, Source{Peer: s.Peer, Addrs: slices.Clone(s.Addrs)}), true
			continue
		}
		have := &e.Sources[i]
		if have.Given {
			have.Given, more = false, true
		}
		for _, a := range s.Addrs {
			if !slices.Contains(have.Addrs, a) {
				have.Addrs, more = append(slices.Clip(have.Addrs), a), true
			}
		}
	}
	return more
}

// find returns a job, or dray.ErrNotFound.
func (q *Queue) find(op string, id ID) (*entry, error) {
	if e := q.jobs[id]; e != nil {
		return e, nil
	}
	return nil, &dray.Error{Op: op, Err: fmt.Errorf("%w: there is no job %d", dray.ErrNotFound, id)}
}

func refuse(op string, e *entry) error {
	return &dray.Error{Op: op, Err: fmt.Errorf("%w: job %d is %v", ErrState, e.ID, e.State)}
}

// Pause keeps a job from being worked at until Resume. It stays in the set.
func (q *Queue) Pause(now time.Duration, id ID) error {
	e, err := q.find("pause", id)
	switch {
	case err != nil:
		return err
	case e.State == Paused:
		return nil
	case !e.State.active():
		return refuse("pause", e)
	}
	q.halt(e)
	e.State = Paused
	q.note(e)
	q.dispatch(now)
	return nil
}

// Resume queues a job that was paused.
func (q *Queue) Resume(now time.Duration, id ID) error {
	e, err := q.find("resume", id)
	switch {
	case err != nil:
		return err
	case e.State != Paused && e.State.active():
		return nil
	case e.State != Paused:
		return refuse("resume", e)
	}
	e.fails = 0
	q.queue(e)
	q.dispatch(now)
	return nil
}

// Cancel takes a job out of the set. What came of it is not touched.
func (q *Queue) Cancel(now time.Duration, id ID, at int64) error {
	q.at = max(q.at, at)
	e, err := q.find("cancel", id)
	switch {
	case err != nil:
		return err
	case e.State == Cancelled:
		return nil
	case e.State == Done:
		return refuse("cancel", e)
	case e.State == Failed: // out of the set already
		e.State = Cancelled
		q.note(e)
		return nil
	}
	q.halt(e)
	q.leave(e, Cancelled, q.at)
	q.dispatch(now)
	return nil
}

// Retry queues a job that failed, waits or was cancelled, with all its sources.
func (q *Queue) Retry(now time.Duration, id ID) error {
	e, err := q.find("retry", id)
	switch {
	case err != nil:
		return err
	case e.State == Queued || e.State == Running:
		return nil
	case e.State == Done:
		return refuse("retry", e)
	case !e.State.active():
		if other := q.keys[e.Key]; other != nil {
			return &dray.Error{Op: "retry", Err: fmt.Errorf("%w: job %d is for the same", ErrState, other.ID)}
		}
		if q.active >= q.cfg.Jobs {
			return &dray.Error{Op: "retry", Err: fmt.Errorf("%w: %d of %d", ErrFull, q.active, q.cfg.Jobs)}
		}
		q.ended = slices.DeleteFunc(q.ended, func(o ID) bool { return o == id })
		q.active++
		q.keys[e.Key] = e
	}
	for i := range e.Sources {
		e.Sources[i].Given = false
		delete(q.outages, e.Sources[i].Peer)
	}
	e.fails, e.Over, e.Reason, e.Message = 0, 0, None, ""
	q.queue(e)
	q.dispatch(now)
	return nil
}

// Clear forgets a job that is not in the set.
func (q *Queue) Clear(id ID) error {
	e, err := q.find("clear", id)
	switch {
	case err != nil:
		return err
	case e.State.active():
		return refuse("clear", e)
	}
	q.ended = slices.DeleteFunc(q.ended, func(o ID) bool { return o == id })
	q.forget(e)
	return nil
}

// Job returns a copy of a job, and whether there is one.
func (q *Queue) Job(id ID) (Job, bool) {
	e := q.jobs[id]
	if e == nil {
		return Job{}, false
	}
	return e.clone(), true
}

// Jobs returns copies of all jobs, those that came first first.
func (q *Queue) Jobs() []Job {
	list := make([]Job, 0, len(q.jobs))
	for _, e := range q.jobs {
		list = append(list, e.clone())
	}
	slices.SortFunc(list, func(a, b Job) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Active returns how many jobs the set has.
func (q *Queue) Active() int { return q.active }

// Until returns until when a source is spared because it could not be reached; zero if it is not.
func (q *Queue) Until(p dray.PeerID) time.Duration {
	if o := q.outages[p]; o != nil {
		return o.until
	}
	return 0
}

// Ready returns what has to be done since the last call.
func (q *Queue) Ready() Ready {
	r := Ready{Starts: q.starts, Stops: q.stops, Drained: q.drain, Wake: -1}
	for _, id := range q.dirty {
		if e := q.jobs[id]; e != nil {
			r.Records = append(r.Records, e.clone())
		} else {
			r.Records = append(r.Records, Job{ID: id, State: Gone})
		}
	}
	for len(q.timed) > 0 {
		if it := &q.timed[0]; it.e.gen == it.gen && it.e.State == Waiting {
			r.Wake = it.at
			break
		}
		heap.Pop(&q.timed)
	}
	q.dirty, q.starts, q.stops, q.drain = nil, nil, nil, false
	clear(q.isNew)
	return r
}

// note has a job recorded.
func (q *Queue) note(e *entry) { q.noteID(e.ID) }

func (q *Queue) noteID(id ID) {
	if !q.isNew[id] {
		q.isNew[id] = true
		q.dirty = append(q.dirty, id)
	}
}

// halt has an attempt told to stop, if there is one.
func (q *Queue) halt(e *entry) {
	e.gen++
	if e.busy {
		q.stops = append(q.stops, Stop{e.ID, e.attempt})
	}
}

// leave takes a job out of the set.
func (q *Queue) leave(e *entry, s State, at int64) {
	e.gen++
	e.State, e.Over = s, at
	delete(q.keys, e.Key)
	q.active--
	q.note(e)
	if q.active == 0 {
		q.drain = true
	}
	q.ended = append(q.ended, e.ID)
	q.trim()
}

// trim forgets the oldest jobs that have ended.
func (q *Queue) trim() {
	for len(q.ended) > max(q.cfg.Ended, 0) {
		id := q.ended[0]
		q.ended = q.ended[1:]
		q.forget(q.jobs[id])
	}
}

// forget drops a job that is not in the set. An attempt that was told to stop keeps its place until it ends.
func (q *Queue) forget(e *entry) {
	delete(q.jobs, e.ID)
	q.noteID(e.ID)
}
