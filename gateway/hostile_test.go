package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"dray/unixfs"
)

// Paths, headers and queries that mean harm, or nothing: each is an answer of its own, and none of the server's fault.
func TestHostileRequests(t *testing.T) {
	s := newSite(t)
	long := strings.Repeat("a", 20_000)
	for _, tt := range []struct {
		name    string
		line    string
		headers []string
		code    int
	}{
		{"dots", "GET /ipfs/{root}/../../etc/passwd", nil, 400},
		{"dots in the middle", "GET /ipfs/{root}/sub/../hello.txt", nil, 400},
		{"dots in percents", "GET /ipfs/{root}/%2e%2e/%2E%2E/etc/passwd", nil, 400},
		{"a slash in percents", "GET /ipfs/{root}/..%2f..%2fetc%2fpasswd", nil, 400},
		{"a backslash", `GET /ipfs/{root}/..\..\etc\passwd`, nil, 404},
		{"a NUL", "GET /ipfs/{root}/hello.txt%00.png", nil, 400},
		{"a long name", "GET /ipfs/{root}/" + strings.Repeat("a", 10_000), nil, 404},
		{"a long path", "GET /ipfs/{root}/" + long, nil, 414},
		{"many names", "GET /ipfs/{root}/" + strings.Repeat("a/", 5000), nil, 404},
		{"no CID", "GET /ipfs/", nil, 400},
		{"a CID that is cut", "GET /ipfs/bafybei", nil, 400},
		{"names of names", "GET /ipfs/ipns/example.org", nil, 301},
		{"another namespace", "GET /ipld/{root}", nil, 404},
		{"an absolute URL", "GET http://elsewhere.example/ipfs/{hello}", nil, 200},
		{"another host", "GET /ipfs/{hello}", []string{"X-Forwarded-Host: elsewhere.example"}, 200},
		{"a query that cannot be read", "GET /ipfs/{hello}?a=%zz", nil, 400},
		{"a redirect elsewhere", "GET /ipfs/?uri=https://elsewhere.example/", nil, 400},

		{"ranges that overlap", "GET /ipfs/{big}", []string{"Range: bytes=0-9999,0-9999,0-9999"}, 200}, // more than all: all
		{"thousands of ranges", "GET /ipfs/{big}", []string{"Range: bytes=" + strings.Repeat("0-0,", 3000) + "0-0"}, 416},
		{"thousands of ranges of a block", "GET /ipfs/{big}?format=raw", []string{"Range: bytes=" + strings.Repeat("0-0,", 3000) + "0-0"}, 416},
		{"a range backwards", "GET /ipfs/{big}", []string{"Range: bytes=9-3"}, 416},
		{"a negative range", "GET /ipfs/{big}", []string{"Range: bytes=--5"}, 416},
		{"a range that overflows", "GET /ipfs/{big}", []string{"Range: bytes=9223372036854775808-"}, 416},
		{"a range to nearly everything", "GET /ipfs/{big}", []string{"Range: bytes=0-9223372036854775807"}, 206},
		{"a suffix of nearly everything", "GET /ipfs/{big}", []string{"Range: bytes=-9223372036854775807"}, 206},
		{"an empty range", "GET /ipfs/{big}", []string{"Range: bytes="}, 200},
		{"a range of a directory", "GET /ipfs/{root}/", []string{"Range: bytes=5-2"}, 200},
		{"ranges with HEAD", "HEAD /ipfs/{big}", []string{"Range: bytes=0-9,20-29"}, 200},

		{"Accept with many kinds", "GET /ipfs/{hello}", []string{"Accept: " + strings.Repeat("a/b,", 5000)}, 400},
		{"Accept that is long", "GET /ipfs/{hello}", []string{"Accept: text/" + long}, 200},
		{"Accept that is malformed", "GET /ipfs/{hello}", []string{"Accept: application/vnd.ipld.car; version"}, 400},
		{"Accept with quotes", "GET /ipfs/{hello}", []string{`Accept: application/vnd.ipld.raw; x="a,b\"", text/html`}, 200},
		{"Accept with a quote that does not end", "GET /ipfs/{hello}", []string{`Accept: application/vnd.ipld.raw; x="a`}, 400},
		{"Accept with a weight beyond", "GET /ipfs/{hello}", []string{"Accept: application/vnd.ipld.raw;q=2"}, 400},
		{"Accept with no number", "GET /ipfs/{hello}", []string{"Accept: application/vnd.ipld.raw;q=NaN"}, 400},
		{"Accept that refuses", "GET /ipfs/{hello}", []string{"Accept: application/vnd.ipld.raw;q=0"}, 200},
		{"Accept of something unknown", "GET /ipfs/{hello}", []string{"Accept: application/vnd.ipld.nonsense"}, 400},
		{"Accept twice", "GET /ipfs/{hello}", []string{"Accept: application/vnd.ipld.car", "Accept: application/vnd.ipld.raw"}, 200},

		{"a filename with a line end", "GET /ipfs/{hello}?filename=a%0d%0aX-Evil:%201", nil, 200},
		{"an ETag list that does not end", "GET /ipfs/{hello}", []string{`If-None-Match: "` + long}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := s.raw(t, s.fill(tt.line), tt.headers)
			if a.code != tt.code {
				t.Errorf("status %d, want %d: %.200q", a.code, tt.code, a.body)
			}
			if a.header.Get("X-Evil") != "" || strings.HasPrefix(a.header.Get("Location"), "http") {
				t.Errorf("headers %v", a.header)
			}
			if bytes.Contains(a.body, []byte("root:")) {
				t.Error("a file of this host")
			}
		})
	}
}

