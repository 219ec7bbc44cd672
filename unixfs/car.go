package unixfs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
	carstore "github.com/ipld/go-car/v2/storage"

	"dray"
)

// maxCARHeader bounds the header of a CAR that is read: some 25,000 roots.
const maxCARHeader = 1 << 20

// WriteCAR writes everything under roots to w as a CAR, version 1: parents before children, depth first, each block
// once. Blocks that are inside their own CIDs are not written. Blocks of every codec that [Links] knows are followed.
// It asks g for one block at a time, and gives w few writes per block, so w should be buffered if it is slow. Errors
// are those of [Links], of g and of w; what was written by then is a valid CAR but for its end.
func WriteCAR(ctx context.Context, w io.Writer, roots []cid.Cid, g dray.Getter) error {
	if len(roots) == 0 {
		return errors.New("a CAR needs a root")
	}
	// The library writes the header at once. Wrapping w hides all methods but Write, lest it be written to at offsets.
	if _, err := carstore.NewWritable(struct{ io.Writer }{w}, roots, car.WriteAsCarV1(true)); err != nil {
		return fmt.Errorf("write CAR header: %w", err)
	}
	sweep := NewSweep(0, roots...)
	var next []cid.Cid
	var head []byte
	for {
		if next = sweep.Need(next[:0], 1); len(next) == 0 {
			return sweep.Err()
		}
		b, err := g.Get(ctx, next[0])
		if err != nil {
			return err
		}
		c := b.CID()
		head = binary.AppendUvarint(head[:0], uint64(c.ByteLen()+b.Size()))
		head = append(head, c.KeyString()...)
		if _, err := w.Write(head); err != nil {
			return err
		}
		if _, err := w.Write(b.Data()); err != nil {
			return err
		}
		if err := sweep.Feed(b); err != nil {
			return err
		}
	}
}

// CARStats counts what [ReadCAR] read.
type CARStats struct {
	// Roots are the roots that the header lists. They need not be in the CAR.
	Roots []cid.Cid
	// Blocks and Bytes count the blocks and their lengths, repeated ones every time.
	Blocks, Bytes int64
}

// ReadCAR reads a CAR, of version 1 or 2, and calls put with each block after checking it against its CID; blocks
// that are inside their own CIDs are checked and left out. It never holds more than one block. The index of a version
// 2 CAR is not read.
//
// It stops at the first error: that of put or of ctx, an [*dray.Error] wrapping [dray.ErrCorrupt] or [dray.ErrBadCID]
// for a block that does not match, [io.ErrUnexpectedEOF] for a CAR that is cut off, or one wrapping [ErrInvalid] or
// [dray.ErrTooBig] for what cannot be read or is longer than a block may be. The stats say how far it came.
func ReadCAR(ctx context.Context, r io.Reader, put func(dray.Block) error) (CARStats, error) {
	return ScanCAR(ctx, r, func(c cid.Cid, data []byte) error {
		b, err := dray.NewBlock(c, data)
		if err != nil || dray.IsIdentity(c) {
			return err
		}
		return put(b)
	})
}

// ScanCAR is [ReadCAR] for callers that check the blocks themselves, many at a time: it calls each with every CID and
// the bytes that are filed under it, unchecked, which each may keep.
func ScanCAR(ctx context.Context, r io.Reader, each func(c cid.Cid, data []byte) error) (CARStats, error) {
	in := &countReader{r: bufio.NewReaderSize(r, 256<<10)}
	end, err := carEnd(in.r)
	if err != nil {
		return CARStats{}, err
	}
	br, err := car.NewBlockReader(in,
		car.WithTrustedCAR(true), // to be verified with the hash functions that are allowed
		car.MaxAllowedHeaderSize(maxCARHeader),
		car.MaxAllowedSectionSize(dray.MaxBlockSize+dray.MaxCIDSize))
	if err != nil {
		return CARStats{}, carError("header", err)
	}
	stats := CARStats{Roots: br.Roots}
	for {
		if err := ctx.Err(); err != nil {
			return stats, err
		}
		start := in.n
		b, err := br.Next()
		if errors.Is(err, io.EOF) && in.n == start && (end == 0 || in.n >= end) {
			return stats, nil
		}
		if err != nil {
			// The library takes the end of input for the end of the CAR anywhere; carError does not.
			return stats, carError(fmt.Sprintf("block %d", stats.Blocks), err)
		}
		if len(b.RawData()) > dray.MaxBlockSize {
			return stats, at("import", b.Cid(), dray.ErrTooBig)
		}
		if err := each(b.Cid(), b.RawData()); err != nil {
			return stats, err
		}
		stats.Blocks++
		stats.Bytes += int64(len(b.RawData()))
	}
}

func carError(what string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("CAR %s: %w", what, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w: CAR %s: %w", ErrInvalid, what, err)
}

// carEnd returns the byte at which the blocks of a version 2 CAR end, or 0 for version 1, whose blocks end with the
// input. The library does not tell when the input ends before that.
func carEnd(r *bufio.Reader) (int64, error) {
	const characteristics = 16
	head, err := r.Peek(car.PragmaSize + car.HeaderSize)
	if string(head[:min(len(head), car.PragmaSize)]) != string(car.Pragma) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("CAR header: %w", io.ErrUnexpectedEOF)
	}
	offset := binary.LittleEndian.Uint64(head[car.PragmaSize+characteristics:])
	size := binary.LittleEndian.Uint64(head[car.PragmaSize+characteristics+8:])
	if offset < car.PragmaSize+car.HeaderSize || offset > 1<<62 || size > 1<<62 {
		return 0, invalid("CAR version 2 with blocks at %d, %d bytes long", offset, size)
	}
	return int64(offset + size), nil
}

// countReader counts what was taken from a buffer.
type countReader struct {
	r *bufio.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *countReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
