package sim

import (
	"fmt"
	"time"

	"dray/exchange"
	"dray/wire"
)

// soup is one random scenario being planned and run: some hosts want a file, one honest host has all of it and stays connected
// to them, and everything else is drawn from the seed: lines, disks, partial holders, liars, crashes, cuts, cancels.
type soup struct {
	w       *World
	file    []Ref
	root    *Root // above the file, some of whose blocks come several times
	anchor  *Host
	holders []*Host
	hostile []*Host
	getters []*getter
	limit   time.Duration
}

// getter is a host that must end up with what it wants.
type getter struct {
	h     *Host
	cfg   FetchConfig
	need  refs // blocks that it must have in the end
	until time.Duration
}

// Soup runs the random scenario of a seed: invariant 13 says that it ends well. Config's Seed is replaced; TurnDelay, Codec
// and Virtual are drawn.
func Soup(seed uint64, cfg Config) (Result, error) {
	s := plan(seed, cfg)
	w := s.w
	w.Run(s.limit, s.done)
	var fetches []*Fetch
	for _, g := range s.getters {
		fetches = append(fetches, g.h.fetches...)
	}
	res := w.measure(0, []*Host{s.anchor}, fetches)
	if w.err != nil {
		return res, w.err
	}
	for _, g := range s.getters {
		if r := g.lacks(); r != noRef {
			return res, fmt.Errorf("at %v %s lacks %s though %s has it and is connected: %s",
				w.now, g.h.name, w.content.names[r], s.anchor.name, g.h.waits())
		}
	}
	if err := w.Settle(settleFor); err != nil {
		return res, err
	}
	res.Trace = w.Trace()
	return res, nil
}

func plan(seed uint64, cfg Config) *soup {
	cfg.Seed = seed
	cfg.Virtual = false
	cfg.Codec = seed%3 == 0
	cfg.TurnDelay = []time.Duration{0, 20 * time.Microsecond, time.Millisecond}[seed/3%3]
	w := NewWorld(cfg)
	s := &soup{w: w, limit: 15 * time.Minute}
	size := []int{8, 64, 700, 1500, 6000}[w.rand.IntN(5)]
	n := 1 + w.rand.IntN(12)
	if w.chance(0.4) {
		n = 1 + w.rand.IntN(120)
	}
	for range n {
		s.file = append(s.file, w.File(1, size/2+w.rand.IntN(size))...)
	}
	leaves := append([]Ref(nil), s.file...)
	for w.chance(0.5) {
		k, at := s.file[w.rand.IntN(len(s.file))], w.rand.IntN(len(leaves))
		leaves = append(leaves[:at], append([]Ref{k}, leaves[at:]...)...)
	}
	s.root = w.Root(leaves, 1+w.rand.IntN(1+w.rand.IntN(40)))
	s.anchor = w.Add(s.line(false))
	s.anchor.Give(s.file...)
	s.anchor.Give(s.root.bones...)
	for range w.rand.IntN(3) {
		h := w.Add(s.line(false))
		s.teach(h)
		for _, r := range s.file {
			if w.chance(0.5) {
				h.Give(r)
			}
		}
		s.holders = append(s.holders, h)
	}
	for range w.rand.IntN(3) {
		cfg := s.line(false)
		cfg.Faults = s.fault()
		h := w.Add(cfg)
		if w.chance(0.7) {
			h.Give(s.file...)
			h.Give(s.root.bones...)
		}
		s.hostile = append(s.hostile, h)
	}
	for range 1 + w.rand.IntN(3) {
		s.getters = append(s.getters, s.getter())
	}
	s.connect()
	for _, g := range s.getters {
		s.begin(g)
		s.disturb(g)
	}
	for range w.rand.IntN(6) {
		s.meddle()
	}
	return s
}

