package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watchEvery is how often a process's sockets are looked at. What a socket sends between the last look and its end is
// missed.
const watchEvery = 25 * time.Millisecond

// watchSent counts what the other ends of a process's TCP connections have acknowledged, as the kernel knows it, until
// the returned function is called, which returns the number of bytes. It is a check on what programs say of themselves.
func watchSent(pid int) func() (int64, error) {
	var (
		wg   sync.WaitGroup
		stop = make(chan struct{})
		most = map[uint32]uint64{} // by the socket's inode
		errs error
	)
	look := func() {
		if err := ackedBytes(pid, most); err != nil {
			errs = err
		}
	}
	wg.Go(func() {
		t := time.NewTicker(watchEvery)
		defer t.Stop()
		for {
			look()
			select {
			case <-t.C:
			case <-stop:
				look()
				return
			}
		}
	})
	return func() (int64, error) {
		close(stop)
		wg.Wait()
		var sum uint64
		for _, n := range most {
			sum += n
		}
		return int64(sum), errs
	}
}

// ackedBytes updates, for each TCP socket that the process has open now, the most bytes that were acknowledged.
func ackedBytes(pid int, most map[uint32]uint64) error {
	inodes, err := socketInodes(pid)
	if err != nil {
		return err
	}
	return dumpTCP(func(inode uint32, acked uint64) {
		if inodes[inode] {
			most[inode] = max(most[inode], acked)
		}
	})
}

func socketInodes(pid int) (map[uint32]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	inodes := map[uint32]bool{}
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		text, ok := strings.CutPrefix(target, "socket:[")
		if n, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32); ok && err == nil {
			inodes[uint32(n)] = true
		}
	}
	return inodes, nil
}

// The kernel's socket monitoring (sock_diag): the request, and where in each answer the inode and the attributes are.
const (
	diagRequestSize = 56 // struct inet_diag_req_v2
	diagMessageSize = 72 // struct inet_diag_msg
	diagInodeAt     = 68
	diagInfo        = 2 // the attribute that holds a struct tcp_info
	allStates       = 0xfff
)

// dumpTCP calls f for every TCP socket of this network namespace, over IPv4.
func dumpTCP(f func(inode uint32, acked uint64)) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	order := binary.NativeEndian
	req := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	order.PutUint32(req, uint32(len(req)))
	order.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.SizeofNlMsghdr:]
	body[0], body[1], body[2] = unix.AF_INET, unix.IPPROTO_TCP, 1<<(diagInfo-1)
	order.PutUint32(body[4:], allStates)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for buf := make([]byte, 64<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		done, err := eachSocket(buf[:n], f)
		if err != nil || done {
			return err
		}
	}
}

// eachSocket reads one datagram of answers and reports whether it was the last.
func eachSocket(b []byte, f func(inode uint32, acked uint64)) (done bool, err error) {
	order := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(order.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, fmt.Errorf("sock_diag: an answer of %d bytes", size)
		}
		msg := b[unix.SizeofNlMsghdr:size]
		switch order.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return false, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(order.Uint32(msg))))
		}
		if len(msg) < diagMessageSize {
			return false, fmt.Errorf("sock_diag: a message of %d bytes", len(msg))
		}
		f(order.Uint32(msg[diagInodeAt:]), acked(msg[diagMessageSize:]))
		b = b[min(align4(size), len(b)):]
	}
	return false, nil
}

// acked finds the acknowledged bytes among a socket's attributes; sockets without a connection have none.
func acked(attrs []byte) uint64 {
	const at = int(unsafe.Offsetof(unix.TCPInfo{}.Bytes_acked))
	order := binary.NativeEndian
	for len(attrs) >= unix.SizeofRtAttr {
		size := int(order.Uint16(attrs))
		if size < unix.SizeofRtAttr || size > len(attrs) {
			return 0
		}
		value := attrs[unix.SizeofRtAttr:size]
		if order.Uint16(attrs[2:]) == diagInfo && len(value) >= at+8 {
			return order.Uint64(value[at:])
		}
		attrs = attrs[min(align4(size), len(attrs)):]
	}
	return 0
}

// align4 rounds up to what netlink aligns to.
func align4(n int) int { return (n + 3) &^ 3 }
