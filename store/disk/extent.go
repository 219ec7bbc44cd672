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

// Extent calls use with where c lies, for sending it without reading it first. It returns dray.ErrNotFound, and GetRaw is
// to be used instead, when the block lies in no file or in one that cannot be relied on without hashing. The Extent is
// valid during the call; if the file changes meanwhile, Extent returns dray.ErrChanged after use has returned nil.
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
