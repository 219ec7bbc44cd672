package exchange

import (
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

// These tests hold what the simulator once found: things that were left over, or told to nobody.

// wantsOf returns a message that wants blocks, or that cancels such wants.
func wantsOf(cancel bool, blocks ...dray.Block) *wire.Message {
	m := &wire.Message{}
	for i, b := range blocks {
		m.Wants = append(m.Wants, wire.Entry{CID: b.CID(), Priority: int32(100 - i), Cancel: cancel, SendDontHave: true})
	}
	return m
}

func mustCheck(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
}

// shadow applies what was sent to a peer to what that peer remembers of our wants.
func shadow(list map[cid.Cid]bool, r *Ready, peer dray.PeerID) {
	for _, s := range r.Sends {
		if s.Peer != peer {
			continue
		}
		for _, w := range s.Message.Wants {
			if w.Cancel {
				delete(list, w.CID)
			} else {
				list[w.CID] = true
			}
		}
	}
}

func TestCancelOfLastQueuedWantLeavesTheRing(t *testing.T) {
	e := New(Config{ServeBytes: 10, PeerServeBytes: 10})
	now := time.Duration(1)
	e.PeerUp(now, "a", Caps{Haves: true})
	e.PeerUp(now, "b", Caps{Haves: true})
	big, other := testBlock(t, 1, 4096), testBlock(t, 2, 4096)
	for _, ask := range []struct {
		peer  dray.PeerID
		block dray.Block
	}{{"a", big}, {"b", other}} {
		e.Receive(now, ask.peer, wantsOf(false, ask.block), nil)
		e.Loaded(now, Load{Peer: ask.peer, CID: ask.block.CID(), Stat: true}, 4096, nil, nil)
		e.Ready() // a's block takes all the room, so b's stays queued
	}
	mustCheck(t, e)
	e.Receive(now, "b", wantsOf(true, other), nil)
	e.Ready()
	mustCheck(t, e)
	if h := e.Held(); h.PeerWants != 1 {
		t.Fatalf("after b's cancel the engine holds %+v; want a's want alone", h)
	}
}

func TestForgivenAskIsCancelled(t *testing.T) {
	e := New(Config{})
	now := time.Duration(1)
	for _, id := range []dray.PeerID{"a", "b"} {
		e.PeerUp(now, id, Caps{Haves: true})
	}
	s := e.OpenSession(now, SessionConfig{})
	blk := testBlock(t, 1, 4096)
	e.Want(now, s, blk.CID(), WantOptions{})
	atA := make(map[cid.Cid]bool)
	run := func() {
		shadow(atA, e.Ready(), "a")
		e.Sent(now, "a")
		e.Sent(now, "b")
		mustCheck(t, e)
	}
	run()
	no := &wire.Message{Presences: []wire.Presence{{CID: blk.CID()}}}
	e.Receive(now, "a", no, nil)
	e.Receive(now, "b", no, nil)
	run()
	for range 30 { // long enough for the refusals to be forgiven
		now += time.Second
		e.Advance(now)
		run()
	}
	e.Receive(now, "b", nil, []dray.Block{blk})
	run()
	e.Stored(now, blk, nil)
	run()
	run()
	if len(atA) != 0 {
		t.Fatalf("a still remembers a want that was answered by b")
	}
}

func TestReaskedWantIsCancelledWhenTheBlockComes(t *testing.T) {
	e := New(Config{})
	now := time.Duration(1)
	e.PeerUp(now, "a", Caps{Haves: true})
	blk := testBlock(t, 1, 4096)
	atA := make(map[cid.Cid]bool)
	run := func() {
		shadow(atA, e.Ready(), "a")
		e.Sent(now, "a")
		mustCheck(t, e)
	}
	s := e.OpenSession(now, SessionConfig{Peers: []dray.PeerID{"a"}})
	e.Want(now, s, blk.CID(), WantOptions{})
	run()
	e.Cancel(now, s, blk.CID())
	run()
	e.Want(now, s, blk.CID(), WantOptions{})
	run()
	// The block answers the first ask; the second is still on its way to a.
	e.Receive(now, "a", nil, []dray.Block{blk})
	run()
	e.Stored(now, blk, nil)
	run()
	run()
	if len(atA) != 0 {
		t.Fatal("a still remembers the second ask")
	}
}

func TestDropBeforeAnnouncedUpgradeIsTold(t *testing.T) {
	e := New(Config{})
	now := time.Duration(1)
	e.PeerUp(now, "a", Caps{Haves: true})
	blk := testBlock(t, 1, 4096)
	atA := make(map[cid.Cid]bool)
	s := e.OpenSession(now, SessionConfig{})
	e.Want(now, s, blk.CID(), WantOptions{})
	shadow(atA, e.Ready(), "a") // want-have
	e.Receive(now, "a", &wire.Message{Presences: []wire.Presence{{CID: blk.CID(), Have: true}}}, nil)
	shadow(atA, e.Ready(), "a") // the writer is busy, so the want-block waits
	e.Cancel(now, s, blk.CID())
	e.Sent(now, "a")
	shadow(atA, e.Ready(), "a")
	mustCheck(t, e)
	if len(atA) != 0 {
		t.Fatal("a still remembers the want-have")
	}
}

func TestHaveThatComesWhilePausedIsNotForgotten(t *testing.T) {
	e := New(Config{})
	now := time.Duration(1)
	e.PeerUp(now, "a", Caps{Haves: true})
	blk, other := testBlock(t, 1, 4096), testBlock(t, 2, 4096)
	s := e.OpenSession(now, SessionConfig{})
	e.Want(now, s, other.CID(), WantOptions{})
	e.Want(now, s, blk.CID(), WantOptions{})
	e.Ready()
	e.Sent(now, "a")
	e.Receive(now, "a", &wire.Message{Presences: []wire.Presence{{CID: other.CID()}}}, nil) // holds only a part
	e.Ready()
	e.Pause(now, s)
	e.Receive(now, "a", &wire.Message{Presences: []wire.Presence{{CID: blk.CID(), Have: true}}}, nil)
	e.Ready()
	e.Resume(now, s)
	r := e.Ready()
	mustCheck(t, e)
	if len(r.Sends) != 1 || len(r.Sends[0].Message.Wants) != 1 || r.Sends[0].Message.Wants[0].CID != blk.CID() {
		t.Fatalf("after Resume:\n%s", r.Format(Namer{}))
	}
}

func TestWantBeforeTheAnswerIsHandedOutSharesIt(t *testing.T) {
	e := New(Config{})
	now := time.Duration(1)
	e.PeerUp(now, "a", Caps{Haves: true})
	blk := testBlock(t, 1, 4096)
	s := e.OpenSession(now, SessionConfig{Peers: []dray.PeerID{"a"}})
	e.Want(now, s, blk.CID(), WantOptions{})
	e.Ready()
	e.Receive(now, "a", nil, []dray.Block{blk})
	e.Ready()
	e.Stored(now, blk, dray.ErrNoSpace)
	e.Want(now, s, blk.CID(), WantOptions{})
	if n := len(e.Ready().Delivers); n != 1 || e.Held().Wants != 0 {
		t.Fatalf("%d answers, and %d wants left; want one answer to both", n, e.Held().Wants)
	}
}

func TestPeersThatTakeNothingDoNotHoldUpOthers(t *testing.T) {
	const size = 256 << 10
	e := New(Config{})
	now := time.Duration(1)
	ask := func(id dray.PeerID, first, n int) {
		e.PeerUp(now, id, Caps{Haves: true})
		for i := range n {
			blk := testBlock(t, first+i, 8)
			e.Receive(now, id, wantsOf(false, blk), nil)
			e.Loaded(now, Load{Peer: id, CID: blk.CID(), Stat: true}, size, nil, nil)
		}
	}
	// Eight peers take up everything and never read.
	for k := range 8 {
		ask(dray.PeerID([]byte{'s', byte('0' + k)}), 1000*k, 40)
	}
	e.Ready()
	if got := e.Held().Serving; got != 16<<20 {
		t.Fatalf("%d bytes are being served, want the whole bound", got)
	}
	ask("ninth", 9000, 20)
	served := 0
	for end := now + 3*time.Second; now < end; now += 10 * time.Millisecond {
		e.Advance(now)
		r := e.Ready()
		mustCheck(t, e)
		var taken []cid.Cid
		for _, l := range r.Loads {
			if l.Peer == "ninth" {
				taken = append(taken, l.CID)
			}
		}
		for _, c := range taken {
			if e.Loaded(now, Load{Peer: "ninth", CID: c}, size, nil, nil) {
				served++
				e.Ready()
				e.BlockSent(now, "ninth", c)
			}
		}
	}
	if served != 20 {
		t.Fatalf("the ninth peer got %d of 20 blocks", served)
	}
	if got := e.Held().Serving; got > 32<<20 {
		t.Fatalf("%d bytes are being served, over twice the bound", got)
	}
}

func TestBlockAddedDuringALookUpIsAnnounced(t *testing.T) {
	e := New(Config{})
	now := time.Duration(1)
	e.PeerUp(now, "a", Caps{Haves: true})
	blk := testBlock(t, 1, 4096)
	ask := wantsOf(false, blk)
	ask.Wants[0].Type = wire.WantHave
	e.Receive(now, "a", ask, nil)
	e.Ready()
	e.Added(now, blk.CID(), 4096)
	e.Loaded(now, Load{Peer: "a", CID: blk.CID(), Stat: true}, 0, nil, dray.ErrNotFound) // what it was when it was looked up
	r := e.Ready()
	if len(r.Loads) != 1 || len(r.Sends) != 0 {
		t.Fatalf("after an answer that is out of date:\n%s", r.Format(Namer{}))
	}
	e.Loaded(now, r.Loads[0], 4096, nil, nil)
	r = e.Ready()
	mustCheck(t, e)
	if len(r.Sends) != 1 || len(r.Sends[0].Message.Presences) != 1 || !r.Sends[0].Message.Presences[0].Have {
		t.Fatalf("the peer is told:\n%s", r.Format(Namer{}))
	}
}
