package tensor

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

var policies = []Policy{FIFO, EDF, SJF, WFQ, MLFQ}

func scheduler(t testing.TB, p Policy, c SchedulerConfig) Scheduler {
	t.Helper()
	s, err := NewScheduler(p, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// naive is what a policy means, by looking at everything each time: scores are worked out anew at every Pop, with the
// time of then.
type naive struct {
	policy Policy
	c      SchedulerConfig
	jobs   []naiveJob
	// WFQ
	virtual int64
	ends    map[uint64]int64
	// MLFQ
	flows map[uint64]*naiveFlow
	turns int
	boost time.Duration
}

type naiveJob struct {
	Job
	arrived time.Duration
	virtual int64
}

type naiveFlow struct {
	level, turn int
	used        int64
}

func newNaive(p Policy, c SchedulerConfig) *naive {
	return &naive{policy: p, c: c.withDefaults(), ends: make(map[uint64]int64), flows: make(map[uint64]*naiveFlow)}
}

func (m *naive) count(flow uint64) int {
	n := 0
	for _, j := range m.jobs {
		if j.Flow == flow {
			n++
		}
	}
	return n
}

func (m *naive) push(j Job, now time.Duration) bool {
	m.tick(now)
	if len(m.jobs) >= m.c.Limit || slices.ContainsFunc(m.jobs, func(k naiveJob) bool { return k.ID == j.ID }) {
		return false
	}
	if m.flows[j.Flow] == nil {
		m.flows[j.Flow] = &naiveFlow{}
	}
	if m.count(j.Flow) == 0 {
		m.turns++
		m.flows[j.Flow].turn = m.turns
	}
	m.jobs = append(m.jobs, naiveJob{j, now, m.virtual})
	return true
}

func (m *naive) tick(now time.Duration) {
	if m.policy != MLFQ || now-m.boost < m.c.Boost {
		return
	}
	m.boost = now
	var ids []uint64
	for id := range m.flows {
		if m.count(id) == 0 {
			delete(m.flows, id)
			continue
		}
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(m.flows[a].level, m.flows[b].level), cmp.Compare(m.flows[a].turn, m.flows[b].turn))
	})
	for _, id := range ids {
		m.turns++
		*m.flows[id] = naiveFlow{turn: m.turns}
	}
}

// first returns the index of the first job of each flow.
func (m *naive) first() map[uint64]int {
	first := make(map[uint64]int)
	for i, j := range m.jobs {
		if _, ok := first[j.Flow]; !ok {
			first[j.Flow] = i
		}
	}
	return first
}

// score says how late a job is served: lower is sooner.
func (m *naive) score(i int, now time.Duration) int64 {
	j := m.jobs[i]
	switch m.policy {
	case EDF:
		if j.Deadline == 0 {
			return int64(j.arrived + m.c.Patience)
		}
		return int64(max(j.Deadline, j.arrived))
	case SJF:
		// Tests use whole seconds, so this is exact.
		return m.c.size(j.Job) - int64((now-j.arrived)/time.Second)*m.c.Aging
	case WFQ:
		if m.first()[j.Flow] != i {
			return 1 << 62
		}
		return max(j.virtual, m.ends[j.Flow])
	case MLFQ:
		if m.first()[j.Flow] != i {
			return 1 << 62
		}
		f := m.flows[j.Flow]
		return int64(f.level)<<32 + int64(f.turn)
	}
	return 0
}

func (m *naive) pop(now time.Duration) (Job, bool) {
	m.tick(now)
	if len(m.jobs) == 0 {
		return Job{}, false
	}
	best := 0
	for i := range m.jobs {
		if m.score(i, now) < m.score(best, now) {
			best = i
		}
	}
	j := m.jobs[best].Job
	if m.policy == WFQ {
		m.virtual = m.score(best, now)
		m.ends[j.Flow] = m.virtual + cost(m.c.size(j), j.Weight)
	}
	m.drop(best)
	if f := m.flows[j.Flow]; m.policy == MLFQ {
		f.used += m.c.size(j)
		if f.used >= m.c.Allotment<<f.level && f.level < m.c.Levels-1 {
			*f = naiveFlow{level: f.level + 1}
		}
		m.turns++
		f.turn = m.turns
	}
	return j, true
}

