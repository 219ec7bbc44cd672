package p2p

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shallow bounds what the kernel keeps of a connection whose round trip is short: unsent bytes at the sender and unread
// ones at the receiver. It would keep tens of MiB, and whoever takes back what it asked for would get it nonetheless. Paths
// with long round trips need deep buffers and keep them.
func shallow(c tcpConn) {
	sys, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || time.Duration(info.Min_rtt)*time.Microsecond > shortTrip {
			return
		}
		// A refusal changes nothing but the depth.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, shallowUnsent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, shallowUnread)
	})
}

const (
	shortTrip     = 2 * time.Millisecond
	shallowUnsent = 256 << 10
	shallowUnread = 1 << 20
)
