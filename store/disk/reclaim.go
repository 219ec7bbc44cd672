package disk

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// segmentNumber reads the number out of a segment's file name.
func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".seg")
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 63)
	return n, err == nil
}

// reclaim gives back the space of one segment that is empty or mostly dead. The committer calls it after a commit.
func (s *Store) reclaim() {
	n, live, ok := s.deadest()
	if !ok {
		s.squeeze.Store(false)
		return
	}
	if err := s.reclaimSegment(n, live); err != nil {
		s.cfg.Log.Warn("reclaiming a segment", "segment", n, "error", err)
	}
}

// deadest returns a full segment with the fewest live bytes, if less than a quarter of it lives, or half while
// garbage is collected.
func (s *Store) deadest() (n uint64, live int64, ok bool) {
	most := s.cfg.SegmentSize / 4
	if s.squeeze.Load() {
		most = s.cfg.SegmentSize / 2
	}
	s.segs.mu.Lock()
	active := s.segs.number
	inFlight := make(map[uint64]bool)
	for _, fl := range s.segs.flight {
		inFlight[fl.segment] = true
	}
	s.segs.mu.Unlock()
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	s.mu.Lock()
	s.pending.each(func(_ string, p *place) {
		if p.kind == inSegment {
			inFlight[p.id] = true
		}
	})
	s.mu.Unlock()
	for id, c := range s.segs.count {
		if id == active || inFlight[id] || c.live > most {
			continue
		}
		if !ok || c.live < live || c.live == live && id < n {
			n, live, ok = id, c.live, true
		}
	}
	return n, live, ok
}

func (s *Store) reclaimSegment(n uint64, live int64) error {
	if live > 0 {
		if err := s.moveLive(n); err != nil {
			return err
		}
	}
	// That nothing lives here must be on the disk before the segment is gone, and that it is gone before its record is:
	// a segment without a record is scanned from its start, and what was deleted would be back.
	if err := s.syncIndex(); err != nil {
		return err
	}
	s.files.remove(n | segmentBit)
	if err := s.cfg.FS.Remove(s.segmentPath(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.cfg.FS.SyncDir(filepath.Dir(s.segmentPath(n))); err != nil {
		return err
	}
	e := s.begin()
	if err := e.batch.Delete(numKey(keySegment, n), nil); err != nil {
		e.abandon()
		return err
	}
	delete(s.segs.count, n)
	return e.finish()
}

// moved makes p findable in place of from, unless the block was deleted meanwhile. Then p is recorded as gone: the next
// commit settles the segment beyond it, or a scan after an unclean stop would bring the block back.
func (s *Store) moved(mh string, p place, from *place) bool {
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	places, err := s.find(nil, mh)
	if err != nil || !slices.ContainsFunc(places, func(q place) bool { return q.at(from) }) {
		s.mu.Lock()
		s.pending.add(mh, p)
		s.pending.drop(mh, func(q *place) bool { return q.at(&p) })
		s.mu.Unlock()
		return false
	}
	s.addPending(mh, p)
	return true
}

// moveLive copies the live blocks of a segment to the active one, syncs them, and only then drops the old places.
func (s *Store) moveLive(n uint64) error {
	f, err := s.acquireSegment(n)
	if err != nil {
		return err
	}
	defer s.files.release(f)
	var moved []string
	_, err = scan(f.file, 0, 0, func(r record) error {
		places, err := s.find(nil, r.mh)
		if err != nil {
			return err
		}
		for i := range places {
			if places[i].kind == inSegment && places[i].id == n && places[i].off == r.off {
				p, fl, err := s.appendSegment(r.mh, r.data)
				if err != nil {
					return err
				}
				if s.moved(r.mh, p, &places[i]) {
					moved = append(moved, r.mh)
				}
				s.landed(fl)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.take()
	if err := s.commitTaken(false); err != nil {
		return err
	}
	e := s.begin()
	for _, mh := range moved {
		if err := e.drop(mh, func(p *place) bool { return p.kind == inSegment && p.id == n }); err != nil {
			e.abandon()
			return err
		}
	}
	return e.finish()
}
