package exchange

// Held counts what an Engine keeps at this moment. A driver reports it; a test sees that nothing is left over.
type Held struct {
	// Wants, Asks and Sessions are this host's: CIDs missed (a leaf that two sessions demand may count twice), announcements
	// of them to peers, and sessions not ended.
	Wants, Asks, Sessions int
	// Receiving is the number of bytes handed out in Stores and not answered.
	Receiving int64
	// PeerWants is how many wants of connected peers are remembered, met or not, and Serving the bytes that are being read or
	// written for them.
	PeerWants int
	Serving   int64
	// Early is the number of bytes of blocks that came before they were wanted, and Answers how many walks of connected peers
	// are being answered.
	Early   int64
	Answers int
}

// Held returns what the engine keeps now. It costs time in proportion to the number of peers.
func (e *Engine) Held() Held {
	h := Held{Wants: len(e.wants), Sessions: len(e.sessions), Receiving: e.receiving, Serving: e.serving.out, Early: e.earlyBytes}
	for _, s := range e.sessionList {
		h.Wants += s.demanded
	}
	for _, p := range e.upPeers {
		h.Asks += p.entries
		h.PeerWants += len(p.serve.wants)
		h.Answers += len(p.answers)
	}
	return h
}
