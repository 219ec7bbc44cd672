package health

import "fmt"

// State is what is thought of a peer's ability to deliver.
//
//	Unknown → Dialling → Connected → Healthy ⇄ Slow → BackedOff → Probing → Healthy
//	BackedOff → Gone        time is up, and there is no connection to probe
//	Dialling → BackedOff    it cannot be reached
//	any → Banned → Gone     or Connected, if there is a connection by then
//	any with a connection → Gone → Dialling
//
// BackedOff and Probing are the circuit breaker, open and half open. Every other edge is a bug and panics.
type State uint8

// The states. A connection exists in Connected, Healthy, Slow and Probing, never in Unknown, Dialling and Gone, and may or
// may not in BackedOff and Banned.
const (
	Unknown   State = iota // never met
	Dialling               // a dial is under way
	Connected              // nothing delivered yet on this connection
	Healthy                // delivers
	Slow                   // delivers too little, or was silent: it is asked for a little
	BackedOff              // asked for nothing, or not dialled, until a time
	Probing                // asked for a few blocks to see whether it delivers again
	Banned                 // refused until a time
	Gone                   // not connected; may be dialled from a time on
)

// String returns the state's name.
func (s State) String() string {
	names := [...]string{"Unknown", "Dialling", "Connected", "Healthy", "Slow", "BackedOff", "Probing", "Banned", "Gone"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", s)
}

// edges holds the states that may follow each.
var edges = [...]uint16{
	Unknown:   1<<Dialling | 1<<Connected | 1<<BackedOff | 1<<Banned,
	Dialling:  1<<Connected | 1<<Probing | 1<<BackedOff | 1<<Banned,
	Connected: 1<<Healthy | 1<<Slow | 1<<BackedOff | 1<<Banned | 1<<Gone,
	Healthy:   1<<Slow | 1<<BackedOff | 1<<Banned | 1<<Gone,
	Slow:      1<<Healthy | 1<<BackedOff | 1<<Banned | 1<<Gone,
	BackedOff: 1<<Probing | 1<<Connected | 1<<Gone | 1<<Banned,
	Probing:   1<<Healthy | 1<<BackedOff | 1<<Banned,
	Banned:    1<<Gone | 1<<Connected,
	Gone:      1<<Dialling | 1<<Connected | 1<<Probing | 1<<BackedOff | 1<<Banned,
}

// Reason says why a peer is banned.
type Reason uint8

// The reasons. NoReason is that of a peer who is not banned.
const (
	NoReason          Reason = iota
	RepeatedFailures         // backed off ten times in a row, connected each time
	InvalidData              // blocks that nobody asked for, or with wrong bytes
	ProtocolViolation        // a message that an honest peer never sends
	Manual                   // the operator said so
)

// String returns the reason's name, or "" for NoReason.
func (r Reason) String() string {
	names := [...]string{"", "RepeatedFailures", "InvalidData", "ProtocolViolation", "Manual"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("Reason(%d)", r)
}
