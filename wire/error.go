package wire

import (
	"errors"
	"strconv"
	"strings"
)

// What can be wrong with a message, to be told apart with [errors.Is]. A CID or prefix that cannot be read wraps
// [dray.ErrBadCID], a block over the limit [dray.ErrTooBig].
var (
	// ErrMalformed means that the bytes are not a message: a varint or a field runs past its end or cannot be read.
	ErrMalformed = errors.New("malformed")
	// ErrTooLong means that a message is longer than [MaxMessageSize] or the reader's own limit.
	ErrTooLong = errors.New("message too long")
	// ErrTooMany means that a message holds more than [MaxBlocks] blocks, or a TensorSwap message more than [MaxItems] items.
	ErrTooMany = errors.New("too many in one message")
	// ErrNoBuffer means that [FrameReader.Next] was not given room for a frame. It is nobody's offence.
	ErrNoBuffer = errors.New("no buffer for the frame")
)

var errVersion = errors.New("no such version")

// Error says what a peer did wrong and where. Whatever [Decode] and [FrameReader.Next] return as an *Error is the sender's
// fault; every other error of this package is the caller's or the connection's.
type Error struct {
	// Version is Swap1 when it was TensorSwap; for Bitswap it is zero.
	Version Version
	// Field names the field, such as "wantlist.entries.block"; "frame" is the length prefix or the message as a whole.
	Field string
	// Offset is the byte in the message at which the trouble begins; for a frame's length, in the length. TensorSwap counts
	// from the first byte of the frame.
	Offset int
	// Err is the cause; it is never nil.
	Err error
}

// Error returns "bitswap FIELD at byte OFFSET: cause", or the same of tensorswap.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Version == Swap1 {
		b.WriteString("tensorswap ")
	} else {
		b.WriteString("bitswap ")
	}
	b.WriteString(e.Field)
	b.WriteString(" at byte ")
	b.WriteString(strconv.Itoa(e.Offset))
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
