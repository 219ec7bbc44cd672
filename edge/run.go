package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

const (
	runAhead = 2 // segments that a run may be ahead of its fastest reader
	runKeeps = 2 // segments before the current one that it still has in memory
	// joinWithin is how many bytes ahead of a run a reader waits for it instead of asking for its own. A run that comes
	// to what another one has fetched breaks its answer off, and what was under way of it, some megabytes with a fast
	// origin, is wasted.
	joinWithin = 4 << 20
)

// errPassed means that a run has nothing more for a reader, who looks into the cache again.
var errPassed = errors.New("the run has passed")

// run is one answer that is being read, over segments from from up to before end.
type run struct {
	e      *Edge
	o      *object
	from   int64
	end    int64 // -1 while the object's size is unknown
	whole  bool  // its source sends everything from the start, so readers of later segments wait for it
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	next    int64           // the segment that is being read, or is next
	parts   map[int64]*part // from a few before next on
	readers map[*reader]int64
	owner   *reader       // who read first: what is fetched is because of it
	changed chan struct{} // closed when something of this changes, and made anew
	ended   bool          // next does not change any more
	err     error         // why it ended early, else nil
	idle    *time.Timer   // runs while there are no readers
}

// part is a segment in memory. Bytes before n do not change any more. It is guarded by run.mu.
type part struct {
	data []byte
	n    int
	done bool // it is whole, and the cache was offered it
}

// newRun makes a run and lets it wait for readers. The caller holds Edge.mu, and starts loop.
func (e *Edge) newRun(o *object, from, end int64) *run {
	r := &run{
		e: e, o: o, from: from, end: end, next: from,
		parts: make(map[int64]*part), readers: make(map[*reader]int64), changed: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancelCause(e.ctx)
	r.idle = time.AfterFunc(e.cfg.Grace, r.abandon)
	o.runs = append(o.runs, r)
	return r
}

// tell wakes who waits. The caller holds mu.
func (r *run) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// join adds a reader who wants seg, unless the run is over or has passed it.
func (r *run) join(rd *reader, seg int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.parts[seg] == nil && seg < r.next || r.end >= 0 && seg >= r.end {
		return false
	}
	if !r.whole && (seg-r.next)*r.e.cfg.Segment > joinWithin {
		return false
	}
	r.idle.Stop()
	r.readers[rd] = seg
	if r.owner == nil {
		r.owner = rd
	}
	r.tell()
	return true
}

// ownedBy reports whether what the run fetches is fetched because of a reader.
func (r *run) ownedBy(rd *reader) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner == rd
}

// has reports whether a segment, or the beginning of one, is in memory.
func (r *run) has(seg int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parts[seg] != nil
}

// advance says that a reader has come to seg.
func (r *run) advance(rd *reader, seg int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, on := r.readers[rd]; on {
		r.readers[rd] = seg
		r.tell()
	}
}

// leave removes a reader. The last one leaves the run to whoever comes within the grace.
func (r *run) leave(rd *reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, on := r.readers[rd]; !on {
		return
	}
	delete(r.readers, rd)
	if len(r.readers) == 0 && !r.ended {
		r.idle.Reset(r.e.cfg.Grace)
	}
}

// abandon ends the run if nobody reads.
func (r *run) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.readers) == 0 && !r.ended {
		r.stop(errPassed)
		r.cancel(context.Canceled)
	}
}

// stop makes the run over. The caller holds mu.
func (r *run) stop(err error) {
	if !r.ended {
		r.ended, r.err = true, err
		r.idle.Stop()
		r.tell()
	}
}

