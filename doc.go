// Package dray holds the nouns of the system: a [Block] is bytes and the CID that they hash to, a [Getter] finds blocks, a
// [Store] keeps them, a [Manifest] lists the leaves under a root, a [PeerID] names a peer, and an [Error] says which of
// them a failure is about.
//
// Everything above this package passes these values around; nothing here talks to a network, a disk or a clock. The hash
// functions that blocks may use stand in one table ([LookupHash]), which is the allow-list of the whole system.
//
// # What it does not do
//
// It does not decide which peer to ask (package exchange), how bytes travel (packages wire and transport), where they lie
// (packages store and store/disk) or how files become blocks (package unixfs).
package dray
