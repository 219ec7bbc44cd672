package store

import (
	"context"
	"sync/atomic"

	"dray"

	"github.com/ipfs/go-cid"
)

// Counting passes every call on to Store and counts what goes through. Its methods are safe for concurrent use; the
// counters may be read at any time. A zero Counting with Store set is ready to use.
type Counting struct {
	dray.Store

	// Gets and Puts are the blocks that were asked for and given, GetBytes and PutBytes the bytes that went through, and
	// Misses the blocks that were asked for and not got.
	Gets, Puts, GetBytes, PutBytes, Misses atomic.Int64
}

// Get implements [dray.Getter].
func (c *Counting) Get(ctx context.Context, k cid.Cid) (dray.Block, error) {
	b, err := c.Store.Get(ctx, k)
	c.got(b.Size(), err)
	return b, err
}

// GetRaw implements [dray.RawGetter], with Get if the store does not.
func (c *Counting) GetRaw(ctx context.Context, k cid.Cid, buf []byte) ([]byte, error) {
	raw, ok := c.Store.(dray.RawGetter)
	if !ok {
		b, err := c.Get(ctx, k)
		return append(buf[:0], b.Data()...), err
	}
	data, err := raw.GetRaw(ctx, k, buf)
	c.got(len(data), err)
	return data, err
}

func (c *Counting) got(n int, err error) {
	c.Gets.Add(1)
	c.GetBytes.Add(int64(n))
	if err != nil {
		c.Misses.Add(1)
	}
}

// Put implements [dray.Store].
func (c *Counting) Put(ctx context.Context, blocks ...dray.Block) error {
	err := c.Store.Put(ctx, blocks...)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		c.Puts.Add(1)
		c.PutBytes.Add(int64(b.Size()))
	}
	return nil
}
