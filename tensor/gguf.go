package tensor

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// A GGUF file is, in order, all little-endian:
//
//	magic "GGUF", u32 version, u64 number of tensors, u64 number of keys
//	per key: string, u32 value type, value
//	per tensor: string, u32 number of axes, u64 per axis (the fastest first), u32 type, u64 offset
//	padding to a multiple of general.alignment (32 if not given), from which the offsets count; the tensors, each aligned
//
// A string is a u64 length and bytes. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Versions 2 and 3 differ
// in nothing that is seen here; version 3 may be big-endian, which is refused.

const (
	ggufMaxHeader  = 256 << 20 // tokenizers make headers of some 10 MB
	ggufMaxKeys    = 1 << 16
	ggufMaxDims    = 4 // GGML_MAX_DIMS
	ggufAlignKey   = "general.alignment"
	ggufAlign      = 32
	ggufKeepString = 64 << 10 // longer strings are summed up
	ggufNesting    = 4
)

// ggufValues are the metadata types of fixed size, by number.
var ggufValues = map[uint32]struct {
	name string
	size int
}{
	0: {"uint8", 1}, 1: {"int8", 1}, 2: {"uint16", 2}, 3: {"int16", 2}, 4: {"uint32", 4}, 5: {"int32", 4},
	6: {"float32", 4}, 7: {"bool", 1}, 10: {"uint64", 8}, 11: {"int64", 8}, 12: {"float64", 8},
}

const (
	ggufString = 8
	ggufArray  = 9
)

// ggufReader is a cursor with what has been learned on the way.
type ggufReader struct {
	*cursor
	file  *File
	align int64
	kept  int // bytes of metadata
}

func readGGUF(c *cursor) (*File, error) {
	f := &File{Format: GGUF, Size: c.size, Metadata: make(map[string]string)}
	g := &ggufReader{cursor: c, file: f, align: ggufAlign}
	tensors, keys, err := g.preamble()
	if err != nil {
		return nil, err
	}
	for range keys {
		if err := g.key(); err != nil {
			return nil, err
		}
		if c.pos > ggufMaxHeader {
			return nil, g.fail("header of more than %d bytes", ggufMaxHeader)
		}
	}
	var infos []ggufTensor
	for range tensors {
		info, err := g.tensor()
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	g.file.HeaderBytes = c.pos
	g.file.DataStart = (c.pos + g.align - 1) / g.align * g.align
	if len(infos) == 0 {
		g.file.DataStart = min(g.file.DataStart, c.size)
	}
	return g.file, g.place(infos)
}

func (g *ggufReader) preamble() (tensors, keys uint64, err error) {
	magic, err := g.take(4, "magic")
	if err != nil {
		return 0, 0, err
	}
	if string(magic) != "GGUF" {
		g.pos = 0
		return 0, 0, g.fail("file begins with %q and not with \"GGUF\"", magic)
	}
	version, err := g.u32("version")
	switch {
	case err != nil:
		return 0, 0, err
	case version != 2 && version != 3:
		g.pos -= 4
		if version&0xffff == 0 && version != 0 {
			return 0, 0, g.fail("big-endian files are not supported")
		}
		return 0, 0, g.fail("version %d, want 2 or 3", version)
	}
	if tensors, err = g.u64("number of tensors"); err != nil {
		return 0, 0, err
	}
	if tensors > MaxTensors {
		g.pos -= 8
		return 0, 0, g.fail("%d tensors, more than %d", tensors, MaxTensors)
	}
	if keys, err = g.u64("number of keys"); err != nil {
		return 0, 0, err
	}
	if keys > ggufMaxKeys {
		g.pos -= 8
		return 0, 0, g.fail("%d keys, more than %d", keys, ggufMaxKeys)
	}
	return tensors, keys, nil
}

// str reads a string of at most limit bytes; a longer one is an error.
func (g *ggufReader) str(limit int, what string) (string, error) {
	at := g.pos
	n, err := g.u64(what)
	if err != nil {
		return "", err
	}
	if n > uint64(limit) {
		g.pos = at
		return "", g.fail("%s of %d bytes, more than %d", what, n, limit)
	}
	b, err := g.take(int(n), what)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		g.pos = at
		return "", g.fail("%s is not UTF-8", what)
	}
	return string(b), nil
}

