// Command bench measures Dray side by side with the programs it wants to beat and with the best that the machine can
// do, in one run, with every party in a process of its own and every byte on disk.
//
// # Terms
//
// A row is one pairing of a server and a client over one data set, directly or through a link; or a swarm, in which one
// has a file and several get it at the same time, from it and from each other. A round runs every row once; rounds
// repeat, so that a slow minute of the machine falls on all rows alike, and the table shows medians.
//
// A party is one side of a row:
//
//   - dray (the command line program), dray-auth (the same with its data plane in clear), dray-node (the library, for
//     what the program does not print);
//   - dray and curl as clients of a Hub: each at a dray of its own that has an upstream, or at the upstream;
//   - boxo (the library behind Kubo, set up as Kubo sets it up), kubo (the program), torrent (libtorrent), rsync, and
//     curl with Go's HTTP server;
//   - ideal (TLS socket, hash, file and no protocol at all), p2p (the same over Dray's own libp2p transport), clear and
//     clear1 (the same over two bare TCP connections, and over one).
//
// A data set is a file, a tensor file that is mostly holes, a linked list or a star of tiny blocks, made once before
// the first round. The link is a relay process with a delay, a rate and bounded buffers in each direction.
//
// The time of a row runs from the start of the client's process to its end. "Synced" runs on until the operating system
// has written what the client left in its caches, which puts programs that sync by themselves and programs that never
// do on one scale. In a swarm all processes are up before the clock starts, which stops when the last has the file.
//
// What is received is compared with its source, outside the timed part; a difference is a failure, and so is a data
// plane that is not the one that was asked for. A row whose program is not installed is listed with the reason.
//
// With the first argument faults it is another bench: what a transfer does when its path, its peers or its disk fail. See
// package faults.
//
// With the first argument idle it measures what a daemon costs while nothing is asked of it: how long it takes to be ready,
// and its memory and CPU with peers connected.
//
// # What it does not do
//
// It does not change what a rival does by default in order to make it slow or fast, save for what the report says, and
// it does not measure a network card: loopback and the link are the only networks.
package main
