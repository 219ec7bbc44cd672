package dray

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	mhcore "github.com/multiformats/go-multihash/core"
	_ "github.com/multiformats/go-multihash/register/all"    // blake2, sha3, shake, keccak
	_ "github.com/multiformats/go-multihash/register/blake3" // blake3
)

const (
	// MinDigest and MaxDigest bound a digest's length in bytes, as the IPFS network does: shorter ones are not secure,
	// longer ones do not exist.
	MinDigest = 20
	MaxDigest = 128

	// MaxIdentity is the most bytes that an identity CID may carry inside itself (IPIP-512).
	MaxIdentity = 128

	// MaxCIDSize is the longest binary CID, in bytes, that is accepted anywhere: four varints of at most ten bytes and
	// the longest digest.
	MaxCIDSize = 4*10 + MaxDigest
)

// Hash describes one hash function that a CID may use.
type Hash struct {
	// Code is the function's multihash code.
	Code uint64
	// Name is the function's multicodec name, such as "sha2-256".
	Name string
	// Size is the length in bytes of the full digest. A CID may truncate it to no less than [MinDigest].
	Size int
}

// hashes is the allow-list: what Kubo's verifcid accepts, as far as there is code to compute it. Nobody could verify a
// block by keccak-224, keccak-384 or a blake2s other than blake2s-256, so a CID that uses them is refused from the start.
var hashes = makeHashes()

func makeHashes() map[uint64]Hash {
	m := make(map[uint64]Hash)
	add := func(code uint64, size int) {
		name := mh.Codes[code]
		m[code] = Hash{Code: code, Name: name, Size: size}
	}
	add(mh.IDENTITY, MaxIdentity)
	add(mh.SHA1, 20)
	add(mh.SHA2_256, 32)
	add(mh.SHA2_512, 64)
	add(mh.DBL_SHA2_256, 32)
	add(mh.SHA3_224, 28)
	add(mh.SHA3_256, 32)
	add(mh.SHA3_384, 48)
	add(mh.SHA3_512, 64)
	add(mh.SHAKE_256, 64)
	add(mh.KECCAK_256, 32)
	add(mh.KECCAK_512, 64)
	add(mh.BLAKE3, 32)
	for n := uint64(MinDigest); n <= 64; n++ {
		add(mh.BLAKE2B_MIN+n-1, int(n))
	}
	add(mh.BLAKE2S_MAX, 32)
	return m
}

// LookupHash returns the hash function with the given multihash code, and whether it is on the allow-list.
func LookupHash(code uint64) (Hash, bool) {
	h, ok := hashes[code]
	return h, ok
}

// Sum appends to dst the digest of data under the hash function code, truncated to size bytes, and returns the extended
// slice. A size of 0 or -1 means the full digest. It returns [ErrBadCID] for a function that is not allowed or a size that
// it cannot give. For sha2-256 into a dst with room it does not allocate. It is safe for concurrent use.
func Sum(code uint64, size int, dst, data []byte) ([]byte, error) {
	h, ok := hashes[code]
	if !ok {
		return nil, fmt.Errorf("%w: hash function 0x%x is not allowed", ErrBadCID, code)
	}
	if code == mh.IDENTITY {
		if len(data) > MaxIdentity || (size > 0 && size != len(data)) {
			return nil, fmt.Errorf("%w: identity of %d bytes", ErrBadCID, len(data))
		}
		return append(dst, data...), nil
	}
	if size <= 0 {
		size = h.Size
	}
	if size < MinDigest || (size > h.Size && code != mh.BLAKE3) || size > MaxDigest {
		return nil, fmt.Errorf("%w: %s cannot give %d bytes", ErrBadCID, h.Name, size)
	}
	switch code {
	case mh.SHA2_256:
		sum := sha256.Sum256(data)
		return append(dst, sum[:size]...), nil
	case mh.SHA2_512:
		sum := sha512.Sum512(data)
		return append(dst, sum[:size]...), nil
	}
	f, err := mhcore.GetVariableHasher(code, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadCID, err)
	}
	f.Write(data)
	sum := f.Sum(nil)
	if len(sum) < size {
		return nil, fmt.Errorf("%w: %s cannot give %d bytes", ErrBadCID, h.Name, size)
	}
	return append(dst, sum[:size]...), nil
}

