package node

import (
	"context"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/tensor"
	"dray/transport"
	"dray/unixfs"
)

// The way of a fetched file, from the call to the last sync:
//
//  1. The skeleton is wanted first, at High class; package unixfs turns each of its blocks into entries and leaves.
//  2. Each file is grown at its destination (dray.Growing), and each leaf expected at its place there, as it becomes known.
//  3. Leaves that are there already, from an earlier attempt or in another file, are not wanted; the others are, within a
//     look-ahead in bytes.
//  4. The store writes a verified leaf to its place before the session hears of it.
//  5. A file whose leaves are all there is finished: synced and moved to its name.

const (
	aheadBytes  = 512 << 20 // leaves wanted and not delivered, by one reader; a swarm has aheadSwarm times as much
	aheadSwarm  = 32
	walkBytes   = 16 << 20 // of a skeleton that is asked for at once
	pushBytes   = 8 << 20  // of leaves that may follow it unasked: what a fast, distant peer sends in a round trip
	aheadWants  = 8192
	aheadBlocks = 1024 // skeleton blocks wanted at a time
	progressGap = 200 * time.Millisecond
	finishers   = 4 // files that are synced and renamed at a time
)

// FetchConfig says what to fetch and how. Root is required.
type FetchConfig struct {
	// Root is the file, directory or symlink to fetch.
	Root cid.Cid
	// Path is where it goes. If empty, it is only brought into the store.
	Path string
	// Peers are expected to have it, and are dialled.
	Peers []transport.Peer
	// Only says that no other peer may be asked.
	Only bool
	// Order is how leaves are chosen. The default suits one reader; exchange.Rarest suits many hosts that fetch the same.
	Order exchange.Order
	// Use, if it is [tensor.ByLayers], has the leaves of tensor files come about in the order of use: first those of the
	// embedding, then layer by layer. Within the part that is needed next, Order counts.
	Use tensor.OrderKind
	// Class is the urgency.
	Class exchange.Class
	// Origin says on whose behalf, in [Node.Transfers].
	Origin Origin
	// Watch, if set, is told what happens. It is for one call.
	Watch *Watch
	// Progress, if set, is called a few times a second and once at the end, on the goroutine that called Fetch.
	Progress func(Progress)
}

// Progress is how far a fetch is.
type Progress struct {
	// Root is what is fetched.
	Root cid.Cid
	// Total is the number of bytes of all files known so far; it is final once Walked is true.
	Total int64
	// Walked says that the whole skeleton is there.
	Walked bool
	// Done is how many of them are in place, of which Reused were here before and Fetched came from peers.
	Done, Reused, Fetched int64
	// Leaves counts leaves in place; Files counts files finished.
	Leaves, Files int
	// Rate is the recent speed in bytes a second.
	Rate float64
	// Elapsed is the time since the call.
	Elapsed time.Duration
	// First is the time from the call to the first leaf of a peer in its place; zero until then.
	First time.Duration
	// Sources says which peer gave how much.
	Sources []Source
	// Duplicates is how many bytes of blocks came for this call that had come already.
	Duplicates int64
	// Peers is what each connected peer is expected to deliver.
	Peers []exchange.Standing
	// Waiting is why nothing more is there, what weighs most first; empty when nothing is missing.
	Waiting []Wait
	// Unreached names the peers that could not be dialled yet, and why.
	Unreached []Unreached
}

// Source is one peer's part in a fetch.
type Source struct {
	// Peer is who.
	Peer dray.PeerID
	// Protocol is what it speaks.
	Protocol string
	// Bytes is how much it gave, skeleton included.
	Bytes int64
}

// Fetch brings the file or directory under a root to a path, from the store where it has it and from peers otherwise. An
// interrupted Fetch continues when it is called again with the same root and path. The error is ctx's, or wraps
// [dray.ErrNotFound] when everybody asked says that they do not have it, [dray.ErrUnreachable] when nobody could be asked,
// or comes from the store. It returns the final progress in any case.
func (n *Node) Fetch(ctx context.Context, cfg FetchConfig) (Progress, error) {
	return cfg.Watch.around(cfg.Root, func() (Progress, error) {
		if err := dray.CheckCID(cfg.Root); err != nil {
			return Progress{}, err
		}
		f := newFetch(n, cfg)
		defer f.close()
		err := f.run(ctx)
		if err == nil {
			err = f.finishAll(ctx)
		}
		f.report()
		f.entry.end(err)
		f.calls.judge(cfg.Root, f.progress.Peers)
		for _, s := range f.progress.Sources {
			f.calls.held(cfg.Root, s.Peer, true)
		}
		return f.progress, err
	})
}

