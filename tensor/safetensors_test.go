package tensor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"dray"
)

func TestSafetensorsFile(t *testing.T) {
	json := ` {"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]}, "__metadata__":{"format":"pt","x":"\u00e9\ud83d\ude00\n"},` +
		`"a\"q":{"shape":[],"dtype":"BF16","data_offsets":[0,2],"more":{"x":[1,-2.5e3,null,true]}},` +
		`"e":{"dtype":"I64","shape":[0,7],"data_offsets":[2,2]},"h":{"dtype":"F4","shape":[4],"data_offsets":[2,4]}}  `
	b := st(json[1:], 28)
	f := mustRead(t, b)
	start := int64(8 + len(json) - 1)
	want := fmt.Sprintf("a\"q BF16 [] [%d,%d)\ne I64 [0 7] [%d,%d)\nh F4 [4] [%d,%d)\nb F32 [2 3] [%d,%d)\n",
		start, start+2, start+2, start+2, start+2, start+4, start+4, start+28)
	if got := list(f); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if f.Metadata["format"] != "pt" || f.Metadata["x"] != "é😀\n" || len(f.Metadata) != 2 {
		t.Errorf("metadata %q", f.Metadata)
	}
	if f.HeaderBytes != start || f.DataStart != start || f.Format != Safetensors {
		t.Errorf("%+v", f)
	}
	checkFile(t, f, int64(len(b)))
	if f.Find("h") == nil || f.Find("z") != nil || len(f.Unknown()) != 0 || len(f.Names()) != 4 {
		t.Error("Find, Unknown or Names")
	}
}

// Every type of the format has the size that the format gives it.
func TestSafetensorsTypes(t *testing.T) {
	bits := map[string]int{
		"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
		"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
		"C64": 64, "F64": 64, "I64": 64, "U64": 64,
	}
	if len(bits) != len(safetensorsTypes) {
		t.Errorf("%d types, want %d", len(safetensorsTypes), len(bits))
	}
	for name, n := range bits {
		size := 12 * n / 8
		f := mustRead(t, st(fmt.Sprintf(`{"t":{"dtype":"%s","shape":[3,4],"data_offsets":[0,%d]}}`, name, size), size))
		if got := f.Tensors[0]; got.DType.Name != name || got.Bytes() != int64(size) || !got.DType.Known() {
			t.Errorf("%s: %+v", name, got)
		}
		for _, other := range []string{name, strings.ToLower(name)} {
			if d, ok := LookupDType(other); !ok || d != f.Tensors[0].DType {
				t.Errorf("LookupDType(%q) = %v, %v", other, d, ok)
			}
		}
	}
	f := mustRead(t, st(`{"t":{"dtype":"X9","shape":[3,4],"data_offsets":[0,5]}}`, 5))
	if u := f.Unknown(); len(u) != 1 || f.Tensors[0].DType.Name != "X9" {
		t.Errorf("an unknown type: %v, %v", u, f.Tensors)
	}
	for in, want := range map[string]string{"float16": "F16", "BFloat16": "BF16", "q4_k": "Q4_K", "int8": "I8", "uint64": "U64"} {
		if d, ok := LookupDType(in); !ok || d.Name != want {
			t.Errorf("LookupDType(%q) = %v, %v", in, d, ok)
		}
	}
	if _, ok := LookupDType("f12"); ok {
		t.Error("there is no f12")
	}
}

