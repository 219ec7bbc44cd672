package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"dray"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// A growing file may take parts of a leaf: what a selection of tensors cuts out of it. They are written as they come, and
// recorded by the next commit, under the offset of the first, so that another attempt need not fetch the leaf again. What
// was written and not recorded is written again, because parts of a leaf cannot be told to be right. The records go when
// the file is finished.

// parts are the parts of one leaf that go to one growing file, the first of which begins where no other's does.
type parts struct {
	list []dray.Part
	end  int64 // the content must be at least so long
}

// to is where the first part goes.
func (x *parts) to() int64 { return x.list[0].To }

func (x *parts) bytes() (n int64) {
	for _, p := range x.list {
		n += p.Size
	}
	return n
}

// ExpectParts says that parts of the content of leaf go to the file. It returns whether they are known to be there. It
// keeps the list.
func (g *Growing) ExpectParts(leaf cid.Cid, list []dray.Part) (filled bool, err error) {
	const op = "expect"
	mh, err := hashOf(leaf)
	if err != nil {
		return false, err
	}
	x := parts{list: list}
	for _, p := range list {
		if p.From < 0 || p.Size <= 0 || p.From+p.Size > dray.MaxBlockSize || p.To < 0 || p.To > g.size-p.Size {
			return false, fail(op, leaf, fmt.Errorf("part %+v in %s, which has %d bytes", p, g.path, g.size))
		}
		x.end = max(x.end, p.From+p.Size)
	}
	if len(list) == 0 {
		return false, fail(op, leaf, errors.New("no parts"))
	}
	if err := g.s.enter(); err != nil {
		return false, fail(op, leaf, err)
	}
	defer g.s.leave()
	s, to := g.s, x.to()
	// The sets first: the index gets what is in them before they lose it.
	s.mu.Lock()
	filled = s.pending.hasParts(g.id, mh, to) || s.committing.hasParts(g.id, mh, to)
	s.mu.Unlock()
	if !filled {
		if filled, err = g.recordedParts(mh, to); err != nil {
			return false, fail(op, leaf, err)
		}
	}
	if filled {
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.ended {
		return false, fail(op, leaf, dray.ErrClosed)
	}
	for _, known := range g.expect.parts[mh] {
		if known.to() == to {
			return false, nil
		}
	}
	g.expect.addParts(mh, x)
	return false, nil
}

// recordedParts reports whether the index says that parts of mh, the first at an offset, are in the file.
func (g *Growing) recordedParts(mh string, to int64) (same bool, err error) {
	_, err = lookup(g.s.db, partsKey(g.id, to), func(v []byte) error {
		same = string(v) == mh
		return nil
	})
	return same, err
}

// FillParts writes the parts of a leaf that are expected. It returns an error wrapping dray.ErrCorrupt when the leaf's
// content is shorter than they are.
func (g *Growing) FillParts(b dray.Block) error {
	const op = "fill"
	mh, err := hashOf(b.CID())
	if err != nil {
		return err
	}
	s := g.s
	if err := s.enter(); err != nil {
		return fail(op, b.CID(), err)
	}
	defer s.leave()
	if err := s.admit(context.Background()); err != nil {
		return fail(op, b.CID(), err)
	}
	s.mu.Lock()
	wanted, ended := g.expect.parts[mh], g.ended
	wanted = slices.Clone(wanted)
	if len(wanted) > 0 && !ended {
		s.files.pin(g.file, 1)
		defer s.files.pin(g.file, -1)
	}
	s.mu.Unlock()
	if ended {
		return fail(op, b.CID(), dray.ErrClosed)
	}
	if len(wanted) == 0 {
		return nil
	}
	mh = strings.Clone(mh)
	content := b.Data()
	if s.cfg.Split != nil {
		if _, content, _, err = s.cfg.Split(b.CID(), content); err != nil {
			return fail(op, b.CID(), err)
		}
	}
	for i := range wanted {
		if wanted[i].end > int64(len(content)) {
			return fail(op, b.CID(), fmt.Errorf("%w: %d bytes of content, %d are needed", dray.ErrCorrupt, len(content), wanted[i].end))
		}
		if err := writeParts(g.file.file, wanted[i].list, content); err != nil {
			return fail(op, b.CID(), err)
		}
	}
	g.placeParts(mh, wanted)
	return nil
}

// gathering holds buffers for parts that follow one another in the file.
var gathering = sync.Pool{New: func() any { return new([]byte) }}

// writeParts writes parts of the content. Those that follow one another in the file are written at once: a slice along the
// inner axis of a matrix is thousands of them.
func writeParts(f File, list []dray.Part, content []byte) error {
	buf := gathering.Get().(*[]byte)
	defer gathering.Put(buf)
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].To == list[n-1].To+list[n-1].Size {
			n++
		}
		piece := content[list[0].From : list[0].From+list[0].Size]
		if n > 1 {
			*buf = (*buf)[:0]
			for _, p := range list[:n] {
				*buf = append(*buf, content[p.From:p.From+p.Size]...)
			}
			piece = *buf
		}
		if err := writeAt(f, piece, list[0].To); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// placeParts notes that parts were written.
func (g *Growing) placeParts(mh string, written []parts) {
	s := g.s
	s.mu.Lock()
	first := s.pending.empty()
	for i := range written {
		// Another call may have been faster.
		if !g.ended && g.expect.removeParts(mh, written[i].to()) {
			s.pending.addParts(g.id, mh, written[i])
		}
	}
	look := first || s.fullLocked()
	s.mu.Unlock()
	if look {
		s.wake()
	}
}

// Fill writes bytes that are in no leaf.
func (g *Growing) Fill(offset int64, p []byte) error {
	const op = "fill"
	if offset < 0 || offset > g.size-int64(len(p)) {
		return fail(op, cid.Undef, fmt.Errorf("bytes %d to %d of %s, which has %d", offset, offset+int64(len(p)), g.path, g.size))
	}
	s := g.s
	if err := s.enter(); err != nil {
		return fail(op, cid.Undef, err)
	}
	defer s.leave()
	s.mu.Lock()
	ended := g.ended
	if !ended {
		g.loose = true
		s.files.pin(g.file, 1)
		defer s.files.pin(g.file, -1)
	}
	s.mu.Unlock()
	if ended {
		return fail(op, cid.Undef, dray.ErrClosed)
	}
	return fail(op, cid.Undef, writeAt(g.file.file, p, offset))
}

// Grown reports whether the file at path was finished for a purpose and was not changed since.
func (s *Store) Grown(_ context.Context, path, purpose string) bool {
	path, err := absolute(path)
	if err != nil || s.enter() != nil {
		return false
	}
	defer s.leave()
	id, err := s.fileAt(path)
	if err != nil || id == 0 {
		return false
	}
	rec, err := s.fileRecord(id)
	if err != nil || rec.State != standing || rec.Purpose != purpose || rec.Unsure {
		return false
	}
	now, err := s.cfg.FS.Stat(path)
	return err == nil && now.same(rec.Identity)
}

func partsKey(file uint64, to int64) []byte {
	key := leafKey(nil, file, to)
	key[0] = keyParts
	return key
}

// recordParts puts the parts that are taken into a batch.
func (s *Store) recordParts(b *pebble.Batch) error {
	for i := range s.committing.parts {
		p := &s.committing.parts[i]
		if p.gone {
			continue
		}
		if err := b.Set(partsKey(p.file, p.to()), []byte(p.mh), nil); err != nil {
			return err
		}
	}
	return nil
}

// forgetParts removes what recordParts recorded for a file.
func forgetParts(b *pebble.Batch, file uint64) error {
	from := numKey(keyParts, file)
	return b.DeleteRange(from, upperBound(from), nil)
}

// forgetAnyParts is forgetParts for a file that hardly ever has any. Deleting a range costs every later look-up in proportion to
// the ranges that were deleted lately, and thousands of files may be forgotten at once.
func (s *Store) forgetAnyParts(b *pebble.Batch, file uint64) error {
	err := walk(context.Background(), s.db, numKey(keyParts, file), func(_, _ []byte) (bool, error) { return false, nil })
	if errors.Is(err, errStop) {
		return forgetParts(b, file)
	}
	return err
}

// loseParts has the parts that are taken fetched again: after a flush that failed nobody knows whether they are there.
func (s *Store) loseParts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.committing.parts {
		p := &s.committing.parts[i]
		if p.gone {
			continue
		}
		p.gone = true
		for _, g := range s.growings {
			if !g.ended && g.id == p.file {
				g.expect.addParts(p.mh, p.parts)
				s.cfg.Log.Error("parts of a leaf were lost before they could be synced", "cid", rawCID(p.mh), "path", g.path)
			}
		}
	}
}
