package health

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"dray"
)

// world drives a Partition through time and counts what it does.
type world struct {
	v       Partition
	now     time.Duration
	probes  int
	entered [Recovering + 1]int
	seen    PartitionState
}

func (w *world) note() {
	if s := w.v.State(); s != w.seen {
		w.seen = s
		w.entered[s]++
	}
}

// run lets time pass; up says who answers probes.
func (w *world) run(d time.Duration, up func(dray.PeerID) bool) {
	for end := w.now + d; ; {
		at, ok := w.v.Due()
		if !ok || at > end {
			w.now = end
			return
		}
		w.now = max(w.now, at)
		if w.v.Advance(w.now, 0.5) {
			w.probes++
			w.v.Each(func(id dray.PeerID) {
				if up(id) {
					w.v.Works(w.now, id)
				} else {
					w.v.Fails(w.now, id)
				}
			})
		}
		w.note()
	}
}

func (w *world) set(up bool, ids ...dray.PeerID) {
	for _, id := range ids {
		if up {
			w.v.Works(w.now, id)
		} else {
			w.v.Fails(w.now, id)
		}
		w.note()
	}
}

func (w *world) useful(ids ...dray.PeerID) {
	for _, id := range ids {
		w.v.Useful(w.now, id)
		w.note()
	}
}

func (w *world) expect(t *testing.T, why string, s PartitionState, m Mode) {
	t.Helper()
	if w.v.State() != s || w.v.Mode() != m {
		t.Errorf("%s: %v and %v, want %v and %v", why, w.v.State(), w.v.Mode(), s, m)
	}
}

func all(dray.PeerID) bool  { return true }
func none(dray.PeerID) bool { return false }

// TestPartition is A45: a cut, healed; a blip; probes; and nobody who was never useful counts.
func TestPartition(t *testing.T) {
	w := &world{now: time.Minute}
	w.set(false, "a", "b")
	w.expect(t, "strangers fail", Whole, Normal)
	w.useful("a", "b", "c", "d")
	w.set(false, "a", "b")
	w.expect(t, "half fail", Whole, Degraded)
	w.set(false, "c")
	w.expect(t, "most fail", Suspected, Degraded)
	w.run(500*time.Millisecond, func(id dray.PeerID) bool { return id == "a" || id == "b" || id == "d" })
	w.expect(t, "a blip", Whole, Normal)
	if w.probes == 0 {
		t.Error("no probe was sent while it was suspected")
	}
	w.set(false, "a", "b", "c", "d")
	w.expect(t, "all fail", Suspected, Emergency)
	w.run(suspectFor, none)
	w.expect(t, "and go on to", Partitioned, Emergency)
	w.probes = 0
	w.run(time.Minute, none)
	w.expect(t, "for a minute", Partitioned, Emergency)
	if w.probes < 48 || w.probes > 60 {
		t.Errorf("%d probes in a minute, not about one a second", w.probes)
	}
	w.set(true, "a", "b")
	w.expect(t, "half work", Recovering, Degraded)
	w.run(time.Second, func(id dray.PeerID) bool { return id < "c" })
	w.expect(t, "for a second", Recovering, Degraded)
	w.set(false, "a")
	w.expect(t, "one fails again", Partitioned, Degraded)
	w.run(5*time.Second, all)
	w.expect(t, "all work for a while", Whole, Normal)
	w.set(false, "a", "b", "c", "d")
	w.run(time.Hour, none)
	w.expect(t, "cut for an hour", Partitioned, Emergency)
	w.run(10*time.Second, all)
	w.expect(t, "healed", Whole, Normal)
}

