package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/unixfs"
)

// The way of a part of a model, from the call to the last sync:
//
//  1. The skeleton and the headers come first (catalog.go); the selection is made from them (selection.go), and says which
//     bytes of which leaves go where (placement.go).
//  2. The files grow at their destinations. A leaf that lies in one of them in one piece is expected there like any leaf,
//     and served from there. Of the others parts are expected.
//  3. Leaves are wanted in the order of use, within a look-ahead. A leaf of which only parts are wanted is cut up by the
//     store worker instead of being kept, unless somebody else asks for it.
//  4. A file whose leaves have all come is synced and moved to its name.

const (
	aheadParts = 1 << 20 // parts of leaves wanted and not delivered
	partBatch  = 64      // leaves looked for on this machine at a time
)

// PartConfig says which part of a model to fetch, and how. Root and Path are required.
type PartConfig struct {
	TensorsConfig
	Selection
	// Path is where it goes: a file, or for a sharded model that is kept sparse a directory.
	Path string
	// Replace lets it replace other files at its path; without it, they are an error wrapping [fs.ErrExist], unless they
	// are what an earlier call made.
	Replace bool
	// Choice is how leaves are chosen from the look-ahead. The default follows the selection's order; exchange.Rarest
	// suits many hosts that fetch the same.
	Choice exchange.Order
	// Origin says on whose behalf, in [Node.Transfers].
	Origin Origin
	// Watch, if set, is told what happens. It is for one call.
	Watch *Watch
	// Progress, if set, is called a few times a second and once at the end, on the goroutine that called FetchPart.
	Progress func(Progress)
}

// FetchPart writes the selected tensors of a model to a file: from the store where it has them, and from peers otherwise.
// It fetches the skeleton, the headers, and the leaves that hold selected bytes. An interrupted call continues when it is
// called again with the same configuration. Errors are those of [Node.Tensors] and [Node.Fetch], a [*tensor.NoMatchError],
// and those of [tensor.TP.Slice]. In the Progress Total counts the bytes selected.
func (n *Node) FetchPart(ctx context.Context, cfg PartConfig) (Progress, error) {
	return cfg.Watch.around(cfg.Root, func() (Progress, error) { return n.fetchPart(ctx, cfg) })
}

func (n *Node) fetchPart(ctx context.Context, cfg PartConfig) (Progress, error) {
	if err := dray.CheckCID(cfg.Root); err != nil {
		return Progress{}, err
	}
	store, ok := n.store.(dray.FileStore)
	if !ok {
		return Progress{}, fmt.Errorf("node: the store keeps no files, so %s cannot be written", cfg.Path)
	}
	f := &partFetch{
		n: n, cfg: cfg, store: store, start: time.Now(), got: make(chan delivery, aheadWants+16),
	}
	f.progress.Root = cfg.Root
	f.entry = n.transfers.begin(KindPart, cfg.Root, cfg.Path, cfg.Origin)
	f.tally = n.newTally(f.entry)
	err := f.fetch(ctx)
	f.show()
	f.entry.end(err)
	return f.progress, err
}

// partFetch is one call of Node.FetchPart. It belongs to the calling goroutine, save for what is said to belong to the
// loop.
type partFetch struct {
	n     *Node
	cfg   PartConfig
	store dray.FileStore
	id    exchange.SessionID // 0 when there is none
	calls *calls
	got   chan delivery // room for every want that may be out

	plan  *placement
	grown []dray.Growing // by index in plan.outs; nil for one that is there already
	next  func() (wantedParts, bool)
	out   map[cid.Cid]*partWant
	left  []int64       // bytes of each placed that are missing, if that is watched
	ready int           // tensors whose bytes are all here
	all   int           // tensors
	again []wantedParts // leaves that have to be looked at once more
	bytes int64         // of leaves wanted
	parts int           // of leaves wanted
	asked uint64        // counts wants, for their order

	start    time.Time
	progress Progress
	tally    *tally
	entry    *docket
	brought  map[cid.Cid]dray.PeerID // what peers gave before the selection was made
}

