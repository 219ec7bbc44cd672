package node

import (
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/exchange/health"
)

// RecordKind says what a [Record] is about.
type RecordKind string

// The kinds of records.
const (
	RecordConnected   RecordKind = "connected"   // a peer is connected
	RecordGone        RecordKind = "gone"        // the last connection to a peer ended
	RecordRefused     RecordKind = "refused"     // a peer refuses this host
	RecordUnreachable RecordKind = "unreachable" // a peer could not be dialled
	RecordBanned      RecordKind = "banned"      // this host refuses a peer
	RecordHealth      RecordKind = "health"      // a peer fares better or worse: the circuit breaker among others
	RecordPartition   RecordKind = "partition"   // this host may be cut off, or is no longer
	RecordVital       RecordKind = "vital"       // a part of the node fares better or worse
	RecordBegun       RecordKind = "begun"       // a transfer begins
	RecordEnded       RecordKind = "ended"       // and has ended
	RecordJob         RecordKind = "job"         // a job changes; told by [Node.Record]
)

// Record is one thing that happened.
type Record struct {
	// Seq counts the records of a Node from 1 on.
	Seq uint64
	// At is when.
	At time.Time
	// Kind says what it is about, and Grave whether somebody should look at it.
	Kind  RecordKind
	Grave bool
	// Peer, Root and Transfer are whom and what it concerns, if anybody and anything.
	Peer     dray.PeerID
	Root     cid.Cid
	Transfer uint64
	// Text says it to people, on one line.
	Text string
}

const (
	maxRecords    = 10000
	maxRecordText = 512 // bytes
)

// records is the log of what happened, the last of it. It is safe for concurrent use.
type records struct {
	mu   sync.Mutex
	last uint64
	ring []Record // that with Seq s is at (s-1) modulo maxRecords
}

// Record adds to the log of what happened. What has no time happened now.
func (n *Node) Record(r Record) { n.record(r) }

func (n *Node) record(r Record) {
	if r.At.IsZero() {
		r.At = time.Now()
	}
	if len(r.Text) > maxRecordText {
		r.Text = strings.ToValidUTF8(r.Text[:maxRecordText], "") + "…"
	}
	l := &n.records
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	r.Seq = l.last
	if len(l.ring) < maxRecords {
		l.ring = append(l.ring, r)
	} else {
		l.ring[(r.Seq-1)%maxRecords] = r
	}
}

// Records returns what happened after the record numbered after, oldest first, and at most so many of the last. The log holds
// the last ten thousand.
func (n *Node) Records(after uint64, most int) []Record {
	l := &n.records
	l.mu.Lock()
	defer l.mu.Unlock()
	from := min(after, l.last)
	if have := uint64(min(most, len(l.ring))); l.last-from > have {
		from = l.last - have
	}
	out := make([]Record, 0, l.last-from)
	for s := from + 1; s <= l.last; s++ {
		out = append(out, l.ring[(s-1)%maxRecords])
	}
	return out
}

// onlooker notices what the engine does not tell: changes of peers' health and of the view above them, and what passed in each
// second. It looks at most once a second, in turns that the loop takes anyhow, and once more after the last of them, so that an
// idle node has no timer for it. Owned by loop.
type onlooker struct {
	at     time.Duration // of the last look
	view   health.PartitionState
	states map[dray.PeerID]health.State

	in, out int64 // the engine's totals at the last look
	flow    flowRing
}

const lookEvery = time.Second

// onlook is called after each turn, and returns when to be called again at the latest; 0 is never.
func (n *Node) onlook() time.Duration {
	o := &n.onlooker
	now := n.now()
	t := n.engine.Totals()
	in, out := t.Bytes+t.DuplicateBytes, t.ServedBytes
	if in != o.in || out != o.out {
		o.flow.add(now, in-o.in, out-o.out)
		o.in, o.out = in, out
	}
	if now-o.at < lookEvery {
		return o.at + lookEvery
	}
	o.at = now
	n.noteStates()
	return 0
}

// noteStates records how peers' states changed since the last look.
func (n *Node) noteStates() {
	o := &n.onlooker
	if s := n.engine.PartitionState(); s != o.view {
		n.record(Record{Kind: RecordPartition, Grave: s != health.Whole, Text: "the network is " + viewWords(s)})
		o.view = s
	}
	for id := range o.states {
		if n.links[id] == nil {
			delete(o.states, id)
		}
	}
	for id := range n.links {
		h := n.engine.Health(id)
		was, known := o.states[id]
		o.states[id] = h.State
		if !known {
			was = health.Connected
		}
		if h.State == was {
			continue
		}
		r := Record{Kind: RecordHealth, Peer: id, Text: healthWords(was, &h)}
		r.Grave = h.State == health.BackedOff
		n.record(r)
	}
}

func viewWords(s health.PartitionState) string {
	switch s {
	case health.Suspected:
		return "suspected to be cut: most peers that were useful lately fail"
	case health.Partitioned:
		return "cut: the peers that were useful lately are out of reach"
	case health.Recovering:
		return "coming back"
	}
	return "whole again"
}

func healthWords(was health.State, h *exchange.PeerHealth) string {
	switch h.State {
	case health.BackedOff:
		return "does not deliver what it was asked for, and is left alone for a while (the breaker opens)"
	case health.Probing:
		return "is asked for a little, to see whether it delivers again (the breaker is half open)"
	case health.Slow:
		return "delivers slower than others that could, and is asked for less"
	case health.Healthy:
		if was == health.Connected || was == health.Unknown || was == health.Dialling {
			return "delivers"
		}
		return "delivers as it should again (the breaker is closed)"
	}
	return "is " + h.State.String()
}

// flowRing holds what passed in each of the last seconds. The zero value is empty.
type flowRing struct {
	last int64 // the second of the newest slot, counted from the Node's beginning
	slot [flowSeconds]Flow
}

// flowSeconds is how many seconds [Node.Flows] knows.
const flowSeconds = 300

// Flow is what passed in one second, in bytes of blocks.
type Flow struct {
	// In came from peers and Out went to them.
	In, Out int64
}

func (r *flowRing) add(now time.Duration, in, out int64) {
	r.advance(now)
	s := &r.slot[r.last%flowSeconds]
	s.In += in
	s.Out += out
}

// advance empties the slots of the seconds in which nothing passed.
func (r *flowRing) advance(now time.Duration) {
	sec := int64(now / time.Second)
	for k := max(r.last+1, sec-flowSeconds+1); k <= sec; k++ {
		r.slot[k%flowSeconds] = Flow{}
	}
	r.last = max(r.last, sec)
}

// Flows returns what passed in each of the last five minutes' seconds that are over, oldest first, and when the last of them
// ended.
func (n *Node) Flows() (list []Flow, until time.Time) {
	n.ask(func() {
		r := &n.onlooker.flow
		r.advance(n.now())
		for k := max(r.last-flowSeconds+1, 0); k < r.last; k++ {
			list = append(list, r.slot[k%flowSeconds])
		}
		until = n.start.Add(time.Duration(r.last) * time.Second)
	})
	return list, until
}
