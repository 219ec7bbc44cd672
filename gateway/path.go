package gateway

import (
	"context"
	"errors"

	gw "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/boxo/path/resolver"
	"github.com/ipfs/go-cid"

	"dray"
	"dray/unixfs"
)

// followed is a path that was followed to its end.
type followed struct {
	roots   []cid.Cid // of the root and of each name but the last
	last    cid.Cid   // what the path names
	visited []cid.Cid // the blocks that were read on the way, in order, without that of last
}

// errForeign means that a path leads through something that is no UnixFS, which boxo follows.
var errForeign = errors.New("no UnixFS on the path")

// isUnixFS reports whether a block may be one of UnixFS.
func isUnixFS(c cid.Cid) bool { return c.Type() == cid.DagProtobuf || c.Type() == cid.Raw }

// follow finds what lies at names below root. When there is no such name, which isNoLink tells,
// what was visited shows that. Other errors are
// errForeign, those of Get, and those of package unixfs.
func (q *request) follow(ctx context.Context, root cid.Cid, names []string) (p followed, err error) {
	p.last = root
	for _, name := range names {
		if !isUnixFS(p.last) {
			return p, errForeign
		}
		p.roots = append(p.roots, p.last)
		step := unixfs.NewResolve(p.last, []string{name})
		for !step.Done() {
			need := step.Need()
			if !need.Defined() { // an identity block on the way said no
				return p, &resolver.ErrNoLink{Name: name, Node: p.last}
			}
			p.visited = append(p.visited, need)
			b, err := q.Get(ctx, need)
			if err != nil {
				return p, err
			}
			err = step.Feed(b)
			if errors.Is(err, dray.ErrNotFound) {
				return p, &resolver.ErrNoLink{Name: name, Node: p.last}
			}
			if err != nil {
				return p, err
			}
		}
		p.last = step.CID()
	}
	return p, nil
}

// metadata returns the path in boxo's terms.
func (p *followed) metadata() gw.ContentPathMetadata {
	return gw.ContentPathMetadata{PathSegmentRoots: p.roots, LastSegment: path.FromCid(p.last)}
}

// names returns what stands behind the root in a path.
func names(p path.ImmutablePath) []string {
	s := p.Segments()
	return s[min(2, len(s)):]
}

// isNoLink reports whether err means that a directory, which is here, has no such name.
func isNoLink(err error) bool { return errors.Is(err, &resolver.ErrNoLink{}) }
