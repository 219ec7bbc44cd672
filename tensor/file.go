package tensor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Format is a kind of file.
type Format string

// The formats that this package reads.
const (
	// Safetensors is Hugging Face's format: a length, a JSON header and the tensors, without gaps.
	Safetensors Format = "safetensors"
	// GGUF is llama.cpp's format, versions 2 and 3, little-endian.
	GGUF Format = "gguf"
	// NPY is numpy's format for one array, versions 1 to 3. Its one tensor has no name.
	NPY Format = "npy"
	// NPZ is a zip file of npy files. Tensors are named after the entries, without ".npy".
	NPZ Format = "npz"
)

// Limits on what is read from strangers. A file that goes beyond them is malformed.
const (
	// MaxHeader is the longest safetensors header, in bytes: the limit of the reference implementation.
	MaxHeader = 100_000_000
	// MaxTensors is the most tensors in a file.
	MaxTensors = 1 << 20
	// MaxName is the longest name of a tensor, in bytes.
	MaxName = 64 << 10
	// MaxDims is the most axes of a tensor.
	MaxDims = 64

	maxMetadata = 16 << 20 // Bytes of metadata that are kept, keys and values.
)

// Tensor is one tensor in a file.
type Tensor struct {
	// Name is unique in its file. It is what the file's author chose, in UTF-8; print it quoted.
	Name string
	// DType is the type of the elements. It may be unknown: then Shape is what the file says, and only the whole tensor
	// can be addressed.
	DType DType
	// Shape is the length of each axis, the slowest first. A scalar has none.
	Shape []int64
	// Begin and End are the bytes of the file that the tensor occupies: from Begin up to and not including End.
	Begin, End int64
	// Fortran says that the elements are stored with the first axis varying fastest, as npy files may.
	Fortran bool
	// Packed says that the bytes are compressed: they can be fetched and not sliced.
	Packed bool
	// Shard is the name of the file in which the tensor lies, in a [Model]; else empty.
	Shard string
}

// Bytes returns the number of bytes that the tensor occupies in its file.
func (t *Tensor) Bytes() int64 { return t.End - t.Begin }

// Range returns the bytes that the tensor occupies in its file.
func (t *Tensor) Range() Range { return Range{t.Begin, t.End} }

// Elements returns the number of elements.
func (t *Tensor) Elements() int64 {
	n, _ := elements(t.Shape)
	return n
}

// File is what a tensor file's header says. It is built by [Read], and then only read, which is safe for concurrent use.
type File struct {
	// Format is the kind of file.
	Format Format
	// Size is the length of the file in bytes.
	Size int64
	// Tensors are the tensors in the order of their bytes. Their ranges lie within the file and do not overlap.
	Tensors []Tensor
	// HeaderBytes is how many bytes at the beginning of the file describe it. It is 0 for npz, whose description is
	// scattered.
	HeaderBytes int64
	// DataStart is the first byte at which a tensor may lie.
	DataStart int64
	// Metadata is what the header says beside the tensors. Values of GGUF that are no strings are printed; long ones and
	// arrays are only summed up.
	Metadata map[string]string
}

// Find returns the tensor with that name, or nil. It looks at every tensor.
func (f *File) Find(name string) *Tensor {
	for i := range f.Tensors {
		if f.Tensors[i].Name == name {
			return &f.Tensors[i]
		}
	}
	return nil
}

// Names returns the tensors' names in file order.
func (f *File) Names() []string { return tensorNames(f.Tensors) }

// Unknown returns the indexes of the tensors whose type is unknown to this package, for a warning. Their sizes are those
// that the file gives and could not be checked.
func (f *File) Unknown() []int {
	var unknown []int
	for i := range f.Tensors {
		if !f.Tensors[i].DType.Known() {
			unknown = append(unknown, i)
		}
	}
	return unknown
}

func tensorNames(ts []Tensor) []string {
	names := make([]string, len(ts))
	for i := range ts {
		names[i] = ts[i].Name
	}
	return names
}

// FormatOf returns the format that a file's name promises, or "" when it promises none.
func FormatOf(name string) Format {
	switch strings.ToLower(path.Ext(name)) {
	case ".safetensors":
		return Safetensors
	case ".gguf":
		return GGUF
	case ".npy":
		return NPY
	case ".npz":
		return NPZ
	}
	return ""
}

