package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/term"

	"dray/settings"
)

// env is what a command sees of the world around it.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	// homeFlag is --home; see home.
	homeFlag string
	// json says that results are for programs: one JSON value a line on stdout.
	json bool
	// quiet says that nothing but results and errors is printed.
	quiet bool
	// verbose says that logs go to stderr.
	verbose bool
	// dataPlane is --data-plane, or "".
	dataPlane string
	// limitUp and limitDown are --limit-up and --limit-down.
	limitUp, limitDown rate
	// swarmKey is --swarm-key, or "".
	swarmKey string
	// admission is --admission, or "".
	admission string
	// named is --peer.
	named []string
	// http is --http, or "".
	http string
	// upstream is --upstream, or "".
	upstream string
	// relay is --relay.
	relay bool
	// preset is --preset, or "".
	preset string
	// told are the settings of the home toldOf, once they were read.
	told   *settings.Effective
	toldOf string
	// logger is what a daemon logs to; nil in other commands.
	logger *slog.Logger
	// trust is --trust of serve.
	trust []string
	// terminal says that stderr is a terminal, so that progress may be drawn over itself.
	terminal bool
	// width is the terminal's, in columns.
	width int
}

func newEnv() *env {
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, width: 80}
	fd := int(os.Stderr.Fd())
	// A terminal of no size (as some recorders make) has no room for a bar.
	if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 && os.Getenv("TERM") != "dumb" {
		e.terminal, e.width = true, w
	}
	return e
}

// home returns the home's directory: --home, else DRAY_HOME, else .dray in the user's home directory.
func (e *env) home() (string, error) {
	dir := e.homeFlag
	if dir == "" {
		dir = os.Getenv("DRAY_HOME")
	}
	if dir == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", usagef("no home directory is known (%w); name one with --home DIR or DRAY_HOME", err)
		}
		dir = filepath.Join(user, ".dray")
	}
	return filepath.Abs(dir)
}

// log returns where messages for operators go.
func (e *env) log() *slog.Logger {
	if e.logger != nil {
		return e.logger
	}
	if !e.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(e.stderr, nil))
}

// logAs has a daemon log as its settings say.
func (e *env) logAs(s *settings.Log) {
	level, off := s.At()
	options := &slog.HandlerOptions{Level: level}
	switch {
	case off:
		e.logger = slog.New(slog.DiscardHandler)
	case s.Format == "json":
		e.logger = slog.New(slog.NewJSONHandler(e.stderr, options))
	default:
		e.logger = slog.New(slog.NewTextHandler(e.stderr, options))
	}
}

// printf writes a line of a result for people.
func (e *env) printf(format string, args ...any) { fmt.Fprintf(e.stdout, format+"\n", args...) }

// tell writes a line about what goes on, unless nobody wants to know.
func (e *env) tell(format string, args ...any) {
	if !e.quiet && !e.json {
		fmt.Fprintf(e.stderr, format+"\n", args...)
	}
}

// emit writes a JSON value as one line.
func (e *env) emit(v any) error { return json.NewEncoder(e.stdout).Encode(v) }

// watch runs f on a goroutine of its own; the returned function has f end and waits for it.
func watch(f func(done <-chan struct{})) (end func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { f(done) })
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
}

// size writes a number of bytes for people.
func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1000, 0
	for f >= 999.5 && u < len(units)-1 {
		f, u = f/1000, u+1
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %cB", f, units[u])
	}
	return fmt.Sprintf("%.0f %cB", f, units[u])
}

// plural writes a count with its noun.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
