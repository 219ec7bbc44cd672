package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"dray"
	"dray/origin"
)

const (
	smoothing    = 0.1 // how much one answer counts in what is known of a source
	healthyAbove = 0.5
	tripAfter    = 3 // failures in a row
	exploreEvery = 16
	retryDelay   = 100 * time.Millisecond
	maxDelay     = 2 * time.Second
	extraTries   = 2
	maxHeader    = 64 << 10
)

// A server is one source, with what is known of its health.
type server struct {
	Source
	url    *url.URL // nil of the swarm
	client *http.Client
	bucket *bucket // nil if it is none
	rest   circuitbreaker.CircuitBreaker[any]

	mu       sync.Mutex
	score    float64       // 1 is all well; EWMA of successes
	latency  time.Duration // EWMA of the time to an answer's headers; 0 is not known
	used     uint64        // the turn of its group in which it was last asked
	requests int64
	failures int64
	bytes    int64
	last     string // what failed last
}

func newServer(s Source, cfg *Config) (*server, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	v := &server{Source: s, score: 1}
	v.rest = circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(tripAfter).WithSuccessThreshold(1).WithDelay(cfg.Rest).Build()
	if s.Kind == Swarm {
		if cfg.Swarm == nil {
			return nil, fmt.Errorf("origin %s: there is no swarm to ask", s.Name)
		}
		return v, nil
	}
	var err error
	if v.url, err = s.parse(); err != nil {
		return nil, err
	}
	oc := origin.Config{URL: v.url, AllowPrivate: s.AllowPrivate, Timeout: s.Timeout, TLS: s.TLS, MaxHeader: maxHeader}
	switch {
	case s.Kind == Bucketed:
		if v.bucket, err = newBucket(s); err != nil {
			return nil, err
		}
		v.url = v.bucket.under(v.url)
		oc.Credentials = v.bucket.sign
	case s.Token != "":
		oc.Credentials = func(r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+s.Token)
			return nil
		}
	}
	v.client = origin.NewClient(oc)
	if s.Transport != nil {
		v.client = &http.Client{Transport: s.Transport}
	}
	return v, nil
}

// healthy reports whether it has answered more often than not, lately.
func (v *server) healthy() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.score > healthyAbove
}

// asked records how a request ended; took is how long it was until the headers came.
func (v *server) asked(took time.Duration, err error) {
	v.mu.Lock()
	v.requests++
	good := 1.0
	if err != nil {
		good = 0
		v.failures++
		v.last = err.Error()
	}
	v.score += smoothing * (good - v.score)
	if err == nil {
		if v.latency == 0 {
			v.latency = max(took, 1)
		} else {
			v.latency += time.Duration(smoothing * float64(took-v.latency))
		}
	}
	v.mu.Unlock()
	if err != nil {
		v.rest.RecordFailure()
	} else {
		v.rest.RecordSuccess()
	}
}

// broke records that an answer ended before it was whole, or was wrong.
func (v *server) broke(err error) {
	v.mu.Lock()
	v.failures++
	v.last = err.Error()
	v.score -= smoothing * v.score
	v.mu.Unlock()
	v.rest.RecordFailure()
}

func (v *server) received(n int64) {
	v.mu.Lock()
	v.bytes += n
	v.mu.Unlock()
}

// request makes a request for what lies at an escaped path below the source's URL.
func (v *server) request(ctx context.Context, method, path, query string) (*http.Request, error) {
	u := *v.url
	whole := strings.TrimSuffix(u.EscapedPath(), "/") + "/" + path
	plain, err := url.PathUnescape(whole)
	if err != nil {
		return nil, fmt.Errorf("%w: path: %w", errRequest, err)
	}
	u.Path, u.RawPath, u.RawQuery = plain, whole, query
	r, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	return r, nil
}

// errRequest means that what a client asks for cannot be asked of a source.
var errRequest = errors.New("bad request")

// statusError is an answer that is no content.
type statusError struct {
	server *server
	url    string
	status int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("origin %s: %s: %d %s", e.server.Name, e.url, e.status, http.StatusText(e.status))
}

