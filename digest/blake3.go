package digest

import (
	"encoding/binary"

	"lukechampine.com/blake3/guts"
)

// groupSize is how many bytes the blake3 kernel takes at a time: sixteen chunks, one for each lane.
const groupSize = guts.MaxSIMD * guts.ChunkSize

// blake3 is the scratch space of one blake3 computation at a time. The zero value is ready. Not safe for concurrent use.
type blake3 struct {
	group [groupSize]byte
	// stack holds the chaining values of finished subtrees, at most one of each height, counted in groups: the binary
	// digits of the number of groups say which heights are present. 2^24 groups are 256 GiB.
	stack [24][8]uint32
}

// sum256 returns the first 32 bytes of the blake3 hash of data, on this goroutine alone. The tree is the one of the
// BLAKE3 paper, section 2.1: every left subtree is a full power of two, so groups of sixteen chunks are whole subtrees but
// for the last one, which is kept back because what closes the tree carries the root flag.
func (b *blake3) sum256(data []byte) (out [32]byte) {
	groups := 0
	for len(data) > groupSize {
		node := guts.CompressBuffer((*[groupSize]byte)(data), groupSize, &guts.IV, uint64(groups)*guts.MaxSIMD, 0)
		cv := guts.ChainingValue(node)
		height := 0
		for ; groups>>height&1 == 1; height++ {
			cv = guts.ChainingValue(guts.ParentNode(b.stack[height], cv, &guts.IV, 0))
		}
		b.stack[height] = cv
		groups++
		data = data[groupSize:]
	}
	node := b.last(data, uint64(groups)*guts.MaxSIMD)
	for height := 0; groups>>height > 0; height++ {
		if groups>>height&1 == 1 {
			node = guts.ParentNode(b.stack[height], guts.ChainingValue(node), &guts.IV, 0)
		}
	}
	node.Flags |= guts.FlagRoot
	words := guts.CompressNode(node)
	for i := range 8 {
		binary.LittleEndian.PutUint32(out[4*i:], words[i])
	}
	return out
}

// last compresses the last group, which is at most groupSize bytes and may be empty. The kernel reads a whole group
// whatever its length, so a short one is copied to where there is room to read.
func (b *blake3) last(data []byte, counter uint64) guts.Node {
	switch {
	case len(data) <= guts.ChunkSize:
		return guts.CompressChunk(data, &guts.IV, counter, 0)
	case len(data) == groupSize:
		return guts.CompressBuffer((*[groupSize]byte)(data), groupSize, &guts.IV, counter, 0)
	}
	n := copy(b.group[:], data)
	return guts.CompressBuffer(&b.group, n, &guts.IV, counter, 0)
}
