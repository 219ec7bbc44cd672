package wire

import "dray"

// The protocol ids that streams are opened with. Deployed peers offer all four and prefer the newest (bitswap.md 1.1).
const (
	ProtocolSwap1  = "/dray/tensorswap/1"
	ProtocolV120   = "/ipfs/bitswap/1.2.0"
	ProtocolV110   = "/ipfs/bitswap/1.1.0"
	ProtocolV100   = "/ipfs/bitswap/1.0.0"
	ProtocolLegacy = "/ipfs/bitswap"
)

// The limits of the format (bitswap.md 1.3). Sizes are in bytes.
const (
	// MaxMessageSize is the longest message of Bitswap, without its length prefix. Longer ones are neither written nor
	// read: deployed peers reset the stream.
	MaxMessageSize = 4 << 20

	// MaxFrameSize is the longest frame of TensorSwap, header included, and so the most that [FrameReader.Next] asks room
	// for. Every block fits into a frame of either kind, with a message's number.
	MaxFrameSize = MaxMessageSize + 64

	// MaxWantlistSize is how long a message may become before [Message.Split] begins another.
	MaxWantlistSize = 2 << 20

	// MaxBlocks is the most blocks that one message may carry. A byte of block costs three on the wire but some sixty
	// in memory, so without this a 4 MiB message of nothing but tiny blocks would take 100 MiB. An honest batch of 4 MiB
	// stays below it as long as blocks are 64 bytes long on average.
	MaxBlocks = 1 << 16

	// MaxItems is the most items that all sections of one TensorSwap message may have together. An item takes 3 bytes or
	// more on the wire and 60 in memory, so no message takes more than a few megabytes.
	MaxItems = 1 << 16

	// MaxBlockHeader is the room, in bytes, that [PutBlockHeader] wants in front of a block.
	MaxBlockHeader = 64
)

// Protocols returns the ids of all versions, the preferred one first. The caller owns the slice.
func Protocols() []string {
	return []string{ProtocolSwap1, ProtocolV120, ProtocolV110, ProtocolV100, ProtocolLegacy}
}

// ParseVersion returns the version with the given protocol id, and whether there is one.
func ParseVersion(id string) (Version, bool) {
	switch id {
	case ProtocolSwap1:
		return Swap1, true
	case ProtocolV120:
		return V120, true
	case ProtocolV110:
		return V110, true
	case ProtocolV100:
		return V100, true
	case ProtocolLegacy:
		return Legacy, true
	}
	return 0, false
}

// Protocol returns v's protocol id, or "" when v is none of the versions.
func (v Version) Protocol() string {
	switch v {
	case Swap1:
		return ProtocolSwap1
	case V120:
		return ProtocolV120
	case V110:
		return ProtocolV110
	case V100:
		return ProtocolV100
	case Legacy:
		return ProtocolLegacy
	}
	return ""
}

// Haves reports whether peers of this version understand WantHave, presences and pending bytes. Towards others they are
// left out of what is written.
func (v Version) Haves() bool { return v >= V120 }

// Prefixes reports whether blocks travel with the prefix of their CID. Without one, they are CIDv0 blocks.
func (v Version) Prefixes() bool { return v >= V110 }

// Indexes reports whether the version has TensorSwap's parts of a [Message].
func (v Version) Indexes() bool { return v == Swap1 }

// String returns "bitswap 1.2.0" and the like, for logs.
func (v Version) String() string {
	switch v {
	case Swap1:
		return "tensorswap 1"
	case V120:
		return "bitswap 1.2.0"
	case V110:
		return "bitswap 1.1.0"
	case V100:
		return "bitswap 1.0.0"
	case Legacy:
		return "bitswap legacy"
	}
	return "bitswap unknown"
}

// check returns an error when v is none of the versions: a mistake of the caller's, never of a peer's.
func (v Version) check(op string) error {
	if v < Legacy || v > Swap1 {
		return &dray.Error{Op: op, Err: errVersion}
	}
	return nil
}
