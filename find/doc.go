// Package find remembers who holds what, and decides whom to ask for more: which providers of a CID are worth trying, in which
// order its finders begin and when they have found enough, what of this host is announced when, and how much of what strangers
// say is believed. It is pure: time is passed in, and package find/seek does the asking.
//
// # Terms
//
// A provider of a CID is a peer that holds it, or is said to. A record says so, from which [Source], until when. A peer that could
// not be reached, or has not what it was said to have, is on probation: it comes last, as exhausted, until its probation is over;
// then it comes by its score again, the share of tries that went well, of which old ones weigh less. A miss is that everybody was
// asked and nobody found; for a short while, longer after each, nobody is asked again, unless something has changed.
//
// A [Search] is one question to several finders, cheap ones first. A [Schedule] repeats announcements before they are forgotten.
// [Rates] bound what a stranger may cost.
//
// CIDs are told apart by their hashes, not by how they are spelled.
//
// # What it does not do
//
// It does not look, dial or announce, and it knows nothing of addresses but that they are strings. It believes nobody: a record is
// a hint until the provider has delivered a block that hashes to its CID.
package find

import (
	"time"

	"dray"
)

// Source says how a provider became known.
type Source uint8

// The sources, the most believable first.
const (
	// Exchange means that the peer has delivered it, or says itself that it has it.
	Exchange Source = iota + 1
	// LAN means that the peer is on the same local network.
	LAN
	// Static means that the operator named the peer.
	Static
	// Peers means that another peer says so.
	Peers
	// Routing means that a delegated router says so.
	Routing
	// DHT means that a record in the distributed hash table says so.
	DHT
)

var sourceNames = [...]string{Exchange: "exchange", LAN: "lan", Static: "static", Peers: "peers", Routing: "routing", DHT: "dht"}

// String returns the source as people see it.
func (s Source) String() string {
	if int(s) < len(sourceNames) && sourceNames[s] != "" {
		return sourceNames[s]
	}
	return "unknown"
}

// Provider is a peer that holds a CID, or is said to.
type Provider struct {
	// ID names the peer.
	ID dray.PeerID
	// Addrs are where it may be, the latest first; in what the table returns, without the peer's id. They belong to the table: do
	// not change them.
	Addrs []string
	// Source is how it became known, the most believable way if there were several.
	Source Source
	// Until is when the record expires.
	Until time.Duration
	// Score is the share of tries of the peer that went well, from 0 to 1; 1/2 when nothing is known.
	Score float64
	// Exhausted says that it is on probation, which ends at Back: trying it earlier is likely in vain.
	Exhausted bool
	Back      time.Duration
}
