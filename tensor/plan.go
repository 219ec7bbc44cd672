package tensor

import "iter"

// SectionKind says what a stretch of a tensor file is.
type SectionKind uint8

const (
	// Header is what lies before the first tensor.
	Header SectionKind = iota
	// Data is exactly one tensor.
	Data
	// Other is what lies between tensors or after the last: padding, or a zip's directory.
	Other
)

// Section is a stretch of a file with one meaning.
type Section struct {
	// Kind says what it is.
	Kind SectionKind
	// Tensor is the index in [File.Tensors] for Data, else -1.
	Tensor int
	// Begin and End are its bytes; it is never empty.
	Begin, End int64
}

// Chunk is a stretch of a file that becomes one leaf.
type Chunk struct {
	// Section is what the chunk is part of.
	Section Section
	// Begin and End are its bytes; it is never empty.
	Begin, End int64
	// First and Last say that it is the first or the last chunk of its section.
	First, Last bool
}

// Sections yields the stretches of the file in order. They cover it exactly, and no two tensors share one; tensors
// without bytes have none. It allocates nothing.
func (f *File) Sections() iter.Seq[Section] {
	return func(yield func(Section) bool) {
		at := int64(0)
		// fill yields what lies before the byte end.
		fill := func(end int64) bool {
			s := Section{Kind: Other, Tensor: -1, Begin: at, End: end}
			if at == 0 {
				s.Kind = Header
			}
			at = max(at, end)
			return s.End <= s.Begin || yield(s)
		}
		if !fill(min(f.DataStart, f.Size)) {
			return
		}
		for i := range f.Tensors {
			t := &f.Tensors[i]
			if t.Bytes() == 0 {
				continue
			}
			if !fill(t.Begin) {
				return
			}
			at = t.End
			if !yield(Section{Kind: Data, Tensor: i, Begin: t.Begin, End: t.End}) {
				return
			}
		}
		fill(f.Size)
	}
}

// Chunks yields the leaves that the file is to be cut into: each section by itself, in pieces of maxLeaf bytes and a
// rest. So equal tensors have equal leaves, whichever file they are in and wherever: padding and the headers between the
// entries of a zip file are sections of their own. The chunks cover the file exactly, depend on nothing but the
// description and maxLeaf, and are made one at a time. It panics when maxLeaf is not positive. A change here is a change
// of every CID that files of tensors have; docs/tensors.md specifies it.
func (f *File) Chunks(maxLeaf int64) iter.Seq[Chunk] {
	if maxLeaf <= 0 {
		panic("tensor: leaves must have bytes")
	}
	return func(yield func(Chunk) bool) {
		for s := range f.Sections() {
			for at := s.Begin; at < s.End; {
				end := s.End
				if end-at > maxLeaf {
					end = at + maxLeaf
				}
				if !yield(Chunk{Section: s, Begin: at, End: end, First: at == s.Begin, Last: end == s.End}) {
					return
				}
				at = end
			}
		}
	}
}
