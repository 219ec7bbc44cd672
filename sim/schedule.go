package sim

import (
	"slices"
	"time"

	"dray"
	"dray/exchange"
	"dray/wire"
)

// Schedule is one scenario as data: a file, hosts, who is connected to whom, and what happens when. [Plan] draws one from a seed,
// [ParseSchedule] reads one from text, and [Schedule.Run] plays it. Blocks and hosts are named by number. Everything in a Schedule can
// be dropped or made simpler on its own, which is how [Shrink] finds the shortest that still fails.
type Schedule struct {
	// Seed feeds the World: what is left to chance while the scenario runs.
	Seed uint64
	// Turn and Codec are the World's TurnDelay and Codec. Virtual blocks cost no memory.
	Turn    time.Duration
	Codec   bool
	Virtual bool
	// Alone leaves it to the engines to make connections again that broke. Otherwise the World does.
	Alone bool
	// Limit is when the scenario gives up. If zero, 15 minutes.
	Limit time.Duration
	// File holds the sizes of the blocks, and Count more blocks of Size bytes follow.
	File        []int
	Count, Size int
	// Leaves are the root's leaves in order, as numbers of blocks. If empty, the file's blocks.
	Leaves []int
	// Bones is the number of blocks of the skeleton. If zero, 1.
	Bones  int
	Hosts  []HostPlan
	Links  []Link
	Events []Event
}

// Role says what is expected of a host.
type Role uint8

// The roles.
const (
	// Holder has something, and nothing is expected of it.
	Holder Role = iota
	// Anchor is honest, has everything and is where it can be reached.
	Anchor
	// Getter must have what it wants in the end.
	Getter
)

// HostPlan is one host of a Schedule.
type HostPlan struct {
	// ID is the host's number.
	ID   int
	Role Role
	// Config describes the host. Of its Engine only the fields that fields names are used.
	Config HostConfig
	// Has are the blocks of the file that it has, All says all of them, and Knows is how much of the skeleton.
	Has   []int
	All   bool
	Knows int
	// Fetch is what a getter wants, from Start on.
	Fetch FetchPlan
	Start time.Duration
}

// FetchPlan is a [FetchConfig] as data.
type FetchPlan struct {
	// Rooted fetches the root; otherwise Blocks are wanted, or with Every all of the file.
	Rooted, NoWalk bool
	Walk, Push     int64
	Rarest         bool
	Peers          []int
	Only           bool
	Waiting        int
	Window         int
	Sized          bool
	Deadlines      bool
	Every          bool
	GiveUp         bool
	Blocks         []int
}

// Link connects two hosts at the start.
type Link struct{ A, B int }

// Event is something that happens at a time.
type Event struct {
	At time.Duration
	Do Verb
	// Host is to whom it happens, and Peer with whom, where it takes two.
	Host, Peer int
	// For is how long it lasts. If zero, for ever.
	For time.Duration
	// Every repeats it, for as long as For says. If zero, it happens once.
	Every time.Duration
	// Hosts and Blocks are further objects.
	Hosts, Blocks []int
	// N is a number, of a fetch or of hosts, and P a probability.
	N int
	P float64
	// Fetch is what is fetched.
	Fetch FetchPlan
}

// Verb says what an Event does.
type Verb string

