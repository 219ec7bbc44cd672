package edge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func stringsReader(s string) io.Reader { return strings.NewReader(s) }

// background runs f; the returned function waits for it, as does the end of the test.
func background(t *testing.T, f func()) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(f)
	t.Cleanup(wg.Wait)
	return wg.Wait
}

// cut breaks the connection off that a request came on.
func cut(w http.ResponseWriter) { panic(http.ErrAbortHandler) }

// Answers that end early, change, or make no sense.
func TestBrokenAnswers(t *testing.T) {
	b := content("a", 200*kib)
	other := content("b", 200*kib)
	serve := func(w http.ResponseWriter, r *http.Request, b []byte, tag string) {
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "x.bin", time.Time{}, bytes.NewReader(b))
	}
	short := func(w http.ResponseWriter, n int) {
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b[:n])
		w.(http.Flusher).Flush()
		cut(w)
	}
	for _, row := range []struct {
		name string
		// answer is what the source does in answer number n, from 1.
		answer func(w http.ResponseWriter, r *http.Request, n int64)
		// status is what the client gets; 0 is a body that breaks off.
		status int
		body   []byte
		says   string
	}{
		{"breaks off, goes on", func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				short(w, 100*kib)
			}
			serve(w, r, b, `"1"`)
		}, 200, b, ""},
		{"breaks off again and again", func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 12 {
				serve(w, r, b, `"1"`)
				return
			}
			from, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
			at, _ := strconv.Atoi(from)
			if at > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(b)-1, len(b)))
			}
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Content-Length", strconv.Itoa(len(b)-at))
			if at > 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			_, _ = w.Write(b[at:min(at+20*kib, len(b))])
			w.(http.Flusher).Flush()
			if at+20*kib < len(b) {
				cut(w)
			}
		}, 200, b, ""},
		{"ignores ranges", func(w http.ResponseWriter, r *http.Request, n int64) {
			r.Header.Del("Range")
			if n == 1 {
				short(w, 100*kib)
			}
			serve(w, r, b, `"1"`)
		}, 200, b, ""},
		{"changes in the middle", func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				short(w, 100*kib)
			}
			serve(w, r, other, `"2"`)
		}, 0, nil, ""},
		{"changes before the first byte", func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				short(w, 0)
			}
			serve(w, r, other, `"2"`)
		}, 200, other, ""},
		{"changes each time, before the first byte", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(n, 10)))
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			w.(http.Flusher).Flush()
			cut(w)
		}, 502, nil, "changed at its source"},
		{"no validator, breaks off", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			_, _ = w.Write(b[:50*kib])
			w.(http.Flusher).Flush()
			cut(w)
		}, 0, nil, ""},
		{"weak validator, breaks off", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			w.Header().Set("ETag", `W/"1"`)
			_, _ = w.Write(b[:50*kib])
			w.(http.Flusher).Flush()
			cut(w)
		}, 0, nil, ""},
		{"wrong Content-Range", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Content-Range", "bytes 5-1/3")
			w.WriteHeader(http.StatusPartialContent)
		}, 502, nil, `Content-Range is "bytes 5-1/3"`},
		{"range that was not asked for", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 100-199/%d", len(b)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[100:200])
		}, 502, nil, "was not asked for"},
		{"length and range disagree", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-99/%d", len(b)))
			w.Header().Set("Content-Length", "50")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[:50])
		}, 502, nil, "are announced for the range"},
		{"refuses", func(w http.ResponseWriter, r *http.Request, n int64) { w.WriteHeader(403) }, 502, nil, "credentials"},
		{"is gone", func(w http.ResponseWriter, r *http.Request, n int64) { w.WriteHeader(410) }, 410, nil, "410 Gone"},
		{"redirects in a circle", func(w http.ResponseWriter, r *http.Request, n int64) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, 502, nil, "redirect"},
		{"redirects inside", func(w http.ResponseWriter, r *http.Request, n int64) {
			http.Redirect(w, r, "http://127.0.0.1:1/secret", http.StatusFound)
		}, 502, nil, "private address"},
		{"redirects to metadata", func(w http.ResponseWriter, r *http.Request, n int64) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		}, 502, nil, "private address"},
		{"headers without end", func(w http.ResponseWriter, r *http.Request, n int64) {
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
			}
		}, 502, nil, "headers"},
		{"chunks of unknown length", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("ETag", `"1"`)
			for i := 0; i < len(b); i += 5000 {
				_, _ = w.Write(b[i:min(i+5000, len(b))])
				w.(http.Flusher).Flush()
			}
		}, 200, b, ""},
		{"chunks that break off", func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("ETag", `"1"`)
			_, _ = w.Write(b[:50*kib])
			w.(http.Flusher).Flush()
			cut(w)
		}, 0, nil, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			u := newUpstream(t)
			u.Config.ErrorLog = nil
			var n atomic.Int64
			u.answer = func(w http.ResponseWriter, r *http.Request) { row.answer(w, r, n.Add(1)) }
			w := openEdge(t, Config{Sources: []Source{web("o", u)}, Patience: 50 * time.Millisecond, Rest: time.Millisecond})
			g := w.get("o/x")
			switch {
			case row.status != 0 && (g.header.Get("Content-Security-Policy") != "sandbox" || g.header.Get("X-Content-Type-Options") != "nosniff"):
				t.Fatalf("a page of the origin may act as one of this host: %v", g.header)
			case row.status == 0 && g.err == nil:
				t.Fatalf("the client got %d bytes as if they were all", len(g.body))
			case row.status != 0:
				w.want(g, row.status, row.body, "")
				if !strings.Contains(string(g.body), row.says) {
					t.Fatalf("says %q, want %q", g.body, row.says)
				}
			case !bytes.HasPrefix(b, g.body):
				t.Fatal("the client got wrong bytes")
			}
			if row.body != nil {
				w.settled()
				before := n.Load()
				w.want(w.get("o/x"), 200, row.body, "hit")
				w.want(w.get("o/x", "Range", "bytes=100000-100009"), 206, row.body[100000:100010], "hit")
				if n.Load() != before {
					t.Error("what was whole was fetched again")
				}
			}
			w.exact()
		})
	}
}