// delivery is what the loop tells a fetch.
type delivery struct {
	cid    cid.Cid
	block  dray.Block // for skeleton blocks
	peer   dray.PeerID
	size   int64
	walked bool // nothing was delivered: the walk has ended
	short  bool // a leaf that does not hold what its parent says
	err    error
}

// fetch is one call of Node.Fetch. It belongs to the calling goroutine, save for what is said to belong to the loop.
type fetch struct {
	n    *Node
	cfg  FetchConfig
	walk *unixfs.Walk
	id   exchange.SessionID
	got  chan delivery // room for every want that may be out

	tree  *tree
	next  int                      // the first leaf, in the order of the manifest or of use, that was not looked at
	asked uint64                   // counts leaves that were wanted, for their order
	out   map[cid.Cid]*wantedLeaf  // leaves wanted
	bones map[cid.Cid]struct{}     // skeleton blocks wanted
	gave  map[cid.Cid]dray.PeerID  // who gave skeleton blocks that came: some are files by themselves
	bytes int64                    // of leaves wanted
	need  []cid.Cid                // reused
	batch []leafPlace              // reused
	leafs map[cid.Cid]expectedLeaf // owned by loop: what a delivered leaf must look like

	start    time.Time
	progress Progress
	tally    *tally
	entry    *docket

	calls *calls
	uses  *uses // nil when the tensors in the files do not matter

	rooted  bool // the engine knows the manifest: leaves are wanted by index
	refuted bool // some leaf was not what its parent says: the manifest is not everybody's
	anew    int  // how often the walk started over
}

type wantedLeaf struct {
	size   int64
	places []place
	late   bool // a place was added after the leaf was wanted, and perhaps after it was written to the others
}

// place is one occurrence of a leaf.
type place struct {
	file *treeFile
	leaf int // in the manifest
}

type expectedLeaf struct{ size int64 }

func newFetch(n *Node, cfg FetchConfig) *fetch {
	f := &fetch{
		n: n, cfg: cfg, walk: unixfs.NewWalk(cfg.Root, unixfs.WalkConfig{Ahead: aheadBlocks}),
		got: make(chan delivery, aheadWants+aheadBlocks+16),
		out: make(map[cid.Cid]*wantedLeaf), bones: make(map[cid.Cid]struct{}), gave: make(map[cid.Cid]dray.PeerID), leafs: make(map[cid.Cid]expectedLeaf),
		start: time.Now(), entry: n.transfers.begin(KindFetch, cfg.Root, cfg.Path, cfg.Origin),
	}
	f.progress.Root = cfg.Root
	f.tally = n.newTally(f.entry)
	f.tree = newTree(n, cfg.Path)
	f.uses = newUses(f)
	var walk exchange.WalkOptions
	if _, err := n.store.Stat(n.ctx, cfg.Root); err != nil {
		walk = exchange.WalkOptions{Bytes: walkBytes}
		if n.empty() {
			walk.Push = pushBytes // whoever has other files may have leaves of this one, and they are to come once
		}
	} // else an earlier attempt has brought the skeleton, or some of it, and perhaps leaves that must not come again
	n.ask(func() {
		f.id = n.engine.OpenSession(n.now(), exchange.SessionConfig{
			Peers: n.named(cfg.Peers), Only: cfg.Only, Class: cfg.Class, Order: cfg.Order, Root: cfg.Root, Walk: walk,
		})
		f.tally.opened(f.id)
		n.sinks[f.id] = &sink{take: f.take, walked: func() { f.got <- delivery{walked: true} }, end: func(error) {}}
	})
	if walk.Bytes > 0 {
		n.seekFirst(f.id, cfg.Root, cfg.Only || len(cfg.Peers) > 0)
	}
	f.calls = n.call(cfg.Peers, f.id)
	return f
}

func (f *fetch) close() {
	f.n.ask(func() {
		delete(f.n.sinks, f.id)
		f.n.engine.CancelSession(f.n.now(), f.id)
	})
	f.tree.close()
}

// empty reports whether the store holds nothing yet.
func (n *Node) empty() bool {
	for range n.store.All(n.ctx) {
		return false
	}
	return true
}

// take runs on the loop. The channel has room for every want that may be out, so sending never waits.
func (f *fetch) take(d exchange.Deliver) bool {
	e := delivery{cid: d.CID, peer: d.Peer, size: int64(d.Block.Size()), err: d.Err}
	x, leaf := f.leafs[d.CID]
	delete(f.leafs, d.CID)
	if leaf {
		e.short = d.Err == nil && !d.Local && !holds(d.Block, x.size)
	} else {
		e.block = d.Block
	}
	f.got <- e
	return !leaf
}

