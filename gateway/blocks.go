package gateway

import (
	"context"
	"errors"
	"net/http"

	gw "github.com/ipfs/boxo/gateway"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"dray"
)

// blockstore is the request's blocks in the terms of boxo, for what boxo reads itself: graphs that are no UnixFS, and
// TARs. The request is that of the context.
type blockstore struct{}

var errReadOnly = errors.New("gateway: read only")

// Get returns a block of the request that ctx belongs to.
func (blockstore) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	q := requestOf(ctx)
	if q == nil {
		return nil, dray.ErrClosed
	}
	b, err := q.Get(ctx, c)
	if err != nil {
		if q.ask.stream() {
			q.breakOff(err)
		}
		return nil, toBoxo(err)
	}
	return blocks.NewBlockWithCid(b.Data(), c)
}

// GetSize returns the length of a block.
func (s blockstore) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	b, err := s.Get(ctx, c)
	if err != nil {
		return -1, err
	}
	return len(b.RawData()), nil
}

// Has reports whether there is a block.
func (s blockstore) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.Get(ctx, c)
	if status, _ := statusOf(err); status == http.StatusNotFound || status == http.StatusPreconditionFailed {
		return false, nil
	}
	return err == nil, err
}

// Put and the other methods that would change something refuse.
func (blockstore) Put(context.Context, blocks.Block) error { return errReadOnly }

// PutMany refuses.
func (blockstore) PutMany(context.Context, []blocks.Block) error { return errReadOnly }

// DeleteBlock refuses.
func (blockstore) DeleteBlock(context.Context, cid.Cid) error { return errReadOnly }

// AllKeysChan refuses: a gateway lists nothing.
func (blockstore) AllKeysChan(context.Context) (<-chan cid.Cid, error) { return nil, errReadOnly }

// statusOf returns the status that an error means, and when to try again, if that is known.
func statusOf(err error) (code int, retry string) {
	err = toBoxo(err)
	var (
		later  *gw.ErrorRetryAfter
		status *gw.ErrorStatusCode
	)
	if errors.As(err, &later) {
		retry = later.RetryAfterHeader()
	}
	switch {
	case err == nil:
		return http.StatusOK, ""
	case errors.As(err, &status):
		return status.StatusCode, retry
	}
	return http.StatusInternalServerError, retry
}
