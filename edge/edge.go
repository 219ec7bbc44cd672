package edge

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"dray"
)

// Edge is a cache in front of origins. It is safe for concurrent use.
type Edge struct {
	cfg    Config
	hoard  *hoard
	groups map[string]*group
	slots  chan struct{} // one for each run that reads

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // runs, questions and whatever else works for several requests

	mu      sync.Mutex
	closed  bool
	objects map[string]*object
	recent  *list.List           // of *object, the most recently used first
	asked   map[string]*question // what is being asked of sources
	saving  *time.Timer          // runs while the table was changed and not written

	statsMu sync.Mutex
	stats   Stats
}

// New opens a cache. It asks nobody yet.
func New(cfg Config) (*Edge, error) {
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	e := &Edge{
		cfg: cfg, groups: make(map[string]*group), slots: make(chan struct{}, cfg.Runs),
		objects: make(map[string]*object), recent: list.New(), asked: make(map[string]*question),
	}
	for _, s := range cfg.Sources {
		v, err := newServer(s, &e.cfg)
		if err != nil {
			return nil, err
		}
		g := e.groups[s.Name]
		if g == nil {
			g = &group{name: s.Name}
			e.groups[s.Name] = g
		}
		if len(g.servers) > 0 && g.servers[0].byCID() != v.byCID() {
			return nil, fmt.Errorf("origin %s: sources that know names and sources that know CIDs have no content in common",
				s.Name)
		}
		g.servers = append(g.servers, v)
	}
	e.ctx, e.cancel = context.WithCancelCause(context.Background())
	for _, g := range e.groups {
		if g.servers[0].byCID() {
			g.blocks = newBlockSource(e, g)
		}
	}
	var err error
	if e.hoard, err = openHoard(filepath.Join(cfg.Dir, "leaves"), cfg.Size, cfg.Log); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	if err := e.load(); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	return e, nil
}

// Close ends what is being fetched, writes down what is here, and returns when nothing of the Edge runs any more.
func (e *Edge) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	if e.saving != nil {
		e.saving.Stop()
	}
	e.mu.Unlock()
	e.cancel(dray.ErrClosed)
	e.wg.Wait()
	err := e.save()
	for _, g := range e.groups {
		for _, v := range g.servers {
			if v.client != nil {
				v.client.CloseIdleConnections()
			}
		}
	}
	return err
}

// Names lists the origins.
func (e *Edge) Names() []string { return slices.Sorted(maps.Keys(e.groups)) }

// byCID reports whether a source knows content by its CID.
func (v *server) byCID() bool { return v.Kind == Gateway || v.Kind == Swarm }

// spawn runs f, unless the Edge is closed. The caller holds mu.
func (e *Edge) spawn(f func()) bool {
	if e.closed {
		return false
	}
	e.wg.Go(f)
	return true
}

// segmentSize returns how long a segment is, or may be.
func (e *Edge) segmentSize(o *object, seg int64) int64 {
	if o.meta.Size < 0 {
		return e.cfg.Segment
	}
	return min(e.cfg.Segment, o.meta.Size-seg*e.cfg.Segment)
}

// segments returns how many segments size bytes have.
func (e *Edge) segments(size int64) int64 { return (size + e.cfg.Segment - 1) / e.cfg.Segment }

// covered reports whether a segment need not be read by a run, because it is here, or another run has it.
func (e *Edge) covered(o *object, by *run, seg int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if o.meta.Size < 0 {
		return false // its end is to be found, and it cannot be asked for in part
	}
	for _, r := range o.runs {
		if r != by && r.from == seg {
			return true
		}
	}
	key, ok := o.leaves[seg]
	return ok && e.hoard.has(key)
}

// ends notes the size of an object that was not known.
func (e *Edge) ends(o *object, size int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o.size = size
	e.touched()
}

// insert puts a version in place of the one there was. The caller holds mu.
func (e *Edge) insert(o *object) {
	if old := e.objects[o.key]; old != nil {
		e.forget(old)
	}
	e.objects[o.key] = o
	o.place = e.recent.PushFront(o)
	for e.recent.Len() > e.cfg.Objects {
		e.forget(e.recent.Back().Value.(*object))
	}
	e.touched()
}

