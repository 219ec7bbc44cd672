// Package digest hashes many blocks at a time, as fast as the machine can: on all cores at once and, for SHA-256 on a CPU
// with wide vectors, sixteen blocks at once on each core.
//
// # Terms
//
// A [Job] is one block to hash: either to check it against a CID that is known, or to learn its CID from a prefix. A lane
// is one of the sixteen 32-bit columns of an AVX-512 register; sixteen SHA-256 computations that know nothing of each other
// advance together, one in each lane, by 64 bytes a step. A [Pool] is a set of workers that share one bounded queue of jobs.
//
// # How a job is hashed
//
// sha2-256 goes to the standard library, which uses the CPU's SHA instructions if it has them, unless enough jobs are there
// at once for AVX-512 lanes to be faster; how many that is, is measured on first use, as CPUs differ. blake3
// is computed on the worker's own core (the library's convenience functions start goroutines within one block, which costs
// more than it gains when there are other blocks to hash). Every other function is [dray.Sum].
//
// # What it does not do
//
// It reads and writes nothing, it does not cut files into blocks (package unixfs), and it does not keep or send what it
// hashed. It does not decide which hash functions are allowed: that is the table in package dray. The pure packages do not
// import it; their drivers do.
package digest
