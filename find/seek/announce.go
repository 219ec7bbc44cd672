package seek

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray/find"
	"dray/transport"
)

// AnnounceConfig says what is announced where. To and Roots are required.
type AnnounceConfig struct {
	// To is who tells others, and Name what people call it.
	To   transport.Announcer
	Name string
	// Roots returns what is to be found now. What is not among them any more is not announced again.
	Roots func(ctx context.Context) ([]cid.Cid, error)
	// Look is how often Roots is asked. If zero, once a minute.
	Look time.Duration
	// Schedule says how often an announcement is repeated, see [find.ScheduleConfig].
	Schedule find.ScheduleConfig
	// Timeout is how long one announcement may take. If zero, two minutes.
	Timeout time.Duration
	// Log receives what an operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

// Announce announces roots, and again before the records expire, until ctx ends.
func Announce(ctx context.Context, cfg AnnounceConfig) {
	if cfg.Look <= 0 {
		cfg.Look = time.Minute
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	type result struct {
		c    cid.Cid
		kept time.Duration
		err  error
	}
	start := time.Now()
	plan := find.NewSchedule(cfg.Schedule)
	done := make(chan result)
	roots := make(map[cid.Cid]bool)
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for look := start; ctx.Err() == nil; {
		if now := time.Now(); !now.Before(look) {
			look = now.Add(cfg.Look)
			list, err := cfg.Roots(ctx)
			if err != nil {
				cfg.Log.Warn("cannot see what to announce", "to", cfg.Name, "err", err)
			} else {
				roots = replan(plan, now.Sub(start), roots, list)
			}
		}
		for {
			c, ok := plan.Take(time.Since(start))
			if !ok {
				break
			}
			wg.Go(func() {
				within, cancel := context.WithTimeout(ctx, cfg.Timeout)
				defer cancel()
				kept, err := cfg.To.Announce(within, c)
				select {
				case done <- result{c, kept, err}:
				case <-ctx.Done():
				}
			})
		}
		wake := time.Until(look)
		if at, ok := plan.Wake(); ok {
			wake = min(wake, at-time.Since(start))
		}
		timer.Reset(max(wake, 0))
		select {
		case r := <-done:
			if r.err != nil {
				plan.Failed(time.Since(start), r.c)
				cfg.Log.Debug("not announced", "to", cfg.Name, "cid", r.c, "err", r.err)
			} else {
				plan.Done(time.Since(start), r.c, r.kept)
				cfg.Log.Debug("announced", "to", cfg.Name, "cid", r.c, "kept", r.kept)
			}
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// replan adds to a plan what is new in list and removes what is gone from it. It returns what there is now.
func replan(plan *find.Schedule, now time.Duration, before map[cid.Cid]bool, list []cid.Cid) map[cid.Cid]bool {
	after := make(map[cid.Cid]bool, len(list))
	for _, c := range list {
		after[c] = true
		plan.Add(now, c)
	}
	for c := range before {
		if !after[c] {
			plan.Remove(c)
		}
	}
	return after
}