// partWant is a leaf that is wanted.
type partWant struct {
	size  int64
	parts int
	here  []wantedParts // what was expected of it before it was wanted
	late  []wantedParts // and since
	cut   *cutter       // nil if it goes to the store
}

// cutter fills parts from a leaf instead of, or beside, storing it. The node keeps it by CID until it is delivered.
type cutter struct {
	fill func(dray.Block) error // called by a store worker

	// Set by the store worker before the block is delivered.
	called bool
	err    error
}

func (f *partFetch) fetch(ctx context.Context) error {
	r := f.n.newErrand(f.tally, f.cfg.Root, f.cfg.Peers, f.cfg.Only, f.cfg.Class)
	f.brought = r.brought
	f.id, f.calls = r.id, r.calls // until the selection is made
	defer func() {
		f.count()
		r.close()
	}()
	w := unixfs.NewWalk(f.cfg.Root, unixfs.WalkConfig{})
	for {
		c, err := r.catalog(ctx, w)
		if err != nil {
			return err
		}
		m, err := c.Pick()
		if err != nil {
			return err
		}
		if f.plan, err = c.plan(m, &f.cfg.Selection, f.cfg.Path); err != nil {
			return err
		}
		err = f.place(ctx)
		var short *shortLeaf
		if !errors.As(err, &short) {
			return err
		}
		if err := w.Refute(short.cid); err != nil {
			return err
		}
	}
}

// place carries out the plan.
func (f *partFetch) place(ctx context.Context) (err error) {
	f.progress.Total, f.progress.Walked = f.plan.bytes, true
	f.progress.Done, f.progress.Reused, f.progress.Leaves, f.progress.Files = 0, 0, 0, 0
	f.entry.restart()
	f.grown = make([]dray.Growing, len(f.plan.outs))
	f.begin()
	f.out, f.again, f.bytes, f.parts = make(map[cid.Cid]*partWant), nil, 0, 0
	defer func() {
		for _, g := range f.grown {
			if g != nil {
				err = errors.Join(err, g.Close())
			}
		}
	}()
	if err := f.grow(ctx); err != nil {
		return err
	}
	f.open()
	defer f.close()
	next, stop := iter.Pull(f.plan.leaves())
	defer stop()
	f.next = next
	if err := f.run(ctx); err != nil {
		return err
	}
	return f.finish(ctx)
}

// grow begins the files that are not there yet.
func (f *partFetch) grow(ctx context.Context) error {
	for i := range f.plan.outs {
		o := &f.plan.outs[i]
		if f.store.Grown(ctx, o.path, o.purpose) {
			f.progress.Done += o.bytes
			f.progress.Reused += o.bytes
			f.entry.placed(-1, GiftHere, "", "", o.bytes)
			f.progress.Files++
			f.tell(f.plan.arrivedFile(i, f.left))
			continue
		}
		if _, err := os.Lstat(o.path); err == nil && !f.cfg.Replace {
			return &os.PathError{Op: "get", Path: o.path, Err: os.ErrExist}
		}
		if o.sparse && len(f.plan.outs) > 1 {
			if err := os.MkdirAll(filepath.Dir(o.path), 0o777); err != nil {
				return err
			}
		}
		as := dray.Growth{Size: o.size, Purpose: o.purpose}
		if o.sparse {
			as.Holes = o.size - o.bytes
		}
		g, err := f.store.GrowAs(ctx, o.path, as)
		if err != nil {
			return err
		}
		f.grown[i] = g
		if err := g.Fill(0, o.head); err != nil {
			return err
		}
	}
	return nil
}

