package exchange

import "fmt"

// Check verifies the engine's invariants and returns the first that does not hold, or nil. Tests and the simulator call
// it after every step; it costs time in proportion to everything that the engine knows.
func (e *Engine) Check() error {
	if err := e.checkWants(); err != nil {
		return err
	}
	if err := e.checkSessions(); err != nil {
		return err
	}
	if err := e.checkPeers(); err != nil {
		return err
	}
	if err := e.checkLimits(); err != nil {
		return err
	}
	return e.checkRoots()
}

func (e *Engine) checkWants() error {
	for c, w := range e.wants {
		blocks := 0
		n := 0
		for a := w.asks.head; a != nil; a = a.wnext {
			n++
			if a.w != w {
				return fmt.Errorf("want %v: an ask of another want in its chain", c)
			}
			if a.kind == askBlock {
				blocks++
			}
			if !a.p.up {
				return fmt.Errorf("want %v: asked of %v, who is gone", c, a.p.id.Short())
			}
		}
		switch {
		case w.cid != c:
			return fmt.Errorf("want %v is filed under %v", w.cid, c)
		case n != w.asks.n || blocks != w.blocks:
			return fmt.Errorf("want %v: %d asks, %d for the block; counted %d and %d", c, n, blocks, w.asks.n, w.blocks)
		case w.state == Waiting && blocks == 0:
			return fmt.Errorf("want %v is Waiting and nobody is expected to answer", c)
		case w.state == Pending && blocks != 0:
			return fmt.Errorf("want %v is Pending although %d peers are expected to answer", c, blocks)
		case w.state > Receiving:
			return fmt.Errorf("want %v is %v and still in the table", c, w.state)
		case len(w.askers) == 0 && w.state != Receiving:
			return fmt.Errorf("want %v: nobody asks", c)
		case (w.heap >= 0) && (w.state != Pending || w.home.pending[w.heap] != w):
			return fmt.Errorf("want %v is %v and in its session's heap", c, w.state)
		case w.state == Pending && w.heap < 0 && !w.contested:
			return fmt.Errorf("want %v is Pending and nowhere to be found", c)
		}
		for _, a := range w.askers {
			if a.s.ended() || a.refs <= 0 || w.lazy && !a.demanded {
				return fmt.Errorf("want %v: asked by session %d, which is %v, %d times", c, a.s.id, a.s.state, a.refs)
			}
		}
	}
	return nil
}

func (e *Engine) checkSessions() error {
	wants := make(map[*session]int)
	waiting := make(map[*session]int)
	for _, w := range e.wants {
		for _, a := range w.askers {
			wants[a.s]++
		}
		if w.state == Waiting {
			waiting[w.home]++
		}
	}
	if len(e.sessions) != len(e.sessionList) {
		return fmt.Errorf("%d sessions, %d in the list", len(e.sessions), len(e.sessionList))
	}
	for _, s := range e.sessionList {
		if s.wants != wants[s] || s.waiting != waiting[s] {
			return fmt.Errorf("session %d counts %d wants and %d waiting; there are %d and %d",
				s.id, s.wants, s.waiting, wants[s], waiting[s])
		}
		unknown, holders := 0, 0
		for _, sp := range s.peers {
			switch sp.use {
			case useUnknown:
				unknown++
			case useHolder:
				holders++
			}
			in := sp.listed()
			if in != (sp.heap >= 0) || in && (*sp.room())[sp.heap] != sp {
				return fmt.Errorf("session %d: peer %v with room %v, in the heap %v", s.id, sp.p.id.Short(), in, sp.heap >= 0)
			}
		}
		if unknown != s.unknown || holders != s.holders {
			return fmt.Errorf("session %d counts %d unknown peers and %d holders; there are %d and %d",
				s.id, s.unknown, s.holders, unknown, holders)
		}
	}
	return nil
}

func (e *Engine) checkPeers() error {
	if err := e.checkBounds(); err != nil {
		return err
	}
	var out int64
	followed := 0
	for _, p := range e.upPeers {
		followed += p.followed
		entries, blocks := 0, 0
		var inflight int64
		for _, l := range []*askList{&p.queue, &p.flight, &p.known} {
			n := 0
			for a := l.head; a != nil; a = a.next {
				n++
				if a.list != l || a.p != p {
					return fmt.Errorf("peer %v: an ask in the wrong list", p.id.Short())
				}
				if e.wants[a.w.cid] != a.w {
					return fmt.Errorf("peer %v is asked for %v, which nobody wants", p.id.Short(), a.w.cid)
				}
				if a.kind == askBlock {
					blocks++
					inflight += a.size
				} else if l == &p.flight {
					return fmt.Errorf("peer %v: an ask of kind %d among those in flight", p.id.Short(), a.kind)
				}
			}
			if n != l.n {
				return fmt.Errorf("peer %v: a list of %d asks counts %d", p.id.Short(), n, l.n)
			}
			entries += n
		}
		if entries != p.entries || blocks != p.blocks || inflight != p.inflight {
			return fmt.Errorf("peer %v counts %d asks, %d blocks, %d bytes; there are %d, %d, %d",
				p.id.Short(), p.entries, p.blocks, p.inflight, entries, blocks, inflight)
		}
		if entries > maxEntries {
			return fmt.Errorf("peer %v is asked for %d things at once", p.id.Short(), entries)
		}
		if err := p.checkServing(e); err != nil {
			return err
		}
		out += p.serve.out
	}
	for _, n := range e.access.follows {
		followed -= n
	}
	if followed != 0 {
		return fmt.Errorf("peers follow %d roots more than is counted", followed)
	}
	if out != e.serving.out {
		return fmt.Errorf("%d bytes are being served, counted %d", out, e.serving.out)
	}
	if e.receiving < 0 {
		return fmt.Errorf("%d bytes are being written", e.receiving)
	}
	return nil
}

func (p *peer) checkServing(e *Engine) error {
	var queued, out int64
	for c, v := range p.serve.wants {
		switch v.state {
		case serveQueued:
			queued += v.size
			if p.serve.tasks[v.heap] != v {
				return fmt.Errorf("peer %v: %v is queued and not in the heap", p.id.Short(), c)
			}
		case serveLoading, serveWriting:
			out += v.size
		}
		found := false
		for o := e.serving.waiting[c]; o != nil; o = o.next {
			found = found || o == v
		}
		if !found {
			return fmt.Errorf("peer %v waits for %v and is not in its chain", p.id.Short(), c)
		}
	}
	if queued != p.serve.queued || out != p.serve.out {
		return fmt.Errorf("peer %v is served %d bytes and waits for %d; counted %d and %d",
			p.id.Short(), out, queued, p.serve.out, p.serve.queued)
	}
	if (p.serve.ring >= 0) != (len(p.serve.tasks) > 0) {
		return fmt.Errorf("peer %v has %d tasks, place %d in the ring", p.id.Short(), len(p.serve.tasks), p.serve.ring)
	}
	if len(p.serve.wants) > e.cfg.PeerWants {
		return fmt.Errorf("peer %v has %d wants kept", p.id.Short(), len(p.serve.wants))
	}
	return nil
}
