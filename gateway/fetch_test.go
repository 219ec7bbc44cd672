package gateway

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// swarm is a Fetch from another memory, which hands a block over when it is let.
type swarm struct {
	from *memory
	to   *memory
	open func(cid.Cid) bool // a block that is not waits; nil: all are

	mu       sync.Mutex
	progress Progress
	asked    []cid.Cid
	ahead    []cid.Cid
	closed   int
	changed  chan struct{} // closed and made anew when something changes
}

func newSwarm(from, to *memory) *swarm {
	return &swarm{from: from, to: to, changed: make(chan struct{})}
}

func (s *swarm) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Get implements dray.Getter.
func (s *swarm) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	s.change(func() { s.asked = append(s.asked, c) })
	for {
		s.mu.Lock()
		open, changed := s.open == nil || s.open(c), s.changed
		s.mu.Unlock()
		b, err := s.from.Get(ctx, c)
		if open && err == nil {
			s.change(func() { s.progress.Arrived += int64(b.Size()) })
			return b, s.to.put(b)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: ctx.Err()}
		}
	}
}

func (s *swarm) Ahead(cids []cid.Cid) { s.change(func() { s.ahead = append(s.ahead, cids...) }) }

func (s *swarm) Progress() Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progress
}

func (s *swarm) Waits() string { return "waiting for somebody" }

func (s *swarm) Close() error {
	s.change(func() { s.closed++ })
	return nil
}

// remote returns a site whose blocks are elsewhere.
func remote(t *testing.T) (*site, *swarm) {
	s := newSite(t)
	far := s.mem
	s.mem = newMemory()
	s.cfg.Local = s.mem
	sw := newSwarm(far, s.mem)
	s.cfg.Fetch = func(context.Context, cid.Cid) Fetch { return sw }
	s.serve()
	return s, sw
}

// What is not here is fetched, in order and ahead, kept, and then served from here.
func TestFetches(t *testing.T) {
	s, sw := remote(t)
	a := s.do(s.fill("GET /ipfs/{root}/big.bin"))
	s.check(t, a, http.StatusOK, []string{"Content-Length: 10500"})
	s.checkBody(t, a, string(s.bigData))
	if sw.closed != 1 {
		t.Errorf("the fetch was closed %d times", sw.closed)
	}
	if len(sw.ahead) < 5 {
		t.Errorf("%d blocks were asked for ahead", len(sw.ahead))
	}
	asked := len(sw.asked)
	s.check(t, s.do(s.fill("GET /ipfs/{root}/big.bin")), http.StatusOK, nil)
	s.check(t, s.do(s.fill("GET /ipfs/{big}?format=car")), http.StatusOK, nil)
	if len(sw.asked) != asked {
		t.Errorf("what is here was fetched: %v", sw.asked[asked:])
	}
	for _, request := range []string{
		"GET /ipfs/{root}/many/137", "GET /ipfs/{many}/", "GET /ipfs/{root}/sub/page.html?format=car", "GET /ipfs/{dup}?format=raw",
		"GET /ipfs/{root}/web/", "GET /ipfs/{sub}?format=tar", "HEAD /ipfs/{old}",
	} {
		s.check(t, s.do(s.fill(request)), http.StatusOK, nil)
	}
	s.mem.remove(s.hello.CID)
	s.check(t, s.do(s.fill("GET /ipfs/{hello}"), "Cache-Control: only-if-cached"), http.StatusPreconditionFailed, nil)
}

// A range fetches what it needs, and not the rest.
func TestRangeFetchesItsPart(t *testing.T) {
	s, sw := remote(t)
	a := s.do(s.fill("GET /ipfs/{big}"), "Range: bytes=5100-5199")
	s.check(t, a, http.StatusPartialContent, []string{"Content-Type: application/octet-stream"})
	s.checkBody(t, a, string(s.bigData[5100:5200]))
	for _, c := range sw.asked {
		if c.Type() != cid.DagProtobuf && c != s.far(sw, 5) {
			t.Errorf("fetched %v", c)
		}
	}
	a = s.do(s.fill("HEAD /ipfs/{big}")) // which looks at the beginning
	s.check(t, a, http.StatusOK, []string{"Content-Length: 10500"})
}

// far returns a leaf of big.bin that is elsewhere.
func (s *site) far(sw *swarm, i int) cid.Cid {
	s.mem, sw.from = sw.from, s.mem
	defer func() { s.mem, sw.from = sw.from, s.mem }()
	return s.leaves(s.t)[i]
}

