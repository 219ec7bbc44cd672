package health

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"dray"
)

// TestTried passes over addresses that failed, for longer each time, and not when there is nothing else (D8).
func TestTried(t *testing.T) {
	var tr Tried
	list := []string{"a", "b", "c"}
	expect := func(now time.Duration, want ...string) {
		t.Helper()
		if got := tr.Fresh(now, "p", list); !slices.Equal(got, want) {
			t.Errorf("at %v: %v, want %v", now, got, want)
		}
	}
	now := time.Hour
	expect(now, "a", "b", "c")
	tr.Failed(now, "p", nil)
	expect(now, "a", "b", "c")
	wait := triedFirst
	for range 9 {
		tr.Failed(now, "p", []string{"b"})
		expect(now+wait-1, "a", "c")
		expect(now+wait, "a", "b", "c")
		now += wait
		wait = min(2*wait, triedMax)
	}
	tr.Failed(now, "p", list)
	expect(now, "a", "b", "c") // nothing else is known
	expect(now+triedFirst, "a", "c")
	if got := tr.Fresh(now, "q", list); len(got) != 3 {
		t.Errorf("another peer's addresses are %v", got)
	}
	tr.Succeeded("p")
	expect(now, "a", "b", "c")
	tr.Failed(now, "p", list)
	tr.Failed(now+time.Hour, "q", list)
	if tr.Len() != 1 {
		t.Errorf("what failed an hour ago is remembered: %d peers", tr.Len())
	}
}

// TestTriedBounded remembers the latest failures of so many peers and addresses.
func TestTriedBounded(t *testing.T) {
	var tr Tried
	for i := range 3000 {
		now := time.Duration(i) * time.Microsecond
		tr.Failed(now, dray.PeerID(fmt.Sprint(i)), []string{"a"})
		tr.Failed(now, "p", []string{fmt.Sprint(i)})
		if tr.Len() > triedPeers || len(tr.peers["p"].addrs) > triedAddrs {
			t.Fatalf("%d peers, %d addresses", tr.Len(), len(tr.peers["p"].addrs))
		}
	}
	for _, id := range []dray.PeerID{"2999", "p"} {
		if got := tr.Fresh(0, id, []string{"a", "2999", "z"}); len(got) != 2 {
			t.Errorf("the latest failure of %s is forgotten", id)
		}
	}
}
