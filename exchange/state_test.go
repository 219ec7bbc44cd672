package exchange

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"dray"
	"dray/wire"
)

// TestSessionEdges tries every edge of the session's machine, legal and not (A30).
func TestSessionEdges(t *testing.T) {
	legal := map[SessionState][]SessionState{
		SessionCreated: {SessionActive, SessionPaused, SessionCompleted, SessionCancelled, SessionTimedOut},
		SessionActive:  {SessionPaused, SessionCompleted, SessionCancelled, SessionTimedOut},
		SessionPaused:  {SessionActive, SessionCompleted, SessionCancelled, SessionTimedOut},
	}
	for from := SessionCreated; from <= SessionTimedOut; from++ {
		for to := SessionCreated; to <= SessionTimedOut; to++ {
			s := session{state: from}
			want := slices.Contains(legal[from], to)
			if got := s.to(to); got != want || (s.state == to) != (want || from == to) {
				t.Errorf("%v → %v: %v, want %v; now %v", from, to, got, want, s.state)
			}
		}
	}
	// What ended stays ended, by the methods that a driver has.
	for _, end := range []SessionState{SessionCompleted, SessionCancelled, SessionTimedOut} {
		e := New(Config{})
		id := e.OpenSession(1, SessionConfig{Deadline: time.Second})
		switch end {
		case SessionCompleted:
			e.Seal(1, id)
		case SessionCancelled:
			e.CancelSession(1, id)
		case SessionTimedOut:
			e.Advance(time.Second)
		}
		events := slices.Clone(e.Ready().Sessions)
		e.Want(2, id, testBlock(t, 1, 8).CID(), WantOptions{})
		if e.Pause(2, id) || e.Resume(2, id) {
			t.Errorf("a session that is %v is paused or resumed", end)
		}
		e.CancelSession(2, id)
		e.Seal(2, id)
		e.Advance(time.Minute)
		if events = append(events, e.Ready().Sessions...); len(events) != 1 || events[0].State != end {
			t.Errorf("events %+v, want one %v", events, end)
		}
		if len(e.wants) != 0 {
			t.Errorf("a session that is %v wants something", end)
		}
	}
}

// TestWantEdges tries every edge of the want's machine; the undefined ones panic (A31).
func TestWantEdges(t *testing.T) {
	legal := map[WantState][]WantState{
		Pending: {Waiting, Receiving, Cancelled}, Waiting: {Receiving, Failed, Cancelled},
		Receiving: {Done, Failed, Cancelled}, Failed: {Pending, Cancelled},
	}
	try := func(from, to WantState) (ok bool) {
		defer func() { ok = recover() == nil }()
		(&want{state: from}).to(to)
		return true
	}
	for from := Pending; from <= Cancelled; from++ {
		for to := Pending; to <= Cancelled; to++ {
			if got, want := try(from, to), slices.Contains(legal[from], to); got != want {
				t.Errorf("%v → %v: %v, want %v", from, to, got, want)
			}
		}
	}
}

// TestCoalesce is A33: ten thousand sessions get one CID with one want on the wire, and all are answered; so are as many
// whose leader leaves.
func TestCoalesce(t *testing.T) {
	const n = 10000
	r := newRig(t, 2, Config{})
	b := testBlock(t, 1, 100)
	open := make(map[SessionID]bool)
	asks := 0
	count := func(out *Ready) {
		for _, sd := range out.Sends {
			for _, w := range sd.Message.Wants {
				asks++
				if w.Cancel {
					t.Errorf("a cancel goes to %v", sd.Peer)
				}
			}
		}
	}
	var first SessionID
	for i := range n {
		id := r.e.OpenSession(r.now, SessionConfig{Peers: r.ids[:1]})
		r.e.Want(r.now, id, b.CID(), WantOptions{})
		r.e.Seal(r.now, id)
		open[id] = true
		if i == 0 {
			first = id
		}
		if i%1000 == 0 {
			count(r.ready())
		}
	}
	r.e.CancelSession(r.now, first)
	delete(open, first)
	count(r.ready())
	r.e.Receive(r.now, "p0", nil, []dray.Block{b})
	count(r.ready())
	r.e.Stored(r.now, b, nil)
	out := r.ready()
	for _, d := range out.Delivers {
		if !open[d.Session] || d.Err != nil {
			t.Fatalf("session %d is answered with %v", d.Session, d.Err)
		}
		delete(open, d.Session)
	}
	if asks != 1 || len(open) != 0 || len(out.Sessions) != n-1 {
		t.Errorf("%d wants on the wire, %d sessions without an answer, %d ends", asks, len(open), len(out.Sessions))
	}
}

