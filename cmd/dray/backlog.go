package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/jobs"
	"dray/jobs/journal"
	"dray/node"
)

// journalName is the file in a home that keeps its jobs.
const journalName = "jobs"

// backlog drives the queue of a home's jobs: see the contract in package jobs. A command that runs without a daemon uses one
// without workers.
type backlog struct {
	h      *house
	cfg    backlogConfig
	start  time.Time
	inputs chan func() // waits while the loop is behind
	done   chan struct{}
	ended  chan struct{}  // the loop is over
	wg     sync.WaitGroup // the loop and the attempts

	// Owned by the loop.
	queue   *jobs.Queue
	journal *journal.Journal
	working map[jobs.ID]*working
	noted   map[jobs.ID]string // the states that were told last, of jobs that have not ended
	drained []chan struct{}
	timer   *time.Timer
	closing bool
	up      map[dray.PeerID]bool // peers that are waited for and were connected when last looked at
}

// backlogConfig says how a backlog works.
type backlogConfig struct {
	// workers is as in [jobs.Config].
	workers int
	// quiet is for how long an attempt may bring nothing. If zero, silentFor.
	quiet time.Duration
	// first, most and patience are as in [jobs.Config].
	first, most, patience time.Duration
}

const (
	silentFor = 2 * time.Minute
	peersLook = time.Second // between looks at who is connected, while somebody is waited for
)

// working is an attempt under way.
type working struct {
	attempt uint32
	cancel  context.CancelCauseFunc
	note    atomic.Pointer[getNote]
}

// errHalted is why an attempt's context ended when its job was paused or cancelled.
var errHalted = errors.New("the job was paused or cancelled")

// openBacklog reads the home's journal and, if there are workers, begins to work at what is in it.
func openBacklog(h *house, cfg backlogConfig) (*backlog, error) {
	j, list, damaged, err := journal.Open(filepath.Join(h.home, journalName))
	if err != nil {
		return nil, err
	}
	if damaged > 0 {
		h.env.log().Warn("the journal of jobs had lines that could not be read", "lines", damaged)
	}
	if cfg.quiet == 0 {
		cfg.quiet = silentFor
	}
	b := &backlog{
		h: h, cfg: cfg, start: time.Now(), inputs: make(chan func(), 64), done: make(chan struct{}),
		ended:   make(chan struct{}),
		queue:   jobs.New(jobs.Config{Workers: cfg.workers, First: cfg.first, Most: cfg.most, Patience: cfg.patience}),
		journal: j, working: make(map[jobs.ID]*working), noted: make(map[jobs.ID]string),
		timer: time.NewTimer(0), up: make(map[dray.PeerID]bool),
	}
	b.queue.Restore(0, list)
	b.wg.Go(b.loop)
	return b, nil
}

// close tells the attempts to stop, and returns when none runs. What they did counts.
func (b *backlog) close() error {
	b.ask(func() {
		b.closing = true
		for _, w := range b.working {
			w.cancel(errStopping)
		}
	})
	b.ask(func() {}) // so that one attempt that ended at once has been heard
	close(b.done)
	b.wg.Wait()
	return b.journal.Close()
}

func (b *backlog) now() time.Duration { return time.Since(b.start) }

// loop owns the queue.
func (b *backlog) loop() {
	peers := time.NewTicker(peersLook)
	defer peers.Stop()
	defer b.timer.Stop()
	defer close(b.ended)
	done := b.done
	for done != nil || len(b.working) > 0 {
		select {
		case f := <-b.inputs:
			f()
		case <-b.timer.C:
			b.queue.Advance(b.now())
		case <-peers.C:
			b.look()
		case <-done:
			done = nil
		}
		_ = b.act()
	}
}

// ask runs f on the loop, does what the queue then says, and waits for both. The error is that of the journal.
func (b *backlog) ask(f func()) error {
	answered := make(chan error, 1)
	select {
	case b.inputs <- func() { f(); answered <- b.act() }:
	case <-b.done:
		return errStopping
	}
	select {
	case err := <-answered:
		return err
	case <-b.ended:
		return errStopping
	}
}

// act does what the queue says. Called on the loop.
func (b *backlog) act() error {
	r := b.queue.Ready()
	err := b.journal.Append(r.Records)
	if err != nil {
		// What was accepted before is in the journal; what ran again because this is not there would do nothing twice.
		b.h.env.log().Error("cannot record jobs", "err", err)
	}
	b.noteJobs(r.Records)
	for _, s := range r.Stops {
		if w := b.working[s.ID]; w != nil && w.attempt == s.Attempt {
			w.cancel(errHalted)
		}
	}
	for _, s := range r.Starts {
		if !b.closing {
			b.begin(s)
		}
	}
	if r.Drained {
		for _, c := range b.drained {
			close(c)
		}
		b.drained = nil
	}
	if r.Wake >= 0 {
		b.timer.Reset(max(r.Wake-b.now(), 0))
	}
	return err
}

// look tells the queue of peers that jobs wait for and that have become connected.
func (b *backlog) look() {
	waits := b.queue.Waits()
	if len(waits) == 0 {
		clear(b.up)
		return
	}
	connected := b.h.connectedPeers()
	for _, p := range waits {
		if connected[p] && !b.up[p] {
			b.queue.SourceUp(b.now(), p)
		}
	}
	b.up = connected
}

