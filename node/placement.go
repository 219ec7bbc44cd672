package node

import (
	"cmp"
	"errors"
	"iter"
	"slices"
	"sort"

	"dray"
	"dray/tensor"
)

// placement says which bytes of a manifest's content go where in which files. It knows nothing of how they are got: a
// fetch asks it for leaves in the order of use, and for each leaf which parts of it go where. After finish it is only
// read.
type placement struct {
	man    *dray.Manifest
	outs   []outFile
	placed []placed // those before ordered are wanted first, in their order
	order  []int    // of the tensors among placed, in the order of use
	bytes  int64    // that come out of leaves

	sorted []int // all of placed, in the order of their bytes in the manifest
}

// outFile is a file that is written.
type outFile struct {
	path    string
	size    int64
	head    []byte // bytes at the beginning that are in no leaf
	bytes   int64  // that come out of leaves
	sparse  bool   // the rest are holes
	purpose string
}

// placed is one tensor, or what describes a file, on its way to a file.
type placed struct {
	file  string // path of the tensor's file under the root
	name  string // of the tensor, or ""
	dtype tensor.DType
	base  int64 // of its file in the manifest
	runs  tensor.Runs
	out   int
	to    int64 // where its first byte goes; in a sparse file each byte keeps its offset

	hull tensor.Range // of its bytes in the manifest
}

// addRange places a range of a file that is no tensor.
func (p *placement) addRange(base int64, r tensor.Range, out int) error {
	raw := tensor.Tensor{DType: tensor.DType{Name: "U8", Elems: 1, Bits: 8}, Shape: []int64{r.Len()}, Begin: r.Begin, End: r.End}
	runs, err := raw.Runs()
	if err != nil {
		return err
	}
	p.order = append(p.order, len(p.placed))
	p.placed = append(p.placed, placed{base: base, runs: runs, out: out})
	return nil
}

// finish makes the placement ready for use.
func (p *placement) finish() error {
	for i := range p.placed {
		x := &p.placed[i]
		x.hull = x.runs.Hull()
		x.hull.Begin, x.hull.End = x.hull.Begin+x.base, x.hull.End+x.base
		n := x.runs.Bytes()
		p.bytes += n
		p.outs[x.out].bytes += n
		if n > 0 {
			p.sorted = append(p.sorted, i)
		}
	}
	slices.SortFunc(p.sorted, func(a, b int) int { return cmp.Compare(p.placed[a].hull.Begin, p.placed[b].hull.Begin) })
	for i := 1; i < len(p.sorted); i++ {
		if p.placed[p.sorted[i]].hull.Begin < p.placed[p.sorted[i-1]].hull.End {
			return errors.New("node: what is selected overlaps") // readers of tensor files refuse such
		}
	}
	return nil
}

// wantedParts is a leaf of which something is wanted.
type wantedParts struct {
	leaf  int // index in the manifest
	out   int
	size  int64 // of the leaf's content
	parts []dray.Part
	bytes int64 // in parts

	misses int // how often it came and did not reach its place
}

// whole reports whether the leaf goes to the file in one piece.
func (w *wantedParts) whole() bool { return len(w.parts) == 1 && w.parts[0].Size == w.size }

// leaves yields what is wanted of each leaf, in the order of use, each leaf once. The parts may be kept.
func (p *placement) leaves() iter.Seq[wantedParts] {
	return func(yield func(wantedParts) bool) {
		seen := make([]uint64, (p.man.Len()+63)/64)
		for _, i := range p.order {
			first, end := tensor.Leaves(p.man, p.placed[i].hull)
			for k := first; k < end; k++ {
				if seen[k/64]&(1<<(k%64)) != 0 || !p.touches(i, k) {
					continue
				}
				seen[k/64] |= 1 << (k % 64)
				if !yield(p.of(k)) {
					return
				}
			}
		}
	}
}

// touches reports whether anything of placed i lies in leaf k.
func (p *placement) touches(i, k int) bool {
	x := &p.placed[i]
	at, size := p.man.Extent(k)
	for range x.runs.Within(tensor.Range{Begin: at - x.base, End: at + size - x.base}) {
		return true
	}
	return false
}

// of returns everything that is wanted of leaf k. All of it goes to one file, because a leaf is part of one.
func (p *placement) of(k int) wantedParts {
	at, size := p.man.Extent(k)
	w := wantedParts{leaf: k, size: size}
	i := sort.Search(len(p.sorted), func(i int) bool { return p.placed[p.sorted[i]].hull.End > at })
	for ; i < len(p.sorted); i++ {
		x := &p.placed[p.sorted[i]]
		if x.hull.Begin >= at+size {
			break
		}
		p.add(&w, x, at)
	}
	return w
}

// ofOne returns what is wanted of leaf k for placed i alone.
func (p *placement) ofOne(i, k int) wantedParts {
	at, size := p.man.Extent(k)
	w := wantedParts{leaf: k, size: size}
	p.add(&w, &p.placed[i], at)
	return w
}

// add adds to w, whose leaf begins at a byte of the manifest, what is wanted of it for x.
func (p *placement) add(w *wantedParts, x *placed, at int64) {
	w.out = x.out
	sparse := p.outs[x.out].sparse
	for r, pos := range x.runs.Within(tensor.Range{Begin: at - x.base, End: at + w.size - x.base}) {
		part := dray.Part{From: r.Begin + x.base - at, Size: r.Len(), To: x.to + pos}
		if sparse {
			part.To = r.Begin
		}
		w.bytes += part.Size
		if n := len(w.parts); n > 0 {
			if last := &w.parts[n-1]; last.From+last.Size == part.From && last.To+last.Size == part.To {
				last.Size += part.Size
				continue
			}
		}
		w.parts = append(w.parts, part)
	}
}

// missing returns how many bytes of each placed are to come.
func (p *placement) missing() []int64 {
	left := make([]int64, len(p.placed))
	for i := range p.placed {
		left[i] = p.placed[i].runs.Bytes()
	}
	return left
}

// empty returns the placed without bytes.
func (p *placement) empty() (done []int) {
	for i := range p.placed {
		if p.placed[i].runs.Bytes() == 0 {
			done = append(done, i)
		}
	}
	return done
}

// arrived takes leaf k, which comes once, from what is missing, and returns the placed that are complete by that.
func (p *placement) arrived(k int, left []int64) (done []int) {
	if left == nil {
		return nil
	}
	at, size := p.man.Extent(k)
	i := sort.Search(len(p.sorted), func(i int) bool { return p.placed[p.sorted[i]].hull.End > at })
	for ; i < len(p.sorted) && p.placed[p.sorted[i]].hull.Begin < at+size; i++ {
		x := p.sorted[i]
		if n := p.ofOne(x, k).bytes; n > 0 {
			if left[x] -= n; left[x] == 0 {
				done = append(done, x)
			}
		}
	}
	return done
}

// arrivedFile is arrived for all that goes to a file.
func (p *placement) arrivedFile(out int, left []int64) (done []int) {
	for i := range left {
		if p.placed[i].out == out && left[i] > 0 {
			left[i] = 0
			done = append(done, i)
		}
	}
	return done
}
