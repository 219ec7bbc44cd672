package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/node"
	"dray/transport"
	"dray/unixfs"
)

const (
	giveUpAfter = 3 * time.Second // nobody has it: how long to wait for somebody who does
	lookEvery   = 200 * time.Millisecond
)

// asking gets single blocks for a command: from the store, and from peers, whom the node dials because the session names
// them. It gives up when there is nobody left who could deliver.
type asking struct {
	node    *node.Node
	session *node.Session
	root    cid.Cid
	peers   []transport.Peer
	offline bool
	gave    int64 // bytes that the peers had given before
	close   func()
}

// reach returns the node to ask: one without a network when there is nobody to ask, so that what is missing is found to
// be missing at once.
func (h *house) reach(peers []transport.Peer) (n *node.Node, offline bool, done func(), err error) {
	if h.net != nil && (len(peers) > 0 || h.finders.able() || len(h.node.Peers()) > 0) {
		return h.node, false, func() {}, nil
	}
	if h.net == nil {
		return h.node, true, func() {}, nil
	}
	n, err = node.New(node.Config{Store: h.store.Files(), Log: h.env.log()})
	if err != nil {
		return nil, true, nil, err
	}
	return n, true, func() { _ = n.Close() }, nil
}

// ask begins to ask for blocks under a root. The returned context ends when it is hopeless, with the reason.
func (h *house) ask(ctx context.Context, t target, order exchange.Order) (context.Context, *asking, error) {
	h.used(ctx, t.root)
	n, offline, done, err := h.reach(t.peers)
	if err != nil {
		return ctx, nil, err
	}
	a := &asking{node: n, root: t.root, peers: t.peers, offline: offline}
	var ids []dray.PeerID
	for _, p := range t.peers {
		ids = append(ids, p.ID)
	}
	if !offline {
		n.Introduce(t.peers...) // who is named in a session and has an address is dialled
		a.gave = n.Given(t.peers...)
	}
	a.session = n.NewSession(node.SessionConfig{Peers: ids, Order: order, Root: t.root, Origin: originOf(ctx, "command")})
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	if !offline {
		wg.Go(func() { a.watch(ctx, cancel) })
	}
	a.close = func() {
		cancel(dray.ErrClosed)
		wg.Wait()
		_ = a.session.Close()
		done()
	}
	return ctx, a, nil
}

// watch ends the asking when, for a while, nobody has been left.
func (a *asking) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	since := time.Now()
	for pause(ctx, lookEvery) == nil {
		a.session.Pulse(ctx, a.node.Unreached(a.peers...)...)
		err := a.hopeless()
		switch {
		case err == nil:
			since = time.Now()
		case time.Since(since) >= a.patience() || a.nobody():
			cancel(err)
			return
		}
	}
}

// patience is how long to wait when it looks hopeless: longer for peers who gave something and were lost.
func (a *asking) patience() time.Duration {
	unreached := a.node.Unreached(a.peers...)
	switch {
	case len(unreached) > 0 && !node.AllRefuse(unreached) && a.node.Given(a.peers...) > a.gave:
		return node.WaitForLost
	case node.Busy(unreached):
		return node.WaitForRoom
	}
	return giveUpAfter
}

// nobody reports whether there never was anybody to ask: none is named, connected or found.
func (a *asking) nobody() bool {
	_, found := a.session.Sought()
	return len(a.peers)+len(found)+len(a.session.Peers()) == 0
}

