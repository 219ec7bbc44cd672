package transport

import (
	"context"
	"fmt"
	"time"

	"dray"
)

// pingBytes is what a question and an answer each cost on a link.
const pingBytes = 32

// Ping sends a few bytes over the link and back, behind what is on it already.
func (p *memoryPeer) Ping(ctx context.Context) (time.Duration, error) {
	p.host.mu.Lock()
	e := p.best()
	p.host.mu.Unlock()
	err := ctx.Err()
	if err == nil && e != nil {
		start := time.Now()
		if e.out.cross(pingBytes, ctx.Done(), e.done) && e.other.out.cross(pingBytes, ctx.Done(), e.done) {
			return max(time.Since(start), time.Nanosecond), nil
		}
		err = ctx.Err()
	}
	if err == nil {
		err = fmt.Errorf("%w: %w", dray.ErrClosed, ErrReset)
	}
	return 0, &dray.Error{Op: "ping", Peer: p.id, Err: err}
}
