package wire

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// The tags: field number and wire type in one byte.
const (
	tagWantlist  = fieldWantlist<<3 | byte(protowire.BytesType)
	tagBlocks    = fieldBlocks<<3 | byte(protowire.BytesType)
	tagPayload   = fieldPayload<<3 | byte(protowire.BytesType)
	tagPresences = fieldPresences<<3 | byte(protowire.BytesType)
	tagPending   = fieldPending<<3 | byte(protowire.VarintType)

	tagEntries = fieldEntries<<3 | byte(protowire.BytesType)
	tagFull    = fieldFull<<3 | byte(protowire.VarintType)

	tagEntryCID      = fieldEntryCID<<3 | byte(protowire.BytesType)
	tagEntryPriority = fieldEntryPriority<<3 | byte(protowire.VarintType)
	tagEntryCancel   = fieldEntryCancel<<3 | byte(protowire.VarintType)
	tagEntryType     = fieldEntryType<<3 | byte(protowire.VarintType)
	tagEntryDontHave = fieldEntryDontHave<<3 | byte(protowire.VarintType)

	tagBlockPrefix = fieldBlockPrefix<<3 | byte(protowire.BytesType)
	tagBlockData   = fieldBlockData<<3 | byte(protowire.BytesType)

	tagPresenceCID  = fieldPresenceCID<<3 | byte(protowire.BytesType)
	tagPresenceType = fieldPresenceType<<3 | byte(protowire.VarintType)
)

// inlineBlock is the size up to which [AppendVectors] copies a block: below it, one more piece in the write costs more.
const inlineBlock = 1 << 10

// AppendMessage appends to dst the frame of m in version v, length prefix included, and returns the extended slice. It
// grows dst at most once and copies the blocks' data; [AppendVectors] does not.
//
// The want list is always written, even when empty, because Kubo up to 0.35 panics without it. A cancel is written without
// priority and type. Before 1.2.0, WantHaves, presences and pending bytes are left out; before 1.1.0, blocks are without
// prefix. Pending bytes are also left out where they alone would make the message too long. TensorSwap's parts are only
// written in [Swap1], where a message that is one block and nothing else becomes a data frame.
//
// The error is a [*dray.Error] and dst is returned as it was when a CID may not travel or the version does not carry it
// ([dray.ErrBadCID]), a block is over [dray.MaxBlockSize] ([dray.ErrTooBig]), or the message over [MaxMessageSize]
// ([ErrTooLong]) or [MaxBlocks] ([ErrTooMany]). In TensorSwap so is
// whatever the other side would have to refuse: a feed or walk without a number, a run beyond the last leaf, a bitmap longer
// than its manifest, Full in any message but the one with Seq 1, and anything but blocks in one without a Seq.
func AppendMessage(dst []byte, v Version, m *Message) ([]byte, error) {
	if v == Swap1 {
		l, err := m.prepareSwap()
		if err != nil {
			return dst, err
		}
		dst = m.appendSwapControl(slices.Grow(dst, l.total), &l)
		for i := range m.Blocks {
			if !l.data {
				dst = appendSwapBlock(dst, &m.Blocks[i])
			}
			dst = append(dst, m.Blocks[i].Data...)
		}
		return m.appendSwapEnd(dst, &l), nil
	}
	l, err := m.prepare(v)
	if err != nil {
		return dst, err
	}
	dst = slices.Grow(dst, uvarintSize(uint64(l.total))+l.total)
	dst = m.appendControl(dst, v, l)
	for i := range m.Blocks {
		b := &m.Blocks[i]
		dst = appendBlockFields(dst, v, b.Prefix, len(b.Data))
		dst = append(dst, b.Data...)
	}
	return dst, nil
}