// The verbs. Those of outages are carried out in outage.go.
const (
	// DoConnect connects Host and Peer, DoCut breaks their connection, and makes it again after For.
	DoConnect Verb = "connect"
	DoCut     Verb = "cut"
	// DoCrash kills Host; after For it starts again, connects to Hosts and fetches what it wanted. With P, power fails: what was not
	// synced is lost with that probability.
	DoCrash Verb = "crash"
	// DoFetch opens a session numbered N, DoAbandon cancels it, DoCancel cancels its wants of Blocks.
	DoFetch   Verb = "fetch"
	DoAbandon Verb = "abandon"
	DoCancel  Verb = "cancel"
	// DoPause pauses all sessions of Host, for ever if For is zero.
	DoPause Verb = "pause"
	// DoGive puts Blocks into Host's store, DoLearn the skeleton, and DoLose takes Blocks out.
	DoGive  Verb = "give"
	DoLearn Verb = "learn"
	DoLose  Verb = "lose"
	// DoCount makes Host count the durable copies of the root.
	DoCount Verb = "count-copies"

	// DoFreeze stops Host from reading what is sent to it.
	DoFreeze Verb = "freeze"
	// DoSuspend stops Host altogether, as SIGSTOP does, or a laptop that sleeps: its timers fire late.
	DoSuspend Verb = "suspend"
	// DoTrickle lets Host send N bytes a second.
	DoTrickle Verb = "trickle"
	// DoReset breaks all connections of Host, which come again.
	DoReset Verb = "reset"
	// DoCorrupt changes the bytes of the blocks that Host sends, with probability P.
	DoCorrupt Verb = "corrupt"
	// DoTruncate breaks the connection in the middle of a block that Host sends, with probability P.
	DoTruncate Verb = "truncate"
	// DoForget loses the wants that Host hears, with probability P.
	DoForget Verb = "forget"
	// DoLie makes Host say that it has all leaves, and send none.
	DoLie Verb = "lie"
	// DoFull fills the disk of Host; DoReadError and DoWriteError make reads and writes fail with probability P.
	DoFull       Verb = "full"
	DoReadError  Verb = "read-error"
	DoWriteError Verb = "write-error"
	// DoSplit breaks the paths between Hosts and everybody else. Nobody is told.
	DoSplit Verb = "split"
	// DoStrangers lets N strangers connect to Host, each of which wants what is not there and stays for a second or, with Every,
	// so long.
	DoStrangers Verb = "strangers"
)

// verbs lists what may happen, in the order in which it is drawn.
var verbs = []Verb{
	DoConnect, DoCut, DoCrash, DoFetch, DoAbandon, DoCancel, DoPause, DoGive, DoLearn, DoLose, DoCount,
	DoFreeze, DoSuspend, DoTrickle, DoReset, DoCorrupt, DoTruncate, DoForget, DoLie, DoFull, DoReadError, DoWriteError, DoSplit,
	DoStrangers,
}

// blocks returns the number of blocks of the file.
func (s *Schedule) blocks() int { return len(s.File) + s.Count }

// host returns the plan of a host, or nil.
func (s *Schedule) host(id int) *HostPlan {
	for i := range s.Hosts {
		if s.Hosts[i].ID == id {
			return &s.Hosts[i]
		}
	}
	return nil
}

// clone returns a copy that shares nothing that is ever changed in place.
func (s *Schedule) clone() *Schedule {
	c := *s
	c.Hosts = slices.Clone(s.Hosts)
	c.Links = slices.Clone(s.Links)
	c.Events = slices.Clone(s.Events)
	return &c
}

// config makes what a host fetches of its plan.
func (s *soup) config(p FetchPlan) FetchConfig {
	c := FetchConfig{NoWalk: p.NoWalk, Window: p.Window, Sized: p.Sized, Deadlines: p.Deadlines, GiveUp: p.GiveUp}
	c.Session = exchange.SessionConfig{
		Only: p.Only, MaxWaiting: p.Waiting, Walk: exchange.WalkOptions{Bytes: p.Walk, Push: p.Push},
	}
	if p.Rarest {
		c.Session.Order = exchange.Rarest
	}
	for _, id := range p.Peers {
		if h := s.hosts[id]; h != nil {
			c.Session.Peers = append(c.Session.Peers, h.id)
		} else {
			c.Session.Peers = append(c.Session.Peers, dray.PeerID(hostName(id)))
		}
	}
	switch {
	case p.Rooted:
		c.Root = s.root
	case p.Every:
		c.Blocks = s.file
	default:
		for _, i := range p.Blocks {
			c.Blocks = append(c.Blocks, s.file[i])
		}
	}
	return c
}

// versionName is what a Schedule's text calls a version.
type versionName struct {
	name string
	v    wire.Version
}

var versions = []versionName{{"legacy", wire.Legacy}, {"1.0", wire.V100}, {"1.1", wire.V110}, {"1.2", wire.V120}, {"swap", wire.Swap1}}

var roles = []string{"holder", "anchor", "getter"}
