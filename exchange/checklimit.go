package exchange

import "fmt"

// checkLimits verifies what limit.go and ledger.go say of themselves.
func (e *Engine) checkLimits() error {
	h := &e.shape
	thirsty, answering := make(map[*peer]bool), make(map[*peer]bool)
	for _, p := range h.thirsty {
		if thirsty[p] || !p.shape.thirsty {
			return fmt.Errorf("peer %v waits for its bucket twice, or does not know", p.id.Short())
		}
		thirsty[p] = true
	}
	for _, p := range h.answers {
		if answering[p] || !p.shape.answering {
			return fmt.Errorf("peer %v has a walk that waits twice, or does not know", p.id.Short())
		}
		answering[p] = true
	}
	for _, p := range e.upPeers {
		s := &p.shape
		if s.thirsty != thirsty[p] || s.answering != answering[p] {
			return fmt.Errorf("peer %v waits for a bucket, and nobody looks", p.id.Short())
		}
		share := h.services[p.id].share()
		if s.up.rate != share*float64(h.limits.PeerUp) || s.down.rate != share*float64(h.limits.PeerDown) {
			return fmt.Errorf("peer %v is limited to %v and %v", p.id.Short(), s.up.rate, s.down.rate)
		}
		if p.acct == nil || e.accounts.of[p.id] == nil || p.acct != &e.accounts.of[p.id].Account {
			return fmt.Errorf("peer %v is connected and has no account", p.id.Short())
		}
		for _, b := range []*bucket{&s.up, &s.down} {
			if b.level > b.most()+1 {
				return fmt.Errorf("peer %v has saved %v of %v", p.id.Short(), b.level, b.most())
			}
		}
	}
	if h.up.level > h.up.most()+1 || h.down.level > h.down.most()+1 {
		return fmt.Errorf("%v and %v are saved", h.up.level, h.down.level)
	}
	return e.checkAccounts()
}

func (e *Engine) checkAccounts() error {
	l := &e.accounts
	n := 0
	for x := l.ring.next; x != &l.ring; x = x.next {
		if n++; l.of[x.id] != x || x.next.prev != x {
			return fmt.Errorf("the account of %v is misfiled", x.id.Short())
		}
	}
	if n != len(l.of) {
		return fmt.Errorf("%d accounts in the ring, %d in the table", n, len(l.of))
	}
	if n > MaxAccounts+len(e.upPeers) {
		return fmt.Errorf("%d accounts are kept", n)
	}
	return nil
}
