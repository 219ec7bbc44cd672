package health

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// at returns a Peer in a state, as little travelled as possible.
func at(t *testing.T, s State) *Peer {
	t.Helper()
	p := &Peer{}
	steps := map[State]func(){
		Unknown:   func() {},
		Dialling:  func() { p.Dial(1) },
		Connected: func() { p.Connect(1) },
		Healthy:   func() { p.Connect(1); p.Deliver() },
		Slow:      func() { p.Connect(1); p.Stall(1, 0) },
		BackedOff: func() { p.Connect(1); p.Stall(1, 0); p.Stall(1, 0) },
		Probing:   func() { p.Connect(1); p.Stall(1, 0); p.Stall(1, 0); p.Advance(p.until, 0) },
		Banned:    func() { p.Connect(1); p.Ban(time.Hour, Manual, "a test") },
		Gone:      func() { p.Connect(1); p.Lose(1, false, 0) },
	}
	steps[s]()
	if p.state != s {
		t.Fatalf("%v instead of %v", p.state, s)
	}
	return p
}

// TestEdges puts a peer into every state and lets every event happen to it (A42, E5, D7).
func TestEdges(t *testing.T) {
	now := time.Minute + time.Second
	events := []struct {
		name string
		do   func(*Peer)
		want [Gone + 1]State // from Unknown, Dialling, Connected, Healthy, Slow, BackedOff, Probing, Banned, Gone
	}{
		{"Connect", func(p *Peer) { p.Connect(2) }, [...]State{
			Connected, Connected, Connected, Healthy, Slow, BackedOff, Probing, Banned, Connected,
		}},
		{"Lose, nothing asked", func(p *Peer) { p.Lose(now, false, 0) }, [...]State{
			Unknown, Dialling, Gone, Gone, Gone, BackedOff, BackedOff, Banned, Gone,
		}},
		{"Unreachable", func(p *Peer) {
			if !p.up {
				p.Unreachable(now, 0)
			}
		}, [...]State{BackedOff, BackedOff, Connected, Healthy, Slow, BackedOff, Probing, Banned, BackedOff}},
		{"Deliver", func(p *Peer) { p.Deliver() }, [...]State{
			Unknown, Dialling, Healthy, Healthy, Healthy, Probing, Probing, Banned, Gone,
		}},
		{"Deliver twice", func(p *Peer) { p.Deliver(); p.Deliver() }, [...]State{
			Unknown, Dialling, Healthy, Healthy, Healthy, Healthy, Healthy, Banned, Gone,
		}},
		{"Stall", func(p *Peer) { p.Stall(now, 0) }, [...]State{
			Unknown, Dialling, Slow, Slow, BackedOff, BackedOff, BackedOff, Banned, Gone,
		}},
		{"Drag", func(p *Peer) { p.Drag(now, 0) }, [...]State{
			Unknown, Dialling, Slow, Slow, BackedOff, BackedOff, BackedOff, Banned, Gone,
		}},
		{"Drag, deliver, drag", func(p *Peer) { p.Drag(now, 0); p.Deliver(); p.Drag(now+time.Second, 0) }, [...]State{
			Unknown, Dialling, BackedOff, BackedOff, BackedOff, BackedOff, BackedOff, Banned, Gone,
		}},
		{"Fail", func(p *Peer) { p.Fail(now, now-1, 0) }, [...]State{
			Unknown, Dialling, Connected, Healthy, Slow, BackedOff, BackedOff, Banned, Gone,
		}},
		{"Reprieve", func(p *Peer) { p.Reprieve() }, [...]State{
			Unknown, Dialling, Connected, Healthy, Slow, Probing, Probing, Banned, Gone,
		}},
		{"Found", func(p *Peer) { p.Found() }, [...]State{
			Unknown, Dialling, Connected, Healthy, Slow, BackedOff, Probing, Banned, Gone,
		}},
		{"Ban", func(p *Peer) { p.Ban(2*time.Hour, InvalidData, "") }, [...]State{
			Banned, Banned, Banned, Banned, Banned, Banned, Banned, Banned, Banned,
		}},
		{"Unban", func(p *Peer) { p.Unban() }, [...]State{
			Unknown, Dialling, Connected, Healthy, Slow, BackedOff, Probing, Connected, Gone,
		}},
		{"a minute", func(p *Peer) { p.Advance(now, 0) }, [...]State{
			Unknown, BackedOff, Connected, Healthy, Slow, Probing, Probing, Banned, Gone,
		}},
		{"an hour", func(p *Peer) { p.Advance(time.Hour, 0) }, [...]State{
			Unknown, BackedOff, Connected, Healthy, Slow, Probing, Probing, Connected, Gone,
		}},
	}
	for _, e := range events {
		for s := Unknown; s <= Gone; s++ {
			p := at(t, s)
			e.do(p)
			if p.state != e.want[s] {
				t.Errorf("%v, %s: %v, want %v", s, e.name, p.state, e.want[s])
			}
		}
	}
	for from := Unknown; from <= Gone; from++ {
		for to := Unknown; to <= Gone; to++ {
			if legal := edges[from]&(1<<to) != 0; legal == panics(func() { (&Peer{state: from}).to(to) }) {
				t.Errorf("%v → %v: legal is %v", from, to, legal)
			}
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

// TestSchedule backs a peer off again and again: 20, 40, 80, 160 s and so on to 10 min, from 1 s on a LAN, each with up to a
// fifth more; a success begins anew (E5).
func TestSchedule(t *testing.T) {
	far := []time.Duration{20, 40, 80, 160, 320, 600, 600, 600}
	near := []time.Duration{1, 2, 4, 8, 16, 32, 64, 128}
	for _, jitter := range []float64{0, 0.5, 0.999} {
		for _, list := range [][]time.Duration{far, near} {
			var p Peer
			if list[0] == 1 {
				p.Near()
			}
			now := time.Second
			p.Connect(now)
			p.Stall(now, jitter)
			p.Stall(now, jitter)
			for i, seconds := range list {
				want := seconds * time.Second
				if got := p.until - now; got < want || got > want+want/5 || jitter == 0 && got != want {
					t.Errorf("jitter %v: back-off %d is %v, want %v and up to a fifth more", jitter, i, got, want)
				}
				if p.Advance(p.until-1, jitter) || p.Usable() || p.Limit() != 0 {
					t.Errorf("back-off %d ends too soon", i)
				}
				now = p.until
				p.Advance(now, jitter)
				p.Stall(now, jitter)
			}
			p.Advance(p.until, jitter)
			p.Deliver()
			p.Deliver()
			p.Stall(now, 0)
			p.Stall(now, 0)
			if got := p.until - now; got != list[0]*time.Second {
				t.Errorf("after a success the first back-off is %v", got)
			}
		}
	}
}

// TestDialSchedule is the same for a peer that cannot be reached: it is dialled on the schedule, two who report the same dial
// count once, and a connection begins anew.
func TestDialSchedule(t *testing.T) {
	var p Peer
	now := time.Second
	for _, seconds := range []time.Duration{20, 40, 80, 160} {
		if !p.MayDial(now) {
			t.Fatalf("at %v it may not be dialled: %v", now, &p)
		}
		p.Dial(now)
		if p.MayDial(now) {
			t.Error("it may be dialled twice at once")
		}
		p.Unreachable(now, 0)
		p.Unreachable(now, 0)
		if p.until != now+seconds*time.Second {
			t.Errorf("backed off for %v, want %v s", p.until-now, int(seconds))
		}
		now = p.until
		p.Advance(now, 0)
	}
	p.Dial(now)
	if at, ok := p.Due(); !ok || !p.Advance(at, 0) || p.state != BackedOff {
		t.Errorf("a dial of which nothing is heard ends in %v", &p)
	}
	p.Found()
	if !p.MayDial(now) {
		t.Error("it may not be dialled at a new address")
	}
	p.Dial(now)
	p.Connect(now)
	p.Lose(now, false, 0)
	if p.MayDial(now) || !p.MayDial(now+redialAfter) {
		t.Errorf("after it was lost it may be dialled at %v", p.until-now)
	}
	p.Dial(p.until)
	p.Unreachable(now, 0)
	if p.until != now+waitFirst {
		t.Errorf("after a connection the first back-off is %v", p.until-now)
	}
}

// TestBreaker opens after five failures inside a minute and no sooner; failures at the same time count once.
func TestBreaker(t *testing.T) {
	fail := func(p *Peer, gap time.Duration, n int) int {
		now := time.Second
		for i := range n {
			now += gap
			if p.Fail(now, now-1, 0) {
				return i + 1
			}
		}
		return 0
	}
	p := at(t, Healthy)
	if n := fail(p, 10*time.Second, 10); n != 5 {
		t.Errorf("opens at failure %d", n)
	}
	if n := fail(at(t, Healthy), 16*time.Second, 10); n != 0 {
		t.Errorf("opens at failure %d although five take more than a minute", n)
	}
	p = at(t, Healthy)
	now := time.Second
	for range 100 {
		now += time.Millisecond
		if p.Fail(now, time.Second/2+1, 0) || p.failed != 1 {
			t.Fatalf("requests that were under way together count %d times", p.failed)
		}
	}
	p = at(t, Healthy)
	fail(p, time.Second, 4)
	p.Deliver()
	if n := fail(p, time.Second, 4); n != 0 {
		t.Error("a success does not reset")
	}
	p = at(t, Connected)
	now = time.Second
	for i := range 5 {
		p.Lose(now, true, 0)
		if p.state == BackedOff != (i == 4) {
			t.Fatalf("connection lost %d times: %v", i+1, p)
		}
		now += time.Second
		p.Connect(now)
	}
	if p.state != BackedOff {
		t.Fatalf("a connection closes the breaker: %v", p)
	}
	p.Lose(now, true, 0)
	p.Advance(p.until, 0)
	p.Dial(p.until)
	p.Connect(p.until)
	if p.state != Probing {
		t.Errorf("a connection after the back-off begins %v, want half open", p)
	}
	p.Lose(now, false, 0)
	if p.state != BackedOff || p.wait != 2*waitFirst {
		t.Errorf("lost while half open: %v, back-off %v", p, p.wait)
	}
}

// TestHalfOpen admits exactly two at once, and closes after two successes.
func TestHalfOpen(t *testing.T) {
	p := at(t, Probing)
	asked, most := 0, 0
	for range 10 {
		if asked < p.Limit() {
			asked++
		}
		most = max(most, asked)
	}
	if most != Probes {
		t.Errorf("%d probes are admitted, want %d", most, Probes)
	}
	if p.Deliver(); p.state != Probing || p.Limit() != Probes {
		t.Errorf("after one success: %v", p)
	}
	if p.Deliver(); p.state != Healthy || p.Limit() != math.MaxInt32 {
		t.Errorf("after two: %v", p)
	}
	p = at(t, Probing)
	p.Deliver()
	if !p.Fail(time.Hour, time.Hour-1, 0) || p.wait != 2*waitFirst {
		t.Errorf("a failure after one success: %v, back-off %v", p, p.wait)
	}
}

// TestHold keeps back-offs short while the network is thought to be cut.
func TestHold(t *testing.T) {
	p := at(t, BackedOff)
	p.Hold(time.Second, true)
	if p.until > 3*time.Second {
		t.Errorf("held at 1s, backed off until %v", p.until)
	}
	now := p.until
	for range 100 {
		p.Advance(now, 0)
		p.Stall(now, 0.9)
		most := waitHeld
		if now >= time.Second+heldLong {
			most = waitHeldLong
		}
		if p.state != BackedOff || p.until-now > most+most/5 {
			t.Fatalf("at %v: %v", now, p)
		}
		now = p.until
	}
	if now < 2*heldLong {
		t.Fatalf("only %v", now)
	}
	p.Hold(now, false)
	p.Advance(now, 0)
	p.Stall(now, 0)
	if p.wait != 2*waitFirst {
		t.Errorf("afterwards it backs off for %v", p.wait)
	}
}

// TestBans end, and repeated failures bring one about.
func TestBans(t *testing.T) {
	p := at(t, Connected)
	p.Stall(1, 0)
	now := time.Second
	for i := 1; i <= banFailures; i++ {
		if p.Stall(now, 0); p.state == Banned != (i == banFailures) {
			t.Fatalf("after %d back-offs: %v", i, p)
		}
		if i < banFailures {
			now = p.until
			p.Advance(now, 0)
		}
	}
	if p.reason != RepeatedFailures || p.until != now+banFor {
		t.Errorf("banned for %v until %v", p.reason, p.until-now)
	}
	if p.Connect(now); p.Usable() {
		t.Error("a connection ends the ban")
	}
	p.Lose(now, true, 0)
	if !p.Advance(p.until, 0) || p.state != Gone || p.failed != 0 || p.reason != NoReason {
		t.Errorf("after the ban: %+v", p)
	}
	var far Peer
	for range 40 {
		now += time.Hour
		far.Advance(now, 0)
		far.Unreachable(now, 0)
		if far.state == Banned {
			t.Fatal("a peer that cannot be reached is banned for that")
		}
	}
}

// TestRandom lets anything happen in any order: the machine never panics, what is due lies ahead, the state fits the
// connection, and time and success lead from everywhere to Healthy.
func TestRandom(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var p Peer
		now := time.Second
		for range 200 {
			now += time.Duration(r.ExpFloat64() * float64(5*time.Second))
			j := r.Float64()
			switch r.IntN(14) {
			case 0:
				p.Connect(now)
			case 1:
				p.Lose(now, r.IntN(2) == 0, j)
			case 2:
				if !p.up {
					p.Unreachable(now, j)
				}
			case 3, 4:
				p.Deliver()
			case 5:
				p.Stall(now, j)
			case 6:
				p.Drag(now, j)
			case 7, 8:
				p.Fail(now, now-time.Duration(r.IntN(1e10)), j)
			case 9:
				p.Reprieve()
			case 10:
				p.Hold(now, r.IntN(2) == 0)
			case 11:
				p.Found()
			case 12:
				if r.IntN(5) == 0 {
					p.Ban(now+time.Minute, Manual, "")
				}
			case 13:
				if p.MayDial(now) {
					p.Dial(now)
				}
			}
			for at, ok := p.Due(); ok && at <= now; at, ok = p.Due() {
				p.Advance(now, j)
			}
			checkPeer(t, seed, &p, now)
		}
		for range 4 {
			if at, ok := p.Due(); ok {
				now = max(now, at)
				p.Advance(now, 0)
			}
			p.Connect(now)
			p.Deliver()
		}
		if p.state != Healthy {
			t.Fatalf("seed %d: ends as %v", seed, &p)
		}
	}
}

func checkPeer(t *testing.T, seed uint64, p *Peer, now time.Duration) {
	t.Helper()
	at, due := p.Due()
	connected := p.state == Connected || p.state == Healthy || p.state == Slow || p.state == Probing
	apart := p.state == Unknown || p.state == Dialling || p.state == Gone
	timed := p.state == BackedOff || p.state == Banned || p.state == Dialling
	switch {
	case due && at <= now:
		t.Fatalf("seed %d: at %v, %v was due at %v", seed, now, p, at)
	case due && p.state != Banned && at > now+waitMax+waitMax/5:
		t.Fatalf("seed %d: %v is due in %v", seed, p, at-now)
	case timed && !due:
		t.Fatalf("seed %d: %v is for ever", seed, p)
	case connected && !p.up || apart && p.up:
		t.Fatalf("seed %d: %v, connected is %v", seed, p, p.up)
	case p.Usable() != (p.Limit() > 0):
		t.Fatalf("seed %d: %v is usable %v with a limit of %d", seed, p, p.Usable(), p.Limit())
	}
}

// TestNoBanForPaths: connections that break, and silence of a peer that has no other way to say no, make it back off longer and
// longer and never ban it.
func TestNoBanForPaths(t *testing.T) {
	for _, c := range []struct {
		name  string
		quiet bool
		fail  func(p *Peer, now time.Duration)
		ban   bool
	}{
		{"silent", false, func(p *Peer, now time.Duration) { p.Stall(now, 0); p.Stall(now, 0) }, true},
		{"silent, and cannot say no", true, func(p *Peer, now time.Duration) { p.Stall(now, 0); p.Stall(now, 0) }, false},
		{"breaks", false, func(p *Peer, now time.Duration) {
			p.Lose(now, true, 0)
			for p.State() == Gone { // until the breaker opens
				p.Connect(now)
				p.Lose(now, true, 0)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &Peer{}
			p.Quiet(c.quiet)
			now := time.Second
			for range 3 * banFailures {
				p.Connect(now)
				if p.State() == Banned {
					break
				}
				c.fail(p, now)
				if until, ok := p.Due(); ok {
					now = until
					if p.State() != Banned {
						p.Advance(now, 0)
					}
				}
			}
			if banned := p.State() == Banned; banned != c.ban {
				t.Errorf("%v after %v", p.Status(), now)
			}
		})
	}
}
