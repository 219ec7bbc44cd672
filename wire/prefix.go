package wire

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"

	"dray"
)

// prefixV0 is what every block of versions before 1.1.0 has for a prefix.
var prefixV0 = cid.Prefix{Version: 0, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32}

var (
	errNoCID       = errors.New("missing")
	errCIDVersion  = errors.New("unknown version")
	errCIDLength   = errors.New("length does not match the digest's")
	errPrefixV0    = errors.New("version 0 is dag-pb with a 32-byte sha2-256")
	errNotAllowed  = errors.New("hash function or digest length not allowed")
	errIdentity    = errors.New("identity CIDs do not travel")
	errNeedsPrefix = errors.New("this version carries CIDv0 blocks only")
)

// AppendPrefix appends p as it stands in a block's prefix field: version, codec, hash function and digest length as
// varints (bitswap.md 1.2). CIDv1, raw, sha2-256 is 01 55 12 20; CIDv0 is 00 70 12 20.
func AppendPrefix(dst []byte, p cid.Prefix) []byte {
	dst = binary.AppendUvarint(dst, p.Version)
	dst = binary.AppendUvarint(dst, p.Codec)
	dst = binary.AppendUvarint(dst, p.MhType)
	return binary.AppendUvarint(dst, uint64(p.MhLength))
}

func prefixSize(p cid.Prefix) int {
	return uvarintSize(p.Version) + uvarintSize(p.Codec) + uvarintSize(p.MhType) + uvarintSize(uint64(p.MhLength))
}

// ParsePrefix reads what [AppendPrefix] writes. Like deployed peers it wants shortest varints, ignores what follows them,
// and takes any codec in a version 0 prefix, which it returns as dag-pb, the only one there is. It says nothing about
// whether the hash is allowed. The error wraps [dray.ErrBadCID].
func ParsePrefix(b []byte) (cid.Prefix, error) {
	f, _, err := prefixFields(b)
	if err != nil {
		return cid.Prefix{}, err
	}
	p := cid.Prefix{Version: f[0], Codec: f[1], MhType: f[2], MhLength: int(min(f[3], math.MaxInt32))}
	switch {
	case p.Version > 1:
		return cid.Prefix{}, badCID(errCIDVersion)
	case p.Version == 0 && (p.MhType != mh.SHA2_256 || p.MhLength != 32):
		return cid.Prefix{}, badCID(errPrefixV0)
	case p.Version == 0:
		p.Codec = cid.DagProtobuf
	}
	return p, nil
}

// prefixFields reads the four varints of the prefix that b begins with, and returns their length together.
func prefixFields(b []byte) (f [4]uint64, size int, err error) {
	for i := range f {
		x, n, err := shortest(b[size:])
		if err != nil {
			return f, 0, badCID(err)
		}
		f[i], size = x, size+n
	}
	return f, size, nil
}

// shortest reads a varint as CIDs have them: at most 63 bits, in the fewest bytes. Nearly all are one byte long.
func shortest(b []byte) (uint64, int, error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1, nil
	}
	return varint.FromUvarint(b)
}

// parseCID returns the prefix of the binary CID b, if b is one: what cid.Cast accepts and nothing else, but without the
// copy that cid.Cast makes, since a peer may fill a whole message with one digest.
func parseCID(b []byte) (cid.Prefix, error) {
	if len(b) == 0 {
		return cid.Prefix{}, badCID(errNoCID)
	}
	if len(b) > 2 && b[0] == mh.SHA2_256 && b[1] == 32 {
		if len(b) != 34 {
			return cid.Prefix{}, badCID(errCIDLength)
		}
		return prefixV0, nil
	}
	var f [4]uint64
	for i := range f {
		x, n, err := shortest(b)
		if err != nil {
			return cid.Prefix{}, badCID(err)
		}
		if i == 0 && x != 1 {
			return cid.Prefix{}, badCID(errCIDVersion)
		}
		f[i], b = x, b[n:]
	}
	if f[3] != uint64(len(b)) {
		return cid.Prefix{}, badCID(errCIDLength)
	}
	return cid.Prefix{Version: f[0], Codec: f[1], MhType: f[2], MhLength: len(b)}, nil
}

// travels reports whether a CID with prefix p may be on the wire at all.
func travels(p cid.Prefix) bool {
	return p.MhType != mh.IDENTITY && dray.AllowedDigest(p.MhType, p.MhLength)
}

// checkPrefix says why a block with prefix p may not be written in version v.
func checkPrefix(v Version, p cid.Prefix) error {
	switch {
	case p.MhType == mh.IDENTITY:
		return badCID(errIdentity)
	case !travels(p) || p.Codec > varint.MaxValueUvarint63:
		return badCID(errNotAllowed)
	case p.Version > 1:
		return badCID(errCIDVersion)
	case p.Version == 0 && p != prefixV0:
		return badCID(errPrefixV0)
	case p.Version != 0 && !v.Prefixes():
		return badCID(errNeedsPrefix)
	}
	return nil
}

// checkCID says why c may not be written.
func checkCID(c cid.Cid) error {
	if !c.Defined() {
		return badCID(errNoCID)
	}
	if s := c.KeyString(); len(s) == 36 && s[1] < 0x80 && (s[2] == mh.SHA2_256 || s[2] == mh.BLAKE3) && s[3] == 32 {
		return nil // a CIDv1 with a whole digest of the usual functions: no need to take it apart
	}
	p := c.Prefix()
	switch {
	case p.MhType == mh.IDENTITY:
		return badCID(errIdentity)
	case c.ByteLen() > dray.MaxCIDSize || !travels(p):
		return badCID(errNotAllowed)
	}
	return nil
}

// cidError keeps the reason out of the hot path: it is only formatted when somebody reads it.
type cidError struct{ why error }

func badCID(why error) error { return &cidError{why} }

func (e *cidError) Error() string   { return dray.ErrBadCID.Error() + ": " + e.why.Error() }
func (e *cidError) Unwrap() []error { return []error{dray.ErrBadCID, e.why} }
