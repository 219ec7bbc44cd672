package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The vocabulary of this package's tests: an upstream server that counts, an edge before it, and clients.

const kib = 1 << 10

// content returns n bytes that belong to a name.
func content(name string, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(b)
	return b
}

// upstream is a web server with objects in memory.
type upstream struct {
	*httptest.Server
	requests atomic.Int64
	sent     atomic.Int64 // bytes of bodies

	mu      sync.Mutex
	objects map[string][]byte
	header  map[string]string // of every answer
	down    int               // the status that everything is answered with, or 0
	// before is called before a body is written, and between its parts of 4 KiB.
	before func(r *http.Request, at int)
	// answer, if set, answers instead.
	answer http.HandlerFunc
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{objects: make(map[string][]byte), header: make(map[string]string)}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) set(name string, b []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.objects[name] = b
}

func (u *upstream) change(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.requests.Add(1)
	u.mu.Lock()
	b, ok := u.objects[strings.TrimPrefix(r.URL.Path, "/")]
	down, before, answer := u.down, u.before, u.answer
	for name, value := range u.header {
		w.Header().Set(name, value)
	}
	u.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, r)
	case down != 0:
		w.WriteHeader(down)
	case !ok:
		http.NotFound(w, r)
	default:
		if w.Header().Get("ETag") == "" {
			w.Header().Set("ETag", fmt.Sprintf(`"%x"`, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(&slowWriter{ResponseWriter: w, u: u, r: r, before: before}, r, "", time.Time{}, bytes.NewReader(b))
	}
}

// slowWriter counts what is written, and lets a test come in between.
type slowWriter struct {
	http.ResponseWriter
	u      *upstream
	r      *http.Request
	at     int
	before func(*http.Request, int)
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		if w.before != nil {
			w.ResponseWriter.(http.Flusher).Flush()
			w.before(w.r, w.at)
		}
		part := p[n:min(n+4*kib, len(p))]
		w.u.sent.Add(int64(len(part))) // before the client can have it
		_, err = w.ResponseWriter.Write(part)
		n += len(part)
		w.at += len(part)
	}
	return n, err
}

// clock is a time that a test sets.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time           { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) add(d time.Duration)      { c.offset.Add(int64(d)) }
func web(name string, u *upstream) Source { return Source{Name: name, URL: u.URL} }

// world is an edge with a server in front of it.
type world struct {
	t    *testing.T
	edge *Edge
	http *httptest.Server
	dir  string
}

// openEdge starts an edge. Sizes that are not said are small.
func openEdge(t *testing.T, cfg Config) *world {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Segment == 0 {
		cfg.Segment = 16 * kib
	}
	if cfg.Size == 0 {
		cfg.Size = 64 << 20
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, edge: e, http: httptest.NewServer(e), dir: cfg.Dir}
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	w.http.Close()
	if err := w.edge.Close(); err != nil {
		w.t.Error(err)
	}
}

// got is a response, read to its end.
type got struct {
	status int
	header http.Header
	body   []byte
	err    error
}

func (g got) cache() string { return g.header.Get("X-Cache") }

func (w *world) do(ctx context.Context, method, path string, header ...string) got {
	w.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, w.http.URL+Prefix+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := w.http.Client().Do(r)
	if err != nil {
		return got{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return got{resp.StatusCode, resp.Header, b, err}
}

func (w *world) get(path string, header ...string) got {
	w.t.Helper()
	return w.do(w.t.Context(), http.MethodGet, path, header...)
}

// want fails the test unless an answer has a status, a body and a value of X-Cache; "" is any.
func (w *world) want(g got, status int, body []byte, cache string) {
	w.t.Helper()
	switch {
	case g.err != nil:
		w.t.Fatalf("%v", g.err)
	case g.status != status:
		w.t.Fatalf("status %d, want %d: %s", g.status, status, clip(string(g.body)))
	case body != nil && !bytes.Equal(g.body, body):
		w.t.Fatalf("%d bytes that are not the %d wanted", len(g.body), len(body))
	case cache != "" && g.cache() != cache:
		w.t.Fatalf("X-Cache is %q, want %q", g.cache(), cache)
	}
}

// until waits for something that other goroutines do.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// settled waits until no run is left, so that all is counted.
func (w *world) settled() {
	w.t.Helper()
	until(w.t, "runs to end", func() bool {
		w.edge.mu.Lock()
		defer w.edge.mu.Unlock()
		for _, o := range w.edge.objects {
			if len(o.runs) > 0 {
				return false
			}
		}
		return len(w.edge.asked) == 0
	})
}

// exact checks that what is on the disk, what is accounted and what the library believes are the same, and within the
// bound.
func (w *world) exact() {
	w.t.Helper()
	w.settled()
	var disk int64
	leaves := 0
	err := filepath.WalkDir(filepath.Join(w.dir, "leaves"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		disk += weight(info.Size())
		leaves++
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	h := w.edge.hoard
	held, n := h.bytes()
	h.cache.CleanUp()
	if lib := int64(h.cache.WeightedSize()); disk != held || held != lib || leaves != n {
		w.t.Fatalf("%d bytes in %d files on the disk, %d in %d accounted, %d in the library", disk, leaves, held, n, lib)
	}
	if held > h.size {
		w.t.Fatalf("%d bytes are held, more than %d", held, h.size)
	}
}
