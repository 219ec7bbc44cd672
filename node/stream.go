package node

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/tensor"
	"dray/unixfs"
)

// The way of a streamed tensor, from the call to the consumer:
//
//  1. The selection is planned as for a file (selection.go, placement.go), and cut into steps: what one leaf has of one
//     tensor, in the order of use.
//  2. Steps enter a window from the front of that order. A leaf that enters is wanted unless it is here; it stays in memory
//     until its last step in the window is done. A valve stops the window when it is full, and opens it again when the
//     consumer has taken enough.
//  3. The step at the front is handed to the consumer when its leaf is there. While the consumer works nothing is handed over
//     and nothing new is wanted; what was wanted arrives.

// StreamConfig says which tensors of a model to stream, and how. Root is required.
type StreamConfig struct {
	TensorsConfig
	// Selection says which, and in which order. Sparse has no meaning.
	Selection
	// Names, if not empty, are the tensors in the order in which they are used, in place of the selection's patterns and
	// order. Each must exist, and once.
	Names []string
	// Uses say how urgent tensors are, or what is computed from them, by name. Those that are not named have the zero Use.
	Uses map[string]Use
	// Graph, if set, says which tensors others, and results, are computed from. What something needs comes before it, and is
	// at least as urgent. Its nodes need not be tensors of the model. A cycle is a [*tensor.CycleError].
	Graph *tensor.Graph
	// Policy chooses, whenever the window has room, which tensor is next, among those of the highest class whose needs have
	// been chosen. If empty, that is the one with the earliest deadline, then the order of the graph, then that of use.
	Policy tensor.Policy
	// Schedule tunes the policy.
	Schedule tensor.SchedulerConfig
	// Window bounds the leaves that are wanted, or here and not consumed, in bytes. If a mark is zero, its default is that
	// of [tensor.Marks].
	Window tensor.Marks
	// Origin says on whose behalf, in [Node.Transfers].
	Origin Origin
	// Progress, if set, is called a few times a second while the stream waits, and once at the end, on the consumer's
	// goroutine.
	Progress func(Progress)
}

// TensorPiece is a stretch of a tensor's bytes. The pieces of a tensor come in order, without gaps, and before those of the
// next one.
type TensorPiece struct {
	// Name, DType and Shape are the tensor's; Shape is that of what is selected of it.
	Name  string
	DType tensor.DType
	Shape []int64
	// Size is the number of bytes selected of the tensor, Offset how many of them came in earlier pieces.
	Size, Offset int64
	// Data are the bytes, at most a leaf's. They are valid until the next piece is asked for, and must not be changed.
	Data []byte
	// Last says that the tensor is complete with this piece. A tensor without bytes has one piece without data.
	Last bool
}

// Stream yields the bytes of the selected tensors in the order of use, while they arrive. Leaves are wanted ahead of the
// consumer within the window, so memory does not depend on the size of tensors, and a slow consumer stops the wants and with
// them the senders. Leaves that come stay in the store. The stream ends with the last piece, or with an error, which is the
// last pair: those of [Node.Tensors] and [Node.FetchPart]. A consumer that breaks off withdraws what is wanted.
func (n *Node) Stream(ctx context.Context, cfg StreamConfig) iter.Seq2[TensorPiece, error] {
	return func(yield func(TensorPiece, error) bool) {
		s := &stream{n: n, cfg: cfg, start: time.Now(), got: make(chan delivery, aheadWants+16)}
		s.progress.Root = cfg.Root
		s.entry = n.transfers.begin(KindStream, cfg.Root, "", cfg.Origin)
		s.tally = n.newTally(s.entry)
		more, err := s.run(ctx, func(p TensorPiece) bool { return yield(p, nil) })
		ended := err
		if !more {
			ended = context.Canceled // the consumer has enough
		}
		s.entry.report(&s.progress, 0, 0)
		s.entry.end(ended)
		if err != nil && more {
			yield(TensorPiece{}, err)
		}
	}
}

