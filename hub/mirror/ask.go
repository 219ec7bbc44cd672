package mirror

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"dray"
	"dray/names"
	"dray/transport"
)

const (
	askMost   = 32              // peers that are asked, those that weigh most for the key
	askWithin = time.Second     // a peer that does not say how far it is does not count
	deafFor   = time.Minute     // who does not speak the protocol is not asked
	suspectOf = 1 * time.Hour   // who fed something wrong is not followed
	learnIn   = 5 * time.Second // a trusted peer answers, or the upstream is asked
)

// askAll asks the connected peers how far they are with some content.
func (m *Mirror) askAll(ctx context.Context, key string, except map[dray.PeerID]bool) []standing {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	peers := m.askable(key, except)
	found := make([]standing, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			var answer stateLine
			err := m.askOne(ctx, p, question{Ask: askState, Key: key}, mostQuestion, &answer)
			if err == nil && answer.Error == "" {
				found[i] = standing{
					peer: p, stage: answer.Stage, front: max(answer.Front, 0), path: idsOf(answer.Path), unable: answer.Unable,
				}
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(s standing) bool { return s.peer == "" })
}

// askable returns whom to ask, those that weigh most first.
func (m *Mirror) askable(key string, except map[dray.PeerID]bool) []dray.PeerID {
	peers := slices.Clone(m.cfg.Swarm.Peers())
	now := time.Now()
	m.mu.Lock()
	for _, until := range []map[dray.PeerID]time.Time{m.deaf, m.suspect} {
		for id, t := range until {
			if now.After(t) {
				delete(until, id)
			}
		}
	}
	peers = slices.DeleteFunc(peers, func(id dray.PeerID) bool {
		_, deaf := m.deaf[id]
		_, bad := m.suspect[id]
		return deaf || bad || except[id] || id == m.cfg.Swarm.Self()
	})
	m.mu.Unlock()
	slices.SortFunc(peers, func(a, b dray.PeerID) int {
		if outweighs(key, a, b) {
			return -1
		}
		return 1
	})
	return peers[:min(len(peers), askMost)]
}

// askOne asks a peer something whose answer is one line.
func (m *Mirror) askOne(ctx context.Context, peer dray.PeerID, q question, most int, answer any) error {
	s, r, end, err := m.call(ctx, peer, q)
	if err == nil {
		defer end()
		if err = s.SetReadDeadline(time.Now().Add(answerWithin)); err == nil {
			err = readLine(r, most, answer)
		}
	}
	if errors.Is(err, transport.ErrRefused) {
		m.mu.Lock()
		m.deaf[peer] = time.Now().Add(deafFor)
		m.mu.Unlock()
	}
	return err
}

// askTrusted asks trusted peers what a revision is: the one that weighs most for it if that is not this node, or all in turn.
func (m *Mirror) askTrusted(ctx context.Context, repo names.Repo, revision string, leaderOnly bool) *known {
	key := digest(repo.Kind.Plural(), repo.Name, revision)
	ctx, cancel := context.WithTimeout(ctx, learnIn)
	defer cancel()
	for _, p := range m.askable(key, nil) {
		if !m.cfg.Trusts(p) {
			continue
		}
		if leaderOnly && outweighs(key, m.cfg.Swarm.Self(), p) {
			return nil
		}
		var answer struct {
			commitNote
			Error string `json:"error"`
		}
		q := question{Ask: askCommit, Kind: repo.Kind.Plural(), Repo: repo.Name, Commit: revision}
		if err := m.askOne(ctx, p, q, mostCommit, &answer); err == nil && answer.Error == "" {
			if k, err := answer.known(repo); err == nil && (k.ID == revision || !names.IsCommit(revision)) {
				return k
			}
		}
		if leaderOnly {
			return nil
		}
	}
	return nil
}

// distrust notes that a peer fed something wrong.
func (m *Mirror) distrust(peer dray.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.suspect[peer] = time.Now().Add(suspectOf)
}
