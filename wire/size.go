package wire

import (
	"math/bits"

	"github.com/ipfs/go-cid"
)

// uvarintSize returns how many bytes x takes as a varint: one for each seven bits, and one for 0.
func uvarintSize(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// int32Size returns how many bytes a protobuf int32 takes; a negative one is sign-extended to ten.
func int32Size(x int32) int { return uvarintSize(uint64(int64(x))) }

// fieldSize returns how many bytes a field with a one-byte tag, a length and n bytes takes.
func fieldSize(n int) int { return 1 + uvarintSize(uint64(n)) + n }

// optionalSize is fieldSize for a field that is left out when it is empty, as proto3 does.
func optionalSize(n int) int {
	if n == 0 {
		return 0
	}
	return fieldSize(n)
}

// leftOut reports whether e is not written in version v: before 1.2.0 a peer would take a WantHave for a want of the block
// and send it.
func (e *Entry) leftOut(v Version) bool { return e.Type == WantHave && !e.Cancel && !v.Haves() }

// body returns the size of e's own fields.
func (e *Entry) body(v Version) int {
	n := fieldSize(e.CID.ByteLen())
	if e.Cancel {
		return n + 2
	}
	if e.Priority != 0 {
		n += 1 + int32Size(e.Priority)
	}
	if v.Haves() {
		if e.Type != WantBlock {
			n += 2
		}
		if e.SendDontHave {
			n += 2
		}
	}
	return n
}

// Size returns how many bytes e adds to a message of version v: 0 if e is left out. In TensorSwap it adds fewer when it can
// be written as one with its neighbours.
func (e *Entry) Size(v Version) int {
	if v == Swap1 {
		return e.swapSize()
	}
	if e.leftOut(v) {
		return 0
	}
	return fieldSize(e.body(v))
}

// Size returns how many bytes p adds to a message of version v: 0 if it is left out. In TensorSwap it adds fewer when it can
// be written as one with its neighbours.
func (p *Presence) Size(v Version) int {
	if v == Swap1 {
		return p.swapSize()
	}
	if !v.Haves() {
		return 0
	}
	return fieldSize(p.body())
}

func (p *Presence) body() int {
	n := fieldSize(p.CID.ByteLen())
	if !p.Have {
		n += 2
	}
	return n
}

// Size returns how many bytes b adds to a message of version v.
func (b *Block) Size(v Version) int { return blockSize(v, b.Prefix, len(b.Data)) }

func blockSize(v Version, p cid.Prefix, size int) int {
	if v == Swap1 {
		return prefixSize(p) + uvarintSize(uint64(size)) + size
	}
	if !v.Prefixes() {
		return fieldSize(size)
	}
	return fieldSize(blockBody(p, size))
}

func blockBody(p cid.Prefix, size int) int { return fieldSize(prefixSize(p)) + optionalSize(size) }

// Size returns the exact length in bytes of m in version v: in Bitswap without the length prefix of its frame, in
// TensorSwap of the whole frame.
func (m *Message) Size(v Version) int {
	if v == Swap1 {
		return m.swapLayout().total
	}
	return m.layout(v).total
}

// layout holds what must be known before a message's first byte is written.
type layout struct {
	list    int   // size of the want list's fields
	pending int32 // what is written as pending bytes; 0 is not written
	total   int   // size of the message
}

func (m *Message) layout(v Version) layout {
	var l layout
	for i := range m.Wants {
		l.list += m.Wants[i].Size(v)
	}
	if m.Full {
		l.list += 2
	}
	l.total = fieldSize(l.list)
	for i := range m.Presences {
		l.total += m.Presences[i].Size(v)
	}
	for i := range m.Blocks {
		l.total += m.Blocks[i].Size(v)
	}
	l.setPending(v, m.PendingBytes)
	return l
}

// setPending adds the pending bytes, unless the version has none or they alone would make the message too long: they are
// only advice, and the largest block leaves no room for them.
func (l *layout) setPending(v Version, pending int32) {
	if pending == 0 || !v.Haves() {
		return
	}
	n := 1 + int32Size(pending)
	if l.total <= MaxMessageSize && l.total+n > MaxMessageSize {
		return
	}
	l.pending = pending
	l.total += n
}
