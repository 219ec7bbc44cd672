package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"dray/edge"
)

var cmdWarm = &cobra.Command{
	Use:   "warm TARGET…",
	Short: "bring content into the edge's cache before it is asked for",
	Long: `Warm fetches what the cache before origins (docs/edge.md) does not have yet, so that the first client need not wait. A
TARGET is the name of an origin, a slash and a path, as in /edge/NAME/path; a URL below that of an origin; s3://BUCKET/KEY,
where one that ends in a slash means all keys that begin so; or a CID. With --list, targets are read from a file, one a line
("-" is standard input); empty lines and those that begin with # do not count.

With --drop, what is cached of objects whose names begin with a TARGET, NAME/path, is forgotten: the next request asks the
origin. What is known by its CID stays, because it cannot change. With --stats it says what the cache holds and did since
the daemon began, and how each source fares.

With --json there is a line {"name":…,"bytes":…,"here":…} or {"name":…,"error":…} for each object, and {"dropped":…} for
--drop; --stats prints {"hits":…,"misses":…,"coalesced":…,…,"sources":[…]}.`,
	Example: `  dray warm models/llama/model-00001-of-00002.safetensors
  dray warm s3://weights/llama/ https://example.org/public/tokenizer.json
  dray warm --list wanted.txt
  dray warm --drop models/llama/
  dray warm --stats`,
}

func newWarm(e *env) *cobra.Command {
	var q warmRequest
	var list string
	var stats bool
	c := bind(e, cmdWarm, func(ctx context.Context, e *env, args []string) (err error) {
		switch {
		case stats && (q.Drop || list != "" || len(args) > 0):
			return usagef("--stats takes nothing else")
		case stats:
			return runEdgeStats(ctx, e)
		case q.Jobs < 1 || q.Jobs > 64:
			return usagef("--jobs %d is not between 1 and 64", q.Jobs)
		}
		if q.Targets, err = e.targets(args, list); err != nil {
			return err
		}
		if len(q.Targets) == 0 {
			return usagef("TARGET is missing, and there is none in --list; usage: dray warm TARGET…")
		}
		return runWarm(ctx, e, q)
	})
	c.Flags().StringVar(&list, "list", "", "file with a TARGET on each line; - is standard input")
	c.Flags().BoolVar(&q.Drop, "drop", false, "forget what is cached under names that begin with TARGET")
	c.Flags().BoolVar(&stats, "stats", false, "say what the cache holds, did, and how sources fare")
	c.Flags().IntVar(&q.Jobs, "jobs", 4, "how many objects are fetched at a time")
	return c
}

// maxTargets bounds a list.
const maxTargets = 1 << 20

// targets reads what is to be warmed.
func (e *env) targets(args []string, list string) ([]string, error) {
	if list == "" {
		return args, nil
	}
	in := e.stdin
	if list != "-" {
		f, err := os.Open(list)
		if err != nil {
			return nil, usagef("--list: %w", err)
		}
		defer f.Close()
		in = f
	}
	s := bufio.NewScanner(in)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			if len(args) == maxTargets {
				return nil, usagef("--list has more than %d targets", maxTargets)
			}
			args = append(args, line)
		}
	}
	return args, s.Err()
}

type warmRequest struct {
	Targets []string `json:"targets"`
	Drop    bool     `json:"drop,omitempty"`
	Jobs    int      `json:"jobs,omitempty"`
}

// warmNote says how far it is, or that one object is done.
type warmNote struct {
	Bytes int64     `json:"bytes"`
	Done  *warmDone `json:"done,omitempty"`
}

// warmDone is an object that is here, or could not be brought.
type warmDone struct {
	edge.Warmed
	Error string `json:"error,omitempty"`
}

type warmResult struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Failed  int64 `json:"failed,omitempty"`
	Dropped int   `json:"dropped,omitempty"`
	// Worst is the first error, for the exit code.
	Worst *wireError `json:"worst,omitempty"`
}

var (
	taskWarm      = task[warmRequest, warmNote, warmResult]{name: "warm", network: true, run: warm}
	taskEdgeStats = task[nothing, nothing, edge.Stats]{name: "edge/stats", network: true, run: edgeStats}
)

// withEdge opens the house's cache for as long as f runs.
func (h *house) withEdge(f func(*edge.Edge) error) error {
	s, err := h.env.readSettings(h.home)
	if err != nil {
		return err
	}
	if len(s.Edge.Origins) == 0 {
		return usagef("there are no origins: [[edge.origin]] in %s names some, see docs/edge.md", configPath(h.home))
	}
	e, release, err := h.useEdge(&s.Edge)
	if err != nil {
		return err
	}
	return errors.Join(f(e), release())
}

func edgeStats(_ context.Context, h *house, _ nothing, _ pipes[nothing]) (s edge.Stats, err error) {
	err = h.withEdge(func(e *edge.Edge) error { s = e.Stats(); return nil })
	return s, err
}

