package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyWithin is how long a holder may take until it says where it listens.
	readyWithin = 30 * time.Second
	// stopWithin is how long a process may take to end after SIGTERM before it is killed.
	stopWithin = 10 * time.Second
	// keptText bounds what is kept of a process's complaints.
	keptText = 4 << 10
)

// spec is a program and its arguments.
type spec struct {
	path string
	args []string
	// env is added to the bench's own environment.
	env []string
	// input is what it reads from its standard input.
	input string
}

func (s spec) String() string { return filepath.Base(s.path) + " " + strings.Join(s.args, " ") }

// process is a running program. Its output is read line by line.
type process struct {
	what spec
	cmd  *exec.Cmd
	// pid is the program's own; a cell's child, where there is a cell.
	pid    int
	stdin  io.WriteCloser
	stderr lastText
	wg     sync.WaitGroup
	out    io.Closer
	err    error         // valid when done is closed
	done   chan struct{} // closed when it has ended and its output was read
}

// lastText keeps the end of what is written to it. It is safe for concurrent use.
type lastText struct {
	mu   sync.Mutex
	text []byte
}

// Write keeps p.
func (t *lastText) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if n := len(t.text) - keptText; n > 0 {
		t.text = t.text[n:]
	}
	return len(p), nil
}

// String is what is kept, on one line.
func (t *lastText) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.text)), " ")
}

// start starts a program and calls line with each line of its output, from one goroutine. Nothing that the bench starts
// outlives it.
func (s *starter) start(what spec, attr *syscall.SysProcAttr, extra []*os.File, line func([]byte)) (*process, error) {
	p := &process{what: what, cmd: exec.Command(what.path, what.args...), done: make(chan struct{})}
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.Setpgid, attr.Pdeathsig = true, syscall.SIGKILL
	p.cmd.SysProcAttr, p.cmd.ExtraFiles, p.cmd.Stderr = attr, extra, &p.stderr
	if len(what.env) > 0 {
		p.cmd.Env = append(os.Environ(), what.env...)
	}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = out
	if err := s.do(p.cmd.Start); err != nil {
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	p.wg.Go(func() {
		r := bufio.NewReader(out)
		for {
			b, err := r.ReadBytes('\n')
			if len(b) > 0 && line != nil {
				line(b)
			}
			if err != nil {
				break
			}
		}
		p.err = p.cmd.Wait()
		close(p.done)
	})
	if what.input != "" {
		_, err = io.WriteString(p.stdin, what.input)
	}
	return p, err
}

// starter starts processes on one thread that lasts: a process whose parent's death is to kill it is killed when the thread
// ends that started it.
type starter struct {
	work chan func()
	wg   sync.WaitGroup
}

func newStarter() *starter {
	s := &starter{work: make(chan func())}
	s.wg.Go(func() {
		runtime.LockOSThread()
		for f := range s.work {
			f()
		}
	})
	return s
}

// do runs f on the thread.
func (s *starter) do(f func() error) error {
	var err error
	done := make(chan struct{})
	s.work <- func() { err = f(); close(done) }
	<-done
	return err
}

// close ends the thread, and with it whatever still runs.
func (s *starter) close() {
	close(s.work)
	s.wg.Wait()
}

// wait returns how the program ended. When ctx ends first, it is killed.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		<-p.done
		return fmt.Errorf("%s: %w: %s", p.what, context.Cause(ctx), p.stderr.String())
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w: %s", p.what, p.err, p.stderr.String())
	}
	return nil
}

// signal sends a signal to the program itself.
func (p *process) signal(s syscall.Signal) error { return syscall.Kill(p.pid, s) }

// kill ends the program, and all that it has started, as a loss of power would.
func (p *process) kill() {
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.out.Close() // which something that it left behind may hold open
}

// stop ends the program in order, or by force when it does not.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.stdin.Close()
	_ = p.signal(syscall.SIGCONT)
	_ = p.signal(syscall.SIGTERM)
	t := time.NewTimer(stopWithin)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		p.kill()
		<-p.done
	}
}

