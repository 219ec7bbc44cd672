package find

import (
	"cmp"
	"container/heap"
	"hash/fnv"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// ScheduleConfig says how often a [Schedule] repeats. The zero value works.
type ScheduleConfig struct {
	// Every is how long after an announcement it is repeated at the latest. If zero, 12 hours. It is repeated earlier where
	// records are kept for less than 1.5 times as long.
	Every time.Duration
	// Gap is between two announcements when there are many at once, so that a start does not flood anybody. If zero, 100 ms.
	Gap time.Duration
	// Retry is how long after a failure it is tried again, doubled with each one more up to RetryMost. If zero, one minute and
	// an hour.
	Retry, RetryMost time.Duration
	// AtOnce is how many announcements are under way at a time. If zero, 3.
	AtOnce int
}

// Schedule says which roots are announced when: each soon after it is added, then again before its record is forgotten, at
// times that spread the roots out. It is not safe for concurrent use.
type Schedule struct {
	cfg   ScheduleConfig
	items map[string]*item
	due   dueHeap // all but those under way
	busy  int
	slot  time.Duration // when the next root that is added is due
}

// item is one root.
type item struct {
	c     cid.Cid
	at    time.Duration
	fails int
	heap  int // index in due, or -1 while it is under way
}

// NewSchedule returns a Schedule of nothing.
func NewSchedule(cfg ScheduleConfig) *Schedule {
	cfg.Every = cmp.Or(cfg.Every, 12*time.Hour)
	cfg.Gap = cmp.Or(cfg.Gap, 100*time.Millisecond)
	cfg.Retry = cmp.Or(cfg.Retry, time.Minute)
	cfg.RetryMost = cmp.Or(cfg.RetryMost, time.Hour)
	cfg.AtOnce = cmp.Or(cfg.AtOnce, 3)
	return &Schedule{cfg: cfg, items: make(map[string]*item)}
}

// Add has a root announced from now on. It reports false when it is already.
func (s *Schedule) Add(now time.Duration, c cid.Cid) bool {
	key := dray.HashKey(c)
	if s.items[key] != nil {
		return false
	}
	s.slot = max(s.slot, now)
	x := &item{c: c, at: s.slot}
	s.slot += s.cfg.Gap
	s.items[key] = x
	heap.Push(&s.due, x)
	return true
}

// Remove ends the announcements of a root. Records of it that there are expire.
func (s *Schedule) Remove(c cid.Cid) {
	key := dray.HashKey(c)
	x := s.items[key]
	if x == nil {
		return
	}
	delete(s.items, key)
	if x.heap >= 0 {
		heap.Remove(&s.due, x.heap)
	} else {
		s.busy-- // whatever comes of it is not waited for
	}
}

// Len returns how many roots are announced.
func (s *Schedule) Len() int { return len(s.items) }

// Take returns a root to announce now, which [Schedule.Done] or [Schedule.Failed] must follow, or ok false.
func (s *Schedule) Take(now time.Duration) (c cid.Cid, ok bool) {
	if s.busy >= s.cfg.AtOnce || len(s.due) == 0 || s.due[0].at > now {
		return cid.Undef, false
	}
	x := heap.Pop(&s.due).(*item)
	s.busy++
	return x.c, true
}

// Done says that a root is announced, and for how long others keep the record: zero if that is not known.
func (s *Schedule) Done(now time.Duration, c cid.Cid, kept time.Duration) {
	every := s.cfg.Every
	if kept > 0 {
		every = min(every, kept*2/3)
	}
	// Up to a fifth earlier, each root by a share of its own, so that roots that were due together part.
	h := fnv.New32a()
	h.Write([]byte(dray.HashKey(c)))
	s.again(c, now+every-every/5*time.Duration(h.Sum32()%1000)/1000, true)
}

// Failed says that a root could not be announced.
func (s *Schedule) Failed(now time.Duration, c cid.Cid) {
	if x := s.items[dray.HashKey(c)]; x != nil {
		s.again(c, now+doubled(s.cfg.Retry, x.fails, s.cfg.RetryMost), false)
	}
}

func (s *Schedule) again(c cid.Cid, at time.Duration, well bool) {
	x := s.items[dray.HashKey(c)]
	if x == nil || x.heap >= 0 {
		return // it was removed meanwhile, and perhaps added anew
	}
	s.busy--
	x.at = at
	if x.fails++; well {
		x.fails = 0
	}
	heap.Push(&s.due, x)
}

// Wake returns when Take may have something again if nothing happens until then, or ok false.
func (s *Schedule) Wake() (at time.Duration, ok bool) {
	if s.busy >= s.cfg.AtOnce || len(s.due) == 0 {
		return 0, false
	}
	return s.due[0].at, true
}

// dueHeap orders items by when they are due.
type dueHeap []*item

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, k int) bool { return h[i].at < h[k].at }
func (h dueHeap) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].heap, h[k].heap = i, k
}

// Push implements [heap.Interface].
func (h *dueHeap) Push(x any) {
	x.(*item).heap = len(*h)
	*h = append(*h, x.(*item))
}

// Pop implements [heap.Interface].
func (h *dueHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	x.heap = -1
	return x
}
