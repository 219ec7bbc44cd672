package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dray"
)

// bench drives a queue as a driver would, with records that are replayed to see what a crash would leave.
type bench struct {
	t       *testing.T
	q       *Queue
	now     time.Duration
	records []Job
	running map[ID]Start
	stopped map[ID]bool
	drained int
	wake    time.Duration
}

func newBench(t *testing.T, cfg Config) *bench {
	return &bench{t: t, q: New(cfg), running: make(map[ID]Start), stopped: make(map[ID]bool)}
}

// step does what the queue says and returns which jobs were begun.
func (b *bench) step() (began []ID) {
	b.t.Helper()
	r := b.q.Ready()
	b.records = append(b.records, r.Records...)
	for _, s := range r.Starts {
		if _, twice := b.running[s.Job.ID]; twice {
			b.t.Fatalf("job %d is begun twice at a time", s.Job.ID)
		}
		b.running[s.Job.ID] = s
		began = append(began, s.Job.ID)
	}
	for _, s := range r.Stops {
		b.stopped[s.ID] = true
	}
	if r.Drained {
		b.drained++
	}
	b.wake = r.Wake
	if err := b.q.Check(); err != nil {
		b.t.Fatal(err)
	}
	return began
}

func (b *bench) add(key string, peers ...string) ID {
	b.t.Helper()
	id, _, err := b.q.Add(b.now, Job{Key: key, Sources: sources(peers...)})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func sources(peers ...string) []Source {
	var list []Source
	for _, p := range peers {
		list = append(list, Source{Peer: dray.PeerID(p)})
	}
	return list
}

func (b *bench) end(id ID, o Outcome) {
	b.t.Helper()
	s, ok := b.running[id]
	if !ok {
		b.t.Fatalf("job %d is not being worked at", id)
	}
	delete(b.running, id)
	delete(b.stopped, id)
	b.q.Ended(b.now, id, s.Attempt, o)
}

func (b *bench) advance(d time.Duration) []ID {
	b.t.Helper()
	b.now += d
	b.q.Advance(b.now)
	return b.step()
}

func (b *bench) wantBegan(got []ID, want ...ID) {
	b.t.Helper()
	if !slices.Equal(got, want) {
		b.t.Fatalf("at %v jobs %v were begun, want %v", b.now, got, want)
	}
}

func (b *bench) wantState(id ID, s State, r Reason) {
	b.t.Helper()
	j, ok := b.q.Job(id)
	if !ok || j.State != s || j.Reason != r {
		b.t.Fatalf("at %v job %d is %v (%v), want %v (%v)", b.now, id, j.State, j.Reason, s, r)
	}
}

// E1: the same order from three peers is one job with three sources, and one arrival ends it for all.
func TestSameOrderManySources(t *testing.T) {
	b := newBench(t, Config{Workers: 1})
	blocker := b.add("other")
	b.wantBegan(b.step(), blocker)
	id := b.add("k", "a")
	for _, p := range []string{"b", "c", "a"} {
		again, fresh, err := b.q.Add(b.now, Job{Key: "k", Sources: sources(p)})
		if again != id || fresh || err != nil {
			t.Fatalf("a second order is job %d, fresh %v: %v", again, fresh, err)
		}
	}
	b.end(blocker, Outcome{Finished: true})
	b.wantBegan(b.step(), id)
	if got := b.running[id].Job.Sources; len(got) != 3 {
		t.Fatalf("asked are %v, want a, b and c", got)
	}
	b.end(id, Outcome{Finished: true})
	b.step()
	b.wantState(id, Done, None)
	for _, p := range []dray.PeerID{"a", "b", "c"} {
		if list := b.q.named(p); len(list) != 0 {
			t.Errorf("%s is still named by %d jobs", p, len(list))
		}
	}
	if b.drained != 1 {
		t.Errorf("drained %d times, want once", b.drained)
	}
}

// E1: what is known of a job besides is the first that was not empty, and survives a restart.
func TestMetadataRoundTrip(t *testing.T) {
	b := newBench(t, Config{Workers: -1})
	peer := dray.PeerID("\x00\x04\xff\xfe\x80\x81") // no text, as the ids of peers are
	b.q.Add(0, Job{Key: "k", Place: "/x", Order: json.RawMessage(`{"a":1}`), Added: 7, Sources: []Source{{Peer: peer, Addrs: []string{"one"}}}})
	b.q.Add(0, Job{Key: "k", Name: "first", Order: json.RawMessage(`{"a":2}`), Class: High})
	b.q.Add(0, Job{Key: "k", Name: "second", Class: Low, Sources: []Source{{Peer: peer, Addrs: []string{"one", "two"}}}})
	b.step()
	want, _ := b.q.Job(1)
	if want.Name != "first" || string(want.Order) != `{"a":1}` || want.Class != High || len(want.Sources[0].Addrs) != 2 || want.Added != 7 {
		t.Fatalf("the job is %+v", want)
	}
	var records []Job
	for i := range b.records {
		j, err := ParseRecord(AppendRecord(nil, &b.records[i]))
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, j)
	}
	q := New(Config{Workers: -1})
	q.Restore(0, records)
	got, _ := q.Job(1)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("after a restart %+v, want %+v", got, want)
	}
}

