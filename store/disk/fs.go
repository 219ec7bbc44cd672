package disk

import (
	"io"
	"os"
	"path/filepath"
	"time"
)

// FS is the few file operations that the store does on data files: segments, journals and the user's own files. It exists
// so that tests can inject errors and lose unsynced writes. The zero [Config] uses the operating system's.
type FS interface {
	// Open opens the named file as os.OpenFile does.
	Open(name string, flag int, perm os.FileMode) (File, error)
	// Stat returns the identity of the file at name, or an error wrapping os.ErrNotExist.
	Stat(name string) (Identity, error)
	// Rename moves a file, replacing what is at the new name.
	Rename(oldName, newName string) error
	// Remove deletes a file.
	Remove(name string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// SyncDir makes the names in a directory survive the loss of power.
	SyncDir(name string) error
	// Free returns the bytes that may still be written below dir, or -1 if that is not known.
	Free(dir string) (int64, error)
}

// File is an open data file. Its methods are safe for concurrent use.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Identity returns what tells this state of the file from another one. It returns an error wrapping os.ErrNotExist when
	// the file has been removed.
	Identity() (Identity, error)
	// Sync makes what was written survive the loss of power.
	Sync() error
	// Truncate sets the file's length.
	Truncate(size int64) error
	// Reserve makes the file size bytes long, with disk space behind it where that is cheap.
	Reserve(size int64) error
	// NextData returns the first stretch of bytes at or after off that may have been written, or io.EOF.
	NextData(off int64) (start, end int64, err error)
	// SetModTime sets the modification time.
	SetModTime(t time.Time) error
}

// Identity tells one state of a file from another. Two equal identities mean that the file was not changed in between,
// save for a write within the clock tick of an earlier one. The device number is left out: it need not survive a reboot.
type Identity struct {
	// Ino is the inode number, 0 where there are none.
	Ino uint64
	// Size is the length in bytes.
	Size int64
	// MTime is the modification time in nanoseconds since 1970.
	MTime int64
	// CTime is the time of the last change of content or attributes, in nanoseconds since 1970; 0 where unknown. Unlike
	// MTime no program can set it.
	CTime int64
	// Allocated is the number of bytes of disk behind the file. It takes no part in comparisons.
	Allocated int64 `json:"-"`
}

// same reports whether a and b are the same state of the same file.
func (a Identity) same(b Identity) bool {
	return a.Ino == b.Ino && a.Size == b.Size && a.MTime == b.MTime && a.CTime == b.CTime
}

// osFS is the operating system's file system.
type osFS struct{}

func (osFS) Open(name string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }
func (osFS) Remove(name string) error             { return os.Remove(name) }

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// osFile is a file of the operating system. Identity, Sync, Reserve and NextData are in sys_*.go.
type osFile struct{ *os.File }

func (f *osFile) SetModTime(t time.Time) error { return os.Chtimes(f.Name(), time.Time{}, t) }

// makeDir creates dir and makes its name survive the loss of power.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return osFS{}.SyncDir(filepath.Dir(dir))
}
