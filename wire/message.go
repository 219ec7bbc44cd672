// Package wire turns messages into bytes and back: Bitswap 1.2.0, 1.1.0, 1.0.0 and the bare legacy id. It is pure: no
// goroutine, clock, lock, disk or socket, and it enforces every limit of the formats on the way in and on the way out.
//
// A frame is an unsigned varint length and then a message of that many bytes. [FrameReader] reads frames into buffers of the
// caller's, and [Decode] reads a message out of one; the blocks alias the frame, so their bytes are never copied. On the
// way out [AppendBlockHeader], [PutBlockHeader] and [AppendVectors] write what goes around a block and leave its bytes where
// they are; [AppendMessage] writes a whole message and is meant for those without large blocks.
//
// # Terms
//
// A want asks for a block ([WantBlock]) or for whether the other side has it ([WantHave]). A presence answers a want with
// HAVE or DONT_HAVE. A prefix is a CID without its digest: the receiver hashes the data to learn the CID.
// To ignore an entry is to leave it out and count it in [Message.Ignored]: it is harmless, and nobody could have meant it.
//
// # What it does not do
//
// It does not hash, it does not match blocks with wants or merge what a message says twice, and it does not judge:
// whether a well-formed message was asked for is the engine's business.
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

// Message is one Bitswap message. The zero Message is empty and valid. It is not safe for concurrent use.
type Message struct {
	// Full says that Wants replaces all that was wanted before; otherwise Wants is a change.
	Full bool
	// Wants is the want list.
	Wants []Entry
	// Blocks are the blocks sent, in either field's form.
	Blocks []Block
	// Presences answer wants.
	Presences []Presence
	// PendingBytes is how much the sender still has queued for the receiver after this message.
	PendingBytes int32
	// Ignored counts the entries, blocks and presences that [Decode] left out: identity CIDs, CIDs that are too long or
	// use a hash that is not allowed, and kinds of want and presence that do not exist. Writing a message ignores it.
	Ignored int
}

// keepItems is how many items a slice may have room for and still be kept by Reset: a few hundred kilobytes at most.
const keepItems = 4096

// Reset empties m for reuse. The slices keep their room unless one message made them very large, and hold on to no frame.
func (m *Message) Reset() {
	*m = Message{Wants: emptied(m.Wants), Blocks: emptied(m.Blocks), Presences: emptied(m.Presences)}
}

func emptied[T any](s []T) []T {
	if cap(s) > keepItems {
		return nil
	}
	clear(s)
	return s[:0]
}

// Empty reports whether m says nothing. A full want list without entries says something: nothing is wanted any more.
func (m *Message) Empty() bool {
	return !m.Full && len(m.Wants) == 0 && len(m.Blocks) == 0 && len(m.Presences) == 0 && m.PendingBytes == 0
}

// Clone returns a copy of m that shares nothing with it but the bytes of blocks.
func (m *Message) Clone() *Message {
	c := *m
	c.Wants = append([]Entry(nil), m.Wants...)
	c.Blocks = append([]Block(nil), m.Blocks...)
	c.Presences = append([]Presence(nil), m.Presences...)
	return &c
}
