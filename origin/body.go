package origin

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// body is an answer's body with its bounds. Close ends the request, and may be called while another goroutine reads.
type body struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	next   io.ReadCloser
	most   int64 // bytes; 0 is no bound
	read   int64
	stall  time.Duration
	timer  *time.Timer
	once   sync.Once
}

func newBody(ctx context.Context, cancel context.CancelCauseFunc, next io.ReadCloser, cfg Config) *body {
	b := &body{ctx: ctx, cancel: cancel, next: next, most: cfg.MaxBody, stall: cfg.Stall}
	b.timer = time.AfterFunc(cfg.Stall, func() { cancel(fmt.Errorf("%w for %v", ErrStalled, cfg.Stall)) })
	b.timer.Stop() // it runs while somebody reads: a caller may take its time
	return b
}

// Read implements io.Reader. A body that is larger than allowed is an error at the first byte beyond.
func (b *body) Read(p []byte) (int, error) {
	if b.most > 0 && int64(len(p)) > b.most-b.read+1 {
		p = p[:b.most-b.read+1]
	}
	b.timer.Reset(b.stall)
	n, err := b.next.Read(p)
	b.timer.Stop()
	b.read += int64(n)
	if b.most > 0 && b.read > b.most {
		return max(0, n-1), fmt.Errorf("%w: more than %d bytes", ErrTooLarge, b.most)
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	var err error
	b.once.Do(func() {
		b.timer.Stop()
		b.cancel(context.Canceled)
		err = b.next.Close()
	})
	return err
}
