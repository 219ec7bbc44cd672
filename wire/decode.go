package wire

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// The field numbers of bitswap.md 1.2.
const (
	fieldWantlist  = 1
	fieldBlocks    = 2
	fieldPayload   = 3
	fieldPresences = 4
	fieldPending   = 5

	fieldEntries = 1
	fieldFull    = 2

	fieldEntryCID      = 1
	fieldEntryPriority = 2
	fieldEntryCancel   = 3
	fieldEntryType     = 4
	fieldEntryDontHave = 5

	fieldBlockPrefix = 1
	fieldBlockData   = 2

	fieldPresenceCID  = 1
	fieldPresenceType = 2
)

// The values of a presence's type.
const (
	presenceHave     = 0
	presenceDontHave = 1
)

// Decode reads the message in frame, as [FrameReader.Next] returns it, into m, whose slices are reused. The blocks' data
// aliases frame, so frame must stay as it is while they are in use; CIDs and bitmaps are copied. All versions of Bitswap are
// read alike, as deployed peers do: each field in whatever version it comes.
//
// Of TensorSwap, whatever no Dray writes is an [*Error] too: nothing is ignored but sections of later versions that say
// that they may be. What follows is about Bitswap.
//
// What cannot be read is an [*Error], the sender's fault: bytes that are no message (ErrMalformed), a CID or prefix that
// does not parse ([dray.ErrBadCID]), a block of more than [dray.MaxBlockSize] bytes ([dray.ErrTooBig]), more than
// [MaxBlocks] blocks, more than [MaxMessageSize] bytes. Then m is empty. What can be read but not used is left out and
// counted in m.Ignored (bitswap.md 1.3, 1.4). Fields that are not known are skipped. A cancel's priority, type and request
// for a DONT_HAVE are dropped, since they mean nothing.
//
// Decode allocates one string per CID and the growth of m's slices, and nothing for blocks once the slices have room.
func Decode(v Version, frame []byte, m *Message) error {
	m.Reset()
	if err := v.check("decode"); err != nil {
		return err
	}
	if v == Swap1 {
		if err := decodeSwap(frame, m); err != nil {
			m.Reset()
			if e, ok := err.(*Error); ok {
				e.Version = Swap1
			}
			return err
		}
		return nil
	}
	if len(frame) > MaxMessageSize {
		return &Error{Field: "frame", Err: fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(frame), MaxMessageSize)}
	}
	c := cursor{b: frame, end: len(frame)}
	if err := c.message(m); err != nil {
		m.Reset()
		return err
	}
	return nil
}

// cursor is a place in a message. Those of nested messages share b, so that pos always counts from the message's start.
type cursor struct {
	b        []byte
	pos, end int
}

func (c *cursor) more() bool { return c.pos < c.end }

