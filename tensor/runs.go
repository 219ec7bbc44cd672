package tensor

import (
	"fmt"
	"iter"
	"slices"
)

// Span is a half-open interval of elements along one axis.
type Span struct{ Begin, End int64 }

// Slice selects parts of one axis of a tensor. Of an axis that has no Slice, everything is selected.
type Slice struct {
	// Axis is the axis, 0 being the slowest.
	Axis int
	// Spans are what is selected, in elements: ascending and without overlap.
	Spans []Span
}

// Runs are the bytes that slices of a tensor select, as ranges of its file. A Runs takes no more memory than the slices,
// however many ranges it has. The zero Runs has none.
type Runs struct {
	begin  int64 // of the tensor
	dtype  DType
	whole  int64 // when slices select everything: the tensor's bytes, else -1
	shape  []int64
	spans  [][]Span // per axis down to the innermost that is sliced
	stride []int64  // in elements, for the same axes
}

// Runs returns the bytes of the part of t that the slices select, at most one slice an axis. In the result, runs
// follow the order of the elements in the file. It returns [ErrPacked] for a part of a compressed tensor,
// [ErrUnaligned] when a boundary falls into a byte or block, and an error that says which slice does not fit the
// shape.
func (t *Tensor) Runs(sl ...Slice) (Runs, error) {
	fail := func(err error) (Runs, error) {
		return Runs{}, border("slice", fmt.Errorf("tensor %s: %w", quoteShort(t.Name), err))
	}
	spans := make([][]Span, len(t.Shape))
	shape := slices.Clone(t.Shape)
	for _, s := range sl {
		if s.Axis < 0 || s.Axis >= len(t.Shape) {
			return fail(fmt.Errorf("axis %d of a shape %v", s.Axis, t.Shape))
		}
		if spans[s.Axis] != nil {
			return fail(fmt.Errorf("axis %d is sliced twice", s.Axis))
		}
		n, last := int64(0), int64(0)
		for _, p := range s.Spans {
			if p.Begin < last || p.End < p.Begin || p.End > t.Shape[s.Axis] {
				return fail(fmt.Errorf("span [%d, %d) of axis %d in a shape %v", p.Begin, p.End, s.Axis, t.Shape))
			}
			n, last = n+p.End-p.Begin, p.End
		}
		spans[s.Axis] = merged(s.Spans)
		shape[s.Axis] = n
	}
	r := Runs{begin: t.Begin, dtype: t.DType, whole: -1, shape: shape}
	if slices.Equal(shape, t.Shape) {
		r.whole = t.Bytes()
		return r, nil
	}
	switch {
	case t.Packed:
		return fail(ErrPacked)
	case !t.DType.Known():
		return fail(fmt.Errorf("type %s is not known, so only the whole tensor can be had", quoteShort(t.DType.Name)))
	}
	lengths := slices.Clone(t.Shape)
	if t.Fortran {
		slices.Reverse(lengths)
		slices.Reverse(spans)
	}
	// Axes inside the innermost sliced one are taken whole.
	inner, stride := len(spans)-1, int64(1)
	for ; spans[inner] == nil || coversAxis(spans[inner], lengths[inner]); inner-- {
		stride *= lengths[inner]
	}
	r.spans, r.stride = make([][]Span, inner+1), make([]int64, inner+1)
	for a := inner; a >= 0; a-- {
		r.spans[a], r.stride[a] = spans[a], stride
		if spans[a] == nil {
			r.spans[a] = []Span{{0, lengths[a]}}
		}
		stride *= lengths[a]
	}
	if n, _ := elements(shape); n > 0 {
		if err := r.checkUnits(); err != nil {
			return fail(err)
		}
	}
	return r, nil
}

// merged returns spans without empty ones and with those that touch made one.
func merged(spans []Span) []Span {
	out := make([]Span, 0, len(spans))
	for _, p := range spans {
		switch {
		case p.Begin == p.End:
		case len(out) > 0 && out[len(out)-1].End == p.Begin:
			out[len(out)-1].End = p.End
		default:
			out = append(out, p)
		}
	}
	return out
}

