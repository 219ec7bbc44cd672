package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdRetry runs a command again and again until it ends with a code and prints something, for a while.
func cmdRetry(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 2, "retry CODE PATTERN PROGRAM ARGS…")
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	code, until := "", time.Now().Add(30*time.Second)
	var out bytes.Buffer
	for time.Now().Before(until) {
		out.Reset()
		path, err := exec.LookPath(args[2])
		ts.Check(err)
		c := exec.Command(path, args[3:]...)
		c.Dir, c.Stdout, c.Stderr = ts.MkAbs("."), &out, &out
		c.Env = append(c.Environ(), "DRAY_HOME="+ts.Getenv("DRAY_HOME"))
		err = c.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		if code = fmt.Sprint(c.ProcessState.ExitCode()); code == args[0] && want.Match(out.Bytes()) {
			return
		}
		<-tick.C
	}
	ts.Fatalf("it still ends with %s: %s", code, out.String())
}