// A source that stalls is an error in time, and one that is silent too.
func TestSilentSource(t *testing.T) {
	u := newUpstream(t)
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}
	s := web("o", u)
	s.Timeout = 100 * time.Millisecond
	w := openEdge(t, Config{Sources: []Source{s}})
	g := w.get("o/x")
	w.want(g, http.StatusGatewayTimeout, nil, "")
	if !strings.Contains(string(g.body), "origin o") {
		t.Errorf("says %q", g.body)
	}
}

// Two sources: the first fails, the second is used meanwhile, and the first again when it is well.
func TestFailover(t *testing.T) {
	first, second := newUpstream(t), newUpstream(t)
	for i := range 40 {
		b := content(fmt.Sprint(i), 20*kib)
		first.set(fmt.Sprint(i), b)
		second.set(fmt.Sprint(i), b)
	}
	spare := web("o", second)
	spare.Priority = 1
	w := openEdge(t, Config{Sources: []Source{spare, web("o", first)}, Rest: 50 * time.Millisecond})
	at := 0
	get := func() {
		t.Helper()
		w.want(w.get(fmt.Sprint("o/", at)), 200, content(fmt.Sprint(at), 20*kib), "")
		at++
	}
	for range 3 {
		get()
	}
	if first.requests.Load() != 3 || second.requests.Load() != 0 {
		t.Fatalf("%d and %d requests", first.requests.Load(), second.requests.Load())
	}
	first.change(func() { first.down = 500 })
	for range 8 {
		get()
	}
	if n := second.requests.Load(); n != 8 {
		t.Fatalf("the spare got %d requests of 8", n)
	}
	if n := first.requests.Load(); n >= 3+8 {
		t.Fatalf("the first was asked %d times, and rests after %d failures", n-3, tripAfter)
	}
	state := func() string { return w.edge.Stats().Sources[1].State }
	if state() != "resting" {
		t.Fatalf("the first is %s", state())
	}
	first.change(func() { first.down = 0 })
	until(t, "the first to be asked again", func() bool {
		if at == 39 {
			w.edge.Invalidate("o/")
			at = 0
		}
		get()
		return state() == "healthy"
	})
	before := second.requests.Load()
	get()
	if second.requests.Load() != before {
		t.Error("the spare is used although the first is well")
	}
}

