package disk

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"dray"

	"github.com/ipfs/go-cid"
)

// Garbage is collected in three steps, of which the caller does the second, because the store does not know how blocks are
// read:
//
//  1. [Store.Collect] puts up a barrier: what anybody but the collector reads or writes from here on is noted.
//  2. The caller marks what is needed, reading through the [Collection].
//  3. [Collection.Sweep] drops the store's own copies of what is neither marked nor noted, a part at a time. Whoever looks
//     for a block either is noted before it is looked at for dropping, or does not find it.
//
// A write that lasts, such as the adding of a file, puts up the barrier itself with [Store.Hold] until its root is recorded.
// Nothing is in between: a kill at any point leaves blocks that nobody needs, and the next run finds them.

// Marks is a set of multihashes, by their last eight bytes. Two that end alike are taken for one, so something may be taken
// to be in it that is not; what was added is always found. The zero value is not usable; make one with make.
type Marks map[uint64]struct{}

// Add adds a block and reports whether it was not there.
func (m Marks) Add(c cid.Cid) bool {
	k := markOf(c.KeyString())
	if _, twice := m[k]; twice {
		return false
	}
	m[k] = struct{}{}
	return true
}

// Remove takes a block out.
func (m Marks) Remove(c cid.Cid) { delete(m, markOf(c.KeyString())) }

func (m Marks) has(mh string) bool {
	_, ok := m[markOf(mh)]
	return ok
}

// markOf returns the end of a multihash, which is the end of its CID, too.
func markOf(s string) uint64 {
	var b [8]byte
	copy(b[:], s[max(len(s)-8, 0):])
	return binary.LittleEndian.Uint64(b[:])
}

// mostNoted is how many blocks a barrier notes; beyond that it takes everything to be in use.
const mostNoted = 8 << 20

// barrier notes what is used while something is being collected or written.
type barrier struct {
	users int // guarded by Store.mu

	mu   sync.Mutex
	used Marks
	full bool
}

func (b *barrier) note(mh string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.used) >= mostNoted {
		b.full = true
		return
	}
	b.used[markOf(mh)] = struct{}{}
}

// touch notes that somebody uses a block, and so must be called before it is looked for.
func (s *Store) touch(mh string) {
	if b := s.barrier.Load(); b != nil {
		b.note(mh)
	}
}

// raise puts the barrier up, or joins those who did.
func (s *Store) raise() *barrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.barrier.Load()
	if b == nil {
		b = &barrier{used: make(Marks)}
		s.barrier.Store(b)
	}
	b.users++
	return b
}

func (s *Store) lower(b *barrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users--; b.users == 0 {
		s.barrier.Store(nil)
	}
}

// Hold keeps everything that is read or written until release is called from being collected. It is for whoever writes blocks
// whose root is recorded at the end only. Release may be called more than once.
func (s *Store) Hold() (release func()) {
	b := s.raise()
	s.mu.Lock()
	s.holders++
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.holders--
		s.mu.Unlock()
		s.lower(b)
	})
}

// ErrCollecting means that garbage is being collected already.
var ErrCollecting = errors.New("garbage is being collected already")

// Collection is one run of collecting garbage. It is used by one goroutine and must be closed.
type Collection struct {
	s       *Store
	barrier *barrier
	files   []string // that no write was under way with when the run began
	quiet   bool     // nothing was being added then
}

// Collect begins to collect garbage. There is one run at a time: another gets [ErrCollecting].
func (s *Store) Collect(ctx context.Context) (*Collection, error) {
	const op = "collect"
	if err := s.enter(); err != nil {
		return nil, fail(op, cid.Undef, err)
	}
	if !s.collecting.CompareAndSwap(false, true) {
		s.leave()
		return nil, fail(op, cid.Undef, ErrCollecting)
	}
	c := &Collection{s: s, barrier: s.raise()}
	err := s.sync(ctx) // so that the index tells of everything
	if err == nil {
		err = c.listFiles(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fail(op, cid.Undef, err)
	}
	return c, nil
}

// Close ends the run.
func (c *Collection) Close() {
	if c.s == nil {
		return
	}
	c.s.lower(c.barrier)
	c.s.collecting.Store(false)
	c.s.leave()
	c.s = nil
}

// listFiles lists the user's files that the store knows.
func (c *Collection) listFiles(ctx context.Context) error {
	c.s.mu.Lock()
	c.quiet = c.s.holders == 0
	c.s.mu.Unlock()
	return walk(ctx, c.s.db, []byte{keyFile}, func(_, v []byte) (bool, error) {
		var rec fileRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return false, err
		}
		if rec.State == standing {
			c.files = append(c.files, rec.Path)
		}
		return true, nil
	})
}

