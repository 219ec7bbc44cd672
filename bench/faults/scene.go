package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lookEvery is how often the bench looks how far a transfer is.
const lookEvery = 10 * time.Millisecond

// outcome is one run of one program on one fault.
type outcome struct {
	Fault   string `json:"fault"`
	Program string `json:"program"`
	Round   int    `json:"round"`
	// Seconds is from the start of the getter's process to the end of the last one that was started.
	Seconds float64 `json:"seconds"`
	// Wire is what the getter received in bytes, and Duplicates how much of it was payload that it had, as it says.
	Wire       int64 `json:"wire_bytes"`
	Duplicates int64 `json:"duplicate_bytes"`
	// Wrong is how many bytes of the file differ from the source's, or lack.
	Wrong int64 `json:"wrong_bytes"`
	// Silence is the longest time without progress and without a reason, in seconds, of a getter that gives reasons; Gap
	// the longest without a byte on the wire.
	Silence float64 `json:"silence_seconds"`
	Gap     float64 `json:"gap_seconds"`
	// Peak is the most memory that the judged process had, in bytes: the getter, or the holder under a flood.
	Peak int64 `json:"peak_bytes,omitempty"`
	// Connections is how many the getter made.
	Connections int `json:"connections"`
	// Reasons are what it said it waited for, each once.
	Reasons []string `json:"reasons,omitempty"`
	// Note is what a fault adds to its row.
	Note string `json:"note,omitempty"`
	// Error says why the file did not come, or how the run broke.
	Error string `json:"error,omitempty"`
}

// scene is one program's run with one fault.
type scene struct {
	b       *bench
	p       program
	f       *fault
	dir     string
	line    *line
	holders []*holder
	g       getting
	watch   *watcher
	note    string
	peak    int64
	disks   []func() // unmount what was mounted
	bad     *badDisk
	// started is when the getter was, first, and ended when it had ended, if that is not when drive returned.
	started, ended time.Time

	mu     sync.Mutex
	getter *process
}

// play runs a program with a fault, or without one if f only says how many holders there are.
func (b *bench) play(ctx context.Context, p program, f *fault) (out outcome, err error) {
	s := &scene{b: b, p: p, f: f, line: &line{rate: b.rate}, watch: newWatcher()}
	if s.dir, err = os.MkdirTemp(b.work, "run-"); err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	defer s.close()
	if err := s.begin(ctx); err != nil {
		return out, err
	}
	s.started = time.Now()
	drive := f.drive
	if drive == nil {
		drive = struckOnce
	}
	err = drive(ctx, s)
	now := time.Now()
	if !s.ended.IsZero() {
		now = s.ended
	}
	silence, last := s.watch.end(now)
	s.endGetter()
	out = outcome{
		Seconds: now.Sub(s.started).Seconds(), Wire: s.line.total(), Duplicates: last.DuplicateBytes,
		Gap: s.line.longest().Seconds(), Note: s.note, Peak: s.peak,
	}
	if p.events {
		out.Silence = silence.Seconds()
		for r := range s.watch.reasons {
			out.Reasons = append(out.Reasons, r)
		}
	}
	for _, h := range s.holders {
		out.Connections += h.proxy.connections()
	}
	if err == nil {
		out.Wrong, err = differs(s.g.out, b.file)
	}
	return out, err
}

// begin starts the holders and their proxies.
func (s *scene) begin(ctx context.Context) error {
	s.g.home, s.g.out = filepath.Join(s.dir, "home"), filepath.Join(s.dir, "file")
	for i := range max(s.f.holders, 1) {
		dir, root, err := s.b.holderDir(ctx, s.p, i)
		if err != nil {
			return fmt.Errorf("holder %d: %w", i, err)
		}
		s.g.root = root
		h := &holder{b: s.b, what: s.p.serve(s.b, dir), dir: s.dir + fmt.Sprint("/h", i)}
		if err := os.Mkdir(h.dir, 0o755); err != nil {
			return err
		}
		if s.f.first != nil && i == 0 {
			if h.what, err = s.f.first(ctx, s); err != nil {
				return err
			}
		}
		s.holders = append(s.holders, h)
		if err := h.start(ctx); err != nil {
			return err
		}
		if h.proxy, err = newProxy(s.line, h.dial); err != nil {
			return err
		}
		s.g.addrs = append(s.g.addrs, h.addr(h.proxy))
	}
	if s.f.before != nil {
		return s.f.before(ctx, s)
	}
	return nil
}

func (s *scene) close() {
	s.endGetter()
	for _, h := range s.holders {
		h.close()
	}
	for _, unmount := range s.disks {
		unmount()
	}
}

// startGetter starts the getter, the first time or again.
func (s *scene) startGetter() error {
	s.watch.begin(time.Now())
	if s.p.asked {
		_ = os.Remove(s.g.out) // it refuses to write over what a killed one left
	}
	p, err := s.b.starter.start(s.p.get(s.b, s.g), nil, nil, func(b []byte) { s.watch.line(time.Now(), b) })
	s.mu.Lock()
	s.getter = p
	s.mu.Unlock()
	return err
}

// waitGetter waits until the getter has the file, or has given up.
func (s *scene) waitGetter(ctx context.Context) error {
	p := s.current()
	if s.p.asked {
		select {
		case <-s.watch.finished:
			p.stop()
			return nil
		case <-p.done:
		case <-ctx.Done():
		}
	}
	err := p.wait(ctx)
	if err == nil && s.p.asked {
		err = fmt.Errorf("%s ended without the file", p.what)
	}
	return err
}

func (s *scene) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.getter
}

func (s *scene) endGetter() {
	if p := s.current(); p != nil {
		p.stop()
	}
}

// share waits until so much of the file has come, or the getter has ended.
func (s *scene) share(ctx context.Context, part float64) error {
	p := s.current()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if float64(s.line.total()) >= part*float64(s.b.size) {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("the getter ended before the fault: %w: %s", p.err, p.stderr.String())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// struckOnce is how most faults go: the getter starts, the fault strikes when so much has come, the getter ends.
func struckOnce(ctx context.Context, s *scene) error {
	if err := s.startGetter(); err != nil {
		return err
	}
	if s.f.strike == nil {
		return s.waitGetter(ctx)
	}
	over, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		if failed = s.share(over, strikeAt); failed == nil {
			failed = s.f.strike(over, s)
		}
		if errors.Is(failed, context.Canceled) {
			failed = nil // the getter was sooner
		}
	})
	err := s.waitGetter(ctx)
	end()
	wg.Wait()
	return errors.Join(err, failed)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// differs counts the bytes in which two files differ; what one has and the other lacks differs.
func differs(a, b string) (int64, error) {
	fa, err := os.Open(a)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return 0, errors.New("there is no file")
		}
		return 0, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer fb.Close()
	var n int64
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		ka, ea := io.ReadFull(fa, bufA)
		kb, eb := io.ReadFull(fb, bufB)
		k := min(ka, kb)
		n += int64(max(ka, kb) - k)
		if !bytes.Equal(bufA[:k], bufB[:k]) {
			for i := range k {
				if bufA[i] != bufB[i] {
					n++
				}
			}
		}
		if ka == 0 && kb == 0 {
			return n, nil
		}
		for _, err := range []error{ea, eb} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return n, err
			}
		}
	}
}

// peakOf reads the most memory, in bytes, that a running process ever had resident.
func peakOf(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}