func (m *naive) drop(i int) {
	m.jobs = slices.Delete(m.jobs, i, i+1)
	if len(m.jobs) == 0 {
		for _, e := range m.ends {
			m.virtual = max(m.virtual, e)
		}
		clear(m.ends)
	}
}

func (m *naive) remove(id uint64) bool {
	i := slices.IndexFunc(m.jobs, func(j naiveJob) bool { return j.ID == id })
	if i < 0 {
		return false
	}
	m.drop(i)
	return true
}

// Every policy does, step by step, what its naive model does.
func TestSchedulersAgainstModels(t *testing.T) {
	for _, p := range policies {
		t.Run(string(p), func(t *testing.T) {
			for seed := range uint64(60) {
				rng := rand.New(rand.NewPCG(seed, 13))
				c := SchedulerConfig{Limit: 30, Patience: 20 * time.Second, Aging: 7, UnknownSize: 50, Levels: 3, Allotment: 60, Boost: 15 * time.Second}
				s, m := scheduler(t, p, c), newNaive(p, c)
				now := time.Duration(0)
				for step := range 300 {
					now += time.Duration(rng.IntN(3)) * time.Second
					switch k := rng.IntN(10); {
					case k < 5:
						j := Job{ID: rng.Uint64N(60), Flow: rng.Uint64N(4), Size: rng.Int64N(100) - 5, Weight: rng.Int64N(4)}
						if rng.IntN(3) > 0 {
							j.Deadline = now + time.Duration(rng.IntN(40)-10)*time.Second
						}
						if got, want := s.Push(j, now), m.push(j, now); got != want {
							t.Fatalf("seed %d step %d: push %+v %v, want %v", seed, step, j, got, want)
						}
					case k < 9:
						got, ok := s.Pop(now)
						want, wok := m.pop(now)
						if ok != wok || got != want {
							t.Fatalf("seed %d step %d: pop %+v %v, want %+v %v", seed, step, got, ok, want, wok)
						}
					default:
						id := rng.Uint64N(60)
						if got, want := s.Remove(id), m.remove(id); got != want {
							t.Fatalf("seed %d step %d: remove %d %v", seed, step, id, got)
						}
					}
					if s.Len() != len(m.jobs) {
						t.Fatalf("seed %d step %d: %d jobs, want %d", seed, step, s.Len(), len(m.jobs))
					}
				}
			}
		})
	}
	if _, err := NewScheduler("lottery", SchedulerConfig{}); err == nil {
		t.Error("an unknown policy")
	}
}

// A job is served before long though others, ever so urgent, keep arriving: two for each one served. Under the
// policies with flows, its flow has used up its share before, and under MLFQ every other job is of a fresh flow at
// the top.
func TestNoStarvation(t *testing.T) {
	// How many others may go first: by patience, by size over aging, by the debt over the rate of the others, by the
	// boost; and in all cases as many again, which had arrived by then.
	bound := map[Policy]int{FIFO: 0, EDF: 410, SJF: 410, WFQ: 1700, MLFQ: 410}
	for _, p := range policies {
		s := scheduler(t, p, SchedulerConfig{Patience: 10 * time.Second, Aging: 10, Allotment: 20, Boost: 10 * time.Second, Levels: 4})
		now := time.Duration(0)
		s.Push(Job{ID: 0, Flow: 1, Size: 100}, now)
		s.Push(Job{ID: 1, Flow: 1, Size: 100}, now)
		if j, ok := s.Pop(now); !ok || j.ID != 0 {
			t.Fatalf("%s: %+v", p, j)
		}
		served := 0
		for id := uint64(2); ; id += 2 {
			for k := range uint64(2) {
				// Tiny, urgent and, under WFQ, from one heavy flow.
				j := Job{ID: id + k, Flow: 2, Size: 1, Deadline: now + 1, Weight: 16}
				if p == MLFQ {
					j.Flow = j.ID
				}
				s.Push(j, now)
			}
			now += 50 * time.Millisecond
			j, ok := s.Pop(now)
			if !ok || j.ID == 1 {
				break
			}
			if served++; served > bound[p] {
				t.Errorf("%s: not served after %d others", p, served)
				break
			}
		}
		if served < bound[p]/2 {
			t.Errorf("%s: served after %d others: the test does not press", p, served)
		}
		t.Logf("%s: %d others went first", p, served)
	}
}