// line draws a host's lines and disk. Only a host that fetches may fail to write.
func (s *soup) line(fetches bool) HostConfig {
	w := s.w
	c := HostConfig{
		Up: Gbit, Down: Gbit, Streams: 1 + w.rand.IntN(3),
		Delay: w.between(100*time.Microsecond, 50*time.Millisecond),
	}
	if w.chance(0.3) {
		c.Up = 2e4 + w.rand.Float64()*1e6
	}
	if w.chance(0.2) {
		c.Down = 2e4 + w.rand.Float64()*1e6
	}
	if w.chance(0.3) {
		c.Loss = w.rand.Float64() * 0.05
	}
	if w.chance(0.5) {
		c.Disk = Disk{Latency: w.between(0, time.Millisecond), Jitter: w.between(0, 20*time.Millisecond)}
	}
	if w.chance(0.2) {
		c.Disk.Rate = 1e5 + w.rand.Float64()*1e7
	}
	if w.chance(0.15) {
		c.Disk.FailReads = 0.1
	}
	if fetches && w.chance(0.2) {
		c.Disk.FailWrites = 0.2
	}
	switch w.rand.IntN(20) {
	case 0, 1, 2:
		c.Version = wire.V110
	case 3, 4, 5, 6, 7:
		c.Version = wire.V120
	default:
		c.Version = wire.Swap1
	}
	if w.chance(0.2) {
		c.Engine.ServeBytes, c.Engine.PeerServeBytes = 4000, 2000
	}
	if w.chance(0.1) {
		c.Engine.ReceiveBytes = 4000
	}
	if w.chance(0.1) {
		c.Engine.Window = 3000
	}
	if w.chance(0.1) {
		c.Engine.InlineBytes = -1
	}
	return c
}

func (s *soup) fault() Faults {
	w := s.w
	if w.chance(0.5) {
		return Faults{Swap: 1 + SwapFault(w.rand.IntN(int(swapFaults)-1))}
	}
	switch w.rand.IntN(11) {
	case 0:
		return Faults{Mute: true}
	case 1:
		return Faults{Frozen: true}
	case 2:
		return Faults{Liar: true}
	case 3:
		return Faults{Liar: true, WrongBytes: 1}
	case 4:
		return Faults{Denier: true}
	case 5:
		return Faults{WrongBytes: 0.3}
	case 6:
		return Faults{Forget: 0.5}
	case 7:
		return Faults{Swallow: 0.3}
	case 8:
		return Faults{Repeat: 0.5}
	case 9:
		return Faults{Uninvited: 300 * time.Millisecond}
	}
	return Faults{Flood: 3000}
}

func (s *soup) getter() *getter {
	w := s.w
	g := &getter{h: w.Add(s.line(true))}
	g.cfg.Session.Order = exchange.Order(w.rand.IntN(2))
	for _, h := range w.hosts[:len(w.hosts)-1] {
		if w.chance(0.4) {
			g.cfg.Session.Peers = append(g.cfg.Session.Peers, h.id)
		}
	}
	if w.chance(0.2) {
		g.cfg.Session.Only = true
		g.cfg.Session.Peers = append(g.cfg.Session.Peers, s.anchor.id)
	}
	if w.chance(0.2) {
		g.cfg.Session.MaxWaiting = 1 + w.rand.IntN(8)
	}
	if w.chance(0.4) {
		g.cfg.Window = 1 + w.rand.IntN(20)
	}
	if w.chance(0.6) {
		s.rooted(&g.cfg)
		for _, list := range [][]Ref{s.root.bones, s.root.leaves} {
			for _, r := range list {
				g.need.add(r)
			}
		}
		return g
	}
	g.cfg.Sized = w.chance(0.5)
	g.cfg.Deadlines = w.chance(0.2)
	for _, r := range s.file {
		if w.chance(0.9) {
			g.cfg.Blocks = append(g.cfg.Blocks, r)
			if w.chance(0.05) {
				g.cfg.Blocks = append(g.cfg.Blocks, r) // wanted twice
			}
		}
	}
	for _, r := range g.cfg.Blocks {
		g.need.add(r)
	}
	return g
}

// rooted makes a fetch one of the whole root.
func (s *soup) rooted(cfg *FetchConfig) {
	w := s.w
	cfg.Root = s.root
	switch w.rand.IntN(4) {
	case 0:
		cfg.NoWalk = true
	case 1:
		cfg.Session.Walk = exchange.WalkOptions{Bytes: 1 + w.rand.Int64N(2000), Push: w.rand.Int64N(20000)}
	}
}

// teach gives a host some of the skeleton, all of it, or all of it later.
func (s *soup) teach(h *Host) {
	w := s.w
	switch w.rand.IntN(4) {
	case 0:
		h.Give(s.root.bones...)
	case 1:
		h.Give(s.root.bones[:w.rand.IntN(len(s.root.bones))]...)
	case 2:
		w.After(w.between(0, 2*time.Second), func() {
			for i := range s.root.bones {
				h.Give(s.root.bones[len(s.root.bones)-1-i]) // the root is what is added last
			}
		})
	}
}

// connect joins the getters to the anchor, and everybody else at random.
func (s *soup) connect() {
	w := s.w
	for _, g := range s.getters {
		w.Connect(g.h, s.anchor)
	}
	for i, a := range w.hosts {
		for _, b := range w.hosts[:i] {
			if w.chance(0.8) {
				w.Connect(a, b)
			}
		}
	}
}

