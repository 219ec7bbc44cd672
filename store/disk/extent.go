package disk

import (
	"context"
	"errors"

	"dray"

	"github.com/ipfs/go-cid"
)

// Extent says where a block's bytes lie in one file: Head, then Size bytes of File from Offset on, then Tail.
type Extent struct {
	File         File
	Offset, Size int64
	Head, Tail   []byte
}

// Extent calls use with where c lies, for sending it without reading it first. It returns dray.ErrNotFound, and GetRaw
// is to be used instead, when the block lies in no file or in one that cannot be relied on without hashing. The Extent
// is valid during the call; if the file changes meanwhile, Extent returns dray.ErrChanged after use has returned nil.
func (s *Store) Extent(ctx context.Context, c cid.Cid, use func(Extent) error) error {
	const op = "extent"
	if err := s.enter(); err != nil {
		return fail(op, c, err)
	}
	defer s.leave()
	return fail(op, c, s.extent(ctx, c, use))
}

func (s *Store) extent(ctx context.Context, c cid.Cid, use func(Extent) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	mh, err := hashOf(c)
	if err != nil {
		return err
	}
	var room [2]place
	places, err := s.find(room[:0], mh)
	if err != nil {
		return err
	}
	for i := range places {
		p := &places[i]
		e := Extent{Offset: p.off, Size: p.size, Head: p.head, Tail: p.tail}
		switch p.kind {
		case inSegment:
			f, err := s.acquireSegment(p.id)
			if err != nil {
				continue
			}
			e.File = f.file
			err = use(e)
			s.files.release(f)
			return err
		case inFile:
			f, now, err := s.look(p.id)
			if err != nil {
				continue
			}
			if !f.growing() && !f.sure(now, p.off) {
				s.files.release(f)
				continue
			}
			e.File = f.file
			err = use(e)
			if after, ierr := f.file.Identity(); err == nil && !f.growing() && (ierr != nil || !after.same(now)) {
				err = changed("a file", errors.Join(ierr, errors.New("while it was used")))
			}
			s.files.release(f)
			return err
		}
	}
	return dray.ErrNotFound
}

// GetPart implements [dray.PartGetter]: one read of the file, without hashing.
func (s *Store) GetPart(ctx context.Context, c cid.Cid, p []byte, offset int64) (n int, size int64, err error) {
	const op = "get"
	if err := s.enter(); err != nil {
		return 0, 0, fail(op, c, err)
	}
	defer s.leave()
	if ctx.Err() != nil {
		return 0, 0, fail(op, c, context.Cause(ctx))
	}
	s.touch(c.KeyString())
	mh, err := hashOf(c)
	if err != nil {
		return 0, 0, fail(op, c, err)
	}
	if data, ok := identity(mh); ok {
		return copy(p, data[min(offset, int64(len(data))):]), int64(len(data)), nil
	}
	var room [2]place
	places, err := s.find(room[:0], mh)
	if err != nil {
		return 0, 0, fail(op, c, err)
	}
	for i := range places {
		size := places[i].blockSize()
		part := p[:max(min(int64(len(p)), size-offset), 0)]
		if s.readPart(&places[i], part, offset) {
			return len(part), size, nil
		}
	}
	return 0, 0, fail(op, c, dray.ErrNotFound)
}

// readPart fills buf with what a place has from offset of its block on, and reports whether it can be relied on.
// Whatever is wrong with the place, a Get will find out.
func (s *Store) readPart(p *place, buf []byte, offset int64) bool {
	switch p.kind {
	case inIndex:
		copy(buf, p.data[min(offset, int64(len(p.data))):])
		return true
	case inSegment:
		f, err := s.acquireSegment(p.id)
		if err != nil {
			return false
		}
		defer s.files.release(f)
		return readFull(f.file, buf, p.off+offset) == nil
	}
	f, before, err := s.look(p.id)
	if err != nil {
		return false
	}
	defer s.files.release(f)
	at := offset - int64(len(p.head)) // in the content
	rest := buf
	if at < 0 {
		n := copy(rest, p.head[offset:])
		rest, at = rest[n:], 0
	}
	if n := min(int64(len(rest)), p.size-at); n > 0 {
		if readFull(f.file, rest[:n], p.off+at) != nil {
			return false
		}
		rest, at = rest[n:], at+n
	}
	if len(rest) > 0 {
		copy(rest, p.tail[at-p.size:])
	}
	if f.growing() {
		return true
	}
	after, err := f.file.Identity()
	return err == nil && before.same(after) && f.sure(after, p.off)
}
