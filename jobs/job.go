package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"dray"
)

// ID numbers a job of one home. Numbers are not used twice.
type ID uint64

// State is where a job is.
type State uint8

// The states. A job is Queued first. Queued → Running → Done, Failed or Waiting; Waiting → Queued by time or when a source
// comes up; any of these → Paused → Queued; any but Done → Cancelled; Failed and Cancelled → Queued by Retry. Gone is only
// in records: the job is forgotten.
const (
	Queued State = iota + 1
	Running
	Waiting
	Paused
	Done
	Failed
	Cancelled
	Gone
)

var stateNames = []string{"", "queued", "running", "waiting", "paused", "done", "failed", "cancelled", "gone"}

// String returns the state as a word.
func (s State) String() string { return word(stateNames, uint8(s)) }

// MarshalText writes the state as a word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(b []byte) error { return find(stateNames, b, (*uint8)(s)) }

// active reports whether the job is in the set.
func (s State) active() bool { return s == Queued || s == Running || s == Waiting || s == Paused }

// Reason is why a job failed, or waits.
type Reason uint8

// The reasons. After Unreachable, NotFound, TimedOut and Faulty a job is tried again until the patience is over, after
// NoSpace for ever. The others are for people to settle.
const (
	None        Reason = iota
	Unreachable        // nobody who may have it could be asked
	NotFound           // everybody who was asked says that they do not have it
	TimedOut           // nothing came for too long
	NoSpace            // the disk is full
	Exists             // there is something else at the destination
	Refused            // whoever has it does not give it to us
	Corrupt            // what is there is not what it should be
	Broken             // anything else, such as a directory that cannot be written
	Faulty             // the disk could not be read or written
)

var reasonNames = []string{"", "unreachable", "not found", "timed out", "no space", "exists", "refused", "corrupt", "broken", "faulty disk"}

// local reports whether it is this host's own trouble, in which no source helps.
func (r Reason) local() bool { return r == NoSpace || r == Faulty }

// String returns the reason as a word or two, empty for None.
func (r Reason) String() string { return word(reasonNames, uint8(r)) }

// MarshalText writes the reason as a word.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (r *Reason) UnmarshalText(b []byte) error { return find(reasonNames, b, (*uint8)(r)) }

// Class says which jobs go first. Within a class, those that came first do.
type Class int8

// The classes.
const (
	Low    Class = -1
	Normal Class = 0
	High   Class = 1
)

// Source is a peer that is expected to have what a job is for.
type Source struct {
	// Peer is who.
	Peer dray.PeerID `json:"peer"`
	// Addrs are its addresses, each as a string.
	Addrs []string `json:"addrs,omitempty"`
	// Given says that the peer was given up for this job: it could not be reached for as long as patience lasts.
	Given bool `json:"given_up,omitempty"`
}

// Job is one thing to be fetched. As a record it is all that has to be known after an unclean end.
type Job struct {
	ID ID `json:"id"`
	// Key says what is to be fetched, and how and where to. Orders with equal keys are one job.
	Key string `json:"key"`
	// Place is what only one attempt at a time may write. If empty, the job is alone with it.
	Place string `json:"place,omitempty"`
	// Name is for people. The first one that is not empty stays.
	Name string `json:"name,omitempty"`
	// Class is its urgency; of several orders the highest counts.
	Class Class `json:"class,omitempty"`
	// Order is what the driver needs to know to do it. The queue keeps it as it is; the first one stays.
	Order json.RawMessage `json:"order,omitempty"`
	// Sources are in the order in which they were named. If there are none, whoever is connected is asked.
	Sources []Source `json:"sources,omitempty"`
	State   State    `json:"state"`
	// Reason and Message say why it failed or waits.
	Reason  Reason `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Tries counts attempts that failed.
	Tries int `json:"tries,omitempty"`
	// Added and Over are when it was ordered and when it left the set, in seconds of Unix time, as the driver said.
	Added int64 `json:"added,omitempty"`
	Over  int64 `json:"over,omitempty"`
	// Bytes of Total are in place, as the last attempt said.
	Bytes int64 `json:"bytes,omitempty"`
	Total int64 `json:"total,omitempty"`
}

func (j *Job) clone() Job {
	c := *j
	c.Sources = slices.Clone(j.Sources)
	return c
}

// open reports whether j has sources, and which of them were not given up.
func (j *Job) open(p dray.PeerID) bool {
	return slices.ContainsFunc(j.Sources, func(s Source) bool { return s.Peer == p && !s.Given })
}

// ErrRecord means that a record cannot be read.
var ErrRecord = errors.New("not a job")

// AppendRecord appends j as one record, in the form that ParseRecord reads.
func AppendRecord(dst []byte, j *Job) []byte {
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // its fields are plain, and Order was checked by Add
	}
	return append(dst, b...)
}

// ParseRecord reads a record. It returns [ErrRecord] for one that is none.
func ParseRecord(b []byte) (Job, error) {
	var j Job
	if err := json.Unmarshal(b, &j); err != nil {
		return Job{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if j.ID == 0 || j.State == 0 || len(j.Key) == 0 && j.State != Gone {
		return Job{}, fmt.Errorf("%w: without number, state or key", ErrRecord)
	}
	return j, nil
}

func word(words []string, i uint8) string {
	if int(i) < len(words) {
		return words[i]
	}
	return fmt.Sprintf("%d", i)
}

func find(words []string, b []byte, to *uint8) error {
	i := slices.Index(words, string(b))
	if i < 0 {
		return fmt.Errorf("%w: unknown word %q", ErrRecord, b)
	}
	*to = uint8(i)
	return nil
}
