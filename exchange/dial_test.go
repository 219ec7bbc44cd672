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
