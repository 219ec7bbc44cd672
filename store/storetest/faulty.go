package storetest

import (
	"context"
	"iter"
	"sync"

	"dray"

	"github.com/ipfs/go-cid"
)

// Faulty passes every call on to Store, but those that it was told to fail. A zero Faulty with Store set fails nothing.
// Its methods are safe for concurrent use.
type Faulty struct {
	dray.Store

	mu    sync.Mutex
	fails map[string]error
}

// Fail makes calls of op ("get", "stat", "put", "delete", "sync" or "list") return err, wrapped in a [*dray.Error],
// until it is called again; with a nil err they work again.
func (f *Faulty) Fail(op string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails == nil {
		f.fails = make(map[string]error)
	}
	f.fails[op] = err
}

func (f *Faulty) check(op string, c cid.Cid) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fails[op]; err != nil {
		return &dray.Error{Op: op, CID: c, Err: err}
	}
	return nil
}

// Get implements [dray.Getter].
func (f *Faulty) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	if err := f.check("get", c); err != nil {
		return dray.Block{}, err
	}
	return f.Store.Get(ctx, c)
}

// GetRaw implements [dray.RawGetter], with Get if the store does not.
func (f *Faulty) GetRaw(ctx context.Context, c cid.Cid, buf []byte) ([]byte, error) {
	if err := f.check("get", c); err != nil {
		return nil, err
	}
	if raw, ok := f.Store.(dray.RawGetter); ok {
		return raw.GetRaw(ctx, c, buf)
	}
	b, err := f.Store.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return append(buf[:0], b.Data()...), nil
}

// Stat implements [dray.Store].
func (f *Faulty) Stat(ctx context.Context, c cid.Cid) (int64, error) {
	if err := f.check("stat", c); err != nil {
		return 0, err
	}
	return f.Store.Stat(ctx, c)
}

// Put implements [dray.Store]. When it fails none of the blocks is written.
func (f *Faulty) Put(ctx context.Context, blocks ...dray.Block) error {
	if err := f.check("put", cid.Undef); err != nil {
		return err
	}
	return f.Store.Put(ctx, blocks...)
}

// Delete implements [dray.Store].
func (f *Faulty) Delete(ctx context.Context, c cid.Cid) error {
	if err := f.check("delete", c); err != nil {
		return err
	}
	return f.Store.Delete(ctx, c)
}

// Sync implements [dray.Store].
func (f *Faulty) Sync(ctx context.Context) error {
	if err := f.check("sync", cid.Undef); err != nil {
		return err
	}
	return f.Store.Sync(ctx)
}

// All implements [dray.Store].
func (f *Faulty) All(ctx context.Context) iter.Seq2[dray.Stat, error] {
	return func(yield func(dray.Stat, error) bool) {
		if err := f.check("list", cid.Undef); err != nil {
			yield(dray.Stat{}, err)
			return
		}
		f.Store.All(ctx)(yield)
	}
}
