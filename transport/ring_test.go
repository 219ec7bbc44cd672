package transport

import (
	"math/rand/v2"
	"testing"
)

// TestRingIsASubsequence pushes and pops at random: what comes out is a subsequence of what went in, in order, with the
// newest at its end; what does not come out was dropped, once; and the bounds hold (invariant 9).
func TestRingIsASubsequence(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := ring{count: 1 + rnd.IntN(8), bytes: 1 + rnd.IntN(100)}
		dropped := make(map[uint64]bool)
		var out []uint64
		var seq uint64
		for range 200 {
			if rnd.IntN(3) > 0 {
				seq++
				r.push(Event{Data: make([]byte, rnd.IntN(60)), seq: seq}, func(e Event) {
					if dropped[e.seq] {
						t.Fatalf("seed %d: %d dropped twice", seed, e.seq)
					}
					dropped[e.seq] = true
				})
				if r.len() > r.count || r.held > r.bytes && r.len() > 1 {
					t.Fatalf("seed %d: %d events of %d bytes, bounds are %d and %d", seed, r.len(), r.held, r.count, r.bytes)
				}
			} else if e, ok := r.pop(); ok {
				out = append(out, e.seq)
			}
		}
		waits := r.len() > 0
		for e, ok := r.pop(); ok; e, ok = r.pop() {
			out = append(out, e.seq)
		}
		last := uint64(0)
		for _, s := range out {
			if s <= last || dropped[s] {
				t.Fatalf("seed %d: %d after %d, dropped %v", seed, s, last, dropped[s])
			}
			last = s
		}
		if waits && last != seq {
			t.Fatalf("seed %d: the last to come out is %d, the newest is %d", seed, last, seq)
		}
		if len(out)+len(dropped) != int(seq) || r.held != 0 {
			t.Fatalf("seed %d: %d came out and %d were dropped of %d", seed, len(out), len(dropped), seq)
		}
	}
}
