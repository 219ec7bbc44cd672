package tensor

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// An npz file is a zip file of npy files. It is read from its end: the end record gives the directory, the directory
// gives the entries, and each entry begins with a header of its own before its data. Numbers are those of APPNOTE.TXT
// 6.3.9.

const (
	zipEnd         = 0x06054b50 // 4.3.16
	zipEndSize     = 22
	zip64End       = 0x06064b50 // 4.3.14
	zip64Locator   = 0x07064b50 // 4.3.15
	zipEntry       = 0x02014b50 // 4.3.12
	zipEntrySize   = 46
	zipLocal       = 0x04034b50 // 4.3.7
	zipLocalSize   = 30
	zipMaxComment  = 65535
	zipMaxDir      = 64 << 20
	zipMaxInflated = 16 << 20 // bytes inflated to see the headers of compressed entries, all together
)

// zipReader reads the pieces of a zip file.
type zipReader struct {
	r        io.ReaderAt
	size     int64
	inflated int64
}

func zipFault(at int64, reason string, args ...any) error { return malformed(NPZ, at, reason, args...) }

func readNPZ(r io.ReaderAt, size int64) (*File, error) {
	z := &zipReader{r: r, size: size}
	dirAt, dirSize, err := z.directory()
	if err != nil {
		return nil, err
	}
	dir, err := readRange(r, dirAt, dirSize)
	if err != nil {
		return nil, err
	}
	f := &File{Format: NPZ, Size: size}
	names := make(map[string]bool)
	for b := dir; len(b) > 0; {
		at := dirAt + int64(len(dir)-len(b))
		e, rest, err := parseZipEntry(b, at)
		if err != nil {
			return nil, err
		}
		b = rest
		name, ok := strings.CutSuffix(e.name, ".npy")
		if !ok {
			continue
		}
		switch {
		case len(f.Tensors) == MaxTensors:
			return nil, zipFault(at, "more than %d tensors", MaxTensors)
		case names[name]:
			return nil, zipFault(at, "entry %s occurs twice", quoteShort(e.name))
		case !utf8.ValidString(name):
			return nil, zipFault(at, "name of an entry is not UTF-8")
		}
		names[name] = true
		t, err := z.tensor(e, dirAt)
		if err != nil {
			var he *HeaderError
			if errors.As(err, &he) {
				he.Format, he.Tensor = NPZ, name
			}
			return nil, err
		}
		t.Name = name
		f.Tensors = append(f.Tensors, t)
	}
	if len(f.Tensors) == 0 {
		return nil, ErrNotTensors // Some other zip file.
	}
	sortTensors(f.Tensors)
	for i := range f.Tensors[1:] {
		if a, b := &f.Tensors[i], &f.Tensors[i+1]; b.Begin < a.End {
			he := malformed(NPZ, b.Begin, "its data overlaps that of %s", quoteShort(a.Name))
			he.Tensor = b.Name
			return nil, he
		}
	}
	return f, nil
}

// directory finds the directory of a zip file.
func (z *zipReader) directory() (at, size int64, err error) {
	tailAt := max(0, z.size-zipEndSize-zipMaxComment)
	tail, err := readRange(z.r, tailAt, z.size-tailAt)
	if err != nil {
		return 0, 0, err
	}
	le := binary.LittleEndian
	i := len(tail) - zipEndSize
	for ; i >= 0; i-- {
		if le.Uint32(tail[i:]) == zipEnd && int(le.Uint16(tail[i+20:])) <= len(tail)-i-zipEndSize {
			break
		}
	}
	if i < 0 {
		return 0, 0, zipFault(z.size, "zip file without a directory at its end")
	}
	end := tail[i:]
	endAt := tailAt + int64(i)
	if le.Uint16(end[4:]) != le.Uint16(end[6:]) {
		return 0, 0, zipFault(endAt, "zip file in several parts")
	}
	usize, uat := uint64(le.Uint32(end[12:])), uint64(le.Uint32(end[16:]))
	if usize == 1<<32-1 || uat == 1<<32-1 {
		if usize, uat, err = z.directory64(endAt); err != nil {
			return 0, 0, err
		}
	}
	switch {
	case usize > zipMaxDir:
		return 0, 0, zipFault(endAt, "directory of %d bytes, more than %d", usize, zipMaxDir)
	case uat > uint64(endAt) || usize > uint64(endAt)-uat:
		return 0, 0, zipFault(endAt, "directory of %d bytes at %d, beyond the end record", usize, uat)
	}
	return int64(uat), int64(usize), nil
}

// directory64 is directory for large files: a locator lies before the end record at endAt.
func (z *zipReader) directory64(endAt int64) (size, at uint64, err error) {
	const locatorSize, endSize = 20, 56
	le := binary.LittleEndian
	if endAt < locatorSize {
		return 0, 0, zipFault(endAt, "zip64 end record is missing")
	}
	loc, err := readRange(z.r, endAt-locatorSize, locatorSize)
	if err != nil {
		return 0, 0, err
	}
	recAt := le.Uint64(loc[8:])
	if le.Uint32(loc) != zip64Locator || recAt > uint64(max(endAt-locatorSize-endSize, 0)) {
		return 0, 0, zipFault(endAt-locatorSize, "zip64 end record is missing")
	}
	rec, err := readRange(z.r, int64(recAt), endSize)
	if err != nil {
		return 0, 0, err
	}
	if le.Uint32(rec) != zip64End {
		return 0, 0, zipFault(int64(recAt), "zip64 end record is missing")
	}
	return le.Uint64(rec[40:]), le.Uint64(rec[48:]), nil
}

