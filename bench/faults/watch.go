package faults

import (
	"encoding/json"
	"sync"
	"time"
)

// note is a line of `dray get --json`, or of a getter that prints one when it has the file.
type note struct {
	Event          string   `json:"event"`
	Done           int64    `json:"done"`
	Bytes          int64    `json:"bytes"`
	Stalled        bool     `json:"stalled"`
	Waiting        []string `json:"waiting"`
	Reason         string   `json:"reason"`
	DuplicateBytes int64    `json:"duplicate_bytes"`
}

// watcher follows what a getter prints. It is safe for concurrent use.
//
// Invariant: quiet is when the getter last made progress or said why it made none.
type watcher struct {
	finished chan struct{} // closed when a line says that the file is there

	mu      sync.Mutex
	quiet   time.Time
	done    int64
	silence time.Duration
	during  string // what it said last in the longest silence, for the report
	reasons map[string]int
	last    note
}

func newWatcher() *watcher {
	return &watcher{finished: make(chan struct{}), reasons: make(map[string]int)}
}

// begin says that a getter has been started.
func (w *watcher) begin(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet, w.done = now, -1
}

// line takes a line of output.
func (w *watcher) line(now time.Time, b []byte) {
	var n note
	if json.Unmarshal(b, &n) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	explains := n.Stalled && len(n.Waiting) > 0 || n.Event == "waiting" && n.Reason != ""
	if n.Done > w.done || explains {
		w.spoke(now, string(b))
	}
	w.done = max(w.done, n.Done)
	if explains {
		for _, r := range append(n.Waiting, n.Reason) {
			if r != "" {
				w.reasons[r]++
			}
		}
	}
	w.last = n
	if n.Event == "completed" || n.Event == "" && n.Bytes > 0 {
		w.spoke(now, string(b))
		w.last.Event = "completed"
		select {
		case <-w.finished:
		default:
			close(w.finished)
		}
	}
}

func (w *watcher) spoke(now time.Time, what string) {
	if gap := now.Sub(w.quiet); gap > w.silence {
		w.silence, w.during = gap, what
	}
	w.quiet = now
}

// end says that the getter has ended, and returns the longest silence and the last line.
func (w *watcher) end(now time.Time) (time.Duration, note) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last.Event != "completed" {
		w.spoke(now, "its end")
	}
	return w.silence, w.last
}
