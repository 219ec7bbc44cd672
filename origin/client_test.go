package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray"
)

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func client(t *testing.T, cfg Config) *http.Client {
	t.Helper()
	c := NewClient(cfg)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// get returns the body, or the first error on the way to its end.
func get(c *http.Client, url string, header ...string) (string, error) {
	r, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestPublic(t *testing.T) {
	for _, row := range []struct {
		addr string
		want bool
	}{
		{"8.8.8.8", true},
		{"2606:4700::1111", true},
		{"::ffff:8.8.8.8", true},
		{"64:ff9b::8.8.8.8", true},
		{"2002:808:808::1", true},
		{"0.0.0.0", false},
		{"10.1.2.3", false},
		{"100.64.0.1", false},
		{"127.0.0.1", false},
		{"127.255.255.254", false},
		{"169.254.169.254", false},
		{"172.31.255.255", false},
		{"172.32.0.0", true},
		{"192.168.1.1", false},
		{"198.19.0.1", false},
		{"224.0.0.1", false},
		{"255.255.255.255", false},
		{"::", false},
		{"::1", false},
		{"::ffff:127.0.0.1", false},
		{"::7f00:1", false}, // IPv4-compatible, deprecated
		{"64:ff9b::10.0.0.1", false},
		{"64:ff9b:1::1", false},
		{"2002:7f00:1::1", false},
		{"2002:a9fe:a9fe::1", false},
		{"2001::1", false},
		{"2001:db8::1", false},
		{"fc00::1", false},
		{"fd00:ec2::254", false},
		{"fe80::1", false},
		{"fe80::1%lo", false},
		{"fec0::1", false},
		{"ff02::1", false},
	} {
		if got := Public(netip.MustParseAddr(row.addr)); got != row.want {
			t.Errorf("Public(%s) = %v", row.addr, got)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("the zero address is public")
	}
}

// A server that the operator named by its address answers, and may not send us to another one in a private network.
func TestRedirectIntoPrivate(t *testing.T) {
	var asked atomic.Int32
	inside := serve(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); fmt.Fprint(w, "inside") })
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/plain":
			fmt.Fprint(w, "plain")
		case "/self":
			http.Redirect(w, r, "/plain", http.StatusFound)
		default:
			http.Redirect(w, r, inside.URL+"/secret", http.StatusFound)
		}
	})
	c := client(t, Config{URL: parse(t, base.URL)})
	for _, path := range []string{"/plain", "/self"} {
		if got, err := get(c, base.URL+path); got != "plain" || err != nil {
			t.Fatalf("%s: %q, %v", path, got, err)
		}
	}
	_, err := get(c, base.URL+"/out")
	if !errors.Is(err, ErrPrivate) || !errors.Is(err, dray.ErrRefused) || !strings.Contains(err.Error(), "allow_private") {
		t.Fatalf("redirect inside: %v", err)
	}
	if n := asked.Load(); n != 0 {
		t.Fatalf("the server inside was asked %d times", n)
	}
	c = client(t, Config{URL: parse(t, base.URL), AllowPrivate: true})
	if got, err := get(c, base.URL+"/out"); got != "inside" || err != nil {
		t.Fatalf("allowed: %q, %v", got, err)
	}
	c = client(t, Config{})
	if _, err := get(c, base.URL+"/plain"); !errors.Is(err, ErrPrivate) {
		t.Fatalf("without a URL: %v", err)
	}
}

// What a redirect is refused for besides its address.
func TestRedirectRefused(t *testing.T) {
	var to atomic.Pointer[string]
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", *to.Load())
		w.WriteHeader(http.StatusFound)
	})
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL, http.StatusFound)
	}))
	t.Cleanup(secure.Close)
	tls := secure.Client().Transport.(*http.Transport).TLSClientConfig
	c := client(t, Config{AllowPrivate: true, TLS: tls})
	for _, row := range []struct{ name, from, to, says string }{
		{"file", plain.URL, "file:///etc/passwd", "not HTTP"},
		{"gopher", plain.URL, "gopher://example.org/", "not HTTP"},
		{"user", plain.URL, strings.Replace(plain.URL, "//", "//me:pw@", 1), "user name"},
		{"loop", plain.URL, "/again", "more than 5"},
		{"downgrade", secure.URL, "", "plain text"},
	} {
		to.Store(&row.to)
		if _, err := get(c, row.from); !errors.Is(err, ErrRedirect) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	to.Store(new("/x"))
	c = client(t, Config{AllowPrivate: true, MaxRedirects: -1})
	if _, err := get(c, plain.URL); !errors.Is(err, ErrRedirect) {
		t.Errorf("none allowed: %v", err)
	}
}

