package dray

import (
	mh "github.com/multiformats/go-multihash"
)

// PeerID names a peer: the bytes of the multihash of its public key, which the peer has proven to hold when the transport
// hands a connection over. It is comparable and ordered; the zero value names nobody.
type PeerID string

// String returns the id as people write it: base58, such as "12D3KooW…".
func (p PeerID) String() string { return mh.Multihash(p).B58String() }

// Short returns the last eight characters of String, enough to tell peers apart in a log.
func (p PeerID) Short() string {
	s := p.String()
	if len(s) > 8 {
		s = s[len(s)-8:]
	}
	return s
}

// ParsePeerID reads a PeerID as written by [PeerID.String]. It returns an error when s is not the base58 of a multihash.
func ParsePeerID(s string) (PeerID, error) {
	m, err := mh.FromB58String(s)
	if err != nil {
		return "", &Error{Op: "parse peer id", Err: err}
	}
	return PeerID(m), nil
}

// MarshalText writes the id as String does; nobody's is empty. A PeerID's bytes are no text.
func (p PeerID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *PeerID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*p = ""
		return nil
	}
	id, err := ParsePeerID(string(text))
	if err == nil {
		*p = id
	}
	return err
}
