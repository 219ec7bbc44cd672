package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dray"
)

// Prefix is where an Edge is served.
const Prefix = "/edge/"

const (
	maxPath    = 8 << 10 // of a request's path and query
	maxCommand = 64 << 10
)

// ServeHTTP implements http.Handler for what is below Prefix: NAME/path, and the two paths .stats and .invalidate.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), Prefix)
	shield(w.Header())
	if !ok || len(rest)+len(r.URL.RawQuery) > maxPath {
		say(w, http.StatusBadRequest, "the path is too long")
		return
	}
	switch rest {
	case ".stats":
		e.serveStats(w, r)
		return
	case ".invalidate":
		e.serveInvalidate(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		say(w, http.StatusMethodNotAllowed, "only GET and HEAD: an edge does not write to its origins")
		return
	}
	name, path, _ := strings.Cut(rest, "/")
	g := e.groups[name]
	if g == nil {
		say(w, http.StatusNotFound, "there is no origin %q; [[edge.origin]] in config.toml names them", clip(name))
		return
	}
	if err := checkPath(path); err != nil {
		say(w, http.StatusBadRequest, "%v", err)
		return
	}
	switch {
	case g.blocks != nil:
		e.serveCID(w, r, g, path)
	case r.Header.Get("Authorization") != "" && g.servers[0].Authorization:
		e.pass(w, r, g, path)
	default:
		e.serveName(w, r, g, path)
	}
}

