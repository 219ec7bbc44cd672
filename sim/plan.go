package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"dray/exchange"
	"dray/wire"
)

// planner draws a Schedule. Some hosts want a file, one honest host, the anchor, has all of it and is connected to them or will be
// again, and everything else is left to chance: lines, disks, partial holders, liars, crashes, cuts, outages, cancels.
type planner struct {
	r *rand.Rand
	s *Schedule
}

// Plan draws the random scenario of a seed. Equal seeds give equal Schedules.
func Plan(seed uint64) *Schedule {
	p := &planner{r: rand.New(rand.NewPCG(seed, 0x9a7)), s: &Schedule{Seed: seed, Codec: seed%3 == 0}}
	s := p.s
	s.Turn = []time.Duration{0, 20 * time.Microsecond, time.Millisecond}[seed/3%3]
	size := []int{8, 64, 700, 1500, 6000}[p.r.IntN(5)]
	n := 1 + p.r.IntN(12)
	if p.chance(0.4) {
		n = 1 + p.r.IntN(120)
	}
	for i := range n {
		s.File = append(s.File, size/2+p.r.IntN(size))
		s.Leaves = append(s.Leaves, i)
	}
	for p.chance(0.5) { // some blocks come several times
		s.Leaves = slices.Insert(s.Leaves, p.r.IntN(len(s.Leaves)), p.r.IntN(n))
	}
	s.Bones = 1 + p.r.IntN(1+p.r.IntN(40))
	s.Hosts = append(s.Hosts, HostPlan{Role: Anchor, Config: p.line(false)})
	for range p.r.IntN(3) {
		h := HostPlan{ID: len(s.Hosts), Config: p.line(false)}
		p.teach(&h)
		h.Has = p.some(0.5)
		s.Hosts = append(s.Hosts, h)
	}
	for range p.r.IntN(3) {
		h := HostPlan{ID: len(s.Hosts), Config: p.line(false)}
		h.Config.Faults = p.fault()
		if p.chance(0.7) {
			h.All, h.Knows = true, s.Bones
		}
		s.Hosts = append(s.Hosts, h)
	}
	for range 1 + p.r.IntN(3) {
		s.Hosts = append(s.Hosts, p.getter(len(s.Hosts)))
	}
	p.connect()
	for i := range s.Hosts {
		if s.Hosts[i].Role == Getter {
			p.disturb(&s.Hosts[i])
		}
	}
	for range p.r.IntN(6) {
		p.meddle()
	}
	if p.chance(0.4) {
		for range 1 + p.r.IntN(3) {
			p.outage()
		}
	}
	return s
}

func (p *planner) chance(x float64) bool { return p.r.Float64() < x }

// between draws a time, rounded to what can be read.
func (p *planner) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return (lo + time.Duration(p.r.Int64N(int64(hi-lo)))).Round(10 * time.Microsecond)
}

func (p *planner) soon() time.Duration { return p.between(0, 2*time.Second) }

// rate draws a slow line or a probability, with few digits.
func (p *planner) rate(lo, hi float64) float64 {
	x := lo + p.r.Float64()*(hi-lo)
	digits := math.Pow(10, 3-math.Ceil(math.Log10(hi)))
	return max(math.Round(x*digits)/digits, 1/digits)
}

// some draws blocks of the file.
func (p *planner) some(x float64) []int {
	var out []int
	for i := range p.s.File {
		if p.chance(x) {
			out = append(out, i)
		}
	}
	return out
}

func (p *planner) host() *HostPlan { return &p.s.Hosts[p.r.IntN(len(p.s.Hosts))] }

func (p *planner) at(e Event) { p.s.Events = append(p.s.Events, e) }

