package edge

import (
	"container/list"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/maypok86/otter/v2"
)

// Random requests, changes, invalidations and restarts, several at a time: what is on the disk is what is accounted,
// always.
func TestExactAccounting(t *testing.T) {
	const names = 40
	rng := rand.New(rand.NewPCG(1, 2))
	u := newUpstream(t)
	version := make([]int, names)
	put := func(i int) {
		// Some names have the same content, and some are larger than the whole cache.
		size := 1 + (i*7919+version[i]*104729)%(60*kib)
		if i%13 == 0 {
			size = 700 * kib
		}
		u.set(fmt.Sprint(i), content(fmt.Sprint(i%30, version[i]), size))
	}
	for i := range names {
		put(i)
	}
	cfg := Config{Dir: t.TempDir(), Size: 512 * kib, Objects: 25, TTL: -1, Sources: []Source{web("o", u)}}
	w := openEdge(t, cfg)
	for round := range 20 {
		var wg sync.WaitGroup
		for range 6 {
			i, from, n := rng.IntN(names), rng.IntN(30*kib), rng.IntN(40*kib)
			wg.Go(func() {
				if from%3 == 0 {
					w.get(fmt.Sprint("o/", i))
					return
				}
				w.get(fmt.Sprint("o/", i), "Range", fmt.Sprintf("bytes=%d-%d", from, from+n))
			})
		}
		wg.Wait()
		w.exact()
		switch i := rng.IntN(names); round % 5 {
		case 1:
			version[i]++
			put(i)
		case 2:
			w.edge.Invalidate(fmt.Sprint("o/", i%10))
		case 4:
			w.close()
			w = openEdge(t, cfg)
		}
		w.exact()
	}
	if s := w.edge.Stats(); s.Objects > 25 {
		t.Errorf("%d objects are remembered", s.Objects)
	}
	w.edge.Invalidate("o/")
	w.exact()
}

