package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dray"
	"dray/hub"
	"dray/unixfs"
)

const (
	mostTurns = 12 // a flow turns to another leader so often, and then fails
	mostWaits = 12 // it asks so often again when nobody can lead
	waitStep  = 250 * time.Millisecond

	glanceLinger = 5 * time.Second // that a file goes on to come of which only a header was read
)

// flow is one file on its way here. One goroutine, run, brings it; readers and feeds watch.
type flow struct {
	target
	m      *Mirror
	ctx    context.Context
	cancel context.CancelCauseFunc

	// These belong to run's goroutine.
	note     *leafNote
	lastErr  error
	borrowed bool    // some leaves are known by the word of a peer
	arrival  Arrival // of who leads, set before anything is read; nil if nobody looks

	ended chan struct{} // closed when run has returned
	needs chan needLine // what followers and readers need soon, for who feeds this flow; the rest is dropped

	// The rest is guarded by mu.
	mu      sync.Mutex
	changed chan struct{} // closed when anything below changes, and replaced
	epoch   int           // counts how often it began anew
	stage   stage
	path    []dray.PeerID // as in standing
	unable  bool
	table   table
	front   int64
	claims  *claims // of a leader that knows the cuts
	reach   int64   // how far a leader has asked without a gap
	beside  int     // readings beside that
	direct  string  // where the upstream sent us for this file
	check   string  // the validator that it gave
	root    unixfs.Ref
	right   bool  // the whole is known to be what the commit says
	done    bool  // it has ended
	err     error // why, if not because all is here
	users   int
	wanted  bool                // somebody has read more than a glance
	feeds   map[dray.PeerID]int // whom it feeds, and how often
	idle    *time.Timer
}

// errIdle ends a flow that nobody reads.
var errIdle = errors.New("nobody reads it")

func newFlow(m *Mirror, t target) *flow {
	w := &flow{
		target: t, m: m, stage: stageChoosing, feeds: make(map[dray.PeerID]int),
		changed: make(chan struct{}), needs: make(chan needLine, 16), ended: make(chan struct{}),
	}
	w.table.size = t.file.Size
	w.ctx, w.cancel = context.WithCancelCause(m.ctx)
	return w
}

// use counts a user; the caller holds m.mu, so that the flow does not end meanwhile.
func (w *flow) use() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users++
	if w.idle != nil {
		w.idle.Stop()
	}
}

// release ends what use began.
func (w *flow) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users--
	if w.users > 0 || w.done || w.m.cfg.Linger < 0 {
		return
	}
	linger := w.m.cfg.Linger
	if !w.wanted {
		linger = min(linger, glanceLinger) // nobody has read more than a header here
	}
	w.idle = time.AfterFunc(linger, func() {
		w.m.mu.Lock() // so that nobody begins to use it meanwhile
		defer w.m.mu.Unlock()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.users == 0 {
			w.cancel(errIdle)
		}
	})
}

// change changes what others see of the flow.
func (w *flow) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// run brings the file, from whoever has it, until it is here or nobody can give it.
func (w *flow) run() {
	release := w.m.cfg.Blocks.Hold()
	err := w.bring()
	release()
	if w.note != nil {
		err = errors.Join(err, w.note.close())
	}
	switch {
	case err == nil:
	case w.ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", hub.ErrUpstream, context.Cause(w.ctx))
	case !errors.Is(err, hub.ErrUpstream) && !errors.Is(err, hub.ErrGated) && !errors.Is(err, hub.ErrEntryNotFound):
		err = fmt.Errorf("%w: %q of %s: %w", hub.ErrUpstream, w.file.Path, w.repo.Name, err)
	}
	w.change(func() {
		if w.done, w.err = true, err; w.idle != nil {
			w.idle.Stop()
		}
	})
	w.m.forget(w)
	w.cancel(nil)
	close(w.ended)
	if err != nil {
		w.m.log.Warn("a file did not come", "repo", w.repo.Name, "path", w.file.Path, "error", err)
	}
}

