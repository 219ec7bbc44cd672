package node

import (
	"errors"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/tensor"
	"dray/unixfs"
	"dray/wire"
)

// What peers ask about a root, beyond single blocks: its leaves by index, for which the manifest is derived here, and walks,
// for which many blocks are read at once. Both read the store, so they are done by its workers; the engine bounds how many
// are under way.

// manifest derives the manifest of a root from what the store holds, and looks which leaves are there.
func (n *Node) manifest(root cid.Cid) {
	m, here := n.derive(root)
	n.do(func() { n.engine.ManifestLoaded(n.now(), root, m, here) })
}

func (n *Node) derive(root cid.Cid) (*dray.Manifest, []uint64) {
	w := unixfs.NewWalk(root, unixfs.WalkConfig{})
	var need []cid.Cid
	for !w.Done() {
		need = w.Need(need[:0])
		if w.Err() != nil || len(need) == 0 {
			return nil, nil
		}
		for _, c := range need {
			b, err := n.store.Get(n.ctx, c)
			if err != nil || w.Feed(b) != nil {
				return nil, nil
			}
		}
	}
	m := w.Manifest()
	if m.Len() == 0 {
		return nil, nil
	}
	m.Index()
	here := make([]uint64, (m.Len()+63)/64)
	for i := range m.Len() {
		if n.ctx.Err() != nil {
			return nil, nil
		}
		if _, err := n.store.Stat(n.ctx, m.Leaf(i)); err == nil {
			here[i>>6] |= 1 << (i & 63)
		}
	}
	return m, here
}

// walkKey names a walk of a peer's.
type walkKey struct {
	peer dray.PeerID
	id   uint32
}

// walker is a peer's walk that is being answered. It belongs to the worker that was told to go on with it.
type walker struct {
	n     *Node
	w     wire.Walk
	files *unixfs.Walk // the skeleton, or
	graph []cid.Cid    // everything: blocks to be looked into, the next one last
	seen  map[cid.Cid]struct{}
	depth map[cid.Cid]uint32
	queue []cid.Cid // of the skeleton, to be read
	heads int       // entries whose header leaves were looked at, after all nodes were read
	size  uint64
	part  bool
	any   bool

	busy, stopped bool // a worker is at it; the peer takes the walk back. Owned by loop
}

const (
	walkChunk  = 512 << 10 // bytes of blocks that are read at a time
	headerMost = 32 << 20  // of a tensor file's header, beyond which it is not sent ahead
)

func newWalker(n *Node, w wire.Walk) *walker {
	k := &walker{n: n, w: w, seen: make(map[cid.Cid]struct{}), depth: map[cid.Cid]uint32{w.Root: 0}}
	if w.Leaves {
		k.graph = []cid.Cid{w.Root}
	} else {
		k.files = unixfs.NewWalk(w.Root, unixfs.WalkConfig{})
	}
	return k
}

// walk goes on with a peer's walk.
func (n *Node) walk(l exchange.WalkLoad, k *walker) {
	part := k.next()
	switch {
	case !k.any:
		part.Status = wire.WalkAbsent
	case k.part:
		part.Status = wire.WalkPart
	}
	n.do(func() {
		key := walkKey{l.Peer, l.Walk.ID}
		if n.walkers[key] != k {
			return // the peer has gone, or come back and uses the number anew
		}
		if k.busy = false; part.Last || k.stopped {
			delete(n.walkers, key)
		}
		n.engine.WalkLoaded(n.now(), l.Peer, l.Walk.ID, part)
	})
}

// goOn has a worker go on with a peer's walk. Called on the loop.
func (n *Node) goOn(l exchange.WalkLoad) {
	key := walkKey{l.Peer, l.Walk.ID}
	if l.First && n.links[l.Peer] != nil {
		n.walkers[key] = newWalker(n, l.Walk)
	}
	switch k := n.walkers[key]; {
	case k == nil:
	case !l.Walk.Stop:
		k.busy = true
		n.queue = append(n.queue, job{walk: l, walker: k})
	case k.busy:
		k.stopped = true
	default:
		delete(n.walkers, key)
	}
}

// stopWalks forgets the walks of a peer that is gone. Called on the loop.
func (n *Node) stopWalks(id dray.PeerID) {
	for key := range n.walkers {
		if key.peer == id {
			delete(n.walkers, key)
		}
	}
}

const syncPause = time.Second // after a sync that failed