// shield keeps content of origins from acting in the name of the page that this host serves.
func shield(h http.Header) {
	h.Set("Content-Security-Policy", "sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
}

// checkPath refuses what servers may take for a path outside of their prefix.
func checkPath(escaped string) error {
	for part := range strings.SplitSeq(escaped, "/") {
		plain, err := url.PathUnescape(part)
		switch {
		case err != nil:
			return fmt.Errorf("the path cannot be read: %w", err)
		case plain == "." || plain == ".." || strings.ContainsAny(plain, "/\\\x00"):
			return fmt.Errorf("the path has a part %q, which could lead out of the origin", clip(plain))
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// say answers with a line of text.
func say(w http.ResponseWriter, status int, format string, args ...any) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	for _, name := range []string{
		"Content-Length", "Content-Range", "Content-Encoding", "ETag", "Last-Modified", "Content-Disposition",
	} {
		h.Del(name)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, format+"\n", args...)
}

// sayError answers with what went wrong at an origin.
func (e *Edge) sayError(w http.ResponseWriter, err error) {
	status := http.StatusBadGateway
	var (
		bad     *statusError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &bad) && (gone(bad.status) || bad.status == http.StatusRequestedRangeNotSatisfiable):
		say(w, bad.status, "%v", err)
		return
	case errors.Is(err, dray.ErrNotFound):
		say(w, http.StatusNotFound, "%v", err)
		return
	case errors.Is(err, errRequest), errors.Is(err, dray.ErrBadCID):
		say(w, http.StatusBadRequest, "%v", err)
		return
	case errors.Is(err, dray.ErrClosed):
		say(w, http.StatusServiceUnavailable, "the daemon is stopping")
		return
	case errors.As(err, &bad) && (bad.status == http.StatusForbidden || bad.status == http.StatusUnauthorized):
		err = fmt.Errorf("%w; the origin does not accept the credentials in the settings, or wants some", err)
	case errors.Is(err, dray.ErrTimeout), errors.As(err, &timeout) && timeout.Timeout():
		status = http.StatusGatewayTimeout
	}
	e.count(func(s *Stats) { s.Failed++ })
	say(w, status, "%v", err)
}

// serveName answers with an object.
func (e *Edge) serveName(w http.ResponseWriter, r *http.Request, g *group, path string) {
	for try := 0; ; try++ {
		v, err := e.find(r.Context(), g, path, r.URL.RawQuery, e.wanted(r))
		switch {
		case errors.Is(err, errChanged) && try < 2:
			continue
		case err != nil && r.Context().Err() != nil:
			return
		case err != nil:
			e.sayError(w, err)
			return
		}
		if e.passes(v.o) {
			e.pass(w, r, g, path)
			return
		}
		if !e.send(w, r, v) {
			return
		}
		if try == 2 {
			e.sayError(w, errChanged)
			return
		}
	}
}

func (e *Edge) passes(o *object) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return o.pass
}

// wanted returns which segments a request needs, as far as it can be told without knowing the size.
func (e *Edge) wanted(r *http.Request) want {
	if r.Method == http.MethodHead {
		return want{head: true}
	}
	s, ok := parseRange(r.Header.Get("Range"))
	switch {
	case !ok:
		return want{last: -1}
	case s.from < 0:
		return want{head: true} // the last bytes: of how many?
	case s.last < 0:
		return want{first: s.from / e.cfg.Segment, last: -1}
	}
	return want{first: s.from / e.cfg.Segment, last: s.last / e.cfg.Segment}
}

// span is what a Range header says: from a byte to a last one, or -1 for all that follow. If from is -1, last is how
// many bytes at the end are meant.
type span struct{ from, last int64 }

// parseRange reads a header with one range (RFC 9110, section 14.1.2). Anything else is as if there were none.
func parseRange(s string) (span, bool) {
	s, ok := strings.CutPrefix(s, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(s), "-")
	if !ok || !dash || strings.Contains(s, ",") {
		return span{}, false
	}
	if first == "" {
		n, err := strconv.ParseUint(last, 10, 62)
		return span{-1, int64(n)}, err == nil
	}
	f, err := strconv.ParseUint(first, 10, 62)
	if err != nil {
		return span{}, false
	}
	if last == "" {
		return span{int64(f), -1}, true
	}
	l, err := strconv.ParseUint(last, 10, 62)
	return span{int64(f), int64(l)}, err == nil && l >= f
}

// of returns the bytes of an object of a size that a range means, and whether there are any.
func (s span) of(size int64) (from, to int64, ok bool) {
	switch {
	case s.from < 0:
		return max(0, size-s.last), size, s.last > 0 && size > 0
	case s.last < 0:
		return s.from, size, s.from < size
	}
	return s.from, min(s.last+1, size), s.from < size
}

// send answers with what was found. It returns true, having written nothing, if the object turned out to be another
// one now.
func (e *Edge) send(w http.ResponseWriter, r *http.Request, v verdict) (again bool) {
	o := v.o
	e.mu.Lock()
	size, made, lease := o.size, o.made, o.lease
	_, here := o.leaves[0]
	e.mu.Unlock()
	h := w.Header()
	for name, value := range o.meta.Header {
		h.Set(name, value)
	}
	setIf(h, "ETag", o.meta.ETag)
	setIf(h, "Last-Modified", o.meta.Modified)
	h.Set("Age", strconv.FormatInt(int64(max(0, e.cfg.Now().Sub(made))/time.Second), 10))
	if lease.Keep && size >= 0 {
		h.Set("Accept-Ranges", "bytes")
	}
	from, to, status := int64(0), size, http.StatusOK
	if notModified(r, &o.meta) {
		h.Set("X-Cache", result(v, true))
		w.WriteHeader(http.StatusNotModified)
		return false
	}
	if s, ok := parseRange(r.Header.Get("Range")); ok && size >= 0 && rangeHolds(r, &o.meta) {
		if from, to, ok = s.of(size); !ok {
			say416(w, size)
			return false
		}
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
	}
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(to-from, 10))
		e.mu.Lock()
		key, ok := o.leaves[from/e.cfg.Segment]
		here = ok && e.hoard.has(key) || size == 0 && !v.asked
		e.mu.Unlock()
	}
	h.Set("X-Cache", result(v, here))
	if v.stale {
		e.count(func(s *Stats) { s.Stale++ })
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return false
	}
	out := &late{w: w, status: status}
	rd := &reader{e: e, o: o}
	defer rd.close()
	_, err := rd.copy(r.Context(), out, from, to)
	switch {
	case err == nil:
		out.begin()
	case out.begun:
		// The client has a part of it, and must not take it for the whole.
		panic(http.ErrAbortHandler)
	case errors.Is(err, errChanged):
		clear(h)
		shield(h)
		return true
	case r.Context().Err() == nil:
		clear(h)
		shield(h)
		e.sayError(w, err)
	}
	return false
}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// result says where an answer comes from.
func result(v verdict, here bool) string {
	switch {
	case v.stale:
		return "stale"
	case here:
		return "hit"
	}
	return "miss"
}

func say416(w http.ResponseWriter, size int64) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
	w.Header().Del("Content-Encoding")
	w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	fmt.Fprintf(w, "there are %d bytes\n", size)
}