func coversAxis(spans []Span, n int64) bool {
	return n == 0 || len(spans) == 1 && spans[0] == Span{0, n}
}

// checkUnits says whether all boundaries fall on whole bytes and blocks. It asks that of each axis by itself; offsets
// that only add up to whole bytes are refused with the others.
func (r *Runs) checkUnits() error {
	unit := r.dtype.unit()
	for a, spans := range r.spans {
		if r.stride[a]%unit == 0 {
			continue
		}
		inner := a == len(r.spans)-1
		cut := func(n int64) bool { return n%unit*(r.stride[a]%unit)%unit != 0 }
		for _, p := range spans {
			// On outer axes every index in the span is a boundary, and one of two neighbours is cut.
			if cut(p.Begin) || inner && cut(p.End) || !inner && p.End-p.Begin > 1 {
				return fmt.Errorf("%w: span [%d, %d) of axis %d, in a type of %d bits for %d elements", ErrUnaligned,
					p.Begin, p.End, a, r.dtype.Bits, r.dtype.Elems)
			}
		}
	}
	return nil
}

// Shape returns the shape of what is selected. The caller must not change it.
func (r Runs) Shape() []int64 { return r.shape }

// Bytes returns the number of bytes selected.
func (r Runs) Bytes() int64 {
	if r.whole >= 0 {
		return r.whole
	}
	n, _ := elements(r.shape)
	size, _ := r.dtype.Bytes(n)
	return size
}

// Hull returns the range from the first byte selected to the last; it is empty when none is.
func (r Runs) Hull() Range {
	switch {
	case r.Bytes() == 0:
		return Range{r.begin, r.begin}
	case r.whole >= 0:
		return Range{r.begin, r.begin + r.whole}
	}
	var first, end int64 // in elements
	for a, spans := range r.spans {
		first += spans[0].Begin * r.stride[a]
		last := spans[len(spans)-1].End
		if a < len(r.spans)-1 {
			last--
		}
		end += last * r.stride[a]
	}
	return Range{r.offset(first), r.offset(end)}
}

// All yields the ranges of the file in ascending order, none of them empty and no two touching.
func (r Runs) All() iter.Seq[Range] {
	return func(yield func(Range) bool) {
		if r.Bytes() == 0 {
			return
		}
		if r.whole >= 0 {
			yield(Range{r.begin, r.begin + r.whole})
			return
		}
		var last Range
		emit := func(x Range) bool {
			if x.Begin == last.End {
				last.End = x.End
				return true
			}
			done := last
			last = x
			return done.End == done.Begin || yield(done)
		}
		if r.walk(r.start(), emit) && last.End > last.Begin {
			yield(last)
		}
	}
}

// Within yields what the ranges of All have in common with a range x of the file, in ascending order, each with the place
// of its first byte among the bytes selected. It goes straight to x, however many ranges come before, so that a leaf's
// share of a selection can be told without listing the selection. Ranges that touch are not always made one.
func (r Runs) Within(x Range) iter.Seq2[Range, int64] {
	return func(yield func(Range, int64) bool) {
		x.Begin = max(x.Begin, r.begin)
		if x.End <= x.Begin || r.Bytes() == 0 {
			return
		}
		if r.whole >= 0 {
			if x.End = min(x.End, r.begin+r.whole); x.Begin < x.End {
				yield(x, x.Begin-r.begin)
			}
			return
		}
		p, row, ok := r.seek(x.Begin)
		if !ok {
			return
		}
		pos := row * r.rowBytes()
		r.walk(p, func(run Range) bool {
			if run.Begin >= x.End {
				return false
			}
			at := pos
			pos += run.Len()
			if run.End <= x.Begin {
				return true
			}
			cut := Range{max(run.Begin, x.Begin), min(run.End, x.End)}
			return yield(cut, at+cut.Begin-run.Begin)
		})
	}
}

