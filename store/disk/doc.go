// Package disk is the store on a disk: an index of every block, and the bytes wherever they lie best.
//
// # Where the bytes of a block lie
//
//   - A leaf of a file that the user has is a *reference*: a file, an offset and a size, and the few bytes of framing (head
//     and tail) that stand around file content in a dag-pb leaf. The bytes exist once, in the user's own file. References
//     come from [Store.Reference] (a file that is there already) and from [Store.Grow] (a file that is being fetched).
//   - A small block (up to [Config].SmallBlock) that is no leaf lies in the index itself.
//   - Any other block lies in a *segment*: an append-only file of records.
//
// One block may lie in several places; a place that turns out bad is dropped and the next one is used.
//
// # Written and synced
//
// Put returns when a block is *written*: it is found by Get, and it survives the end of the process, because its bytes are
// with the kernel. A background committer then makes everything written *synced*, in groups: first the data files are
// flushed, then one batch of the index. The index therefore never names bytes that a power cut could take away. After an
// unclean stop the rest is found again: segments and the journal of small blocks are scanned from the last synced record,
// and a growing file's unrecorded parts are hashed once their leaves are expected again ([Growing.Recover]).
//
// # Files that change
//
// A referenced file belongs to the user, who may change it. Each read compares the file's identity (inode, size,
// modification and change time) with the one recorded, before and after; when they differ, or when the file was modified
// so shortly before it was indexed that its time could not tell, the block is hashed before it is served. A block that no
// longer matches is forgotten and reported as [dray.ErrChanged].
//
// # What it does not do
//
// It does not chunk or lay out files (package unixfs), decide what to keep (the caller deletes), copy user files, or count
// references between blocks: Delete forgets one block, and whoever removes a root works out which blocks no other root
// needs.
package disk