// TestPriorityMemory is A29's trap: changing priorities a million times, and wanting and cancelling a million times beside
// one want that never ends, leaves the heap as big as it was; and so does a peer that cannot make up its mind.
func TestPriorityMemory(t *testing.T) {
	r := newRig(t, 2, Config{Window: 1})
	cids := make([]dray.Block, 1000)
	for i := range cids {
		cids[i] = testBlock(t, i, 8)
		r.e.Want(r.now, r.s, cids[i].CID(), WantOptions{Order: uint64(i)})
	}
	r.ready()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	rng := rand.New(rand.NewPCG(1, 1))
	msg := &wire.Message{Presences: make([]wire.Presence, 1)}
	for i := range 1_000_000 {
		c := cids[1+rng.IntN(len(cids)-1)].CID()
		opt := WantOptions{Class: Class(rng.IntN(2)), Deadline: r.now + time.Duration(rng.IntN(1e12)), Order: rng.Uint64()}
		if i%2 == 0 {
			r.e.Want(r.now, r.s, c, opt)
		} else {
			r.e.Cancel(r.now, r.s, c)
			r.e.Want(r.now, r.s, c, opt)
		}
		if i%16 == 0 {
			msg.Presences[0] = wire.Presence{CID: c, Have: i%32 == 0}
			r.e.Receive(r.now, "p1", msg, nil)
			r.ready()
		}
	}
	r.ready()
	if err := r.e.Check(); err != nil {
		t.Fatal(err)
	}
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	s := r.e.sessions[r.s]
	if n := len(s.log.entries); n > 4*len(cids) {
		t.Errorf("the log of %d wants has %d entries", len(cids), n)
	}
	runtime.KeepAlive(cids)
}

// TestLateBlock is A31's missing edge: a block that comes after its ask was given up is taken, whatever the want is doing.
func TestLateBlock(t *testing.T) {
	r := newRig(t, 2, Config{})
	b, from := r.next()
	for range 5 { // the first peer stalls, then the second
		r.now += 6 * time.Second
		r.e.Advance(r.now)
		r.ready()
	}
	r.deliver(b, from)
	if got := r.e.Totals(); got.Blocks != 1 || got.Duplicates != 0 || got.Uninvited != 0 || got.Stalls == 0 {
		t.Errorf("%+v", got)
	}
}

// TestWantHeap compares the heap with a sorted list, through pushes, removals and changes of rank (A15).
func TestWantHeap(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	random := func(seq int) rank {
		return rank{
			class: Class(rng.IntN(4)), slack: int64(rng.IntN(4)), rare: int32(rng.IntN(3)), order: uint64(rng.IntN(3)), seq: uint64(seq),
		}
	}
	compare := func(a, b *want) int {
		switch {
		case a.rank.before(b.rank):
			return -1
		case b.rank.before(a.rank):
			return 1
		}
		return 0
	}
	var h wantHeap
	var list []*want
	for i := range 20000 {
		switch k := rng.IntN(4); {
		case k < 2 || len(list) == 0:
			w := &want{heap: -1, rank: random(i)}
			h.push(w)
			list = append(list, w)
		case k == 2:
			w := list[rng.IntN(len(list))]
			w.rank = random(int(w.rank.seq))
			h.fix(w.heap)
		default:
			j := rng.IntN(len(list))
			h.remove(list[j])
			list = slices.Delete(list, j, j+1)
		}
		if len(list) > 0 && len(h) != len(list) {
			t.Fatalf("%d in the heap, %d in the list", len(h), len(list))
		}
		if i%97 == 0 && len(list) > 0 && h.top() != slices.MinFunc(list, compare) {
			t.Fatal("the top is not the least")
		}
	}
	slices.SortFunc(list, compare)
	for _, w := range list {
		if h.top() != w {
			t.Fatal("the heap empties in another order than the sorted list")
		}
		h.remove(w)
	}
}

