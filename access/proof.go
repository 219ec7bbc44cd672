package access

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"

	"dray"
)

// A proof is a tag and a code:
//
//	tag  = the first 8 bytes of HMAC-SHA256(secret, "dray access 1 tag" 00 root)
//	code = HMAC-SHA256(secret, "dray access 1 proof" 00 root getter server)
//
// root is the multihash of the root; it and the ids of both peers are written with their length before them, a varint. The
// tag says which capability is meant, so that a host checks one code however many it has given out; without the secret it
// is eight random bytes. The getter is whoever shows the proof, and the server who is to believe it.

const (
	// SecretSize is how many bytes a [Secret] has.
	SecretSize = 32

	tagSize     = 8
	tagDomain   = "dray access 1 tag\x00"
	proofDomain = "dray access 1 proof\x00"
)

// Secret is what a capability consists of: random bytes. It prints as nothing but what it is, so that no log has it.
type Secret [SecretSize]byte

// String does not return the bytes.
func (s Secret) String() string { return "(a secret)" }

// GoString does not return the bytes.
func (s Secret) GoString() string { return "(a secret)" }

// IsZero reports whether s is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

type tag [tagSize]byte

// tag names the secret among those of the root whose multihash is given.
func (s Secret) tag(root string) tag {
	h := hmac.New(sha256.New, s[:])
	h.Write([]byte(tagDomain))
	writeString(h, root)
	return tag(h.Sum(nil)[:tagSize])
}

// proof makes the proof that getter shows to server.
func (s Secret) proof(t tag, root string, getter, server dray.PeerID) dray.Proof {
	h := hmac.New(sha256.New, s[:])
	h.Write([]byte(proofDomain))
	writeString(h, root)
	writeString(h, string(getter))
	writeString(h, string(server))
	var p dray.Proof
	copy(p[:], t[:])
	h.Sum(p[tagSize:tagSize])
	return p
}

func writeString(h io.Writer, s string) {
	h.Write(binary.AppendUvarint(nil, uint64(len(s)))) // a hash takes everything
	io.WriteString(h, s)
}
