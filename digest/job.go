package digest

import (
	"crypto/sha256"
	"sync"

	"dray"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Job is one block to hash. The caller sets CID or Prefix, and Data; Block and Err are the result. A Job may be used again
// once its result is known, and must not be touched or copied before that. Jobs belong to the caller, so hashing does not
// allocate for each of them beyond the CID that it makes.
type Job struct {
	// CID is the name to check Data against. If undefined, the CID is made from Prefix instead.
	CID cid.Cid

	// Prefix says how to name Data when CID is undefined: hash function, digest length, codec and version. A length of 0
	// or -1 means the full digest. It is what Bitswap sends with a block.
	Prefix cid.Prefix

	// Data is what to hash. It must not change until the result is known, and never after that if Block is used, because
	// Block shares it.
	Data []byte

	// Done, if not nil, is called with the job once Block and Err are set, on the worker that hashed it. It must not wait
	// for anything, for it holds the worker up, and must not submit to the same Pool.
	Done func(*Job)

	// Block is the verified block, or the zero Block when Err is set.
	Block dray.Block

	// Err is nil or an [*dray.Error]. It wraps [dray.ErrCorrupt] when Data does not hash to CID, [dray.ErrBadCID] when
	// the hash function or digest length is not allowed, and [dray.ErrTooBig] for Data over [dray.MaxBlockSize].
	Err error

	next  *Job            // The queue, owned by the Pool while queued.
	group *sync.WaitGroup // Set by Pool.SumAll.
}

// cost is what a job counts for in a queue bounded in bytes: its data, and something for a job with none.
func (j *Job) cost() int { return len(j.Data) + 512 }

// spec returns what to compute: the multihash code and the digest length in bytes, 0 or -1 for the full one.
func (j *Job) spec() (code uint64, size int) {
	if !j.CID.Defined() {
		return j.Prefix.MhType, j.Prefix.MhLength
	}
	p := j.CID.Prefix()
	return p.MhType, p.MhLength
}

// fits256 reports whether size is one that a 32-byte digest can be cut to by the rules of package dray, and returns it
// with the default filled in.
func fits256(size int) (int, bool) {
	if size <= 0 {
		return sha256.Size, true
	}
	return size, size >= dray.MinDigest && size <= sha256.Size
}

// laneable reports whether the job is a plain sha2-256, which is what lanes compute.
func (j *Job) laneable() bool {
	code, size := j.spec()
	_, ok := fits256(size)
	return ok && code == mh.SHA2_256 && len(j.Data) <= dray.MaxBlockSize
}

// sum hashes a job alone and settles it.
func (j *Job) sum(s *summer) {
	j.Block, j.Err = dray.Block{}, nil
	if len(j.Data) > dray.MaxBlockSize {
		j.Err = &dray.Error{Op: "hash", CID: j.CID, Err: dray.ErrTooBig}
		return
	}
	code, size := j.spec()
	n, ok := fits256(size)
	switch {
	case ok && code == mh.SHA2_256:
		digest := sha256.Sum256(j.Data)
		j.settle(append(s.digest[:0], digest[:n]...))
	case ok && code == mh.BLAKE3:
		digest := s.blake3.sum256(j.Data)
		j.settle(append(s.digest[:0], digest[:n]...))
	default:
		digest, err := dray.Sum(code, size, s.digest[:0], j.Data)
		if err != nil {
			j.Err = &dray.Error{Op: "hash", CID: j.CID, Err: err}
			return
		}
		j.settle(digest)
	}
}

// settle sets the result from the digest of the whole of Data, already cut to its length.
func (j *Job) settle(digest []byte) {
	c := j.CID
	if !c.Defined() {
		var err error
		if c, err = dray.CIDFromDigest(j.Prefix, digest); err != nil {
			j.Block, j.Err = dray.Block{}, &dray.Error{Op: "hash", Err: err}
			return
		}
	}
	j.Block, j.Err = dray.SealBlock(c, digest, j.Data)
}

// finish tells whoever waits. Nothing may touch the job after it.
func (j *Job) finish() {
	group := j.group
	j.group = nil
	if j.Done != nil {
		j.Done(j)
	}
	if group != nil {
		group.Done()
	}
}
