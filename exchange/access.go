package exchange

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// Not everything is for everybody. A guarded block lies under roots that are not open, and under no open one; the driver
// says which these are. It is served to a peer who may have one of its roots and names it, over TensorSwap; to all others it
// is as if it were not here, and the look-up is done all the same, so that the time tells nothing. Blocks that arrive for a
// session on a guarded root are guarded before they are stored.
//
// Who may have a root the [Gate] says. What a proof opened stays open on that connection until there is another gate.

// Gate says who may have what. It must answer at once, the same each time, and not change: when what it goes by does, the
// driver calls [Engine.SetGate] with another. Package access has one.
type Gate interface {
	// Serves reports whether a peer is served anything.
	Serves(p dray.PeerID) bool
	// May reports whether a peer may have a root that is guarded without a proof.
	May(root cid.Cid, p dray.PeerID) bool
	// Opens returns the root that a proof opens to the peer from whom it came; it asked about some root. It must take the
	// same time whatever that is.
	Opens(proof dray.Proof, from dray.PeerID, about cid.Cid) (root cid.Cid, ok bool)
	// Prove returns what to show to a peer to get a root, or no proof.
	Prove(root cid.Cid, to dray.PeerID) dray.Proof
}

const maxOpened = 256 // roots that one peer may open by proofs; more are as unknown

// blockKey is the end of a block's digest: blocks are the same whatever their CIDs say of version and codec. Of two that end
// alike both are guarded; nobody finds another block that ends like a given one.
type blockKey [16]byte

func keyOf(c cid.Cid) (k blockKey) {
	s := dray.HashKey(c)
	copy(k[:], s[max(len(s)-len(k), 0):])
	return k
}

// guard is a root that is not open.
type guard struct {
	root cid.Cid
	key  blockKey
	id   uint32 // in order of appearance
}

// guardSet is the guards that a block is under: mostly one. It is made once for all blocks that are under the same.
type guardSet struct {
	list []*guard         // by id
	with map[uint32]int32 // the set that one guard more makes
}

func (s *guardSet) has(g *guard) bool { return s != nil && slices.Contains(s.list, g) }

// accesses is what the engine knows of guarded blocks: about 30 bytes for each.
//
// Invariant: sets[0] is empty, and no block is in it.
type accesses struct {
	gate   Gate // nil: everything is open
	guards map[blockKey]*guard
	blocks map[blockKey]int32 // indexes into sets
	sets   []guardSet
	last   uint32

	follows map[blockKey]int // peers that follow each root, whatever is guarded
}

// follow notes that one more peer (or one fewer) follows a root.
func (a *accesses) follow(root cid.Cid, by int) {
	k := keyOf(root)
	if a.follows == nil {
		a.follows = make(map[blockKey]int)
	}
	if a.follows[k] += by; a.follows[k] == 0 {
		delete(a.follows, k)
	}
}

// of returns the guards of a block, or nil if it is open.
func (a *accesses) of(c cid.Cid) *guardSet {
	if len(a.blocks) == 0 {
		return nil
	}
	if k := a.blocks[keyOf(c)]; k != 0 {
		return &a.sets[k]
	}
	return nil
}

// put guards one block, besides by what guards it already.
func (a *accesses) put(k blockKey, g *guard) {
	was := a.blocks[k]
	if a.sets[was].has(g) {
		return
	}
	next, known := a.sets[was].with[g.id]
	if !known {
		list := append(slices.Clone(a.sets[was].list), g)
		slices.SortFunc(list, func(x, y *guard) int { return cmp.Compare(x.id, y.id) })
		next = a.find(list)
		if a.sets[was].with == nil {
			a.sets[was].with = make(map[uint32]int32)
		}
		a.sets[was].with[g.id] = next
	}
	a.blocks[k] = next
}

// find returns the set of these guards, made if there is none.
func (a *accesses) find(list []*guard) int32 {
	for i := range a.sets {
		if slices.Equal(a.sets[i].list, list) {
			return int32(i)
		}
	}
	a.sets = append(a.sets, guardSet{list: list})
	return int32(len(a.sets) - 1)
}