// mayBegin waits until somebody is near enough to seg.
func (r *run) mayBegin(seg int64) error {
	for {
		r.mu.Lock()
		near := false
		for _, at := range r.readers {
			near = near || seg <= at+runAhead
		}
		changed, ended := r.changed, r.ended
		r.mu.Unlock()
		switch {
		case ended:
			return errPassed
		case near:
			return nil
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
}

// wait returns the part of seg when it has more than off bytes, or is whole. It returns errPassed if it will not come
// from this run, io.EOF if there is no such segment, and else why it cannot come.
func (r *run) wait(ctx context.Context, seg int64, off int) (p *part, n int, done bool, err error) {
	for {
		r.mu.Lock()
		p = r.parts[seg]
		if p != nil && (p.n > off || p.done) {
			n, done = p.n, p.done
			r.mu.Unlock()
			return p, n, done, nil
		}
		ended, why, changed := r.ended, r.err, r.changed
		passed := p == nil && seg < r.next
		r.mu.Unlock()
		switch {
		case passed, ended && why == nil:
			return nil, 0, false, errPassed
		case ended:
			return nil, 0, false, why
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, false, context.Cause(ctx)
		}
	}
}

// progress returns how much of a part there is, waiting until it is more than off, also when the run has let go of it.
func (r *run) progress(ctx context.Context, p *part, off int) (n int, done bool, err error) {
	for {
		r.mu.Lock()
		n, done = p.n, p.done
		ended, why, changed := r.ended, r.err, r.changed
		r.mu.Unlock()
		switch {
		case n > off || done:
			return n, done, nil
		case ended && why != nil:
			return 0, false, why
		case ended:
			return 0, false, errPassed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false, context.Cause(ctx)
		}
	}
}

// loop reads the answer. First, if not nil, is one that is open already, whose body begins at the run's first byte.
func (r *run) loop(first *reply) {
	err := r.read(first)
	e := r.e
	e.mu.Lock()
	r.o.runs = slices.DeleteFunc(r.o.runs, func(x *run) bool { return x == r })
	if errors.Is(err, errChanged) || err != nil && r.o.size < 0 {
		e.forget(r.o) // what is here of it does not fit to what comes next
	}
	e.mu.Unlock()
	r.mu.Lock()
	r.stop(err)
	r.mu.Unlock()
	r.cancel(context.Canceled)
}

func (r *run) read(first *reply) (err error) {
	e, o := r.e, r.o
	in := &answer{r: r, at: r.from * e.cfg.Segment}
	defer func() { in.close() }()
	if first != nil {
		in.use(*first)
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	for seg := r.from; r.end < 0 || seg < r.end; seg++ {
		if seg > r.from && e.covered(o, r, seg) {
			return nil
		}
		if err := r.mayBegin(seg); err != nil {
			return err
		}
		p := &part{data: make([]byte, e.segmentSize(o, seg))}
		r.mu.Lock()
		r.parts[seg] = p
		r.mu.Unlock()
		end, err := r.fill(in, p)
		if err != nil {
			return err
		}
		if err := in.checkEnd(seg, end); err != nil {
			return err
		}
		if p.n > 0 || seg == 0 {
			e.keep(o, seg, p.data[:p.n])
		}
		r.mu.Lock()
		p.done = true
		r.next = seg + 1
		delete(r.parts, seg-runKeeps)
		r.tell()
		r.mu.Unlock()
		if end {
			e.ends(o, seg*e.cfg.Segment+int64(p.n))
			return nil
		}
	}
	return nil
}

// fill reads a segment, and reports whether the object, whose size was not known, ends there.
func (r *run) fill(in *answer, p *part) (end bool, err error) {
	for p.n < len(p.data) {
		n, err := in.read(p.data[p.n:])
		if n > 0 {
			r.mu.Lock()
			p.n += n
			r.tell()
			r.mu.Unlock()
		}
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, err
		}
	}
	return false, nil
}

// answer is the body that a run reads, and what it takes to go on with another one when that breaks off. It is used
// by the run's goroutine only.
type answer struct {
	r      *run
	at     int64 // the offset of the next byte
	from   *server
	body   io.ReadCloser
	broken int       // answers that broke off since a byte came
	since  time.Time // when the first of them did
	bytes  int64
}

func (a *answer) use(r reply) { a.body, a.from = r.Body, r.from }

func (a *answer) close() {
	if a.body != nil {
		_ = a.body.Close() // what was read of it is what counts
		a.body = nil
	}
	if a.from != nil && a.bytes > 0 {
		a.from.received(a.bytes)
		a.r.e.count(func(s *Stats) { s.BytesFetched += a.bytes })
		a.bytes = 0
	}
}

// read reads on, from the next answer if this one breaks off. It returns io.EOF where an object of unknown size ends.
func (a *answer) read(p []byte) (int, error) {
	for {
		if a.body == nil {
			if err := a.open(); err != nil {
				return 0, err
			}
		}
		n, err := a.body.Read(p)
		a.at += int64(n)
		a.bytes += int64(n)
		if n > 0 {
			a.broken = 0
		}
		switch {
		case n > 0, err == nil:
			return n, nil // an error comes again
		case a.r.ctx.Err() != nil:
			return 0, context.Cause(a.r.ctx)
		case err == io.EOF && a.r.o.meta.Size < 0:
			return 0, io.EOF
		case err == io.EOF:
			err = fmt.Errorf("%w: the answer ended at byte %d of %d", io.ErrUnexpectedEOF, a.at, a.r.o.meta.Size)
		}
		from := a.from
		a.close()
		err = fmt.Errorf("origin %s: %w", from.Name, err)
		from.broke(err)
		if err := a.again(err); err != nil {
			return 0, err
		}
	}
}

// again waits before a broken answer is continued, or returns why it is not.
func (a *answer) again(why error) error {
	if a.broken == 0 {
		a.since = time.Now()
	}
	if !a.r.o.meta.Firm || time.Since(a.since) > a.r.e.cfg.Patience {
		return why
	}
	a.broken++
	t := time.NewTimer(min(retryDelay<<min(a.broken, 10), maxDelay))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-a.r.ctx.Done():
		return context.Cause(a.r.ctx)
	}
}

// open asks for the bytes from at on.
func (a *answer) open() error {
	o, to := a.r.o, int64(-1)
	if a.r.end >= 0 {
		to = min(a.r.end*a.r.e.cfg.Segment, o.meta.Size)
	}
	if a.at == 0 && to == o.meta.Size {
		to = -1 // all of it is a plain request, which every server understands
	}
	resp, err := o.group.open(a.r.ctx, o.server, o.path, o.query, a.at, to, nil)
	for err != nil {
		// A server that broke off and does not answer now may be about to be restarted.
		if a.broken == 0 || a.r.ctx.Err() != nil || errors.Is(err, dray.ErrRefused) {
			return err
		}
		if err := a.again(err); err != nil {
			return err
		}
		resp, err = o.group.open(a.r.ctx, o.server, o.path, o.query, a.at, to, nil)
	}
	if err := a.fits(resp); err != nil {
		_ = resp.Body.Close()
		return err
	}
	a.use(resp)
	if skip := a.at - bodyStart(resp); skip > 0 {
		if _, err := io.CopyN(io.Discard, a.body, skip); err != nil {
			a.close()
			return fmt.Errorf("origin %s: %w", a.from.Name, err)
		}
	}
	return nil
}

// bodyStart returns the offset of a reply's first byte, which fits has checked.
func bodyStart(r reply) int64 {
	if r.StatusCode != http.StatusPartialContent {
		return 0
	}
	from, _, _, _ := contentRange(r.Header.Get("Content-Range"))
	return from
}

// fits checks that a reply continues the version that the run is of.
func (a *answer) fits(r reply) error {
	switch r.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusNotFound, http.StatusGone, http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed:
		return errChanged
	default:
		return &statusError{r.from, r.Request.URL.Redacted(), r.StatusCode}
	}
	m, from, err := metaOf(r.Response)
	switch {
	case err != nil:
		return err
	case !m.same(&a.r.o.meta):
		return errChanged
	case from > a.at:
		return fmt.Errorf("%w: it begins at byte %d, and %d was asked for", errAnswer, from, a.at)
	}
	return nil
}