func TestSafetensorsFaults(t *testing.T) {
	one := func(s string) string { return `{"t":` + s + `}` }
	rows := []struct {
		name   string
		file   []byte
		offset int64
		tensor string
		reason string
	}{
		{"short", []byte("abc"), 0, "", "no room"},
		{"huge length", append(bytes.Repeat([]byte{0xff}, 8), '{'), 0, "", "more than 100000000"},
		{"one over", append(binary.LittleEndian.AppendUint64(nil, MaxHeader+1), '{'), 0, "", "more than 100000000"},
		{"beyond the file", append(binary.LittleEndian.AppendUint64(nil, 50), "{}"...), 0, "", "beyond the end of the file at 10"},
		{"empty header", st("", 4), 0, "", "less than the 2"},
		{"not an object", st("[]", 0), 8, "", "'['"},
		{"leading space", st(" {}", 0), 8, "", "' '"},
		{"open", st(`{"t":`, 0), 13, "t", "JSON ends"},
		{"open object", st(`{"__metadata__":{}`, 0), 26, "", "JSON ends"},
		{"rubbish after", st(`{} x`, 0), 11, "", "after the end"},
		{"zero byte after", st("{}\x00", 0), 10, "", "after the end"},
		{"not UTF-8", st("{\"a\xff\":1}", 0), 11, "", "not UTF-8"},
		{"twice", st(`{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), 61, "", `"t" occurs twice`},
		{"twice by escape", st(`{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0074":{}}`, 0), 61, "", `"t" occurs twice`},
		{"key twice", st(one(`{"dtype":"U8","dtype":"F32","shape":[0],"data_offsets":[0,0]}`), 0), 27, "t", `"dtype" occurs twice`},
		{"metadata twice", st(`{"__metadata__":{"a":"b","a":"c"}}`, 0), 33, "", "occurs twice"},
		{"metadata number", st(`{"__metadata__":{"a":1}}`, 0), 29, "", `'"'`},
		{"no dtype", st(one(`{"shape":[0],"data_offsets":[0,0]}`), 0), 9, "t", "no dtype"},
		{"no shape", st(one(`{"dtype":"U8","data_offsets":[0,0]}`), 0), 9, "t", "no shape"},
		{"no offsets", st(one(`{"dtype":"U8","shape":[0]}`), 0), 9, "t", "no data_offsets"},
		{"one offset", st(one(`{"dtype":"U8","shape":[0],"data_offsets":[0]}`), 0), 54, "t", "1 data_offsets"},
		{"three offsets", st(one(`{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}`), 0), 59, "t", "more than two"},
		{"end before begin", st(one(`{"dtype":"U8","shape":[0],"data_offsets":[4,0]}`), 9), 54, "t", "before it begins"},
		{"beyond the data", st(one(`{"dtype":"U8","shape":[4],"data_offsets":[0,4]}`), 3), 54, "t", "has 3 bytes of data"},
		{"far beyond", st(one(`{"dtype":"U8","shape":[4],"data_offsets":[9223372036854775800,9223372036854775804]}`), 3), 54, "t", "3 bytes of data"},
		{"beyond 2^63", st(one(`{"dtype":"U8","shape":[4],"data_offsets":[0,9223372036854775808]}`), 3), 57, "t", "beyond 2^63"},
		{"negative", st(one(`{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}`), 4), 36, "t", "begin with a digit"},
		{"fraction", st(one(`{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}`), 4), 36, "t", "fraction"},
		{"leading zero", st(one(`{"dtype":"U8","shape":[04],"data_offsets":[0,4]}`), 4), 36, "t", "leading zero"},
		{"wrong size", st(one(`{"dtype":"F32","shape":[4],"data_offsets":[0,4]}`), 4), 55, "t", "4 bytes of data, and shape × type makes 16"},
		{"half a byte", st(one(`{"dtype":"F4","shape":[3],"data_offsets":[0,2]}`), 2), 9, "t", "whole bytes"},
		{"F6", st(one(`{"dtype":"F6_E2M3","shape":[6],"data_offsets":[0,4]}`), 4), 9, "t", "whole bytes"},
		{"product overflows", st(one(`{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}`), 0), 9, "t", "elements overflows"},
		{"overflow behind a zero", st(one(`{"dtype":"U8","shape":[4294967296,0,4294967296],"data_offsets":[0,0]}`), 0), 9, "t", "elements overflows"},
		{"bytes overflow", st(one(`{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}`), 0), 9, "t", "overflows"},
		{"control character", st("{\"a\nb\":{}}", 0), 11, "", "control character"},
		{"bad escape", st(`{"a\x":{}}`, 0), 11, "", "bad escape"},
		{"half a pair", st(`{"\ud800x":{}}`, 0), 16, "", "half a surrogate"},
		{"string without end", st(`{"abc`, 0), 9, "", "without an end"},
		{"deep", st(one(`{"x":`+strings.Repeat("[", 100)), 0), 82, "t", "nested"},
		{"axes", st(one(`{"shape":[`+strings.Repeat("1,", 70)), 0), 151, "t", "more than 64 axes"},
		{"gap", st(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}`, 4), 61, "b", "gap"},
		{"gap at the start", st(one(`{"dtype":"U8","shape":[1],"data_offsets":[1,2]}`), 2), 9, "t", "gap"},
		{"overlap", st(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 4), 61, "b", "overlaps"},
		{"same bytes", st(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 4), 61, "b", "overlaps"},
		{"not a tensor", st(`{"a":7}`, 4), 13, "a", "'{'"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := ReadAs(Safetensors, bytes.NewReader(row.file), int64(len(row.file)))
			wantFault(t, err, row.offset, row.tensor, row.reason)
			var de *dray.Error
			if !errors.As(err, &de) || de.Op == "" {
				t.Errorf("error %T at the border", err)
			}
		})
	}
}

func TestFaultText(t *testing.T) {
	b := st(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4)
	_, err := Read(bytes.NewReader(b), int64(len(b)))
	want := `read tensor header: safetensors: byte 55: tensor "a": 4 bytes of data, and shape × type makes 8`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// No prefix of a file is taken for a file, and none makes the reader fall over.
func TestSafetensorsTruncated(t *testing.T) {
	b := st(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2)
	for n := range b {
		if f, err := ReadAs(Safetensors, bytes.NewReader(b[:n]), int64(n)); err == nil {
			t.Errorf("the first %d bytes of %d make a file: %s", n, len(b), list(f))
		}
		// A reader that gives less than it promised.
		if _, err := ReadAs(Safetensors, bytes.NewReader(b[:min(n, len(b)-3)]), int64(len(b))); err == nil {
			t.Errorf("%d bytes that should be %d make a file", n, len(b))
		}
	}
}

// Reading takes the header and nothing else, also when the file is far larger than memory.
func TestHeaderOnly(t *testing.T) {
	const payload = int64(1) << 50
	json := fmt.Sprintf(`{"t":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}`, payload, payload)
	head := st(json, 0)
	r := &countingReader{r: bytes.NewReader(head)}
	f, err := Read(r, int64(len(head))+payload)
	if err != nil {
		t.Fatal(err)
	}
	if r.until != f.HeaderBytes || f.Tensors[0].Bytes() != payload {
		t.Errorf("read up to byte %d of a header of %d", r.until, f.HeaderBytes)
	}
}

func TestHeaderNeed(t *testing.T) {
	gg := newGGUF(3, 1, 2).str("general.name").u32(ggufString).str(strings.Repeat("n", 500)).
		str("tokens").u32(ggufArray).u32(ggufString).u64(100)
	for range 100 {
		gg.str("token")
	}
	files := map[string][]byte{
		"safetensors": st(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2),
		"gguf":        gg.tensor("x", 0, 0, 4).data(32, 16),
		"npy":         npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 12),
	}
	for name, b := range files {
		size := int64(len(b))
		have := int64(0)
		for round := 0; ; round++ {
			n, f, err := HeaderNeed(b[:have], size)
			if err != nil || round > 20 {
				t.Fatalf("%s: round %d with %d bytes: %v", name, round, have, err)
			}
			if n <= have && have > 0 {
				if string(f) != name {
					t.Errorf("%s is %s", name, f)
				}
				file := mustRead(t, b)
				if n != file.HeaderBytes {
					t.Errorf("%s needs %d bytes, and the header has %d", name, n, file.HeaderBytes)
				}
				// The rest may be absent.
				blank := append(bytes.Clone(b[:n]), make([]byte, size-n)...)
				if again := mustRead(t, blank); list(again) != list(file) {
					t.Errorf("%s reads otherwise from its header alone", name)
				}
				break
			}
			have = n
		}
	}
	if _, f, err := HeaderNeed(makeZip(t, zipFile{"a.npy", 0, []byte("x")}), 1000); !errors.Is(err, ErrScattered) || f != NPZ {
		t.Errorf("npz: %v, %v", f, err)
	}
	if _, _, err := HeaderNeed([]byte("hello, world, this is no tensor file"), 1000); !errors.Is(err, ErrNotTensors) {
		t.Errorf("text: %v", err)
	}
	if n, _, err := HeaderNeed(nil, 3); err != nil || n != 3 {
		t.Errorf("nothing of a short file: %d, %v", n, err)
	}
	if _, _, err := HeaderNeed([]byte("abc"), 3); !errors.Is(err, ErrNotTensors) {
		t.Errorf("a short file: %v", err)
	}
	if _, err := Read(strings.NewReader(""), 0); !errors.Is(err, ErrNotTensors) {
		t.Errorf("an empty file: %v", err)
	}
}

// What is written is read back as it was, in the given order, whatever the names.
func TestAppendHeader(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	types := []string{"F32", "BF16", "U8", "F4", "F6_E3M2", "I64", "BOOL"}
	for range 200 {
		var entries []Entry
		meta := map[string]string{}
		for i := range rng.IntN(12) {
			d, _ := LookupDType(types[rng.IntN(len(types))])
			e := Entry{Name: fmt.Sprintf("l.%d\"\\\x01é\t", i), DType: d, Shape: []int64{}}
			for range rng.IntN(4) {
				e.Shape = append(e.Shape, rng.Int64N(5))
			}
			e.Shape = append(e.Shape, 4) // Whole bytes for every type.
			entries = append(entries, e)
			meta[fmt.Sprintf("k%d\n", rng.IntN(20))] = "v\u2028"
		}
		b, data, err := AppendHeader([]byte("xyz"), entries, meta)
		if err != nil {
			t.Fatal(err)
		}
		again, _, _ := AppendHeader(nil, entries, meta)
		if b = b[3:]; !bytes.Equal(b, again) || len(b)%8 != 0 {
			t.Fatalf("not deterministic or not aligned: %d bytes", len(b))
		}
		f := mustRead(t, append(b, make([]byte, data)...))
		if len(f.Tensors) != len(entries) || len(f.Metadata) != len(meta) {
			t.Fatalf("%d tensors of %d", len(f.Tensors), len(entries))
		}
		for i, e := range entries {
			x := f.Find(e.Name)
			if x == nil || x.DType != e.DType || fmt.Sprint(x.Shape) != fmt.Sprint(e.Shape) {
				t.Errorf("entry %d: %+v became %+v", i, e, x)
			}
		}
	}
	u8, _ := LookupDType("U8")
	q4, _ := LookupDType("Q4_0")
	f4, _ := LookupDType("F4")
	for _, bad := range [][]Entry{
		{{"a", q4, []int64{32}}},
		{{"a", DType{Name: "U8", Elems: 1, Bits: 16}, []int64{32}}},
		{{"a", DType{}, nil}},
		{{"a", f4, []int64{3}}},
		{{"a", u8, []int64{-1}}},
		{{"a", u8, []int64{1 << 62, 2}}},
		{{"a", u8, []int64{1 << 61}}, {"b", u8, []int64{1 << 61}}, {"c", u8, []int64{1 << 61}}},
		{{"a", u8, nil}, {"a", u8, nil}},
		{{"__metadata__", u8, nil}},
		{{"\xff", u8, nil}},
	} {
		if _, _, err := AppendHeader(nil, bad, nil); err == nil {
			t.Errorf("no error for %v", bad)
		}
	}
}

func TestGoldenHeader(t *testing.T) {
	f32, _ := LookupDType("F32")
	bf16, _ := LookupDType("BF16")
	b, n, err := AppendHeader(nil, []Entry{{"w", f32, []int64{2, 3}}, {"b", bf16, []int64{}}}, map[string]string{"format": "pt"})
	want := "\x90\x00\x00\x00\x00\x00\x00\x00" + `{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},` +
		`"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}`
	want += strings.Repeat(" ", 8+0x90-len(want))
	if err != nil || string(b) != want || n != 26 {
		t.Errorf("got  %q, %d, %v\nwant %q", b, n, err, want)
	}
}

func TestIndex(t *testing.T) {
	ix, err := ParseIndex([]byte(`{"metadata":{"total_size":9.0,"version":"000003","n":[1]},"other":{},
		"weight_map":{"a":"m-00002-of-00002.safetensors","b":"m-00001-of-00002.safetensors","gone":"m-00001-of-00002.safetensors","c":"x10.safetensors","d":"x9.safetensors"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if ix.TotalSize != 9 || ix.Metadata["version"] != "000003" || ix.Metadata["n"] != "[1]" || len(ix.Tensors) != 5 {
		t.Errorf("%+v", ix)
	}
	want := "[m-00001-of-00002.safetensors m-00002-of-00002.safetensors x9.safetensors x10.safetensors]"
	if got := fmt.Sprint(ix.Shards()); got != want {
		t.Errorf("shards %s", got)
	}
	first := mustRead(t, st(`{"b":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"a":{"dtype":"U8","shape":[1],"data_offsets":[5,6]}}`, 6))
	second := mustRead(t, st(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4))
	m := ix.Merge(map[string]*File{"m-00001-of-00002.safetensors": first, "m-00002-of-00002.safetensors": second, "x9.safetensors": nil})
	if m.Complete() || m.Bytes != 9 || len(m.Tensors) != 2 || m.Tensors[0].Name != "b" || m.Tensors[1].Shard != "m-00002-of-00002.safetensors" {
		t.Errorf("%+v", m)
	}
	got := fmt.Sprint(m.Absent, m.Missing, m.Extra)
	if got != "[x9.safetensors x10.safetensors] [{gone m-00001-of-00002.safetensors}] [{a m-00001-of-00002.safetensors}]" {
		t.Error(got)
	}
	for _, row := range []struct {
		in     string
		offset int64
		reason string
	}{
		{``, 0, "JSON ends"},
		{`{}`, 0, "without a weight_map"},
		{`{"weight_map":{"a":"x","a":"y"}}`, 23, "occurs twice"},
		{`{"weight_map":{"a":"../x"}}`, 19, "plain file name"},
		{`{"weight_map":{"a":".."}}`, 19, "plain file name"},
		{`{"weight_map":{"a":"C:x"}}`, 19, "plain file name"},
		{`{"weight_map":{"a":""}}`, 19, "plain file name"},
		{`{"weight_map":{"a":1}}`, 19, `'"'`},
		{`{"weight_map":{},"metadata":{"total_size":-1}}`, 42, "no number of bytes"},
		{`{"weight_map":{},"metadata":{"total_size":1.5}}`, 42, "no number of bytes"},
		{`{"weight_map":{}} 1`, 18, "after the end"},
	} {
		_, err := ParseIndex([]byte(row.in))
		wantFault(t, err, row.offset, "", row.reason)
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(st(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F4","shape":[2],"data_offsets":[2,3]}}  `, 3))
	f.Add(st(`{"__metadata__":{"a":"\u00e9\\"},"t":{"dtype":"X","shape":[],"data_offsets":[0,1],"o":[{"x":-1.5e-3}]}}`, 1))
	f.Add(st(`{"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := ReadAs(Safetensors, bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		checkFile(t, file, int64(len(b)))
		n, _, err := HeaderNeed(b, int64(len(b)))
		if len(b) >= 16 && (err != nil || n != file.HeaderBytes) {
			t.Fatalf("HeaderNeed %d, %v; header %d", n, err, file.HeaderBytes)
		}
		if len(file.Unknown()) > 0 {
			return
		}
		// Writing what was read gives the same description.
		pieces := make([]Piece, len(file.Tensors))
		for i := range pieces {
			pieces[i].Tensor = &file.Tensors[i]
		}
		sub, err := NewSubset(pieces, file.Metadata)
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		again, err := parseSafetensors(sub.Header[8:], sub.Size)
		if err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		for i := range file.Tensors {
			a := &file.Tensors[i]
			if x := again.Find(a.Name); x == nil || x.String() != a.String() || x.Bytes() != a.Bytes() {
				t.Fatalf("%+v became %+v", a, x)
			}
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":9.0},"weight_map":{"a":"m-1","b":"m-2"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ix, err := ParseIndex(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		for _, e := range ix.Tensors {
			if strings.ContainsAny(e.Shard, "/\\") {
				t.Fatalf("shard %q", e.Shard)
			}
		}
		if m := ix.Merge(nil); len(m.Absent) != len(ix.Shards()) {
			t.Fatalf("%d absent", len(m.Absent))
		}
	})
}

// Memory for a header is a small multiple of the bytes that are there, whatever the header claims.
func BenchmarkSafetensorsHeader(b *testing.B) {
	var entries []Entry
	d, _ := LookupDType("BF16")
	for i := range 20_000 {
		entries = append(entries, Entry{Name: fmt.Sprintf("model.layers.%d.mlp.experts.%d.gate_proj.weight", i/256, i%256), DType: d, Shape: []int64{2048, 7168}})
	}
	head, n, err := AppendHeader(nil, entries, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(head), int64(len(head))+n); err != nil {
			b.Fatal(err)
		}
	}
}
