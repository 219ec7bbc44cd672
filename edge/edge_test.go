package edge

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What a client may ask of an object, first when it is not here and then when it is.
func TestRequests(t *testing.T) {
	u := newUpstream(t)
	b := content("a", 100*kib+17)
	u.set("dir/a b.bin", b)
	u.set("empty", nil)
	for _, row := range []struct {
		name   string
		method string
		path   string
		header []string
		status int
		body   []byte
		says   []string // headers
	}{
		{name: "whole", status: 200, body: b, says: []string{"Content-Length", "102417", "Accept-Ranges", "bytes"}},
		{name: "head", method: "HEAD", status: 200, body: []byte{}, says: []string{"Content-Length", "102417"}},
		{name: "first byte", header: []string{"Range", "bytes=0-0"}, status: 206, body: b[:1], says: []string{"Content-Range", "bytes 0-0/102417"}},
		{name: "across segments", header: []string{"Range", "bytes=16000-50000"}, status: 206, body: b[16000:50001]},
		{name: "from the middle", header: []string{"Range", "bytes=70000-"}, status: 206, body: b[70000:]},
		{name: "end", header: []string{"Range", "bytes=-100"}, status: 206, body: b[len(b)-100:], says: []string{"Content-Range", "bytes 102317-102416/102417"}},
		{name: "more than all", header: []string{"Range", "bytes=-200000"}, status: 206, body: b},
		{name: "beyond the last", header: []string{"Range", "bytes=102416-999999"}, status: 206, body: b[102416:]},
		{name: "unsatisfiable", header: []string{"Range", "bytes=102417-"}, status: 416, says: []string{"Content-Range", "bytes */102417"}},
		{name: "several", header: []string{"Range", "bytes=0-1,5-6"}, status: 200, body: b},
		{name: "nonsense", header: []string{"Range", "bytes=5-2"}, status: 200, body: b},
		{name: "another unit", header: []string{"Range", "lines=1-2"}, status: 200, body: b},
		{name: "if-range of another", header: []string{"Range", "bytes=0-0", "If-Range", `"x"`}, status: 200, body: b},
		{name: "has it", header: []string{"If-None-Match", "*"}, status: 304, body: []byte{}},
		{name: "has another", header: []string{"If-None-Match", `"x", W/"y"`}, status: 200, body: b},
		{name: "post", method: "POST", status: 405},
		{name: "missing", path: "o/none", status: 404},
		{name: "no origin", path: "x/none", status: 404},
		{name: "empty", path: "o/empty", status: 200, body: []byte{}},
		{name: "range of nothing", path: "o/empty", header: []string{"Range", "bytes=0-"}, status: 416},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := openEdge(t, Config{Sources: []Source{web("o", u)}})
			if row.method == "" {
				row.method = http.MethodGet
			}
			if row.path == "" {
				row.path = "o/dir/a%20b.bin"
			}
			for _, cached := range []bool{false, true} {
				g := w.do(t.Context(), row.method, row.path, row.header...)
				w.want(g, row.status, row.body, "")
				for i := 0; i < len(row.says); i += 2 {
					if v := g.header.Get(row.says[i]); v != row.says[i+1] {
						t.Errorf("cached %v: %s is %q", cached, row.says[i], v)
					}
				}
				if g.header.Get("Content-Security-Policy") != "sandbox" {
					t.Error("content of an origin may act as the page")
				}
				w.want(w.get("o/dir/a%20b.bin"), 200, b, "")
			}
			w.settled()
			w.want(w.get("o/dir/a%20b.bin"), 200, b, "hit")
			w.exact()
		})
	}
}

