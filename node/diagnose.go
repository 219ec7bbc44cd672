package node

import (
	"context"
	"runtime"
	"sync"
	"time"

	"dray"
	"dray/exchange"
)

// DiagnoseConfig says what to fetch, and for how long, to find out what limits it.
type DiagnoseConfig struct {
	// Fetch is what is fetched, in the way of every other fetch.
	Fetch FetchConfig
	// For is how long at most. If zero, ten seconds.
	For time.Duration
	// CPU, if set, returns the time that the process has computed so far, all cores together.
	CPU func() time.Duration
}

const (
	diagnoseFor    = 10 * time.Second
	diagnoseSample = 20 * time.Millisecond
	pingEvery      = 250 * time.Millisecond
	pingFor        = 2 * time.Second
	pingMost       = 16 // peers
)

// Measures is what a fetch spent its time on. Shares are between 0 and 1.
type Measures struct {
	// Took is the time from the first byte to the end, and First that from the call to the first byte.
	Took, First time.Duration
	// Complete says that all was fetched. Bytes came from peers; Here were on this host before.
	Complete    bool
	Bytes, Here int64
	// Rate is how fast bytes came, a second.
	Rate float64
	// Load is what the Node did meanwhile, Workers its store workers and Cores what hashing is spread over.
	Load           Load
	Workers, Cores int
	// CPU is the share of all cores that the process used; negative when not known.
	CPU float64
	// Behind is the share of the time in which so much had come that nothing more was asked for, Full that in which every peer
	// was asked for as much as its window allows while there was more to ask for, Limited that in which this host's limits
	// forbade to ask, Idle that in which nobody was asked for anything and nothing was being written.
	Behind, Full, Limited, Idle float64
	// Waiting and Window are how many bytes were asked of peers and had not come, and how many could have been, on average.
	Waiting, Window float64
	// RTT is the round trip to those who delivered, weighted by what was asked of them.
	RTT time.Duration
	// Peers is how many delivered, RelayedBytes what came over connections through a third host. Lacking is how many connected
	// peers had nothing of what was missing, at the end.
	Peers        int
	RelayedBytes int64
	Lacking      int
	// Waits is what was waited for at the end.
	Waits []Wait
}

// Queue is how long a byte was waited for after it was asked for, by Little's law.
func (m *Measures) Queue() time.Duration {
	if m.Rate > 0 {
		return time.Duration(m.Waiting / m.Rate * float64(time.Second))
	}
	return 0
}

// Diagnose fetches something for a while and measures what limits it. What it fetched stays where the configuration says, as
// after a Fetch that was broken off. The error is that of the fetch, if it failed otherwise than by its time being over.
func (n *Node) Diagnose(ctx context.Context, cfg DiagnoseConfig) (Measures, error) {
	if err := dray.CheckCID(cfg.Fetch.Root); err != nil {
		return Measures{}, err
	}
	if cfg.For <= 0 {
		cfg.For = diagnoseFor
	}
	timed, cancel := context.WithTimeout(ctx, cfg.For)
	defer cancel()
	f := newFetch(n, cfg.Fetch)
	d := &diagnosis{n: n, id: f.id, cpu: cfg.CPU, start: time.Now(), sources: make(map[dray.PeerID]bool), trips: make(map[dray.PeerID]time.Duration)}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { d.sample(stop) })
	wg.Go(func() { d.pings(stop) })
	err := f.run(timed)
	close(stop)
	wg.Wait()
	if err == nil {
		err = f.finishAll(timed)
	}
	f.report()
	f.close()
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		err = nil // it was only to go on for so long
	}
	return d.measures(&f.progress), err
}

// diagnosis is one call of Diagnose. It belongs to the sampler's goroutine until that ends.
type diagnosis struct {
	n     *Node
	id    exchange.SessionID
	cpu   func() time.Duration
	start time.Time

	begin, end   Load
	got, gotTo   int64 // bytes
	cpuAt, cpuTo time.Duration
	first, last  time.Time // samples from the first byte on
	samples      int
	behind, full int
	limited      int
	idle         int
	waiting      float64
	window       float64
	rtt          float64
	rtts         float64 // weights
	lacking      int
	waits        []Wait
	sources      map[dray.PeerID]bool // relayed, of those that were connected

	trips map[dray.PeerID]time.Duration // owned by the goroutine of pings until that ends
}

func (d *diagnosis) used() time.Duration {
	if d.cpu == nil {
		return 0
	}
	return d.cpu()
}