func (s *soup) begin(g *getter) {
	s.w.After(s.w.between(0, 200*time.Millisecond), func() {
		if g.h.alive {
			g.h.Fetch(g.cfg)
		}
	})
}

// disturb plans what happens to one getter.
func (s *soup) disturb(g *getter) {
	w := s.w
	soon := func() time.Duration { return w.between(0, 2*time.Second) }
	if w.chance(0.25) {
		at := soon()
		g.until = at + soon()
		w.After(at, g.h.Crash)
		w.After(g.until, func() {
			g.h.Start()
			w.Connect(g.h, s.anchor)
			for _, h := range w.hosts {
				if w.chance(0.6) {
					w.Connect(g.h, h)
				}
			}
			g.h.Fetch(g.cfg)
		})
	}
	if w.chance(0.4) {
		// A second session on the same blocks, which is given up, or loses some of its wants.
		cfg := g.cfg
		if cfg.Root == nil && w.chance(0.5) {
			s.rooted(&cfg)
		}
		w.After(soon(), func() {
			if !g.h.alive {
				return
			}
			f := g.h.Fetch(cfg)
			life := g.h.life
			if w.chance(0.5) {
				w.After(soon(), func() {
					if g.h.life == life {
						f.Abandon()
					}
				})
				return
			}
			for range 1 + w.rand.IntN(20) {
				r := s.file[w.rand.IntN(len(s.file))]
				w.After(soon(), func() {
					if g.h.life == life {
						f.Cancel(r)
					}
				})
			}
		})
	}
	if w.chance(0.2) {
		at := soon()
		w.After(at, func() {
			for _, f := range g.h.fetches {
				g.h.Pause(f)
			}
		})
		w.After(at+soon(), func() {
			for _, f := range g.h.fetches {
				g.h.Resume(f)
			}
		})
	}
	if w.chance(0.2) {
		// Somebody adds a file on this host that has what it is fetching.
		w.After(soon(), func() {
			for _, r := range s.file {
				if w.chance(0.3) && !g.h.storing[r] {
					g.h.Give(r)
				}
			}
		})
	}
}

// meddle plans something that happens between random hosts. The connections to the anchor may break, and are made again.
func (s *soup) meddle() {
	w := s.w
	a, b := w.hosts[w.rand.IntN(len(w.hosts))], w.hosts[w.rand.IntN(len(w.hosts))]
	at := w.between(0, 3*time.Second)
	what := w.rand.IntN(5)
	if a == b {
		return
	}
	if a == s.anchor || b == s.anchor {
		what = 0
	}
	switch what {
	case 0:
		w.After(at, func() { w.Cut(a, b) })
		w.After(at+w.between(0, time.Second), func() { w.Connect(a, b) })
	case 1:
		w.After(at, func() { w.Cut(a, b) })
	case 2:
		w.After(at, func() { w.Connect(a, b) })
	case 3:
		for _, h := range s.holders {
			w.After(at, func() {
				if h.alive {
					h.Give(s.file...)
				}
			})
		}
	case 4:
		for _, h := range s.holders {
			w.After(at, func() {
				for _, r := range w.all() {
					if w.chance(0.3) {
						h.Lose(r)
					}
				}
			})
		}
	}
}

// done reports whether every getter has what it needs and all sessions have ended.
func (s *soup) done() bool {
	for _, g := range s.getters {
		if s.w.now < g.until || !g.h.alive || len(g.h.fetches) == 0 {
			return false
		}
		for _, f := range g.h.fetches {
			if !f.Done() {
				return false
			}
		}
		if g.lacks() != noRef {
			return false
		}
	}
	return true
}

// lacks returns a block that the getter needs and has not, or noRef.
func (g *getter) lacks() Ref {
	for i, b := range g.need.bits {
		var has uint64
		if i < len(g.h.has.bits) {
			has = g.h.has.bits[i]
		}
		if b&^has != 0 {
			left := refs{bits: make([]uint64, i+1)}
			left.bits[i] = b &^ has
			return left.first()
		}
	}
	return noRef
}

// Pause and Resume stop and continue one fetch.
func (h *Host) Pause(f *Fetch) {
	h.e.Pause(h.w.now, f.id)
	h.kick()
}

// Resume undoes Pause.
func (h *Host) Resume(f *Fetch) {
	h.e.Resume(h.w.now, f.id)
	h.kick()
}
