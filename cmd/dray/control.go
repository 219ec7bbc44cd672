package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The control socket lets commands use the daemon that has their home open. It is a unix socket in the home, of mode 0600
// in a directory of mode 0700, that speaks HTTP:
//
//	POST /v1/TASK
//	  a line of JSON (the request), then the task's input, if it takes any
//	200
//	  frames, until {"result":…} or {"error":…}
//
// A frame is a line of JSON with one of: "note" (how far it is), "wait" (why it is no farther), "bytes" (that many bytes of
// output follow the line), "result", "error". A client that goes away cancels its task.

const (
	controlName  = "control.sock"
	controlPlace = "control.path" // names the socket when the home's path is too long for one
	// maxSocketPath is the longest path that every system takes for a unix socket.
	maxSocketPath = 100
	maxFrameLine  = 8 << 20
	drainWithin   = 5 * time.Second
)

// frame is one line of a response.
type frame struct {
	Note   json.RawMessage `json:"note,omitempty"`
	Wait   *waitNote       `json:"wait,omitempty"`
	Bytes  int             `json:"bytes,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
}

// frames writes a response. It is safe for concurrent use.
type frames struct {
	mu sync.Mutex
	w  io.Writer
	rc *http.ResponseController
}

func (f *frames) write(x frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.w.Write(append(encode(x), '\n')); err != nil {
		return err
	}
	return f.rc.Flush()
}

func (f *frames) fail(err error) { _ = f.write(frame{Error: toWire(err)}) } // the reader may be gone

// Write sends output of the task.
func (f *frames) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.w.Write(append(encode(frame{Bytes: len(p)}), '\n')); err != nil {
		return 0, err
	}
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.rc.Flush()
}

// control is the server behind a home's control socket.
type control struct {
	house  *house
	server *http.Server
	place  string // what to remove besides the socket
	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// openControl listens on the home's socket. The caller has the home open, so a socket that lies there is a dead daemon's.
func openControl(h *house) (*control, error) {
	path, place, err := controlPath(h.home)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	c := &control{house: h, place: place}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	mux := http.NewServeMux()
	for _, t := range tasks() {
		mux.HandleFunc("POST /v1/"+t.title(), func(w http.ResponseWriter, r *http.Request) { c.serve(t, w, r) })
	}
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	c.wg.Go(func() { _ = c.server.Serve(l) }) // ends with Shutdown
	return c, nil
}

// controlPath returns where the socket goes, and the file to write that into if it is not in the home.
func controlPath(home string) (path, place string, err error) {
	path = filepath.Join(home, controlName)
	if len(path) <= maxSocketPath {
		return path, "", nil
	}
	dir, err := os.MkdirTemp("", "dray-")
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, controlName)
	place = filepath.Join(home, controlPlace)
	return path, place, os.WriteFile(place, []byte(path), 0o600)
}

// findControl returns where a daemon's socket would be.
func findControl(home string) string {
	path := filepath.Join(home, controlName)
	if len(path) > maxSocketPath {
		if b, err := os.ReadFile(filepath.Join(home, controlPlace)); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return path
}

func (c *control) serve(t served, w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	defer stop()
	w.Header().Set("Content-Type", "application/x-ndjson")
	body := bufio.NewReaderSize(r.Body, 64<<10)
	t.serve(ctx, c.house, body, &frames{w: w, rc: rc})
}

var errStopping = errors.New("the daemon is stopping; the same command continues")

// close lets tasks end, for a while, and returns when none runs.
func (c *control) close() {
	ctx, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.cancel(errStopping) })
	defer stop()
	// New connections are refused at once. Long gets and the like are told to stop: what they have is kept.
	c.cancel(errStopping)
	if c.server.Shutdown(ctx) != nil {
		c.server.Close()
	}
	c.wg.Wait()
	if c.place != "" {
		os.Remove(filepath.Dir(findControl(c.house.home)))
		os.Remove(c.place)
	}
}
