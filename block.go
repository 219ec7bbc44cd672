package dray

import (
	"bytes"
	"fmt"

	"github.com/ipfs/go-cid"
)

// MaxBlockSize is the largest block, in bytes, that Dray makes, keeps or accepts. A Bitswap message may be 4 MiB
// (4,194,304 bytes) including its envelope, and 18 bytes is the smallest envelope that deployed peers accept, so this is
// the largest block that still passes every peer. Peers need only support 2 MiB; nothing here creates more than that.
const MaxBlockSize = 4<<20 - 18

// Block is bytes together with the CID that they hash to. The zero Block holds no bytes and an undefined CID. A Block made
// by [NewBlock] is verified: holding one is proof that the hash was computed. Blocks are values; the bytes are shared by
// all copies and must not be changed.
type Block struct {
	cid  cid.Cid
	data []byte
}

// NewBlock hashes data and returns it as a Block if it matches c. The Block keeps data without copying it, so the caller
// must not change data afterwards. It returns an [*Error] wrapping [ErrCorrupt] when the bytes do not match, and
// [ErrBadCID] when c's hash function or digest length is not allowed.
func NewBlock(c cid.Cid, data []byte) (Block, error) {
	if err := CheckCID(c); err != nil {
		return Block{}, err
	}
	mh := c.Hash()
	code, digest, err := splitMultihash(mh)
	if err != nil {
		return Block{}, &Error{Op: "verify", CID: c, Err: fmt.Errorf("%w: %w", ErrBadCID, err)}
	}
	var room [MaxDigest]byte
	sum, err := Sum(code, len(digest), room[:0], data)
	if err != nil {
		return Block{}, &Error{Op: "verify", CID: c, Err: err}
	}
	return SealBlock(c, sum, data)
}

// SealBlock returns data as a Block if digest, which the caller has just computed over exactly these bytes with c's hash
// function, equals the digest inside c. It is the constructor for code that hashes many blocks at a time (package digest);
// everything else uses [NewBlock]. It returns an [*Error] wrapping [ErrCorrupt] on a mismatch.
func SealBlock(c cid.Cid, digest, data []byte) (Block, error) {
	_, want, err := splitMultihash(c.Hash())
	if err != nil {
		return Block{}, &Error{Op: "verify", CID: c, Err: fmt.Errorf("%w: %w", ErrBadCID, err)}
	}
	if !bytes.Equal(want, digest) {
		return Block{}, &Error{Op: "verify", CID: c, Err: fmt.Errorf("%w: %d bytes hash to %x", ErrCorrupt, len(data), digest)}
	}
	return Block{cid: c, data: data}, nil
}

// Hashed returns data as a Block whose CID is prefix with the digest that data hashes to: the way blocks are made rather
// than checked. It returns [ErrBadCID] when prefix names a hash function or length that is not allowed.
func Hashed(prefix cid.Prefix, data []byte) (Block, error) {
	var room [MaxDigest]byte
	sum, err := Sum(prefix.MhType, prefix.MhLength, room[:0], data)
	if err != nil {
		return Block{}, &Error{Op: "hash", Err: err}
	}
	c, err := CIDFromDigest(prefix, sum)
	if err != nil {
		return Block{}, &Error{Op: "hash", Err: err}
	}
	return Block{cid: c, data: data}, nil
}

// CID returns the block's CID.
func (b Block) CID() cid.Cid { return b.cid }

// Data returns the block's bytes. They are shared and must not be changed.
func (b Block) Data() []byte { return b.data }

// Size returns the number of bytes in the block.
func (b Block) Size() int { return len(b.data) }

// String names the block by its CID and size, for logs.
func (b Block) String() string { return fmt.Sprintf("%v (%d bytes)", b.cid, len(b.data)) }
