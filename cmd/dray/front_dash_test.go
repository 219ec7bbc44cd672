package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dray/dash"
	"dray/jobs"
	"dray/node"
	"dray/settings"
)

// TestDiskView counts copies, and files that are served where they lie once each.
func TestDiskView(t *testing.T) {
	s := newShelf(t, 1)
	d := &diskView{h: s.h}
	add := func(size int, takeCopy bool, path ...string) {
		t.Helper()
		name := filepath.Join(append([]string{s.dir}, path...)...)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if err := os.WriteFile(name, s.pool[0][:size], 0o644); err != nil {
				t.Fatal(err)
			}
		}
		q := addRequest{Path: name, Profile: "native", Layout: "auto", Copy: takeCopy}
		if _, err := addPath(t.Context(), s.h, q, pipes[addNote]{note: func(addNote) {}}); err != nil {
			t.Fatal(err)
		}
	}
	look := func() dash.Store {
		t.Helper()
		d.at = time.Time{} // as if it were long ago
		got, err := d.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := look(); got.Own != 0 || got.Referenced != 0 || got.Roots != 0 || got.Quota != 0 || got.Free <= 0 || got.Disk < got.Free {
		t.Fatalf("%+v of an empty home", got)
	}
	add(400, false, "dir", "a")
	add(300, false, "dir", "b")
	if got := look(); got.Referenced != 700 || got.Roots != 2 {
		t.Errorf("%+v, want 700 bytes of 2 roots", got)
	}
	add(0, false, "dir")
	add(200, false, "directory")
	before := look()
	if before.Referenced != 900 || before.Roots != 4 {
		t.Errorf("%+v, want 900 bytes of 4 roots: what lies in a root's directory counts once", before)
	}
	add(350, true, "copied")
	s.h.quota = quota{Bytes: 5000}
	if got := look(); got.Referenced != 900 || got.Own < before.Own+350 || got.Quota != 5000 {
		t.Errorf("%+v after %+v, want a copy of 350 bytes more, and the quota", got, before)
	}
}

// TestJobsOfPage shows and steers jobs as the page does, and writes down what becomes of them.
func TestJobsOfPage(t *testing.T) {
	s := newShelf(t, 2)
	h := s.h
	var err error
	if h.backlog, err = openBacklog(h, backlogConfig{workers: -1}); err != nil { // closed with the house
		t.Fatal(err)
	}
	const root = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	r, err := orderJob(t.Context(), h, orderRequest{getRequest: getRequest{
		targetRequest: targetRequest{Root: root}, Output: filepath.Join(s.dir, "model"),
	}}, pipes[nothing]{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(state string, verbs ...string) {
		t.Helper()
		list, err := h.shownJobs(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		j := list[0]
		if j.ID != uint64(r.Job) || j.State != state || j.Name != "model" || j.Root != root || !slices.Equal(j.Verbs, verbs) {
			t.Errorf("%+v, want it %s, with %q", j, state, verbs)
		}
	}
	expect("queued", "pause", "cancel")
	steer := func(verb string, wrong bool) {
		t.Helper()
		if err := h.steerOne(t.Context(), verb, uint64(r.Job)); (err != nil) != wrong || wrong && !errors.Is(err, dash.ErrNoJob) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	steer("pause", false)
	expect("paused", "resume", "cancel")
	steer("cancel", false)
	expect("cancelled")
	steer("pause", true)
	if err := h.steerOne(t.Context(), "pause", 99); !errors.Is(err, dash.ErrNoJob) {
		t.Errorf("%v for a job that is not there", err)
	}
	var told []string
	for _, x := range h.node.Records(0, 100) {
		if x.Kind == node.RecordJob {
			told = append(told, x.Text)
		}
	}
	want := fmt.Sprintf("job %[1]d is queued: model, job %[1]d is paused: model, job %[1]d is cancelled: model", r.Job)
	if got := strings.Join(told, ", "); got != want {
		t.Errorf("the log says %q, want %q", got, want)
	}
	if n := len(h.backlog.noted); n != 0 {
		t.Errorf("%d states are kept of jobs that have ended", n)
	}
	h.backlog.noteJobs([]jobs.Job{{ID: 7, State: jobs.Failed, Message: "no"}})
	if all := h.node.Records(0, 1); !all[0].Grave || all[0].Text != "job 7 is failed: no" {
		t.Errorf("%+v of a job that failed", all)
	}
}

// TestNoPage is a daemon whose settings have the page off.
func TestNoPage(t *testing.T) {
	s := newShelf(t, 3)
	for _, on := range []bool{false, true} {
		x := settings.Default()
		x.Dash.Enabled = on
		o, err := openDash(t.Context(), s.h, x)
		if err != nil || (len(o.routes) > 0) != on {
			t.Fatalf("enabled %v: %d routes, %v", on, len(o.routes), err)
		}
		if o.close != nil {
			if err := o.close(); err != nil {
				t.Error(err)
			}
		}
	}
}
