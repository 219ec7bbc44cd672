package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"

	"dray"
)

// Every TensorSwap frame begins with eight bytes, numbers little endian:
//
//	0  kind   1 byte: 0 control, 1 data
//	1  zero   3 bytes
//	4  body   4 bytes: how many bytes follow the header
//
// A data frame's header goes on; then comes the block, which is the body:
//
//	8   pending  4 bytes: bytes that the sender still has queued, below 2^31
//	12  zero     4 bytes
//	16  prefix   16 bytes: the CID without its digest, and zeros
const (
	controlHead = 8
	dataHead    = 32

	frameControl = 0
	frameData    = 1

	// prefixRoom holds every prefix that may travel: version 1 byte, codec 9, hash function 3, digest length 2.
	prefixRoom = 16
)

// appendControlHead appends the header of a control frame.
func appendControlHead(dst []byte, body int) []byte {
	dst = append(dst, frameControl, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(dst, uint32(body))
}

// appendDataHead appends the header of a data frame for a block whose prefix may travel.
func appendDataHead(dst []byte, p cid.Prefix, size int, pending int32) []byte {
	dst = append(dst, frameData, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(pending))
	dst = append(dst, 0, 0, 0, 0)
	at := len(dst)
	dst = AppendPrefix(dst, p)
	for len(dst) < at+prefixRoom {
		dst = append(dst, 0)
	}
	return dst
}

// swapFrame reads the first eight bytes of a frame and returns how long header and body are. Limit bounds both together.
func swapFrame(h []byte, limit int) (head, body int, err error) {
	bad := func(at int, format string, args ...any) (int, int, error) {
		return 0, 0, &Error{Version: Swap1, Field: "frame", Offset: at, Err: fmt.Errorf(format, args...)}
	}
	n := binary.LittleEndian.Uint32(h[4:])
	switch kind := h[0]; {
	case kind > frameData:
		return bad(0, "%w: a frame of kind %d", ErrMalformed, kind)
	case h[1]|h[2]|h[3] != 0:
		return bad(1, "%w: bytes that must be zero", ErrMalformed)
	case kind == frameData && n > dray.MaxBlockSize:
		return bad(4, "%w: %d bytes, at most %d", dray.ErrTooBig, n, dray.MaxBlockSize)
	case kind == frameData:
		head = dataHead
	default:
		head = controlHead
	}
	if total := uint64(head) + uint64(n); total > uint64(limit) {
		return bad(4, "%w: %d bytes, at most %d", ErrTooLong, total, limit)
	}
	return head, int(n), nil
}

// decodeData reads a data frame, whose first eight bytes are checked already.
func decodeData(frame []byte, m *Message) error {
	bad := func(field string, at int, err error) error { return &Error{Field: field, Offset: at, Err: err} }
	pending := binary.LittleEndian.Uint32(frame[8:])
	switch {
	case pending > 1<<31-1:
		return bad("frame.pending", 8, fmt.Errorf("%w: %d bytes", ErrMalformed, pending))
	case binary.LittleEndian.Uint32(frame[12:]) != 0:
		return bad("frame", 12, fmt.Errorf("%w: bytes that must be zero", ErrMalformed))
	}
	p, n, err := swapPrefix(frame[16:dataHead])
	if err != nil {
		return bad("frame.prefix", 16, err)
	}
	for i, b := range frame[16+n : dataHead] {
		if b != 0 {
			return bad("frame.prefix", 16+n+i, fmt.Errorf("%w: bytes that must be zero", ErrMalformed))
		}
	}
	m.PendingBytes = int32(pending)
	m.Blocks = append(m.Blocks, Block{Prefix: p, Data: frame[dataHead:len(frame):len(frame)]})
	return nil
}

// swapPrefix reads the prefix that b begins with and returns its length. Only what [AppendPrefix] writes for a CID that may
// travel is accepted.
func swapPrefix(b []byte) (cid.Prefix, int, error) {
	f, n, err := prefixFields(b)
	if err != nil {
		return cid.Prefix{}, 0, err
	}
	p := cid.Prefix{Version: f[0], Codec: f[1], MhType: f[2], MhLength: int(min(f[3], dray.MaxDigest+1))}
	return p, n, checkPrefix(Swap1, p)
}
