// Package gateway serves content over HTTP to clients that know IPFS gateways, or nothing but HTTP: blocks and CARs
// that they can verify, and plain files and directories, with ranges. It implements the Trustless Gateway and the Path
// Gateway specifications (specs.ipfs.tech/http-gateways) for the namespace /ipfs, with boxo's gateway library for what
// is said in headers.
//
// # Terms
//
// A request is one HTTP request and all that is done for it. Content is local when it is on this machine, and otherwise
// fetched for as long as the request lasts. A block is public when everybody may have it; all others are as if nobody
// had them, in what is answered and in how long that takes.
//
// # The way of a request
//
//  1. [Gateway.ServeHTTP] refuses what cannot be meant: other namespaces, paths with dots, more ranges than anybody
//     needs. It brings headers into the form in which boxo understands them.
//  2. Boxo's handler resolves the path, decides what is to be sent, and writes the header into a writer that keeps it.
//     It finds blocks through the backend here, which reads package unixfs's way and leaves everything that is no UnixFS
//     to boxo.
//  3. The body of a file or block is then sent by range straight from where it lies, a piece at a time, so that a
//     thousand slow readers take a thousand pieces of memory and not a thousand blocks. CARs are walked while they are
//     sent.
//  4. The header goes out with the first piece. So whatever fails before has an answer of its own, and whatever fails
//     later cuts the connection: a client never takes half a body for a whole one.
//
// # What it does not do
//
// It serves nothing mutable (/ipns), no subdomains and no DNSLink, it writes nothing, and it has no list of what to
// refuse. It does not find peers: it is handed whoever fetches. It keeps no copies; what is fetched is kept by the
// store, or not.
package gateway
