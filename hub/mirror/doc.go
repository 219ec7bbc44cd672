// Package mirror is a hub.Library over an upstream: another Hub, from which a whole swarm reads each file once.
//
// # Terms
//
// A flow is one file on its way here. Who leads a flow reads the file from the upstream, cuts it into leaves and puts them into
// its store; who follows hears of each leaf over a feed, as soon as it is stored, gets it from whoever has it in the swarm, and
// hands it on. A cut is a stretch of a file that becomes a leaf. The front is how far a flow has come without a gap. Content is
// named by a key, which says what it hashes to, so a file that did not change from one commit to the next is there already.
//
// # The way of a file
//
//  1. Mirror.Open finds that it does not have the content, and makes a flow (mirror.go).
//  2. The flow asks the connected peers how far they are (ask.go), and decides whom to follow or that it leads (lead.go):
//     somebody who has it or is at it, else whoever has most of it, else whoever weighs most for this key.
//  3. A leader reads pieces of the file with Range requests (upstream.go, piece.go) and fills cuts (ingest.go). What readers want
//     that lies far ahead is claimed and read beside that; no byte is asked for twice (claims.go).
//  4. A follower takes the feed (follow.go) and gets the leaves through the exchange.
//  5. Both compute the digest that the upstream's commit promises, and the root, leaf by leaf. Readers (content.go) stream all
//     the while, but for the last leaf, which they get when the whole is known to be right.
//
// # Whom it believes
//
// What a commit holds is asked of the upstream by each node itself, or of a peer that Config.Trusts. The bytes come from anybody
// and must hash to that. A peer that feeds something else is not followed again.
//
// # What it does not do
//
// It does not speak to clients (package hub), decide who is connected or who is trusted, or collect garbage.
package mirror
