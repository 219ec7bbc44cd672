package main

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
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/node"
	"dray/settings"
)

const testToken = "a-token-of-some-length"

// httpOn is a daemon's HTTP server in this process, on a home of its own, with health, profiles and what a test adds.
func httpOn(t *testing.T, change func(*settings.HTTP), more ...front) (*httpServer, *house) {
	t.Helper()
	h := testHouse(t, filepath.Join(t.TempDir(), "home"), onLoopback())
	s := settings.Default()
	s.HTTP.Listen = "127.0.0.1:0"
	s.HTTP.Drain = settings.Duration(300 * time.Millisecond)
	if change != nil {
		change(&s.HTTP)
	}
	was := fronts
	fronts = append([]front{{"health", openHealth}, {"profiles", openProfiles}}, more...)
	defer func() { fronts = was }()
	w, err := serveHTTP(t.Context(), h, s)
	if err != nil {
		t.Fatal(err)
	}
	h.watchParts()
	h.open.Store(true)
	t.Cleanup(func() { w.close() })
	return w, h
}

// echo is a front that says what it was asked.
func echo(context.Context, *house, settings.Settings) (opened, error) {
	return opened{routes: []route{{"", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		fmt.Fprintf(w, "%s %s auth=%q body=%d", r.Method, r.URL.Path, r.Header.Get("Authorization"), len(body))
	})}}}, nil
}

var frontEcho = front{"echo", echo}

// TestGuard: who comes in, and what the others are told.
func TestGuard(t *testing.T) {
	for _, kind := range []struct {
		name  string
		guard *guard
		rows  []guardRow
	}{
		{"loopback", newGuard("", []string{"models.example"}), []guardRow{
			{"GET", "/x", nil, 200},
			{"GET", "/x", fields("Host", "localhost:4871"), 200},
			{"GET", "/x", fields("Host", "LOCALHOST."), 200},
			{"GET", "/x", fields("Host", "[::1]:4871"), 200},
			{"GET", "/x", fields("Host", "127.9.9.9"), 200},
			{"GET", "/x", fields("Host", "Models.Example:80"), 200},
			{"GET", "/x", fields("Host", "evil.example"), 421},
			{"GET", "/x", fields("Host", "127.0.0.1.evil.example"), 421},
			{"GET", "/x", fields("Host", "localhost.evil.example:4871"), 421},
			{"GET", "/x", fields("Host", "192.0.2.1"), 421},
			{"GET", "/x", fields("Host", ""), 421},
			{"GET", "/x", fields("Host", "evil.example/127.0.0.1"), 421},
			{"GET", "/healthz", fields("Host", "evil.example"), 421},
			{"POST", "/x", nil, 200},
			{"POST", "/x", fields("Origin", "http://127.0.0.1:4871"), 200},
			{"POST", "/x", fields("Origin", "http://evil.example"), 403},
			{"POST", "/x", fields("Origin", "null"), 403},
			{"DELETE", "/x", fields("Sec-Fetch-Site", "cross-site"), 403},
			{"GET", "/x", fields("Sec-Fetch-Site", "cross-site"), 200},
			{"GET", "/x", fields("Authorization", "Bearer hf_of_somebody"), 200},
			{"POST", loginPath, nil, 204},
		}},
		{"token", newGuard(testToken, nil), []guardRow{
			{"GET", "/x", nil, 401},
			{"GET", "/x", fields("Authorization", "Bearer "+testToken), 200},
			{"GET", "/x", fields("Authorization", "bearer "+testToken, "Host", "anything.example"), 200},
			{"GET", "/x", fields("Authorization", "Bearer "+testToken+"x"), 401},
			{"GET", "/x", fields("Authorization", testToken), 401},
			{"GET", "/x", fields("Authorization", "Basic "+testToken), 401},
			{"GET", "/x", fields("Authorization", "Bearer"), 401},
			{"GET", "/x?token=" + testToken, nil, 401},
			{"GET", "/x?access_token=" + testToken, nil, 401},
			{"GET", "/healthz", nil, 200},
			{"GET", "/readyz", nil, 200},
			{"GET", "/healthz?verbose", nil, 401},
			{"POST", "/healthz", nil, 401},
			{"GET", "/healthz/", nil, 401},
			{"GET", "/dash/api/events", nil, 401},
			{"GET", "/debug/pprof/", nil, 401},
			{"GET", "/debug/pprof/", fields("Authorization", "Bearer "+testToken), 200},
			{"POST", "/x", fields("Authorization", "Bearer "+testToken, "Origin", "http://evil.example"), 403},
		}},
	} {
		kind.guard.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.Header.Get("Authorization"), testToken) {
				t.Error("the daemon's own token reaches a front")
			}
		})
		for _, row := range kind.rows {
			r := httptest.NewRequest(row.method, "http://127.0.0.1:4871"+row.path, nil)
			for k, v := range row.header {
				r.Header.Set(k, v)
				if k == "Host" {
					r.Host = v
				}
			}
			w := httptest.NewRecorder()
			kind.guard.ServeHTTP(w, r)
			if w.Code != row.want {
				t.Errorf("%s: %s %s %v: %d, want %d", kind.name, row.method, row.path, row.header, w.Code, row.want)
			}
			var says struct{ Error string }
			if w.Code >= 400 && (json.Unmarshal(w.Body.Bytes(), &says) != nil || says.Error == "") {
				t.Errorf("%s: %s %s: %d says %q", kind.name, row.method, row.path, w.Code, w.Body)
			}
		}
	}
}

