package exchange

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/ipfs/go-cid"
)

// What Check verifies of roots: manifests, feeds, demand, walks and credit.

func (s leafSet) count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (e *Engine) checkRoots() error {
	if err := e.checkManifests(); err != nil {
		return err
	}
	for _, s := range e.sessionList {
		if err := e.checkDemand(s); err != nil {
			return err
		}
		if err := e.checkWalk(s); err != nil {
			return err
		}
	}
	awaited := make(map[cid.Cid]int)
	for _, p := range e.upPeers {
		if err := e.checkFeeds(p, awaited); err != nil {
			return fmt.Errorf("peer %v: %w", p.id.Short(), err)
		}
		if err := e.checkAnswers(p); err != nil {
			return fmt.Errorf("peer %v: %w", p.id.Short(), err)
		}
		if err := e.checkAccess(p); err != nil {
			return err
		}
	}
	if len(awaited) != len(e.awaited) {
		return fmt.Errorf("%d roots are awaited, counted %d", len(awaited), len(e.awaited))
	}
	for root, n := range awaited {
		if e.awaited[root] != n {
			return fmt.Errorf("root %v is awaited by %d peers, counted %d", root, n, e.awaited[root])
		}
	}
	return errors.Join(e.checkParts(), e.checkEarly())
}

func (e *Engine) checkManifests() error {
	if len(e.manifests) != len(e.manifestList) {
		return fmt.Errorf("%d manifests, %d in the list", len(e.manifests), len(e.manifestList))
	}
	for _, mf := range e.manifestList {
		root, n := mf.m.Root(), mf.m.Len()
		switch {
		case e.manifests[root] != mf:
			return fmt.Errorf("manifest %v is filed under another root", root)
		case mf.pinned || len(mf.sessions)+len(mf.feeds) == 0:
			return fmt.Errorf("manifest %v is kept and nobody uses it", root)
		case n&63 != 0 && mf.here[len(mf.here)-1]>>(n&63) != 0:
			return fmt.Errorf("manifest %v has leaves beyond its end", root)
		}
		avail := make([]uint16, n)
		for _, f := range mf.feeds {
			if f.m != mf || f.p.feeds[root] != f || !f.p.up {
				return fmt.Errorf("manifest %v: a feed of %v that is not tied to it", root, f.p.id.Short())
			}
			for i := f.theirs.next(0); i >= 0; i = f.theirs.next(i + 1) {
				if i >= n {
					return fmt.Errorf("manifest %v: %v has leaf %d of %d", root, f.p.id.Short(), i, n)
				}
				avail[i]++
			}
		}
		if !slices.Equal(avail, mf.avail) {
			return fmt.Errorf("manifest %v: the peers that have each leaf are %v, counted %v", root, avail, mf.avail)
		}
		for _, s := range mf.sessions {
			if s.man != mf || s.ended() {
				return fmt.Errorf("manifest %v: session %d, which is %v, does not use it", root, s.id, s.state)
			}
		}
		for k := range mf.synced {
			synced, unsynced, syncing := mf.synced[k], mf.unsynced[k], mf.syncing[k]
			if synced&^mf.here[k] != 0 || synced&(unsynced|syncing) != 0 || mf.here[k]&^(synced|unsynced|syncing) != 0 ||
				unsynced != 0 && !e.unsynced || syncing != 0 && !e.syncWait {
				return fmt.Errorf("manifest %v: here %x, synced %x, being synced %x, to be synced %x",
					root, mf.here[k], synced, syncing, unsynced)
			}
		}
	}
	return nil
}

