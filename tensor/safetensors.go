package tensor

import (
	"encoding/binary"
	"errors"
	"io"
)

// A safetensors file is, in order:
//
//	8 bytes    n, little-endian, at most 100,000,000
//	n bytes    a JSON object, beginning with '{', padded with spaces: "__metadata__" → {string: string}, and
//	           name → {"dtype": string, "shape": [numbers], "data_offsets": [begin, end]}
//	the rest   the tensors; offsets count from its first byte, and the tensors cover it without gap or overlap
//
// https://github.com/huggingface/safetensors#format. Beyond the text, this reader does as the reference
// implementation does: sizes must be shape × type, names must differ. Unlike it, it lets bytes follow the last
// tensor, and lets types pass that it does not know.

const metadataKey = "__metadata__"

// safetensorsNeed returns the length of the header, length field included.
func safetensorsNeed(prefix []byte, size int64) (int64, error) {
	if len(prefix) < 8 {
		return 0, malformed(Safetensors, 0, "a file of %d bytes has no room for the 8 bytes of the header's length", size)
	}
	n := binary.LittleEndian.Uint64(prefix)
	switch {
	case n > MaxHeader:
		return 0, malformed(Safetensors, 0, "header of %d bytes, more than %d", n, MaxHeader)
	case n < 2:
		return 0, malformed(Safetensors, 0, "header of %d bytes, less than the 2 of an empty object", n)
	case int64(n) > size-8:
		return 0, malformed(Safetensors, 0, "header of %d bytes goes beyond the end of the file at %d", n, size)
	case len(prefix) > 8 && prefix[8] != '{':
		return 0, malformed(Safetensors, 8, "header begins with %q and not with '{'", prefix[8])
	}
	return 8 + int64(n), nil
}

func readSafetensors(r io.ReaderAt, size int64) (*File, error) {
	prefix, err := readRange(r, 0, min(9, size))
	if err != nil {
		return nil, err
	}
	need, err := safetensorsNeed(prefix, size)
	if err != nil {
		return nil, err
	}
	header, err := readRange(r, 8, need-8)
	if err != nil {
		return nil, err
	}
	return parseSafetensors(header, size)
}

// parseSafetensors reads the JSON of a file of size bytes.
func parseSafetensors(header []byte, size int64) (*File, error) {
	s := &scanner{b: header, at: 8, format: Safetensors}
	if err := s.checkUTF8(); err != nil {
		return nil, err
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, s.fail(0, "header does not begin with '{'")
	}
	start := 8 + int64(len(header))
	f := &File{Format: Safetensors, Size: size, HeaderBytes: start, DataStart: start}
	var places []entryPlace
	err := s.object(func(key string, at int) error {
		if key == metadataKey {
			return s.metadata(f)
		}
		switch {
		case len(f.Tensors) == MaxTensors:
			return s.fail(at, "more than %d tensors", MaxTensors)
		case len(key) > MaxName:
			return s.fail(at, "name of %d bytes, more than %d", len(key), MaxName)
		}
		t := Tensor{Name: key}
		if err := s.tensor(&t, at, start, size); err != nil {
			var he *HeaderError
			if errors.As(err, &he) && he.Tensor == "" {
				he.Tensor = key
			}
			return err
		}
		f.Tensors = append(f.Tensors, t)
		places = append(places, entryPlace{t.Begin, t.End, at})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	sortTensors(f.Tensors)
	return f, s.contiguous(f, places)
}

// entryPlace remembers where in the header a tensor is described.
type entryPlace struct {
	begin, end int64
	at         int
}

// contiguous checks that the tensors, in order, follow one another without gap or overlap.
func (s *scanner) contiguous(f *File, places []entryPlace) error {
	next := f.DataStart
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if t.Begin == next {
			next = t.End
			continue
		}
		at := 0
		for _, p := range places {
			if p.begin == t.Begin && p.end == t.End {
				at = p.at
			}
		}
		what := "leaves a gap: it begins at %d and what is before it ends at %d"
		if t.Begin < next {
			what = "overlaps what is before it: it begins at %d and that ends at %d"
		}
		he := malformed(Safetensors, s.at+int64(at), "its data "+what, t.Begin, next)
		he.Tensor = t.Name
		return he
	}
	return nil
}

// metadata reads the value of __metadata__.
func (s *scanner) metadata(f *File) error {
	if s.peek() == 'n' {
		return s.passWord()
	}
	f.Metadata = make(map[string]string)
	return s.object(func(key string, _ int) error {
		v, err := s.str()
		f.Metadata[key] = v
		return err
	})
}

// tensor reads the value of a tensor's key and checks it, but for its place among the others.
func (s *scanner) tensor(t *Tensor, at int, start, size int64) error {
	var hasType, hasShape, hasOffsets bool
	var offsets [2]int64
	offsetsAt := 0
	err := s.object(func(key string, _ int) error {
		switch key {
		case "dtype":
			name, err := s.str()
			hasType = true
			known, ok := safetensorsTypes[name]
			if !ok {
				known = DType{Name: name}
			}
			t.DType = known
			return err
		case "shape":
			hasShape = true
			return s.array(func() error {
				if len(t.Shape) == MaxDims {
					return s.fail(s.i, "more than %d axes", MaxDims)
				}
				n, err := s.count()
				t.Shape = append(t.Shape, n)
				return err
			})
		case "data_offsets":
			hasOffsets = true
			s.peek()
			offsetsAt = s.i
			n := 0
			err := s.array(func() (err error) {
				if n == len(offsets) {
					return s.fail(s.i, "more than two data_offsets")
				}
				offsets[n], err = s.count()
				n++
				return err
			})
			if err == nil && n != len(offsets) {
				err = s.fail(offsetsAt, "%d data_offsets, want two", n)
			}
			return err
		}
		_, err := s.skip(1)
		return err
	})
	if err != nil {
		return err
	}
	begin, end := offsets[0], offsets[1]
	n, fits := elements(t.Shape)
	switch {
	case !hasType:
		return s.fail(at, "no dtype")
	case !hasShape:
		return s.fail(at, "no shape")
	case !hasOffsets:
		return s.fail(at, "no data_offsets")
	case end < begin:
		return s.fail(offsetsAt, "data ends at %d, before it begins at %d", end, begin)
	case end > size-start:
		return s.fail(offsetsAt, "data ends at %d and the file has %d bytes of data", end, size-start)
	case !fits:
		return s.fail(at, "the number of elements overflows")
	}
	t.Begin, t.End = start+begin, start+end
	if !t.DType.Known() {
		return nil
	}
	switch want, ok := t.DType.Bytes(n); {
	case !ok && n%t.DType.unit() != 0:
		return s.fail(at, "%d elements of %d bits do not fill whole bytes", n, t.DType.Bits)
	case !ok:
		return s.fail(at, "the size of %d elements of %d bits overflows", n, t.DType.Bits)
	case want != end-begin:
		return s.fail(offsetsAt, "%d bytes of data, and shape × type makes %d", end-begin, want)
	}
	return nil
}
