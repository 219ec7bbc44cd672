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

// Root is a file with a skeleton: one block, from which whoever has it knows the leaves.
type Root struct {
	ref    Ref
	man    *dray.Manifest
	leaves []Ref
}

// Root makes a root above leaves.
func (w *World) Root(leaves []Ref) *Root {
	c := &w.content
	data := binary.BigEndian.AppendUint64([]byte("skeleton"), uint64(len(c.blocks)))
	for range leaves {
		data = append(data, 0)
	}
	b, err := dray.Hashed(rawPrefix, data)
	if err != nil {
		panic(fmt.Sprintf("sim: making a root: %v", err)) // the prefix is ours
	}
	r := &Root{ref: c.file("r", b), leaves: leaves, man: dray.NewManifest(b.CID(), len(leaves))}
	for _, l := range leaves {
		r.man.Append(c.blocks[l].CID(), int64(c.blocks[l].Size()))
	}
	r.man.Index()
	if w.roots == nil {
		w.roots = make(map[cid.Cid]*Root)
	}
	w.roots[b.CID()] = r
	return r
}

// manifestTime is how long a host takes to derive a manifest from what its store has.
const manifestTime = time.Millisecond

// loadManifest answers the engine's question for a root's leaves.
func (h *Host) loadManifest(l exchange.ManifestLoad) {
	h.during(manifestTime, func() {
		r := h.w.roots[l.Root]
		if r == nil || !h.has.has(r.ref) {
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

// loadWalk answers a peer's walk with the root's block, which is all of the skeleton.
func (h *Host) loadWalk(l exchange.WalkLoad) {
	if l.Walk.Stop {
		return
	}
	h.during(manifestTime, func() {
		r := h.w.roots[l.Walk.Root]
		if r == nil || !h.has.has(r.ref) {
			h.e.WalkLoaded(h.w.now, l.Peer, l.Walk.ID, exchange.WalkPart{Last: true, Status: wire.WalkAbsent})
		} else {
			b := h.w.content.blocks[r.ref]
			blocks := []wire.Block{{Prefix: b.CID().Prefix(), Data: b.Data()}}
			h.e.WalkLoaded(h.w.now, l.Peer, l.Walk.ID, exchange.WalkPart{Blocks: blocks, Last: true})
		}
		h.kick()
	})
}

// syncTime is how long a sync takes.
const syncTime = 20 * time.Millisecond

func (h *Host) sync() {
	h.during(syncTime, func() {
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

// demand asks for what the fetch lacks of its root, whose skeleton is here.
func (f *Fetch) demand() {
	h, r := f.h, f.cfg.Root
	if f.rooted {
		return
	}
	f.rooted, f.asked = true, h.w.now
	h.e.SetManifest(h.w.now, f.id, r.man)
	for i, leaf := range r.leaves {
		if h.has.has(leaf) && !h.storing[leaf] {
			f.Local++
			continue
		}
		if f.open.add(leaf, 1) == 1 {
			h.wanted.add(leaf, 1)
			h.e.Demand(h.w.now, f.id, i, 1)
		}
	}
	h.e.Seal(h.w.now, f.id)
}
