package dray

// ProofSize is how many bytes a [Proof] has.
const ProofSize = 40

// Proof shows one peer that another holds a secret of a root that is not for everybody: eight bytes that say which secret,
// and a code made with it over the root and both peers, so that it is worth nothing to anybody else who sees it. Package
// access makes and checks it; to all others it is bytes. The zero Proof is none.
type Proof [ProofSize]byte

// IsZero reports whether p is no proof.
func (p Proof) IsZero() bool { return p == Proof{} }
