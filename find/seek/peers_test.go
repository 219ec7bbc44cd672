package seek

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/find"
	"dray/transport"
)

// town is a few hosts that know each other as a test says.
type town struct {
	hosts map[dray.PeerID]*fellow
	mu    sync.Mutex
	calls int
}

// fellow is a host with a Peers.
type fellow struct {
	town  *town
	id    dray.PeerID
	where string // the address on its connections
	knows []dray.PeerID
	holds map[cid.Cid]bool
	// closed roots are told to those listed, or who shows the proof.
	closed map[cid.Cid][]dray.PeerID
	mates  map[cid.Cid][]dray.PeerID
	proof  dray.Proof
	dumb   bool
	peers  *Peers
	finder *Finder
}

func newTown() *town { return &town{hosts: make(map[dray.PeerID]*fellow)} }

// host adds a host that is connected to others.
func (w *town) host(t *testing.T, id, where string, knows ...dray.PeerID) *fellow {
	f := &fellow{
		town: w, id: dray.PeerID(id), where: where, knows: knows, holds: make(map[cid.Cid]bool),
		closed: make(map[cid.Cid][]dray.PeerID), mates: make(map[cid.Cid][]dray.PeerID),
	}
	w.hosts[f.id] = f
	for _, o := range knows {
		w.hosts[o].knows = append(w.hosts[o].knows, f.id)
	}
	f.peers = NewPeers(PeersConfig{Host: f, Self: f.id})
	f.finder = New(Config{Self: f.id, Finders: []Named{{Name: "peers", Source: find.Peers, Finder: f.peers.Connected()}}})
	f.peers.Remember(f.finder)
	t.Cleanup(func() { f.finder.Close() })
	return f
}

func (f *fellow) Addrs() []string { return []string{f.where} }

func (f *fellow) Connected() (list []Contact) {
	for _, id := range f.knows {
		list = append(list, Contact{ID: id, Remote: f.town.hosts[id].where})
	}
	return list
}

func (f *fellow) Share(c cid.Cid) Share { return Share{Holds: f.holds[c], Mates: f.mates[c]} }

func (f *fellow) MayTell(p dray.PeerID, c cid.Cid, proof dray.Proof) bool {
	list, closed := f.closed[c]
	return !closed || slices.Contains(list, p) || proof == dray.Proof{7}
}

func (f *fellow) Prove(dray.PeerID, cid.Cid) dray.Proof { return f.proof }

func (f *fellow) Call(ctx context.Context, p transport.Peer, _ transport.Protocol) (transport.Stream, error) {
	o := f.town.hosts[p.ID]
	if o == nil {
		return nil, dray.ErrUnreachable
	}
	f.town.mu.Lock()
	f.town.calls++
	f.town.mu.Unlock()
	s := &line{ctx: ctx, serve: func(s transport.Stream) { o.peers.Serve(ctx, f.id, s) }}
	if o.dumb {
		s.serve = nil
	}
	return s, nil
}

// line is a stream whose other end reads the question once it is whole.
type line struct {
	ctx      context.Context
	serve    func(transport.Stream)
	question bytes.Buffer
	answer   bytes.Buffer
	reset    bool
	far      bool // this is the other end
}

func (l *line) Write(b []byte) (int, error) {
	if l.far {
		return l.answer.Write(b)
	}
	return l.question.Write(b)
}

func (l *line) Read(b []byte) (int, error) {
	if l.serve == nil {
		<-l.ctx.Done()
		return 0, l.ctx.Err()
	}
	if l.far {
		return l.question.Read(b)
	}
	if l.reset {
		return 0, errors.New("reset")
	}
	return l.answer.Read(b)
}

func (l *line) CloseWrite() error {
	if l.serve != nil && !l.far {
		l.far = true
		l.serve(l)
		l.far = false
	}
	return nil
}

func (l *line) Reset() error {
	if l.far {
		l.reset = true
	}
	return nil
}
func (l *line) Close() error                     { return nil }
func (l *line) Protocol() transport.Protocol     { return find.AskProtocol }
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }

// seen returns whom a host finds for c.
func (f *fellow) seen(t *testing.T, c cid.Cid) (ids []string) {
	t.Helper()
	err := f.finder.Search(t.Context(), c, func(s Sighting) { ids = append(ids, string(s.ID)) })
	if err != nil {
		t.Error(err)
	}
	slices.Sort(ids)
	return ids
}

const lan, other, wan = "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1", "/ip4/8.8.8.8/tcp/1"

// TestThird: two that know only a third find each other through it, in one question, and are not passed on any farther.
func TestThird(t *testing.T) {
	w, c := newTown(), root("film")
	third := w.host(t, "third", lan)
	a := w.host(t, "a", lan, "third")
	b := w.host(t, "b", other, "third")
	a.holds[c] = true
	expect(t, b.seen(t, c), "a")
	if got := b.finder.Addrs("a"); len(got) != 1 || got[0] != lan {
		t.Errorf("at %q", got)
	}
	// The third has learnt it and asks no more.
	w.calls = 0
	third.mates[c] = []dray.PeerID{"a"}
	d := w.host(t, "d", lan, "third")
	expect(t, d.seen(t, c), "a")
	// Who is two away is not found by a question that goes one farther only.
	w.host(t, "far", lan, "d")
	e := w.host(t, "e", lan, "far")
	book := root("book")
	a.holds[book] = true
	expect(t, e.seen(t, book))
}

