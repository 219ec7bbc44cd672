// Package access says who may have what: which peers are members, which roots are for members or for those who hold a
// capability, and how a peer proves that it holds one. It decides nothing else and waits for nothing: package node hands
// its [Gate] to the engine, and writes what is to be remembered.
//
// # Terms
//
// A member is a peer that stands in the members file, which people write. A rule says of one root that it is not for
// everybody: it is for members, or for those who hold one of its capabilities, or for both. A root without a rule is open.
// A capability is a secret of 32 random bytes and what people call it; whoever has a private ticket has one. A proof shows
// one peer that another holds it: it holds for one root, from one peer, to one peer, so whoever hears it cannot use it.
//
// Roots are told apart by their hashes, not by how a CID spells them.
//
// # What it does not do
//
// It does not find out which blocks lie under a root (package node does) and does not withhold them (package exchange
// does). It draws no random numbers and knows no files: both are given in. It does not encrypt: who has a block may give it
// to anybody.
package access
