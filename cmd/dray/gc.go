package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"
)

var cmdGC = &cobra.Command{
	Use:   "gc",
	Short: "give back the disk space of what no root needs",
	Long: `Gc drops the store's own copies of blocks that no root needs. With --quota it goes on with roots that were got once and are
not pinned, those unused the longest first, until the store's own copies have no more bytes than that. Your own files are
never touched, nor counted: only what the store knows of them goes with their root.

What is pinned, kept, seeded or being fetched stays, with every block that it needs. ` + "`dray serve --quota`" + ` does the same by
itself.

With --json it prints {"before":…,"after":…,"freed":…,"blocks":…,"files":…,"roots":[{"cid":…,"path":…}],"over":…}; over says that
the quota is passed all the same.`,
	Example: `  dray gc
  dray gc --quota 200GB --dry-run`,
	Args: arguments(0, 0, ""),
}

type gcRequest struct {
	Quota  quota `json:"quota"`
	DryRun bool  `json:"dry_run,omitempty"`
}

var taskGC = task[gcRequest, nothing, collected]{name: "gc", run: func(ctx context.Context, h *house, q gcRequest, _ pipes[nothing]) (collected, error) {
	return h.collect(ctx, q.Quota, q.DryRun)
}}

func newGC(e *env) *cobra.Command {
	var text string
	var q gcRequest
	c := bind(e, cmdGC, func(ctx context.Context, e *env, _ []string) (err error) {
		if q.Quota, err = parseQuota(text); err != nil {
			return err
		}
		return runGC(ctx, e, q)
	})
	quotaFlag(c, &text)
	c.Flags().BoolVar(&q.DryRun, "dry-run", false, "say what would go, and keep it")
	return c
}

func quotaFlag(c *cobra.Command, text *string) {
	c.Flags().StringVar(text, "quota", "", "how much the store's own copies may have, such as 200GB or 512MiB")
}

func runGC(ctx context.Context, e *env, q gcRequest) error {
	r, err := taskGC.with(ctx, e, q, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	verb := "freed"
	if q.DryRun {
		verb = "would free"
	}
	for _, x := range r.Roots {
		e.printf("%s  %s", x.CID, x.Path)
	}
	e.printf("%s %s in %s; the store's own copies have %s", verb, size(r.Freed), plural(r.Blocks, "block"), size(r.After))
	if r.Over {
		e.tell("that is more than %s: what is left is pinned, kept, seeded or being fetched; see `dray ls`", size(q.Quota.Bytes))
	}
	return nil
}

// parseQuota reads a number of bytes with a unit.
func parseQuota(s string) (quota, error) {
	if s == "" {
		return quota{None: true}, nil
	}
	text := strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(text, "bkmgtpi ")
	unit := strings.TrimSpace(text[len(digits):])
	n, err := strconv.ParseFloat(digits, 64)
	factor, ok := map[string]float64{
		"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12, "p": 1e15, "pb": 1e15,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
	}[unit]
	if err != nil || !ok || !(n >= 0) || n*factor > 1<<60 {
		return quota{}, usagef("%q is no size; right is one like 200GB, 512MiB or 0", clip(s))
	}
	return quota{Bytes: int64(n * factor)}, nil
}

const (
	tendEvery = 2 * time.Second
	usedEvery = time.Minute // between looks at who follows which root
	// tendMargin is the share of the quota that is freed beyond what must be, so that it is not done all the time.
	tendMargin = 20
)

// tend keeps the store within its quota while the daemon runs.
func (h *house) tend(ctx context.Context, q quota) {
	t := time.NewTicker(tendEvery)
	defer t.Stop()
	var counted, written int64 // what the store held when that had been written
	look := int64(-1)          // bytes from which on it is worth to look
	changes := int64(0)        // of roots, when it was last looked
	looked := time.Now()
	for {
		changed := h.changes.Load()
		if look < 0 || counted+h.store.Written()-written > look || counted > q.Bytes && changed != changes {
			var err error
			changes, written = changed, h.store.Written()
			if counted, err = h.keepWithin(ctx, q); err != nil && ctx.Err() == nil {
				h.env.log().Error("cannot collect garbage", "err", err)
			}
			look = max(q.Bytes, counted+q.Bytes/tendMargin)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if time.Since(looked) >= usedEvery {
			looked = time.Now()
			h.noteFollowed(ctx)
		}
	}
}

// keepWithin collects garbage if the store holds more than it may, and returns what it holds.
func (h *house) keepWithin(ctx context.Context, q quota) (int64, error) {
	held, err := h.store.Held(ctx)
	if err != nil || held.Bytes <= q.Bytes {
		return held.Bytes, err
	}
	h.noteFollowed(ctx)
	r, err := h.collect(ctx, quota{Bytes: q.Bytes - q.Bytes/tendMargin}, false)
	if err != nil {
		return held.Bytes, err
	}
	h.env.log().Info("collected garbage", "freed", r.Freed, "blocks", r.Blocks, "roots", len(r.Roots), "held", r.After)
	h.env.tell("freed %s in %s, to stay within the quota of %s", size(r.Freed), plural(r.Blocks, "block"), size(q.Bytes))
	if r.After > q.Bytes {
		h.env.log().Warn("the quota is passed: what is left is pinned, kept, seeded or being fetched", "held", r.After, "quota", q.Bytes)
	}
	if h.backlog != nil {
		_ = h.backlog.ask(func() { h.backlog.queue.SpaceFreed(h.backlog.now()) })
	}
	return r.After, nil
}

// noteFollowed notes that roots which peers follow are in use.
func (h *house) noteFollowed(ctx context.Context) {
	roots, err := h.store.Roots(ctx)
	if err != nil {
		return
	}
	for _, r := range roots {
		if r.Collectable() && h.node.Copies(r.CID) != nil {
			h.used(ctx, r.CID)
		}
	}
}

// usedStep is how old the note of a use may become before there is another.
const usedStep = time.Minute

// used notes that a root is in use, if there is such a root.
func (h *house) used(ctx context.Context, c cid.Cid) {
	if !h.rootsMu.TryLock() {
		return // it is being decided which roots go; what is used meanwhile stays anyhow
	}
	defer h.rootsMu.Unlock()
	r, err := h.store.Root(ctx, c)
	if now := time.Now().UTC(); err == nil && now.Sub(r.LastUsed()) >= usedStep {
		r.Used = now
		if err := h.store.SetRoot(ctx, r); err != nil {
			h.env.log().Warn("cannot note that a root is in use", "root", c, "err", err)
		}
	}
}

// startTending begins to keep a quota, and returns what ends that.
func (h *house) startTending(q quota) (end func()) {
	if q.None {
		return func() {}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := watch(func(<-chan struct{}) { h.tend(ctx, q) })
	return func() {
		cancel(errStopping)
		ended()
	}
}
