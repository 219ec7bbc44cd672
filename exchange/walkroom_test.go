package exchange

import (
	"fmt"
	"testing"
	"time"

	"dray"
	"dray/wire"
)

// walkers asks for a walk of everything in the name of many peers that take nothing, has each part that is to be read be
// as large as parts are, and returns how many were read.
func walkers(t *testing.T, e *Engine, now time.Duration, root dray.Block, from, n int) int {
	t.Helper()
	for i := range n {
		id := dray.PeerID(fmt.Sprint("stranger", from+i))
		e.PeerUp(now, id, Caps{Haves: true, Indexes: true})
		e.Receive(now, id, &wire.Message{
			Seq: 1, Full: true, Credit: 1 << 40,
			Walks: []wire.Walk{{ID: 1, Root: root.CID(), Bytes: 64 << 20, Leaves: true}},
		}, nil)
	}
	return readParts(t, e, now)
}

// readParts answers all loads of parts with half a mebibyte each, until there are none.
func readParts(t *testing.T, e *Engine, now time.Duration) (n int) {
	t.Helper()
	part := WalkPart{Blocks: []wire.Block{{Data: make([]byte, 512<<10)}}}
	for {
		loads := append([]WalkLoad(nil), e.Ready().Walks...)
		if len(loads) > walkReads {
			t.Errorf("%d parts are read at one time", len(loads))
		}
		if len(loads) == 0 {
			mustCheck(t, e)
			return n
		}
		for _, l := range loads {
			if !l.Walk.Stop {
				n++
				e.WalkLoaded(now, l.Peer, l.Walk.ID, part)
			}
		}
	}
}

// TestWalksOfMany bounds what answers to walks take over all peers: what strangers ask for and do not read is not read
// from the store either, whoever comes then is refused after a while and not kept waiting, and when the strangers are
// gone walks are answered again.
func TestWalksOfMany(t *testing.T) {
	e := New(Config{})
	root := testBlock(t, 1, 100)
	now := time.Duration(1)
	const most = walkRoom/(512<<10) + walkReads
	if n := walkers(t, e, now, root, 0, 500); n == 0 || n > most {
		t.Fatalf("%d parts were read for strangers that take none, at most %d were to be", n, most)
	}
	now += walkStale + time.Millisecond
	e.Advance(now)
	refused := 0
	for _, s := range e.Ready().Sends {
		for _, w := range s.Message.Walked {
			if w.Status == wire.WalkRefused {
				refused++
			}
		}
	}
	// A stranger whose first part is being written has nothing to be refused.
	if refused < 500-most || refused == 500 {
		t.Errorf("%d walks were refused", refused)
	}
	mustCheck(t, e)
	for i := range 500 {
		e.PeerDown(now, dray.PeerID(fmt.Sprint("stranger", i)))
	}
	// One part is being written, and one is ready to be.
	if n := walkers(t, e, now, root, 500, 1); n != 2 {
		t.Errorf("%d parts were read for a peer that came when all were gone", n)
	}
	e.Sent(now, "stranger500")
	if n := readParts(t, e, now); n != 1 {
		t.Errorf("%d parts were read after the first was taken", n)
	}
}
