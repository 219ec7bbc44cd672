package tensor

import (
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON (RFC 8259) strictly and without building a tree: no duplicate keys, no lone surrogates, nesting
// bounded. It exists because encoding/json accepts duplicate keys, and because faults must be told by their byte.
type scanner struct {
	b      []byte
	i      int
	at     int64 // the byte of the file at which b begins
	format Format
}

// maxNesting bounds the depth of values that are passed over.
const maxNesting = 64

func (s *scanner) fail(i int, reason string, args ...any) error {
	return malformed(s.format, s.at+int64(i), reason, args...)
}

// peek passes over white space and returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte, where string) error {
	if s.peek() == c {
		s.i++
		return nil
	}
	if s.i == len(s.b) {
		return s.fail(s.i, "JSON ends where %q should be, %s", c, where)
	}
	return s.fail(s.i, "%q where %q should be, %s", s.b[s.i], c, where)
}

// object calls field for each key, with the place of the key; field reads the value.
func (s *scanner) object(field func(key string, at int) error) error {
	if err := s.expect('{', "at the start of an object"); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.i++
		return nil
	}
	var few [8]string
	keys := few[:0]
	var many map[string]struct{}
	for {
		s.peek()
		at := s.i
		key, err := s.str()
		if err != nil {
			return err
		}
		_, twice := many[key]
		if twice || slices.Contains(keys, key) {
			return s.fail(at, "%s occurs twice", quoteShort(key))
		}
		switch {
		case many != nil:
			many[key] = struct{}{}
		case len(keys) < len(few):
			keys = append(keys, key)
		default:
			many = map[string]struct{}{key: {}}
			for _, k := range keys {
				many[k] = struct{}{}
			}
			keys = keys[:0]
		}
		if err := s.expect(':', "after a key"); err != nil {
			return err
		}
		if err := field(key, at); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.i++
			continue
		}
		return s.expect('}', "at the end of an object")
	}
}

// array calls item for each element, which reads it.
func (s *scanner) array(item func() error) error {
	if err := s.expect('[', "at the start of an array"); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.i++
			continue
		}
		return s.expect(']', "at the end of an array")
	}
}

// str reads a string.
func (s *scanner) str() (string, error) {
	from, to, plain, err := s.passString()
	if err != nil {
		return "", err
	}
	if plain {
		return string(s.b[from:to]), nil
	}
	out := make([]byte, 0, to-from)
	for i := from; i < to; {
		c := s.b[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		i += 2
		switch c := s.b[i-1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := s.hex(i)
			i += 4
			if utf16.IsSurrogate(r) {
				if i+6 > to || s.b[i] != '\\' || s.b[i+1] != 'u' {
					return "", s.fail(i, "half a surrogate pair in a string")
				}
				if r = utf16.DecodeRune(r, s.hex(i+2)); r == utf8.RuneError {
					return "", s.fail(i, "half a surrogate pair in a string")
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return string(out), nil
}

// hex returns the value of the four hexadecimal digits at i, which passString has seen.
func (s *scanner) hex(i int) rune {
	n, _ := strconv.ParseUint(string(s.b[i:i+4]), 16, 32)
	return rune(n)
}

// passString passes over a string, checks its escapes, and returns the bounds of what is between the quotes and
// whether it has no escapes.
func (s *scanner) passString() (from, to int, plain bool, err error) {
	if err := s.expect('"', "at the start of a string"); err != nil {
		return 0, 0, false, err
	}
	from, plain = s.i, true
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			s.i++
			return from, s.i - 1, plain, nil
		case c < 0x20:
			return 0, 0, false, s.fail(s.i, "control character %#02x in a string", c)
		case c == '\\':
			plain = false
			n := s.escape()
			if n == 0 {
				return 0, 0, false, s.fail(s.i, "bad escape in a string")
			}
			s.i += n
		default:
			s.i++
		}
	}
	return 0, 0, false, s.fail(from-1, "a string without an end")
}

// escape returns the length of the escape at s.i, or 0 when it is none.
func (s *scanner) escape() int {
	if s.i+1 >= len(s.b) {
		return 0
	}
	switch s.b[s.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if s.i+6 > len(s.b) {
			return 0
		}
		for _, c := range s.b[s.i+2 : s.i+6] {
			if !isHex(c) {
				return 0
			}
		}
		return 6
	}
	return 0
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// count reads a number that counts something: not negative, no fraction, at most an int64.
func (s *scanner) count() (int64, error) {
	s.peek()
	at := s.i
	n := int64(0)
	for s.i < len(s.b) && isDigit(s.b[s.i]) {
		d := int64(s.b[s.i] - '0')
		if n > (math.MaxInt64-d)/10 {
			return 0, s.fail(at, "number beyond 2^63")
		}
		n = n*10 + d
		s.i++
	}
	switch {
	case s.i == at:
		return 0, s.fail(at, "not a number that counts: it should begin with a digit")
	case s.i > at+1 && s.b[at] == '0':
		return 0, s.fail(at, "number with a leading zero")
	case s.i < len(s.b) && (s.b[s.i] == '.' || s.b[s.i] == 'e' || s.b[s.i] == 'E'):
		return 0, s.fail(at, "number with a fraction or an exponent")
	}
	return n, nil
}

// skip passes over any value and returns its text.
func (s *scanner) skip(depth int) ([]byte, error) {
	c := s.peek()
	from := s.i
	var err error
	switch {
	case depth > maxNesting:
		return nil, s.fail(s.i, "nested more than %d deep", maxNesting)
	case c == '{':
		err = s.object(func(string, int) error {
			_, err := s.skip(depth + 1)
			return err
		})
	case c == '[':
		err = s.array(func() error {
			_, err := s.skip(depth + 1)
			return err
		})
	case c == '"':
		_, _, _, err = s.passString()
	case c == '-' || isDigit(c):
		err = s.passNumber()
	default:
		err = s.passWord()
	}
	return s.b[from:s.i], err
}

func (s *scanner) passWord() error {
	for _, w := range []string{"true", "false", "null"} {
		if len(s.b)-s.i >= len(w) && string(s.b[s.i:s.i+len(w)]) == w {
			s.i += len(w)
			return nil
		}
	}
	return s.fail(s.i, "not a JSON value")
}

func (s *scanner) passNumber() error {
	at := s.i
	digits := func() int {
		from := s.i
		for s.i < len(s.b) && isDigit(s.b[s.i]) {
			s.i++
		}
		return s.i - from
	}
	is := func(cs ...byte) bool { return s.i < len(s.b) && slices.Contains(cs, s.b[s.i]) }
	if is('-') {
		s.i++
	}
	zero := is('0')
	if n := digits(); n == 0 || zero && n > 1 {
		return s.fail(at, "bad number")
	}
	if is('.') {
		s.i++
		if digits() == 0 {
			return s.fail(at, "bad number")
		}
	}
	if is('e', 'E') {
		s.i++
		if is('+', '-') {
			s.i++
		}
		if digits() == 0 {
			return s.fail(at, "bad number")
		}
	}
	return nil
}

// end says whether nothing but white space follows.
func (s *scanner) end() error {
	if s.peek() != 0 || s.i < len(s.b) {
		return s.fail(s.i, "%q after the end of the JSON", s.b[s.i])
	}
	return nil
}

// checkUTF8 finds the first byte that is no UTF-8.
func (s *scanner) checkUTF8() error {
	if utf8.Valid(s.b) {
		return nil
	}
	for i := 0; ; {
		r, n := utf8.DecodeRune(s.b[i:])
		if r == utf8.RuneError && n == 1 {
			return s.fail(i, "not UTF-8")
		}
		i += n
	}
}
