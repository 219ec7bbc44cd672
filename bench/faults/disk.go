package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A small disk is a tmpfs with a size. A bad disk is a file system in user space, a process of its own, that passes
// everything on to a directory, until it is told to fail: then every read, write and sync of a file's content ends with an
// input/output error, as on a disk that is dying.

// runBadDisk serves the directory -under at -at until its input ends. A line "fail" has it fail, "heal" not.
func runBadDisk(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bad-disk", flag.ContinueOnError)
	at := flags.String("at", "", "where it is mounted")
	under := flags.String("under", "", "where its files are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var failing atomic.Bool
	var st syscall.Stat_t
	if err := syscall.Stat(*under, &st); err != nil {
		return err
	}
	root := &fs.LoopbackRoot{Path: *under, Dev: st.Dev}
	root.RootNode = &badNode{LoopbackNode: fs.LoopbackNode{RootData: root}, failing: &failing}
	server, err := fs.Mount(*at, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMount: true, Name: "bad", FsName: "bad",
	}})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(server.Wait)
	if err = json.NewEncoder(os.Stdout).Encode(announcement{Addr: *at}); err == nil {
		for lines := bufio.NewScanner(os.Stdin); ctx.Err() == nil && lines.Scan(); {
			failing.Store(lines.Text() == "fail")
		}
	}
	err = errors.Join(err, unix.Unmount(*at, unix.MNT_DETACH))
	// Whoever still has a file open keeps the mount; the end of this process ends that.
	return err
}

// badNode is a file or directory of a bad disk.
type badNode struct {
	fs.LoopbackNode
	failing *atomic.Bool
}

// WrapChild makes what is in a directory of a bad disk a part of that.
func (n *badNode) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &badNode{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, failing: n.failing}
}

// Open opens a file.
func (n *badNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, f, errno := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(h), f | fuse.FOPEN_DIRECT_IO, errno
}

// Create makes a file.
func (n *badNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (
	*fs.Inode, fs.FileHandle, uint32, syscall.Errno,
) {
	inode, h, f, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, n.wrap(h), f | fuse.FOPEN_DIRECT_IO, errno
}

// CopyFileRange is not there: the kernel reads and writes instead.
func (n *badNode) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (
	uint32, syscall.Errno,
) {
	return 0, syscall.ENOSYS
}

// plainFile is what a file does when the disk is well.
type plainFile interface {
	fs.FileReader
	fs.FileWriter
	fs.FileReleaser
	fs.FileFlusher
	fs.FileFsyncer
	fs.FileGetattrer
	fs.FileSetattrer
	fs.FileLseeker
	fs.FileAllocater
	fs.FileGetlker
	fs.FileSetlker
	fs.FileSetlkwer
}

// badFile is an open file.
type badFile struct {
	plainFile
	failing *atomic.Bool
}

func (n *badNode) wrap(h fs.FileHandle) fs.FileHandle {
	f, ok := h.(plainFile)
	if !ok {
		return h
	}
	return &badFile{plainFile: f, failing: n.failing}
}

// Read reads, or fails.
func (f *badFile) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if f.failing.Load() {
		return nil, syscall.EIO
	}
	return f.plainFile.Read(ctx, buf, off)
}

// Write writes, or fails.
func (f *badFile) Write(ctx context.Context, p []byte, off int64) (uint32, syscall.Errno) {
	if f.failing.Load() {
		return 0, syscall.EIO
	}
	return f.plainFile.Write(ctx, p, off)
}

// Fsync syncs, or fails.
func (f *badFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if f.failing.Load() {
		return syscall.EIO
	}
	return f.plainFile.Fsync(ctx, flags)
}

// badDisk is a running bad disk.
type badDisk struct {
	dir  string
	proc *process
}

// newBadDisk mounts a bad disk in a new directory of the scene's.
func (s *scene) newBadDisk(ctx context.Context) (*badDisk, error) {
	at, under := filepath.Join(s.dir, "disk"), filepath.Join(s.dir, "under")
	if err := errors.Join(os.Mkdir(at, 0o755), os.Mkdir(under, 0o755)); err != nil {
		return nil, err
	}
	up := make(chan struct{})
	what := spec{path: s.b.self, args: []string{"role=bad-disk", "-at", at, "-under", under}}
	said := sync.OnceFunc(func() { close(up) })
	proc, err := s.b.starter.start(what, nil, nil, func([]byte) { said() })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	select {
	case <-up:
		s.disks = append(s.disks, func() {
			proc.stop()
			_ = unix.Unmount(at, unix.MNT_DETACH) // unless it did that itself
		})
		return &badDisk{dir: at, proc: proc}, nil
	case <-proc.done:
		return nil, fmt.Errorf("no file system in user space: %w: %s", proc.err, &proc.stderr)
	case <-ctx.Done():
		proc.stop()
		return nil, ctx.Err()
	}
}

