package wire

import (
	"errors"
	"fmt"
	"io"

	"github.com/multiformats/go-varint"
)

// lookAhead is how much is read before a frame's length is known: enough for the length and for most messages without
// blocks, so that those take one read; little enough that copying it to the frame costs nothing beside a block.
const lookAhead = 256

// FrameReader reads the frames of a stream, one after the other, each straight into a buffer of the caller's. It reads at
// most lookAhead bytes beyond a frame and never takes a byte at a time from the stream. The zero FrameReader with R set is
// ready for use; it is not safe for concurrent use and must not be copied after the first call.
type FrameReader struct {
	// R is the stream.
	R io.Reader
	// Version says which framing the stream has: TensorSwap's if Swap1, and Bitswap's otherwise.
	Version Version
	// Limit is the longest frame to accept, in bytes; if zero or more than [MaxMessageSize], that; for TensorSwap, header
	// included and [MaxFrameSize].
	Limit int

	ahead    [lookAhead]byte
	from, to int // what has been read ahead is ahead[from:to]
	err      error
}

// Next returns the next frame in a buffer that alloc(n) has returned, cut to the frame's length n: of Bitswap without its
// length prefix, of TensorSwap with its header, as [Decode] wants it. A block in a data frame is what follows the first 32
// bytes. Alloc is called once the length is known and found good, and may wait for memory: nothing is read meanwhile, so the
// sender is held back. It is not called for an empty frame (a keep-alive), which is nil and a valid, empty message.
//
// At the end of the stream between two frames the error is io.EOF, within a frame io.ErrUnexpectedEOF; other errors of R
// are returned as they are. A length that is too great ([ErrTooLong]) or no varint ([ErrMalformed]) is an [*Error]. If
// alloc returns less than n bytes, the error is [ErrNoBuffer]. When a frame fails after alloc was called, what alloc
// returned comes with the error, to be given back. After an error, Next returns it again and reads nothing.
func (f *FrameReader) Next(alloc func(n int) []byte) ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	var frame []byte
	n, err := f.length()
	if err == nil && n > 0 {
		frame, err = f.body(n, alloc)
	}
	f.err = err
	return frame, err
}

// length reads a length prefix, or looks at a TensorSwap header, which is part of the frame.
func (f *FrameReader) length() (int, error) {
	for f.Version == Swap1 {
		if h := f.ahead[f.from:f.to]; len(h) >= controlHead {
			head, n, err := swapFrame(h, f.limit())
			if err == nil && head+n == controlHead {
				f.from += controlHead
				return 0, nil
			}
			return head + n, err
		}
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	for {
		x, n, err := varint.FromUvarint(f.ahead[f.from:f.to])
		switch {
		case err == nil:
			f.from += n
			if limit := f.limit(); x > uint64(limit) {
				return 0, &Error{Field: "frame", Err: fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, x, limit)}
			}
			return int(x), nil
		case !errors.Is(err, varint.ErrUnderflow):
			return 0, &Error{Field: "frame", Err: fmt.Errorf("%w: length: %v", ErrMalformed, err)}
		}
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
}

func (f *FrameReader) limit() int {
	most := MaxMessageSize
	if f.Version == Swap1 {
		most = MaxFrameSize
	}
	if f.Limit <= 0 || f.Limit > most {
		return most
	}
	return f.Limit
}

// fill reads at least one more byte ahead. It is only called when less than a length or header is there.
func (f *FrameReader) fill() error {
	f.to = copy(f.ahead[:], f.ahead[f.from:f.to])
	f.from = 0
	n, err := io.ReadAtLeast(f.R, f.ahead[f.to:], 1)
	f.to += n
	if err == io.EOF && f.to > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// body reads the n bytes of a frame.
func (f *FrameReader) body(n int, alloc func(n int) []byte) ([]byte, error) {
	frame := alloc(n)
	if len(frame) < n {
		return frame, fmt.Errorf("%w: %d bytes wanted, %d given", ErrNoBuffer, n, len(frame))
	}
	frame = frame[:n]
	k := copy(frame, f.ahead[f.from:f.to])
	f.from += k
	if k == n {
		return frame, nil
	}
	_, err := io.ReadFull(f.R, frame[k:])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return frame, err
}