type guardRow struct {
	method, path string
	header       map[string]string
	want         int
}

func fields(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// TestLogin: a browser gets a form, the token gets a cookie, and the cookie is as good until it is over.
func TestLogin(t *testing.T) {
	g := newGuard(testToken, nil)
	g.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	do := func(method, path, body string, header map[string]string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://dray.example"+path, strings.NewReader(body))
		for k, v := range header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w
	}
	page := do("GET", "/dash/", "", fields("Accept", "text/html,*/*"))
	if page.Code != 401 || !strings.Contains(page.Body.String(), loginPath) ||
		!strings.Contains(page.Header().Get("Content-Security-Policy"), "script-src 'sha256-") {
		t.Errorf("a browser gets %d %v", page.Code, page.Header())
	}
	if w := do("POST", loginPath, `{"token":"wrong-and-long-enough"}`, nil); w.Code != 401 || len(w.Result().Cookies()) != 0 {
		t.Errorf("a wrong token gets %d %v", w.Code, w.Result().Cookies())
	}
	if w := do("POST", loginPath, strings.Repeat(" ", 5000)+`{"token":"`+testToken+`"}`, nil); w.Code != 401 {
		t.Errorf("a huge login gets %d", w.Code)
	}
	w := do("POST", loginPath, `{"token":"`+testToken+`"}`, nil)
	if w.Code != 204 || len(w.Result().Cookies()) != 1 {
		t.Fatalf("the token gets %d %v", w.Code, w.Result().Cookies())
	}
	c := w.Result().Cookies()[0]
	if c.MaxAge != 8*60*60 || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || strings.Contains(c.Value, testToken) {
		t.Errorf("the cookie is %v", c)
	}
	with := func(value string) map[string]string { return fields("Cookie", sessionCookie+"="+value) }
	for _, row := range []struct {
		path, cookie string
		want         int
	}{
		{"/dash/api/events", c.Value, 200},
		{"/healthz?verbose", c.Value, 200},
		{"/debug/pprof/heap", c.Value, 401},
		{"/x", c.Value[:len(c.Value)-2] + "AA", 401},
		{"/x", "B" + c.Value[1:], 401}, // a later end
		{"/x", g.session(time.Now().Add(time.Minute)), 200},
		{"/x", g.session(time.Now().Add(-time.Minute)), 401},
		{"/x", newGuard(testToken, nil).session(time.Now().Add(time.Minute)), 401},
		{"/x", "", 401},
	} {
		if w := do("GET", row.path, "", with(row.cookie)); w.Code != row.want {
			t.Errorf("%s with cookie %q: %d, want %d", row.path, row.cookie, w.Code, row.want)
		}
	}
	if w := do("POST", logoutPath, "", with(c.Value)); w.Code != 204 || w.Result().Cookies()[0].MaxAge >= 0 {
		t.Errorf("logging out: %d %v", w.Code, w.Result().Cookies())
	}
}

// TestBeyondLoopback: the server starts there only when clients show who they are.
func TestBeyondLoopback(t *testing.T) {
	for _, row := range []struct {
		address string
		guard   *guard
		ok      bool
	}{
		{"127.0.0.1", newGuard("", nil), true},
		{"::1", newGuard("", nil), true},
		{"127.8.8.8", newGuard("", nil), true},
		{"0.0.0.0", newGuard("", nil), false},
		{"::", newGuard("", nil), false},
		{"192.0.2.1", newGuard("", []string{"x"}), false},
		{"0.0.0.0", newGuard(testToken, nil), true},
		{"0.0.0.0", &guard{certs: true}, true},
	} {
		err := row.guard.mayListen(&net.TCPAddr{IP: net.ParseIP(row.address), Port: 1})
		if (err == nil) != row.ok || err != nil && !strings.Contains(err.Error(), "http.token") {
			t.Errorf("at %s: %v", row.address, err)
		}
	}
}

// TestHostileRequests: headers that are too large, that never end or that come in thousands stop nobody else.
func TestHostileRequests(t *testing.T) {
	w, _ := httpOn(t, func(s *settings.HTTP) {
		s.HeaderTimeout = settings.Duration(500 * time.Millisecond)
		s.Connections = 400
	}, frontEcho)
	ask := func(text string) (int, string) {
		t.Helper()
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text) // it may be refused before it is all there
		a, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%.60q: %v", text, err)
		}
		defer a.Body.Close()
		body, _ := io.ReadAll(a.Body) // it may be cut off when what was sent was not read
		return a.StatusCode, string(body)
	}
	good := func() {
		t.Helper()
		if code, body := ask("GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); code != 200 {
			t.Errorf("a good request gets %d %s", code, body)
		}
	}
	good()
	if code, _ := ask("GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("x", 80<<10) + "\r\n\r\n"); code != 431 {
		t.Errorf("a large header gets %d", code)
	}
	if code, _ := ask("GET / HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-Many: x\r\n", 8<<10) + "\r\n"); code != 431 {
		t.Errorf("many headers get %d", code)
	}
	if code, _ := ask("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"); code != 400 {
		t.Errorf("a malformed Host gets %d", code)
	}
	if code, _ := ask("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n" + strings.Repeat("x", maxBody+1)); code != 413 {
		t.Errorf("a huge body gets %d", code)
	}

	// Half-open headers, more than there may be connections: a good client is served beside them, and they are closed in time.
	var slow []net.Conn
	for range 500 {
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: local")
		slow = append(slow, c)
	}
	good()
	begun := time.Now()
	for _, c := range slow {
		if err := c.SetReadDeadline(begun.Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatal("a connection whose header never ends stays open")
		}
	}
	good()
	w.conns.mu.Lock()
	defer w.conns.mu.Unlock()
	if w.conns.closed == 0 || w.conns.all > 2 {
		t.Errorf("%d were closed to make room, %d are left", w.conns.closed, w.conns.all)
	}
}

