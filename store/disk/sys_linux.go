package disk

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func identityOf(st *unix.Stat_t) Identity {
	return Identity{
		Ino: st.Ino, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(), Allocated: st.Blocks * 512,
	}
}

func (osFS) Stat(name string) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return Identity{}, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Identity{}, &os.PathError{Op: "stat", Path: name, Err: errNotRegular}
	}
	return identityOf(&st), nil
}

func (osFS) Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return -1, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (f *osFile) Identity() (Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Identity{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Nlink == 0 {
		return Identity{}, &os.PathError{Op: "stat", Path: f.Name(), Err: os.ErrNotExist}
	}
	return identityOf(&st), nil
}

func (f *osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			if err != nil {
				return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
			}
			return nil
		}
	}
}

func (f *osFile) Reserve(size int64) error {
	if err := f.Truncate(size); err != nil || size == 0 {
		return err
	}
	// Allocation takes no time worth mentioning where it marks extents, and leaves them reading as holes until written.
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	switch {
	case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINTR):
		return nil
	}
	return &os.PathError{Op: "reserve", Path: f.Name(), Err: err}
}

func (f *osFile) NextData(off int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	}
	if err != nil {
		return 0, 0, &os.PathError{Op: "seek", Path: f.Name(), Err: err}
	}
	return start, end, nil
}

// copyRange copies n bytes between files inside the kernel, sharing them where the file system can. It reports false when
// that is not possible and nothing, or not everything, was copied.
func copyRange(dst File, dstOff int64, src File, srcOff, n int64) bool {
	d, ok := dst.(*osFile)
	if !ok {
		return false
	}
	s, ok := src.(*osFile)
	if !ok {
		return false
	}
	for n > 0 {
		m, err := unix.CopyFileRange(int(s.Fd()), &srcOff, int(d.Fd()), &dstOff, int(n), 0)
		if err != nil || m <= 0 {
			return false
		}
		n -= int64(m)
	}
	return true
}
