package tensor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
)

func typed(t testing.TB, name string) DType {
	t.Helper()
	d, ok := LookupDType(name)
	if !ok {
		t.Fatalf("no type %s", name)
	}
	return d
}

// naive lists the elements that slices select, one by one, and the bits that each covers.
func naiveBits(x *Tensor, sl []Slice) map[int64]bool {
	bits := make(map[int64]bool)
	n := x.Elements()
	for e := range n {
		// The index of element e along each axis.
		at, rest := make([]int64, len(x.Shape)), e
		for k := range x.Shape {
			a := len(x.Shape) - 1 - k
			if x.Fortran {
				a = k
			}
			at[a], rest = rest%x.Shape[a], rest/x.Shape[a]
		}
		in := true
		for _, s := range sl {
			in = in && slices.ContainsFunc(s.Spans, func(p Span) bool { return p.Begin <= at[s.Axis] && at[s.Axis] < p.End })
		}
		if in {
			for b := range x.DType.Bits {
				if x.DType.Elems == 1 {
					bits[x.Begin*8+e*x.DType.Bits+b] = true
				} else {
					bits[x.Begin*8+e/x.DType.Elems*x.DType.Bits+b] = true
				}
			}
		}
	}
	return bits
}

// Runs are exactly the bytes of the elements selected, merged and in order; what is refused does not fall on bytes.
func TestRunsAgainstElements(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	types := []string{"U8", "F32", "BF16", "F4", "F6_E2M3", "Q4_0"}
	refused, done := 0, 0
	for range 4000 {
		x := &Tensor{Name: "x", DType: typed(t, types[rng.IntN(len(types))]), Begin: rng.Int64N(50), Fortran: rng.IntN(4) == 0}
		for range 1 + rng.IntN(3) {
			x.Shape = append(x.Shape, 1+rng.Int64N(6))
		}
		if x.DType.Elems > 1 {
			x.Shape[len(x.Shape)-1], x.Fortran = 32*(1+rng.Int64N(2)), false
		}
		size, ok := x.DType.Bytes(x.Elements())
		if !ok {
			continue
		}
		x.End = x.Begin + size
		var sl []Slice
		for a, n := range x.Shape {
			if rng.IntN(2) == 0 {
				continue
			}
			s := Slice{Axis: a}
			for at := int64(0); at < n && len(s.Spans) < 3; {
				b := at + rng.Int64N(n-at)
				e := b + rng.Int64N(n-b+1)
				s.Spans = append(s.Spans, Span{b, e})
				at = e + 1
			}
			sl = append(sl, s)
		}
		r, err := x.Runs(sl...)
		bits := naiveBits(x, sl)
		if err != nil {
			if !errors.Is(err, ErrUnaligned) || x.DType.Bits%8 == 0 && x.DType.Elems == 1 {
				t.Fatalf("%v %v: %v", x, sl, err)
			}
			refused++
			continue
		}
		done++
		var set RangeSet
		last := int64(-1)
		for p := range r.All() {
			if p.Begin <= last || p.End <= p.Begin {
				t.Fatalf("%v %v: run %v after %d", x, sl, p, last)
			}
			last = p.End
			set.Add(p)
		}
		if set.Bytes() != r.Bytes() || set.Bytes()*8 != int64(len(bits)) {
			t.Fatalf("%v %v: %d bytes in runs, %d said, %d bits selected", x, sl, set.Bytes(), r.Bytes(), len(bits))
		}
		for b := range bits {
			if !set.Contains(Range{b / 8, b/8 + 1}) {
				t.Fatalf("%v %v: bit %d is missing", x, sl, b)
			}
		}
		if n, ok := x.DType.Bytes(must(elements(r.Shape()))); !ok || n != r.Bytes() {
			t.Fatalf("%v %v: shape %v", x, sl, r.Shape())
		}
		checkWithin(t, x, r, rng)
	}
	if refused < 50 || done < 1000 {
		t.Errorf("%d refused, %d done: the test looks at too little", refused, done)
	}
}