// TestConnsModel: what is counted is what there is, and those that are answered are never closed to make room.
func TestConnsModel(t *testing.T) {
	tab := newConns(4, 2)
	from := func(ip string) *webConn {
		in, out := net.Pipe()
		t.Cleanup(func() { in.Close(); out.Close() })
		return tab.add(addressed{in, &net.TCPAddr{IP: net.ParseIP(ip), Port: 9}})
	}
	gone := func(c *webConn) bool { tab.mu.Lock(); defer tab.mu.Unlock(); return c.gone }
	a, b := from("192.0.2.1"), from("192.0.2.1")
	c := from("192.0.2.1") // a third of the same address: the first goes
	if !gone(a) || gone(b) || gone(c) {
		t.Error("not the one that waited longest went")
	}
	tab.begin(b)
	tab.begin(b) // two requests, as over HTTP/2
	d, e := from("192.0.2.2"), from("192.0.2.3")
	f := from("192.0.2.4") // a fifth: c, which has waited longest, goes; b is busy
	if gone(b) || !gone(c) || gone(d) || gone(e) || gone(f) {
		t.Error("not the one that waited longest went")
	}
	for _, x := range []*webConn{d, e, f} {
		tab.begin(x)
	}
	if g := from("192.0.2.5"); !gone(g) { // all others are busy
		t.Error("a connection beyond the bound stays")
	}
	tab.end(b)
	if x := from("192.0.2.5"); !gone(x) || gone(b) {
		t.Error("a connection with a request went")
	}
	tab.end(b) // now it waits
	if x := from("192.0.2.5"); gone(x) || !gone(b) {
		t.Error("one that waits did not make room")
	}
	b.Close()
	b.Close()
	d.Close()
	tab.end(d) // its handler ends after it
	if tab.all != 3 || tab.waiting.Len() != 1 || len(tab.by) != 1 {
		t.Errorf("%d connections, %d wait, of %d addresses", tab.all, tab.waiting.Len(), len(tab.by))
	}
}

