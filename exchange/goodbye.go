package exchange

import (
	"time"

	"dray"
)

// Goodbye says that a peer has said that it is about to stop. What was asked of it is asked of others at once, and its going is
// no failure: when it comes back it is as good as before. The driver disconnects it.
func (e *Engine) Goodbye(now time.Duration, id dray.PeerID) {
	e.now = now
	p := e.peers[id]
	if p == nil || !p.up {
		return
	}
	p.withholds = true // nothing is asked of it from here on
	e.roomChanged(p)
	for _, l := range []*askList{&p.queue, &p.flight, &p.known} {
		for l.head != nil {
			w := l.head.w
			e.dropAsk(l.head, false)
			e.unwait(w)
		}
	}
	e.PeerDown(now, id) // it owes nothing any more
}
