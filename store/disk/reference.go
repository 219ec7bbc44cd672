package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"dray"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// FileRef is a file of the user's whose leaves are being indexed where they lie. It is used by one goroutine. Nothing of
// it is found before Commit; without Commit, Close forgets it.
type FileRef struct {
	s        *Store
	id       uint64
	path     string
	identity Identity
	began    time.Time
	batch    []indexed
	leaves   int64
	done     bool
}

type indexed struct {
	mh string
	place
}

// indexBatch is how many leaves go to the index at once.
const indexBatch = 1024

// Reference begins to index the file at path, whose leaves the caller is about to read and hash. It records the file's
// identity now. It returns dray.ErrNotFound when there is no such file.
func (s *Store) Reference(ctx context.Context, path string) (*FileRef, error) {
	const op = "reference"
	if err := s.enter(); err != nil {
		return nil, fail(op, cid.Undef, err)
	}
	defer s.leave()
	if ctx.Err() != nil {
		return nil, fail(op, cid.Undef, context.Cause(ctx))
	}
	abs, err := absolute(path)
	if err != nil {
		return nil, fail(op, cid.Undef, err)
	}
	began := time.Now()
	now, err := s.cfg.FS.Stat(abs)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: %w", dray.ErrNotFound, err)
	}
	if err != nil {
		return nil, fail(op, cid.Undef, err)
	}
	e := s.begin()
	id, err := s.newFileLocked(e.batch)
	if err != nil {
		e.abandon()
		return nil, fail(op, cid.Undef, err)
	}
	if err := e.finish(); err != nil {
		return nil, fail(op, cid.Undef, err)
	}
	return &FileRef{s: s, id: id, path: abs, identity: now, began: began}, nil
}

// Size returns the file's length in bytes when Reference was called.
func (r *FileRef) Size() int64 { return r.identity.Size }

// Index says that the block leaf is head, then size bytes of the file from offset on, then tail. It keeps head and tail.
func (r *FileRef) Index(leaf cid.Cid, head, tail []byte, offset, size int64) error {
	mh, err := hashOf(leaf)
	switch {
	case err != nil:
		return err
	case r.done:
		return fail("index", leaf, dray.ErrClosed)
	case offset < 0 || size < 0 || offset+size > r.identity.Size:
		return fail("index", leaf, fmt.Errorf("bytes %d to %d of %s, which has %d", offset, offset+size, r.path, r.identity.Size))
	case len(head) > maxFraming || len(tail) > maxFraming:
		return fail("index", leaf, fmt.Errorf("%d and %d bytes of framing, at most %d", len(head), len(tail), maxFraming))
	}
	if _, ok := identity(mh); ok {
		return nil
	}
	r.batch = append(r.batch, indexed{mh, place{kind: inFile, id: r.id, off: offset, size: size, head: head, tail: tail}})
	r.leaves++
	if len(r.batch) < indexBatch {
		return nil
	}
	if err := r.s.enter(); err != nil {
		return fail("index", leaf, err)
	}
	defer r.s.leave()
	return fail("index", leaf, r.flush())
}

// Elsewhere reports whether the store has leaf anywhere but in the file at this path: in the index, in a segment, or in a
// file that is as it was when it was indexed. Nothing is read or hashed.
func (r *FileRef) Elsewhere(leaf cid.Cid) (bool, error) {
	const op = "find"
	mh, err := hashOf(leaf)
	if err != nil {
		return false, err
	}
	if r.done {
		return false, fail(op, leaf, dray.ErrClosed)
	}
	if err := r.s.enter(); err != nil {
		return false, fail(op, leaf, err)
	}
	defer r.s.leave()
	r.s.touch(mh)
	var room [2]place
	places, err := r.s.find(room[:0], mh)
	if err != nil {
		return false, fail(op, leaf, err)
	}
	for i := range places {
		switch p := &places[i]; {
		case p.kind != inFile:
			return true, nil
		case p.id != r.id && r.s.unchanged(p, r.path):
			return true, nil
		}
	}
	return false, nil
}

