package edge

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// How long an answer is fresh, by its headers (RFC 9111).
func TestLease(t *testing.T) {
	const ttl = time.Hour
	date := "Sat, 21 Nov 2026 12:00:00 GMT"
	for _, row := range []struct {
		name   string
		header []string
		want   lease
	}{
		{"nothing", nil, lease{Keep: true, Fresh: ttl, Stale: -1}},
		{"max-age", []string{"Cache-Control", "max-age=60"}, lease{Keep: true, Fresh: time.Minute, Stale: -1}},
		{"quoted", []string{"Cache-Control", `Max-Age="60"`}, lease{Keep: true, Fresh: time.Minute, Stale: -1}},
		{"s-maxage", []string{"Cache-Control", "max-age=60, s-maxage=5"}, lease{Keep: true, Fresh: 5 * time.Second, Strict: true, Stale: -1}},
		{"s-maxage first", []string{"Cache-Control", "s-maxage=5, max-age=60"}, lease{Keep: true, Fresh: 5 * time.Second, Strict: true, Stale: -1}},
		{"no-store", []string{"Cache-Control", "no-store"}, lease{Fresh: ttl, Stale: -1}},
		{"private", []string{"Cache-Control", `private="X-A"`}, lease{Fresh: ttl, Stale: -1}},
		{"no-cache", []string{"Cache-Control", "no-cache, max-age=60"}, lease{Keep: true, Stale: -1}},
		{"no-cache last", []string{"Cache-Control", "s-maxage=60, no-cache"}, lease{Keep: true, Strict: true, Stale: -1}},
		{"must-revalidate", []string{"Cache-Control", "must-revalidate"}, lease{Keep: true, Fresh: ttl, Strict: true, Stale: -1}},
		{"stale-if-error", []string{"Cache-Control", "max-age=1, stale-if-error=30"}, lease{Keep: true, Fresh: time.Second, Stale: 30 * time.Second}},
		{"no number", []string{"Cache-Control", "max-age=soon"}, lease{Keep: true, Stale: -1}},
		{"negative", []string{"Cache-Control", "max-age=-5"}, lease{Keep: true, Stale: -1}},
		{"huge", []string{"Cache-Control", "max-age=18446744073709551615"}, lease{Keep: true, Fresh: (1 << 31) * time.Second, Stale: -1}},
		{"expires", []string{"Date", date, "Expires", "Sat, 21 Nov 2026 12:00:10 GMT"}, lease{Keep: true, Fresh: 10 * time.Second, Stale: -1}},
		{"expired", []string{"Date", date, "Expires", "0"}, lease{Keep: true, Stale: -1}},
		{"max-age over expires", []string{"Date", date, "Expires", "0", "Cache-Control", "max-age=7"}, lease{Keep: true, Fresh: 7 * time.Second, Stale: -1}},
		{"cookie", []string{"Set-Cookie", "a=b"}, lease{Fresh: ttl, Stale: -1}},
		{"vary by encoding", []string{"Vary", "accept-encoding, Origin"}, lease{Keep: true, Fresh: ttl, Stale: -1}},
		{"vary by language", []string{"Vary", "Accept-Encoding, Accept-Language"}, lease{Fresh: ttl, Stale: -1}},
		{"vary by all", []string{"Vary", "*"}, lease{Fresh: ttl, Stale: -1}},
	} {
		h := make(http.Header)
		for i := 0; i < len(row.header); i += 2 {
			h.Add(row.header[i], row.header[i+1])
		}
		if got := leaseOf(h, ttl); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}

// A name is fresh for a while, then it is revalidated, then it is fetched because it changed.
func TestFreshness(t *testing.T) {
	u := newUpstream(t)
	first, second := content("first", 40*kib), content("second", 50*kib)
	u.set("a", first)
	u.header["Cache-Control"] = "max-age=60"
	c := new(clock)
	w := openEdge(t, Config{Sources: []Source{web("o", u)}, Now: c.now})
	w.want(w.get("o/a"), 200, first, "miss")
	w.settled()
	c.add(30 * time.Second)
	g := w.get("o/a")
	w.want(g, 200, first, "hit")
	if age := g.header.Get("Age"); age != "30" {
		t.Errorf("Age is %s", age)
	}
	if n := u.requests.Load(); n != 1 {
		t.Fatalf("%d requests while it is fresh", n)
	}
	c.add(31 * time.Second)
	w.want(w.get("o/a"), 200, first, "hit")
	if n, s := u.requests.Load(), u.sent.Load(); n != 2 || s != 40*kib {
		t.Fatalf("%d requests and %d bytes after it was revalidated", n, s)
	}
	u.set("a", second)
	w.want(w.get("o/a"), 200, first, "hit")
	c.add(61 * time.Second)
	w.want(w.get("o/a"), 200, second, "miss")
	w.exact()
	if held, _ := w.edge.hoard.bytes(); held != weight(2*kib)+3*16*kib {
		t.Errorf("%d bytes are held: the old version is still here", held)
	}
}

// While no source answers, what is here is served for a while, unless its source forbade that.
func TestStale(t *testing.T) {
	for _, row := range []struct {
		control string
		after   time.Duration
		status  int
		cache   string
	}{
		{"max-age=60", 2 * time.Minute, 200, "stale"},
		{"max-age=60", 25 * time.Hour, 502, ""},
		{"max-age=60, stale-if-error=30", 70 * time.Second, 200, "stale"},
		{"max-age=60, stale-if-error=30", 95 * time.Second, 502, ""},
		{"max-age=60, must-revalidate", 70 * time.Second, 502, ""},
		{"s-maxage=60", 70 * time.Second, 502, ""},
	} {
		t.Run(fmt.Sprint(row.control, row.after), func(t *testing.T) {
			u := newUpstream(t)
			b := content("a", 40*kib)
			u.set("a", b)
			u.header["Cache-Control"] = row.control
			c := new(clock)
			w := openEdge(t, Config{Sources: []Source{web("o", u)}, Now: c.now, Rest: time.Millisecond})
			w.want(w.get("o/a"), 200, b, "miss")
			w.settled()
			u.change(func() { u.down = 503 })
			c.add(row.after)
			g := w.get("o/a")
			w.want(g, row.status, nil, row.cache)
			u.change(func() { u.down = 0 })
			until(t, "the source to be asked again", func() bool { return w.get("o/a").cache() == "hit" })
			w.want(w.get("o/a"), 200, b, "hit")
		})
	}
}

// What must not be stored passes through, every time.
func TestPass(t *testing.T) {
	for _, row := range []struct{ name, header, value string }{
		{"no-store", "Cache-Control", "no-store"},
		{"private", "Cache-Control", "private"},
		{"cookie", "Set-Cookie", "id=1"},
		{"vary", "Vary", "Accept-Language"},
	} {
		t.Run(row.name, func(t *testing.T) {
			u := newUpstream(t)
			b := content("a", 40*kib)
			u.set("a", b)
			u.header[row.header] = row.value
			w := openEdge(t, Config{Sources: []Source{web("o", u)}})
			for range 3 {
				g := w.get("o/a")
				w.want(g, 200, b, "pass")
				if g.header.Get("Set-Cookie") != "" {
					t.Error("a cookie of the origin's came through")
				}
			}
			w.want(w.get("o/a", "Range", "bytes=5-9"), 206, b[5:10], "pass")
			if held, _ := w.edge.hoard.bytes(); held != 0 {
				t.Errorf("%d bytes were stored", held)
			}
		})
	}
}

// A client's Authorization is dropped, or goes along and keeps the answer out of the cache.
func TestAuthorization(t *testing.T) {
	u := newUpstream(t)
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		fmt.Fprintf(w, "you are %q", r.Header.Get("Authorization"))
	}
	dropped, passed := web("dropped", u), web("passed", u)
	passed.Authorization = true
	own := web("own", u)
	own.Token = "the edge's"
	w := openEdge(t, Config{Sources: []Source{dropped, passed, own}})
	w.want(w.get("dropped/a", "Authorization", "Bearer x"), 200, []byte(`you are ""`), "miss")
	for _, who := range []string{"Bearer x", "Bearer y"} {
		w.want(w.get("passed/a", "Authorization", who), 200, fmt.Appendf(nil, "you are %q", who), "pass")
	}
	w.want(w.get("passed/a"), 200, []byte(`you are ""`), "miss")
	w.want(w.get("own/a", "Authorization", "Bearer x"), 200, []byte(`you are "Bearer the edge's"`), "miss")
}

