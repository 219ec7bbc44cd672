package tensor

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// st builds a safetensors file from JSON as it stands and n bytes of data.
func st(json string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(json)))
	b = append(b, json...)
	return append(b, make([]byte, n)...)
}

// ggufFile builds GGUF files by hand.
type ggufFile struct{ b []byte }

func newGGUF(version uint32, tensors, keys uint64) *ggufFile {
	g := &ggufFile{b: []byte("GGUF")}
	return g.u32(version).u64(tensors).u64(keys)
}

func (g *ggufFile) u32(v uint32) *ggufFile {
	g.b = binary.LittleEndian.AppendUint32(g.b, v)
	return g
}

func (g *ggufFile) u64(v uint64) *ggufFile {
	g.b = binary.LittleEndian.AppendUint64(g.b, v)
	return g
}

func (g *ggufFile) str(s string) *ggufFile {
	g.u64(uint64(len(s)))
	g.b = append(g.b, s...)
	return g
}

// tensor appends a description; axes are given as the file has them, the fastest first.
func (g *ggufFile) tensor(name string, kind uint32, offset uint64, axes ...uint64) *ggufFile {
	g.str(name).u32(uint32(len(axes)))
	for _, n := range axes {
		g.u64(n)
	}
	return g.u32(kind).u64(offset)
}

func (g *ggufFile) data(align, n int) []byte {
	for len(g.b)%align != 0 {
		g.b = append(g.b, 0)
	}
	return append(g.b, make([]byte, n)...)
}

func npyHead(version byte, header string) []byte {
	b := []byte(npyMagic + string([]byte{version, 0}))
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(b, header...)
}

func npy(version byte, header string, n int) []byte {
	return append(npyHead(version, header), make([]byte, n)...)
}

type zipFile struct {
	name   string
	method uint16
	data   []byte
}

func makeZip(t testing.TB, files ...zipFile) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, f := range files {
		e, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: f.method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func mustRead(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// list prints a description, one tensor a line.
func list(f *File) string {
	var b strings.Builder
	for _, t := range f.Tensors {
		fmt.Fprintf(&b, "%s %v %v [%d,%d)", t.Name, t.DType, t.Shape, t.Begin, t.End)
		if t.Fortran {
			b.WriteString(" fortran")
		}
		if t.Packed {
			b.WriteString(" packed")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// wantFault checks that an error names a byte and a reason.
func wantFault(t *testing.T, err error, offset int64, tensor, reason string) {
	t.Helper()
	var he *HeaderError
	if !errors.As(err, &he) || !errors.Is(err, ErrMalformed) {
		t.Fatalf("error %v, want a HeaderError with %q", err, reason)
	}
	if he.Offset != offset || he.Tensor != tensor || !strings.Contains(he.Reason, reason) {
		t.Errorf("byte %d, tensor %q: %s\nwant byte %d, tensor %q: … %s", he.Offset, he.Tensor, he.Reason, offset, tensor, reason)
	}
}

// countingReader counts the bytes that are read, and from where on.
type countingReader struct {
	r     io.ReaderAt
	n     int64
	until int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.n += int64(n)
	c.until = max(c.until, off+int64(n))
	return n, err
}

// checkFile checks what every description must keep, however hostile the file.
func checkFile(t testing.TB, f *File, size int64) {
	t.Helper()
	if f.Size != size || f.DataStart < 0 || f.HeaderBytes > size {
		t.Fatalf("size %d, header %d, data from %d in a file of %d", f.Size, f.HeaderBytes, f.DataStart, size)
	}
	at, names := f.DataStart, make(map[string]bool)
	for i := range f.Tensors {
		x := &f.Tensors[i]
		if x.Begin < at || x.End < x.Begin || x.End > size {
			t.Fatalf("tensor %q at [%d,%d), after %d in %d", x.Name, x.Begin, x.End, at, size)
		}
		if names[x.Name] {
			t.Fatalf("tensor %q occurs twice", x.Name)
		}
		names[x.Name] = true
		at = x.End
		if n, ok := x.DType.Bytes(x.Elements()); ok && !x.Packed && n != x.Bytes() {
			t.Fatalf("tensor %q has %d bytes, and its shape makes %d", x.Name, x.Bytes(), n)
		}
	}
	next := int64(0)
	for s := range f.Sections() {
		if s.Begin != next || s.End <= s.Begin {
			t.Fatalf("section [%d,%d) after %d", s.Begin, s.End, next)
		}
		next = s.End
	}
	if next != size {
		t.Fatalf("sections end at %d of %d", next, size)
	}
}
