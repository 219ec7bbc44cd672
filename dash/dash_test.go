package dash_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dray/dash"
	"dray/node"
	"dray/store"
)

// site is a page of a node without a network, on a server.
type site struct {
	t    *testing.T
	node *node.Node
	url  string
	stop chan struct{}
}

func newSite(t *testing.T, change func(*dash.Config)) *site {
	t.Helper()
	n, err := node.New(node.Config{Store: store.NewMem(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	x := &site{t: t, node: n, stop: make(chan struct{})}
	cfg := dash.Config{Node: n, Version: "1", Stopping: x.stop}
	if change != nil {
		change(&cfg)
	}
	s, err := dash.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	x.url = h.URL
	t.Cleanup(func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		n.Close()
	})
	return x
}

// send makes a request with the headers given as names and values in turn.
func (x *site) send(method, path string, header []string) *http.Response {
	x.t.Helper()
	r, err := http.NewRequestWithContext(x.t.Context(), method, x.url+path, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		x.t.Fatal(err)
	}
	return a
}

func (x *site) do(method, path string, header ...string) (*http.Response, string) {
	x.t.Helper()
	a := x.send(method, path, header)
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return a, string(body)
}

// TestRoutes says what is answered where, and that nothing of it may be framed, sniffed or mixed with what others serve.
func TestRoutes(t *testing.T) {
	x := newSite(t, nil)
	for _, r := range []struct {
		method, path string
		code         int
		kind, has    string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", "<title>Dray</title>"},
		{"GET", "/dash/", 200, "text/html; charset=utf-8", "<title>Dray</title>"},
		{"GET", "/dash", 200, "text/html; charset=utf-8", "<title>Dray</title>"},
		{"GET", "/dash/style.css", 200, "text/css; charset=utf-8", "--bg"},
		{"GET", "/dash/app.js", 200, "text/javascript; charset=utf-8", "listen("},
		{"GET", "/dash/icon.svg", 200, "image/svg+xml", "<svg"},
		{"GET", "/dash/none.js", 404, "application/json", "there is no"},
		{"GET", "/dash/api/state", 200, "application/json", `"full":true`},
		{"GET", "/dash/api/none", 404, "application/json", "docs/page.md"},
		{"GET", "/dash/api/transfer/x", 400, "application/json", "a number"},
		{"GET", "/dash/api/transfer/7", 404, "application/json", "there is no transfer 7"},
		{"POST", "/dash/api/jobs/1/pause", 403, "application/json", "dash.actions"},
		{"POST", "/", 405, "", ""},
		{"DELETE", "/dash/api/state", 404, "application/json", "there is no DELETE"},
	} {
		a, body := x.do(r.method, r.path)
		if a.StatusCode != r.code || r.kind != "" && a.Header.Get("Content-Type") != r.kind || !strings.Contains(body, r.has) {
			t.Errorf("%s %s: %s, %s, %.80q; want %d, %s with %q", r.method, r.path, a.Status, a.Header.Get("Content-Type"), body, r.code, r.kind, r.has)
		}
		csp := a.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'self'") || !strings.Contains(csp, "frame-ancestors 'none'") ||
			a.Header.Get("X-Content-Type-Options") != "nosniff" || strings.Contains(csp, "unsafe") {
			t.Errorf("%s %s: %q, %q", r.method, r.path, csp, a.Header.Get("X-Content-Type-Options"))
		}
	}
	a, _ := x.do("GET", "/dash/app.js")
	if a, _ = x.do("GET", "/dash/app.js", "If-None-Match", a.Header.Get("Etag")); a.StatusCode != http.StatusNotModified {
		t.Errorf("%s for a file that has not changed", a.Status)
	}
}

// TestState reads what the page shows at first.
func TestState(t *testing.T) {
	x := newSite(t, func(c *dash.Config) {
		c.Store = func(context.Context) (dash.Store, error) { return dash.Store{Own: 5, Free: 7, Disk: 9}, nil }
		c.Jobs = func(context.Context) ([]dash.Job, error) { return nil, errors.New("no journal") }
		c.Caches = func() []dash.Cache { return []dash.Cache{{Name: "edge", Hits: 3}} }
	})
	const hostile = `<img src=x onerror="document.title='gone'">`
	tr := x.node.Track(node.TrackConfig{Origin: node.Origin{Who: "hub", Name: hostile}, Total: 200})
	tr.Came("upstream.example", 50)
	defer tr.End(nil)
	_, body := x.do("GET", "/dash/api/state")
	var s struct {
		Full    bool
		Node    struct{ Health string }
		Running struct {
			List []struct {
				ID          uint64
				Name        string
				Done, Total int64
				Gifts       []struct {
					Kind, Name string
					Bytes      int64
				}
			}
		}
		Store  struct{ Own, Free int64 }
		Caches []struct{ Hits int }
		Jobs   struct{ Error string }
		Events []struct{ Kind, Text string }
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if len(s.Running.List) != 1 {
		t.Fatalf("%s: no transfer", body)
	}
	r := s.Running.List[0]
	if r.Name != hostile || r.Done != 50 || r.Total != 200 || len(r.Gifts) != 1 || r.Gifts[0].Kind != "origin" || r.Gifts[0].Bytes != 50 {
		t.Errorf("%+v", r)
	}
	if !s.Full || s.Node.Health == "" || s.Store.Own != 5 || s.Store.Free != 7 || s.Jobs.Error != "no journal" || s.Caches[0].Hits != 3 {
		t.Errorf("%+v", s)
	}
	begun := false
	for _, e := range s.Events {
		begun = begun || e.Kind == "begun" && strings.Contains(e.Text, hostile)
	}
	if !begun {
		t.Errorf("%+v: the transfer's beginning is not among the events", s.Events)
	}
	if strings.Contains(body, "<img") {
		t.Error("the answer has markup in it, which somebody might take for a page")
	}
}

// TestSteer is about who may do something to jobs.
func TestSteer(t *testing.T) {
	var did atomic.Value
	x := newSite(t, func(c *dash.Config) {
		c.Steer = func(_ context.Context, verb string, job uint64) error {
			if job == 9 {
				return fmt.Errorf("%w: job 9 is done", dash.ErrNoJob)
			}
			did.Store(fmt.Sprint(verb, " ", job))
			return nil
		}
	})
	self := x.url
	for _, r := range []struct {
		name, path string
		header     []string
		code       int
		did        string
	}{
		{"the page itself", "/dash/api/jobs/3/pause", []string{"Sec-Fetch-Site", "same-origin", "Origin", self}, 204, "pause 3"},
		{"a program", "/dash/api/jobs/3/resume", nil, 204, "resume 3"},
		{"another site's page", "/dash/api/jobs/3/cancel", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403, ""},
		{"one of a neighbour", "/dash/api/jobs/3/cancel", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://other.localhost"}, 403, ""},
		{"an old browser", "/dash/api/jobs/3/cancel", []string{"Origin", "https://evil.example"}, 403, ""},
		{"an opaque origin", "/dash/api/jobs/3/cancel", []string{"Origin", "null"}, 403, ""},
		{"an old browser with the page", "/dash/api/jobs/3/cancel", []string{"Origin", self}, 204, "cancel 3"},
		{"no such thing to do", "/dash/api/jobs/3/explode", nil, 400, ""},
		{"what clears is not on the page", "/dash/api/jobs/3/clear", nil, 400, ""},
		{"no number", "/dash/api/jobs/all/cancel", nil, 400, ""},
		{"a job that is over", "/dash/api/jobs/9/pause", nil, 409, ""},
	} {
		did.Store("")
		a, body := x.do("POST", r.path, r.header...)
		if got := did.Load(); a.StatusCode != r.code || got != r.did {
			t.Errorf("%s: %s (%s) and did %q, want %d and %q", r.name, a.Status, body, got, r.code, r.did)
		}
	}
	if a, _ := x.do("GET", "/dash/api/jobs/3/cancel"); a.StatusCode != 404 || did.Load() != "" {
		t.Errorf("%s: a link must do nothing", a.Status)
	}
}

// stream is an open page.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Reader
	last string
}

func (x *site) listen(header ...string) *stream {
	x.t.Helper()
	a := x.send("GET", "/dash/api/events", header)
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" {
		x.t.Fatalf("%s, %s", a.Status, a.Header.Get("Content-Type"))
	}
	return &stream{t: x.t, body: a.Body, in: bufio.NewReader(a.Body)}
}

// next returns the next event's sections, or nil at the end.
func (s *stream) next() map[string]json.RawMessage {
	s.t.Helper()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return nil
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			s.last = strings.TrimSpace(id)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			m := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(data), &m); err != nil {
				s.t.Fatalf("%v: %s", err, data)
			}
			return m
		}
	}
}

