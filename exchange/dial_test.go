package exchange

import (
	"testing"
	"time"
)

// TestDialsBackOff finds an unreachable peer again and again: it is dialled on a growing schedule, and at once after it
// was connected.
func TestDialsBackOff(t *testing.T) {
	e := New(Config{})
	now := time.Duration(1)
	s := e.OpenSession(now, SessionConfig{})
	dials := 0
	var gaps []time.Duration
	last := now
	for ; now < 2*time.Minute; now += 100 * time.Millisecond {
		e.Found(now, s, "p")
		if len(e.Ready().Dials) > 0 {
			dials++
			gaps = append(gaps, now-last)
			last = now
			e.DialFailed(now, "p")
		}
	}
	if dials < 5 || dials > 9 {
		t.Errorf("%d dials in two minutes, after %v", dials, gaps)
	}
	for i := 2; i < len(gaps); i++ {
		if gaps[i] <= gaps[i-1] {
			t.Errorf("gap %d is %v after %v", i, gaps[i], gaps[i-1])
		}
	}
	e.PeerUp(now, "p", Caps{Haves: true})
	e.PeerDown(now, "p")
	e.Found(now, s, "p")
	if len(e.Ready().Dials) != 1 {
		t.Error("not dialled at once after a connection")
	}
}
