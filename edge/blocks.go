package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
	"dray/unixfs"
)

const (
	aheadBytes  = 16 << 20
	shortRange  = 256 << 10
	aheadBlocks = 8 // blocks that are fetched before a reader asks for them, of one origin
	blockWait   = 30 * time.Second
)

// blockSource gets blocks by CID: from the cache, or from an origin, once for all who want one at the same time. What
// comes is verified before it is used. It is safe for concurrent use.
type blockSource struct {
	e *Edge
	g *group

	mu    sync.Mutex
	calls map[string]*blockCall // by multihash
	ahead int                   // calls that nobody has waited for yet
}

// blockCall is a block on its way. Its fields are guarded by blockSource.mu, until done is closed.
type blockCall struct {
	waiters int
	early   bool // nobody has waited for it yet
	cancel  context.CancelCauseFunc
	idle    *time.Timer
	done    chan struct{}
	block   dray.Block
	err     error
}

func newBlockSource(e *Edge, g *group) *blockSource {
	return &blockSource{e: e, g: g, calls: make(map[string]*blockCall)}
}

// get returns a block, and whether it was here.
func (b *blockSource) get(ctx context.Context, c cid.Cid) (_ dray.Block, here bool, err error) {
	if dray.IsIdentity(c) {
		m, err := multihash.Decode(c.Hash())
		if err != nil {
			return dray.Block{}, false, err
		}
		x, err := dray.NewBlock(c, m.Digest)
		return x, true, err
	}
	if err := dray.CheckCID(c); err != nil {
		return dray.Block{}, false, err
	}
	key := dray.HashKey(c)
	if x, ok := b.kept(key, c); ok {
		return x, true, nil
	}
	b.mu.Lock()
	call := b.calls[key]
	if call == nil && b.e.hoard.has(key) { // it came between the look and the lock
		b.mu.Unlock()
		if x, ok := b.kept(key, c); ok {
			return x, true, nil
		}
		b.mu.Lock()
		call = b.calls[key]
	}
	owner := call == nil || call.early
	if call == nil {
		call = b.begin(key, c)
	}
	if call.early {
		call.early = false
		b.ahead--
	}
	call.waiters++
	call.idle.Stop()
	b.mu.Unlock()
	b.e.count(func(s *Stats) {
		if owner {
			s.Misses++
		} else {
			s.Coalesced++
		}
	})
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if call.waiters--; call.waiters == 0 {
			call.idle.Reset(b.e.cfg.Grace)
		}
	}()
	select {
	case <-call.done:
	case <-ctx.Done():
		return dray.Block{}, false, context.Cause(ctx)
	}
	if call.err == nil && !call.block.CID().Equals(c) {
		x, err := dray.NewBlock(c, call.block.Data()) // the same bytes under another spelling of the CID
		return x, false, err
	}
	return call.block, false, call.err
}

// kept returns a block that is in the cache.
func (b *blockSource) kept(key string, c cid.Cid) (dray.Block, bool) {
	data := b.e.hoard.read(key)
	if data == nil {
		return dray.Block{}, false
	}
	x, err := dray.NewBlock(c, data)
	if err != nil {
		return dray.Block{}, false
	}
	b.e.count(func(s *Stats) { s.Hits++ })
	return x, true
}

// prefetch begins to get blocks that will be wanted soon.
func (b *blockSource) prefetch(list []cid.Cid) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range list {
		if b.ahead >= aheadBlocks {
			return
		}
		key := dray.HashKey(c)
		if b.calls[key] == nil && !b.e.hoard.has(key) && !dray.IsIdentity(c) && dray.CheckCID(c) == nil {
			b.begin(key, c)
		}
	}
}

// begin starts a call that nobody waits for yet. The caller holds mu.
func (b *blockSource) begin(key string, c cid.Cid) *blockCall {
	ctx, cancel := context.WithCancelCause(b.e.ctx)
	call := &blockCall{early: true, cancel: cancel, done: make(chan struct{})}
	b.ahead++
	b.calls[key] = call
	call.idle = time.AfterFunc(b.e.cfg.Grace, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if call.waiters == 0 {
			cancel(context.Canceled)
		}
	})
	b.e.mu.Lock()
	defer b.e.mu.Unlock()
	if !b.e.spawn(func() { b.run(ctx, key, c, call) }) {
		b.finish(key, call, dray.Block{}, dray.ErrClosed)
	}
	return call
}

