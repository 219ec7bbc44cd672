package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"syscall"
	"time"

	"dray"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// Get implements [dray.Getter]. The block is hashed.
func (s *Store) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	if err := s.enter(); err != nil {
		return dray.Block{}, fail("get", c, err)
	}
	defer s.leave()
	s.touch(c.KeyString())
	_, b, err := s.get(ctx, c, nil, true)
	return b, fail("get", c, err)
}

// GetRaw implements [dray.RawGetter]: one read of the file, without hashing unless the file may have changed.
func (s *Store) GetRaw(ctx context.Context, c cid.Cid, buf []byte) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, fail("get", c, err)
	}
	defer s.leave()
	s.touch(c.KeyString())
	data, _, err := s.get(ctx, c, buf, false)
	return data, fail("get", c, err)
}

// get reads a block from the first of its places that is good, and forgets those that turn out not to be. With prove it
// hashes in any case, and returns the Block.
func (s *Store) get(ctx context.Context, c cid.Cid, buf []byte, prove bool) ([]byte, dray.Block, error) {
	if ctx.Err() != nil {
		return nil, dray.Block{}, context.Cause(ctx)
	}
	mh, err := hashOf(c)
	if err != nil {
		return nil, dray.Block{}, err
	}
	if data, ok := identity(mh); ok {
		b, err := dray.NewBlock(c, data)
		return data, b, err
	}
	// A place can go away between finding and reading it, when its segment is rewritten; then it is elsewhere.
	for range 3 {
		var room [2]place
		places, err := s.find(room[:0], mh)
		if err != nil {
			return nil, dray.Block{}, err
		}
		if len(places) == 0 {
			return nil, dray.Block{}, dray.ErrNotFound
		}
		worst := error(nil)
		for i := range places {
			p := &places[i]
			data, r, err := s.readPlace(p, buf)
			if err == nil && (prove || !r.sure) {
				var b dray.Block
				if b, err = dray.NewBlock(c, data); err == nil {
					if !r.sure {
						s.proven(p, &r)
					}
					return data, b, nil
				}
				if errors.Is(err, dray.ErrCorrupt) {
					err = s.bad(mh, p, err)
				}
			}
			if err == nil {
				return data, dray.Block{}, nil
			}
			if errors.Is(err, io.EOF) {
				err = s.bad(mh, p, fmt.Errorf("%w: %w", dray.ErrCorrupt, io.ErrUnexpectedEOF))
			}
			if worst == nil || errors.Is(worst, errGone) {
				worst = err
			}
		}
		if !errors.Is(worst, errGone) {
			if errors.Is(worst, dray.ErrChanged) || errors.Is(worst, dray.ErrCorrupt) {
				s.cfg.Lost()
			}
			return nil, dray.Block{}, worst
		}
	}
	return nil, dray.Block{}, dray.ErrNotFound
}

// bad forgets a place that does not hold its block and returns the error for it.
func (s *Store) bad(mh string, p *place, err error) error {
	if p.kind == inFile {
		path := ""
		if f, ferr := s.acquireFile(p.id); ferr == nil {
			f.mu.Lock()
			path = f.rec.path()
			f.mu.Unlock()
			s.files.release(f)
		}
		err = fmt.Errorf("%w: %s: block at %d: %v", dray.ErrChanged, path, p.off, err)
	}
	s.cfg.Log.Warn("forgetting a bad block", "cid", rawCID(mh), "error", err)
	if derr := s.dropPlace(mh, p); derr != nil {
		return errors.Join(err, derr)
	}
	s.expectAgain(mh, p)
	return err
}

// dropPlace forgets one place of a block.
func (s *Store) dropPlace(mh string, p *place) error {
	return s.drop(mh, p, func(q *place) bool { return q.at(p) })
}