func (g *ggufReader) key() error {
	at := g.pos
	key, err := g.str(MaxName, "key")
	if err != nil {
		return err
	}
	if _, twice := g.file.Metadata[key]; twice {
		g.pos = at
		return g.fail("key %s occurs twice", quoteShort(key))
	}
	kind, err := g.u32("value type")
	if err != nil {
		return err
	}
	at = g.pos
	v, err := g.value(kind, 0)
	if err != nil {
		return err
	}
	if key == ggufAlignKey {
		n, err := strconv.ParseUint(v, 10, 32)
		if kind != 4 || err != nil || n == 0 || n&(n-1) != 0 || n > 1<<30 {
			g.pos = at
			return g.fail("%s is %s, want a power of two as a uint32", ggufAlignKey, quoteShort(v))
		}
		g.align = int64(n)
	}
	if g.kept += len(key) + len(v); g.kept > maxMetadata {
		g.pos = at
		return g.fail("more than %d bytes of metadata", maxMetadata)
	}
	g.file.Metadata[key] = v
	return nil
}

// value reads a value and returns it as text.
func (g *ggufReader) value(kind uint32, depth int) (string, error) {
	if g.pos > ggufMaxHeader {
		return "", g.fail("header of more than %d bytes", ggufMaxHeader)
	}
	switch kind {
	case ggufString:
		at := g.pos
		n, err := g.u64("string")
		switch {
		case err != nil:
			return "", err
		case n > ggufKeepString:
			return fmt.Sprintf("string of %d bytes", n), g.skip(n, "string")
		}
		g.pos = at
		return g.str(ggufKeepString, "string")
	case ggufArray:
		return g.array(depth)
	}
	t, ok := ggufValues[kind]
	if !ok {
		g.pos -= 4
		return "", g.fail("unknown value type %d", kind)
	}
	b, err := g.take(t.size, t.name)
	if err != nil {
		return "", err
	}
	var n uint64
	for i, c := range b {
		n |= uint64(c) << (8 * i)
	}
	switch kind {
	case 1, 3, 5, 11: // Signed: extend the sign.
		shift := 64 - 8*t.size
		return strconv.FormatInt(int64(n<<shift)>>shift, 10), nil
	case 6:
		return strconv.FormatFloat(float64(math.Float32frombits(uint32(n))), 'g', -1, 32), nil
	case 12:
		return strconv.FormatFloat(math.Float64frombits(n), 'g', -1, 64), nil
	case 7:
		if n > 1 {
			g.pos--
			return "", g.fail("bool of value %d", n)
		}
		return strconv.FormatBool(n == 1), nil
	}
	return strconv.FormatUint(n, 10), nil
}