// Nothing that says who asks leaves the origin, not even when the chain of redirects returns to it.
func TestSecretsStay(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]http.Header)
	record := func(where string, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[where] = r.Header.Clone()
	}
	var base *httptest.Server
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		record("other", r)
		http.Redirect(w, r, base.URL+"/back", http.StatusFound)
	})
	base = serve(t, func(w http.ResponseWriter, r *http.Request) {
		record("base"+r.URL.Path, r)
		switch r.URL.Path {
		case "/a":
			http.Redirect(w, r, "/b?signature=1", http.StatusFound)
		case "/b":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	})
	c := client(t, Config{
		URL: parse(t, base.URL), AllowPrivate: true, Secrets: []string{"X-Mine"},
		Credentials: func(r *http.Request) error { r.Header.Set("Authorization", "Bearer s3cret"); return nil },
	})
	_, err := get(c, base.URL+"/a",
		"Cookie", "c=1", "X-Mine", "1", "X-Api-Key", "1", "X-Amz-Security-Token", "1", "Range", "bytes=0-1")
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{"Authorization", "Cookie", "X-Mine", "X-Api-Key", "X-Amz-Security-Token"}
	for _, where := range []string{"base/a", "base/b"} {
		for _, name := range secrets {
			if seen[where].Get(name) == "" {
				t.Errorf("%s did not get %s", where, name)
			}
		}
	}
	for _, where := range []string{"other", "base/back"} {
		if seen[where] == nil {
			t.Fatalf("%s was not reached", where)
		}
		for _, name := range append(secrets, "Referer") {
			if v := seen[where].Get(name); v != "" {
				t.Errorf("%s got %s: %s", where, name, v)
			}
		}
		if seen[where].Get("Range") == "" {
			t.Errorf("%s did not get the range", where)
		}
	}
}

// A name is checked where it leads to when the socket connects, whatever it led to before.
func TestNameOfPrivate(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1) })
	dns := startDNS(t, [4]byte{127, 0, 0, 1})
	base := parse(t, s.URL)
	base.Host = "origin.test:" + base.Port()
	c := newClient(Config{URL: base}, dns)
	t.Cleanup(c.CloseIdleConnections)
	if _, err := get(c, base.String()); !errors.Is(err, ErrPrivate) {
		t.Fatalf("name of a private address: %v", err)
	}
	if asked.Load() != 0 {
		t.Fatal("the server was asked")
	}
	c = newClient(Config{URL: base, AllowPrivate: true}, dns)
	t.Cleanup(c.CloseIdleConnections)
	if _, err := get(c, base.String()); err != nil || asked.Load() != 1 {
		t.Fatalf("allowed: %v", err)
	}
}

// startDNS answers every question for an IPv4 address with addr, over loopback.
func startDNS(t *testing.T, addr [4]byte) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if a := answer(buf[:n], addr); a != nil {
				_, _ = pc.WriteTo(a, from)
			}
		}
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// answer makes an answer from a question (RFC 1035, section 4.1).
func answer(q []byte, addr [4]byte) []byte {
	end := 12
	for end < len(q) && q[end] != 0 {
		end += int(q[end]) + 1
	}
	end += 5 // the root label, type and class
	if len(q) < end {
		return nil
	}
	isA := binary.BigEndian.Uint16(q[end-4:]) == 1
	a := append([]byte(nil), q[:end]...)
	copy(a[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	if isA {
		a[7] = 1
		a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		a = append(a, addr[:]...)
	}
	return a
}

func TestBounds(t *testing.T) {
	hold := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/headers":
			w.Header().Set("X-Long", strings.Repeat("x", 100<<10))
		case "/declared":
			w.Header().Set("Content-Length", "1000001")
		case "/endless":
			for range 1 << 12 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		case "/exact":
			_, _ = w.Write(make([]byte, 1_000_000))
		case "/stalls":
			fmt.Fprint(w, "some")
			w.(http.Flusher).Flush()
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		case "/silent":
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		case "/short":
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "short")
		}
	})
	t.Cleanup(func() { close(hold) })
	short := 200 * time.Millisecond
	c := client(t, Config{URL: parse(t, s.URL), MaxBody: 1_000_000, Stall: short, Timeout: short})
	for _, row := range []struct {
		path string
		want error
	}{
		{"/declared", ErrTooLarge},
		{"/endless", ErrTooLarge},
		{"/stalls", ErrStalled},
		{"/short", io.ErrUnexpectedEOF},
		{"/exact", nil},
	} {
		if _, err := get(c, s.URL+row.path); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.path, err, row.want)
		}
	}
	if _, err := get(c, s.URL+"/headers"); err == nil || !strings.Contains(err.Error(), "headers") {
		t.Errorf("long headers: %v", err)
	}
	var timeout interface{ Timeout() bool }
	if _, err := get(c, s.URL+"/silent"); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("silent: %v", err)
	}
}

// What follows a body beyond its length is not taken for the answer to another request.
func TestSurplus(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			if _, err := c.Read(buf); err == nil {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			}
			c.Close()
		}
	})
	c := client(t, Config{URL: parse(t, "http://"+l.Addr().String())})
	for range 5 {
		if got, err := get(c, "http://"+l.Addr().String()); got != "good" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// A failure to find credentials is an error of the request, and nothing is sent without them.
func TestCredentialsFail(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	gone := errors.New("token file is gone")
	c := client(t, Config{URL: parse(t, s.URL), Credentials: func(*http.Request) error { return gone }})
	if _, err := get(c, s.URL); !errors.Is(err, gone) || asked.Load() != 0 {
		t.Fatalf("%v, asked %d times", err, asked.Load())
	}
}

func TestSame(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want bool
	}{
		{"http://a/x", "http://a:80/y", true},
		{"https://A.org", "https://a.org:443", true},
		{"http://a", "https://a", false},
		{"http://a", "http://a:8080", false},
		{"http://a.org", "http://b.a.org", false},
	} {
		if Same(parse(t, row.a), parse(t, row.b)) != row.want {
			t.Errorf("%s and %s", row.a, row.b)
		}
	}
	if Same(nil, parse(t, "http://a")) {
		t.Error("nil is an origin")
	}
}