// E2: a worker that is done before anybody could look finds its job in the set.
func TestZeroLatencyWorker(t *testing.T) {
	b := newBench(t, Config{Workers: 2})
	for i := range 50 {
		id := b.add(fmt.Sprint(i), "p")
		for began := b.step(); len(began) > 0; began = b.step() {
			for _, k := range began {
				b.end(k, Outcome{Finished: true})
			}
		}
		b.wantState(id, Done, None)
	}
	if b.drained != 50 {
		t.Errorf("drained %d times, want 50", b.drained)
	}
}

// E3: one that does not fit is refused and told so; those that fit are not concerned.
func TestFull(t *testing.T) {
	b := newBench(t, Config{Workers: 1, Jobs: 3})
	for i := range 3 {
		b.add(fmt.Sprint(i))
	}
	if _, _, err := b.q.Add(0, Job{Key: "3"}); !errors.Is(err, ErrFull) {
		t.Fatalf("the fourth: %v, want %v", err, ErrFull)
	}
	if _, fresh, err := b.q.Add(0, Job{Key: "2", Sources: sources("p")}); err != nil || fresh {
		t.Fatalf("one that is there: %v", err)
	}
	b.wantBegan(b.step(), 1)
	b.end(1, Outcome{Finished: true})
	b.wantBegan(b.step(), 2)
	if _, _, err := b.q.Add(0, Job{Key: "3"}); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	if got := New(Config{}).cfg.Jobs; got != 16384 {
		t.Errorf("the set has room for %d by itself, want 16384", got)
	}
}

// E3: several workers, in order of arrival, those of a higher class first.
func TestOrder(t *testing.T) {
	b := newBench(t, Config{Workers: 2})
	b.add("a")
	b.add("b")
	b.wantBegan(b.step(), 1, 2)
	for i, c := range []Class{Normal, Low, High, Normal, High} {
		b.q.Add(0, Job{Key: fmt.Sprint(i), Class: c})
	}
	b.q.Add(0, Job{Key: "1", Class: High}) // who orders it again may be in more of a hurry
	b.wantBegan(b.step())
	var order []ID
	for len(b.running) > 0 {
		for id := range b.running {
			b.end(id, Outcome{Finished: true})
			break
		}
		order = append(order, b.step()...)
	}
	if want := []ID{4, 5, 7, 3, 6}; !slices.Equal(order, want) {
		t.Errorf("begun in the order %v, want %v", order, want)
	}
}

// E4 and E5: a silent peer is asked again after 20, 40, 80 and 160 s; then all that only it was to give is given up, and the
// set is drained.
func TestSilentPeer(t *testing.T) {
	b := newBench(t, Config{Workers: 1, Patience: 300 * time.Second})
	first, second, other := b.add("1", "dumb"), b.add("2", "dumb"), b.add("3", "dumb", "good")
	var tries []time.Duration
	fail := Outcome{Reason: Unreachable, Unreached: []dray.PeerID{"dumb"}}
	b.wantBegan(b.step(), first)
	for {
		tries = append(tries, b.now)
		b.end(first, fail)
		b.step()
		for id := range b.running {
			if id != other {
				t.Fatalf("at %v job %d was begun, whose only source is spared", b.now, id)
			}
			if len(b.running[id].Job.Sources) != 1 {
				t.Fatalf("at %v it asks %v", b.now, b.running[id].Job.Sources)
			}
			b.end(id, Outcome{Finished: true, Gave: []dray.PeerID{"good"}})
			b.step()
		}
		j, _ := b.q.Job(first)
		if j.State == Failed {
			break
		}
		if b.wake < 0 {
			t.Fatal("nothing will ever happen again")
		}
		began := b.advance(b.wake - b.now)
		if len(began) == 1 && began[0] == second { // either may be the one that tries; they count together
			first, second = second, first
		}
	}
	want := []time.Duration{0, 20 * time.Second, 60 * time.Second, 140 * time.Second, 300 * time.Second}
	if !slices.Equal(tries, want) {
		t.Errorf("asked at %v, want %v", tries, want)
	}
	b.wantState(first, Failed, Unreachable)
	b.wantState(second, Failed, Unreachable)
	b.wantState(other, Done, None)
	if len(b.q.outages) != 0 || b.q.Active() != 0 || b.drained != 1 {
		t.Errorf("%d outages and %d jobs are left, drained %d times", len(b.q.outages), b.q.Active(), b.drained)
	}
	if err := b.q.Retry(b.now, first); err != nil {
		t.Fatal(err)
	}
	b.wantBegan(b.step(), first)
}

