package disk

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"dray"

	"github.com/ipfs/go-cid"
)

// target is a place in a growing file that a leaf is to be written to.
type target struct {
	g *Growing
	spot
}

// putLeaf writes a block to every place that growing files expect it at. It reports false when there is none.
func (s *Store) putLeaf(mh string, c cid.Cid, data []byte) (done bool, err error) {
	var room [4]target
	targets := s.claim(room[:0], mh)
	if len(targets) == 0 {
		return false, nil
	}
	defer func() {
		for _, t := range targets {
			s.files.pin(t.g.file, -1)
		}
	}()
	head, content, tail := []byte(nil), data, []byte(nil)
	for _, t := range targets {
		if int(t.size) == len(data) || s.cfg.Split == nil {
			continue
		}
		if head, content, tail, err = s.cfg.Split(c, data); err != nil {
			return false, nil // no leaf after all: it is kept like any other block
		}
		break
	}
	if len(head) > maxFraming || len(tail) > maxFraming || len(head)+len(content)+len(tail) != len(data) {
		return false, nil
	}
	fits := targets[:0:0]
	for _, t := range targets {
		if int(t.size) != len(content) {
			continue
		}
		if err := writeAt(t.g.file.file, content, t.off); err != nil {
			return false, err
		}
		fits = append(fits, t)
	}
	return s.place(mh, fits, clone(head), clone(tail)), nil
}

// claim appends the places where growing files expect mh, and keeps their files open.
func (s *Store) claim(dst []target, mh string) []target {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.growings {
		if g.ended || g.file == nil {
			continue
		}
		i, ok := g.expect.first(mh)
		if !ok {
			continue
		}
		for ; i >= 0; i = g.expect.spots[i].next {
			s.files.pin(g.file, 1)
			dst = append(dst, target{g, g.expect.spots[i]})
		}
	}
	return dst
}

// place makes a leaf that was written to targets findable there. It reports false if none of them counts any more.
func (s *Store) place(mh string, targets []target, head, tail []byte) (placed bool) {
	s.mu.Lock()
	first := s.pending.empty()
	for _, t := range targets {
		if t.g.ended {
			continue
		}
		placed = true
		// Another Put of the same block may have been faster.
		if t.g.expect.remove(mh, t.off) {
			p := place{kind: inFile, id: t.g.id, off: t.off, size: int64(t.size), head: head, tail: tail}
			s.pending.add(mh, p)
		}
	}
	look := first || s.fullLocked()
	s.mu.Unlock()
	if look {
		s.wake()
	}
	return placed
}

