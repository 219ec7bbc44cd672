package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestMain lets the test's program be the parties too, as the suite starts itself for them.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "role=") {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestQuick runs every row once at a tiny size. What a row receives is compared with its source by the row itself. Only
// programs that are no part of this repository may be absent.
func TestQuick(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-dir", t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	rep, err := s.runRows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]row{}
	for _, r := range allRows() {
		byName[r.String()] = r
	}
	if len(byName) != len(allRows()) || len(rep.Rows) != len(byName) {
		t.Errorf("%d rows have %d names, and %d are reported", len(allRows()), len(byName), len(rep.Rows))
	}
	for _, state := range rep.Rows {
		r := byName[state.Row]
		ran := slices.ContainsFunc(rep.Runs, func(m measure) bool { return m.Row == state.Row })
		switch {
		case state.Missing != "" && !mayMiss[r.client]:
			t.Errorf("%s: not here: %s", state.Row, state.Missing)
		case state.Missing != "":
			t.Logf("%s: not here: %s", state.Row, state.Missing)
		case !ran:
			t.Errorf("%s did not run", state.Row)
		}
	}
	for _, m := range rep.Runs {
		if err := plausible(byName[m.Row], &m, &o); err != nil {
			t.Errorf("%s: %v", m.Row, err)
		}
	}
	var b strings.Builder
	rep.writeTable(&b)
	for _, l := range rep.lines() {
		if !strings.Contains(b.String(), l.Pairing) {
			t.Errorf("the report does not tell of %s", l.Row)
		}
	}
}

// mayMiss names the parties that need what others made, or what a dray need not have.
var mayMiss = map[string]bool{"kubo": true, "torrent": true, "rsync": true, "curl": true, "dray-auth": true}

// plausible returns an error when a run has not measured what its row is for.
func plausible(r row, m *measure, o *options) error {
	if m.Error != "" {
		return fmt.Errorf("failed: %s", m.Error)
	}
	var wrong []string
	expect := func(ok bool, what string) {
		if !ok {
			wrong = append(wrong, what)
		}
	}
	expect(m.Seconds > 0 && m.Synced >= m.Seconds, "times")
	expect(m.Bytes > 0, "bytes")
	expect(m.ClientRSS > 0, "the client's memory")
	expect(r.set == "add" || r.set == "hub" && r.client == "curl" || m.ServerRSS > 0, "the server's memory")
	expect(r.set == "add" || m.InForce != "", "what travelled")
	if r.set == "swarm" {
		expect(m.Getters == r.getters && m.FirstDone > 0 && m.FirstDone <= m.Seconds, "the finishers")
		expect(m.Bytes == o.swarmSize && m.Sent >= m.Bytes, "what the seed sent")
		expect(m.Sent <= 2*int64(r.getters)*m.Bytes, "no more than everything from the seed, twice")
		// Programs that keep their connections let the kernel count all of it.
		if r.client == "dray" || r.client == "boxo" {
			off := max(m.KernelSent-m.Sent, m.Sent-m.KernelSent)
			expect(off < m.Sent/10, "the kernel's count beside the seed's own")
		}
	}
	if r.set == "hub" {
		times := int64(1)
		if r.client == "curl" {
			times = int64(r.getters)
		}
		expect(m.FirstDone > 0 && m.FirstDone <= m.Seconds, "the finishers")
		expect(m.Bytes == o.swarmSize && m.Sent == times*m.Bytes, "what the upstream sent")
	}
	if r.net == "link" && r.set == "file" {
		handshakes := 2.0 // at least: one to open the connection, one for the question
		if r.client == "dray-node" {
			handshakes = 1
		}
		expect(m.FirstTrips >= handshakes && m.First <= m.Seconds, "the first payload")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("no good: %s in %+v", strings.Join(wrong, "; "), *m)
	}
	return nil
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-size", "32", "-link", "5ms,200"})
	if err != nil {
		t.Fatal(err)
	}
	if o.size != 32<<20 || o.rate != 200e6 || o.rounds != 1 || o.swarmSize != 8<<20 {
		t.Errorf("-quick does not give way to other flags, or does not set the rest: %+v", o)
	}
	for _, args := range [][]string{
		{"-link", "25ms"}, {"-link", "x,1"}, {"-link", "1ms,0"}, {"-run", "("}, {"stray"}, {"-nonsense"},
	} {
		if _, err := parseOptions(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestPlane checks that a transfer which was to go in clear and did not, or does not say, is an error.
func TestPlane(t *testing.T) {
	from := func(bytes int64, planes ...string) *fetched {
		f := &fetched{}
		for _, p := range planes {
			f.Sources = append(f.Sources, source{Protocol: "/p/1", DataPlane: p, Bytes: bytes})
		}
		return f
	}
	const little, much = 1 << 20, 1 << 30
	auth, plain := row{client: "dray-auth"}, row{client: "dray"}
	for _, tc := range []struct {
		why  string
		row  row
		got  *fetched
		ok   bool
		said string
	}{
		{"as asked", auth, from(much, "clear x2"), true, "p/1, clear x2"},
		{"one peer encrypted", auth, from(little, "clear x2", "tls x2"), false, "p/1, clear x2 / tls x2"},
		{"one peer gave too little to change", auth, from(little, "clear x2", "streams"), true, "p/1, clear x2 / streams"},
		{"one peer should have changed", auth, from(much, "clear x2", "streams"), false, "p/1, clear x2 / streams"},
		{"several connections", auth, from(much, "clear x4", "clear x2", "clear x3"), true, "p/1, clear x2–4"},
		{"one peer is gone", auth, from(little, "clear x2", ""), true, "p/1, clear x2"},
		{"it does not say", auth, from(little, ""), false, "p/1"},
		{"nothing was asked", plain, from(much, ""), true, "p/1"},
		{"no sources", plain, from(much), true, ""},
	} {
		if err := checkPlane(tc.row, tc.got); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.why, err)
		}
		if said := tc.got.inForce(); said != tc.said {
			t.Errorf("%s: in force %q, want %q", tc.why, said, tc.said)
		}
	}
}

// TestMissing checks that a row without its program is listed with the reason.
func TestMissing(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-run", "kubo", "-ipfs", "no-such-program", "-dir", t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var b strings.Builder
	if err := s.list(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "not here: no Kubo") {
		t.Errorf("-list says\n%s", b.String())
	}
	rep, err := s.runRows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	rep.writeTable(&b)
	if !strings.Contains(b.String(), "- kubo-from-kubo: not here: no Kubo") {
		t.Errorf("the report says\n%s", b.String())
	}
}
