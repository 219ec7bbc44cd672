package transporttest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/transport"
)

// RunLinks runs the tests that [transport.Links] must pass over a network. network is as for [Suite.Run].
func RunLinks(t *testing.T, network func(t *testing.T) Factory) {
	Suite{}.run(t, network, []test{
		{"KilledUnderLoad", testLinksKilled},
		{"SimultaneousConnect", testLinksSimultaneous},
		{"Impostor", testLinksImpostor},
		{"Reconfigure", testLinksReconfigure},
		{"AllToAll", testLinksAllToAll},
		{"SlowConsumer", testLinksSlow},
	})
}

// ear is a Sink that counts what it hears from each peer. Events are numbers.
type ear struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced with everything that is heard
	events  map[dray.PeerID][]uint64
	again   int
	missed  uint64
	state   map[dray.PeerID]map[uint64]bool // what the state lane has said
	gone    map[dray.PeerID]int
	wrong   string
	gate    chan struct{} // if not nil, Received waits for it
}

func newEar() *ear {
	return &ear{
		changed: make(chan struct{}), events: make(map[dray.PeerID][]uint64),
		state: make(map[dray.PeerID]map[uint64]bool), gone: make(map[dray.PeerID]int),
	}
}

func (e *ear) Received(ctx context.Context, m transport.Received) error {
	if e.gate != nil {
		select {
		case <-e.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if m.State {
		if m.Full {
			e.state[m.Peer] = make(map[uint64]bool)
		}
		for at := 0; at+8 <= len(m.Data); at += 8 {
			e.state[m.Peer][binary.BigEndian.Uint64(m.Data[at:])] = true
		}
	} else {
		n := binary.BigEndian.Uint64(m.Data)
		if list := e.events[m.Peer]; len(list) > 0 && list[len(list)-1] >= n {
			e.wrong = fmt.Sprintf("%d after %d", n, list[len(list)-1])
		}
		e.events[m.Peer] = append(e.events[m.Peer], n)
		e.missed += m.Missed
		if m.Again {
			e.again++
		}
	}
	e.stir()
	return nil
}

func (e *ear) stir() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *ear) Disconnected(peer dray.PeerID, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone[peer]++
	e.stir()
}

// until waits for a condition on what was heard.
func (e *ear) until(w *world, what string, good func() bool) {
	w.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		e.mu.Lock()
		ok, changed := good(), e.changed
		e.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			w.Fatalf("still waiting until %s", what)
		}
	}
}

// tally is a state lane: a growing set of numbers, of which each message tells those that are new.
type tally struct {
	mu   sync.Mutex
	all  []uint64
	told int
}

func (s *tally) add(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, n)
}

func (s *tally) Next(dst []byte, _ transport.Stream, full bool) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if full {
		s.told = 0
	}
	if s.told == len(s.all) {
		return dst, full, nil
	}
	for _, n := range s.all[s.told:] {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	s.told = len(s.all)
	return dst, true, nil
}

func (s *tally) Written() {}

// linked is a host with links.
type linked struct {
	*party
	*transport.Links
	ear *ear
}