// open starts the session. With the manifest peers tell which leaves they have, and leaves are named by index; they are
// wanted one by one all the same, because their order is the selection's.
func (f *partFetch) open() {
	n := f.n
	f.plan.man.Index()
	n.ask(func() {
		f.id = n.engine.OpenSession(n.now(), exchange.SessionConfig{
			Peers: n.named(f.cfg.Peers), Only: f.cfg.Only, Class: f.cfg.Class, Order: f.cfg.Choice, Root: f.cfg.Root,
		})
		n.engine.SetManifest(n.now(), f.id, f.plan.man) // if it is known with other leaves, they are named by CID
		f.tally.opened(f.id)
		n.sinks[f.id] = &sink{take: f.take, end: func(error) {}}
	})
	f.calls = n.call(f.cfg.Peers, f.id)
}

func (f *partFetch) close() {
	f.count()
	f.n.ask(func() {
		delete(f.n.sinks, f.id)
		f.n.engine.CancelSession(f.n.now(), f.id)
		for c, w := range f.out {
			f.n.uncut(c, w.cut)
		}
	})
	f.id = 0
}

// take runs on the loop.
func (f *partFetch) take(d exchange.Deliver) bool {
	f.got <- delivery{cid: d.CID, peer: d.Peer, size: int64(d.Block.Size()), err: d.Err}
	return false
}

func (f *partFetch) run(ctx context.Context) error {
	tick := time.NewTicker(progressGap)
	defer tick.Stop()
	f.report()
	for {
		done, err := f.advance(ctx)
		if err != nil || done {
			return err
		}
		select {
		case d := <-f.got:
			if err := f.delivered(d); err != nil {
				return err
			}
		case <-tick.C:
			f.report()
			pulse(ctx, f.progress.pulse)
			if err := f.calls.hopeless(f.cfg.Root, f.progress.Peers); err != nil && len(f.out) > 0 {
				return err
			}
		case <-ctx.Done():
			return &dray.Error{Op: "get", CID: f.cfg.Root, Err: ctxError(ctx)}
		case <-f.n.done:
			return &dray.Error{Op: "get", CID: f.cfg.Root, Err: dray.ErrClosed}
		}
	}
}

// advance looks for leaves and wants those that are not here, as far as the look-ahead allows. It reports whether nothing
// is left to wait for.
func (f *partFetch) advance(ctx context.Context) (done bool, err error) {
	for {
		var batch []wantedParts
		ahead, parts := f.bytes, f.parts
		more := true
		for len(batch) < partBatch && ahead < aheadBytes && parts < aheadParts && len(f.out)+len(batch) < aheadWants {
			var w wantedParts
			if k := len(f.again); k > 0 {
				w, f.again = f.again[k-1], f.again[:k-1]
			} else if w, more = f.next(); !more {
				break
			}
			batch = append(batch, w)
			ahead += w.size
			parts += len(w.parts)
		}
		if len(batch) == 0 {
			return !more && len(f.out) == 0, nil
		}
		if err := f.look(ctx, batch); err != nil {
			return false, err
		}
	}
}

// look expects the leaves of a batch, puts those in their places that are here, and wants the others.
func (f *partFetch) look(ctx context.Context, batch []wantedParts) error {
	missing := batch[:0]
	resumed := make(map[int]bool)
	for _, w := range batch {
		g := f.grown[w.out]
		if g == nil {
			continue // the file is there
		}
		filled, err := f.expect(g, &w)
		if err != nil {
			return err
		}
		if filled {
			f.inPlace(&w, true)
			continue
		}
		if w.whole() && g.Resumed() {
			resumed[w.out] = true
		}
		missing = append(missing, w)
	}
	for out := range resumed {
		busy(ctx, exchange.ReasonChecking, f.progress.Done)
		if _, _, err := f.grown[out].Recover(ctx); err != nil {
			return err
		}
	}
	missing, err := f.local(ctx, missing)
	if err != nil {
		return err
	}
	return f.want(missing)
}

func (f *partFetch) expect(g dray.Growing, w *wantedParts) (filled bool, err error) {
	leaf := f.plan.man.Leaf(w.leaf)
	if w.whole() {
		return g.Expect(leaf, w.parts[0].To, w.size)
	}
	return g.ExpectParts(leaf, w.parts)
}

