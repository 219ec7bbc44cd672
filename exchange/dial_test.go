package exchange

import (
	"testing"
	"time"

	"dray"
)

// dials runs an engine's timers for a while, failing every dial, and returns when they were.
func dials(e *Engine, now, end time.Duration) (at []time.Duration) {
	for {
		r := e.Ready()
		for range r.Dials {
			at = append(at, now)
			e.DialFailed(now, "p")
			e.DialFailed(now, "p") // two who dialled at once count once
		}
		if len(r.Dials) > 0 {
			continue
		}
		if r.Wake == 0 || r.Wake > end {
			return at
		}
		now = r.Wake
		e.Advance(now)
	}
}

// TestDialsBackOff names a peer that cannot be reached in a session: it is dialled at 20 s, 40 s, 80 s and so on, from 1 s on a
// LAN, for as long as the session lives and no sooner when it is found again.
func TestDialsBackOff(t *testing.T) {
	for _, near := range []bool{false, true} {
		e := New(Config{})
		if near {
			e.Near(1, "p")
		}
		s := e.OpenSession(1, SessionConfig{Peers: []dray.PeerID{"p"}})
		at := dials(e, 1, 30*time.Minute)
		wait := 20 * time.Second
		if near {
			wait = time.Second
		}
		if len(at) < 6 {
			t.Fatalf("near %v: dialled at %v", near, at)
		}
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap < wait || gap > wait+wait/5+1 {
				t.Errorf("near %v: dial %d came after %v, want %v and up to a fifth more", near, i, gap, wait)
			}
			wait = min(2*wait, 10*time.Minute)
		}
		now := 30 * time.Minute
		e.Found(now, s, "p")
		if r := e.Ready(); len(r.Dials) != 0 {
			t.Errorf("near %v: dialled before the back-off was over", near)
		}
		e.Addressed(now, "p")
		if r := e.Ready(); len(r.Dials) != 1 {
			t.Errorf("near %v: not dialled at a new address", near)
		}
		e.PeerUp(now, "p", Caps{Haves: true})
		e.PeerDown(now, "p")
		if at := dials(e, now, now+time.Second); len(at) == 0 || at[0]-now > 300*time.Millisecond {
			t.Errorf("near %v: after a connection was lost it is dialled at %v, lost at %v", near, at, now)
		}
		e.CancelSession(now, s)
		if at := dials(e, now+time.Second, now+time.Hour); len(at) != 0 {
			t.Errorf("near %v: dialled for nobody at %v", near, at)
		}
	}
}

// TestLastPeerIsDialledSoon lets every connection to the only useful peer break as soon as something is asked on it, for a
// minute. There is nobody else to turn to, so it is dialled again about every second on a LAN, and else every two, and never
// banned. Beside another that works it is left alone for longer and longer.
func TestLastPeerIsDialledSoon(t *testing.T) {
	for _, c := range []struct {
		name        string
		near, other bool
		most        time.Duration
		again       bool // throughout the minute
	}{
		{"near", true, false, 1300 * time.Millisecond, true},
		{"far", false, false, 2500 * time.Millisecond, true},
		{"beside another", true, true, 40 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLonely(t, 64)
			r.up("p")
			if c.near {
				r.e.Near(r.now, "p")
			}
			if c.other {
				r.up("q")
			}
			r.deliverOne("p")
			if c.other {
				r.deliverOne("q")
			}
			lost := r.now
			var longest time.Duration
			dials := 0
			for end := r.now + time.Minute; r.now < end; {
				r.e.PeerDown(r.now, "p")
				down := r.now
				if !r.untilDialled("p", end) {
					break
				}
				dials++
				longest = max(longest, r.now-down)
				r.up("p")
				r.turn()
			}
			if reason, banned := r.e.Banned(r.now, "p"); banned {
				t.Fatalf("banned after %v: %s", r.now-lost, reason)
			}
			if longest > c.most || (dials > 20) != c.again {
				t.Errorf("%d dials in a minute, the longest wait %v; want no more than %v", dials, longest, c.most)
			}
		})
	}
}

// lonely is an engine with a session that wants more than will come.
type lonely struct {
	t   *testing.T
	e   *Engine
	now time.Duration
	s   SessionID
	cs  []dray.Block
	got int
}

func newLonely(t *testing.T, n int) *lonely {
	r := &lonely{t: t, e: New(Config{}), now: time.Second}
	r.s = r.e.OpenSession(r.now, SessionConfig{Peers: []dray.PeerID{"p", "q"}})
	for i := range n {
		b := testBlock(t, i, 100)
		r.cs = append(r.cs, b)
		r.e.Want(r.now, r.s, b.CID(), WantOptions{})
	}
	return r
}

func (r *lonely) up(id dray.PeerID) {
	r.e.PeerUp(r.now, id, Caps{Haves: true})
	r.turn()
}

// turn writes what the engine says at once.
func (r *lonely) turn() *Ready {
	ready := r.e.Ready()
	for _, s := range ready.Sends {
		r.e.Sent(r.now, s.Peer)
	}
	return ready
}

func (r *lonely) deliverOne(from dray.PeerID) {
	r.t.Helper()
	b := r.cs[r.got]
	r.got++
	r.e.Receive(r.now, from, nil, []dray.Block{b})
	for _, s := range r.turn().Stores {
		r.e.Stored(r.now, s.Block, nil)
	}
	r.turn()
}

// untilDialled lets time pass until a peer is dialled.
func (r *lonely) untilDialled(id dray.PeerID, end time.Duration) bool {
	for r.now < end {
		ready := r.turn()
		if len(ready.Dials) > 0 && ready.Dials[0] == id {
			return true
		}
		if ready.Wake == 0 {
			return false
		}
		r.now = max(ready.Wake, r.now)
		for _, p := range ready.Probes {
			r.e.Probed(r.now, p, time.Millisecond, nil)
		}
		r.e.Advance(r.now)
	}
	return false
}
