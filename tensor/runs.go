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
		if r.walk(emit) && last.End > last.Begin {
			yield(last)
		}
	}
}

// walk calls emit for each run, merged along the innermost sliced axis only.
func (r *Runs) walk(emit func(Range) bool) bool {
	inner := len(r.spans) - 1
	// at is the index along each outer axis, which the number of its span.
	at, which := make([]int64, inner), make([]int, inner)
	for a := range inner {
		at[a] = r.spans[a][0].Begin
	}
	for {
		row := int64(0)
		for a := range inner {
			row += at[a] * r.stride[a]
		}
		for _, p := range r.spans[inner] {
			x := Range{r.offset(row + p.Begin*r.stride[inner]), r.offset(row + p.End*r.stride[inner])}
			if !emit(x) {
				return false
			}
		}
		a := inner - 1
		for ; a >= 0; a-- {
			if at[a]++; at[a] < r.spans[a][which[a]].End {
				break
			}
			if which[a]++; which[a] < len(r.spans[a]) {
				at[a] = r.spans[a][which[a]].Begin
				break
			}
			which[a] = 0
			at[a] = r.spans[a][0].Begin
		}
		if a < 0 {
			return true
		}
	}
}

// offset returns the byte of the file at which element n begins.
func (r *Runs) offset(n int64) int64 { return r.begin + n/r.dtype.Elems*r.dtype.Bits/8 }