func (c *cursor) message(m *Message) error {
	for c.more() {
		num, typ, err := c.tag("message")
		if err != nil {
			return err
		}
		switch {
		case num == fieldWantlist && typ == protowire.BytesType:
			var sub cursor
			if sub, err = c.nested("wantlist"); err == nil {
				err = sub.wantlist(m)
			}
		case num == fieldBlocks && typ == protowire.BytesType:
			var sub cursor
			if sub, err = c.nested("blocks"); err == nil {
				err = m.addBlock("blocks", Block{Prefix: prefixV0, Data: sub.bytes()}, sub.pos)
			}
		case num == fieldPayload && typ == protowire.BytesType:
			var sub cursor
			if sub, err = c.nested("payload"); err == nil {
				err = sub.block(m)
			}
		case num == fieldPresences && typ == protowire.BytesType:
			var sub cursor
			if sub, err = c.nested("blockPresences"); err == nil {
				err = sub.presence(m)
			}
		case num == fieldPending && typ == protowire.VarintType:
			var x uint64
			x, err = c.uvarint("pendingBytes")
			m.PendingBytes = int32(x)
		default:
			err = c.skip("message", num, typ)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cursor) wantlist(m *Message) error {
	for c.more() {
		num, typ, err := c.tag("wantlist")
		if err != nil {
			return err
		}
		switch {
		case num == fieldEntries && typ == protowire.BytesType:
			var sub cursor
			if sub, err = c.nested("wantlist.entries"); err == nil {
				err = sub.entry(m)
			}
		case num == fieldFull && typ == protowire.VarintType:
			var x uint64
			x, err = c.uvarint("wantlist.full")
			m.Full = x != 0
		default:
			err = c.skip("wantlist", num, typ)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cursor) entry(m *Message) error {
	var (
		e    Entry
		key  = cursor{b: c.b, pos: c.pos, end: c.pos}
		kind int32
	)
	for c.more() {
		num, typ, err := c.tag("wantlist.entries")
		if err != nil {
			return err
		}
		var x uint64
		switch {
		case num == fieldEntryCID && typ == protowire.BytesType:
			key, err = c.nested("wantlist.entries.block")
		case num >= fieldEntryPriority && num <= fieldEntryDontHave && typ == protowire.VarintType:
			x, err = c.uvarint("wantlist.entries")
			switch num {
			case fieldEntryPriority:
				e.Priority = int32(x)
			case fieldEntryCancel:
				e.Cancel = x != 0
			case fieldEntryType:
				kind = int32(x)
			case fieldEntryDontHave:
				e.SendDontHave = x != 0
			}
		default:
			err = c.skip("wantlist.entries", num, typ)
		}
		if err != nil {
			return err
		}
	}
	var err error
	e.CID, err = key.cid("wantlist.entries.block")
	switch {
	case err != nil:
		return err
	case !e.CID.Defined():
		m.Ignored++
		return nil
	case e.Cancel:
		e = Entry{CID: e.CID, Cancel: true}
	case kind != int32(WantBlock) && kind != int32(WantHave):
		m.Ignored++
		return nil
	default:
		e.Type = WantType(kind)
	}
	m.Wants = append(m.Wants, e)
	return nil
}

func (c *cursor) block(m *Message) error {
	start := c.pos
	prefix := cursor{b: c.b, pos: start, end: start}
	data := prefix
	for c.more() {
		num, typ, err := c.tag("payload")
		if err != nil {
			return err
		}
		switch {
		case num == fieldBlockPrefix && typ == protowire.BytesType:
			prefix, err = c.nested("payload.prefix")
		case num == fieldBlockData && typ == protowire.BytesType:
			data, err = c.nested("payload.data")
		default:
			err = c.skip("payload", num, typ)
		}
		if err != nil {
			return err
		}
	}
	p, err := ParsePrefix(prefix.bytes())
	if err != nil {
		return &Error{Field: "payload.prefix", Offset: prefix.pos, Err: err}
	}
	return m.addBlock("payload.data", Block{Prefix: p, Data: data.bytes()}, data.pos)
}

// addBlock adds b, whose data begins at byte pos, if it may be added.
func (m *Message) addBlock(field string, b Block, pos int) error {
	switch {
	case len(b.Data) > dray.MaxBlockSize:
		return &Error{
			Field: field, Offset: pos,
			Err: fmt.Errorf("%w: %d bytes, at most %d", dray.ErrTooBig, len(b.Data), dray.MaxBlockSize),
		}
	case !travels(b.Prefix):
		// Nobody can have asked for it: such CIDs are not asked for.
		m.Ignored++
		return nil
	case len(m.Blocks) == MaxBlocks:
		return &Error{Field: field, Offset: pos, Err: fmt.Errorf("%w: more than %d", ErrTooMany, MaxBlocks)}
	}
	m.Blocks = append(m.Blocks, b)
	return nil
}

func (c *cursor) presence(m *Message) error {
	key := cursor{b: c.b, pos: c.pos, end: c.pos}
	kind := int32(presenceHave)
	for c.more() {
		num, typ, err := c.tag("blockPresences")
		if err != nil {
			return err
		}
		switch {
		case num == fieldPresenceCID && typ == protowire.BytesType:
			key, err = c.nested("blockPresences.cid")
		case num == fieldPresenceType && typ == protowire.VarintType:
			var x uint64
			x, err = c.uvarint("blockPresences.type")
			kind = int32(x)
		default:
			err = c.skip("blockPresences", num, typ)
		}
		if err != nil {
			return err
		}
	}
	id, err := key.cid("blockPresences.cid")
	switch {
	case err != nil:
		return err
	case !id.Defined() || (kind != presenceHave && kind != presenceDontHave):
		m.Ignored++
		return nil
	}
	m.Presences = append(m.Presences, Presence{CID: id, Have: kind == presenceHave})
	return nil
}

// cid returns the CID that c spans. It is undefined without an error when it parses but is to be ignored.
func (c *cursor) cid(field string) (cid.Cid, error) {
	b := c.bytes()
	p, err := parseCID(b)
	if err != nil {
		return cid.Undef, &Error{Field: field, Offset: c.pos, Err: err}
	}
	if len(b) > dray.MaxCIDSize || !travels(p) {
		return cid.Undef, nil
	}
	id, err := cid.Cast(b)
	if err != nil {
		return cid.Undef, &Error{Field: field, Offset: c.pos, Err: badCID(err)}
	}
	return id, nil
}

// bytes returns what c spans, with no room to grow into what follows.
func (c *cursor) bytes() []byte { return c.b[c.pos:c.end:c.end] }

func (c *cursor) uvarint(field string) (uint64, error) {
	if c.pos < c.end && c.b[c.pos] < 0x80 {
		x := uint64(c.b[c.pos])
		c.pos++
		return x, nil
	}
	x, n := protowire.ConsumeVarint(c.b[c.pos:c.end])
	if n < 0 {
		return 0, c.malformed(field, protowire.ParseError(n))
	}
	c.pos += n
	return x, nil
}

func (c *cursor) tag(field string) (protowire.Number, protowire.Type, error) {
	at := c.pos
	x, err := c.uvarint(field)
	if err != nil {
		return 0, 0, err
	}
	if num := x >> 3; num < uint64(protowire.MinValidNumber) || num > uint64(protowire.MaxValidNumber) {
		return 0, 0, &Error{Field: field, Offset: at, Err: fmt.Errorf("%w: field number %d", ErrMalformed, num)}
	}
	return protowire.Number(x >> 3), protowire.Type(x & 7), nil
}

// nested reads a length, returns a cursor over that many bytes and moves c behind them.
func (c *cursor) nested(field string) (cursor, error) {
	at := c.pos
	n, err := c.uvarint(field)
	if err != nil {
		return cursor{}, err
	}
	if n > uint64(c.end-c.pos) {
		return cursor{}, &Error{
			Field: field, Offset: at,
			Err: fmt.Errorf("%w: %d bytes announced, %d left", ErrMalformed, n, c.end-c.pos),
		}
	}
	sub := cursor{b: c.b, pos: c.pos, end: c.pos + int(n)}
	c.pos = sub.end
	return sub, nil
}

// skip moves over the value of a field that is not known, or not in this wire type.
func (c *cursor) skip(field string, num protowire.Number, typ protowire.Type) error {
	n := protowire.ConsumeFieldValue(num, typ, c.b[c.pos:c.end])
	if n < 0 {
		return c.malformed(field, protowire.ParseError(n))
	}
	c.pos += n
	return nil
}

// malformed does not wrap why: an io.ErrUnexpectedEOF inside it would look like a connection that broke.
func (c *cursor) malformed(field string, why error) error {
	return &Error{Field: field, Offset: c.pos, Err: fmt.Errorf("%w: %v", ErrMalformed, why)}
}
