package seek

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/find"
	"dray/transport"
)

// flight is one search, which all who look for the same CID share. It goes on while anybody waits for it.
type flight struct {
	c      cid.Cid
	cancel context.CancelFunc

	// Guarded by the Finder's mu.
	seen  []Sighting
	over  bool
	news  chan struct{} // closed, and another one made, when seen or over changes
	users int
}

// finding is what a finder says to its flight: a peer, or that it has ended.
type finding struct {
	by   int
	peer transport.Peer
	end  bool
	err  error
}

// board joins the flight for c, or begins one.
func (f *Finder) board(c cid.Cid) (*flight, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, &dray.Error{Op: "find", CID: c, Err: dray.ErrClosed}
	}
	key := dray.HashKey(c)
	x := f.flights[key]
	if x == nil {
		x = &flight{c: c, news: make(chan struct{})}
		var ctx context.Context
		ctx, x.cancel = context.WithCancel(f.ctx)
		f.flights[key] = x
		f.wg.Go(func() {
			f.fly(ctx, x)
			x.cancel()
			f.land(x)
		})
	}
	x.users++
	return x, nil
}

// leave ends a flight that nobody waits for any more.
func (f *Finder) leave(x *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.users--; x.users == 0 {
		x.cancel()
		f.unlist(x) // who comes now begins another
	}
}

func (f *Finder) unlist(x *flight) {
	if key := dray.HashKey(x.c); f.flights[key] == x {
		delete(f.flights, key)
	}
}

// land tells those who wait that there will be no more.
func (f *Finder) land(x *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlist(x)
	x.over = true
	close(x.news)
}

// see shows a provider to those who wait.
func (f *Finder) see(x *flight, list ...Sighting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x.seen = append(x.seen, list...)
	close(x.news)
	x.news = make(chan struct{})
}

// fly is a whole flight.
func (f *Finder) fly(ctx context.Context, x *flight) {
	select {
	case f.room <- struct{}{}:
		defer func() { <-f.room }()
	case <-ctx.Done():
		return
	}
	began := f.now()
	after := make([]time.Duration, len(f.cfg.Finders))
	for i := range after {
		after[i] = f.cfg.Finders[i].After
	}
	s := find.NewSearch(began, find.SearchConfig{After: after, Enough: f.cfg.Enough, Parallel: f.cfg.Parallel, Most: f.cfg.Most})
	var last []Sighting // who is on probation
	take := func(by string, p find.Provider) {
		if s.Found(p.ID, !p.Exhausted) {
			w := Sighting{Provider: p, By: by, After: f.now() - began}
			if p.Exhausted {
				last = append(last, w)
			} else {
				f.see(x, w)
			}
		}
	}
	for _, p := range f.Providers(x.c) {
		if take(Memory, p); s.Over(began) {
			break // it is enough
		}
	}

	said := make(chan finding)
	var wg sync.WaitGroup
	ask, stop := context.WithCancel(ctx)
	defer wg.Wait()
	defer stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for _, i := range s.Start(f.now()) {
			wg.Go(func() { f.ask(ask, x.c, i, said) })
		}
		if s.Over(f.now()) {
			break
		}
		timer.Reset(s.Wake() - f.now())
		select {
		case w := <-said:
			if w.end {
				s.Ended()
				if w.err != nil && ctx.Err() == nil {
					f.cfg.Log.Debug("a finder ended", "finder", f.cfg.Finders[w.by].Name, "cid", x.c, "err", w.err)
				}
				continue
			}
			if p, ok := f.learned(x.c, w); ok {
				take(f.cfg.Finders[w.by].Name, p)
			}
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
	if s.Missed() {
		f.mu.Lock()
		f.table.Missed(f.now(), x.c)
		f.mu.Unlock()
		f.see(x, last...)
	}
}

// learned remembers what a finder has said and returns all that is known of that provider.
func (f *Finder) learned(c cid.Cid, w finding) (find.Provider, bool) {
	if w.peer.ID == "" || w.peer.ID == f.cfg.Self {
		return find.Provider{}, false
	}
	by := &f.cfg.Finders[w.by]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table.Learn(f.now(), c, find.Provider{ID: w.peer.ID, Addrs: w.peer.Addrs, Source: by.Source}, by.TTL)
	for _, p := range f.table.Providers(f.now(), c) {
		if p.ID == w.peer.ID {
			p.Source = by.Source
			return p, true
		}
	}
	return find.Provider{}, false // there are enough that are better
}

// ask has one finder look, and passes on what it says.
func (f *Finder) ask(ctx context.Context, c cid.Cid, i int, said chan<- finding) {
	tell := func(w finding) {
		select {
		case said <- w:
		case <-ctx.Done():
		}
	}
	err := f.cfg.Finders[i].Finder.Find(ctx, c, func(p transport.Peer) { tell(finding{by: i, peer: p}) })
	tell(finding{by: i, end: true, err: err})
}
