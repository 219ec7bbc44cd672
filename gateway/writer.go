package gateway

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// pieceSize is how much of a body is in memory at a time, and largePiece how much it is while no more than fewRequests are
	// served: larger pieces are faster, and a thousand requests must not take half a gigabyte.
	pieceSize   = 128 << 10
	largePiece  = 512 << 10
	fewRequests = 64
	// clientPatience is how long a client may take nothing of a piece.
	clientPatience = time.Minute
	// maxKept bounds the body of an answer that is kept.
	maxKept = 64 << 10
)

// writer is a [http.ResponseWriter] that sends the header with the first piece of the body, so that what fails before
// can still be answered as an error. If keep is set it sends nothing at all. It is used by one goroutine.
type writer struct {
	w    http.ResponseWriter
	q    *request
	keep bool

	header http.Header // not sent yet
	code   int         // 0: nobody said
	kept   []byte
	sent   bool  // the header is
	body   int64 // bytes sent
	err    error // why the body cannot be made
}

// Header implements [http.ResponseWriter].
func (w *writer) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// WriteHeader implements [http.ResponseWriter].
func (w *writer) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
}

// Write implements [io.Writer].
func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.keep {
		w.kept = append(w.kept, p[:min(len(p), maxKept-len(w.kept))]...)
		return len(p), nil
	}
	if w.q.ask.r.Method == http.MethodHead && w.code < http.StatusBadRequest {
		return 0, http.ErrBodyNotAllowed // so that whoever makes the body stops
	}
	w.send()
	_ = http.NewResponseController(w.w).SetWriteDeadline(time.Now().Add(clientPatience)) // where there is one
	n, err := w.w.Write(p)
	w.body += int64(n)
	return n, err
}

// ReadFrom implements [io.ReaderFrom] with pieces from the pool.
func (w *writer) ReadFrom(r io.Reader) (total int64, err error) {
	w.WriteHeader(http.StatusOK)
	if w.keep || w.q.ask.r.Method == http.MethodHead {
		return 0, http.ErrBodyNotAllowed
	}
	lr, ok := r.(*io.LimitedReader)
	own := ok && lr.R == w.q.body // not read by somebody else, who has a goroutine for it
	total, err = w.q.copyPieces(w, r, own)
	if err != nil && w.err == nil && !errors.Is(err, errClient) {
		w.err = err
	}
	return total, err
}

// errClient means that the client takes no more.
var errClient = errors.New("the client takes no more")

// copyPieces copies r to w in pieces. What has been read goes out before the request waits for others, if r is read on this
// goroutine (own). An error of w wraps errClient.
func (q *request) copyPieces(w io.Writer, r io.Reader, own bool) (total int64, err error) {
	pool := &q.g.bufs
	if len(q.g.slots) <= fewRequests {
		pool = &q.g.large
	}
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	piece := *buf
	from, to := 0, 0 // what is read and not written
	write := func() error {
		n, err := w.Write(piece[from:to])
		total += int64(n)
		from = to
		if err != nil {
			return fmt.Errorf("%w: %w", errClient, err)
		}
		return nil
	}
	var late error // of writing while waiting
	if own {
		q.beforeWait = func() {
			if from == to || late != nil {
				return
			}
			if late = write(); late == nil {
				if f, ok := w.(http.Flusher); ok {
					f.Flush()
				}
			}
		}
		defer func() { q.beforeWait = nil }()
	}
	for {
		if from == to {
			from, to = 0, 0
		}
		n, err := r.Read(piece[to:])
		if late != nil {
			return total, late
		}
		to += n
		if to == len(piece) || err != nil || !own {
			if from < to {
				if werr := write(); werr != nil {
					return total, werr
				}
			}
		}
		if err == io.EOF { // and nothing that wraps it, which is of what is read from
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Flush implements [http.Flusher].
func (w *writer) Flush() {
	if w.sent {
		_ = http.NewResponseController(w.w).Flush() // where it can
	}
}

// send sends the header.
func (w *writer) send() {
	if w.sent {
		return
	}
	w.sent = true
	w.complete()
	maps.Copy(w.w.Header(), w.header)
	w.w.WriteHeader(w.code)
}

// complete adds what every answer of the gateway says.
func (w *writer) complete() {
	h := w.Header()
	guardHeader(h)
	// Path gateway, "download": an answer to download=true is an attachment, with or without a name.
	if w.q.ask.download && !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
		h.Set("Content-Disposition", "attachment")
	}
}

// guardHeader keeps content, which anybody may have made, from acting as the host that it is served from: there are
// other doors.
func guardHeader(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	if t = strings.TrimSpace(t); t == "" || strings.HasSuffix(t, "html") || strings.HasSuffix(t, "xml") {
		h.Set("Content-Security-Policy", "sandbox allow-downloads allow-popups")
	}
	h.Set("Referrer-Policy", "same-origin") // what is linked to learns no CID
}

// finish sends what has not been sent. If the body broke off it answers with the error, or when it is too late for that
// cuts the connection.
func (w *writer) finish() {
	if err := w.q.broken(); err != nil {
		w.err = err
	}
	whole := w.err == nil || w.code >= http.StatusBadRequest // then it was told already
	if n, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64); err == nil && w.sent {
		whole = whole && (w.body == n || w.q.ask.r.Method == http.MethodHead)
	}
	switch {
	case whole:
		w.WriteHeader(http.StatusOK)
		w.send()
	case w.sent:
		panic(http.ErrAbortHandler)
	default:
		w.fail()
	}
}

// fail answers with why the body cannot be made.
func (w *writer) fail() {
	code, retry := statusOf(w.err)
	if code == http.StatusInternalServerError {
		w.q.g.cfg.Log.Warn("cannot serve", "root", w.q.ask.root, "err", w.err)
	}
	if retry != "" {
		w.w.Header().Set("Retry-After", retry)
	}
	w.sent = true
	refuse(w.w, code, w.err.Error())
}