// until reads events until one has a section.
func (s *stream) until(section string) map[string]json.RawMessage {
	s.t.Helper()
	for {
		m := s.next()
		if m == nil {
			s.t.Fatalf("the stream ended before %s came", section)
		}
		if m[section] != nil {
			return m
		}
	}
}

// TestEvents follows the news: all at first, then what changes, and after a gap what was missed.
func TestEvents(t *testing.T) {
	t.Parallel()
	x := newSite(t, nil)
	s := x.listen()
	if m := s.next(); m["full"] == nil || m["node"] == nil || m["running"] == nil {
		t.Fatalf("%v: the first event must have all", m)
	}
	tr := x.node.Track(node.TrackConfig{Origin: node.Origin{Who: "test"}, Total: 10})
	m := s.until("running")
	if m["full"] != nil || m["peers"] != nil || !strings.Contains(string(m["running"]), `"who":"test"`) || m["events"] == nil {
		t.Fatalf("%v: want the transfer, its beginning, and nothing that is as before", m)
	}
	at := s.last
	s.body.Close()
	tr.Came("o", 10)
	tr.End(nil)
	again := x.listen("Last-Event-ID", at)
	m = again.until("ended")
	if m["full"] != nil || m["node"] != nil || !strings.Contains(string(m["events"]), "done: test") || strings.Contains(string(m["events"]), "begun") {
		t.Fatalf("%v: want what came after %s", m, at)
	}
	again.body.Close()
	for _, strange := range []string{"1-2-3-4", "x", "1-2-3", "99999999999999999999-1-1-1"} {
		s := x.listen("Last-Event-ID", strange)
		if m := s.next(); m["full"] == nil {
			t.Errorf("%v: after %q everything is news", m, strange)
		}
		s.body.Close()
	}
	s = x.listen()
	s.next()
	close(x.stop)
	for s.next() != nil {
	}
}

