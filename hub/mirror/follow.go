package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/transport"
)

const (
	beatEvery  = 2 * time.Second // a feed says at least something so often
	aheadLimit = 32              // leaves that a follower asks for at once
)

// errFeed means that a peer's feed broke off, or makes no sense.
var errFeed = errors.New("a feed broke off")

// follow brings the file by a peer's feed.
func (w *flow) follow(ctx context.Context, peer dray.PeerID) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s, r, end, err := w.m.call(ctx, peer, question{
		Ask: askFeed, Kind: w.repo.Kind.Plural(), Repo: w.repo.Name, Commit: w.commit, Path: w.file.Path, Front: w.table.front(),
	})
	if err != nil {
		cancel(nil)
		return &dray.Error{Op: "follow", Peer: peer, Err: err}
	}
	f := &follower{
		w: w, peer: peer, session: w.m.cfg.Swarm.Session(false, peer), over: make(chan struct{}),
		fellows: fellows{swarm: w.m.cfg.Swarm, sessions: make(map[dray.PeerID]Session), late: make(map[dray.PeerID]int)},
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		f.err = f.listen(s, r)
		close(f.over)
	})
	wg.Go(func() { f.speak(ctx, s) })
	defer func() {
		cancel(nil)
		end()
		_ = f.session.Close()
		wg.Wait()
		f.fellows.close()
	}()
	w.borrowed = true
	d := newDigesting(ctx, w.file, w.m.cfg.Blocks)
	if err := f.gather(ctx, d); err != nil {
		return &dray.Error{Op: "follow", Peer: peer, Err: err}
	}
	return w.complete(d)
}

// follower is one attempt to follow a peer.
type follower struct {
	w       *flow
	peer    dray.PeerID
	session Session
	fellows fellows
	over    chan struct{} // closed when the feed has ended
	err     error         // why; valid once over is closed
}

// listen reads the feed until it ends.
func (f *follower) listen(s transport.Stream, r *bufio.Reader) error {
	w := f.w
	self := w.m.cfg.Swarm.Self()
	leaf := time.Now()
	for {
		if err := s.SetReadDeadline(time.Now().Add(w.m.cfg.Silence)); err != nil {
			return fmt.Errorf("%w: %w", errFeed, err)
		}
		var l feedLine
		if err := readLine(r, mostQuestion, &l); err != nil {
			return fmt.Errorf("%w: %w", errFeed, err)
		}
		switch {
		case l.Error != "":
			return fmt.Errorf("%w: it says %q", errFeed, clip(l.Error, 200))
		case l.Root != "":
			return nil
		case len(l.With) > 0:
			f.fellows.are(idsOf(l.With))
		case len(l.Via) > 0:
			via := idsOf(l.Via)
			if slices.Contains(via, self) {
				return fmt.Errorf("%w: it comes from here", errFeed)
			}
			w.change(func() { w.stage, w.path = stageFollowing, via })
		case len(l.Hope) > 0:
			hope := idsOf(l.Hope)
			if !w.unable && breaksOut(w.key, self, hope) {
				return fmt.Errorf("%w: it waits for this node", errFeed)
			}
			w.change(func() { w.stage, w.path = stageChoosing, hope })
		case l.Leaf != "":
			e, ok := l.entry()
			if ok {
				var err error
				if ok, err = w.arrived(e); err != nil {
					return err
				}
			}
			if !ok {
				return fmt.Errorf("%w: it contradicts itself or others", errWrong)
			}
			leaf = time.Now()
		case time.Since(leaf) > w.m.cfg.Patience:
			return fmt.Errorf("%w: no leaf for %v", errFeed, w.m.cfg.Patience)
		}
	}
}

