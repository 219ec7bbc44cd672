package tensor

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestGGUF(t *testing.T) {
	g := newGGUF(3, 3, 13).
		str("general.alignment").u32(4).u32(64).
		str("u8").u32(0).byte(200).str("i8").u32(1).byte(200).
		str("i16").u32(3).byte(0xfe, 0xff).str("u16").u32(2).byte(1, 1).
		str("i32").u32(5).u32(1 << 31).str("f32").u32(6).u32(0x3fc00000).
		str("yes").u32(7).byte(1).str("s").u32(8).str("héllo").
		str("u64").u32(10).u64(1 << 63).str("i64").u32(11).u64(1 << 63).str("f64").u32(12).u64(0xc000000000000000).
		str("nested").u32(9).u32(9).u64(2).u32(8).u64(1).str("x").u32(4).u64(3).u32(1).u32(2).u32(3)
	g.tensor("q", 12, 128, 256, 2).tensor("b", 0, 0, 3).tensor("odd", 77, 448, 5, 6)
	b := g.data(64, 448+100)
	f := mustRead(t, b)
	d := f.DataStart
	want := fmt.Sprintf("b F32 [3] [%d,%d)\nq Q4_K [2 256] [%d,%d)\nodd GGML_77 [6 5] [%d,%d)\n", d, d+12, d+128, d+128+288, d+448, len(b))
	if got := list(f); got != want || d%64 != 0 {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	meta := map[string]string{
		"u8": "200", "i8": "-56", "i16": "-2", "u16": "257", "i32": "-2147483648", "f32": "1.5", "yes": "true", "s": "héllo",
		"u64": "9223372036854775808", "i64": "-9223372036854775808", "f64": "-2", "nested": "array[2]", "general.alignment": "64",
	}
	for k, v := range meta {
		if f.Metadata[k] != v {
			t.Errorf("%s is %q, want %q", k, f.Metadata[k], v)
		}
	}
	if len(f.Metadata) != len(meta) || len(f.Unknown()) != 1 {
		t.Errorf("metadata %q, unknown %v", f.Metadata, f.Unknown())
	}
	checkFile(t, f, int64(len(b)))
	if f := mustRead(t, newGGUF(2, 0, 0).b); f.DataStart != f.Size || len(f.Tensors) != 0 {
		t.Errorf("%+v", f)
	}
	for n := range b[:f.HeaderBytes] {
		if _, err := ReadAs(GGUF, bytes.NewReader(b[:n]), int64(n)); err == nil {
			t.Errorf("the first %d bytes make a file", n)
		}
	}
}

func (g *ggufFile) byte(b ...byte) *ggufFile {
	g.b = append(g.b, b...)
	return g
}

// The sizes of blocks, as sums of the fields of ggml's structs.
func TestGGMLTypes(t *testing.T) {
	const k, half = 256, 2
	rows := []struct {
		kind         uint32
		name         string
		elems, bytes int64
	}{
		{0, "F32", 1, 4},
		{1, "F16", 1, 2},
		{2, "Q4_0", 32, half + 16},
		{3, "Q4_1", 32, 2*half + 16},
		{6, "Q5_0", 32, half + 4 + 16},
		{7, "Q5_1", 32, 2*half + 4 + 16},
		{8, "Q8_0", 32, half + 32},
		{9, "Q8_1", 32, 2*half + 32},
		{10, "Q2_K", k, 2*half + k/16 + k/4},
		{11, "Q3_K", k, half + k/4 + k/8 + 12},
		{12, "Q4_K", k, 2*half + k/2 + 12},
		{13, "Q5_K", k, 2*half + k/2 + k/8 + 12},
		{14, "Q6_K", k, half + k/2 + k/4 + k/16},
		{15, "Q8_K", k, 4 + k + k/8},
		{16, "IQ2_XXS", k, half + k/4},
		{17, "IQ2_XS", k, half + k/4 + k/32},
		{18, "IQ3_XXS", k, half + k/4 + k/8},
		{19, "IQ1_S", k, half + k/8 + k/16},
		{20, "IQ4_NL", 32, half + 16},
		{21, "IQ3_S", k, half + k/4 + k/8 + k/32 + 4},
		{22, "IQ2_S", k, half + k/4 + k/16},
		{23, "IQ4_XS", k, half + 2 + k/2 + k/64},
		{24, "I8", 1, 1},
		{25, "I16", 1, 2},
		{26, "I32", 1, 4},
		{27, "I64", 1, 8},
		{28, "F64", 1, 8},
		{29, "IQ1_M", k, k/8 + k/16 + k/32},
		{30, "BF16", 1, 2},
		{34, "TQ1_0", k, half + 4*13},
		{35, "TQ2_0", k, half + k/4},
		{39, "MXFP4", 32, 1 + 16},
		{40, "NVFP4", 64, 4 + 32},
		{41, "Q1_0", 128, half + 16},
		{42, "Q2_0", 64, half + 16},
	}
	if len(rows) != len(ggmlTypes) {
		t.Errorf("%d types, want %d", len(ggmlTypes), len(rows))
	}
	for _, row := range rows {
		b := newGGUF(3, 1, 0).tensor("t", row.kind, 0, uint64(row.elems), 3).data(32, int(row.bytes*3))
		x := mustRead(t, b).Tensors[0]
		if x.DType.Name != row.name || x.Bytes() != 3*row.bytes {
			t.Errorf("type %d: %v, %d bytes; want %s, %d", row.kind, x.DType, x.Bytes(), row.name, 3*row.bytes)
		}
		if row.elems > 1 {
			_, err := Read(bytes.NewReader(b), int64(len(b))-1)
			wantFault(t, err, 24, "t", "bytes of data")
			b := newGGUF(3, 1, 0).tensor("t", row.kind, 0, uint64(row.elems+1), 3).data(32, 1<<12)
			_, err = Read(bytes.NewReader(b), int64(len(b)))
			wantFault(t, err, 24, "t", "no whole blocks")
		}
	}
}

func TestGGUFFaults(t *testing.T) {
	deep := newGGUF(3, 0, 1).str("k").u32(9)
	for range 6 {
		deep.u32(9).u64(1)
	}
	rows := []struct {
		name   string
		file   []byte
		offset int64
		tensor string
		reason string
	}{
		{"magic", []byte("GGML00000000000000000000"), 0, "", "GGML"},
		{"version 1", newGGUF(1, 0, 0).b, 4, "", "version 1"},
		{"big-endian", newGGUF(3<<24, 0, 0).b, 4, "", "big-endian"},
		{"tensors", newGGUF(3, 1<<40, 0).b, 8, "", "tensors"},
		{"keys", newGGUF(3, 0, 1<<40).b, 16, "", "keys"},
		{"cut", newGGUF(3, 1, 0).b, 24, "", "beyond the end of the file at 24"},
		{"key length", newGGUF(3, 0, 1).u64(1 << 63).b, 24, "", "more than 65536"},
		{"string length", newGGUF(3, 0, 1).str("k").u32(8).u64(1 << 63).b, 45, "", "beyond the end"},
		{"array length", newGGUF(3, 0, 1).str("k").u32(9).u32(0).u64(1 << 63).b, 41, "", "array of 9223372036854775808"},
		{"fixed array", newGGUF(3, 0, 1).str("k").u32(9).u32(12).u64(100).b, 49, "", "beyond the end"},
		{"array of strings", newGGUF(3, 0, 1).str("k").u32(9).u32(8).u64(1 << 62).b, 41, "", "beyond the end"},
		{"array of nothing", newGGUF(3, 0, 1).str("k").u32(9).u32(99).u64(1).b, 37, "", "unknown element type 99"},
		{"value type", newGGUF(3, 0, 1).str("k").u32(13).b, 33, "", "unknown value type 13"},
		{"deep", deep.b, 85, "", "nested"},
		{"bool", newGGUF(3, 0, 1).str("k").u32(7).byte(2).b, 37, "", "bool of value 2"},
		{"key twice", newGGUF(3, 0, 2).str("k").u32(7).byte(1).str("k").u32(7).byte(1).b, 38, "", "occurs twice"},
		{"key not UTF-8", newGGUF(3, 0, 1).str("\xff").u32(7).byte(1).b, 24, "", "not UTF-8"},
		{"alignment 0", newGGUF(3, 0, 1).str("general.alignment").u32(4).u32(0).b, 53, "", "power of two"},
		{"alignment 48", newGGUF(3, 0, 1).str("general.alignment").u32(4).u32(48).b, 53, "", "power of two"},
		{"alignment a string", newGGUF(3, 0, 1).str("general.alignment").u32(8).str("32").b, 53, "", "power of two"},
		{"axes", newGGUF(3, 1, 0).tensor("t", 0, 0, 1, 1, 1, 1, 1).data(32, 64), 24, "t", "5 axes"},
		{"axis", newGGUF(3, 1, 0).tensor("t", 0, 0, 1<<63).data(32, 64), 24, "t", "axis of"},
		{"product", newGGUF(3, 1, 0).tensor("t", 0, 0, 1<<32, 1<<32).data(32, 64), 24, "t", "overflows"},
		{"bytes", newGGUF(3, 1, 0).tensor("t", 28, 0, 1<<61).data(32, 64), 24, "t", "no size"},
		{"offset unaligned", newGGUF(3, 1, 0).tensor("t", 0, 16, 4).data(32, 64), 24, "t", "multiple of the alignment"},
		{"offset beyond", newGGUF(3, 1, 0).tensor("t", 0, 96, 4).data(32, 64), 24, "t", "64 bytes of data"},
		{"offset far beyond", newGGUF(3, 1, 0).tensor("t", 0, 1<<63+1<<62, 4).data(32, 64), 24, "t", "64 bytes of data"},
		{"data beyond", newGGUF(3, 1, 0).tensor("t", 0, 32, 9).data(32, 64), 24, "t", "64 bytes of data"},
		{"no data at all", newGGUF(3, 1, 0).tensor("t", 0, 0, 1).b, 24, "t", "0 bytes of data"},
		{"twice", newGGUF(3, 2, 0).tensor("t", 0, 0, 4).tensor("t", 0, 32, 4).data(32, 64), 65 - 24 + 24 - 8, "t", "occurs twice"},
		{"overlap", newGGUF(3, 2, 0).tensor("t", 0, 0, 9).tensor("u", 0, 32, 4).data(32, 64), 57, "u", "overlaps"},
		{"same place", newGGUF(3, 2, 0).tensor("t", 0, 0, 9).tensor("u", 0, 0, 9).data(32, 64), 57, "u", "overlaps"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := ReadAs(GGUF, bytes.NewReader(row.file), int64(len(row.file)))
			wantFault(t, err, row.offset, row.tensor, row.reason)
		})
	}
	// A file may claim to be as long as it likes.
	for _, g := range []*ggufFile{
		newGGUF(3, 0, 1).str("k").u32(9).u32(8).u64(1 << 40),
		newGGUF(3, 1<<20, 0),
		newGGUF(3, 0, 1).str("k").u32(8).u64(1 << 50),
		newGGUF(3, 0, 2).str("k").u32(9).u32(0).u64(ggufMaxHeader),
	} {
		r := &countingReader{r: bytes.NewReader(g.b)}
		_, err := Read(r, 1<<60)
		if err == nil || r.n > 1<<20 {
			t.Errorf("%d bytes read: %v", r.n, err)
		}
	}
	// Zeros without end are read up to the limit of headers and no further: as strings of no bytes.
	_, err := Read(zeros{newGGUF(3, 0, 1).str("k").u32(9).u32(8).u64(1 << 50).b}, 1<<60)
	wantFault(t, err, ggufMaxHeader+1+(57-ggufMaxHeader%8-1)%8, "", "header of more than")
}