// checkWithin compares Within with All, for a window anywhere around the tensor.
func checkWithin(t *testing.T, x *Tensor, r Runs, rng *rand.Rand) {
	t.Helper()
	var all []int64 // the selected bytes, in order
	for p := range r.All() {
		for b := p.Begin; b < p.End; b++ {
			all = append(all, b)
		}
	}
	if h := r.Hull(); len(all) == 0 && h.Len() != 0 || len(all) > 0 && h != (Range{all[0], all[len(all)-1] + 1}) {
		t.Fatalf("%v: hull %v of %d bytes", x, h, len(all))
	}
	from := max(x.Begin-3+rng.Int64N(x.Bytes()+6), 0)
	window := Range{from, from + rng.Int64N(x.Bytes()+6)}
	first, _ := slices.BinarySearch(all, window.Begin)
	end, _ := slices.BinarySearch(all, window.End)
	next := int64(first)
	for p, pos := range r.Within(window) {
		if pos != next || p.End <= p.Begin || pos+p.Len() > int64(end) {
			t.Fatalf("%v within %v: range %v at %d, want %d up to %d", x, window, p, pos, next, end)
		}
		for b := p.Begin; b < p.End; b++ {
			if all[next] != b {
				t.Fatalf("%v within %v: byte %d at %d, want %d", x, window, b, next, all[next])
			}
			next++
		}
	}
	if next != int64(end) && first < end {
		t.Fatalf("%v within %v: %d bytes, want %d", x, window, next-int64(first), end-first)
	}
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("not ok")
	}
	return v
}

func TestRunsRefusals(t *testing.T) {
	f4 := &Tensor{Name: "x", DType: typed(t, "F4"), Shape: []int64{4, 6}, End: 12}
	for _, sl := range [][]Slice{
		{{1, []Span{{0, 3}}}}, {{1, []Span{{1, 4}}}},
	} {
		if _, err := f4.Runs(sl...); !errors.Is(err, ErrUnaligned) {
			t.Errorf("%v: %v", sl, err)
		}
	}
	for _, sl := range [][]Slice{
		{{2, nil}},
		{{-1, nil}},
		{{0, []Span{{0, 5}}}},
		{{0, []Span{{2, 1}}}},
		{{0, []Span{{-1, 1}}}},
		{{0, []Span{{0, 2}, {1, 3}}}},
		{{0, []Span{{0, 1}}}, {0, []Span{{1, 2}}}},
	} {
		if _, err := f4.Runs(sl...); err == nil {
			t.Errorf("%v: no error", sl)
		}
	}
	unknown := &Tensor{Name: "x", DType: DType{Name: "X"}, Shape: []int64{4}, End: 9}
	if _, err := unknown.Runs(Slice{0, []Span{{0, 2}}}); err == nil {
		t.Error("a slice of an unknown type")
	}
	if r, err := unknown.Runs(Slice{0, []Span{{0, 2}, {2, 4}}}); err != nil || r.Bytes() != 9 {
		t.Errorf("all of an unknown type: %v", err)
	}
}

// A slice of a huge tensor costs nothing until its runs are walked.
func TestRunsHuge(t *testing.T) {
	n := int64(1) << 20
	x := &Tensor{Name: "x", DType: typed(t, "F32"), Shape: []int64{n, n}, End: 4 * n * n}
	allocs := testing.AllocsPerRun(10, func() {
		r, err := x.Runs(Slice{1, []Span{{0, n / 2}}})
		if err != nil || r.Bytes() != 2*n*n {
			t.Fatal(r.Bytes(), err)
		}
		k := 0
		for p := range r.All() {
			if k++; p.Len() != 2*n {
				t.Fatal(p)
			}
			if k == 3 {
				break
			}
		}
	})
	if allocs > 30 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestRangeSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		var s RangeSet
		var model [64]bool
		for range rng.IntN(20) {
			b := rng.Int64N(66) - 2
			r := Range{b, b + rng.Int64N(12) - 2}
			if r.End > 64 {
				r.End = 64
			}
			s.Add(r)
			for i := r.Begin; i < r.End && r.Begin >= 0; i++ {
				model[i] = true
			}
		}
		n, last := int64(0), int64(-1)
		for r := range s.All() {
			if r.Begin <= last {
				t.Fatal(s.String())
			}
			last = r.End
		}
		for _, in := range model {
			if in {
				n++
			}
		}
		b := rng.Int64N(64)
		q := Range{b, b + rng.Int64N(64-b)}
		var missing [64]bool
		for r := range s.Missing(q) {
			for i := r.Begin; i < r.End; i++ {
				missing[i] = true
			}
		}
		all := true
		for i := q.Begin; i < q.End; i++ {
			all = all && model[i]
			if missing[i] == model[i] {
				t.Fatalf("%v misses %v wrongly at %d", s.String(), q, i)
			}
		}
		if s.Bytes() != n || s.Contains(q) != all {
			t.Fatalf("%v: %d bytes, want %d; contains %v %v, want %v", s.String(), s.Bytes(), n, q, s.Contains(q), all)
		}
	}
}

