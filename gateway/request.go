package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	gw "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/unixfs"
)

const (
	// watchEvery is how often it is looked whether a request that waits advances.
	watchEvery = 500 * time.Millisecond
	// hopelessAfter is how long it must look hopeless before it is.
	hopelessAfter = 3 * time.Second
	// slowFactor is how many times the timeout a block may take that comes slowly.
	slowFactor = 4
)

// request is what is done for one HTTP request. It finds blocks: those that are public and local, and others from a
// Fetch that begins when the first is missing.
type request struct {
	g      *Gateway
	ask    ask
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // the watch

	// Owned by the handler's goroutine.
	body  io.ReadSeeker // what is to be sent, if it is a file or a block
	file  cid.Cid       // of which file
	way   []cid.Cid     // the blocks that were read to find it
	guess bool          // the type of the body could not be found out
	// beforeWait, if set, is called before the request waits for others.
	beforeWait func()

	mu      sync.Mutex
	fetch   Fetch // nil until something is missing
	waiting int   // calls of fetch.Get
	since   time.Time
	closed  bool
	broke   error // why a stream broke off
}

type requestKey struct{}

func newRequest(ctx context.Context, g *Gateway, a ask) *request {
	q := &request{g: g, ask: a}
	ctx, q.cancel = context.WithCancelCause(ctx)
	q.ctx = context.WithValue(ctx, requestKey{}, q)
	return q
}

// requestOf returns the request that a context belongs to.
func requestOf(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

// close ends everything that is done for the request.
func (q *request) close() {
	q.cancel(dray.ErrClosed)
	q.wg.Wait()
	q.mu.Lock()
	f := q.fetch
	q.fetch, q.closed = nil, true
	q.mu.Unlock()
	if f != nil {
		if err := f.Close(); err != nil {
			q.g.cfg.Log.Debug("closing a fetch", "err", err)
		}
	}
}

// getter returns the request as a Getter that can do what Local can.
func (q *request) getter() dray.Getter {
	if q.g.parts == nil {
		return q
	}
	return partsOf{q}
}

// partsOf is a request over a store that reads parts.
type partsOf struct{ *request }

// GetPart implements [dray.PartGetter].
func (q partsOf) GetPart(ctx context.Context, c cid.Cid, p []byte, offset int64) (n int, size int64, err error) {
	if !q.g.cfg.Public(c) {
		return 0, 0, dray.ErrNotFound
	}
	return q.g.parts.GetPart(ctx, c, p, offset)
}

// Get implements [dray.Getter]. Of a block that is not public it takes the same way as of one that nobody has.
func (q *request) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	if err := dray.CheckCID(c); err != nil {
		return dray.Block{}, err
	}
	if dray.IsIdentity(c) {
		d, err := mh.Decode(c.Hash())
		if err != nil {
			return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: fmt.Errorf("%w: %w", dray.ErrBadCID, err)}
		}
		return dray.NewBlock(c, d.Digest)
	}
	public := q.g.cfg.Public(c)
	if public {
		b, err := q.g.cfg.Local.Get(ctx, c)
		if err == nil || !missing(err) {
			return b, err
		}
	}
	f := q.begin()
	if f == nil {
		return dray.Block{}, &absent{cid: c, cached: q.ask.cached}
	}
	wanted := c
	if !public {
		wanted = decoy(c)
	}
	if q.beforeWait != nil {
		q.beforeWait()
	}
	q.wait(1)
	b, err := f.Get(ctx, wanted)
	q.wait(-1)
	switch {
	case err == nil && wanted == c && q.g.cfg.Public(c):
		return b, nil
	case err == nil:
		return b, &absent{cid: c} // it became private on its way
	}
	var told *absent
	if errors.As(context.Cause(ctx), &told) {
		return b, &absent{cid: c, why: told.why}
	}
	if late := (*stalled)(nil); errors.As(context.Cause(ctx), &late) {
		return b, late
	}
	if missing(err) {
		err = &absent{cid: c}
	}
	return b, err
}

// breakOff notes why a stream that boxo writes is not whole.
func (q *request) breakOff(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.broke == nil {
		q.broke = err
	}
}

// broken returns why a stream is not whole, or nil.
func (q *request) broken() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.broke
}

// ahead says what is likely to be needed next.
func (q *request) ahead(cids []cid.Cid) {
	f := q.begin()
	if f == nil {
		return
	}
	var open []cid.Cid
	for _, c := range cids {
		if q.g.cfg.Public(c) {
			open = append(open, c)
		}
	}
	f.Ahead(open)
}

// missing reports whether others may have a block though this host has it not, or not any more.
func missing(err error) bool {
	return errors.Is(err, dray.ErrNotFound) || errors.Is(err, dray.ErrChanged) || errors.Is(err, dray.ErrCorrupt)
}

