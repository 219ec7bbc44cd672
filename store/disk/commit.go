package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"dray"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// Group commit, by one goroutine:
//
//  1. Take everything pending at once; what is written from here on waits for the next commit.
//  2. Flush each data file that holds any of it. Writers and readers go on meanwhile.
//  3. Put all of it into the index in one batch, and sync the index.
//  4. Forget it: readers now find it in the index.
//
// When 2 or 3 fails, what was taken stays findable and is tried again by the next commit. After a failed flush the kernel
// may have thrown the bytes away while calling them clean, so they are then read, hashed and written once more.

// reserveBytes is the disk space that must be left for the index, which cannot go on when it finds none.
const reserveBytes = 8 << 20

// smallRoom bounds the bytes of small blocks in memory that are not yet in the index; Put then waits for the commit.
const smallRoom = 16 << 20

func (s *Store) commitLoop() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	armed := false
	for {
		due := false
		select {
		case <-s.quit:
			return
		case <-s.kick:
			s.mu.Lock()
			some := !s.pending.empty() || !s.committing.empty() || len(s.unsynced) > 0
			due = len(s.waiters) > 0 || s.commitErr == nil && s.fullLocked()
			s.mu.Unlock()
			if some && !due && !armed {
				timer.Reset(s.cfg.SyncInterval)
				armed = true
			}
		case <-timer.C:
			armed, due = false, true
		}
		if !due {
			continue
		}
		timer.Stop()
		armed = false
		if err := s.commit(); err != nil {
			s.cfg.Log.Warn("sync failed, will be tried again", "error", err)
			timer.Reset(s.cfg.SyncInterval)
			armed = true
		} else {
			s.wake() // something may have come meanwhile
		}
	}
}

// fullLocked reports whether enough is pending for a commit.
func (s *Store) fullLocked() bool {
	return s.pending.bytes >= s.cfg.SyncBytes || s.pending.small >= smallRoom/4
}

// wake makes the committer look.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Sync implements [dray.Store].
func (s *Store) Sync(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return fail("sync", cid.Undef, err)
	}
	defer s.leave()
	return fail("sync", cid.Undef, s.sync(ctx))
}

