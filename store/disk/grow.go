package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dray"

	"github.com/ipfs/go-cid"
)

// Growing is a destination file that is being fetched. It lies at its path with ".dray-part" after it until Finish. The
// caller says with Expect where leaves go; [Store.Put] then writes such a leaf straight to its place, from where it is
// served at once. Its methods are safe for concurrent use.
type Growing struct {
	s    *Store
	id   uint64
	path string // of the finished file
	as   dray.Growth
	size int64     // as.Size
	file *openFile // pinned

	// resumed: the part file was there, so places may be recorded and bytes may be right.
	resumed bool

	finishing sync.Mutex // one Finish at a time

	// Guarded by Store.mu.
	expect *expectations
	ended  bool
	loose  bool // bytes were written that no commit knows of
}

// ErrGrowing means that a file is being fetched by somebody else now.
var ErrGrowing = errors.New("is being fetched already")

// Grow begins, or continues, to fetch the file at path, which will have size bytes. It makes the part file, with disk
// space behind it where that is cheap; it returns dray.ErrNoSpace, with numbers, when there is not enough. An existing
// file at path is not touched before Finish replaces it; whether that is wanted is for the caller to ask first.
func (s *Store) Grow(ctx context.Context, path string, size int64) (*Growing, error) {
	return s.GrowAs(ctx, path, dray.Growth{Size: size})
}

// GrowAs is Grow for a file of which more is to be said. When the part file was begun for another purpose, what is recorded
// of it is forgotten; its bytes stay for [Growing.Recover], unless the file is to have holes.
func (s *Store) GrowAs(ctx context.Context, path string, as dray.Growth) (*Growing, error) {
	if err := s.enter(); err != nil {
		return nil, fail("grow", cid.Undef, err)
	}
	defer s.leave()
	g, err := s.grow(ctx, path, as)
	return g, fail("grow", cid.Undef, err)
}

func (s *Store) grow(ctx context.Context, path string, as dray.Growth) (*Growing, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if as.Size < 0 || as.Holes < 0 || as.Holes > as.Size {
		return nil, fmt.Errorf("%s: %d holes in a file of %d bytes", path, as.Holes, as.Size)
	}
	path, err := absolute(path)
	if err != nil {
		return nil, err
	}
	// Until it is open it only keeps its path from others.
	g := &Growing{s: s, path: path, as: as, size: as.Size, expect: newExpectations(), ended: true}
	s.mu.Lock()
	for _, other := range s.growings {
		if other.path == path {
			s.mu.Unlock()
			return nil, fmt.Errorf("%s %w", path, ErrGrowing)
		}
	}
	s.growings = append(s.growings, g)
	s.mu.Unlock()
	if err := g.open(); err != nil {
		s.forgetGrowing(g)
		return nil, err
	}
	s.mu.Lock()
	g.ended = false
	s.mu.Unlock()
	return g, nil
}

func (s *Store) forgetGrowing(g *Growing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.ended = true
	for i := range s.growings {
		if s.growings[i] == g {
			s.growings = append(s.growings[:i], s.growings[i+1:]...)
			return
		}
	}
}

