package sim

import (
	"time"

	"dray/wire"
)

// SwapFault is a way to misuse what only TensorSwap has. A host with one is honest otherwise.
type SwapFault uint8

// The ways.
const (
	// SwapHonest is none.
	SwapHonest SwapFault = iota
	// SwapClaims tells every follower that all leaves are here, and sends none.
	SwapClaims
	// SwapBeyond tells of leaves beyond the manifest.
	SwapBeyond
	// SwapOtherLeaves derives a manifest with one leaf more.
	SwapOtherLeaves
	// SwapRepeats tells of the same leaves over and over.
	SwapRepeats
	// SwapWalkGarbage answers walks with blocks that have nothing to do with the root.
	SwapWalkGarbage
	// SwapWalkDrip answers walks with a block that nobody asked for every second, and without end.
	SwapWalkDrip
	// SwapWalkMute never answers a walk.
	SwapWalkMute
	// SwapWalkNoEnd answers walks with bones and never says that this was all.
	SwapWalkNoEnd
	// SwapPushesAll ends each walk with the claim that all leaves follow, and sends none.
	SwapPushesAll
	// SwapOverruns sends blocks whatever the credit.
	SwapOverruns
	// SwapIndexBeyond wants leaves beyond the manifest.
	SwapIndexBeyond
	// SwapUnknownFeed wants leaves of a feed that was never answered.
	SwapUnknownFeed
	// SwapReusesFeed gives one number to two roots.
	SwapReusesFeed
	// SwapReusesWalk asks twice under one number.
	SwapReusesWalk
	// SwapSkips leaves numbers of the state lane out.
	SwapSkips
	// SwapFlaps changes its mind about serving several times a second.
	SwapFlaps
	// SwapFollowsAll follows ten thousand roots, most of which do not exist.
	SwapFollowsAll
	// SwapWalksAll asks for thousands of walks at once.
	SwapWalksAll
	// SwapNoCredit never lets the other side send anything.
	SwapNoCredit

	swapFaults
)

// caught says for which faults the host must be dropped by every honest one that hears it.
var caught = [swapFaults]bool{
	SwapUnknownFeed: true, SwapReusesFeed: true, SwapReusesWalk: true, SwapWalksAll: true, SwapIndexBeyond: true,
}

// someRoot returns any root of the World, or nil.
func (w *World) someRoot() *Root {
	for _, c := range w.all() {
		if r := w.roots[w.Block(c).CID()]; r != nil {
			return r
		}
	}
	return nil
}

// pose sends a message that the host's engine knows nothing of.
func (h *Host) pose(l *half, m *wire.Message) {
	p := h.packet(l, m)
	p.posed = true
	l.send(p)
}

// swapFaultOnUp does what a host with a SwapFault does to a new peer.
func (h *Host) swapFaultOnUp(l *half) {
	r := h.w.someRoot()
	if !l.c.version.Indexes() || r == nil {
		return
	}
	const number = 1 << 20 // higher than any that the engine gives
	root := r.man.Root()
	var m wire.Message
	switch h.faults.Swap {
	case SwapUnknownFeed:
		m.Wants = append(m.Wants, wire.Entry{CID: root, Priority: 1, Leaves: wire.Leaves{Feed: number, Count: 1}})
	case SwapReusesFeed:
		other := h.w.Block(h.w.content.add("x", 16)).CID()
		m.Follows = append(m.Follows, wire.Follow{Feed: number, Root: root}, wire.Follow{Feed: number, Root: other})
	case SwapReusesWalk:
		m.Walks = append(m.Walks, wire.Walk{ID: number, Root: root, Bytes: 1}, wire.Walk{ID: number, Root: root, Bytes: 1})
	case SwapIndexBeyond:
		m.Follows = append(m.Follows, wire.Follow{Feed: number, Root: root})
		h.during(h.w.between(0, time.Second), func() {
			if l.open {
				h.pose(l, &wire.Message{Wants: []wire.Entry{{
					CID: root, Priority: 1, Leaves: wire.Leaves{Feed: number, First: uint32(r.man.Len()), Count: 1},
				}}})
			}
		})
	case SwapFollowsAll:
		for i := range 10000 {
			m.Follows = append(m.Follows, wire.Follow{Feed: number + uint32(i), Root: h.w.Block(h.w.content.add("x", 16)).CID()})
		}
	case SwapWalksAll:
		for i := range 4000 {
			m.Walks = append(m.Walks, wire.Walk{ID: number + uint32(i), Root: root, Bytes: 1 << 20, Push: 1 << 20})
		}
	case SwapFlaps:
		h.flap(l, true)
		return
	default:
		return
	}
	h.pose(l, &m)
}