// E5: attempts that ran together count as one failure; a success makes the peer forgiven.
func TestFailuresTogether(t *testing.T) {
	b := newBench(t, Config{Workers: 3})
	for i := range 3 {
		b.add(fmt.Sprint(i), "p")
	}
	b.wantBegan(b.step(), 1, 2, 3)
	b.now = time.Second
	for id := ID(1); id <= 3; id++ {
		b.end(id, Outcome{Reason: Unreachable, Unreached: []dray.PeerID{"p"}})
		b.now += time.Second
		b.step()
	}
	if got := b.q.Until("p"); got != 21*time.Second {
		t.Errorf("spared until %v, want 21s", got)
	}
	b.wantBegan(b.advance(21*time.Second-b.now), 1)
	b.end(1, Outcome{Finished: true, Gave: []dray.PeerID{"p"}})
	if got := b.q.Until("p"); got != 0 {
		t.Errorf("after it gave something it is spared until %v", got)
	}
	b.step()
	b.advance(3 * time.Second)
	if len(b.running) != 2 {
		t.Errorf("%d attempts, want those at 2 and 3", len(b.running))
	}
}

// E12: a peer that comes back is asked at once.
func TestPeerBackOnline(t *testing.T) {
	b := newBench(t, Config{Workers: 1})
	id := b.add("k", "p")
	b.wantBegan(b.step(), id)
	b.end(id, Outcome{Reason: Unreachable, Unreached: []dray.PeerID{"p"}, Message: "no route"})
	b.wantBegan(b.step())
	b.wantState(id, Waiting, Unreachable)
	if w := b.q.Waits(); len(w) != 1 || w[0] != "p" {
		t.Errorf("it waits for %v", w)
	}
	b.now += time.Second
	b.q.SourceUp(b.now, "p")
	b.wantBegan(b.step(), id)
}

// What nobody has is asked again on the schedule of the job, and does not spare the peers for others.
func TestNotFound(t *testing.T) {
	b := newBench(t, Config{Workers: 1, Patience: time.Minute})
	id := b.add("k", "p")
	b.step()
	b.end(id, Outcome{Reason: NotFound})
	b.step()
	b.wantState(id, Waiting, NotFound)
	other := b.add("other", "p")
	b.wantBegan(b.step(), other)
	b.end(other, Outcome{Finished: true})
	b.step()
	b.wantBegan(b.advance(20*time.Second), id)
	b.end(id, Outcome{Reason: NotFound, Moved: true}) // something came: patience begins anew
	b.wantBegan(b.advance(20*time.Second), id)
	b.end(id, Outcome{Reason: NotFound})
	b.wantBegan(b.advance(40*time.Second), id)
	b.end(id, Outcome{Reason: NotFound})
	b.step()
	b.wantState(id, Failed, NotFound)
}

// What ends is remembered with the time at which it did.
func TestOver(t *testing.T) {
	b := newBench(t, Config{Workers: 1})
	for i, o := range []Outcome{{Finished: true}, {Reason: Refused}} {
		id := b.add(string(rune('a' + i)))
		b.step()
		o.At = int64(1000 + i)
		b.end(id, o)
		for _, j := range b.q.Jobs() {
			if j.ID == id && j.Over != o.At {
				t.Errorf("over at %d, want %d", j.Over, o.At)
			}
		}
	}
}

// A full disk pauses a job for as long as it lasts.
func TestNoSpace(t *testing.T) {
	b := newBench(t, Config{Workers: 1, Patience: time.Minute})
	id := b.add("k", "p")
	b.step()
	for range 100 {
		b.end(id, Outcome{Reason: NoSpace})
		b.step()
		b.wantState(id, Waiting, NoSpace)
		b.q.SourceUp(b.now, "p") // is no reason to try
		b.wantBegan(b.step())
		b.wantBegan(b.advance(15*time.Second), id)
	}
	b.end(id, Outcome{Reason: NoSpace})
	b.step()
	b.q.SpaceFreed(b.now)
	b.wantBegan(b.step(), id)
}