func (s *Store) sync(ctx context.Context) error {
	done := make(chan error, 1)
	s.mu.Lock()
	s.waiters = append(s.waiters, done)
	s.mu.Unlock()
	s.wake()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// commit syncs everything that is pending and answers those who wait for it. Only the committer calls it.
func (s *Store) commit() error {
	s.mu.Lock()
	waiters := s.waiters
	s.waiters = nil
	retry := !s.committing.empty()
	s.mu.Unlock()

	var err error
	if retry {
		err = s.commitTaken(true)
	}
	if err == nil {
		s.take()
		err = s.commitTaken(false)
	}
	err = spaceError(err)
	s.mu.Lock()
	s.commitErr = err
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	s.mu.Unlock()
	for _, w := range waiters {
		w <- err
	}
	if err == nil {
		s.reclaim()
	}
	return err
}

// take does step 1.
func (s *Store) take() {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.committing = s.committing, s.pending
	s.journal.swapLocked()
}

// commitTaken does steps 2 to 4 for the set that is taken.
func (s *Store) commitTaken(rewrite bool) error {
	if !s.committing.empty() {
		if err := s.enoughSpace(0); err != nil {
			return err
		}
	}
	if rewrite {
		if err := s.rewriteTaken(); err != nil {
			return err
		}
	}
	segments, err := s.flushTaken()
	if err != nil {
		return err
	}
	synced, err := s.flushFiles()
	if err != nil {
		return err
	}
	if err := s.recordTaken(segments, synced); err != nil {
		return err
	}
	if err := s.syncIndex(); err != nil {
		return err
	}
	s.indexMu.Lock()
	s.mu.Lock()
	s.committing.reset()
	s.unsynced = s.unsynced[len(synced):]
	s.mu.Unlock()
	s.indexMu.Unlock()
	return s.journal.empty()
}

// flushTaken flushes the data files that hold something taken. It returns up to where each segment is then settled.
func (s *Store) flushTaken() (segments map[uint64]int64, err error) {
	type target struct {
		kind placeKind
		id   uint64
	}
	dirty := make(map[target]bool)
	for i := range s.committing.places { // read only: kind and id never change, see pendingSet
		if p := &s.committing.places[i].place; p.kind != inIndex {
			dirty[target{p.kind, p.id}] = true
		}
	}
	for i := range s.committing.parts {
		dirty[target{inFile, s.committing.parts[i].file}] = true
	}
	segments = make(map[uint64]int64)
	for t := range dirty {
		var f *openFile
		if t.kind == inSegment {
			f, err = s.acquireSegment(t.id)
		} else {
			f, err = s.acquireFile(t.id)
		}
		if errors.Is(err, errGone) {
			continue // discarded meanwhile, and its places with it
		}
		if err != nil {
			return nil, err
		}
		if t.kind == inSegment {
			segments[t.id] = s.segs.settled(t.id, func() int64 { return s.committedSize(f.file) })
		}
		err = f.file.Sync()
		s.files.release(f)
		if err != nil {
			return nil, err
		}
	}
	// A record may have been pending only after the set was taken, and lie before the settled end.
	s.mu.Lock()
	s.pending.each(func(mh string, p *place) {
		if end, ok := segments[p.id]; ok && p.kind == inSegment {
			segments[p.id] = min(end, p.off-headerSize-int64(len(mh)))
		}
	})
	s.mu.Unlock()
	return segments, nil
}

func (s *Store) committedSize(f File) int64 {
	id, err := f.Identity()
	if err != nil {
		return 0
	}
	return id.Size
}

// flushFiles flushes the referenced files that were recorded since the last commit.
func (s *Store) flushFiles() ([]uint64, error) {
	s.mu.Lock()
	ids := s.unsynced[:len(s.unsynced):len(s.unsynced)]
	s.mu.Unlock()
	for _, id := range ids {
		f, err := s.acquireFile(id)
		if errors.Is(err, errGone) || errors.Is(err, dray.ErrChanged) {
			continue // its leaves are checked before they are served
		}
		if err != nil {
			return nil, err
		}
		err = f.file.Sync()
		s.files.release(f)
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// recordTaken puts everything taken into the index.
func (s *Store) recordTaken(segments map[uint64]int64, synced []uint64) error {
	e := s.begin()
	leaves := make(map[uint64]int64)
	var err error
	small := false
	for i := range s.committing.places { // deleted ones too: they are in the journal, and must not be read from it again
		small = small || s.committing.places[i].kind == inIndex
	}
	s.committing.each(func(mh string, p *place) {
		if err == nil {
			err = e.add(mh, p)
		}
		if p.kind == inFile {
			leaves[p.id]++
		}
	})
	if err == nil {
		err = s.recordParts(e.batch)
	}
	for n, end := range segments {
		e.synced(n, end)
	}
	if err == nil && small {
		err = s.journal.record(e.batch)
	}
	for id, n := range leaves {
		if err == nil {
			err = s.countLeaves(e.batch, id, n)
		}
	}
	for _, id := range synced {
		if err == nil {
			err = e.batch.Delete(numKey(keyUnsync, id), nil)
		}
	}
	if err != nil {
		e.abandon()
		return err
	}
	return e.finish()
}

// countLeaves adds to the number of leaves in a file's record.
func (s *Store) countLeaves(b *pebble.Batch, id uint64, n int64) error {
	rec, err := s.fileRecord(id)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	rec.Leaves += n
	v, err := json.Marshal(&rec)
	if err != nil {
		return err
	}
	return b.Set(numKey(keyFile, id), v, nil)
}

// rewriteTaken reads each block that is taken, and writes those that are still whole once more, so that the next flush
// covers them. What is not whole any more is lost, and said so in the log; it is no longer found and can be put again.
func (s *Store) rewriteTaken() error {
	type lost struct {
		mh string
		p  place
	}
	var gone []lost
	var buf []byte
	type item struct {
		mh string
		p  place
	}
	var items []item
	s.loseParts()
	s.mu.Lock()
	s.committing.each(func(mh string, p *place) {
		if p.kind != inIndex {
			items = append(items, item{mh, *p})
		}
	})
	s.mu.Unlock()
	for _, it := range items {
		data, _, err := s.readPlace(&it.p, buf)
		if errors.Is(err, errGone) || errors.Is(err, dray.ErrChanged) {
			continue
		}
		if err != nil {
			return err
		}
		buf = data
		if _, err := dray.NewBlock(rawCID(it.mh), data); err != nil {
			gone = append(gone, lost(it))
			continue
		}
		content := data[len(it.p.head) : len(data)-len(it.p.tail)]
		if err := s.writePlace(&it.p, content); err != nil {
			return err
		}
	}
	for _, l := range gone {
		s.cfg.Log.Error("a block was lost before it could be synced", "cid", rawCID(l.mh))
		if err := s.dropPlace(l.mh, &l.p); err != nil {
			return err
		}
		s.expectAgain(l.mh, &l.p)
	}
	return nil
}

// writePlace writes a block's content to where it should be already.
func (s *Store) writePlace(p *place, content []byte) error {
	var f *openFile
	var err error
	if p.kind == inSegment {
		f, err = s.acquireSegment(p.id)
	} else {
		f, err = s.acquireFile(p.id)
	}
	if err != nil {
		return err
	}
	defer s.files.release(f)
	if p.kind == inFile && !f.growing() {
		return nil
	}
	return writeAt(f.file, content, p.off)
}

// enoughSpace returns an error when fewer than n bytes and the reserve are free.
func (s *Store) enoughSpace(n int64) error {
	free, err := s.cfg.FS.Free(s.cfg.Dir)
	if err != nil || free < 0 || free >= n+reserveBytes {
		return nil // not knowing is no reason to stop
	}
	return noSpace(s.cfg.Dir, n+reserveBytes, free)
}

// addPending makes a block that was written findable. It keeps mh and p.
func (s *Store) addPending(mh string, p place) {
	s.mu.Lock()
	first := s.pending.empty()
	s.pending.add(mh, p)
	look := first || s.fullLocked()
	s.mu.Unlock()
	if look {
		s.wake()
	}
}

// sameBytes reports whether the block at p is data. It is used where p might hold something else.
func (s *Store) sameBytes(p *place, data []byte) bool {
	got, _, err := s.readPlace(p, nil)
	return err == nil && bytes.Equal(got, data)
}