// line draws a host's lines and disk. Only a host that fetches may fail to write.
func (p *planner) line(fetches bool) HostConfig {
	c := HostConfig{Streams: 1 + p.r.IntN(3), Delay: p.between(100*time.Microsecond, 50*time.Millisecond)}
	if p.chance(0.3) {
		c.Up = p.rate(2e4, 1e6)
	}
	if p.chance(0.2) {
		c.Down = p.rate(2e4, 1e6)
	}
	if p.chance(0.3) {
		c.Loss = p.rate(0, 0.05)
	}
	if p.chance(0.5) {
		c.Disk = Disk{Latency: p.between(0, time.Millisecond), Jitter: p.between(0, 20*time.Millisecond)}
	}
	if p.chance(0.2) {
		c.Disk.Rate = p.rate(1e5, 1e7)
	}
	if p.chance(0.15) {
		c.Disk.FailReads = 0.1
	}
	if fetches && p.chance(0.2) {
		c.Disk.FailWrites = 0.2
	}
	switch p.r.IntN(20) {
	case 0, 1, 2:
		c.Version = wire.V110
	case 3, 4, 5, 6, 7:
		c.Version = wire.V120
	default:
		c.Version = wire.Swap1
	}
	if p.chance(0.2) {
		c.Engine.ServeBytes, c.Engine.PeerServeBytes = 4000, 2000
	}
	if p.chance(0.1) {
		c.Engine.ReceiveBytes = 4000
	}
	if p.chance(0.1) {
		c.Engine.Window = 3000
	}
	if p.chance(0.1) {
		c.Engine.InlineBytes = -1
	}
	if p.chance(0.15) {
		limit := func() int64 { return int64(p.r.IntN(2)) * int64(p.rate(2e4, 1e6)) }
		c.Engine.Limits = exchange.Limits{Up: limit(), Down: limit(), PeerUp: limit(), PeerDown: limit()}
	}
	return c
}

func (p *planner) fault() Faults {
	if p.chance(0.5) {
		return Faults{Swap: 1 + SwapFault(p.r.IntN(int(swapFaults)-1))}
	}
	return []Faults{
		{Mute: true},
		{Frozen: true},
		{Liar: true},
		{Liar: true, WrongBytes: 1},
		{Denier: true},
		{WrongBytes: 0.3},
		{Forget: 0.5},
		{Swallow: 0.3},
		{Repeat: 0.5},
		{Uninvited: 300 * time.Millisecond},
		{Flood: 3000},
	}[p.r.IntN(11)]
}

func (p *planner) getter(id int) HostPlan {
	h := HostPlan{ID: id, Role: Getter, Config: p.line(true), Start: p.between(0, 200*time.Millisecond)}
	f := &h.Fetch
	f.Rarest = p.chance(0.5)
	for i := range p.s.Hosts {
		if p.chance(0.4) {
			f.Peers = append(f.Peers, p.s.Hosts[i].ID)
		}
	}
	if p.chance(0.2) {
		f.Only = true
		f.Peers = append(f.Peers, p.s.Hosts[0].ID)
	}
	if p.chance(0.2) {
		f.Waiting = 1 + p.r.IntN(8)
	}
	if p.chance(0.4) {
		f.Window = 1 + p.r.IntN(20)
	}
	if p.chance(0.6) {
		p.rooted(f)
		return h
	}
	f.Sized = p.chance(0.5)
	f.Deadlines = p.chance(0.2)
	for i := range p.s.File {
		if p.chance(0.9) {
			f.Blocks = append(f.Blocks, i)
			if p.chance(0.05) {
				f.Blocks = append(f.Blocks, i) // wanted twice
			}
		}
	}
	return h
}

// rooted makes a fetch one of the whole root.
func (p *planner) rooted(f *FetchPlan) {
	f.Rooted = true
	switch p.r.IntN(4) {
	case 0:
		f.NoWalk = true
	case 1:
		f.Walk, f.Push = 1+p.r.Int64N(2000), p.r.Int64N(20000)
	}
}

// teach gives a host some of the skeleton, all of it, or all of it later.
func (p *planner) teach(h *HostPlan) {
	switch p.r.IntN(4) {
	case 0:
		h.Knows = p.s.Bones
	case 1:
		h.Knows = p.r.IntN(p.s.Bones)
	case 2:
		p.at(Event{At: p.soon(), Do: DoLearn, Host: h.ID})
	}
}

// connect joins the getters to the anchor, and everybody else at random.
func (p *planner) connect() {
	hosts := p.s.Hosts
	for i := range hosts {
		for k := range i {
			if p.chance(0.8) || hosts[i].Role == Getter && hosts[k].Role == Anchor {
				p.s.Links = append(p.s.Links, Link{hosts[i].ID, hosts[k].ID})
			}
		}
	}
}