// zipped is an entry of the directory.
type zipped struct {
	name         string
	method       uint16
	packed, size uint64
	local        uint64
	at           int64 // of the entry
}

func parseZipEntry(b []byte, at int64) (e zipped, rest []byte, err error) {
	le := binary.LittleEndian
	if len(b) < zipEntrySize || le.Uint32(b) != zipEntry {
		return e, nil, zipFault(at, "no zip directory entry where one should be")
	}
	nameLen, extraLen, commentLen := int(le.Uint16(b[28:])), int(le.Uint16(b[30:])), int(le.Uint16(b[32:]))
	if len(b) < zipEntrySize+nameLen+extraLen+commentLen {
		return e, nil, zipFault(at, "zip directory entry goes beyond the directory")
	}
	e = zipped{
		name: string(b[zipEntrySize:][:nameLen]), method: le.Uint16(b[10:]), at: at,
		packed: uint64(le.Uint32(b[20:])), size: uint64(le.Uint32(b[24:])), local: uint64(le.Uint32(b[42:])),
	}
	if le.Uint16(b[8:])&1 != 0 {
		return e, nil, zipFault(at, "entry %s is encrypted", quoteShort(e.name))
	}
	extra := b[zipEntrySize+nameLen:][:extraLen]
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		if n > len(extra)-4 {
			return e, nil, zipFault(at, "extra field of %s goes beyond its entry", quoteShort(e.name))
		}
		field := extra[4:][:n]
		extra = extra[4+n:]
		if id != 1 { // 4.5.3: values that do not fit the entry, in this order, as far as they are missing.
			continue
		}
		for _, v := range []*uint64{&e.size, &e.packed, &e.local} {
			if *v != 1<<32-1 {
				continue
			}
			if len(field) < 8 {
				return e, nil, zipFault(at, "zip64 field of %s is too short", quoteShort(e.name))
			}
			*v, field = le.Uint64(field), field[8:]
		}
	}
	return e, b[zipEntrySize+nameLen+extraLen+commentLen:], nil
}

// tensor describes the npy file in an entry. Data must lie before the directory.
func (z *zipReader) tensor(e zipped, dirAt int64) (Tensor, error) {
	if dirAt < zipLocalSize || e.local > uint64(dirAt-zipLocalSize) {
		return Tensor{}, zipFault(e.at, "entry at %d, beyond the directory at %d", e.local, dirAt)
	}
	head, err := readRange(z.r, int64(e.local), zipLocalSize)
	if err != nil {
		return Tensor{}, err
	}
	le := binary.LittleEndian
	if le.Uint32(head) != zipLocal || le.Uint16(head[8:]) != e.method {
		return Tensor{}, zipFault(int64(e.local), "entry does not begin as the directory says")
	}
	begin := int64(e.local) + zipLocalSize + int64(le.Uint16(head[26:])) + int64(le.Uint16(head[28:]))
	if begin > dirAt || e.packed > uint64(dirAt-begin) {
		return Tensor{}, zipFault(e.at, "entry of %d bytes at %d goes beyond the directory at %d", e.packed, begin, dirAt)
	}
	end := begin + int64(e.packed)
	switch {
	case e.method == 0 && e.packed != e.size:
		return Tensor{}, zipFault(e.at, "stored entry of %d bytes that says it has %d", e.packed, e.size)
	case e.method == 0:
		c := &cursor{r: z.r, size: end, have: end, format: NPZ, pos: begin}
		return npyTensor(c)
	case e.method == 8:
		t, err := z.inflate(begin, end, e.size)
		t.Begin, t.End, t.Packed = begin, end, true
		return t, err
	}
	return Tensor{}, zipFault(e.at, "compression method %d is not supported", e.method)
}

// inflate reads the npy header of a deflated entry.
func (z *zipReader) inflate(begin, end int64, size uint64) (Tensor, error) {
	if size > 1<<62 {
		return Tensor{}, zipFault(begin, "entry of %d bytes", size)
	}
	limit := min(int64(size), npyMaxHeader+12)
	z.inflated += limit
	if z.inflated > zipMaxInflated {
		limit = min(limit, 512) // The header of an ordinary array, which is as much as a hostile file gets in bulk.
	}
	head := make([]byte, limit)
	n, err := io.ReadFull(flate.NewReader(io.NewSectionReader(z.r, begin, end-begin)), head)
	if err != nil {
		return Tensor{}, zipFault(begin, "compressed data ends or breaks off after %d bytes", n)
	}
	// Offsets in errors count from the beginning of the entry, in inflated bytes.
	c := &cursor{r: bytes.NewReader(head), size: int64(size), have: limit, format: NPZ}
	t, err := npyTensor(c)
	var short *shortError
	if errors.As(err, &short) {
		err = zipFault(begin, "header of %d bytes in a compressed entry", short.need)
	}
	return t, err
}