// TestHeartbeat waits for a sign of life when there is no news.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	x := newSite(t, nil)
	s := x.listen()
	defer s.body.Close()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "event: beat\n" {
			return
		}
	}
}

// TestListeners is about the bound, and that a place is free again when a page is closed.
func TestListeners(t *testing.T) {
	t.Parallel()
	x := newSite(t, func(c *dash.Config) { c.Listeners = 2 })
	a, b := x.listen(), x.listen()
	r, body := x.do("GET", "/dash/api/events")
	if r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(body, "(2)") {
		t.Fatalf("%s: %s", r.Status, body)
	}
	a.body.Close()
	b.body.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		r, err := http.Get(x.url + "/dash/api/events")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode == 200 {
			return
		}
		<-tick.C
	}
	t.Fatal("closed pages still count after 10 s")
}

// TestSlowListener has one page not read: another gets its news as before, and the slow one the newest when it reads again.
func TestSlowListener(t *testing.T) {
	t.Parallel()
	x := newSite(t, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(x.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /dash/api/events HTTP/1.1\r\nHost: x\r\n\r\n")
	fast := x.listen()
	defer fast.body.Close()
	fast.next()
	tr := x.node.Track(node.TrackConfig{Origin: node.Origin{Who: "test", Name: strings.Repeat("n", 10000)}, Total: 1000})
	for i := range 5 {
		tr.Came("o", 1)
		for {
			m := fast.until("running")
			if strings.Contains(string(m["running"]), fmt.Sprintf(`"done":%d,`, i+1)) {
				break
			}
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, `"done":5,`) {
			break
		}
	}
	tr.End(nil)
}

// TestNobodyLooks: without a page nothing is asked of anybody.
func TestNobodyLooks(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	x := newSite(t, func(c *dash.Config) {
		c.Jobs = func(context.Context) ([]dash.Job, error) { looks.Add(1); return nil, nil }
	})
	s := x.listen()
	s.next()
	s.body.Close()
	quiet := int64(-1)
	tick := time.NewTicker(2500 * time.Millisecond) // more than two looks
	defer tick.Stop()
	for range 8 {
		<-tick.C
		if n := looks.Load(); n == quiet {
			return
		} else {
			quiet = n
		}
	}
	t.Fatalf("%d looks, and still more, after the page was closed", looks.Load())
}
