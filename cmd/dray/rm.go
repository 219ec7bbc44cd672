package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	rules "dray/access"
	"dray/store/disk"
	"dray/unixfs"
)

var cmdRm = &cobra.Command{
	Use:   "rm CID|PATH",
	Short: "forget a root and what only it needs",
	Long: `Rm removes a root from the home, named by its CID or by the path that was added or got, together with the blocks that no
other root needs. Your own files are never touched: only the store's knowledge of them, and its own copies, go.

With --json it prints {"cid":…,"blocks":…,"bytes":…}: what the store does not hold any more.`,
	Example: `  dray rm bafybei…
  dray rm big.bin`,
	Args: arguments(1, 1, "a CID or PATH"),
}

func newRm(e *env) *cobra.Command { return bind(e, cmdRm, runRm) }

// removeRequest names a root by its CID, or by an absolute path.
type removeRequest struct {
	CID  string `json:"cid,omitempty"`
	Path string `json:"path,omitempty"`
}

type removeResult struct {
	CID    string `json:"cid"`
	Blocks int64  `json:"blocks"`
	Bytes  int64  `json:"bytes"`
}

var taskRemove = task[removeRequest, nothing, removeResult]{name: "rm", run: removeRoot}

func runRm(ctx context.Context, e *env, args []string) error {
	q := removeRequest{CID: args[0]}
	if _, err := cid.Decode(args[0]); err != nil {
		path, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		q = removeRequest{Path: path}
	} else if _, err := parseCID(args[0]); err != nil {
		return err
	}
	r, err := taskRemove.with(ctx, e, q, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.printf("removed %s: %s, %s", r.CID, plural(r.Blocks, "block"), size(r.Bytes))
	return nil
}

func removeRoot(ctx context.Context, h *house, q removeRequest, _ pipes[nothing]) (removeResult, error) {
	h.rootsMu.Lock()
	defer h.rootsMu.Unlock()
	defer h.changes.Add(1)
	roots, err := h.store.Roots(ctx)
	if err != nil {
		return removeResult{}, err
	}
	i := slices.IndexFunc(roots, func(r disk.Root) bool {
		return q.Path != "" && r.Path == q.Path || q.CID != "" && r.CID.String() == q.CID
	})
	doomed := disk.Root{}
	switch {
	case i >= 0 && roots[i].Pinned:
		return removeResult{}, fmt.Errorf("%v is pinned; take the pin off first, with `dray pin --rm %v`", roots[i].CID, roots[i].CID)
	case i >= 0:
		doomed = roots[i]
		roots = slices.Delete(roots, i, i+1)
	case q.Path != "":
		return removeResult{}, &dray.Error{Op: "rm " + q.Path, Err: errors.Join(dray.ErrNotFound,
			errors.New("no root has this path, nor is it a CID; `dray ls` lists what there is"))}
	default:
		if doomed.CID, err = parseCID(q.CID); err != nil {
			return removeResult{}, err
		}
		if _, err := h.store.Stat(ctx, doomed.CID); err != nil {
			return removeResult{}, err // it is no root, but may be a block that somebody read
		}
	}
	r, err := h.forget(ctx, doomed, roots)
	if err != nil {
		return r, err
	}
	err = h.door.edit(ctx, func(b *rules.Book) error { b.Open(doomed.CID); return nil }) // there is nothing left to keep
	return r, errors.Join(err, h.door.rootsChanged(ctx))
}

// forget deletes what is under one root and under no other. What it deletes first is the root's record, so that an
// interrupted rm leaves unreferenced blocks and no root without its blocks; the same rm by CID then finishes.
func (h *house) forget(ctx context.Context, doomed disk.Root, others []disk.Root) (removeResult, error) {
	keep := make(disk.Marks)
	for _, r := range others {
		if err := h.reachable(ctx, r.CID, keep, nil); err != nil {
			return removeResult{}, err
		}
	}
	result := removeResult{CID: doomed.CID.String()}
	var list []cid.Cid
	err := h.reachable(ctx, doomed.CID, keep, func(c cid.Cid, size int64) error {
		list = append(list, c)
		result.Blocks, result.Bytes = result.Blocks+1, result.Bytes+size
		return nil
	})
	if err != nil {
		return removeResult{}, err
	}
	if err := h.store.DeleteRoot(ctx, doomed.CID); err != nil {
		return removeResult{}, err
	}
	// Children first: as long as the root block is there, what is left can be found again.
	for _, c := range slices.Backward(list) {
		if err := h.store.Delete(ctx, c); err != nil {
			return removeResult{}, err
		}
	}
	h.node.Removed(list...)
	for _, f := range doomed.Files {
		if !slices.ContainsFunc(others, func(r disk.Root) bool { return slices.Contains(r.Files, f) }) {
			if err := h.store.Forget(ctx, f); err != nil {
				return removeResult{}, err
			}
		}
	}
	return result, h.store.Sync(ctx)
}

// reachable visits every block under a root that the store holds and that is not in seen, parents first, and adds it to
// seen.
func (h *house) reachable(ctx context.Context, root cid.Cid, seen disk.Marks, visit func(cid.Cid, int64) error) error {
	w := walking{
		stat:  func(c cid.Cid) (int64, error) { return h.store.Stat(ctx, c) },
		get:   func(c cid.Cid) (dray.Block, error) { return h.store.Get(ctx, c) },
		enter: seen.Add, visit: visit,
	}
	return w.over(root)
}

// walking is a walk over what a store holds under a root.
type walking struct {
	stat func(cid.Cid) (size int64, err error)
	get  func(cid.Cid) (dray.Block, error)
	// enter reports whether a block that is held is to be visited: not twice.
	enter func(cid.Cid) bool
	// visit, if set, is called for each.
	visit func(cid.Cid, int64) error
	// lacks, if set, is called for each block that is missing, with whether it may have others below it.
	lacks func(deep bool)
}

// over walks over a root, parents first. Leaves are not read where their parents tell that they are leaves.
func (w *walking) over(root cid.Cid) error {
	type step struct {
		cid cid.Cid
		// leaf is the content that its parent says it has, or -1 if it may have children.
		leaf int64
	}
	lacking := func(s step) {
		if w.lacks != nil {
			w.lacks(s.leaf < 0 && s.cid.Prefix().Codec != cid.Raw)
		}
	}
	stack := []step{{root, -1}}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if dray.IsIdentity(s.cid) {
			continue
		}
		size, err := w.stat(s.cid)
		if isGone(err) {
			lacking(s)
			continue
		}
		if err != nil {
			return err
		}
		if !w.enter(s.cid) {
			continue
		}
		if w.visit != nil {
			if err := w.visit(s.cid, size); err != nil {
				return err
			}
		}
		if s.cid.Prefix().Codec == cid.Raw || s.leaf >= 0 && size >= s.leaf {
			continue
		}
		b, err := w.get(s.cid)
		if isGone(err) {
			lacking(s)
			continue
		}
		if err != nil {
			return err
		}
		below, err := unixfs.Links(b)
		if errors.Is(err, unixfs.ErrCodec) || errors.Is(err, unixfs.ErrInvalid) {
			continue // nothing that could be followed
		}
		if err != nil {
			return err
		}
		leaves := leafLinks(b)
		for _, c := range slices.Backward(below) {
			leaf, ok := leaves[c]
			if !ok {
				leaf = -1
			}
			stack = append(stack, step{c, leaf})
		}
	}
	return nil
}

// isGone reports whether a store's error means that it does not hold the block.
func isGone(err error) bool {
	return errors.Is(err, dray.ErrNotFound) || errors.Is(err, dray.ErrChanged) || errors.Is(err, dray.ErrCorrupt)
}

// leafLinks returns those children of a file's node which, by their weights, are leaves, with the content they have. A
// child whose block is shorter than that content is none after all.
func leafLinks(b dray.Block) map[cid.Cid]int64 {
	const frame = 64 // more than stands around a leaf's content
	n, err := unixfs.Parse(b)
	if err != nil || n.Kind != unixfs.File {
		return nil
	}
	leaves := make(map[cid.Cid]int64, len(n.Links))
	for _, l := range n.Links {
		if l.Tsize >= l.Size && l.Tsize <= l.Size+frame {
			leaves[l.CID] = l.Size
		}
	}
	return leaves
}
