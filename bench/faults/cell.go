package faults

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A holder runs in a cell: a process of the bench that has a network namespace of its own with nothing but loopback, the
// holder as its child, and a socket in the file system through which proxies reach the holder. A getter that learns a
// holder's own addresses, as peers do, cannot go round the proxy with them.
//
// Where the system grants no namespace, the cell does without, and a getter that goes round is found out by the count of
// what passed the proxies.

// cellPID is the descriptor to which a cell writes the id of its child.
const cellPID = 3

// runCell runs a program behind -socket until it ends, or ctx does.
func runCell(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("cell", flag.ContinueOnError)
	socket := fs.String("socket", "", "path of the socket that leads to the program")
	isolated := fs.Bool("isolated", false, "this process has a network namespace of its own")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *isolated {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
	}
	ln, err := net.Listen("unix", *socket)
	if err != nil {
		return err
	}
	cmd := exec.Command(fs.Arg(0), fs.Args()[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // a child dies with the thread that started it
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return errors.Join(err, ln.Close())
	}
	pid := os.NewFile(cellPID, "pid")
	_, err = fmt.Fprintln(pid, cmd.Process.Pid)
	err = errors.Join(err, pid.Close())
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var wg sync.WaitGroup
	over, end := context.WithCancel(context.Background())
	wg.Go(func() { relay(over, ln, &wg) })
	err = errors.Join(err, cmd.Wait())
	end()
	_ = ln.Close() // which ends relay
	wg.Wait()
	return err
}

// relay joins each connection with the address that its first line names.
func relay(ctx context.Context, ln net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			r := bufio.NewReader(c)
			to, err := r.ReadString('\n')
			if err != nil {
				return
			}
			var d net.Dialer
			holder, err := d.DialContext(ctx, "tcp", strings.TrimSpace(to))
			if err != nil {
				return
			}
			defer holder.Close()
			stopHolder := context.AfterFunc(ctx, func() { _ = holder.Close() })
			defer stopHolder()
			var both sync.WaitGroup
			both.Go(func() { pass(holder.(*net.TCPConn), r, c) })
			pass(c.(*net.UnixConn), holder, holder)
			both.Wait()
		})
	}
}

// pass copies until r ends, and passes the end on. When either breaks, so does the other.
func pass(w interface {
	net.Conn
	halfCloser
}, r io.Reader, from net.Conn,
) {
	if _, err := io.Copy(w, r); err != nil {
		_ = w.Close()
		_ = from.Close()
		return
	}
	_ = w.CloseWrite()
}

// loopbackUp brings the loopback interface of this process's network namespace up.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq("lo")
	if err == nil {
		req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		err = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
	}
	return errors.Join(err, unix.Close(s))
}

// isolation returns what gives a process a network namespace of its own.
func isolation() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// canIsolate reports whether processes may have network namespaces of their own here.
func canIsolate() bool {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = isolation()
	return cmd.Run() == nil
}