// local fills places from what this machine holds, and returns what it lacks.
func (f *partFetch) local(ctx context.Context, batch []wantedParts) (missing []wantedParts, err error) {
	var here []wantedParts
	adopt := make(map[int]bool)
	for _, w := range batch {
		leaf := f.plan.man.Leaf(w.leaf)
		if w.whole() && f.grown[w.out].Has(leaf) {
			f.inPlace(&w, true)
			continue
		}
		if _, err := f.n.store.Stat(ctx, leaf); err != nil {
			missing = append(missing, w)
			continue
		}
		if w.whole() {
			adopt[w.out] = true
		}
		here = append(here, w)
	}
	for out := range adopt {
		if _, err := f.grown[out].Adopt(ctx); err != nil {
			return nil, err
		}
	}
	lacks := make([]bool, len(here))
	errs := make([]error, len(here))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(here)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(here)); i = next.Add(1) - 1 {
				lacks[i], errs[i] = f.copyLocal(ctx, &here[i])
			}
		})
	}
	wg.Wait()
	for i := range here {
		switch {
		case errs[i] != nil:
			return nil, errs[i]
		case lacks[i]:
			missing = append(missing, here[i])
		default:
			f.inPlace(&here[i], true)
		}
	}
	return missing, nil
}

// copyLocal fills what is wanted of one leaf from the store. It reports whether the store turned out to lack it.
func (f *partFetch) copyLocal(ctx context.Context, w *wantedParts) (lacks bool, err error) {
	g, leaf := f.grown[w.out], f.plan.man.Leaf(w.leaf)
	if w.whole() && g.Has(leaf) {
		return false, nil
	}
	b, err := f.n.store.Get(ctx, leaf)
	switch {
	case err != nil && isMissing(err):
		return true, nil
	case err != nil:
		return false, err
	case !holds(b, w.size):
		return false, &shortLeaf{leaf}
	case w.whole():
		return false, f.n.store.Put(ctx, b)
	}
	return false, g.FillParts(b)
}

// want asks peers for leaves.
func (f *partFetch) want(missing []wantedParts) error {
	type ask struct {
		leaf  cid.Cid
		size  int64
		order uint64
		want  *partWant
	}
	var asks []ask
	for _, w := range missing {
		leaf := f.plan.man.Leaf(w.leaf)
		if f.n.net == nil {
			return &dray.Error{Op: "get", CID: leaf, Err: fmt.Errorf("%w: not in the store, and the node is offline", dray.ErrNotFound)}
		}
		if old := f.out[leaf]; old != nil {
			old.late = append(old.late, w)
			continue
		}
		x := &partWant{size: w.size, parts: len(w.parts), here: []wantedParts{w}}
		if !w.whole() {
			g, size := f.grown[w.out], w.size
			x.cut = &cutter{fill: func(b dray.Block) error {
				if !holds(b, size) {
					return &shortLeaf{b.CID()}
				}
				return g.FillParts(b)
			}}
		}
		f.out[leaf] = x
		f.bytes += w.size
		f.parts += len(w.parts)
		f.asked++
		asks = append(asks, ask{leaf, w.size, f.asked, x})
	}
	if len(asks) > 0 {
		f.n.do(func() {
			for _, a := range asks {
				if a.want.cut != nil {
					f.n.cuts[a.leaf] = append(f.n.cuts[a.leaf], a.want.cut)
				}
				f.n.engine.Want(f.n.now(), f.id, a.leaf, exchange.WantOptions{Order: a.order, Size: a.size})
			}
		})
	}
	return nil
}