// holds reports whether a leaf block carries size bytes of content.
func holds(b dray.Block, size int64) bool {
	_, content, _, err := unixfs.SplitLeaf(b.CID(), b.Data())
	return err == nil && int64(len(content)) == size
}

func (f *fetch) run(ctx context.Context) error {
	tick := time.NewTicker(progressGap)
	defer tick.Stop()
	for {
		if err := f.advance(ctx); err != nil {
			return err
		}
		if f.walk.Done() && f.next == f.walk.Manifest().Len() && len(f.out) == 0 && f.tree.next == len(f.walk.Entries()) {
			return nil
		}
		select {
		case d := <-f.got:
			if err := f.delivered(ctx, d); err != nil {
				return err
			}
			for more := true; more; {
				select {
				case d := <-f.got:
					if err := f.delivered(ctx, d); err != nil {
						return err
					}
				default:
					more = false
				}
			}
		case <-tick.C:
			f.report()
			pulse(ctx, f.progress.pulse)
			if err := f.hopeless(); err != nil {
				return err
			}
		case err := <-f.tree.failed:
			return err
		case <-ctx.Done():
			return &dray.Error{Op: "get", CID: f.cfg.Root, Err: ctxError(ctx)}
		case <-f.n.done:
			return &dray.Error{Op: "get", CID: f.cfg.Root, Err: dray.ErrClosed}
		}
	}
}

// advance wants what has become known, within the look-ahead.
func (f *fetch) advance(ctx context.Context) error {
	for {
		f.need = f.walk.Need(f.need[:0])
		if err := f.walk.Err(); err != nil {
			return err
		}
		if len(f.need) == 0 {
			break
		}
		fed := false
		for _, c := range f.need {
			b, err := f.n.store.Get(ctx, c)
			switch {
			case err == nil:
				if err := f.walk.Feed(b); err != nil {
					return err
				}
				fed = true
			case isMissing(err):
				if err := f.wantBone(ctx, c); err != nil {
					return err
				}
			default:
				return err
			}
		}
		if !fed {
			break
		}
	}
	if err := f.tree.enter(ctx, f.walk.Entries(), f.walk.Done()); err != nil {
		return err
	}
	if f.walk.Done() && !f.rooted && !f.refuted && f.n.net != nil {
		man := f.walk.Manifest()
		man.Index()
		f.n.ask(func() {
			if f.rooted = f.n.engine.SetManifest(f.n.now(), f.id, man); !f.rooted {
				return
			}
			for i := range f.next { // what came by CID, or was found, before the manifest was known
				if _, missing := f.leafs[man.Leaf(i)]; !missing {
					f.n.engine.Here(f.n.now(), f.cfg.Root, i)
				}
			}
		})
		f.refuted = !f.rooted
	}
	if !f.walk.Done() && f.walking() {
		return nil // a leaf that is pushed is not to be wanted by CID
	}
	for {
		if err := f.uses.look(ctx); err != nil {
			return err
		}
		if err := f.wantLeaves(ctx); err != nil || !f.uses.lookAgain() {
			return err
		}
	}
}

// walking reports whether a peer was asked for the skeleton, and has not answered in full.
func (f *fetch) walking() bool {
	walking := false
	f.n.ask(func() { walking = f.n.engine.Walking(f.id) })
	return walking
}

func (f *fetch) offline(c cid.Cid) error {
	if f.n.net == nil {
		return &dray.Error{Op: "get", CID: c, Err: fmt.Errorf("%w: not in the store, and the node is offline", dray.ErrNotFound)}
	}
	return nil
}

func (f *fetch) wantBone(_ context.Context, c cid.Cid) error {
	if err := f.offline(c); err != nil {
		return err
	}
	if b, err := dray.NewBlock(c, nil); err == nil {
		return f.walk.Feed(b) // an empty file
	}
	if _, twice := f.bones[c]; twice {
		return nil
	}
	f.bones[c] = struct{}{}
	f.n.do(func() {
		f.n.engine.Want(f.n.now(), f.id, c, exchange.WantOptions{Class: max(f.cfg.Class, exchange.High)})
	})
	return nil
}

// leafPlace is one leaf of the manifest and where it goes.
type leafPlace struct {
	cid  cid.Cid
	size int64
	place
}

const lookBatch = 256 // leaves looked for on this machine at a time

