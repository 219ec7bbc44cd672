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
// # What it does not do
//
// It has no goroutine, real clock, socket or file, so it cannot prove anything about package node's glue; and it models
// neither congestion control nor what hashing and encryption cost.
package sim
