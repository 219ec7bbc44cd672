package disk

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"

	"dray"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// VerifyConfig says how thoroughly a store is verified.
type VerifyConfig struct {
	// Deep reads and hashes every block. Otherwise only the index, and the files' sizes and times, are looked at.
	Deep bool
	// Workers is how many blocks are hashed at once. If zero, one for each core.
	Workers int
	// Repair forgets what is found to be bad, and, if Deep, trusts files again whose every leaf matches.
	Repair bool
	// Report is called for every problem, by one goroutine at a time. If nil, problems are only counted.
	Report func(Problem)
}

// Problem is one thing that is wrong with a store.
type Problem struct {
	// CID is the block, undefined when the problem is with a whole file.
	CID cid.Cid
	// Path is the file that holds it, empty for a block in the index.
	Path string
	// Offset and Size say where in the file.
	Offset, Size int64
	// Err wraps dray.ErrChanged, dray.ErrCorrupt or an error of the disk.
	Err error
}

// String says all of it in one line.
func (p Problem) String() string {
	switch {
	case !p.CID.Defined():
		return fmt.Sprintf("%s: %v", p.Path, p.Err)
	case p.Path == "":
		return fmt.Sprintf("%v: %v", p.CID, p.Err)
	}
	return fmt.Sprintf("%s: bytes %d to %d: %v: %v", p.Path, p.Offset, p.Offset+p.Size, p.CID, p.Err)
}

// VerifyStats counts what was looked at. A block that lies in several places counts once for each.
type VerifyStats struct {
	Files, Blocks, Bytes, Problems int64
}

// Verify syncs and then checks everything that the store holds: that the index agrees with itself and with the files, and
// with cfg.Deep that each block hashes to its CID. Problems are reported, not returned; the error is for what kept it from
// looking. The store can be used meanwhile.
func (s *Store) Verify(ctx context.Context, cfg VerifyConfig) (VerifyStats, error) {
	const op = "verify"
	if err := s.enter(); err != nil {
		return VerifyStats{}, fail(op, cid.Undef, err)
	}
	defer s.leave()
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if err := s.sync(ctx); err != nil {
		return VerifyStats{}, fail(op, cid.Undef, err)
	}
	v := &verification{s: s, cfg: cfg, snap: s.db.NewSnapshot()}
	defer v.snap.Close()
	err := v.run(ctx)
	stats := VerifyStats{v.files.Load(), v.blocks.Load(), v.bytes.Load(), v.problems.Load()}
	return stats, fail(op, cid.Undef, err)
}

// verification is one run of Verify.
type verification struct {
	s    *Store
	cfg  VerifyConfig
	snap *pebble.Snapshot

	report                         sync.Mutex
	files, blocks, bytes, problems atomic.Int64
}

// check is one place of one block, to be looked at.
type check struct {
	mh string
	place
	path string
	file *fileCheck
}

// fileCheck follows one file through a deep verification.
type fileCheck struct {
	id       uint64
	identity Identity // before the first leaf was read
	left     atomic.Int64
	bad      atomic.Bool
}

