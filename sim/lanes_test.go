package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestStateLaneConverges is the second half of invariant 9: a host that only listens believes, in the end, just what is so, after any
// number of cuts, resets and outages while leaves come and go at the host it listens to. Settle compares.
func TestStateLaneConverges(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 9))
		var b strings.Builder
		fmt.Fprintf(&b, "world seed=%d count=200 size=10 bones=3\n", seed+1)
		fmt.Fprintf(&b, "host 0 holder version=swap knows=3 has=0-%d delay=%dms streams=1\n", r.IntN(200), 1+r.IntN(40))
		fmt.Fprintf(&b, "host 1 holder version=swap knows=3 has=%d delay=%dms up=20000\n", r.IntN(200), 1+r.IntN(40))
		b.WriteString("link 0 1\nat 0s fetch 1 root n=1\nat 0s pause 1\n")
		if r.IntN(3) == 0 {
			b.WriteString("at 0s count-copies 1\nat 0s count-copies 0\n")
		}
		for range 40 {
			at := time.Duration(r.Int64N(int64(4 * time.Second)))
			first := r.IntN(200)
			last := first + r.IntN(200-first)
			switch r.IntN(8) {
			case 0, 1, 2:
				fmt.Fprintf(&b, "at %v give 0 blocks=%d-%d\n", at, first, last)
			case 3, 4:
				fmt.Fprintf(&b, "at %v lose 0 blocks=%d-%d\n", at, first, last)
			case 5, 6:
				fmt.Fprintf(&b, "at %v cut %d peer=%d for=%v\n", at, first&1, 1-first&1, at/10+time.Millisecond)
			case 7:
				fmt.Fprintf(&b, "at %v %s %d for=%v hosts=0 p=0.3 every=300ms\n", at,
					[]Verb{DoFreeze, DoSuspend, DoReset, DoSplit, DoTruncate}[r.IntN(5)], first&1, time.Second)
			}
		}
		s, err := ParseSchedule(b.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Run(Config{}); err != nil {
			t.Fatalf("%v:\n%s", err, b.String())
		}
	}
}

// TestStalledPeerDelaysNobody is invariant 7: a peer that stops reading, answering or writing costs the others no more time than if it
// were not there. The sabotaged driver, which lets one connection hold up all, shows that the limit can be missed.
func TestStalledPeerDelaysNobody(t *testing.T) {
	const world = `
world virtual turn=500µs count=128 size=1048576
host 0 anchor version=swap up=5e7 down=5e7
host 2 getter version=swap up=5e7 down=5e7 start=1s root peers=0
link 0 2
`
	const other = "host 1 holder version=swap %s\nlink 0 1\nlink 1 2\nat 0s fetch 1 root peers=0 n=1\n"
	run := func(text string, s sabotage) time.Duration {
		t.Helper()
		plan, err := ParseSchedule(world + text)
		if err != nil {
			t.Fatal(err)
		}
		r := plan.set(Config{CheckEvery: 100, sabotage: s})
		if !r.w.Run(10*time.Minute, r.done) {
			if s == sound {
				t.Fatalf("%s: not done: %v", text, r.w.err)
			}
			return 10 * time.Minute
		}
		return r.w.now
	}
	alone := run("", sound)
	limit := time.Second + (alone-time.Second)*5/4
	for name, text := range map[string]string{
		"reader": fmt.Sprintf(other, "") + "at 900ms freeze 1\n",
		"writer": fmt.Sprintf(other, "mute"),
		"disk":   fmt.Sprintf(other, "stuck"),
		"asleep": fmt.Sprintf(other, "") + "at 900ms suspend 1\n",
	} {
		if took := run(text, sound); took > limit {
			t.Errorf("%s: with a stalled peer it took until %v, without until %v", name, took, alone)
		}
		if took := run(text, sabotageOneLine); (name == "reader" || name == "asleep") && took <= limit {
			t.Errorf("%s: one connection that holds up all others costs nothing", name)
		}
	}
}
