package tensor

import (
	"fmt"
	"strconv"
	"strings"
)

// An npy file is, in order: npyMagic, a byte each for the major and minor version, the length of the header (u16 in
// version 1, u32 in 2 and 3), the header, the elements. The header is a Python dict of literals:
//
//	{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
//
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

const (
	npyMagic     = "\x93NUMPY"
	npyMaxHeader = 64 << 10 // numpy itself stops at 10,000 unless told to trust the file
	npyNesting   = 16
)

// readNPY reads the header of an npy file that ends at c.size.
func readNPY(c *cursor) (*File, error) {
	t, err := npyTensor(c)
	if err != nil {
		return nil, err
	}
	return &File{Format: NPY, Size: c.size, Tensors: []Tensor{t}, HeaderBytes: c.pos, DataStart: c.pos}, nil
}

// npyTensor reads an npy header; the tensor's range begins where c stands afterwards.
func npyTensor(c *cursor) (Tensor, error) {
	at := c.pos
	head, err := c.take(8, "magic and version")
	if err != nil {
		return Tensor{}, err
	}
	magic, major := string(head[:6]), head[6]
	if magic != npyMagic {
		c.pos = at
		return Tensor{}, c.fail("file begins with %q and not with %q", magic, npyMagic)
	}
	var n uint32
	switch major {
	case 1:
		var short uint16
		short, err = c.u16("header length")
		n = uint32(short)
	case 2, 3:
		n, err = c.u32("header length")
	default:
		c.pos = at + 6
		return Tensor{}, c.fail("version %d, want 1 to 3", major)
	}
	if err != nil {
		return Tensor{}, err
	}
	if n > npyMaxHeader {
		return Tensor{}, c.fail("header of %d bytes, more than %d", n, npyMaxHeader)
	}
	at = c.pos
	b, err := c.take(int(n), "header")
	if err != nil {
		return Tensor{}, err
	}
	p := &literal{b: b, at: at, format: c.format}
	t, err := p.tensor()
	if err != nil {
		return Tensor{}, err
	}
	t.Begin, t.End = c.pos, c.size
	if !t.DType.Known() {
		return t, nil // Its end cannot be told, so it has the rest.
	}
	count, fits := elements(t.Shape)
	size, sized := t.DType.Bytes(count)
	if !fits || !sized {
		return Tensor{}, p.fail(0, "shape %v of %s overflows", t.Shape, t.DType)
	}
	if size > c.size-c.pos {
		return Tensor{}, p.fail(0, "shape %v of %s makes %d bytes, and %d are there", t.Shape, t.DType, size, c.size-c.pos)
	}
	t.End = t.Begin + size
	return t, nil
}

