package unixfs

import (
	"math/bits"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

// shape is what a [Walk] remembers of a block: all that matters but the content.
type shape struct {
	kind   Kind
	size   int64 // content in and under it
	own    int64 // content in it
	links  []Link
	fanout int
	target string
}

func shapeOf(c cid.Cid, block []byte) (*shape, error) {
	n, err := parse(c, block)
	if err != nil {
		return nil, err
	}
	sh := &shape{kind: n.Kind, size: n.Size, links: n.Links, fanout: n.Fanout}
	switch n.Kind {
	case Raw:
		sh.kind, sh.own = File, n.Size
	case File:
		sh.own = int64(len(n.Data))
	case Symlink:
		sh.target = string(n.Data)
	}
	return sh, nil
}

// identityBlock returns the block that an identity CID carries inside itself.
func identityBlock(c cid.Cid) (dray.Block, bool) {
	if !dray.IsIdentity(c) {
		return dray.Block{}, false
	}
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return dray.Block{}, false
	}
	b, err := dray.NewBlock(c, d.Digest)
	return b, err == nil
}

// memo remembers shapes of recent blocks, so that a DAG that repeats itself does not fetch the same block again and
// again. It forgets the oldest first and holds at most memoLinks links.
type memo struct {
	m     map[cid.Cid]*shape
	order []cid.Cid
	links int
}

const memoLinks = 1 << 15

func (m *memo) get(c cid.Cid) *shape { return m.m[c] }

func (m *memo) add(c cid.Cid, s *shape) {
	weight := func(s *shape) int { return 4 + len(s.links) }
	if m.m == nil {
		m.m = make(map[cid.Cid]*shape)
	}
	if _, have := m.m[c]; have || weight(s) > memoLinks {
		return
	}
	m.m[c] = s
	m.order = append(m.order, c)
	m.links += weight(s)
	for m.links > memoLinks {
		old := m.order[0]
		m.order = m.order[1:]
		m.links -= weight(m.m[old])
		delete(m.m, old)
	}
}

// expansion puts slots in the place of one that became known.
type expansion struct {
	w     *Walk
	after *slot // where the next slot goes
	open  bool  // some new slot needs a block
}

func (x *expansion) add(s *slot) {
	x.w.insert(x.after, s)
	x.after = s
	x.open = x.open || !s.resolved()
}

// leaves adds a run of leaves, which it keeps.
func (x *expansion) leaves(run ...Link) {
	if len(run) > 0 {
		x.add(&slot{leaves: run})
	}
}

// expand replaces s, whose block turned out to be sh, by what lies inside.
func (w *Walk) expand(s *slot, sh *shape) {
	x := &expansion{w: w, after: s}
	var err error
	switch s.role {
	case asEntry:
		err = x.entry(&s.task, sh)
	case asPart:
		if sh.kind != File {
			err = invalid("%v inside a file", sh.kind)
		} else if sh.size != s.link.Size {
			err = invalid("holds %d bytes where its parent says %d", sh.size, s.link.Size)
		} else {
			err = x.file(&s.task, sh)
		}
	case asShard:
		switch {
		case sh.kind != Shard:
			err = invalid("%v inside a sharded directory", sh.kind)
		case sh.fanout != s.fan:
			err = invalid("shard of %d slots below one of %d", sh.fanout, s.fan)
		case len(sh.links) == 0:
			err = invalid("empty shard below another")
		default:
			err = x.shard(&s.task, sh)
		}
	}
	if err != nil {
		w.fail(s.link.CID, err)
		return
	}
	atScan := w.scan == s
	w.remove(s) // when scan stood on s, it now stands on what replaced it
	if x.open && !atScan {
		w.scan = w.head // what was passed already has unasked slots again
	}
}

func (x *expansion) entry(t *task, sh *shape) error {
	e := &Entry{Path: t.path, Kind: sh.kind, CID: t.link.CID}
	switch sh.kind {
	case File:
		e.Size = sh.size
		x.add(&slot{entry: e})
		return x.file(t, sh)
	case Symlink:
		e.Target = sh.target
		x.add(&slot{entry: e})
		return nil
	}
	if t.depth >= x.w.cfg.MaxDepth {
		return ErrTooLarge
	}
	e.Kind = Directory
	x.add(&slot{entry: e})
	if sh.kind == Shard {
		return x.shard(t, sh)
	}
	for _, l := range sh.links {
		if err := x.child(t, l); err != nil {
			return err
		}
	}
	return nil
}