func TestRangeRequests(t *testing.T) {
	const top = 1<<63 - 1
	from := func(a, b, size int64) string { r, ok := FromTo(a, b, size); return fmt.Sprint(r, ok) }
	suffix := func(n, size int64) string { r, ok := Suffix(n, size); return fmt.Sprint(r, ok) }
	for _, row := range [][2]string{
		{from(0, 9, 100), "{0 10} true"},
		{from(90, 200, 100), "{90 100} true"},
		{from(0, top, 100), "{0 100} true"},
		{from(100, 100, 100), "{0 0} false"},
		{from(5, 4, 100), "{0 0} false"},
		{from(-1, 4, 100), "{0 0} false"},
		{from(0, 0, 0), "{0 0} false"},
		{from(0, top, top), fmt.Sprintf("{0 %d} true", int64(top))},
		{suffix(10, 100), "{90 100} true"},
		{suffix(1000, 100), "{0 100} true"},
		{suffix(0, 100), "{0 0} false"},
		{suffix(-1, 100), "{0 0} false"},
		{suffix(1, 0), "{0 0} false"},
	} {
		if row[0] != row[1] {
			t.Errorf("got %s, want %s", row[0], row[1])
		}
	}
	m := dray.NewManifest(cid.Undef, 4)
	for _, n := range []int64{10, 5, 0, 20} {
		m.Append(cid.Undef, n)
	}
	for _, row := range []struct {
		r          Range
		first, end int
	}{{Range{0, 1}, 0, 1}, {Range{9, 11}, 0, 2}, {Range{10, 15}, 1, 2}, {Range{15, 16}, 3, 4}, {Range{0, 1000}, 0, 4}, {Range{35, 40}, 0, 0}, {Range{3, 3}, 0, 0}} {
		if first, end := Leaves(m, row.r); first != row.first || end != row.end {
			t.Errorf("%v: leaves %d to %d, want %d to %d", row.r, first, end, row.first, row.end)
		}
	}
	if !(Range{0, 2}).Overlaps(Range{1, 3}) || (Range{0, 2}).Overlaps(Range{2, 3}) || (Range{1, 1}).Overlaps(Range{0, 5}) {
		t.Error("Overlaps")
	}
}