// rowBytes returns the bytes selected for one place along the outer axes.
func (r *Runs) rowBytes() int64 {
	inner, n := len(r.spans)-1, int64(0)
	for _, p := range r.spans[inner] {
		n += p.End - p.Begin
	}
	return r.offset(n*r.stride[inner]) - r.begin
}

// seek returns the first place along the outer axes whose row ends after the byte at, and how many selected places come
// before it. It reports false when there is none. At is not before the tensor.
func (r *Runs) seek(at int64) (p runPlace, before int64, ok bool) {
	p = r.start()
	inner := len(r.spans) - 1
	// The element that the byte belongs to, or an earlier one that shares its block or byte.
	rest := (at - r.begin) * 8 / r.dtype.Bits * r.dtype.Elems
	exact := true // the place is on the way to that element; else it is beyond it, and the first one there
	for a := 0; a < inner; a++ {
		spans, index := r.spans[a], int64(0)
		if !exact {
			before *= spanned(spans)
			continue
		}
		n := rest / r.stride[a]
		rest %= r.stride[a]
		i := 0
		for i < len(spans) && spans[i].End <= n {
			index += spans[i].End - spans[i].Begin
			i++
		}
		if i == len(spans) {
			return r.after(p, a, before)
		}
		p.which[a], p.at[a] = i, max(n, spans[i].Begin)
		before = before*spanned(spans) + index + p.at[a] - spans[i].Begin
		exact = p.at[a] == n
	}
	if spans := r.spans[inner]; exact && spans[len(spans)-1].End*r.stride[inner] <= rest {
		return r.after(p, inner, before)
	}
	return p, before, true
}

// after moves p, which is exact along the axes before a, to the next place along them: nothing is selected beyond it.
func (r *Runs) after(p runPlace, a int, before int64) (runPlace, int64, bool) {
	inner := len(r.spans) - 1
	before++
	for b := a; b < inner; b++ {
		before *= spanned(r.spans[b])
	}
	for b := a; b < inner; b++ {
		p.at[b], p.which[b] = r.spans[b][0].Begin, 0
	}
	return p, before, r.step(p, a-1)
}

func spanned(spans []Span) int64 {
	n := int64(0)
	for _, p := range spans {
		n += p.End - p.Begin
	}
	return n
}

// runPlace is a place along the outer axes: the index along each, and the number of the span that it is in.
type runPlace struct {
	at    []int64
	which []int
}

func (r *Runs) start() runPlace {
	inner := len(r.spans) - 1
	p := runPlace{make([]int64, inner), make([]int, inner)}
	for a := range inner {
		p.at[a] = r.spans[a][0].Begin
	}
	return p
}

// step moves p to the next selected place, counting axis a up. It reports false at the end.
func (r *Runs) step(p runPlace, a int) bool {
	for ; a >= 0; a-- {
		if p.at[a]++; p.at[a] < r.spans[a][p.which[a]].End {
			return true
		}
		if p.which[a]++; p.which[a] < len(r.spans[a]) {
			p.at[a] = r.spans[a][p.which[a]].Begin
			return true
		}
		p.which[a] = 0
		p.at[a] = r.spans[a][0].Begin
	}
	return false
}

// walk calls emit for each run from a place on, merged along the innermost sliced axis only.
func (r *Runs) walk(p runPlace, emit func(Range) bool) bool {
	inner := len(r.spans) - 1
	for {
		row := int64(0)
		for a := range inner {
			row += p.at[a] * r.stride[a]
		}
		for _, s := range r.spans[inner] {
			x := Range{r.offset(row + s.Begin*r.stride[inner]), r.offset(row + s.End*r.stride[inner])}
			if !emit(x) {
				return false
			}
		}
		if !r.step(p, inner-1) {
			return true
		}
	}
}

// offset returns the byte of the file at which element n begins.
func (r *Runs) offset(n int64) int64 { return r.begin + n/r.dtype.Elems*r.dtype.Bits/8 }