// Guard says that root is not open, and that of the blocks under it these are under no root that is. The root's own block is
// among them without being named. Blocks may be named in several calls, and under several roots.
func (e *Engine) Guard(now time.Duration, root cid.Cid, blocks ...cid.Cid) {
	e.now = now
	a := &e.access
	key := keyOf(root)
	g := a.guards[key]
	if g == nil {
		if a.guards == nil {
			a.guards, a.blocks = make(map[blockKey]*guard), make(map[blockKey]int32)
			a.sets = []guardSet{{with: make(map[uint32]int32)}}
		}
		a.last++
		g = &guard{root: root, key: key, id: a.last}
		a.guards[key] = g
		a.sets = append(a.sets, guardSet{list: []*guard{g}})
		a.sets[0].with[g.id] = int32(len(a.sets) - 1)
		a.put(key, g)
	}
	for _, c := range blocks {
		a.put(keyOf(c), g)
	}
	e.reconsider()
}

// Open says that blocks lie under an open root too, which makes them open.
func (e *Engine) Open(now time.Duration, blocks ...cid.Cid) {
	e.now = now
	if len(e.access.blocks) == 0 {
		return
	}
	for _, c := range blocks {
		delete(e.access.blocks, keyOf(c))
	}
	e.reconsider()
}

// Unguard says that root is open, and so is what lies under no other root that is not.
func (e *Engine) Unguard(now time.Duration, root cid.Cid) {
	e.now = now
	a := &e.access
	g := a.guards[keyOf(root)]
	if g == nil {
		return
	}
	delete(a.guards, g.key)
	old := a.sets
	to := make([]int32, len(old))
	a.sets = []guardSet{{with: make(map[uint32]int32)}}
	for i := range to {
		to[i] = a.find(slices.DeleteFunc(old[i].list, func(o *guard) bool { return o == g }))
	}
	for k, i := range a.blocks { // no output depends on the order
		if to[i] == 0 {
			delete(a.blocks, k)
		} else {
			a.blocks[k] = to[i]
		}
	}
	e.reconsider()
}

// SetGate says what holds from now on. What peers may no longer have they are not sent any more, and are told so if they
// were served before; what they may now have is looked up again. It returns the peers that guarded blocks are being written
// to which they may not have any more.
func (e *Engine) SetGate(now time.Duration, gate Gate) (revoked []dray.PeerID) {
	e.now = now
	e.access.gate = gate
	for _, p := range e.upPeers {
		e.admit(p)
		p.opened = slices.DeleteFunc(p.opened, func(o opened) bool {
			root, ok := gate.Opens(o.proof, p.id, o.root)
			return !ok || root != o.root
		})
		for _, f := range slices.Clone(p.feedList) {
			if f.following && f.said && f.shown != e.prove(f.root, p) {
				e.askAnew(f)
				e.shownAnew(f)
			}
		}
	}
	return e.reconsider()
}

// admit notes whether a peer is served anything.
func (e *Engine) admit(p *peer) { p.barred = e.access.gate != nil && !e.access.gate.Serves(p.id) }

// opened is a root that a peer has opened with a proof.
type opened struct {
	root  cid.Cid
	proof dray.Proof
}

// opens takes a proof that a peer shows, with a question about some root, and reports whether it is accepted.
func (e *Engine) opens(p *peer, proof dray.Proof, about cid.Cid) bool {
	if e.access.gate == nil {
		return false
	}
	root, ok := e.access.gate.Opens(proof, p.id, about)
	if !ok || p.barred {
		return false
	}
	i := slices.IndexFunc(p.opened, func(o opened) bool { return o.root == root })
	switch {
	case i >= 0:
		p.opened[i].proof = proof
	case len(p.opened) < maxOpened:
		p.opened = append(p.opened, opened{root, proof})
		e.reconsiderPeer(p) // it may have asked before it showed the proof
	}
	return true
}

// may reports whether a peer may have the root g.
func (e *Engine) may(p *peer, g *guard) bool {
	if slices.ContainsFunc(p.opened, func(o opened) bool { return o.root == g.root }) {
		return true
	}
	return e.access.gate != nil && e.access.gate.May(g.root, p.id)
}

// mayAbout reports whether a peer may be told about a root: it is open, or lies under one that the peer may have.
func (e *Engine) mayAbout(p *peer, root cid.Cid) bool {
	set := e.access.of(root)
	return !p.barred && (set == nil || slices.ContainsFunc(set.list, func(g *guard) bool { return e.may(p, g) }))
}

// Public reports whether a block is for everybody, as far as it depends on the block: it is not guarded.
func (e *Engine) Public(c cid.Cid) bool { return e.access.of(c) == nil }