// begin begins an attempt.
func (b *backlog) begin(s jobs.Start) {
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &working{attempt: s.Attempt, cancel: cancel}
	b.working[s.Job.ID] = w
	b.wg.Go(func() {
		o := b.attempt(ctx, &s.Job, w)
		cancel(nil)
		b.inputs <- func() { // the loop goes on until it has heard of every attempt
			delete(b.working, s.Job.ID)
			b.queue.Ended(b.now(), s.Job.ID, s.Attempt, o)
		}
	})
}

// jobOrder is what a job is to do: the same request that a get makes.
type jobOrder = getRequest

// attempt works at a job once.
func (b *backlog) attempt(ctx context.Context, j *jobs.Job, w *working) jobs.Outcome {
	q, err := orderOf(j)
	if err != nil {
		return jobs.Outcome{Reason: jobs.Broken, Message: err.Error(), At: time.Now().Unix()}
	}
	q.Again = true
	q.origin = node.Origin{Who: fmt.Sprintf("job %d", j.ID), Name: j.Name}
	q.Peers = nil
	for _, s := range j.Sources {
		q.Peers = append(q.Peers, s.Addrs...)
	}
	ctx, silent, end := whileMoving(ctx, b.cfg.quiet)
	defer end()
	last := getNote{}
	_, err = getTarget(ctx, b.h, q, pipes[getNote]{note: func(n getNote) {
		if n.Event != "progress" {
			return
		}
		if n.Done != last.Done || n.fetched() != last.fetched() {
			silent.Reset(b.cfg.quiet)
		}
		last = n
		w.note.Store(&n)
	}})
	if err == nil {
		err = b.h.store.Sync(ctx) // and only then it is done
	}
	o := jobs.Outcome{Bytes: last.Done, Total: last.Total, Moved: last.fetched() > 0, At: time.Now().Unix()}
	for _, s := range last.Sources {
		if id, err := dray.ParsePeerID(s.Peer); err == nil {
			o.Gave = append(o.Gave, id)
		}
	}
	if err == nil {
		o.Finished = true
		return o
	}
	b.judge(ctx, j, &o, err)
	return o
}

// whileMoving returns a context that ends when nothing has reset its timer for so long.
func whileMoving(ctx context.Context, quiet time.Duration) (context.Context, *time.Timer, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(quiet, func() { cancel(errSilent) })
	return ctx, t, func() {
		t.Stop()
		cancel(nil)
	}
}

// errSilent is why an attempt's context ended when nothing came.
var errSilent = errors.New("nothing came for too long")

// judge says why an attempt failed, and who is to be spared for it.
func (b *backlog) judge(ctx context.Context, j *jobs.Job, o *jobs.Outcome, err error) {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errHalted), errors.Is(cause, errStopping), b.h.isStopping():
		return // it was told to
	case errors.Is(cause, errSilent):
		err = errSilent
		o.Reason = jobs.TimedOut
	default:
		o.Reason = reasonOf(err)
	}
	o.Message = shortError(err)
	connected := b.h.connectedPeers()
	var r *node.Refusal
	unheard := func(s jobs.Source) bool { return r != nil && !slices.Contains(r.By, s.Peer) }
	if o.Reason == jobs.Refused && errors.As(err, &r) && slices.ContainsFunc(b.sourcesOf(j), unheard) {
		o.Reason = jobs.Unreachable // those who were not heard may accept what others refuse
	}
	for _, s := range j.Sources {
		deaf := o.Reason == jobs.Unreachable && !connected[s.Peer]
		dumb := o.Reason == jobs.TimedOut && !o.Moved
		if deaf || dumb {
			o.Unreached = append(o.Unreached, s.Peer)
		}
	}
}

// sourcesOf returns all sources of a job of which an attempt was made, also those that it did not ask because they are away.
func (b *backlog) sourcesOf(j *jobs.Job) []jobs.Source {
	all := j.Sources
	_ = b.ask(func() { // at the end it does not matter any more
		if now, ok := b.queue.Job(j.ID); ok {
			all = now.Sources
		}
	})
	return all
}

// shortError is an error in one line, without what the same command would do.
func shortError(err error) string {
	var hint resumable
	if errors.As(err, &hint) {
		err = hint.err
	}
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return clipped(strings.Join(lines, "; "), 400)
}

func clipped(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// fetched is what sources gave.
func (n *getNote) fetched() int64 {
	var sum int64
	for _, s := range n.Sources {
		sum += s.Bytes
	}
	return sum
}

// connectedPeers is the set of those who are connected.
func (h *house) connectedPeers() map[dray.PeerID]bool {
	connected := make(map[dray.PeerID]bool)
	for _, p := range h.node.Peers() {
		connected[p.ID] = true
	}
	return connected
}

// jobs lists the jobs of a daemon; none without one.
func (h *house) jobs() (list []jobs.Job) {
	if h.backlog != nil {
		_ = h.backlog.ask(func() { list = h.backlog.queue.Jobs() })
	}
	return list
}

// growing lists the roots that are being fetched, or will be.
func (b *backlog) growing() (roots []cid.Cid, err error) {
	var list []jobs.Job
	if err := b.ask(func() { list = b.queue.Jobs() }); errors.Is(err, errStopping) {
		return nil, err // any other is the journal's, which says nothing about what is in the queue
	}
	for i := range list {
		if s := list[i].State; s == jobs.Done || s == jobs.Failed || s == jobs.Cancelled {
			continue
		}
		q, err := orderOf(&list[i])
		if err != nil {
			continue
		}
		if t, err := q.target(); err == nil && !slices.Contains(roots, t.root) {
			roots = append(roots, t.root)
		}
	}
	return roots, nil
}
