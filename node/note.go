package node

import (
	"context"
	"fmt"
	"io"

	"dray"
	"dray/transport"
	"dray/wire"
)

// PeerRefuses says that a peer does not admit this host.
type PeerRefuses struct {
	Peer   dray.PeerID
	Reason string
}

// Notify sends a note to a connected peer. It never waits; a peer that takes nothing loses the oldest notes, and one that does
// not speak TensorSwap all. The error is [dray.ErrUnreachable] when the peer is not connected, or says what is wrong with the note.
func (n *Node) Notify(peer dray.PeerID, note wire.Note) error {
	fail := func(err error) error { return &dray.Error{Op: "notify", Peer: peer, Err: err} }
	frame, err := wire.AppendNotes(nil, note)
	if err != nil {
		return fail(err)
	}
	err = dray.ErrClosed
	n.ask(func() {
		if l := n.links[peer]; l != nil {
			err = l.out.Post(noteLabel, frame)
		} else {
			err = dray.ErrUnreachable
		}
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// noteLabel is under what notes are counted.
const noteLabel = "note"

// noted acts on a note. Called on the loop.
func (n *Node) noted(from dray.PeerID, note wire.Note) {
	l := n.links[from]
	if l == nil {
		return
	}
	switch note.Kind {
	case wire.NoteGoodbye:
		n.cfg.Log.Info("a peer says goodbye", "peer", from)
		n.engine.Goodbye(n.now(), from)
		n.closeLink(l)
	case wire.NoteRefused:
		n.event(PeerRefuses{Peer: from, Reason: string(note.Data)})
		n.closeLink(l)
		if c := n.book[from]; c != nil {
			c.err = &dray.Error{Op: "connect", Peer: from, Err: fmt.Errorf("%w: %.100q", dray.ErrRefused, note.Data)}
		}
		n.engine.DialFailed(n.now(), from) // it is left alone for a while
	}
	if n.cfg.Note != nil {
		n.cfg.Note(from, note)
	}
}

// notes hands the notes in a frame to the loop. Streams that others can write to carry none.
func (r *reader) notes(frame []byte) error {
	if r.version != wire.Swap1 || r.exposed {
		return nil
	}
	list, err := wire.Notes(frame)
	if err != nil || len(list) == 0 {
		return err
	}
	for i := range list {
		list[i].Data = append([]byte(nil), list[i].Data...) // the frame is used again
	}
	r.n.do(func() {
		for _, note := range list {
			r.n.noted(r.peer, note)
		}
	})
	return nil
}

// farewell writes a note on a stream of its own, to a peer that has no link, and waits until it was read, or not for long.
func (n *Node) farewell(conn transport.Conn, note wire.Note) {
	ctx, cancel := context.WithTimeout(n.ctx, farewellTime)
	defer cancel()
	s, err := conn.Open(ctx, protocols()[0])
	if err != nil {
		return
	}
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	if frame, err := wire.AppendNotes(nil, note); err == nil {
		if _, err = s.Write(frame); err == nil && s.CloseWrite() == nil {
			io.Copy(io.Discard, s)
		}
	}
}

// Goodbye tells the connected peers that this host is about to stop, so that what they have asked of it they ask of others at
// once, and do not count its going as a failure. They disconnect. It returns when they have, or when ctx ends. Peers that are
// not known to speak TensorSwap are not told. Close the Node after it.
func (n *Node) Goodbye(ctx context.Context) {
	frame, err := wire.AppendNotes(nil, wire.Note{Kind: wire.NoteGoodbye})
	if err != nil {
		return
	}
	gone := make(chan struct{})
	n.ask(func() {
		n.door.leaving = make(map[*link]struct{})
		for _, l := range n.links {
			if l.version == wire.Swap1 && l.out.Post(noteLabel, frame) == nil {
				n.door.leaving[l] = struct{}{}
			}
		}
		n.door.left = func() { close(gone) }
		n.departed(nil)
	})
	select {
	case <-gone:
	case <-n.done:
	case <-ctx.Done():
	}
}

// departed notes that a link is gone to which goodbye was said.
func (n *Node) departed(l *link) {
	delete(n.door.leaving, l)
	if n.door.left != nil && len(n.door.leaving) == 0 {
		n.door.left()
		n.door.left = nil
	}
}
