package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"dray"
	"dray/tensor"
	"dray/unixfs"
)

// A fetch that is watched, or that follows the order of use, knows the tensors in its files:
//
//  1. When the skeleton is there, the leaves that hold the headers of tensor files are looked for before all others.
//  2. From the headers come the tensors' places, and the order of use as a sequence of leaves.
//  3. Leaves are demanded in that sequence, within a window so small that most of it is on its way at any time: the next one
//     enters as one comes. So nearly the order is kept, and hosts that fetch the same at the same time can still ask for
//     different leaves, and give them to one another.
//  4. Each leaf in its place counts for the tensors that have bytes in it.

// The window in the order of use is an eighth of the whole, between these bounds, and what comes in an eighth of a second.
const (
	useWindowLeast = 4 << 20
	useWindowMost  = 16 << 20
	useSmall       = 16 << 20 // a file that is no tensor file comes first if it is no larger
)

// uses is a fetch seen as tensors. It belongs to the fetch's goroutine.
type uses struct {
	f       *fetch
	layered bool // the order of use is followed
	began   bool
	unread  int                  // headers that were neither read nor given up
	due     []*useHeader         // of which those that can be read on
	awaited map[int][]*useHeader // those that need a leaf
	looked  bool                 // nothing is unread
	placed  leafBits
	begun   leafBits // leaves that were looked for
	urgent  []int    // leaves to be looked for first: they hold headers

	seq []int32 // leaves in the order of use; nil for that of the manifest

	found    []found // in the order of their bytes
	arrivals *tensor.Arrivals
	ready    int
	done     []int // reused
}

// found is a tensor in a file that is fetched.
type found struct {
	TensorReady
	at tensor.Range // in the manifest
}

// useHeader is a tensor file.
type useHeader struct {
	entry int
	needs int // leaves that are not here
}

// leafBits is a set of leaves that grows with its largest member.
type leafBits []uint64

func (b leafBits) has(i int) bool { return i>>6 < len(b) && b[i>>6]>>(i&63)&1 == 1 }

func (b *leafBits) add(i int) {
	for i>>6 >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

// newUses returns nil when nobody asks for it.
func newUses(f *fetch) *uses {
	if f.cfg.Watch == nil && f.cfg.Use != tensor.ByLayers {
		return nil
	}
	return &uses{f: f, layered: f.cfg.Use == tensor.ByLayers}
}

// holds reports whether the leaves have to wait until their order is known.
func (u *uses) holds() bool { return u != nil && u.layered && !u.looked }

// nextLeaf returns the next leaf to look for, of those known.
func (f *fetch) nextLeaf(known int) (i int, ok bool) {
	u := f.uses
	for u != nil && len(u.urgent) > 0 {
		i, u.urgent = u.urgent[0], u.urgent[1:]
		if !u.begun.has(i) {
			u.begun.add(i)
			return i, true
		}
	}
	if u.holds() {
		return 0, false
	}
	for f.next < known {
		i = f.next
		if u != nil && u.seq != nil {
			i = int(u.seq[i])
		}
		f.next++
		if u == nil {
			return i, true
		}
		if !u.begun.has(i) {
			u.begun.add(i)
			return i, true
		}
	}
	return 0, false
}

// look reads headers, once the skeleton is there, as far as their leaves are.
func (u *uses) look(ctx context.Context) error {
	if u == nil || u.looked || !u.f.walk.Done() {
		return nil
	}
	entries := u.f.walk.Entries()
	if !u.began {
		u.began, u.awaited = true, make(map[int][]*useHeader)
		for i := range entries {
			if e := &entries[i]; e.Kind == unixfs.File && (e.Path == "" || tensor.FormatOf(e.Path) != "") {
				u.due = append(u.due, &useHeader{entry: i})
			}
		}
		u.unread = len(u.due)
	}
	for len(u.due) > 0 {
		h := u.due[0]
		u.due = u.due[1:]
		if err := u.readHeader(ctx, h); err != nil || u.f.uses != u {
			return err
		}
	}
	if u.unread == 0 {
		u.plan(entries)
	}
	return nil
}

// readHeader reads one header, or notes which leaves that takes.
func (u *uses) readHeader(ctx context.Context, h *useHeader) error {
	e := &u.f.walk.Entries()[h.entry]
	l := listed{path: e.Path, name: path.Base(e.Path), size: e.Size, open: func() (io.ReaderAt, func() error, error) {
		return &placedContent{ctx: ctx, u: u, begin: e.Offset, size: e.Size}, func() error { return nil }, nil
	}}
	file, err := l.header()
	var absent *absentLeaves
	var short *shortLeaf
	switch {
	case errors.As(err, &absent):
		h.needs = len(absent.leaves)
		for _, i := range absent.leaves {
			u.awaited[i] = append(u.awaited[i], h)
		}
		u.urgent = append(u.urgent, absent.leaves...)
		return nil
	case errors.As(err, &short):
		return u.f.refute(short.cid)
	case ctx.Err() != nil:
		return &dray.Error{Op: "get", CID: u.f.cfg.Root, Err: ctxError(ctx)}
	}
	u.unread--
	if err != nil {
		return nil // no tensor file, or a malformed one: it is fetched like any other
	}
	for i := range file.Tensors {
		t := &file.Tensors[i]
		u.found = append(u.found, found{
			TensorReady{File: e.Path, Name: t.Name, DType: t.DType, Shape: t.Shape, Bytes: t.Bytes()},
			tensor.Range{Begin: t.Begin + e.Offset, End: t.End + e.Offset},
		})
	}
	return nil
}

// plan puts the leaves into the order of use, and counts what is here.
func (u *uses) plan(entries []unixfs.Entry) {
	u.looked = true
	man := u.f.walk.Manifest()
	if len(u.found) == 0 {
		u.layered = false
		return
	}
	if u.layered {
		u.sequence(entries)
	}
	slices.SortStableFunc(u.found, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.at.Begin, b.at.Begin), cmp.Compare(a.at.End, b.at.End))
	})
	ranges := make([]tensor.Range, len(u.found))
	for i := range u.found {
		ranges[i] = u.found[i].at
	}
	a, err := tensor.NewArrivals(man, ranges)
	if err != nil {
		u.f.n.cfg.Log.Debug("tensors are not followed", "root", u.f.cfg.Root, "err", err) // they overlap
		return
	}
	u.arrivals = a
	u.tell(a.Empty())
	for i := range man.Len() {
		if u.placed.has(i) {
			u.count(i)
		}
	}
}

