package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"sync"

	"dray"

	"github.com/ipfs/go-cid"
)

// Mem keeps blocks in memory. It implements [dray.Store] and [dray.RawGetter]. It keeps copies of the blocks that
// are put. Use [NewMem] to make one.
type Mem struct {
	mu     sync.RWMutex
	blocks map[string][]byte // by multihash
	used   int64
	limit  int64
	closed bool
}

// NewMem returns an empty Mem that holds at most limit bytes of blocks; when it is full, Put returns dray.ErrNoSpace. If
// limit is zero or negative there is no bound.
func NewMem(limit int64) *Mem {
	return &Mem{blocks: make(map[string][]byte), limit: limit}
}

// Bytes returns the number of bytes in the blocks held.
func (m *Mem) Bytes() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.used
}

// Len returns the number of blocks held.
func (m *Mem) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.blocks)
}

// Get implements [dray.Getter]. The block shares the bytes that were put; it is hashed again, as every Block is.
func (m *Mem) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	data, err := m.find(ctx, "get", c)
	if err != nil {
		return dray.Block{}, err
	}
	return dray.NewBlock(c, data)
}

// GetRaw implements [dray.RawGetter].
func (m *Mem) GetRaw(ctx context.Context, c cid.Cid, buf []byte) ([]byte, error) {
	data, err := m.find(ctx, "get", c)
	if err != nil {
		return nil, err
	}
	return append(buf[:0], data...), nil
}

// Stat implements [dray.Store].
func (m *Mem) Stat(ctx context.Context, c cid.Cid) (int64, error) {
	data, err := m.find(ctx, "stat", c)
	return int64(len(data)), err
}

func (m *Mem) find(ctx context.Context, op string, c cid.Cid) ([]byte, error) {
	mh, err := multihash(ctx, op, c)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	data, ok := m.blocks[mh]
	closed := m.closed
	m.mu.RUnlock()
	switch {
	case closed:
		return nil, &dray.Error{Op: op, CID: c, Err: dray.ErrClosed}
	case ok:
		return data, nil
	}
	if data, ok := inline(mh); ok {
		return data, nil
	}
	return nil, &dray.Error{Op: op, CID: c, Err: dray.ErrNotFound}
}

// Put implements [dray.Store]. It copies the bytes.
func (m *Mem) Put(ctx context.Context, blocks ...dray.Block) error {
	for _, b := range blocks {
		if err := m.put(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mem) put(ctx context.Context, b dray.Block) error {
	mh, err := multihash(ctx, "put", b.CID())
	if err != nil {
		return err
	}
	if b.Size() > dray.MaxBlockSize {
		return &dray.Error{Op: "put", CID: b.CID(), Err: fmt.Errorf("%w: %d bytes", dray.ErrTooBig, b.Size())}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return &dray.Error{Op: "put", CID: b.CID(), Err: dray.ErrClosed}
	}
	if _, ok := m.blocks[mh]; ok {
		return nil
	}
	if _, ok := inline(mh); ok {
		return nil
	}
	if size := int64(b.Size()); m.limit > 0 && m.used+size > m.limit {
		return &dray.Error{Op: "put", CID: b.CID(), Err: fmt.Errorf("%w: %d of %d bytes used", dray.ErrNoSpace, m.used, m.limit)}
	}
	m.blocks[mh] = bytes.Clone(b.Data())
	m.used += int64(b.Size())
	return nil
}

// Delete implements [dray.Store].
func (m *Mem) Delete(ctx context.Context, c cid.Cid) error {
	mh, err := multihash(ctx, "delete", c)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return &dray.Error{Op: "delete", CID: c, Err: dray.ErrClosed}
	}
	m.used -= int64(len(m.blocks[mh]))
	delete(m.blocks, mh)
	return nil
}

// Sync implements [dray.Store]. Memory has nothing to sync.
func (m *Mem) Sync(ctx context.Context) error {
	if ctx.Err() != nil {
		return &dray.Error{Op: "sync", Err: context.Cause(ctx)}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return &dray.Error{Op: "sync", Err: dray.ErrClosed}
	}
	return nil
}

// All implements [dray.Store]. It lists what was held when it began.
func (m *Mem) All(ctx context.Context) iter.Seq2[dray.Stat, error] {
	return func(yield func(dray.Stat, error) bool) {
		if err := m.Sync(ctx); err != nil {
			yield(dray.Stat{}, err)
			return
		}
		m.mu.RLock()
		list := make([]dray.Stat, 0, len(m.blocks))
		for mh, data := range m.blocks {
			list = append(list, dray.Stat{CID: cid.NewCidV1(cid.Raw, []byte(mh)), Size: int64(len(data))})
		}
		m.mu.RUnlock()
		for _, st := range list {
			if ctx.Err() != nil {
				yield(dray.Stat{}, &dray.Error{Op: "list", Err: context.Cause(ctx)})
				return
			}
			if !yield(st, nil) {
				return
			}
		}
	}
}

// Close implements [dray.Store]. It lets go of the blocks.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return &dray.Error{Op: "close", Err: dray.ErrClosed}
	}
	m.closed, m.blocks, m.used = true, nil, 0
	return nil
}

// multihash returns the multihash of c, or why the call cannot go on.
func multihash(ctx context.Context, op string, c cid.Cid) (string, error) {
	if ctx.Err() != nil {
		return "", &dray.Error{Op: op, CID: c, Err: context.Cause(ctx)}
	}
	if !c.Defined() {
		return "", &dray.Error{Op: op, Err: fmt.Errorf("%w: undefined", dray.ErrBadCID)}
	}
	return string(c.Hash()), nil
}

// inline returns the bytes that an identity multihash carries, and whether mh is one. There is nothing to keep for those.
func inline(mh string) ([]byte, bool) {
	if mh == "" || mh[0] != 0 {
		return nil, false
	}
	n, k := binary.Uvarint([]byte(mh[1:]))
	if k <= 0 || n != uint64(len(mh)-1-k) {
		return nil, false
	}
	return []byte(mh[1+k:]), true
}