// wantLeaves goes through the leaves that have become known, as far as the look-ahead allows: what is here already is put
// in its place, the rest is wanted.
func (f *fetch) wantLeaves(ctx context.Context) error {
	man, entries := f.walk.Manifest(), f.walk.Entries()
	most := int64(aheadBytes)
	if f.cfg.Order == exchange.Rarest {
		most *= aheadSwarm
	}
	if f.uses != nil && f.uses.layered {
		most = f.uses.window()
	}
	for f.bytes < most && len(f.out) < aheadWants {
		batch := f.batch[:0]
		ahead := f.bytes
		for len(batch) < lookBatch && ahead < most {
			i, ok := f.nextLeaf(man.Len())
			if !ok {
				break
			}
			leaf := man.Leaf(i)
			offset, size := man.Extent(i)
			k := f.walk.FileOf(i)
			file := f.tree.files[k]
			if file == nil {
				return fmt.Errorf("node: leaf %d of %v belongs to no file", i, f.cfg.Root)
			}
			filled, err := file.expect(leaf, offset-entries[k].Offset, size)
			if err != nil {
				return err
			}
			if filled {
				f.here(i)
				f.inPlace(place{file, i}, size, true)
				continue
			}
			batch = append(batch, leafPlace{leaf, size, place{file, i}})
			ahead += size
		}
		f.batch = batch
		if len(batch) == 0 {
			break
		}
		anew := f.anew
		if err := f.wantBatch(ctx, batch); err != nil || f.anew != anew {
			return err // or a leaf was refuted and the walk starts over
		}
	}
	return nil
}

func (f *fetch) wantBatch(ctx context.Context, batch []leafPlace) error {
	if err := f.recoverFiles(ctx, batch); err != nil {
		return err
	}
	var asks []leafPlace
	anew := f.anew
	for _, p := range batch {
		if w := f.out[p.cid]; w != nil {
			w.places = append(w.places, p.place)
			w.late = true
			continue
		}
		here, err := f.copyLocal(ctx, p.file, p.cid, p.size)
		if err != nil {
			return err
		}
		if f.anew != anew {
			break // refuted
		}
		if here {
			f.here(p.leaf)
			f.inPlace(p.place, p.size, true)
			continue
		}
		if err := f.offline(p.cid); err != nil {
			return err
		}
		f.out[p.cid] = &wantedLeaf{size: p.size, places: []place{p.place}}
		f.bytes += p.size
		asks = append(asks, p)
	}
	f.ask(asks)
	return nil
}

// ask wants leaves: by index, once the engine knows the manifest, else one by one.
func (f *fetch) ask(asks []leafPlace) {
	if len(asks) == 0 {
		return
	}
	// Demanded leaves that are chosen in order are chosen in the order of the manifest.
	demand, before := f.rooted && !(f.uses != nil && f.uses.seq != nil && f.cfg.Order == exchange.InOrder), f.asked
	f.asked += uint64(len(asks))
	f.n.do(func() {
		for i, a := range asks {
			f.leafs[a.cid] = expectedLeaf{a.size}
			if !demand {
				f.n.engine.Want(f.n.now(), f.id, a.cid, exchange.WantOptions{Order: before + uint64(i), Size: a.size})
			}
		}
		for i := 0; demand && i < len(asks); {
			k := i + 1
			for k < len(asks) && asks[k].leaf == asks[k-1].leaf+1 {
				k++
			}
			f.n.engine.Demand(f.n.now(), f.id, asks[i].leaf, k-i)
			i = k
		}
	})
}

// here tells the engine, and by it the peers, that a leaf of the manifest is on this machine.
func (f *fetch) here(i int) {
	if f.rooted {
		f.n.do(func() { f.n.engine.Here(f.n.now(), f.cfg.Root, i) })
	}
}

// recoverFiles looks for leaves in what an earlier attempt left in the batch's files.
func (f *fetch) recoverFiles(ctx context.Context, batch []leafPlace) error {
	var last *treeFile
	for _, p := range batch {
		if p.file == last || p.file.grow == nil || !p.file.grow.Resumed() {
			continue
		}
		last = p.file
		busy(ctx, exchange.ReasonChecking, f.progress.Done)
		if _, _, err := p.file.grow.Recover(ctx); err != nil {
			return err
		}
	}
	return nil
}

