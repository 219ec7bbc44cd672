package sim

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// shrinkRuns bounds how many scenarios Shrink plays.
const shrinkRuns = 6000

// Shrink returns the shortest Schedule that it finds which fails in the same way as s, and how many scenarios it played. Fails plays
// one and says how it fails, "" if it does not. Events, hosts, connections and blocks are left out, and what is left is made as plain as
// it can be; where a scenario depends on chance, a few seeds are tried.
func Shrink(s *Schedule, fails func(*Schedule) string) (shortest *Schedule, runs int) {
	k := &shrinker{best: s.clone(), fails: fails, how: fails(s)}
	if k.how == "" {
		return s, 1
	}
	for before := ""; before != k.best.String() && k.runs < shrinkRuns; {
		before = k.best.String()
		k.events()
		k.hosts()
		k.links()
		k.blocks()
		k.plain()
	}
	return k.best, k.runs
}

// Failure says how a scenario failed, without names, times and numbers, so that two failures of one kind are equal; "" for nil.
func Failure(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // a panic has its stack below
	text, _, _ = strings.Cut(text, " though ")
	text = particular.ReplaceAllString(text, "#")
	return strings.Join(strings.Fields(text), " ")
}

// particular are times, numbers, and names of hosts and blocks.
var particular = regexp.MustCompile(`\b[bdghrux]?[0-9][0-9a-zµ.]*`)

type shrinker struct {
	best  *Schedule
	fails func(*Schedule) string
	how   string
	runs  int
}

const shrinkSeeds = 3 // that are tried beside the Schedule's own

// try keeps a changed copy of the best Schedule if it fails in the same way.
func (k *shrinker) try(change func(s *Schedule)) bool {
	s := k.best.clone()
	change(s)
	if s.check() != nil {
		return false
	}
	seed := s.Seed
	for n := range uint64(1 + shrinkSeeds) {
		if k.runs++; k.runs > shrinkRuns {
			return false
		}
		s.Seed = seed
		if n > 0 {
			s.Seed = n
		}
		if k.fails(s) == k.how {
			k.best = s
			return true
		}
	}
	return false
}

// without leaves out parts of a list of n, large parts first.
func without(n int, drop func(from, to int) bool) {
	for size := n; size > 0; size /= 2 {
		for from := 0; from < n; {
			to := min(from+size, n)
			if drop(from, to) {
				n -= to - from
			} else {
				from = to
			}
		}
	}
}

func (k *shrinker) events() {
	without(len(k.best.Events), func(from, to int) bool {
		return k.try(func(s *Schedule) { s.Events = slices.Delete(s.Events, from, to) })
	})
}

func (k *shrinker) links() {
	without(len(k.best.Links), func(from, to int) bool {
		return k.try(func(s *Schedule) { s.Links = slices.Delete(s.Links, from, to) })
	})
}

func (k *shrinker) hosts() {
	without(len(k.best.Hosts), func(from, to int) bool {
		return k.try(func(s *Schedule) { s.dropHosts(from, to) })
	})
}

func (k *shrinker) blocks() {
	without(len(k.best.File), func(from, to int) bool {
		return k.try(func(s *Schedule) { s.dropBlocks(from, to) })
	})
}

// dropHosts leaves out hosts, their connections and what happens to them.
func (s *Schedule) dropHosts(from, to int) {
	gone := make(map[int]bool)
	for _, h := range s.Hosts[from:to] {
		gone[h.ID] = true
	}
	keep := func(list []int) []int {
		return slices.DeleteFunc(slices.Clone(list), func(id int) bool { return gone[id] })
	}
	s.Hosts = slices.Delete(s.Hosts, from, to)
	for i := range s.Hosts {
		s.Hosts[i].Fetch.Peers = keep(s.Hosts[i].Fetch.Peers)
	}
	s.Links = slices.DeleteFunc(s.Links, func(l Link) bool { return gone[l.A] || gone[l.B] })
	s.Events = slices.DeleteFunc(s.Events, func(e Event) bool { return gone[e.Host] || e.two() && gone[e.Peer] })
	for i := range s.Events {
		s.Events[i].Hosts, s.Events[i].Fetch.Peers = keep(s.Events[i].Hosts), keep(s.Events[i].Fetch.Peers)
	}
}

// two reports whether the event is about two hosts.
func (e *Event) two() bool { return e.Do == DoConnect || e.Do == DoCut }

// dropBlocks leaves out blocks of the file. Those behind them get new numbers.
func (s *Schedule) dropBlocks(from, to int) {
	keep := func(list []int) []int {
		var out []int
		for _, b := range list {
			switch {
			case b < from:
				out = append(out, b)
			case b >= to:
				out = append(out, b-(to-from))
			}
		}
		return out
	}
	s.File = slices.Delete(slices.Clone(s.File), from, to)
	s.Leaves = keep(s.Leaves)
	for i := range s.Hosts {
		h := &s.Hosts[i]
		h.Has, h.Fetch.Blocks = keep(h.Has), keep(h.Fetch.Blocks)
	}
	for i := range s.Events {
		e := &s.Events[i]
		e.Blocks, e.Fetch.Blocks = keep(e.Blocks), keep(e.Fetch.Blocks)
	}
}

// plain makes every part that is left as plain as it can be.
func (k *shrinker) plain() {
	k.simplify(func(s *Schedule) []field { return s.fields() })
	for i := range k.best.Hosts {
		k.simplify(func(s *Schedule) []field { return s.Hosts[i].fields() })
	}
	for i := range k.best.Events {
		k.simplify(func(s *Schedule) []field { return append(s.Events[i].fields(), field{"at", &s.Events[i].At}) })
	}
}

// simplify makes fields zero or, where that does not do, smaller and rounder.
func (k *shrinker) simplify(fields func(*Schedule) []field) {
	for i, f := range fields(k.best) {
		if f.zero() || f.key == "seed" || k.try(func(s *Schedule) { fields(s)[i].reset() }) {
			continue
		}
		for _, smaller := range smaller(f) {
			if k.try(func(s *Schedule) { smaller(fields(s)[i]) }) {
				break
			}
		}
	}
}

// smaller returns ways to make a field plainer, the plainest first.
func smaller(f field) (ways []func(field)) {
	switch v := f.v.(type) {
	case *time.Duration:
		for _, unit := range []time.Duration{time.Minute, time.Second, 100 * time.Millisecond, time.Millisecond} {
			if d := v.Truncate(unit); d > 0 && d < *v {
				ways = append(ways, func(f field) { *f.v.(*time.Duration) = d })
			}
		}
	case *int:
		if *v > 1 {
			half := *v / 2
			ways = append(ways, func(f field) { *f.v.(*int) = half })
		}
	case *float64:
		if *v != 1 && *v > 0 && *v < 1 {
			ways = append(ways, func(f field) { *f.v.(*float64) = 1 })
		}
	case *[]int:
		for i := range *v {
			ways = append(ways, func(f field) {
				list := f.v.(*[]int)
				*list = slices.Delete(slices.Clone(*list), i, i+1)
			})
		}
	}
	return ways
}
