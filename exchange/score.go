package exchange

import (
	"fmt"
	"math"
	"time"
)

// Strategy is how an Engine orders the peers that could be asked for a block: of those with room, the first is asked. The
// order is kept in heaps by a key that each peer carries. The key is computed when something happens to that peer (it is
// asked, answers, stalls, connects) and never while peers are compared, so that choosing costs the same however many
// there are. Equal keys go in the order in which the peers first appeared. None of the strategies asks a peer beyond its
// window, or for what it said it lacks.
type Strategy uint8

// The strategies. The zero Strategy is ExpectedFirst, and the only one that finishes at about the same time everywhere.
const (
	// ExpectedFirst takes the peer that would deliver first, by its measured rate and round trip and by what was asked
	// of it already.
	ExpectedFirst Strategy = iota
	// FastestFirst takes the peer with the shortest round trip.
	FastestFirst
	// HighestBandwidth takes the peer with the highest measured rate.
	HighestBandwidth
	// BestScore takes the peer with the highest score, see [Score].
	BestScore
	// RoundRobin takes the peer that was asked longest ago.
	RoundRobin
	// Random takes any peer, each equally likely.
	Random
	// LeastLoaded takes the peer of which the fewest bytes are asked now.
	LeastLoaded
)

// String returns the strategy's name.
func (s Strategy) String() string {
	return nameOf([]string{
		"ExpectedFirst", "FastestFirst", "HighestBandwidth", "BestScore", "RoundRobin", "Random", "LeastLoaded",
	}, int(s))
}

// Score says how much each property of a peer counts under [BestScore]. The weights must sum to 1, give or take 0.01.
// Each property is a number between 0 and 1 that keeps growing however good the peer is, so that no two peers tie at the
// top; their weighted sum loses one part in a hundred for each second since the peer last delivered, down to a tenth.
type Score struct {
	// Latency weighs 10 ms / (10 ms + round trip).
	Latency float64
	// Bandwidth weighs rate / (10 MB/s + rate).
	Bandwidth float64
	// Reliability weighs the share of requests that were answered with the block, the latest counting most.
	Reliability float64
}

// ScoreDefault returns the weights that are used when none are given.
func ScoreDefault() Score { return Score{0.3, 0.4, 0.3} }

// ScoreLatency returns weights for small blocks that are needed soon.
func ScoreLatency() Score { return Score{0.6, 0.2, 0.2} }

// ScoreBandwidth returns weights for bulk transfer.
func ScoreBandwidth() Score { return Score{0.2, 0.6, 0.2} }

// ScoreBalanced returns weights that favour nothing.
func ScoreBalanced() Score { return Score{0.33, 0.34, 0.33} }

// ScoreReliability returns weights for networks where many peers do not answer.
func ScoreReliability() Score { return Score{0.15, 0.15, 0.7} }

// ScoreEdge returns weights for slow, distant devices.
func ScoreEdge() Score { return Score{0.4, 0.3, 0.3} }

// Check returns an error unless the weights are between 0 and 1 and sum to 1 ± 0.01.
func (s Score) Check() error {
	for _, w := range [...]float64{s.Latency, s.Bandwidth, s.Reliability} {
		if !(w >= 0 && w <= 1) {
			return fmt.Errorf("a score's weight is %v; it must be between 0 and 1", w)
		}
	}
	if sum := s.Latency + s.Bandwidth + s.Reliability; math.Abs(sum-1) > 0.01+1e-9 {
		return fmt.Errorf("a score's weights sum to %v instead of 1", sum)
	}
	return nil
}

const (
	scoreRTT     = 10 * time.Millisecond
	scoreRate    = 10e6 // bytes a second
	scoreNewRate = 1e6  // of a peer that has delivered nothing yet; its round trip counts as assumedRTT
	scoreDecay   = 0.01 // lost in each second without a delivery
	scoreLeast   = 0.1
	trustGain    = 0.1 // how much the latest request counts
	randomScale  = 1 << 20
)

// merit is what the strategies other than ExpectedFirst remember of a peer.
type merit struct {
	trust float64       // share of requests that were answered with the block
	seen  time.Duration // last delivery or, before the first, when it connected
	turn  int64         // when it was last asked for a block, counted in requests of the engine
	drawn int64         // Random: its next turn on the engine's clock of turns
}

func (m *merit) succeeded(now time.Duration) {
	m.trust += trustGain * (1 - m.trust)
	m.seen = now
}

func (m *merit) failed() { m.trust -= trustGain * m.trust }

// score returns the peer's score between 0 and 1.
func (p *peer) score(s Score, now time.Duration) float64 {
	rtt, rate := p.flow.rtt, p.flow.rate
	if rtt == 0 {
		rtt = assumedRTT
	}
	if rate == 0 {
		rate = scoreNewRate
	}
	sum := s.Latency*float64(scoreRTT)/float64(scoreRTT+rtt) + s.Bandwidth*rate/(scoreRate+rate) + s.Reliability*p.merit.trust
	return sum * max(scoreLeast, 1-scoreDecay*(now-p.merit.seen).Seconds())
}

// key returns the peer's place among those that could be asked: smaller goes first.
func (e *Engine) key(p *peer) int64 {
	switch e.cfg.Strategy {
	case FastestFirst:
		if p.flow.rtt == 0 {
			return int64(assumedRTT)
		}
		return int64(p.flow.rtt)
	case HighestBandwidth:
		if p.flow.rate == 0 {
			return -scoreNewRate
		}
		return -int64(p.flow.rate)
	case BestScore:
		return -int64(p.score(e.cfg.Score, e.now) * (1 << 40))
	case RoundRobin:
		return p.merit.turn
	case Random:
		if p.merit.drawn <= e.turn {
			p.merit.drawn = e.draw()
		}
		return p.merit.drawn
	case LeastLoaded:
		return p.inflight
	}
	return int64(p.flow.expect(p.inflight))
}

// took notes that the peer is asked for a block.
func (e *Engine) took(p *peer) {
	switch e.cfg.Strategy {
	case RoundRobin:
		e.turn++
		p.merit.turn = e.turn
	case Random:
		e.turn = max(e.turn, p.merit.drawn)
		p.merit.drawn = e.draw()
	}
}

// draw returns a peer's next turn under Random. Waiting times of this shape forget how long was waited already, so that
// every peer in the heap is equally likely to be next at any time, whoever was asked before and whoever comes or goes.
func (e *Engine) draw() int64 { return e.turn + 1 + int64(e.rand.ExpFloat64()*randomScale) }
