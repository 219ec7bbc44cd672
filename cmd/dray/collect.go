package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/store/disk"
)

// Which roots garbage is collected from, and in which order. How blocks are dropped is store/disk's.

// quota is how many bytes the store's own copies may have.
type quota struct {
	// Bytes is the bound; with None there is none, and only what no root needs goes.
	Bytes int64 `json:"bytes"`
	None  bool  `json:"none,omitempty"`
}

// collected is what one run did.
type collected struct {
	// Before and After are the bytes of the store's own copies; Freed is what went, in so many blocks.
	Before int64 `json:"before"`
	After  int64 `json:"after"`
	Freed  int64 `json:"freed"`
	Blocks int64 `json:"blocks"`
	// Files are those of the user's that the store does not know any more.
	Files int `json:"files"`
	// Roots are those that went, oldest use first.
	Roots []goneRoot `json:"roots"`
	// Over says that the quota is passed all the same: what is left is needed.
	Over bool `json:"over,omitempty"`
}

// goneRoot is a root that was collected.
type goneRoot struct {
	CID  string `json:"cid"`
	Path string `json:"path,omitempty"`
}

// damagedError says that what is needed cannot be told.
type damagedError struct{ roots []string }

func (d damagedError) Error() string {
	return fmt.Sprintf("nothing was collected, because blocks that say what these roots need are missing: %s; get them again, "+
		"or remove them with `dray rm`", strings.Join(d.roots, ", "))
}

// collect drops what no root needs, then roots that were got once and are not pinned, those unused the longest first, until
// the store's own copies fit into the quota.
func (h *house) collect(ctx context.Context, q quota, dry bool) (collected, error) {
	select { // one run after the other
	case h.collecting <- struct{}{}:
		defer func() { <-h.collecting }()
	case <-ctx.Done():
		return collected{}, context.Cause(ctx)
	}
	c, err := h.store.Collect(ctx) // from here on, what is used stays
	if err != nil {
		return collected{}, err
	}
	defer c.Close()
	plan, err := h.plan(ctx, c, q, dry)
	if err != nil {
		return collected{}, err
	}
	held, err := h.store.Held(ctx)
	if err != nil {
		return collected{}, err
	}
	r := collected{Before: held.Bytes, Roots: []goneRoot{}}
	for _, root := range plan.doomed {
		r.Roots = append(r.Roots, goneRoot{CID: root.CID.String(), Path: root.Path})
	}
	freed, err := c.Sweep(ctx, disk.SweepConfig{Keep: plan.keep, DryRun: dry, Gone: func(gone []cid.Cid) { h.node.Removed(gone...) }})
	r.Freed, r.Blocks, r.After = freed.Bytes, freed.Blocks, held.Bytes-freed.Bytes
	r.Over = !q.None && r.After > q.Bytes
	if err != nil || dry {
		return r, err
	}
	for _, f := range plan.files {
		ok, err := c.Forget(ctx, f, plan.keep)
		if err != nil {
			return r, err
		}
		if ok {
			r.Files++
		}
	}
	if err := h.store.Sync(ctx); err != nil {
		return r, err
	}
	return r, c.Reclaim(ctx)
}

// plan is what is needed and what is not.
type plan struct {
	keep   disk.Marks
	doomed []disk.Root
	files  []string
}