// drop forgets the places of a block for which match returns true, and p in particular if it is not nil: a file lists it
// even when the block's own list was full.
func (s *Store) drop(mh string, p *place, match func(*place) bool) error {
	e := s.begin()
	s.mu.Lock()
	s.pending.drop(mh, match)
	s.committing.drop(mh, match)
	s.mu.Unlock()
	err := e.drop(mh, match)
	if err == nil && p != nil && p.kind == inFile {
		var room [17]byte
		err = e.batch.Delete(leafKey(room[:0], p.id, p.off), nil)
	}
	if err != nil {
		e.abandon()
		return err
	}
	return e.finish()
}

// find appends to dst the places of a block: what is pending first, because the index gets it before it stops being so.
func (s *Store) find(dst []place, mh string) ([]place, error) {
	s.mu.Lock()
	dst = s.pending.find(dst, mh)
	dst = s.committing.find(dst, mh)
	s.mu.Unlock()
	n := len(dst)
	var room [maxKey]byte
	v, closer, err := s.db.Get(blockKey(room[:0], mh))
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, nil
	}
	if err != nil {
		return nil, err
	}
	for len(v) > 0 {
		var p place
		if p, v, err = cutPlace(v); err != nil {
			closer.Close()
			return nil, err
		}
		// While a commit is under way a place may be both.
		seen := false
		for i := range dst[:n] {
			seen = seen || dst[i].at(&p)
		}
		if !seen {
			p.data, p.head, p.tail = clone(p.data), clone(p.head), clone(p.tail)
			dst = append(dst, p)
		}
	}
	return dst, closer.Close()
}

func clone(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

// reading says how far the bytes read from a place can be relied on.
type reading struct {
	// sure: they need not be hashed. They lie where only the store writes, or in a file that has not changed.
	sure bool
	// steady: they come from a file whose identity was the same before and after. Identity and began are then set.
	steady   bool
	identity Identity
	began    time.Time
}

// readPlace reads the block at p into buf if it fits, else into fresh memory. Errors are errGone, one wrapping
// dray.ErrChanged, io.EOF when there are fewer bytes, and those of the disk.
func (s *Store) readPlace(p *place, buf []byte) (data []byte, r reading, err error) {
	size := int(p.blockSize())
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	switch p.kind {
	case inIndex:
		copy(buf, p.data)
		return buf, reading{sure: true}, nil
	case inSegment:
		f, err := s.acquireSegment(p.id)
		if err != nil {
			return nil, r, err
		}
		err = readFull(f.file, buf, p.off)
		s.files.release(f)
		return buf, reading{sure: true}, err
	}
	copy(buf, p.head)
	copy(buf[size-len(p.tail):], p.tail)
	r.began = time.Now()
	f, before, err := s.look(p.id)
	if err != nil {
		return nil, r, err
	}
	defer s.files.release(f)
	if err := readFull(f.file, buf[len(p.head):size-len(p.tail)], p.off); err != nil {
		if errors.Is(err, syscall.EISDIR) {
			f.mu.Lock()
			err = changed(f.rec.path(), err)
			f.mu.Unlock()
		}
		return nil, r, err
	}
	if f.growing() {
		r.sure = true
		return buf, r, nil
	}
	after, err := f.file.Identity()
	if errors.Is(err, fs.ErrNotExist) {
		return buf, r, nil // removed while it was read; the bytes may still be right
	}
	if err != nil {
		return nil, r, err
	}
	r.identity, r.steady = after, before.same(after)
	r.sure = r.steady && f.sure(after, p.off)
	return buf, r, nil
}

// look opens a referenced file and returns its identity now.
func (s *Store) look(id uint64) (*openFile, Identity, error) {
	for range 2 {
		f, err := s.acquireFile(id)
		if err != nil {
			return nil, Identity{}, err
		}
		now, err := f.file.Identity()
		if err == nil {
			return f, now, nil
		}
		f.mu.Lock()
		path, state := f.rec.path(), f.rec.State
		f.mu.Unlock()
		if !errors.Is(err, fs.ErrNotExist) || state == growing {
			s.files.release(f)
			return nil, Identity{}, changed(path, err)
		}
		// The open file was removed. There may be another one at its path: look at that one.
		s.files.remove(id)
		s.files.release(f)
	}
	return nil, Identity{}, fmt.Errorf("%w: keeps being replaced", dray.ErrChanged)
}

// growing reports whether only the store writes the file.
func (f *openFile) growing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rec.State == growing
}

