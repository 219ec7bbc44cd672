package node

import (
	"errors"
	"time"

	"dray"
	"dray/exchange"
	"dray/transport"
	"dray/wire"
)

// A peer whose admission is undecided is a guest: it has no link, so nothing is said to it, and what it says is kept, frame by
// frame, within the bounds of Config.Tentative. When it is admitted it gets its link and what was kept is handed over first. If
// some of it is lost, the connection is dropped instead, because the state lane has no gaps: both sides begin again.
//
// The way of a guest's frame:
//
//  1. The stream's reader (linger) reads it and asks the loop, which keeps it.
//  2. Admitted, the loop opens the link and a goroutine handles what was kept, in order. Meanwhile the readers wait.
//  3. Each reader handles the frame that it holds, and goes on as any other (run).

const (
	guestStreams = 4 // of one guest; more are reset
	farewells    = 16
	// farewellTime bounds how long it may take to tell a peer that it is refused.
	farewellTime = time.Second
	// readmitEvery is how often guests that nobody decides about are looked at.
	readmitEvery = time.Second
)

// errDismissed ends the streams of a guest that is not admitted.
var errDismissed = errors.New("not admitted")

// door is what a Node knows of those who wait for admission, and of those who are told that they are refused or that this host
// goes. Owned by loop.
type door struct {
	guests    map[dray.PeerID]*guest
	tentative *transport.Tentative[keptFrame] // what they have said; it has the same peers
	refusing  int                             // peers that are being told that they are not admitted
	leaving   map[*link]struct{}              // those that were told goodbye and are still there
	left      func()                          // called when none of them is
}

func newDoor(cfg transport.TentativeConfig) door {
	return door{guests: make(map[dray.PeerID]*guest), tentative: transport.NewTentative[keptFrame](cfg)}
}

// guest is a connected peer whose admission is undecided. Owned by loop, save for decided and admitted.
type guest struct {
	conn    transport.Conn
	readers map[*reader]struct{}
	// decided is closed when the peer was admitted and everything that was kept of it is handled, or when it is dismissed.
	// admitted is set before.
	decided  chan struct{}
	admitted bool
}

// keptFrame is one frame of a guest's.
type keptFrame struct {
	r   *reader
	buf []byte
}

// knock decides about a peer that has connected.
func (n *Node) knock(conn transport.Conn) {
	id := conn.Peer()
	switch n.verdict(conn) {
	case transport.Admitted:
		n.openLink(conn)
	case transport.Refused:
		n.refuse(conn)
	case transport.Undecided:
		if n.door.guests[id] != nil {
			return
		}
		n.dismissAll(n.door.tentative.Add(time.Now(), id))
		n.door.guests[id] = &guest{conn: conn, readers: make(map[*reader]struct{}), decided: make(chan struct{})}
		n.cfg.Log.Debug("a peer waits for admission", "peer", id)
	}
}

// verdict says whether a connected peer is heard.
func (n *Node) verdict(conn transport.Conn) transport.Verdict {
	switch id := conn.Peer(); {
	case n.cfg.Admission != nil:
		return n.cfg.Admission.Admit(id)
	case n.membersOnly && !n.members[id] && conn.Info().Inbound:
		return transport.Refused
	}
	return transport.Admitted
}

// refuse tells a peer that it is not admitted, and disconnects it. Of a crowd, most are disconnected without a word.
func (n *Node) refuse(conn transport.Conn) {
	n.cfg.Log.Debug("refusing a peer that is not admitted", "peer", conn.Peer())
	tell := n.door.refusing < farewells
	if tell {
		n.door.refusing++
	}
	n.wg.Go(func() {
		if tell {
			n.farewell(conn, wire.Note{Kind: wire.NoteRefused, Data: []byte("not admitted")})
			n.do(func() { n.door.refusing-- })
		}
		conn.Close()
	})
}

// guestKnocks gives a stream to its guest and reports whether there is one.
func (n *Node) guestKnocks(r *reader) bool {
	g := n.door.guests[r.peer]
	if g == nil {
		return false
	}
	if len(g.readers) >= guestStreams {
		r.s.Reset()
		return true
	}
	g.readers[r] = struct{}{}
	r.guest = g
	return true
}

// guestGone forgets a guest that has left.
func (n *Node) guestGone(id dray.PeerID) {
	if g := n.door.guests[id]; g != nil {
		n.door.tentative.Take(time.Now(), id)
		n.dismiss(g)
	}
}