// checkEnd looks for bytes beyond the end of an object whose size is known, when its last segment has come.
func (a *answer) checkEnd(seg int64, end bool) error {
	size := a.r.o.meta.Size
	if end || size < 0 || a.at != size || a.body == nil {
		return nil
	}
	var one [1]byte
	for range 8 {
		n, err := a.body.Read(one[:])
		if n > 0 {
			err := fmt.Errorf("%w: origin %s sends more than the %d bytes it announced (segment %d)",
				errAnswer, a.from.Name, size, seg)
			a.from.broke(err)
			return err
		}
		if err != nil {
			return nil
		}
	}
	return nil
}

// leafPrefix is how leaves that have no CID yet are hashed: as those of the profile "native".
var leafPrefix = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.BLAKE3, MhLength: 32}

// keep offers a segment to the cache.
func (e *Edge) keep(o *object, seg int64, data []byte) {
	b, err := dray.Hashed(leafPrefix, data)
	if err != nil {
		panic(err) // the prefix is ours
	}
	key := dray.HashKey(b.CID())
	e.mu.Lock()
	gone := o.dropped
	e.mu.Unlock()
	if gone || len(data) == 0 {
		return
	}
	if !e.hoard.put(key, data, false) {
		return
	}
	e.mu.Lock()
	gone = o.dropped
	if !gone {
		o.leaves[seg] = key
		e.touched()
	}
	e.mu.Unlock()
	if gone {
		e.hoard.release(key)
	}
}
