package main

import (
	"strings"
	"testing"
	"time"

	"dray/exchange"
	"dray/node"
)

// TestVerdictInWords: each verdict names the resource and the figures that show it.
func TestVerdictInWords(t *testing.T) {
	m := node.Measures{
		Took: 10 * time.Second, Bytes: 118e6, Rate: 11.8e6, Workers: 4, Cores: 2, CPU: 0.1, Peers: 3, Waiting: 4e6, Window: 5e6, Full: 1,
		RTT:  10 * time.Millisecond,
		Load: node.Load{Written: 118e6, WriteTime: 524 * time.Millisecond, Hashed: 118e6, HashTime: 124 * time.Millisecond},
	}
	for _, row := range []struct {
		change func(*node.Measures)
		want   string
	}{
		{func(*node.Measures) {}, "limited by: the peers' uplink (3 peers together deliver 12 MB/s; this host writes 901 MB/s, hashes 1.9 GB/s)"},
		{func(m *node.Measures) { m.Peers, m.Lacking = 1, 2 }, "limited by: few holders (1 peer has it and delivers 12 MB/s; 2 others"},
		{func(m *node.Measures) { m.Limited = 0.9 }, "limited by: this host's own limit, 90 % of the time (12 MB/s came; `dray limit`"},
		{func(m *node.Measures) { m.Behind = 0.9 }, "limited by: this host's disk (12 MB/s came, and waited 90 % of the time; this host writes"},
		{func(m *node.Measures) { m.Behind, m.Load.HashTime = 0.9, 20*time.Second }, "limited by: hashing (12 MB/s came; "},
		{func(m *node.Measures) { m.CPU = 0.97 }, "limited by: this host's processors, 97 % busy"},
		{func(m *node.Measures) { m.RTT = 400 * time.Millisecond }, "limited by: the window (5.0 MB may be under way over a round trip of 0.4 s"},
		{func(m *node.Measures) { m.RTT, m.Full = 400*time.Millisecond, 0 }, "limited by: the round trip of 0.4 s (4.0 MB were asked for at a time"},
		{func(m *node.Measures) { m.RelayedBytes = 100e6 }, "limited by: a relay (100 MB of 118 MB came through a third host"},
		{func(m *node.Measures) { m.Bytes = 0; m.Waits = []node.Wait{{Reason: exchange.ReasonNobody}} }, "limited by: nobody delivers: waiting"},
		{func(m *node.Measures) { m.Bytes, m.Here = 0, 1 }, "nothing to fetch"},
		{func(m *node.Measures) { m.Bytes = 10 }, "too little to tell: 10 B came in 10 s"},
	} {
		changed := m
		row.change(&changed)
		if got := verdict(&changed); !strings.Contains(got, row.want) {
			t.Errorf("%q, want %q in it", got, row.want)
		}
	}
}
