package main

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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyWithin is how long a server may take to print its first line.
	readyWithin = 60 * time.Second
	// stopWithin is how long a process may take to end after SIGTERM before it is killed.
	stopWithin = 20 * time.Second
	// sampleEvery is how often a client's memory is looked at while it runs.
	sampleEvery = 10 * time.Millisecond
	// sampleTreeEvery is the same for a program that forks, whose processes take longer to find.
	sampleTreeEvery = 50 * time.Millisecond
	// clockTick is the unit of the CPU times in /proc/PID/stat on every Linux that Go runs on.
	clockTick = 10 * time.Millisecond
)

// usage is what one process took.
type usage struct {
	// CPU is user plus system time.
	CPU time.Duration
	// PeakRSS is the most memory resident at once, in bytes.
	PeakRSS int64
}

// command is a program and its arguments, ready to be started.
type command struct {
	path string
	args []string
	// env is added to this program's own environment.
	env []string
	// forks says that the program does its work in processes of its own making, whose memory counts too.
	forks bool
	// stopped is the exit status with which the program answers SIGTERM.
	stopped int
	// ready is the beginning of the line that says that a server is ready; if empty, its first line says so.
	ready string
	// listens is the host:port of a server that prints nothing: it is ready when that accepts connections.
	listens string
}

func (c command) String() string { return c.path + " " + strings.Join(c.args, " ") }

// exec returns c as package os/exec wants it. If ctx ends, the process is told to stop, and killed when it does not.
func (c command) exec(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	if len(c.env) > 0 {
		cmd.Env = append(os.Environ(), c.env...)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	return cmd
}

// runToEnd starts c, waits for it and returns its standard output, how long it took and what it used.
func (c command) runToEnd(ctx context.Context) (out []byte, took time.Duration, used usage, err error) {
	cmd := c.exec(ctx)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, usage{}, err
	}
	peak := samplePeak(cmd.Process.Pid, c.forks)
	err = cmd.Wait()
	took = time.Since(start)
	used = usage{PeakRSS: peak()}
	if cmd.ProcessState != nil {
		used.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		used.PeakRSS = closerPeak(used.PeakRSS, cmd.ProcessState)
	}
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", c, err, tail(stderr.Bytes()))
	}
	return stdout.Bytes(), took, used, err
}

// closerPeak chooses between a peak that was sampled, which may miss the last few milliseconds, and the kernel's own,
// which starts at this program's peak because a child is this program until it executes another.
func closerPeak(sampled int64, state *os.ProcessState) int64 {
	ru, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return sampled
	}
	own, _ := peakRSS(os.Getpid())
	if kernel := ru.Maxrss << 10; kernel > own {
		return kernel
	}
	return sampled
}

// samplePeak watches a process's peak memory until the returned function is called, which returns the last value seen.
// With forks it is the sum over the process and its descendants.
func samplePeak(pid int, forks bool) func() int64 {
	var (
		wg   sync.WaitGroup
		peak int64
		stop = make(chan struct{})
	)
	read, every := peakRSS, sampleEvery
	if forks {
		read, every = treePeak, sampleTreeEvery
	}
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			if n, err := read(pid); err == nil {
				peak = max(peak, n)
			}
			select {
			case <-t.C:
			case <-stop:
				return
			}
		}
	})
	return func() int64 {
		close(stop)
		wg.Wait()
		return peak
	}
}

// serverLines bounds how many of a server's lines wait to be read; beyond that the oldest are forgotten.
const serverLines = 64

// server is a process that runs in the background.
type server struct {
	what   command
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr bytes.Buffer
	reader sync.WaitGroup
	lines  chan []byte // closed when its output ends
	first  []byte
	peak   func() int64 // for a program that forks
}

// start starts c and returns when it is ready.
func (c command) start() (*server, error) {
	s := &server{what: c, cmd: c.exec(context.Background()), lines: make(chan []byte, serverLines)}
	s.cmd.Stderr = &s.stderr
	var err error
	if s.stdout, err = s.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.reader.Go(s.read)
	if c.forks {
		s.peak = samplePeak(s.cmd.Process.Pid, true)
	}
	if err := s.awaitReady(); err != nil {
		_, stopErr := s.stop()
		return nil, fmt.Errorf("%v: not ready: %w: %s", c, errors.Join(err, stopErr), tail(s.stderr.Bytes()))
	}
	return s, nil
}

func (s *server) read() {
	defer close(s.lines)
	r := bufio.NewReader(s.stdout)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			if len(s.lines) == cap(s.lines) {
				select {
				case <-s.lines:
				default: // somebody has read them meanwhile
				}
			}
			s.lines <- line // there is room, as nobody else sends
		}
		if err != nil {
			return
		}
	}
}

func (s *server) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	if s.what.listens != "" {
		timer := newPause()
		for {
			conn, err := net.Dial("tcp", s.what.listens)
			if err == nil {
				return conn.Close()
			}
			if timer.wait(ctx, sampleEvery) != nil {
				return err
			}
		}
	}
	for {
		line, err := s.next(ctx)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, []byte(s.what.ready)) {
			s.first = line
			return nil
		}
	}
}

