package digest

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"dray"
)

// Config says how large a Pool is. The zero Config is a good one.
type Config struct {
	// Workers is how many goroutines hash. If zero, as many as Go runs at once (GOMAXPROCS).
	Workers int

	// QueueBytes bounds the data that waits to be hashed, not counting what workers have taken: each takes up to sixteen
	// jobs. If zero, 16 MiB. A single job larger than the bound is let in when nothing else waits.
	QueueBytes int
}

// Pool hashes jobs on several workers. Its one queue is bounded in bytes, first come first served within a hash function,
// and its policy is to make the caller wait ([Pool.Submit]) or to refuse ([Pool.TrySubmit]). It is safe for concurrent use.
type Pool struct {
	limit int
	lanes int // How many sha2-256 jobs it takes for the lanes to pay.
	wg    sync.WaitGroup

	bytes, busy atomic.Int64 // for Stats

	mu     sync.Mutex
	work   sync.Cond // A job was queued, or closed was set.
	room   sync.Cond // A job was taken, or closed was set.
	laned  queue     // Jobs for the lanes.
	single queue     // All other jobs.
	turn   bool      // Whose turn it is when both have jobs: true for laned.
	queued int       // The cost of all jobs in both queues.
	closed bool
}

// queue is a list of jobs linked through Job.next.
type queue struct {
	head, last *Job
	n          int
}

func (q *queue) push(j *Job) {
	j.next = nil
	q.n++
	if q.head == nil {
		q.head = j
	} else {
		q.last.next = j
	}
	q.last = j
}

func (q *queue) pop() *Job {
	j := q.head
	q.n--
	q.head, j.next = j.next, nil
	if q.head == nil {
		q.last = nil
	}
	return j
}

// NewPool starts a Pool. It must be closed.
func NewPool(config Config) *Pool { return newPool(config, lanesPay()) }

func newPool(config Config, lanes int) *Pool {
	workers := config.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{limit: config.QueueBytes, lanes: lanes}
	if p.limit <= 0 {
		p.limit = 16 << 20
	}
	p.work.L, p.room.L = &p.mu, &p.mu
	for range workers {
		p.wg.Go(p.worker)
	}
	return p
}

// Submit queues j and returns; j.Done is called when its result is known. While the queue is full it waits, for no longer
// than the hashing of what is queued takes. It returns [dray.ErrClosed], and does not call Done, after [Pool.Close].
func (p *Pool) Submit(j *Job) error {
	if !p.enqueue(j, true) {
		return &dray.Error{Op: "hash", CID: j.CID, Err: dray.ErrClosed}
	}
	return nil
}

// TrySubmit is Submit for callers that must not wait: it reports whether j was queued.
func (p *Pool) TrySubmit(j *Job) bool { return p.enqueue(j, false) }

func (p *Pool) enqueue(j *Job, wait bool) bool {
	laned := p.lanes < never && j.laneable()
	cost := j.cost()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && p.queued > 0 && p.queued+cost > p.limit {
		if !wait {
			return false
		}
		p.room.Wait()
	}
	if p.closed {
		return false
	}
	p.queued += cost
	if laned {
		p.laned.push(j)
	} else {
		p.single.push(j)
	}
	p.work.Signal()
	return true
}

// SumAll hashes jobs on the workers and returns when all have their results and their Done, where set, was called. It may be
// called by many goroutines at once. After [Pool.Close] the jobs that were not yet queued get [dray.ErrClosed], without
// Done.
func (p *Pool) SumAll(jobs []*Job) {
	var group sync.WaitGroup
	for _, j := range jobs {
		group.Add(1)
		j.group = &group
		if err := p.Submit(j); err != nil {
			j.group, j.Block, j.Err = nil, dray.Block{}, err
			group.Done()
		}
	}
	group.Wait()
}

// Close hashes what is queued, ends the workers and returns when they have ended. Closing twice does nothing more.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.work.Broadcast()
	p.room.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

// Stats returns how many bytes were hashed since the Pool was made, and how long its workers took together, calls of
// [Job.Done] included.
func (p *Pool) Stats() (bytes int64, busy time.Duration) {
	return p.bytes.Load(), time.Duration(p.busy.Load())
}

// worker takes jobs until the Pool is closed and empty.
func (p *Pool) worker() {
	s := getSummer()
	defer putSummer(s)
	var batch [laneCount]*Job
	for {
		n, laned := p.take(&batch)
		began, bytes := time.Now(), int64(0)
		for _, j := range batch[:n] {
			bytes += int64(len(j.Data))
		}
		switch {
		case n == 0:
			return
		case laned:
			s.batch(batch[:n], p.lanes)
		default:
			s.batch(batch[:n], never)
		}
		p.bytes.Add(bytes)
		p.busy.Add(int64(time.Since(began)))
		clear(batch[:n])
	}
}

// singleBatch is how many bytes of jobs that are hashed one by one a worker takes at a time: enough to make the lock cheap
// for tiny blocks, and little enough to leave work for the others.
const singleBatch = 64 << 10

// take waits for jobs and moves some of one queue into batch: up to sixteen for the lanes, else up to singleBatch bytes. It
// returns 0 when the Pool is closed and empty.
func (p *Pool) take(batch *[laneCount]*Job) (n int, laned bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.laned.head == nil && p.single.head == nil {
		if p.closed {
			return 0, false
		}
		p.work.Wait()
	}
	laned = p.laned.head != nil && (p.turn || p.single.head == nil)
	p.turn = !laned
	q, bytes := &p.single, singleBatch
	if laned {
		q = &p.laned
		// With less than a full register for it, hashing one by one on every core beats lanes on this one alone.
		if laned = q.n >= min(2*p.lanes, laneCount); laned {
			bytes = laneCount * dray.MaxBlockSize
		}
	}
	for n < len(batch) && q.head != nil && (n == 0 || bytes >= q.head.cost()) {
		batch[n] = q.pop()
		bytes -= batch[n].cost()
		p.queued -= batch[n].cost()
		n++
	}
	p.room.Broadcast()
	return n, laned
}
