package wire

import (
	"github.com/ipfs/go-cid"

	"dray"
)

// TensorSwap says what Bitswap says, and more, in fewer bytes. Both are spellings of one [Message]; what follows are the
// parts that only TensorSwap has, and that are left out when a message is written in Bitswap. docs/wire.md has every byte.
//
// A feed is a root about whose leaves two hosts talk by index: leaf i of the manifest, which each of them derives from the
// skeleton. The host that wants to hear about a root gives it a number, with [Follow]; the number means that root for as
// long as the connection lasts, and only towards that host: in its own entries, and in the other's answers.

// Leaves is a run of leaves of a feed, the second spelling of a CID. The zero Leaves is none: the CID counts.
type Leaves struct {
	// Feed is the number that the wanting side gave the root; 0 means that there is no run.
	Feed uint32
	// First is the index of the first leaf.
	First uint32
	// Count is how many leaves are meant; 0 counts as 1.
	Count uint32
}

// N returns how many leaves are meant: Count, or 1 when it is 0.
func (l Leaves) N() uint32 { return max(l.Count, 1) }

// Follow asks to be told which leaves of a root the other side has: now, and whenever that changes. Nobody is told of
// what he does not follow.
type Follow struct {
	// Feed is the number that the sender gives the root; not 0. A number that was given is never given to another root.
	Feed uint32
	// Root is the root; it is written each time.
	Root cid.Cid
	// First and Count bound the leaves of interest; a Count of 0 means all from First on. A later Follow of the same feed
	// replaces the range.
	First, Count uint32
	// Durable asks to be told of leaves only when they would survive a loss of power, so that the sender can count copies.
	Durable bool
	// Stop ends the interest.
	Stop bool
	// Proof shows that the sender may have the root, or one that it lies under. It is none for what is open, and when Stop is
	// set.
	Proof dray.Proof
}

// Have tells a follower what the sender has, or has no longer.
type Have struct {
	// Feed is the receiver's number for the root.
	Feed uint32
	// Leaves is how many leaves the sender's manifest of the root has. Both derive it, so it must be the receiver's too.
	Leaves uint32
	// Lost says that the sender has the leaves no longer.
	Lost bool
	// Denied says that the proof with the follow is not accepted, or no longer. Then nothing else counts but Feed.
	Denied bool
	// Bits are the leaves: of those where it is 1, the sender has become able (or unable) to send them.
	Bits Bits
}

// Walk asks for many blocks at once: the graph under a root, as far as the other side has it, parents before children. The
// answer is blocks in messages on the control stream, and at last a [Walked]. Each block follows one that links to it.
type Walk struct {
	// ID ties the answer to the question; not 0, not used twice in a connection.
	ID uint32
	// Root is where the walk begins.
	Root cid.Cid
	// Depth is how many links deep it goes; 0 means as deep as there is.
	Depth uint32
	// Bytes bounds the blocks of the answer together.
	Bytes uint64
	// Leaves asks for the leaves of files too, for graphs that are wanted whole. Without it the answer is the skeleton:
	// all nodes above the leaves, and the header leaf of tensor files.
	Leaves bool
	// Push is how many bytes of leaves the other side may send after the skeleton as if they had been asked for.
	Push uint64
	// Spread lets the other side choose which: those it has sent least often. Without it, they are the first it has.
	Spread bool
	// Stop takes the question back; only ID counts then.
	Stop bool
	// Proof is what it is in a [Follow].
	Proof dray.Proof
}

// Walked ends the answer to a [Walk].
type Walked struct {
	// ID is the question's.
	ID uint32
	// Status says how far the walk went.
	Status WalkStatus
	// Leaves is how many leaves the sender's manifest of the root has, when Pushed is not empty.
	Leaves uint32
	// Pushed are the leaves that follow unasked, by index in the root's manifest.
	Pushed Bits
}

// WalkStatus says how a walk ended.
type WalkStatus uint8

// How a walk ended.
const (
	// WalkWhole means that everything asked for was sent.
	WalkWhole WalkStatus = iota
	// WalkPart means that a bound was reached, or that blocks are missing: what was sent is right, and not all.
	WalkPart
	// WalkAbsent means that the root is not there.
	WalkAbsent
	// WalkRefused means that the other side is busy with other walks.
	WalkRefused
	// WalkDenied means that the proof with the walk is not accepted, or no longer.
	WalkDenied
)

// Info says what the sender is up to. A connection begins with both true.
type Info struct {
	// Set is true when the message carries an Info.
	Set bool
	// Uploading says that the sender answers wants.
	Uploading bool
	// Downloading says that the sender wants something, or will.
	Downloading bool
}
