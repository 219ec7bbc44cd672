package node

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/transport"
	"dray/unixfs"
)

const errandAhead = 1024 // blocks that an errand wants at a time

// errand gets what a call has to read before it knows what it wants: a skeleton, the header of a tensor file. What it gets
// stays in the store. It belongs to one goroutine.
type errand struct {
	n       *Node
	root    cid.Cid
	id      exchange.SessionID
	got     chan exchange.Deliver // room for every want that may be out
	calls   *calls
	tally   *tally
	brought map[cid.Cid]dray.PeerID // what came from peers, or by another session
}

func (n *Node) newErrand(
	t *tally, root cid.Cid, peers []transport.Peer, only bool, class exchange.Class,
) *errand {
	r := &errand{
		n: n, root: root, got: make(chan exchange.Deliver, errandAhead), tally: t,
		brought: make(map[cid.Cid]dray.PeerID),
	}
	var walk exchange.WalkOptions
	if _, err := n.store.Stat(n.ctx, root); err != nil {
		walk.Bytes = walkBytes // the skeleton and the headers at once, from a peer that can
	}
	n.ask(func() {
		r.id = n.engine.OpenSession(n.now(), exchange.SessionConfig{
			Peers: n.named(peers), Only: only, Class: max(class, exchange.High), Root: root, Walk: walk,
		})
		r.tally.opened(r.id)
		n.sinks[r.id] = &sink{take: func(d exchange.Deliver) bool { r.got <- d; return true }, end: func(error) {}}
	})
	if walk.Bytes > 0 {
		n.seekFirst(r.id, root, only || len(peers) > 0)
	}
	r.calls = n.call(peers, r.id)
	return r
}

func (r *errand) close() {
	r.n.ask(func() {
		delete(r.n.sinks, r.id)
		r.n.engine.CancelSession(r.n.now(), r.id)
	})
}

// get calls use with each of the blocks, in no particular order: those in the store, and those that peers deliver.
func (r *errand) get(ctx context.Context, cids []cid.Cid, use func(dray.Block) error) error {
	for len(cids) > 0 {
		k := min(len(cids), errandAhead)
		if err := r.getSome(ctx, cids[:k], use); err != nil {
			return err
		}
		cids = cids[k:]
	}
	return nil
}

func (r *errand) getSome(ctx context.Context, cids []cid.Cid, use func(dray.Block) error) error {
	var missing []cid.Cid
	out := make(map[cid.Cid]struct{})
	for _, c := range cids {
		b, err := r.n.store.Get(ctx, c)
		if err != nil && isMissing(err) {
			if empty, eerr := dray.NewBlock(c, nil); eerr == nil {
				b, err = empty, nil // some peers keep no empty blocks
			}
		}
		switch {
		case err == nil:
			if err := use(b); err != nil {
				return err
			}
		case !isMissing(err):
			return err
		case r.n.net == nil:
			return &dray.Error{Op: "get", CID: c, Err: fmt.Errorf("%w: not in the store, and the node is offline", dray.ErrNotFound)}
		default:
			if _, twice := out[c]; !twice {
				out[c] = struct{}{}
				missing = append(missing, c)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	r.n.do(func() {
		for i, c := range missing {
			r.n.engine.Want(r.n.now(), r.id, c, exchange.WantOptions{Order: uint64(i)})
		}
	})
	return r.wait(ctx, len(out), use)
}

// wait takes n deliveries.
func (r *errand) wait(ctx context.Context, n int, use func(dray.Block) error) error {
	tick := time.NewTicker(progressGap)
	defer tick.Stop()
	for n > 0 {
		select {
		case d := <-r.got:
			n--
			b := d.Block
			if d.Err != nil {
				return &dray.Error{Op: "get", CID: d.CID, Peer: d.Peer, Err: d.Err}
			}
			if d.Local {
				var err error
				if b, err = r.n.store.Get(ctx, d.CID); err != nil {
					return err
				}
			}
			r.tally.credit(d.Peer, int64(d.Block.Size()))
			r.brought[d.CID] = d.Peer
			if err := use(b); err != nil {
				return err
			}
		case <-tick.C:
			var waits []exchange.Standing
			r.n.ask(func() { waits = r.n.engine.Standings(r.id) })
			r.n.pulseOf(ctx, r.id, r.calls, int64(len(r.brought)))
			if err := r.calls.hopeless(r.root, waits); err != nil {
				return err
			}
		case <-ctx.Done():
			return &dray.Error{Op: "get", CID: r.root, Err: ctxError(ctx)}
		case <-r.n.done:
			return &dray.Error{Op: "get", CID: r.root, Err: dray.ErrClosed}
		}
	}
	return nil
}

// walk brings the whole skeleton.
func (r *errand) walk(ctx context.Context, w *unixfs.Walk) error {
	var need []cid.Cid
	for !w.Done() {
		need = w.Need(need[:0])
		if err := w.Err(); err != nil {
			return err
		}
		if err := r.get(ctx, need, w.Feed); err != nil {
			return err
		}
	}
	return w.Err()
}

// shortLeaf is a leaf that does not hold what its parent says.
type shortLeaf struct{ cid cid.Cid }

func (s *shortLeaf) Error() string {
	return fmt.Sprintf("leaf %v does not hold what its parent says", s.cid)
}

// content reads a file under a root whose skeleton is known, by leaves. It remembers the last one. It implements
// [io.ReaderAt] for its errand's goroutine.
type content struct {
	ctx   context.Context
	r     *errand
	man   *dray.Manifest
	begin int64 // of the file in the manifest
	size  int64

	last int // index of the remembered leaf
	data []byte
}

func (r *errand) open(ctx context.Context, w *unixfs.Walk, e *unixfs.Entry) *content {
	return &content{ctx: ctx, r: r, man: w.Manifest(), begin: e.Offset, size: e.Size, last: -1}
}

// ReadAt wants all leaves that hold the bytes at once. It returns a [*shortLeaf] for one that is not what it should be.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-off))
	at, end := c.begin+off, c.begin+off+int64(n)
	places := make(map[cid.Cid][]int)
	var need []cid.Cid
	for i := c.man.At(at); i < c.man.Len(); i++ {
		offset, size := c.man.Extent(i)
		if offset >= end {
			break
		}
		if size == 0 {
			continue
		}
		if i == c.last {
			overlay(p[:n], at, c.data, offset)
			continue
		}
		leaf := c.man.Leaf(i)
		if places[leaf] == nil {
			need = append(need, leaf)
		}
		places[leaf] = append(places[leaf], i)
	}
	err := c.r.get(c.ctx, need, func(b dray.Block) error {
		_, data, _, err := unixfs.SplitLeaf(b.CID(), b.Data())
		for _, i := range places[b.CID()] {
			offset, size := c.man.Extent(i)
			if err != nil || int64(len(data)) != size {
				return &shortLeaf{b.CID()}
			}
			overlay(p[:n], at, data, offset)
			if i > c.last {
				c.last, c.data = i, data
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// overlay copies to p, which begins at byte at, what it shares with data, which begins at byte offset.
func overlay(p []byte, at int64, data []byte, offset int64) {
	if offset < at {
		data = data[min(at-offset, int64(len(data))):]
		offset = at
	}
	if offset-at < int64(len(p)) {
		copy(p[offset-at:], data)
	}
}
