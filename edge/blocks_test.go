package edge

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/unixfs"
)

// dag is blocks by CID. It is a gateway over HTTP, and a swarm.
type dag struct {
	blocks map[string]dray.Block // not changed once it is used
	asked  atomic.Int64
	lies   atomic.Bool // it answers with other bytes
	wait   chan struct{}
}

// file adds a file in leaves of 16 KiB and returns its root.
func (d *dag) file(t *testing.T, b []byte) unixfs.Ref {
	t.Helper()
	w := unixfs.NewBuilder(unixfs.V1(), d.put)
	for at := 0; at < len(b); at += 16 * kib {
		part := b[at:min(at+16*kib, len(b))]
		x, err := dray.Hashed(leafPrefix, part)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.put(x), w.AddLeaf(x.CID(), int64(len(part)), int64(len(part)))); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (d *dag) put(b dray.Block) error {
	if d.blocks == nil {
		d.blocks = make(map[string]dray.Block)
	}
	d.blocks[dray.HashKey(b.CID())] = b
	return nil
}

// Get implements dray.Getter.
func (d *dag) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	d.asked.Add(1)
	if d.wait != nil {
		select {
		case <-d.wait:
		case <-ctx.Done():
			return dray.Block{}, context.Cause(ctx)
		}
	}
	b, ok := d.blocks[dray.HashKey(c)]
	if !ok {
		return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
	}
	return b, nil
}

func (d *dag) serve(w http.ResponseWriter, r *http.Request) {
	c, err := cid.Decode(strings.TrimPrefix(r.URL.Path, "/ipfs/"))
	if err != nil || r.URL.Query().Get("format") != "raw" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b, err := d.Get(r.Context(), c)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	data := b.Data()
	if d.lies.Load() {
		data = append([]byte("x"), data...)
	}
	_, _ = w.Write(data)
}

// newDAG returns a directory with a file of 100,001 bytes called "a b.txt", and what is in it.
func newDAG(t *testing.T) (d *dag, dir, file unixfs.Ref, b []byte) {
	t.Helper()
	d, b = new(dag), content("file", 100_001)
	file = d.file(t, b)
	w := unixfs.NewDirBuilder(unixfs.V1(), d.put)
	if err := w.Add("a b.txt", file); err != nil {
		t.Fatal(err)
	}
	dir, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return d, dir, file, b
}

func (d *dag) gateway(t *testing.T, name string) (*upstream, Source) {
	t.Helper()
	u := newUpstream(t)
	u.answer = d.serve
	return u, Source{Name: name, Kind: Gateway, URL: u.URL}
}

// Content that has a CID, from a gateway and from the swarm: whole, in ranges, by path, block by block, once.
func TestByCID(t *testing.T) {
	for _, kind := range []Kind{Gateway, Swarm} {
		t.Run(kind.String(), func(t *testing.T) {
			d, dir, file, b := newDAG(t)
			source := Source{Name: "c", Kind: Swarm}
			if kind == Gateway {
				_, source = d.gateway(t, "c")
			}
			w := openEdge(t, Config{Sources: []Source{source}, Swarm: d})
			at := "c/" + file.CID.String()
			w.want(w.get(at, "Range", "bytes=50000-50009"), 206, b[50000:50010], "miss")
			if n := d.asked.Load(); n != 2 {
				t.Errorf("%d blocks for a range in one leaf, want the root and that", n)
			}
			g := w.get(at)
			w.want(g, 200, b, "")
			if g.header.Get("Cache-Control") != forever || g.header.Get("ETag") != `"`+file.CID.String()+`"` {
				t.Errorf("headers %v", g.header)
			}
			w.want(w.get(at, "If-None-Match", g.header.Get("ETag")), 304, nil, "hit")
			w.want(w.do(t.Context(), http.MethodHead, at), 200, []byte{}, "hit")
			w.want(w.get(at, "Range", "bytes=100001-"), 416, nil, "")
			before := d.asked.Load()
			w.want(w.get("c/ipfs/"+dir.CID.String()+"/a%20b.txt"), 200, b, "")
			if n := d.asked.Load() - before; n != 1 {
				t.Errorf("%d blocks for a file that is here, want its directory", n)
			}
			w.want(w.get("c/ipfs/"+file.CID.String()+"?format=raw"), 200, d.blocks[dray.HashKey(file.CID)].Data(), "hit")
			w.want(w.get("c/"+dir.CID.String()), 404, nil, "")
			w.want(w.get("c/"+dir.CID.String()+"/none"), 404, nil, "")
			w.want(w.get("c/nonsense"), 400, nil, "")
			absent, err := dray.Hashed(leafPrefix, []byte("nobody has this"))
			if err != nil {
				t.Fatal(err)
			}
			w.want(w.get("c/"+absent.CID().String()), 404, nil, "")
			w.edge.Invalidate("c/")
			before = d.asked.Load()
			w.want(w.get(at), 200, b, "hit")
			if d.asked.Load() != before {
				t.Error("what has a CID was invalidated")
			}
			w.exact()
		})
	}
}

