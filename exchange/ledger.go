package exchange

import (
	"time"

	"dray"
)

const maxAccounts = 16384 // peers whose accounts are kept

// Account is what passed between this host and one peer, in bytes of blocks. It outlives connections; the driver may
// persist it.
type Account struct {
	// Sent and Received count blocks that were asked for.
	Sent, Received int64
	// Duplicate counts blocks that came although they were not wanted any more, or never.
	Duplicate int64
	// Seen is when the account last changed hands, on the driver's clock.
	Seen time.Duration
}

// accounts is the ledger: one account per peer, the oldest forgotten beyond a bound.
type accounts struct {
	of    map[dray.PeerID]*Account
	order []dray.PeerID
}

func (e *Engine) account(id dray.PeerID) *Account {
	a := e.accounts.of[id]
	if a == nil {
		a = &Account{}
		e.accounts.of[id] = a
		e.accounts.order = append(e.accounts.order, id)
		if len(e.accounts.order) > maxAccounts {
			old := e.accounts.order[0]
			e.accounts.order = e.accounts.order[1:]
			if p := e.peers[old]; p == nil || !p.up {
				delete(e.accounts.of, old)
			} else {
				e.accounts.order = append(e.accounts.order, old)
			}
		}
	}
	a.Seen = e.now
	return a
}

// Account returns a copy of a peer's account; it is zero for a stranger.
func (e *Engine) Account(id dray.PeerID) Account {
	if a := e.accounts.of[id]; a != nil {
		return *a
	}
	return Account{}
}

// SetAccount restores an account that was kept from an earlier run.
func (e *Engine) SetAccount(id dray.PeerID, a Account) { *e.account(id) = a }

// weight is a peer's share of what this host serves, relative to others, when there is not enough for all: between a half
// for one that only takes and two for one that gave far more than it got.
func (a *Account) weight() float64 {
	const grace = 16 << 20
	r := float64(a.Received+grace) / float64(a.Sent+grace)
	return min(max(r, 0.5), 2)
}
