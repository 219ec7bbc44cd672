package dray

import (
	"context"

	"github.com/ipfs/go-cid"
)

// FileStore is an optional ability of a [Store]: blocks that lie inside the user's own files, so that bytes exist once.
type FileStore interface {
	Store

	// Grow begins, or continues, to write the file at path, which will have size bytes. It returns [ErrNoSpace], with
	// numbers, when the disk has no room for it.
	Grow(ctx context.Context, path string, size int64) (Growing, error)

	// Reference begins to index the file at path where it lies. It returns [ErrNotFound] when there is no such file.
	Reference(ctx context.Context, path string) (Reference, error)
}

// Growing is a destination file into which a [Store] writes the leaves that it expects, and from which it serves them at
// once. It is safe for concurrent use.
type Growing interface {
	// Expect says that the content of leaf goes to offset and is size bytes long. It returns whether that place is known
	// to be filled; then there is nothing to fetch for it.
	Expect(leaf cid.Cid, offset, size int64) (filled bool, err error)

	// Has reports whether every place that leaf was said to go to is filled.
	Has(leaf cid.Cid) bool

	// Missing returns how many expected leaves have not come.
	Missing() int

	// Resumed reports whether an earlier attempt left something, so that Recover may find leaves.
	Resumed() bool

	// Recover looks for expected leaves in what an earlier attempt left and was not synced: it hashes what is there. It
	// returns how many leaves and bytes it found.
	Recover(ctx context.Context) (leaves int, bytes int64, err error)

	// Adopt fills places whose leaves the store holds elsewhere with local copies, and returns how many.
	Adopt(ctx context.Context) (places int, err error)

	// Finish syncs the file and moves it to its path. It returns [ErrNotFound] when leaves are missing.
	Finish(ctx context.Context) error

	// Discard removes what was written.
	Discard() error

	// Close leaves what was written for another Grow to continue. After Finish it does nothing.
	Close() error
}

// Reference is a file of the user's whose leaves are being indexed where they lie. It is used by one goroutine.
type Reference interface {
	// Index says that the block leaf is head, then size bytes of the file from offset on, then tail. It keeps head and
	// tail.
	Index(leaf cid.Cid, head, tail []byte, offset, size int64) error

	// Elsewhere reports whether the store has leaf anywhere but in the file at this path, as far as can be told without
	// reading it.
	Elsewhere(leaf cid.Cid) (bool, error)

	// Commit makes the leaves found. It returns [ErrChanged] if the file changed since Reference was called.
	Commit(ctx context.Context) error

	// Close forgets a Reference that was not committed.
	Close() error
}