// stream is one call of Node.Stream. It belongs to the consumer's goroutine.
type stream struct {
	n     *Node
	cfg   StreamConfig
	id    exchange.SessionID
	calls *calls
	got   chan delivery // room for every want that may be out

	plan  *placement
	queue *queue
	valve *tensor.Valve
	line  []step // the window, from its front on
	head  int
	held  map[cid.Cid]*heldLeaf
	out   int // leaves wanted
	asked uint64

	start    time.Time
	progress Progress
	tally    *tally
	entry    *docket
}

// step is what one leaf has of one tensor. A tensor without bytes has one without parts.
type step struct {
	placed int // index in plan.placed
	w      wantedParts
	leaf   cid.Cid
}

// heldLeaf is a leaf in the window.
type heldLeaf struct {
	steps  int // in the window
	size   int64
	wanted bool
	taken  bool   // the valve counts it
	data   []byte // its content, once it has come
	kind   GiftKind
	from   dray.PeerID // who gave it
}

// run reports whether the consumer wants more.
func (s *stream) run(ctx context.Context, yield func(TensorPiece) bool) (more bool, err error) {
	if s.valve, err = tensor.NewValve(s.cfg.Window); err != nil {
		return true, err
	}
	if err := s.prepare(ctx); err != nil {
		return true, err
	}
	defer s.close()
	next, stop := iter.Pull(s.steps())
	defer stop()
	var gathered []byte
	at, offset := -1, int64(0) // the tensor of the last piece, and how much of it came
	for {
		if err := s.fill(next); err != nil {
			return true, err
		}
		if s.head == len(s.line) {
			s.show()
			return true, nil
		}
		x := &s.line[s.head]
		content, err := s.content(ctx, x)
		if err != nil {
			return true, err
		}
		if x.placed != at {
			at, offset = x.placed, 0
		}
		p := &s.plan.placed[x.placed]
		var piece []byte
		switch parts := x.w.parts; {
		case len(parts) == 1:
			piece = content[parts[0].From:][:parts[0].Size]
		case len(parts) > 1:
			gathered = gathered[:0]
			for _, part := range parts {
				gathered = append(gathered, content[part.From:][:part.Size]...)
			}
			piece = gathered
		}
		t := TensorPiece{Name: p.name, DType: p.dtype, Shape: p.runs.Shape(), Size: p.runs.Bytes(), Offset: offset, Data: piece}
		offset += int64(len(piece))
		t.Last = offset == t.Size
		s.progress.Done += int64(len(piece))
		if h := s.held[x.leaf]; h != nil {
			s.entry.placed(x.w.leaf, h.kind, h.from, "", int64(len(piece)))
		}
		if !yield(t) {
			return false, nil
		}
		s.consumed(x)
	}
}

// prepare makes the plan and opens the session.
func (s *stream) prepare(ctx context.Context) error {
	if err := dray.CheckCID(s.cfg.Root); err != nil {
		return err
	}
	r := s.n.newErrand(s.tally, s.cfg.Root, s.cfg.Peers, s.cfg.Only, s.cfg.Class)
	defer r.close()
	c, err := r.catalog(ctx, unixfs.NewWalk(s.cfg.Root, unixfs.WalkConfig{}))
	if err != nil {
		return err
	}
	m, err := c.Pick()
	if err != nil {
		return err
	}
	if s.plan, err = c.planStream(m, &s.cfg); err != nil {
		return err
	}
	if s.queue, err = newQueue(s.plan, &s.cfg); err != nil {
		return &dray.Error{Op: "stream", CID: s.cfg.Root, Err: cause(err)}
	}
	s.progress.Root, s.progress.Total, s.progress.Walked = s.cfg.Root, s.plan.bytes, true
	s.held = make(map[cid.Cid]*heldLeaf)
	s.plan.man.Index()
	n := s.n
	n.ask(func() {
		s.id = n.engine.OpenSession(n.now(), exchange.SessionConfig{
			Peers: n.named(s.cfg.Peers), Only: s.cfg.Only, Class: s.cfg.Class, Order: exchange.InOrder, Root: s.cfg.Root,
		})
		n.engine.SetManifest(n.now(), s.id, s.plan.man)
		n.sinks[s.id] = &sink{take: s.take, end: func(error) {}}
	})
	s.calls = n.call(s.cfg.Peers, s.id)
	return nil
}

