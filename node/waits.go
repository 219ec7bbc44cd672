package node

import (
	"time"

	"dray"
	"dray/exchange"
	"dray/transport"
)

// Wait is one reason why a call does not advance.
type Wait struct {
	// Reason is why.
	Reason exchange.Reason
	// Peer is whom it is about, or "", and Path the connection to it, if there is one.
	Peer dray.PeerID
	Path transport.Info
	// Since is when it began. Until is when it ends by itself or something else is tried; the zero time if nobody knows.
	Since, Until time.Time
	// Blocks and Bytes are what is waited for.
	Blocks int
	Bytes  int64
	// Rate is what the peer was measured to deliver in bytes a second; 0 when not known.
	Rate float64
	// Err is why the peer could not be reached the last time, or nil.
	Err error
}

// Waits returns why the session does not advance, what weighs most first, at most sixteen reasons; nil if it misses nothing.
func (s *Session) Waits() []Wait {
	var waits []Wait
	s.n.ask(func() { waits = s.n.waits(s.id, nil) })
	return waits
}

// Peers returns what each connected peer is expected to deliver to the session, and which say that they do not have what it
// asked for.
func (s *Session) Peers() []exchange.Standing {
	var list []exchange.Standing
	s.n.ask(func() { list = s.n.engine.Standings(s.id) })
	return list
}

// waits returns why a session does not advance, in the words of the Node. Called on the loop.
func (n *Node) waits(id exchange.SessionID, unreached []Unreached) []Wait {
	now := n.now()
	var out []Wait
	waits := n.engine.Waits(id, now)
	if n.cfg.Finder != nil {
		waits = n.seeking(id, waits)
	}
	for _, w := range waits {
		if w.Reason == exchange.ReasonLooking && n.cfg.Finder == nil {
			if len(out) > 0 {
				continue // nobody looks
			}
			w.Reason, w.Until = exchange.ReasonNobody, 0
		}
		x := Wait{
			Reason: w.Reason, Peer: w.Peer, Since: n.start.Add(w.Since), Blocks: w.Blocks, Bytes: w.Bytes, Rate: w.Rate,
		}
		if w.Until != 0 {
			x.Until = n.start.Add(w.Until)
		}
		if l := n.links[w.Peer]; l != nil {
			x.Path = l.conn.Info()
		}
		for i := range unreached {
			if unreached[i].Peer.ID == w.Peer {
				x.Err = unreached[i].Err
			}
		}
		out = append(out, x)
	}
	return out
}

// seeking gives the reasons of the engine, which knows when to look for peers and not what becomes of it, the state of the search:
// it goes on, or has ended. That matters when nobody is left who may deliver. Called on the loop.
func (n *Node) seeking(id exchange.SessionID, waits []exchange.Wait) []exchange.Wait {
	s := n.seeks[id]
	if s == nil || s.running == 0 && !s.ended || len(waits) == 0 {
		return waits
	}
	state := exchange.ReasonLooking
	if s.running == 0 {
		state = exchange.ReasonNotFound
	}
	nobody := true
	for i, w := range waits {
		switch w.Reason {
		case exchange.ReasonLooking, exchange.ReasonNobody:
			waits[i].Reason = state
			return waits
		}
		nobody = nobody && saysNo(w.Reason)
	}
	if nobody { // and the engine has not asked for a search yet: the session began with one
		waits = append(waits, exchange.Wait{Reason: state, Since: waits[0].Since})
	}
	return waits
}

// saysNo reports whether a peer for which this is the reason delivers nothing as things are.
func saysNo(r exchange.Reason) bool {
	switch r {
	case exchange.ReasonLacks, exchange.ReasonRefused, exchange.ReasonBanned:
		return true
	}
	return false
}

// Hopeless reports whether, by the reasons why a call waits, nobody has what it misses as things are: all who are there say so,
// and nobody is being sought. Sure says that, besides, all who might know of somebody were asked: waiting a little is of no use.
func Hopeless(waits []Wait) (hopeless, sure bool) {
	for _, w := range waits {
		switch {
		case w.Reason == exchange.ReasonNotFound:
			sure = true
		case !saysNo(w.Reason) && w.Reason != exchange.ReasonNobody:
			return false, false
		}
	}
	return len(waits) > 0, sure
}