// What is dropped by its name is asked for again, also if it is being asked for just then.
func TestInvalidate(t *testing.T) {
	u := newUpstream(t)
	first, second := content("first", 40*kib), content("second", 40*kib)
	u.set("dir/a", first)
	u.set("dir2/b", first)
	u.set("dir/c", second)
	w := openEdge(t, Config{Sources: []Source{web("o", u), web("o2", u)}})
	for _, name := range []string{"o/dir/a", "o/dir2/b", "o2/dir/a", "o/dir/c"} {
		w.want(w.get(name), 200, nil, "")
	}
	w.settled()
	post := func(body, kind string) int {
		t.Helper()
		resp, err := http.Post(w.http.URL+"/edge/.invalidate", kind, stringsReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, row := range []struct {
		body, kind string
		status     int
	}{
		{`{"prefix":"o/dir/"}`, "text/plain", 415}, // what a form of another site could send
		{`{"prefix":"none/"}`, "application/json", 404},
		{`{`, "application/json", 400},
		{`{"prefix":"o/dir/"}`, "application/json; charset=utf-8", 200},
	} {
		if got := post(row.body, row.kind); got != row.status {
			t.Errorf("%s as %s: status %d", row.body, row.kind, got)
		}
	}
	u.set("dir/a", second)
	u.set("dir2/b", second)
	w.want(w.get("o/dir/a"), 200, second, "miss")
	w.want(w.get("o/dir2/b"), 200, first, "hit")
	w.want(w.get("o2/dir/a"), 200, first, "hit")
	w.exact()
	post(`{"prefix":"o"}`, "application/json")
	w.want(w.get("o2/dir/a"), 200, first, "hit")
	post(`{"prefix":"o2"}`, "application/json")
	w.exact()
	if held, leaves := w.edge.hoard.bytes(); held != 0 || leaves != 0 {
		t.Fatalf("%d bytes in %d leaves are held, and all was dropped", held, leaves)
	}
}

// What was asked before something was dropped does not count as fresh afterwards.
func TestInvalidateWhileAsking(t *testing.T) {
	u := newUpstream(t)
	b := content("a", 10*kib)
	u.set("a", b)
	asked, proceed := make(chan struct{}), make(chan struct{})
	u.before = func(*http.Request, int) {}
	old := u.answer
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		u.change(func() { u.answer = old })
		close(asked)
		<-proceed
		w.Header().Set("ETag", `"old"`)
		_, _ = w.Write(b)
	}
	w := openEdge(t, Config{Sources: []Source{web("o", u)}})
	done := make(chan got, 1)
	end := background(t, func() { done <- w.get("o/a") })
	<-asked
	w.edge.Invalidate("o/")
	close(proceed)
	w.want(<-done, 200, b, "miss")
	end()
	w.want(w.get("o/a"), 200, b, "")
	if n := u.requests.Load(); n != 2 {
		t.Fatalf("%d requests, want that it is asked again", n)
	}
}
