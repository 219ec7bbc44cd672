package mirror

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dray/hub"
	"dray/hub/mirror/mirrortest"
	"dray/names"
)

// upstreamOf returns a client of a server that answers as f does.
func upstreamOf(t *testing.T, f http.HandlerFunc) *Upstream {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	u, err := NewUpstream(UpstreamConfig{URL: s.URL + "/", Attempts: 3, Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func TestNewUpstream(t *testing.T) {
	for _, s := range []string{"", "hub.example.org", "ftp://hub.example.org", "https://me:pw@hub.example.org", "https://", "http://x/?a=1"} {
		if _, err := NewUpstream(UpstreamConfig{URL: s}); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
	if _, err := NewUpstream(UpstreamConfig{URL: "https://hub.example.org", Token: "a\nb"}); err == nil {
		t.Error("a token with a line break is accepted")
	}
}

// What an upstream answers that has no commit, and how often it is asked.
func TestNoCommit(t *testing.T) {
	for _, row := range []struct {
		name, code string
		status     int
		want       error
		asked      int64
	}{
		{"no repository", "RepoNotFound", 404, hub.ErrRepoNotFound, 1},
		{"no repository, to those without a token", "RepoNotFound", 401, hub.ErrRepoNotFound, 1},
		{"no revision", "RevisionNotFound", 404, hub.ErrRevisionNotFound, 1},
		{"nothing", "", 404, hub.ErrRevisionNotFound, 1},
		{"gated", "GatedRepo", 403, hub.ErrGated, 1},
		{"not authorized", "", 401, hub.ErrGated, 1},
		{"broken", "", 500, hub.ErrUpstream, 3},
		{"overloaded", "", 429, hub.ErrUpstream, 3},
		{"odd", "", 302, hub.ErrUpstream, 1},
		{"teapot", "", 418, hub.ErrUpstream, 1},
	} {
		var asked atomic.Int64
		u := upstreamOf(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("X-Error-Code", row.code)
			w.WriteHeader(row.status)
			fmt.Fprint(w, "because\x1b[31m\nof it")
		})
		_, err := u.Commit(t.Context(), names.Repo{Name: "a/b"}, "main")
		if !errors.Is(err, row.want) || row.status != 302 && asked.Load() != row.asked {
			t.Errorf("%s: asked %d times: %v", row.name, asked.Load(), err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: the error has a stranger's control characters: %q", row.name, err)
		}
	}
}

// Trees that make no sense or lead elsewhere.
func TestBadTree(t *testing.T) {
	const blob = "0123456789012345678901234567890123456789"
	file := func(path string) string {
		return fmt.Sprintf(`{"type":"file","oid":%q,"size":1,"path":%q}`, blob, path)
	}
	for name, row := range map[string]struct{ tree, link string }{
		"no JSON":         {"<html>", ""},
		"up":              {"[" + file("../x") + "]", ""},
		"absolute":        {"[" + file("/etc/passwd") + "]", ""},
		"up within":       {"[" + file("a/../../x") + "]", ""},
		"backslash":       {"[" + file(`a\b`) + "]", ""},
		"nothing":         {"[" + file("") + "]", ""},
		"twice":           {"[" + file("a") + "," + file("a") + "]", ""},
		"negative":        {`[{"type":"file","oid":"` + blob + `","size":-1,"path":"a"}]`, ""},
		"no digest":       {`[{"type":"file","oid":"","size":1,"path":"a"}]`, ""},
		"bad digest":      {`[{"type":"file","oid":"` + blob + `","size":1,"path":"a","lfs":{"oid":"zz","size":1}}]`, ""},
		"page elsewhere":  {"[" + file("a") + "]", `<http://127.0.0.1:1/next>; rel="next"`},
		"pages for ever":  {"[" + file("a") + "]", `<?again>; rel="next"`},
		"page of a file":  {"[" + file("a") + "]", `<file:///etc/passwd>; rel="next"`},
		"page of another": {"[" + file("a") + "]", `<https://evil.example/x>; rel=next`},
	} {
		u := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/revision/") {
				fmt.Fprintf(w, `{"sha":%q}`, mirrortest.Commit)
				return
			}
			if row.link != "" {
				w.Header().Set("Link", row.link)
			}
			fmt.Fprint(w, row.tree)
		})
		if k, err := u.Commit(t.Context(), names.Repo{Name: "a/b"}, "main"); !errors.Is(err, hub.ErrUpstream) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

// Names that would lead to other parts of the upstream are not asked for.
func TestBadNames(t *testing.T) {
	u := upstreamOf(t, func(http.ResponseWriter, *http.Request) { t.Error("the upstream was asked") })
	for _, name := range []string{"", "/", "a/", "../x", "a/..", "a/b/c", "a b/c", "a/b?x", "a/b#x", "a/%2e%2e", "a//b", strings.Repeat("a", 600)} {
		if _, err := u.Commit(t.Context(), names.Repo{Name: name}, "main"); !errors.Is(err, hub.ErrRepoNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, revision := range []string{"", "..", "a/../b", "/a", "a\x00b", "a\nb"} {
		if _, err := u.Commit(t.Context(), names.Repo{Name: "a/b"}, revision); !errors.Is(err, hub.ErrRevisionNotFound) {
			t.Errorf("%q: %v", revision, err)
		}
	}
}

// Datasets and spaces have paths of their own, and revisions with slashes are one part of the path.
func TestAddresses(t *testing.T) {
	u, err := NewUpstream(UpstreamConfig{URL: "https://hub.example.org/at/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		repo      names.Repo
		api, file string
	}{
		{names.Repo{Name: "a/b"}, "/api/models/a/b/revision/refs%2Fpr%2F1", "/a/b/resolve/c/d%20e/f%3F.bin"},
		{names.Repo{Kind: names.Dataset, Name: "a/b"}, "/api/datasets/a/b/revision/refs%2Fpr%2F1", "/datasets/a/b/resolve/c/d%20e/f%3F.bin"},
		{names.Repo{Kind: names.Space, Name: "b"}, "/api/spaces/b/revision/refs%2Fpr%2F1", "/spaces/b/resolve/c/d%20e/f%3F.bin"},
	} {
		const base = "https://hub.example.org/at"
		if got := u.api(row.repo, "revision", "refs/pr/1"); got != base+row.api {
			t.Errorf("%s, want %s", got, row.api)
		}
		if got := u.resolve(row.repo, "c", "d e/f?.bin"); got != base+row.file {
			t.Errorf("%s, want %s", got, row.file)
		}
	}
}

// Answers to a range that are none.
func TestBadRanges(t *testing.T) {
	for name, f := range map[string]http.HandlerFunc{
		"all":         func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 100)) },
		"none said":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206) },
		"another":     func(w http.ResponseWriter, _ *http.Request) { answerRange(w, "bytes 0-9/100") },
		"other total": func(w http.ResponseWriter, _ *http.Request) { answerRange(w, "bytes 10-19/101") },
		"words":       func(w http.ResponseWriter, _ *http.Request) { answerRange(w, "bytes ten-twenty/100") },
		"compressed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answerRange(w, "bytes 10-19/100")
		},
	} {
		u := upstreamOf(t, f)
		if r, err := u.ranged(t.Context(), u.base.String(), 100, 10, 20, ""); err == nil {
			r.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	u := upstreamOf(t, func(w http.ResponseWriter, _ *http.Request) { answerRange(w, "bytes 10-19/100") })
	r, err := u.ranged(t.Context(), u.base.String(), 100, 10, 20, "")
	if err != nil || r.end != 20 {
		t.Fatal(err)
	}
	r.Close()
}

func answerRange(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Range", s)
	w.WriteHeader(http.StatusPartialContent)
}

// An upstream that wants fewer requests gets them later, and one that wants none for long is not waited for.
func TestPace(t *testing.T) {
	var asked []time.Time
	u := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, time.Now())
		switch len(asked) {
		case 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			fmt.Fprintf(w, `{"sha":%q}`, mirrortest.Commit)
		default:
			w.Header().Set("RateLimit", `"api";r=0;t=300`)
			fmt.Fprint(w, "[]")
		}
	})
	if _, err := u.Commit(t.Context(), names.Repo{Name: "a/b"}, "main"); err != nil {
		t.Fatal(err)
	}
	if gap := asked[1].Sub(asked[0]); gap < 900*time.Millisecond {
		t.Errorf("asked again after %v", gap)
	}
	n := len(asked)
	if _, err := u.Commit(t.Context(), names.Repo{Name: "a/b"}, "main"); !errors.Is(err, errTooLong) || !errors.Is(err, hub.ErrUpstream) {
		t.Error(err)
	}
	if len(asked) != n {
		t.Error("it was asked again at once")
	}
}

