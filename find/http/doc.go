// Package delegated is delegated routing V1 over HTTP (https://specs.ipfs.tech/routing/http-routing-v1/): a [Client] that asks a
// router who provides a CID or where a peer is, and a [Server] that answers such questions. Both speak JSON and streams of it
// (application/x-ndjson) and the filters of IPIP-484.
//
// # Terms
//
// A router is a server that knows providers. A record is a peer with its addresses and the protocols that it is said to speak, of
// the schema "peer"; the older schema "bitswap" is read and not written.
//
// # What it does not do
//
// It does not publish: V1 has no way that is in use. It does not resolve or publish IPNS names: the server says so with 501. It
// decides nothing about whom to believe; the addresses it returns are what the router said, as far as they can be read.
//
// Boxo's client and server are what it is tested against, both ways. They are not used themselves, because their records hold
// libp2p's types, which stay in transport/p2p, and because linking them registers metrics at every start.
package delegated
