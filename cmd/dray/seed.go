package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	"dray/store/disk"
)

var cmdSeed = &cobra.Command{
	Use:   "seed CID|PATH|TICKET…",
	Short: "say what roots are kept for: to be served for ever, unless another mode is named",
	Long: `Seed keeps roots from being collected and serves them for as long as a daemon runs, which stays connected to those whom
they were got from. A path that is not in the home is added; what is not here is ordered, as with ` + "`dray get --detach`" + `.

--mode names something else to keep them for: once (got once, may be collected when a quota is passed), keep (what is lost,
or found corrupt, is fetched again by the daemon from where it was had), seed, or both. Your own files are never overwritten:
a file that is gone is written again; of one that you changed, the store gets a copy of its own.

With --json it prints {"cid":…,"path":…,"mode":…,"pinned":…,"job":…} for each; job is set for what was ordered.`,
	Example: `  dray seed model/
  dray seed bafybei… --mode both
  dray seed dray1afyrei… -o /models/`,
	Args: arguments(1, 1<<20, "a CID, PATH or TICKET"),
}

var cmdPin = &cobra.Command{
	Use:   "pin [CID|PATH…]",
	Short: "never collect roots, whatever they are kept for; without one, list those",
	Long: `Pin keeps roots, and every block under them, from being collected and from ` + "`dray rm`" + `, until --rm takes the pin off. What
is in the home without being a root, such as a directory inside one, becomes one. Without an argument it lists what is pinned.

With --json it prints {"cid":…,"path":…,"mode":…,"pinned":…} for each.`,
	Example: `  dray pin bafybei…
  dray pin --rm model/
  dray pin`,
	Args: arguments(0, 1<<20, "a CID or PATH"),
}

// rootRequest names a root and what is to be recorded of it.
type rootRequest struct {
	// CID or Path, which is absolute, names it.
	CID  string `json:"cid,omitempty"`
	Path string `json:"path,omitempty"`
	// Mode is set if it is not empty, and the pin if it is not nil.
	Mode disk.Mode `json:"mode,omitempty"`
	Pin  *bool     `json:"pin,omitempty"`
	// Sources are addresses of who has it.
	Sources []string `json:"sources,omitempty"`
}

// rootRecord is what is recorded of a root.
type rootRecord struct {
	CID    string    `json:"cid"`
	Path   string    `json:"path,omitempty"`
	Mode   disk.Mode `json:"mode"`
	Pinned bool      `json:"pinned"`
	// Job is what fetches it, if it has to be.
	Job int64 `json:"job,omitempty"`
}

var taskRoot = task[rootRequest, nothing, rootRecord]{name: "root", run: setRoot}

func newSeed(e *env) *cobra.Command {
	var (
		mode, output string
		from         []string
	)
	c := bind(e, cmdSeed, func(ctx context.Context, e *env, args []string) error {
		m, err := parseMode(mode)
		if err != nil {
			return err
		}
		for _, a := range args {
			if err := runSeed(ctx, e, a, m, output, from); err != nil {
				return err
			}
		}
		return nil
	})
	modeFlag(c, &mode, string(disk.Seed))
	c.Flags().StringVarP(&output, "output", "o", "", "where to write what has to be fetched")
	c.Flags().StringArrayVar(&from, "from", nil, "multiaddr of a peer that has it (repeatable)")
	return c
}

func runSeed(ctx context.Context, e *env, arg string, mode disk.Mode, output string, from []string) error {
	q := rootRequest{Mode: mode}
	t, err := parseTarget(arg, from)
	if err != nil {
		if _, serr := os.Lstat(arg); serr != nil {
			return err
		}
		if q.Path, err = filepath.Abs(arg); err != nil {
			return err
		}
	} else {
		if len(t.names) > 0 {
			return usagef("%q names a part of a root; seed the root, or get the part first", clip(arg))
		}
		q.CID, q.Sources = t.root.String(), t.request().Peers
	}
	r, err := taskRoot.with(ctx, e, q, pipes[nothing]{})
	switch {
	case err == nil:
	case !errors.Is(err, dray.ErrNotFound):
		return err
	case q.Path != "":
		a := addRequest{Path: q.Path, Profile: "native", Layout: "auto"}
		if err := a.check(); err != nil {
			return err
		}
		if _, err := addShown(e, a, func(p pipes[addNote]) (addResult, error) { return taskAdd.with(ctx, e, a, p) }); err != nil {
			return err
		}
		if r, err = taskRoot.with(ctx, e, q, pipes[nothing]{}); err != nil {
			return err
		}
	default:
		path, err := outputPath(output, t)
		if err != nil {
			return err
		}
		g := getRequest{targetRequest: t.request(), Output: path, AutoName: output == "" && t.name == "", Mode: mode}
		j, err := taskOrder.with(ctx, e, orderRequest{getRequest: g}, pipes[nothing]{})
		if err != nil {
			return err
		}
		r = rootRecord{CID: q.CID, Path: path, Mode: mode, Job: int64(j.Job)}
	}
	return r.print(e)
}