// raw writes a request as it stands, and reads the answer.
func (s *site) raw(t *testing.T, line string, headers []string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", s.srv.Listener.Addr().String())
	s.must(err)
	defer conn.Close()
	text := line + " HTTP/1.1\r\nHost: here\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	_, err = io.WriteString(conn, text)
	s.must(err)
	method, _, _ := strings.Cut(line, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	s.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}

// Directories that others made may have names that lead elsewhere: they are neither listed nor followed, and not unpacked.
func TestHostileNames(t *testing.T) {
	s := newSite(t)
	link := func(name string) []byte {
		c := s.hello.CID.Bytes()
		l := append([]byte{0x0a, byte(len(c))}, c...)
		l = append(l, 0x12, byte(len(name)))
		l = append(l, name...)
		return append([]byte{0x12, byte(len(l))}, l...)
	}
	dir := func(names ...string) string {
		var b []byte
		for _, n := range names {
			b = append(b, link(n)...)
		}
		return s.block(0x70, append(b, 0x0a, 2, 8, 1)).String()
	}
	evil := dir("..", "../../evil", "<script>", "good.txt")
	page := s.do("GET /ipfs/" + evil + "/")
	if page.code != http.StatusOK || !bytes.Contains(page.body, []byte("good.txt")) {
		t.Errorf("status %d %.200q", page.code, page.body)
	}
	if bytes.Contains(page.body, []byte("evil")) || bytes.Contains(page.body, []byte("<script>")) {
		t.Error("a listing with a name that leads elsewhere, or is no text")
	}
	for _, l := range []string{"http://", "https://"} { // links there are, but nothing that a browser loads by itself
		for _, tag := range []string{"<script src=\"" + l, "<img src=\"" + l, "<link href=\"" + l, "url(" + l} {
			if bytes.Contains(page.body, []byte(tag)) {
				t.Errorf("the listing loads something from elsewhere: %s", tag)
			}
		}
	}
	if a := s.do("GET /ipfs/" + dir("../../evil") + "?format=tar"); a.err == nil && bytes.Contains(a.body, []byte("../evil")) {
		t.Error("a TAR with a name that leads elsewhere")
	}
	// A shard in a directory that is none, and a directory in itself by its hash prefix, make no loop.
	if a := s.do("GET /ipfs/" + evil + "/good.txt/x/y"); a.code != http.StatusNotFound {
		t.Errorf("below a file: status %d", a.code)
	}
}

// A graph that repeats itself is small as a CAR without duplicates, whatever its paths.
func TestBomb(t *testing.T) {
	s := newSite(t)
	p := small()
	ref := s.hello
	for range 40 { // 2^40 leaves
		b := unixfs.NewBuilder(p, s.mem.put)
		s.must(b.AddNode(ref))
		s.must(b.AddNode(ref))
		var err error
		ref, err = b.Finish()
		s.must(err)
	}
	for _, query := range []string{"?format=car", "?format=car&dag-scope=entity", "?format=car&entity-bytes=1:-2", "?format=car&entity-bytes=-5:*"} {
		a := s.do("GET /ipfs/" + ref.CID.String() + query)
		if _, blocks := a.car(t); a.code != http.StatusOK || len(blocks) != 41 {
			t.Errorf("%s: status %d, %d blocks", query, a.code, len(blocks))
		}
	}
	a := s.do("GET /ipfs/"+ref.CID.String(), "Range: bytes=1000000000000-1000000000013")
	if a.code != http.StatusPartialContent || len(a.body) != 14 {
		t.Errorf("status %d %q", a.code, a.body)
	}
	if a := s.do("HEAD /ipfs/" + ref.CID.String() + "?format=car&car-dups=y"); a.code != http.StatusOK {
		t.Errorf("HEAD of all of it: status %d", a.code)
	}
}

// More requests at a time than are served are refused; then they are served again.
func TestTooManyRequests(t *testing.T) {
	s, sw := remote(t)
	s.cfg.Requests = 2
	s.serve()
	sw.change(func() { sw.open = func(cid.Cid) bool { return false } })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { s.do(s.fill("GET /ipfs/{big}")) })
	}
	sw.await(t, func() bool { return len(sw.asked) == 2 })
	a := s.do(s.fill("GET /ipfs/{hello}"))
	s.check(t, a, http.StatusTooManyRequests, []string{"Retry-After: 30"})
	sw.change(func() { sw.open = nil })
	wg.Wait()
	s.check(t, s.do(s.fill("GET /ipfs/{hello}")), http.StatusOK, nil)
}

