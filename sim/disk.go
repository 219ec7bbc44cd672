package sim

import (
	"time"

	"dray"
	"dray/exchange"
)

// Disk models a store. The zero value answers at once.
type Disk struct {
	// Latency is how long any operation takes at least, and Jitter what is randomly added, so that answers come out of order.
	Latency, Jitter time.Duration
	// Rate is the bytes a second that reads and writes share. If zero, unlimited.
	Rate float64
	// FailWrites and FailReads are the probabilities that a write or a read of a block fails.
	FailWrites, FailReads float64
	// Full says that there is no room: writes fail.
	Full bool
	// Stuck says that no write ever ends.
	Stuck bool
}

type diskState struct {
	free time.Duration // when the disk's queue is empty
}

// does returns how long an operation that moves size bytes takes from now, queue included.
func (h *Host) does(size int64) time.Duration {
	d := &h.cfg.Disk
	wait := d.Latency + h.w.between(0, d.Jitter)
	if d.Rate > 0 && size > 0 {
		h.disk.free = max(h.disk.free, h.w.now) + took(size, d.Rate)
		wait += h.disk.free - h.w.now
	}
	return wait
}

// load looks a block up or reads it. What is there is decided at the start, and told at the end: the engine must cope with
// what changes meanwhile.
func (h *Host) load(l exchange.Load) {
	w := h.w
	r := w.content.ref(l.CID)
	if !h.has.has(r) {
		h.during(h.does(0), func() { h.loaded(l, 0, nil, dray.ErrNotFound) })
		return
	}
	b := w.content.blocks[r]
	if l.Stat {
		h.during(h.does(0), func() { h.loaded(l, int64(b.Size()), nil, nil) })
		return
	}
	if h.sabotaged(sabotageStarve) && r == 0 {
		return
	}
	if w.chance(h.cfg.Disk.FailReads) {
		h.during(h.does(0), func() { h.loaded(l, 0, nil, dray.ErrChanged) })
		return
	}
	h.during(h.does(int64(b.Size())), func() { h.loaded(l, int64(b.Size()), b.Data(), nil) })
}

func (h *Host) loaded(l exchange.Load, size int64, data []byte, err error) {
	h.e.Loaded(h.w.now, l, size, data, err)
	h.kick()
}

// write writes a block. It is there some time before the engine hears of it: a crash may come between.
func (h *Host) write(s exchange.Store) {
	w := h.w
	r := w.content.ref(s.Block.CID())
	if h.storing[r] {
		w.fail("%s writes %s twice at once", h.name, w.content.names[r])
	}
	if err := w.content.genuine(s.Block); err != nil {
		w.fail("%s is asked to write wrong bytes: %w", h.name, err)
	}
	if !h.asked.has(r) {
		w.fail("%s writes %s, which nobody asked for", h.name, w.content.names[r])
	}
	if h.cfg.Disk.Stuck {
		return
	}
	h.storing[r] = true
	if h.sabotaged(sabotageStored) {
		h.during(0, func() { h.stored(r, s.Block, nil) })
		return
	}
	takes := h.does(int64(s.Block.Size()))
	block := s.Block
	if h.cfg.Disk.Full || w.chance(h.cfg.Disk.FailWrites) {
		h.during(takes, func() { h.stored(r, block, dray.ErrNoSpace) })
		return
	}
	h.during(takes, func() {
		h.has.add(r)
		h.fresh = append(h.fresh, freshBlock{r, w.now})
		h.during(w.between(0, h.cfg.Disk.Jitter), func() { h.stored(r, block, nil) })
	})
}

func (h *Host) stored(r Ref, b dray.Block, err error) {
	delete(h.storing, r)
	h.e.Stored(h.w.now, b, err)
	h.kick()
}

// freshBlock is a block that was written and may not be synced yet.
type freshBlock struct {
	r  Ref
	at time.Duration
}

const syncEvery = time.Second // the store syncs by itself at least so often

// losePower takes back, with probability p, what a crashed host had written and not synced.
func (h *Host) losePower(p float64) {
	for _, b := range h.fresh {
		if h.w.now-b.at < syncEvery && h.w.chance(p) && h.has.has(b.r) && !h.synced.has(b.r) {
			h.w.trace.note("%v %s loses %s with the power\n", h.w.now, h.name, h.w.content.names[b.r])
			h.has.remove(b.r)
		} else if h.has.has(b.r) {
			h.synced.add(b.r)
		}
	}
	h.fresh = nil
}
