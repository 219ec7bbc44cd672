package main

import (
	"context"
	"time"

	"dray/jobs"
	"dray/store/disk"
)

const (
	keepEvery    = 10 * time.Minute // between looks whether what is kept is whole
	connectEvery = time.Minute      // between looks at who had what is seeded
	connectMost  = 64               // of them that are kept connected
	stayGap      = time.Second      // between two looks, whoever comes
	lookSettle   = 500 * time.Millisecond
)

// lookAfter has the daemon look soon whether what is kept is whole.
func (h *house) lookAfter() {
	select {
	case h.lost <- struct{}{}:
	default: // it will
	}
}

// tendRoots orders what is lost of roots that are to be kept, while the daemon runs.
func (h *house) tendRoots(ctx context.Context) {
	whole := time.NewTicker(keepEvery)
	defer whole.Stop()
	h.mendRoots(ctx)
	for {
		select {
		case <-whole.C:
			h.mendRoots(ctx)
		case <-h.lost:
			if pause(ctx, lookSettle) != nil { // a file that has changed is found out block by block
				return
			}
			h.mendRoots(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// startKeeping begins to do what the modes of roots say, and returns what ends that.
func (h *house) startKeeping() (end func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	h.finders.lookAround()
	mended := watch(func(<-chan struct{}) { h.tendRoots(ctx) })
	connected := watch(func(<-chan struct{}) {
		for ctx.Err() == nil {
			h.stayConnected(ctx)
			if pause(ctx, stayGap) == nil {
				h.awaitOthers(ctx)
			}
		}
	})
	announced := h.startAnnouncing(ctx)
	return func() {
		cancel(errStopping)
		mended()
		connected()
		announced()
	}
}

// mendRoots orders what is missing of roots that are to be kept.
func (h *house) mendRoots(ctx context.Context) {
	roots, err := h.store.Roots(ctx)
	if err != nil {
		return
	}
	for _, r := range roots {
		if !r.Mended() || ctx.Err() != nil {
			continue
		}
		missing, _, err := h.lacking(ctx, r.CID)
		if err != nil {
			h.env.log().Warn("cannot see whether a root is whole", "root", r.CID, "err", err)
		}
		if missing == 0 {
			continue
		}
		id, fresh, err := h.mend(&r)
		switch {
		case err != nil:
			h.env.log().Warn("cannot order what is missing of a root", "root", r.CID, "err", err)
		case fresh:
			h.env.log().Info("fetching what is missing of a root", "root", r.CID, "blocks", missing, "job", id)
		}
	}
}

// mend orders what is missing of a root: to its place, if that overwrites nothing, and else into the store.
func (h *house) mend(r *disk.Root) (id jobs.ID, fresh bool, err error) {
	q := getRequest{targetRequest: targetRequest{Root: r.CID.String(), Peers: r.Sources}, Mode: r.Kept(), Output: r.Path}
	if q.InStore = !h.restorable(r); q.InStore {
		q.Output = ""
	}
	return h.backlog.order(&q, jobs.Normal)
}

// restorable reports whether a root can be written to its path: files are missing there, and none was changed.
func (h *house) restorable(r *disk.Root) bool {
	if r.Path == "" {
		return false
	}
	gone := len(r.Files) == 0
	for _, f := range r.Files {
		there, err := isFile(f)
		switch {
		case err != nil:
			return false
		case !there:
			gone = true
		case !h.store.Unchanged(f):
			return false
		}
	}
	if there, err := isFile(r.Path); err != nil || there && len(r.Files) == 0 {
		return false
	}
	return gone && !h.failedAt(r)
}

// failedAt reports whether a job for the root's path found something else there.
func (h *house) failedAt(r *disk.Root) (failed bool) {
	_ = h.backlog.ask(func() {
		for _, j := range h.backlog.queue.Jobs() {
			q, err := orderOf(&j)
			failed = failed || err == nil && j.State == jobs.Failed && j.Reason == jobs.Exists && q.Output == r.Path && q.Root == r.CID.String()
		}
	})
	return failed
}

// awaitOthers waits until there may be others to stay connected to.
func (h *house) awaitOthers(ctx context.Context) {
	t := time.NewTimer(connectEvery)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.finders.stay:
	case <-ctx.Done():
	}
}

// stayConnected has the node stay connected to those who are named, a few neighbours, and those who had what is seeded.
func (h *house) stayConnected(ctx context.Context) {
	roots, err := h.store.Roots(ctx)
	if err != nil {
		return
	}
	var q targetRequest
	for _, r := range roots {
		if r.Seeded() {
			q.Peers = append(q.Peers, r.Sources...)
		}
	}
	peers := mergePeers(append(h.finders.lasting(), q.peers()...))
	h.node.KeepConnected(peers[:min(len(peers), connectMost)]...)
}
