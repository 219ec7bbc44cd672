package exchange

import (
	"testing"

	"dray"
	"dray/wire"
)

// buffet is one engine that serves: it has every block that is asked for, of a size that depends on the peer, and a
// transport that takes one block at a time in the order in which the engine gave them.
type buffet struct {
	*rig
	size  []int // of the blocks that a peer wants
	got   []int64
	next  int
	queue []BlockSend
	reads int
}

func newBuffet(t testing.TB, cfg Config, sizes ...int) *buffet {
	return &buffet{rig: newRig(t, len(sizes), cfg), size: sizes, got: make([]int64, len(sizes))}
}

func (b *buffet) peer(id dray.PeerID) int {
	for i := range b.ids {
		if b.ids[i] == id {
			return i
		}
	}
	b.t.Fatalf("no peer %v", id)
	return 0
}

// want makes peer i want n blocks.
func (b *buffet) want(i, n int) {
	m := &wire.Message{}
	for range n {
		b.next++
		m.Wants = append(m.Wants, wire.Entry{CID: testBlock(b.t, b.next, 8).CID(), Priority: 1, SendDontHave: true})
	}
	b.e.Receive(b.now, b.ids[i], m, nil)
	b.turn()
}

// turn answers look-ups and reads until there are none.
func (b *buffet) turn() {
	for {
		r := b.ready()
		b.queue = append(b.queue, r.Blocks...)
		if len(r.Loads) == 0 {
			return
		}
		for _, l := range append([]Load(nil), r.Loads...) {
			var data []byte
			if !l.Stat {
				b.reads++
				data = []byte{1}
			}
			b.e.Loaded(b.now, l, int64(b.size[b.peer(l.Peer)]), data, nil)
		}
	}
}

// serve lets the transport take blocks until n bytes are gone, and keeps every peer wanting more when hungry.
func (b *buffet) serve(n int64, hungry bool) {
	for n > 0 {
		if len(b.queue) == 0 {
			b.t.Fatal("nothing to serve")
		}
		s := b.queue[0]
		b.queue = b.queue[1:]
		i := b.peer(s.Peer)
		b.got[i] += int64(b.size[i])
		n -= int64(b.size[i])
		b.e.BlockSent(b.now, s.Peer, s.CID)
		if hungry {
			b.want(i, 1)
		}
		b.turn()
	}
	if err := b.e.Check(); err != nil {
		b.t.Fatal(err)
	}
}

// TestServeFair has peers with blocks of very different sizes, all of which want more than there is: each gets the same
// bytes (B10, DRR).
func TestServeFair(t *testing.T) {
	b := newBuffet(t, Config{ServeBytes: 4 << 20, PeerServeBytes: 2 << 20}, 1<<20, 256<<10, 16<<10, 100<<10, 4<<10, 1<<20)
	for i := range b.size {
		b.want(i, 1000)
	}
	const total = 600 << 20
	b.serve(total, true)
	for i, n := range b.got {
		share := float64(n) / float64(total/len(b.got))
		t.Logf("blocks of %d KiB: %.2f of the fair share", b.size[i]>>10, share)
		if share < 0.9 || share > 1.1 {
			t.Errorf("the peer with blocks of %d KiB got %.2f of its share", b.size[i]>>10, share)
		}
	}
}

// TestServeFlood is B10: a hundred thousand wants from one peer are kept to 1,024, and do not starve another, whose few
// blocks come within two turns of the wheel.
func TestServeFlood(t *testing.T) {
	b := newBuffet(t, Config{ServeBytes: 1 << 20}, 64<<10, 64<<10)
	for range 100 {
		b.want(0, 1000)
	}
	if n := len(b.e.peers["p0"].serve.wants); n != 1024 {
		t.Errorf("%d wants are kept, want 1,024", n)
	}
	if got, want := b.e.Totals().Refused, int64(100*1000-1024); got != want {
		t.Errorf("%d wants refused, want %d", got, want)
	}
	b.want(1, 8)
	b.serve(3<<20, false)
	if b.got[1] != 8*64<<10 {
		t.Errorf("the other peer got %d of %d bytes while %d were served", b.got[1], 8*64<<10, 3<<20)
	}
}

// TestReadsWait is B13: nothing is read from the store before there is room to send it.
func TestReadsWait(t *testing.T) {
	b := newBuffet(t, Config{ServeBytes: 256 << 10}, 64<<10)
	b.want(0, 500)
	if b.reads != 4 {
		t.Errorf("%d blocks are read with room for 4", b.reads)
	}
	b.serve(10*64<<10, false)
	if b.reads != 14 {
		t.Errorf("%d blocks are read after 10 were sent, want 14", b.reads)
	}
}

// TestLedger is B12: who gave much gets more, but only while there is not enough for all; and the account outlives the
// connection and equals what passed.
func TestLedger(t *testing.T) {
	share := func(contention bool) float64 {
		b := newBuffet(t, Config{ServeBytes: 4 << 20, PeerServeBytes: 4 << 20}, 64<<10, 64<<10)
		b.e.SetAccount("p0", Account{Received: 1 << 40})
		b.e.SetAccount("p1", Account{Sent: 1 << 40})
		if contention {
			b.want(0, 1000)
			b.want(1, 1000)
			b.serve(64<<20, true)
		} else {
			for range 100 { // each wants little at a time: all of it is served at once
				b.want(0, 4)
				b.want(1, 4)
				b.serve(8*64<<10, false)
			}
		}
		if a := b.e.Account("p0"); a.Sent != b.got[0] || a.Received != 1<<40 {
			t.Errorf("%d bytes were sent to p0, its account says %+v", b.got[0], a)
		}
		b.e.PeerDown(b.now, "p0")
		b.e.PeerUp(b.now, "p0", Caps{Haves: true})
		if b.e.Account("p0").Sent != b.got[0] {
			t.Error("the account was lost with the connection")
		}
		return float64(b.got[0]) / float64(b.got[1])
	}
	if r := share(false); r != 1 {
		t.Errorf("without contention the giver gets %.2f times what the taker gets", r)
	}
	if r := share(true); r < 2 || r > 5 {
		t.Errorf("under contention the giver gets %.2f times what the taker gets, want up to 4", r)
	}
}
