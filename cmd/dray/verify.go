package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"dray"
	"dray/store/disk"
)

var cmdVerify = &cobra.Command{
	Use:   "verify",
	Short: "check that the home holds what it says",
	Long: `Verify compares the index with the files: that they are there, as long and as old as they were. With --deep it reads and
hashes every block. With --repair it forgets what is bad, so that it can be got or added again.

It exits with 4 when something is bad, also when that was repaired. With --json each problem is a line
{"problem":…,"cid":…,"path":…} and the last one is {"files":…,"blocks":…,"bytes":…,"problems":…}.`,
	Example: `  dray verify
  dray verify --deep --repair`,
	Args: arguments(0, 0, ""),
}

type verifyRequest struct {
	Deep   bool `json:"deep,omitempty"`
	Repair bool `json:"repair,omitempty"`
}

func newVerify(e *env) *cobra.Command {
	var q verifyRequest
	c := bind(e, cmdVerify, func(ctx context.Context, e *env, _ []string) error { return runVerify(ctx, e, q) })
	c.Flags().BoolVar(&q.Deep, "deep", false, "read and hash every block")
	c.Flags().BoolVar(&q.Repair, "repair", false, "forget what is bad")
	return c
}

// problem is one thing that is wrong.
type problem struct {
	Problem string `json:"problem"`
	CID     string `json:"cid,omitempty"`
	Path    string `json:"path,omitempty"`
}

type verifyResult struct {
	Files    int64 `json:"files"`
	Blocks   int64 `json:"blocks"`
	Bytes    int64 `json:"bytes"`
	Problems int64 `json:"problems"`
}

var taskVerify = task[verifyRequest, problem, verifyResult]{name: "verify", run: verifyStore}

func runVerify(ctx context.Context, e *env, q verifyRequest) error {
	var failed error
	r, err := taskVerify.with(ctx, e, q, pipes[problem]{note: func(x problem) {
		if e.json {
			failed = errors.Join(failed, e.emit(x))
			return
		}
		e.printf("%s", x.Problem)
	}})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if e.json {
		err = e.emit(r)
	} else {
		e.printf("%s, %s, %s: %s",
			plural(r.Files, "file"), plural(r.Blocks, "block"), size(r.Bytes), plural(r.Problems, "problem"))
	}
	if err == nil && r.Problems > 0 {
		next := "`dray verify --repair` forgets them"
		if q.Repair {
			next = "they are forgotten; get or add them again"
		}
		err = fmt.Errorf("%w: %s; %s", dray.ErrCorrupt, plural(r.Problems, "problem"), next)
	}
	return err
}

func verifyStore(ctx context.Context, h *house, q verifyRequest, p pipes[problem]) (verifyResult, error) {
	s, err := h.store.Verify(ctx, disk.VerifyConfig{Deep: q.Deep, Repair: q.Repair, Report: func(x disk.Problem) {
		n := problem{Problem: x.String(), Path: x.Path}
		if x.CID.Defined() {
			n.CID = x.CID.String()
		}
		p.note(n)
	}})
	if s.Problems > 0 {
		h.lookAfter()
	}
	return verifyResult{Files: s.Files, Blocks: s.Blocks, Bytes: s.Bytes, Problems: s.Problems}, err
}