// hopeless returns an error when everybody who was named is unreachable or, like everybody who is connected, says that
// they do not have it.
func (a *asking) hopeless() error {
	looking, found := a.session.Sought()
	if looking {
		return nil
	}
	peers := mergePeers(append(slices.Clone(a.peers), found...))
	waits, away := a.session.Peers(), a.node.Unreached(peers...)
	lines := awayLines(away)
	named := len(lines)
	for _, w := range waits {
		if !w.Lacks || w.Asked > 0 {
			return nil
		}
		for _, p := range peers {
			if p.ID == w.Peer {
				named++
			}
		}
	}
	var denied []dray.PeerID
	for _, w := range waits {
		if w.Denied {
			denied = append(denied, w.Peer)
		}
	}
	switch {
	case named < len(peers):
		return nil // somebody is being dialled
	case len(waits)+len(lines) == 0:
		return &tried{err: &dray.Error{Op: "get", CID: a.root, Err: node.NobodyHas(0)}}
	case len(denied) > 0:
		return &tried{err: node.RefusedError(a.root, node.Among(denied, a.peers)), lines: append(lines, waitLines(waits)...)}
	case node.AllRefuse(away):
		return &tried{err: a.node.NotAdmittedError(a.root, away), lines: waitLines(waits)}
	case len(lines) > 0:
		return &tried{
			err:   &dray.Error{Op: "get", CID: a.root, Err: dray.ErrUnreachable},
			lines: append(lines, waitLines(waits)...),
		}
	}
	return &tried{err: &dray.Error{Op: "get", CID: a.root, Err: dray.ErrNotFound}, lines: waitLines(waits)}
}

func (a *asking) unreached() []string { return awayLines(a.node.Unreached(a.peers...)) }

// awayLines says of each peer why it was not reached.
func awayLines(away []node.Unreached) []string {
	var lines []string
	for _, u := range away {
		lines = append(lines, fmt.Sprintf("%v: %s", u.Peer.ID, oneLine(u.Err)))
	}
	return lines
}

// explain gives an error of what was done with the asking's context the reason why the context ended, and names who was
// tried.
func (a *asking) explain(ctx context.Context, err error) error {
	var t *tried
	switch {
	case err == nil:
		return nil
	case errors.As(context.Cause(ctx), &t):
		return t
	case a.offline:
		return nobody(a.root, a.peers, err)
	case errors.Is(err, dray.ErrTimeout) || errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return &tried{
			err:   &dray.Error{Op: "get", CID: a.root, Err: dray.ErrTimeout},
			lines: append(a.unreached(), waitLines(a.session.Peers())...),
		}
	}
	return err
}

// resolve follows the target's path to what it names.
func (a *asking) resolve(ctx context.Context, names []string) (cid.Cid, error) {
	if len(names) == 0 {
		return a.root, nil
	}
	return unixfs.ResolvePath(ctx, a.session, a.root, names)
}

// tried is an error together with who was tried, and why each did not help.
type tried struct {
	err   error
	lines []string
}

func (t *tried) Error() string {
	return strings.Join(append([]string{t.err.Error()}, t.lines...), "\n  ")
}

func (t *tried) Unwrap() error { return t.err }

// nobody explains that a block is missing here and that nobody could be asked.
func nobody(root cid.Cid, peers []transport.Peer, err error) error {
	if !errors.Is(err, dray.ErrNotFound) || len(peers) > 0 {
		return err
	}
	return &dray.Error{Op: "get", CID: root, Err: fmt.Errorf(
		"%w in this home, and there is nobody to ask; name a peer with --from MULTIADDR, or use a ticket", dray.ErrNotFound)}
}

// waitLines says of each peer why it has not delivered.
func waitLines(waits []exchange.Standing) []string {
	var lines []string
	for _, w := range waits {
		lines = append(lines, fmt.Sprintf("%v: %s", w.Peer, waitReason(w)))
	}
	return lines
}

func waitReason(w exchange.Standing) string {
	switch {
	case w.Asked > 0:
		return fmt.Sprintf("connected, asked for %s (%s), silent for %s",
			plural(int64(w.Asked), "block"), size(w.Bytes), seconds(w.Silent))
	case w.Denied:
		return "connected, does not accept the ticket's capability"
	case w.Lacks:
		return "connected, says that it does not have it"
	}
	return fmt.Sprintf("connected, %s, silent for %s", strings.ToLower(w.Health.String()), seconds(w.Silent))
}

// oneLine writes an error of several lines as one.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(cause(err).Error(), func(r rune) bool { return r == '\n' }), "; ")
}
