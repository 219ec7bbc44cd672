package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"

	"dray/bench/faults"
)

// roles are what this program can be when it starts itself again with a first argument "role=NAME". Each gets the
// arguments behind that.
var roles = map[string]func(ctx context.Context, args []string) error{
	"link":        runLink,
	"boxo-add":    runBoxoAdd,
	"boxo-serve":  runBoxoServe,
	"boxo-get":    runBoxoGet,
	"ideal-serve": runIdealServe,
	"ideal-get":   runIdealGet,
	"hash":        runHash,
	"http-serve":  runHTTPServe,
	"http-read":   runHTTPRead,
	"hub-serve":   runHubServe,
	"node-get":    runNodeGet,
	"idle-peers":  runIdlePeers,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "faults" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return faults.Run(ctx, args[1:], faults.Programs{Self: self, Torrent: torrentScript})
	}
	if len(args) > 0 && args[0] == "idle" {
		return runIdle(ctx, args[1:])
	}
	if len(args) > 0 {
		if name, ok := strings.CutPrefix(args[0], "role="); ok {
			role, ok := roles[name]
			if !ok {
				role, ok = faults.Roles[name]
			}
			if !ok {
				names := make([]string, 0, len(roles))
				for n := range roles {
					names = append(names, n)
				}
				sort.Strings(names)
				return fmt.Errorf("no role %q; there are %s", name, strings.Join(names, ", "))
			}
			if err := role(ctx, args[1:]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
	}
	return runSuite(ctx, args)
}