// forget drops a version and what is here of it. Runs go on for who reads from them. The caller holds mu.
func (e *Edge) forget(o *object) {
	if o.dropped {
		return
	}
	o.dropped = true
	if e.objects[o.key] == o {
		delete(e.objects, o.key)
	}
	e.recent.Remove(o.place)
	e.hoard.release(slices.Collect(maps.Values(o.leaves))...)
	e.touched()
}

// Invalidate forgets the objects whose name, an origin's name, a slash and a path, begins with prefix, and returns
// how many there were. Content that is known by its CID stays, because it cannot change. What is being asked of a
// source meanwhile is asked again.
func (e *Edge) Invalidate(prefix string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for key, o := range e.objects {
		if strings.HasPrefix(key, prefix) {
			e.forget(o)
			n++
		}
	}
	for key, q := range e.asked {
		if strings.HasPrefix(key, prefix) {
			q.outdated = true
		}
	}
	e.count(func(s *Stats) { s.Invalidated += int64(n) })
	return n
}

// question is what is being asked of sources about one object, for all who want to know.
type question struct {
	waiters  int  // guarded by Edge.mu
	outdated bool // what is asked was invalidated since; guarded by Edge.mu
	cancel   context.CancelCauseFunc
	handed   bool        // a run reads the answer, which lasts as long as that
	idle     *time.Timer // runs while nobody waits
	done     chan struct{}
	verdict  verdict // once done is closed
}

// verdict says what came of a question.
type verdict struct {
	o     *object
	stale bool // no source answers, and it is not fresh
	asked bool // a source was asked
	err   error
}

// find returns the object at a path, as fresh as it has to be. What is wanted of it comes with the answer if a source
// has to be asked anyway.
func (e *Edge) find(ctx context.Context, g *group, path, query string, w want) (verdict, error) {
	key := g.name + "/" + path
	if query != "" {
		key += "?" + query
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return verdict{}, dray.ErrClosed
	}
	o := e.objects[key]
	if o != nil && o.fresh(e.cfg.Now()) {
		e.recent.MoveToFront(o.place)
		e.mu.Unlock()
		return verdict{o: o}, nil
	}
	q := e.asked[key]
	if q == nil {
		qctx, cancel := context.WithCancelCause(e.ctx)
		q = &question{cancel: cancel, done: make(chan struct{})}
		q.idle = time.AfterFunc(e.cfg.Grace, func() { e.unwanted(q) })
		e.asked[key] = q
		fresh := &object{key: key, group: g, path: path, query: query, leaves: make(map[int64]string)}
		e.spawn(func() { e.question(qctx, q, o, fresh, w) })
	}
	q.waiters++
	q.idle.Stop()
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if q.waiters--; q.waiters == 0 && e.asked[key] == q {
			q.idle.Reset(e.cfg.Grace)
		}
	}()
	select {
	case <-q.done:
		return q.verdict, q.verdict.err
	case <-ctx.Done():
		return verdict{}, context.Cause(ctx)
	}
}

// unwanted ends a question that nobody waits for.
func (e *Edge) unwanted(q *question) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if q.waiters == 0 && !q.handed {
		q.cancel(context.Canceled)
	}
}

// question asks the sources, and tells everybody.
func (e *Edge) question(ctx context.Context, q *question, old, o *object, w want) {
	v := e.answer(ctx, q, old, o, w)
	v.asked = true
	e.mu.Lock()
	delete(e.asked, o.key)
	e.mu.Unlock()
	q.verdict = v
	q.idle.Stop()
	close(q.done)
	if !q.handed {
		q.cancel(context.Canceled)
	}
}