// open opens or makes the part file and its record.
func (g *Growing) open() error {
	s, part := g.s, partPath(g.path)
	before, err := s.cfg.FS.Stat(part)
	switch {
	case err == nil:
		g.resumed = true
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	need := g.size - g.as.Holes - before.Allocated
	if free, err := s.cfg.FS.Free(filepath.Dir(part)); err == nil && free >= 0 && need > free {
		return noSpace(g.path, need, free)
	}
	file, err := s.cfg.FS.Open(part, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	if err := g.record(file, part, before); err != nil {
		file.Close()
		if !g.resumed {
			s.cfg.FS.Remove(part)
		}
		return err
	}
	return nil
}

func (g *Growing) record(file File, part string, before Identity) error {
	s := g.s
	if err := g.reserve(file, part, before); err != nil {
		return err
	}
	now, err := file.Identity()
	if err != nil {
		return err
	}
	if !g.resumed {
		if err := s.cfg.FS.SyncDir(filepath.Dir(part)); err != nil {
			return err
		}
	}
	e := s.begin()
	old, err := s.fileAt(part)
	if err != nil {
		e.abandon()
		return err
	}
	rec := fileRecord{Path: g.path, Part: part, State: growing, Identity: now, Purpose: g.as.Purpose}
	if old != 0 {
		was, err := s.fileRecord(old)
		if err != nil && !errors.Is(err, errGone) {
			e.abandon()
			return err
		}
		if err == nil && was.State == growing && was.Identity.Ino == now.Ino && was.Identity.Size == g.size &&
			was.Purpose == g.as.Purpose {
			g.id, rec = old, was
		}
	}
	if g.id == 0 {
		if g.id, err = s.newFileLocked(e.batch); err == nil {
			err = putFileRecord(e.batch, g.id, &rec)
		}
		if err == nil {
			err = e.batch.Delete(numKey(keyDropped, g.id), nil)
		}
		if err == nil && old != 0 {
			err = s.doom(e.batch, old)
		}
		if err != nil {
			e.abandon()
			return err
		}
	} else {
		old = 0
	}
	if err := e.finish(); err != nil {
		return err
	}
	if old != 0 {
		s.dropPending(old)
		if err := s.dropFile(old); err != nil {
			return err
		}
	}
	// Readers may have the file open already; from now on it is the one that is open for writing.
	s.files.remove(g.id)
	f := s.files.insert(&openFile{id: g.id, file: file, rec: rec, pinned: 1})
	s.files.release(f)
	g.file = f
	return nil
}

// reserve gives the part file its length.
func (g *Growing) reserve(file File, part string, before Identity) error {
	if g.as.Holes == 0 {
		if before.Size == g.size && g.resumed {
			return nil
		}
		return file.Reserve(g.size)
	}
	same := false
	if id, err := g.s.fileAt(part); err == nil && id != 0 {
		was, err := g.s.fileRecord(id)
		same = err == nil && was.Purpose == g.as.Purpose && was.Identity.Ino == before.Ino
	}
	if g.resumed && !same { // what is there may lie where there are to be holes
		if err := file.Truncate(0); err != nil {
			return err
		}
	}
	return file.Truncate(g.size)
}

// Path returns where the file will be.
func (g *Growing) Path() string { return g.path }

// Resumed reports whether an earlier attempt left a part file, so that [Growing.Recover] may find something.
func (g *Growing) Resumed() bool { return g.resumed }

// Expect says that the content of leaf goes to offset, and is size bytes long. A leaf may go to several places. It
// returns whether that place is known to be filled; then there is nothing to fetch for it.
func (g *Growing) Expect(leaf cid.Cid, offset, size int64) (filled bool, err error) {
	const op = "expect"
	mh, err := hashOf(leaf)
	if err != nil {
		return false, err
	}
	if offset < 0 || size < 0 || size > dray.MaxBlockSize || offset+size > g.size {
		return false, fail(op, leaf, fmt.Errorf("bytes %d to %d of %s, which has %d", offset, offset+size, g.path, g.size))
	}
	if err := g.s.enter(); err != nil {
		return false, fail(op, leaf, err)
	}
	defer g.s.leave()
	p := place{kind: inFile, id: g.id, off: offset}
	if g.resumed {
		if ok, err := g.recorded(mh, offset); ok || err != nil {
			return ok, fail(op, leaf, err)
		}
	}
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.ended {
		return false, fail(op, leaf, dray.ErrClosed)
	}
	var room [2]place
	known := g.s.committing.find(g.s.pending.find(room[:0], mh), mh)
	for i := range known {
		if known[i].at(&p) {
			return true, nil
		}
	}
	framed := leaf.Type() != cid.Raw
	g.expect.add(mh, spot{off: offset, size: int32(size), framed: framed})
	return false, nil
}

// recorded reports whether the index says that mh lies at off.
func (g *Growing) recorded(mh string, off int64) (same bool, err error) {
	var room [17]byte
	_, err = lookup(g.s.db, leafKey(room[:0], g.id, off), func(v []byte) error {
		l, err := parseLeaf(v)
		same = l.mh == mh
		return err
	})
	return same, err
}

// Has reports whether every place that leaf was said to go to is filled. It is false for a leaf that was never expected.
func (g *Growing) Has(leaf cid.Cid) bool {
	mh, err := hashOf(leaf)
	if err != nil || g.s.enter() != nil {
		return false
	}
	defer g.s.leave()
	g.s.mu.Lock()
	_, lacking := g.expect.first(mh)
	g.s.mu.Unlock()
	if lacking {
		return false
	}
	places, err := g.s.find(nil, mh)
	for i := range places {
		if places[i].kind == inFile && places[i].id == g.id {
			return err == nil
		}
	}
	return false
}

// Missing returns how many leaves were said to go somewhere and have not come.
func (g *Growing) Missing() int {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	return g.expect.len()
}

// Finish syncs the file, moves it to its path and makes it a referenced file like any other. It returns dray.ErrNotFound
// when leaves are missing, and then the file goes on growing.
func (g *Growing) Finish(ctx context.Context) error {
	const op = "finish"
	s := g.s
	if err := s.enter(); err != nil {
		return fail(op, cid.Undef, err)
	}
	defer s.leave()
	g.finishing.Lock()
	defer g.finishing.Unlock()
	if err := g.complete(); err != nil {
		return fail(op, cid.Undef, err)
	}
	return fail(op, cid.Undef, g.finish(ctx))
}

// complete returns an error if the file is not being fetched or leaves are missing.
func (g *Growing) complete() error {
	g.s.mu.Lock()
	ended, missing := g.ended, g.expect.len()
	g.s.mu.Unlock()
	switch {
	case ended:
		return dray.ErrClosed
	case missing > 0:
		return fmt.Errorf("%w: %d leaves of %s", dray.ErrNotFound, missing, g.path)
	}
	return nil
}

func (g *Growing) finish(ctx context.Context) error {
	s := g.s
	// The record says what is to become of the file before it is moved, so that a crash in between is put right. One
	// commit, which Finish of other files may share, flushes the content and syncs the leaves and this record.
	now, err := g.settle()
	if err != nil {
		return err
	}
	if err := s.sync(ctx); err != nil {
		return errors.Join(err, g.unsettle(now))
	}
	if err := g.complete(); err != nil { // what could not be synced may have been lost
		return errors.Join(err, g.unsettle(now))
	}
	if after, err := g.file.file.Identity(); err != nil || after.MTime != now.MTime {
		// It was written once more after an earlier sync had failed, or by a Put that came late.
		if err != nil {
			err = changed(partPath(g.path), err)
		} else {
			err = g.file.file.Sync()
		}
		if err == nil {
			now, err = g.settle()
		}
		if err == nil {
			err = s.syncIndex()
		}
		if err != nil {
			return errors.Join(err, g.unsettle(now))
		}
	}
	rec, err := s.fileRecord(g.id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	loose := g.loose
	s.mu.Unlock()
	if rec.Leaves == 0 || loose { // the commit had no reason to flush it
		if err := g.file.file.Sync(); err != nil {
			return errors.Join(err, g.unsettle(now))
		}
	}
	if err := s.cfg.FS.Rename(partPath(g.path), g.path); err != nil {
		return errors.Join(err, g.unsettle(now))
	}
	s.forgetGrowing(g)
	// The moved file may be a little newer in its change time, and nothing else.
	if err := s.cfg.FS.SyncDir(filepath.Dir(g.path)); err != nil {
		return err
	}
	moved, err := g.file.file.Identity()
	if err != nil {
		return changed(g.path, err)
	}
	rec.State = standing
	rec.Identity.CTime = moved.CTime
	rec.Unsure = moved.Size != now.Size || moved.MTime != now.MTime
	if err := s.standFinished(g.id, rec); err != nil {
		return err
	}
	// It is opened again for reading, at its new path, when somebody reads it.
	s.files.remove(g.id)
	s.files.pin(g.file, -1)
	return nil
}

// settle gives the file its final time and records that it is about to be moved.
func (g *Growing) settle() (Identity, error) {
	// A time in the past that nobody else would set: any later write gives the file another one.
	if err := g.file.file.SetModTime(time.Now().Add(-3 * time.Second)); err != nil {
		return Identity{}, err
	}
	now, err := g.file.file.Identity()
	if err != nil {
		return now, changed(partPath(g.path), err)
	}
	if now.Size != g.size {
		return now, changed(partPath(g.path), fmt.Errorf("%d bytes instead of %d", now.Size, g.size))
	}
	return now, g.s.move(g, finishing, now)
}

// unsettle records that the file goes on growing.
func (g *Growing) unsettle(now Identity) error {
	if now.Size != g.size { // settle recorded nothing
		return nil
	}
	return g.s.move(g, growing, now)
}

// move records a new state of a growing file.
func (s *Store) move(g *Growing, state fileState, now Identity) error {
	e := s.begin()
	rec, err := s.fileRecord(g.id)
	if err == nil {
		rec.State, rec.Identity = state, now
		rec.Part = partPath(g.path)
		err = putFileRecord(e.batch, g.id, &rec)
	}
	if err != nil {
		e.abandon()
		return err
	}
	return e.finish()
}

// standFinished records that a file has been moved to its path, in place of what was recorded for that path.
func (s *Store) standFinished(id uint64, rec fileRecord) error {
	part := rec.Part
	rec.Part, rec.State = "", standing
	e := s.begin()
	old, err := s.fileAt(rec.Path)
	if err == nil {
		err = putFileRecord(e.batch, id, &rec)
	}
	if err == nil {
		err = e.batch.Delete(append([]byte{keyPath}, part...), nil)
	}
	if err == nil {
		err = s.forgetAnyParts(e.batch, id)
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
	if f := s.files.get(id); f != nil {
		f.mu.Lock()
		f.rec = rec
		f.mu.Unlock()
		s.files.release(f)
	}
	if old != 0 && old != id {
		return s.dropFile(old)
	}
	return nil
}

// Close stops expecting leaves and leaves the part file for another Grow to continue. After Finish it does nothing.
func (g *Growing) Close() error {
	s := g.s
	s.mu.Lock()
	ended := g.ended
	s.mu.Unlock()
	if ended {
		return nil
	}
	s.forgetGrowing(g)
	s.files.pin(g.file, -1)
	return nil
}

// Discard stops and removes the part file, and forgets the blocks that lie nowhere else.
func (g *Growing) Discard() error {
	const op = "discard"
	s := g.s
	if err := s.enter(); err != nil {
		return fail(op, cid.Undef, err)
	}
	defer s.leave()
	s.mu.Lock()
	ended := g.ended
	s.mu.Unlock()
	if ended {
		return fail(op, cid.Undef, dray.ErrClosed)
	}
	s.forgetGrowing(g)
	s.dropPending(g.id)
	err := s.forgetPath(partPath(g.path))
	s.files.pin(g.file, -1)
	return fail(op, cid.Undef, errors.Join(err, s.cfg.FS.Remove(partPath(g.path))))
}

// dropPending forgets what is pending in a file.
func (s *Store) dropPending(id uint64) {
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range []*pendingSet{s.pending, s.committing} {
		for i := range set.places {
			if p := &set.places[i]; p.kind == inFile && p.id == id {
				p.gone = true
			}
		}
		for i := range set.parts {
			if p := &set.parts[i]; p.file == id {
				p.gone = true
			}
		}
	}
}
