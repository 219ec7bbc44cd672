// Package exchange is the engine: every decision of the system (whom to ask for a block, when to ask somebody else, whom
// to serve, whom to drop) is made here by one state machine, [Engine], that has no goroutine, clock, lock, disk or socket.
// Package node runs it with real ones and package sim with thousands of hosts in virtual time.
//
// # Terms
//
// A want is a CID that some session still misses; there is one want per CID however many sessions ask. An ask is one want
// announced to one peer, either for the block or for whether the peer has it. A session is a set of wants with one purpose
// and its own view of which peers are useful. A peer's window is how many bytes may be asked of it and not yet delivered.
//
// # The driver's contract
//
//  1. One goroutine owns an Engine. Every method takes the time since a fixed start, which never runs backwards.
//  2. After any number of inputs the driver calls [Engine.Ready] and carries out what it says. The slices in a [Ready] are
//     valid until the next call of Ready.
//  3. Sends: each is one control message for one peer. The driver writes it and then calls [Engine.Sent]; until then the
//     engine holds back that peer's next one, and merges what changes meanwhile.
//  4. Loads: the driver looks the block up (Stat) or reads it, and answers each with exactly one [Engine.Loaded].
//  5. Blocks: the driver writes each to its peer on a data stream, in the order given, and calls [Engine.BlockSent] when
//     the transport has taken the bytes.
//  6. Stores: the blocks were verified and wanted. The driver writes each and answers with exactly one [Engine.Stored].
//     The bytes belong to the driver again after that.
//  7. Delivers: each answers one session's want, after the block was written; never twice, and never after a cancel.
//  8. Finds, Dials, Drops: the driver looks for peers, dials, disconnects, and reports with [Engine.Found],
//     [Engine.DialFailed], [Engine.PeerUp] and [Engine.PeerDown]. It may fail to do any of them.
//  9. Sessions: terminal events, each exactly once and after the session's last Deliver.
//  10. Wake: the driver calls [Engine.Advance] at that time at the latest.
//  11. Blocks handed to [Engine.Receive] have been hashed: their CIDs are what their bytes hash to.
//
// # What it does not do
//
// It does not know how messages are spelled (package wire), where blocks lie, or what they mean: walking from a root to its
// leaves is the driver's business, which then wants the leaves.
package exchange
