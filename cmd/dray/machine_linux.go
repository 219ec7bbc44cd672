package main

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// used returns how long the process has computed so far, on all cores.
func used() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuClock is used, where it can be told.
var cpuClock = used

// descriptors returns how many files the process may have open, or 0.
func descriptors() uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return l.Cur
}

// freeSpace returns the bytes that are left where a directory lies, and how many there are in all.
func freeSpace(dir string) (free, all int64, ok bool) {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0, 0, false
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, true
}

// uncache makes the next read of a synced file come from the disk, as far as the system allows.
func uncache(f *os.File) bool { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) == nil }

// owned reports whether this user owns a file.
func owned(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(st.Uid) == os.Getuid()
}

// largestBuffer returns how many bytes the buffer of a UDP socket can be made to hold. Linux tells twice what it grants.
func largestBuffer(conn *net.UDPConn) (n int, err error) {
	if err := conn.SetReadBuffer(quicBuffer); err != nil {
		return 0, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) })
	return n / 2, errors.Join(cerr, err)
}