// Among all orders of jobs that are there from the start, EDF's has the least greatest lateness, and misses no
// deadline if any order misses none (Jackson's rule).
func TestEDFOptimal(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	feasible := 0
	misses := make(map[Policy]int)
	for range 300 {
		n := 2 + rng.IntN(5)
		jobs := make([]Job, n)
		for i := range jobs {
			jobs[i] = Job{ID: uint64(i), Flow: uint64(i % 2), Size: 1 + rng.Int64N(10)}
			jobs[i].Deadline = time.Duration(1 + rng.Int64N(int64(6*n)))
		}
		best := 1 << 30
		permute(jobs, func(order []Job) { best = min(best, lateness(order)) })
		for _, p := range policies {
			s := scheduler(t, p, SchedulerConfig{})
			for _, j := range jobs {
				s.Push(j, 0)
			}
			var order []Job
			for j, ok := s.Pop(0); ok; j, ok = s.Pop(0) {
				order = append(order, j)
			}
			got := lateness(order)
			if got < best || p == EDF && got != best {
				t.Fatalf("%s: lateness %d, best %d of %+v", p, got, best, jobs)
			}
			if got > 0 && best <= 0 {
				misses[p]++
			}
		}
		if best <= 0 {
			feasible++
		}
	}
	if feasible < 30 || misses[EDF] != 0 || misses[FIFO] == 0 || misses[SJF] == 0 {
		t.Errorf("of %d feasible sets, missed: %v", feasible, misses)
	}
	t.Logf("of %d feasible sets, missed: %v", feasible, misses)
}

// lateness is by how much the latest job misses its deadline, when a byte takes a unit of time.
func lateness(order []Job) int {
	at, worst := int64(0), -1<<30
	for _, j := range order {
		at += j.Size
		worst = max(worst, int(at-int64(j.Deadline)))
	}
	return worst
}

func permute(jobs []Job, f func([]Job)) {
	var rec func(k int)
	rec = func(k int) {
		if k == len(jobs) {
			f(jobs)
			return
		}
		for i := k; i < len(jobs); i++ {
			jobs[k], jobs[i] = jobs[i], jobs[k]
			rec(k + 1)
			jobs[k], jobs[i] = jobs[i], jobs[k]
		}
	}
	rec(0)
}

// While flows are busy, work per weight differs by no more than one job of each: the bound of start-time fair queueing.
func TestWFQFair(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 20))
	for range 50 {
		s := scheduler(t, WFQ, SchedulerConfig{})
		const flows, each = 4, 200
		var weight, work, longest [flows]int64
		for f := range weight {
			weight[f] = 1 + rng.Int64N(8)
		}
		left := [flows]int{}
		for i := range flows * each {
			f := i % flows
			size := 1 + rng.Int64N(1000)
			longest[f] = max(longest[f], size)
			s.Push(Job{ID: uint64(i), Flow: uint64(f), Size: size, Weight: weight[f]}, 0)
			left[f]++
		}
		for {
			j, _ := s.Pop(0)
			work[j.Flow] += j.Size
			if left[j.Flow]--; left[j.Flow] == 0 {
				break
			}
			for a := range flows {
				for b := range flows {
					diff := work[a]*1000/weight[a] - work[b]*1000/weight[b]
					if most := longest[a]*1000/weight[a] + longest[b]*1000/weight[b] + 1000; diff > most {
						t.Fatalf("flows %d and %d by weight %v: work %v", a, b, weight, work)
					}
				}
			}
		}
	}
}

