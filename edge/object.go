package edge

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// meta is what a source says about an object, of one version of it. It does not change.
type meta struct {
	// Size is in bytes, or -1 while it is not known.
	Size int64 `json:"size"`
	// ETag and Modified are the validators as the source spells them, or empty.
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"`
	// Firm says that one of them changes with every change of the bytes, so that segments of several answers fit together.
	Firm bool `json:"firm,omitempty"`
	// Header is what clients are told besides.
	Header map[string]string `json:"header,omitempty"`
}

// passedOn are the headers of an answer that clients are told.
var passedOn = []string{
	"Content-Type", "Content-Encoding", "Content-Disposition", "Content-Language", "Cache-Control", "Expires",
}

const mostHeader = 4 << 10

// errAnswer means that an answer of a source makes no sense.
var errAnswer = errors.New("the answer makes no sense")

// errChanged means that an object changed at its source while it was being read.
var errChanged = errors.New("the object changed at its source")

// metaOf reads the headers of an answer. From is where its body begins, and Size is -1 if it is not told.
func metaOf(resp *http.Response) (m meta, from int64, err error) {
	h := resp.Header
	m = meta{Size: resp.ContentLength, ETag: h.Get("ETag"), Modified: h.Get("Last-Modified")}
	m.Header = make(map[string]string)
	if resp.StatusCode == http.StatusPartialContent {
		var end int64
		if from, end, m.Size, err = contentRange(h.Get("Content-Range")); err != nil {
			return m, 0, err
		}
		if resp.ContentLength >= 0 && resp.ContentLength != end-from {
			return m, 0, fmt.Errorf("%w: %d bytes are announced for the range %q",
				errAnswer, resp.ContentLength, h.Get("Content-Range"))
		}
	}
	if len(m.ETag) > mostHeader || len(m.Modified) > 64 {
		return m, 0, fmt.Errorf("%w: a validator is too long", errAnswer)
	}
	m.Firm = m.ETag != "" && !strings.HasPrefix(m.ETag, "W/") || m.ETag == "" && firmDate(h)
	for _, name := range passedOn {
		if v := h.Get(name); v != "" && len(v) <= mostHeader {
			m.Header[name] = v
		}
	}
	return m, from, nil
}

// firmDate reports whether Last-Modified tells versions apart (RFC 9110, section 8.8.2.2): the file did not change in
// the second in which the answer was made.
func firmDate(h http.Header) bool {
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	date, derr := http.ParseTime(h.Get("Date"))
	return err == nil && derr == nil && date.Sub(modified) >= time.Second
}

// same reports whether an answer is about the same version.
func (m *meta) same(n *meta) bool {
	return m.Firm && n.Firm && m.ETag == n.ETag && m.Modified == n.Modified &&
		(m.Size == n.Size || m.Size < 0 || n.Size < 0)
}

// contentRange reads "bytes FROM-LAST/SIZE" (RFC 9110, section 14.4). End is the byte after the last; size is -1 if
// it is unknown.
func contentRange(s string) (from, end, size int64, err error) {
	wrong := fmt.Errorf("%w: Content-Range is %q", errAnswer, s)
	s, ok := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(s, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, wrong
	}
	f, err1 := strconv.ParseUint(first, 10, 62)
	l, err2 := strconv.ParseUint(last, 10, 62)
	if err1 != nil || err2 != nil || l < f {
		return 0, 0, 0, wrong
	}
	size = -1
	if total != "*" {
		t, err := strconv.ParseUint(total, 10, 62)
		if err != nil || l >= t {
			return 0, 0, 0, wrong
		}
		size = int64(t)
	}
	return int64(f), int64(l) + 1, size, nil
}

// object is one version of what is under a name, and where its bytes are here.
type object struct {
	key         string // the group's name, a slash, the path, and the query after a question mark
	group       *group
	path, query string
	meta        meta
	server      *server // whose version it is
	place       *list.Element

	// Guarded by Edge.mu.
	size    int64 // as meta.Size, until the end was seen
	made    time.Time
	lease   lease
	pass    bool // it must not be stored: requests go through until the lease ends
	dropped bool
	leaves  map[int64]string // segments that came, by number; the cache may have dropped them since
	runs    []*run
}

// fresh reports whether it may be served without asking. The caller holds Edge.mu.
func (o *object) fresh(now time.Time) bool { return now.Sub(o.made) < o.lease.Fresh }

// bearable reports whether it may be served although it is not fresh, while no source answers. The caller holds
// Edge.mu.
func (o *object) bearable(now time.Time, stale time.Duration) bool {
	if o.lease.Stale >= 0 {
		stale = o.lease.Stale
	}
	return !o.lease.Strict && !o.pass && now.Sub(o.made) < o.lease.Fresh+stale
}

// want says what of an object somebody wants to read: segments, of which the last may be -1, the object's end.
type want struct {
	first, last int64
	head        bool // nothing but what there is
}

// open asks for an object's bytes in [from, to), to being -1 for all that follow. Known, if not nil, makes the question
// conditional: the answer may be 304.
func (g *group) open(
	ctx context.Context, preferred *server, path, query string, from, to int64, known *meta,
) (reply, error) {
	return g.ask(ctx, preferred, func(ctx context.Context, v *server) (*http.Request, error) {
		r, err := v.request(ctx, http.MethodGet, path, query)
		if err != nil {
			return nil, err
		}
		switch {
		case to >= 0:
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
		case from > 0:
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		}
		known.ask(r.Header)
		return r, nil
	})
}

// head asks what there is.
func (g *group) head(ctx context.Context, path, query string, known *meta) (reply, error) {
	return g.ask(ctx, nil, func(ctx context.Context, v *server) (*http.Request, error) {
		r, err := v.request(ctx, http.MethodHead, path, query)
		if err == nil {
			known.ask(r.Header)
		}
		return r, err
	})
}

// ask makes a request conditional on what is known.
func (m *meta) ask(h http.Header) {
	switch {
	case m == nil:
	case m.ETag != "":
		h.Set("If-None-Match", m.ETag)
	case m.Modified != "":
		h.Set("If-Modified-Since", m.Modified)
	}
}