// array passes over an array and returns a summary.
func (g *ggufReader) array(depth int) (string, error) {
	if depth == ggufNesting {
		return "", g.fail("arrays nested more than %d deep", ggufNesting)
	}
	kind, err := g.u32("element type")
	if err != nil {
		return "", err
	}
	at := g.pos
	n, err := g.u64("array")
	if err != nil {
		return "", err
	}
	if t, ok := ggufValues[kind]; ok {
		if n > ggufMaxHeader {
			g.pos = at
			return "", g.fail("array of %d elements, in a header of at most %d bytes", n, ggufMaxHeader)
		}
		return fmt.Sprintf("%s[%d]", t.name, n), g.skip(n*uint64(t.size), "array")
	}
	if kind != ggufString && kind != ggufArray {
		g.pos = at - 4
		return "", g.fail("unknown element type %d", kind)
	}
	if n > uint64(g.size-g.pos)/8 { // Each element has a length at least.
		g.pos = at
		return "", g.fail("array of %d elements goes beyond the end of the file at %d", n, g.size)
	}
	name := "string"
	if kind == ggufArray {
		name = "array"
	}
	for range n {
		if g.pos > ggufMaxHeader {
			return "", g.fail("header of more than %d bytes", ggufMaxHeader)
		}
		if kind == ggufArray {
			_, err = g.array(depth + 1)
		} else if k, e := g.u64("string"); e != nil {
			err = e
		} else {
			err = g.skip(k, "string")
		}
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s[%d]", name, n), nil
}

// ggufTensor is a tensor with its offset still relative.
type ggufTensor struct {
	Tensor
	at     int64 // of its description
	offset uint64
	size   int64 // -1 if the type is unknown
}

func (g *ggufReader) tensor() (ggufTensor, error) {
	t := ggufTensor{at: g.pos, size: -1}
	fail := func(reason string, args ...any) (ggufTensor, error) {
		he := malformed(GGUF, t.at, reason, args...)
		he.Tensor = t.Name
		return t, he
	}
	if g.pos > ggufMaxHeader {
		return fail("header of more than %d bytes", ggufMaxHeader)
	}
	var err error
	if t.Name, err = g.str(MaxName, "tensor name"); err != nil {
		return t, err
	}
	dims, err := g.u32("number of axes")
	if err != nil {
		return t, err
	}
	if dims > ggufMaxDims {
		return fail("%d axes, more than %d", dims, ggufMaxDims)
	}
	for range dims {
		n, err := g.u64("axis")
		if err != nil {
			return t, err
		}
		if n > math.MaxInt64 {
			return fail("axis of %d elements", n)
		}
		t.Shape = append(t.Shape, int64(n))
	}
	kind, err := g.u32("tensor type")
	if err != nil {
		return t, err
	}
	if t.offset, err = g.u64("offset"); err != nil {
		return t, err
	}
	n, fits := elements(t.Shape)
	if !fits {
		return fail("the number of elements overflows")
	}
	known, ok := ggmlTypes[kind]
	if t.DType = known; !ok {
		t.DType = DType{Name: fmt.Sprintf("GGML_%d", kind)}
	} else {
		if len(t.Shape) > 0 && t.Shape[0]%known.Elems != 0 {
			return fail("rows of %d elements are no whole blocks of %d, as %s has", t.Shape[0], known.Elems, known)
		}
		if t.size, ok = known.Bytes(n); !ok {
			return fail("%d elements of %s have no size in bytes", n, known)
		}
	}
	slices.Reverse(t.Shape)
	return t, nil
}

// place turns offsets into ranges and checks them.
func (g *ggufReader) place(infos []ggufTensor) error {
	f := g.file
	slices.SortStableFunc(infos, func(a, b ggufTensor) int {
		switch {
		case a.offset != b.offset && a.offset < b.offset:
			return -1
		case a.offset != b.offset:
			return 1
		}
		return compare(a.size, b.size)
	})
	names := make(map[string]bool, len(infos))
	next := f.DataStart
	for i, t := range infos {
		fail := func(reason string, args ...any) error {
			he := malformed(GGUF, t.at, reason, args...)
			he.Tensor = t.Name
			return he
		}
		room := f.Size - f.DataStart
		switch {
		case names[t.Name]:
			return fail("it occurs twice")
		case t.offset%uint64(g.align) != 0:
			return fail("offset %d is no multiple of the alignment %d", t.offset, g.align)
		case room < 0 || t.offset > uint64(room) || t.size > room-int64(t.offset):
			return fail("%d bytes at offset %d, and the file has %d bytes of data", max(t.size, 0), t.offset, max(room, 0))
		}
		names[t.Name] = true
		t.Begin = f.DataStart + int64(t.offset)
		if t.Begin < next {
			return fail("its data overlaps what is before it: it begins at %d and that ends at %d", t.Begin, next)
		}
		t.End = t.Begin + t.size
		if t.size < 0 {
			// Of an unknown type: it ends where the next one begins, or the file.
			t.End = f.Size
			if i+1 < len(infos) && infos[i+1].offset <= uint64(room) {
				t.End = f.DataStart + int64(infos[i+1].offset)
			}
		}
		next = t.End
		f.Tensors = append(f.Tensors, t.Tensor)
	}
	return nil
}
