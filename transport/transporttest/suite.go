// Package transporttest holds the tests that every [transport.Network] must pass. They use no virtual time, so that they run
// over real sockets too, and they name no transport.
//
// # What it does not do
//
// It does not measure, and it does not test what only one transport has: an in-memory network's faults, or libp2p's dial
// race across transports.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/transport"
)

// patience is how long anything may take that should happen soon.
const patience = 20 * time.Second

// Factory makes one more host of the network under test. All hosts that it makes within one test can dial each other. The
// suite closes them.
type Factory func(t *testing.T) transport.Network

// Suite says how the suite is run. The zero value is right for a network without limits of its own.
type Suite struct {
	// Streams is how many streams are opened in parallel on one connection. If zero, 256.
	Streams int
}

// Run runs the suite with its zero value. network is called once for each test and makes the network whose hosts the
// test then asks the Factory for.
func Run(t *testing.T, network func(t *testing.T) Factory) {
	Suite{}.Run(t, network)
}

// Run runs the suite. network is called once for each test.
func (u Suite) Run(t *testing.T, network func(t *testing.T) Factory) {
	u.run(t, network, append(streamTests(), []test{
		{"Info", testInfo},
		{"Ping", testPing},
		{"WrongIDIsRefused", testWrongID},
		{"DialErrors", testDialErrors},
		{"DialKnownAddress", testDialKnown},
		{"NotifyInOrder", testNotify},
		{"ConcurrentDials", testConcurrentDials},
		{"SimultaneousDial", testSimultaneous},
		{"ManyHosts", testManyHosts},
	}...))
}

// RunStreams runs those tests of the suite that are about streams, for a network that makes them in another way than its
// connections.
func (u Suite) RunStreams(t *testing.T, network func(t *testing.T) Factory) {
	u.run(t, network, streamTests())
}

type test struct {
	name string
	run  func(*world)
}

func streamTests() []test {
	return []test{
		{"Echo", testEcho},
		{"BigTransfersBothWays", testBig},
		{"SlowReaderBoundsWriter", testSlowReader},
		{"SlowStreamDoesNotStopOthers", testSlowStream},
		{"ParallelStreams", testParallel},
		{"HalfClose", testHalfClose},
		{"CloseDelivers", testCloseDelivers},
		{"Reset", testReset},
		{"ReadDeadline", testReadDeadline},
		{"WriteDeadline", testWriteDeadline},
		{"DeadlineWakesPendingRead", testDeadlinePending},
		{"ProtocolOrder", testProtocolOrder},
		{"ProtocolRefused", testRefused},
		{"PeerVanishes", testVanish},
		{"CloseUnblocks", testCloseUnblocks},
		{"UseAfterClose", testAfterClose},
		{"ConnClose", testConnClose},
		{"StreamsAreFreed", testFreed},
	}
}

func (u Suite) run(t *testing.T, network func(t *testing.T) Factory, tests []test) {
	if u.Streams == 0 {
		u.Streams = 256
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &world{T: t, suite: u, make: network(t)}
			defer w.end()
			test.run(w)
		})
	}
}

// world is what a test is written in.
type world struct {
	*testing.T
	suite Suite
	make  Factory
	hosts []*party
	links []*linked
	wg    sync.WaitGroup
}

// party is a host with what it has been told.
type party struct {
	transport.Network
	w *world

	mu      sync.Mutex
	news    []string      // "up ID" and "down ID", in order
	changed chan struct{} // closed and replaced with each of news
	conns   map[dray.PeerID]transport.Conn
}

// host adds a host.
func (w *world) host() *party {
	w.Helper()
	p := &party{Network: w.make(w.T), w: w, changed: make(chan struct{}), conns: make(map[dray.PeerID]transport.Conn)}
	p.Notify(
		func(c transport.Conn) {
			p.tell("up "+c.Peer().Short(), func() { p.conns[c.Peer()] = c })
		},
		func(id dray.PeerID) {
			p.tell("down "+id.Short(), func() { delete(p.conns, id) })
		},
	)
	w.hosts = append(w.hosts, p)
	return p
}

// pair adds two hosts; the second echoes on /echo and hands over streams of /give on the channel.
func (w *world) pair() (a, b *party, given <-chan transport.Stream) {
	w.Helper()
	a, b = w.host(), w.host()
	b.echo("/echo")
	return a, b, b.give("/give")
}

