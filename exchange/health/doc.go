// Package health decides what to think of peers: three state machines that say when a peer may be asked, when it may be
// dialled, and whether it is this host that has lost the network. The engine in package exchange feeds them and does what
// they say; nothing else in the product keeps a back-off of its own.
//
// # Terms
//
// [Peer] is one peer's health. A back-off is a time during which nothing is asked of a peer, or it is not dialled; the next one
// is twice as long, unless the peer succeeds. Its circuit breaker is the pair BackedOff (open) and Probing (half open).
// [Tried] is a list of addresses that did not answer. [Partition] is the view over all peers that were useful lately: when
// most of them fail at once the fault is likely here, so probes go out, back-offs grow no longer, and [Mode] says which wants
// come first until the network is back.
//
// # One first interval in place of two
//
// Two schemes met here: a breaker that stays open for 30 s, and a back-off of 20 s, 40 s, 80 s to 10 min. A breaker that
// opens again after a failed probe is a back-off, so there is one: 20 s first (the sum of the first two, 60 s, is what two
// breakers of 30 s would take, and a peer that was gone for a moment is back sooner), 1 s on a LAN, doubled each time, with up to a fifth
// more at random so that many hosts do not come back in step.
//
// # What it does not do
//
// It has no clock, timer or network: every method takes the time since a fixed start, which never runs backwards, and random
// numbers in [0, 1) are given to it. It knows nothing of blocks or of why something failed; a fault of the local disk is
// none of its business. There is no ban for a low score: a peer that is merely slow is asked less, and may be all there is.
package health