// A range is fetched in segments and no more, and what is here is not fetched again.
func TestRangeFetchesSegments(t *testing.T) {
	u := newUpstream(t)
	b := content("big", 1<<20)
	u.set("big", b)
	w := openEdge(t, Config{Sources: []Source{web("o", u)}})
	w.want(w.get("o/big", "Range", "bytes=500000-500001"), 206, b[500000:500002], "miss")
	w.settled()
	if n := u.sent.Load(); n != 16*kib {
		t.Fatalf("the origin sent %d bytes for two", n)
	}
	w.want(w.get("o/big", "Range", "bytes=499712-500200"), 206, b[499712:500201], "hit")
	w.want(w.get("o/big"), 200, b, "")
	if n := u.sent.Load(); n != 1<<20 {
		t.Fatalf("the origin sent %d bytes in all", n)
	}
	if n := u.requests.Load(); n != 3 {
		t.Fatalf("%d requests, want one for the range and one for what is before and after it", n)
	}
	w.exact()
}

// What is read from an origin is at most two segments ahead of its fastest reader.
func TestRunAhead(t *testing.T) {
	u := newUpstream(t)
	b := content("big", 1<<20)
	u.set("big", b)
	w := openEdge(t, Config{Sources: []Source{web("o", u)}})
	v, err := w.edge.find(t.Context(), w.edge.groups["o"], "big", "", want{last: -1})
	if err != nil {
		t.Fatal(err)
	}
	next := func() (n int64) {
		w.edge.mu.Lock()
		defer w.edge.mu.Unlock()
		for _, r := range v.o.runs {
			r.mu.Lock()
			n = max(n, r.next)
			r.mu.Unlock()
		}
		return n
	}
	var read int64
	rd := &reader{e: w.edge, o: v.o}
	defer rd.close()
	_, err = rd.copy(t.Context(), writerFunc(func(p []byte) (int, error) {
		at := read / w.edge.cfg.Segment
		if read == 0 {
			until(t, "the run to be ahead", func() bool { return next() >= runAhead })
		}
		if n := next(); n > at+runAhead+1 {
			t.Errorf("segment %d is read while a reader is in %d", n, at)
		}
		read += int64(len(p))
		return len(p), nil
	}), 0, int64(len(b)))
	if err != nil || read != int64(len(b)) {
		t.Errorf("%d bytes were read: %v", read, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Many clients that want the same at the same time cause one fetch, and get it while it comes.
func TestCoalesce(t *testing.T) {
	const clients = 50
	u := newUpstream(t)
	b := content("big", 1<<20)
	u.set("big", b)
	var reading atomic.Int64
	u.before = func(_ *http.Request, at int) {
		if at == 512*kib {
			// Everybody has come, and has bytes, while half of it has not been sent.
			until(t, "all clients to read", func() bool { return reading.Load() == clients })
		}
	}
	w := openEdge(t, Config{Sources: []Source{web("o", u)}})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			resp, err := http.Get(w.http.URL + "/edge/o/big")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			var all bytes.Buffer
			one := make([]byte, 1)
			if _, err := resp.Body.Read(one); err != nil {
				t.Error(err)
			}
			all.Write(one)
			reading.Add(1)
			if _, err := all.ReadFrom(resp.Body); err != nil || !bytes.Equal(all.Bytes(), b) {
				t.Errorf("%d bytes, %v", all.Len(), err)
			}
		})
	}
	wg.Wait()
	if n, r := u.sent.Load(), u.requests.Load(); n != 1<<20 || r != 1 {
		t.Fatalf("the origin sent %d bytes in %d answers", n, r)
	}
	w.exact()
	if s := w.edge.Stats(); s.BytesFetched != 1<<20 || s.BytesServed != clients<<20 {
		t.Fatalf("%+v", s)
	}
}

// The client because of whom something is fetched goes away; another one gets all of it from the same answer.
func TestLeaderLeaves(t *testing.T) {
	u := newUpstream(t)
	b := content("big", 256*kib)
	u.set("big", b)
	step := make(chan struct{})
	u.before = func(r *http.Request, at int) {
		if at == 128*kib {
			<-step
		}
	}
	w := openEdge(t, Config{Sources: []Source{web("o", u)}})
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if g := w.do(ctx, http.MethodGet, "o/big"); g.err == nil {
			t.Error("the first client got all of it")
		}
	})
	until(t, "the fetch to begin", func() bool { return u.sent.Load() == 128*kib })
	wg.Go(func() { w.want(w.get("o/big"), 200, b, "") })
	until(t, "the second client to read", func() bool { return w.edge.readers("o/big") == 2 })
	leave()
	until(t, "the first client to be gone", func() bool { return w.edge.readers("o/big") == 1 })
	close(step)
	wg.Wait()
	if n, r := u.sent.Load(), u.requests.Load(); n != 256*kib || r != 1 {
		t.Fatalf("the origin sent %d bytes in %d answers", n, r)
	}
	w.exact()
}