func (e *Engine) checkDemand(s *session) error {
	if s.man == nil {
		if s.demanded != 0 {
			return fmt.Errorf("session %d demands %d leaves of nothing", s.id, s.demanded)
		}
		return nil
	}
	if e.manifests[s.man.m.Root()] != s.man || !slices.Contains(s.man.sessions, s) {
		return fmt.Errorf("session %d uses a manifest that is not kept", s.id)
	}
	if n := s.demand.count(); n != s.demanded {
		return fmt.Errorf("session %d demands %d leaves, counted %d", s.id, n, s.demanded)
	}
	for i := s.demand.next(0); i >= 0; i = s.demand.next(i + 1) {
		c := s.man.m.Leaf(i)
		switch {
		case i>>6 < s.low:
			return fmt.Errorf("session %d demands leaf %d and looks only from word %d on", s.id, i, s.low)
		case s.man.m.First(i) != i:
			return fmt.Errorf("session %d demands leaf %d, which comes first at %d", s.id, i, s.man.m.First(i))
		case s.asks(e.wants[c]):
			return fmt.Errorf("session %d demands leaf %d, which it wants already", s.id, i)
		case s.man.here.has(i):
			return fmt.Errorf("session %d demands leaf %d, which is here", s.id, i)
		}
		if _, came := e.early[c]; came && e.wants[c] == nil {
			return fmt.Errorf("session %d demands leaf %d, which has come", s.id, i)
		}
	}
	for _, sp := range s.peers {
		if f := sp.p.feeds[s.man.m.Root()]; sp.use == useFeed && (f == nil || f.m != s.man) {
			return fmt.Errorf("session %d asks %v for what it has, and it was never asked", s.id, sp.p.id.Short())
		}
	}
	return nil
}

func (e *Engine) checkWalk(s *session) error {
	w := &s.walk
	switch {
	case w.p == nil:
	case !w.p.up || !slices.Contains(w.p.walks, s):
		return fmt.Errorf("session %d walks with %v, who does not know", s.id, w.p.id.Short())
	case s.timer.heap < 0 || s.timer.at > max(e.now, w.at)+walkLongest:
		return fmt.Errorf("session %d waits for a walk for ever", s.id)
	}
	if w.from != nil && !w.from.up {
		return fmt.Errorf("session %d expects leaves of %v, who is gone", s.id, w.from.id.Short())
	}
	if w.allowed < 0 {
		return fmt.Errorf("session %d got %d bytes more than its walk allowed", s.id, -w.allowed)
	}
	return nil
}

func (e *Engine) checkFeeds(p *peer, awaited map[cid.Cid]int) error {
	followed := 0
	if len(p.feeds) != len(p.feedList) {
		return fmt.Errorf("%d feeds, %d in the list", len(p.feeds), len(p.feedList))
	}
	for _, f := range p.feedList {
		if f.awaited {
			awaited[f.root]++
		}
		if f.number != 0 {
			followed++
		}
		switch {
		case f.p != p || p.feeds[f.root] != f:
			return fmt.Errorf("feed %v is filed wrongly", f.root)
		case !f.following && f.number == 0:
			return fmt.Errorf("feed %v is kept and nobody follows", f.root)
		case f.following != (f.mine != 0) || f.following && p.mine[f.mine] != f,
			f.number != 0 && p.numbers[f.number] != f:
			return fmt.Errorf("feed %v has the numbers %d and %d, which mean another", f.root, f.mine, f.number)
		case f.following && f.said == slices.Contains(p.follows, f):
			return fmt.Errorf("feed %v: said %v, and to be said as well", f.root, f.said)
		case f.m != nil && !slices.Contains(f.m.feeds, f):
			return fmt.Errorf("feed %v is tied to a manifest that does not know it", f.root)
		case f.m == nil && (e.manifests[f.root] != nil || f.theirs != nil || f.heard != nil || f.owes || f.told):
			return fmt.Errorf("feed %v is not tied to its manifest", f.root)
		case f.awaited != (f.number != 0 && f.m == nil):
			return fmt.Errorf("feed %v: awaited %v with manifest %v", f.root, f.awaited, f.m != nil)
		case f.n != f.theirs.count():
			return fmt.Errorf("feed %v: the peer has %d leaves, counted %d", f.root, f.theirs.count(), f.n)
		case f.known && (!f.following || !f.said || f.m == nil || f.theirs == nil):
			return fmt.Errorf("feed %v: an answer to no question", f.root)
		case f.number == 0 && (f.listed || f.owes || f.told || f.heard != nil):
			return fmt.Errorf("feed %v is told to a peer that does not follow", f.root)
		case f.listed != slices.Contains(p.newsy, f) || (f.owes || len(f.news) > 0) && !f.listed:
			return fmt.Errorf("feed %v has something to tell, listed %v", f.root, f.listed)
		}
		if err := f.checkHeard(e); err != nil {
			return err
		}
	}
	if followed != p.followed || len(p.numbers) != followed || followed > maxFeeds {
		return fmt.Errorf("%d roots followed under %d numbers, counted %d", followed, len(p.numbers), p.followed)
	}
	return nil
}

