package node

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
)

// SessionConfig says what a session is for. The zero value asks all connected peers, in order, at Normal urgency.
type SessionConfig struct {
	// Peers are expected to have the content. They need not be connected yet.
	Peers []dray.PeerID
	// Only says that nobody but Peers may be asked.
	Only bool
	// Class is the urgency of what the session asks for.
	Class exchange.Class
	// Order is how the session chooses what to ask for first.
	Order exchange.Order
	// Root, if set, is what all that is asked for lies under. What is not for everybody is got only by who names a root of it.
	Root cid.Cid
	// Bystander says that who may have a block does not depend on this session's asking for it: what others get for a root
	// that is not for everybody stays so. It is for sessions of those who may have what is open and no more, see
	// [Node.Public].
	Bystander bool
	// Origin says on whose behalf, in [Node.Transfers].
	Origin Origin
}

// Session gets blocks that belong together: what one request teaches about who has what helps the next. It is safe for
// concurrent use and must be closed.
type Session struct {
	n  *Node
	id exchange.SessionID

	class exchange.Class
	entry *docket
}

// NewSession starts a session.
func (n *Node) NewSession(cfg SessionConfig) *Session {
	s := &Session{n: n, class: cfg.Class, entry: n.transfers.begin(KindSession, cfg.Root, "", cfg.Origin)}
	n.ask(func() {
		s.id = n.engine.OpenSession(n.now(), exchange.SessionConfig{
			Peers: cfg.Peers, Only: cfg.Only, Class: cfg.Class, Order: cfg.Order, Root: cfg.Root,
			Bystander: cfg.Bystander,
		})
		s.entry.opened(s.id)
	})
	if cfg.Root.Defined() && n.cfg.Finder != nil {
		if _, err := n.store.Stat(n.ctx, cfg.Root); err != nil {
			n.seekFirst(s.id, cfg.Root, cfg.Only || len(cfg.Peers) > 0)
		}
	}
	return s
}

// Close withdraws what the session still asks for; pending calls of Get fail with [dray.ErrClosed].
func (s *Session) Close() error {
	var ended error
	if !s.n.ask(func() {
		s.entry.pull(time.Now())
		s.n.engine.CancelSession(s.n.now(), s.id)
	}) {
		ended = dray.ErrClosed
	}
	s.entry.end(ended) // not on the loop: whoever is told may ask the Node something
	return nil
}

// waitKey names a want of a session.
type waitKey struct {
	s   exchange.SessionID
	cid cid.Cid
}

// waiter is one caller of Get. It is answered exactly once.
type waiter struct {
	answered bool           // owned by loop
	result   chan getResult // one slot
}

type getResult struct {
	block dray.Block
	local bool // it lies in the store
	err   error
}

func (w *waiter) answer(b dray.Block, err error) { w.send(getResult{block: b, err: err}) }

func (w *waiter) send(r getResult) {
	if !w.answered {
		w.answered = true
		w.result <- r
	}
}

// Get returns a block: from the store, or from whichever peer delivers it first. It waits for as long as ctx allows; a
// deadline of ctx makes the want more urgent as it comes near. The error is ctx's, or from the store, or [dray.ErrClosed].
func (s *Session) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	return s.get(ctx, c, exchange.Normal)
}

// get is Get at a class; if that is Normal, the session's.
func (s *Session) get(ctx context.Context, c cid.Cid, class exchange.Class) (dray.Block, error) {
	if err := dray.CheckCID(c); err != nil {
		return dray.Block{}, err
	}
	n := s.n
	for {
		before := n.added.Load()
		b, err := n.store.Get(ctx, c)
		if err == nil || !isMissing(err) || n.net == nil {
			return b, err
		}
		w := &waiter{result: make(chan getResult, 1)}
		key := waitKey{s.id, c}
		opt := exchange.WantOptions{Class: class}
		if t, ok := ctx.Deadline(); ok {
			opt.Deadline = max(n.now()+time.Until(t), 1)
		}
		missed := false // the block was put into the store after we looked and before the loop knew that we wait
		if !n.ask(func() {
			if missed = n.added.Load() != before; !missed {
				n.waiters[key] = append(n.waiters[key], w)
				n.engine.Want(n.now(), s.id, c, opt)
			}
		}) {
			return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: dray.ErrClosed}
		}
		if missed {
			continue
		}
		select {
		case r := <-w.result:
			if r.local {
				continue
			}
			return r.block, r.err
		case <-ctx.Done():
			n.do(func() { n.leave(key, w) })
			return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: ctxError(ctx)}
		}
	}
}

// leave takes a waiter that lost patience out.
func (n *Node) leave(key waitKey, w *waiter) {
	list := n.waiters[key]
	for i, o := range list {
		if o == w {
			list = append(list[:i], list[i+1:]...)
			n.engine.Cancel(n.now(), key.s, key.cid)
			break
		}
	}
	if len(list) == 0 {
		delete(n.waiters, key)
	} else {
		n.waiters[key] = list
	}
}

// sink takes a session's deliveries in one place, for callers that want thousands of blocks. Take is called on the loop
// and must not wait; the block's bytes are only lent unless take returns true.
type sink struct {
	take   func(exchange.Deliver) (keeps bool)
	walked func() // the session's walk has ended; may be nil
	end    func(error)
}

// deliver answers those who wait for a block in one session.
func (n *Node) deliver(d exchange.Deliver) {
	if s := n.sinks[d.Session]; s != nil {
		if s.take(d) {
			n.keep(d.Block)
		}
	}
	key := waitKey{d.Session, d.CID}
	list := n.waiters[key]
	if len(list) == 0 {
		return
	}
	delete(n.waiters, key)
	n.keep(d.Block)
	for _, w := range list {
		w.send(getResult{block: d.Block, local: d.Local, err: d.Err})
	}
}

func (n *Node) sessionEnded(e exchange.SessionEvent) {
	for key, list := range n.waiters {
		if key.s == e.Session {
			for _, w := range list {
				w.answer(dray.Block{}, &dray.Error{Op: "get", CID: key.cid, Err: dray.ErrClosed})
			}
			delete(n.waiters, key)
		}
	}
	if s := n.sinks[e.Session]; s != nil {
		delete(n.sinks, e.Session)
		s.end(nil)
	}
	n.seekEnded(e.Session)
}