// disturb plans what happens to one getter.
func (p *planner) disturb(h *HostPlan) {
	if p.chance(0.25) {
		e := Event{At: p.soon(), Do: DoCrash, Host: h.ID, For: p.soon(), Hosts: []int{p.s.Hosts[0].ID}}
		for i := range p.s.Hosts {
			if o := &p.s.Hosts[i]; p.chance(0.6) && o != h && o.Role != Anchor {
				e.Hosts = append(e.Hosts, o.ID)
			}
		}
		if p.chance(0.4) {
			e.P = 0.5
		}
		p.at(e)
	}
	if p.chance(0.4) {
		// A second session on the same blocks, which is given up, or loses some of its wants.
		f, at, n := h.Fetch, p.soon(), 1+len(p.s.Events)
		if !f.Rooted && p.chance(0.5) {
			p.rooted(&f)
		}
		p.at(Event{At: at, Do: DoFetch, Host: h.ID, N: n, Fetch: f})
		if p.chance(0.5) {
			p.at(Event{At: at + p.soon(), Do: DoAbandon, Host: h.ID, N: n})
		} else {
			for range 1 + p.r.IntN(20) {
				p.at(Event{At: at + p.soon(), Do: DoCancel, Host: h.ID, N: n, Blocks: []int{p.r.IntN(len(p.s.File))}})
			}
		}
	}
	if p.chance(0.2) {
		p.at(Event{At: p.soon(), Do: DoPause, Host: h.ID, For: max(p.soon(), time.Millisecond)})
	}
	if p.chance(0.2) {
		// Somebody adds a file on this host that has what it is fetching.
		p.at(Event{At: p.soon(), Do: DoGive, Host: h.ID, Blocks: p.some(0.3)})
	}
	if h.Fetch.Rooted && p.chance(0.2) {
		p.at(Event{At: p.soon(), Do: DoCount, Host: p.host().ID})
	}
}

// meddle plans something that happens between random hosts. The connections to the anchor may break, and are made again.
func (p *planner) meddle() {
	a, b := p.host(), p.host()
	at := p.between(0, 3*time.Second)
	what := p.r.IntN(5)
	if a == b {
		return
	}
	if a.Role == Anchor || b.Role == Anchor {
		what = 0
	}
	switch what {
	case 0:
		p.at(Event{At: at, Do: DoCut, Host: a.ID, Peer: b.ID, For: max(p.between(0, time.Second), time.Millisecond)})
	case 1:
		p.at(Event{At: at, Do: DoCut, Host: a.ID, Peer: b.ID})
	case 2:
		p.at(Event{At: at, Do: DoConnect, Host: a.ID, Peer: b.ID})
	case 3, 4:
		for i := range p.s.Hosts {
			h := &p.s.Hosts[i]
			if h.Role != Holder || !h.Config.Faults.honest() {
				continue
			}
			if what == 3 {
				p.at(Event{At: at, Do: DoGive, Host: h.ID, Blocks: p.some(1)})
			} else if lost := p.some(0.3); len(lost) > 0 {
				p.at(Event{At: at, Do: DoLose, Host: h.ID, Blocks: lost})
			}
		}
	}
}

// outage plans something that goes wrong for a while with an honest host. The anchor always comes back; others may not.
func (p *planner) outage() {
	h := p.host()
	if !h.Config.Faults.honest() {
		return
	}
	e := Event{At: p.between(0, 3*time.Second), Host: h.ID, For: []time.Duration{
		300 * time.Millisecond, 2 * time.Second, 12 * time.Second, 30 * time.Second, time.Minute,
	}[p.r.IntN(5)]}
	list := []Verb{DoFreeze, DoSuspend, DoTrickle, DoReset, DoTruncate, DoForget, DoReadError, DoWriteError, DoFull, DoSplit, DoStrangers}
	if h.Role == Holder {
		list = append(list, DoCrash, DoCorrupt, DoLie)
		if p.chance(0.3) {
			e.For = 0
		}
	}
	switch e.Do = list[p.r.IntN(len(list))]; e.Do {
	case DoSuspend:
		if e.For != 0 && p.chance(0.2) {
			e.For = 2 * time.Hour
		}
	case DoTrickle:
		e.N = 1000
	case DoReset:
		e.Every = []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second}[p.r.IntN(3)]
		e.For = max(e.For, time.Second)
	case DoCorrupt:
		e.P = 0.01
	case DoTruncate:
		e.P = 0.05
		e.For = max(e.For, time.Second)
	case DoForget:
		e.P = 0.5
	case DoReadError, DoWriteError:
		e.P = []float64{0.3, 1}[p.r.IntN(2)]
	case DoSplit:
		e.Hosts = []int{h.ID}
		for i := range p.s.Hosts {
			if id := p.s.Hosts[i].ID; id != h.ID && p.chance(0.3) {
				e.Hosts = append(e.Hosts, id)
			}
		}
		e.For = max(e.For, time.Second)
	case DoStrangers:
		e.N, e.Every = 1+p.r.IntN(30), 200*time.Millisecond
	}
	p.at(e)
}
