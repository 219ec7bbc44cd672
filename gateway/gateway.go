package gateway

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	gw "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus"

	"dray"
)

// Config says what a Gateway serves. Only Local is required.
type Config struct {
	// Local finds blocks on this machine; it is best also a [dray.PartGetter].
	Local dray.Getter
	// Public reports whether everybody may have a block. If nil, everybody may have every block.
	Public func(cid.Cid) bool
	// Fetch begins to fetch, for one request, whose context it is given, blocks under a root that are not local. If it is nil, or
	// returns nil because there is nobody to ask, only local content is served.
	Fetch func(ctx context.Context, root cid.Cid) Fetch
	// Used is told of each root that is asked for and public. If nil, nobody is.
	Used func(ctx context.Context, root cid.Cid)
	// Timeout is how long a request may wait for others without anything arriving. If zero, 30 s.
	Timeout time.Duration
	// Requests is how many are served at a time; more are refused with 429. If zero, 4096.
	Requests int
	// Trustless refuses everything but blocks and CARs, which clients verify.
	Trustless bool
	// Log receives what an operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

// Fetch fetches what is not local for one request. Its methods may be called concurrently, but for Close, which is
// last.
type Fetch interface {
	// Get returns a block, from others if need be, and leaves it where Config.Local finds it. It waits for as long as ctx
	// allows.
	dray.Getter
	// Ahead says which blocks are likely to be needed next, nearest first. It must not wait.
	Ahead(cids []cid.Cid)
	// Progress tells how it goes.
	Progress() Progress
	// Waits says in a line for people whom or what it waits for; "" when it does not know.
	Waits() string
	// Close withdraws what is still asked for.
	Close() error
}

// Progress is how a [Fetch] goes.
type Progress struct {
	// Arrived grows while something arrives.
	Arrived int64
	// Slow says that bytes come, though no whole block has for a while.
	Slow bool
	// Hopeless says that as things are nobody has it: all who are there say so, and nobody is being sought.
	Hopeless bool
	// Sure says, of what is hopeless, that also all who might know of somebody who has it were asked, and have answered. Then there
	// is no point in waiting for it to change.
	Sure bool
}

const (
	defaultTimeout  = 30 * time.Second
	defaultRequests = 4096
	// longest is how long boxo lets a request take in all. The Timeout ends those that do not advance; one that does may
	// go on.
	longest = 30 * 24 * time.Hour
	// retryAfter is when a client that was refused may try again.
	retryAfter = 30 * time.Second
)

// Gateway is an [http.Handler] for paths that begin with /ipfs/. It is safe for concurrent use.
type Gateway struct {
	cfg   Config
	parts dray.PartGetter // Local, if it can
	boxo  http.Handler
	slots chan struct{} // one for each request that is served
	known knownCache
	nodes nodeCache
	bufs  sync.Pool // of *[]byte, pieceSize long
	large sync.Pool // of *[]byte, largePiece long, while few requests are served
}

// New returns a Gateway.
func New(cfg Config) (*Gateway, error) {
	if cfg.Public == nil {
		cfg.Public = func(cid.Cid) bool { return true }
	}
	if cfg.Used == nil {
		cfg.Used = func(context.Context, cid.Cid) {}
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Requests <= 0 {
		cfg.Requests = defaultRequests
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, slots: make(chan struct{}, cfg.Requests)}
	g.parts, _ = cfg.Local.(dray.PartGetter)
	g.bufs.New = func() any { b := make([]byte, pieceSize); return &b }
	g.large.New = func() any { b := make([]byte, largePiece); return &b }
	b, err := newBackend(g)
	if err != nil {
		return nil, err
	}
	g.boxo = gw.NewHandler(gw.Config{
		DeserializedResponses: !cfg.Trustless,
		NoDNSLink:             true,
		DisableHTMLErrors:     true,
		MaxRequestDuration:    longest,
		MetricsRegistry:       prometheus.NewRegistry(), // its own: package meter has the numbers that matter
	}, b)
	return g, nil
}

// ServeHTTP implements [http.Handler].
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	default:
		w.Header().Set("Retry-After", seconds(retryAfter))
		refuse(w, http.StatusTooManyRequests, "the gateway serves "+strconv.Itoa(g.cfg.Requests)+
			" requests already; try again later")
		return
	}
	a, code, why := readAsk(r)
	if code != 0 {
		refuse(w, code, why)
		return
	}
	q := newRequest(r.Context(), g, a)
	defer q.close()
	if a.root.Defined() && g.cfg.Public(a.root) {
		g.cfg.Used(r.Context(), a.root)
	}
	out := &writer{w: w, q: q}
	if a.cached && !q.here() {
		w.WriteHeader(http.StatusPreconditionFailed) // path gateway, "only-if-cached": without payload or headers
		return
	}
	g.serve(out, q)
	out.finish()
}

// serve answers a request.
func (g *Gateway) serve(out *writer, q *request) {
	method := q.ask.r.Method
	if method != http.MethodGet || q.ask.stream() {
		g.boxo.ServeHTTP(out, q.ask.forBoxo(q.ctx, method))
		return
	}
	if g.again(out, q) {
		return
	}
	// The header alone first: what a file or a block is sent with does not depend on which part of it is sent.
	first := &writer{w: out.w, q: q, keep: true}
	g.boxo.ServeHTTP(first, q.ask.forBoxo(q.ctx, http.MethodHead))
	first.WriteHeader(http.StatusOK) // unless it said otherwise
	switch {
	case first.code == http.StatusOK && q.body == nil: // a listing, a symlink: boxo makes it
		out.header = nil
		g.boxo.ServeHTTP(out, q.ask.forBoxo(q.ctx, http.MethodGet))
	case first.code == http.StatusOK:
		out.header = first.header
		out.Header().Del("Content-Length") // of the whole
		if q.guess {
			out.Header().Set("Content-Type", anyType)
		} else if q.ask.plain() {
			g.known.put(q.ask.r.URL.Path, known{q.file, q.way, maps.Clone(out.header)})
		}
		http.ServeContent(out, q.ask.forContent(), "", time.Time{}, q.body)
	default:
		out.header, out.code = first.header, first.code
		_, _ = out.Write(first.kept)
	}
}

// refuse answers with an error that is no secret to anybody.
func refuse(w http.ResponseWriter, code int, why string) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	guardHeader(h)
	http.Error(w, why, code)
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