// holder is a process that has the file, with its proxy before it.
type holder struct {
	b      *bench
	what   spec
	dir    string // for sockets
	proxy  *proxy
	starts int

	mu     sync.Mutex
	proc   *process
	socket string
	target string // host:port where it listens, on its side
	first  []byte // what it announced
}

// start starts the process, the first time or again, and waits until it has said where it listens.
func (h *holder) start(ctx context.Context) error {
	h.starts++
	socket := filepath.Join(h.dir, fmt.Sprint("s", h.starts))
	args := []string{"role=cell", "-socket", socket}
	var attr *syscall.SysProcAttr
	if h.b.isolated {
		args = append(args, "-isolated")
		attr = isolation()
	}
	cell := spec{path: h.b.self, args: append(append(args, "--", h.what.path), h.what.args...), env: h.what.env}
	pidR, pidW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer pidR.Close()
	first := make(chan []byte, 1)
	proc, err := h.b.starter.start(cell, attr, []*os.File{pidW}, func(b []byte) {
		select {
		case first <- bytes.Clone(b):
		default:
		}
	})
	_ = pidW.Close()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var line []byte
	select {
	case line = <-first:
	case <-proc.done:
		return fmt.Errorf("%s ended: %w: %s", h.what, proc.err, proc.stderr.String())
	case <-ctx.Done():
		proc.kill()
		<-proc.done
		return fmt.Errorf("%s is not ready: %w: %s", h.what, ctx.Err(), proc.stderr.String())
	}
	pid, err := readPID(pidR)
	if err == nil {
		proc.pid = pid
	}
	target, terr := targetOf(line)
	if err = errors.Join(err, terr); err != nil {
		proc.stop()
		return fmt.Errorf("%s: %w", h.what, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proc, h.socket, h.target, h.first = proc, socket, target, line
	return nil
}

func readPID(r io.Reader) (int, error) {
	s, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("the cell does not name its child: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(s))
}

// announcement is what holders print first: `dray serve --json` and boxo the one form, HTTP and libtorrent the other.
type announcement struct {
	Peer  string   `json:"peer"`
	Addrs []string `json:"addrs"`
	Addr  string   `json:"addr"`
}

// targetOf returns the host:port in an announcement.
func targetOf(line []byte) (string, error) {
	var a announcement
	if err := json.Unmarshal(line, &a); err != nil {
		return "", fmt.Errorf("announces %q: %w", line, err)
	}
	if a.Addr != "" {
		return a.Addr, nil
	}
	for _, addr := range a.Addrs {
		parts := strings.Split(addr, "/")
		if len(parts) >= 5 && parts[1] == "ip4" && parts[3] == "tcp" && (len(parts) == 5 || parts[5] == "p2p") {
			return net.JoinHostPort(parts[2], parts[4]), nil
		}
	}
	return "", fmt.Errorf("announces no TCP address: %q", line)
}

// addr returns where getters find the holder behind a proxy, as the program spells addresses.
func (h *holder) addr(p *proxy) string {
	var a announcement
	_ = json.Unmarshal(h.first, &a) // which targetOf has checked
	if a.Peer == "" {
		return p.addr
	}
	host, port, _ := net.SplitHostPort(p.addr) // which is ours
	return fmt.Sprintf("/ip4/%s/tcp/%s/p2p/%s", host, port, a.Peer)
}

// dial connects to the process through its cell.
func (h *holder) dial(ctx context.Context) (net.Conn, error) {
	h.mu.Lock()
	socket, target := h.socket, h.target
	h.mu.Unlock()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, target+"\n"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// current returns the process that runs now, or ran last.
func (h *holder) current() *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proc
}

// close ends the holder and its proxy.
func (h *holder) close() {
	if h.proxy != nil {
		h.proxy.close()
	}
	if p := h.current(); p != nil {
		p.stop()
	}
}