func (p *party) echo(protocols ...transport.Protocol) {
	p.Handle(protocols, func(_ transport.Conn, s transport.Stream) {
		_, err := io.Copy(s, s)
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

// give hands over what is accepted. Nobody waits for the receiver, up to 1,024 streams.
func (p *party) give(protocols ...transport.Protocol) <-chan transport.Stream {
	given := make(chan transport.Stream, 1024)
	p.Handle(protocols, func(_ transport.Conn, s transport.Stream) { given <- s })
	return given
}

func (p *party) tell(s string, note func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	note()
	p.news = append(p.news, s)
	close(p.changed)
	p.changed = make(chan struct{})
}

// hear waits until what the host was told is exactly the given lines, or longer, and returns all of it.
func (p *party) hear(want ...string) []string {
	p.w.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		p.mu.Lock()
		news, changed := append([]string(nil), p.news...), p.changed
		p.mu.Unlock()
		if len(news) >= len(want) {
			if strings.Join(news[:len(want)], ",") != strings.Join(want, ",") {
				p.w.Fatalf("told %v, want %v", news, want)
			}
			return news
		}
		select {
		case <-changed:
		case <-limit.C:
			p.w.Fatalf("told %v, want %v", news, want)
		}
	}
}

func (p *party) conn(id dray.PeerID) transport.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[id]
}

// end stops all links, closes all hosts and checks that none of the network's own goroutines is left.
func (w *world) end() {
	for _, l := range w.links {
		l.Stop()
	}
	for _, h := range w.hosts {
		if err := h.Close(); err != nil {
			w.Errorf("close: %v", err)
		}
	}
	w.wg.Wait()
	if left := stacks("dray/transport.", "dray/transport/p2p."); left != "" {
		w.Errorf("goroutines left after Close:\n%s", left)
	}
}

// stacks returns the stacks of goroutines that run one of the given packages' methods and none of this one's.
func stacks(packages ...string) string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		for _, p := range packages {
			if strings.Contains(g, "\n"+p) && !strings.Contains(g, "transporttest.") {
				out = append(out, g)
				break
			}
		}
	}
	return strings.Join(out, "\n\n")
}

// within is a context that ends when patience does.
func (w *world) within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.Cleanup(cancel)
	return ctx
}

func (w *world) dial(from, to *party) transport.Conn {
	w.Helper()
	c, err := from.Dial(w.within(), to.Self(), to.Addrs())
	if err != nil {
		w.Fatalf("dial: %v", err)
	}
	return c
}

func (w *world) open(c transport.Conn, protocols ...transport.Protocol) transport.Stream {
	w.Helper()
	s, err := c.Open(w.within(), protocols...)
	if err != nil {
		w.Fatalf("open %v: %v", protocols, err)
	}
	return s
}

func (w *world) write(s transport.Stream, b []byte) {
	w.Helper()
	if n, err := s.Write(b); err != nil || n != len(b) {
		w.Fatalf("wrote %d of %d bytes: %v", n, len(b), err)
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// take returns the next stream that was accepted.
func (w *world) take(given <-chan transport.Stream) transport.Stream {
	w.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case s := <-given:
		return s
	case <-limit.C:
		w.Fatal("no stream was accepted")
		return nil
	}
}

// wantRead reads exactly what is wanted.
func (w *world) wantRead(s transport.Stream, want []byte) {
	w.Helper()
	got := make([]byte, len(want))
	w.must(s.SetReadDeadline(time.Now().Add(patience)))
	if _, err := io.ReadFull(s, got); err != nil {
		w.Fatalf("read: %v", err)
	}
	if !bytes.Equal(got, want) {
		w.Fatalf("read %.32q, want %.32q", got, want)
	}
}

// wantEnd reads the orderly end of the stream.
func (w *world) wantEnd(s transport.Stream) {
	w.Helper()
	w.must(s.SetReadDeadline(time.Now().Add(patience)))
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		w.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

// wantError fails the test unless err is of one of the wanted kinds.
func (w *world) wantError(what string, err error, kinds ...error) {
	w.Helper()
	for _, k := range kinds {
		if errors.Is(err, k) {
			return
		}
	}
	w.Fatalf("%s: got error %v, want one of %v", what, err, kinds)
}

// echoes proves that a connection works.
func (w *world) echoes(c transport.Conn, text string) {
	w.Helper()
	s := w.open(c, "/echo")
	w.write(s, []byte(text))
	w.must(s.CloseWrite())
	w.wantRead(s, []byte(text))
	w.wantEnd(s)
	w.must(s.Close())
}

// soon waits for a function on another goroutine to end.
func (w *world) soon(what string, f func()) func() {
	done := make(chan struct{})
	w.wg.Go(func() {
		defer close(done)
		f()
	})
	return func() {
		w.Helper()
		limit := time.NewTimer(patience)
		defer limit.Stop()
		select {
		case <-done:
		case <-limit.C:
			w.Fatalf("%s: still waiting", what)
		}
	}
}

// pattern is bytes that differ from place to place.
func pattern(n, seed int) []byte {
	b := make([]byte, n)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