// readers returns how many read from runs of an object.
func (e *Edge) readers(key string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	if o := e.objects[key]; o != nil {
		for _, r := range o.runs {
			r.mu.Lock()
			n += len(r.readers)
			r.mu.Unlock()
		}
	}
	return n
}

// A fetch that nobody wants any more ends, after a moment, and not before.
func TestEverybodyLeaves(t *testing.T) {
	u := newUpstream(t)
	u.set("big", content("big", 4<<20))
	ended := make(chan struct{})
	u.before = func(r *http.Request, at int) {
		if at == 64*kib {
			<-r.Context().Done()
			close(ended)
		}
	}
	w := openEdge(t, Config{Sources: []Source{web("o", u)}, Grace: 50 * time.Millisecond})
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.do(ctx, http.MethodGet, "o/big") })
	until(t, "the fetch to begin", func() bool { return u.sent.Load() >= 64*kib })
	leave()
	wg.Wait()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the fetch goes on")
	}
	w.exact()
}

// An edge before an edge: fifty clients of the lower ones cause one fetch at the top, byte for byte.
func TestTwoTiers(t *testing.T) {
	u := newUpstream(t)
	b := content("model", 2<<20+333)
	u.set("model", b)
	top := openEdge(t, Config{Sources: []Source{web("o", u)}})
	var low []*world
	for range 2 {
		low = append(low, openEdge(t, Config{Sources: []Source{{Name: "m", URL: top.http.URL + "/edge/o"}}}))
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			w := low[i%2]
			if i%5 == 0 {
				from := i * 40_000
				g := w.get("m/model", "Range", fmt.Sprintf("bytes=%d-%d", from, from+99_999))
				w.want(g, 206, b[from:min(from+100_000, len(b))], "")
				return
			}
			w.want(w.get("m/model"), 200, b, "")
		})
	}
	wg.Wait()
	if n := u.sent.Load(); n != int64(len(b)) {
		t.Errorf("the origin sent %d bytes of %d: %.3f copies", n, len(b), float64(n)/float64(len(b)))
	}
	for _, w := range append(low, top) {
		w.exact()
	}
	// What is dropped below is revalidated above, and what is dropped above is fetched again.
	changed := content("changed", 100*kib)
	u.set("model", changed)
	low[0].want(low[0].get("m/model"), 200, b, "hit")
	top.edge.Invalidate("o/")
	low[0].edge.Invalidate("m/")
	low[0].want(low[0].get("m/model"), 200, changed, "miss")
	low[1].want(low[1].get("m/model"), 200, b, "hit")
}

// Paths and names that lead elsewhere, and requests that are too large.
func TestHostilePaths(t *testing.T) {
	u := newUpstream(t)
	var asked atomic.Int64
	u.answer = func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }
	w := openEdge(t, Config{Sources: []Source{{Name: "o", URL: u.URL + "/public"}}})
	for _, path := range []string{
		"o/%2e%2e/secret", "o/a/..%2fb", "o/a%2f..%2f..%2fsecret", "o/a%5c..%5cb", "o/a%00b", "o/./a", "o/" + strings.Repeat("x", 9000),
	} {
		g := w.get(path)
		if g.err == nil && g.status != http.StatusBadRequest && g.status != http.StatusRequestURITooLong {
			t.Errorf("%s: status %d", clip(path), g.status)
		}
	}
	if asked.Load() != 0 {
		t.Fatal("the origin was asked")
	}
}
