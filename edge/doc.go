// Package edge is a bounded cache in front of origins: web servers, buckets, IPFS gateways and the swarm. Clients ask
// it over HTTP for /edge/NAME/path, where NAME is what the settings call an origin.
//
// # Terms
//
// An origin is what a NAME stands for: one or several sources with the same content. A source is one server. An
// object is what a source has under a path: its validator (ETag or Last-Modified), its size, and until when it may be
// served without asking again. A segment is a stretch of an object of a fixed size, the last one being shorter. A
// leaf is the bytes of a segment, or a block, known by its multihash; it is what the cache holds, in a file of its
// own, and what is admitted and evicted. A run is one answer of a source that is being read, over one or more
// consecutive segments, for all who want any of them.
//
// # How it works
//
//  1. A request for an object that is not known, or no longer fresh, asks a source once for all who want to know.
//  2. Each segment that is wanted is read from the cache, or from a run that is about to come to it, or else from a
//     new run.
//  3. A run belongs to those who read from it. Readers come and go; it ends when it is through, or a moment after the
//     last reader has left. It pauses when it is ahead of all of them.
//  4. A segment that has come is hashed and offered to the cache, which keeps it or not (W-TinyLFU, by size), and may
//     drop others for it.
//
// A segment is 1 MiB, the leaf of the profile "native": a range of a few bytes of a file of 100 GB fetches 1 MiB, and
// reading all of it is one request nevertheless, because a run goes on over segments as long as somebody reads.
//
// # Where bytes are
//
// Leaves lie in a directory of their own, and not in the home's store, for two reasons. The store shares blocks
// between roots, so that deleting one that was evicted here could take it from a root of the user's. And the store
// gives space back when most of a segment file is dead, so what is on the disk would be several times what the cache
// is bounded to; a file for each leaf is gone when it is evicted. The cache counts what a leaf takes of the disk: its
// size rounded up to 4 KiB.
//
// What is served by CID is verified before anybody sees it, is always fresh, and is never invalidated. What is served
// by name is what the source says, over the connection that it was asked on.
//
// # What it does not do
//
// It stores nothing that must not be shared: answers to requests with credentials of the client's, that a source
// calls private or no-store, that set cookies, or that vary by anything but encodings. They pass through. It does not
// compress: it asks for bytes as they are. It does not answer with several ranges at once. It does not write to
// origins.
package edge