// zeros is a reader of a file that goes on with zeros for ever.
type zeros struct{ head []byte }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z.head)) {
		copy(p, z.head[off:])
	}
	return len(p), nil
}

func TestNPY(t *testing.T) {
	dict := func(descr, order, shape string) string {
		return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }   \n"
	}
	rows := []struct {
		file []byte
		want string
	}{
		{npy(1, dict("'<f4'", "False", "(3, 4)"), 48), " F32 [3 4]"},
		{npy(2, dict("'<f2'", "True", "(3, 4)"), 24), " F16 [3 4] fortran"},
		{npy(3, `{"shape":(3,),"fortran_order":False,"descr":"|u1"}`, 3), " U8 [3]"},
		{npy(1, dict("'<i8'", "False", "()"), 8), " I64 []"},
		{npy(1, dict("'|b1'", "False", "(2L,)"), 2), " BOOL [2]"},
		{npy(1, dict("'>f4'", "False", "(2,)"), 8), " >f4 [2]"},
		{npy(1, dict("'<U3'", "False", "(2,)"), 24), " <U3 [2]"},
		{npy(1, dict("'|S5'", "False", "(2,)"), 10), " |S5 [2]"},
		{npy(1, dict("'<M8[ns]'", "False", "(2,)"), 16), " <M8[ns] [2]"},
		{npy(1, dict("'<c16'", "False", "(2,)"), 32), " <c16 [2]"},
		{npy(1, dict("'<V2'", "False", "(2,)"), 4), " <V2 [2]"},
		{npy(1, dict("'|O'", "False", "(2,)"), 99), " |O [2]"},
		{npy(1, dict("[('a', '<f4'), ('b', [('c', '|u1', (2, 3))])]", "False", "(2,)"), 20), " [('a', '<f4'), ('b', [('c', '|u1', (2, 3))])] [2]"},
	}
	for _, row := range rows {
		f := mustRead(t, row.file)
		checkFile(t, f, int64(len(row.file)))
		x := f.Tensors[0]
		want := fmt.Sprintf(" [%d,%d)", f.HeaderBytes, len(row.file))
		want = strings.Replace(row.want+want, " fortran"+want, want+" fortran", 1) + "\n"
		if got := list(f); got != want || f.Format != NPY || len(f.Tensors) != 1 || x.Name != "" {
			t.Errorf("got %swant %s", got, want)
		}
	}
	faults := []struct {
		file   []byte
		offset int64
		reason string
	}{
		{npy(4, "{}", 0), 6, "version 4"},
		{npyHead(2, "{}")[:9], 8, "beyond the end"},
		{append([]byte(npyMagic+"\x02\x00"), 0xff, 0xff, 0xff, 0xff), 12, "more than 65536"},
		{append([]byte(npyMagic+"\x01\x00"), 0xff, 0xff), 10, "beyond the end"},
		{npy(1, "[]", 0), 10, "'{'"},
		{npy(1, "{'descr': '<f4'}", 0), 10, "lacks"},
		{npy(1, "{'descr': '<f4', 'descr': '<f4'}", 0), 27, "occurs twice"},
		{npy(1, "{'x': '<f4'}", 0), 11, "unknown key"},
		{npy(1, dict("'<f4", "False", "()"), 0), 27, "'}'"},
		{npy(1, dict("'<f4'", "false", "()"), 0), 44, "neither"},
		{npy(1, dict("'<f4'", "False", "(3)"), 0), 62, "a number to Python"},
		{npy(1, dict("'<f4'", "False", "(-3,)"), 0), 61, "not a length"},
		{npy(1, dict("'<f4'", "False", "(3,4"), 0), 66, "not a length"},
		{npy(1, dict("'<f4'", "False", "(4294967296, 4294967296)"), 0), 10, "overflows"},
		{npy(1, dict("'<f4'", "False", "(4,)"), 15), 10, "makes 16 bytes, and 15 are there"},
		{npy(1, dict("'<f4'", "False", "(4,)")+"x", 16), 71, "after the end"},
		{npy(1, dict(strings.Repeat("[", 30), "False", "()"), 0), 37, "nested"},
		{npy(1, dict("'a\\'b'", "False", "()"), 0), 22, "escapes"},
	}
	for _, row := range faults {
		_, err := ReadAs(NPY, bytes.NewReader(row.file), int64(len(row.file)))
		wantFault(t, err, row.offset, "", row.reason)
	}
}