// E7: a disk that fails costs no job: it stays in the set, is tried again, and is done once the disk is well. No source is
// spared for it, and none that comes helps.
func TestFaultyDisk(t *testing.T) {
	b := newBench(t, Config{Workers: 1})
	id := b.add("k", "p")
	b.step()
	for fails := range 10 {
		b.end(id, Outcome{Reason: Faulty})
		b.step()
		b.wantState(id, Waiting, Faulty)
		b.q.SourceUp(b.now, "p")
		b.wantBegan(b.step())
		if b.q.Until("p") != 0 {
			t.Fatal("the source is spared for it")
		}
		b.wantBegan(b.advance(b.q.pause(fails+1)), id)
	}
	b.end(id, Outcome{Finished: true})
	b.step()
	b.wantState(id, Done, None)
}

// E8: drained comes once, on every path that can empty the set, and not while a job is paused.
func TestDrained(t *testing.T) {
	paths := map[string]func(b *bench, id ID){
		"done":      func(b *bench, id ID) { b.end(id, Outcome{Finished: true}) },
		"failed":    func(b *bench, id ID) { b.end(id, Outcome{Reason: Exists}) },
		"cancelled": func(b *bench, id ID) { b.q.Cancel(b.now, id, 1) },
		"given up": func(b *bench, id ID) {
			b.end(id, Outcome{Reason: Unreachable, Unreached: []dray.PeerID{"p"}})
			b.step()
			b.advance(time.Hour)
			b.end(id, Outcome{Reason: Unreachable, Unreached: []dray.PeerID{"p"}})
		},
		"done after it was paused": func(b *bench, id ID) {
			b.q.Pause(b.now, id)
			b.step()
			b.end(id, Outcome{Finished: true})
		},
		"cancelled while paused": func(b *bench, id ID) {
			b.q.Pause(b.now, id)
			b.step()
			b.end(id, Outcome{})
			b.step()
			b.q.Cancel(b.now, id, 1)
		},
		"its source given up by another": func(b *bench, id ID) {
			b.q.Pause(b.now, id)
			b.step()
			b.end(id, Outcome{})
			other := b.add("other", "p")
			b.step()
			b.end(other, Outcome{Reason: Unreachable, Unreached: []dray.PeerID{"p"}})
			b.step()
			b.advance(time.Hour)
			b.end(other, Outcome{Reason: Unreachable, Unreached: []dray.PeerID{"p"}})
			b.step()
			if b.drained != 0 {
				b.t.Errorf("drained with a job paused")
			}
			b.q.Resume(b.now, id)
		},
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Config{Workers: 1, Patience: time.Minute})
			id := b.add("k", "p")
			b.step()
			path(b, id)
			b.step()
			b.advance(24 * time.Hour)
			if b.drained != 1 || b.q.Active() != 0 {
				t.Errorf("drained %d times with %d jobs left, want once with none", b.drained, b.q.Active())
			}
		})
	}
}

// A job that was cancelled and ordered again does not begin before the old attempt has let go of the place.
func TestPlaceIsFreeFirst(t *testing.T) {
	b := newBench(t, Config{Workers: 2})
	place := func(key string) ID {
		id, _, err := b.q.Add(b.now, Job{Key: key, Place: "/model"})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := place("one")
	b.wantBegan(b.step(), first)
	b.q.Cancel(b.now, first, 1)
	second := place("one")
	third := place("two")
	b.wantBegan(b.step())
	if !b.stopped[first] {
		t.Error("the attempt was not told to stop")
	}
	b.end(first, Outcome{})
	b.wantState(first, Cancelled, None)
	b.wantBegan(b.step(), second)
	b.end(second, Outcome{Finished: true})
	b.wantBegan(b.step(), third)
}

// An order that names a job twice does not ask twice; states refuse what makes no sense in them.
func TestRefusals(t *testing.T) {
	b := newBench(t, Config{Workers: 1, Ended: 2})
	id := b.add("k")
	b.step()
	if err := b.q.Clear(id); !errors.Is(err, ErrState) {
		t.Errorf("clearing what runs: %v", err)
	}
	if err := b.q.Pause(0, 99); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("pausing what is not there: %v", err)
	}
	b.end(id, Outcome{Reason: Exists, Message: "it is there"})
	b.step()
	b.wantState(id, Failed, Exists)
	b.add("k")
	if err := b.q.Retry(0, id); !errors.Is(err, ErrState) {
		t.Errorf("retrying what was ordered again: %v", err)
	}
	if _, _, err := b.q.Add(0, Job{Key: "x", Order: json.RawMessage("{")}); !errors.Is(err, ErrRecord) {
		t.Errorf("an order that is no JSON: %v", err)
	}
	b.step()
	if err := b.q.Clear(id); err != nil {
		t.Error(err)
	}
	b.step()
	if last := b.records[len(b.records)-1]; last.ID != id || last.State != Gone {
		t.Errorf("clearing is recorded as %+v", last)
	}
	for i := range 5 { // only the newest are remembered
		n := b.add(fmt.Sprint(i))
		b.q.Cancel(b.now, n, int64(i))
		b.step()
	}
	if n := len(b.q.ended); n != 2 {
		t.Errorf("%d that ended are remembered, want 2", n)
	}
	if _, err := ParseRecord([]byte(`{"id":1,"key":"k","state":"odd"}`)); !errors.Is(err, ErrRecord) {
		t.Errorf("an unknown state: %v", err)
	}
	if _, err := ParseRecord([]byte(strings.Repeat("[", 10))); !errors.Is(err, ErrRecord) {
		t.Errorf("nonsense: %v", err)
	}
}