// checkHeard compares what the peer was told with what is true: they may differ only where there is something left to say.
func (f *feed) checkHeard(e *Engine) error {
	if f.heard == nil {
		return nil
	}
	has := f.m.here
	if f.durable {
		has = f.m.synced
	}
	for i := range f.m.m.Len() {
		told := f.heard.has(i)
		switch {
		case told && (i < f.first || i >= f.end):
			return fmt.Errorf("feed %v: told of leaf %d, which is not in %d to %d", f.root, i, f.first, f.end)
		case e.cfg.Withhold || i < f.first || i >= f.end || f.theirs != nil && f.theirs.has(i):
		case told != has.has(i) && !slices.Contains(f.news, uint32(i)) && !(f.rescan && i >= f.at):
			return fmt.Errorf("feed %v: leaf %d is here: %v, and the peer will never hear it", f.root, i, !told)
		}
	}
	return nil
}

func (e *Engine) checkAnswers(p *peer) error {
	for _, s := range p.walks {
		if s.walk.p != p || s.ended() {
			return fmt.Errorf("it is asked for a walk of session %d, which does not ask", s.id)
		}
	}
	switch {
	case len(p.answers) > maxWalks:
		return fmt.Errorf("%d of its walks are answered at once", len(p.answers))
	case len(p.refusals) > maxRefused:
		return fmt.Errorf("%d of its walks are refused at once", len(p.refusals))
	case p.allowed < 0 || p.allowed > maxAllowed:
		return fmt.Errorf("it may send %d bytes unasked", p.allowed)
	case p.serve.sent < 0:
		return fmt.Errorf("it was sent %d bytes", p.serve.sent)
	case !p.caps.Indexes && len(p.feedList)+len(p.walks)+len(p.answers) > 0:
		return fmt.Errorf("it does not speak TensorSwap, and is spoken to in it")
	case p.caps.Indexes && p.greeted && !p.dirty && !p.writing && p.creditDue():
		return fmt.Errorf("it has %d bytes of credit left, %d more are due and nobody tells it",
			p.creditTold-p.used, p.credit()-p.creditTold)
	}
	return nil
}

// checkParts compares what answers to walks take with what is counted.
func (e *Engine) checkParts() error {
	reads, held := 0, int64(0)
	for _, p := range e.upPeers {
		held += p.carried
		for _, a := range p.answers {
			if a.reading {
				reads++
			}
			for _, b := range a.blocks {
				held += int64(len(b.Data))
			}
		}
	}
	if reads != e.parts.reads || held != e.parts.held || reads > walkReads {
		return fmt.Errorf("answers to walks: %d are read and %d bytes held, counted %d and %d", reads, held, e.parts.reads, e.parts.held)
	}
	return nil
}

func (e *Engine) checkEarly() error {
	var sum int64
	for c, x := range e.early {
		sum += int64(x.b.Size())
		if x.b.CID() != c || x.s.ended() || e.wants[c] != nil && e.wants[c].state == Pending {
			return fmt.Errorf("block %v is kept for session %d, which is %v", c, x.s.id, x.s.state)
		}
		if !slices.Contains(e.earlyList, c) {
			return fmt.Errorf("block %v is kept and not in the list", c)
		}
	}
	if sum != e.earlyBytes || sum > maxEarlyBlock || len(e.early) > maxEarly {
		return fmt.Errorf("%d blocks of %d bytes are kept, counted %d", len(e.early), sum, e.earlyBytes)
	}
	return nil
}
