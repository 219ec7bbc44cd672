package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What links write, unless a [Format] says otherwise. The outgoing stream of a link is, after eight bytes that name this run of
// its Dispatcher (big endian, never the same twice), a sequence of frames:
//
//	length   varint   of what follows, at most the receiver's bound and the label's
//	flags    1 byte   1 of the state lane, 2 full, 4 again; others are 0
//	number   varint   of the event, or of the state message, in this run; not 0
//	label    varint length, bytes
//	data     the rest
//
// Events are numbered as they are posted: a number that is missing was dropped. The first state message of a stream is full, and
// no other is. "Again" is a message that an earlier stream may have carried already.
//
// The other direction carries acknowledgements, each two varints: the last event and the last state message of this run
// that were received. The first comes at once, before anything of this stream is acted on.

// MaxLabel is how long a label may be, in bytes.
const MaxLabel = 64

// StateLabel is the label under which messages of the state lane are counted and delivered.
const StateLabel = "state"

const (
	epochBytes = 8

	frameState = 1
	frameFull  = 2
	frameAgain = 4

	// frameRoom is what a frame has beside its data, at most: the length, flags, number, and label with its length.
	frameRoom = binary.MaxVarintLen32 + 1 + binary.MaxVarintLen64 + 1 + MaxLabel
)

// errFrame is a frame that no link writes.
var errFrame = errors.New("malformed frame")

// frame is one message on a link's stream.
type frame struct {
	flags byte
	seq   uint64
	label string
	data  []byte
}

// appendFrame appends a frame.
func appendFrame(dst []byte, f *frame) []byte {
	var n [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(n[:], f.seq)
	dst = binary.AppendUvarint(dst, uint64(1+k+1+len(f.label)+len(f.data)))
	dst = append(dst, f.flags)
	dst = append(dst, n[:k]...)
	dst = append(dst, byte(len(f.label))) // a varint of one byte, since labels are short
	dst = append(dst, f.label...)
	return append(dst, f.data...)
}

// readFrame reads a frame whose data is at most max bytes long. The data is the caller's. At the end of the stream between two
// frames the error is io.EOF, within a frame io.ErrUnexpectedEOF: half a message is never returned.
func readFrame(r *bufio.Reader, most int) (frame, error) {
	size, err := binary.ReadUvarint(r)
	switch {
	case err != nil:
		return frame{}, err // io.EOF only if there was no byte
	case size > uint64(most+frameRoom):
		return frame{}, fmt.Errorf("%w: %d bytes, at most %d", errFrame, size, most+frameRoom)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, unfinished(err)
	}
	return parseFrame(b, most)
}

// parseFrame reads a frame without its length.
func parseFrame(b []byte, most int) (frame, error) {
	if len(b) == 0 {
		return frame{}, fmt.Errorf("%w: it is empty", errFrame)
	}
	f := frame{flags: b[0]}
	var n int
	f.seq, n = binary.Uvarint(b[1:])
	rest := b[1+max(n, 0):]
	switch {
	case f.flags&^(frameState|frameFull|frameAgain) != 0 || f.flags&(frameState|frameFull) == frameFull:
		return frame{}, fmt.Errorf("%w: flags %#x", errFrame, f.flags)
	case n <= 0 || f.seq == 0:
		return frame{}, fmt.Errorf("%w: no number", errFrame)
	case len(rest) == 0 || rest[0] > MaxLabel || int(rest[0]) > len(rest)-1:
		return frame{}, fmt.Errorf("%w: no label", errFrame)
	}
	end := 1 + int(rest[0])
	f.label, f.data = string(rest[1:end]), rest[end:len(rest):len(rest)]
	if len(f.data) > most {
		return frame{}, fmt.Errorf("%w: a message of %d bytes, at most %d", errFrame, len(f.data), most)
	}
	return f, nil
}

// unfinished makes an end of the stream inside a message an error of its own.
func unfinished(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendAck appends an acknowledgement.
func appendAck(dst []byte, event, state uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, event), state)
}

func readAck(r *bufio.Reader) (event, state uint64, err error) {
	if event, err = binary.ReadUvarint(r); err != nil {
		return 0, 0, err
	}
	state, err = binary.ReadUvarint(r)
	return event, state, unfinished(err)
}