// plan marks what is needed and removes the records of the roots that are to go: first the record, so that no root is left
// without its blocks, whatever happens.
func (h *house) plan(ctx context.Context, c *disk.Collection, q quota, dry bool) (plan, error) {
	h.rootsMu.Lock()
	defer h.rootsMu.Unlock()
	growing, err := h.growingRoots()
	if err != nil {
		return plan{}, err
	}
	roots, err := h.store.Roots(ctx)
	if err != nil {
		return plan{}, err
	}
	m := &marking{c: c, keep: make(disk.Marks)}
	var damaged []string
	var once []disk.Root
	for _, g := range growing {
		if err := m.add(ctx, g); err != nil {
			return plan{}, err
		}
	}
	for _, r := range roots {
		switch isGrowing := slices.Contains(growing, r.CID); {
		case isGrowing: // marked, and what is missing of it is on its way
		case r.Collectable() && !q.None:
			once = append(once, r)
		default:
			m.holes = 0
			if err := m.add(ctx, r.CID); err != nil {
				return plan{}, err
			}
			if m.holes > 0 {
				damaged = append(damaged, r.CID.String())
			}
		}
	}
	if len(damaged) > 0 {
		return plan{}, damagedError{damaged}
	}
	// From the one used last backwards, as many as fit.
	slices.SortStableFunc(once, func(a, b disk.Root) int { return b.LastUsed().Compare(a.LastUsed()) })
	p := plan{keep: m.keep}
	for i, r := range once {
		before := m.own
		m.fresh = m.fresh[:0]
		m.list = true
		if err := m.add(ctx, r.CID); err != nil {
			return plan{}, err
		}
		if m.own <= q.Bytes {
			continue
		}
		for _, k := range m.fresh {
			m.keep.Remove(k)
		}
		m.own = before
		p.doomed = slices.Clone(once[i:])
		slices.Reverse(p.doomed)
		break
	}
	p.files = h.orphans(c, roots, p.doomed, len(growing) > 0)
	if dry {
		return p, nil
	}
	for _, r := range p.doomed {
		if err := h.store.DeleteRoot(ctx, r.CID); err != nil {
			return plan{}, err
		}
	}
	return p, h.store.Sync(ctx)
}

// orphans lists the user's files that none of the roots that stay names.
func (h *house) orphans(c *disk.Collection, roots, doomed []disk.Root, growing bool) []string {
	stays := make(map[string]bool)
	gone := make(map[cid.Cid]bool)
	for _, r := range doomed {
		gone[r.CID] = true
	}
	for _, r := range roots {
		for _, f := range r.Files {
			stays[f] = stays[f] || !gone[r.CID]
		}
	}
	known, quiet := c.Files()
	var list []string
	for _, f := range known {
		needed, named := stays[f]
		if named && !needed || !named && quiet && !growing {
			list = append(list, f)
		}
	}
	return list
}

// marking walks over what roots need.
type marking struct {
	c    *disk.Collection
	keep disk.Marks
	// own is the bytes of the store's own copies among it.
	own int64
	// holes counts blocks that are missing though something may be below them.
	holes int
	// fresh are the blocks that were marked since it was emptied, if list is set.
	list  bool
	fresh []cid.Cid
}

// add marks what the store has under a root.
func (m *marking) add(ctx context.Context, root cid.Cid) error {
	var own int64 // of the block that is looked at
	w := walking{
		stat: func(k cid.Cid) (size int64, err error) {
			size, own, err = m.c.Stat(ctx, k)
			return size, err
		},
		get: func(k cid.Cid) (dray.Block, error) { return m.c.Get(ctx, k) },
		enter: func(k cid.Cid) bool {
			if !m.keep.Add(k) {
				return false
			}
			m.own += own
			if m.list {
				m.fresh = append(m.fresh, k)
			}
			return true
		},
		lacks: func(deep bool) {
			if deep {
				m.holes++
			}
		},
	}
	return w.over(root)
}

// growingRoots lists the roots that somebody is fetching, or that a job will.
func (h *house) growingRoots() (list []cid.Cid, err error) {
	err = h.withBacklog(func(b *backlog) (err error) {
		list, err = b.growing()
		return err
	})
	h.growingMu.Lock()
	defer h.growingMu.Unlock()
	for c := range h.growing {
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list, err
}

// grow notes that a root is being fetched, until the returned function is called.
func (h *house) grow(root cid.Cid) (done func()) {
	h.growingMu.Lock()
	defer h.growingMu.Unlock()
	if h.growing == nil {
		h.growing = make(map[cid.Cid]int)
	}
	h.growing[root]++
	return func() {
		h.growingMu.Lock()
		defer h.growingMu.Unlock()
		if h.growing[root]--; h.growing[root] == 0 {
			delete(h.growing, root)
		}
	}
}
