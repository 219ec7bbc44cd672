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
// A limit bounds the bytes of blocks a second that are begun to be sent or asked for; a bucket counts them. A peer's service
// is its share of the limits and, like its account in the ledger, of what is served when there is not enough for all.
//
// The rest is about roots, and peers who speak TensorSwap. A manifest is a root's leaves and which of them are here. A feed is
// a root about which this host and one peer talk by index: one follows, the other tells what it has and has lost, and each
// may do both; every time that a root is followed it gets a number of its own. Demand is what a session misses of its
// manifest: bits, of which wants are made as peers are asked. A walk asks one peer for many blocks at once, the skeleton under
// a root, and lets it push some leaves behind it. Early blocks are those of a walk that nobody has wanted yet: they are
// kept, within what the walk allowed, until they are wanted or the session ends. Credit is how many bytes of blocks a peer may
// send in all: what it has sent, what it was asked for or may push, and a base.
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
//     [Engine.DialFailed], [Engine.PeerUp] and [Engine.PeerDown]. It may fail to do any of them. Whom a live session names is
//     dialled by the engine's own schedule: the driver repeats nothing by itself. Probes: it asks a connected peer's network
//     for a sign of life and answers with [Engine.Probed]. Hangups: it closes the connection, of which the engine knows nothing
//     any more.
//  9. Sessions: terminal events, each exactly once and after the session's last Deliver.
//  10. Wake: the driver calls [Engine.Advance] at that time at the latest.
//  11. Manifests: the driver derives the root's manifest from what the store holds, indexes it ([dray.Manifest.Index] takes
//     time that the loop does not have), looks which leaves are there, and answers each with exactly one
//     [Engine.ManifestLoaded]. What is written or removed meanwhile the engine knows by itself.
//  12. Walks: the driver reads the next blocks and answers each with exactly one [Engine.WalkLoaded]. When Walk says Stop, and
//     when the peer is gone, the walk is over: nothing is answered any more, not even what was under way, because the
//     number may mean another walk on the next connection.
//  13. Discards: blocks that were kept early and are not wanted. Their bytes belong to the driver again.
//  14. Sync: the driver syncs the store and then calls [Engine.Synced]. Nothing is said to be durable before.
//  15. Blocks that leave the store are reported with [Engine.Removed], blocks that were found to be there with [Engine.Here].
//     Leaves are demanded by index after [Engine.SetManifest] said true; one that is here is answered at once.
//  16. When a peer turns out to speak another protocol, the driver calls [Engine.Restart] if what was said is lost, and
//     [Engine.PeerUp] again if it is not.
//  17. What is not for everybody the driver says with [Engine.Guard], [Engine.Open] and [Engine.SetGate]. Blocks that are
//     Guarded travel encrypted only; guarded blocks that arrive are known to be so before they come in [Ready.Stores].
//  18. Blocks handed to [Engine.Receive] have been hashed: their CIDs are what their bytes hash to.
//  19. The ledger may outlive the Engine: [Engine.Accounts] tells it, and [Engine.SetAccount] restores it before any peer is
//     up.
//
// # What it does not do
//
// It does not know how messages are spelled (package wire), where blocks lie, or what they mean: walking from a root to its
// leaves is the driver's business, which then wants the leaves.
package exchange
