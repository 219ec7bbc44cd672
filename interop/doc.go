// Package interop holds tests, and nothing else: Dray's nodes over real sockets against peers that run boxo, the library
// behind Kubo, each in turn serving and fetching. They prove that what the documents say of the protocol is what the rest
// of the network means by it.
//
// # Terms
//
// A boxo peer is a libp2p host with boxo's bitswap, a block service and a store in memory, put together as Kubo does it. It
// may be held to one of Bitswap's protocol ids, to stand for an old release. A Dray peer is a [dray/node.Node] with a store
// on disk, put together as the command line does it.
//
// # What it does not do
//
// It does not measure speed (the bench module), and it does not test hostile peers, which boxo is not (package sim).
package interop