func TestNPZ(t *testing.T) {
	a := npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 12)
	b := npy(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (1000,), }\n", 2000)
	z := makeZip(t, zipFile{"a.npy", zip0, a}, zipFile{"dir/b.npy", zip8, b}, zipFile{"README", zip0, []byte("hi")})
	f := mustRead(t, z)
	checkFile(t, f, int64(len(z)))
	if len(f.Tensors) != 2 || f.Format != NPZ {
		t.Fatal(list(f))
	}
	x, y := f.Tensors[0], f.Tensors[1]
	if x.Name != "a" || x.Packed || !bytes.Equal(z[x.Begin:x.End], a[len(a)-12:]) {
		t.Errorf("%+v", x)
	}
	if y.Name != "dir/b" || !y.Packed || y.DType.Name != "I16" || y.Shape[0] != 1000 {
		t.Errorf("%+v", y)
	}
	if _, err := y.Runs(Slice{0, []Span{{0, 5}}}); !errors.Is(err, ErrPacked) {
		t.Errorf("a slice of a compressed tensor: %v", err)
	}
	if r, err := y.Runs(); err != nil || r.Bytes() != y.Bytes() {
		t.Errorf("a whole compressed tensor: %v", err)
	}
	plainZip := makeZip(t, zipFile{"x.txt", zip0, []byte("hi")})
	if _, err := Read(bytes.NewReader(plainZip), int64(len(plainZip))); !errors.Is(err, ErrNotTensors) {
		t.Errorf("a zip file of text: %v", err)
	}
	dup := makeZip(t, zipFile{"a.npy", zip0, a}, zipFile{"a.npy", zip0, a})
	_, err := Read(bytes.NewReader(dup), int64(len(dup)))
	var he *HeaderError
	if !errors.As(err, &he) || !strings.Contains(he.Reason, "occurs twice") {
		t.Errorf("twice: %v", err)
	}
	// Every truncation and every changed byte gives an error or a sound description.
	small := makeZip(t, zipFile{"a.npy", zip0, a}, zipFile{"b.npy", zip8, a})
	for n := range small {
		if _, err := ReadAs(NPZ, bytes.NewReader(small[:n]), int64(n)); err == nil {
			t.Errorf("the first %d bytes of %d make a file", n, len(small))
		}
		for _, v := range []byte{0, 0x7f, 0xff} {
			bad := bytes.Clone(small)
			bad[n] = v
			if f, err := ReadAs(NPZ, bytes.NewReader(bad), int64(len(bad))); err == nil {
				checkFile(t, f, int64(len(bad)))
			}
		}
	}
}