// Many readers of one file at the same time, each in the middle of its part, get their bytes, and take a piece of memory each.
func TestCrowd(t *testing.T) {
	const readers, part = 200, 300_000
	w := newWorld(t)
	p := unixfs.V1()
	data := content(5, 8<<20)
	ref := w.file(p, data)
	w.serve()
	var wg, first sync.WaitGroup
	first.Add(readers)
	before := w.mem.gets
	for i := range readers {
		wg.Go(func() {
			var once sync.Once
			defer once.Do(first.Done)
			from := rand.IntN(len(data) - part)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.srv.URL+"/ipfs/"+ref.CID.String(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+part-1))
			resp, err := (&http.Client{Transport: &http.Transport{}}).Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got := make([]byte, part)
			if _, err := io.ReadFull(resp.Body, got[:1000]); err != nil {
				t.Error(i, err)
			}
			once.Do(first.Done)
			first.Wait()
			if _, err := io.ReadFull(resp.Body, got[1000:]); err != nil || !bytes.Equal(got, data[from:from+part]) {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := w.mem.gets - before; n > readers {
		t.Errorf("%d blocks were read whole for %d readers", n, readers)
	}
}

// FuzzAsk reads requests: whatever they say there is an answer, and what is understood of them is what boxo understands.
func FuzzAsk(f *testing.F) {
	f.Add("/ipfs/bafkqaaa", "format=raw", "application/vnd.ipld.car;dups=y;q=0.1, */*", "bytes=0-1,-5", "only-if-cached")
	f.Add("/ipfs/bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/a/../b", "entity-bytes=-1:*", "", "bytes=-", "")
	f.Add("/ipfs/ipfs/x", "%zz", "application/vnd.ipld.raw;x=\"", "lines=1", "no-store, Only-If-Cached")
	f.Add("/ipns/x//y", "dag-scope=entity&entity-bytes=9223372036854775807:-9223372036854775808&format=car", "a,b,c;q=", "", "")
	mem := newMemory()
	g, err := New(Config{Local: mem})
	if err != nil {
		f.Fatal(err)
	}
	ref, err := buildFile(small(), content(1, 5000), mem.put)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path, query, accept, ranges, control string) {
		for _, p := range []string{path, "/ipfs/" + ref.CID.String()} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.URL.Path, r.URL.RawQuery = p, query
			r.RequestURI = r.URL.RequestURI()
			for name, value := range map[string]string{"Accept": accept, "Range": ranges, "Cache-Control": control} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			a, code, why := readAsk(r)
			switch {
			case code != 0 && (code < 400 || code > 599 || why == ""):
				t.Errorf("refused with %d %q", code, why)
			case code == 0 && a.root.Defined() && strings.Contains(strings.Join(a.names, "/"), ".."):
				for _, n := range a.names {
					if n == ".." {
						t.Errorf("names %q", a.names)
					}
				}
			}
			w := &recorder{header: make(http.Header)}
			func() {
				defer func() {
					if p := recover(); p != nil && p != http.ErrAbortHandler {
						panic(p)
					}
				}()
				g.ServeHTTP(w, r)
			}()
			if w.code == 0 || w.code == http.StatusInternalServerError {
				t.Errorf("%q %q %q %q: status %d %.200q", p, query, accept, ranges, w.code, w.body)
			}
			if w.code == http.StatusOK && p != path && a.format == "" && !bytes.Equal(w.body, content(1, 5000)) {
				t.Errorf("%q %q %q: other bytes, %d", query, accept, ranges, len(w.body))
			}
		}
	})
}
