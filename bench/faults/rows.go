package faults

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	// strikeAt is how much of the file has come when a fault strikes.
	strikeAt = 0.3
)

// fault is a row.
type fault struct {
	name string
	// title says what happens, for the table.
	title string
	// holders is how many there are; if zero, one. What goes wrong goes wrong with the first.
	holders int
	// lasts is the fault's own duration, by which a transfer may be longer.
	lasts time.Duration
	// slower, if positive, is how many times as long a transfer may take at the most, instead of 1.5.
	slower float64
	// memory, if positive, is how much the holder may have resident, in bytes.
	memory int64
	// losses is how often what is in flight may be lost; if zero, once.
	losses int
	// first, if set, returns what the first holder is instead of an honest and healthy one.
	first func(ctx context.Context, s *scene) (spec, error)
	// rivals says that the row is run with the rivals too. They get the rows that end soon and need nothing of Dray's.
	rivals bool
	// missing, if set, says why the row cannot run here, or "".
	missing func(b *bench) string
	// prepare is called before the clock of the bench's own patience runs.
	prepare func(ctx context.Context, b *bench) error
	// before is called when the holders are up.
	before func(ctx context.Context, s *scene) error
	// strike is called when strikeAt of the file has come. Its ctx ends with the getter.
	strike func(ctx context.Context, s *scene) error
	// drive, if set, replaces all of it.
	drive func(ctx context.Context, s *scene) error
	// quick says that the row is among the few that run as a test.
	quick bool
}

// onFirst makes a strike of what is done to the first holder's path for a time; zero is for ever.
func onFirst(t trouble, lasts time.Duration) func(context.Context, *scene) error {
	return func(ctx context.Context, s *scene) error {
		p := s.holders[0].proxy
		p.set(t)
		if lasts == 0 {
			return nil
		}
		err := pause(ctx, lasts)
		p.set(trouble{})
		return err
	}
}

// lying makes the first holder a liar.
func lying(kind string) func(context.Context, *scene) (spec, error) {
	return func(_ context.Context, s *scene) (spec, error) { return s.b.liar(kind), nil }
}

