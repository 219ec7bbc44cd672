package tensor

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"dray"
)

// Entry is a tensor that a new file is to hold.
type Entry struct {
	// Name names it. It must be UTF-8 and not "__metadata__".
	Name string
	// DType must be one of safetensors' own.
	DType DType
	// Shape is the length of each axis.
	Shape []int64
}

// AppendHeader appends to dst the first bytes of a safetensors file that holds the entries in the given order, one after
// the other, and returns the extended slice and the size of the tensors' data. The header's length is a multiple of 8 and
// the bytes depend on nothing but the arguments: metadata comes first, by key. It fails on entries that no file can hold.
func AppendHeader(dst []byte, entries []Entry, metadata map[string]string) (header []byte, data int64, err error) {
	from := len(dst)
	b := append(dst, make([]byte, 8)...)
	b = append(b, '{')
	if len(metadata) > 0 {
		b = append(b, `"`+metadataKey+`":{`...)
		for i, k := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendJSON(b, k), ':')
			b = appendJSON(b, metadata[k])
			if !utf8.ValidString(k) || !utf8.ValidString(metadata[k]) {
				return nil, 0, refuse(Entry{Name: metadataKey}, "%s is not UTF-8", quoteShort(k))
			}
		}
		b = append(b, '}')
	}
	seen := make(map[string]bool, len(entries))
	for i, e := range entries {
		n, fits := elements(e.Shape)
		size, sized := e.DType.Bytes(n)
		switch {
		case safetensorsTypes[e.DType.Name] != e.DType || !e.DType.Known():
			return nil, 0, foreign(e, "safetensors has no type %s", e.DType)
		case !fits || !sized || size > 1<<62-data:
			return nil, 0, refuse(e, "shape %v of %s has no size in bytes", e.Shape, e.DType)
		case e.Name == metadataKey || !utf8.ValidString(e.Name) || len(e.Name) > MaxName:
			return nil, 0, refuse(e, "it cannot be a name")
		case seen[e.Name]:
			return nil, 0, refuse(e, "it occurs twice")
		case len(e.Shape) > MaxDims:
			return nil, 0, refuse(e, "%d axes, more than %d", len(e.Shape), MaxDims)
		}
		seen[e.Name] = true
		if i > 0 || len(metadata) > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, e.Name)
		b = append(b, `:{"dtype":"`+e.DType.Name+`","shape":[`...)
		for j, d := range e.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, data, 10)
		data += size
		b = append(b, ',')
		b = strconv.AppendInt(b, data, 10)
		b = append(b, "]}"...)
	}
	b = append(b, '}')
	for (len(b)-from)%8 != 0 {
		b = append(b, ' ')
	}
	n := len(b) - from - 8
	if n > MaxHeader || len(entries) > MaxTensors {
		err := fmt.Errorf("%w: %d tensors make a header of %d bytes", dray.ErrTooBig, len(entries), n)
		return nil, 0, border("write tensor header", err)
	}
	binary.LittleEndian.PutUint64(b[from:], uint64(n))
	return b, data, nil
}

func refuse(e Entry, reason string, args ...any) error {
	return border("write tensor header", fmt.Errorf("tensor %s: %w", quoteShort(e.Name), fmt.Errorf(reason, args...)))
}

// foreign is refuse for what only another format can hold.
func foreign(e Entry, reason string, args ...any) error {
	return refuse(e, "%w: "+reason, append([]any{ErrForeign}, args...)...)
}

// appendJSON appends s as a JSON string, escaping no more than JSON demands.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, `\u00`...)
			b = append(b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// Piece is a tensor, or part of one, that is to be copied into a new file.
type Piece struct {
	// Tensor is where it comes from.
	Tensor *Tensor
	// Slices select a part of it; without any it is the whole tensor.
	Slices []Slice
	// Name is what it is called in the new file. If empty, it keeps its name.
	Name string
}

// Part is one stretch of a new file's data: the bytes of Runs, in their order, written from Offset on.
type Part struct {
	// Piece is the index of the piece that the part is made from.
	Piece int
	// Offset is the first byte in the new file.
	Offset int64
	// Runs are the bytes in the source file.
	Runs Runs
}

// Subset is a safetensors file to be made from tensors of others.
type Subset struct {
	// Header is the beginning of the file.
	Header []byte
	// Size is the length of the file in bytes.
	Size int64
	// Parts are the rest of the file, in order and without gaps.
	Parts []Part
}

// NewSubset plans a safetensors file that holds the pieces. They keep their order if that leaves every tensor on a
// multiple of its element size, which loaders that map the file rely on; otherwise wider types come first, as the
// reference implementation writes them. It fails with [ErrForeign] for tensors that are compressed, stored in Fortran
// order, or of a type that safetensors does not have, and for slices that [Tensor.Runs] refuses.
func NewSubset(pieces []Piece, metadata map[string]string) (*Subset, error) {
	parts := make([]Part, len(pieces))
	entries := make([]Entry, len(pieces))
	for i, p := range pieces {
		runs, err := p.Tensor.Runs(p.Slices...)
		if err != nil {
			return nil, err
		}
		name := p.Name
		if name == "" {
			name = p.Tensor.Name
		}
		entries[i] = Entry{Name: name, DType: p.Tensor.DType, Shape: runs.Shape()}
		parts[i] = Part{Piece: i, Runs: runs}
		switch {
		case p.Tensor.Fortran && len(p.Tensor.Shape) > 1:
			return nil, foreign(entries[i], "it is stored in Fortran order, which safetensors does not have")
		case p.Tensor.Packed:
			return nil, foreign(entries[i], "it is compressed inside its file, and safetensors compresses nothing")
		}
	}
	if !aligned(parts, entries) {
		slices.SortStableFunc(parts, func(a, b Part) int {
			return compare(entries[b.Piece].DType.Bits, entries[a.Piece].DType.Bits)
		})
	}
	ordered := make([]Entry, len(parts))
	for i, p := range parts {
		ordered[i] = entries[p.Piece]
	}
	header, data, err := AppendHeader(nil, ordered, metadata)
	if err != nil {
		return nil, err
	}
	at := int64(len(header))
	for i := range parts {
		parts[i].Offset = at
		at += parts[i].Runs.Bytes()
	}
	if at != int64(len(header))+data {
		panic("tensor: the runs of a subset do not add up to its header")
	}
	return &Subset{Header: header, Size: at, Parts: parts}, nil
}

// aligned reports whether parts in this order lie on multiples of their element sizes.
func aligned(parts []Part, entries []Entry) bool {
	at := int64(0)
	for _, p := range parts {
		if width := max(entries[p.Piece].DType.Bits/8, 1); at%width != 0 {
			return false
		}
		at += p.Runs.Bytes()
	}
	return true
}