// sample looks at the session until stop.
func (d *diagnosis) sample(stop <-chan struct{}) {
	tick := time.NewTicker(diagnoseSample)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		var t exchange.Transit
		var stats exchange.SessionStats
		if !d.n.ask(func() {
			t = d.n.engine.Transit(d.id)
			stats, _ = d.n.engine.Stats(d.id)
			d.waits = d.n.waits(d.id, nil)
			for id, l := range d.n.links {
				d.sources[id] = l.conn.Info().Relayed
			}
		}) {
			return
		}
		d.last = time.Now()
		d.lacking = t.Lacking
		if stats.Bytes == 0 && t.Writing == 0 {
			continue
		}
		if d.first.IsZero() {
			d.first, d.begin, d.cpuAt, d.got = d.last, d.n.Load(), d.used(), stats.Bytes
			continue
		}
		d.end, d.cpuTo, d.gotTo = d.n.Load(), d.used(), stats.Bytes
		d.samples++
		count := func(to *int, yes bool) {
			if yes {
				*to++
			}
		}
		count(&d.behind, t.Behind)
		count(&d.full, t.Full)
		count(&d.limited, t.Limited)
		count(&d.idle, t.Waiting == 0 && t.Writing == 0)
		d.waiting += float64(t.Waiting)
		d.window += float64(t.Window)
		if t.RTT > 0 {
			d.rtt += float64(t.RTT) * float64(t.Waiting)
			d.rtts += float64(t.Waiting)
		}
	}
}

// pinger is a connection on which a round trip can be measured apart from what else is on it.
type pinger interface {
	Ping(ctx context.Context) (time.Duration, error)
}

// pings measures round trips until stop, each peer in turn. What an answer to a request takes would include how long the peer
// sends the block.
func (d *diagnosis) pings(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(d.n.ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		select {
		case <-stop:
		case <-ctx.Done():
		}
		cancel()
	})
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		conns := make(map[dray.PeerID]pinger)
		d.n.ask(func() {
			for _, x := range d.n.engine.Standings(d.id) {
				l := d.n.links[x.Peer]
				if l == nil || len(conns) >= pingMost {
					continue
				}
				if p, ok := l.conn.(pinger); ok {
					conns[x.Peer] = p
				}
			}
		})
		for id, c := range conns {
			one, done := context.WithTimeout(ctx, pingFor)
			rtt, err := c.Ping(one)
			done()
			if before, known := d.trips[id]; err == nil && (!known || rtt < before) {
				d.trips[id] = rtt
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// trip is the round trip to those who gave something, by their bytes, or 0 if it was not measured.
func (d *diagnosis) trip(p *Progress) time.Duration {
	var sum, weight float64
	for _, s := range p.Sources {
		if rtt, ok := d.trips[s.Peer]; ok {
			sum += float64(rtt) * float64(s.Bytes)
			weight += float64(s.Bytes)
		}
	}
	if weight == 0 {
		return 0
	}
	return time.Duration(sum / weight)
}

// measures puts together what was seen.
func (d *diagnosis) measures(p *Progress) Measures {
	m := Measures{
		Complete: p.Walked && p.Done >= p.Total, Bytes: p.Fetched, Here: p.Reused, CPU: -1,
		Workers: d.n.cfg.Workers, Cores: runtime.GOMAXPROCS(0), Lacking: d.lacking, Waits: d.waits,
	}
	if w := d.n.cfg.HashWorkers; w > 0 {
		m.Cores = min(m.Cores, w)
	}
	for _, s := range p.Sources {
		m.Peers++
		if d.sources[s.Peer] {
			m.RelayedBytes += s.Bytes
		}
	}
	if d.first.IsZero() {
		if m.Bytes > 0 { // all of it came between two samples
			m.First, m.Took = p.First, max(p.Elapsed-p.First, time.Microsecond)
			m.Rate = float64(m.Bytes) / m.Took.Seconds()
		}
		return m
	}
	m.First, m.Took = d.first.Sub(d.start), max(d.last.Sub(d.first), diagnoseSample)
	if d.samples == 0 {
		return m
	}
	m.Load, m.Rate = d.end.Minus(d.begin), float64(d.gotTo-d.got)/m.Took.Seconds()
	if d.cpu != nil {
		m.CPU = float64(d.cpuTo-d.cpuAt) / float64(m.Took) / float64(runtime.GOMAXPROCS(0))
	}
	share := func(n int) float64 { return float64(n) / float64(d.samples) }
	m.Behind, m.Full, m.Limited, m.Idle = share(d.behind), share(d.full), share(d.limited), share(d.idle)
	m.Waiting, m.Window = d.waiting/float64(d.samples), d.window/float64(d.samples)
	if m.RTT = d.trip(p); m.RTT == 0 && d.rtts > 0 {
		m.RTT = time.Duration(d.rtt / d.rtts)
	}
	return m
}
