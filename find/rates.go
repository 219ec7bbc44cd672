package find

import (
	"cmp"
	"container/list"
	"time"

	"dray"
)

// RateConfig says how much a peer may ask for, or have believed. The zero value works.
type RateConfig struct {
	// Burst is how much at once. If zero, 32.
	Burst int
	// Every is how long it takes until it may be one more. If zero, a second.
	Every time.Duration
	// Peers is how many are told apart; of those beyond, the one that was seen least recently begins anew. If zero, 1,024.
	Peers int
}

// Rates counts for each of many peers what it asks for. It is not safe for concurrent use.
type Rates struct {
	cfg   RateConfig
	peers map[dray.PeerID]*list.Element // of *purse
	order *list.List                    // the latest in front
}

// purse is what one peer has left.
type purse struct {
	id   dray.PeerID
	left float64
	at   time.Duration
}

// NewRates returns Rates with every peer's burst unspent.
func NewRates(cfg RateConfig) *Rates {
	cfg.Burst = cmp.Or(cfg.Burst, 32)
	cfg.Every = cmp.Or(cfg.Every, time.Second)
	cfg.Peers = cmp.Or(cfg.Peers, 1024)
	return &Rates{cfg: cfg, peers: make(map[dray.PeerID]*list.Element), order: list.New()}
}

// Take returns how many of n the peer may have now, and counts them.
func (r *Rates) Take(now time.Duration, id dray.PeerID, n int) int {
	p := r.purse(now, id)
	got := max(min(n, int(p.left)), 0)
	p.left -= float64(got)
	return got
}

// Give gives back n that the peer had: they turned out to be worth it.
func (r *Rates) Give(now time.Duration, id dray.PeerID, n int) {
	p := r.purse(now, id)
	p.left = min(p.left+float64(n), float64(r.cfg.Burst))
}

func (r *Rates) purse(now time.Duration, id dray.PeerID) *purse {
	e := r.peers[id]
	if e == nil {
		for r.order.Len() >= r.cfg.Peers {
			delete(r.peers, r.order.Remove(r.order.Back()).(*purse).id)
		}
		e = r.order.PushFront(&purse{id: id, left: float64(r.cfg.Burst), at: now})
		r.peers[id] = e
	}
	r.order.MoveToFront(e)
	p := e.Value.(*purse)
	if now > p.at {
		p.left = min(p.left+float64(now-p.at)/float64(r.cfg.Every), float64(r.cfg.Burst))
		p.at = now
	}
	return p
}
