package main

import (
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"dray/jobs"
)

// relayed are the bytes that each throttle carried to clients.
func relayed(ts *testscript.TestScript) map[string]*atomic.Int64 {
	return ts.Value("relayed").(map[string]*atomic.Int64)
}

func cmdCarried(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3 && relayed(ts)[args[0]] != nil && strings.Contains("<>", args[1]), "carried NAME <|> BYTES")
	want, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	got := relayed(ts)[args[0]].Load()
	ts.Logf("%s carried %d bytes", args[0], got)
	if args[1] == "<" && got >= want || args[1] == ">" && got <= want {
		ts.Fatalf("%s carried %d bytes, want %s %d", args[0], got, args[1], want)
	}
}

func cmdSlay(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "slay NAME KILLS")
	kills, err := strconv.Atoi(args[1])
	ts.Check(err)
	rng := rand.New(rand.NewPCG(2, uint64(kills)))
	for range kills {
		t := time.NewTimer(time.Duration(rng.IntN(700)) * time.Millisecond)
		<-t.C
		p := running(ts, args[0])
		ts.Check(p.cmd.Process.Kill())
		p.wait()
		cmdAgain(ts, false, args[:1])
	}
}

func cmdMoved(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3, "moved NAME JOB BYTES")
	want, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	until := time.Now().Add(30 * time.Second)
	for time.Now().Before(until) {
		for _, j := range jobsOf(ts, args[0]) {
			if strconv.Itoa(int(j.Job)) == args[1] && (j.Done >= want || j.State == jobs.Done) {
				return
			}
		}
		t := time.NewTimer(20 * time.Millisecond)
		<-t.C
	}
	ts.Fatalf("job %s of %s never had %d bytes: %+v", args[1], args[0], want, jobsOf(ts, args[0]))
}

// jobsOf lists the jobs of a home.
func jobsOf(ts *testscript.TestScript, home string) []listedJob {
	c := exec.Command("dray", "--home", ts.MkAbs(home), "jobs", "--json")
	c.Path, c.Err = running(ts, home).cmd.Path, nil
	out, err := c.Output()
	ts.Check(err)
	var list []listedJob
	for line := range strings.Lines(string(out)) {
		var j listedJob
		ts.Check(json.Unmarshal([]byte(line), &j))
		list = append(list, j)
	}
	return list
}
