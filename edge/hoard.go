package edge

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
	"github.com/multiformats/go-multihash"

	"dray"
)

// hoard keeps leaves within a size. The library decides which; this keeps the files in step with it: a leaf that was
// evicted loses its file before a new one gets its own, so that the disk never holds more than the bound. It is safe
// for concurrent use.
type hoard struct {
	shelf shelf
	size  int64
	log   *slog.Logger
	cache *otter.Cache[string, *leaf]

	mu   sync.Mutex // held while the set of leaves changes
	held int64      // bytes of the disk that leaves take; guarded by mu

	deadMu sync.Mutex // never held while anything else is called
	dead   []string   // evicted, and their files not yet removed

	evicted, rejected, failed atomic.Int64
}

// leaf is what the cache knows of one.
type leaf struct {
	size  int64
	names int         // objects that refer to it; guarded by hoard.mu
	byCID bool        // it was fetched by its CID, so no name's invalidation drops it; guarded by hoard.mu
	ready atomic.Bool // its file is there
	sure  atomic.Bool // its file was written or hashed by this process
}

// weight is what a leaf takes of the disk.
func weight(size int64) int64 { return (size + pageSize - 1) &^ (pageSize - 1) }

func openHoard(dir string, size int64, log *slog.Logger) (*hoard, error) {
	s, err := openShelf(dir)
	if err != nil {
		return nil, err
	}
	h := &hoard{shelf: s, size: size, log: log}
	h.cache, err = otter.New(&otter.Options[string, *leaf]{
		MaximumWeight: uint64(size),
		Weigher:       func(_ string, l *leaf) uint32 { return uint32(weight(l.size)) },
		// On the caller's goroutine, so that after CleanUp nothing is left to be done, and all is counted.
		Executor:   func(f func()) { f() },
		OnDeletion: h.gone,
	})
	if err != nil {
		return nil, err
	}
	return h, s.all(func(key string, size int64) {
		l := &leaf{size: size}
		l.ready.Store(true)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held += weight(size)
		h.admit(key, l)
	})
}

// gone is called by the library, which may hold its locks.
func (h *hoard) gone(e otter.DeletionEvent[string, *leaf]) {
	if e.Cause == otter.CauseReplacement {
		return
	}
	h.deadMu.Lock()
	defer h.deadMu.Unlock()
	h.dead = append(h.dead, e.Key)
}

// admit offers a leaf to the library and removes the files of what it dropped instead, which may be that leaf. The
// caller holds mu.
func (h *hoard) admit(key string, l *leaf) (kept bool) {
	h.cache.Set(key, l)
	return !h.bury(key)
}

// bury removes the files of the dead, and reports whether key was among them. The caller holds mu.
func (h *hoard) bury(key string) (dead bool) {
	h.cache.CleanUp()
	h.deadMu.Lock()
	list := h.dead
	h.dead = nil
	h.deadMu.Unlock()
	for _, k := range list {
		if k == key {
			dead = true
			continue
		}
		h.evicted.Add(1)
		h.discard(k)
	}
	if dead {
		h.rejected.Add(1)
		h.discard(key)
	}
	return dead
}

// discard removes a leaf's file, if there is one. The caller holds mu.
func (h *hoard) discard(key string) {
	info, err := os.Stat(h.shelf.path(key))
	if err != nil {
		return
	}
	if err := h.shelf.remove(key); err != nil {
		h.failed.Add(1)
		h.log.Warn("a leaf of the edge's cache cannot be removed", "error", err)
		return
	}
	h.held -= weight(info.Size())
}

// put offers a leaf, and reports whether it is kept. It does not keep data. A disk that fails keeps nothing.
func (h *hoard) put(key string, data []byte, byCID bool) bool {
	size := int64(len(data))
	if size == 0 || weight(size) > h.size {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.cache.GetEntryQuietly(key); ok {
		h.refer(e.Value, byCID)
		return true
	}
	h.bury("") // what a read evicted since, which may be this one
	l := &leaf{size: size}
	l.sure.Store(true)
	if !h.admit(key, l) {
		return false
	}
	if err := h.shelf.put(key, data); err != nil {
		h.failed.Add(1)
		h.log.Warn("the edge's cache cannot be written", "error", err)
		h.cache.Invalidate(key)
		h.bury("")
		return false
	}
	h.held += weight(size)
	h.refer(l, byCID)
	l.ready.Store(true)
	return true
}

// refer notes why a leaf is here. The caller holds mu.
func (h *hoard) refer(l *leaf, byCID bool) {
	if byCID {
		l.byCID = true
	} else {
		l.names++
	}
}

// name notes that one more object refers to a leaf, and reports whether it is here.
func (h *hoard) name(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.cache.GetEntryQuietly(key)
	if ok {
		e.Value.names++
	}
	return ok
}

// release notes that an object does not refer to a leaf any more; what nobody refers to goes.
func (h *hoard) release(keys ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		e, ok := h.cache.GetEntryQuietly(key)
		if !ok {
			continue
		}
		e.Value.names--
		if e.Value.names <= 0 && !e.Value.byCID {
			h.cache.Invalidate(key)
		}
	}
	h.bury("")
}

// has reports whether a leaf is here, without counting as a use.
func (h *hoard) has(key string) bool {
	e, ok := h.cache.GetEntryQuietly(key)
	return ok && e.Value.ready.Load()
}

// open returns a leaf's file, at its start, or nil if it is not here. It counts as a use.
func (h *hoard) open(key string) *os.File {
	l, ok := h.cache.GetIfPresent(key)
	if !ok || !l.ready.Load() {
		return nil
	}
	f, err := h.shelf.open(key)
	if err == nil && !l.sure.Load() {
		if err = right(f, key, l.size); err == nil {
			l.sure.Store(true)
		} else {
			f.Close()
		}
	}
	if err != nil {
		h.lose(key, l)
		return nil
	}
	return f
}

// right checks that a file is the leaf that its name says, and leaves it at its start.
func right(f *os.File, key string, size int64) error {
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return err
	}
	if !matches(key, data) {
		return dray.ErrCorrupt
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// matches reports whether data has the multihash key.
func matches(key string, data []byte) bool {
	m, err := multihash.Decode([]byte(key))
	if err != nil {
		return false
	}
	sum, err := dray.Sum(m.Code, m.Length, nil, data)
	return err == nil && bytes.Equal(sum, m.Digest)
}

// lose drops a leaf whose file is not what it was.
func (h *hoard) lose(key string, l *leaf) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.cache.GetEntryQuietly(key); !ok || e.Value != l || !l.ready.Load() {
		return // it was evicted meanwhile, or is here anew
	}
	h.cache.Invalidate(key)
	if _, err := os.Stat(h.shelf.path(key)); err != nil {
		h.held -= weight(l.size) // somebody removed it
	}
	h.bury("")
}

// read returns a leaf's bytes, or nil. It counts as a use.
func (h *hoard) read(key string) []byte {
	f := h.open(key)
	if f == nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil
	}
	return data
}

// bytes returns what leaves take of the disk, and how many there are.
func (h *hoard) bytes() (held int64, leaves int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held, h.cache.EstimatedSize()
}