func (d *badDisk) tell(what string) error {
	_, err := io.WriteString(d.proc.stdin, what+"\n")
	return err
}

// newSmallDisk mounts a disk of so many bytes in a new directory of the scene's.
func (s *scene) newSmallDisk(size int64) (string, error) {
	at := filepath.Join(s.dir, "disk")
	if err := os.Mkdir(at, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount("small", at, "tmpfs", 0, fmt.Sprint("size=", size)); err != nil {
		return "", fmt.Errorf("mount a small disk: %w", err)
	}
	s.disks = append(s.disks, func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at, nil
}

// needsRoot says why a disk cannot be mounted here, or "".
func needsRoot(*bench) string {
	if os.Getuid() != 0 {
		return "to mount a disk one must be root"
	}
	return ""
}

// needsFuse says why there can be no bad disk here, or "".
func needsFuse(b *bench) string {
	if why := needsRoot(b); why != "" {
		return why
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return "the kernel has no file systems in user space"
	}
	return ""
}

// useDisk has the getter write to a disk, and keep its home there.
func (s *scene) useDisk(dir string) {
	s.g.home, s.g.out = filepath.Join(dir, "home"), filepath.Join(dir, "file")
}

// full has the disk filled up by somebody else for a time.
func full(lasts time.Duration) (before, strike func(context.Context, *scene) error) {
	before = func(_ context.Context, s *scene) error {
		dir, err := s.newSmallDisk(s.b.size + max(s.b.size/4, 96<<20))
		s.useDisk(dir)
		return err
	}
	strike = func(ctx context.Context, s *scene) error {
		path := filepath.Join(filepath.Dir(s.g.out), "filler")
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		zeros := make([]byte, 64<<10)
		for err == nil {
			_, err = f.Write(zeros)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return errors.Join(err, f.Close())
		}
		return errors.Join(f.Close(), pause(ctx, lasts), os.Remove(path))
	}
	return before, strike
}

// tooSmall starts the getter on a disk with room for half of the file, lets it find that out, and makes room.
func tooSmall(ctx context.Context, s *scene) error {
	dir, err := s.newSmallDisk(s.b.size / 2)
	if err != nil {
		return err
	}
	s.useDisk(dir)
	if err := s.startGetter(); err != nil {
		return err
	}
	p := s.current()
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.err == nil {
		return errors.New("it says that a file was written for which there is no room")
	}
	s.note = fmt.Sprintf("first %.1f MiB came", mib(s.line.total()))
	if err := unix.Mount("small", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprint("size=", 2*s.b.size)); err != nil {
		return err
	}
	if err := s.startGetter(); err != nil {
		return err
	}
	return s.waitGetter(ctx)
}

// struckAndAgain is struckOnce with somebody who starts the getter again, when it has ended and the fault is over.
func struckAndAgain(ctx context.Context, s *scene) error {
	if err := s.startGetter(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var failed error
	struck, over := context.WithCancel(ctx)
	defer over()
	wg.Go(func() {
		defer over()
		if failed = s.share(ctx, strikeAt); failed == nil {
			failed = s.f.strike(ctx, s)
		}
	})
	err := s.waitGetter(ctx)
	<-struck.Done()
	wg.Wait()
	if err != nil && failed == nil && ctx.Err() == nil {
		s.note = "ended, and was started again"
		if err = s.startGetter(); err == nil {
			err = s.waitGetter(ctx)
		}
	}
	return errors.Join(err, failed)
}

// dying has the getter's disk fail for a time.
func dying(lasts time.Duration) (before, strike func(context.Context, *scene) error) {
	before = func(ctx context.Context, s *scene) error {
		d, err := s.newBadDisk(ctx)
		if err != nil {
			return err
		}
		s.bad = d
		s.g.out = filepath.Join(d.dir, "file")
		return nil
	}
	strike = func(ctx context.Context, s *scene) error {
		return errors.Join(s.bad.tell("fail"), pause(ctx, lasts), s.bad.tell("heal"))
	}
	return before, strike
}

// dyingHolder has the first holder's file on a disk that fails for ever.
func dyingHolder(ctx context.Context, s *scene) (spec, error) {
	d, err := s.newBadDisk(ctx)
	if err != nil {
		return spec{}, err
	}
	s.bad = d
	file := filepath.Join(d.dir, "file")
	if err := copyFile(file, s.b.file); err != nil {
		return spec{}, err
	}
	home := filepath.Join(s.dir, "dying")
	_, err = s.b.lastCID(ctx, spec{path: s.b.dray, args: []string{"--home", home, "add", file, "--json"}})
	return s.p.serve(s.b, home), err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
