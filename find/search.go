package find

import (
	"cmp"
	"time"

	"dray"
)

// SearchConfig says how several finders are asked one question. After must not be empty.
type SearchConfig struct {
	// After says of each finder, cheap ones first, how long after the beginning it begins at the latest, if not enough was found
	// by then. It begins earlier when all before it have ended and were not enough.
	After []time.Duration
	// Enough is how many providers are. If zero, 5.
	Enough int
	// Parallel is how many finders are at work at a time; one that is due begins when another ends. If zero, 3.
	Parallel int
	// Most is how long a search takes at most. If zero, 30 seconds.
	Most time.Duration
}

// Search decides when the finders of one search begin and when it is over. It is not safe for concurrent use.
type Search struct {
	cfg     SearchConfig
	began   time.Duration
	next    int // the first finder that has not begun
	running int
	found   map[dray.PeerID]bool // whether it is worth trying
	enough  int                  // of them
}

// NewSearch begins a search.
func NewSearch(now time.Duration, cfg SearchConfig) *Search {
	cfg.Enough = cmp.Or(cfg.Enough, 5)
	cfg.Parallel = cmp.Or(cfg.Parallel, 3)
	cfg.Most = cmp.Or(cfg.Most, 30*time.Second)
	return &Search{cfg: cfg, began: now, found: make(map[dray.PeerID]bool)}
}

// Start returns the finders that begin now, by their index, which is none once the search is over.
func (s *Search) Start(now time.Duration) (begin []int) {
	for !s.Over(now) && s.next < len(s.cfg.After) && s.running < s.cfg.Parallel {
		if now-s.began < s.cfg.After[s.next] && s.running > 0 {
			break
		}
		begin = append(begin, s.next)
		s.next++
		s.running++
	}
	return begin
}

// Found notes a provider; one that is not promising does not count towards what is enough. It reports whether the provider was
// not found before.
func (s *Search) Found(id dray.PeerID, promising bool) (fresh bool) {
	was, known := s.found[id]
	if promising && !was {
		s.enough++
	}
	s.found[id] = was || promising
	return !known
}

// Ended notes that a finder that has begun has no more to say.
func (s *Search) Ended() { s.running-- }

// Over reports whether nothing more is to be expected: enough is found, all finders have ended, or the time is up.
func (s *Search) Over(now time.Duration) bool {
	return s.enough >= s.cfg.Enough || now-s.began >= s.cfg.Most || s.running == 0 && s.next == len(s.cfg.After)
}

// Missed reports whether every finder has ended and nobody promising was found.
func (s *Search) Missed() bool { return s.enough == 0 && s.running == 0 && s.next == len(s.cfg.After) }

// Wake returns when Start or Over may say something else if nothing happens until then. It is not for a search that is over.
func (s *Search) Wake() time.Duration {
	at := s.began + s.cfg.Most
	if s.next < len(s.cfg.After) && s.running < s.cfg.Parallel {
		at = min(at, s.began+s.cfg.After[s.next])
	}
	return at
}