// answer finds out what a source has. Old is what is known so far, or nil, and o becomes what there is instead.
func (e *Edge) answer(ctx context.Context, q *question, old, o *object, w want) verdict {
	r, from, err := e.consult(ctx, old, o, w)
	if err != nil {
		var bad *statusError
		e.mu.Lock()
		defer e.mu.Unlock()
		switch {
		case errors.As(err, &bad) && gone(bad.status) && old != nil:
			e.forget(old)
		case errors.As(err, &bad) && !transient(bad.status):
		case old != nil && !old.dropped && ctx.Err() == nil && old.bearable(e.cfg.Now(), e.cfg.Stale):
			e.cfg.Log.Warn("an object is served although it is not fresh", "object", old.key, "error", err)
			return verdict{o: old, stale: true}
		}
		return verdict{err: err}
	}
	ttl := e.cfg.TTL
	if r.from.TTL != 0 {
		ttl = r.from.TTL
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	made := e.cfg.Now().Add(-age(r.Header))
	if r.StatusCode == http.StatusNotModified {
		_ = r.Body.Close()
		e.count(func(s *Stats) { s.Revalidated++ })
		if old.dropped {
			return verdict{err: errChanged} // it was invalidated meanwhile; whoever asks again gets a whole answer
		}
		old.made = made
		if l := leaseOf(r.Header, ttl); len(r.Header.Values("Cache-Control"))+len(r.Header.Values("Expires")) > 0 {
			old.lease = l
		}
		e.recent.MoveToFront(old.place)
		e.touched()
		return verdict{o: old}
	}
	o.server, o.size, o.made, o.lease = r.from, o.meta.Size, made, leaseOf(r.Header, ttl)
	o.pass = !o.lease.Keep
	if q.outdated {
		o.lease.Fresh = 0
	}
	if o.pass {
		_ = r.Body.Close()
		o.lease.Fresh = passFor
		o.made = e.cfg.Now()
		e.insert(o)
		return verdict{o: o}
	}
	e.insert(o)
	if w.head || o.size == 0 {
		_ = r.Body.Close()
		return verdict{o: o}
	}
	q.handed = e.read(o, q, &r, from, w)
	return verdict{o: o}
}

// passFor is how long it is remembered that an object must not be stored, so that it is not asked for twice every time.
const passFor = time.Minute

func gone(status int) bool { return status == http.StatusNotFound || status == http.StatusGone }

// consult asks sources, fills in o.meta and returns an answer that is content, or 304, and where its body begins.
func (e *Edge) consult(ctx context.Context, old, o *object, w want) (r reply, from int64, err error) {
	var known *meta
	if old != nil && !old.pass {
		known = &old.meta
	}
	if w.head {
		r, err = o.group.head(ctx, o.path, o.query, known)
		if err == nil && (r.StatusCode == http.StatusMethodNotAllowed || r.StatusCode == http.StatusNotImplemented) {
			_ = r.Body.Close()
			r, err = o.group.open(ctx, nil, o.path, o.query, 0, e.cfg.Segment, known)
		}
	} else {
		from, to := w.first*e.cfg.Segment, int64(-1)
		if w.last >= 0 {
			to = (w.last + 1) * e.cfg.Segment
		}
		r, err = o.group.open(ctx, nil, o.path, o.query, from, to, known)
		if err == nil && r.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			// The client may be told the size, if it can be found out.
			_ = r.Body.Close()
			r, err = o.group.head(ctx, o.path, o.query, known)
		}
	}
	if err != nil {
		return r, 0, err
	}
	switch r.StatusCode {
	case http.StatusNotModified:
		if known != nil {
			return r, 0, nil
		}
	case http.StatusOK, http.StatusPartialContent:
		o.meta, from, err = metaOf(r.Response)
		if err == nil && from%e.cfg.Segment != 0 {
			err = fmt.Errorf("%w: it begins at byte %d, which was not asked for", errAnswer, from)
		}
		if err != nil {
			_ = r.Body.Close()
			err = fmt.Errorf("origin %s: %w", r.from.Name, err)
			r.from.broke(err)
			return r, 0, err
		}
		return r, from, nil
	}
	_ = r.Body.Close()
	return r, 0, &statusError{r.from, r.Request.URL.Redacted(), r.StatusCode}
}

// read begins to read the body of a first answer, and reports whether somebody reads it. The caller holds mu.
func (e *Edge) read(o *object, q *question, r *reply, from int64, w want) bool {
	first, end := from/e.cfg.Segment, int64(-1)
	if o.meta.Size >= 0 {
		end = e.segments(o.meta.Size)
		if r.StatusCode == http.StatusPartialContent && w.last >= 0 {
			end = min(end, w.last+1)
		}
	}
	if r.Request.Method == http.MethodHead || end >= 0 && first >= end {
		_ = r.Body.Close()
		return false
	}
	x := e.newRun(o, first, end)
	x.whole = r.StatusCode == http.StatusOK && w.first > 0 || o.meta.Size < 0 || !o.meta.Firm
	// The answer lives in the question's context, and is the run's from here on.
	context.AfterFunc(x.ctx, func() { q.cancel(context.Cause(x.ctx)) })
	if !e.spawn(func() { x.loop(r) }) {
		_ = r.Body.Close()
		x.cancel(dray.ErrClosed)
	}
	return true
}