// TestModes follow from who is left of those that were useful.
func TestModes(t *testing.T) {
	for _, c := range []struct {
		useful, lost int
		want         Mode
	}{
		{0, 0, Normal},
		{1, 0, Normal},
		{1, 1, Emergency},
		{2, 1, Degraded},
		{2, 2, Emergency},
		{3, 1, Degraded},
		{4, 1, Normal},
		{9, 6, Normal},
		{9, 7, Degraded},
		{9, 9, Emergency},
	} {
		w := &world{now: time.Minute}
		for i := range c.useful {
			w.useful(dray.PeerID(fmt.Sprint(i)))
		}
		for i := range c.lost {
			w.set(false, dray.PeerID(fmt.Sprint(i)))
		}
		if w.v.Mode() != c.want || w.v.Lost() != c.lost || w.v.Live() != c.useful-c.lost {
			t.Errorf("%d of %d lost: %v, %d live, %d lost", c.lost, c.useful, w.v.Mode(), w.v.Live(), w.v.Lost())
		}
	}
}

// TestLostForGood forgets peers that stay away: what is left is the network.
func TestLostForGood(t *testing.T) {
	w := &world{now: time.Minute}
	w.useful("a", "b", "c")
	w.set(false, "a", "b")
	w.run(4*time.Minute, func(id dray.PeerID) bool { return id == "c" })
	w.expect(t, "one of three is left", Whole, Normal)
	if w.v.Knows("a") || w.v.Lost() != 0 {
		t.Error("who stays away is not forgotten")
	}
	w.useful("c")
	w.set(false, "c")
	w.run(time.Minute, none)
	w.v.Idle(w.now, true)
	w.run(5*time.Minute, none)
	w.expect(t, "nothing is wanted", Whole, Normal)
	if _, due := w.v.Due(); due {
		t.Error("something is due although nobody is known")
	}
	w.useful("a")
	w.v.Forget(w.now, "a")
	if w.v.Knows("a") {
		t.Error("a refused peer counts")
	}
}

// TestFlapping does not oscillate: however fast a link comes and goes, the view says that all is well three times in a minute at
// most.
func TestFlapping(t *testing.T) {
	for _, half := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 1500 * time.Millisecond, 2500 * time.Millisecond} {
		w := &world{now: time.Minute}
		w.useful("a")
		for end := w.now + time.Minute; w.now < end; {
			w.set(false, "a")
			w.run(half, none)
			w.set(true, "a")
			w.run(half, all)
		}
		if n := w.entered[Whole]; n > 6 {
			t.Errorf("flapping every %v: well %d times in a minute", 2*half, n)
		}
		w.run(10*time.Second, all)
		w.expect(t, fmt.Sprintf("flapping every %v ends", 2*half), Whole, Normal)
	}
}

// TestPartitionRandom lets anything happen: the counts are right, what is due lies ahead, the number of peers is bounded, and
// quiet leads to Whole.
func TestPartitionRandom(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := &world{now: time.Minute}
		id := func() dray.PeerID { return dray.PeerID(fmt.Sprint(r.IntN(100))) }
		for range 300 {
			switch r.IntN(8) {
			case 0, 1:
				w.useful(id())
			case 2, 3, 4:
				w.set(false, id())
			case 5:
				w.set(true, id())
			case 6:
				w.v.Forget(w.now, id())
				w.v.Idle(w.now, r.IntN(4) == 0)
			case 7:
				w.run(time.Duration(r.ExpFloat64()*float64(3*time.Second)), func(dray.PeerID) bool { return r.IntN(2) == 0 })
			}
			failing := 0
			for _, m := range w.v.members {
				if m.failing {
					failing++
				}
			}
			at, due := w.v.Due()
			switch {
			case failing != w.v.failing || len(w.v.members) > maxMembers:
				t.Fatalf("seed %d: %d of %d fail, counted %d", seed, failing, len(w.v.members), w.v.failing)
			case w.v.State() != Whole && !due:
				t.Fatalf("seed %d: %v is for ever", seed, w.v.State())
			case due && at < w.now && w.v.Advance(w.now, 0):
				if at, _ := w.v.Due(); at <= w.now {
					t.Fatalf("seed %d: still due at %v", seed, at)
				}
			}
		}
		w.v.Idle(w.now, false)
		w.run(time.Minute, all)
		if w.v.State() != Whole {
			t.Fatalf("seed %d: %v after a quiet minute", seed, w.v.State())
		}
	}
}
