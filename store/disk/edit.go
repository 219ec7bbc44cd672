package disk

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// edit is one atomic change of the index. It reads each block's places, changes them in memory and writes them once.
// Store.indexMu is held from begin to finish.
type edit struct {
	s     *Store
	batch *pebble.Batch
	vals  map[string][]byte
	live  map[uint64]int64
	ends  map[uint64]int64
}

// begin starts an edit. Every path must end in finish or abandon.
func (s *Store) begin() *edit {
	s.indexMu.Lock()
	return &edit{s: s, batch: s.db.NewBatch(), vals: make(map[string][]byte)}
}

// value returns the places of a block as they will be.
func (e *edit) value(mh string) ([]byte, error) {
	if v, ok := e.vals[mh]; ok {
		return v, nil
	}
	var room [maxKey]byte
	var v []byte
	_, err := lookup(e.s.db, blockKey(room[:0], mh), func(b []byte) error {
		v = append(make([]byte, 0, len(b)+32), b...)
		return nil
	})
	return v, err
}

// add records that p holds the block mh. For a place in a file it makes the entry in the file's list too.
func (e *edit) add(mh string, p *place) error {
	v, err := e.value(mh)
	if err != nil {
		return err
	}
	if p.kind == inFile {
		var room [17]byte
		l := leaf{mh: mh, size: p.size, head: p.head, tail: p.tail}
		if err := e.batch.Set(leafKey(room[:0], p.id, p.off), appendLeaf(nil, &l), nil); err != nil {
			return err
		}
	}
	n := 0
	for b := v; len(b) > 0; n++ {
		var q place
		if q, b, err = cutPlace(b); err != nil {
			return err
		}
		if q.at(p) {
			return nil
		}
	}
	if n >= maxPlaces {
		return nil
	}
	if p.kind == inSegment {
		e.segment(p.id, p.size)
	}
	e.vals[mh] = appendPlace(v, p)
	return nil
}

// drop forgets the places of mh for which match returns true.
func (e *edit) drop(mh string, match func(*place) bool) error {
	v, err := e.value(mh)
	if err != nil || len(v) == 0 {
		return err
	}
	n := 0
	var kept []byte
	for b := v; len(b) > 0; {
		var p place
		if p, b, err = cutPlace(b); err != nil {
			return err
		}
		if !match(&p) {
			kept = appendPlace(kept, &p)
			continue
		}
		n++
		switch p.kind {
		case inFile:
			var room [17]byte
			if err := e.batch.Delete(leafKey(room[:0], p.id, p.off), nil); err != nil {
				return err
			}
		case inSegment:
			e.segment(p.id, -p.size)
		}
	}
	if n > 0 {
		e.vals[mh] = kept
	}
	return nil
}

// segment changes the live bytes of a segment.
func (e *edit) segment(n uint64, delta int64) {
	if e.live == nil {
		e.live = make(map[uint64]int64)
	}
	e.live[n] += delta
}

// synced records up to where a segment need not be scanned.
func (e *edit) synced(n uint64, end int64) {
	if e.ends == nil {
		e.ends = make(map[uint64]int64)
	}
	e.ends[n] = end
	e.segment(n, 0)
}

// finish applies the edit. It is then visible, and survives the loss of power once the index is synced.
func (e *edit) finish() error {
	defer e.s.indexMu.Unlock()
	defer e.batch.Close()
	if err := e.s.usable(); err != nil {
		return err
	}
	var room [maxKey]byte
	for mh, v := range e.vals {
		var err error
		if key := blockKey(room[:0], mh); len(v) == 0 {
			err = e.batch.Delete(key, nil)
		} else {
			err = e.batch.Set(key, v, nil)
		}
		if err != nil {
			return err
		}
	}
	counts := make(map[uint64]segmentCount, len(e.live))
	for n, delta := range e.live {
		c := e.s.segs.count[n]
		c.live += delta
		if end, ok := e.ends[n]; ok {
			c.synced = max(c.synced, end)
		}
		counts[n] = c
		v := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(c.synced)), uint64(max(c.live, 0)))
		if err := e.batch.Set(numKey(keySegment, n), v, nil); err != nil {
			return err
		}
	}
	if e.batch.Empty() {
		return nil
	}
	if err := e.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	for n, c := range counts {
		e.s.segs.count[n] = c
	}
	return e.s.usable()
}

// abandon ends the edit without applying it.
func (e *edit) abandon() {
	e.batch.Close()
	e.s.indexMu.Unlock()
}

// syncIndex makes every finished edit survive the loss of power.
func (s *Store) syncIndex() error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.db.LogData(nil, pebble.Sync); err != nil {
		return err
	}
	return s.usable()
}

// usable returns why the index takes no more changes, or nil.
func (s *Store) usable() error {
	if err := s.broken.Load(); err != nil {
		return fmt.Errorf("the index can no longer be written: %w", *err)
	}
	return nil
}
