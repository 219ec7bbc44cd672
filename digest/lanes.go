package digest

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
	"math/bits"
)

// The path of a job through the lanes:
//
//  1. lanes.load puts it into a free lane and resets that lane's state.
//  2. lanes.advance gives every busy lane's next bytes to the kernel, as many as the one with the fewest has, again and
//     again: first from Data itself, then the last one or two blocks with the padding, from the lane's tail.
//  3. lanes.unload reads the digest, settles the job and frees the lane, which takes the next job at once. So lanes stay
//     busy however much lengths differ.
//  4. When fewer lanes are busy than it takes for them to pay, and no job is left, lanes.finishAlone moves each from where
//     it is to the standard library.

const (
	laneCount = 16

	// never is more lanes than there are.
	never = laneCount + 1

	// stepBlocks bounds one call of the kernel, in 64-byte blocks for each lane. Go cannot preempt assembly, so this is
	// also how long a garbage collection may have to wait: 16 KiB for each lane, 0.06 to 0.3 ms.
	stepBlocks = 256

	blockSize = sha256.BlockSize
)

// roundConstants are the first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4,
// section 4.2.2).
var roundConstants = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

// initial is the hash value before the first block (FIPS 180-4, section 5.3.3).
var initial = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

// roundTable is roundConstants with each one repeated for sixteen lanes, as the kernel reads it.
var roundTable = func() (t [512]uint64) {
	for i, k := range roundConstants {
		for j := range 8 {
			t[8*i+j] = uint64(k)<<32 | uint64(k)
		}
	}
	return t
}()

// lanes runs up to sixteen sha2-256 jobs at once. The zero value is ready; it is only used where kernelWorks. Not safe for
// concurrent use.
type lanes struct {
	state   [512]byte // The hash values, as the kernel lays them out.
	scratch [512]byte
	masks   [stepBlocks]uint64
	inputs  [laneCount][]byte // What is left of the part being read; whole blocks. Empty in a free lane.
	tails   [laneCount][2 * blockSize]byte
	tail    [laneCount]int // Length of the tail if it has not been begun, else 0.
	jobs    [laneCount]*Job
	busy    uint16 // One bit for each lane that has a job.

	alone hash.Hash // For finishAlone; made on first use.
	saved []byte
	sum   [sha256.Size]byte
}

// run settles all jobs, which must be laneable, and calls finish on each as it is done. It uses lanes while at least
// minLanes of them are busy.
func (l *lanes) run(jobs []*Job, minLanes int) {
	for {
		for l.busy != 1<<laneCount-1 && len(jobs) > 0 {
			l.load(bits.TrailingZeros16(^l.busy), jobs[0])
			jobs = jobs[1:]
		}
		if len(jobs) == 0 && bits.OnesCount16(l.busy) < minLanes {
			break
		}
		l.advance()
	}
	for busy := l.busy; busy != 0; busy &= busy - 1 {
		if i := bits.TrailingZeros16(busy); l.tail[i] > 0 && len(l.inputs[i]) > 0 {
			l.finishAlone(i)
		}
	}
	for l.busy != 0 { // Lanes that are in their tail: at most two blocks.
		l.advance()
	}
}

// load puts j into free lane i.
func (l *lanes) load(i int, j *Job) {
	for w, v := range initial {
		binary.LittleEndian.PutUint32(l.state[4*(laneCount*w+i):], v)
	}
	whole := len(j.Data) &^ (blockSize - 1)
	rest := len(j.Data) - whole
	// FIPS 180-4, section 5.1.1: a one bit, zeros, and the length in bits as a 64-bit number at the end of a block.
	t := &l.tails[i]
	clear(t[copy(t[:], j.Data[whole:]):])
	t[rest] = 0x80
	n := blockSize
	if rest+1+8 > blockSize {
		n = 2 * blockSize
	}
	binary.BigEndian.PutUint64(t[n-8:], uint64(len(j.Data))*8)

	l.jobs[i], l.inputs[i], l.tail[i] = j, j.Data[:whole], n
	l.busy |= 1 << i
	l.turn(i)
}

// turn goes from the end of a lane's data to its tail.
func (l *lanes) turn(i int) {
	if len(l.inputs[i]) == 0 && l.tail[i] > 0 {
		l.inputs[i], l.tail[i] = l.tails[i][:l.tail[i]], 0
	}
}

// advance runs every busy lane by as many blocks as all of them have, and frees those that end.
func (l *lanes) advance() {
	n := stepBlocks
	for busy := l.busy; busy != 0; busy &= busy - 1 {
		n = min(n, len(l.inputs[bits.TrailingZeros16(busy)])/blockSize)
	}
	for i := range l.masks[:n] {
		l.masks[i] = uint64(l.busy)
	}
	runKernel(&l.state, &l.scratch, l.masks[:n], &l.inputs)
	for busy := l.busy; busy != 0; busy &= busy - 1 {
		i := bits.TrailingZeros16(busy)
		l.inputs[i] = l.inputs[i][n*blockSize:]
		l.turn(i)
		if len(l.inputs[i]) == 0 {
			for w := range 8 {
				binary.BigEndian.PutUint32(l.sum[4*w:], binary.LittleEndian.Uint32(l.state[4*(laneCount*w+i):]))
			}
			l.unload(i)
		}
	}
}

// unload settles lane i's job with l.sum and frees the lane.
func (l *lanes) unload(i int) {
	j := l.jobs[i]
	l.jobs[i], l.inputs[i], l.tail[i] = nil, nil, 0
	l.busy &^= 1 << i
	_, size := j.spec()
	n, _ := fits256(size)
	j.settle(l.sum[:n])
	j.finish()
}

// savedHash is what crypto/sha256 offers for going on from a state.
type savedHash interface {
	hash.Hash
	encoding.BinaryUnmarshaler
}

// finishAlone hashes what is left of lane i's data with the standard library, going on from the lane's state. The form of
// a saved state is crypto/sha256's: a mark, the eight words, the bytes of a partial block (none here) and the length so far.
func (l *lanes) finishAlone(i int) {
	if l.alone == nil {
		l.alone = sha256.New()
	}
	data := l.jobs[i].Data
	whole := len(data) &^ (blockSize - 1)
	done := whole - len(l.inputs[i])
	s := append(l.saved[:0], "sha\x03"...)
	for w := range 8 {
		s = binary.BigEndian.AppendUint32(s, binary.LittleEndian.Uint32(l.state[4*(laneCount*w+i):]))
	}
	s = append(s, make([]byte, blockSize)...)
	s = binary.BigEndian.AppendUint64(s, uint64(done))
	l.saved = s
	if h, ok := l.alone.(savedHash); ok && h.UnmarshalBinary(s) == nil {
		l.alone.Write(data[done:])
	} else { // Another standard library than the one we know: from the start.
		l.alone.Reset()
		l.alone.Write(data)
	}
	l.alone.Sum(l.sum[:0])
	l.unload(i)
}
