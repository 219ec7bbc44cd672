// Package seek looks for who holds what. [Finder] asks several finders in turn and remembers what they said, by the rules of
// package find; [Peers] is one of them, which asks the peers that this host is connected to and answers them; [Announce] repeats
// what of this host others are to find.
//
// # Terms
//
// A flight is one search that all who look for the same CID share. A teller is a peer that names other peers: what it says is a
// hint, of which only so much is believed, and only such addresses as could be reached from where the teller is.
//
// # What it does not do
//
// It does not dial whom it finds, and it does not know what others hold: it passes on what they say. It knows no sockets and no
// libp2p: the finders, the announcers and the way to ask a peer are given in.
package seek
