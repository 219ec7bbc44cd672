package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dray/dash"
	"dray/jobs"
	"dray/node"
	"dray/settings"
)

// openDash opens the page, which shows what the daemon does.
func openDash(ctx context.Context, h *house, s settings.Settings) (opened, error) {
	if !s.Dash.Enabled {
		return opened{}, nil
	}
	disk := &diskView{h: h}
	cfg := dash.Config{
		Node: h.node, Version: version(), Stopping: ctx.Done(), Store: disk.look, Explain: explainWaits,
		Jobs: h.shownJobs, Caches: h.shownCaches, Listeners: s.Dash.Listeners,
	}
	if s.Dash.Actions {
		cfg.Steer = h.steerOne
	}
	page, err := dash.New(cfg)
	if err != nil {
		return opened{}, err
	}
	var handler http.Handler = page
	return opened{routes: []route{{"/", handler}, {"/dash", handler}, {"/dash/", handler}}, close: page.Close}, nil
}

// explainWaits says why nothing has come for so long.
func explainWaits(waits []node.Wait, idle time.Duration) string {
	return inWords(waits, time.Now(), idle).Text
}

// shownCaches tells the page what the cache before origins holds, if there is one.
func (h *house) shownCaches() []dash.Cache {
	d := &h.edge
	d.mu.Lock()
	e := d.edge
	d.mu.Unlock()
	if e == nil {
		return nil
	}
	s := e.Stats()
	return []dash.Cache{{Name: "edge", Bytes: s.Held, Max: s.Size, Hits: s.Hits, Misses: s.Misses}}
}

// shownJobs lists the jobs for the page.
func (h *house) shownJobs(ctx context.Context) ([]dash.Job, error) {
	list, err := listJobs(ctx, h, nothing{}, pipes[nothing]{})
	if err != nil {
		return nil, err
	}
	out := make([]dash.Job, 0, len(list))
	for _, j := range list {
		x := dash.Job{
			ID: uint64(j.Job), State: j.State.String(), Name: j.CID, Root: j.CID, Message: j.Message, Remedy: j.Remedy,
			Done: j.Done, Total: j.Total, Verbs: []string{},
		}
		if j.Path != "" {
			x.Name = filepath.Base(j.Path)
		}
		if x.Message == "" && len(j.Waiting) > 0 {
			x.Message = "waits for " + strings.Join(j.Waiting, ", ")
		}
		for _, v := range jobVerbs {
			if v.name != "clear" && v.fits(j.State) {
				x.Verbs = append(x.Verbs, v.name)
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// steerOne does to a job what the page was told to.
func (h *house) steerOne(ctx context.Context, verb string, id uint64) error {
	_, err := steerJobs(ctx, h, steerRequest{Verb: verb, Jobs: []jobs.ID{jobs.ID(id)}}, pipes[nothing]{})
	if err != nil && !errors.Is(err, errStopping) {
		return fmt.Errorf("%w: %s", dash.ErrNoJob, oneLine(err))
	}
	return err
}

// diskView tells what the store holds. To count that takes a while in a large store, so it is done when something was written or
// changed, and not more often than every recount.
type diskView struct {
	h *house

	mu      sync.Mutex
	at      time.Time
	written int64
	changes int64
	held    int64
}

const recount = 30 * time.Second

func (d *diskView) look(ctx context.Context) (dash.Store, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.h
	written, changes := h.store.Written(), h.changes.Load()
	if d.at.IsZero() || time.Since(d.at) >= recount && (written != d.written || changes != d.changes) {
		held, err := h.store.Held(ctx)
		if err != nil {
			return dash.Store{}, err
		}
		d.at, d.written, d.changes, d.held = time.Now(), written, changes, held.Bytes
	}
	s := dash.Store{Own: d.held + written - d.written}
	if q := h.quota; !q.None {
		s.Quota = q.Bytes
	}
	roots, err := h.store.Roots(ctx)
	if err != nil {
		return s, err
	}
	s.Roots = len(roots)
	lying := make(map[string]int64) // by path, roots that are served where they lie
	for _, r := range roots {
		if len(r.Files) > 0 && r.Path != "" {
			lying[r.Path] = r.Size
		}
	}
	for path, size := range lying {
		if !below(path, lying) {
			s.Referenced += size
		}
	}
	if free, all, ok := freeSpace(h.home); ok {
		s.Free, s.Disk = free, all
	}
	return s, nil
}

// below reports whether a path lies in another of the paths, with which it is counted.
func below(path string, paths map[string]int64) bool {
	for dir := filepath.Dir(path); dir != path; path, dir = dir, filepath.Dir(dir) {
		if _, ok := paths[dir]; ok {
			return true
		}
	}
	return false
}

// noteJobs writes into the log of what happened which jobs changed. Called on the backlog's loop.
func (b *backlog) noteJobs(changed []jobs.Job) {
	for _, j := range changed {
		if b.h.node == nil || b.noted[j.ID] == j.State.String() {
			continue
		}
		b.noted[j.ID] = j.State.String()
		if j.State == jobs.Done || j.State == jobs.Failed || j.State == jobs.Cancelled {
			delete(b.noted, j.ID)
		}
		r := node.Record{Kind: node.RecordJob, Grave: j.State == jobs.Failed, Text: fmt.Sprintf("job %d is %v", j.ID, j.State)}
		if j.Name != "" {
			r.Text += ": " + j.Name
		}
		if j.Message != "" && j.State != jobs.Done {
			r.Text += ": " + j.Message
		}
		b.h.node.Record(r)
	}
}
