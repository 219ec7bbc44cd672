package tensor

import (
	"errors"
	"fmt"
	"strconv"

	"dray"
)

// The causes of failure that callers of this package tell apart, beside those of package dray.
var (
	// ErrNotTensors means that a file is of no format that this package knows. It is no fault of the file's.
	ErrNotTensors = errors.New("not a tensor file")
	// ErrMalformed means that a file begins like a tensor file and breaks the rules of its format. The error is a
	// [*HeaderError].
	ErrMalformed = errors.New("malformed tensor file")
	// ErrScattered means that a file's header does not lie at its beginning, so that no prefix is enough. [Read] finds
	// the pieces.
	ErrScattered = errors.New("the header is not at the beginning")
	// ErrUnaligned means that a slice of a type smaller than a byte, or of a type that is stored in blocks, does not
	// begin or end on a byte or a block.
	ErrUnaligned = errors.New("not on a byte or block boundary")
	// ErrPacked means that a tensor is compressed inside its file, so that no range of the file is a slice of it.
	ErrPacked = errors.New("compressed inside its file")
	// ErrForeign means that a safetensors file cannot hold a tensor as it is: its type, order or compression exists only
	// in the format that it is in.
	ErrForeign = errors.New("not possible in a safetensors file")
	// ErrBadPattern means that a pattern does not follow the grammar of [ParsePattern].
	ErrBadPattern = errors.New("bad pattern")
	// ErrNoRule means that no rule says along which axis a matrix is split for tensor parallelism.
	ErrNoRule = errors.New("no tensor-parallel rule")
	// ErrUneven means that an axis does not divide by the number of ranks.
	ErrUneven = errors.New("does not divide evenly")
)

// HeaderError says what is wrong in a tensor file and where. It matches [ErrMalformed] with [errors.Is].
type HeaderError struct {
	// Format is what the file was read as.
	Format Format
	// Offset is the byte of the file at which the fault was seen.
	Offset int64
	// Tensor is the name of the tensor that the fault is about, if it is about one.
	Tensor string
	// Reason says what is wrong.
	Reason string
}

// Error returns "FORMAT: byte N: tensor NAME: REASON".
func (e *HeaderError) Error() string {
	s := string(e.Format) + ": byte " + strconv.FormatInt(e.Offset, 10) + ": "
	if e.Tensor != "" {
		s += "tensor " + quoteShort(e.Tensor) + ": "
	}
	return s + e.Reason
}

// Is reports whether target is ErrMalformed.
func (e *HeaderError) Is(target error) bool { return target == ErrMalformed }

// malformed returns a HeaderError.
func malformed(f Format, at int64, reason string, args ...any) *HeaderError {
	return &HeaderError{Format: f, Offset: at, Reason: fmt.Sprintf(reason, args...)}
}

// border wraps an error that leaves the package, unless it is wrapped already.
func border(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*dray.Error); ok {
		return err
	}
	return &dray.Error{Op: op, Err: err}
}

// quoteShort quotes a name that a stranger chose, cut to a length that fits a message.
func quoteShort(s string) string {
	const most = 120
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
