package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
}

func (c command) String() string { return c.path + " " + strings.Join(c.args, " ") }

// runToEnd starts c, waits for it and returns its standard output, how long it took and what it used.
func (c command) runToEnd(ctx context.Context) (out []byte, took time.Duration, used usage, err error) {
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, usage{}, err
	}
	peak := samplePeak(cmd.Process.Pid)
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

// closerPeak chooses between a peak that was sampled, which may miss the last few milliseconds, and the kernel's own, which
// starts at this program's peak because a child is this program until it executes another.
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
func samplePeak(pid int) func() int64 {
	var (
		wg   sync.WaitGroup
		peak int64
		stop = make(chan struct{})
	)
	wg.Go(func() {
		t := time.NewTicker(sampleEvery)
		defer t.Stop()
		for {
			if n, err := peakRSS(pid); err == nil && n > 0 {
				peak = n
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

// server is a process that runs in the background.
type server struct {
	what   command
	cmd    *exec.Cmd
	stderr bytes.Buffer
	lines  sync.WaitGroup
	first  []byte
}

// start starts c and returns when it has printed its first line.
func (c command) start() (*server, error) {
	s := &server{what: c, cmd: exec.Command(c.path, c.args...)}
	s.cmd.Stderr = &s.stderr
	s.cmd.WaitDelay = stopWithin
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	first := make(chan []byte, 1)
	s.lines.Go(func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadBytes('\n')
		first <- line
		_, _ = io.Copy(io.Discard, r)
	})
	select {
	case s.first = <-first:
	case <-time.After(readyWithin):
	}
	if len(s.first) == 0 {
		_, err := s.stop()
		return nil, fmt.Errorf("%v: not ready: %w: %s", c, err, tail(s.stderr.Bytes()))
	}
	return s, nil
}

// announced decodes the server's first line.
func (s *server) announced(v any) error {
	if err := json.Unmarshal(s.first, v); err != nil {
		return fmt.Errorf("%v: first line %q: %w", s.what, s.first, err)
	}
	return nil
}

// used returns what the server has used so far.
func (s *server) used() (usage, error) {
	pid := s.cmd.Process.Pid
	cpu, err := cpuTime(pid)
	if err != nil {
		return usage{}, err
	}
	peak, err := peakRSS(pid)
	return usage{CPU: cpu, PeakRSS: peak}, err
}

// stop ends the server and returns what it used in all.
func (s *server) stop() (usage, error) {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return usage{}, err
	}
	killer := time.AfterFunc(stopWithin, func() { _ = s.cmd.Process.Kill() })
	defer killer.Stop()
	s.lines.Wait()
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		// Ending by the signal that we sent is what was asked for.
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGTERM {
			err = nil
		}
	}
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", s.what, err, tail(s.stderr.Bytes()))
	}
	used := usage{CPU: s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()}
	if ru, ok := s.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		used.PeakRSS = ru.Maxrss << 10
	}
	return used, err
}

// peakRSS reads the most memory, in bytes, that a running process ever had resident.
func peakRSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, nil // a process that has ended has no memory left to tell of
}

// cpuTime reads the user and system time that a running process has used.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in brackets and may hold spaces; the rest is counted from its end.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const utime, stime = 11, 12
	if len(fields) <= stime {
		return 0, fmt.Errorf("short stat line %q", b)
	}
	var ticks int64
	for _, f := range fields[utime : stime+1] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
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
