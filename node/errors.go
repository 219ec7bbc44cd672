package node

import (
	"context"
	"errors"

	"dray"
)

// isMissing reports whether a store's error means that the block must be fetched.
func isMissing(err error) bool {
	return errors.Is(err, dray.ErrNotFound) || errors.Is(err, dray.ErrChanged) || errors.Is(err, dray.ErrCorrupt)
}

// ctxError turns the end of a context into the system's words for it.
func ctxError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return dray.ErrTimeout
	}
	return ctx.Err()
}
