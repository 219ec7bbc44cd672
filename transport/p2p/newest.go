package p2p

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// A peer that dials while it is connected may have lost the old connection, or be a new process with the same key: then this
// host would go on writing to a connection that takes everything and carries nothing, until a timeout. So what comes on a new
// connection waits for a moment, in which the old ones are pinged. The usual case is that they answer, after a round trip, and
// nothing changes. If none does, the newest connection wins: the peer goes down and comes up again at once, with what it has said
// on the new connection.

// answerWithin is how long an old connection has to answer.
const answerWithin = time.Second

// try holds back what comes on a new path of a peer until it is known whether its older ones answer. The caller holds mu.
func (h *Host) try(c *conn, nc network.Conn) {
	old := slices.Clone(c.paths)
	over := make(chan struct{})
	if h.closed || len(old) == 0 {
		return
	}
	if c.trials == nil {
		c.trials = make(map[network.Conn]chan struct{})
	}
	c.trials[nc] = over
	h.wg.Go(func() {
		defer close(over)
		h.judge(c, nc, h.silent(c, old))
	})
}

// silent returns those of a peer's paths that do not answer. On a path that is stuck even beginning to ask may wait for longer
// than is waited here.
func (h *Host) silent(c *conn, paths []network.Conn) []network.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	answers := make(chan network.Conn, len(paths))
	asked := 0
	for _, nc := range paths {
		if nc.IsClosed() {
			continue
		}
		asked++
		h.wg.Go(func() {
			if c.pingOn(ctx, nc) != nil {
				nc = nil
			}
			answers <- nc
		})
	}
	dead := slices.Clone(paths)
	for range asked {
		select {
		case alive := <-answers:
			dead = slices.DeleteFunc(dead, func(nc network.Conn) bool { return nc == alive })
		case <-ctx.Done():
			return dead
		}
	}
	return dead
}

// judge ends the trial of a path.
func (h *Host) judge(c *conn, nc network.Conn, dead []network.Conn) {
	h.tell.Lock()
	defer h.tell.Unlock()
	h.mu.Lock()
	delete(c.trials, nc)
	if now := h.peers[c.id]; now != nil {
		delete(now.trials, nc) // that of another path may have replaced c
	}
	isDead := func(p network.Conn) bool { return slices.Contains(dead, p) }
	older := c.paths[:max(slices.Index(c.paths, nc), 0)]
	if h.peers[c.id] != c || h.closed || len(older) == 0 || !slices.ContainsFunc(older, isDead) {
		h.mu.Unlock()
		return
	}
	for _, p := range dead {
		h.wg.Go(func() { _ = p.Close() }) // this may take a while
	}
	if !slices.ContainsFunc(older, func(p network.Conn) bool { return !isDead(p) }) {
		h.log.Info("a peer has come back while its old connection was still open", "peer", c.Peer())
		h.replace(c, slices.DeleteFunc(slices.Clone(c.paths), isDead))
		return
	}
	h.mu.Unlock()
}

// A connection through a relay is slow, and cut when it has carried what the relay allows. When a direct one to the same peer comes,
// the peer goes down and comes up again on that one alone: streams do not move by themselves. Both sides do so, each when it sees
// the direct connection.

// isStraighter reports whether a path is a peer's first that leads through no relay. The caller holds mu.
func (h *Host) isStraighter(c *conn, nc network.Conn) bool {
	return !h.closed && !isRelayed(nc) && len(c.paths) > 0 &&
		!slices.ContainsFunc(c.paths, func(p network.Conn) bool { return !isRelayed(p) })
}

// straighten leaves relayed paths for a direct one. The caller holds tell, and mu, which is released.
func (h *Host) straighten(c *conn, nc network.Conn) {
	for _, p := range c.paths {
		if p != nc {
			h.wg.Go(func() { _ = p.Close() }) // this may take a while
		}
	}
	h.log.Info("a relayed connection has become direct", "peer", c.Peer(), "addr", nc.RemoteMultiaddr())
	h.replace(c, []network.Conn{nc})
}

// replace lets a peer go down and come up again with the given paths. The caller holds tell, and mu, which is released.
func (h *Host) replace(c *conn, paths []network.Conn) {
	next := &conn{host: h, id: c.id, since: c.since, dialled: c.dialled, paths: paths, trials: maps.Clone(c.trials)}
	next.useful.Store(c.useful.Load())
	h.peers[c.id] = next
	c.paths = nil
	close(h.admitted)
	h.admitted = make(chan struct{})
	ups, downs := h.ups, h.downs
	h.mu.Unlock()
	h.plane.drop(c)
	for _, down := range downs {
		down(c.Peer())
	}
	for _, up := range ups {
		up(next)
	}
}

// owner returns the Conn that a path belongs to, or nil if it is none of its peer's any more. It waits for a trial of the path.
func (h *Host) owner(nc network.Conn) *conn {
	for {
		h.mu.Lock()
		c := h.peers[nc.RemotePeer()]
		if c == nil || !slices.Contains(c.paths, nc) {
			h.mu.Unlock()
			return nil
		}
		over := c.trials[nc]
		h.mu.Unlock()
		if over == nil {
			return c
		}
		<-over
	}
}

// pingOn asks for an answer on one path.
func (c *conn) pingOn(ctx context.Context, nc network.Conn) error {
	s, err := nc.NewStream(network.WithAllowLimitedConn(ctx, "a path is asked whether it works"))
	if err != nil {
		return err
	}
	if err := s.SetProtocol(ping.ID); err != nil {
		_ = s.Reset()
		return err
	}
	_, err = newProposed(c, s, ping.ID).ping(ctx)
	return err
}