// Whatever happens, in whatever order: no job is lost, none is done twice, attempts are bounded, drained comes exactly when
// the set becomes empty, and a restart at any point knows every job that was accepted.
func TestAnything(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 4))
		cfg := Config{Workers: 1 + rng.IntN(3), Jobs: 8, Ended: 4, Patience: 3 * time.Minute}
		b := newBench(t, cfg)
		accepted := make(map[ID]string)
		finished := make(map[ID]bool)
		wasActive := 0
		for range 400 {
			drained := b.drained
			switch rng.IntN(10) {
			case 0, 1, 2:
				key := fmt.Sprint(rng.IntN(12))
				id, fresh, err := b.q.Add(b.now, Job{
					Key: key, Place: fmt.Sprint("/", rng.IntN(3)), Class: Class(rng.IntN(3) - 1),
					Sources: sources([]string{"a", "b", "c"}[:rng.IntN(4)]...),
				})
				if err == nil && fresh {
					accepted[id] = key
				}
			case 3, 4, 5:
				for id := range b.running {
					o := Outcome{Reason: Reason(rng.IntN(int(Faulty) + 1)), Moved: rng.IntN(4) == 0}
					if o.Reason == Unreachable {
						for _, s := range b.running[id].Job.Sources {
							o.Unreached = append(o.Unreached, s.Peer)
						}
					}
					if rng.IntN(2) == 0 {
						o = Outcome{Finished: true}
						if j, ok := b.q.Job(id); ok && j.State.active() {
							if finished[id] {
								t.Fatalf("seed %d: job %d is done twice", seed, id)
							}
							finished[id] = true
						}
					}
					b.end(id, o)
					break
				}
			case 6:
				b.now += time.Duration(rng.IntN(60)) * time.Second
				b.q.Advance(b.now)
			default:
				id := ID(1 + rng.IntN(len(accepted)+1))
				switch rng.IntN(6) {
				case 0:
					b.q.Pause(b.now, id)
				case 1:
					b.q.Resume(b.now, id)
				case 2:
					b.q.Cancel(b.now, id, int64(b.now/time.Second))
				case 3:
					b.q.Retry(b.now, id)
				case 4:
					b.q.Clear(id)
				case 5:
					b.q.SourceUp(b.now, dray.PeerID([]string{"a", "b", "c"}[rng.IntN(3)]))
				}
			}
			b.step()
			if emptied := wasActive > 0 && b.q.Active() == 0; emptied != (b.drained > drained) {
				t.Fatalf("seed %d: %d jobs became %d, drained %v", seed, wasActive, b.q.Active(), b.drained > drained)
			}
			wasActive = b.q.Active()
			if rng.IntN(20) > 0 {
				continue
			}
			q := New(cfg) // a crash here
			q.Restore(0, b.records)
			if q.Active() != b.q.Active() {
				t.Fatalf("seed %d: a restart knows %d jobs of %d", seed, q.Active(), b.q.Active())
			}
			for _, j := range b.q.Jobs() {
				r, ok := q.Job(j.ID)
				if !ok || r.State.active() != j.State.active() || r.Key != j.Key || !j.State.active() && r.State != j.State {
					t.Fatalf("seed %d: job %+v is %+v after a restart", seed, j, r)
				}
			}
			if err := q.Check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}
