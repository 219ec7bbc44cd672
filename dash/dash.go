package dash

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"dray/node"
)

// Config says what the page shows. Only Node is required. Its functions are called while somebody looks, by one goroutine at a
// time, save for Steer.
type Config struct {
	// Node is what it is about.
	Node *node.Node
	// Version is the program's.
	Version string
	// Store tells what the disk holds; it is called every few seconds. If nil, that is not shown.
	Store func(context.Context) (Store, error)
	// Caches tells what the doors hold of other people's content. If nil, that is not shown.
	Caches func() []Cache
	// Jobs lists the jobs, the latest last. If nil, they are not shown.
	Jobs func(context.Context) ([]Job, error)
	// Steer does something to a job: "pause", "resume", "cancel" or "retry". If nil, the page only shows. Errors that wrap
	// [ErrNoJob] are those of who asked.
	Steer func(ctx context.Context, verb string, job uint64) error
	// Explain says in a sentence why nothing has come for so long. If nil, the reason's own word is shown.
	Explain func(waits []node.Wait, idle time.Duration) string
	// Stopping is closed when the daemon is told to stop: listeners are sent away. If nil, Close does that.
	Stopping <-chan struct{}
	// Listeners bounds how many pages may be open. If zero, 32.
	Listeners int
}

// ErrNoJob means that there is no such job, or that it is not in a state for what was asked.
var ErrNoJob = errors.New("the job cannot be steered so")

// Store is what the disk holds.
type Store struct {
	// Own is the bytes of the store's own copies, and Quota their bound; 0 when there is none.
	Own   int64 `json:"own"`
	Quota int64 `json:"quota"`
	// Referenced is the bytes of users' files that are served where they lie.
	Referenced int64 `json:"referenced"`
	// Roots is how many roots there are.
	Roots int `json:"roots"`
	// Free and Disk are what is left where the home lies, and what there is in all; 0 when not known.
	Free int64 `json:"free"`
	Disk int64 `json:"disk"`
}

// Cache is what one door holds of other people's content.
type Cache struct {
	// Name is the door's.
	Name string `json:"name"`
	// Bytes of Max are used.
	Bytes int64 `json:"bytes"`
	Max   int64 `json:"max"`
	// Hits and Misses count requests.
	Hits   int64 `json:"hits"`
	Misses int64 `json:"misses"`
}

// Job is one order of the daemon's.
type Job struct {
	// ID and State are as `dray jobs` says them.
	ID    uint64 `json:"id"`
	State string `json:"state"`
	// Name says what it gets, and Root is its address.
	Name string `json:"name"`
	Root string `json:"root"`
	// Message says why it failed or waits, and Remedy what can be done.
	Message string `json:"message,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
	// Done of Total bytes are there.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Verbs are what can be done to it now.
	Verbs []string `json:"verbs"`
}

// Server serves the page. It is safe for concurrent use and must be closed.
type Server struct {
	cfg   Config
	pages pages
	mux   *http.ServeMux
	guard *http.CrossOriginProtection
	done  chan struct{} // closed by Close
	close sync.Once
	wg    sync.WaitGroup // the ticker, while there are listeners

	view view
}

const (
	maxActionBody = 4 << 10
	actionTime    = 10 * time.Second
)

// New returns a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Node == nil {
		return nil, errors.New("dash: a Config needs a Node")
	}
	if cfg.Listeners <= 0 {
		cfg.Listeners = 32
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), guard: http.NewCrossOriginProtection(), done: make(chan struct{})}
	var err error
	if s.pages, err = loadPages(); err != nil {
		return nil, err
	}
	s.view.begin(&s.cfg)
	s.mux.HandleFunc("GET /dash/api/state", s.serveState)
	s.mux.HandleFunc("GET /dash/api/events", s.serveEvents)
	s.mux.HandleFunc("GET /dash/api/transfer/{id}", s.serveTransfer)
	s.mux.Handle("POST /dash/api/jobs/{id}/{verb}", s.guard.Handler(http.HandlerFunc(s.steer)))
	s.mux.HandleFunc("/dash/api/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "there is no "+r.Method+" "+clip(r.URL.Path)+"; see docs/page.md for what there is")
	})
	s.mux.HandleFunc("GET /dash/{name}", s.servePage)
	s.mux.HandleFunc("GET /dash/{$}", s.servePage)
	s.mux.HandleFunc("GET /{$}", s.servePage)
	s.mux.Handle("GET /dash", http.RedirectHandler("/dash/", http.StatusFound))
	return s, nil
}

// ServeHTTP answers requests for /, /dash and what is below /dash/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	s.mux.ServeHTTP(w, r)
}

// Close sends the listeners away and returns when nothing of the Server runs. Requests must have ended before.
func (s *Server) Close() error {
	s.close.Do(func() { close(s.done) })
	s.wg.Wait()
	return nil
}

func (s *Server) serveState(w http.ResponseWriter, r *http.Request) {
	s.view.refresh(r.Context(), time.Now(), 250*time.Millisecond)
	body, _ := s.view.since(cursor{}, time.Now())
	answer(w, http.StatusOK, body)
}

// mapCells is how many cells a piece map has at most.
const mapCells = 1024

func (s *Server) serveTransfer(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, "a transfer is named by a number, as in /dash/api/state")
		return
	}
	t, pieces, ok := s.cfg.Node.Transfer(id, mapCells)
	if !ok {
		fail(w, http.StatusNotFound, "there is no transfer "+strconv.FormatUint(id, 10)+"; it may have ended long ago")
		return
	}
	body, err := json.Marshal(s.detail(&t, &pieces, time.Now()))
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, http.StatusOK, body)
}

// steer does something to a job. Requests from other sites' pages do not come here.
func (s *Server) steer(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxActionBody)
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 63)
	verb := r.PathValue("verb")
	switch {
	case s.cfg.Steer == nil:
		fail(w, http.StatusForbidden, "this page only shows; set dash.actions = true in config.toml, or use `dray jobs`")
		return
	case err != nil || !steers[verb]:
		fail(w, http.StatusBadRequest, "right is /dash/api/jobs/NUMBER/pause, resume, cancel or retry")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), actionTime)
	defer cancel()
	switch err := s.cfg.Steer(ctx, verb, id); {
	case errors.Is(err, ErrNoJob):
		fail(w, http.StatusConflict, err.Error())
	case err != nil:
		fail(w, http.StatusInternalServerError, err.Error())
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

var steers = map[string]bool{"pause": true, "resume": true, "cancel": true, "retry": true}

// answer writes JSON that must not be kept.
func answer(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // the client may be gone
}

func fail(w http.ResponseWriter, code int, text string) {
	body, _ := json.Marshal(map[string]string{"error": text}) // a string always is JSON
	answer(w, code, body)
}

func clip(s string) string {
	if r := []rune(s); len(r) > 80 {
		return string(r[:80]) + "…"
	}
	return s
}