// warm runs in the house.
func warm(ctx context.Context, h *house, q warmRequest, p pipes[warmNote]) (result warmResult, err error) {
	err = h.withEdge(func(e *edge.Edge) error {
		if q.Drop {
			for _, prefix := range q.Targets {
				result.Dropped += e.Invalidate(prefix)
			}
			return nil
		}
		w := &warming{edge: e, note: p.note}
		w.run(ctx, q)
		result = w.result
		return context.Cause(ctx)
	})
	return result, err
}

// warming is a warm under way.
type warming struct {
	edge *edge.Edge
	note func(warmNote)

	mu     sync.Mutex // held while it is noted
	result warmResult
	told   time.Time
}

func (w *warming) run(ctx context.Context, q warmRequest) {
	names := make(chan string) // unbuffered: who lists waits for who fetches
	var wg sync.WaitGroup
	for range max(1, q.Jobs) {
		wg.Go(func() {
			for name := range names {
				w.one(ctx, name)
			}
		})
	}
	for _, target := range q.Targets {
		for name, err := range w.edge.Targets(ctx, target) {
			if err != nil {
				w.done(edge.Warmed{Name: target}, err)
				break
			}
			select {
			case names <- name:
			case <-ctx.Done():
			}
		}
	}
	close(names)
	wg.Wait()
}

func (w *warming) one(ctx context.Context, name string) {
	if ctx.Err() != nil {
		return
	}
	var before int64
	r, err := w.edge.Warm(ctx, name, func(n int64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.result.Bytes += n - before
		before = n
		if time.Since(w.told) > drawEvery {
			w.told = time.Now()
			w.note(warmNote{Bytes: w.result.Bytes})
		}
	})
	w.done(r, err)
}

func (w *warming) done(r edge.Warmed, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := warmDone{Warmed: r}
	if err != nil {
		if errors.Is(err, edge.ErrTarget) {
			err = usageError{err}
		}
		d.Error = oneLine(err)
		w.result.Failed++
		if w.result.Worst == nil {
			w.result.Worst = toWire(err)
		}
	} else {
		w.result.Objects++
	}
	w.note(warmNote{Bytes: w.result.Bytes, Done: &d})
}

func runWarm(ctx context.Context, e *env, q warmRequest) error {
	b := newBar(e, "warming")
	began := time.Now()
	r, err := taskWarm.with(ctx, e, q, pipes[warmNote]{note: func(n warmNote) {
		b.set(meter{done: n.Bytes})
		if n.Done == nil {
			return
		}
		switch x := n.Done; {
		case e.json && x.Error != "":
			_ = e.emit(map[string]string{"name": x.Name, "error": x.Error}) // what cannot be printed is lost
		case e.json:
			_ = e.emit(x.Warmed)
		case x.Error != "":
			fmt.Fprintf(e.stderr, "%s: %s\n", x.Name, x.Error)
		case !e.quiet:
			how := "fetched"
			if x.Here {
				how = "was here"
			}
			e.printf("%s  %s  %s", x.Name, size(x.Bytes), how)
		}
	}})
	b.close()
	if err != nil {
		return err
	}
	if q.Drop {
		if e.json {
			return e.emit(map[string]int{"dropped": r.Dropped})
		}
		e.printf("dropped %s", plural(int64(r.Dropped), "object"))
		return nil
	}
	e.tell("%s with %s in %s", plural(r.Objects, "object"), size(r.Bytes), seconds(time.Since(began)))
	if r.Worst != nil {
		return fmt.Errorf("%s could not be brought: %w", plural(r.Failed, "target"), r.Worst.err())
	}
	return nil
}

func runEdgeStats(ctx context.Context, e *env) error {
	s, err := taskEdgeStats.with(ctx, e, nothing{}, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(s)
	}
	e.printf("%s of %s, in %d leaves of %s", size(s.Held), size(s.Size), s.Leaves, plural(int64(s.Objects), "object"))
	e.printf("hits %d  misses %d  coalesced %d  hit rate %.1f %%", s.Hits, s.Misses, s.Coalesced, 100*s.HitRatio())
	e.printf("served %s  fetched %s  evicted %d  rejected %d",
		size(s.BytesServed), size(s.BytesFetched), s.Evicted, s.Rejected)
	e.printf("revalidated %d  stale %d  passed %d  failed %d", s.Revalidated, s.Stale, s.Passed, s.Failed)
	for _, x := range s.Sources {
		line := fmt.Sprintf("%s  %s  %s  %s  requests %d  failures %d  %s",
			x.Name, x.Kind, x.URL, x.State, x.Requests, x.Failures, size(x.Bytes))
		if x.Latency > 0 {
			line += "  answers in " + seconds(x.Latency)
		}
		if x.LastError != "" && x.State != "healthy" {
			line += "  " + x.LastError
		}
		e.printf("%s", line)
	}
	return nil
}