// Detect returns the format of a file that begins with prefix, or "" when it is none or prefix is too short to tell. 16
// bytes are enough.
func Detect(prefix []byte) Format {
	switch {
	case bytes.HasPrefix(prefix, []byte("GGUF")):
		return GGUF
	case bytes.HasPrefix(prefix, []byte(npyMagic)):
		return NPY
	case bytes.HasPrefix(prefix, []byte("PK\x03\x04")), bytes.HasPrefix(prefix, []byte("PK\x05\x06")):
		return NPZ
	}
	if len(prefix) > 8 && prefix[8] == '{' && binary.LittleEndian.Uint64(prefix) <= MaxHeader {
		return Safetensors
	}
	return ""
}

// HeaderNeed says how many bytes at the beginning of a file of the given size its description needs, judging by the
// bytes in prefix: so that a remote reader fetches the header and nothing else. When n is at most len(prefix), the
// first n bytes are all that [Read] looks at. Otherwise fetch n bytes and ask again; n at least doubles where the
// header does not give its own length. It returns [ErrNotTensors] when the file is none, [ErrScattered] for npz, and
// a [*HeaderError] when what is there is wrong already. An empty prefix is allowed.
func HeaderNeed(prefix []byte, size int64) (n int64, f Format, err error) {
	const sniff = 16
	if int64(len(prefix)) > size {
		prefix = prefix[:max(size, 0)]
	}
	if len(prefix) < sniff && int64(len(prefix)) < size {
		return min(sniff, size), "", nil
	}
	f = Detect(prefix)
	switch f {
	case Safetensors:
		n, err = safetensorsNeed(prefix, size)
	case GGUF, NPY:
		c := &cursor{r: bytes.NewReader(prefix), size: size, have: int64(len(prefix)), format: f}
		if f == GGUF {
			_, err = readGGUF(c)
		} else {
			_, err = readNPY(c)
		}
		n = c.pos
		var short *shortError
		if errors.As(err, &short) {
			n, err = min(max(short.need, 2*int64(len(prefix))), size), nil
		}
	case NPZ:
		err = ErrScattered
	default:
		err = ErrNotTensors
	}
	if err != nil {
		return 0, f, border("read tensor header", err)
	}
	return n, f, nil
}

// Read describes the tensor file of size bytes behind r, whose format it takes from the first bytes. It reads the header
// and no payload; memory is at most a small multiple of the header. It returns [ErrNotTensors] when the file is of no
// known format, a [*HeaderError] when it is malformed, and otherwise the error of r, all inside a [*dray.Error].
func Read(r io.ReaderAt, size int64) (*File, error) {
	prefix, err := readRange(r, 0, min(16, max(size, 0)))
	if err != nil {
		return nil, border("read tensor header", err)
	}
	f := Detect(prefix)
	if f == "" {
		return nil, border("read tensor header", ErrNotTensors)
	}
	return ReadAs(f, r, size)
}

// ReadAs is [Read] for a file whose format is known, say from its name: where Read would see no tensor file, it says what
// keeps the file from being one.
func ReadAs(f Format, r io.ReaderAt, size int64) (*File, error) {
	if size < 0 {
		return nil, border("read tensor header", fmt.Errorf("size %d", size))
	}
	var file *File
	var err error
	c := &cursor{r: r, size: size, have: size, format: f}
	switch f {
	case Safetensors:
		file, err = readSafetensors(r, size)
	case GGUF:
		file, err = readGGUF(c)
	case NPY:
		file, err = readNPY(c)
	case NPZ:
		file, err = readNPZ(r, size)
	default:
		err = ErrNotTensors
	}
	if err != nil {
		return nil, border("read tensor header", err)
	}
	file.Size = size
	return file, nil
}

// sortTensors puts tensors in the order of their bytes; empty ones keep the order of the header.
func sortTensors(ts []Tensor) {
	slices.SortStableFunc(ts, func(a, b Tensor) int {
		switch {
		case a.Begin != b.Begin:
			return compare(a.Begin, b.Begin)
		default:
			return compare(a.End, b.End)
		}
	})
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// readRange reads n bytes at off. Memory grows with what is really there, not with n.
func readRange(r io.ReaderAt, off, n int64) ([]byte, error) {
	const step = 1 << 20
	buf := make([]byte, 0, min(n, step))
	for int64(len(buf)) < n {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, int(min(n-int64(len(buf)), int64(len(buf)))))
		}
		part := buf[len(buf):min(int64(cap(buf)), n)]
		k, err := r.ReadAt(part, off+int64(len(buf)))
		buf = buf[:len(buf)+k]
		if k < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("byte %d: %w", off+int64(len(buf)), err)
		}
	}
	return buf, nil
}