// delivered files one answer.
func (f *partFetch) delivered(d delivery) error {
	if d.err != nil {
		return &dray.Error{Op: "get", CID: d.cid, Peer: d.peer, Err: d.err}
	}
	f.tally.credit(d.peer, d.size)
	w := f.out[d.cid]
	if w == nil {
		return nil
	}
	delete(f.out, d.cid)
	if w.cut != nil {
		f.n.do(func() { f.n.uncut(d.cid, w.cut) })
	}
	f.bytes -= w.size
	f.parts -= w.parts
	for i := range w.here {
		x := &w.here[i]
		placed := w.cut != nil && w.cut.called
		if placed && w.cut.err != nil {
			return w.cut.err
		}
		if x.whole() {
			placed = f.grown[x.out].Has(d.cid)
		}
		if !placed {
			// It came by another way than to its place: it is looked for once more.
			if x.misses++; x.misses > 3 {
				return &shortLeaf{d.cid}
			}
			f.again = append(f.again, *x)
			continue
		}
		f.entry.came(x.leaf, d.peer, x.bytes)
		f.inPlace(x, false)
	}
	f.again = append(f.again, w.late...)
	return nil
}

func (f *partFetch) inPlace(w *wantedParts, reused bool) {
	f.progress.Done += w.bytes
	f.progress.Leaves++
	f.tell(f.plan.arrived(w.leaf, f.left))
	if !reused {
		return
	}
	if peer, came := f.brought[f.plan.man.Leaf(w.leaf)]; came {
		f.entry.came(w.leaf, peer, w.bytes)
		return
	}
	f.progress.Reused += w.bytes
	f.entry.placed(w.leaf, GiftHere, "", "", w.bytes)
}

// begin counts what is to come, if that is watched.
func (f *partFetch) begin() {
	f.left, f.ready, f.all = nil, 0, 0
	if f.cfg.Watch == nil {
		return
	}
	f.left = f.plan.missing()
	for i := range f.plan.placed {
		if f.plan.placed[i].name != "" {
			f.all++
		}
	}
	f.tell(f.plan.empty())
}

// tell says that tensors are complete.
func (f *partFetch) tell(done []int) {
	for _, i := range done {
		if p := &f.plan.placed[i]; p.name != "" {
			f.ready++
			f.cfg.Watch.put(TensorReady{
				File: p.file, Name: p.name, DType: p.dtype, Shape: p.runs.Shape(), Bytes: p.runs.Bytes(),
				After: time.Since(f.start), Ready: f.ready, All: f.all,
			})
		}
	}
}

// finish syncs the files and moves them to their names.
func (f *partFetch) finish(ctx context.Context) error {
	f.report()
	busy(ctx, exchange.ReasonFinishing, f.progress.Done)
	for i, g := range f.grown {
		if g == nil {
			continue
		}
		if err := g.Finish(ctx); err != nil {
			return &dray.Error{Op: "finish " + f.plan.outs[i].path, Err: cause(err)}
		}
		f.progress.Files++
	}
	return nil
}

// report brings the progress up to date and shows it.
func (f *partFetch) report() {
	f.count()
	f.show()
}

func (f *partFetch) show() {
	f.progress.Elapsed = time.Since(f.start)
	leaves := 0
	if f.plan != nil {
		leaves = f.plan.man.Len()
	}
	f.entry.report(&f.progress, f.id, leaves)
	f.cfg.Watch.put(f.progress)
	if f.cfg.Progress != nil {
		f.cfg.Progress(f.progress)
	}
}

// count brings the progress up to date.
func (f *partFetch) count() {
	f.progress.Unreached = f.calls.unreached()
	f.tally.bring(&f.progress, f.id)
}

// uncut forgets a cutter. Called on the loop.
func (n *Node) uncut(c cid.Cid, cut *cutter) {
	if cut == nil {
		return
	}
	list := n.cuts[c]
	for i := range list {
		if list[i] == cut {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(n.cuts, c)
	} else {
		n.cuts[c] = list
	}
}

// storing returns the job of storing a block that came: unless somebody wants it whole, it is only cut up. Called on the
// loop.
func (n *Node) storing(b dray.Block) job {
	cuts := n.cuts[b.CID()]
	return job{store: b, cuts: cuts, keep: n.engine.Askers(b.CID()) != len(cuts) || len(cuts) == 0}
}