// transient reports whether another try, or another source, may do better.
func transient(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// errNoSource means that no source can be asked now.
var errNoSource = fmt.Errorf("%w: every source failed and is left alone for a moment", dray.ErrUnreachable)

// group is an origin: its sources, and which is asked next.
type group struct {
	name    string
	servers []*server
	blocks  *blockSource // for what has a CID; nil if no source speaks of CIDs

	mu    sync.Mutex
	turns uint64
}

// reply is an answer with the one who gave it.
type reply struct {
	*http.Response
	from *server
}

// ask gets an answer to what build makes for a source. It asks another one, or the same again after a while, if an
// answer does not come or is transient. Preferred is asked first if it is well. A reply with a status below 500 is no
// error.
func (g *group) ask(ctx context.Context, preferred *server,
	build func(context.Context, *server) (*http.Request, error),
) (reply, error) {
	return tryEach(ctx, g, preferred, func(ctx context.Context, v *server) (reply, error) { return v.do(ctx, build) })
}

// tryEach does something with one source after the other, until it works: see ask.
func tryEach[T any](
	ctx context.Context, g *group, preferred *server, do func(context.Context, *server) (T, error),
) (T, error) {
	var (
		none T
		last error
	)
	tried, tries, most := make(map[*server]bool), 0, len(g.servers)+extraTries
	policy := retrypolicy.NewBuilder[T]().
		WithMaxAttempts(most).
		AbortIf(func(_ T, err error) bool {
			return errors.Is(err, errNoSource) || errors.Is(err, errRequest) || errors.Is(err, dray.ErrRefused) ||
				errors.Is(err, dray.ErrNotFound) && tries >= len(g.servers)
		}).
		ReturnLastFailure().
		WithDelayFunc(func(failsafe.ExecutionAttempt[T]) time.Duration {
			again := tries - len(g.servers)
			if again < 0 {
				return 0 // another one is asked
			}
			return min(retryDelay<<min(again, 10), maxDelay)
		}).Build()
	r, err := failsafe.With(policy).WithContext(ctx).Get(func() (T, error) {
		v := g.pick(preferred, tried)
		if v == nil {
			return none, errors.Join(errNoSource, last)
		}
		tries++
		tried[v] = true
		if len(tried) == len(g.servers) {
			clear(tried)
		}
		r, err := do(ctx, v)
		if err != nil {
			last = err
		}
		return r, err
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, err
}

// do asks one source. The caller has its permit.
func (v *server) do(ctx context.Context, build func(context.Context, *server) (*http.Request, error)) (reply, error) {
	req, err := build(ctx, v)
	if err != nil {
		v.leave()
		return reply{}, err
	}
	start := time.Now()
	resp, err := v.client.Do(req)
	took := time.Since(start)
	switch {
	case err != nil && ctx.Err() != nil:
		v.leave()
		return reply{}, context.Cause(ctx)
	case err != nil:
		err = fmt.Errorf("origin %s: %w", v.Name, err)
	case transient(resp.StatusCode):
		err = &statusError{v, req.URL.Redacted(), resp.StatusCode}
		_ = resp.Body.Close()
	}
	v.asked(took, err)
	if err != nil {
		return reply{}, err
	}
	return reply{resp, v}, nil
}

// leave gives a permit back that led to no answer: if it was the one that a source had after its rest, that goes on
// resting.
func (v *server) leave() {
	if v.rest.IsHalfOpen() {
		v.rest.RecordFailure()
	}
}

// pick chooses whom to ask: who is not resting; of these the healthy ones; of these those with the lowest priority;
// of these the fastest. One that was never measured counts as fast as the middle one of its peers, so it neither wins
// nor is left out; and once in a while the one that was not asked for longest is asked, so that what is known of it
// does not get old.
func (g *group) pick(preferred *server, tried map[*server]bool) *server {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turns++
	var list []*server
	for _, v := range g.servers {
		if !tried[v] {
			list = append(list, v)
		}
	}
	g.order(list)
	if preferred != nil && slices.Contains(list, preferred) && preferred.healthy() {
		list = slices.Insert(list, 0, preferred)
	}
	for _, v := range list {
		if v.rest.TryAcquirePermit() {
			v.mu.Lock()
			v.used = g.turns
			v.mu.Unlock()
			return v
		}
	}
	return nil
}

// order sorts sources by whom to ask first. The caller holds mu.
func (g *group) order(list []*server) {
	type rank struct {
		ill      bool
		priority int
		latency  time.Duration
		used     uint64
	}
	ranks := make(map[*server]rank, len(list))
	var known []time.Duration
	for _, v := range list {
		v.mu.Lock()
		ranks[v] = rank{v.score <= healthyAbove, v.Priority, v.latency, v.used}
		if v.latency > 0 {
			known = append(known, v.latency)
		}
		v.mu.Unlock()
	}
	slices.Sort(known)
	explore := g.turns%exploreEvery == 0
	slices.SortStableFunc(list, func(a, b *server) int {
		x, y := ranks[a], ranks[b]
		switch {
		case x.ill != y.ill && !explore:
			return sign(x.ill, y.ill)
		case x.priority != y.priority:
			return x.priority - y.priority
		case explore:
			return cmp.Compare(x.used, y.used)
		}
		if len(known) > 0 {
			middle := known[len(known)/2]
			for _, r := range []*rank{&x, &y} {
				if r.latency == 0 {
					r.latency = middle
				}
			}
		}
		return cmp.Compare(x.latency, y.latency)
	})
}

func sign(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