// Chunks cover the file exactly, keep to their sections and begin every tensor anew; equal tensors give equal chunks.
func TestChunks(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 500 {
		f := &File{DataStart: rng.Int64N(40)}
		at := f.DataStart
		for range rng.IntN(6) {
			at += rng.Int64N(3) * rng.Int64N(4)
			n := rng.Int64N(50) * rng.Int64N(2)
			f.Tensors = append(f.Tensors, Tensor{Begin: at, End: at + n})
			at += n
		}
		f.Size = at + rng.Int64N(2)*rng.Int64N(30)
		maxLeaf := 1 + rng.Int64N(20)
		next, first := int64(0), make(map[int64]int)
		var open *Chunk
		for c := range f.Chunks(maxLeaf) {
			if c.Begin != next || c.End <= c.Begin || c.End-c.Begin > maxLeaf {
				t.Fatalf("chunk %+v after %d", c, next)
			}
			if c.First != (open == nil) || c.First != (c.Begin == c.Section.Begin) || c.Last != (c.End == c.Section.End) {
				t.Fatalf("chunk %+v", c)
			}
			if c.Section.Kind == Data {
				x := f.Tensors[c.Section.Tensor]
				if (c.Begin-x.Begin)%maxLeaf != 0 || c.End > x.End {
					t.Fatalf("chunk %+v of %+v", c, x)
				}
				if c.First {
					first[x.Begin]++
				}
			}
			next, open = c.End, &c
			if c.Last {
				open = nil
			}
		}
		if next != f.Size {
			t.Fatalf("chunks end at %d of %d", next, f.Size)
		}
		for _, x := range f.Tensors {
			if x.Bytes() > 0 && first[x.Begin] != 1 {
				t.Fatalf("tensor at %d begins %d times", x.Begin, first[x.Begin])
			}
		}
	}
	f := mustRead(t, st(`{"a":{"dtype":"U8","shape":[1000003],"data_offsets":[0,1000003]}}`, 1000003))
	n := 0
	for c := range f.Chunks(1 << 16) {
		if n++; n == 3 && (c.Begin != f.DataStart+1<<16 || c.Section.Tensor != 0) {
			t.Errorf("%+v", c)
		}
	}
	if n != 1+16 {
		t.Errorf("%d chunks of a prime number of bytes", n)
	}
	if allocs := testing.AllocsPerRun(10, func() {
		for range f.Chunks(1 << 10) {
		}
	}); allocs > 8 {
		t.Errorf("%v allocations for %d chunks", allocs, n)
	}
}

// assemble makes the file of a subset from the bytes of its sources.
func assemble(s *Subset, src []byte) []byte {
	out := bytes.Clone(s.Header)
	for _, p := range s.Parts {
		for r := range p.Runs.All() {
			out = append(out, src[r.Begin:r.End]...)
		}
	}
	return out
}

func TestSubset(t *testing.T) {
	src := st(`{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"o":{"dtype":"U8","shape":[3],"data_offsets":[24,27]},`+
		`"b":{"dtype":"F16","shape":[2,2],"data_offsets":[27,35]}}`, 35)
	f := mustRead(t, src)
	for i := range 35 {
		src[f.DataStart+int64(i)] = byte(i)
	}
	sub, err := NewSubset([]Piece{
		{Tensor: f.Find("o")}, {Tensor: f.Find("a"), Slices: []Slice{{1, []Span{{1, 2}}}}}, {Tensor: f.Find("b"), Name: "renamed"},
	}, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	out := assemble(sub, src)
	g := mustRead(t, out)
	d := g.DataStart
	// Wider types come first, because in the given order they would lie on odd bytes.
	want := fmt.Sprintf("a F32 [2 1] [%d,%d)\nrenamed F16 [2 2] [%d,%d)\no U8 [3] [%d,%d)\n", d, d+8, d+8, d+16, d+16, d+19)
	if got := list(g); got != want || int64(len(out)) != sub.Size || d%8 != 0 {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if data := out[d:]; !bytes.Equal(data, []byte{4, 5, 6, 7, 16, 17, 18, 19, 27, 28, 29, 30, 31, 32, 33, 34, 24, 25, 26}) {
		t.Errorf("data %v", data)
	}
	for i, p := range sub.Parts {
		if g.Tensors[i].Begin != p.Offset {
			t.Errorf("part %d at %d, tensor at %d", i, p.Offset, g.Tensors[i].Begin)
		}
	}
	q := &Tensor{Name: "q", DType: typed(t, "Q4_0"), Shape: []int64{32}, End: 18}
	if _, err := NewSubset([]Piece{{Tensor: q}}, nil); err == nil {
		t.Error("a quantised tensor")
	}
	fortran := &Tensor{Name: "q", DType: typed(t, "U8"), Shape: []int64{2, 2}, End: 4, Fortran: true}
	if _, err := NewSubset([]Piece{{Tensor: fortran}}, nil); err == nil {
		t.Error("a Fortran tensor")
	}
}
