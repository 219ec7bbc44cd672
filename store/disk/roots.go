package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"dray"

	"github.com/ipfs/go-cid"
)

// Root is a named entry of the store: something that was added or fetched as a whole. The store attaches no meaning to it;
// it is what listing and removing go by.
type Root struct {
	// CID is the root block.
	CID cid.Cid `json:"-"`
	// Path is the file or directory that it stands for, empty if there is none.
	Path string `json:"path,omitempty"`
	// Size is the number of content bytes under it.
	Size int64 `json:"size"`
	// Leaves is the number of leaves under it.
	Leaves int64 `json:"leaves,omitempty"`
	// Profile names how it was made.
	Profile string `json:"profile,omitempty"`
	// Added is when.
	Added time.Time `json:"added"`
	// Files are the referenced files that hold its leaves, for [Store.Forget].
	Files []string `json:"files,omitempty"`
	// Mode is what it is kept for. If empty, see Kept.
	Mode Mode `json:"mode,omitempty"`
	// Pinned says that it is never collected, whatever its mode.
	Pinned bool `json:"pinned,omitempty"`
	// Used is when it was last used. If zero, when it was added.
	Used time.Time `json:"used,omitzero"`
	// Sources are addresses, each with its peer, of those who had it.
	Sources []string `json:"sources,omitempty"`
}

// Mode is what a root is kept for.
type Mode string

// The modes.
const (
	// Once: it was got once, and may be collected.
	Once Mode = "once"
	// Keep: what is lost of it is to be fetched again.
	Keep Mode = "keep"
	// Seed: it is served for ever.
	Seed Mode = "seed"
	// Both: Keep and Seed.
	Both Mode = "both"
)

// Modes lists the modes.
func Modes() []Mode { return []Mode{Once, Keep, Seed, Both} }

// Kept returns what the root is kept for. One without a mode, as older versions wrote, is for seeding if it was added here,
// which its profile tells, and else was got once.
func (r *Root) Kept() Mode {
	switch {
	case r.Mode != "":
		return r.Mode
	case r.Profile != "":
		return Seed
	}
	return Once
}

// Mended reports whether what is lost of the root is to be fetched again.
func (r *Root) Mended() bool { return r.Kept() == Keep || r.Kept() == Both }

// Seeded reports whether the root is to be served for ever.
func (r *Root) Seeded() bool { return r.Kept() == Seed || r.Kept() == Both }

// Collectable reports whether the root may be collected, as far as its record says.
func (r *Root) Collectable() bool { return r.Kept() == Once && !r.Pinned }

// LastUsed returns when the root was last used, or else added.
func (r *Root) LastUsed() time.Time {
	if r.Used.After(r.Added) {
		return r.Used
	}
	return r.Added
}

func rootKey(c cid.Cid) []byte { return append([]byte{keyRoot}, c.Bytes()...) }

// SetRoot records r under r.CID, in place of what was there. It survives the loss of power after the next Sync.
func (s *Store) SetRoot(ctx context.Context, r Root) error {
	if !r.CID.Defined() {
		return fail("set root", cid.Undef, dray.ErrBadCID)
	}
	v, err := json.Marshal(&r)
	if err != nil {
		return fail("set root", r.CID, err)
	}
	return s.editRoot(ctx, "set root", r.CID, func(e *edit) error { return e.batch.Set(rootKey(r.CID), v, nil) })
}

// DeleteRoot forgets a root's record. Blocks are not touched: which of them no other root needs is for the caller to work
// out. Deleting what is not recorded is not an error.
func (s *Store) DeleteRoot(ctx context.Context, c cid.Cid) error {
	if !c.Defined() {
		return fail("delete root", cid.Undef, dray.ErrBadCID)
	}
	return s.editRoot(ctx, "delete root", c, func(e *edit) error { return e.batch.Delete(rootKey(c), nil) })
}

func (s *Store) editRoot(ctx context.Context, op string, c cid.Cid, change func(*edit) error) error {
	if err := s.enter(); err != nil {
		return fail(op, c, err)
	}
	defer s.leave()
	if ctx.Err() != nil {
		return fail(op, c, context.Cause(ctx))
	}
	e := s.begin()
	if err := change(e); err != nil {
		e.abandon()
		return fail(op, c, err)
	}
	return fail(op, c, e.finish())
}

// Root returns the record of c, or dray.ErrNotFound.
func (s *Store) Root(ctx context.Context, c cid.Cid) (Root, error) {
	const op = "root"
	if err := s.enter(); err != nil {
		return Root{}, fail(op, c, err)
	}
	defer s.leave()
	if ctx.Err() != nil {
		return Root{}, fail(op, c, context.Cause(ctx))
	}
	r := Root{CID: c}
	ok, err := lookup(s.db, rootKey(c), func(v []byte) error { return json.Unmarshal(v, &r) })
	if err == nil && !ok {
		err = dray.ErrNotFound
	}
	return r, fail(op, c, err)
}

// Roots returns every root, oldest first.
func (s *Store) Roots(ctx context.Context) ([]Root, error) {
	const op = "list roots"
	if err := s.enter(); err != nil {
		return nil, fail(op, cid.Undef, err)
	}
	defer s.leave()
	var roots []Root
	err := walk(ctx, s.db, []byte{keyRoot}, func(k, v []byte) (bool, error) {
		_, c, err := cid.CidFromBytes(bytes.Clone(k[1:]))
		if err != nil {
			return false, errors.Join(errIndex, err)
		}
		r := Root{CID: c}
		if err := json.Unmarshal(v, &r); err != nil {
			return false, err
		}
		roots = append(roots, r)
		return true, nil
	})
	slices.SortStableFunc(roots, func(a, b Root) int { return a.Added.Compare(b.Added) })
	return roots, fail(op, cid.Undef, err)
}
