// Package node is Dray as a library: it runs the engine of package exchange with a real clock, a real network and a real
// store, and offers what people want of it: [Node.Fetch] brings a file or directory, [Node.Add] makes one available,
// [Node.Tensors] lists what is in a model, [Node.FetchPart] brings some of it and [Node.Stream] hands it over while it
// arrives, [Session] gets single blocks.
//
// # How it is built
//
// One goroutine, the loop, owns the engine and everything that belongs to it. Every other goroutine hands it inputs over
// one bounded channel and is handed work by it: store workers read, look up and write blocks; each peer's link has a
// writer for control messages and a few for blocks; the network's goroutines read frames, have them hashed, and hand in
// verified blocks. The loop never waits for any of them: what cannot be handed out yet stays in queues whose length the
// engine bounds.
//
// The way of a block that somebody else sends, from socket to file:
//
//  1. A reader (reader.go) reads a frame into a buffer from a pool that bounds all bytes under way, and waits for the
//     pool when it is empty, which holds back the sender.
//  2. The block in it is hashed on whichever core is free, and handed to the loop.
//  3. Engine.Receive says whether it is wanted; Ready.Stores hands it to a store worker (work.go), which writes it to its
//     place.
//  4. Engine.Stored answers the waiters, serves peers who wait for it, and the buffer goes back to the pool.
//
// # What it does not do
//
// It decides nothing about whom to ask or serve: that is package exchange. It does not know libp2p or the disk: it is
// handed a transport.Network and a dray.Store.
package node
