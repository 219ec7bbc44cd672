package disk

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"dray"
)

// recover puts in order what the last process left:
//
//  1. Files that were being indexed or dropped are dropped.
//  2. Files that were being moved to their path are recorded where they are.
//  3. Files that were recorded and not yet flushed are hashed before they are served.
//  4. Segments are scanned from where the index stops, and the journal is read; what is whole goes to the index.
//
// Growing files wait for [Store.Grow].
func (s *Store) recover() error {
	ctx := context.Background()
	if _, err := lookup(s.db, []byte{keyNext}, func(v []byte) error {
		if len(v) != 8 {
			return errIndex
		}
		s.nextFile = binary.BigEndian.Uint64(v)
		return nil
	}); err != nil {
		return err
	}
	if err := walk(ctx, s.db, []byte{keySegment}, func(k, v []byte) (bool, error) {
		synced, n := binary.Uvarint(v)
		live, m := binary.Uvarint(v[max(n, 0):])
		if n <= 0 || m <= 0 || len(k) != 9 {
			return false, errIndex
		}
		id := binary.BigEndian.Uint64(k[1:])
		s.segs.count[id] = segmentCount{synced: int64(synced), live: int64(live)}
		s.segs.number = max(s.segs.number, id)
		return true, nil
	}); err != nil {
		return err
	}
	dropped, err := s.numbers(ctx, keyDropped)
	if err != nil {
		return err
	}
	for _, id := range dropped {
		if err := s.dropFile(id); err != nil {
			return err
		}
	}
	if err := s.recoverMoves(ctx); err != nil {
		return err
	}
	if err := s.recoverUnsynced(ctx); err != nil {
		return err
	}
	if err := s.recoverSegments(); err != nil {
		return err
	}
	found, err := s.openJournal(func(r record) error { return s.recoverRecord(r, 0, false) })
	if err != nil {
		return err
	}
	if err := s.commit(); err != nil {
		return err
	}
	if found {
		if err := s.retireJournal(); err != nil {
			return err
		}
	}
	return s.journal.clear()
}

// numbers returns the file numbers under a kind of key.
func (s *Store) numbers(ctx context.Context, kind byte) (ids []uint64, err error) {
	err = walk(ctx, s.db, []byte{kind}, func(k, _ []byte) (bool, error) {
		if len(k) != 9 {
			return false, errIndex
		}
		ids = append(ids, binary.BigEndian.Uint64(k[1:]))
		return true, nil
	})
	return ids, err
}

// recoverMoves finishes what Growing.Finish began.
func (s *Store) recoverMoves(ctx context.Context) error {
	moves := make(map[uint64]fileRecord)
	err := walk(ctx, s.db, []byte{keyFile}, func(k, v []byte) (bool, error) {
		var rec fileRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return false, err
		}
		if rec.State == finishing {
			moves[binary.BigEndian.Uint64(k[1:])] = rec
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for id, rec := range moves {
		now, err := s.cfg.FS.Stat(rec.Path)
		if err == nil && now.Ino == rec.Identity.Ino && now.Size == rec.Identity.Size {
			// Moved. Unless somebody wrote to it since, it has the time that Finish gave it.
			rec.Unsure = now.MTime != rec.Identity.MTime
			rec.Identity = now
			if err := s.standFinished(id, rec); err != nil {
				return err
			}
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		rec.State = growing // not moved: Grow and Finish again
		e := s.begin()
		if err := putFileRecord(e.batch, id, &rec); err != nil {
			e.abandon()
			return err
		}
		if err := e.finish(); err != nil {
			return err
		}
	}
	return nil
}

// recoverUnsynced marks files whose bytes may not have reached the disk.
func (s *Store) recoverUnsynced(ctx context.Context) error {
	ids, err := s.numbers(ctx, keyUnsync)
	if err != nil || len(ids) == 0 {
		return err
	}
	e := s.begin()
	for _, id := range ids {
		rec, err := s.fileRecord(id)
		if err == nil {
			rec.Unsure = true
			err = putFileRecord(e.batch, id, &rec)
		}
		if err == nil || errors.Is(err, errGone) {
			err = e.batch.Delete(numKey(keyUnsync, id), nil)
		}
		if err != nil {
			e.abandon()
			return err
		}
	}
	return e.finish()
}

// recoverSegments scans what was appended after the last commit, and goes on appending behind it.
func (s *Store) recoverSegments() error {
	names, err := s.cfg.FS.List(filepath.Join(s.cfg.Dir, "segments"))
	if err != nil {
		return err
	}
	for _, name := range names {
		id, ok := segmentNumber(name)
		if !ok {
			continue
		}
		f, err := s.acquireSegment(id)
		if err != nil {
			return err
		}
		end, err := scan(f.file, s.segs.count[id].synced, 0, func(r record) error { return s.recoverRecord(r, id, true) })
		if err != nil {
			s.files.release(f)
			return err
		}
		if id >= s.segs.number {
			if s.segs.active != nil {
				s.files.pin(s.segs.active, -1)
			}
			s.segs.active, s.segs.number, s.segs.end = f, id, end
			s.files.pin(f, 1)
			// What stands beyond the last sound header must not be taken for a record once others are before it.
			// A power cut could bring it back.
			now, err := f.file.Identity()
			if err == nil && now.Size != end {
				if err = f.file.Truncate(end); err == nil {
					err = f.file.Sync()
				}
			}
			if err != nil {
				s.files.release(f)
				return err
			}
		}
		s.files.release(f)
	}
	return nil
}

// retireJournal notes that what was found in the journal does not count any more, before it is emptied: a power cut could
// bring it back, and with it what is deleted from now on.
func (s *Store) retireJournal() error {
	e := s.begin()
	if err := s.journal.record(e.batch); err != nil {
		e.abandon()
		return err
	}
	if err := e.finish(); err != nil {
		return err
	}
	return s.syncIndex()
}

// recoverRecord makes a record pending unless the index knows the block.
func (s *Store) recoverRecord(r record, segment uint64, inSeg bool) error {
	if _, err := dray.NewBlock(rawCID(r.mh), r.data); err != nil {
		return nil // not what it says: as if it were torn
	}
	if held, err := s.holds(r.mh, r.data); held || err != nil {
		return err
	}
	if inSeg {
		s.addPending(r.mh, place{kind: inSegment, id: segment, off: r.off, size: r.size})
		return nil
	}
	s.addPending(strings.Clone(r.mh), place{kind: inIndex, data: append([]byte(nil), r.data...)})
	return nil
}
