// Package store holds the stores that need no disk: [Mem] keeps blocks in memory, and [Counting] tells how another store
// is used.
//
// A store addresses blocks by multihash and never hashes what it is given: a [dray.Block] is verified by construction.
// What every store must do is in the suite of package store/storetest; the store on a disk is package store/disk.
//
// # What it does not do
//
// It does not fetch, evict or count references. A bounded store that is full refuses; what to delete is for the caller.
package store
