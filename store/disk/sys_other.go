//go:build !linux

package disk

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func identityOf(st os.FileInfo) Identity {
	return Identity{Size: st.Size(), MTime: st.ModTime().UnixNano(), Allocated: st.Size()}
}

func (osFS) Stat(name string) (Identity, error) {
	st, err := os.Stat(name)
	if err != nil {
		return Identity{}, err
	}
	if !st.Mode().IsRegular() {
		return Identity{}, &os.PathError{Op: "stat", Path: name, Err: errNotRegular}
	}
	return identityOf(st), nil
}

func (osFS) Free(dir string) (int64, error) {
	u, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		return -1, err
	}
	return int64(u.AvailBytes), nil
}

// Identity looks at the name as well, because an open file does not tell that it was replaced.
func (f *osFile) Identity() (Identity, error) {
	st, err := f.Stat()
	if err != nil {
		return Identity{}, err
	}
	now, err := os.Stat(f.Name())
	if err != nil {
		return Identity{}, err
	}
	if !os.SameFile(st, now) {
		return Identity{}, &os.PathError{Op: "stat", Path: f.Name(), Err: os.ErrNotExist}
	}
	return identityOf(st), nil
}

func (f *osFile) Sync() error { return f.File.Sync() }

func (f *osFile) Reserve(size int64) error { return f.Truncate(size) }

// NextData takes the whole file for data, because holes cannot be told.
func (f *osFile) NextData(off int64) (start, end int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if off >= st.Size() {
		return 0, 0, io.EOF
	}
	return off, st.Size(), nil
}

func copyRange(File, int64, File, int64, int64) bool { return false }
