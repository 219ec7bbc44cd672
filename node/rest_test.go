package node

import (
	"testing"
	"time"

	"dray/exchange"
)

// wantRest waits until a node that nobody uses any more holds nothing: no wants, no frames, no walks. What it still holds
// after a minute was leaked.
func wantRest(t *testing.T, name string, n *Node) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 600 {
		if n.rest() == (rest{}) {
			return
		}
		<-tick.C
	}
	t.Errorf("%s still holds %+v", name, n.rest())
}

// rest is what a node holds that it should not hold at rest. Its zero value is nothing.
type rest struct {
	held     exchange.Held
	budget   int64 // bytes taken
	claims   int   // that wait for more
	arrived  int   // frames of blocks that are being written
	walkers  int
	waiters  int
	sinks    int
	cuts     int
	settled  int
	jobs     int
	dialling int
}

func (n *Node) rest() (r rest) {
	n.budget.mu.Lock()
	r.budget, r.claims = n.cfg.FrameBytes-n.budget.left, len(n.budget.queue)
	n.budget.mu.Unlock()
	n.ask(func() {
		r.held = n.engine.Held()
		r.arrived, r.walkers, r.waiters, r.sinks = len(n.arrived), len(n.walkers), len(n.waiters), len(n.sinks)
		r.cuts, r.settled, r.jobs, r.dialling = len(n.cuts), len(n.settled), len(n.queue)-n.head, len(n.dialling)
	})
	return r
}