// dismiss ends a guest's stay.
func (n *Node) dismiss(g *guest) {
	delete(n.door.guests, g.conn.Peer())
	close(g.decided)
	for r := range g.readers {
		r.s.Reset()
	}
}

// dismissAll disconnects guests that had to go.
func (n *Node) dismissAll(list []transport.Held[keptFrame]) {
	for _, h := range list {
		if g := n.door.guests[h.Peer]; g != nil {
			n.dismiss(g)
			n.wg.Go(func() { g.conn.Close() })
		}
	}
}

// Readmit asks the Admission again about every connected peer: guests that are admitted now are heard, what was kept of them
// first, and peers that are admitted no longer are disconnected. [Node.SetAccess] does so by itself.
func (n *Node) Readmit() { n.ask(n.readmit) }

// readmit is Readmit, called on the loop or before there is one.
func (n *Node) readmit() {
	for id, g := range n.door.guests {
		switch n.verdict(g.conn) {
		case transport.Admitted:
			n.admit(g)
		case transport.Refused:
			n.door.tentative.Take(time.Now(), id)
			n.dismiss(g)
			n.refuse(g.conn)
		}
	}
	for _, l := range n.links {
		if n.verdict(l.conn) != transport.Admitted {
			n.removeLink(l)
			n.refuse(l.conn)
		}
	}
}

// Guests returns the connected peers whose admission is undecided, the one that came first first.
func (n *Node) Guests() (list []dray.PeerID) {
	n.ask(func() { list = n.door.tentative.Peers() })
	return list
}

// admit gives a guest its link.
func (n *Node) admit(g *guest) {
	id := g.conn.Peer()
	held, _ := n.door.tentative.Take(time.Now(), id)
	n.openLink(g.conn)
	l := n.links[id]
	if l == nil || held.Dropped > 0 {
		n.dismiss(g)
		if l != nil {
			n.closeLink(l)
		}
		return
	}
	delete(n.door.guests, id)
	g.admitted = true
	for r := range g.readers {
		n.attach(l, r)
	}
	n.wg.Go(func() {
		defer close(g.decided)
		for _, k := range held.Messages {
			if err := k.r.message(k.buf, 0); err != nil {
				k.r.blame(err)
				k.r.s.Reset()
				return
			}
		}
	})
}

// sweepGuests dismisses guests that nobody decides about, and looks at the others again, until the Node is closed.
func (n *Node) sweepGuests() {
	t := time.NewTicker(readmitEvery)
	defer t.Stop()
	for n.do(func() { n.dismissAll(n.door.tentative.Expire(time.Now())) }) {
		select {
		case <-t.C:
		case <-n.done:
			return
		}
	}
}

// linger reads the stream of a guest. It returns nil once the guest is admitted; the stream's next frame is run's.
func (r *reader) linger() error {
	n, g := r.n, r.guest
	limit := n.cfg.Tentative.Bytes
	alloc := func(size int) []byte {
		if size > limit {
			return nil
		}
		r.s.SetReadDeadline(time.Now().Add(frameGrace + time.Duration(size)*time.Second/frameRate))
		return make([]byte, size)
	}
	for {
		buf, err := r.frames.Next(alloc)
		if err != nil && !errors.Is(err, wire.ErrNoBuffer) {
			return err
		}
		r.s.SetReadDeadline(time.Time{})
		size := len(buf)
		if err != nil {
			size = limit + 1 // it is not read, and what was kept is worth nothing
		}
		kept := false
		n.ask(func() {
			if kept = n.door.guests[r.peer] == g; kept {
				n.door.tentative.Hold(time.Now(), r.peer, keptFrame{r, buf}, size)
			}
		})
		if kept && err == nil {
			continue
		}
		select {
		case <-g.decided:
		case <-n.done:
			return dray.ErrClosed
		}
		switch {
		case !g.admitted:
			return errDismissed
		case err != nil:
			return err
		}
		return r.message(buf, 0)
	}
}

// blame bans the peer for what it wrote, if it is that.
func (r *reader) blame(err error) {
	n := r.n
	var fault *wire.Error
	if errors.As(err, &fault) {
		n.do(func() {
			n.engine.Offend(n.now(), r.peer, &exchange.Violation{What: "malformed message: " + fault.Error()})
		})
	}
}
