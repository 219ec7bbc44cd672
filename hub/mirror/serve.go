package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dray"
	"dray/hub"
	"dray/names"
	"dray/transport"
)

const mostFeeds = 128 // that peers have at once; more are refused

// errBusy is what a peer is told that has to come later.
var errBusy = errors.New("too many feeds")

// Serve answers a stream of [Protocol], and closes it. It is what a node calls for a Service.
func (m *Mirror) Serve(ctx context.Context, peer dray.PeerID, s transport.Stream) {
	said := false
	defer func() {
		if !said {
			s.Reset()
		}
	}()
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.wg.Add(1) // Close waits for answers, too
	m.mu.Unlock()
	defer m.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	if err := s.SetReadDeadline(time.Now().Add(answerWithin)); err != nil {
		return
	}
	r := bufio.NewReader(s)
	var q question
	err := readLine(r, mostQuestion, &q)
	if err == nil && q.Upstream != m.id {
		err = errors.New("another upstream")
	}
	var answer any
	if err == nil {
		switch q.Ask {
		case askState:
			answer = m.stateFor(ctx, peer, q.Key)
		case askCommit:
			answer, err = m.commitFor(ctx, peer, q)
		case askFeed:
			err = m.feed(ctx, peer, s, r, q)
		default:
			err = fmt.Errorf("no such question: %q", clip(q.Ask, 40))
		}
	}
	if err != nil {
		answer = feedLine{Error: clip(err.Error(), 300)}
	}
	if answer == nil || writeLine(s, answerWithin, answer) == nil {
		said = s.Close() == nil
	}
}

// stateFor says how far some content is here.
func (m *Mirror) stateFor(ctx context.Context, peer dray.PeerID, key string) stateLine {
	m.mu.Lock()
	w := m.flows[key]
	m.mu.Unlock()
	switch {
	case w != nil && w.restricted && !m.cfg.Trusts(peer):
	case w != nil:
		return w.standing()
	case names.IsSHA256(key):
		if _, ok := m.rootOf(ctx, key); ok {
			return stateLine{Stage: stageComplete}
		}
	}
	return stateLine{Stage: stageNone}
}

// commitFor says what a revision is. A peer that asks has no need of what other peers say: it can ask them.
func (m *Mirror) commitFor(ctx context.Context, peer dray.PeerID, q question) (any, error) {
	repo, err := q.target()
	if err != nil {
		return nil, err
	}
	k, err := m.commit(ctx, repo, q.Commit, true)
	if err == nil && k.Restricted && !m.cfg.Trusts(peer) {
		err = hub.ErrGated
	}
	if err != nil {
		return nil, err
	}
	return noteOf(k), nil
}

// feed tells a peer the leaves of a file as they come. It begins to bring the file when nobody has yet.
func (m *Mirror) feed(ctx context.Context, peer dray.PeerID, s transport.Stream, r *bufio.Reader, q question) error {
	m.mu.Lock()
	m.feeds++
	busy := m.feeds > mostFeeds
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.feeds--
		m.mu.Unlock()
	}()
	if busy {
		return errBusy
	}
	repo, err := q.target()
	if err != nil {
		return err
	}
	// What the file is, the upstream says, and not the peer.
	k, err := m.commit(ctx, repo, q.Commit, true)
	if err != nil {
		return err
	}
	if k.Restricted && !m.cfg.Trusts(peer) {
		return hub.ErrGated
	}
	t := target{repo: repo, commit: k.ID, restricted: k.Restricted}
	if t.file, err = k.find(q.Path); err != nil {
		return err
	}
	t.key = keyOf(repo, t.file)
	if _, ok := m.rootOf(ctx, t.key); ok {
		return m.feedKept(s, t.key, q.Front)
	}
	w, err := m.flow(ctx, t)
	if err != nil {
		return err
	}
	defer w.release()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = s.SetReadDeadline(time.Unix(1, 0)) }() // ends the reading below
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	wg.Go(func() {
		defer cancel()
		for {
			var n needLine
			if readLine(r, mostQuestion, &n) != nil {
				return
			}
			w.need(n)
		}
	})
	w.change(func() { w.feeds[peer]++ })
	defer w.change(func() {
		if w.feeds[peer]--; w.feeds[peer] == 0 {
			delete(w.feeds, peer)
		}
	})
	return m.feedFlow(ctx, peer, s, w, q.Front)
}