// expectAgain puts a leaf whose bytes turned out to be lost back among those expected.
func (s *Store) expectAgain(mh string, p *place) {
	if p.kind != inFile {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.growings {
		if !g.ended && g.id == p.id {
			g.expect.add(mh, spot{off: p.off, size: int32(p.size), framed: len(p.head)+len(p.tail) > 0})
		}
	}
}

// expected is a leaf and one place that it goes to.
type expected struct {
	mh string
	spot
}

// cid returns a CID for the leaf that says how its block is read.
func (x *expected) cid() cid.Cid {
	if x.framed {
		return cid.NewCidV1(cid.DagProtobuf, []byte(x.mh))
	}
	return rawCID(x.mh)
}

// lacking returns what is expected, in file order.
func (g *Growing) lacking() []expected {
	g.s.mu.Lock()
	list := make([]expected, 0, len(g.expect.spots))
	g.expect.each(func(mh string, sp spot) bool {
		list = append(list, expected{mh, sp})
		return true
	})
	g.s.mu.Unlock()
	slices.SortFunc(list, func(a, b expected) int { return int(min(max(a.off-b.off, -1), 1)) })
	return list
}

// Recover looks for expected leaves in what an earlier attempt left in the part file: what is not recorded as synced is
// hashed, on all cores, and kept if it matches. It returns how many leaves and bytes need not be fetched. It is called
// after Expect, once or after each part of a long list; on a new file it does nothing.
func (g *Growing) Recover(ctx context.Context) (leaves int, bytes int64, err error) {
	const op = "recover"
	if err := g.s.enter(); err != nil {
		return 0, 0, fail(op, cid.Undef, err)
	}
	defer g.s.leave()
	if !g.resumed {
		return 0, 0, nil
	}
	list, err := g.written(g.lacking())
	if err != nil {
		return 0, 0, fail(op, cid.Undef, err)
	}
	var found, size atomic.Int64
	err = parallel(ctx, len(list), 0, func(i int, buf *[]byte) error {
		ok, err := g.recoverLeaf(&list[i], buf)
		if ok {
			found.Add(1)
			size.Add(int64(list[i].size))
		}
		return err
	})
	return int(found.Load()), size.Load(), fail(op, cid.Undef, err)
}

// written keeps of list, which is in file order, the leaves whose every byte may have been written.
func (g *Growing) written(list []expected) ([]expected, error) {
	kept := list[:0]
	var start, end int64
	for _, x := range list {
		if x.off >= end {
			var err error
			start, end, err = g.file.file.NextData(x.off)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
		}
		if x.off >= start && x.off+int64(x.size) <= end {
			kept = append(kept, x)
		}
	}
	return kept, nil
}

func (g *Growing) recoverLeaf(x *expected, buf *[]byte) (bool, error) {
	var head, tail []byte
	var err error
	if x.framed {
		if g.s.cfg.Frame == nil {
			return false, nil
		}
		if head, tail, err = g.s.cfg.Frame(x.cid(), int64(x.size)); err != nil {
			return false, nil // not a leaf that can be recognised
		}
	}
	n := len(head) + int(x.size) + len(tail)
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	block := append((*buf)[:0], head...)[:n]
	copy(block[n-len(tail):], tail)
	if err := readFull(g.file.file, block[len(head):n-len(tail)], x.off); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	if _, err := dray.NewBlock(x.cid(), block); err != nil {
		if errors.Is(err, dray.ErrCorrupt) {
			return false, nil
		}
		return false, err
	}
	return g.s.place(x.mh, []target{{g, x.spot}}, clone(head), clone(tail)), nil
}

// Adopt fills places whose leaves the store holds elsewhere with local copies, sharing the disk's blocks where the file
// system can. It returns how many places it filled.
func (g *Growing) Adopt(ctx context.Context) (places int, err error) {
	const op = "adopt"
	if err := g.s.enter(); err != nil {
		return 0, fail(op, cid.Undef, err)
	}
	defer g.s.leave()
	list := g.lacking()
	var n atomic.Int64
	err = parallel(ctx, len(list), 2, func(i int, buf *[]byte) error {
		ok, err := g.adoptLeaf(ctx, &list[i], buf)
		if ok {
			n.Add(1)
		}
		return err
	})
	return int(n.Load()), fail(op, cid.Undef, err)
}

func (g *Growing) adoptLeaf(ctx context.Context, x *expected, buf *[]byte) (bool, error) {
	s := g.s
	s.mu.Lock()
	lacks := g.expect.has(x.mh, x.off) && !g.ended
	s.mu.Unlock()
	if !lacks {
		return false, nil
	}
	s.touch(x.mh)
	held, err := s.find(nil, x.mh)
	if err != nil || len(held) == 0 {
		return false, err
	}
	for i := range held {
		if ok, err := g.copyFrom(&held[i], x); ok || err != nil {
			return ok, err
		}
	}
	data, _, err := s.get(ctx, x.cid(), *buf, false)
	if errors.Is(err, dray.ErrNotFound) || errors.Is(err, dray.ErrChanged) || errors.Is(err, dray.ErrCorrupt) {
		return false, nil // it will be fetched
	}
	if err != nil {
		return false, err
	}
	*buf = data
	return s.putLeaf(x.mh, x.cid(), data)
}

// copyFrom copies a leaf's content from p to its place within the kernel, if p can be relied on without hashing.
func (g *Growing) copyFrom(p *place, x *expected) (bool, error) {
	s := g.s
	if p.kind == inIndex || p.size != int64(x.size) {
		return false, nil
	}
	var f *openFile
	var before Identity
	var err error
	if p.kind == inSegment {
		f, err = s.acquireSegment(p.id)
	} else {
		f, before, err = s.look(p.id)
	}
	if err != nil {
		return false, nil // another place, or the slow way, will say what is wrong
	}
	defer s.files.release(f)
	if !copyRange(g.file.file, x.off, f.file, p.off, p.size) {
		return false, nil
	}
	if p.kind == inFile && !f.growing() {
		after, err := f.file.Identity()
		if err != nil || !before.same(after) || !f.sure(after, p.off) {
			return false, nil
		}
	}
	return s.place(x.mh, []target{{g, x.spot}}, p.head, p.tail), nil
}

// parallel calls do for 0 to n-1 on several workers, each with a buffer of its own, until one fails. If workers is 0,
// there is one for each core.
func parallel(ctx context.Context, n, workers int, do func(i int, buf *[]byte) error) error {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			var buf []byte
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i, &buf); err != nil {
					stop(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