// sequence puts what is small and no tensor file first, such as configurations; then the tensors in the order of use; then
// all else.
func (u *uses) sequence(entries []unixfs.Entry) {
	man := u.f.walk.Manifest()
	names := make([]string, len(u.found))
	for i := range u.found {
		names[i] = u.found[i].Name
	}
	order, err := tensor.Order(names, tensor.ByLayers)
	if err != nil {
		panic(err) // the kind is known
	}
	u.seq = make([]int32, 0, man.Len())
	var in leafBits
	put := func(first, end int) {
		for i := first; i < end; i++ {
			if !in.has(i) {
				in.add(i)
				u.seq = append(u.seq, int32(i))
			}
		}
	}
	for i := range entries {
		if e := &entries[i]; e.Size <= useSmall && tensor.FormatOf(e.Path) == "" && e.Path != "" {
			put(e.First, e.First+e.Leaves)
		}
	}
	for _, k := range order {
		put(tensor.Leaves(man, u.found[k].at))
	}
	put(0, man.Len())
}

// window returns how many bytes of leaves may be demanded and not here.
func (u *uses) window() int64 {
	size := u.f.walk.Manifest().Size()
	return min(max(size/8, useWindowLeast), useWindowMost) + int64(u.f.progress.Rate)/8
}

// lookAgain reports whether a header can be read that could not.
func (u *uses) lookAgain() bool { return u != nil && len(u.due) > 0 }

// inPlace notes a leaf.
func (u *uses) inPlace(i int) {
	if u == nil || u.placed.has(i) {
		return
	}
	u.placed.add(i)
	for _, h := range u.awaited[i] {
		if h.needs--; h.needs == 0 {
			u.due = append(u.due, h)
		}
	}
	delete(u.awaited, i)
	u.count(i)
}

func (u *uses) count(i int) {
	if u.arrivals != nil {
		u.done = u.arrivals.Mark(u.done[:0], i)
		u.tell(u.done)
	}
}

func (u *uses) tell(done []int) {
	for _, k := range done {
		u.ready++
		e := u.found[k].TensorReady
		e.After, e.Ready, e.All = time.Since(u.f.start), u.ready, len(u.found)
		u.f.cfg.Watch.put(e)
	}
}

// absentLeaves is why a header cannot be read yet.
type absentLeaves struct{ leaves []int }

func (a *absentLeaves) Error() string {
	return fmt.Sprintf("%d leaves of the header are not here", len(a.leaves))
}

// placedContent reads a file from the leaves that are here.
type placedContent struct {
	ctx         context.Context
	u           *uses
	begin, size int64
}

// ReadAt returns an [*absentLeaves] when it lacks any.
func (c *placedContent) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= c.size {
		return 0, io.EOF
	}
	man := c.u.f.walk.Manifest()
	n := int(min(int64(len(p)), c.size-off))
	at := c.begin + off
	var absent absentLeaves
	first, end := tensor.Leaves(man, tensor.Range{Begin: at, End: at + int64(n)})
	for i := first; i < end; i++ {
		offset, size := man.Extent(i)
		if size == 0 {
			continue
		}
		if !c.u.placed.has(i) {
			absent.leaves = append(absent.leaves, i)
			continue
		}
		b, err := c.u.f.n.store.Get(c.ctx, man.Leaf(i))
		if err != nil {
			return 0, err
		}
		_, data, _, err := unixfs.SplitLeaf(b.CID(), b.Data())
		if err != nil || int64(len(data)) != size {
			return 0, &shortLeaf{b.CID()}
		}
		overlay(p[:n], at, data, offset)
	}
	if len(absent.leaves) > 0 {
		return 0, &absent
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