// AppendVectors is [AppendMessage] for a vectored write: it appends to vec the pieces of m's frame in order. The data of
// all but small blocks are pieces of their own and alias m's blocks; everything else is written to the end of scratch,
// which is grown at most once. It returns both extended slices; the pieces alias scratch.
func AppendVectors(vec [][]byte, scratch []byte, v Version, m *Message) ([][]byte, []byte, error) {
	var (
		l    layout
		sl   swapLayout
		room int
		err  error
	)
	if v == Swap1 {
		sl, err = m.prepareSwap()
		room = sl.total
	} else {
		l, err = m.prepare(v)
		room = uvarintSize(uint64(l.total)) + l.total
	}
	if err != nil {
		return vec, scratch, err
	}
	for i := range m.Blocks {
		if n := len(m.Blocks[i].Data); n > inlineBlock {
			room -= n
		}
	}
	scratch = slices.Grow(scratch, room)
	from := len(scratch)
	if v == Swap1 {
		scratch = m.appendSwapControl(scratch, &sl)
	} else {
		scratch = m.appendControl(scratch, v, l)
	}
	for i := range m.Blocks {
		b := &m.Blocks[i]
		switch {
		case v != Swap1:
			scratch = appendBlockFields(scratch, v, b.Prefix, len(b.Data))
		case !sl.data:
			scratch = appendSwapBlock(scratch, b)
		}
		if len(b.Data) <= inlineBlock {
			scratch = append(scratch, b.Data...)
			continue
		}
		vec = append(vec, scratch[from:len(scratch):len(scratch)], b.Data)
		from = len(scratch)
	}
	if v == Swap1 {
		scratch = m.appendSwapEnd(scratch, &sl)
	}
	if from < len(scratch) {
		vec = append(vec, scratch[from:len(scratch):len(scratch)])
	}
	return vec, scratch, nil
}

// AppendBlockHeader appends all that comes before the data in the frame of a message that carries one block of size bytes
// and nothing else; nothing comes after the data. Header and data together are what [AppendMessage] writes, with the same
// errors. At most [MaxBlockHeader] bytes are appended.
func AppendBlockHeader(dst []byte, v Version, prefix cid.Prefix, size int, pending int32) ([]byte, error) {
	if err := v.check("encode"); err != nil {
		return dst, err
	}
	if err := checkBlock(v, prefix, size); err != nil {
		return dst, err
	}
	if v == Swap1 {
		if pending < 0 {
			return dst, blame(cid.Undef, errPending)
		}
		return appendDataHead(dst, prefix, size, pending), nil
	}
	l := layout{total: fieldSize(0) + blockSize(v, prefix, size)}
	l.setPending(v, pending)
	if l.total > MaxMessageSize {
		return dst, tooLong(l.total, MaxMessageSize)
	}
	dst = appendHead(dst, l)
	dst = append(dst, tagWantlist, 0)
	dst = appendPending(dst, l)
	return appendBlockFields(dst, v, prefix, size), nil
}

// PutBlockHeader writes the header of [AppendBlockHeader] right in front of a block that lies in buf behind
// [MaxBlockHeader] bytes of room, and returns the part of buf that is the whole frame: one write, no copy of the data. It
// panics when buf is shorter than the room.
func PutBlockHeader(buf []byte, v Version, prefix cid.Prefix, pending int32) ([]byte, error) {
	var room [MaxBlockHeader]byte
	h, err := AppendBlockHeader(room[:0], v, prefix, len(buf)-MaxBlockHeader, pending)
	if err != nil {
		return nil, err
	}
	frame := buf[MaxBlockHeader-len(h):]
	copy(frame, h)
	return frame, nil
}

// prepare checks that m may be written in version v and returns its layout.
func (m *Message) prepare(v Version) (layout, error) {
	if err := v.check("encode"); err != nil {
		return layout{}, err
	}
	if len(m.Blocks) > MaxBlocks {
		return layout{}, &dray.Error{Op: "encode", Err: fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(m.Blocks), MaxBlocks)}
	}
	for i := range m.Wants {
		if c := m.Wants[i].CID; checkCID(c) != nil {
			return layout{}, &dray.Error{Op: "encode", CID: c, Err: checkCID(c)}
		}
		if t := m.Wants[i].Type; t > WantHave {
			return layout{}, &dray.Error{Op: "encode", CID: m.Wants[i].CID, Err: fmt.Errorf("want of type %d", t)}
		}
	}
	for i := range m.Presences {
		if c := m.Presences[i].CID; checkCID(c) != nil {
			return layout{}, &dray.Error{Op: "encode", CID: c, Err: checkCID(c)}
		}
	}
	for i := range m.Blocks {
		if err := checkBlock(v, m.Blocks[i].Prefix, len(m.Blocks[i].Data)); err != nil {
			return layout{}, err
		}
	}
	l := m.layout(v)
	if l.total > MaxMessageSize {
		return layout{}, tooLong(l.total, MaxMessageSize)
	}
	return l, nil
}

