package exchange

import "time"

// Transit is what is on its way to a session at one moment. A series of them says what a transfer spends its time on.
type Transit struct {
	// More says that the session misses something that nobody was asked for yet.
	More bool
	// Full says that there is more to ask for, and that every peer that could be asked has its window full.
	Full bool
	// Limited says that there is more to ask for, and this host's limits forbid it now.
	Limited bool
	// Waiting is how many bytes were asked of peers and have not come, and Window how many may be, at the same peers.
	Waiting, Window int64
	// Writing is how many bytes have come to this host and are not written yet. Behind says that nothing is asked for because of
	// them.
	Writing int64
	Behind  bool
	// Asked is how many peers deliver, Lacking how many have nothing of what is missing, and Others how many more are connected.
	Asked, Lacking, Others int
	// RTT is the round trip to those that deliver, weighted by what was asked of them; 0 when not known.
	RTT time.Duration
}

// Transit returns what is on its way to a session. It changes nothing.
func (e *Engine) Transit(id SessionID) Transit {
	s := e.sessions[id]
	if s == nil {
		return Transit{}
	}
	t := Transit{More: s.demanded > 0 || len(s.pending) > 0, Writing: e.receiving}
	// New requests stop at the bound and start again below it, so that a host that is behind hovers there.
	t.Behind = e.receiving >= e.cfg.ReceiveBytes*3/4
	var weighted float64
	for i, sp := range s.peers {
		if i == waitPeers {
			break
		}
		p := sp.p
		if p.inflight > 0 {
			t.Asked++
			t.Waiting += p.inflight
			t.Window += p.flow.window
			weighted += float64(p.flow.rtt) * float64(p.inflight)
			t.Limited = t.Limited || t.More && p.shape.thirsty
			continue
		}
		if lacks, _ := sp.refused(); lacks {
			t.Lacking++
		} else {
			t.Others++
		}
	}
	if t.Waiting > 0 {
		t.RTT = time.Duration(weighted / float64(t.Waiting))
	}
	t.Limited = t.Limited || t.More && e.shape.asks
	t.Full = t.More && !t.Limited && !t.Behind && t.Waiting > 0 && s.first() == nil
	return t
}
