package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"dray"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
)

// formatVersion is the first line of the file VERSION. A store of another version is refused.
const formatVersion = "dray store 1\n"

// Store is a store on a disk. It implements [dray.Store] and [dray.RawGetter]. Put does not keep the caller's bytes.
type Store struct {
	cfg   Config
	lock  io.Closer
	db    *pebble.DB
	files fileTable
	segs  segments

	journal journal

	barrier    atomic.Pointer[barrier] // notes what is used; nil most of the time
	collecting atomic.Bool
	squeeze    atomic.Bool // segments that are half dead are given back, too
	written    atomic.Int64

	// broken is why the index can no longer be written; reads go on.
	broken atomic.Pointer[error]

	// indexMu is held by whoever changes the index, so that reading a block's places and writing them back is one step.
	// Lock order: indexMu, journal.mu, mu, segs.mu, fileTable.mu.
	indexMu  sync.Mutex
	nextFile uint64 // guarded by indexMu

	// mu guards what follows. No I/O is done under it.
	mu         sync.Mutex
	closed     bool
	pending    *pendingSet // written since the last commit began
	committing *pendingSet // what the commit under way is recording; changed only under indexMu and mu
	growings   []*Growing
	waiters    []chan error  // of Sync
	unsynced   []uint64      // files to be flushed by the next commit
	commitErr  error         // of the last commit
	room       chan struct{} // closed when the pending set has room again; nil unless somebody waits
	holders    int           // who writes something whose root is not recorded yet
	users      sync.WaitGroup

	kick chan struct{} // one slot: the committer should look
	quit chan struct{}
	work sync.WaitGroup
}

// Open opens the store in cfg.Dir, creating it if need be, and puts in order what an unclean stop left behind. It fails
// when another process has the store open, naming it.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s, err := open(cfg)
	if err != nil {
		return nil, &dray.Error{Op: "open store " + cfg.Dir, Err: spaceError(err)}
	}
	return s, nil
}

func open(cfg Config) (_ *Store, err error) {
	dir, err := absolute(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg:     cfg,
		lock:    lock,
		pending: newPendingSet(), committing: newPendingSet(),
		kick: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	s.files.open, s.files.limit = make(map[uint64]*openFile), cfg.OpenFiles
	s.segs.count = make(map[uint64]segmentCount)
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if err := checkVersion(dir); err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Join(dir, "segments")); err != nil {
		return nil, err
	}
	if s.db, err = openIndex(cfg, s); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, err
	}
	s.work.Go(s.commitLoop)
	return s, nil
}

// release closes what is open, without syncing.
func (s *Store) release() error {
	errs := []error{s.files.closeAll(), s.journal.close()}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	os.Remove(filepath.Join(s.cfg.Dir, "PID"))
	return errors.Join(append(errs, s.lock.Close())...)
}

// lockDir takes the directory for this process.
func lockDir(dir string) (io.Closer, error) {
	lock, err := vfs.Default.Lock(filepath.Join(dir, "LOCK"))
	pid := filepath.Join(dir, "PID")
	if err != nil {
		if b, rerr := os.ReadFile(pid); rerr == nil {
			return nil, fmt.Errorf("in use by process %s: %w", strings.TrimSpace(string(b)), err)
		}
		return nil, fmt.Errorf("in use by another process: %w", err)
	}
	if err := os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func checkVersion(dir string) error {
	name := filepath.Join(dir, "VERSION")
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
		return os.WriteFile(name, []byte(formatVersion), 0o600)
	}
	if err != nil {
		return err
	}
	if string(b) != formatVersion {
		return fmt.Errorf("format %q is not %q: made by another version", strings.TrimSpace(string(b)),
			strings.TrimSpace(formatVersion))
	}
	return nil
}

func openIndex(cfg Config, s *Store) (*pebble.DB, error) {
	opts := &pebble.Options{
		FS:                 cfg.IndexFS,
		CacheSize:          16 << 20,
		MemTableSize:       8 << 20,
		MaxOpenFiles:       256,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             indexLogger{s},
	}
	// Nearly every lookup before a write is for a block that is not there.
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	opts.CompactionConcurrencyRange = func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) }
	return pebble.Open(filepath.Join(cfg.Dir, "index"), opts)
}

// indexLogger passes the index's messages on. Pebble calls Fatalf when its log or manifest cannot be written and expects
// the process to end; here the index goes read-only instead.
type indexLogger struct{ s *Store }

func (indexLogger) Infof(string, ...any) {}

func (l indexLogger) Errorf(format string, args ...any) {
	l.s.cfg.Log.Warn("index", "message", fmt.Sprintf(format, args...))
}

func (l indexLogger) Fatalf(format string, args ...any) {
	var err error
	for _, a := range args {
		if e, ok := a.(error); ok {
			err = e
		}
	}
	if err == nil {
		err = fmt.Errorf(format, args...)
	}
	if l.s.broken.CompareAndSwap(nil, &err) {
		l.s.cfg.Log.Error("index stopped", "message", fmt.Sprintf(format, args...))
	}
}

// enter notes a user of the store, who must call leave; Close waits for all.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return dray.ErrClosed
	}
	s.users.Add(1)
	return nil
}

func (s *Store) leave() { s.users.Done() }

// Close syncs and closes the store, leaving the parts of growing files for another time. It waits for calls under way.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return &dray.Error{Op: "close store", Err: dray.ErrClosed}
	}
	s.closed = true
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	s.mu.Unlock()
	s.users.Wait()
	close(s.quit)
	s.work.Wait()
	err := s.commit()
	if err = errors.Join(err, s.release()); err != nil {
		return &dray.Error{Op: "close store", Err: spaceError(err)}
	}
	return nil
}

// newFileLocked returns a number for a file, recording in the batch that it is taken and, until told otherwise, dropped
// after a restart. indexMu is held.
func (s *Store) newFileLocked(b *pebble.Batch) (uint64, error) {
	s.nextFile++
	n := s.nextFile
	if err := b.Set([]byte{keyNext}, binary.BigEndian.AppendUint64(nil, n), nil); err != nil {
		return 0, err
	}
	return n, b.Set(numKey(keyDropped, n), nil, nil)
}

// spaceError gives errors that mean a full disk the cause that callers test for.
func spaceError(err error) error {
	if err == nil || errors.Is(err, dray.ErrNoSpace) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", dray.ErrNoSpace, err)
	}
	return err
}

// fail wraps an error for the caller.
func fail(op string, c cid.Cid, err error) error {
	if err == nil {
		return nil
	}
	var de *dray.Error
	if errors.As(err, &de) && de.Op == op {
		return err
	}
	return &dray.Error{Op: op, CID: c, Err: spaceError(err)}
}