// next returns the server's next line.
func (s *server) next(ctx context.Context) ([]byte, error) {
	select {
	case line, ok := <-s.lines:
		if !ok {
			return nil, fmt.Errorf("%v ended: %s", s.what, tail(s.stderr.Bytes()))
		}
		return line, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// announced decodes the server's first line.
func (s *server) announced(v any) error {
	if err := json.Unmarshal(s.first, v); err != nil {
		return fmt.Errorf("%v: first line %q: %w", s.what, s.first, err)
	}
	return nil
}

// tell writes a line of JSON to the server's standard input.
func (s *server) tell(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.stdin.Write(append(b, '\n'))
	return err
}

// used returns what the server has used so far.
func (s *server) used() (usage, error) {
	pid := s.cmd.Process.Pid
	if s.what.forks {
		cpu, err := treeCPU(pid)
		return usage{CPU: cpu}, err
	}
	cpu, err := cpuTime(pid)
	if err != nil {
		return usage{}, err
	}
	peak, err := peakRSS(pid)
	return usage{CPU: cpu, PeakRSS: peak}, err
}

// ending is what a server leaves behind.
type ending struct {
	// peak is the most memory that a program that forks had resident; of others, used tells.
	peak int64
	// last is the last line that it printed and nobody read.
	last []byte
}

// stop ends the server: its input ends, then it is told to terminate, then it is killed.
func (s *server) stop() (ending, error) {
	_ = s.stdin.Close() // it may be closed at the other end
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return ending{}, err
	}
	killer := time.AfterFunc(stopWithin, func() {
		_ = s.cmd.Process.Kill()
		_ = s.stdout.Close() // which a process that it left behind may hold open
	})
	defer killer.Stop()
	s.reader.Wait()
	var e ending
	for line := range s.lines {
		e.last = line
	}
	if s.peak != nil {
		e.peak = s.peak()
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		// Ending by the signal that we sent is what was asked for.
		ws, ok := exit.Sys().(syscall.WaitStatus)
		if ok && (ws.Signaled() && ws.Signal() == syscall.SIGTERM || ws.Exited() && ws.ExitStatus() == s.what.stopped) {
			err = nil
		}
	}
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", s.what, err, tail(s.stderr.Bytes()))
	}
	return e, err
}

// end is stop for a defer, in a function that returns err.
func (s *server) end(err *error) {
	_, stopErr := s.stop()
	*err = errors.Join(*err, stopErr)
}

// sent reads from the last line how much a server sent, which cannot be less than a file has.
func (e ending) sent(size int64) (int64, error) {
	var last sums
	err := lastLine(e.last, &last)
	if err == nil && last.Sent < size {
		err = fmt.Errorf("the server says that it sent %d bytes, which is less than the file has", last.Sent)
	}
	return last.Sent, err
}

// peakRSS reads the most memory, in bytes, that a running process ever had resident.
func peakRSS(pid int) (peak int64, err error) {
	return peak, readMemory(pid, map[string]*int64{"VmHWM": &peak})
}

// readMemory reads figures of a process's memory by the names that the kernel has for them. A process that has ended has none.
func readMemory(pid int, figures map[string]*int64) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		to := figures[name]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return err
		}
		*to = kib << 10
	}
	return nil
}

// The fields of /proc/PID/stat behind the program's name.
const (
	statParent = 1
	statUser   = 11 // user, system, and the same of children that were waited for
	statFields = 15
)

// procStat reads the fields of /proc/PID/stat behind the program's name, which is in brackets and may hold spaces.
func procStat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < statFields {
		return nil, fmt.Errorf("short stat line %q", b)
	}
	return fields, nil
}

// cpuTime reads the user and system time that a running process has used.
func cpuTime(pid int) (time.Duration, error) { return ticks(pid, 2) }

// ticks adds up the first n of the times in a process's stat line.
func ticks(pid, n int) (time.Duration, error) {
	fields, err := procStat(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, f := range fields[statUser : statUser+n] {
		t, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return time.Duration(sum) * clockTick, nil
}

// tree returns a process and its descendants.
func tree(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fields, err := procStat(child)
		if err != nil {
			continue // it has ended meanwhile
		}
		if parent, err := strconv.Atoi(fields[statParent]); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// treePeak adds up the peaks of a process and its descendants.
func treePeak(pid int) (int64, error) {
	pids, err := tree(pid)
	var sum int64
	for _, p := range pids {
		if n, err := peakRSS(p); err == nil { // else it has ended meanwhile
			sum += n
		}
	}
	return sum, err
}

// treeCPU adds up what a process, its descendants and those of them that have ended took.
func treeCPU(pid int) (time.Duration, error) {
	pids, err := tree(pid)
	var sum time.Duration
	for _, p := range pids {
		if t, err := ticks(p, 4); err == nil {
			sum += t
		}
	}
	return sum, err
}

// tail returns the end of a program's complaint, short enough for one error.
func tail(b []byte) string {
	const most = 2000
	b = bytes.TrimSpace(b)
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// lastLine decodes the last line of a program's output.
func lastLine(out []byte, v any) error {
	out = bytes.TrimSpace(out)
	line := out[bytes.LastIndexByte(out, '\n')+1:]
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("last line %q: %w", line, err)
	}
	return nil
}