// A body is sent while its end has not come yet.
func TestStreamsWhatHasCome(t *testing.T) {
	s, sw := remote(t)
	last := s.far(sw, 10)
	sw.change(func() { sw.open = func(c cid.Cid) bool { return c != last } })
	for _, url := range []string{"/ipfs/{big}", "/ipfs/{big}?format=car"} {
		resp, err := http.Get(s.srv.URL + s.fill(url))
		s.must(err)
		got := make([]byte, 9000)
		if _, err := io.ReadFull(resp.Body, got); err != nil {
			t.Fatalf("%s: %v before the last leaf has come", url, err)
		}
		sw.change(func() { sw.open = nil })
		rest, err := io.ReadAll(resp.Body)
		s.must(err)
		if whole := string(got) + string(rest); !strings.HasSuffix(whole, string(s.bigData[10_000:])) {
			t.Errorf("%s: %d bytes, not the end", url, len(whole))
		}
		s.must(resp.Body.Close())
		s.mem.remove(last)
		sw.change(func() { sw.open = func(c cid.Cid) bool { return c != last } })
	}
}

// When the client goes, so does what was fetched for it.
func TestClientGoes(t *testing.T) {
	s, sw := remote(t)
	sw.change(func() { sw.open = func(c cid.Cid) bool { return c != s.big.CID } })
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.srv.URL+s.fill("/ipfs/{big}"), nil)
	s.must(err)
	var wg sync.WaitGroup
	wg.Go(func() {
		if resp, err := http.DefaultClient.Do(r); err == nil {
			resp.Body.Close()
			t.Error("an answer")
		}
	})
	sw.await(t, func() bool { return len(sw.asked) > 0 })
	cancel()
	wg.Wait()
	sw.await(t, func() bool { return sw.closed == 1 })
}

// await waits until something holds, which is changed by the swarm's methods.
func (s *swarm) await(t *testing.T, ok func() bool) {
	t.Helper()
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("never")
		}
	}
}

// call asks the gateway without a network, in the time of a bubble.
func call(t *testing.T, g *Gateway, path string, header ...string) answer {
	t.Helper()
	w := &recorder{header: make(http.Header)}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.RequestURI = path
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	aborted := func() (cut bool) {
		defer func() {
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler {
					panic(p)
				}
				cut = true
			}
		}()
		g.ServeHTTP(w, r)
		return false
	}()
	a := answer{code: w.code, header: w.header, body: w.body}
	if aborted {
		a.err = http.ErrAbortHandler
	}
	return a
}

type recorder struct {
	header http.Header
	code   int
	body   []byte
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.body = append(r.body, p...)
	return len(p), nil
}

// How long a request waits, and what it says then.
func TestWaits(t *testing.T) {
	for _, tt := range []struct {
		name     string
		progress Progress
		moves    time.Duration // something else arrives so long
		last     bool          // all but the last leaf comes
		path     string
		after    time.Duration
		code     int
		says     string
		cut      bool
	}{
		{name: "nothing comes", path: "/ipfs/{big}", after: 30 * time.Second, code: 504, says: "nothing has arrived for 30s: waiting for somebody"},
		{name: "nothing comes of a CAR", path: "/ipfs/{big}?format=car", after: 30 * time.Second, code: 504},
		{name: "nothing comes of a block", path: "/ipfs/{big}?format=raw", after: 30 * time.Second, code: 504},
		{name: "nobody has it", progress: Progress{Hopeless: true}, path: "/ipfs/{big}", after: 3 * time.Second, code: 404, says: "cannot be had: waiting for somebody"},
		{name: "nobody knows of anybody", progress: Progress{Hopeless: true, Sure: true}, path: "/ipfs/{big}", after: 0, code: 404, says: "cannot be had: waiting for somebody"},
		{name: "something else comes", moves: time.Minute, path: "/ipfs/{big}", after: 90 * time.Second, code: 504},
		{name: "slowly", progress: Progress{Slow: true}, path: "/ipfs/{big}", after: 2 * time.Minute, code: 504},
		{
			name: "the last leaf does not come", last: true, path: "/ipfs/{big}", after: 30 * time.Second, code: 200, cut: true,
		},
		{
			name: "the last leaf of a CAR", last: true, path: "/ipfs/{big}?format=car", after: 30 * time.Second, code: 200, cut: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, sw := remote(t)
			s.srv.Close()
			last := s.far(sw, 10)
			synctest.Test(t, func(t *testing.T) {
				sw.changed = make(chan struct{})
				sw.progress = tt.progress
				sw.open = func(c cid.Cid) bool { return tt.last && c != last }
				g, err := New(s.cfg)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					for end := time.Now().Add(tt.moves); time.Now().Before(end); {
						time.Sleep(time.Second)
						sw.change(func() { sw.progress.Arrived++ })
					}
				})
				start := time.Now()
				a := call(t, g, s.fill(tt.path))
				took := time.Since(start)
				wg.Wait()
				if a.code != tt.code || !strings.Contains(string(a.body), tt.says) {
					t.Errorf("status %d %.200q, want %d and %q", a.code, a.body, tt.code, tt.says)
				}
				if cut := a.err != nil; cut != tt.cut {
					t.Errorf("cut: %v", cut)
				}
				if took < tt.after || took > tt.after+2*time.Second {
					t.Errorf("after %v, want %v", took, tt.after)
				}
				if tt.code == 504 && a.header.Get("Retry-After") == "" {
					t.Error("it does not say when to try again")
				}
			})
		})
	}
}

