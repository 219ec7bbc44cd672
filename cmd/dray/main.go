package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// softMemory is what the Go runtime tries to stay below, by collecting more often, so that a transfer of any size fits a
// small machine. It is no bound: a working set beyond it is slow, not refused.
const softMemory = 112 << 20

func main() {
	os.Exit(run(os.Args[1:], newEnv()))
}

// run executes one command line and returns the exit code.
func run(args []string, e *env) int {
	log.SetOutput(io.Discard) // libraries complain there of interfaces without multicast and the like; dray itself uses slog
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
	ctx, stop := onSignal(context.Background())
	defer stop()
	root := newRoot(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	if line := explain(ctx, err); line != "" {
		fmt.Fprintln(e.stderr, "dray: "+line)
	}
	return code
}

// onSignal returns a context that ends with the first SIGINT or SIGTERM. A second one ends the process at once, for those
// who do not want to wait until all is in order.
func onSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ended := watch(func(done <-chan struct{}) {
		for first := true; ; first = false {
			select {
			case s := <-signals:
				if !first {
					os.Exit(exitInterrupted)
				}
				cancel(interrupted{s})
			case <-done:
				return
			}
		}
	})
	return ctx, func() {
		signal.Stop(signals)
		ended()
		cancel(nil)
	}
}