func (r *rootRecord) print(e *env) error {
	if e.json {
		return e.emit(r)
	}
	pin := ""
	if r.Pinned {
		pin = " pinned"
	}
	e.printf("%s  %-4s%s  %s", r.CID, r.Mode, pin, r.Path)
	if r.Job > 0 {
		e.tell("job %d gets it; `dray jobs` says how far it is", r.Job)
	}
	return nil
}

func newPin(e *env) *cobra.Command {
	var rm bool
	c := bind(e, cmdPin, func(ctx context.Context, e *env, args []string) error { return runPin(ctx, e, args, !rm) })
	c.Flags().BoolVar(&rm, "rm", false, "take the pin off")
	return c
}

func runPin(ctx context.Context, e *env, args []string, on bool) error {
	if len(args) == 0 {
		if !on {
			return usagef("--rm takes the pin off a root; name it by its CID or PATH")
		}
		var failed error
		_, err := taskRoots.with(ctx, e, nothing{}, pipes[listedRoot]{note: func(r listedRoot) {
			if r.Pinned {
				failed = errors.Join(failed, (&rootRecord{CID: r.CID, Path: r.Path, Mode: r.Mode, Pinned: true}).print(e))
			}
		}})
		return errors.Join(err, failed)
	}
	for _, a := range args {
		q := rootRequest{Pin: &on}
		if _, err := parseCID(a); err == nil {
			q.CID = a
		} else if q.Path, err = filepath.Abs(a); err != nil {
			return err
		}
		r, err := taskRoot.with(ctx, e, q, pipes[nothing]{})
		if err != nil {
			return err
		}
		if err := r.print(e); err != nil {
			return err
		}
	}
	return nil
}

// setRoot is the task: change what is recorded of a root. What is in the store in full, and is no root, becomes one.
func setRoot(ctx context.Context, h *house, q rootRequest, _ pipes[nothing]) (rootRecord, error) {
	h.rootsMu.Lock()
	defer h.rootsMu.Unlock()
	r, err := h.findRoot(ctx, &q)
	if err != nil {
		return rootRecord{}, err
	}
	if q.Mode != "" {
		r.Mode = q.Mode
	}
	if q.Pin != nil {
		r.Pinned = *q.Pin
	}
	for _, a := range q.Sources {
		if !slices.Contains(r.Sources, a) && len(r.Sources) < mostSources {
			r.Sources = append(r.Sources, a)
		}
	}
	r.Mode = r.Kept() // from now on it is said
	if err := h.store.SetRoot(ctx, r); err != nil {
		return rootRecord{}, err
	}
	h.changes.Add(1)
	h.lookAfter()
	return rootRecord{CID: r.CID.String(), Path: r.Path, Mode: r.Mode, Pinned: r.Pinned}, h.store.Sync(ctx)
}

func (h *house) findRoot(ctx context.Context, q *rootRequest) (disk.Root, error) {
	if q.Path != "" {
		roots, err := h.store.Roots(ctx)
		if err != nil {
			return disk.Root{}, err
		}
		for _, r := range slices.Backward(roots) { // what was added there last
			if r.Path == q.Path {
				return r, nil
			}
		}
		return disk.Root{}, &dray.Error{Op: "root " + q.Path, Err: fmt.Errorf(
			"%w: no root has this path; `dray ls` lists what there is, `dray add` adds it", dray.ErrNotFound)}
	}
	c, err := parseCID(q.CID)
	if err != nil {
		return disk.Root{}, err
	}
	r, err := h.store.Root(ctx, c)
	if err == nil || !errors.Is(err, dray.ErrNotFound) {
		return r, err
	}
	r = disk.Root{CID: c, Added: time.Now().UTC(), Mode: disk.Once}
	missing, size, err := h.lacking(ctx, c)
	if err != nil {
		return r, err
	}
	if missing > 0 {
		return r, &dray.Error{Op: "root", CID: c, Err: fmt.Errorf("%w in this home, or not all of it; get it first", dray.ErrNotFound)}
	}
	r.Size = size
	if w, err := skeleton(ctx, h.store, c); err == nil {
		r.Size, r.Leaves = w.Manifest().Size(), int64(w.Manifest().Len())
	}
	return r, nil
}

// lacking counts the blocks under a root that the store is known to lack, and the bytes of those that it has.
func (h *house) lacking(ctx context.Context, root cid.Cid) (missing int, size int64, err error) {
	seen := make(disk.Marks)
	w := walking{
		stat:  func(c cid.Cid) (int64, error) { return h.store.Stat(ctx, c) },
		get:   func(c cid.Cid) (dray.Block, error) { return h.store.Get(ctx, c) },
		enter: seen.Add,
		visit: func(_ cid.Cid, n int64) error { size += n; return nil },
		lacks: func(bool) { missing++ },
	}
	err = w.over(root)
	return missing, size, err
}

// isFile reports whether there is something at a path.
func isFile(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