// All fail: the error names what each did, comes at once while they rest, and ends when they are back.
func TestAllFail(t *testing.T) {
	u := newUpstream(t)
	u.down = 500
	w := openEdge(t, Config{Sources: []Source{web("o", u)}, Rest: 200 * time.Millisecond})
	g := w.get("o/x")
	w.want(g, 502, nil, "")
	if want := "500 Internal Server Error"; !strings.Contains(string(g.body), "origin o") || !strings.Contains(string(g.body), want) {
		t.Errorf("says %q", g.body)
	}
	n := u.requests.Load()
	start := time.Now()
	w.want(w.get("o/x"), 502, nil, "")
	if took := time.Since(start); took > 100*time.Millisecond || u.requests.Load() != n {
		t.Errorf("it was asked while it rests, for %v", took)
	}
	u.change(func() { u.down = 0 })
	u.set("x", []byte("back"))
	until(t, "it to be back", func() bool { return w.get("o/x").status == 200 })
}

// Whom an origin asks: by priority, then the fastest; one that was never asked neither wins nor is left out for ever.
func TestPick(t *testing.T) {
	cfg := Config{}
	cfg.setDefaults()
	make3 := func() *group {
		g := &group{name: "o"}
		for i := range 3 {
			v, err := newServer(Source{Name: "o", URL: fmt.Sprintf("http://s%d.example", i)}, &cfg)
			if err != nil {
				t.Fatal(err)
			}
			g.servers = append(g.servers, v)
		}
		return g
	}
	g := make3()
	g.servers[0].asked(30*time.Millisecond, nil)
	g.servers[1].asked(10*time.Millisecond, nil)
	count := make(map[*server]int)
	for range 4 * exploreEvery {
		v := g.pick(nil, nil)
		count[v]++
		if v == g.servers[2] && count[v] == 1 && g.turns < exploreEvery {
			t.Fatal("a source that nobody knows won")
		}
	}
	if count[g.servers[1]] < 3*exploreEvery || count[g.servers[2]] == 0 {
		t.Errorf("asked %d, %d and %d times", count[g.servers[0]], count[g.servers[1]], count[g.servers[2]])
	}
	// The mean moves by a tenth.
	v := g.servers[1]
	v.asked(110*time.Millisecond, nil)
	if v.latency != 20*time.Millisecond {
		t.Errorf("10 ms and 110 ms make %v", v.latency)
	}
	// One that fails every other time never trips, and is ill nevertheless.
	g = make3()
	for range 20 {
		g.servers[0].asked(1, errors.New("no"))
		g.servers[0].asked(1, errors.New("no"))
		g.servers[0].asked(1, nil)
	}
	if g.servers[0].healthy() || g.servers[0].rest.IsOpen() {
		t.Error("two failures of three are well")
	}
	if v := g.pick(nil, nil); v == g.servers[0] {
		t.Error("an ill one is asked first")
	}
	// All tried: nobody is left.
	if v := g.pick(nil, map[*server]bool{g.servers[0]: true, g.servers[1]: true, g.servers[2]: true}); v != nil {
		t.Error("one was picked twice")
	}
}

