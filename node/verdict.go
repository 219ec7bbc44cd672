package node

import (
	"fmt"
	"time"
)

// Resource is what limits a transfer.
type Resource uint8

// The resources.
const (
	// LimitUnknown: too little was seen to tell.
	LimitUnknown Resource = iota
	// LimitNobody: nothing came at all.
	LimitNobody
	// LimitNothing: all was on this host already.
	LimitNothing
	// LimitOwn: the limits that this host was given.
	LimitOwn
	// LimitDisk: writing to this host's disk.
	LimitDisk
	// LimitHash: hashing what came.
	LimitHash
	// LimitCPU: this host's processors, of which deciphering what comes takes the most part.
	LimitCPU
	// LimitWindow: how much may be asked for and not have come, over the round trip.
	LimitWindow
	// LimitRoundTrip: waiting for answers before the next question could be asked.
	LimitRoundTrip
	// LimitRelay: the host through which the bytes come.
	LimitRelay
	// LimitHolders: one peer alone has what is missing, and delivers what it can.
	LimitHolders
	// LimitUplink: what the peers send at most.
	LimitUplink
)

var resourceNames = []string{
	"unknown", "nobody delivers", "nothing to fetch", "own limit", "disk", "hash", "cpu", "window", "round trip", "relay",
	"few holders", "peer uplink",
}

// String returns a word or two for the resource.
func (r Resource) String() string {
	if int(r) < len(resourceNames) {
		return resourceNames[r]
	}
	return fmt.Sprintf("Resource(%d)", uint8(r))
}

const (
	mostly     = 0.5  // of the time
	nearlyAll  = 0.85 // of the processors
	tripSlack  = 1.6  // a byte that takes no more than so many round trips waits in no queue
	tripLeast  = 2 * time.Millisecond
	tripEnough = 64 << 10 // bytes, of which fewer say nothing
)

// Verdict names what limited the transfer. The order is from here to there: what this host forbids or cannot do explains what
// its peers seem not to.
func (m *Measures) Verdict() Resource {
	switch {
	case m.Bytes == 0 && (m.Complete || m.Here > 0):
		return LimitNothing
	case m.Bytes == 0:
		return LimitNobody
	case m.Rate <= 0 || m.Bytes < tripEnough:
		return LimitUnknown
	case m.Limited >= mostly:
		return LimitOwn
	case m.Behind >= mostly:
		return m.local()
	case m.CPU >= nearlyAll:
		return m.processors()
	case m.RTT >= tripLeast && m.Queue() <= time.Duration(tripSlack*float64(m.RTT)) || m.Idle >= mostly:
		// What is asked for comes after a round trip: nothing stands in a queue anywhere.
		if m.Full >= mostly {
			return LimitWindow
		}
		return LimitRoundTrip
	case float64(m.RelayedBytes) >= mostly*float64(m.Bytes):
		return LimitRelay
	case m.Peers == 1 && m.Lacking > 0:
		return LimitHolders
	}
	return LimitUplink
}

// local says what keeps this host behind.
func (m *Measures) local() Resource {
	switch {
	case m.busyDisk() >= mostly && m.busyDisk() >= m.busyHash():
		return LimitDisk
	case m.busyHash() >= mostly:
		return LimitHash
	case m.CPU >= mostly:
		return m.processors()
	}
	return LimitDisk // blocks wait for it, or for what it syncs
}

func (m *Measures) processors() Resource {
	if m.busyHash() >= mostly {
		return LimitHash
	}
	return LimitCPU
}

// busyDisk and busyHash are the shares of the time in which the workers wrote and hashed.
func (m *Measures) busyDisk() float64 { return m.spread(m.Load.WriteTime, m.Workers) }
func (m *Measures) busyHash() float64 { return m.spread(m.Load.HashTime, m.Cores) }

func (m *Measures) spread(d time.Duration, over int) float64 {
	if m.Took <= 0 || over <= 0 {
		return 0
	}
	return min(float64(d)/float64(m.Took)/float64(over), 1)
}

// Share is how much of the time one resource was in use or in the way, between 0 and 1.
type Share struct {
	Resource Resource
	Share    float64
	// Rate is what it does in bytes a second while it works; 0 when not measured.
	Rate float64
}

// Shares returns what was measured of each resource. They do not add up to one: several work at the same time.
func (m *Measures) Shares() []Share {
	rate := func(bytes int64, d time.Duration, workers int) float64 {
		if d <= 0 {
			return 0
		}
		return float64(bytes) / d.Seconds() * float64(workers)
	}
	list := []Share{
		{LimitDisk, m.busyDisk(), rate(m.Load.Written, m.Load.WriteTime, m.Workers)},
		{LimitHash, m.busyHash(), rate(m.Load.Hashed, m.Load.HashTime, m.Cores)},
	}
	if m.CPU >= 0 {
		list = append(list, Share{Resource: LimitCPU, Share: m.CPU})
	}
	list = append(list, Share{Resource: LimitOwn, Share: m.Limited}, Share{Resource: LimitWindow, Share: m.Full})
	trip := 0.0
	if q := m.Queue(); q > 0 && m.RTT > 0 {
		trip = min(float64(m.RTT)/float64(q), 1)
	}
	list = append(list, Share{Resource: LimitRoundTrip, Share: trip})
	peers := 1 - max(m.Behind, m.Limited, trip, m.Idle)
	return append(list, Share{LimitUplink, max(peers, 0), m.Rate})
}
