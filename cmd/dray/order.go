package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"dray"
	"dray/jobs"
	"dray/store/disk"
)

// How a get becomes a job, and what its end means for people.

// jobClasses are the urgencies that a user can name.
var jobClasses = map[string]jobs.Class{"low": jobs.Low, "normal": jobs.Normal, "high": jobs.High}

var classNames = []string{"low", "normal", "high"}

// orderRequest asks for a get to be made a job.
type orderRequest struct {
	getRequest
	Class jobs.Class `json:"class,omitempty"`
}

// ordered is a job that was accepted.
type ordered struct {
	Event string  `json:"event"` // "queued"
	Job   jobs.ID `json:"job"`
	CID   string  `json:"cid"`
	Path  string  `json:"path,omitempty"`
	// Fresh is false when there was such a job already, which then has the sources of both.
	Fresh bool `json:"fresh"`
	// Working says that a daemon works at it.
	Working bool `json:"working"`
}

var taskOrder = task[orderRequest, nothing, ordered]{name: "jobs/add", run: orderJob}

func orderJob(_ context.Context, h *house, q orderRequest, _ pipes[nothing]) (ordered, error) {
	r := ordered{Event: "queued", CID: q.Root, Path: q.Output}
	err := h.withBacklog(func(b *backlog) (err error) {
		r.Working = b.cfg.workers >= 0
		r.Job, r.Fresh, err = b.order(&q.getRequest, q.Class)
		return err
	})
	return r, err
}

// order makes a request a job. When it returns nil, the job survives whatever happens.
func (b *backlog) order(q *getRequest, class jobs.Class) (id jobs.ID, fresh bool, err error) {
	t, err := q.target()
	if err != nil {
		return 0, false, err
	}
	j := jobs.Job{Class: class, Place: q.Output, Name: filepath.Base(q.Output), Added: time.Now().Unix()}
	if q.InStore {
		j.Place, j.Name = "", t.root.String()
	}
	for _, p := range t.peers {
		s := jobs.Source{Peer: p.ID}
		for _, a := range p.Addrs {
			s.Addrs = append(s.Addrs, withPeer(a, p.ID))
		}
		j.Sources = append(j.Sources, s)
	}
	o := *q
	o.Peers = nil // they are the job's
	j.Order = encode(o)
	o.Timeout = 0
	j.Key = string(encode(o))
	var added error
	recorded := b.ask(func() { id, fresh, added = b.queue.Add(b.now(), j) })
	switch {
	case errors.Is(added, jobs.ErrFull):
		return 0, false, fmt.Errorf("%w; wait until some are done, or see `dray jobs`", added)
	case added != nil:
		return 0, false, added
	case recorded != nil:
		_ = b.ask(func() { _ = b.queue.Cancel(b.now(), id, time.Now().Unix()) }) // it is not promised, so it is not done
		return 0, false, recorded
	}
	return id, fresh, nil
}

// orderOf reads what a job is to do.
func orderOf(j *jobs.Job) (jobOrder, error) {
	var q jobOrder
	err := json.Unmarshal(j.Order, &q)
	return q, err
}

// withBacklog lends the home's jobs: those that the daemon works at, or just the list of them.
func (h *house) withBacklog(use func(*backlog) error) error {
	if h.backlog != nil {
		return use(h.backlog)
	}
	b, err := openBacklog(h, backlogConfig{workers: -1})
	if err != nil {
		return err
	}
	return errors.Join(use(b), b.close())
}

// reasonOf is why a get failed, as a job sees it.
func reasonOf(err error) jobs.Reason {
	var taken occupiedError
	for _, r := range []struct {
		is     bool
		reason jobs.Reason
	}{
		{errors.Is(err, dray.ErrNoSpace), jobs.NoSpace},
		{errors.Is(err, dray.ErrRefused), jobs.Refused},
		{errors.As(err, &taken) || errors.Is(err, fs.ErrExist), jobs.Exists},
		{isFaulty(err), jobs.Faulty},
		{errors.Is(err, disk.ErrGrowing), jobs.TimedOut}, // somebody else is at it
		{errors.Is(err, dray.ErrUnreachable), jobs.Unreachable},
		{errors.Is(err, dray.ErrTimeout), jobs.TimedOut},
		{errors.Is(err, dray.ErrNotFound) && !errors.Is(err, fs.ErrNotExist), jobs.NotFound},
		{errors.Is(err, dray.ErrCorrupt) || errors.Is(err, dray.ErrChanged), jobs.Corrupt},
	} {
		if r.is {
			return r.reason
		}
	}
	return jobs.Broken
}

// isFaulty reports whether an error is the disk's, or the system's, so that the same may go well later.
func isFaulty(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.EROFS, syscall.ENXIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// remedy says what people can do about a job.
func remedy(j *jobs.Job) string {
	again := fmt.Sprintf("`dray jobs retry %d` tries again", j.ID)
	switch {
	case j.State == jobs.Paused:
		return fmt.Sprintf("`dray jobs resume %d` goes on with it", j.ID)
	case j.State == jobs.Waiting && j.Reason == jobs.NoSpace:
		return "make room on the disk: it goes on by itself"
	case j.State == jobs.Waiting && j.Reason == jobs.Faulty:
		return "look after the disk: it goes on by itself"
	case j.State == jobs.Waiting:
		return fmt.Sprintf("it is tried again by itself; `dray jobs retry %d` does so now", j.ID)
	case j.State != jobs.Failed:
		return ""
	}
	switch j.Reason {
	case jobs.Unreachable, jobs.NotFound, jobs.TimedOut:
		return again + "; order the same with --from MULTIADDR to add a source"
	case jobs.Exists:
		return fmt.Sprintf("move it away, then `dray jobs retry %d`; or order it with another -o, or with --force", j.ID)
	case jobs.Refused:
		return "ask whoever shares it for a ticket that is valid, or to be made a member, and order it again"
	}
	return again + " once that is settled"
}
