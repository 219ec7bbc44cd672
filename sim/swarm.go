package sim

import (
	"fmt"
	"time"

	"dray"
	"dray/exchange"
)

// SwarmConfig describes many hosts that fetch one file from a few that have it, and from each other.
type SwarmConfig struct {
	// World configures the World.
	World Config
	// Seeds have the file and Getters want it. If zero, 1 and 1.
	Seeds, Getters int
	// Blocks and BlockSize make the file. If zero, 64 blocks of 256 KiB.
	Blocks, BlockSize int
	// Degree is the number of getters that each getter is connected to, at least; a random graph. If zero, all.
	Degree int
	// SeedDegree is the number of getters that a seed is connected to. If zero, all.
	SeedDegree int
	// Rooted lets the getters fetch the file by its root, with a walk and by index where both sides speak TensorSwap.
	Rooted bool
	// Order is how the sessions choose.
	Order exchange.Order
	// Window is how many wants each getter has outstanding. If zero, all.
	Window int
	// Host configures every host, Seed the seeds; the zero value is Host's.
	Host HostConfig
	// Vary changes what Host says for getter i; it may be nil.
	Vary func(i int, c *HostConfig)
	// Seed replaces Host for the seeds when it is not nil.
	Seed *HostConfig
	// Stagger spreads the getters' starts over this time.
	Stagger time.Duration
	// Limit is the virtual time at which the scenario gives up. If zero, one hour.
	Limit time.Duration
	// Disturb is called when everybody is connected, to plan faults; it may be nil.
	Disturb func(w *World, seeds, getters []*Host)
	// Excused says that a getter need not complete; nil excuses nobody.
	Excused func(h *Host) bool
}

func (c *SwarmConfig) setDefaults() {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Seeds, 1)
	def(&c.Getters, 1)
	def(&c.Blocks, 64)
	def(&c.BlockSize, 256<<10)
	if c.Limit == 0 {
		c.Limit = time.Hour
	}
	if c.Seed == nil {
		c.Seed = &c.Host
	}
}

// Swarm runs a swarm until every getter has the file. It returns the first broken invariant, or an error when getters are
// left without the file at the limit.
func Swarm(cfg SwarmConfig) (Result, error) {
	cfg.setDefaults()
	w := NewWorld(cfg.World)
	file := w.File(cfg.Blocks, cfg.BlockSize)
	var root *Root
	if cfg.Rooted {
		root = w.Root(file, 1)
	}
	var seeds, getters []*Host
	var hints []dray.PeerID
	for range cfg.Seeds {
		h := w.Add(*cfg.Seed)
		h.Give(file...)
		if root != nil {
			h.Give(root.ref)
		}
		seeds = append(seeds, h)
		hints = append(hints, h.id)
	}
	for i := range cfg.Getters {
		c := cfg.Host
		if cfg.Vary != nil {
			cfg.Vary(i, &c)
		}
		getters = append(getters, w.Add(c))
	}
	w.mesh(seeds, getters, cfg.SeedDegree, cfg.Degree)
	var fetches []*Fetch
	for _, g := range getters {
		w.After(w.between(0, cfg.Stagger), func() {
			if g.alive {
				fetches = append(fetches, g.Fetch(FetchConfig{
					Blocks: file, Window: cfg.Window, Sized: true, Root: root,
					Session: exchange.SessionConfig{Order: cfg.Order, Peers: hints},
				}))
			}
		})
	}
	if cfg.Disturb != nil {
		cfg.Disturb(w, seeds, getters)
	}
	w.Run(cfg.Limit, func() bool {
		for k := len(fetches) - 1; k >= 0; k-- {
			if !fetches[k].Done() && fetches[k].h.alive && (cfg.Excused == nil || !cfg.Excused(fetches[k].h)) {
				return false
			}
		}
		return len(fetches) >= cfg.Getters
	})
	size := int64(cfg.Blocks) * int64(cfg.BlockSize)
	res := w.measure(size, seeds, fetches)
	res.Bound = Bound(size, seeds, getters)
	if w.err != nil {
		return res, w.err
	}
	for _, g := range getters {
		if cfg.Excused != nil && cfg.Excused(g) {
			continue
		}
		for _, r := range file {
			if !g.Has(r) {
				return res, fmt.Errorf("%s has %d of %d blocks at %v and lacks %s: %s",
					g.name, g.has.n, len(file), w.now, w.content.names[r], g.waits())
			}
		}
	}
	return res, w.Settle(settleFor)
}

// settleFor is long enough for every answer on the way and every retry.
const settleFor = 20 * time.Second

// waits says what the host's sessions wait for.
func (h *Host) waits() string {
	if !h.alive {
		return "it is not running"
	}
	s := ""
	for _, f := range h.fetches {
		if !f.Done() {
			s += fmt.Sprintf("session %d with %d wants; ", f.id, f.open.some)
			for _, x := range h.e.Standings(f.id) {
				s += fmt.Sprintf("%s %v asked %d silent %v lacks %v; ", string(x.Peer), x.Health, x.Asked, x.Silent, x.Lacks)
			}
		}
	}
	return s
}

// mesh connects each seed to seedDegree getters, and the getters in a ring with random chords so that each has about degree of
// them: at least as many, as long as others have no more than two beyond that. Zero means all.
func (w *World) mesh(seeds, getters []*Host, seedDegree, degree int) {
	n := len(getters)
	for _, s := range seeds {
		if seedDegree == 0 || seedDegree >= n {
			for _, g := range getters {
				w.Connect(s, g)
			}
			continue
		}
		for _, i := range w.rand.Perm(n)[:seedDegree] {
			w.Connect(s, getters[i])
		}
	}
	if degree == 0 || degree >= n-1 {
		for i, a := range getters {
			for _, b := range getters[:i] {
				w.Connect(a, b)
			}
		}
		return
	}
	for i, g := range getters {
		w.Connect(g, getters[(i+1)%n])
		for tries := 0; len(g.conns) < degree && tries < 8*degree; tries++ {
			if o := getters[w.rand.IntN(n)]; len(o.conns) < degree+2 {
				w.Connect(g, o)
			}
		}
	}
}