// mayHave reports whether a peer may have a block which it names as one under some root: see the top of this file.
func (e *Engine) mayHave(p *peer, c, under cid.Cid) bool {
	if p.barred {
		return false
	}
	set := e.access.of(c)
	if set == nil {
		return true
	}
	if !p.caps.Indexes || !under.Defined() {
		return false
	}
	named := e.access.of(under)
	return slices.ContainsFunc(set.list, func(g *guard) bool { return named.has(g) && e.may(p, g) })
}

// guardArriving guards a block that has come, if all who want it do so for roots that are guarded.
func (e *Engine) guardArriving(w *want) {
	c := w.cid
	if len(e.access.guards) == 0 || e.access.of(c) != nil {
		return
	}
	var all []*guard
	open := false
	note := func(s *session) {
		if s.cfg.Bystander {
			return
		}
		set := e.access.of(s.cfg.Root)
		if set == nil {
			open = true
			return
		}
		all = append(all, set.list...)
	}
	note(w.home)
	for i := range w.askers {
		note(w.askers[i].s)
	}
	for _, mf := range e.manifestList {
		if len(mf.sessions) == 0 {
			continue
		}
		if i, ok := mf.m.Find(c); ok {
			for _, s := range mf.sessions {
				if s.demand.has(i) {
					note(s)
				}
			}
		}
	}
	if open {
		return
	}
	for _, g := range all {
		e.access.put(keyOf(c), g)
	}
	// It was here before, or was thought to be, or is a root itself about which others were told.
	if e.serving.waiting[c] != nil || e.access.follows[keyOf(c)] > 0 {
		e.reconsider()
	}
}

// reconsider goes through what peers are being served after something changed about who may have what. It returns those to
// whom guarded blocks are being written which they may not have.
func (e *Engine) reconsider() (revoked []dray.PeerID) {
	for _, p := range e.upPeers {
		if e.reconsiderPeer(p) {
			revoked = append(revoked, p.id)
		}
	}
	return revoked
}