// Files returns the user's files that the store knew when the run began, and whether nothing was being added then, so that
// one which no root names is one that nobody needs.
func (c *Collection) Files() (paths []string, quiet bool) { return c.files, c.quiet }

// Stat is [dray.Store.Stat] without noting that the block is used. Own is how many bytes the store's own copies have.
func (c *Collection) Stat(ctx context.Context, k cid.Cid) (size, own int64, err error) {
	const op = "stat"
	if ctx.Err() != nil {
		return 0, 0, fail(op, k, context.Cause(ctx))
	}
	mh, err := hashOf(k)
	if err != nil {
		return 0, 0, err
	}
	var room [2]place
	places, err := c.s.find(room[:0], mh)
	if err != nil {
		return 0, 0, fail(op, k, err)
	}
	size = -1
	for i := range places {
		p := &places[i]
		if p.kind != inFile {
			own += p.blockSize()
		}
		if size < 0 && c.s.standing(p) {
			size = p.blockSize()
		}
	}
	if size < 0 {
		return 0, 0, fail(op, k, dray.ErrNotFound)
	}
	return size, own, nil
}

// Get is [dray.Store.Get] without noting that the block is used.
func (c *Collection) Get(ctx context.Context, k cid.Cid) (dray.Block, error) {
	_, b, err := c.s.get(ctx, k, nil, true)
	return b, fail("get", k, err)
}

// Held counts the store's own copies of blocks: those that lie in no file of the user's.
type Held struct {
	Blocks, Bytes int64
}

// Held counts what the store itself holds. A block that it has twice counts twice.
func (s *Store) Held(ctx context.Context) (Held, error) {
	const op = "count"
	if err := s.enter(); err != nil {
		return Held{}, fail(op, cid.Undef, err)
	}
	defer s.leave()
	if err := s.sync(ctx); err != nil {
		return Held{}, fail(op, cid.Undef, err)
	}
	var h Held
	err := s.owned(ctx, func(_ string, own int64) error {
		h.Blocks++
		h.Bytes += own
		return nil
	})
	return h, fail(op, cid.Undef, err)
}

// Written returns how many bytes the store has written into copies of its own since it was opened: with an earlier Held, a
// bound of what it holds now.
func (s *Store) Written() int64 { return s.written.Load() }

// owned calls use for each block of which the store has copies of its own that are in the index, with their bytes.
func (s *Store) owned(ctx context.Context, use func(mh string, own int64) error) error {
	snap := s.db.NewSnapshot()
	defer snap.Close()
	return walk(ctx, snap, []byte{keyBlock}, func(key, v []byte) (bool, error) {
		own := int64(0)
		for len(v) > 0 {
			p, rest, err := cutPlace(v)
			if err != nil {
				return false, err
			}
			if v = rest; p.kind != inFile {
				own += p.blockSize()
			}
		}
		if own == 0 {
			return true, nil
		}
		return true, use(string(key[1:]), own)
	})
}

const (
	sweepBatch = 64                   // blocks dropped at a time: whoever reads one waits for that long
	sweepPause = 2 * time.Millisecond // in between, for those who write
)

// SweepConfig says how to sweep.
type SweepConfig struct {
	// Keep are the blocks that are needed.
	Keep Marks
	// DryRun counts what would be dropped, and drops nothing.
	DryRun bool
	// Gone, if set, is told which blocks the store does not have any more, a part at a time.
	Gone func([]cid.Cid)
}