func (w *flow) bring() (err error) {
	if err := w.recall(); err != nil {
		return err
	}
	except := make(map[dray.PeerID]bool)
	wrong, waits := 0, 0
	for turns := 0; turns < mostTurns; turns++ {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		w.change(func() { w.stage, w.path = stageChoosing, nil })
		self := standing{peer: w.m.cfg.Swarm.Self(), stage: stageChoosing, front: w.front, unable: w.unable}
		others := without(except, w.m.askAll(w.ctx, w.key, except))
		choice := decide(w.key, self, others)
		if choice.hopeless && len(others) > 0 && waits < mostWaits {
			// Those who were fed from here are about to decide, too.
			waits++
			turns--
			w.rest(waitStep)
			continue
		}
		switch {
		case choice.hopeless && w.lastErr == nil:
			return fmt.Errorf("%w: nobody can read it", hub.ErrUpstream)
		case choice.hopeless:
			return w.lastErr
		case choice.follow == "":
			err = w.lead(w.ctx)
		default:
			w.change(func() { w.path = []dray.PeerID{choice.follow} })
			err = w.follow(w.ctx, choice.follow)
		}
		switch {
		case err == nil:
			return nil
		case w.ctx.Err() != nil, errors.Is(err, dray.ErrNoSpace):
			return err
		}
		w.lastErr = err
		w.m.log.Info("a file comes another way", "repo", w.repo.Name, "path", w.file.Path, "not from", choice.follow, "error", err)
		if errors.Is(err, errWrong) {
			// Nobody knows which leaf is wrong: begin anew. Bytes of the upstream's own may have been changed on the way, once.
			if choice.follow != "" {
				w.m.distrust(choice.follow)
			}
			if choice.follow == "" && !w.borrowed {
				wrong++
			}
			if err := w.clear(); err != nil {
				return err
			}
		}
		switch {
		case wrong > 1:
			return err
		case choice.follow != "":
			except[choice.follow] = true
		case wrong == 0:
			w.change(func() { w.unable = true })
		}
	}
	return w.lastErr
}

// rest lets some time pass, unless the flow ends.
func (w *flow) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.ctx.Done():
	}
}

// recall takes up what an earlier attempt left.
func (w *flow) recall() (err error) {
	var t table
	t.size = w.file.Size
	if err := w.m.notes.leaves(w.key, t.add); err != nil {
		return err
	}
	w.change(func() { w.table = t })
	w.borrowed = len(t.run)+len(t.ahead) > 0
	w.note, err = w.m.notes.rewriteLeaves(w.key, t.run, t.ahead)
	return err
}

// clear forgets all leaves.
func (w *flow) clear() (err error) {
	err = w.note.close()
	w.note = nil
	w.borrowed = false
	w.change(func() {
		w.epoch++
		w.table, w.front, w.claims, w.reach = table{size: w.file.Size}, 0, nil, 0
	})
	if err == nil {
		w.note, err = w.m.notes.rewriteLeaves(w.key)
	}
	return err
}

// arrived notes a leaf that is in the store, or that a peer says to be the next. It reports false when that contradicts others.
func (w *flow) arrived(e entry) (ok bool, err error) {
	w.change(func() {
		if _, known := w.table.find(e.begin); known {
			ok = w.table.add(e)
			return
		}
		if ok = w.table.add(e); ok {
			err = w.note.add(lineOf(e))
		}
	})
	return ok, err
}

// advance says how far the file is here without a gap.
func (w *flow) advance(front int64) { w.change(func() { w.front = max(w.front, front) }) }

// complete ends the flow well.
func (w *flow) complete(d *digesting) error {
	root, err := d.finish()
	if err != nil {
		return err
	}
	w.change(func() { w.right = true }) // who reads need not wait for the disk
	if err := w.m.cfg.Blocks.Keep(w.ctx, root, d.leaves); err != nil {
		return err
	}
	w.change(func() {
		if err = w.note.add(feedLine{Root: root.CID.String(), Size: root.Size, Tsize: root.Tsize}); err == nil {
			w.root, w.stage = root, stageComplete
		}
	})
	return err
}

// need says that somebody waits for bytes that may be far ahead. It never waits.
func (w *flow) need(n needLine) {
	select {
	case w.needs <- n:
	default:
	}
}

// standing says how far the flow is.
func (w *flow) standing() stateLine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return stateLine{Stage: w.stage, Front: w.front, Path: textsOf(w.path), Unable: w.unable}
}
