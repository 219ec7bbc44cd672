// Package sim runs many [dray/exchange.Engine]s against each other in virtual time: the second driver of the engine, beside
// package node. It proves policy. What holds here for thousands of hosts and seeds is what the daemon does, because both run
// the same engine under the contract in package exchange.
//
// # Terms
//
// A [World] owns the clock, the queue of events and all randomness: one seed gives one history, to the byte, and its hash is
// the [World.Trace]. A [Host] is an engine with a model of a disk and of its access line. A connection is one direction each
// way of a control stream and a few data streams; it can be cut and made again. A [Fetch] is the application: a session, what
// it wants, and what it was told. [Faults] make a host lie, stall or go silent; outages happen to honest hosts, their disks and the
// network between them, for a while. A [Schedule] is a scenario as data: what is drawn from a seed, can be written as text and read again.
// A scenario sets a World up, runs it, and returns a
// [Result] or the first broken invariant.
//
// # The model of the network
//
// A message occupies its sender's uplink for its size divided by the rate, one message at a time and connections in turn,
// small control messages before blocks; it travels for the sum of both hosts' delays; and it occupies the receiver's downlink,
// which it may enter while it is still leaving the uplink. A connection carries no more than its window of bytes that the
// receiver has not taken. Streams are reliable: a lost packet delays the message and whatever follows on the same stream.
//
// # The model of content
//
// Blocks exist once and every host refers to them by [Ref]. In an ordinary World they are small, their bytes are real and are hashed
// again wherever they arrive. In a [Config.Virtual] World the digests are drawn from the block's number and the bytes are all the same
// shared memory: the engine and the links see blocks of any size, at no cost in memory or hashing, and a block is judged by being
// the very one that its CID was given to. With [Config.Codec] every message is encoded and decoded by package wire on the way.
//
// # The invariants
//
// DESIGN section 8 numbers them. Whatever runs in a World is held against these; TestSabotage breaks the driver on purpose, once for
// each, and sees that the check notices.
//
//	 1  a block reaches a caller only with the bytes of its CID   Fetch's deliver and Host.write, every block
//	 2  removed when written, held when synced                   deliver; half.durable, every message; losePower takes what is not synced
//	 3  nothing is stored that nobody asked for                  Host.write against what was ever wanted, every block
//	 4  announced wants = the sessions' wants                    Engine.Check, every turn; judge, at rest: what the peer remembers
//	 5  every waiter gets exactly one answer                     deliver and sessionEnded, every answer
//	 6  after cancel nothing arrives                             deliver, every answer
//	 7  a stalled peer or disk delays nobody else                TestStalledPeerDelaysNobody, TestStallsDelayNobodyElse
//	 8  memory is bounded under hostile peers                    Engine.Check: the bound of each thing that is kept; checkHeld: bytes for
//	                                                             each peer, every turn
//	 9  the state lane converges after any number of cuts        judgeLanes, at rest: told against heard, both ways;
//	                                                             TestStateLaneConverges. The ring of events: package transport
//	10  a promoted tentative loses nothing                       package transport
//	11  ledger = bytes on the wire                               judge, at rest, for each connection
//	12  no admitted want starves                                 watchWants, every five seconds, every want of every getter
//	13  with one honest holder every want completes              Schedule.Run, and each row of TestFaults
//	14  no goroutine outlives Close                              packages node and transport; there is none here
//
// # Failures
//
// A failing seed is played again by go test -v ./sim -seed N, and go test -v ./sim -seed N -shrink prints the shortest Schedule that it
// finds which fails in the same way. That text can be played with -schedule FILE, and kept in a test.
//
// # What it does not do
//
// It has no goroutine, real clock, socket or file, so it cannot prove anything about package node's glue; and it models
// neither congestion control nor what hashing and encryption cost.
package sim