// An object larger than the cache passes through, and what is used often stays.
func TestLargerThanCache(t *testing.T) {
	u := newUpstream(t)
	const size = 1 << 20
	huge := content("huge", 3*size)
	u.set("huge", huge)
	const often = 20 // the library learns what is used often from when it is half full
	for i := range often {
		u.set(fmt.Sprint(i), content(fmt.Sprint(i), 32*kib))
	}
	w := openEdge(t, Config{Size: size, Sources: []Source{web("o", u)}})
	for range 5 {
		for i := range often {
			w.want(w.get(fmt.Sprint("o/", i)), 200, content(fmt.Sprint(i), 32*kib), "")
			w.settled()
		}
	}
	w.want(w.get("o/huge"), 200, huge, "")
	w.exact()
	before := u.requests.Load()
	hits := 0
	for i := range often {
		g := w.get(fmt.Sprint("o/", i))
		w.want(g, 200, content(fmt.Sprint(i), 32*kib), "")
		if g.cache() == "hit" {
			hits++
		}
	}
	if hits < often*8/10 {
		t.Errorf("%d of %d that are used often are left, after %d requests", hits, often, u.requests.Load()-before)
	}
	// A leaf that is larger than the cache is not even offered.
	tiny, err := openHoard(t.TempDir(), 8*kib, w.edge.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	if !tiny.put("\x1e\x00", make([]byte, kib), false) || tiny.put("\x1e\x01", make([]byte, 9*kib), false) || !tiny.has("\x1e\x00") {
		t.Error("a leaf that is too large drove out what was there")
	}
}

// traces are sequences of which leaf is asked for, seeded.
func zipf(seed uint64, n, keys int) []int {
	rng := rand.New(rand.NewPCG(seed, 1))
	z := rand.NewZipf(rng, 1.1, 8, uint64(keys-1))
	t := make([]int, n)
	for i := range t {
		t[i] = int(z.Uint64())
	}
	return t
}

// scanned is a Zipf trace in which, now and then, somebody reads everything once.
func scanned(seed uint64, n, keys int) []int {
	t := zipf(seed, n, keys)
	out := make([]int, 0, 2*n)
	next := keys
	for i, k := range t {
		out = append(out, k)
		if i%(n/8) == n/16 {
			for range n / 10 {
				out = append(out, next)
				next++
			}
		}
	}
	return out
}

// replay plays a trace through the handler itself, before an origin in memory, and returns the hit ratio.
func replay(tb testing.TB, trace []int, leaves int) float64 {
	tb.Helper()
	e, err := New(Config{
		Dir: tb.TempDir(), Size: int64(leaves) * pageSize, Segment: pageSize, Objects: 1 << 20,
		Sources: []Source{{Name: "o", URL: "http://memory", Transport: memory{}}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	for _, k := range trace {
		r := httptest.NewRequest(http.MethodGet, fmt.Sprintf("/edge/o/%d", k), http.NoBody)
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Body.Len() != pageSize {
			tb.Fatalf("status %d, %d bytes", w.Code, w.Body.Len())
		}
		if w.Header().Get("X-Cache") == "miss" {
			e.wg.Wait() // the trace is one request after the other
		}
	}
	s := e.Stats()
	if err := e.Close(); err != nil {
		tb.Fatal(err)
	}
	if s.Hits+s.Misses != int64(len(trace)) {
		tb.Fatalf("%d hits and %d misses of %d requests", s.Hits, s.Misses, len(trace))
	}
	return s.HitRatio()
}

// memory answers every path with a page of bytes that belong to it.
type memory struct{}

func (memory) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.Header().Set("ETag", `"1"`)
	w.Header().Set("Content-Length", fmt.Sprint(pageSize))
	page := make([]byte, pageSize)
	for i := copy(page, r.URL.Path); i < len(page); i *= 2 {
		copy(page[i:], page[:i])
	}
	_, _ = w.Write(page)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// library plays a trace through the library alone.
func library(tb testing.TB, trace []int, leaves int) float64 {
	tb.Helper()
	c, err := otter.New(&otter.Options[int, struct{}]{
		MaximumWeight: uint64(leaves) * pageSize, Weigher: func(int, struct{}) uint32 { return pageSize },
		Executor: func(f func()) { f() },
	})
	if err != nil {
		tb.Fatal(err)
	}
	hits := 0
	for _, k := range trace {
		if _, ok := c.GetIfPresent(k); ok {
			hits++
			continue
		}
		c.Set(k, struct{}{})
		c.CleanUp()
	}
	return float64(hits) / float64(len(trace))
}

// lru plays a trace through a cache that drops what was not used for longest.
func lru(trace []int, leaves int) float64 {
	recent, at := list.New(), make(map[int]*list.Element)
	hits := 0
	for _, k := range trace {
		if x := at[k]; x != nil {
			recent.MoveToFront(x)
			hits++
			continue
		}
		at[k] = recent.PushFront(k)
		if recent.Len() > leaves {
			delete(at, recent.Remove(recent.Back()).(int))
		}
	}
	return float64(hits) / float64(len(trace))
}

// The hit ratio of the edge is that of the library on the same trace, within 2 %.
func TestHitRatio(t *testing.T) {
	compareRatios(t, 6000, 2000, 150, func(name string, edge, lib, old float64) {
		t.Logf("%-8s edge %.4f  library %.4f  LRU %.4f", name, edge, lib, old)
	})
}

func compareRatios(tb testing.TB, n, keys, leaves int, tell func(name string, edge, lib, old float64)) {
	tb.Helper()
	for _, row := range []struct {
		name  string
		trace []int
	}{
		{"zipf", zipf(1, n, keys)},
		{"scanned", scanned(2, n, keys)},
	} {
		edge, lib, old := replay(tb, row.trace, leaves), library(tb, row.trace, leaves), lru(row.trace, leaves)
		tell(row.name, edge, lib, old)
		if edge < lib-0.02 || edge > lib+0.02 {
			tb.Errorf("%s: the edge's hit ratio is %.4f, the library's %.4f", row.name, edge, lib)
		}
	}
}

// BenchmarkHitRatio is TestHitRatio with a longer trace.
func BenchmarkHitRatio(b *testing.B) {
	for range b.N {
		compareRatios(b, 60_000, 20_000, 1000, func(name string, edge, lib, old float64) {
			b.ReportMetric(100*edge, name+"-edge-%")
			b.ReportMetric(100*lib, name+"-library-%")
			b.ReportMetric(100*old, name+"-LRU-%")
		})
	}
}
