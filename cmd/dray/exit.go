package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"dray"
)

// The exit codes, as every command's help lists them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitCorrupt     = 4
	exitUnreachable = 5
	exitRefused     = 6
	exitInterrupted = 130
)

const exitHelp = `Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 corrupt, 5 unreachable or timed out, 6 refused, 130 interrupted.`

// usageError is a command line that cannot be understood: one line that says what is wrong and what would be right.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// interrupted is why a context ended when a signal came.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return "interrupted" }

func wasInterrupted(ctx context.Context) bool {
	var i interrupted
	return errors.As(context.Cause(ctx), &i)
}

// exitCode is the one place where errors become exit codes.
func exitCode(ctx context.Context, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case wasInterrupted(ctx):
		return exitInterrupted
	case errors.As(err, &usage), errors.Is(err, dray.ErrBadCID):
		return exitUsage
	case errors.Is(err, dray.ErrRefused):
		return exitRefused
	case errors.Is(err, dray.ErrUnreachable), errors.Is(err, dray.ErrTimeout):
		return exitUnreachable
	case errors.Is(err, dray.ErrCorrupt), errors.Is(err, dray.ErrChanged):
		return exitCorrupt
	case errors.Is(err, dray.ErrNotFound):
		return exitNotFound
	}
	return exitFailed
}

// explain returns what to tell the user about an error, or "".
func explain(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return ""
	case wasInterrupted(ctx):
		var hint resumable
		if errors.As(err, &hint) {
			return "interrupted: " + hint.hint
		}
		return "interrupted"
	}
	return strings.TrimSpace(err.Error())
}

// resumable is the end of a get that another get continues.
type resumable struct {
	hint string
	err  error
}

func (r resumable) Error() string { return r.err.Error() + "\n" + r.hint }
func (r resumable) Unwrap() error { return r.err }

// The kinds of error that keep their meaning on the way from the daemon to a command.
var errorKinds = []struct {
	name string
	err  error
}{
	{"not found", dray.ErrNotFound},
	{"corrupt", dray.ErrCorrupt},
	{"changed", dray.ErrChanged},
	{"unreachable", dray.ErrUnreachable},
	{"timed out", dray.ErrTimeout},
	{"no space", dray.ErrNoSpace},
	{"refused", dray.ErrRefused},
	{"bad CID", dray.ErrBadCID},
	{"closed", dray.ErrClosed},
}

// wireError is an error on its way through the control socket.
type wireError struct {
	Kinds   []string `json:"kinds,omitempty"`
	Usage   bool     `json:"usage,omitempty"`
	Message string   `json:"message"`
	// Hint is set when the same command continues what was begun.
	Hint string `json:"hint,omitempty"`
}

func toWire(err error) *wireError {
	var (
		usage usageError
		hint  resumable
	)
	w := &wireError{Message: err.Error()}
	if errors.As(err, &hint) {
		w.Hint, w.Message = hint.hint, hint.err.Error()
	}
	for _, k := range errorKinds {
		if errors.Is(err, k.err) {
			w.Kinds = append(w.Kinds, k.name)
		}
	}
	w.Usage = errors.As(err, &usage)
	return w
}

// remoteError is an error that the daemon reported.
type remoteError struct {
	message string
	kinds   []error
}

func (e remoteError) Error() string   { return e.message }
func (e remoteError) Unwrap() []error { return e.kinds }

func (w *wireError) err() error {
	e := remoteError{message: w.Message}
	for _, k := range errorKinds {
		for _, name := range w.Kinds {
			if name == k.name {
				e.kinds = append(e.kinds, k.err)
			}
		}
	}
	switch {
	case w.Usage:
		return usageError{e}
	case w.Hint != "":
		return resumable{hint: w.Hint, err: e}
	}
	return e
}