// speak tells the feeder what is needed soon.
func (f *follower) speak(ctx context.Context, s transport.Stream) {
	for {
		select {
		case n := <-f.w.needs:
			if writeLine(s, f.w.m.cfg.Silence, n) != nil {
				return // listen finds out, too
			}
		case <-f.over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// coming is a leaf that was asked for.
type coming struct {
	entry
	got chan arrival // one slot
}

type arrival struct {
	block dray.Block
	err   error
}

// gather gets the leaves in order, some at a time, as the feed tells them.
func (f *follower) gather(ctx context.Context, d *digesting) error {
	w := f.w
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var line []coming
	asked := 0 // entries of the table's run
	silence := time.NewTimer(w.m.cfg.Patience)
	defer silence.Stop()
	over := f.over
	patience := w.m.cfg.Patience
	beside := make(map[int64]bool) // asked for before their turn
	for d.at < w.file.Size {
		w.mu.Lock()
		run, changed := w.table.run, w.changed
		var ahead []entry
		for _, e := range w.table.ahead {
			if !beside[e.begin] && len(ahead) < aheadLimit {
				beside[e.begin] = true
				ahead = append(ahead, e)
			}
		}
		w.mu.Unlock()
		for _, e := range ahead {
			wg.Go(func() {
				if _, err := f.session.Get(ctx, e.leaf); err == nil {
					w.change(func() {}) // readers look again
				}
			})
		}
		for ; asked < len(run) && len(line) < aheadLimit; asked++ {
			c := coming{entry: run[asked], got: make(chan arrival, 1)}
			wg.Go(func() {
				b, err := f.get(ctx, c.leaf)
				c.got <- arrival{b, err}
			})
			line = append(line, c)
		}
		var head chan arrival
		if len(line) > 0 {
			head = line[0].got
			changed = nil // more is asked for when there is room
			if len(line) < aheadLimit && asked == len(run) {
				changed = w.watch(len(run))
			}
		} else if over == nil {
			return f.err
		}
		select {
		case a := <-head:
			if a.err != nil {
				return a.err
			}
			if err := d.leaf(line[0].entry, a.block.Data()); err != nil {
				return err
			}
			line = line[1:]
			w.advance(d.at)
			silence.Reset(patience)
		case <-changed:
		case <-over:
			if over = nil; errors.Is(f.err, errWrong) {
				return f.err
			}
			if f.err != nil { // whoever fed is gone; others may have what is asked for still
				patience = min(swarmWithin, patience)
				silence.Reset(patience)
			}
		case <-silence.C:
			return fmt.Errorf("%w: no bytes for %v", dray.ErrTimeout, patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// watch returns a channel that is closed when the flow changes, or is closed already if more than n leaves are known.
func (w *flow) watch(n int) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.table.run) > n {
		c := make(chan struct{})
		close(c)
		return c
	}
	return w.changed
}

// get gets a leaf: from the fellow whose it is, if there is one who has it soon, or from anybody.
func (f *follower) get(ctx context.Context, leaf cid.Cid) (dray.Block, error) {
	if id, session := f.fellows.of(leaf); session != nil {
		soon, cancel := context.WithTimeout(ctx, shareWithin)
		b, err := session.Get(soon, leaf)
		cancel()
		if ctx.Err() != nil {
			return b, err
		}
		if f.fellows.came(id, err == nil); err == nil {
			return b, nil
		}
	}
	return f.session.Get(ctx, leaf)
}

const (
	shareWithin = time.Second // a fellow's leaf comes, or is asked of everybody
	mostLate    = 3           // a fellow that is late so often in a row is not asked any more
	mostFellows = 16
)

// fellows are those who follow the same peer. Each leaf belongs to one of them, or to this node: whoever it is gets it from the
// peer that feeds, and the others get it from there, so that this peer sends each leaf about once. It is safe for concurrent use.
type fellows struct {
	swarm Swarm

	mu       sync.Mutex
	list     []dray.PeerID
	sessions map[dray.PeerID]Session
	late     map[dray.PeerID]int
}

// are says who they are now. Those that are not connected do not count.
func (f *fellows) are(ids []dray.PeerID) {
	connected := f.swarm.Peers()
	ids = slices.DeleteFunc(ids, func(id dray.PeerID) bool { return !slices.Contains(connected, id) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = ids[:min(len(ids), mostFellows)]
}

// of returns whose a leaf is, or nil if it is this node's.
func (f *fellows) of(leaf cid.Cid) (dray.PeerID, Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, self := leaf.KeyString(), f.swarm.Self()
	owner := self
	for _, id := range f.list {
		if f.late[id] < mostLate && outweighs(key, id, owner) {
			owner = id
		}
	}
	if owner == self {
		return owner, nil
	}
	s := f.sessions[owner]
	if s == nil {
		s = f.swarm.Session(true, owner)
		f.sessions[owner] = s
	}
	return owner, s
}

// came notes whether a fellow's leaf came soon.
func (f *fellows) came(id dray.PeerID, soon bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.late[id]++; soon {
		f.late[id] = 0
	}
}

func (f *fellows) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions {
		_ = s.Close()
	}
}