// TestTimers compares the heap of timers with a scan.
func TestTimers(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	all := make([]*timer, 200)
	for i := range all {
		all[i] = &timer{heap: -1}
	}
	var h timers
	due := map[*timer]time.Duration{}
	now := time.Duration(0)
	for range 20000 {
		x := all[rng.IntN(len(all))]
		at := now + time.Duration(rng.IntN(1000))
		switch rng.IntN(4) {
		case 0:
			h.set(x, at)
			due[x] = at
		case 1:
			h.setEarlier(x, at)
			if old, ok := due[x]; !ok || at < old {
				due[x] = at
			}
		case 2:
			h.stop(x)
			delete(due, x)
		case 3:
			now += time.Duration(rng.IntN(100))
			last := time.Duration(0)
			for y := h.pop(now); y != nil; y = h.pop(now) {
				if due[y] > now || y.at < last || y.at != due[y] {
					t.Fatalf("a timer due at %v (%v) fires at %v after one due at %v", due[y], y.at, now, last)
				}
				last = y.at
				delete(due, y)
			}
		}
		least, any := time.Duration(0), false
		for _, at := range due {
			if !any || at < least {
				least, any = at, true
			}
		}
		if got, ok := h.next(); ok != any || got != least {
			t.Fatalf("next is %v %v, want %v %v", got, ok, least, any)
		}
	}
}

// TestFlowWindow is fed with a link's deliveries: the window comes to bandwidth × delay and a tenth of a second's work, within
// its bounds, from above and from below.
func TestFlowWindow(t *testing.T) {
	for _, c := range []struct {
		rate float64
		rtt  time.Duration
	}{{5e6, 20 * time.Millisecond}, {50e6, 50 * time.Millisecond}, {100e6, 100 * time.Millisecond}, {1e5, 20 * time.Millisecond}, {1e9, 0}} {
		var f flow
		f.reset(0)
		now := time.Second
		f.begin(now)
		now += max(c.rtt, time.Microsecond)
		const block = 100e3
		for end := now + 3*time.Second; now < end; {
			f.filled = true
			f.delivered(now, block, true)
			now += time.Duration(block / c.rate * float64(time.Second))
		}
		want := min(max(c.rate*(2*c.rtt+queueTime).Seconds(), minWindow), maxWindow)
		if got := float64(f.window); got < 0.85*want || got > 1.15*want {
			t.Errorf("%v B/s, %v: the window is %.0f, want about %.0f", c.rate, c.rtt, got, want)
		}
		if e := f.expect(int64(c.rate)); c.rtt > 0 && (e < c.rtt+900*time.Millisecond || e > c.rtt+1100*time.Millisecond) {
			t.Errorf("%v B/s, %v: a second's work is expected to take %v", c.rate, c.rtt, e)
		}
	}
}

// TestStoreErrorFairness has the store fail for one block of many: its waiters hear so, and the rest is delivered.
func TestStoreErrorFairness(t *testing.T) {
	r := newRig(t, 1, Config{})
	bad := errors.New("no space")
	failed := 0
	for i := range 100 {
		b, p := r.next()
		if i != 50 {
			r.deliver(b, p)
			continue
		}
		r.e.Receive(r.now, r.ids[p], nil, []dray.Block{b})
		r.ready()
		r.e.Stored(r.now, b, bad)
		for _, d := range r.ready().Delivers {
			if errors.Is(d.Err, bad) && d.CID == b.CID() {
				failed++
			}
		}
	}
	st, _ := r.e.Stats(r.s)
	if failed != 1 || st.Blocks != 99 {
		t.Errorf("%d failures heard, %d blocks; want 1 and 99", failed, st.Blocks)
	}
}

