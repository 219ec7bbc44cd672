package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/access"
	"dray/transport"
	"dray/unixfs"
)

// Access says who may have what this host holds. The zero Access lets everybody have everything.
type Access struct {
	// Book holds the rules of roots that are not open. If nil, all are. It must not change any more.
	Book *access.Book
	// Open are the roots of this host that have no rule: what lies under one of them and under a closed one too is open.
	Open []cid.Cid
	// Loose are blocks of this host that lie under no root, and LooseUnder is the rule's root under which they are all the same:
	// what was being added in private when this host crashed. If LooseUnder is not set, there are none.
	Loose      []cid.Cid
	LooseUnder cid.Cid
	// Members are the members. Those with addresses are dialled and kept connected. If nil, there are none.
	Members *access.Members
	// MembersOnly says that nobody but members is served anything, and that strangers who connect are refused.
	MembersOnly bool
}

func (a *Access) gate(self dray.PeerID) *access.Gate {
	return access.NewGate(access.GateConfig{Self: self, Book: a.Book, Members: a.Members, MembersOnly: a.MembersOnly})
}

// closedRoot is a root that has a rule, and the one that the rule is of: itself, or what it is a part of.
type closedRoot struct{ root, by cid.Cid }

func (a *Access) closed() (roots []closedRoot) {
	if a.Book == nil {
		return nil
	}
	for _, r := range a.Book.Rules() {
		one := closedRoot{r.Root, r.Root}
		if r.Under.Defined() {
			one.by = r.Under
		}
		roots = append(roots, one)
	}
	return roots
}

// guards is what lies under closed roots, as far as the store has the skeletons, and under no open one.
type guards struct {
	under map[cid.Cid][]cid.Cid // by the root that has the rule
	open  []cid.Cid             // what lies under an open root too
}

// guardBatch is how many blocks the engine is told of at a time.
const guardBatch = 4096

