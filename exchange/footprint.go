package exchange

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"

	"dray"
)

// PeerHeld counts what an Engine keeps because of one connected peer. Every number has a bound that the peer cannot move,
// whatever it says and whatever it does not read; [Engine.Check] verifies them.
type PeerHeld struct {
	// Asks are announcements to the peer that are not answered, and Cancels those that it has not been told to forget.
	Asks, Cancels int
	// Wants are the peer's, met or not, and Presences the answers that wait to be written to it.
	Wants, Presences int
	// Feeds are the roots spoken of with the peer, Spent the numbers that it gave to roots and took back, News the leaves that it is
	// to be told of, and EarlyHaves what it told of roots that are not known here.
	Feeds, Spent, News, EarlyHaves int
	// Walks are the peer's that are being answered or refused, and Loading the manifests that are being derived for it.
	Walks, Loading int
}

// Bytes returns about how much memory that takes: what each thing takes at most with its places in maps, but for the bitmaps of
// roots, which are as long as this host's own manifests.
func (h PeerHeld) Bytes() int64 {
	const ask, want, name, feed = 192, 320, 64, 512
	return int64(h.Asks*ask + h.Wants*want + (h.Cancels+h.Presences+h.Spent)*name + h.Feeds*feed + h.News*4 + h.EarlyHaves*name +
		h.Walks*feed + h.Loading*name)
}

// HeldFor returns what is kept because of a peer; it is zero for one that is not connected.
func (e *Engine) HeldFor(id dray.PeerID) PeerHeld {
	p := e.peers[id]
	if p == nil || !p.up {
		return PeerHeld{}
	}
	h := PeerHeld{
		Asks: p.entries, Cancels: len(p.cancels), Wants: len(p.serve.wants), Presences: len(p.presences),
		Feeds: len(p.feedList), Spent: len(p.spent), Walks: len(p.answers) + len(p.refusals), Loading: p.loading,
	}
	for _, f := range p.feedList {
		h.News += len(f.news)
		h.EarlyHaves += len(f.early)
	}
	return h
}

// Told calls yield with everything that a peer was asked for, or whether it has it, and remembers, as far as the engine knows: what was
// announced, is not answered and was not withdrawn. Block says that the block itself was asked for.
func (e *Engine) Told(id dray.PeerID, yield func(c cid.Cid, block bool)) {
	p := e.peers[id]
	if p == nil || !p.up {
		return
	}
	for _, l := range []*askList{&p.flight, &p.known} {
		for a := l.head; a != nil; a = a.next {
			if a.told && !a.withdrawn && a.kind != askHeld && a.kind != askMissing {
				yield(a.w.cid, a.kind != askHave)
			}
		}
	}
}

// Theirs returns which leaves of a root a peer has said that it has, a bit for each, and whether it was asked for durable ones. It
// returns nil when the peer has said nothing. The bits are a copy.
func (e *Engine) Theirs(id dray.PeerID, root cid.Cid) (leaves []uint64, durable bool) {
	p := e.peers[id]
	if p == nil || !p.up || p.feeds[root] == nil {
		return nil, false
	}
	return slices.Clone(p.feeds[root].theirs), e.durableCopies(root)
}

// checkBounds verifies that what peers can make the engine keep is bounded.
func (e *Engine) checkBounds() error {
	own := len(e.sessionList) + len(e.counted)
	for _, p := range e.upPeers {
		h := e.HeldFor(p.id)
		for _, b := range []struct {
			what    string
			n, most int
		}{
			{"asks", h.Asks, maxEntries},
			{"cancels", h.Cancels, 2 * maxEntries},
			{"wants", h.Wants, e.cfg.PeerWants},
			{"presences", h.Presences, maxPresences + e.cfg.PeerWants},
			{"feeds", h.Feeds, maxFeeds + own},
			{"spent numbers", h.Spent, maxSpent},
			{"news", h.News, maxNews * h.Feeds},
			{"early haves", h.EarlyHaves, maxEarlyHaves * h.Feeds},
			{"walks", h.Walks, maxWalks + maxRefused},
			{"manifests", h.Loading, maxLoading},
		} {
			if b.n > b.most {
				return fmt.Errorf("peer %v: %d %s are kept, at most %d may be", p.id.Short(), b.n, b.what, b.most)
			}
		}
	}
	up := len(e.upPeers)
	for _, b := range []struct {
		what    string
		n, most int
	}{
		{"peers", len(e.peers), up + maxForgotten},
		{"peers that left", len(e.left), maxForgotten},
		{"accounts", len(e.accounts.of), MaxAccounts + up},
		{"ended wants", len(e.done.has), doneRing},
		{"counts of copies", len(e.serving.copies.of), maxCopies},
		{"changes", len(e.changes), maxChanges},
		{"awaited roots", len(e.awaited), up * maxFeeds},
		{"manifests on the way", len(e.loading), up*maxLoading + maxLoading},
	} {
		if b.n > b.most {
			return fmt.Errorf("%d %s are kept, at most %d may be", b.n, b.what, b.most)
		}
	}
	return nil
}
