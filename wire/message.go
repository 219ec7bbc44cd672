// Package wire turns messages into bytes and back: Bitswap 1.2.0, 1.1.0, 1.0.0 and the bare legacy id, and TensorSwap 1,
// the protocol between two Drays. It is pure: no goroutine, clock, lock, disk or socket, and it enforces every limit of the
// formats on the way in and on the way out. docs/wire.md specifies both formats.
//
// A frame of Bitswap is an unsigned varint length and then a message of that many bytes; one of TensorSwap is a header of
// fixed size and then sections or the bytes of one block. [FrameReader] reads frames into buffers of the
// caller's, and [Decode] reads a message out of one; the blocks alias the frame, so their bytes are never copied. On the
// way out [AppendBlockHeader], [PutBlockHeader] and [AppendVectors] write what goes around a block and leave its bytes where
// they are; [AppendMessage] writes a whole message and is meant for those without large blocks.
//
// # Terms
//
// A want asks for a block ([WantBlock]) or for whether the other side has it ([WantHave]). A presence answers a want with
// HAVE or DONT_HAVE. A prefix is a CID without its digest: the receiver hashes the data to learn the CID.
// A feed is a root about whose leaves two hosts talk by index, and a run is leaves of a feed that follow each other.
// To ignore an entry is to leave it out and count it in [Message.Ignored]: it is harmless, and nobody could have meant it.
// TensorSwap ignores nothing: what no Dray writes is refused.
//
// # What it does not do
//
// It does not hash, it does not match blocks with wants or merge what a message says twice, and it does not judge:
// whether a well-formed message was asked for is the engine's business.
package wire

import (
	"github.com/ipfs/go-cid"
)

// Version is a dialect: of Bitswap, or TensorSwap.
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
	// Swap1 is TensorSwap 1, the protocol between two Drays: everything that V120 has, and the parts of a [Message] that are
	// said to be TensorSwap's.
	Swap1
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
	// Falls says that of several Leaves each has a priority one lower than the one before; otherwise all have the same.
	Falls bool
	// Feed is, with a CID in TensorSwap, the number of the root that the block is wanted of; 0 says none. What is not for
	// everybody is sent only to who names a root of it.
	Feed uint32
	// Leaves is TensorSwap's other spelling of CID. When it is set, that is what is written, and entries that are alike but
	// for consecutive leaves are written as one; what was read has only Leaves, and no CID.
	Leaves Leaves
}

// PriorityOf returns the priority of leaf i, one of Leaves.
func (e *Entry) PriorityOf(i uint32) int32 {
	if e.Falls {
		return e.Priority - int32(i-e.Leaves.First)
	}
	return e.Priority
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
	// Leaves is TensorSwap's other spelling of CID, as in an [Entry].
	Leaves Leaves
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

	// The following are TensorSwap's.

	// Seq numbers the messages of the state lane of a connection: 1 for the one that says Full, then one more each time.
	// Messages that only carry blocks have 0, and no others.
	Seq uint64
	// Continues says that this goes on with the message before it and has the same Seq: one message was split into several.
	Continues bool
	// Credit is how many bytes of blocks the sender lets the receiver send in all since the connection began; 0 says nothing
	// new. A block may be begun while any credit is left.
	Credit uint64
	// Info says what the sender is up to.
	Info Info
	// Follows, Haves, Walks and Walked are about roots. The order of a message is: follows, wants, presences, haves, walks,
	// blocks, and at last walked.
	Follows []Follow
	Haves   []Have
	Walks   []Walk
	Walked  []Walked

	// Ignored counts the entries, blocks and presences that [Decode] left out: identity CIDs, CIDs that are too long or
	// use a hash that is not allowed, and kinds of want and presence that do not exist. Writing a message ignores it.
	Ignored int
}

// keepItems is how many items a slice may have room for and still be kept by Reset: a few hundred kilobytes at most.
const keepItems = 4096

// Reset empties m for reuse. The slices keep their room unless one message made them very large, and hold on to no frame.
func (m *Message) Reset() {
	*m = Message{
		Wants: emptied(m.Wants), Blocks: emptied(m.Blocks), Presences: emptied(m.Presences),
		Follows: emptied(m.Follows), Haves: emptied(m.Haves), Walks: emptied(m.Walks), Walked: emptied(m.Walked),
	}
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
	return !m.Full && len(m.Wants) == 0 && len(m.Blocks) == 0 && len(m.Presences) == 0 && m.PendingBytes == 0 &&
		m.Credit == 0 && !m.Info.Set && len(m.Follows)+len(m.Haves)+len(m.Walks)+len(m.Walked) == 0
}

// Clone returns a copy of m that shares nothing with it but the bytes of blocks and bitmaps.
func (m *Message) Clone() *Message {
	c := *m
	c.Wants = append([]Entry(nil), m.Wants...)
	c.Blocks = append([]Block(nil), m.Blocks...)
	c.Presences = append([]Presence(nil), m.Presences...)
	c.Follows = append([]Follow(nil), m.Follows...)
	c.Haves = append([]Have(nil), m.Haves...)
	c.Walks = append([]Walk(nil), m.Walks...)
	c.Walked = append([]Walked(nil), m.Walked...)
	return &c
}