// A gateway that lies is found out, and another one is asked; what it sent is not kept.
func TestLyingGateway(t *testing.T) {
	d, _, file, b := newDAG(t)
	liar := &dag{blocks: d.blocks}
	liar.lies.Store(true)
	_, bad := liar.gateway(t, "c")
	_, good := d.gateway(t, "c")
	good.Priority = 1
	w := openEdge(t, Config{Sources: []Source{bad, good}})
	w.want(w.get("c/"+file.CID.String()), 200, b, "")
	w.exact()
	if s := w.edge.Stats().Sources[0]; s.Failures == 0 || !strings.Contains(s.LastError, "corrupt") {
		t.Errorf("%+v", s)
	}
	alone := openEdge(t, Config{Sources: []Source{bad}, Rest: time.Millisecond})
	g := alone.get("c/" + file.CID.String())
	alone.want(g, 502, nil, "")
	if !strings.Contains(string(g.body), "corrupt") {
		t.Errorf("says %q", g.body)
	}
	if held, _ := alone.edge.hoard.bytes(); held != 0 {
		t.Errorf("%d bytes of it are kept", held)
	}
}

// Edges before an edge, by CID: each block comes from the origin once, for fifty clients.
func TestTwoTiersByCID(t *testing.T) {
	d, _, file, b := newDAG(t)
	u, source := d.gateway(t, "c")
	top := openEdge(t, Config{Sources: []Source{source}})
	var low []*world
	for range 2 {
		low = append(low, openEdge(t, Config{Sources: []Source{{Name: "x", Kind: Gateway, URL: top.http.URL + "/edge/c"}}}))
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { low[i%2].want(low[i%2].get("x/"+file.CID.String()), 200, b, "") })
	}
	wg.Wait()
	if n := u.requests.Load(); n != int64(len(d.blocks)-1) { // all but the directory
		t.Errorf("%d requests for %d blocks", n, len(d.blocks)-1)
	}
	for _, w := range append(low, top) {
		w.exact()
	}
}

// The one because of whom a block is fetched goes away; the other one gets it from the same fetch.
func TestBlockLeaderLeaves(t *testing.T) {
	d, _, file, b := newDAG(t)
	d.wait = make(chan struct{})
	w := openEdge(t, Config{Sources: []Source{{Name: "c", Kind: Swarm}}, Swarm: d})
	ctx, leave := context.WithCancel(t.Context())
	first := background(t, func() { w.do(ctx, http.MethodGet, "c/"+file.CID.String()) })
	until(t, "the fetch to begin", func() bool { return d.asked.Load() == 1 })
	second := background(t, func() { w.want(w.get("c/"+file.CID.String()), 200, b, "") })
	waiters := func() int {
		s := w.edge.groups["c"].blocks
		s.mu.Lock()
		defer s.mu.Unlock()
		if c := s.calls[dray.HashKey(file.CID)]; c != nil {
			return c.waiters
		}
		return 0
	}
	until(t, "both to wait", func() bool { return waiters() == 2 })
	leave()
	first()
	until(t, "one to wait", func() bool { return waiters() == 1 })
	close(d.wait)
	second()
	if n := d.asked.Load(); n != int64(len(d.blocks)-1) {
		t.Errorf("%d fetches of %d blocks", n, len(d.blocks)-1)
	}
	w.exact()
}

// What is not for everybody is not served, as if it were not there.
func TestGuarded(t *testing.T) {
	d, dir, file, b := newDAG(t)
	var closed atomic.Bool
	w := openEdge(t, Config{
		Sources: []Source{{Name: "c", Kind: Swarm}}, Swarm: d,
		Guarded: func(c cid.Cid) bool { return closed.Load() && c.Equals(file.CID) },
	})
	paths := []string{file.CID.String(), "ipfs/" + file.CID.String(), dir.CID.String() + "/a%20b.txt", file.CID.String() + "?format=raw"}
	for _, p := range paths {
		w.want(w.get("c/"+p), 200, nil, "")
	}
	w.want(w.get("c/"+file.CID.String()), 200, b, "")
	closed.Store(true)
	for _, p := range paths {
		w.want(w.get("c/"+p), 404, nil, "")
	}
	if _, err := w.edge.Warm(t.Context(), "c/"+file.CID.String(), nil); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("warm: %v", err)
	}
}

