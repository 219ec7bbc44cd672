package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// errTooLong means that an upstream wants more patience than clients have.
var errTooLong = errors.New("it wants no requests for a while")

// pace heeds an upstream's wish for fewer requests. It is safe for concurrent use.
type pace struct {
	mu    sync.Mutex
	until time.Time // no request before
}

// wait waits until a request may be made, unless that takes too long.
func (p *pace) wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		left := time.Until(p.until)
		p.mu.Unlock()
		if left <= 0 {
			return nil
		}
		if left > longestWait {
			return fmt.Errorf("%w (%v)", errTooLong, left.Round(time.Second))
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// heed notes what an answer says about further requests: a Retry-After, or in RateLimit that none are left of a window.
func (p *pace) heed(resp *http.Response) {
	var wait time.Duration
	limited := resp.StatusCode == http.StatusTooManyRequests
	if limited || resp.StatusCode == http.StatusServiceUnavailable {
		wait = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	if left, reset, ok := rateLimit(resp.Header.Get("RateLimit")); ok && (left == 0 || limited) {
		wait = max(wait, reset)
	}
	if wait <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := time.Now().Add(wait); t.After(p.until) {
		p.until = t
	}
}

const mostWait = 24 * time.Hour // that is believed

// retryAfter reads seconds or a date (RFC 9110, section 10.2.3); 0 if it is neither.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return min(max(time.Duration(n)*time.Second, 0), mostWait)
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(t.Sub(now), 0), mostWait)
	}
	return 0
}

// rateLimit reads the first item of a RateLimit header, such as "api";r=0;t=55: how many requests are left, and when that is
// over.
func rateLimit(s string) (left int64, reset time.Duration, ok bool) {
	item, _, _ := strings.Cut(s, ",")
	left = -1
	for param := range strings.SplitSeq(item, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 {
			continue
		}
		switch name {
		case "r":
			left = n
		case "t":
			reset = min(time.Duration(n)*time.Second, mostWait)
		}
	}
	return left, reset, left >= 0
}