// unchanged reports whether a place lies in a file, other than the one at path, that is as it was when it was indexed.
func (s *Store) unchanged(p *place, path string) bool {
	f, now, err := s.look(p.id)
	if err != nil {
		return false
	}
	defer s.files.release(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rec.State == standing && f.rec.Path == path {
		return false
	}
	return f.rec.State == growing || f.rec.Identity.same(now)
}

func (r *FileRef) flush() error {
	e := r.s.begin()
	for i := range r.batch {
		if err := e.add(r.batch[i].mh, &r.batch[i].place); err != nil {
			e.abandon()
			return err
		}
	}
	clear(r.batch)
	r.batch = r.batch[:0]
	return e.finish()
}

// Commit makes the leaves found, in place of what was indexed for the same path before. It returns dray.ErrChanged, and
// forgets everything, if the file is not as it was when Reference was called. What is committed survives kill and power
// loss after the next [Store.Sync].
func (r *FileRef) Commit(ctx context.Context) error {
	const op = "reference"
	if err := r.s.enter(); err != nil {
		return fail(op, cid.Undef, err)
	}
	defer r.s.leave()
	if r.done {
		return fail(op, cid.Undef, dray.ErrClosed)
	}
	if ctx.Err() != nil {
		return fail(op, cid.Undef, context.Cause(ctx))
	}
	if err := r.flush(); err != nil {
		return fail(op, cid.Undef, err)
	}
	now, err := r.s.cfg.FS.Stat(r.path)
	if err == nil && !now.same(r.identity) {
		err = fmt.Errorf("%w: %s: while it was being read", dray.ErrChanged, r.path)
	} else if err != nil {
		err = changed(r.path, err)
	}
	if err != nil {
		return fail(op, cid.Undef, errors.Join(err, r.forget()))
	}
	r.done = true
	rec := fileRecord{
		Path: r.path, State: standing, Identity: r.identity, Leaves: r.leaves,
		Unsure: r.identity.racy(r.began),
	}
	return fail(op, cid.Undef, r.s.install(r.id, &rec))
}

// install makes the record of a file that was indexed the one for its path, and drops the one before.
func (s *Store) install(id uint64, rec *fileRecord) error {
	e := s.begin()
	old, err := s.fileAt(rec.path())
	if err == nil {
		err = putFileRecord(e.batch, id, rec)
	}
	if err == nil {
		err = e.batch.Delete(numKey(keyDropped, id), nil)
	}
	if err == nil {
		err = e.batch.Set(numKey(keyUnsync, id), nil, nil)
	}
	if err == nil && old != 0 && old != id {
		err = s.doom(e.batch, old)
	}
	if err != nil {
		e.abandon()
		return err
	}
	if err := e.finish(); err != nil {
		return err
	}
	s.mu.Lock()
	s.unsynced = append(s.unsynced, id)
	s.mu.Unlock()
	s.wake()
	if old != 0 && old != id {
		return s.dropFile(old)
	}
	return nil
}

// fileAt returns the number of the file that is recorded for path, or 0.
func (s *Store) fileAt(path string) (id uint64, err error) {
	_, err = lookup(s.db, append([]byte{keyPath}, path...), func(v []byte) error {
		if len(v) != 8 {
			return errIndex
		}
		id = binary.BigEndian.Uint64(v)
		return nil
	})
	return id, err
}

// doom removes a file's record, so that none of its places counts any more, and notes that the rest is to be removed.
func (s *Store) doom(b *pebble.Batch, id uint64) error {
	if err := b.Delete(numKey(keyFile, id), nil); err != nil {
		return err
	}
	if err := b.Delete(numKey(keyUnsync, id), nil); err != nil {
		return err
	}
	return b.Set(numKey(keyDropped, id), nil, nil)
}

// dropFile removes what is left of a doomed file: its leaves, and their places in it.
func (s *Store) dropFile(id uint64) error {
	s.files.remove(id)
	inIt := func(p *place) bool { return p.kind == inFile && p.id == id }
	for {
		// A part at a time, so that others can change the index in between.
		e := s.begin()
		n := 0
		err := walk(context.Background(), s.db, numKey(keyLeaf, id), func(key, v []byte) (bool, error) {
			l, err := parseLeaf(v)
			if err != nil {
				return false, err
			}
			if err := e.drop(l.mh, inIt); err != nil {
				return false, err
			}
			if err := e.batch.Delete(append([]byte(nil), key...), nil); err != nil {
				return false, err
			}
			n++
			return n < indexBatch, nil
		})
		if err != nil && !errors.Is(err, errStop) {
			e.abandon()
			return err
		}
		if n == 0 {
			err := s.forgetAnyParts(e.batch, id)
			if err == nil {
				err = e.batch.Delete(numKey(keyDropped, id), nil)
			}
			if err != nil {
				e.abandon()
				return err
			}
			return e.finish()
		}
		if err := e.finish(); err != nil {
			return err
		}
	}
}

func (r *FileRef) forget() error {
	r.done = true
	r.batch = nil
	return r.s.dropFile(r.id)
}

// Close forgets a FileRef that was not committed. After Commit it does nothing.
func (r *FileRef) Close() error {
	if r.done {
		return nil
	}
	if err := r.s.enter(); err != nil {
		return fail("reference", cid.Undef, err)
	}
	defer r.s.leave()
	return fail("reference", cid.Undef, r.forget())
}

// Forget drops the reference to the file at path, and with it the blocks that lie nowhere else. The file itself is not
// touched. Forgetting a file that is not referenced is not an error.
func (s *Store) Forget(ctx context.Context, path string) error {
	const op = "forget"
	if err := s.enter(); err != nil {
		return fail(op, cid.Undef, err)
	}
	defer s.leave()
	if ctx.Err() != nil {
		return fail(op, cid.Undef, context.Cause(ctx))
	}
	abs, err := absolute(path)
	if err != nil {
		return fail(op, cid.Undef, err)
	}
	return fail(op, cid.Undef, s.forgetPath(abs))
}

// Unchanged reports whether the file at path is referenced and has the size and times that it had then.
func (s *Store) Unchanged(path string) bool {
	if s.enter() != nil {
		return false
	}
	defer s.leave()
	abs, err := absolute(path)
	if err != nil {
		return false
	}
	id, err := s.fileAt(abs)
	if err != nil || id == 0 {
		return false
	}
	rec, err := s.fileRecord(id)
	if err != nil || rec.State != standing {
		return false
	}
	now, err := s.cfg.FS.Stat(abs)
	return err == nil && now.same(rec.Identity)
}

func (s *Store) forgetPath(path string) error {
	e := s.begin()
	id, err := s.fileAt(path)
	if err != nil || id == 0 {
		e.abandon()
		return err
	}
	if err = s.doom(e.batch, id); err == nil {
		err = e.batch.Delete(append([]byte{keyPath}, path...), nil)
	}
	if err != nil {
		e.abandon()
		return err
	}
	if err := e.finish(); err != nil {
		return err
	}
	return s.dropFile(id)
}

// proven notes that the leaf at p was hashed and matched. Once every leaf of the file has, for one identity, the file is
// trusted again under that identity.
func (s *Store) proven(p *place, r *reading) {
	if !r.steady || r.identity.racy(r.began) {
		return // it could still have been written since without its times telling
	}
	now := r.identity
	f, err := s.acquireFile(p.id)
	if err != nil {
		return
	}
	defer s.files.release(f)
	f.mu.Lock()
	if !f.provenFor.same(now) || f.proven == nil {
		f.proven, f.provenFor = make(map[int64]struct{}), now
	}
	f.proven[p.off] = struct{}{}
	all := f.rec.State == standing && f.rec.Leaves > 0 && int64(len(f.proven)) == f.rec.Leaves
	f.mu.Unlock()
	if all {
		if err := s.trust(f, now); err != nil {
			s.cfg.Log.Warn("recording a file's new identity", "error", err)
		}
	}
}

// trust records that a file's leaves are all as they should be while it has the given identity.
func (s *Store) trust(f *openFile, now Identity) error {
	e := s.begin()
	rec, err := s.fileRecord(f.id)
	if err != nil || rec.State != standing {
		e.abandon()
		if errors.Is(err, errGone) {
			err = nil
		}
		return err
	}
	rec.Identity, rec.Unsure = now, false
	if err := putFileRecord(e.batch, f.id, &rec); err != nil {
		e.abandon()
		return err
	}
	if err := e.finish(); err != nil {
		return err
	}
	f.mu.Lock()
	f.rec = rec
	f.proven = nil
	f.mu.Unlock()
	return nil
}