// CheckCID reports, as an [*Error] wrapping [ErrBadCID], why c may not be used: undefined, too long, of an unknown
// version, with a hash function that is not allowed or a digest of the wrong length. A nil result means that a block can
// be verified against c.
func CheckCID(c cid.Cid) error {
	if !c.Defined() {
		return &Error{Op: "check", Err: fmt.Errorf("%w: undefined", ErrBadCID)}
	}
	if n := c.ByteLen(); n > MaxCIDSize {
		return &Error{Op: "check", Err: fmt.Errorf("%w: %d bytes long, at most %d", ErrBadCID, n, MaxCIDSize)}
	}
	code, digest, err := splitMultihash(c.Hash())
	if err != nil {
		return &Error{Op: "check", CID: c, Err: fmt.Errorf("%w: %w", ErrBadCID, err)}
	}
	return checkDigest(c, code, len(digest))
}

// AllowedDigest reports whether a CID may use the hash function code with a digest of size bytes: the rule of [CheckCID]
// for callers that have no CID yet or look at thousands, so it neither allocates nor explains.
func AllowedDigest(code uint64, size int) bool {
	if (code == mh.SHA2_256 || code == mh.BLAKE3) && size == 32 {
		return true // nearly every CID, and no map look-up
	}
	h, ok := hashes[code]
	switch {
	case !ok:
		return false
	case code == mh.IDENTITY:
		return size >= 0 && size <= MaxIdentity
	}
	return size >= MinDigest && size <= MaxDigest && (size <= h.Size || code == mh.BLAKE3)
}

func checkDigest(c cid.Cid, code uint64, n int) error {
	if AllowedDigest(code, n) {
		return nil
	}
	h, ok := hashes[code]
	switch {
	case !ok:
		return &Error{Op: "check", CID: c, Err: fmt.Errorf("%w: hash function 0x%x is not allowed", ErrBadCID, code)}
	case code == mh.IDENTITY:
		return &Error{Op: "check", CID: c, Err: fmt.Errorf("%w: identity of %d bytes, at most %d", ErrBadCID, n, MaxIdentity)}
	}
	return &Error{Op: "check", CID: c, Err: fmt.Errorf("%w: %s digest of %d bytes", ErrBadCID, h.Name, n)}
}

// IsIdentity reports whether c carries its bytes inside itself. Such a CID is never put on the wire: there is nothing to
// fetch.
func IsIdentity(c cid.Cid) bool {
	code, _, err := splitMultihash(c.Hash())
	return err == nil && code == mh.IDENTITY
}

// CIDFromDigest returns the CID with the given prefix and digest. It returns [ErrBadCID] when the version is unknown or
// a version 0 CID is asked for with anything but dag-pb and a 32-byte sha2-256.
func CIDFromDigest(prefix cid.Prefix, digest []byte) (cid.Cid, error) {
	var room [MaxCIDSize]byte
	b := room[:0]
	b = binary.AppendUvarint(b, prefix.MhType)
	b = binary.AppendUvarint(b, uint64(len(digest)))
	b = append(b, digest...)
	switch prefix.Version {
	case 0:
		if prefix.MhType != mh.SHA2_256 || len(digest) != sha256.Size || (prefix.Codec != cid.DagProtobuf && prefix.Codec != 0) {
			return cid.Undef, fmt.Errorf("%w: a version 0 CID is dag-pb with a 32-byte sha2-256", ErrBadCID)
		}
		return cid.NewCidV0(mh.Multihash(b)), nil
	case 1:
		return cid.NewCidV1(prefix.Codec, mh.Multihash(b)), nil
	}
	return cid.Undef, fmt.Errorf("%w: version %d", ErrBadCID, prefix.Version)
}

// splitMultihash returns the function code and the digest inside m, without copying.
func splitMultihash(m mh.Multihash) (code uint64, digest []byte, err error) {
	code, n := binary.Uvarint(m)
	if n <= 0 {
		return 0, nil, mh.ErrTooShort
	}
	size, k := binary.Uvarint(m[n:])
	if k <= 0 || size != uint64(len(m)-n-k) {
		return 0, nil, mh.ErrInvalidMultihash
	}
	return code, m[n+k:], nil
}

// HashKey returns the multihash inside c as a part of c's own memory: what blocks are the same by, whatever version and
// codec a CID gives them. It is empty for an undefined or truncated CID.
func HashKey(c cid.Cid) string {
	s := c.KeyString()
	if len(s) == 34 && s[0] == mh.SHA2_256 && s[1] == sha256.Size {
		return s // version 0
	}
	for range 2 { // version, codec
		n := 0
		for n < len(s) && s[n] >= 0x80 {
			n++
		}
		if n >= len(s) {
			return ""
		}
		s = s[n+1:]
	}
	return s
}