func (e *Engine) reconsiderPeer(p *peer) (revoked bool) {
	for _, f := range p.feedList {
		if f.number == 0 {
			continue
		}
		switch may := e.mayAbout(p, f.root); {
		case may == !f.hidden:
		case may:
			e.unhide(f)
		default:
			if f.told {
				p.denials = append(p.denials, f.number)
				e.dirtyPeer(p)
			}
			e.hide(f)
		}
	}
	p.answers = slices.DeleteFunc(p.answers, func(a *walked) bool {
		if a.hidden || a.stopped || e.mayAbout(p, a.w.Root) {
			return false
		}
		p.deniedWalks = append(p.deniedWalks, a.w.ID)
		e.dirtyPeer(p)
		return e.stopAnswer(p, a)
	})
	var list []*served
	for _, v := range p.serve.wants {
		if v.state != serveLookup && v.state != serveLoading && e.mayHave(p, v.cid, v.root) == v.hidden {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(x, y *served) int { return cmp.Compare(x.seq, y.seq) })
	for _, v := range list {
		switch v.state {
		case serveAbsent: // it may be here after all
			v.state = serveLookup
			e.ready.Loads = append(e.ready.Loads, Load{Peer: p.id, CID: v.cid, Stat: true})
		case serveQueued:
			p.serve.remove(v)
			p.serve.queued -= v.size
			if len(p.serve.tasks) == 0 {
				e.leaveRing(p)
			}
			e.lookedUp(v, 0, false)
		case serveWriting:
			v.again, v.hidden, revoked = false, true, true
		}
	}
	return revoked
}

// hide tells a peer nothing more about a root that it follows.
func (e *Engine) hide(f *feed) {
	f.hidden = true
	f.heard, f.news, f.owes, f.rescan = nil, nil, false, false
	if f.listed {
		f.listed = false
		f.p.newsy = slices.DeleteFunc(f.p.newsy, func(o *feed) bool { return o == f })
	}
}

// unhide begins to tell a peer about a root that it follows and may have after all.
func (e *Engine) unhide(f *feed) {
	f.hidden = false
	if f.m != nil {
		e.answerFollow(f)
	} else {
		e.wantManifest(f.root, f.p)
	}
}

// denyFollow answers a follow whose proof is not accepted.
func (e *Engine) denyFollow(p *peer, number uint32) {
	if p.denials = append(p.denials, number); len(p.denials) > maxRefused {
		e.violate(p, "a flood of proofs that are not accepted")
		return
	}
	e.dirtyPeer(p)
}

// denyWalk answers a walk whose proof is not accepted.
func (e *Engine) denyWalk(p *peer, id uint32) {
	if p.deniedWalks = append(p.deniedWalks, id); len(p.deniedWalks) > maxRefused {
		e.violate(p, "a flood of proofs that are not accepted")
		return
	}
	e.dirtyPeer(p)
}

// appendDenials writes what a peer is denied into the next message.
func (p *peer) appendDenials(m *wire.Message) {
	for _, n := range p.denials {
		m.Haves = append(m.Haves, wire.Have{Feed: n, Denied: true})
	}
	for _, id := range p.deniedWalks {
		m.Walked = append(m.Walked, wire.Walked{ID: id, Status: wire.WalkDenied})
	}
	p.denials, p.deniedWalks = p.denials[:0], p.deniedWalks[:0]
}

// prove returns what to show a peer to be told about a root, or no proof.
func (e *Engine) prove(root cid.Cid, p *peer) dray.Proof {
	if e.access.gate == nil {
		return dray.Proof{}
	}
	proof := e.access.gate.Prove(root, p.id)
	if set := e.access.of(root); proof.IsZero() && set != nil {
		for _, g := range set.list {
			if proof = e.access.gate.Prove(g.root, p.id); !proof.IsZero() {
				break
			}
		}
	}
	return proof
}

// feedFor returns the number under which p is to know what root a block that is wanted by CID lies under, or 0.
func (e *Engine) feedFor(p *peer, w *want) uint32 {
	if e.access.gate == nil || !p.caps.Indexes {
		return 0
	}
	if f := p.feeds[w.home.cfg.Root]; f != nil && f.following {
		return f.mine
	}
	return 0
}

// denied notes that a peer does not accept this host's proof for a root.
func (e *Engine) denied(p *peer, root cid.Cid) {
	for _, sp := range p.sps {
		if sp.s.cfg.Root != root {
			continue
		}
		e.setUse(sp, usePart)
		sp.denied = true
		sp.misses++
		e.roomChanged(p)
		e.dirtySession(sp.s)
	}
}

// shownAnew forgets that a peer did not accept a proof, because it is shown another.
func (e *Engine) shownAnew(f *feed) {
	for _, sp := range f.p.sps {
		if sp.s.cfg.Root == f.root && sp.denied {
			sp.denied, sp.misses = false, 0
			e.beginWalk(sp.s, sp.p)
			e.dirtySession(sp.s)
		}
	}
}

// withholdWalk takes out of a part of a walk what the peer may not have.
func (e *Engine) withholdWalk(p *peer, a *walked, part *WalkPart) {
	if a.hidden {
		*part = WalkPart{Last: true, Status: wire.WalkAbsent}
		return
	}
	if len(e.access.blocks) == 0 {
		return
	}
	left := part.Blocks[:0]
	for i, c := range part.CIDs {
		if e.mayHave(p, c, a.w.Root) {
			left = append(left, part.Blocks[i])
		} else if part.Status == wire.WalkWhole {
			part.Status = wire.WalkPart
		}
	}
	if len(part.CIDs) > 0 {
		part.Blocks = left
	}
}

// checkAccess verifies what holds of guarded blocks between a peer and this host.
func (e *Engine) checkAccess(p *peer) error {
	if p.barred != (e.access.gate != nil && !e.access.gate.Serves(p.id)) {
		return fmt.Errorf("peer %v: barred %v", p.id.Short(), p.barred)
	}
	for c, v := range p.serve.wants {
		if v.state == serveQueued && !e.mayHave(p, c, v.root) {
			return fmt.Errorf("peer %v: block %v is to be sent, and may not be", p.id.Short(), c)
		}
	}
	for _, f := range p.feedList {
		switch {
		case f.number != 0 && f.hidden == e.mayAbout(p, f.root):
			return fmt.Errorf("peer %v: root %v is hidden %v", p.id.Short(), f.root, f.hidden)
		case f.hidden && (f.listed || f.owes || f.heard != nil):
			return fmt.Errorf("peer %v: root %v is hidden and told of", p.id.Short(), f.root)
		}
	}
	return nil
}
