package exchange

import (
	"errors"
	"testing"
	"time"

	"dray"
	"dray/exchange/health"
	"dray/wire"
)

// TestDiskFaultBlamesNobody lets a thousand blocks come that cannot be written, and as many be asked for that cannot be
// read: nothing is held against the peers, and the view and the mode stay as they were.
func TestDiskFaultBlamesNobody(t *testing.T) {
	e := New(Config{})
	now := time.Second
	e.PeerUp(now, "p", Caps{Haves: true})
	s := e.OpenSession(now, SessionConfig{Peers: []dray.PeerID{"p"}})
	fault := errors.New("input/output error")
	for i := range 1000 {
		now += time.Millisecond
		b := testBlock(t, i, 100)
		e.Want(now, s, b.CID(), WantOptions{})
		for _, sd := range e.Ready().Sends {
			e.Sent(now, sd.Peer)
		}
		e.Receive(now, "p", nil, []dray.Block{b})
		if stores := e.Ready().Stores; len(stores) != 1 {
			t.Fatalf("block %d: %d to write", i, len(stores))
		}
		e.Stored(now, b, fault)
		if d := e.Ready().Delivers; len(d) != 1 || !errors.Is(d[0].Err, fault) {
			t.Fatalf("block %d: answered %v", i, d)
		}
	}
	reads := 0
	for i := range 1000 {
		now += time.Millisecond
		c := testBlock(t, 5000+i, 100).CID()
		e.Receive(now, "p", &wire.Message{Wants: []wire.Entry{{CID: c, SendDontHave: true}}}, nil)
		for range 3 {
			r := e.Ready()
			loads := append([]Load(nil), r.Loads...)
			for _, sd := range r.Sends {
				e.Sent(now, sd.Peer)
			}
			for _, l := range loads {
				reads++
				e.Loaded(now, l, 100, nil, fault)
			}
		}
	}
	if reads < 1000 {
		t.Errorf("%d reads failed; the test has lost its teeth", reads)
	}
	if h := e.Health("p"); h.State != HealthHealthy || h.Failures != 0 || !h.Connected {
		t.Errorf("the peer is thought to be %+v", h)
	}
	if e.PartitionState() != health.Whole || e.Mode() != health.Normal || e.Totals().Banned+e.Totals().Stalls != 0 {
		t.Errorf("%v, %v, %+v", e.PartitionState(), e.Mode(), e.Totals())
	}
	if err := e.Check(); err != nil {
		t.Error(err)
	}
}
