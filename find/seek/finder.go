package seek

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/find"
	"dray/transport"
)

// Named is a finder among others.
type Named struct {
	// Name is what people call it, such as the URL of a router.
	Name string
	// Source is what its findings count as.
	Source find.Source
	// Finder looks.
	Finder transport.Finder
	// After is how long after the beginning of a search it begins at the latest, see [find.SearchConfig].
	After time.Duration
	// TTL is how long its findings are remembered. If zero, as long as the table says.
	TTL time.Duration
}

// Config says how a [Finder] looks. Only Finders is required.
type Config struct {
	// Self is this host, which is never found.
	Self dray.PeerID
	// Finders are asked, in order of cost. What is remembered comes before all of them.
	Finders []Named
	// Table bounds what is remembered.
	Table find.Config
	// Enough, Parallel and Most bound a search, see [find.SearchConfig].
	Enough, Parallel int
	Most             time.Duration
	// Flights is how many searches go on at a time; one more waits. If zero, 16.
	Flights int
	// Log receives what an operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

// Sighting is a provider that a search has found.
type Sighting struct {
	// Provider is who. Its Addrs must not be changed.
	find.Provider
	// By names the finder, or "memory" for what was known before.
	By string
	// After is how long the search had taken.
	After time.Duration
}

// Memory is the name of what was known before, in [Sighting.By].
const Memory = "memory"

// Finder asks several finders and remembers what they say. It is a [transport.Finder] and a [transport.Judge]. It is safe for
// concurrent use.
type Finder struct {
	cfg   Config
	start time.Time
	room  chan struct{} // a slot for each flight
	ctx   context.Context
	end   context.CancelFunc
	wg    sync.WaitGroup // the flights

	mu      sync.Mutex // guards what follows
	table   *find.Table
	flights map[string]*flight
	closed  bool
}

// New returns a Finder, which the caller closes.
func New(cfg Config) *Finder {
	if cfg.Flights <= 0 {
		cfg.Flights = 16
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Finder{
		cfg: cfg, start: time.Now(), room: make(chan struct{}, cfg.Flights), table: find.New(cfg.Table),
		flights: make(map[string]*flight),
	}
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

// Close ends every search and returns when none runs. The finders stay open.
func (f *Finder) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.end()
	f.wg.Wait()
	return nil
}

func (f *Finder) now() time.Duration { return time.Since(f.start) }

// Find implements [transport.Finder]. It returns at once when everybody was asked in vain a moment ago. Who is on probation is
// found only when nobody else is.
func (f *Finder) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	f.mu.Lock()
	_, vain := f.table.Missing(f.now(), c)
	f.mu.Unlock()
	if vain {
		return nil
	}
	return f.Search(ctx, c, func(s Sighting) { found(transport.Peer{ID: s.ID, Addrs: s.Addrs}) })
}

// Search is Find, also if everybody was asked a moment ago, and tells more. Each is called on the caller's goroutine.
func (f *Finder) Search(ctx context.Context, c cid.Cid, each func(Sighting)) error {
	if err := dray.CheckCID(c); err != nil {
		return err
	}
	x, err := f.board(c)
	if err != nil {
		return err
	}
	defer f.leave(x)
	for i := 0; ; {
		f.mu.Lock()
		list, over, news := x.seen[i:], x.over, x.news
		f.mu.Unlock()
		for _, s := range list {
			each(s)
		}
		if i += len(list); over {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Learn notes that a peer is said to hold c, for ttl or, if that is zero, as long as the table says.
func (f *Finder) Learn(c cid.Cid, p find.Provider, ttl time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.ID != f.cfg.Self && f.table.Learn(f.now(), c, p, ttl) {
		f.table.Changed()
	}
}

// Neighbour notes that a peer is on the local network, for ttl, and reports whether that is news.
func (f *Finder) Neighbour(p transport.Peer, ttl time.Duration) (fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.ID != f.cfg.Self && f.table.LearnAround(f.now(), find.Provider{ID: p.ID, Addrs: p.Addrs}, ttl) {
		f.table.Changed()
		return true
	}
	return false
}

// Neighbours returns the peers of the local network, the most promising first.
func (f *Finder) Neighbours() []find.Provider {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.Around(f.now())
}

// Providers returns who is said to hold c, as far as is remembered, the most promising first.
func (f *Finder) Providers(c cid.Cid) []find.Provider {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.Providers(f.now(), c)
}

// Addrs returns where a peer may be, as far as is remembered.
func (f *Finder) Addrs(id dray.PeerID) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.Addrs(id)
}

// Size returns how much is remembered.
func (f *Finder) Size() find.Size {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.Size()
}

// Reached implements [transport.Judge].
func (f *Finder) Reached(p dray.PeerID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.table.Failed(f.now(), p)
	} else {
		f.table.Reached(f.now(), p)
	}
}

// Held implements [transport.Judge].
func (f *Finder) Held(c cid.Cid, p dray.PeerID, has bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if has {
		f.table.Has(f.now(), c, p)
	} else {
		f.table.Lacks(f.now(), c, p)
	}
}
