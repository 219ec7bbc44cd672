package unixfs

import (
	"slices"

	"github.com/ipfs/go-cid"

	"dray"
)

const (
	// maxHints is the most blocks that Ahead is told about in one call, and maxEarly the most interior nodes that are
	// loaded before they are read. They bound what a file of very small leaves can cost.
	maxHints = 1024
	maxEarly = 64
)

// front is how far a [Reader] has told its Ahead about.
type front struct {
	path    []readFrame      // the next link to tell about is the current one of the last frame
	from    int64            // where the leaf began that was read when front was last moved
	waiting cid.Cid          // an interior node that was told about but not loaded yet
	failed  bool             // it could not be loaded; whoever reads there will see why
	early   map[cid.Cid]Node // interior nodes that were loaded and not read yet
	hints   []cid.Cid        // reused
}

// at returns where the front stands: everything before was told about.
func (f *front) at() int64 {
	if len(f.path) == 0 {
		return -1
	}
	return f.path[len(f.path)-1].at
}

// lookAhead tells Ahead about the links after the current one of path, which is about to be read.
func (r *Reader) lookAhead(path []readFrame) {
	f := &r.front
	here := path[len(path)-1]
	next := here.at + here.links[here.i].Size
	if here.at < f.from || f.at() < next {
		// Reading jumped, or caught up: begin after the current child of each node.
		f.path = slices.Grow(f.path[:0], len(path))[:len(path)]
		copy(f.path, path)
		for i := range f.path {
			f.path[i].step()
		}
		f.waiting, f.failed = cid.Undef, false
		clear(f.early)
	}
	f.from = here.at
	f.hints = f.hints[:0]
	for r.advanceFront(next) {
	}
	if len(f.hints) > 0 {
		r.cfg.Ahead(f.hints)
	}
}

// advanceFront moves the front by one link, and reports whether it may move on.
func (r *Reader) advanceFront(next int64) bool {
	f := &r.front
	top := &f.path[len(f.path)-1]
	if top.i == len(top.links) {
		if len(f.path) == 1 {
			return false
		}
		f.path = f.path[:len(f.path)-1]
		return true
	}
	l := top.links[top.i]
	ahead := top.at - next
	if ahead >= r.cfg.AheadBytes || f.failed || len(f.hints) >= maxHints {
		return false
	}
	switch {
	case l.Size == 0 || dray.IsIdentity(l.CID):
		top.step() // never got
	case looksLikeLeaf(l):
		f.hints = append(f.hints, l.CID)
		top.step()
	case f.waiting != l.CID:
		f.hints = append(f.hints, l.CID)
		f.waiting = l.CID
		return false
	case ahead > r.cfg.AheadBytes/2 || len(f.early) >= maxEarly:
		return false
	default:
		n, err := r.get(l.CID)
		if err != nil || n.Size != l.Size || len(f.path) >= maxFileDepth {
			f.failed = true
			return false
		}
		f.waiting = cid.Undef
		if f.early == nil {
			f.early = make(map[cid.Cid]Node)
		}
		f.early[l.CID] = n
		frame := newFrame(n, top.at)
		top.step()
		f.path = append(f.path, frame)
	}
	return true
}

// step makes the next child the current one.
func (f *readFrame) step() {
	f.at += f.links[f.i].Size
	f.i++
}
