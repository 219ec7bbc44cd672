package delegated

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// ServerConfig says what a [Server] answers from. Providers and Peer are required.
type ServerConfig struct {
	// Providers calls each with those who provide c, until each returns false or the request's context ends. The error is the
	// server's fault.
	Providers func(r *http.Request, c cid.Cid, each func(Record) bool) error
	// Peer returns what is known of a peer's addresses, or ok false.
	Peer func(r *http.Request, id dray.PeerID) (x Record, ok bool)
	// Timeout is how long an answer may take. If zero, 30 seconds.
	Timeout time.Duration
	// Records bounds an answer in JSON, and StreamRecords one in a stream. If zero, 20 and 200.
	Records, StreamRecords int
	// AtOnce is how many questions are answered at a time; more get 503. If zero, 64.
	AtOnce int
}

// Server answers what clients ask below /routing/v1/. It is an [http.Handler].
type Server struct {
	cfg  ServerConfig
	room chan struct{}
	mux  *http.ServeMux
}

const (
	fresh     = 5 * time.Minute  // how long an answer may be kept that names somebody
	freshNone = 15 * time.Second // and one that names nobody
	stale     = 48 * time.Hour   // how long it may be used when there is no other
)

// NewServer returns a server.
func NewServer(cfg ServerConfig) *Server {
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Records, cfg.StreamRecords, cfg.AtOnce = cmp.Or(cfg.Records, 20), cmp.Or(cfg.StreamRecords, 200), cmp.Or(cfg.AtOnce, 64)
	s := &Server{cfg: cfg, room: make(chan struct{}, cfg.AtOnce), mux: http.NewServeMux()}
	s.mux.HandleFunc("GET "+prefix+"providers/{cid}", s.providers)
	s.mux.HandleFunc("GET "+prefix+"peers/{peer}", s.peers)
	s.mux.HandleFunc(prefix+"ipns/{name}", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotImplemented, errors.New("names are not resolved or published here"))
	})
	return s
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Section 6.1 of the specification: browsers may ask from everywhere.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
	if r.Method == http.MethodOptions {
		w.Header().Set("Access-Control-Allow-Headers", "Accept, Content-Type, Range")
		w.Header().Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// fail says in a line what is wrong.
func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, err.Error(), code)
}

func (s *Server) providers(w http.ResponseWriter, r *http.Request) {
	c, err := cid.Decode(r.PathValue("cid"))
	if err == nil {
		err = dray.CheckCID(c)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("%.100q is no CID: %w", r.PathValue("cid"), err))
		return
	}
	s.answer(w, r, "Providers", func(r *http.Request, each func(Record) bool) error { return s.cfg.Providers(r, c, each) })
}

func (s *Server) peers(w http.ResponseWriter, r *http.Request) {
	id, err := parsePeer(r.PathValue("peer"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	s.answer(w, r, "Peers", func(r *http.Request, each func(Record) bool) error {
		if x, ok := s.cfg.Peer(r, id); ok {
			each(x)
		}
		return nil
	})
}

// answer writes records in the form that the client prefers.
func (s *Server) answer(
	w http.ResponseWriter, r *http.Request, field string, find func(r *http.Request, each func(Record) bool) error,
) {
	stream, ok := prefers(r.Header.Values("Accept"))
	if !ok {
		fail(w, http.StatusNotAcceptable, fmt.Errorf("answers are %s or %s", typeJSON, typeStream))
		return
	}
	query := r.URL.Query()
	f, err := parseFilter(query.Get("filter-protocols"), query.Get("filter-addrs"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	default:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, errors.New("too many questions at a time; ask again"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
	defer cancel()
	r = r.WithContext(ctx)
	h := w.Header()
	h.Add("Vary", "Accept")
	if stream {
		s.stream(w, r, &f, find)
		return
	}
	list := []json.RawMessage{}
	err = find(r, func(x Record) bool {
		if x, ok := f.apply(x); ok {
			list = append(list, appendRecord(nil, &x))
		}
		return len(list) < s.cfg.Records
	})
	if err != nil && len(list) == 0 && !errors.Is(err, context.DeadlineExceeded) {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	text, err := json.Marshal(map[string]any{field: list})
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	h.Set("Content-Type", typeJSON)
	cacheable(h, len(list) > 0)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // the client may be gone
}

// stream writes each record as it is found.
func (s *Server) stream(
	w http.ResponseWriter, r *http.Request, f *filter, find func(*http.Request, func(Record) bool) error,
) {
	h := w.Header()
	rc := http.NewResponseController(w)
	n := 0
	begin := func() {
		h.Set("Content-Type", typeStream)
		cacheable(h, n > 0)
		w.WriteHeader(http.StatusOK)
	}
	err := find(r, func(x Record) bool {
		x, ok := f.apply(x)
		if !ok {
			return true
		}
		if n++; n == 1 {
			begin()
		}
		if _, err := w.Write(appendRecord(nil, &x)); err != nil || rc.Flush() != nil {
			return false
		}
		return n < s.cfg.StreamRecords
	})
	switch {
	case n > 0: // whatever went wrong then, what was found is said
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		fail(w, http.StatusInternalServerError, err)
	default:
		begin()
	}
}

// cacheable says for how long an answer may be kept.
func cacheable(h http.Header, some bool) {
	age := freshNone
	if some {
		age = fresh
	}
	h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d, stale-while-revalidate=%d, stale-if-error=%d",
		int(age.Seconds()), int(stale.Seconds()), int(stale.Seconds())))
	h.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
}

// prefers reads the headers Accept: whether a stream is preferred, or ok false when neither form is acceptable. JSON is what
// those get who do not care.
func prefers(accept []string) (stream, ok bool) {
	best := map[string]float64{}
	any := false
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		any = true
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		switch kind {
		case "*/*", "application/*":
			kind = typeJSON
		case typeJSON, typeStream:
		default:
			continue
		}
		best[kind] = max(best[kind], q)
	}
	if !any {
		return false, true
	}
	// Of equals the stream: a client that names it can read it, and has the first record sooner.
	return best[typeStream] > 0 && best[typeStream] >= best[typeJSON], best[typeStream] > 0 || best[typeJSON] > 0
}
