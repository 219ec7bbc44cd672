package exchange

import (
	"slices"
	"testing"
	"time"

	"dray"
	"dray/wire"
)

// lacks makes a peer answer all that it was asked for with no.
func (c *crowd) lacks(id dray.PeerID) {
	c.t.Helper()
	var m wire.Message
	for _, leaf := range c.asked[id] {
		m.Presences = append(m.Presences, wire.Presence{CID: c.blocks[leaf].CID()})
	}
	c.e.Receive(c.now, id, &m, nil)
	c.turn()
}

// TestBrokenWord: a peer that says no to leaves which it had told of is given nothing that another is asked for, however
// often it tells of all leaves again: what the other has begun to send would come twice.
func TestBrokenWord(t *testing.T) {
	c := newCrowd(t, 16, Config{Window: 16 << 20}, "seed", "liar")
	c.has("liar", 0, 15, false)
	c.has("seed", 0, 16, false)
	if len(c.asked["liar"]) == 0 {
		t.Fatal("the peer that says it has leaves is asked for none")
	}
	c.lacks("liar")
	for range 3 {
		c.now += 100 * time.Millisecond
		c.e.Advance(c.now)
		c.turn()
	}
	before := slices.Clone(c.asked["seed"])
	if len(before) != 16 {
		t.Fatalf("%d leaves are asked of the one that has them", len(before))
	}
	tell := func() {
		c.has("liar", 0, 15, true)
		c.has("liar", 0, 15, false)
	}
	tell()
	if n := len(c.asked["liar"]); n > 0 {
		t.Errorf("%d leaves are taken from the one that has them for the one that has not", n)
	}
	if !slices.Equal(c.asked["seed"], before) {
		t.Errorf("the one that has them is asked for %v, was for %v", c.asked["seed"], before)
	}

	// Nobody is shut out: when there is no other, it is asked.
	c.e.PeerDown(c.now, "seed")
	c.turn()
	if len(c.asked["liar"]) == 0 {
		t.Error("the only peer that is left is asked for nothing")
	}
}