func TestPaceHeaders(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-3": 0, "soon": 0, "99999999": mostWait,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", s, got, want)
		}
	}
	for s, want := range map[string]string{
		`"api";r=0;t=55`: "0 55s true", `"resolvers";r=17;t=3, "api";r=0;t=9`: "17 3s true", "": "-1 0s false",
		`"api"; r=x; t=5`: "-1 5s false", "r=-1;t=5": "-1 5s false",
	} {
		left, reset, ok := rateLimit(s)
		if got := fmt.Sprint(left, reset, ok); got != want {
			t.Errorf("RateLimit %q: %s, want %s", s, got, want)
		}
	}
}

// FuzzFeed reads lines that peers may send: whatever they are, the leaves that are taken fit together.
func FuzzFeed(f *testing.F) {
	f.Add([]byte(`{"b":0,"e":4,"c":"bafkr4ih"}` + "\n" + `{"via":["x"]}` + "\n{}\n"))
	b, err := leafPrefix.Sum([]byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range []feedLine{{End: 4, Leaf: b.String()}, {Begin: 4, End: 9, Leaf: b.String(), Edge: edgeInside}} {
		line, err := appendLine(nil, l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(slices.Concat(line, line))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(strings.NewReader(string(data)))
		tab := table{size: 1 << 22}
		for {
			var l feedLine
			if err := readLine(r, 4096, &l); err != nil {
				break
			}
			if e, ok := l.entry(); ok {
				tab.add(e)
			}
			_ = idsOf(l.Via)
		}
		at := int64(0)
		for _, e := range tab.run {
			if e.begin != at || e.end <= e.begin || e.end > tab.size {
				t.Fatalf("%+v at %d", e, at)
			}
			at = e.end
		}
		for _, e := range tab.ahead {
			if e.begin <= at && at > 0 || e.end > tab.size {
				t.Fatalf("%+v ahead of %d", e, at)
			}
			at = e.end
		}
	})
}
