// Package dash is the page on which a person sees what a node does, and the API behind it. It is served by the daemon, needs no
// build step, and asks nobody else for anything.
//
// # Terms
//
// The state is what the page shows, in sections: the node, what passed in each second, transfers, peers, the store, caches,
// jobs, and what happened. A section has a version, which changes when it does. A listener is a page that is open: it is sent
// the sections that changed since what it was sent last, at most twice a second, and the newest of them however slow it is.
//
// # What it does not do
//
// It keeps nothing: while nobody looks, nothing is computed and no timer runs. It does not decide who may look; that is the
// daemon's, as are the words for why a transfer waits. It measures nothing either: package node counts, whether anybody looks or
// not, and package meter is for machines that want numbers.
package dash
