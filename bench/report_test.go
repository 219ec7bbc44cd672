package main

import (
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		xs   []float64
		want float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(tc.xs); got != tc.want {
			t.Errorf("median(%v) = %v, want %v", tc.xs, got, tc.want)
		}
	}
}

// TestTable checks that a table compares medians with the baselines of the same group, and leaves failures out of them.
func TestTable(t *testing.T) {
	const group = "loop/file/unixfs-v1-2025"
	run := func(pairing string, seconds float64, peak int64) measure {
		return measure{
			Row: group + "/" + pairing, Group: group, Pairing: pairing,
			Seconds: seconds, Synced: seconds + 1, Bytes: 100e6, ClientRSS: peak << 20, InForce: "p/1",
		}
	}
	bad := run("dray-from-dray", 100, 0)
	bad.Error = "broken"
	var rows []rowState
	for _, pairing := range []string{"ideal-from-ideal", "kubo-from-kubo", "boxo-from-boxo", "dray-from-dray"} {
		rows = append(rows, rowState{Row: group + "/" + pairing, Group: group, Pairing: pairing})
	}
	rows[1].Missing = "it is elsewhere"
	rep := &report{Rows: rows, Runs: []measure{
		run("ideal-from-ideal", 1, 10), run("boxo-from-boxo", 8, 60), run("dray-from-dray", 2, 90),
		run("ideal-from-ideal", 1, 10), run("boxo-from-boxo", 9, 60), run("dray-from-dray", 2, 95),
		run("ideal-from-ideal", 7, 10), run("boxo-from-boxo", 2, 60), run("dray-from-dray", 1, 70),
		bad,
	}}
	var b strings.Builder
	rep.writeTable(&b)
	for _, want := range []string{
		"| ideal-from-ideal | 100 | 1.000 | 2.000 | 0.00 + 0.00 | 10 + 0 | 8.00 | 1.00 | 1.00 | p/1 | 3 |",
		"| boxo-from-boxo | 12 | 8.000 | 9.000 | 0.00 + 0.00 | 60 + 0 | 1.00 | 0.12 | 0.22 | p/1 | 3 |",
		"| dray-from-dray | 50 | 2.000 | 3.000 | 0.00 + 0.00 | 95 + 0 | 4.00 | 0.50 | 0.67 | p/1 | 3 (1 failed) |",
		"- kubo-from-kubo: not here: it is elsewhere",
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no line %q in\n%s", want, b.String())
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tc := range []struct{ addr, host, relayed string }{
		{"/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW", "127.0.0.1:4001", "/ip4/127.0.0.1/tcp/7/p2p/12D3KooW"},
		{"/ip4/127.0.0.1/tcp/4001", "127.0.0.1:4001", "/ip4/127.0.0.1/tcp/7"},
		{"127.0.0.1:4001", "127.0.0.1:4001", "127.0.0.1:7"},
	} {
		if got := hostPort(tc.addr); got != tc.host {
			t.Errorf("hostPort(%q) = %q, want %q", tc.addr, got, tc.host)
		}
		if got := replacePort(tc.addr, "127.0.0.1:7"); got != tc.relayed {
			t.Errorf("replacePort(%q) = %q, want %q", tc.addr, got, tc.relayed)
		}
	}
}

// TestSwarmTable checks what a swarm's table makes of its counters.
func TestSwarmTable(t *testing.T) {
	const group = "loop/swarm-8/native"
	rep := &report{
		Rows: []rowState{
			{Row: group + "/dray", Group: group, Pairing: "dray"},
			{Row: group + "/torrent", Group: group, Pairing: "torrent"},
		},
		Runs: []measure{
			{
				Row: group + "/dray", Group: group, Pairing: "dray", Seconds: 2, FirstDone: 1.5, Synced: 2.5, Bytes: 100,
				Getters: 8,
				Sent:    130, KernelSent: 140, Duplicates: 1, InForce: "p/1",
			},
			{Row: group + "/torrent", Group: group, Pairing: "torrent", Seconds: 5, Bytes: 100, Sent: 200, InForce: "p/2"},
		},
	}
	var b strings.Builder
	rep.writeTable(&b)
	want := "| dray | 1.500 | 2.000 | 2.500 | 1.30 | 1.40 | 1.0 | 0.00 + 0.00 | 0 + 0 | 2.50 | – | – | p/1 | 1 |\n"
	if !strings.Contains(b.String(), want) {
		t.Errorf("no line %q in\n%s", want, b.String())
	}
}
