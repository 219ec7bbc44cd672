package gateway

import (
	"io"
	"maps"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// pieceSize is how much of a body is in memory at a time.
	pieceSize = 128 << 10
	// clientPatience is how long a client may take nothing of a piece.
	clientPatience = time.Minute
	// maxKept bounds the body of an answer that is kept.
	maxKept = 64 << 10
)

// writer is a [http.ResponseWriter] that sends the header with the first piece of the body, so that what fails before
// can still be answered as an error. If keep is set it sends nothing at all. It is used by one goroutine.
type writer struct {
	w       http.ResponseWriter
	q       *request
	buffers *sync.Pool
	keep    bool

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
	buf := w.buffers.Get().(*[]byte)
	defer w.buffers.Put(buf)
	for {
		n, err := io.ReadFull(r, *buf)
		if n > 0 {
			m, werr := w.Write((*buf)[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return total, nil
		default:
			w.err = err
			return total, err
		}
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
	if w.q.ask.r.URL.Query().Get("download") == "true" && !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
		h.Set("Content-Disposition", "attachment")
	}
}

// guardHeader keeps content, which anybody may have made, from acting as the host that it is served from: there are
// other doors.
func guardHeader(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || strings.HasSuffix(t, "html") || strings.HasSuffix(t, "xml") {
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
