package hub

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dray/names"
)

// Config says what a Server is made of. Only Library is required.
type Config struct {
	// Library is what is served.
	Library Library
	// Requests is how many requests are answered at a time; beyond them clients are told to come again. If zero, 512.
	Requests int
	// Stall is how long a client may take nothing of an answer before it is cut off. If zero, one minute.
	Stall time.Duration
	// PageSize is how many entries of a tree are sent at once. If zero, 1,000.
	PageSize int
	// Log is told of what fails otherwise than by something not being there. If nil, nothing is logged.
	Log *slog.Logger
}

// Server answers the Hub's clients. It is safe for concurrent use.
type Server struct {
	cfg   Config
	open  atomic.Int64
	trees trees
	cards recent[map[string]any] // what commits say of themselves
}

// NewServer returns a Server.
func NewServer(cfg Config) *Server {
	if cfg.Requests == 0 {
		cfg.Requests = 512
	}
	if cfg.Stall == 0 {
		cfg.Stall = time.Minute
	}
	if cfg.PageSize == 0 {
		cfg.PageSize = 1000
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg}
	s.trees.done.most, s.trees.done.weigh = rememberedFiles, func(l []treeEntry) int { return len(l) + 1000 }
	s.cards.most = rememberedCards
	return s
}

// rememberedFiles is how many files the commits and trees that are kept in memory have together, each counting 1,000 more.
const rememberedFiles = 300_000

// maxBody bounds what a client may send.
const maxBody = 1 << 20

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.open.Add(-1)
	// What is served was written by others, on an address that the node's own page has, too.
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	if s.open.Add(1) > int64(s.cfg.Requests) {
		s.fail(w, r, &refusal{status: http.StatusTooManyRequests, text: "too many requests at once; try again in a second", after: 1})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := s.serve(w, r); err != nil {
		s.fail(w, r, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	p, err := parseRoute(r.URL.EscapedPath())
	if err != nil {
		return err
	}
	switch {
	case p.verb == "paths-info" && r.Method != http.MethodPost, p.verb != "paths-info" && r.Method != http.MethodGet && r.Method != http.MethodHead:
		return refusef(http.StatusMethodNotAllowed, "", "%s is not possible here: repositories are published with `dray share --repo`", r.Method)
	}
	switch p.verb {
	case "whoami-v2":
		// Whoever asks has sent a token, which nobody here has given.
		return refusef(http.StatusUnauthorized, "", "there are no accounts here; leave the token out")
	case "list":
		return s.list(w, r, p.repo.Kind)
	case "refs":
		return s.refs(w, r, p.repo)
	}
	c, err := s.cfg.Library.Commit(r.Context(), p.repo, p.revision)
	if err != nil {
		return err
	}
	w.Header().Set("X-Repo-Commit", c.ID)
	switch p.verb {
	case "info":
		return s.info(w, r, c)
	case "tree":
		return s.tree(w, r, c, p)
	case "paths-info":
		return s.pathsInfo(w, r, c)
	case "commits":
		return s.commits(w, r, c)
	}
	return s.file(w, r, c, p)
}

// fail says what is wrong in the way that the Hub does.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var x *refusal
	if !errors.As(err, &x) {
		x = &refusal{status: http.StatusInternalServerError, text: err.Error()}
		switch {
		case errors.Is(err, ErrRepoNotFound):
			x.status, x.code = http.StatusNotFound, codeRepo
		case errors.Is(err, ErrRevisionNotFound):
			x.status, x.code = http.StatusNotFound, codeRevision
		case errors.Is(err, ErrEntryNotFound):
			x.status, x.code = http.StatusNotFound, codeEntry
		case errors.Is(err, ErrGated):
			x.status, x.code = http.StatusForbidden, codeGated
		case errors.Is(err, context.DeadlineExceeded):
			x.status = http.StatusGatewayTimeout
		case errors.Is(err, ErrUpstream):
			x.status = http.StatusBadGateway
		}
	}
	if x.status >= http.StatusInternalServerError && r.Context().Err() == nil {
		s.cfg.Log.Warn("a request of the Hub's failed", "path", r.URL.Path, "err", err)
	}
	h := w.Header()
	for _, k := range []string{"Content-Length", "Content-Range", "Content-Disposition", "Accept-Ranges", "ETag", "X-Linked-Etag", "X-Linked-Size"} {
		h.Del(k)
	}
	if x.code != "" {
		h.Set("X-Error-Code", x.code)
	}
	if x.after > 0 {
		h.Set("Retry-After", strconv.Itoa(x.after))
	}
	h.Set("Cache-Control", "no-store") // what a commit has is for ever, but not that it cannot be had
	h.Set("X-Error-Message", headerText(x.text))
	h.Set("Content-Type", "application/json; charset=utf-8")
	body, _ := json.Marshal(map[string]string{"error": x.text}) // strings always can be
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(x.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone
	}
}

// headerText makes a text one that fits into a header.
func headerText(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '…':
			return '.'
		case c < ' ' || c > '~':
			return ' '
		}
		return c
	}, s)
	return s[:min(len(s), 1000)]
}

// send answers with a value as JSON.
func (s *Server) send(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	s.extend(w)
	_, _ = w.Write(body) // the client may be gone
	return nil
}

// extend gives the client time to take what is written next.
func (s *Server) extend(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.Stall)) // a writer without deadlines has none to miss
}

// isoTime writes a time as the Hub does.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// recent is a map that is bounded: what was put first goes first.
type recent[V any] struct {
	// most is how many there may be. If weigh is set, so may what they weigh together; the last one stays, whatever it weighs.
	most  int
	weigh func(V) int

	mu    sync.Mutex
	by    map[string]V
	order []string
}

func (m *recent[V]) get(k string) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok = m.by[k]
	return v, ok
}

func (m *recent[V]) put(k string, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = make(map[string]V)
	}
	if _, known := m.by[k]; !known {
		m.order = append(m.order, k)
	}
	m.by[k] = v
	for len(m.order) > 1 && m.load() > m.most {
		delete(m.by, m.order[0])
		m.order = append(m.order[:0], m.order[1:]...)
	}
}

func (m *recent[V]) load() int {
	if m.weigh == nil {
		return len(m.order)
	}
	sum := 0
	for _, v := range m.by {
		sum += m.weigh(v)
	}
	return sum
}

// commitKey names a commit.
func commitKey(c *names.Commit) string { return c.Repo.String() + "@" + c.ID }