// faults are all rows, in the order of the report. In a quick bench all durations are a fifth.
func (b *bench) faults() []*fault {
	t := func(d time.Duration) time.Duration {
		if b.quick {
			return d / 5
		}
		return d
	}
	sec := func(n float64) time.Duration { return t(time.Duration(n * float64(time.Second))) }
	fullBefore, fullStrike := full(sec(5))
	dyingBefore, dyingStrike := dying(sec(5))
	return []*fault{
		{
			name: "freeze", title: "the path freezes for 10 s, connections stay open",
			lasts: sec(10), strike: onFirst(trouble{frozen: true}, sec(10)),
		},
		{
			name: "freeze-one", title: "the path to one of two holders freezes for ever", rivals: true, quick: true,
			holders: 2, strike: onFirst(trouble{frozen: true}, 0),
		},
		{
			name: "trickle", title: "the path brings 1 kB/s for 10 s",
			lasts: sec(10), strike: onFirst(trouble{rate: 1000}, sec(10)),
		},
		{
			name: "trickle-one", title: "one of two holders brings 1 kB/s for ever",
			holders: 2, strike: onFirst(trouble{rate: 1000}, 0),
		},
		{
			name: "reset", title: "all connections are reset every 5 s", rivals: true, losses: 4,
			strike: func(ctx context.Context, s *scene) error {
				for {
					s.holders[0].proxy.reset()
					if err := pause(ctx, sec(5)); err != nil {
						return err
					}
				}
			},
		},
		{
			name: "corrupt", title: "1 % of the packets have a byte changed for 5 s", losses: 20,
			lasts: sec(5), strike: onFirst(trouble{corrupt: 0.01}, sec(5)),
		},
		{
			name: "corrupt-one", title: "the same for ever, on the path to one of two holders",
			holders: 2, losses: 20, strike: onFirst(trouble{corrupt: 0.01}, 0),
		},
		{
			name: "corrupt-blocks", title: "a byte is changed in 1 % of the blocks, for ever", rivals: true, losses: 4,
			before: func(_ context.Context, s *scene) error {
				s.holders[0].proxy.set(trouble{corrupt: 0.01 * packetBytes / (1 << 20)})
				return nil
			},
		},
		{
			name: "truncate", title: "every connection ends after 48 MiB", rivals: true, losses: 8,
			before: func(_ context.Context, s *scene) error {
				s.holders[0].proxy.set(trouble{cutAfter: 48 << 20 * s.b.size / (256 << 20)})
				return nil
			},
		},
		{
			name: "cut", title: "the network is cut for 60 s: connections break and are refused", lasts: sec(60),
			strike: func(ctx context.Context, s *scene) error {
				p := s.holders[0].proxy
				p.refuse()
				return errors.Join(pause(ctx, sec(60)), p.accept())
			},
		},
		{
			name: "black-hole", title: "the network is cut for 60 s: nothing passes, nothing breaks", lasts: sec(60),
			strike: onFirst(trouble{frozen: true}, sec(60)),
		},
		{
			name: "wrong-blocks", title: "one of two holders sends wrong blocks", quick: true,
			holders: 2, first: lying(liarWrong),
		},
		{
			name: "lie", title: "one of two holders announces what it has not, over and over",
			holders: 2, first: lying(liarLacks),
		},
		{
			name: "drop", title: "one of two holders announces all and never answers",
			holders: 2, first: lying(liarDrops),
		},
		{
			name: "kill-getter", title: "the getter is killed (-9) and started again", rivals: true, quick: true,
			drive: func(ctx context.Context, s *scene) error {
				if err := s.startGetter(); err != nil {
					return err
				}
				if err := s.share(ctx, 0.5); err != nil {
					return err
				}
				p := s.current()
				p.kill()
				<-p.done
				if err := s.startGetter(); err != nil {
					return err
				}
				return s.waitGetter(ctx)
			},
		},
		{
			name: "kill-holder", title: "the only holder is killed (-9), and is back after 3 s", quick: true,
			lasts: sec(3), rivals: true,
			strike: func(ctx context.Context, s *scene) error {
				h := s.holders[0]
				h.current().kill()
				<-h.current().done
				if err := pause(ctx, sec(3)); err != nil {
					return err
				}
				return h.start(ctx)
			},
		},
		{
			name: "stop", title: "the only holder is stopped (SIGSTOP) for 30 s", lasts: sec(30),
			strike: func(ctx context.Context, s *scene) error {
				h := s.holders[0].current()
				return errors.Join(h.signal(syscall.SIGSTOP), pause(ctx, sec(30)), h.signal(syscall.SIGCONT))
			},
		},
		{
			name: "stop-one", title: "one of two holders is stopped for 30 s", holders: 2,
			strike: func(ctx context.Context, s *scene) error {
				h := s.holders[0].current()
				return errors.Join(h.signal(syscall.SIGSTOP), pause(ctx, sec(30)), h.signal(syscall.SIGCONT))
			},
		},
		{
			name: "clock-on", title: "the getter's wall clock goes on by a day, and all connections are reset",
			prepare: buildStepping, before: stepClock(stepAfter, 24*time.Hour), strike: resetAt(stepAfter),
		},
		{
			name: "clock-back", title: "the same back by half an hour",
			prepare: buildStepping, before: stepClock(stepAfter, -30*time.Minute), strike: resetAt(stepAfter),
		},
		{
			name: "disk-full", title: "somebody else fills the getter's disk up for 5 s", rivals: true, lasts: sec(5), losses: 2,
			missing: needsRoot, before: fullBefore, strike: fullStrike, drive: struckAndAgain,
		},
		{
			name: "disk-small", title: "the getter's disk has room for half of it; then room is made", losses: 2,
			missing: needsRoot, drive: tooSmall,
		},
		{
			name: "eio", title: "the getter's disk fails (EIO) for 5 s", lasts: sec(5), losses: 2,
			missing: needsFuse, before: dyingBefore, strike: dyingStrike, drive: struckAndAgain,
		},
		{
			name: "eio-one", title: "the disk of one of two holders fails for ever", holders: 2,
			missing: needsFuse, first: dyingHolder,
			strike: func(_ context.Context, s *scene) error { return s.bad.tell("fail") },
		},
		{
			name: "flood", title: "a flood of 10,000 strangers with identities of their own",
			slower: 1.1, memory: floodMemory, drive: underFlood,
		},
		{
			name: "flood-elsewhere", title: "the same flood, sent to somebody else who hangs up (what the strangers' own work costs)",
			slower: 1.1, memory: floodMemory, drive: besideFlood,
		},
		{
			name: "half", title: "two of four holders are killed", holders: 4, losses: 2,
			strike: func(_ context.Context, s *scene) error {
				for _, h := range s.holders[:2] {
					h.current().kill()
				}
				return nil
			},
		},
	}
}

// quickSlower is how much more time a quick bench allows: it runs beside other tests, and judges the rest.
const quickSlower = 8

// allowed returns how long a transfer with the fault may take, and how many bytes may come again.
func (b *bench) allowed(f *fault, freeSeconds float64) (seconds float64, again int64) {
	slower := f.slower
	if slower == 0 {
		slower = 1.5
	}
	if b.quick {
		slower *= quickSlower
	}
	return slower*freeSeconds + f.lasts.Seconds(), b.size/100 + int64(max(f.losses, 1))*b.flight
}

// judge says what is wrong with an outcome, or "".
func (b *bench) judge(f *fault, free, out *outcome, p program) string {
	if out.Error != "" {
		return "no file: " + out.Error
	}
	if out.Wrong > 0 {
		return fmt.Sprintf("%d wrong bytes", out.Wrong)
	}
	seconds, again := b.allowed(f, free.Seconds)
	switch {
	case out.Wire < b.size && b.size-out.Wire > b.size/100 && !p.unsure:
		return "it went round the proxy"
	case out.Seconds > seconds:
		return fmt.Sprintf("slow: %.1f s, allowed %.1f", out.Seconds, seconds)
	case out.Wire-free.Wire > again:
		return fmt.Sprintf("%.1f MiB came again, allowed %.1f", mib(out.Wire-free.Wire), mib(again))
	case f.memory > 0 && out.Peak > f.memory:
		return fmt.Sprintf("%.0f MiB resident, allowed %.0f", mib(out.Peak), mib(f.memory))
	case p.events && out.Silence > maxSilence.Seconds():
		return fmt.Sprintf("silent for %.1f s", out.Silence)
	}
	return ""
}

// maxSilence is how long a getter may be without progress and without a reason.
const maxSilence = 10 * time.Second

func mib(n int64) float64 { return float64(n) / (1 << 20) }
