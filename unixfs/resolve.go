package unixfs

import (
	"context"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
)

// SplitPath reads "CID", "CID/a/b", "/ipfs/CID/a/b" or "ipfs://CID/a/b" and returns the CID and the names after it.
// It returns an error wrapping [dray.ErrBadCID] or [ErrInvalid].
func SplitPath(s string) (root cid.Cid, names []string, err error) {
	s = strings.TrimPrefix(s, "ipfs://")
	s = strings.TrimPrefix(s, "/ipfs/")
	first, rest, _ := strings.Cut(s, "/")
	root, err = cid.Decode(first)
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("%w: %q: %w", dray.ErrBadCID, first, err)
	}
	if err := dray.CheckCID(root); err != nil {
		return cid.Undef, nil, err
	}
	for name := range strings.SplitSeq(rest, "/") {
		if name == "" {
			continue // a slash at the end, or two in a row
		}
		if err := CheckName(name); err != nil {
			return cid.Undef, nil, err
		}
		names = append(names, name)
	}
	return root, names, nil
}

// Resolve finds what lies at a path below a root, looking only into the blocks on the way: of a sharded directory,
// one shard per level. It is a state machine without input or output: feed it with the block that [Resolve.Need]
// names until it is Done. It is not safe for concurrent use.
type Resolve struct {
	at    cid.Cid
	names []string // still to be followed
	done  []string // followed already

	shard bool // at is a shard below another
	fan   int  // which has this many slots
	level int
	err   error
}

// NewResolve returns a Resolve for names below root. Without names it is done at once.
func NewResolve(root cid.Cid, names []string) *Resolve {
	r := &Resolve{at: root, names: names}
	r.skip()
	return r
}

// Need returns the block that is needed next, or [cid.Undef] when Done or failed.
func (r *Resolve) Need() cid.Cid {
	if r.err != nil || len(r.names) == 0 {
		return cid.Undef
	}
	return r.at
}

// Done reports whether the path was followed to its end.
func (r *Resolve) Done() bool { return r.err == nil && len(r.names) == 0 }

// CID returns what the path names, once Done.
func (r *Resolve) CID() cid.Cid { return r.at }

// Feed hands in the block that Need named; any other is ignored. The error, if any, is an [*dray.Error] naming the
// block: it wraps [dray.ErrNotFound] when there is no such name, or what [Parse] returns.
func (r *Resolve) Feed(b dray.Block) error {
	if r.err != nil || len(r.names) == 0 || b.CID() != r.at {
		return r.err
	}
	if err := r.step(b); err != nil {
		r.err = at("resolve", b.CID(), err)
		return r.err
	}
	r.skip()
	return r.err
}

// skip steps through blocks that are inside their CIDs.
func (r *Resolve) skip() {
	for len(r.names) > 0 && r.err == nil {
		b, ok := identityBlock(r.at)
		if !ok {
			return
		}
		if err := r.step(b); err != nil {
			r.err = at("resolve", b.CID(), err)
		}
	}
}

func (r *Resolve) step(b dray.Block) error {
	n, err := Parse(b)
	if err != nil {
		return err
	}
	name := r.names[0]
	missing := fmt.Errorf("%w: no %q in %q", dray.ErrNotFound, name, "/"+strings.Join(r.done, "/"))
	switch {
	case r.shard && (n.Kind != Shard || n.Fanout != r.fan):
		return invalid("%v inside a sharded directory", n.Kind)
	case n.Kind == Directory:
		l, ok := n.lookup(name)
		if !ok {
			return missing
		}
		r.follow(l.CID)
	case n.Kind == Shard:
		c, sub, ok := findInShard(&n, name, nameHash(name), r.level)
		switch {
		case !ok:
			return missing
		case sub:
			r.at, r.shard, r.fan, r.level = c, true, n.Fanout, r.level+1
		default:
			r.follow(c)
		}
	default:
		return fmt.Errorf("%w: %q is a %v, not a directory", dray.ErrNotFound, "/"+strings.Join(r.done, "/"), n.Kind)
	}
	return nil
}

func (r *Resolve) follow(c cid.Cid) {
	r.at, r.shard, r.level = c, false, 0
	r.done, r.names = append(r.done, r.names[0]), r.names[1:]
}

// ResolvePath finds what lies at names below root, with blocks from g. Errors are those of [Resolve.Feed] and of g.
func ResolvePath(ctx context.Context, g dray.Getter, root cid.Cid, names []string) (cid.Cid, error) {
	r := NewResolve(root, names)
	for !r.Done() {
		if r.err != nil {
			return cid.Undef, r.err
		}
		b, err := g.Get(ctx, r.Need())
		if err != nil {
			return cid.Undef, err
		}
		if err := r.Feed(b); err != nil {
			return cid.Undef, err
		}
	}
	return r.CID(), nil
}