// npyType returns the type that a descr such as "<f4" means.
func npyType(descr string) DType {
	unknown := DType{Name: descr}
	if len(descr) < 2 {
		return unknown
	}
	order, kind := descr[0], descr[1]
	digits := descr[2:]
	if unit := strings.IndexByte(digits, '['); unit >= 0 && (kind == 'M' || kind == 'm') {
		digits = digits[:unit] // Dates have a unit: "<M8[ns]".
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 || !strings.ContainsRune("<>|=", rune(order)) {
		return unknown
	}
	if native, ok := map[string]string{
		"f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64", "b1": "BOOL", "i1": "I8", "u1": "U8",
		"i2": "I16", "u2": "U16", "i4": "I32", "u4": "U32", "i8": "I64", "u8": "U64",
	}[descr[1:]]; ok && (order == '<' || order == '|' || n == 1) {
		return safetensorsTypes[native]
	}
	switch kind {
	case 'f', 'i', 'u', 'c', 'b', 'S', 'a', 'V', 'M', 'm':
	case 'U':
		n *= 4
	default:
		return unknown // 'O': pickled objects.
	}
	return DType{Name: descr, Elems: 1, Bits: n * 8} // "|S0" has no bits, and so no size.
}

// literal reads the subset of Python's literals that npy headers are made of.
type literal struct {
	b      []byte
	i      int
	at     int64
	format Format
}

func (p *literal) fail(i int, reason string, args ...any) error {
	return malformed(p.format, p.at+int64(i), reason, args...)
}

func (p *literal) peek() byte {
	for p.i < len(p.b) && strings.IndexByte(" \t\r\n", p.b[p.i]) >= 0 {
		p.i++
	}
	if p.i < len(p.b) {
		return p.b[p.i]
	}
	return 0
}

func (p *literal) expect(c byte) error {
	if p.peek() != c || p.i == len(p.b) {
		return p.fail(p.i, "header is no Python dict: %q should be here", c)
	}
	p.i++
	return nil
}

func (p *literal) str() (string, error) {
	quote := p.peek()
	if quote != '\'' && quote != '"' {
		return "", p.fail(p.i, "header is no Python dict: a string should be here")
	}
	from := p.i + 1
	for j := from; j < len(p.b); j++ {
		switch p.b[j] {
		case quote:
			p.i = j + 1
			return string(p.b[from:j]), nil
		case '\\', '\n':
			return "", p.fail(j, "escapes and line ends in strings are not supported")
		}
	}
	return "", p.fail(p.i, "a string without an end")
}

// tensor reads the dict.
func (p *literal) tensor() (Tensor, error) {
	var t Tensor
	seen := make(map[string]bool)
	if err := p.expect('{'); err != nil {
		return t, err
	}
	for p.peek() != '}' {
		at := p.i
		key, err := p.str()
		if err != nil {
			return t, err
		}
		if seen[key] {
			return t, p.fail(at, "%s occurs twice", quoteShort(key))
		}
		seen[key] = true
		if err := p.expect(':'); err != nil {
			return t, err
		}
		switch key {
		case "descr":
			err = p.descr(&t)
		case "fortran_order":
			t.Fortran, err = p.truth()
		case "shape":
			err = p.shape(&t)
		default:
			err = p.fail(at, "unknown key %s", quoteShort(key))
		}
		if err != nil {
			return t, err
		}
		if p.peek() != ',' {
			break
		}
		p.i++
	}
	if err := p.expect('}'); err != nil {
		return t, err
	}
	if p.peek() != 0 || p.i < len(p.b) {
		return t, p.fail(p.i, "%q after the end of the header", p.b[p.i])
	}
	if len(seen) != 3 {
		return t, p.fail(0, "header lacks one of descr, fortran_order and shape")
	}
	return t, nil
}

// descr reads a type: a string, or a list for records, which stay unknown.
func (p *literal) descr(t *Tensor) error {
	if p.peek() != '[' {
		s, err := p.str()
		t.DType = npyType(s)
		return err
	}
	from := p.i
	err := p.pass(0)
	t.DType = DType{Name: string(p.b[from:p.i])}
	return err
}

// pass passes over nested lists and tuples of strings and numbers.
func (p *literal) pass(depth int) error {
	switch c := p.peek(); {
	case depth > npyNesting:
		return p.fail(p.i, "nested more than %d deep", npyNesting)
	case c == '[' || c == '(':
		p.i++
		end := c + 2 // ']' is '[' + 2
		if c == '(' {
			end = ')'
		}
		for p.peek() != end {
			if err := p.pass(depth + 1); err != nil {
				return err
			}
			if p.peek() != ',' {
				break
			}
			p.i++
		}
		return p.expect(end)
	case c == '\'' || c == '"':
		_, err := p.str()
		return err
	case isDigit(c):
		_, err := p.count()
		return err
	}
	return p.fail(p.i, "not a Python literal")
}

func (p *literal) truth() (bool, error) {
	p.peek()
	for _, v := range []bool{true, false} {
		word := "False"
		if v {
			word = "True"
		}
		if strings.HasPrefix(string(p.b[p.i:]), word) {
			p.i += len(word)
			return v, nil
		}
	}
	return false, p.fail(p.i, "neither True nor False")
}

func (p *literal) count() (int64, error) {
	p.peek()
	from := p.i
	for p.i < len(p.b) && isDigit(p.b[p.i]) {
		p.i++
	}
	n, err := strconv.ParseInt(string(p.b[from:p.i]), 10, 64)
	if err != nil {
		return 0, p.fail(from, "not a length: %v", err)
	}
	if p.i < len(p.b) && p.b[p.i] == 'L' { // Python 2 wrote long integers so.
		p.i++
	}
	return n, nil
}

func (p *literal) shape(t *Tensor) error {
	if err := p.expect('('); err != nil {
		return err
	}
	for p.peek() != ')' {
		if len(t.Shape) == MaxDims {
			return p.fail(p.i, "more than %d axes", MaxDims)
		}
		n, err := p.count()
		if err != nil {
			return err
		}
		t.Shape = append(t.Shape, n)
		if p.peek() != ',' {
			if len(t.Shape) == 1 {
				return p.fail(p.i, "(%d) is a number to Python and not a tuple", n)
			}
			break
		}
		p.i++
	}
	return p.expect(')')
}

// String names the type and shape of a tensor, for messages: "F32 [3 4]".
func (t *Tensor) String() string { return fmt.Sprintf("%s %v", t.DType, t.Shape) }
