package node

import "dray/exchange"

// Waits returns what each peer is expected to deliver to the session, and which say that they do not have what it asked
// for.
func (s *Session) Waits() []exchange.Wait {
	var waits []exchange.Wait
	s.n.ask(func() { waits = s.n.engine.Waits(s.id) })
	return waits
}