// A directory beyond 4 GiB is found through its zip64 record.
func TestNPZ64(t *testing.T) {
	a := npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 12)
	local := (&ggufFile{}).u32(zipLocal).byte(45, 0, 0, 0, 0, 0).byte(make([]byte, 16)...).byte(5, 0, 0, 0)
	local.byte([]byte("a.npy")...).byte(a...)
	size := uint64(len(a))
	at := uint64(len(local.b))
	z := (&ggufFile{b: bytes.Clone(local.b)}).u32(zipEntry).byte(45, 0, 45, 0, 0, 0, 0, 0).u32(0).u32(0).
		u32(1<<32-1).u32(1<<32-1).byte(5, 0, 28, 0, 0, 0, 0, 0, 0, 0).u32(0).u32(1<<32-1).byte([]byte("a.npy")...).
		byte(1, 0, 24, 0).u64(size).u64(size).u64(0)
	recAt := uint64(len(z.b))
	z.u32(zip64End).u64(44).u32(0).u32(0).u32(0).u64(1).u64(1).u64(recAt-at).u64(at).
		u32(zip64Locator).u32(0).u64(recAt).u32(1).
		u32(zipEnd).byte(0, 0, 0, 0, 1, 0, 1, 0).u32(1<<32-1).u32(1<<32-1).byte(0, 0)
	f := mustRead(t, z.b)
	if x := f.Find("a"); x == nil || x.Begin != int64(at)-12 || x.End != int64(at) {
		t.Errorf("%s, want data at %d", list(f), at-12)
	}
	for n := at; n < uint64(len(z.b)); n++ {
		bad := bytes.Clone(z.b)
		bad[n] ^= 0xff
		if f, err := ReadAs(NPZ, bytes.NewReader(bad), int64(len(bad))); err == nil {
			checkFile(t, f, int64(len(bad)))
		}
	}
}

