package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	rules "dray/access"
	"dray/node"
	"dray/store/disk"
	"dray/tensor"
	"dray/unixfs"
)

var cmdAdd = &cobra.Command{
	Use:   "add PATH",
	Short: "make a file or directory available under a CID",
	Long: `Add reads a file or directory and prints the CID under which it can be got. The bytes stay where they are: the store
refers to your files, so leave them in place. A file that changes later is noticed and never served wrong; add it again.

The profile decides the CID. native is the fastest; with unixfs-v1-2025 and unixfs-v0-2015 the CIDs are those that
` + "`ipfs add`" + ` prints. Hidden files in directories are left out.

Files of tensors (safetensors, GGUF, npy, npz) are cut so that each tensor has a CID of its own, and a tensor that is in
several files is moved once; the file stays an ordinary one. --layout plain cuts them like any other file. With the default,
auto, the profile decides: native does it, the others keep to the CIDs of ` + "`ipfs add`" + `. A file of tensors that is
malformed is added like any other file, with a warning.

With --json it prints {"cid":…,"bytes":…,"leaves":…,"known_bytes":…,"tensors":…,"known_tensors":…}, where known is what was
here before, in copies or other files; and if there are any, "warnings":[{"path":…,"format":…,"byte":…,"reason":…}].`,
	Example: `  dray add big.bin
  dray add model.safetensors
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
	c.Flags().StringVar(&q.Layout, "layout", "auto", "where files are cut: auto (as the profile says), tensors or plain")
	_ = c.RegisterFlagCompletionFunc("layout", cobra.FixedCompletions(layoutNames, cobra.ShellCompDirectiveNoFileComp))
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

// layouts are the values of --layout, layoutNames their names.
var (
	layouts = map[string]node.Layout{
		"": node.LayoutAuto, "auto": node.LayoutAuto, "tensors": node.LayoutTensors, "plain": node.LayoutPlain,
	}
	layoutNames = []string{"auto", "tensors", "plain"}
)

// addRequest asks for a path to be added.
type addRequest struct {
	Path     string `json:"path"`
	Profile  string `json:"profile,omitempty"`
	Layout   string `json:"layout,omitempty"`
	Copy     bool   `json:"copy,omitempty"`
	OnlyHash bool   `json:"only_hash,omitempty"`
	Hidden   bool   `json:"hidden,omitempty"`
	// Follow takes links to files for the files.
	Follow bool `json:"follow,omitempty"`
	// Share says who may have it, if the rule is to change: see share.go. Label is for a ticket.
	Share string `json:"share,omitempty"`
	Label string `json:"label,omitempty"`
}

// check makes the request independent of this process and refuses what cannot be added.
func (q *addRequest) check() error {
	if _, err := unixfs.LookupProfile(q.Profile); err != nil {
		return usagef("there is no profile %q%s", q.Profile,
			suggest(q.Profile, profileNames(), "there are native, unixfs-v1-2025 and unixfs-v0-2015"))
	}
	if _, ok := layouts[q.Layout]; !ok {
		return usagef("there is no layout %q%s", q.Layout, suggest(q.Layout, layoutNames, "there are auto, tensors and plain"))
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
	// KnownBytes and KnownTensors were here before, elsewhere than in what was added.
	KnownBytes   int64 `json:"known_bytes"`
	Tensors      int   `json:"tensors"`
	KnownTensors int   `json:"known_tensors"`
	// Warnings are about the first files of tensors that are malformed; Malformed counts them all.
	Warnings  []addWarning `json:"warnings,omitempty"`
	Malformed int          `json:"malformed,omitempty"`
	// Access says who may have it, if not everybody; Capability is the secret of a ticket that was asked for.
	Access     string `json:"access,omitempty"`
	Capability string `json:"capability,omitempty"`
}

// addWarning says why a file of tensors was added like any other file.
type addWarning struct {
	Path   string `json:"path"`
	Format string `json:"format"`
	// Byte is where in the file the fault is.
	Byte   int64  `json:"byte"`
	Tensor string `json:"tensor,omitempty"`
	Reason string `json:"reason"`
}

// text is the warning in words, as [tensor.HeaderError] has them.
func (w *addWarning) text() string {
	fault := tensor.HeaderError{Format: tensor.Format(w.Format), Offset: w.Byte, Tensor: w.Tensor, Reason: w.Reason}
	return fmt.Sprintf("%s: added as a plain file: %v", w.Path, &fault)
}

// shared says how much of what was added was here before.
func (r *addResult) shared() string {
	var parts []string
	switch {
	case r.Tensors > 0 && r.KnownBytes > 0:
		parts = append(parts, fmt.Sprintf("%d of %s", r.KnownTensors, plural(int64(r.Tensors), "tensor")))
	case r.Tensors > 0:
		return " (" + plural(int64(r.Tensors), "tensor") + ")"
	}
	if r.KnownBytes > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s", size(r.KnownBytes), size(r.Bytes)))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + " were already here)"
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
	result, err := addShown(e, q, func(p pipes[addNote]) (addResult, error) { return taskAdd.with(ctx, e, q, p) })
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
func addShown(e *env, q addRequest, add func(pipes[addNote]) (addResult, error)) (addResult, error) {
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
	if err != nil {
		return result, err
	}
	for i := range result.Warnings {
		e.tell("warning: %s", result.Warnings[i].text())
	}
	if more := result.Malformed - len(result.Warnings); more > 0 {
		e.tell("warning: %s more added as plain files", plural(int64(more), "malformed file"))
	}
	e.tell("added %s: %s in %s%s", filepath.Base(q.Path), size(result.Bytes), seconds(time.Since(start)), result.shared())
	return result, nil
}

// addPath is the task: add a path and remember its root.
func addPath(ctx context.Context, h *house, q addRequest, p pipes[addNote]) (addResult, error) {
	profile, err := unixfs.LookupProfile(q.Profile)
	if err != nil {
		return addResult{}, usageError{err}
	}
	release := h.store.Hold() // until the root is recorded
	defer release()
	pending, err := q.pending()
	if err != nil {
		return addResult{}, err
	}
	if pending.Defined() && !q.OnlyHash { // so that a crash from here on opens nothing
		if err := h.door.edit(ctx, func(b *rules.Book) error { b.Begin(pending); return nil }); err != nil {
			return addResult{}, err
		}
	}
	r, err := h.node.Add(ctx, q.Path, node.AddConfig{
		Guard: pending, Profile: profile, Layout: layouts[q.Layout], Copy: q.Copy, OnlyHash: q.OnlyHash, Hidden: q.Hidden, Follow: q.Follow,
		Progress: func(a node.AddProgress) {
			p.note(addNote{Path: a.Path, Done: a.Bytes, Total: a.Total, Files: a.Files})
		},
	})
	if err != nil {
		return addResult{}, err
	}
	result := addResult{
		CID: r.Root.String(), Bytes: r.Bytes, Leaves: r.Leaves,
		KnownBytes: r.Known, Tensors: r.Tensors, KnownTensors: r.KnownTensors, Malformed: r.MalformedFiles,
	}
	for _, m := range r.Malformed {
		result.Warnings = append(result.Warnings, addWarning{
			Path: m.Path, Format: string(m.Err.Format), Byte: m.Err.Offset, Tensor: m.Err.Tensor, Reason: m.Err.Reason,
		})
	}
	if q.OnlyHash {
		return result, nil
	}
	if err := h.admit(ctx, r.Root, pending, q, &result); err != nil {
		return result, err
	}
	if pending.Defined() {
		h.node.Unguard(pending)
	}
	return result, h.remember(ctx, disk.Root{
		CID: r.Root, Path: q.Path, Size: r.Bytes, Leaves: int64(r.Leaves), Profile: profile.Name, Files: r.Kept,
	})
}

// remember records a root, with the files of earlier copies of it.
func (h *house) remember(ctx context.Context, r disk.Root) error {
	h.rootsMu.Lock()
	defer h.rootsMu.Unlock()
	defer h.changes.Add(1)
	r.Added = time.Now().UTC()
	old, err := h.store.Root(ctx, r.CID)
	switch {
	case err == nil:
		inherit(&r, &old)
	case !errors.Is(err, dray.ErrNotFound):
		return err
	}
	if err := h.store.SetRoot(ctx, r); err != nil {
		return err
	}
	return errors.Join(h.store.Sync(ctx), h.door.rootsChanged(ctx))
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