func (w *world) linked(change func(*transport.LinksConfig)) *linked {
	w.Helper()
	p := w.host()
	x := &linked{party: p, ear: newEar()}
	cfg := transport.LinksConfig{
		Network: p.Network, Sink: x.ear, Backoff: transport.Doubling(2*time.Millisecond, 50*time.Millisecond),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if x.Links, err = transport.NewLinks(cfg); err != nil {
		w.Fatal(err)
	}
	w.links = append(w.links, x)
	return x
}

func (x *linked) peer() transport.Peer { return transport.Peer{ID: x.Self(), Addrs: x.Addrs()} }

func (x *linked) sendNumber(to *linked, n uint64) {
	if err := x.Send(to.Self(), "n", binary.BigEndian.AppendUint64(nil, n)); err != nil {
		x.w.Errorf("send: %v", err)
	}
}

// together links hosts with each other and waits until all of them answer.
func (w *world) together(all ...*linked) {
	w.Helper()
	var peers []transport.Peer
	for _, x := range all {
		peers = append(peers, x.peer())
	}
	for _, x := range all {
		x.Connect(peers)
	}
	for _, x := range all {
		w.must(x.WaitFor(w.within(), len(all)))
	}
}

// testLinksKilled breaks the connection 100 times under load: no event is lost, none comes twice, all come in order, and the
// state lane has said everything at the end.
func testLinksKilled(w *world) {
	const kills, perKill = 100, 20
	state := &tally{}
	a := w.linked(func(c *transport.LinksConfig) {
		c.State = func(dray.PeerID) transport.State { return state }
		c.Dispatcher.Events = kills * perKill
	})
	b := w.linked(nil)
	a.Connect([]transport.Peer{b.peer()})
	b.Connect([]transport.Peer{a.peer()})
	w.must(a.WaitFor(w.within(), 1))
	n := uint64(0)
	for range kills {
		for range perKill {
			n++
			a.sendNumber(b, n)
			state.add(n)
			a.Wake(b.Self())
		}
		// What was sent is under way; the break comes when some of it has arrived.
		b.ear.until(w, "some has arrived", func() bool { return len(b.ear.events[a.Self()]) >= int(n)-perKill+1 })
		if c := a.conn(b.Self()); c != nil {
			_ = c.Close()
		}
	}
	w.must(a.Drain(w.within()))
	b.ear.until(w, "everything has arrived", func() bool {
		return len(b.ear.events[a.Self()]) == int(n) && len(b.ear.state[a.Self()]) == int(n)
	})
	sent, received := a.Stats(), b.Stats()
	b.ear.mu.Lock()
	defer b.ear.mu.Unlock()
	if b.ear.wrong != "" || b.ear.missed != 0 {
		w.Errorf("%s; %d missed", b.ear.wrong, b.ear.missed)
	}
	if got := transport.Total(sent.Dropped); got.Messages != 0 || received.Repeated != 0 {
		w.Errorf("%d dropped, though there is room for all; %d came twice", got.Messages, received.Repeated)
	}
	if s, r := sent.Sent["n"], received.Received["n"]; s != r || s.Messages != int64(n) || s.Bytes != int64(8*n) {
		w.Errorf("sent %+v, received %+v, want %d", s, r, n)
	}
	if s, r := transport.Total(sent.Sent), transport.Total(received.Received); s != r {
		w.Errorf("sent %+v in all, received %+v", s, r)
	}
	w.Logf("%d breaks noticed, %d events came with a later stream", b.ear.gone[a.Self()], b.ear.again)
}

// testLinksSimultaneous connects from both sides at once: both sides end with a stream in each direction.
func testLinksSimultaneous(w *world) {
	for range 10 {
		a, b := w.linked(nil), w.linked(nil)
		var start sync.WaitGroup
		for _, x := range []*linked{a, b} {
			start.Go(func() { x.Connect([]transport.Peer{a.peer(), b.peer()}) })
		}
		start.Wait()
		for _, x := range []*linked{a, b} {
			w.must(x.WaitFor(w.within(), 2)) // itself, too
		}
		a.sendNumber(b, 1)
		b.sendNumber(a, 1)
		for _, x := range []struct{ here, from *linked }{{a, b}, {b, a}} {
			x.here.ear.until(w, "the other is heard", func() bool { return len(x.here.ear.events[x.from.Self()]) == 1 })
			x.here.ear.until(w, "there was one stream only", func() bool { return len(x.here.ear.gone) == 0 })
		}
	}
}

// testLinksImpostor puts another host at a member's address: nothing is said to it, and what it says does not count as the
// member's.
func testLinksImpostor(w *world) {
	a, b, x := w.linked(nil), w.linked(nil), w.linked(nil)
	a.Connect([]transport.Peer{{ID: b.Self(), Addrs: x.Addrs()}})
	a.sendNumber(b, 1)
	x.Connect([]transport.Peer{a.peer()})
	w.must(x.WaitFor(w.within(), 1)) // it may talk, and is not heard
	x.sendNumber(a, 7)
	w.must(x.Drain(w.within()))
	a.ear.mu.Lock()
	defer a.ear.mu.Unlock()
	x.ear.mu.Lock()
	defer x.ear.mu.Unlock()
	if len(a.ear.events)+len(x.ear.events) > 0 {
		w.Errorf("the member's host heard %v, the impostor %v", a.ear.events, x.ear.events)
	}
}

// testLinksReconfigure goes from {A, B, C} to {A, B, D}: D is there, C is not, and between A and B nothing is lost.
func testLinksReconfigure(w *world) {
	a, b, c, d := w.linked(nil), w.linked(nil), w.linked(nil), w.linked(nil)
	w.together(a, b, c)
	later := []transport.Peer{a.peer(), b.peer(), d.peer()}
	const n = 2000
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := range uint64(n) {
			a.sendNumber(b, i+1)
			if i%100 == 99 {
				if err := a.Drain(w.within()); err != nil {
					w.Error(err)
				}
			}
		}
	})
	for _, x := range []*linked{a, b, d} {
		x.Connect(later)
	}
	for _, x := range []*linked{a, b, d} {
		w.must(x.WaitFor(w.within(), 3))
		x.CloseOld(later)
	}
	sending.Wait()
	w.must(a.Drain(w.within()))
	b.ear.until(w, "everything has arrived", func() bool { return len(b.ear.events[a.Self()]) == n })
	c.ear.until(w, "C is left", func() bool { return c.ear.gone[a.Self()] > 0 && c.ear.gone[b.Self()] > 0 })
	if err := a.Send(c.Self(), "n", nil); err == nil {
		w.Error("A still sends to C")
	}
	d.sendNumber(a, 1)
	a.ear.until(w, "D is heard", func() bool { return len(a.ear.events[d.Self()]) == 1 })
	b.ear.mu.Lock()
	defer b.ear.mu.Unlock()
	if b.ear.wrong != "" || b.ear.gone[a.Self()] > 0 {
		w.Errorf("%s; B was left by A %d times", b.ear.wrong, b.ear.gone[a.Self()])
	}
}

