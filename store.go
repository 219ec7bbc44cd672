package dray

import (
	"context"
	"iter"

	"github.com/ipfs/go-cid"
)

// Getter finds blocks by CID, locally or anywhere. Get returns a verified Block, or an [*Error] wrapping [ErrNotFound],
// [ErrCorrupt], [ErrChanged], [ErrUnreachable], [ErrTimeout] or the context's error. Implementations are safe for
// concurrent use.
type Getter interface {
	Get(ctx context.Context, c cid.Cid) (Block, error)
}

// Store keeps blocks on this machine. It addresses them by multihash: a block put under one CID is found under every
// CID with the same multihash (version and codec say how to read bytes, not which bytes). Implementations are safe for
// concurrent use, and pass the suite in package store/storetest.
type Store interface {
	Getter

	// Stat returns the size in bytes of a block without reading it, or an error wrapping [ErrNotFound].
	Stat(ctx context.Context, c cid.Cid) (int64, error)

	// Put writes blocks. When it returns nil each of them is *written*: Get finds it and it survives the end of the
	// process, though not yet the loss of power. Putting a block that is held already does nothing. It returns
	// [ErrNoSpace] when the disk is full and [ErrTooBig] for a block over [MaxBlockSize]; then none, some or all of
	// the blocks are written. The bytes may be reused by the caller after Put returns.
	Put(ctx context.Context, blocks ...Block) error

	// Delete forgets a block. Deleting what is not held is not an error.
	Delete(ctx context.Context, c cid.Cid) error

	// Sync returns when everything written before the call is *synced*: it survives the loss of power.
	Sync(ctx context.Context) error

	// All yields every block's CID and size in no particular order, with an error as the last pair if the listing broke
	// off. The CIDs carry the raw codec, because a Store does not know how its blocks are read. Blocks put or deleted
	// meanwhile may or may not appear.
	All(ctx context.Context) iter.Seq2[Stat, error]

	// Close syncs, then releases what the store holds. Calls after it return [ErrClosed].
	Close() error
}

// Stat is one entry of a [Store]'s listing.
type Stat struct {
	// CID names the block, with the raw codec.
	CID cid.Cid
	// Size is the block's length in bytes.
	Size int64
}

// RawGetter is an optional ability of a [Store]: reading a block's bytes for sending them to a peer who will hash them
// anyway. GetRaw reads into buf when its capacity suffices, else into fresh memory, and returns the bytes. A store that
// cannot be sure that the bytes are still the right ones (a file that may have changed) checks them first: the bytes
// returned are never known to be wrong. Errors are those of Get.
type RawGetter interface {
	GetRaw(ctx context.Context, c cid.Cid, buf []byte) ([]byte, error)
}

// PartGetter is an optional ability of a [Store], or of a [Getter] over one: reading a stretch of a block without the
// rest of it. GetPart reads up to len(p) bytes of the block from offset on, which must not be negative; it returns how
// many, fewer than len(p) only at the block's end, and the length of the whole block. It returns bytes only of blocks
// that are here and need no hashing: those that only the store writes, and those in a file that has not changed since
// they were hashed. For all others it returns [ErrNotFound], and Get is the way.
type PartGetter interface {
	GetPart(ctx context.Context, c cid.Cid, p []byte, offset int64) (n int, size int64, err error)
}