func (v *verification) run(ctx context.Context) error {
	// Every place in the index and in segments, then every file from front to back.
	checks := make(chan check, 4*v.cfg.Workers)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for range v.cfg.Workers {
		wg.Go(func() {
			var buf []byte
			for c := range checks {
				if ctx.Err() == nil {
					if err := v.look(&c, &buf); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	send := func(c check) error {
		select {
		case checks <- c:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := v.loose(ctx, send)
	if err == nil {
		err = v.inFiles(ctx, send)
	}
	close(checks)
	wg.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// problem reports and counts p.
func (v *verification) problem(p Problem) {
	v.problems.Add(1)
	if v.cfg.Report != nil {
		v.report.Lock()
		defer v.report.Unlock()
		v.cfg.Report(p)
	}
}

// loose sends every place that is not in a file.
func (v *verification) loose(ctx context.Context, send func(check) error) error {
	return walk(ctx, v.snap, []byte{keyBlock}, func(key, val []byte) (bool, error) {
		mh := string(key[1:])
		for len(val) > 0 {
			p, rest, err := cutPlace(val)
			if err != nil {
				v.problem(Problem{CID: rawCID(mh), Err: fmt.Errorf("%w: %w", dray.ErrCorrupt, err)})
				return true, nil
			}
			val = rest
			if p.kind == inFile {
				continue // looked at with its file
			}
			p.data = clone(p.data)
			c := check{mh: mh, place: p}
			if p.kind == inSegment {
				c.path = v.s.segmentPath(p.id)
			}
			if err := send(c); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// inFiles sends every leaf of every file.
func (v *verification) inFiles(ctx context.Context, send func(check) error) error {
	return walk(ctx, v.snap, []byte{keyFile}, func(key, val []byte) (bool, error) {
		id := binary.BigEndian.Uint64(key[1:])
		var rec fileRecord
		if err := json.Unmarshal(val, &rec); err != nil {
			return false, err
		}
		v.files.Add(1)
		return true, v.inFile(ctx, id, &rec, send)
	})
}

func (v *verification) inFile(ctx context.Context, id uint64, rec *fileRecord, send func(check) error) error {
	f, now, err := v.s.look(id)
	if errors.Is(err, errGone) {
		return nil // dropped since the snapshot was made
	}
	if err != nil {
		v.problem(Problem{Path: rec.path(), Err: err})
		if v.cfg.Repair && errors.Is(err, fs.ErrNotExist) {
			return v.s.forgetPath(rec.path())
		}
		return nil
	}
	v.s.files.release(f)
	if !v.cfg.Deep && rec.State == standing && !now.same(rec.Identity) {
		v.problem(Problem{Path: rec.path(), Size: now.Size, Err: fmt.Errorf("%w: its size or time is not as recorded", dray.ErrChanged)})
	}
	fc := &fileCheck{id: id, identity: now}
	fc.left.Store(1) // until all are sent
	err = walk(ctx, v.snap, numKey(keyLeaf, id), func(key, val []byte) (bool, error) {
		l, err := parseLeaf(val)
		if err != nil || len(key) != 17 {
			return false, errIndex
		}
		p := place{kind: inFile, id: id, off: int64(binary.BigEndian.Uint64(key[9:])), size: l.size, head: l.head, tail: l.tail}
		fc.left.Add(1)
		return true, send(check{mh: l.mh, place: p, path: rec.path(), file: fc})
	})
	if err != nil {
		return err
	}
	return v.leafDone(fc)
}

// look checks one place.
func (v *verification) look(c *check, buf *[]byte) error {
	v.blocks.Add(1)
	v.bytes.Add(c.blockSize())
	err := v.read(c, buf)
	if err != nil && !errors.Is(err, errGone) {
		if v.stale(c) {
			err = nil
		}
	}
	if err != nil && !errors.Is(err, errGone) {
		p := Problem{CID: rawCID(c.mh), Path: c.path, Offset: c.off, Size: c.size, Err: err}
		v.problem(p)
		if c.file != nil {
			c.file.bad.Store(true)
		}
		if v.cfg.Repair && (errors.Is(err, dray.ErrCorrupt) || errors.Is(err, dray.ErrChanged)) {
			if err := v.s.dropPlace(c.mh, &c.place); err != nil {
				return err
			}
			v.s.expectAgain(c.mh, &c.place)
		}
	}
	if c.file != nil {
		return v.leafDone(c.file)
	}
	return nil
}

// stale reports whether the place is no longer the block's, because it was deleted or moved since the snapshot was made.
func (v *verification) stale(c *check) bool {
	places, err := v.s.find(nil, c.mh)
	if err != nil {
		return false
	}
	for i := range places {
		if places[i].at(&c.place) {
			return false
		}
	}
	// The block's own list is short; the file's is complete.
	if c.kind == inFile {
		var room [17]byte
		ok, err := lookup(v.s.db, leafKey(room[:0], c.id, c.off), func([]byte) error { return nil })
		return err == nil && !ok
	}
	return true
}

// read reads the place, and with Deep hashes it.
func (v *verification) read(c *check, buf *[]byte) error {
	if !v.cfg.Deep {
		return v.shallow(c)
	}
	data, r, err := v.s.readPlace(&c.place, *buf)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the file ends before", v.cause(c))
	}
	if errors.Is(err, errGone) && c.kind == inSegment {
		return fmt.Errorf("%w: its segment is missing", dray.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	*buf = data
	if _, err := dray.NewBlock(rawCID(c.mh), data); err != nil {
		if errors.Is(err, dray.ErrCorrupt) {
			return fmt.Errorf("%w: it hashes to something else", v.cause(c))
		}
		return err
	}
	if c.file != nil && (!r.steady || !r.identity.same(c.file.identity) || r.identity.racy(r.began)) {
		c.file.bad.Store(true) // not bad, but not to be trusted either
	}
	return nil
}

func (v *verification) cause(c *check) error {
	if c.kind == inFile {
		return dray.ErrChanged
	}
	return dray.ErrCorrupt
}

// shallow checks that the bytes can be there, and that a leaf's block knows of it.
func (v *verification) shallow(c *check) error {
	switch c.kind {
	case inSegment:
		f, err := v.s.acquireSegment(c.id)
		if errors.Is(err, errGone) {
			return fmt.Errorf("%w: its segment is missing", dray.ErrCorrupt)
		}
		if err != nil {
			return err
		}
		now, err := f.file.Identity()
		v.s.files.release(f)
		if err == nil && now.Size < c.off+c.size {
			err = fmt.Errorf("%w: the file ends before", dray.ErrCorrupt)
		}
		return err
	case inFile:
		var room [maxKey]byte
		ok, err := lookup(v.snap, blockKey(room[:0], c.mh), func([]byte) error { return nil })
		if err == nil && !ok {
			err = fmt.Errorf("%w: the file lists it, the index does not", dray.ErrCorrupt)
		}
		if err == nil && c.file.identity.Size < c.off+c.size {
			err = fmt.Errorf("%w: the file ends before", dray.ErrChanged)
		}
		return err
	}
	return nil
}

// leafDone is called for each leaf of a file and once for the file; the last call trusts it if that is wanted and due.
func (v *verification) leafDone(fc *fileCheck) error {
	if fc.left.Add(-1) > 0 || fc.bad.Load() || !v.cfg.Deep || !v.cfg.Repair {
		return nil
	}
	f, now, err := v.s.look(fc.id)
	if err != nil {
		return nil // it has changed again
	}
	defer v.s.files.release(f)
	f.mu.Lock()
	due := f.rec.State == standing && (f.rec.Unsure || !f.rec.Identity.same(now))
	f.mu.Unlock()
	if !due || !now.same(fc.identity) {
		return nil
	}
	return v.s.trust(f, now)
}