func (h *Host) flap(l *half, up bool) {
	h.during(70*time.Millisecond, func() {
		if l.open && h.faults.Swap == SwapFlaps {
			h.pose(l, &wire.Message{Info: wire.Info{Set: true, Uploading: up, Downloading: !up}})
			h.flap(l, !up)
		}
	})
}

// swapFaultOnMessage lets a host with a SwapFault answer what its engine would have answered otherwise.
func (h *Host) swapFaultOnMessage(l *half, m *wire.Message) {
	if h.faults.Swap == SwapHonest || !l.c.version.Indexes() {
		return
	}
	follows, walks := m.Follows[:0], m.Walks[:0]
	for _, f := range m.Follows {
		if f.Stop || !h.lieAboutFeed(l.back, f) {
			follows = append(follows, f)
		}
	}
	for _, x := range m.Walks {
		if x.Stop || !h.lieAboutWalk(l.back, x) {
			walks = append(walks, x)
		}
	}
	m.Follows, m.Walks = follows, walks
	if h.faults.Swap == SwapClaims {
		m.Wants = nil
	}
}

func (h *Host) lieAboutFeed(l *half, f wire.Follow) bool {
	r := h.w.roots[f.Root]
	if r == nil {
		return false
	}
	n := uint32(r.man.Len())
	var bits wire.BitsWriter
	m := &wire.Message{}
	switch h.faults.Swap {
	case SwapClaims:
		bits.Add(0, n)
		m.Haves = append(m.Haves, wire.Have{Feed: f.Feed, Leaves: n, Bits: bits.Bits()})
	case SwapBeyond:
		bits.Add(n, 5)
		m.Haves = append(m.Haves, wire.Have{Feed: f.Feed, Leaves: n + 8, Bits: bits.Bits()})
	case SwapOtherLeaves:
		m.Haves = append(m.Haves, wire.Have{Feed: f.Feed, Leaves: n + 1})
	case SwapRepeats:
		bits.Add(0, n)
		all := bits.Bits()
		for i := range 20000 {
			m.Haves = append(m.Haves, wire.Have{Feed: f.Feed, Leaves: n, Lost: i&1 == 1, Bits: all})
		}
	default:
		return false
	}
	h.pose(l, m)
	return true
}

func (h *Host) lieAboutWalk(l *half, x wire.Walk) bool {
	r := h.w.roots[x.Root]
	if r == nil {
		return false
	}
	carry := func(m *wire.Message, c Ref) {
		b := h.w.Block(c)
		m.Blocks = append(m.Blocks, wire.Block{Prefix: b.CID().Prefix(), Data: b.Data()})
	}
	m := &wire.Message{}
	switch h.faults.Swap {
	case SwapWalkMute:
		return true
	case SwapWalkGarbage:
		for range 10 {
			carry(m, h.w.content.add("u", 64))
		}
		m.Walked = append(m.Walked, wire.Walked{ID: x.ID, Status: wire.WalkWhole})
	case SwapWalkNoEnd:
		for _, b := range r.bones {
			carry(m, b)
		}
	case SwapWalkDrip:
		h.drip(l)
		return true
	case SwapPushesAll:
		n := uint32(r.man.Len())
		var bits wire.BitsWriter
		bits.Add(0, n)
		m.Walked = append(m.Walked, wire.Walked{ID: x.ID, Status: wire.WalkWhole, Leaves: n, Pushed: bits.Bits()})
	case SwapOverruns:
		for range 100 {
			p := h.blockPacket(l, h.w.Block(h.w.content.add("u", 64)))
			p.posed = true
			l.send(p)
		}
		return false
	default:
		return false
	}
	h.pose(l, m)
	return true
}

func (h *Host) drip(l *half) {
	h.during(time.Second, func() {
		if l.open && h.faults.Swap == SwapWalkDrip {
			m := &wire.Message{}
			b := h.w.Block(h.w.content.add("u", 64))
			m.Blocks = append(m.Blocks, wire.Block{Prefix: b.CID().Prefix(), Data: b.Data()})
			h.pose(l, m)
			h.drip(l)
		}
	})
}