// finish tells who waits. The caller holds mu.
func (b *blockSource) finish(key string, call *blockCall, x dray.Block, err error) {
	if call.early {
		call.early = false
		b.ahead--
	}
	delete(b.calls, key)
	call.block, call.err = x, err
	call.idle.Stop()
	call.cancel(context.Canceled)
	close(call.done)
}

func (b *blockSource) run(ctx context.Context, key string, c cid.Cid, call *blockCall) {
	x, err := b.fetch(ctx, c)
	if err == nil {
		b.e.hoard.put(key, x.Data(), true)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finish(key, call, x, err)
}

// fetch gets a block from the sources.
func (b *blockSource) fetch(ctx context.Context, c cid.Cid) (dray.Block, error) {
	select {
	case b.e.slots <- struct{}{}:
		defer func() { <-b.e.slots }()
	case <-ctx.Done():
		return dray.Block{}, context.Cause(ctx)
	}
	return tryEach(ctx, b.g, nil, func(ctx context.Context, v *server) (dray.Block, error) {
		x, err := v.block(ctx, b.e, c)
		if err != nil && ctx.Err() == nil {
			err = &dray.Error{Op: "get", CID: c, Err: fmt.Errorf("origin %s: %w", v.Name, err)}
		}
		return x, err
	})
}

// block asks one source for a block, and verifies it. The caller has the source's permit.
func (v *server) block(ctx context.Context, e *Edge, c cid.Cid) (dray.Block, error) {
	wait := v.Timeout
	if wait == 0 {
		wait = blockWait
	}
	within, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("%w after %v", dray.ErrTimeout, wait))
	defer cancel()
	start := time.Now()
	if v.Kind == Swarm {
		x, err := e.cfg.Swarm.Get(within, c)
		if err != nil && ctx.Err() != nil {
			v.leave()
			return x, context.Cause(ctx)
		}
		if err != nil && within.Err() != nil {
			err = context.Cause(within)
		}
		v.asked(time.Since(start), unless(err, dray.ErrNotFound))
		v.received(int64(x.Size()))
		e.count(func(s *Stats) { s.BytesFetched += int64(x.Size()) })
		return x, err
	}
	r, err := v.do(within, func(ctx context.Context, v *server) (*http.Request, error) {
		req, err := v.request(ctx, http.MethodGet, "ipfs/"+c.String(), "format=raw")
		if err == nil {
			req.Header.Set("Accept", "application/vnd.ipld.raw")
		}
		return req, err
	})
	if err != nil {
		return dray.Block{}, err
	}
	defer r.Body.Close()
	switch {
	case gone(r.StatusCode):
		return dray.Block{}, fmt.Errorf("%w: %s", dray.ErrNotFound, r.Request.URL.Redacted())
	case r.StatusCode != http.StatusOK:
		return dray.Block{}, &statusError{v, r.Request.URL.Redacted(), r.StatusCode}
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, dray.MaxBlockSize+1))
	v.received(int64(len(data)))
	e.count(func(s *Stats) { s.BytesFetched += int64(len(data)) })
	var x dray.Block
	switch {
	case err != nil:
	case len(data) > dray.MaxBlockSize:
		err = dray.ErrTooBig
	default:
		x, err = dray.NewBlock(c, data)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return x, context.Cause(ctx)
	case err != nil:
		v.broke(err)
	}
	return x, err
}

// unless returns err, or nil if it is of a kind that is no failure.
func unless(err, kind error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}

// blockReader gets blocks for one request.
type blockReader struct {
	b    *blockSource
	read int64 // bytes of content that were read
	away bool  // something was not here
}

// Get implements dray.Getter.
func (q *blockReader) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	x, here, err := q.b.get(ctx, c)
	q.away = q.away || !here
	return x, err
}

// forever is what clients are told about content whose name cannot mean anything else.
const forever = "public, max-age=31536000, immutable"

