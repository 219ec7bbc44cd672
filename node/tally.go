package node

import (
	"sort"
	"time"

	"dray"
	"dray/exchange"
)

// tally keeps what a call tells of its progress beside its own counts: who gave how much, how fast it goes and what came
// twice. It belongs to the call's goroutine.
type tally struct {
	n       *Node
	entry   *docket // nil for what is no transfer
	sources map[dray.PeerID]*Source

	at   time.Time // of the last sample of the rate
	done int64     // then
}

func (n *Node) newTally(entry *docket) *tally {
	return &tally{n: n, entry: entry, sources: make(map[dray.PeerID]*Source), at: time.Now()}
}

// opened notes a session that works for the call.
func (t *tally) opened(id exchange.SessionID) {
	if t.entry != nil {
		t.entry.opened(id)
	}
}

// credit notes that a peer gave so many bytes. What nobody gave counts for nobody.
func (t *tally) credit(peer dray.PeerID, size int64) {
	if peer == "" {
		return
	}
	s := t.sources[peer]
	if s == nil {
		s = &Source{Peer: peer}
		t.sources[peer] = s
	}
	s.Bytes += size
}

// bring brings p up to date, whose own counts are. A session of 0 has ended: what it waited for stays as it was.
func (t *tally) bring(p *Progress, session exchange.SessionID) {
	now := time.Now()
	if d := now.Sub(t.at); d >= progressGap/2 {
		rate := float64(p.Done-p.Reused-t.done) / d.Seconds()
		if p.Rate == 0 {
			p.Rate = rate
		} else {
			p.Rate += 0.3 * (rate - p.Rate)
		}
		t.at, t.done = now, p.Done-p.Reused
	}
	t.n.ask(func() {
		if session != 0 {
			p.Peers, p.Waiting = t.n.engine.Standings(session), t.n.waits(session, p.Unreached)
		}
		for _, s := range t.sources {
			if l := t.n.links[s.Peer]; l != nil {
				s.Protocol = l.protocolName()
			}
		}
	})
	if t.entry != nil {
		p.Duplicates = t.entry.duplicates()
	}
	p.Fetched, p.Sources = 0, nil
	for _, s := range t.sources {
		p.Sources = append(p.Sources, *s)
		p.Fetched += s.Bytes
	}
	sort.Slice(p.Sources, func(i, k int) bool {
		a, b := &p.Sources[i], &p.Sources[k]
		if a.Bytes != b.Bytes {
			return a.Bytes > b.Bytes
		}
		return a.Peer < b.Peer
	})
}
