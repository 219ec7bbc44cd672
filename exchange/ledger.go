package exchange

import (
	"time"

	"dray"
)

// MaxAccounts is how many peers' accounts are kept: beyond, those who were seen longest ago are forgotten.
const MaxAccounts = 16384

// Account is what passed between this host and one peer, in bytes of blocks. It outlives connections; the driver may
// persist it, see [Engine.Accounts].
type Account struct {
	// Sent and Received count blocks that were asked for.
	Sent, Received int64
	// Duplicate counts blocks that came although they were not wanted any more, or never.
	Duplicate int64
	// Seen is when the peer was last connected, on the driver's clock; negative for an earlier run's. While it is
	// connected, it is when that began.
	Seen time.Duration
}

func (a *Account) empty() bool { return a.Sent == 0 && a.Received == 0 && a.Duplicate == 0 }

// entry is an account in the ledger's list.
type entry struct {
	Account
	id         dray.PeerID
	next, prev *entry
}

// accounts is the ledger: one account per peer, in a ring from the one that was seen last to the one that was seen
// longest ago. A peer that is connected is always kept; of one that has left, only an account that says something.
type accounts struct {
	of   map[dray.PeerID]*entry
	ring entry // next is the latest, prev the oldest
}

func (l *accounts) init() {
	l.of = make(map[dray.PeerID]*entry)
	l.ring.next, l.ring.prev = &l.ring, &l.ring
}

func (l *accounts) unlink(x *entry) {
	x.next.prev, x.prev.next = x.prev, x.next
	x.next, x.prev = nil, nil
}

// link puts x behind at, which was seen at the same time or later.
func (l *accounts) link(x, at *entry) {
	x.prev, x.next = at, at.next
	at.next.prev, at.next = x, x
}

// forgetAccount drops the account of a peer that is not connected.
func (e *Engine) forgetAccount(x *entry) {
	e.accounts.unlink(x)
	delete(e.accounts.of, x.id)
	if p := e.peers[x.id]; p != nil {
		p.acct = nil
	}
}

// account returns the account of a peer that is here now, made on first use.
func (e *Engine) account(id dray.PeerID) *Account {
	l := &e.accounts
	x := l.of[id]
	if x == nil {
		x = &entry{id: id}
		l.of[id] = x
	} else {
		l.unlink(x)
	}
	l.link(x, &l.ring)
	x.Seen = e.now
	e.boundAccounts()
	return &x.Account
}

// acct returns p's account, also when p has left: what came before may be counted only then.
func (e *Engine) acct(p *peer) *Account {
	if p.acct == nil {
		p.acct = e.account(p.id)
	}
	return p.acct
}

// leaveAccount notes that a peer is gone. Strangers with whom nothing passed are forgotten at once: a crowd of them
// pushes nobody out.
func (e *Engine) leaveAccount(id dray.PeerID) {
	l := &e.accounts
	x := l.of[id]
	switch {
	case x == nil:
	case x.empty():
		e.forgetAccount(x)
	default:
		l.unlink(x)
		l.link(x, &l.ring)
		x.Seen = e.now
	}
}

// boundAccounts forgets the oldest beyond the bound.
func (e *Engine) boundAccounts() {
	l := &e.accounts
	for x := l.ring.prev; len(l.of) > MaxAccounts && x != &l.ring; {
		older := x.prev
		if p := e.peers[x.id]; p == nil || !p.up {
			e.forgetAccount(x)
		}
		x = older
	}
}

// Account returns a copy of a peer's account; it is zero for a stranger.
func (e *Engine) Account(id dray.PeerID) Account {
	if x := e.accounts.of[id]; x != nil {
		return x.Account
	}
	return Account{}
}

// Accounts calls yield with each account that says something, the peer that was seen longest ago first, until it
// returns false: what the driver keeps for the next run. There are at most [MaxAccounts], or as many as there are
// connections.
func (e *Engine) Accounts(yield func(id dray.PeerID, a Account) bool) {
	l := &e.accounts
	for x := l.ring.prev; x != &l.ring; x = x.prev {
		if !x.empty() && !yield(x.id, x.Account) {
			return
		}
	}
}

// SetAccount restores an account that was kept from an earlier run. Accounts are restored in the order of
// [Engine.Accounts], or each takes time in proportion to those seen after it. One with negative numbers is refused, and
// nothing is done.
func (e *Engine) SetAccount(id dray.PeerID, a Account) {
	if a.Sent < 0 || a.Received < 0 || a.Duplicate < 0 {
		return
	}
	l := &e.accounts
	x := l.of[id]
	if p := e.peers[id]; p != nil && p.up {
		a.Seen = x.Seen
		x.Account = a
		return
	}
	if x != nil {
		e.forgetAccount(x)
	}
	if a.empty() {
		return
	}
	x = &entry{id: id, Account: a}
	at := &l.ring
	for at.next != &l.ring && at.next.Seen > a.Seen {
		at = at.next
	}
	l.of[id] = x
	l.link(x, at)
	e.boundAccounts()
}

// weight is a peer's share of what this host serves, relative to others, when there is not enough for all: between a
// half for one that only takes and two for one that gave far more than it got. Share is what it is entitled to because
// of its service: who is to get four times as much owes no more for it.
func (a *Account) weight(share float64) float64 {
	const grace = 16 << 20
	r := (float64(a.Received) + grace) / (float64(a.Sent)/share + grace)
	return min(max(r, 0.5), 2)
}