// planStream places tensors in the order of use: where they would go in a file does not matter.
func (c *Catalog) planStream(m *Model, cfg *StreamConfig) (*placement, error) {
	sel := cfg.Selection
	if len(cfg.Names) > 0 {
		sel.Patterns, sel.Order = nil, tensor.ByFile
	}
	list, err := m.choose(&sel)
	if err != nil {
		return nil, err
	}
	order, err := tensor.Order(namesOf(list), sel.Order)
	if err != nil {
		return nil, err
	}
	if len(cfg.Names) > 0 {
		if order, err = named(list, cfg.Names); err != nil {
			return nil, err
		}
	}
	p := &placement{man: c.walk.Manifest(), outs: []outFile{{}}}
	for _, i := range order {
		runs, err := list[i].Runs(list[i].slices...)
		if err != nil {
			return nil, err
		}
		p.order = append(p.order, len(p.placed))
		p.placed = append(p.placed, placed{name: list[i].Name, dtype: list[i].DType, base: c.base(list[i].File), runs: runs})
	}
	return p, p.finish()
}

// named returns the indexes of the names in list.
func named(list []chosen, names []string) ([]int, error) {
	at := make(map[string]int, len(list))
	for i := range list {
		at[list[i].Name] = i
	}
	order := make([]int, len(names))
	seen := make(map[string]bool, len(names))
	for k, name := range names {
		i, ok := at[name]
		switch {
		case !ok:
			return nil, &dray.Error{Op: "stream", Err: fmt.Errorf("%w: tensor %q", dray.ErrNotFound, name)}
		case seen[name]:
			return nil, &dray.Error{Op: "stream", Err: fmt.Errorf("tensor %q is named twice", name)}
		}
		order[k], seen[name] = i, true
	}
	return order, nil
}

// steps yields the steps in the order of use.
func (s *stream) steps() iter.Seq[step] {
	return func(yield func(step) bool) {
		for {
			i, ok := s.queue.next(time.Since(s.start))
			if !ok {
				return
			}
			x := &s.plan.placed[i]
			if x.runs.Bytes() == 0 {
				if !yield(step{placed: i}) {
					return
				}
				continue
			}
			first, end := tensor.Leaves(s.plan.man, x.hull)
			for k := first; k < end; k++ {
				w := s.plan.ofOne(i, k)
				if len(w.parts) > 0 && !yield(step{placed: i, w: w, leaf: s.plan.man.Leaf(k)}) {
					return
				}
			}
		}
	}
}

// take runs on the loop. The block is kept until its steps are done.
func (s *stream) take(d exchange.Deliver) bool {
	s.got <- delivery{cid: d.CID, block: d.Block, peer: d.Peer, size: int64(d.Block.Size()), err: d.Err}
	return true
}

// fill lets steps into the window while the valve is open, and one in any case.
func (s *stream) fill(next func() (step, bool)) error {
	for s.head == len(s.line) || s.valve.Open() && s.out < aheadWants {
		x, ok := next()
		if !ok {
			return nil
		}
		if s.head > 64 && 2*s.head > len(s.line) {
			k := copy(s.line, s.line[s.head:])
			clear(s.line[k:])
			s.line, s.head = s.line[:k], 0
		}
		s.line = append(s.line, x)
		if !x.leaf.Defined() {
			continue
		}
		h := s.held[x.leaf]
		if h == nil {
			h = &heldLeaf{size: x.w.size}
			s.held[x.leaf] = h
			h.taken = s.valve.Take(h.size) // the last one before it closes may be too much for it
			if _, err := s.n.store.Stat(s.n.ctx, x.leaf); err != nil {
				if err := s.want(&x, h); err != nil {
					return err
				}
			}
		}
		h.steps++
	}
	return nil
}