// testLinksAllToAll lets ten hosts talk, and five more join them, each with each and with itself.
func testLinksAllToAll(w *world) {
	const first, all, each = 10, 15, 20
	var hosts []*linked
	var peers []transport.Peer
	for range all {
		x := w.linked(nil)
		hosts = append(hosts, x)
		peers = append(peers, x.peer())
	}
	var talking sync.WaitGroup
	talk := func(list, to []*linked) {
		for _, x := range list {
			talking.Go(func() {
				for i := range uint64(each) {
					for _, y := range to {
						x.sendNumber(y, i+1)
					}
				}
			})
		}
	}
	for _, x := range hosts[:first] {
		x.Connect(peers[:first])
	}
	for _, x := range hosts[:first] {
		w.must(x.WaitFor(w.within(), first))
	}
	talk(hosts[:first], hosts[:first])
	for _, x := range hosts {
		x.Connect(peers)
	}
	talk(hosts[first:], hosts)
	for _, x := range hosts {
		w.must(x.WaitFor(w.within(), all))
	}
	talking.Wait()
	for _, x := range hosts {
		w.must(x.Drain(w.within()))
	}
	for i, x := range hosts {
		for j, from := range hosts {
			want := each
			if j < first && i >= first {
				want = 0
			}
			x.ear.until(w, fmt.Sprintf("%d has heard %d", i, j), func() bool { return len(x.ear.events[from.Self()]) == want })
		}
		x.ear.until(w, "all was in order", func() bool { return x.ear.wrong == "" })
	}
}

// testLinksSlow lets the receiver take nothing: the sender goes on, drops its oldest and keeps its newest. Then the receiver
// takes all there is: those that were sent before, and the newest, with the gap told.
func testLinksSlow(w *world) {
	const n, room, window = 5000, 100, 8
	a := w.linked(func(c *transport.LinksConfig) { c.Dispatcher.Events, c.Dispatcher.Window = room, window })
	b := w.linked(nil)
	b.ear.gate = make(chan struct{})
	b.Connect([]transport.Peer{a.peer()})
	a.Connect([]transport.Peer{b.peer()})
	w.must(a.WaitFor(w.within(), 1))
	for i := range uint64(n) {
		a.sendNumber(b, i+1)
	}
	close(b.ear.gate)
	w.must(a.Drain(w.within()))
	dropped := a.Stats().Dropped["n"].Messages
	b.ear.mu.Lock()
	defer b.ear.mu.Unlock()
	list := b.ear.events[a.Self()]
	if b.ear.wrong != "" || len(list) == 0 || list[len(list)-1] != n {
		w.Fatalf("%s; heard %d events", b.ear.wrong, len(list))
	}
	if len(list) > room+window+1 || int64(len(list))+dropped != n || b.ear.missed != uint64(dropped) {
		w.Errorf("heard %d events, %d dropped, %d missed", len(list), dropped, b.ear.missed)
	}
}