// serveCID answers with a file, or with format=raw a block, at CID/path or ipfs/CID/path.
func (e *Edge) serveCID(w http.ResponseWriter, r *http.Request, g *group, escaped string) {
	root, names, err := readPath(escaped)
	if err != nil {
		say(w, http.StatusBadRequest, "%v", err)
		return
	}
	if e.cfg.Guarded(root) {
		e.sayError(w, &dray.Error{Op: "get", CID: root, Err: dray.ErrNotFound})
		return
	}
	q := &blockReader{b: g.blocks}
	c, err := unixfs.ResolvePath(r.Context(), q, root, names)
	if err != nil {
		e.sayCIDError(w, r, err)
		return
	}
	if e.cfg.Guarded(c) {
		e.sayError(w, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound})
		return
	}
	h := w.Header()
	if r.URL.Query().Get("format") == "raw" || r.Header.Get("Accept") == "application/vnd.ipld.raw" {
		x, err := q.Get(r.Context(), c)
		if err != nil {
			e.sayCIDError(w, r, err)
			return
		}
		e.cidHeaders(h, q, c, "application/vnd.ipld.raw", ".raw")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(x.Data()))
		e.count(func(s *Stats) { s.BytesServed += int64(x.Size()) })
		return
	}
	cfg := unixfs.ReaderConfig{Ahead: g.blocks.prefetch, AheadBytes: aheadBytes}
	span, ranged := parseRange(r.Header.Get("Range"))
	if ranged && span.from >= 0 && span.last >= 0 {
		if cfg.AheadBytes = min(aheadBytes, span.last-span.from); cfg.AheadBytes < shortRange {
			cfg.Ahead = nil // what is beyond its first leaf is most likely not wanted
		}
	}
	f, err := unixfs.NewReader(r.Context(), q, c, cfg)
	if err != nil {
		e.sayCIDError(w, r, err)
		return
	}
	defer f.Close()
	from, to, ok := int64(0), f.Size(), true
	if ranged {
		from, to, ok = span.of(f.Size())
	}
	if ok && from < to && r.Method == http.MethodGet {
		// Its first byte is here before a status is promised.
		var one [1]byte
		if _, err = f.Seek(from, io.SeekStart); err == nil {
			_, err = io.ReadFull(f, one[:])
		}
		if err != nil {
			e.sayCIDError(w, r, err)
			return
		}
	}
	kind := ""
	if len(names) > 0 {
		kind = mime.TypeByExtension(path.Ext(names[len(names)-1]))
	}
	if kind == "" {
		kind = "application/octet-stream"
	}
	e.cidHeaders(h, q, c, kind, "")
	http.ServeContent(w, r, "", time.Time{}, &countedFile{f, q})
	e.count(func(s *Stats) { s.BytesServed += q.read })
}

func (e *Edge) cidHeaders(h http.Header, q *blockReader, c cid.Cid, kind, suffix string) {
	h.Set("Content-Type", kind)
	h.Set("ETag", `"`+c.String()+suffix+`"`)
	h.Set("Cache-Control", forever)
	h.Set("X-Cache", "hit")
	if q.away {
		h.Set("X-Cache", "miss")
	}
}

func (e *Edge) sayCIDError(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	if errors.Is(err, unixfs.ErrNotFile) {
		say(w, http.StatusNotFound, "%v; an edge serves files: name one below it", err)
		return
	}
	e.sayError(w, err)
}

// readPath reads CID/path or ipfs/CID/path, as it is in a URL.
func readPath(escaped string) (cid.Cid, []string, error) {
	plain, err := url.PathUnescape(strings.TrimPrefix(escaped, "ipfs/"))
	if err != nil {
		return cid.Undef, nil, err
	}
	root, names, err := unixfs.SplitPath(strings.TrimSuffix(plain, "/"))
	if err == nil {
		err = dray.CheckCID(root)
	}
	return root, names, err
}

// countedFile counts what is read of a file.
type countedFile struct {
	*unixfs.Reader
	q *blockReader
}

// Read implements io.Reader.
func (f *countedFile) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	f.q.read += int64(n)
	return n, err
}
