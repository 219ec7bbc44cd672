package tensor

import (
	"encoding/binary"
	"fmt"
	"io"
)

// cursor reads a header front to back through a small window, so that memory does not depend on lengths that the file
// claims. The first have bytes of size are there; running past them is a shortError, and past size a HeaderError.
type cursor struct {
	r      io.ReaderAt
	size   int64
	have   int64
	format Format
	pos    int64

	window []byte // bytes of the file from at on
	at     int64
}

// shortError means that the bytes at hand end before byte need.
type shortError struct{ need int64 }

func (e *shortError) Error() string {
	return fmt.Sprintf("the header goes on to byte %d at least", e.need)
}

func (c *cursor) fail(reason string, args ...any) error {
	return malformed(c.format, c.pos, reason, args...)
}

// check says whether the next n bytes are there. what names them for the message.
func (c *cursor) check(n uint64, what string) error {
	if n > uint64(c.size-c.pos) {
		return c.fail("%s of %d bytes goes beyond the end of the file at %d", what, n, c.size)
	}
	if end := c.pos + int64(n); end > c.have {
		return &shortError{need: end}
	}
	return nil
}

// take returns the next n bytes, valid until the next call. n is at most 64 KiB.
func (c *cursor) take(n int, what string) ([]byte, error) {
	if err := c.check(uint64(n), what); err != nil {
		return nil, err
	}
	if c.pos < c.at || c.pos+int64(n) > c.at+int64(len(c.window)) {
		if err := c.load(n); err != nil {
			return nil, err
		}
	}
	b := c.window[c.pos-c.at:][:n]
	c.pos += int64(n)
	return b, nil
}

func (c *cursor) load(n int) error {
	const most = 64 << 10
	if c.window == nil {
		c.window = make([]byte, 0, min(c.have, most))
	}
	want := min(int64(max(n, cap(c.window))), c.have-c.pos)
	if int64(cap(c.window)) < want {
		c.window = make([]byte, 0, want)
	}
	k, err := c.r.ReadAt(c.window[:want], c.pos)
	if k < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("byte %d: %w", c.pos+int64(k), err)
	}
	c.window, c.at = c.window[:k], c.pos
	return nil
}

// skip passes over n bytes without reading them.
func (c *cursor) skip(n uint64, what string) error {
	if err := c.check(n, what); err != nil {
		return err
	}
	c.pos += int64(n)
	return nil
}

func (c *cursor) u16(what string) (uint16, error) {
	b, err := c.take(2, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint16(b), nil
}

func (c *cursor) u32(what string) (uint32, error) {
	b, err := c.take(4, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (c *cursor) u64(what string) (uint64, error) {
	b, err := c.take(8, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}
