// Package jobs decides about fetches that somebody ordered and does not wait for: which is to be begun, which is to be tried
// again and when, and when all are done. [Queue] is a state machine without goroutine, clock, lock, disk or socket. A driver
// tells it what happened and does what its [Ready] says; package jobs/journal keeps what must not be forgotten.
//
// # Terms
//
// A Job is one thing to fetch to one place. It has Sources: peers that are expected to have it. Who orders the same thing
// twice, perhaps from somebody else, gets the same job with the sources of both; when it is done, it is done for all of
// them.
//
// An attempt is one time that the driver works at a job. At most one attempt is at a place at a time.
//
// The set is the jobs that are neither done nor given up: queued, running, waiting or paused. It is drained when the last
// one leaves it, in whatever way.
//
// # The driver's contract
//
//  1. One goroutine calls the queue. After each call it takes Ready and does what that says, in this order.
//  2. Records are made durable before anything else is done or anybody is answered. A job that was accepted is therefore
//     never lost, and one that is recorded as done is not done again.
//  3. Starts are begun, Stops are told to end. Each attempt is answered with one Ended, also one that was told to stop. An
//     attempt is Finished when what it brought survives a loss of power, not before.
//  4. Advance is called when Wake has passed, SourceUp when a peer became connected, SpaceFreed when there may be room.
//  5. After an unclean end the records are given to Restore. What was running is then queued: an attempt must find what an
//     earlier one left, and do nothing twice that can be seen from outside.
//
// # What it does not do
//
// It knows no peers beyond their names and keeps no health of theirs: it only spares one that could not be reached until it
// may be back. It does not know how a fetch works, and reads neither the clock nor a disk.
package jobs
