// Package mirrortest has an upstream for tests of what reads from one: a Hub with one repository, which counts what it sends and
// fails in the ways that it is told to.
//
// # What it does not do
//
// It knows neither datasets nor searches, and no client could upload to it.
package mirrortest

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Commit is the id of the one commit that a Hub has.
const Commit = "0123456789abcdef0123456789abcdef01234567"

// Hub serves one commit of one repository of models over HTTP, as the Hub does. Its exported fields are changed inside [Hub.Set].
type Hub struct {
	// URL is where it is.
	URL string
	// Repo is what its repository is called, and Files are what is in it.
	Repo  string
	Files map[string][]byte

	// Down breaks every answer off.
	Down bool
	// BreakAt is after how many bytes an answer with a file breaks off. If zero, none does.
	BreakAt int64
	// Slow is how long every 64 KiB take, in each answer.
	Slow time.Duration
	// Rate bounds the bytes a second of all answers together. If zero, nothing does.
	Rate int64
	// Resolve takes over requests for files, and reports whether it has. If nil, none.
	Resolve func(w http.ResponseWriter, r *http.Request) bool
	// Lie is the SHA-256 that the tree gives of some files, in place of theirs.
	Lie map[string]string
	// Gated says that the repository is.
	Gated bool
	// NoRanges has it answer requests for ranges with whole files.
	NoRanges bool
	// Seen are the headers of all requests, and Ranges what was sent of each file.
	Seen   []http.Header
	Ranges map[string][][2]int64

	digests       map[string]digests
	body, answers atomic.Int64
	server        *httptest.Server
	mu            sync.Mutex
	free          time.Time // when the line is free again
}

// digests are what the tree says of a file.
type digests struct{ blob, sum string }

// New starts a Hub. Close ends it.
func New(repo string, files map[string][]byte) *Hub {
	h := &Hub{
		Repo: repo, Files: files, Lie: make(map[string]string), Ranges: make(map[string][][2]int64),
		digests: make(map[string]digests),
	}
	for name, data := range files {
		h.digests[name] = digests{blob: gitBlob(data), sum: fmt.Sprintf("%x", sha256.Sum256(data))}
	}
	h.server = httptest.NewServer(h)
	h.URL = h.server.URL
	return h
}

// Handle has another handler answer all requests.
func (h *Hub) Handle(f http.HandlerFunc) { h.server.Config.Handler = f }

// Close ends the Hub when its answers have ended.
func (h *Hub) Close() {
	h.server.CloseClientConnections()
	h.server.Close()
}

// Set changes how the Hub behaves.
func (h *Hub) Set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// Size is how many bytes all files have.
func (h *Hub) Size() (n int64) {
	for _, f := range h.Files {
		n += int64(len(f))
	}
	return n
}

// Sent is how many bytes of files were sent, and Answers in how many answers.
func (h *Hub) Sent() int64 { return h.body.Load() }

// Answers is how many answers had bytes of files.
func (h *Hub) Answers() int64 { return h.answers.Load() }

// Forget makes Sent zero.
func (h *Hub) Forget() { h.body.Store(0) }

// Once returns an error unless every byte of every file was sent exactly once.
func (h *Hub) Once() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if got, want := h.Sent(), h.Size(); got != want {
		return fmt.Errorf("upstream sent %d bytes of %d, %.3f x: %v", got, want, float64(got)/float64(want), h.Ranges)
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	down, resolve, gated := h.Down, h.Resolve, h.Gated
	h.Seen = append(h.Seen, r.Header.Clone())
	h.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	api := "/api/models/" + h.Repo + "/"
	switch path := r.URL.Path; {
	case path == api+"revision/main" || path == api+"revision/"+Commit:
		fmt.Fprintf(w, `{"id":%q,"sha":%q,"private":false,"gated":%v,"lastModified":"2026-01-02T03:04:05.000Z"}`, h.Repo, Commit, gated)
	case path == api+"tree/"+Commit:
		h.tree(w, r)
	case strings.HasPrefix(path, api+"revision/"):
		w.Header().Set("X-Error-Code", "RevisionNotFound")
		w.WriteHeader(http.StatusNotFound)
	case strings.HasPrefix(path, "/"+h.Repo+"/resolve/"+Commit+"/"):
		if resolve == nil || !resolve(w, r) {
			h.File(w, r, strings.TrimPrefix(path, "/"+h.Repo+"/resolve/"+Commit+"/"))
		}
	default:
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusNotFound)
	}
}

// tree answers in pages of two.
func (h *Hub) tree(w http.ResponseWriter, r *http.Request) {
	names := make([]string, 0, len(h.Files))
	for name := range h.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	var page []map[string]any
	for _, name := range names[from:min(from+2, len(names))] {
		page = append(page, h.describe(name))
	}
	if from+2 < len(names) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, r.URL.Path, from+2))
	}
	_ = json.NewEncoder(w).Encode(page) // the client may be gone
}

func (h *Hub) describe(name string) map[string]any {
	data, d := h.Files[name], h.digests[name]
	e := map[string]any{"type": "file", "path": name, "size": len(data), "oid": d.blob}
	if len(data) > 64<<10 {
		oid := d.sum
		h.mu.Lock()
		if l := h.Lie[name]; l != "" {
			oid = l
		}
		h.mu.Unlock()
		e["lfs"] = map[string]any{"oid": oid, "size": len(data), "pointerSize": 134}
	}
	return e
}

// gitBlob returns the id that git gives a file.
func gitBlob(data []byte) string {
	s := sha1.New()
	fmt.Fprintf(s, "blob %d\x00", len(data))
	s.Write(data)
	return hex.EncodeToString(s.Sum(nil))
}

// File sends a file or a range of it, and counts.
func (h *Hub) File(w http.ResponseWriter, r *http.Request, name string) {
	data, ok := h.Files[name]
	if !ok {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h.mu.Lock()
	noRanges := h.NoRanges
	h.mu.Unlock()
	from, to := int64(0), int64(len(data))
	w.Header().Set("ETag", `"`+h.digests[name].blob+`"`)
	if s := r.Header.Get("Range"); s != "" && !noRanges {
		if n, _ := fmt.Sscanf(s, "bytes=%d-%d", &from, &to); n != 2 || from < 0 || to < from || to >= int64(len(data)) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		to++
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
		w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	}
	h.answers.Add(1)
	h.mu.Lock()
	h.Ranges[name] = append(h.Ranges[name], [2]int64{from, to})
	h.mu.Unlock()
	sent := int64(0)
	for from < to {
		h.mu.Lock()
		slow, breakAt, down := h.Slow, h.BreakAt, h.Down
		h.mu.Unlock()
		n := min(to-from, 64<<10)
		if breakAt > 0 && sent+n > breakAt || down {
			panic(http.ErrAbortHandler)
		}
		h.body.Add(n) // before it is sent, so that nobody who has it finds it not counted
		if _, err := w.Write(data[from : from+n]); err != nil {
			return
		}
		sent += n
		if breakAt > 0 || slow > 0 {
			w.(http.Flusher).Flush()
		}
		pause(r.Context(), max(slow, h.turn(n)))
		from += n
	}
}

// turn returns how long to wait for the line to be free for n more bytes.
func (h *Hub) turn(n int64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Rate == 0 {
		return 0
	}
	now := time.Now()
	if h.free.Before(now.Add(-10 * time.Millisecond)) { // a line does not save up
		h.free = now.Add(-10 * time.Millisecond)
	}
	h.free = h.free.Add(time.Duration(n) * time.Second / time.Duration(h.Rate))
	return h.free.Sub(now)
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