// sync makes what was written durable, for peers who asked to hear of that. One that fails is tried again: until it is done,
// the engine asks for no other.
func (n *Node) sync() {
	began := time.Now()
	err := n.store.Sync(n.ctx)
	if n.ctx.Err() == nil {
		n.vitals.wroteDone(began, err)
	}
	if err == nil {
		n.do(func() { n.engine.Synced(n.now()) })
		return
	}
	if n.ctx.Err() != nil {
		return
	}
	n.cfg.Log.Error("cannot sync the store", "err", err)
	n.wg.Go(func() {
		t := time.NewTimer(syncPause)
		defer t.Stop()
		select {
		case <-t.C:
			n.do(func() { n.queue = append(n.queue, job{sync: true}) })
		case <-n.done:
		}
	})
}

// next returns the next blocks, parents before children.
func (k *walker) next() (out exchange.WalkPart) {
	size := 0
	for size < walkChunk {
		c, ok := k.need()
		if !ok {
			out.Last = true
			return out
		}
		if _, twice := k.seen[c]; twice {
			continue
		}
		k.seen[c] = struct{}{}
		b, err := k.n.store.Get(k.n.ctx, c)
		if err != nil {
			k.part = true
			continue
		}
		k.size += uint64(b.Size())
		if k.size > k.w.Bytes {
			k.part = true
			out.Last = true
			return out
		}
		k.any = true
		size += b.Size()
		out.Blocks = append(out.Blocks, wire.Block{Prefix: c.Prefix(), Data: b.Data()})
		out.CIDs = append(out.CIDs, c)
		if k.heads > 0 || isLeaf(b) {
			out.Heads = append(out.Heads, c)
		}
		if err := k.feed(b); err != nil {
			k.part = true
		}
	}
	return out
}

// isLeaf reports whether a block of a walk holds bytes of a file and leads to no others: a file of one block, for one.
func isLeaf(b dray.Block) bool {
	nd, err := unixfs.Parse(b)
	return err == nil && (nd.Kind == unixfs.Raw || nd.Kind == unixfs.File) && len(nd.Links) == 0
}

// need returns the next block to read.
func (k *walker) need() (cid.Cid, bool) {
	if k.files == nil {
		if len(k.graph) == 0 {
			return cid.Undef, false
		}
		c := k.graph[len(k.graph)-1]
		k.graph = k.graph[:len(k.graph)-1]
		return c, true
	}
	if len(k.queue) == 0 {
		k.queue = k.files.Need(k.queue)
		if k.files.Err() != nil {
			k.part = true
			return cid.Undef, false
		}
	}
	if len(k.queue) == 0 {
		k.headers()
	}
	if len(k.queue) == 0 {
		return cid.Undef, false
	}
	c := k.queue[0]
	k.queue = k.queue[1:]
	if k.w.Depth > 0 && k.depth[c] > k.w.Depth {
		k.part = true
		return k.need()
	}
	return c, true
}

// feed looks into a block.
func (k *walker) feed(b dray.Block) error {
	var deeper []cid.Cid
	if k.files == nil || k.w.Depth > 0 {
		links, err := unixfs.Links(b)
		if err != nil {
			if errors.Is(err, unixfs.ErrInvalid) {
				return err
			}
			links = nil // a codec that has no links that we know
		}
		for _, c := range links {
			if _, known := k.depth[c]; !known && k.w.Depth > 0 {
				k.depth[c] = k.depth[b.CID()] + 1
			}
			deeper = append(deeper, c)
		}
	}
	if k.files != nil {
		return k.files.Feed(b)
	}
	if k.w.Depth > 0 && k.depth[b.CID()] >= k.w.Depth {
		k.part = k.part || len(deeper) > 0
		return nil
	}
	for i := len(deeper) - 1; i >= 0; i-- {
		k.graph = append(k.graph, deeper[i])
	}
	return nil
}

// headers queues the leaves that hold the headers of tensor files, once the skeleton of the file is known.
func (k *walker) headers() {
	man, entries := k.files.Manifest(), k.files.Entries()
	for ; k.heads < len(entries) && k.files.Done() && len(k.queue) == 0; k.heads++ {
		e := &entries[k.heads]
		if e.Kind != unixfs.File || e.Leaves == 0 || e.Path != "" && tensor.FormatOf(e.Path) == "" {
			continue
		}
		first, err := k.n.store.Get(k.n.ctx, man.Leaf(e.First))
		if err != nil {
			continue
		}
		_, content, _, err := unixfs.SplitLeaf(first.CID(), first.Data())
		if err != nil || tensor.Detect(content) == "" {
			continue
		}
		need, _, err := tensor.HeaderNeed(content, e.Size)
		if err != nil || need > headerMost {
			continue
		}
		for i := e.First; i < e.First+e.Leaves; i++ {
			if at, _ := man.Extent(i); at-e.Offset >= need {
				break
			}
			k.queue = append(k.queue, man.Leaf(i))
		}
	}
}