// A body that stops after it has begun is cut.
func TestStopsInTheMiddle(t *testing.T) {
	s, sw := remote(t)
	big := s.file(small(), content(7, 400_000)) // here, but for its end
	for _, c := range s.under(t, big.CID) {
		b, err := s.mem.Get(t.Context(), c)
		s.must(err)
		s.must(sw.from.put(b))
	}
	s.srv.Close()
	last := s.under(t, big.CID)
	gone := last[len(last)-1]
	s.mem.remove(gone)
	synctest.Test(t, func(t *testing.T) {
		sw.changed = make(chan struct{})
		sw.open = func(c cid.Cid) bool { return c != gone }
		g, err := New(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/ipfs/" + big.CID.String(), "/ipfs/" + big.CID.String() + "?format=car"} {
			a := call(t, g, path)
			if a.code != http.StatusOK || a.err != http.ErrAbortHandler || len(a.body) < 300_000 {
				t.Errorf("%s: status %d, %d bytes, %v", path, a.code, len(a.body), a.err)
			}
		}
	})
}

// What is private is as if nobody had it: the same answer, after the same time, and nothing tells others of it.
func TestPrivate(t *testing.T) {
	s, sw := remote(t)
	s.mem = sw.from // everything is here
	s.cfg.Local = s.mem
	s.srv.Close()
	private := map[cid.Cid]bool{}
	for _, c := range []cid.Cid{s.big.CID, s.sub.CID} {
		for _, x := range s.under(t, c) {
			private[x] = true
		}
	}
	s.cfg.Public = func(c cid.Cid) bool { return !private[c] }
	var told []cid.Cid
	s.cfg.Fetch = func(_ context.Context, root cid.Cid) Fetch { told = append(told, root); return sw }
	var used []cid.Cid
	s.cfg.Used = func(_ context.Context, c cid.Cid) { used = append(used, c) }
	absent := cid.MustParse(s.fill("{absent}"))
	leaf := s.leaves(t)[3]
	synctest.Test(t, func(t *testing.T) {
		sw.changed = make(chan struct{})
		sw.from, sw.progress = newMemory(), Progress{Hopeless: true}
		g, err := New(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"", "?format=raw", "?format=car", "?format=tar", "/", "/page.html", "?format=car&dag-scope=block"} {
			start := time.Now()
			want := call(t, g, "/ipfs/"+absent.String()+path)
			took := time.Since(start)
			for _, c := range []cid.Cid{s.big.CID, s.sub.CID, leaf} {
				start := time.Now()
				a := call(t, g, "/ipfs/"+c.String()+path)
				same := strings.ReplaceAll(string(a.body), c.String(), absent.String())
				if a.code != want.code || same != string(want.body) || len(a.header) != len(want.header) {
					t.Errorf("%v%s: %d %.200q %v, and of what is absent %d %.200q %v", c, path, a.code, a.body, a.header, want.code, want.body, want.header)
				}
				if now := time.Since(start); now != took {
					t.Errorf("%v%s took %v, and what is absent %v", c, path, now, took)
				}
			}
		}
		// What is public above and beside it is served; what leads to it ends there.
		if a := call(t, g, s.fill("/ipfs/{root}/hello.txt")); a.code != http.StatusOK {
			t.Errorf("what is public: status %d", a.code)
		}
		if a := call(t, g, s.fill("/ipfs/{root}/big.bin")); a.code != http.StatusNotFound {
			t.Errorf("a path to what is private: status %d", a.code)
		}
		if a := call(t, g, s.fill("/ipfs/{root}?format=car")); a.err == nil && a.code == http.StatusOK {
			t.Error("a CAR with what is private is whole")
		}
		// What is remembered of it when it was public is not said when it is private again.
		clear(private)
		if a := call(t, g, s.fill("/ipfs/{big}")); a.code != http.StatusOK || len(a.body) != 10500 {
			t.Errorf("public now: status %d", a.code)
		}
		private[s.big.CID] = true
		if a := call(t, g, s.fill("/ipfs/{big}")); a.code != http.StatusNotFound {
			t.Errorf("private again: status %d", a.code)
		}
	})
	for _, c := range slices.Concat(told, sw.asked, sw.ahead, used) {
		if c == s.big.CID && len(used) == 0 || c == s.sub.CID || c == leaf {
			t.Errorf("others were told of %v", c)
		}
	}
}

// A block that turns private while it comes is not served.
func TestTurnsPrivate(t *testing.T) {
	s, sw := remote(t)
	s.cfg.Public = func(cid.Cid) bool {
		sw.mu.Lock()
		defer sw.mu.Unlock()
		return len(sw.asked) == 0
	}
	s.serve()
	if a := s.do(s.fill("GET /ipfs/{hello}?format=raw")); a.code != http.StatusNotFound {
		t.Errorf("status %d", a.code)
	}
}