// Sweep drops the store's own copies of what is not needed and was not used since the run began, and returns what that
// freed. What lies in the user's files is not touched. It can be broken off at any point.
func (c *Collection) Sweep(ctx context.Context, cfg SweepConfig) (freed Held, err error) {
	var batch []string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		h, gone, err := c.drop(batch, cfg.DryRun)
		freed.Blocks, freed.Bytes = freed.Blocks+h.Blocks, freed.Bytes+h.Bytes
		if batch = batch[:0]; err != nil || cfg.DryRun {
			return err
		}
		if cfg.Gone != nil && len(gone) > 0 {
			cfg.Gone(gone)
		}
		t := time.NewTimer(sweepPause)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err = c.s.owned(ctx, func(mh string, _ int64) error {
		if cfg.Keep.has(mh) {
			return nil
		}
		if batch = append(batch, mh); len(batch) < sweepBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return freed, fail("collect", cid.Undef, err)
}

// drop drops the own copies of blocks that are not in use, in one edit.
func (c *Collection) drop(batch []string, dry bool) (freed Held, gone []cid.Cid, err error) {
	s, b := c.s, c.barrier
	e := s.begin()
	// Whoever comes to use one of them waits here, and then does not find it.
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		e.abandon()
		return Held{}, nil, errors.New("too much is in use to collect anything; try again later")
	}
	own := func(p *place) bool { return p.kind != inFile }
	for _, mh := range batch {
		if b.used.has(mh) {
			continue
		}
		v, err := e.value(mh)
		if err != nil {
			e.abandon()
			return Held{}, nil, err
		}
		bytes, elsewhere := int64(0), false
		for len(v) > 0 {
			var p place
			if p, v, err = cutPlace(v); err != nil {
				e.abandon()
				return Held{}, nil, err
			}
			if own(&p) {
				bytes += p.blockSize()
			} else {
				elsewhere = true
			}
		}
		if bytes == 0 {
			continue // somebody has deleted it meanwhile
		}
		freed.Blocks++
		freed.Bytes += bytes
		if dry {
			continue
		}
		if !elsewhere {
			gone = append(gone, rawCID(mh))
		}
		s.mu.Lock()
		s.pending.drop(mh, own)
		s.committing.drop(mh, own)
		s.mu.Unlock()
		if err := e.drop(mh, own); err != nil {
			e.abandon()
			return Held{}, nil, err
		}
	}
	if dry {
		e.abandon()
		return freed, nil, nil
	}
	return freed, gone, e.finish()
}

// mostReclaimed bounds how many segments one run rewrites.
const mostReclaimed = 256

// Reclaim gives back the disk space of segments that have become empty, or half empty, one after the other.
func (c *Collection) Reclaim(ctx context.Context) error {
	c.s.squeeze.Store(true)
	defer c.s.squeeze.Store(false)
	for range mostReclaimed {
		if err := c.s.sync(ctx); err != nil {
			return fail("collect", cid.Undef, err)
		}
		if !c.s.squeeze.Load() {
			break
		}
	}
	return nil
}

// Forget drops the reference to one of the user's files, unless one of its leaves is needed and lies nowhere else. It
// reports whether it did.
func (c *Collection) Forget(ctx context.Context, path string, keep Marks) (bool, error) {
	const op = "forget"
	abs, err := absolute(path)
	if err != nil {
		return false, fail(op, cid.Undef, err)
	}
	id, err := c.s.fileAt(abs)
	if err != nil || id == 0 {
		return false, fail(op, cid.Undef, err)
	}
	needed := false
	err = walk(ctx, c.s.db, numKey(keyLeaf, id), func(_, v []byte) (bool, error) {
		l, err := parseLeaf(v)
		if err != nil {
			return false, err
		}
		b := c.barrier
		b.mu.Lock()
		used := b.full || b.used.has(l.mh)
		b.mu.Unlock()
		if !used && !keep.has(l.mh) {
			return true, nil
		}
		places, err := c.s.find(nil, l.mh)
		if err != nil {
			return false, err
		}
		for i := range places {
			if p := &places[i]; p.kind != inFile || p.id != id && c.s.standing(p) {
				return true, nil
			}
		}
		needed = true
		return false, nil
	})
	if err != nil && !errors.Is(err, errStop) || needed {
		if errors.Is(err, errStop) {
			err = nil
		}
		return false, fail(op, cid.Undef, err)
	}
	return true, fail(op, cid.Undef, c.s.forgetPath(abs))
}
