// Package unixfs turns files and directories into DAGs of blocks and back: chunk sizes and layouts that give the same
// CIDs as `ipfs add` ([Profile], [Builder], [DirBuilder]), the shape of single blocks ([Parse], [SplitLeaf],
// [Links]), the way from a root to the list of its leaves ([Walk], [Resolve]), reading a file block by block
// ([Reader]), and CAR archives ([WriteCAR], [ReadCAR]).
//
// # Terms
//
// A leaf is a block that carries file bytes, its content. A raw leaf is nothing but content; a dag-pb leaf wraps it
// in a few bytes before (the head) and after (the tail). An interior node lists the blocks below it with the number
// of content bytes under each. A directory lists names; a large one is a tree of shards (a HAMT: hash array mapped
// trie), where the bits of a name's hash say which link to follow. Tsize is what the sum of all blocks under a link
// weighs, counting repeated blocks every time; nobody checks it, so it is only ever a hint here.
//
// The formats are those of the IPFS specifications: dag-pb (https://ipld.io/specs/codecs/dag-pb/spec/), UnixFS
// (https://specs.ipfs.tech/unixfs/), its CID profiles (IPIP-499) and CAR (https://ipld.io/specs/transport/car/).
//
// # What it does not do
//
// It starts no goroutine, holds no lock, opens no file and no connection. It does not hash file content: package node
// does that on all cores and hands in the CIDs. It does not fetch: [Walk] says which blocks it needs and is fed with
// them, and where a function takes a [dray.Getter] the caller decides what stands behind it. It does not write files,
// and it writes no modes or times into the DAG, because they would change the CIDs.
package unixfs
