package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// faultWorld is what every row of TestFaults plays in: two hosts that have a file of 1 GiB, two that fetch it by its root, lines of
// 400 Mbit/s, 10 ms between any two. Host 0 is honest; in most rows host 1 is not well. Connections that break are made again by the
// engines alone.
const faultWorld = `
world alone virtual turn=500µs count=1024 size=1048576
host 0 anchor version=swap up=5e7 down=5e7 delay=5ms disk-latency=100µs
host 1 holder version=swap up=5e7 down=5e7 delay=5ms disk-latency=100µs all knows=1
host 2 getter version=swap up=5e7 down=5e7 delay=5ms disk-latency=100µs give-up root rarest peers=0-1
host 3 getter version=swap up=5e7 down=5e7 delay=5ms disk-latency=100µs root rarest peers=0-1
link 0 1
link 0 2
link 0 3
link 1 2
link 1 3
link 2 3
`

// alsoThere are two more that fetch, who need not end up with everything.
const alsoThere = `
host 4 holder version=swap up=5e7 down=5e7 delay=5ms
host 5 holder version=swap up=5e7 down=5e7 delay=5ms
link 0 4
link 0 5
link 2 4
link 3 5
at 0s fetch 4 root rarest peers=0 n=1
at 0s fetch 5 root rarest peers=0 n=2
`

// TestFaults plays every fault in the middle of a transfer. With an honest holder left, or the path coming back, everybody has
// everything after no more than one and a half times the fault-free time and the fault's own duration, and no more is fetched again than
// one hundredth and what was in flight.
func TestFaults(t *testing.T) {
	free := playFault(t, "")
	type row struct {
		name, events string
		lasts        time.Duration // for whoever has to wait for it
		times        int           // that what is in flight is lost
	}
	rows := []row{
		{"freeze for 10 s", "at 5s freeze 1 for=10s", 0, 1},
		{"freeze for ever", "at 5s freeze 1", 0, 1},
		{"both holders freeze for 10 s", "at 5s freeze 0 for=10s\nat 5s freeze 1 for=10s", 10 * time.Second, 2},
		{"trickle at 1 kB/s", "at 5s trickle 1 n=1000 for=10m", 0, 1},
		{"both trickle for 10 s", "at 5s trickle 0 n=1000 for=10s\nat 5s trickle 1 n=1000 for=10s", 10 * time.Second, 2},
		{"reset every 5 s", "at 5s reset 0 every=5s for=20s\nat 5s reset 1 every=5s for=20s", 0, 10},
		{"corrupt 1 %", "at 0s corrupt 1 p=0.01", 0, 1},
		{"truncate 1 %", "at 0s truncate 1 p=0.01 for=10m", 0, 10},
		{"lie in bitmaps", "at 0s lie 1", 0, 1},
		{"drop half of the wants", "at 0s forget 1 p=0.5", 0, 1},
		{"drop all wants for 10 s", "at 5s forget 0 p=1 for=10s\nat 5s forget 1 p=1 for=10s", 10 * time.Second, 2},
		{"getter suspended for 30 s", "at 5s suspend 2 for=30s", 30 * time.Second, 2},
		{"getter sleeps for 3 h", "at 5s suspend 2 for=3h", 3 * time.Hour, 2},
		{"holders suspended for 30 s", "at 5s suspend 0 for=30s\nat 5s suspend 1 for=30s", 30 * time.Second, 2},
		{"disk full for 10 s", "at 5s full 2 for=10s", 10 * time.Second, 5},
		{"EIO on 1 % of writes", "at 0s write-error 3 p=0.01", 0, 1},
		{"EIO on 1 % of reads", "at 0s read-error 1 p=0.01", 0, 1},
		{"EIO on all reads of one", "at 5s read-error 1 p=1", 0, 1},
		{"getter crashes", "at 5s crash 2 for=2s hosts=0-1,3", 2 * time.Second, 1},
		{"power fails at the getter", "at 5s crash 2 for=2s hosts=0-1,3 p=0.5", 2 * time.Second, 2},
		{"holder crashes", "at 5s crash 1", 0, 1},
		{"half of the peers gone", alsoThere + "at 5s crash 1\nat 5s crash 4\nat 5s crash 5", 0, 4},
		{"network cut for 60 s", "at 5s split 2 hosts=2 for=60s", 60 * time.Second, 2},
		{"holders cut off for 60 s", "at 5s split 0 hosts=0-1 for=60s", 60 * time.Second, 2},
		{"cut for 5 s", "at 5s split 0 hosts=0-1 for=5s", 5 * time.Second, 2},
		{"flood of 300 strangers", "at 1s strangers 0 n=150 every=5s for=5s\nat 1s strangers 2 n=150 every=5s for=5s", 0, 1},
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-30s %9s %9s %9s %12s\n", "fault", "time", "× free", "allowed", "fetched again")
	line := func(name string, f faultResult, allowed time.Duration) {
		fmt.Fprintf(&table, "%-30s %8.2fs %9.2f %8.2fs %8.1f MiB\n", name, f.time.Seconds(), f.time.Seconds()/free.time.Seconds(),
			allowed.Seconds(), float64(f.again)/(1<<20))
	}
	line("none", free, free.time)
	for _, r := range rows {
		f := playFault(t, r.events)
		allowed := free.time*3/2 + r.lasts
		line(r.name, f, allowed)
		if f.time > allowed {
			t.Errorf("%s: it took %v, %v without, at most %v is allowed", r.name, f.time, free.time, allowed)
		}
		if most := 2*(1<<30)/100 + int64(r.times)*faultFlight; f.again > most {
			t.Errorf("%s: %d bytes were fetched again, at most %d may be", r.name, f.again, most)
		}
	}
	t.Log("\n" + table.String())
}

// faultFlight is what two getters may have in flight: of each of three peers a window of bandwidth × delay and 40 ms, and the receive buffers.
const faultFlight = 2 * 3 * (4 << 20)

type faultResult struct {
	time  time.Duration
	again int64 // bytes of blocks that came to the getters beyond the file
}

func playFault(t *testing.T, events string) faultResult {
	t.Helper()
	s, err := ParseSchedule(faultWorld + events)
	if err != nil {
		t.Fatal(err)
	}
	r := s.set(Config{CheckEvery: 500, Thin: true})
	w := r.w
	limit := patience + r.ends
	var f faultResult
	if !w.Run(limit, r.done) && w.err == nil {
		for _, g := range r.getters {
			if x := g.lacks(); x != noRef {
				t.Errorf("%s: %s has not everything after %v: %s", events, g.h.name, w.now, g.h.waits())
			}
		}
	}
	f.time = w.now
	w.Run(max(r.ends, w.now), nil)
	if err := w.Settle(settleFor); err != nil {
		t.Errorf("%s: %v", events, err)
	}
	for _, g := range r.getters {
		f.again += g.h.total.BlockDown - int64(s.Count*s.Size)
	}
	return f
}
