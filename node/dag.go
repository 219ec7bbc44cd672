package node

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/transport"
	"dray/unixfs"
)

const (
	sweepAhead = 4096     // blocks of a DAG wanted at a time
	sweepBytes = 16 << 20 // of blocks that are asked for at once
	sweepMax   = 1 << 28  // blocks of one DAG
)

// DAGConfig says which blocks to bring. Root is required.
type DAGConfig struct {
	// Root is where the DAG begins.
	Root cid.Cid
	// Peers are expected to have it, and are dialled.
	Peers []transport.Peer
	// Only says that no other peer may be asked.
	Only bool
	// Class is the urgency.
	Class exchange.Class
	// Origin says on whose behalf, in [Node.Transfers].
	Origin Origin
	// Each, if set, is called with every block, parents before children, on the calling goroutine. An error ends the
	// fetch. The block may be kept.
	Each func(dray.Block) error
}

// FetchDAG brings every block under a root into the store, whatever its codec (raw, dag-pb, dag-cbor, dag-json). Errors are
// those of [Node.Fetch].
func (n *Node) FetchDAG(ctx context.Context, cfg DAGConfig) error {
	if err := dray.CheckCID(cfg.Root); err != nil {
		return err
	}
	d := &dagFetch{n: n, cfg: cfg, got: make(chan exchange.Deliver, sweepAhead), start: time.Now()}
	d.progress.Root = cfg.Root
	d.entry = n.transfers.begin(KindGraph, cfg.Root, "", cfg.Origin)
	d.tally = n.newTally(d.entry)
	d.sweep = unixfs.NewSweep(sweepMax, cfg.Root)
	var walk exchange.WalkOptions
	if !n.begun(ctx, cfg.Root) {
		walk = exchange.WalkOptions{Bytes: sweepBytes, Leaves: true}
	}
	n.ask(func() {
		d.id = n.engine.OpenSession(n.now(), exchange.SessionConfig{
			Peers: n.named(cfg.Peers), Only: cfg.Only, Class: cfg.Class, Root: cfg.Root,
			Walk: walk,
		})
		d.tally.opened(d.id)
		n.sinks[d.id] = &sink{
			take: func(x exchange.Deliver) bool { d.got <- x; return true }, // has room: no more than that are wanted
			end:  func(error) {},
		}
	})
	if walk.Bytes > 0 {
		n.seekFirst(d.id, cfg.Root, cfg.Only || len(cfg.Peers) > 0)
	}
	d.calls = n.call(cfg.Peers, d.id)
	defer func() {
		n.ask(func() {
			delete(n.sinks, d.id)
			n.engine.CancelSession(n.now(), d.id)
		})
	}()
	err := d.run(ctx)
	d.report(err == nil)
	d.entry.end(err)
	return err
}

// begun reports whether the store holds a root and all that it links to: an earlier attempt came so far.
func (n *Node) begun(ctx context.Context, root cid.Cid) bool {
	b, err := n.store.Get(ctx, root)
	if err != nil {
		return false
	}
	links, err := unixfs.Links(b)
	if err != nil {
		return true // there is nothing to walk
	}
	for _, c := range links {
		if _, err := n.store.Stat(ctx, c); err != nil {
			return false
		}
	}
	return true
}

// dagFetch is one call of FetchDAG. It belongs to the calling goroutine.
type dagFetch struct {
	n     *Node
	cfg   DAGConfig
	id    exchange.SessionID
	sweep *unixfs.Sweep
	got   chan exchange.Deliver
	out   int
	came  int64 // blocks
	calls *calls

	start    time.Time
	progress Progress // in blocks' bytes; nobody knows of how many before the end
	tally    *tally
	entry    *docket
}

func (d *dagFetch) report(last bool) {
	p := &d.progress
	p.Elapsed, p.Walked, p.Unreached = time.Since(d.start), last, d.calls.unreached()
	if last {
		p.Total = p.Done
	}
	d.tally.bring(p, d.id)
	d.entry.report(p, d.id, 0)
}

func (d *dagFetch) run(ctx context.Context) error {
	tick := time.NewTicker(progressGap)
	defer tick.Stop()
	for {
		if err := d.advance(ctx); err != nil {
			return err
		}
		if d.out == 0 {
			return nil
		}
		select {
		case x := <-d.got:
			d.out--
			d.came++
			if err := d.delivered(ctx, x); err != nil {
				return err
			}
		case <-tick.C:
			d.report(false)
			d.n.pulseOf(ctx, d.id, d.calls, d.came)
			if err := d.hopeless(); err != nil {
				return err
			}
		case <-ctx.Done():
			return &dray.Error{Op: "get", CID: d.cfg.Root, Err: ctxError(ctx)}
		case <-d.n.done:
			return &dray.Error{Op: "get", CID: d.cfg.Root, Err: dray.ErrClosed}
		}
	}
}

// advance takes what the store has and wants the rest, as far as the bound allows.
func (d *dagFetch) advance(ctx context.Context) error {
	for d.out < sweepAhead {
		need := d.sweep.Need(nil, sweepAhead-d.out)
		if err := d.sweep.Err(); err != nil {
			return err
		}
		if len(need) == 0 {
			return nil
		}
		var missing []cid.Cid
		for _, c := range need {
			b, err := d.n.store.Get(ctx, c)
			switch {
			case err == nil:
				d.took(GiftHere, "", b)
				if err := d.feed(b); err != nil {
					return err
				}
			case isMissing(err) && d.n.net != nil:
				missing = append(missing, c)
			default:
				return err
			}
		}
		d.out += len(missing)
		d.n.do(func() {
			for _, c := range missing {
				d.n.engine.Want(d.n.now(), d.id, c, exchange.WantOptions{})
			}
		})
	}
	return nil
}

func (d *dagFetch) feed(b dray.Block) error {
	if d.cfg.Each != nil {
		if err := d.cfg.Each(b); err != nil {
			return err
		}
	}
	return d.sweep.Feed(b)
}

// took counts a block.
func (d *dagFetch) took(kind GiftKind, peer dray.PeerID, b dray.Block) {
	size := int64(b.Size())
	d.progress.Done += size
	d.progress.Leaves++
	if kind == GiftHere {
		d.progress.Reused += size
	}
	d.entry.placed(-1, kind, peer, "", size)
}

func (d *dagFetch) delivered(ctx context.Context, x exchange.Deliver) error {
	switch {
	case x.Err != nil:
		return &dray.Error{Op: "get", CID: x.CID, Peer: x.Peer, Err: x.Err}
	case x.Local:
		b, err := d.n.store.Get(ctx, x.CID)
		if err != nil {
			return err
		}
		d.took(GiftShared, "", b)
		return d.feed(b)
	}
	d.tally.credit(x.Peer, int64(x.Block.Size()))
	d.took(GiftPeer, x.Peer, x.Block)
	return d.feed(x.Block)
}

func (d *dagFetch) hopeless() error {
	var waits []exchange.Standing
	d.n.ask(func() { waits = d.n.engine.Standings(d.id) })
	return d.calls.hopeless(d.cfg.Root, waits)
}