// notModified reports whether the client has this version (RFC 9110, section 13.2.2).
func notModified(r *http.Request, m *meta) bool {
	if list := r.Header.Values("If-None-Match"); len(list) > 0 {
		return m.ETag != "" && tagIn(list, m.ETag)
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	modified, merr := http.ParseTime(m.Modified)
	return err == nil && merr == nil && !modified.After(since)
}

// tagIn reports whether a tag is in a list, by weak comparison (RFC 9110, section 8.8.3.2).
func tagIn(list []string, tag string) bool {
	tag = strings.TrimPrefix(tag, "W/")
	for _, line := range list {
		for one := range strings.SplitSeq(line, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == tag {
				return true
			}
		}
	}
	return false
}

// rangeHolds reports whether the range is of the version that the client has a part of (RFC 9110, section 13.1.5).
func rangeHolds(r *http.Request, m *meta) bool {
	if v := r.Header.Get("If-Range"); v != "" {
		return m.Firm && (v == m.ETag || v == m.Modified)
	}
	return true
}

// late is a response whose status is written with the first byte, so that there can be another one until then.
type late struct {
	w      http.ResponseWriter
	status int
	begun  bool
}

func (l *late) begin() {
	if !l.begun {
		l.begun = true
		l.w.WriteHeader(l.status)
	}
}

// Write implements io.Writer.
func (l *late) Write(p []byte) (int, error) {
	l.begin()
	return l.w.Write(p)
}

// ReadFrom hands a file to the server, which may send it without copying.
func (l *late) ReadFrom(r io.Reader) (int64, error) {
	l.begin()
	return io.Copy(l.w, r)
}

// pass lets a request through to a source, and stores nothing.
func (e *Edge) pass(w http.ResponseWriter, r *http.Request, g *group, path string) {
	e.count(func(s *Stats) { s.Passed++ })
	resp, err := g.ask(r.Context(), nil, func(ctx context.Context, v *server) (*http.Request, error) {
		out, err := v.request(ctx, r.Method, path, r.URL.RawQuery)
		if err != nil {
			return nil, err
		}
		for _, name := range []string{
			"Range", "If-Range", "If-None-Match", "If-Modified-Since", "Accept", "Accept-Language",
		} {
			setIf(out.Header, name, r.Header.Get(name))
		}
		if v.Authorization {
			setIf(out.Header, "Authorization", r.Header.Get("Authorization"))
		}
		return out, nil
	})
	if err != nil {
		if r.Context().Err() == nil {
			e.sayError(w, err)
		}
		return
	}
	defer resp.Body.Close()
	h := w.Header()
	for _, names := range [][]string{
		{"ETag", "Last-Modified", "Content-Length", "Content-Range", "Accept-Ranges", "Age", "Vary"}, passedOn,
	} {
		for _, name := range names {
			setIf(h, name, resp.Header.Get(name))
		}
	}
	h.Set("X-Cache", "pass")
	w.WriteHeader(resp.StatusCode)
	n, err := io.Copy(w, resp.Body)
	resp.from.received(n)
	e.count(func(s *Stats) { s.BytesFetched += n; s.BytesServed += n })
	if err != nil {
		panic(http.ErrAbortHandler) // it must not be taken for the whole
	}
}

func (e *Edge) serveStats(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		say(w, http.StatusMethodNotAllowed, "only GET and HEAD")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(e.Stats()) // the client may be gone
}

// serveInvalidate drops the objects that a JSON body {"prefix": "NAME/path"} names. Pages of other sites cannot send
// that: a browser asks before it sends JSON to another origin, and gets no permission.
func (e *Edge) serveInvalidate(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		say(w, http.StatusMethodNotAllowed, "only POST")
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		say(w, http.StatusUnsupportedMediaType,
			`the body is JSON, such as {"prefix":"NAME/path"}, with Content-Type: application/json`)
		return
	}
	var q struct {
		Prefix string `json:"prefix"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCommand)).Decode(&q); err != nil {
		say(w, http.StatusBadRequest, `the body is not like {"prefix":"NAME/path"}: %v`, err)
		return
	}
	name, _, slash := strings.Cut(q.Prefix, "/")
	if !slash {
		q.Prefix += "/"
	}
	if e.groups[name] == nil {
		say(w, http.StatusNotFound, "there is no origin %q", clip(name))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int{"dropped": e.Invalidate(q.Prefix)}) // the client may be gone
}
