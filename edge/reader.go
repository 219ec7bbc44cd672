package edge

import (
	"context"
	"errors"
	"io"

	"dray"
)

// reader is one request that reads an object. It is used by one goroutine.
type reader struct {
	e   *Edge
	o   *object
	run *run // whose reader it is, or nil
	hit bool // nothing had to be fetched for it so far
	// patient readers do not leave a segment before the cache was offered it.
	patient bool
}

// close leaves the run.
func (rd *reader) close() {
	if rd.run != nil {
		rd.run.leave(rd)
		rd.run = nil
	}
}

// copy writes the bytes in [from, to) to w, to being -1 for the end, wherever that is. It returns how many it wrote.
func (rd *reader) copy(ctx context.Context, w io.Writer, from, to int64) (written int64, err error) {
	e, pos, fetched := rd.e, from, int64(-1)
	defer func() { e.count(func(s *Stats) { s.BytesServed += written }) }()
	for {
		e.mu.Lock()
		size := rd.o.size
		e.mu.Unlock()
		end := to
		if end < 0 || size >= 0 && end > size {
			end = size
		}
		if end >= 0 && pos >= end {
			return written, nil
		}
		seg := pos / e.cfg.Segment
		last := int64(-1)
		if end >= 0 {
			last = (end - 1) / e.cfg.Segment
		}
		if n, ok, err := rd.fromCache(w, seg, pos, end, fetched == seg); ok || err != nil {
			written += n
			pos += n
			if err != nil {
				return written, err
			}
			continue
		}
		rd.hit = false
		switch err := rd.board(seg, last); {
		case errors.Is(err, errPassed):
			continue
		case err != nil:
			return written, err
		}
		if fetched != seg {
			fetched = seg
			e.count(func(s *Stats) {
				if rd.run.ownedBy(rd) {
					s.Misses++
				} else {
					s.Coalesced++
				}
			})
		}
		n, err := rd.fromRun(ctx, w, seg, pos, end)
		written += n
		pos += n
		switch {
		case errors.Is(err, errPassed):
			rd.close()
		case err == io.EOF:
			return written, nil
		case err != nil:
			return written, err
		}
	}
}

// fromCache writes what is wanted of a segment from its leaf, if that is here. A segment that a run has just brought,
// and that is read here because the reader was late, is no hit.
func (rd *reader) fromCache(w io.Writer, seg, pos, end int64, brought bool) (n int64, ok bool, err error) {
	if rd.run != nil && rd.run.has(seg) {
		return 0, false, nil // it is in memory
	}
	e := rd.e
	e.mu.Lock()
	key, ok := rd.o.leaves[seg]
	e.mu.Unlock()
	if !ok {
		return 0, false, nil
	}
	f := e.hoard.open(key)
	if f == nil {
		return 0, false, nil
	}
	defer f.Close()
	if !brought {
		e.count(func(s *Stats) { s.Hits++ })
	}
	if rd.run != nil {
		rd.run.advance(rd, seg)
	}
	off := pos - seg*e.cfg.Segment
	stop := e.cfg.Segment
	if end >= 0 {
		stop = min(stop, end-seg*e.cfg.Segment)
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, false, err
	}
	n, err = io.CopyN(w, f, stop-off)
	if err == io.EOF && n > 0 {
		err = nil // the last segment of an object whose size is not known yet
	}
	return n, true, err
}

// board gets on a run that has seg, or will have it: one that there is, or a new one. Last is the last segment that
// is wanted, or -1.
func (rd *reader) board(seg, last int64) error {
	e, o := rd.e, rd.o
	if rd.run != nil && rd.run.join(rd, seg) {
		return nil
	}
	rd.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range o.runs {
		if r.join(rd, seg) {
			rd.run = r
			return nil
		}
	}
	key, came := o.leaves[seg]
	switch {
	case came && e.hoard.has(key):
		return errPassed // since it was looked for
	case o.meta.Size < 0 && o.size >= 0 && seg*e.cfg.Segment >= o.size:
		return errPassed // the end was found just now
	case o.meta.Size < 0, !o.meta.Firm && seg > 0:
		// What came before cannot be put together with what another answer would bring.
		e.forget(o)
		return errChanged
	}
	end := e.segments(o.meta.Size)
	if last >= 0 {
		end = min(end, last+1)
	}
	r := e.newRun(o, seg, e.gap(o, seg, end))
	r.whole = !o.meta.Firm
	r.join(rd, seg)
	rd.run = r
	if !e.spawn(func() { r.loop(nil) }) {
		return dray.ErrClosed
	}
	return nil
}

// gap returns where, from seg on, the next segment is that need not be fetched, at most end. The caller holds mu.
func (e *Edge) gap(o *object, seg, end int64) int64 {
	for _, r := range o.runs {
		if r.from > seg {
			end = min(end, r.from)
		}
	}
	for s := seg + 1; s < end; s++ {
		if key, ok := o.leaves[s]; ok && e.hoard.has(key) {
			return s
		}
	}
	return end
}

// fromRun writes what is wanted of a segment while it comes.
func (rd *reader) fromRun(ctx context.Context, w io.Writer, seg, pos, end int64) (written int64, err error) {
	start := seg * rd.e.cfg.Segment
	off := int(pos - start)
	p, n, done, err := rd.run.wait(ctx, seg, off)
	for {
		if err != nil {
			return written, err
		}
		stop := n
		if end >= 0 {
			stop = min(stop, int(end-start))
		}
		if stop > off {
			m, err := w.Write(p.data[off:stop])
			written += int64(m)
			off += m
			if err != nil {
				return written, err
			}
		}
		if done || !rd.patient && end >= 0 && int64(off) >= end-start {
			break
		}
		n, done, err = rd.run.progress(ctx, p, max(off, n))
	}
	if done && n == 0 && written == 0 {
		return written, io.EOF // an object of unknown size ended with the segment before
	}
	rd.run.advance(rd, seg+1)
	return written, nil
}
