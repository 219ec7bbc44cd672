package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// Config describes a World. The zero value works.
type Config struct {
	// Seed gives the history: equal seeds and equal calls give equal traces. If zero, 1.
	Seed uint64
	// CheckEvery says after how many turns of a host its engine's invariants are checked in full. If zero, 1; if negative, never. What
	// the World itself watches (answers, stores, the wire) is always checked.
	CheckEvery int
	// Virtual makes blocks that cost no memory, whatever their size. See the package comment.
	Virtual bool
	// Codec sends every message through package wire's encoder and decoder. It needs real blocks.
	Codec bool
	// TurnDelay is how long after an input a host asks its engine what to do: inputs in between are handled together. If zero, only
	// inputs of the same instant are.
	TurnDelay time.Duration
	// Thin makes the trace count actions in place of printing them: cheaper, for large worlds.
	Thin bool
	// Text receives the trace as text. If nil, only its hash is kept.
	Text io.Writer

	sabotage sabotage // by tests
}

// World is a set of hosts in virtual time. It is not safe for concurrent use.
type World struct {
	cfg     Config
	now     time.Duration
	seq     uint64
	queue   events
	rand    *rand.Rand
	hosts   []*Host
	byID    map[dray.PeerID]*Host
	content content
	roots   map[cid.Cid]*Root
	trace   trace
	turns   int
	spare   spare
	alone   bool       // connections that broke are not made again but by the engines
	splits  int        // cuts of the network so far
	lost    [][2]*Host // connections that broke in an outage, to be made again
	err     error      // the first broken invariant
}

// NewWorld returns a World without hosts, at time zero.
func NewWorld(cfg Config) *World {
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = 1
	}
	if cfg.Codec && cfg.Virtual {
		panic("sim: virtual blocks do not pass a codec")
	}
	w := &World{cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 0x5eed)), byID: make(map[dray.PeerID]*Host)}
	w.content.virtual = cfg.Virtual
	w.trace = newTrace(&w.content, cfg.Text, cfg.Thin)
	return w
}

// Now returns the virtual time.
func (w *World) Now() time.Duration { return w.now }

// Rand returns the World's random numbers. Drawing from them is part of the history.
func (w *World) Rand() *rand.Rand { return w.rand }

// Hosts returns every host that was ever added, in that order. The slice belongs to the World.
func (w *World) Hosts() []*Host { return w.hosts }

// Trace returns the hash of everything that happened so far.
func (w *World) Trace() uint64 { return w.trace.value() }

// Turns returns how many times an engine was asked what to do.
func (w *World) Turns() int { return w.turns }

// Err returns the first broken invariant, or nil. A World stops at it.
func (w *World) Err() error { return w.err }

// File makes n new blocks of the given size and returns their numbers.
func (w *World) File(n, size int) []Ref {
	out := make([]Ref, n)
	for i := range out {
		out[i] = w.content.add("b", size)
	}
	return out
}

// all returns the numbers of all blocks made so far.
func (w *World) all() []Ref {
	out := make([]Ref, len(w.content.blocks))
	for i := range out {
		out[i] = Ref(i)
	}
	return out
}

// Block returns the block with a number.
func (w *World) Block(r Ref) dray.Block { return w.content.blocks[r] }

// After plans do for d from now.
func (w *World) After(d time.Duration, do func()) {
	w.seq++
	w.queue.push(event{at: w.now + max(d, 0), seq: w.seq, do: do})
}

// plan makes the next step of a packet happen d from now.
func (w *World) plan(d time.Duration, p *packet, s step) {
	w.seq++
	w.queue.push(event{at: w.now + max(d, 0), seq: w.seq, p: p, step: s})
}

// Run lets time pass until done returns true, an invariant breaks, nothing is planned any more or the clock would pass
// limit. It reports whether done was reached. A nil done is never reached.
func (w *World) Run(limit time.Duration, done func() bool) (reached bool) {
	defer func() {
		if r := recover(); r != nil {
			w.fail("panic: %v\n%s", r, debug.Stack())
			reached = false
		}
	}()
	for w.err == nil {
		if done != nil && done() {
			return true
		}
		if len(w.queue) == 0 || w.queue[0].at > limit {
			w.now = max(w.now, limit)
			return false
		}
		e := w.queue.pop()
		w.now = e.at
		e.happen()
	}
	return false
}

// fail records the first broken invariant.
func (w *World) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: %w", w.now, fmt.Errorf(format, args...))
	}
}

// chance reports true with probability p.
func (w *World) chance(p float64) bool { return p > 0 && w.rand.Float64() < p }

// between returns a random duration in [lo, hi).
func (w *World) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(w.rand.Int64N(int64(hi-lo)))
}
