package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray"
	"dray/jobs"
)

var cmdJobs = &cobra.Command{
	Use:   "jobs",
	Short: "list the gets that the daemon does, and steer them",
	Long: `Jobs lists what was ordered with ` + "`dray get --detach`" + `: what runs, with its progress, what waits and for what, what failed and
why, and what is done. The daemon (` + "`dray serve`" + `) works at them; they survive its end, however it comes, and are tried again
when a source is back.

With --wait it ends when no job is queued, running, waiting or paused any more, and exits with 1 if the list has one that
failed; ` + "`dray jobs clear all`" + ` forgets what has ended.

With --json each job is a line {"job":…,"cid":…,"path":…,"state":…,"reason":…,"message":…,"remedy":…,"tries":…,"done":…,
"total":…,"rate":…,"eta":…,"sources":[{"peer":…,"bytes":…,"given_up":…,"spared":…}],"waiting":[…],…}, where spared is for how many
seconds a source is not tried; --wait ends with {"event":"drained","done":…,"failed":…,"cancelled":…}.`,
	Example: `  dray jobs
  dray jobs --wait
  dray jobs pause 3
  dray jobs retry all`,
}

func newJobs(e *env) *cobra.Command {
	var wait bool
	list := func(ctx context.Context, e *env, _ []string) error {
		if wait {
			return runJobsWait(ctx, e)
		}
		return runJobsLs(ctx, e)
	}
	c := bind(e, cmdJobs, list)
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(c, args[0])
		}
		return nil
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until no job is left to be done")
	c.AddCommand(bind(e, &cobra.Command{
		Use: "ls", Short: "list the jobs", Long: "Ls is what jobs does without more words.", Example: "  dray jobs ls --json",
		Args: arguments(0, 0, ""),
	}, func(ctx context.Context, e *env, _ []string) error { return runJobsLs(ctx, e) }))
	for _, v := range jobVerbs {
		c.AddCommand(bind(e, &cobra.Command{
			Use: v.name + " JOB…", Short: v.short, Long: v.long, Example: "  dray jobs " + v.name + " 3\n  dray jobs " + v.name + " all",
			Args: arguments(1, 1<<20, "a JOB"),
		}, func(ctx context.Context, e *env, args []string) error { return runJobsSteer(ctx, e, v.name, args) }))
	}
	return c
}

// jobVerb is a thing that can be done to jobs.
type jobVerb struct {
	name, short, long string
	do                func(q *jobs.Queue, now time.Duration, id jobs.ID) error
	// fits says which jobs are meant by "all".
	fits func(jobs.State) bool
}

var jobVerbs = []jobVerb{
	{
		"pause", "keep jobs from being worked at", "Pause stops jobs, named by number or all of them, and keeps what came of them.",
		func(q *jobs.Queue, now time.Duration, id jobs.ID) error { return q.Pause(now, id) },
		func(s jobs.State) bool { return s == jobs.Queued || s == jobs.Running || s == jobs.Waiting },
	},
	{
		"resume", "go on with paused jobs", "Resume queues jobs that were paused.",
		func(q *jobs.Queue, now time.Duration, id jobs.ID) error { return q.Resume(now, id) },
		func(s jobs.State) bool { return s == jobs.Paused },
	},
	{
		"cancel", "give jobs up", "Cancel takes jobs out of the queue. What came of them stays where it is: the same get continues from there.",
		func(q *jobs.Queue, now time.Duration, id jobs.ID) error { return q.Cancel(now, id, time.Now().Unix()) },
		func(s jobs.State) bool { return s != jobs.Done && s != jobs.Failed && s != jobs.Cancelled },
	},
	{
		"retry", "try jobs again now", "Retry queues jobs that failed, wait or were cancelled, with all their sources. All means those that failed or wait.",
		func(q *jobs.Queue, now time.Duration, id jobs.ID) error { return q.Retry(now, id) },
		func(s jobs.State) bool { return s == jobs.Failed || s == jobs.Waiting },
	},
	{
		"clear", "forget jobs that have ended", "Clear takes jobs that are done, failed or cancelled out of the list.",
		func(q *jobs.Queue, _ time.Duration, id jobs.ID) error { return q.Clear(id) },
		func(s jobs.State) bool { return s == jobs.Done || s == jobs.Failed || s == jobs.Cancelled },
	},
}

// steerRequest asks for something to be done to jobs.
type steerRequest struct {
	Verb string    `json:"verb"`
	All  bool      `json:"all,omitempty"`
	Jobs []jobs.ID `json:"jobs,omitempty"`
}

