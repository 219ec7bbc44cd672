package node

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray/tensor"
)

// FetchStarted is the first event of a fetch.
type FetchStarted struct {
	// Root is what is fetched.
	Root cid.Cid
}

// TensorReady says that all bytes of a tensor, or all that was selected of it, are verified and in their places. There is
// one for each tensor, unless a leaf turns out not to be what the skeleton says: then the fetch starts over.
type TensorReady struct {
	// File is the path under the root of the tensor file; empty if that is the root.
	File string
	// Name, DType and Shape are what the file says of the tensor, and Bytes is how much of it was fetched or found here.
	Name  string
	DType tensor.DType
	Shape []int64
	Bytes int64
	// After is the time from the call to then.
	After time.Duration
	// Ready of All tensors are so far.
	Ready, All int
}

// FetchCompleted is the last event of a fetch, however it ends.
type FetchCompleted struct {
	// Progress is the final one.
	Progress Progress
	// Err is what the fetch returned.
	Err error
}

// Watch lets another goroutine follow one fetch. A listener that is slow, or gone, never delays the fetch: of [Progress]
// only the newest waits for it; a FetchStarted, a FetchCompleted and one TensorReady for each tensor wait until they are
// taken, so what waits is never more than the description of the files, which is in memory anyhow. Make one with NewWatch
// for each fetch.
type Watch struct {
	wake chan struct{} // one slot: something is new

	mu        sync.Mutex
	started   *FetchStarted
	ready     []TensorReady
	progress  *Progress
	completed *FetchCompleted
	over      bool // completed was put
}

// NewWatch returns a Watch for one fetch.
func NewWatch() *Watch { return &Watch{wake: make(chan struct{}, 1)} }

// Events yields what happens: one FetchStarted first, then each TensorReady in the order in which they became so, among
// them [Progress], and one FetchCompleted last. It ends after that, or when ctx does, or never if the fetch is never
// begun. Each event is yielded once: a second loop continues where the first was left. One goroutine may use it at a time.
func (w *Watch) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			e := w.take()
			if e == nil {
				select {
				case <-w.wake:
				case <-ctx.Done():
					return
				}
				continue
			}
			_, last := e.(FetchCompleted)
			if !yield(e) || last {
				return
			}
		}
	}
}

// take returns the next event, or nil.
func (w *Watch) take() Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.started != nil:
		e := *w.started
		w.started = nil
		return e
	case len(w.ready) > 0:
		e := w.ready[0]
		if w.ready = w.ready[1:]; len(w.ready) == 0 {
			w.ready = nil
		}
		return e
	case w.progress != nil:
		e := *w.progress
		w.progress = nil
		return e
	case w.completed != nil:
		e := *w.completed
		w.completed = nil
		return e
	}
	return nil
}

// around tells of the beginning and the end of a fetch.
func (w *Watch) around(root cid.Cid, fetch func() (Progress, error)) (Progress, error) {
	w.put(FetchStarted{Root: root})
	p, err := fetch()
	w.put(FetchCompleted{Progress: p, Err: err})
	return p, err
}

// put files an event. A nil Watch has no listener.
func (w *Watch) put(e Event) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	switch e := e.(type) {
	case FetchStarted:
		w.started = &e
	case TensorReady:
		w.ready = append(w.ready, e)
	case Progress:
		w.progress = &e
	case FetchCompleted:
		w.completed, w.over = &e, true
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
