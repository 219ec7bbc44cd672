package wire

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
)

// Bits is a set of leaves as it travels: a run-length bitmap. Bit i stands for leaf i; in a byte, the lowest bit comes
// first. It is a sequence of pieces, each a varint and what follows it:
//
//	n<<2 | bit<<1 | 1    n bytes in which every bit is the same
//	n<<1                 n bytes as they are, which follow
//
// What is beyond the last piece is 0. It stays encoded until it is read, so that a few bytes cannot take much memory.
type Bits []byte

// maxBits is the most leaves that a bitmap can speak of.
const maxBits = math.MaxUint32

// Check returns how many bits b describes, or an error that wraps [ErrMalformed].
func (b Bits) Check() (n uint64, err error) {
	n, _, err = b.scan()
	return n, err
}

// scan is Check, and returns the last byte that b describes.
func (b Bits) scan() (n uint64, last byte, err error) {
	for rest := b; len(rest) > 0; {
		h, k := binary.Uvarint(rest)
		if k <= 0 || k > 1 && rest[k-1] == 0 {
			return 0, 0, fmt.Errorf("%w: bitmap: a piece that does not begin with a varint", ErrMalformed)
		}
		rest = rest[k:]
		bytes := h >> 2
		if h&1 == 0 {
			if bytes = h >> 1; bytes > uint64(len(rest)) {
				return 0, 0, fmt.Errorf("%w: bitmap: %d bytes announced, %d there", ErrMalformed, bytes, len(rest))
			}
			if bytes > 0 {
				last = rest[bytes-1]
			}
			rest = rest[bytes:]
		} else {
			last = -byte(h >> 1 & 1)
		}
		if bytes == 0 || bytes > maxBits/8 || n+8*bytes > maxBits {
			return 0, 0, fmt.Errorf("%w: bitmap: a piece of %d bytes at bit %d", ErrMalformed, bytes, n)
		}
		n += 8 * bytes
	}
	return n, last, nil
}

// Ones yields the runs of ones, first index and length, in order; neighbouring runs are one. It stops at the first piece
// that is malformed; [Bits.Check] says whether there is one.
func (b Bits) Ones() iter.Seq2[uint32, uint32] {
	return func(yield func(first, count uint32) bool) {
		var at, first, count uint32 // the run that may go on
		add := func(from, n uint32) bool {
			if count > 0 && first+count == from {
				count += n
				return true
			}
			if count > 0 && !yield(first, count) {
				return false
			}
			first, count = from, n
			return true
		}
		for rest := b; len(rest) > 0; {
			h, k := binary.Uvarint(rest)
			if k <= 0 {
				break
			}
			rest = rest[k:]
			if h&1 == 1 {
				n := uint32(8 * (h >> 2))
				if h&2 != 0 && !add(at, n) {
					return
				}
				at += n
				continue
			}
			n := h >> 1
			if n > uint64(len(rest)) {
				break
			}
			for _, c := range rest[:n] {
				for i := range uint32(8) {
					if c>>i&1 == 1 && !add(at+i, 1) {
						return
					}
				}
				at += 8
			}
			rest = rest[n:]
		}
		if count > 0 {
			yield(first, count)
		}
	}
}

// BitsWriter encodes a bitmap. The zero BitsWriter is empty and ready. It is not safe for concurrent use.
type BitsWriter struct {
	out     Bits
	literal int    // index in out of the bytes that are a literal so far; its length is not written yet
	lit     int    // their number
	run     uint64 // bytes of the run that is not written yet
	ones    bool   // of ones
	last    byte   // the byte being filled
	fill    uint32 // index of its first bit
	any     bool
}

// Add sets count bits from first on. Runs must come in order and must not overlap; Add panics otherwise.
func (w *BitsWriter) Add(first, count uint32) {
	if count == 0 {
		return
	}
	if first < w.fill {
		panic("wire: a bitmap's runs are not in order")
	}
	w.any = true
	w.skipTo(first)
	for count > 0 {
		at := first - w.fill
		if at == 0 && count >= 8 {
			n := count / 8
			w.bytes(0xff, uint64(n))
			w.fill += 8 * n
			first, count = w.fill, count-8*n
			continue
		}
		n := min(count, 8-at)
		mask := byte(1<<n-1) << at
		if w.last&mask != 0 {
			panic("wire: a bitmap's runs overlap")
		}
		w.last |= mask
		first, count = first+n, count-n
		if at+n == 8 {
			w.bytes(w.last, 1)
			w.last = 0
			w.fill += 8
		}
	}
}

// skipTo ends the byte being filled when the next run begins beyond it.
func (w *BitsWriter) skipTo(first uint32) {
	if first-w.fill < 8 {
		return
	}
	if w.last != 0 {
		w.bytes(w.last, 1)
		w.last = 0
		w.fill += 8
	}
	n := (first - w.fill) / 8
	w.bytes(0, uint64(n))
	w.fill += 8 * n
}

// shortRun is the longest run that is cheaper inside a literal.
const shortRun = 2

// bytes appends n equal bytes.
func (w *BitsWriter) bytes(b byte, n uint64) {
	if n == 0 {
		return
	}
	same := b == 0 && !w.ones || b == 0xff && w.ones
	if w.run > 0 && !same {
		w.flushRun()
	}
	if b == 0 || b == 0xff {
		w.ones = b == 0xff
		w.run += n
		return
	}
	w.literals(b, n)
}

// literals appends bytes as they are.
func (w *BitsWriter) literals(b byte, n uint64) {
	if w.lit == 0 {
		w.literal = len(w.out)
	}
	for range n {
		w.out = append(w.out, b)
	}
	w.lit += int(n)
}

func (w *BitsWriter) flushRun() {
	b := byte(0)
	if w.ones {
		b = 0xff
	}
	n := w.run
	w.run = 0
	if n <= shortRun && w.lit > 0 {
		w.literals(b, n)
		return
	}
	w.flushLiteral()
	h := n<<2 | 1
	if w.ones {
		h |= 2
	}
	w.out = binary.AppendUvarint(w.out, h)
}

// flushLiteral writes the length of a literal in front of it.
func (w *BitsWriter) flushLiteral() {
	if w.lit == 0 {
		return
	}
	var room [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(room[:], uint64(w.lit)<<1)
	w.out = append(w.out, room[:k]...)
	copy(w.out[w.literal+k:], w.out[w.literal:])
	copy(w.out[w.literal:], room[:k])
	w.lit = 0
}

// Bits ends the bitmap and returns it; it is nil when nothing was added. The BitsWriter is empty afterwards, and what it
// returned is the caller's.
func (w *BitsWriter) Bits() Bits {
	if w.last != 0 {
		w.bytes(w.last, 1)
	}
	if w.run > 0 && w.ones {
		w.flushRun()
	}
	w.flushLiteral()
	out := w.out
	*w = BitsWriter{}
	return out
}

// Empty reports whether nothing was added.
func (w *BitsWriter) Empty() bool { return !w.any }