// An MLFQ flow that uses much sinks and is overtaken; after a boost it is not.
func TestMLFQLevels(t *testing.T) {
	s := scheduler(t, MLFQ, SchedulerConfig{Levels: 2, Allotment: 100, Boost: time.Second})
	for i := range uint64(5) {
		s.Push(Job{ID: i, Flow: 1, Size: 60}, 0)
	}
	var got []uint64
	pop := func(now time.Duration) {
		j, _ := s.Pop(now)
		got = append(got, j.ID)
	}
	pop(0)
	pop(0) // 120 bytes: flow 1 sinks.
	s.Push(Job{ID: 10, Flow: 2, Size: 1}, 0)
	s.Push(Job{ID: 11, Flow: 2, Size: 1}, 0)
	pop(0)
	pop(0)
	s.Push(Job{ID: 12, Flow: 2, Size: 1}, 0)
	s.Push(Job{ID: 13, Flow: 2, Size: 1}, 0)
	pop(2 * time.Second) // Boosted: the flows take turns, the upper level first.
	pop(2 * time.Second)
	pop(2 * time.Second)
	if fmt.Sprint(got) != "[0 1 10 11 12 2 13]" {
		t.Errorf("order %v", got)
	}
}

// Flows that come and go leave nothing behind.
func TestFlowsBounded(t *testing.T) {
	for _, p := range []Policy{WFQ, MLFQ} {
		s := scheduler(t, p, SchedulerConfig{Limit: 4, Boost: 1 << 60})
		s.Push(Job{ID: 1, Flow: 1, Size: 1}, 0)
		for i := range uint64(1000) {
			s.Push(Job{ID: i + 2, Flow: i + 2, Size: maxSize}, 0)
			if s.Len() == 4 {
				s.Pop(0)
			}
		}
		n := 0
		switch q := s.(type) {
		case *fairQueue:
			n = len(q.flows)
		case *feedback:
			n = len(q.flows)
		}
		if n > 9 {
			t.Errorf("%s remembers %d flows", p, n)
		}
	}
}