// listedJob is a job as it is listed.
type listedJob struct {
	Job     jobs.ID     `json:"job"`
	CID     string      `json:"cid"`
	Path    string      `json:"path,omitempty"`
	State   jobs.State  `json:"state"`
	Reason  jobs.Reason `json:"reason,omitempty"`
	Message string      `json:"message,omitempty"`
	Remedy  string      `json:"remedy,omitempty"`
	Class   jobs.Class  `json:"class,omitempty"`
	Tries   int         `json:"tries,omitempty"`
	Added   time.Time   `json:"added"`
	Over    *time.Time  `json:"over,omitempty"`
	Done    int64       `json:"done"`
	Total   int64       `json:"total"`
	// Rate is in bytes a second and ETA in seconds; both only while it runs.
	Rate    float64     `json:"rate,omitempty"`
	ETA     float64     `json:"eta,omitempty"`
	Sources []jobSource `json:"sources"`
	// Waiting says what it waits for.
	Waiting []string `json:"waiting,omitempty"`
}

// jobSource is one peer that a job may ask, or asked.
type jobSource struct {
	Peer  string `json:"peer"`
	Bytes int64  `json:"bytes"`
	// GivenUp says that it will not be asked again, unless the job is retried.
	GivenUp bool `json:"given_up,omitempty"`
	// Spared is for how many seconds it is not asked.
	Spared float64 `json:"spared,omitempty"`
}

// drainNote says once, when a wait begins, how many jobs are left.
type drainNote struct {
	Left int `json:"left"`
}

// drainedResult is the end of a wait, with how many of the jobs in the list ended in which way.
type drainedResult struct {
	Event     string `json:"event"` // "drained"
	Done      int    `json:"done"`
	Failed    int    `json:"failed"`
	Cancelled int    `json:"cancelled"`
}

var (
	taskJobs      = task[nothing, nothing, []listedJob]{name: "jobs", run: listJobs}
	taskJobsSteer = task[steerRequest, nothing, []jobs.ID]{name: "jobs/steer", run: steerJobs}
	taskJobsWait  = task[nothing, drainNote, drainedResult]{name: "jobs/wait", run: waitJobs}
)

func runJobsLs(ctx context.Context, e *env) error {
	list, err := taskJobs.with(ctx, e, nothing{}, pipes[nothing]{})
	if err != nil {
		return err
	}
	for i := range list {
		if e.json {
			if err := e.emit(&list[i]); err != nil {
				return err
			}
			continue
		}
		list[i].print(e)
	}
	return nil
}

func (j *listedJob) print(e *env) {
	what := j.Path
	if what == "" {
		what = j.CID
	}
	line := fmt.Sprintf("%d  %-9v  %s  %s", j.Job, j.State, j.amount(), what)
	if j.Reason != jobs.None {
		line += "  (" + j.Reason.String() + ")"
	}
	e.printf("%s", line)
	if j.State == jobs.Done || j.State == jobs.Cancelled {
		return
	}
	if j.Message != "" {
		e.printf("   %s", j.Message)
	}
	if j.Remedy != "" {
		e.printf("   %s", j.Remedy)
	}
	for _, s := range j.Sources {
		switch {
		case s.GivenUp:
			e.printf("   %s: given up", shortID(s.Peer))
		case s.Spared > 0:
			e.printf("   %s: could not be reached, is tried again in %s", shortID(s.Peer), seconds(time.Duration(s.Spared*float64(time.Second))))
		case s.Bytes > 0:
			e.printf("   %s from %s", size(s.Bytes), shortID(s.Peer))
		}
	}
	for _, w := range j.Waiting {
		e.printf("   waiting for %s", w)
	}
}

func (j *listedJob) amount() string {
	if j.Total <= 0 {
		return "-"
	}
	s := fmt.Sprintf("%s of %s", size(j.Done), size(j.Total))
	if j.Rate > 0 {
		s += fmt.Sprintf(", %s/s, %s left", size(int64(j.Rate)), seconds(time.Duration(j.ETA*float64(time.Second))))
	}
	return s
}

func listJobs(_ context.Context, h *house, _ nothing, _ pipes[nothing]) (list []listedJob, err error) {
	list = []listedJob{}
	err = h.withBacklog(func(b *backlog) error {
		return b.ask(func() {
			for _, j := range b.queue.Jobs() {
				list = append(list, b.describe(&j))
			}
		})
	})
	return list, err
}