// addressed is a connection from an address.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

// TestManyReaders: a thousand downloads at once from one address are all answered.
func TestManyReaders(t *testing.T) {
	w, _ := httpOn(t, nil, frontEcho)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			a, err := client.Get(w.url() + "/x")
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Body.Close()
			if body, err := io.ReadAll(a.Body); err != nil || a.StatusCode != 200 {
				t.Errorf("%d %s %v", a.StatusCode, body, err)
			}
		})
	}
	wg.Wait()
}

// TestProbes: what is broken is told by its own probe and by no other, and the health over HTTP says which part it is.
func TestProbes(t *testing.T) {
	w, house := httpOn(t, nil, front{"door", func(context.Context, *house, settings.Settings) (opened, error) {
		return opened{probe: func(context.Context) error { return errors.New("injected") }}, nil
	}})
	code, body := fetch(t, w.url()+livePath+"?verbose", "")
	var r healthReport
	if err := json.Unmarshal([]byte(body), &r); err != nil || code != 200 {
		t.Fatalf("%d %s %v", code, body, err)
	}
	var names []string
	for _, p := range r.Parts {
		names = append(names, p.Name)
		if want := map[bool]node.Condition{true: node.Degraded, false: node.Healthy}[p.Name == "door"]; p.Health > want {
			t.Errorf("%s is %v: %s", p.Name, p.Health, p.Reason)
		}
	}
	if want := "disk reads, disk writes, exchange, door, http, space, swarm"; strings.Join(names, ", ") != want || !r.Live || !r.Ready || r.Health != node.Degraded {
		t.Errorf("%v: there are %v, live %v, ready %v (%s)", r.Health, names, r.Live, r.Ready, r.Reason)
	}
	listening := house.net.Listening()
	if len(listening) != 1 || missingListeners(listening, house.net.Listening()) != nil {
		t.Fatalf("it listens at %v", listening)
	}
	if err := w.probe(t.Context()); err != nil {
		t.Error(err)
	}
	if err := w.listener.Close(); err != nil { // as when the system takes it away
		t.Fatal(err)
	}
	if soon(t, func() bool { return w.probe(t.Context()) != nil }) != nil {
		t.Error("a listener that is closed is not noticed")
	}
	if err := missingListeners(listening, house.net.Listening()); err != nil {
		t.Errorf("the swarm is said to be broken: %v", err)
	}
	if err := house.net.Close(); err != nil {
		t.Fatal(err)
	}
	if err := missingListeners(listening, house.net.Listening()); err == nil || !strings.Contains(err.Error(), listening[0]) {
		t.Errorf("a swarm without listeners: %v", err)
	}
}

// TestSlowBody: a body that stops is given up, and one that is slow and comes to its end is not, nor is the answer cut by it.
func TestSlowBody(t *testing.T) {
	defer func(was time.Duration) { stallTime = was }(stallTime)
	stallTime = time.Second
	w, _ := httpOn(t, nil, front{"late", func(context.Context, *house, settings.Settings) (opened, error) {
		return opened{routes: []route{{"/late", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusRequestTimeout)
				return
			}
			select { // longer than a body may stop
			case <-r.Context().Done():
			case <-time.After(2 * stallTime):
				fmt.Fprintf(w, "%d", len(body))
			}
		})}}}, nil
	}})
	ask := func(pieces int) string {
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "POST /late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n")
		tick := time.NewTicker(stallTime / 3)
		defer tick.Stop()
		for range pieces {
			fmt.Fprint(c, "x")
			<-tick.C
		}
		a, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		defer a.Body.Close()
		body, _ := io.ReadAll(a.Body) // the code says whether it is whole
		return fmt.Sprint(a.StatusCode, " ", string(body))
	}
	begun := time.Now()
	if got := ask(6); got != "200 6" {
		t.Errorf("a slow body: %s, after %v", got, time.Since(begun))
	}
	if got := ask(2); !strings.HasPrefix(got, "408 ") {
		t.Errorf("a body that stops: %s", got)
	}
	// Nobody reads the body that this announces: the connection is not kept for it.
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n", livePath)
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("a connection whose body never comes stays open")
	}
}