func TestValve(t *testing.T) {
	v, err := NewValve(Marks{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 47 {
		if !v.Take(1) || !v.Open() {
			t.Fatalf("closed after %d", i+1)
		}
	}
	v.Take(1)
	if v.Open() {
		t.Error("open at 48 pieces")
	}
	for v.Load().Count > 17 {
		v.Give(1)
		if v.Open() {
			t.Fatalf("open again at %d", v.Load().Count)
		}
	}
	v.Give(1)
	if !v.Open() {
		t.Error("closed at 16")
	}
	for _, bad := range []Marks{
		{Resume: Load{64 << 20, 0}}, {Resume: Load{0, 48}}, {Refuse: Load{1, 0}}, {Refuse: Load{0, 1}}, {Resume: Load{-1, 0}}, {Pause: Load{-1, 0}},
	} {
		if _, err := NewValve(bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
	for name, f := range map[string]func(*Valve){
		"negative": func(v *Valve) { v.Take(-1) },
		"more":     func(v *Valve) { v.Take(1); v.Give(2) },
		"nothing":  func(v *Valve) { v.Give(0) },
		"rest":     func(v *Valve) { v.Take(2); v.Give(1) },
	} {
		v, _ := NewValve(Marks{})
		if !panics(func() { f(v) }) {
			t.Errorf("%s: no panic", name)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// A valve's load is what was taken and not given, never beyond the mark; it turns only at its marks; and nothing done
// to one valve is seen by another.
func TestValveProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	for range 100 {
		m := Marks{Resume: Load{1 + rng.Int64N(20), 1 + rng.IntN(4)}}
		m.Pause = Load{m.Resume.Bytes + 1 + rng.Int64N(50), m.Resume.Count + 1 + rng.IntN(5)}
		m.Refuse = Load{m.Pause.Bytes + rng.Int64N(30), m.Pause.Count + rng.IntN(4)}
		var valves [2]*Valve // Sending and receiving.
		var pieces [2][]int64
		for i := range valves {
			valves[i], _ = NewValve(m)
		}
		for range 400 {
			i := rng.IntN(2)
			v, other := valves[i], *valves[1-i]
			was, load := v.Open(), v.Load()
			if n := rng.Int64N(40); rng.IntN(2) == 0 {
				fits := load.Count == 0 || load.Count < m.Refuse.Count && load.Bytes+n <= m.Refuse.Bytes
				if v.Take(n) != fits {
					t.Fatalf("take %d of %+v: %v", n, load, !fits)
				}
				if fits {
					pieces[i] = append(pieces[i], n)
				}
			} else if k := len(pieces[i]); k > 0 {
				k = rng.IntN(k)
				v.Give(pieces[i][k])
				pieces[i] = slices.Delete(pieces[i], k, k+1)
			}
			want := Load{Count: len(pieces[i])}
			for _, n := range pieces[i] {
				want.Bytes += n
			}
			if v.Load() != want || *valves[1-i] != other {
				t.Fatalf("load %+v, want %+v", v.Load(), want)
			}
			high := want.Bytes >= m.Pause.Bytes || want.Count >= m.Pause.Count
			low := want.Bytes <= m.Resume.Bytes && want.Count <= m.Resume.Count
			if high && v.Open() || low && !v.Open() || !high && !low && v.Open() != was {
				t.Fatalf("open %v, was %v, at %+v of %+v", v.Open(), was, want, m)
			}
		}
	}
}

// Ranges are complete when their last leaf arrives, each once, in whatever order and however often leaves come.
func TestArrivals(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	for range 300 {
		m := dray.NewManifest(cid.Undef, 0)
		for range rng.IntN(20) {
			m.Append(cid.Undef, rng.Int64N(5)) // All with the same CID, some without content.
		}
		var ranges []Range
		for at := int64(0); at < m.Size(); {
			b := at + rng.Int64N(3)
			e := min(b+rng.Int64N(7), m.Size())
			if b > e {
				break
			}
			ranges = append(ranges, Range{b, e})
			at = e + rng.Int64N(2)
		}
		a, err := NewArrivals(m, ranges)
		if err != nil {
			t.Fatal(err)
		}
		done := make(map[int]bool)
		for _, i := range a.Empty() {
			done[i] = true
		}
		var have RangeSet
		order := rng.Perm(m.Len())
		for _, leaf := range append(order, order...) {
			off, n := m.Extent(leaf)
			have.Add(Range{off, off + n})
			for _, i := range a.Mark(nil, leaf) {
				if done[i] {
					t.Fatalf("range %d is complete twice", i)
				}
				done[i] = true
			}
			for i, r := range ranges {
				if done[i] != have.Contains(r) {
					t.Fatalf("range %d %v: complete %v with %v", i, r, done[i], have.String())
				}
			}
			if a.Done() != len(done) {
				t.Fatalf("%d done, want %d", a.Done(), len(done))
			}
		}
	}
	m := dray.NewManifest(cid.Undef, 0)
	m.Append(cid.Undef, 10)
	for _, bad := range [][]Range{{{0, 11}}, {{5, 3}}, {{0, 5}, {4, 6}}, {{-1, 2}}} {
		if _, err := NewArrivals(m, bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

func BenchmarkSchedulers(b *testing.B) {
	for _, p := range policies {
		b.Run(string(p), func(b *testing.B) {
			s := scheduler(b, p, SchedulerConfig{})
			id := uint64(0)
			push := func() {
				id++
				s.Push(Job{ID: id, Flow: id % 64, Size: int64(id*2654435761%1000 + 1), Deadline: time.Duration(id*2654435761%1000 + 1)}, 0)
			}
			for range 10_000 {
				push()
			}
			b.ReportAllocs()
			for b.Loop() {
				push()
				s.Pop(0)
			}
		})
	}
}
