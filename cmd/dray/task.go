package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// task is one thing that a home can be asked to do, by the process that has it open or through the control socket of the
// process that does. Q is the request, N a note on the way, R the result; all three travel as JSON.
type task[Q, N, R any] struct {
	// name is its path on the control socket.
	name string
	// network says whether it may need peers.
	network bool
	// run does it. It may use pipes until it returns, from one goroutine.
	run func(ctx context.Context, h *house, q Q, p pipes[N]) (R, error)
}

// pipes connect a running task with whoever asked for it. None is nil when a task runs.
type pipes[N any] struct {
	in   io.Reader
	out  io.Writer
	note func(N)
	// wait is told why the task does not advance; of a task that runs elsewhere, perhaps on another goroutine. If nil, nobody is.
	wait func(waitNote)
}

// nothing is what a task without request, notes or result uses.
type nothing struct{}

// backend is who has a home open: a house in this process, or a remote one.
type backend interface {
	io.Closer
	dir() string
}

// do runs the task where the home is open.
func (t task[Q, N, R]) do(ctx context.Context, b backend, q Q, p pipes[N]) (R, error) {
	if p.in == nil {
		p.in = http.NoBody
	}
	if p.out == nil {
		p.out = io.Discard
	}
	if p.note == nil {
		p.note = func(N) {}
	}
	if h, here := b.(*house); here {
		return t.watched(ctx, h, q, p, p.wait)
	}
	return callRemote(ctx, b.(*remote), t.name, q, p, *new(R))
}

// with opens the home and runs the task there.
func (t task[Q, N, R]) with(ctx context.Context, e *env, q Q, p pipes[N]) (result R, err error) {
	b, err := openBackend(ctx, e, access{network: t.network})
	if err != nil {
		return result, err
	}
	if p.wait == nil {
		l := &waitLine{e: e}
		p.wait = l.show
		defer l.clear()
	}
	result, err = t.do(ctx, b, q, p)
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	return result, err
}

// served is a task without its types, as the control socket sees it.
type served interface {
	title() string
	serve(ctx context.Context, h *house, body *bufio.Reader, f *frames)
}

func (t task[Q, N, R]) title() string { return t.name }

// serve reads a request from a body and writes notes, bytes and the result as frames.
func (t task[Q, N, R]) serve(ctx context.Context, h *house, body *bufio.Reader, f *frames) {
	var q Q
	line, err := body.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &q)
	}
	if err != nil {
		f.fail(usagef("the request is no line of JSON: %w", err))
		return
	}
	p := pipes[N]{in: body, out: f, note: func(n N) { f.write(frame{Note: encode(n)}) }}
	result, err := t.watched(ctx, h, q, p, func(w waitNote) { f.write(frame{Wait: &w}) })
	if err != nil {
		if errors.Is(context.Cause(ctx), errStopping) {
			err = errStopping
		}
		f.fail(err)
		return
	}
	f.write(frame{Result: encode(result)})
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types of tasks are ours, and plain
	}
	return b
}

// tasks lists what the control socket offers.
func tasks() []served {
	return []served{
		taskAdd, taskGet, taskCat, taskID, taskRoots, taskList, taskTensors, taskStat, taskRemove, taskVerify, taskPeers, taskFind, taskBan, taskUnban,
		taskLimit, taskStatus, taskDoctor,
		taskBlockGet, taskBlockPut, taskBlockStat, taskCarExport, taskCarImport, taskUnshare,
		taskGC, taskRoot, taskOrder, taskJobs, taskJobsSteer, taskJobsWait, taskWarm, taskEdgeStats,
		taskPublish, taskRepos, taskReposRemove,
	}
}