// What a restart finds: objects and leaves that are right; one that is not is fetched again.
func TestReopen(t *testing.T) {
	u := newUpstream(t)
	b := content("a", 100*kib)
	u.set("a", b)
	dir := t.TempDir()
	cfg := Config{Dir: dir, Sources: []Source{web("o", u)}}
	w := openEdge(t, cfg)
	w.want(w.get("o/a"), 200, b, "miss")
	w.exact()
	w.close()
	leaves, err := filepath.Glob(filepath.Join(dir, "leaves", "*", "*"))
	if err != nil || len(leaves) != 7 {
		t.Fatalf("%d leaves, %v", len(leaves), err)
	}
	w = openEdge(t, cfg)
	w.want(w.get("o/a"), 200, b, "hit")
	if n := u.requests.Load(); n != 1 {
		t.Fatalf("%d requests", n)
	}
	w.exact()
	w.close()
	// One leaf is changed, one is cut, one is lost, and somebody left things that are no leaves.
	garbled, err := os.ReadFile(leaves[0])
	if err != nil {
		t.Fatal(err)
	}
	garbled[1] ^= 1
	for _, err := range []error{
		os.WriteFile(leaves[0], garbled, 0o600), os.Truncate(leaves[1], 100), os.Remove(leaves[2]),
		os.WriteFile(leaves[3]+partial, garbled, 0o600), os.Mkdir(filepath.Join(filepath.Dir(leaves[4]), "zz"), 0o700),
		os.WriteFile(filepath.Join(dir, "objects-1.tmp"), garbled, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w = openEdge(t, cfg)
	w.want(w.get("o/a"), 200, b, "")
	w.exact()
	w.settled()
	w.want(w.get("o/a"), 200, b, "hit")
	w.exact()
	if n := u.sent.Load(); n > 100*kib+3*16*kib {
		t.Errorf("%d bytes were fetched for three bad leaves", n-100*kib)
	}
}

// A disk that cannot be written keeps nothing, and clients notice nothing.
func TestDiskFails(t *testing.T) {
	u := newUpstream(t)
	b := content("a", 100*kib)
	u.set("a", b)
	w := openEdge(t, Config{Sources: []Source{web("o", u)}})
	leaves := filepath.Join(w.dir, "leaves")
	if err := errors.Join(os.RemoveAll(leaves), os.WriteFile(leaves, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.want(w.get("o/a"), 200, b, "miss")
		w.settled()
	}
	if s := w.edge.Stats(); s.DiskErrors == 0 || s.Held != 0 {
		t.Errorf("%+v", s)
	}
	if err := os.Remove(leaves); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(leaves, 0o700); err != nil {
		t.Fatal(err)
	}
	w.want(w.get("o/a"), 200, b, "miss")
	w.settled()
	w.want(w.get("o/a"), 200, b, "hit")
	w.exact()
}

// Names, kinds and URLs that make no sense are refused when the cache is opened.
func TestBadSources(t *testing.T) {
	for _, row := range []struct {
		list []Source
		says string
	}{
		{[]Source{{Name: "../x", URL: "http://a"}}, "a name is letters"},
		{[]Source{{Name: "a", URL: "file:///etc"}}, "is no URL of a web server"},
		{[]Source{{Name: "a", URL: "http://me:pw@a"}}, "user name"},
		{[]Source{{Name: "a", URL: "http://a/?q"}}, "before ?"},
		{[]Source{{Name: "a", Kind: Bucketed, URL: "http://a"}}, "no name of a bucket"},
		{[]Source{{Name: "a", Kind: Swarm}}, "no swarm"},
		{[]Source{{Name: "a", URL: "http://a"}, {Name: "a", Kind: Gateway, URL: "http://b"}}, "no content in common"},
		{[]Source{{Name: "a", Kind: Bucketed, URL: "http://a", Bucket: Bucket{Name: "b", File: "/nowhere/at/all"}}}, "credentials"},
	} {
		_, err := New(Config{Dir: t.TempDir(), Sources: row.list})
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%v: %v", row.list, err)
		}
	}
}
