package unixfs

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"
	"google.golang.org/protobuf/encoding/protowire"
)

// hashMurmur3 is the multihash code of murmur3-x64-64, the only hash function that shards use.
const hashMurmur3 = 0x22

const hexDigits = "0123456789ABCDEF"

// validFanout reports whether shards may have n slots.
func validFanout(n uint64) bool { return n >= 8 && n <= 1024 && n&(n-1) == 0 }

// nameHash returns the hash whose bits, from the highest down, choose the slot at each level.
func nameHash(name string) uint64 { return murmur3.Sum64([]byte(name)) }

// slotAt returns the slot that hash falls into at a level, and whether the hash has enough bits for that level.
func slotAt(hash uint64, level, fanout int) (int, bool) {
	width := bits.TrailingZeros(uint(fanout))
	used := level * width
	if used+width > 64 {
		return 0, false
	}
	return int(hash << used >> (64 - width)), true
}

// slotDigits returns how many hexadecimal digits name a slot.
func slotDigits(fanout int) int { return (bits.Len(uint(fanout-1)) + 3) / 4 }

// appendSlot appends the name of a slot, in upper-case hexadecimal of fixed width.
func appendSlot(dst []byte, slot, fanout int) []byte {
	for d := slotDigits(fanout) - 1; d >= 0; d-- {
		dst = append(dst, hexDigits[slot>>(4*d)&15])
	}
	return dst
}

// parseSlot reads the name of a slot at the beginning of a link's name.
func parseSlot(name string, fanout int) (slot int, rest string, ok bool) {
	n := slotDigits(fanout)
	if len(name) < n {
		return 0, "", false
	}
	for i := range n {
		v := strings.IndexByte(hexDigits, name[i])
		if v < 0 {
			return 0, "", false
		}
		slot = slot<<4 | v
	}
	return slot, name[n:], slot < fanout
}

// checkShard checks a shard's message against its links, and turns the links' names into slot and name.
func checkShard(d fsData, bitmap []byte, links []Link) (fanout int, err error) {
	switch {
	case !d.hasHashT || d.hashType != hashMurmur3:
		return 0, invalid("shard with hash function 0x%x, want murmur3", d.hashType)
	case !validFanout(d.fanout):
		return 0, invalid("shard with %d slots", d.fanout)
	case d.blocksizes != 0:
		return 0, invalid("shard with blocksizes")
	}
	fanout = int(d.fanout)
	for len(bitmap) > 0 && bitmap[0] == 0 {
		bitmap = bitmap[1:]
	}
	if len(bitmap) > fanout/8 {
		return 0, invalid("shard with a bitmap of %d bytes for %d slots", len(bitmap), fanout)
	}
	set := 0
	for _, b := range bitmap {
		set += bits.OnesCount8(b)
	}
	if set != len(links) {
		return 0, invalid("shard with %d links, but %d in its bitmap", len(links), set)
	}
	last := -1
	for i := range links {
		slot, name, ok := parseSlot(links[i].Name, fanout)
		if !ok {
			return 0, invalid("shard link named %q", links[i].Name)
		}
		// The bitmap is a big-endian number whose bit i stands for slot i.
		byteAt := len(bitmap) - 1 - slot/8
		if slot <= last || byteAt < 0 || bitmap[byteAt]>>(slot%8)&1 == 0 {
			return 0, invalid("shard link %q is out of order or not in the bitmap", links[i].Name)
		}
		last = slot
		links[i].Slot, links[i].Name = slot, name
	}
	return fanout, nil
}

// dirEntry is an entry of a directory that is being built.
type dirEntry struct {
	name string
	hash uint64 // of the name; set once shards are needed
	ref  Ref
}

// buildShards emits the tree of shards for entries, deepest first, and returns its root. It gives the tree that
// inserting the entries one by one in any order gives: a shard exists exactly where two or more names share a slot.
func (d *DirBuilder) buildShards(entries []dirEntry) (Ref, error) {
	for i := range entries {
		entries[i].hash = nameHash(entries[i].name)
	}
	slices.SortFunc(entries, func(a, b dirEntry) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	return d.shard(entries, 0)
}

// shard emits the shard at a level for entries, which are sorted by hash and agree in all bits used so far.
func (d *DirBuilder) shard(entries []dirEntry, level int) (Ref, error) {
	fanout := d.p.ShardFanout
	var (
		sum    Ref
		links  []byte
		bitmap = make([]byte, fanout/8)
		prefix [4]byte
	)
	for len(entries) > 0 {
		slot, ok := slotAt(entries[0].hash, level, fanout)
		if !ok {
			return Ref{}, invalid("names %q and %q have the same hash", entries[0].name, entries[1].name)
		}
		n := 1
		for n < len(entries) {
			if s, _ := slotAt(entries[n].hash, level, fanout); s != slot {
				break
			}
			n++
		}
		child, name := entries[0].ref, entries[0].name
		if n > 1 {
			var err error
			if child, err = d.shard(entries[:n], level+1); err != nil {
				return Ref{}, err
			}
			name = ""
		}
		entries = entries[n:]
		bitmap[len(bitmap)-1-slot/8] |= 1 << (slot % 8)
		links = appendLink(links, string(appendSlot(prefix[:0], slot, fanout)), name, child.CID, uint64(child.Tsize))
		sum.Size += child.Size
		sum.Tsize += child.Tsize
	}
	for len(bitmap) > 0 && bitmap[0] == 0 {
		bitmap = bitmap[1:]
	}
	msg := []byte{tagType, typeShard, tagData}
	msg = protowire.AppendBytes(msg, bitmap)
	msg = protowire.AppendVarint(append(msg, tagHashType), hashMurmur3)
	msg = protowire.AppendVarint(append(msg, tagFanout), uint64(fanout))
	return d.emitNode(links, msg, sum)
}

// findInShard follows name one level down from a shard. Sub is true when the link leads to a deeper shard.
func findInShard(n *Node, name string, hash uint64, level int) (c cid.Cid, sub, ok bool) {
	slot, ok := slotAt(hash, level, n.Fanout)
	if !ok {
		return cid.Undef, false, false
	}
	i, found := slices.BinarySearchFunc(n.Links, slot, func(l Link, s int) int { return l.Slot - s })
	if !found || (n.Links[i].Name != "" && n.Links[i].Name != name) {
		return cid.Undef, false, false
	}
	return n.Links[i].CID, n.Links[i].Name == "", true
}
