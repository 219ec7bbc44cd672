// Package wire turns messages into bytes and back: Bitswap 1.2.0, 1.1.0, 1.0.0 and the bare legacy id. It is pure: no
// goroutine, clock, lock, disk or socket, and it enforces every limit of the formats on the way in and on the way out.
//
// A message is read from a frame (an unsigned varint length, then that many bytes) by a [Decoder] whose results alias the
// frame, so a block's bytes are never copied; it is written by [AppendHeader]-style functions that leave the payload to a
// vectored write.
//
// # Terms
//
// A want asks for a block ([WantBlock]) or for whether the other side has it ([WantHave]). A presence answers a want with
// HAVE or DONT_HAVE. A prefix is a CID without its digest: the receiver hashes the data to learn the CID.
//
// # What it does not do
//
// It does not hash, and it does not judge: whether a well-formed message was asked for is the engine's business.
package wire

import (
	"github.com/ipfs/go-cid"
)

// Version is a dialect of Bitswap.
type Version uint8

// The dialects, oldest first. The zero Version is invalid.
const (
	// Legacy is the unversioned "/ipfs/bitswap"; the same format as V100.
	Legacy Version = iota + 1
	// V100 is 1.0.0: CIDv0 only, blocks in field 2, no presences.
	V100
	// V110 is 1.1.0: CIDv1, blocks in field 3 with their prefix.
	V110
	// V120 is 1.2.0: want-have, HAVE and DONT_HAVE, pending bytes.
	V120
)

// WantType says what a want asks for.
type WantType uint8

const (
	// WantBlock asks for the block itself.
	WantBlock WantType = 0
	// WantHave asks whether the other side has the block.
	WantHave WantType = 1
)

// Entry is one line of a want list.
type Entry struct {
	// CID is what is wanted.
	CID cid.Cid
	// Priority orders the wants of one peer, higher first.
	Priority int32
	// Type is what is asked for. Peers before 1.2.0 know only WantBlock.
	Type WantType
	// Cancel withdraws an earlier want; Priority and Type then mean nothing.
	Cancel bool
	// SendDontHave asks for a DONT_HAVE when the block is not there.
	SendDontHave bool
}

// Block is a block as it travels: bytes and the prefix of their CID. The CID is what they hash to.
type Block struct {
	// Prefix is the CID without its digest. For a 1.0.0 block it is that of a CIDv0.
	Prefix cid.Prefix
	// Data aliases the frame that the message was read from.
	Data []byte
}

// Presence answers a want without the block.
type Presence struct {
	// CID is what was asked for.
	CID cid.Cid
	// Have is true for HAVE and false for DONT_HAVE.
	Have bool
}

// Message is one Bitswap message. The zero Message is empty and valid.
type Message struct {
	// Full says that Wants replaces all that was wanted before; otherwise Wants is a change.
	Full bool
	// Wants is the want list.
	Wants []Entry
	// Blocks are the blocks sent, in either field's form.
	Blocks []Block
	// Presences answer wants.
	Presences []Presence
	// PendingBytes is how much the sender still has queued for the receiver.
	PendingBytes int32
}