// decoy returns a CID that nobody has, and that looks like c: who asks for something private waits as long as for
// nothing.
func decoy(c cid.Cid) cid.Cid {
	var digest [32]byte
	_, _ = rand.Read(digest[:]) // it never fails
	d, err := dray.CIDFromDigest(cid.Prefix{Version: 1, Codec: c.Type(), MhType: mh.SHA2_256, MhLength: 32}, digest[:])
	if err != nil {
		panic(err)
	}
	return d
}

// begin returns the Fetch, or nil when there is none.
func (q *request) begin() Fetch {
	if q.g.cfg.Fetch == nil || q.ask.cached || !q.ask.root.Defined() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fetch == nil && !q.closed {
		root := q.ask.root
		if !q.g.cfg.Public(root) {
			root = decoy(root)
		}
		f := q.g.cfg.Fetch(q.ctx, root)
		if f == nil {
			return nil
		}
		q.fetch = f
		q.wg.Go(func() { q.watch(f) })
	}
	return q.fetch
}

// wait notes that one call more, or one fewer, waits for others.
func (q *request) wait(by int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == 0 {
		q.since = time.Now()
	}
	q.waiting += by
}

// waits returns since when somebody has waited, or the zero time.
func (q *request) waits() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == 0 {
		return time.Time{}
	}
	return q.since
}

// watch ends a request that does not advance.
func (q *request) watch(f Fetch) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var (
		arrived         int64
		moved, hopeless time.Time
	)
	for {
		select {
		case <-q.ctx.Done():
			return
		case <-t.C:
		}
		since := q.waits()
		if since.IsZero() {
			hopeless = time.Time{}
			continue
		}
		now, p := time.Now(), f.Progress()
		if p.Arrived != arrived {
			arrived, moved = p.Arrived, now
		}
		if since.Before(moved) {
			since = moved
		}
		switch {
		case !p.Hopeless:
			hopeless = time.Time{}
		case p.Sure:
			q.cancel(&absent{why: f.Waits()})
			return
		case hopeless.IsZero():
			hopeless = now
		case now.Sub(hopeless) >= hopelessAfter:
			q.cancel(&absent{why: f.Waits()})
			return
		}
		if idle := now.Sub(since); idle >= q.g.cfg.Timeout && (!p.Slow || idle >= slowFactor*q.g.cfg.Timeout) {
			q.cancel(&stalled{idle: idle, why: f.Waits()})
			return
		}
	}
}

// here reports whether the request can be begun from what is local: what the path names is.
func (q *request) here() bool {
	if !q.ask.root.Defined() {
		return true // boxo says what is wrong
	}
	p, err := q.follow(q.ctx, q.ask.root, q.ask.names)
	if err != nil {
		return isNoLink(err) // that is an answer
	}
	if _, err := q.Get(q.ctx, p.last); err != nil {
		return false
	}
	return true
}

// absent is the error for a block that is neither here nor to be had. It tells nothing of whether it is private.
type absent struct {
	cid    cid.Cid
	why    string // who said so
	cached bool   // only what is local was asked for
}

func (a *absent) Error() string {
	s := fmt.Sprintf("%v is not here", a.cid)
	if a.why != "" {
		s += ", and cannot be had: " + a.why
	}
	return s
}

func (a *absent) Unwrap() error { return dray.ErrNotFound }

// stalled is the error of a request that waited too long.
type stalled struct {
	idle time.Duration
	why  string
}

func (s *stalled) Error() string {
	text := fmt.Sprintf("nothing has arrived for %v", s.idle.Round(time.Second))
	if s.why != "" {
		text += ": " + s.why
	}
	return text + "; try again later"
}

func (s *stalled) Unwrap() error { return dray.ErrTimeout }

// toBoxo gives an error the status that it means, in boxo's terms.
func toBoxo(err error) error {
	code := 0
	var a *absent
	switch {
	case err == nil || isNoLink(err):
		return err // boxo knows
	case errors.As(err, &a) && a.cached:
		code = http.StatusPreconditionFailed
	case errors.Is(err, dray.ErrTimeout):
		return gw.NewErrorRetryAfter(gw.NewErrorStatusCode(err, http.StatusGatewayTimeout), retryAfter)
	case errors.Is(err, dray.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, dray.ErrBadCID):
		code = http.StatusBadRequest
	case errors.Is(err, unixfs.ErrInvalid), errors.Is(err, unixfs.ErrTooLarge), errors.Is(err, unixfs.ErrNotUnixFS),
		errors.Is(err, unixfs.ErrCodec), errors.Is(err, unixfs.ErrNotFile):
		code = http.StatusUnprocessableEntity
	case errors.Is(err, dray.ErrNoSpace):
		code = http.StatusInsufficientStorage
	case errors.Is(err, dray.ErrClosed):
		code = http.StatusServiceUnavailable
	default:
		return err
	}
	return gw.NewErrorStatusCode(err, code)
}
