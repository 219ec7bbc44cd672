package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/wire"
)

// Root is a file with a skeleton: a tree of blocks, the bones, from which whoever has all of them knows the leaves. The
// first is the root; bone k is linked from bone (k-1)/boneLinks.
type Root struct {
	ref    Ref
	bones  []Ref
	man    *dray.Manifest
	leaves []Ref
}

const boneLinks = 3

// Root makes a root above leaves, with a skeleton of so many blocks.
func (w *World) Root(leaves []Ref, bones int) *Root {
	c := &w.content
	r := &Root{leaves: leaves}
	for k := range bones {
		data := binary.BigEndian.AppendUint64([]byte("skeleton"), uint64(len(c.blocks)))
		for range len(leaves) / bones {
			data = append(data, 0)
		}
		b, err := dray.Hashed(rawPrefix, data)
		if err != nil {
			panic(fmt.Sprintf("sim: making a root: %v", err)) // the prefix is ours
		}
		r.bones = append(r.bones, c.file("r", b))
		if k == 0 {
			r.ref, r.man = r.bones[0], dray.NewManifest(b.CID(), len(leaves))
		}
	}
	for _, l := range leaves {
		r.man.Append(c.blocks[l].CID(), int64(c.blocks[l].Size()))
	}
	r.man.Index()
	if w.roots == nil {
		w.roots = make(map[cid.Cid]*Root)
	}
	w.roots[r.man.Root()] = r
	return r
}

// knows reports whether the host has the whole skeleton of a root.
func (h *Host) knows(r *Root) bool {
	if r == nil {
		return false
	}
	for _, b := range r.bones {
		if !h.has.has(b) {
			return false
		}
	}
	return true
}

// manifestTime is how long a host takes to derive a manifest from what its store has.
const manifestTime = time.Millisecond

// loadManifest answers the engine's question for a root's leaves.
func (h *Host) loadManifest(l exchange.ManifestLoad) {
	h.during(manifestTime, func() {
		r := h.w.roots[l.Root]
		if !h.knows(r) {
			h.e.ManifestLoaded(h.w.now, l.Root, nil, nil)
			h.kick()
			return
		}
		here := make([]uint64, (len(r.leaves)+63)/64)
		for i, leaf := range r.leaves {
			if h.has.has(leaf) {
				here[i>>6] |= 1 << (i & 63)
			}
		}
		h.e.ManifestLoaded(h.w.now, l.Root, r.man, here)
		h.kick()
	})
}

// walkKey names a walk of a peer's.
type walkKey struct {
	peer dray.PeerID
	id   uint32
}

// walker is how far a peer's walk has come.
type walker struct {
	next int // bone
	size uint64
}

const walkBones = 5 // in one message

// loadWalk goes on with a peer's walk: bones, parents first, as far as they are here.
func (h *Host) loadWalk(l exchange.WalkLoad) {
	key := walkKey{l.Peer, l.Walk.ID}
	if l.Walk.Stop {
		delete(h.walkers, key)
		return
	}
	if l.First {
		h.walkers[key] = &walker{}
	}
	k := h.walkers[key]
	if k == nil {
		h.w.fail("%s: a walk that was stopped goes on", h.name)
		return
	}
	h.during(manifestTime, func() {
		if h.walkers[key] != k {
			return // stopped
		}
		r := h.w.roots[l.Walk.Root]
		if r == nil || !h.has.has(r.ref) {
			delete(h.walkers, key)
			h.e.WalkLoaded(h.w.now, l.Peer, l.Walk.ID, exchange.WalkPart{Last: true, Status: wire.WalkAbsent})
			h.kick()
			return
		}
		var blocks []wire.Block
		for ; k.next < len(r.bones) && len(blocks) < walkBones; k.next++ {
			if k.next > 0 && !h.has.has(r.bones[(k.next-1)/boneLinks]) || !h.has.has(r.bones[k.next]) {
				continue
			}
			b := h.w.content.blocks[r.bones[k.next]]
			if k.size += uint64(b.Size()); k.size > l.Walk.Bytes {
				k.next = len(r.bones)
				break
			}
			blocks = append(blocks, wire.Block{Prefix: b.CID().Prefix(), Data: b.Data()})
		}
		status := wire.WalkWhole
		if !h.knows(r) || k.size > l.Walk.Bytes {
			status = wire.WalkPart
		}
		last := k.next >= len(r.bones)
		if last {
			delete(h.walkers, key)
		}
		h.e.WalkLoaded(h.w.now, l.Peer, l.Walk.ID, exchange.WalkPart{Blocks: blocks, Last: last, Status: status})
		h.kick()
	})
}

// syncTime is how long a sync takes.
const syncTime = 20 * time.Millisecond

// sync syncs what was written until now.
func (h *Host) sync() {
	list := h.fresh
	h.fresh = nil
	h.during(syncTime, func() {
		for _, b := range list {
			if h.has.has(b.r) && !h.sabotaged(sabotageSynced) {
				h.synced.add(b.r)
			}
		}
		h.e.Synced(h.w.now)
		h.kick()
	})
}

// blocksOf returns the blocks in a message, hashed.
func (h *Host) blocksOf(m *wire.Message) []dray.Block {
	var out []dray.Block
	for _, x := range m.Blocks {
		b, err := dray.Hashed(x.Prefix, x.Data)
		if err != nil {
			h.w.fail("%s: a block that cannot be hashed: %w", h.name, err)
			continue
		}
		out = append(out, b)
	}
	return out
}

// grow asks for what the fetch lacks of its root: bones that a bone which is here links to and, when all are here, leaves.
func (f *Fetch) grow() {
	h, r := f.h, f.cfg.Root
	if f.rooted {
		return
	}
	for k, b := range r.bones {
		if h.has.has(b) && !h.storing[b] || f.open.of(b) > 0 || f.failed[b] {
			continue
		}
		if k == 0 || h.has.has(r.bones[(k-1)/boneLinks]) {
			f.want(k)
		}
	}
	if !h.knows(r) {
		return
	}
	f.rooted, f.asked = true, h.w.now
	if !h.e.SetManifest(h.w.now, f.id, r.man) {
		h.w.fail("%s: the engine refuses the manifest of session %d", h.name, f.id)
		return
	}
	for i, leaf := range r.leaves {
		f.demand(i, leaf)
	}
	h.e.Seal(h.w.now, f.id)
}

// demand asks for one leaf by index.
func (f *Fetch) demand(i int, leaf Ref) {
	h := f.h
	if h.has.has(leaf) && !h.storing[leaf] {
		h.e.Here(h.w.now, f.cfg.Root.man.Root(), i)
		f.Local++
		return
	}
	if f.open.of(leaf) == 0 {
		f.open.add(leaf, 1)
		h.wanted.add(leaf, 1)
		h.w.trace.note("%v %s demands %s in session %d\n", h.w.now, h.name, h.w.content.names[leaf], f.id)
		h.e.Demand(h.w.now, f.id, i, 1)
	}
}