// putEmpty stores a leaf of no bytes without asking anybody: its CID says all there is to know. (Some peers keep no empty
// blocks, and could not serve it.)
func (f *fetch) putEmpty(ctx context.Context, leaf cid.Cid) error {
	b, err := dray.NewBlock(leaf, nil)
	if err != nil {
		return nil // a leaf without content that has a frame around it
	}
	return f.n.store.Put(ctx, b)
}

// copyLocal sees to it that a leaf which this machine holds is in its place, and reports whether it is.
func (f *fetch) copyLocal(ctx context.Context, file *treeFile, leaf cid.Cid, size int64) (bool, error) {
	if size == 0 {
		if err := f.putEmpty(ctx, leaf); err != nil {
			return false, err
		}
	}
	if file.grow != nil && file.grow.Has(leaf) {
		return true, nil
	}
	if _, err := f.n.store.Stat(ctx, leaf); err != nil {
		return false, nil
	}
	if file.grow == nil {
		return true, nil
	}
	b, err := f.n.store.Get(ctx, leaf)
	if err != nil {
		if isMissing(err) {
			return false, nil
		}
		return false, err
	}
	if !holds(b, size) {
		return false, f.refute(leaf)
	}
	return true, f.n.store.Put(ctx, b)
}

func (f *fetch) refute(leaf cid.Cid) error {
	if err := f.walk.Refute(leaf); err != nil {
		return err
	}
	f.next = 0
	f.anew++
	f.rooted, f.refuted = false, true
	f.uses = newUses(f)
	f.tree.restart()
	f.entry.restart()
	f.progress.Done, f.progress.Reused, f.progress.Leaves = 0, 0, 0
	return nil
}

// delivered files one answer.
func (f *fetch) delivered(ctx context.Context, d delivery) error {
	if d.err != nil {
		return &dray.Error{Op: "get", CID: d.cid, Peer: d.peer, Err: d.err}
	}
	if d.walked {
		return nil // advance looks again
	}
	f.tally.credit(d.peer, d.size)
	if _, bone := f.bones[d.cid]; bone {
		delete(f.bones, d.cid)
		f.gave[d.cid] = d.peer
		b := d.block
		if b.Size() == 0 {
			var err error
			if b, err = f.n.store.Get(ctx, d.cid); err != nil {
				return err
			}
		}
		return f.walk.Feed(b)
	}
	w := f.out[d.cid]
	if w == nil {
		return nil
	}
	delete(f.out, d.cid)
	f.bytes -= w.size
	if d.short {
		return f.refute(d.cid)
	}
	for _, p := range w.places {
		// It may have been written for somebody else, just before this place was known: a get that was broken off and is
		// continued at once. Writing it once more fills the places that the first time missed.
		if w.late || p.file.grow != nil && !p.file.grow.Has(d.cid) {
			if _, err := f.copyLocal(ctx, p.file, d.cid, w.size); err != nil {
				return err
			}
		}
		f.entry.came(p.leaf, d.peer, w.size)
		f.inPlace(p, w.size, false)
	}
	if f.progress.First == 0 && d.peer != "" {
		f.progress.First = time.Since(f.start)
	}
	return nil
}

func (f *fetch) inPlace(p place, size int64, reused bool) {
	f.progress.Done += size
	f.progress.Leaves++
	if reused {
		if peer, came := f.gave[f.walk.Manifest().Leaf(p.leaf)]; came { // with the skeleton, a moment ago
			f.entry.came(p.leaf, peer, size)
		} else {
			f.progress.Reused += size
			f.entry.placed(p.leaf, GiftHere, "", "", size)
		}
	}
	p.file.left--
	f.tree.settle(p.file)
	f.uses.inPlace(p.leaf)
}

func (f *fetch) finishAll(ctx context.Context) error {
	f.report()
	busy(ctx, exchange.ReasonFinishing, f.progress.Done)
	return f.tree.finish(ctx)
}

// report brings the progress up to date and shows it.
func (f *fetch) report() {
	p := &f.progress
	p.Unreached = f.calls.unreached()
	f.tally.bring(p, f.id)
	p.Elapsed = time.Since(f.start)
	p.Total, p.Walked = f.walk.Manifest().Size(), f.walk.Done()
	p.Files = int(f.tree.finished.Load())
	f.entry.report(p, f.id, f.walk.Manifest().Len())
	f.cfg.Watch.put(*p)
	if f.cfg.Progress != nil {
		f.cfg.Progress(*p)
	}
}

// hopeless gives up when there is nobody who could still deliver.
func (f *fetch) hopeless() error {
	if len(f.out)+len(f.bones) == 0 {
		return nil
	}
	return f.calls.hopeless(f.cfg.Root, f.progress.Peers)
}