// feedKept tells the leaves of content that is here.
func (m *Mirror) feedKept(s transport.Stream, key string, front int64) error {
	root, ok := m.notes.root(key)
	err := writeLine(s, answerWithin, feedLine{Via: textsOf([]dray.PeerID{m.cfg.Swarm.Self()})})
	if err != nil || !ok {
		return err
	}
	var batch []byte
	flush := func() {
		if err == nil {
			err = writeAll(s, m.cfg.Silence, batch)
		}
		batch = batch[:0]
	}
	noteErr := m.notes.leaves(key, func(e entry) bool {
		if e.begin >= front && err == nil {
			if batch, err = appendLine(batch, lineOf(e)); len(batch) > 32<<10 {
				flush()
			}
		}
		return err == nil
	})
	flush()
	if err = errors.Join(err, noteErr); err != nil {
		return err
	}
	return writeLine(s, answerWithin, feedLine{Root: root.CID.String(), Size: root.Size, Tsize: root.Tsize})
}

func writeAll(s transport.Stream, within time.Duration, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := s.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err := s.Write(p)
	return err
}

// feedFlow tells the leaves of a flow until it ends. An error is for the peer.
func (m *Mirror) feedFlow(ctx context.Context, peer dray.PeerID, s transport.Stream, w *flow, front int64) error {
	within := m.cfg.Silence
	beat := time.NewTicker(min(beatEvery, within/3))
	defer beat.Stop()
	t := &teller{front: front, peer: peer, ahead: make(map[int64]bool)}
	for {
		w.mu.Lock()
		changed, done, failed, root := w.changed, w.done, w.err, w.root
		via := append([]dray.PeerID{m.cfg.Swarm.Self()}, w.path...)
		fed := w.stage != stageChoosing
		unable := w.unable && !fed
		err := t.take(w)
		with := t.takeFellows(w)
		w.mu.Unlock()
		if err == nil && (fed || len(via) > 1) {
			err = t.tellPath(via, fed)
		}
		if err == nil && len(with) > 0 {
			t.batch, err = appendLine(t.batch, feedLine{With: with})
		}
		for i := 0; i < len(t.news) && err == nil; i++ {
			t.batch, err = appendLine(t.batch, lineOf(t.news[i]))
		}
		if err == nil {
			err = writeAll(s, within, t.batch)
		}
		switch {
		case err != nil:
			return err
		case done && failed != nil:
			return failed
		case unable:
			return errors.New("its upstream has failed")
		case done:
			return writeLine(s, within, feedLine{Root: root.CID.String(), Size: root.Size, Tsize: root.Tsize})
		}
		select {
		case <-changed:
		case <-beat.C:
			if err := writeAll(s, within, []byte("{}\n")); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// teller knows what a feed has told.
type teller struct {
	peer  dray.PeerID
	front int64 // nobody needs to hear of what lies before
	epoch int
	run   int            // entries of the run that were told
	ahead map[int64]bool // the beginnings of those that were told before their turn
	path  string
	with  []string
	news  []entry
	batch []byte
}

// take finds what is new in a flow, whose mu the caller holds.
func (t *teller) take(w *flow) error {
	t.news, t.batch = t.news[:0], t.batch[:0]
	if w.epoch != t.epoch && t.run+len(t.ahead) > 0 {
		return errors.New("it began anew") // what was told may be wrong
	}
	t.epoch = w.epoch
	for ; t.run < len(w.table.run); t.run++ {
		e := w.table.run[t.run]
		if e.begin >= t.front && !t.ahead[e.begin] {
			t.news = append(t.news, e)
		}
		delete(t.ahead, e.begin)
	}
	for _, e := range w.table.ahead {
		if !t.ahead[e.begin] {
			t.ahead[e.begin] = true
			t.news = append(t.news, e)
		}
	}
	return nil
}

// takeFellows returns who else is fed, when that has changed. The caller holds the flow's mu.
func (t *teller) takeFellows(w *flow) []string {
	now := make([]string, 0, len(w.feeds))
	for id := range w.feeds {
		if id != t.peer {
			now = append(now, id.String())
		}
	}
	slices.Sort(now)
	now = now[:min(len(now), 4*mostFellows)]
	if slices.Equal(now, t.with) {
		return nil
	}
	t.with = now
	return now
}

// tellPath says whom the bytes come through, or may come through while nobody feeds this node, when that is new.
func (t *teller) tellPath(via []dray.PeerID, fed bool) error {
	texts := textsOf(via)
	now, l := strings.Join(texts, " "), feedLine{Via: texts}
	if !fed {
		now, l = "hope "+now, feedLine{Hope: texts}
	}
	if now == t.path {
		return nil
	}
	t.path = now
	var err error
	t.batch, err = appendLine(t.batch, l)
	return err
}
