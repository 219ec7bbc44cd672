package unixfs

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"dray"
)

// The causes of failure that callers of this package tell apart, beside those of package dray.
var (
	// ErrNotUnixFS means that a block is well-formed but is no file, directory or symlink. [Links] may still read it.
	ErrNotUnixFS = errors.New("not a file or directory")
	// ErrNotLeaf means that a block holds no content of its own in one piece, so it cannot be split into head, content
	// and tail.
	ErrNotLeaf = errors.New("not a leaf")
	// ErrInvalid means that a block cannot be read, contradicts itself or contradicts the block that links to it, though
	// its bytes hash to its CID: whoever made it made it wrong.
	ErrInvalid = errors.New("invalid block")
	// ErrTooLarge means that a DAG has more entries, leaves or levels than the caller allowed.
	ErrTooLarge = errors.New("too large")
	// ErrNotFile means that a file was asked for and the CID names a directory or a symlink.
	ErrNotFile = errors.New("not a file")
)

// invalid returns an error wrapping ErrInvalid with the details.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// at wraps err with the block and the operation, unless it is such an error already.
func at(op string, c cid.Cid, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*dray.Error); ok && e.CID.Defined() {
		return err
	}
	return &dray.Error{Op: op, CID: c, Err: err}
}