func checkBlock(v Version, p cid.Prefix, size int) error {
	if size > dray.MaxBlockSize {
		return &dray.Error{Op: "encode", Err: fmt.Errorf("%w: %d bytes, at most %d", dray.ErrTooBig, size, dray.MaxBlockSize)}
	}
	if err := checkPrefix(v, p); err != nil {
		return &dray.Error{Op: "encode", Err: err}
	}
	return nil
}

func tooLong(n, limit int) error {
	return &dray.Error{Op: "encode", Err: fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, n, limit)}
}

// appendControl appends the length prefix and every field but the blocks, which come last so that their data can be the
// end of the frame.
func (m *Message) appendControl(dst []byte, v Version, l layout) []byte {
	dst = appendHead(dst, l)
	dst = append(dst, tagWantlist)
	dst = binary.AppendUvarint(dst, uint64(l.list))
	for i := range m.Wants {
		dst = m.Wants[i].append(dst, v)
	}
	if m.Full {
		dst = append(dst, tagFull, 1)
	}
	dst = appendPending(dst, l)
	if v.Haves() {
		for i := range m.Presences {
			dst = m.Presences[i].append(dst)
		}
	}
	return dst
}

func appendHead(dst []byte, l layout) []byte { return binary.AppendUvarint(dst, uint64(l.total)) }

func appendPending(dst []byte, l layout) []byte {
	if l.pending == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, tagPending), uint64(int64(l.pending)))
}

func (e *Entry) append(dst []byte, v Version) []byte {
	if e.leftOut(v) {
		return dst
	}
	dst = append(dst, tagEntries)
	dst = binary.AppendUvarint(dst, uint64(e.body(v)))
	dst = append(dst, tagEntryCID)
	dst = appendCID(dst, e.CID)
	if e.Cancel {
		return append(dst, tagEntryCancel, 1)
	}
	if e.Priority != 0 {
		dst = append(dst, tagEntryPriority)
		dst = binary.AppendUvarint(dst, uint64(int64(e.Priority)))
	}
	if v.Haves() {
		if e.Type != WantBlock {
			dst = append(dst, tagEntryType, byte(e.Type))
		}
		if e.SendDontHave {
			dst = append(dst, tagEntryDontHave, 1)
		}
	}
	return dst
}

func (p *Presence) append(dst []byte) []byte {
	dst = append(dst, tagPresences)
	dst = binary.AppendUvarint(dst, uint64(p.body()))
	dst = append(dst, tagPresenceCID)
	dst = appendCID(dst, p.CID)
	if !p.Have {
		dst = append(dst, tagPresenceType, presenceDontHave)
	}
	return dst
}

// appendCID goes through the key string, which is the CID's bytes and, unlike Bytes, no copy of them.
func appendCID(dst []byte, c cid.Cid) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.ByteLen()))
	return append(dst, c.KeyString()...)
}

// appendBlockFields appends what comes before the data of a block in its message.
func appendBlockFields(dst []byte, v Version, p cid.Prefix, size int) []byte {
	if !v.Prefixes() {
		dst = append(dst, tagBlocks)
		return binary.AppendUvarint(dst, uint64(size))
	}
	dst = append(dst, tagPayload)
	dst = binary.AppendUvarint(dst, uint64(blockBody(p, size)))
	dst = append(dst, tagBlockPrefix, byte(prefixSize(p)))
	dst = AppendPrefix(dst, p)
	if size > 0 {
		dst = append(dst, tagBlockData)
		dst = binary.AppendUvarint(dst, uint64(size))
	}
	return dst
}
