package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/jobs"
	"dray/node"
	"dray/store/disk"
)

// Every way in which a get can fail becomes the reason that people can do something about.
func TestReasonOf(t *testing.T) {
	for _, row := range []struct {
		err  error
		want jobs.Reason
	}{
		{&dray.Error{Op: "put", Err: fmt.Errorf("%w: 7 bytes", dray.ErrNoSpace)}, jobs.NoSpace},
		{errors.Join(io.EOF, occupied("/x")), jobs.Exists},
		{&fs.PathError{Op: "link", Path: "/x", Err: fs.ErrExist}, jobs.Exists},
		{&dray.Error{Op: "grow", Err: fmt.Errorf("/x %w", disk.ErrGrowing)}, jobs.TimedOut},
		{&tried{err: &dray.Error{Op: "get", Err: dray.ErrUnreachable}, lines: []string{"a: no route"}}, jobs.Unreachable},
		{resumable{hint: "again", err: &dray.Error{Op: "get", Err: dray.ErrTimeout}}, jobs.TimedOut},
		{node.RefusedError(cid.Undef, []dray.PeerID{"a"}), jobs.Refused},
		{&dray.Error{Op: "get", Err: dray.ErrNotFound}, jobs.NotFound},
		{fmt.Errorf("%w: %w", dray.ErrNotFound, fs.ErrNotExist), jobs.Broken}, // a directory that is gone
		{&dray.Error{Op: "put", Err: &fs.PathError{Op: "write", Path: "/x", Err: syscall.EIO}}, jobs.Faulty},
		{&dray.Error{Op: "get", Err: dray.ErrCorrupt}, jobs.Corrupt},
		{fs.ErrPermission, jobs.Broken},
	} {
		if got := reasonOf(row.err); got != row.want {
			t.Errorf("%v is %v, want %v", row.err, got, row.want)
		}
	}
}

// Every job that failed, waits or is paused says what can be done.
func TestRemedy(t *testing.T) {
	for r := jobs.Unreachable; r <= jobs.Faulty; r++ {
		j := jobs.Job{ID: 7, State: jobs.Failed, Reason: r}
		if s := remedy(&j); s == "" || r != jobs.Refused && !strings.Contains(s, "jobs retry 7") {
			t.Errorf("%v: %q", r, s)
		}
	}
	for s, want := range map[jobs.State]string{jobs.Paused: "resume 7", jobs.Waiting: "by itself"} {
		if got := remedy(&jobs.Job{ID: 7, State: s, Reason: jobs.NotFound}); !strings.Contains(got, want) {
			t.Errorf("%v: %q does not say %q", s, got, want)
		}
	}
	if s := shortError(resumable{hint: "again", err: errors.New("one\n  two")}); s != "one; two" {
		t.Errorf("in one line: %q", s)
	}
}

// An attempt that brings nothing ends after a while, and not before.
func TestWhileMoving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, timer, end := whileMoving(t.Context(), time.Minute)
		defer end()
		for range 10 {
			time.Sleep(50 * time.Second)
			timer.Reset(time.Minute)
		}
		if ctx.Err() != nil {
			t.Fatalf("ended although something came: %v", context.Cause(ctx))
		}
		begin := time.Now()
		<-ctx.Done()
		if d := time.Since(begin); d != time.Minute || !errors.Is(context.Cause(ctx), errSilent) {
			t.Errorf("ended after %v: %v", d, context.Cause(ctx))
		}
	})
}