// TestFetchersFindEachOther: who asks and holds some is told to who asks next.
func TestFetchersFindEachOther(t *testing.T) {
	w, c := newTown(), root("film")
	w.host(t, "third", lan)
	a, b := w.host(t, "a", lan, "third"), w.host(t, "b", lan, "third")
	a.holds[c] = true // it has begun
	a.seen(t, c)
	third := w.hosts["third"].finder.Providers(c)
	if len(third) != 1 || third[0].ID != "a" {
		t.Errorf("the third remembers %+v", third)
	}
	a.dumb = true
	expect(t, b.seen(t, c), "a")
}

// TestClosedRoots: about a root that is not open nobody hears anything who has not shown a proof.
func TestClosedRoots(t *testing.T) {
	w, c := newTown(), root("film")
	third := w.host(t, "third", lan)
	a, b := w.host(t, "a", lan, "third"), w.host(t, "b", lan, "third")
	a.holds[c], third.holds[c] = true, true
	for _, f := range []*fellow{a, third} {
		f.closed[c] = []dray.PeerID{"third", "a"}
	}
	third.finder.Learn(c, find.Provider{ID: "a", Addrs: []string{lan}}, 0)
	expect(t, b.seen(t, c))
	b.proof = dray.Proof{9}
	expect(t, b.seen(t, c))
	b.proof = dray.Proof{7}
	expect(t, b.seen(t, c), "a", "third")
	if len(third.finder.Providers(c)) != 1 {
		t.Error("a stranger who asked was remembered")
	}
}

// TestTellers: of a teller so many names are believed and no more, none that lead into private networks from outside, and each that
// turns out to be there is made up for.
func TestTellers(t *testing.T) {
	w, c := newTown(), root("film")
	liar := w.host(t, "liar", wan)
	b := w.host(t, "b", lan, "liar")
	for i := range 200 {
		liar.finder.Learn(root("x"), find.Provider{ID: dray.PeerID([]byte{'v', byte(i)}), Addrs: []string{"/ip4/9.9.9.9/tcp/1"}}, 0)
	}
	total := 0
	for i := range 8 {
		var list find.Answer
		for k := range find.MaxTold {
			id := dray.PeerID([]byte{'v', byte(i*find.MaxTold + k)})
			list = append(list, find.Told{ID: id, Addrs: []string{"/ip4/9.9.9.9/tcp/1", "/ip4/10.0.0.9/tcp/1"}})
		}
		for _, x := range b.peers.believe("liar", list) {
			total++
			if len(x.Addrs) != 1 || x.Addrs[0] != "/ip4/9.9.9.9/tcp/1" {
				t.Fatalf("%q are believed of a host on the internet", x.Addrs)
			}
		}
	}
	if total != 64 {
		t.Errorf("%d names of a flood are believed", total)
	}
	if got := b.peers.believe("liar", find.Answer{{ID: "new", Addrs: []string{wan}}}); len(got) != 0 {
		t.Error("one more")
	}
	b.peers.Reached("v\x01")
	if got := b.peers.believe("liar", find.Answer{{ID: "new", Addrs: []string{wan}}}); len(got) != 1 {
		t.Error("a name that was right is not made up for")
	}
	_ = c
}

// TestAskers: who asks too often is cut off, and one who says nonsense, too.
func TestAskers(t *testing.T) { synctest.Test(t, testAskers) }

func testAskers(t *testing.T) {
	w, c := newTown(), root("film")
	third := w.host(t, "third", lan)
	b := w.host(t, "b", lan, "third")
	third.holds[c] = true
	good := 0
	for range 100 {
		if a, err := b.peers.ask(t.Context(), transport.Peer{ID: "third"}, c, true); err == nil && len(a) == 1 {
			good++
		}
	}
	if _, err := b.peers.ask(t.Context(), transport.Peer{ID: "third"}, c, true); good != 64 || !errors.Is(err, transport.ErrBusy) {
		t.Errorf("%d of 100 questions at once are answered, then %v", good, err)
	}
	for _, text := range [][]byte{nil, {0}, []byte("GET / HTTP/1.1"), make([]byte, find.MaxAsk+1)} {
		s := &line{ctx: t.Context(), serve: func(s transport.Stream) { third.peers.Serve(t.Context(), "x", s) }}
		s.Write(text)
		s.CloseWrite()
		if _, err := io.ReadAll(s); err == nil {
			t.Errorf("%.20q is answered", text)
		}
	}
}

// TestDumb: who answers nothing delays the others' answers not at all, and the search by no more than it may.
func TestDumb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c := newTown(), root("film")
		for _, id := range []string{"d1", "d2", "d3"} {
			w.host(t, id, lan).dumb = true
		}
		w.host(t, "a", lan).holds[c] = true
		b := w.host(t, "b", lan, "d1", "d2", "d3", "a")
		expect(t, look(t, b.finder, c), "a after 0s", "end after 5s")
	})
}
