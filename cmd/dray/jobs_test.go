package main

import (
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"slices"
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
	eventually(ts, func() bool {
		for _, j := range jobsOf(ts, args[0]) {
			if strconv.Itoa(int(j.Job)) == args[1] && (j.Done >= want || j.State == jobs.Done) {
				return true
			}
		}
		return false
	})
}

func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3, "eventually NAME JOB STATE")
	eventually(ts, func() bool {
		for _, j := range jobsOf(ts, args[0]) {
			if strconv.Itoa(int(j.Job)) == args[1] && j.State.String() == args[2] {
				return true
			}
		}
		return false
	})
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3 && slices.Contains([]string{"jobs", "held", "peers"}, args[1]), "await NAME jobs|held|peers NUMBER")
	want, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	eventually(ts, func() bool {
		if args[1] == "held" {
			var r collected
			out := drayOf(ts, args[0], "gc", "--dry-run", "--json")
			ts.Check(json.Unmarshal(out, &r))
			return r.Before <= want
		}
		if args[1] == "peers" {
			return int64(strings.Count(string(drayOf(ts, args[0], "peers", "--json")), "\n")) == want
		}
		list := jobsOf(ts, args[0])
		for _, j := range list {
			if j.State != jobs.Done {
				return false
			}
		}
		return int64(len(list)) == want
	})
}

// eventually asks again and again whether something holds.
func eventually(ts *testscript.TestScript, holds func() bool) {
	until := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(until) {
			ts.Fatalf("still not so after half a minute")
		}
		t := time.NewTimer(20 * time.Millisecond)
		<-t.C
	}
}

// drayOf runs a command on a home.
func drayOf(ts *testscript.TestScript, home string, args ...string) []byte {
	c := exec.Command("dray", append([]string{"--home", ts.MkAbs(home)}, args...)...)
	c.Path, c.Err = running(ts, home).cmd.Path, nil
	out, err := c.Output()
	ts.Check(err)
	return out
}

// jobsOf lists the jobs of a home.
func jobsOf(ts *testscript.TestScript, home string) []listedJob {
	out := drayOf(ts, home, "jobs", "--json")
	var list []listedJob
	for line := range strings.Lines(string(out)) {
		var j listedJob
		ts.Check(json.Unmarshal([]byte(line), &j))
		list = append(list, j)
	}
	return list
}
