package node

import (
	"strings"
	"testing"
	"time"
)

// TestVerdict: what cannot be set up on every machine, judged from its figures; and each figure alone does not mislead.
func TestVerdict(t *testing.T) {
	base := func(change func(*Measures)) Measures {
		m := Measures{
			Took: 10 * time.Second, Bytes: 100e6, Rate: 10e6, Workers: 4, Cores: 2, CPU: 0.1, Peers: 1,
			Waiting: 4e6, Window: 4e6, Full: 1, RTT: 10 * time.Millisecond,
			Load: Load{Written: 100e6, WriteTime: time.Second, Hashed: 100e6, HashTime: time.Second},
		}
		change(&m)
		return m
	}
	for _, row := range []struct {
		name   string
		change func(*Measures)
		want   Resource
	}{
		{"a queue at the peer", func(*Measures) {}, LimitUplink},
		{"behind, and hashing all the time", func(m *Measures) { m.Behind, m.Load.HashTime = 0.9, 19*time.Second }, LimitHash},
		{"behind, and writing all the time", func(m *Measures) { m.Behind, m.Load.WriteTime = 0.9, 38*time.Second }, LimitDisk},
		{"behind, and all processors busy", func(m *Measures) { m.Behind, m.CPU = 0.9, 0.99 }, LimitCPU},
		{"behind, with nothing busy: blocks wait for a sync", func(m *Measures) { m.Behind = 0.9 }, LimitDisk},
		{"all processors busy", func(m *Measures) { m.CPU = 0.95 }, LimitCPU},
		{"all processors busy with hashing", func(m *Measures) { m.CPU, m.Load.HashTime = 0.95, 15*time.Second }, LimitHash},
		{"processors not known", func(m *Measures) { m.CPU = -1 }, LimitUplink},
		{"everything comes after a round trip", func(m *Measures) { m.RTT = 350 * time.Millisecond }, LimitWindow},
		{"the same, and not all is asked for", func(m *Measures) { m.RTT, m.Full = 350*time.Millisecond, 0.1 }, LimitRoundTrip},
		{"nothing under way most of the time", func(m *Measures) { m.Idle, m.Full, m.Waiting = 0.8, 0, 1e5 }, LimitRoundTrip},
		{"a queue on a fast network", func(m *Measures) { m.RTT, m.Waiting = time.Millisecond, 12e3 }, LimitUplink},
		{"through a relay", func(m *Measures) { m.RelayedBytes = 90e6 }, LimitRelay},
		{"one holder among three", func(m *Measures) { m.Lacking = 2 }, LimitHolders},
		{"the own limit, which keeps the disk idle", func(m *Measures) { m.Limited = 0.7 }, LimitOwn},
		{"nothing came", func(m *Measures) { m.Bytes, m.Rate = 0, 0 }, LimitNobody},
		{"nothing came because all is here", func(m *Measures) { m.Bytes, m.Rate, m.Here, m.Complete = 0, 0, 100e6, true }, LimitNothing},
		{"too little", func(m *Measures) { m.Bytes = 1000 }, LimitUnknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := base(row.change)
			if got := m.Verdict(); got != row.want {
				t.Errorf("limited by %v, want %v", got, row.want)
			}
			for _, s := range m.Shares() {
				if !(s.Share >= 0 && s.Share <= 1) {
					t.Errorf("%v has a share of %v", s.Resource, s.Share)
				}
			}
		})
	}
	for r := LimitUnknown; r <= LimitUplink; r++ {
		if strings.HasPrefix(r.String(), "Resource") {
			t.Errorf("resource %d has no name", uint8(r))
		}
	}
}