// Warm brings what is not here, and says what was.
func TestWarm(t *testing.T) {
	u := newUpstream(t)
	b := content("a", 100*kib)
	u.set("models/a b", b)
	u.set("models/private", b)
	d, dir, _, _ := newDAG(t)
	w := openEdge(t, Config{Sources: []Source{
		{Name: "m", URL: u.URL + "/models"}, {Name: "c", Kind: Swarm},
	}, Swarm: d})
	for _, row := range []struct {
		target, name string
		bytes        int64
	}{
		{"m/a%20b", "m/a%20b", 100 * kib},
		{u.URL + "/models/a%20b", "m/a%20b", 100 * kib},
		{dir.CID.String(), "c/" + dir.CID.String(), 0},
		{"/ipfs/" + dir.CID.String() + "/a b.txt", "c/" + dir.CID.String() + "/a b.txt", 0},
	} {
		for name, err := range w.edge.Targets(t.Context(), row.target) {
			if err != nil || name != row.name {
				t.Fatalf("%s means %s, %v", row.target, name, err)
			}
			var last int64
			r, err := w.edge.Warm(t.Context(), name, func(n int64) { last = n })
			if err != nil || r.Name != name || r.Bytes != last || row.bytes != 0 && r.Bytes != row.bytes {
				t.Fatalf("%s: %+v, %v, progress %d", name, r, err, last)
			}
			if again, err := w.edge.Warm(t.Context(), name, nil); err != nil || !again.Here || again.Bytes != r.Bytes {
				t.Fatalf("%s again: %+v, %v", name, again, err)
			}
		}
	}
	w.want(w.get("m/a%20b"), 200, b, "hit")
	w.want(w.get("c/"+dir.CID.String()+"/a%20b.txt"), 200, nil, "hit")
	if n := u.sent.Load(); n != 100*kib {
		t.Errorf("%d bytes were fetched", n)
	}
	for _, target := range []string{"x/a", "https://elsewhere.example/a", "s3://bucket/a", "nothing"} {
		for _, err := range w.edge.Targets(t.Context(), target) {
			if !errors.Is(err, ErrTarget) {
				t.Errorf("%s: %v", target, err)
			}
		}
	}
	if _, err := w.edge.Warm(t.Context(), "m/none", nil); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	if _, err := w.edge.Warm(t.Context(), "m/../../secret", nil); !errors.Is(err, ErrTarget) {
		t.Errorf("out of the origin: %v", err)
	}
	u.header["Cache-Control"] = "no-store"
	if _, err := w.edge.Warm(t.Context(), "m/private", nil); err == nil || !strings.Contains(err.Error(), "must not be stored") {
		t.Errorf("no-store: %v", err)
	}
	u.change(func() { u.down = 500 })
	if _, err := w.edge.Warm(t.Context(), "m/b", nil); !errors.Is(err, dray.ErrUnreachable) {
		t.Errorf("down: %v", err)
	}
	w.exact()
}

// Headers and ranges that anybody may send.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=0-1,2-3", "bytes 0-4/5", "bytes 3-4/*", "x"} {
		f.Add(s, int64(7))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			return
		}
		if r, ok := parseRange(s); ok {
			if from, to, ok := r.of(size); ok && (from < 0 || to > size || from >= to) {
				t.Fatalf("%q of %d is [%d, %d)", s, size, from, to)
			}
		}
		if from, end, total, err := contentRange(s); err == nil && (from < 0 || end <= from || total >= 0 && end > total) {
			t.Fatalf("%q is [%d, %d) of %d", s, from, end, total)
		}
	})
}

// No path that is let through leads out of an origin, however its server reads it.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"a/b", "../x", "a/%2e%2e/b", "a%2f..", "%", "a//b", "./a", "a\\b", "..;/x"} {
		f.Add(s)
	}
	v, err := newServer(Source{Name: "o", URL: "http://host.example/public"}, func() *Config { c := new(Config); c.setDefaults(); return c }())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkPath(s) != nil {
			return
		}
		r, err := v.request(t.Context(), http.MethodGet, s, "")
		if err != nil {
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/public/") || r.URL.Host != "host.example" || strings.Contains("/"+r.URL.Path+"/", "/../") {
			t.Fatalf("%q became %s", s, r.URL)
		}
	})
}
