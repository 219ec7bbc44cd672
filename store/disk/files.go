package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dray"

	"github.com/cockroachdb/pebble/v2"
)

// fileState is how far a referenced file has come.
type fileState string

const (
	// growing: the file lies at Part and is written by the store.
	growing fileState = "growing"
	// finishing: the file is complete and is being moved from Part to Path.
	finishing fileState = "finishing"
	// standing: the file lies at Path and belongs to the user.
	standing fileState = "standing"
)

// fileRecord is what the index knows of a referenced file.
type fileRecord struct {
	Path  string    `json:"path"`
	Part  string    `json:"part,omitempty"`
	State fileState `json:"state"`
	// Identity is that of the file as it was when its leaves were hashed; while growing only its Ino and Size count.
	Identity Identity `json:"identity"`
	// Unsure means that the identity does not prove the content, so that leaves are hashed before they are served.
	Unsure bool `json:"unsure,omitempty"`
	// Purpose is that of [dray.Growth].
	Purpose string `json:"purpose,omitempty"`
	Leaves  int64  `json:"leaves"`
}

// path returns where the file lies now.
func (r *fileRecord) path() string {
	if r.State == standing {
		return r.Path
	}
	return r.Part
}

// segmentBit tells segment numbers from file numbers in the table of open files.
const segmentBit = 1 << 63

// openFile is a data file that is open for reading, and for writing while it grows. It is closed when it is out of the
// table and nobody uses it.
type openFile struct {
	id   uint64
	file File

	// Owned by fileTable.mu.
	users  int
	pinned int  // growing files and the active segment stay open
	out    bool // no longer in the table
	used   uint64

	// mu guards the rest. Segments use none of it.
	mu  sync.Mutex
	rec fileRecord
	// proven holds the offsets of the leaves that were hashed and matched while the file's identity was provenFor.
	proven    map[int64]struct{}
	provenFor Identity
}

// fileTable keeps a bounded number of files open.
type fileTable struct {
	mu    sync.Mutex
	open  map[uint64]*openFile
	limit int
	clock uint64
}

// get returns the open file with a user more, or nil.
func (t *fileTable) get(id uint64) *openFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.open[id]
	if f != nil {
		t.clock++
		f.used = t.clock
		f.users++
	}
	return f
}

// insert puts f into the table with one user and returns it, or the file that is there already, after closing f.
func (t *fileTable) insert(f *openFile) *openFile {
	var victim *openFile
	t.mu.Lock()
	t.clock++
	if old := t.open[f.id]; old != nil {
		old.users++
		old.used = t.clock
		t.mu.Unlock()
		f.file.Close()
		return old
	}
	if len(t.open) >= t.limit {
		victim = t.evictLocked()
	}
	f.users, f.used = f.users+1, t.clock
	t.open[f.id] = f
	t.mu.Unlock()
	if victim != nil {
		victim.file.Close()
	}
	return f
}

// evictLocked takes the least recently used idle file out of a few looked at, so that the cost does not grow with the
// table. It returns nil if those are in use.
func (t *fileTable) evictLocked() *openFile {
	var victim *openFile
	n := 0
	for _, f := range t.open { // map order picks the sample; it decides nothing but which idle file is closed
		if f.users == 0 && f.pinned == 0 && (victim == nil || f.used < victim.used) {
			victim = f
		}
		if n++; n == 16 {
			break
		}
	}
	if victim != nil {
		victim.out = true
		delete(t.open, victim.id)
	}
	return victim
}

// release takes back what get and insert gave.
func (t *fileTable) release(f *openFile) {
	t.mu.Lock()
	f.users--
	closing := f.out && f.users == 0 && f.pinned == 0
	t.mu.Unlock()
	if closing {
		f.file.Close()
	}
}

func (t *fileTable) pin(f *openFile, n int) {
	t.mu.Lock()
	f.pinned += n
	closing := f.out && f.users == 0 && f.pinned == 0
	t.mu.Unlock()
	if closing {
		f.file.Close()
	}
}

// remove takes a file out of the table; it is closed once nobody uses it.
func (t *fileTable) remove(id uint64) {
	t.mu.Lock()
	f := t.open[id]
	closing := false
	if f != nil {
		delete(t.open, id)
		f.out = true
		closing = f.users == 0 && f.pinned == 0
	}
	t.mu.Unlock()
	if closing {
		f.file.Close()
	}
}

// closeAll closes every file. No file may be in use.
func (t *fileTable) closeAll() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for id, f := range t.open {
		f.out = true
		delete(t.open, id)
		errs = append(errs, f.file.Close())
	}
	return errors.Join(errs...)
}

var (
	errNotRegular = errors.New("not a regular file")
	// errGone means that a place names a file or segment which is not there any more.
	errGone = errors.New("gone")
)

// acquireFile returns the referenced file with the given number, opened. It returns errGone when there is no such file
// and an error wrapping dray.ErrChanged when it cannot be opened.
func (s *Store) acquireFile(id uint64) (*openFile, error) {
	if f := s.files.get(id); f != nil {
		return f, nil
	}
	rec, err := s.fileRecord(id)
	if err != nil {
		return nil, err
	}
	// Looking first keeps from opening a pipe that took the file's place, which would wait for a writer.
	_, err = s.cfg.FS.Stat(rec.path())
	var file File
	if err == nil {
		file, err = s.cfg.FS.Open(rec.path(), os.O_RDONLY, 0)
	}
	if err != nil {
		return nil, changed(rec.path(), err)
	}
	return s.files.insert(&openFile{id: id, file: file, rec: rec}), nil
}

func (s *Store) acquireSegment(n uint64) (*openFile, error) {
	if f := s.files.get(n | segmentBit); f != nil {
		return f, nil
	}
	file, err := s.cfg.FS.Open(s.segmentPath(n), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	return s.files.insert(&openFile{id: n | segmentBit, file: file}), nil
}

// fileRecord reads a file's record from the index.
func (s *Store) fileRecord(id uint64) (rec fileRecord, err error) {
	var key [9]byte
	key[0] = keyFile
	for i := range 8 {
		key[1+i] = byte(id >> (56 - 8*i))
	}
	ok, err := lookup(s.db, key[:], func(v []byte) error { return json.Unmarshal(v, &rec) })
	if err == nil && !ok {
		err = errGone
	}
	return rec, err
}

func putFileRecord(b *pebble.Batch, id uint64, rec *fileRecord) error {
	v, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := b.Set(numKey(keyFile, id), v, nil); err != nil {
		return err
	}
	return b.Set(append([]byte{keyPath}, rec.path()...), numKey(keyFile, id)[1:], nil)
}

func changed(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%w: %s: %w", dray.ErrChanged, path, err)
}

// clockTick is the longest time for which a file system may give two writes the same modification time: the kernel's
// tick where times have nanoseconds, and two seconds where they visibly do not.
func clockTick(mtime int64) time.Duration {
	if mtime%int64(time.Millisecond) == 0 {
		return 2100 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// racy reports whether a file with this identity could, after now, be written without its times telling.
func (a Identity) racy(now time.Time) bool {
	return now.UnixNano()-a.MTime < int64(clockTick(a.MTime))
}

// partPath is where the file at path lies while it grows.
func partPath(path string) string { return path + ".dray-part" }

func absolute(path string) (string, error) {
	p, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.Clean(p), nil
}

// noSpace is the error for needing more than is free.
func noSpace(where string, need, free int64) error {
	return fmt.Errorf("%w: %s needs %d bytes more, %d are free", dray.ErrNoSpace, where, need, free)
}