const zip0, zip8 = 0, 8

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]Format{"a/M.SafeTensors": Safetensors, "x.gguf": GGUF, "x.npy": NPY, "x.npz": NPZ, "x": "", "npy": ""} {
		if got := FormatOf(name); got != want {
			t.Errorf("FormatOf(%q) = %q, want %q", name, got, want)
		}
	}
}

// fuzzFormat checks that hostile bytes give an error or a sound description, and that HeaderNeed agrees with Read.
func fuzzFormat(t *testing.T, format Format, b []byte) {
	file, err := ReadAs(format, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		if !errors.Is(err, ErrMalformed) && !(format == NPZ && errors.Is(err, ErrNotTensors)) {
			t.Fatalf("error %v", err)
		}
		return
	}
	checkFile(t, file, int64(len(b)))
	if format == NPZ || len(b) < 16 {
		return
	}
	n, _, err := HeaderNeed(b[:file.HeaderBytes], int64(len(b)))
	if err != nil || file.HeaderBytes >= 16 && n != file.HeaderBytes {
		t.Fatalf("HeaderNeed %d, %v; header %d", n, err, file.HeaderBytes)
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add(newGGUF(3, 2, 1).str("k").u32(9).u32(8).u64(1).str("x").tensor("a", 2, 0, 32).tensor("b", 0, 32, 2, 2).data(32, 64))
	f.Add(newGGUF(2, 1, 1).str("general.alignment").u32(4).u32(8).tensor("a", 99, 0, 32).data(8, 10))
	f.Fuzz(func(t *testing.T, b []byte) { fuzzFormat(t, GGUF, b) })
}

func FuzzNPY(f *testing.F) {
	f.Add(npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }\n", 48))
	f.Add(npy(2, "{'descr': [('a', '<f4', (2,))], 'fortran_order': True, 'shape': (), }\n", 8))
	f.Fuzz(func(t *testing.T, b []byte) { fuzzFormat(t, NPY, b) })
}

func FuzzNPZ(f *testing.F) {
	a := npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 12)
	f.Add(makeZip(f, zipFile{"a.npy", zip0, a}, zipFile{"b.npy", zip8, a}, zipFile{"c", zip8, a}))
	f.Fuzz(func(t *testing.T, b []byte) { fuzzFormat(t, NPZ, b) })
}