// describe says how far a job is. Called on the loop.
func (b *backlog) describe(j *jobs.Job) listedJob {
	x := listedJob{
		Job: j.ID, State: j.State, Reason: j.Reason, Message: j.Message, Remedy: remedy(j), Class: j.Class, Tries: j.Tries,
		Added: time.Unix(j.Added, 0).UTC(), Done: j.Bytes, Total: j.Total, Sources: []jobSource{},
	}
	if j.Over > 0 {
		at := time.Unix(j.Over, 0).UTC()
		x.Over = &at
	}
	if q, err := orderOf(j); err == nil {
		x.CID, x.Path = q.Root, q.Output
		if len(q.Names) > 0 {
			x.CID += "/" + strings.Join(q.Names, "/")
		}
	}
	for _, s := range j.Sources {
		x.Sources = append(x.Sources, jobSource{
			Peer: s.Peer.String(), GivenUp: s.Given, Spared: max(b.queue.Until(s.Peer)-b.now(), 0).Seconds(),
		})
	}
	w := b.working[j.ID]
	if w == nil || j.State != jobs.Running {
		return x
	}
	n := w.note.Load()
	if n == nil {
		return x
	}
	x.Done, x.Total, x.Rate = n.Done, n.Total, n.Rate
	if n.Known && n.Rate > 0 {
		x.ETA = float64(n.Total-n.Done) / n.Rate
	}
	if n.Stalled {
		x.Waiting = n.Waiting
	}
	for _, s := range n.Sources {
		i := slices.IndexFunc(x.Sources, func(o jobSource) bool { return o.Peer == s.Peer })
		if i < 0 {
			x.Sources = append(x.Sources, jobSource{Peer: s.Peer})
			i = len(x.Sources) - 1
		}
		x.Sources[i].Bytes = s.Bytes
	}
	return x
}

func runJobsSteer(ctx context.Context, e *env, verb string, args []string) error {
	q := steerRequest{Verb: verb}
	for _, a := range args {
		if a == "all" {
			q.All = true
			continue
		}
		n, err := strconv.ParseUint(a, 10, 63)
		if err != nil || n == 0 {
			return usagef("%q is no job; right is a number from `dray jobs`, or all", clip(a))
		}
		q.Jobs = append(q.Jobs, jobs.ID(n))
	}
	did, err := taskJobsSteer.with(ctx, e, q, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(map[string]any{"verb": verb, "jobs": did})
	}
	e.tell("%s: %s", verb, plural(int64(len(did)), "job"))
	return nil
}

func steerJobs(_ context.Context, h *house, q steerRequest, _ pipes[nothing]) (did []jobs.ID, err error) {
	i := slices.IndexFunc(jobVerbs, func(v jobVerb) bool { return v.name == q.Verb })
	if i < 0 {
		return nil, usagef("there is no %q for jobs", clip(q.Verb))
	}
	v := jobVerbs[i]
	did = []jobs.ID{}
	err = h.withBacklog(func(b *backlog) error {
		var failed error
		recorded := b.ask(func() {
			ids := q.Jobs
			if q.All {
				for _, j := range b.queue.Jobs() {
					if v.fits(j.State) && !slices.Contains(ids, j.ID) {
						ids = append(ids, j.ID)
					}
				}
			}
			for _, id := range ids {
				if err := v.do(b.queue, b.now(), id); err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				did = append(did, id)
			}
		})
		return errors.Join(failed, recorded)
	})
	return did, err
}

func runJobsWait(ctx context.Context, e *env) error {
	r, err := taskJobsWait.with(ctx, e, nothing{}, pipes[drainNote]{note: func(n drainNote) {
		if n.Left > 0 {
			e.tell("waiting for %s", plural(int64(n.Left), "job"))
		}
	}})
	if err != nil {
		return err
	}
	if e.json {
		err = e.emit(r)
	} else {
		e.printf("drained: %d done, %d failed, %d cancelled", r.Done, r.Failed, r.Cancelled)
	}
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("%s failed; `dray jobs` says why", plural(int64(r.Failed), "job"))
	}
	return err
}

func waitJobs(ctx context.Context, h *house, _ nothing, p pipes[drainNote]) (drainedResult, error) {
	r := drainedResult{Event: "drained"}
	err := h.withBacklog(func(b *backlog) error {
		left := 0
		empty := make(chan struct{})
		if err := b.ask(func() {
			if left = b.queue.Active(); left == 0 {
				close(empty)
				return
			}
			b.drained = append(b.drained, empty)
		}); err != nil {
			return err
		}
		p.note(drainNote{Left: left})
		if left > 0 && b.cfg.workers < 0 {
			return fmt.Errorf("%s to be done and no daemon runs on %s: start one with `dray serve`", plural(int64(left), "job"), h.home)
		}
		select {
		case <-empty:
		case <-ctx.Done():
			b.leave(empty)
			return context.Cause(ctx)
		}
		return b.ask(func() {
			for _, j := range b.queue.Jobs() {
				switch j.State {
				case jobs.Done:
					r.Done++
				case jobs.Failed:
					r.Failed++
				case jobs.Cancelled:
					r.Cancelled++
				}
			}
		})
	})
	return r, err
}

// leave forgets somebody who waited.
func (b *backlog) leave(c chan struct{}) {
	_ = b.ask(func() { b.drained = slices.DeleteFunc(b.drained, func(o chan struct{}) bool { return o == c }) })
}

// withPeer is an address that says whose it is.
func withPeer(addr string, id dray.PeerID) string {
	if strings.Contains(addr, "/p2p/") && !strings.HasSuffix(addr, "/p2p-circuit") { // that one says whose the relay is
		return addr
	}
	return addr + "/p2p/" + id.String()
}
