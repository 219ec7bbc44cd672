package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	"dray/node"
	"dray/store/disk"
	"dray/unixfs"
)

var cmdAdd = &cobra.Command{
	Use:   "add PATH",
	Short: "make a file or directory available under a CID",
	Long: `Add reads a file or directory and prints the CID under which it can be got. The bytes stay where they are: the store
refers to your files, so leave them in place. A file that changes later is noticed and never served wrong; add it again.

The profile decides the CID. native is the fastest; with unixfs-v1-2025 and unixfs-v0-2015 the CIDs are those that
` + "`ipfs add`" + ` prints. Hidden files in directories are left out.

With --json it prints {"cid":…,"bytes":…,"leaves":…}.`,
	Example: `  dray add big.bin
  dray add --profile unixfs-v1-2025 photos/
  dray add --only-hash big.bin`,
	Args: arguments(1, 1, "a PATH"),
}

func newAdd(e *env) *cobra.Command {
	var q addRequest
	c := bind(e, cmdAdd, func(ctx context.Context, e *env, args []string) error {
		q.Path = args[0]
		return runAdd(ctx, e, q)
	})
	addFlags(c, &q)
	c.Flags().BoolVar(&q.OnlyHash, "only-hash", false, "print the CID and store nothing")
	return c
}

// addFlags declares what add and share have in common.
func addFlags(c *cobra.Command, q *addRequest) {
	c.Flags().StringVar(&q.Profile, "profile", "native", "how the content becomes blocks, which decides the CID")
	c.Flags().BoolVar(&q.Copy, "copy", false, "take a copy into the store instead of referring to the files")
	c.Flags().BoolVar(&q.Hidden, "hidden", false, "include hidden files of directories")
	_ = c.RegisterFlagCompletionFunc("profile", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return profileNames(), cobra.ShellCompDirectiveNoFileComp
	})
}

func profileNames() []string {
	var names []string
	for _, p := range unixfs.Profiles() {
		names = append(names, p.Name)
	}
	return names
}

// addRequest asks for a path to be added.
type addRequest struct {
	Path     string `json:"path"`
	Profile  string `json:"profile,omitempty"`
	Copy     bool   `json:"copy,omitempty"`
	OnlyHash bool   `json:"only_hash,omitempty"`
	Hidden   bool   `json:"hidden,omitempty"`
}

// check makes the request independent of this process and refuses what cannot be added.
func (q *addRequest) check() error {
	if _, err := unixfs.LookupProfile(q.Profile); err != nil {
		return usagef("there is no profile %q%s", q.Profile,
			suggest(q.Profile, profileNames(), "there are native, unixfs-v1-2025 and unixfs-v0-2015"))
	}
	info, err := os.Stat(q.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no %q; give the path of a file or directory", q.Path)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return usagef("%q is neither a file nor a directory (%s); only those can be added", q.Path, info.Mode().Type())
	}
	q.Path, err = filepath.Abs(q.Path)
	return err
}

// addResult is what was added.
type addResult struct {
	CID    string `json:"cid"`
	Bytes  int64  `json:"bytes"`
	Leaves int    `json:"leaves"`
}

// addNote is how far an add is.
type addNote struct {
	Path  string `json:"path"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Files int    `json:"files"`
}

var taskAdd = task[addRequest, addNote, addResult]{name: "add", run: addPath}

func runAdd(ctx context.Context, e *env, q addRequest) error {
	if err := q.check(); err != nil {
		return err
	}
	result, err := addShown(ctx, e, q, func(p pipes[addNote]) (addResult, error) { return taskAdd.with(ctx, e, q, p) })
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(result)
	}
	e.printf("%s", result.CID)
	return nil
}

// addShown runs an add and shows how far it is.
func addShown(ctx context.Context, e *env, q addRequest, add func(pipes[addNote]) (addResult, error)) (addResult, error) {
	start := time.Now()
	bar := newBar(e, "adding "+filepath.Base(q.Path))
	defer bar.close()
	result, err := add(pipes[addNote]{note: func(n addNote) {
		if e.json {
			return
		}
		bar.set(meter{done: n.Done, total: n.Total, known: n.Total > 0, rate: float64(n.Done) / time.Since(start).Seconds()})
	}})
	bar.close()
	if err == nil {
		e.tell("added %s: %s in %s", filepath.Base(q.Path), size(result.Bytes), seconds(time.Since(start)))
	}
	return result, err
}

// addPath is the task: add a path and remember its root.
func addPath(ctx context.Context, h *house, q addRequest, p pipes[addNote]) (addResult, error) {
	profile, err := unixfs.LookupProfile(q.Profile)
	if err != nil {
		return addResult{}, usageError{err}
	}
	r, err := h.node.Add(ctx, q.Path, node.AddConfig{
		Profile: profile, Copy: q.Copy, OnlyHash: q.OnlyHash, Hidden: q.Hidden,
		Progress: func(a node.AddProgress) {
			p.note(addNote{Path: a.Path, Done: a.Bytes, Total: a.Total, Files: a.Files})
		},
	})
	if err != nil {
		return addResult{}, err
	}
	result := addResult{CID: r.Root.String(), Bytes: r.Bytes, Leaves: r.Leaves}
	if q.OnlyHash {
		return result, nil
	}
	return result, h.remember(ctx, disk.Root{
		CID: r.Root, Path: q.Path, Size: r.Bytes, Leaves: int64(r.Leaves), Profile: profile.Name, Files: r.Kept,
	})
}

// remember records a root, with the files of earlier copies of it.
func (h *house) remember(ctx context.Context, r disk.Root) error {
	r.Added = time.Now().UTC()
	old, err := h.store.Root(ctx, r.CID)
	switch {
	case err == nil:
		for _, f := range old.Files {
			if !slices.Contains(r.Files, f) {
				r.Files = append(r.Files, f)
			}
		}
	case !errors.Is(err, dray.ErrNotFound):
		return err
	}
	if err := h.store.SetRoot(ctx, r); err != nil {
		return err
	}
	return h.store.Sync(ctx)
}

// parseCID reads a CID that a user typed.
func parseCID(s string) (cid.Cid, error) {
	c, err := cid.Decode(s)
	if err == nil {
		err = dray.CheckCID(c)
	}
	if err != nil {
		return cid.Undef, usagef("%q is no CID (%w); right is one like bafybei… or Qm…, as `dray add` prints",
			clip(s), cause(err))
	}
	return c, nil
}

// clip shortens what a user typed for a complaint.
func clip(s string) string {
	if r := []rune(s); len(r) > 80 {
		return string(r[:77]) + "…"
	}
	return s
}

// cause strips what a complaint says already.
func cause(err error) error {
	var e *dray.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