func (s *stream) want(x *step, h *heldLeaf) error {
	leaf := x.leaf
	if s.n.net == nil {
		return &dray.Error{Op: "get", CID: leaf, Err: fmt.Errorf("%w: not in the store, and the node is offline", dray.ErrNotFound)}
	}
	h.wanted = true
	s.out++
	s.asked++
	u := s.queue.urgencies[x.placed]
	opt := exchange.WantOptions{Class: u.class, Order: s.asked, Size: h.size}
	if opt.Class == exchange.Normal {
		opt.Class = s.cfg.Class
	}
	left := u.deadline - time.Since(s.start)
	s.n.do(func() {
		if u.deadline != noDeadline {
			opt.Deadline = max(s.n.now()+left, 1)
		}
		s.n.engine.Want(s.n.now(), s.id, leaf, opt)
	})
	return nil
}

// content waits for the leaf of the step at the front.
func (s *stream) content(ctx context.Context, x *step) ([]byte, error) {
	if !x.leaf.Defined() {
		return nil, nil
	}
	h := s.held[x.leaf]
	if h.data != nil {
		return h.data, nil
	}
	tick := time.NewTicker(progressGap)
	defer tick.Stop()
	for h.data == nil {
		if !h.wanted {
			b, err := s.n.store.Get(ctx, x.leaf)
			if err != nil && isMissing(err) {
				err = s.want(x, h)
			} else if err == nil {
				if h.kind == "" {
					h.kind = GiftHere
				}
				err = s.arrived(h, b)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		select {
		case d := <-s.got:
			if err := s.delivered(d); err != nil {
				return nil, err
			}
		case <-tick.C:
			s.show()
			pulse(ctx, s.progress.pulse)
			if err := s.calls.hopeless(s.cfg.Root, s.progress.Peers); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, &dray.Error{Op: "get", CID: s.cfg.Root, Err: ctxError(ctx)}
		case <-s.n.done:
			return nil, &dray.Error{Op: "get", CID: s.cfg.Root, Err: dray.ErrClosed}
		}
	}
	return h.data, nil
}

func (s *stream) delivered(d delivery) error {
	s.out--
	if d.err != nil {
		return &dray.Error{Op: "get", CID: d.cid, Peer: d.peer, Err: d.err}
	}
	s.tally.credit(d.peer, d.size)
	h := s.held[d.cid]
	if h == nil {
		return nil
	}
	h.wanted = false
	if h.kind, h.from = GiftPeer, d.peer; d.peer == "" {
		h.kind = GiftShared
	}
	if d.size == 0 { // it was put into the store by somebody else, and is read from there in its turn
		return nil
	}
	return s.arrived(h, d.block)
}

func (s *stream) arrived(h *heldLeaf, b dray.Block) error {
	if !holds(b, h.size) {
		return &dray.Error{Op: "stream", CID: b.CID(), Err: &shortLeaf{b.CID()}}
	}
	var err error
	h.data, err = unixfs.Content(b)
	return err
}

// consumed lets the step at the front out of the window.
func (s *stream) consumed(x *step) {
	if h := s.held[x.leaf]; x.leaf.Defined() {
		if h.steps--; h.steps == 0 {
			delete(s.held, x.leaf)
			if h.taken {
				s.valve.Give(h.size)
			}
		}
	}
	*x = step{}
	s.head++
}

func (s *stream) close() {
	s.n.ask(func() {
		delete(s.n.sinks, s.id)
		s.n.engine.CancelSession(s.n.now(), s.id)
	})
}

func (s *stream) show() {
	p := &s.progress
	p.Elapsed = time.Since(s.start)
	p.Unreached = s.calls.unreached()
	s.tally.bring(p, s.id)
	s.entry.report(p, s.id, s.plan.man.Len())
	if s.cfg.Progress != nil {
		s.cfg.Progress(*p)
	}
}