// guardsOf walks the skeletons of the roots. It reads no leaves that their parents tell to be leaves. What is not here has
// nothing under it: it is guarded when it comes.
func (n *Node) guardsOf(ctx context.Context, a *Access) (*guards, error) {
	g := &guards{under: make(map[cid.Cid][]cid.Cid)}
	closed := a.closed()
	all := make(map[string]struct{})
	for _, x := range closed {
		err := n.below(ctx, x.root, func(c cid.Cid) {
			g.under[x.by] = append(g.under[x.by], c)
			all[dray.HashKey(c)] = struct{}{}
		})
		if err != nil {
			return nil, err
		}
	}
	for _, c := range a.Loose {
		g.under[a.LooseUnder] = append(g.under[a.LooseUnder], c)
		all[dray.HashKey(c)] = struct{}{}
	}
	if len(all) == 0 {
		return g, nil
	}
	shared := make(map[string]struct{})
	for _, root := range a.Open {
		err := n.below(ctx, root, func(c cid.Cid) {
			key := dray.HashKey(c)
			if _, too := all[key]; too {
				if _, twice := shared[key]; !twice {
					shared[key] = struct{}{}
					g.open = append(g.open, c)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if len(shared) == 0 {
		return g, nil
	}
	for root, list := range g.under {
		kept := list[:0]
		for _, c := range list {
			if _, too := shared[dray.HashKey(c)]; !too {
				kept = append(kept, c)
			}
		}
		g.under[root] = kept
	}
	return g, nil
}

// below calls visit with a root and everything that lies under it, each once, as far as the store has the way to it.
func (n *Node) below(ctx context.Context, root cid.Cid, visit func(cid.Cid)) error {
	seen := make(map[string]struct{})
	stack := []cid.Cid{root}
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		key := dray.HashKey(c)
		if _, twice := seen[key]; twice || dray.IsIdentity(c) {
			continue
		}
		seen[key] = struct{}{}
		visit(c)
		if c.Prefix().Codec == cid.Raw {
			continue
		}
		b, err := n.store.Get(ctx, c)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isMissing(err) || errors.Is(err, dray.ErrChanged) || errors.Is(err, dray.ErrCorrupt):
			continue
		case err != nil:
			return err
		}
		links, err := unixfs.Links(b)
		if err != nil {
			continue // it has none that can be followed
		}
		leaves, err := n.leavesOf(ctx, b)
		if err != nil {
			return err
		}
		for _, l := range links {
			if _, leaf := leaves[l]; !leaf {
				stack = append(stack, l)
				continue
			}
			if _, twice := seen[dray.HashKey(l)]; !twice {
				seen[dray.HashKey(l)] = struct{}{}
				visit(l)
			}
		}
	}
	return nil
}

// leafFrame is more than stands around the content of a leaf.
const leafFrame = 64

// leavesOf returns those children of a file's node that are leaves: their parent says that they have content and no room
// for links, and what is here of them is as long.
func (n *Node) leavesOf(ctx context.Context, b dray.Block) (map[cid.Cid]struct{}, error) {
	node, err := unixfs.Parse(b)
	if err != nil || node.Kind != unixfs.File {
		return nil, nil
	}
	leaves := make(map[cid.Cid]struct{}, len(node.Links))
	for _, l := range node.Links {
		if l.CID.Prefix().Codec == cid.Raw {
			leaves[l.CID] = struct{}{}
			continue
		}
		if l.Tsize < l.Size || l.Tsize > l.Size+leafFrame {
			continue
		}
		size, err := n.store.Stat(ctx, l.CID)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && size >= l.Size {
			leaves[l.CID] = struct{}{}
		}
	}
	return leaves, nil
}

// SetAccess says who may have what from now on. What holds for roots that are here holds for all under them when it returns,
// also for what is being sent. The error is the store's or ctx's; then what held before holds still, and roots that have
// become closed are closed to everybody.
func (n *Node) SetAccess(ctx context.Context, a Access) error {
	n.ask(func() {
		for _, x := range a.closed() {
			n.guard(x.by, x.root) // from here on, what arrives for it is guarded
		}
	})
	g, err := n.guardsOf(ctx, &a)
	if err != nil {
		return err
	}
	for root, list := range g.under {
		for i := 0; i < len(list); i += guardBatch {
			part := list[i:min(i+guardBatch, len(list))]
			n.ask(func() { n.guard(root, part...) })
		}
	}
	n.ask(func() { n.enforce(a, g) })
	return nil
}

// enforce gives the engine what holds, once all that is closed is guarded. Called on the loop.
func (n *Node) enforce(a Access, g *guards) {
	closed := make(map[cid.Cid]bool)
	for _, x := range a.closed() {
		closed[x.by] = true
		n.guarded[x.by] = true
	}
	for _, id := range n.engine.SetGate(n.now(), a.gate(n.Self())) {
		if l := n.links[id]; l != nil {
			l.revoked.Add(1)
		}
	}
	for i := 0; i < len(g.open); i += guardBatch {
		n.engine.Open(n.now(), g.open[i:min(i+guardBatch, len(g.open))]...)
	}
	for root := range n.guarded { // in any order: each opens what only it closed
		if !closed[root] {
			n.engine.Unguard(n.now(), root)
			delete(n.guarded, root)
		}
	}
	n.setMembers(a)
}

// beginAccess applies the Access that the Node was made with, before there is a loop or anybody to serve.
func (n *Node) beginAccess() error {
	a := n.cfg.Access
	g, err := n.guardsOf(n.ctx, &a)
	if err != nil {
		return err
	}
	for root, list := range g.under {
		n.guard(root, list...)
	}
	n.enforce(a, g)
	return nil
}

// guard tells the engine. Called on the loop, or before there is one.
func (n *Node) guard(root cid.Cid, blocks ...cid.Cid) {
	n.private.Store(true)
	n.engine.Guard(n.now(), root, blocks...)
}

// Public reports whether a block is for everybody: a stranger who asked for it over Bitswap would get it, if it is here. It
// says nothing about whether it is. On a Node that serves members only nothing is for everybody.
func (n *Node) Public(c cid.Cid) bool {
	if !n.private.Load() {
		return true
	}
	open := false
	n.ask(func() { open = !n.membersOnly && n.engine.Public(c) })
	return open
}

// Under says that a block lies under a closed root, which the caller found out by following a path: getting what is below it
// counts as getting part of that root.
func (n *Node) Under(root, below cid.Cid) {
	n.ask(func() {
		if n.guarded[root] {
			n.guard(root, below)
		}
	})
}

// Unguard opens what [AddConfig.Guard] kept from everybody, as far as nothing else does.
func (n *Node) Unguard(root cid.Cid) { n.ask(func() { n.engine.Unguard(n.now(), root) }) }

// Refusal is why a get ended when those who could be asked refuse it. It wraps [dray.ErrRefused].
type Refusal struct {
	// By are the peers that refuse. Others that may have the root were not heard.
	By []dray.PeerID
	// text says it to people.
	text string
}

// Error says who refuses, why, and what to do.
func (r *Refusal) Error() string { return r.text }

// Unwrap returns [dray.ErrRefused].
func (r *Refusal) Unwrap() error { return dray.ErrRefused }

func joined(ids []dray.PeerID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	return strings.Join(names, ", ")
}

// RefusedError returns the error of a get whose capability is not accepted by those who have the root, or may have it. It
// wraps a [Refusal].
func RefusedError(root cid.Cid, by []dray.PeerID) error {
	return &dray.Error{Op: "get", CID: root, Err: &Refusal{By: by, text: fmt.Sprintf(
		"%v: the ticket's capability is not accepted by %s (revoked or wrong); ask for a new ticket", dray.ErrRefused, joined(by))}}
}

// NotAdmittedError returns the error of a get when those who could be asked admit members only, see [AllRefuse]. It wraps a
// [Refusal].
func (n *Node) NotAdmittedError(root cid.Cid, by []Unreached) error {
	ids := make([]dray.PeerID, len(by))
	for i := range by {
		ids[i] = by[i].Peer.ID
	}
	return &dray.Error{Op: "get", CID: root, Err: &Refusal{By: ids, text: fmt.Sprintf(
		"%v: %s admits members only; ask to be made one: `dray members add %v`", dray.ErrRefused, joined(ids), n.Self())}}
}

// withheld takes out of a batch, and reports as sent, what the peer was to have when the batch was handed over and may not
// have any more.
func (l *link) withheld(batch []outBlock) []outBlock {
	now := l.revoked.Load()
	late := func(b outBlock) bool { return b.guarded && b.revoked != now }
	if !slices.ContainsFunc(batch, late) {
		return batch
	}
	var kept, gone []outBlock
	for _, b := range batch {
		if late(b) {
			gone = append(gone, b)
		} else {
			kept = append(kept, b)
		}
	}
	l.n.do(func() {
		for _, b := range gone {
			l.n.buffers.put(b.frame)
			if l.n.links[l.peer] == l {
				l.n.engine.BlockSent(l.n.now(), l.peer, b.cid)
			}
		}
	})
	return kept
}

// exposed reports whether others can read what is written to the stream.
func (o *outStream) exposed() bool {
	_, clear := o.s.(transport.Exposed)
	return clear
}

// seal hands a batch with guarded blocks to a writer whose stream nobody else can read, and reports whether it did: a batch
// without may go anywhere.
func (l *link) seal(batch []outBlock) bool {
	if !slices.ContainsFunc(batch, func(b outBlock) bool { return b.guarded }) {
		return false
	}
	l.sealing.Do(func() { l.n.wg.Go(func() { l.writeBlocks(l.sealed, true) }) })
	select {
	case l.sealed <- batch: // has room: the engine keeps at most so many wants of a peer
	case <-l.ctx.Done():
	}
	return true
}
