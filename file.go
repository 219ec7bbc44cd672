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

	// GrowAs is Grow for a file of which more is to be said.
	GrowAs(ctx context.Context, path string, as Growth) (Growing, error)

	// Grown reports whether the file at path was finished for that purpose, see [Growth], and was not changed since.
	Grown(ctx context.Context, path, purpose string) bool

	// Reference begins to index the file at path where it lies. It returns [ErrNotFound] when there is no such file.
	Reference(ctx context.Context, path string) (Reference, error)
}

// Growth says what a growing file is to be.
type Growth struct {
	// Size is its length in bytes.
	Size int64
	// Holes is how many of them will never be written and shall take no space: they read as zeros. If zero, there is
	// space reserved for all.
	Holes int64
	// Purpose names what the file is made from and how, such as a root and a selection of it. What an earlier attempt
	// wrote for another purpose does not count as filled. If empty, any earlier attempt of the same size is continued.
	Purpose string
}

// Part is a stretch of a leaf's content, and where it goes.
type Part struct {
	// From and Size are the stretch of the content, in bytes.
	From, Size int64
	// To is its offset in the file.
	To int64
}

// Growing is a destination file into which a [Store] writes the leaves that it expects, and from which it serves them at
// once. It is safe for concurrent use.
type Growing interface {
	// Expect says that the content of leaf goes to offset and is size bytes long. It returns whether that place is known
	// to be filled; then there is nothing to fetch for it.
	Expect(leaf cid.Cid, offset, size int64) (filled bool, err error)

	// ExpectParts says that parts of the content of leaf, and not the whole, go to the file: one part at least, each with
	// bytes. It returns whether they are known to be there; then there is nothing to fetch for them. Parts are no places
	// to serve the leaf from, and Put does not fill them: see FillParts.
	ExpectParts(leaf cid.Cid, parts []Part) (filled bool, err error)

	// FillParts writes the parts of a leaf that were expected and have not come. When it returns they are written; an
	// earlier attempt's parts count as filled once they were synced. It does nothing when none were expected.
	FillParts(leaf Block) error

	// Fill writes bytes that are in no leaf. An attempt that continues another has to fill them again.
	Fill(offset int64, p []byte) error

	// Has reports whether every place that leaf was said to go to is filled.
	Has(leaf cid.Cid) bool

	// Missing returns how many expected leaves, and leaves of which parts are expected, have not come.
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
