package names

import (
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"github.com/ipfs/go-cid"

	"dray"
)

// The part of dag-cbor that commits need. It is read strictly: numbers in their shortest form and nothing of indefinite length,
// so that there is one way to write a value.

const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6

	cborNull = 0xf6
	tagCID   = 42
)

func appendHead(dst []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(dst, m|byte(n))
	case n < 1<<8:
		return append(dst, m|24, byte(n))
	case n < 1<<16:
		return append(dst, m|25, byte(n>>8), byte(n))
	case n < 1<<32:
		return append(dst, m|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	dst = append(dst, m|27)
	for shift := 56; shift >= 0; shift -= 8 {
		dst = append(dst, byte(n>>shift))
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(b))), b...)
}

// appendHex writes hexadecimal digits as bytes, and none as null.
func appendHex(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, cborNull)
	}
	dst = appendHead(dst, majorBytes, uint64(len(s)/2))
	dst, _ = hex.AppendDecode(dst, []byte(s)) // Check has seen the digits
	return dst
}

// appendCIDBytes writes a CID as bytes, and an undefined one as null.
func appendCIDBytes(dst []byte, c cid.Cid) []byte {
	if !c.Defined() {
		return append(dst, cborNull)
	}
	dst = appendHead(dst, majorBytes, uint64(c.ByteLen()))
	return append(dst, c.KeyString()...)
}

// appendLink writes a CID as a link.
func appendLink(dst []byte, c cid.Cid) []byte {
	dst = appendHead(dst, majorTag, tagCID)
	dst = appendHead(dst, majorBytes, uint64(c.ByteLen()+1))
	return append(append(dst, 0), c.KeyString()...)
}

// reader reads a value, from its beginning. After an error it returns zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = badf("%d bytes before the end: %w", len(r.rest), fmt.Errorf(format, args...))
	}
}

// end returns what was wrong, with what is left over.
func (r *reader) end() error {
	if len(r.rest) > 0 {
		r.fail("more than one value")
	}
	return r.err
}

// head reads the beginning of a value, which must be of a type, and returns its number.
func (r *reader) head(major byte) uint64 {
	if r.err != nil {
		return 0
	}
	if len(r.rest) == 0 {
		r.fail("it ends too early")
		return 0
	}
	first := r.rest[0]
	if first>>5 != major {
		r.fail("a value of type %d where one of type %d belongs", first>>5, major)
		return 0
	}
	low := first & 31
	if low < 24 {
		r.rest = r.rest[1:]
		return uint64(low)
	}
	size := 1 << (low - 24)
	if low > 27 || len(r.rest) < 1+size {
		r.fail("a number that is not whole")
		return 0
	}
	var n uint64
	for _, b := range r.rest[1 : 1+size] {
		n = n<<8 | uint64(b)
	}
	if n < 24 || size > 1 && n>>(4*size) == 0 {
		r.fail("a number that is not in its shortest form")
		return 0
	}
	r.rest = r.rest[1+size:]
	return n
}

// count reads the head of an array or a map, whose length is within bounds.
func (r *reader) count(major byte, least, most int) int {
	n := r.head(major)
	if r.err == nil && (n < uint64(least) || most < 0 || n > uint64(most)) {
		r.fail("%d values, not from %d to %d", n, least, most)
		return 0
	}
	return int(n)
}

// take returns so many bytes, which alias the block.
func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.rest)) {
		r.fail("it ends too early")
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) text(most int) string {
	n := r.head(majorText)
	if r.err == nil && n > uint64(most) {
		r.fail("a text of %d bytes", n)
	}
	b := r.take(n)
	if !utf8.Valid(b) {
		r.fail("a text that is not UTF-8")
	}
	return string(b)
}

func (r *reader) key(want string) {
	if k := r.text(len(want) + 8); r.err == nil && k != want {
		r.fail("the key %q where %q belongs", k, want)
	}
}

// null reads a null, if one comes next.
func (r *reader) null() bool {
	if r.err != nil || len(r.rest) == 0 || r.rest[0] != cborNull {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// hex reads bytes of a length as hexadecimal digits; if that is allowed, a null as none.
func (r *reader) hex(size int, optional bool) string {
	if optional && r.null() {
		return ""
	}
	b := r.take(r.head(majorBytes))
	if r.err == nil && len(b) != size {
		r.fail("%d bytes where %d belong", len(b), size)
	}
	return hex.EncodeToString(b)
}

// cid reads a CID as bytes, or a null.
func (r *reader) cid() cid.Cid {
	if r.null() {
		return cid.Undef
	}
	return r.cast(r.take(r.head(majorBytes)))
}

// link reads a link.
func (r *reader) link() cid.Cid {
	if t := r.head(majorTag); r.err == nil && t != tagCID {
		r.fail("a value with tag %d where a link belongs", t)
	}
	b := r.take(r.head(majorBytes))
	if r.err == nil && (len(b) == 0 || b[0] != 0) {
		r.fail("a link that does not begin with a zero")
	}
	if r.err != nil {
		return cid.Undef
	}
	return r.cast(b[1:])
}

func (r *reader) cast(b []byte) cid.Cid {
	if r.err != nil {
		return cid.Undef
	}
	c, err := cid.Cast(b)
	if err == nil {
		err = dray.CheckCID(c)
	}
	if err != nil {
		r.fail("%w", err)
		return cid.Undef
	}
	return c
}
