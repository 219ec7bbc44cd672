package node

import (
	"time"

	"github.com/ipfs/go-cid"
)

// TrackConfig describes a transfer that is not the Node's own, such as a file that a door fetches from an upstream.
type TrackConfig struct {
	// Root is what it will be, if that is known.
	Root cid.Cid
	// Path is where it goes, or "".
	Path string
	// Origin says on whose behalf.
	Origin Origin
	// Total is how many bytes there will be; 0 if nobody knows.
	Total int64
}

// Tracked is a transfer that is not the Node's own and stands in its list. It is safe for concurrent use.
type Tracked struct {
	entry *docket
}

// Track enters a transfer in the list of [Node.Transfers]. It must be ended.
func (n *Node) Track(cfg TrackConfig) *Tracked {
	t := &Tracked{entry: n.transfers.begin(KindOutside, cfg.Root, cfg.Path, cfg.Origin)}
	p := &t.entry.t.Progress
	t.entry.mu.Lock()
	defer t.entry.mu.Unlock()
	p.Total, p.Walked = cfg.Total, cfg.Total > 0
	return t
}

// Came notes that so many bytes came from an origin, which is named for people: a host, not a URL with its secrets.
func (t *Tracked) Came(from string, bytes int64) {
	e, now := t.entry, time.Now()
	e.placed(-1, GiftOrigin, "", from, bytes)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.t.Progress.Done += bytes
	e.t.Progress.Fetched += bytes
	e.t.Progress.Elapsed, e.t.Moved = now.Sub(e.t.Began), now
	e.measure(now)
}

// End says that nothing more will come. Only the first call counts.
func (t *Tracked) End(err error) { t.entry.end(err) }
