package transport

import "dray"

// Verdict is what an [Admission] says about a peer.
type Verdict uint8

// The verdicts.
const (
	// Undecided means that it is not known yet: what the peer says is kept, within bounds, and not acted on.
	Undecided Verdict = iota
	// Admitted means that the peer is heard.
	Admitted
	// Refused means that the peer is not: its streams are reset.
	Refused
)

// String returns "undecided", "admitted" or "refused".
func (v Verdict) String() string {
	switch v {
	case Undecided:
		return "undecided"
	case Admitted:
		return "admitted"
	case Refused:
		return "refused"
	}
	return "unknown"
}

// Admission decides which peers are heard. It is asked when a peer connects, and again whenever somebody says that the answer
// may be another. It is called with ids that the network has proven, from several goroutines, and must not block.
type Admission interface {
	Admit(peer dray.PeerID) Verdict
}

// AdmissionFunc is a function as an [Admission].
type AdmissionFunc func(peer dray.PeerID) Verdict

// Admit calls f.
func (f AdmissionFunc) Admit(peer dray.PeerID) Verdict { return f(peer) }

// Everybody admits every peer.
var Everybody Admission = AdmissionFunc(func(dray.PeerID) Verdict { return Admitted })