// TestAllocs asserts that a block costs no allocation in the steady state.
func TestAllocs(t *testing.T) {
	for _, s := range []Strategy{ExpectedFirst, BestScore, Random} {
		step := steadyState(t, 2000, 100, Config{Window: 16 << 20, Strategy: s})
		for range 8000 {
			step()
		}
		if n := testing.AllocsPerRun(5000, step); n != 0 {
			t.Errorf("%v: %v allocations per block", s, n)
		}
	}
}

// steadyState returns a function that delivers one block of many and wants another: Receive, Ready, Stored, Want, Ready.
func steadyState(t testing.TB, wants, peers int, cfg Config) func() {
	r := newRig(t, peers, cfg)
	blocks := make([]dray.Block, 2*wants)
	index := make(map[string]int)
	slot := make(map[dray.PeerID]int)
	for i := range blocks {
		blocks[i] = testBlock(t, i, 16)
		index[blocks[i].CID().KeyString()] = i
	}
	for i, id := range r.ids {
		slot[id] = i
	}
	asked := make([]struct {
		list []int
		head int
	}, peers)
	for i := range asked {
		asked[i].list = make([]int, 4096)[:0]
	}
	drain := func() {
		out := r.e.Ready()
		for _, sd := range out.Sends {
			q := &asked[slot[sd.Peer]]
			for i := range sd.Message.Wants {
				if w := &sd.Message.Wants[i]; !w.Cancel && w.Type == wire.WantBlock {
					if len(q.list) == cap(q.list) {
						q.list = q.list[:copy(q.list, q.list[q.head:])]
						q.head = 0
					}
					q.list = append(q.list, index[w.CID.KeyString()])
				}
			}
			r.e.Sent(r.now, sd.Peer)
		}
	}
	for i := range wants {
		r.e.Want(r.now, r.s, blocks[i].CID(), WantOptions{Size: 256 << 10, Order: uint64(i)})
	}
	drain()
	next, k, order := wants, 0, uint64(wants)
	one := make([]dray.Block, 1)
	return func() {
		i := 0
		for tries := 0; ; tries++ {
			if tries > 100*peers {
				panic("nobody is asked for anything")
			}
			q := &asked[k]
			if q.head == len(q.list) {
				k = (k + 1) % peers
				continue
			}
			i = q.list[q.head]
			q.head++
			r.now += 10 * time.Microsecond
			one[0] = blocks[i]
			if len(r.e.Receive(r.now, r.ids[k], nil, one)) == 0 {
				break
			} // else somebody else took it over
		}
		drain()
		r.e.Stored(r.now, blocks[i], nil)
		r.e.Want(r.now, r.s, blocks[next].CID(), WantOptions{Size: 256 << 10, Order: order})
		drain()
		next = (next + 1) % len(blocks)
		order++
		k = (k + 1) % peers
	}
}

// BenchmarkPeers is the cost of one block with more and more peers: flat (A16).
func BenchmarkPeers(b *testing.B) {
	for _, peers := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			step := steadyState(b, 4000, peers, Config{Window: 16 << 20})
			for range 8000 {
				step()
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				step()
			}
		})
	}
}

// BenchmarkDedupe wants what is wanted already, with more and more wants: flat but for the caches (A14).
func BenchmarkDedupe(b *testing.B) {
	benchWants(b, func(r *rig, c dray.Block, i int) {
		r.e.Want(r.now, r.s, c.CID(), WantOptions{Order: uint64(i)})
	})
}

// BenchmarkRank cancels one of many wants and wants it again elsewhere in the order: logarithmic (A15).
func BenchmarkRank(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	benchWants(b, func(r *rig, c dray.Block, _ int) {
		r.e.Cancel(r.now, r.s, c.CID())
		r.e.Want(r.now, r.s, c.CID(), WantOptions{Order: uint64(rng.IntN(1e6))})
	})
}

func benchWants(b *testing.B, f func(*rig, dray.Block, int)) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b, 0, Config{})
			blocks := make([]dray.Block, n)
			for i := range blocks {
				blocks[i] = testBlock(b, i, 8)
				r.e.Want(r.now, r.s, blocks[i].CID(), WantOptions{Order: uint64(i)})
			}
			r.ready()
			b.ResetTimer()
			for i := range b.N {
				k := i * 7919 % n
				f(r, blocks[k], k)
			}
		})
	}
}
