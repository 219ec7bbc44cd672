package transport

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// Announcer tells others that this host holds what lies under a root, so that their Finders find it. Implementations are safe
// for concurrent use.
type Announcer interface {
	// Announce says that this host holds the root c. It returns when the record is where others look, with the time for which
	// it is kept there: the caller announces again before that is over, for as long as it holds the root. Nothing takes a
	// record back; it is forgotten when it is not repeated. The error is ctx's, or says that nobody took the record.
	Announce(ctx context.Context, c cid.Cid) (kept time.Duration, err error)
}

// Discoverer notices the peers around this host without being asked for anything, such as those on the same local network.
type Discoverer interface {
	// Discover calls found for each peer that is seen, with the addresses that it says it has, and again when they change, until
	// ctx ends or the network cannot be listened to. Calls come one at a time and must not block. What is found is a stranger's
	// claim: the peer has proven nothing, and it may not be there. The error is ctx's, or says why nobody can be seen.
	Discover(ctx context.Context, found func(Peer)) error
}

// Judge is a [Finder] that learns from what became of what it found. Its methods must not block.
type Judge interface {
	Finder

	// Reached says that a peer has become connected, from whichever side, or with an error, that it could not be dialled.
	Reached(p dray.PeerID, err error)

	// Held says whether a peer had what was looked for, once that is known.
	Held(c cid.Cid, p dray.PeerID, has bool)
}