// sure reports whether the leaf at off is as it was indexed, given the file's identity now.
func (f *openFile) sure(now Identity, off int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.rec.Unsure && f.rec.Identity.same(now) {
		return true
	}
	_, ok := f.proven[off]
	return ok && f.provenFor.same(now)
}

func readFull(f File, buf []byte, off int64) error {
	n, err := f.ReadAt(buf, off)
	if n == len(buf) {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// Stat implements [dray.Store]. Of a block in a file that has vanished it says not found.
func (s *Store) Stat(ctx context.Context, c cid.Cid) (int64, error) {
	if err := s.enter(); err != nil {
		return 0, fail("stat", c, err)
	}
	defer s.leave()
	s.touch(c.KeyString())
	n, err := s.stat(ctx, c)
	return n, fail("stat", c, err)
}

func (s *Store) stat(ctx context.Context, c cid.Cid) (int64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	mh, err := hashOf(c)
	if err != nil {
		return 0, err
	}
	if data, ok := identity(mh); ok {
		return int64(len(data)), nil
	}
	var room [2]place
	places, err := s.find(room[:0], mh)
	if err != nil {
		return 0, err
	}
	for i := range places {
		if s.standing(&places[i]) {
			return places[i].blockSize(), nil
		}
	}
	return 0, dray.ErrNotFound
}

// standing reports whether what should hold a place is there.
func (s *Store) standing(p *place) bool {
	if p.kind != inFile {
		return true
	}
	f, now, err := s.look(p.id)
	if err != nil {
		return false
	}
	s.files.release(f)
	return now.Size >= p.off+p.size
}

// All implements [dray.Store].
func (s *Store) All(ctx context.Context) iter.Seq2[dray.Stat, error] {
	return func(yield func(dray.Stat, error) bool) {
		if err := s.enter(); err != nil {
			yield(dray.Stat{}, fail("list", cid.Undef, err))
			return
		}
		defer s.leave()
		if err := s.all(ctx, func(st dray.Stat) bool { return yield(st, nil) }); err != nil {
			yield(dray.Stat{}, fail("list", cid.Undef, err))
		}
	}
}

func (s *Store) all(ctx context.Context, yield func(dray.Stat) bool) error {
	// The pending set is copied before the snapshot of the index is made: a block that is committed in between is then in
	// both, never in neither.
	early := make(map[string][]place)
	s.mu.Lock()
	for _, set := range []*pendingSet{s.pending, s.committing} {
		set.each(func(mh string, p *place) { early[mh] = append(early[mh], *p) })
	}
	s.mu.Unlock()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	emit := func(mh string, places []place) bool {
		for i := range places {
			if s.standing(&places[i]) {
				return yield(dray.Stat{CID: rawCID(mh), Size: places[i].blockSize()})
			}
		}
		return true
	}
	err := walk(ctx, snap, []byte{keyBlock}, func(key, v []byte) (bool, error) {
		mh := string(key[1:])
		places := early[mh]
		delete(early, mh)
		for len(v) > 0 {
			p, rest, err := cutPlace(v)
			if err != nil {
				return false, err
			}
			places, v = append(places, p), rest
		}
		return emit(mh, places), nil
	})
	if err != nil {
		if errors.Is(err, errStop) {
			return nil
		}
		return err
	}
	for mh, places := range early {
		if !emit(mh, places) {
			return nil
		}
	}
	return nil
}

var errStop = errors.New("stopped")

// walk calls use for the keys that begin with prefix, in order. It returns errStop when use returns false.
func walk(ctx context.Context, r pebble.Reader, prefix []byte, use func(key, value []byte) (bool, error)) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			it.Close()
			return context.Cause(ctx)
		}
		v, err := it.ValueAndErr()
		if err != nil {
			it.Close()
			return err
		}
		more, err := use(it.Key(), v)
		if err != nil || !more {
			it.Close()
			if err == nil {
				err = errStop
			}
			return err
		}
	}
	return errors.Join(it.Error(), it.Close())
}