// child adds an entry of the directory t.
func (x *expansion) child(t *task, l Link) error {
	if err := CheckName(l.Name); err != nil {
		return err
	}
	path := l.Name
	if t.path != "" {
		path = t.path + "/" + l.Name
	}
	if x.w.cfg.Shallow {
		x.add(&slot{entry: &Entry{Path: path, Kind: Unknown, CID: l.CID, Size: max(l.Tsize, 0)}})
		return nil
	}
	if x.w.isRawFile(l) {
		x.add(&slot{entry: &Entry{Path: path, Kind: File, CID: l.CID, Size: l.Tsize}})
		x.leaves(Link{CID: l.CID, Size: l.Tsize})
		return nil
	}
	x.add(&slot{task: task{link: l, depth: t.depth + 1, path: path, guess: 1}})
	return nil
}

// isRawFile reports whether a directory's entry is a file of one raw leaf whose size its Tsize gives.
func (w *Walk) isRawFile(l Link) bool {
	_, refuted := w.refuted[l.CID]
	return l.CID.Type() == cid.Raw && l.Tsize >= 0 && l.Tsize <= dray.MaxBlockSize && !refuted && !dray.IsIdentity(l.CID)
}

// shard adds the links of a shard of the directory t.
func (x *expansion) shard(t *task, sh *shape) error {
	width := bits.TrailingZeros(uint(sh.fanout))
	used := (t.level + 1) * width
	if used > 64 {
		return ErrTooLarge
	}
	for _, l := range sh.links {
		want := t.bits<<width | uint64(l.Slot)
		if l.Name == "" {
			x.add(&slot{task: task{
				link: l, role: asShard, depth: t.depth, level: t.level + 1, path: t.path, bits: want,
				fan: sh.fanout, guess: min(sh.fanout, len(sh.links)),
			}})
			continue
		}
		// A name in the wrong place could never be looked up, and might occur twice.
		if nameHash(l.Name)>>(64-used) != want {
			return invalid("name %q is in the wrong shard", l.Name)
		}
		if err := x.child(t, l); err != nil {
			return err
		}
	}
	return nil
}

// file adds the leaves and parts of a file node.
func (x *expansion) file(t *task, sh *shape) error {
	if t.level >= maxFileDepth {
		return ErrTooLarge
	}
	if sh.own > 0 || len(sh.links) == 0 {
		x.leaves(Link{CID: t.link.CID, Size: sh.own})
	}
	from := 0 // the leaves since here are not added yet
	for i, l := range sh.links {
		if x.w.isLeaf(l) {
			continue
		}
		x.leaves(sh.links[from:i]...)
		from = i + 1
		if l.CID.Type() == cid.Raw && l.Size > dray.MaxBlockSize {
			return invalid("link to a leaf of %d bytes", l.Size)
		}
		x.add(&slot{task: task{
			link: l, role: asPart, depth: t.depth, level: t.level + 1, path: t.path, guess: len(sh.links),
		}})
	}
	x.leaves(sh.links[from:]...)
	return nil
}

// isLeaf reports whether a file node's link goes to a leaf: see [Walk].
func (w *Walk) isLeaf(l Link) bool {
	if _, refuted := w.refuted[l.CID]; refuted || dray.IsIdentity(l.CID) {
		return false // an identity CID is looked into at no cost
	}
	return looksLikeLeaf(l)
}

// looksLikeLeaf reports whether a file node's link goes to a leaf, as far as the node says.
func looksLikeLeaf(l Link) bool {
	switch {
	case l.Size > dray.MaxBlockSize:
		return false
	case l.CID.Type() == cid.Raw:
		return true
	case l.CID.Type() == cid.DagProtobuf:
		return l.Tsize >= l.Size && l.Tsize-l.Size < leafOverhead
	}
	return false
}
