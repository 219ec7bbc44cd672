package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"

	"dray"
)

// decodeSwap reads a TensorSwap frame, header included. Unlike a Bitswap message, which any program may have written, it is
// refused for whatever no Dray writes.
func decodeSwap(frame []byte, m *Message) error {
	if len(frame) == 0 {
		return nil // a keep-alive
	}
	bad := func(at int, format string, args ...any) error {
		return &Error{Field: "frame", Offset: at, Err: fmt.Errorf(format, args...)}
	}
	if len(frame) < controlHead {
		return bad(0, "%w: a header of %d bytes", ErrMalformed, len(frame))
	}
	head, body, err := swapFrame(frame, MaxFrameSize)
	switch {
	case err != nil:
		return err
	case len(frame) != head+body:
		return bad(4, "%w: %d bytes announced, %d there", ErrMalformed, head+body, len(frame))
	case head == dataHead:
		return decodeData(frame, m)
	}
	c := swapCursor{cursor: cursor{b: frame, pos: controlHead, end: len(frame)}}
	return c.sections(m)
}

// swapCursor is a cursor that takes varints in their shortest form only.
type swapCursor struct {
	cursor
	items int // that there were so far
}

// The fewest bytes that an item of a section takes.
var itemSize = [sections]int{
	sectionFollows: 3, sectionWants: 3, sectionPresences: 3, sectionHaves: 2, sectionWalks: 2, sectionBlocks: 5, sectionWalked: 3,
}

func (c *swapCursor) sections(m *Message) error {
	for last := section(0); c.more(); {
		at := c.pos
		s := section(c.b[c.pos])
		c.pos++
		switch {
		case s <= last:
			return c.bad("section", at, fmt.Errorf("%w: section %d after section %d", ErrMalformed, s, last))
		case s >= sections && s < sectionMayBeSkipped:
			return c.bad("section", at, fmt.Errorf("%w: section of unknown type %d", ErrMalformed, s))
		}
		last = s
		size, err := c.span("section")
		if err != nil {
			return err
		}
		if s >= sectionMayBeSkipped {
			c.pos += size
			continue
		}
		sub := swapCursor{cursor: cursor{b: c.b, pos: c.pos, end: c.pos + size}, items: c.items}
		if err := sub.section(s, m); err != nil {
			return err
		}
		if sub.more() {
			return c.bad("section", sub.pos, fmt.Errorf("%w: %d bytes too many in section %d", ErrMalformed, sub.end-sub.pos, s))
		}
		c.pos, c.items = sub.end, sub.items
	}
	if err := m.numbered(); err != nil {
		return c.bad("seq", controlHead, fmt.Errorf("%w: %w", ErrMalformed, err))
	}
	return nil
}

func (c *swapCursor) section(s section, m *Message) error {
	switch s {
	case sectionSeq, sectionContinues:
		at := c.pos
		if m.Seq != 0 {
			return c.bad("seq", at, fmt.Errorf("%w: two numbers", ErrMalformed))
		}
		var err error
		m.Seq, err = c.positive("seq", math.MaxUint64)
		m.Continues = s == sectionContinues
		m.Full = m.Seq == 1 && !m.Continues
		return err
	case sectionCredit:
		var err error
		m.Credit, err = c.positive("credit", math.MaxUint64)
		return err
	case sectionInfo:
		f, err := c.flags("info", infoUploading|infoDownloading)
		m.Info = Info{Set: true, Uploading: f&infoUploading != 0, Downloading: f&infoDownloading != 0}
		return err
	case sectionPending:
		x, err := c.positive("pending", math.MaxInt32)
		m.PendingBytes = int32(x)
		return err
	}
	n, err := c.count(s)
	if err != nil {
		return err
	}
	switch s {
	case sectionFollows:
		m.Follows, err = items(m.Follows, n, c.follow)
	case sectionWants:
		m.Wants, err = items(m.Wants, n, c.want)
	case sectionPresences:
		m.Presences, err = items(m.Presences, n, c.swapPresence)
	case sectionHaves:
		var bits Bits
		m.Haves, err = items(m.Haves, n, func(h *Have) error { return c.have(h, &bits) })
	case sectionWalks:
		m.Walks, err = items(m.Walks, n, c.walk)
	case sectionBlocks:
		m.Blocks, err = items(m.Blocks, n, c.swapBlock)
	case sectionWalked:
		var bits Bits
		m.Walked, err = items(m.Walked, n, func(w *Walked) error { return c.walked(w, &bits) })
	}
	return err
}

// items reads n items into into, which is empty and replaced when it has no room.
func items[T any](into []T, n int, read func(*T) error) ([]T, error) {
	if cap(into) < n {
		into = make([]T, n)
	}
	into = into[:n] // cleared by Reset
	for i := range into {
		if err := read(&into[i]); err != nil {
			return into, err
		}
	}
	return into, nil
}

// count reads the number of items of a section.
func (c *swapCursor) count(s section) (int, error) {
	at := c.pos
	n, err := c.positive("count", math.MaxUint32)
	switch {
	case err != nil:
		return 0, err
	case n > uint64(MaxItems-c.items):
		return 0, c.bad("count", at, fmt.Errorf("%w: %d, at most %d", ErrTooMany, uint64(c.items)+n, MaxItems))
	case n > uint64((c.end-c.pos)/itemSize[s]):
		return 0, c.bad("count", at, fmt.Errorf("%w: %d items in %d bytes", ErrMalformed, n, c.end-c.pos))
	}
	c.items += int(n)
	return int(n), nil
}

func (c *swapCursor) follow(f *Follow) error {
	flags, err := c.flags("follows", followDurable|followStop|followRange|followProof)
	if err != nil {
		return err
	}
	if flags&followStop != 0 && flags != followStop {
		return c.bad("follows", c.pos-1, fmt.Errorf("%w: flags %#x", ErrMalformed, flags))
	}
	f.Durable, f.Stop = flags&followDurable != 0, flags&followStop != 0
	if f.Feed, err = c.feed("follows.feed"); err != nil {
		return err
	}
	if f.Root, err = c.key("follows.root"); err != nil {
		return err
	}
	if flags&followRange != 0 {
		if err = c.followed(f); err != nil {
			return err
		}
	}
	if flags&followProof != 0 {
		return c.proof("follows.proof", &f.Proof)
	}
	return nil
}

// followed reads the range of leaves of a follow.
func (c *swapCursor) followed(f *Follow) (err error) {
	at := c.pos
	if f.First, err = c.u32("follows.first"); err != nil {
		return err
	}
	end := c.pos
	if f.Count, err = c.u32("follows.count"); err != nil {
		return err
	}
	switch {
	case f.First|f.Count == 0:
		return c.bad("follows.first", at, fmt.Errorf("%w: a range of everything", ErrMalformed))
	case uint64(f.First)+uint64(f.Count) > leafEnd:
		return c.bad("follows.count", end, fmt.Errorf("%w: %w", ErrMalformed, errRun))
	}
	return nil
}

func (c *swapCursor) want(e *Entry) error {
	const all = wantLeaves | wantHave | wantCancel | wantSendDontHave | wantRun | wantPriority | wantFalls | wantFeed
	at := c.pos
	flags, err := c.flags("wants", all)
	if err != nil {
		return err
	}
	if flags&wantCancel != 0 && flags&(wantHave|wantSendDontHave|wantPriority|wantFalls|wantFeed) != 0 ||
		flags&wantFalls != 0 && flags&wantRun == 0 || flags&wantFeed != 0 && flags&wantLeaves != 0 {
		return c.bad("wants", at, fmt.Errorf("%w: flags %#x", ErrMalformed, flags))
	}
	e.Cancel, e.SendDontHave, e.Falls = flags&wantCancel != 0, flags&wantSendDontHave != 0, flags&wantFalls != 0
	if flags&wantHave != 0 {
		e.Type = WantHave
	}
	if flags&wantFeed != 0 {
		if e.Feed, err = c.feed(wantFields.feed); err != nil {
			return err
		}
	}
	if err = c.named(&wantFields, &e.CID, &e.Leaves, flags&wantLeaves != 0, flags&wantRun != 0); err != nil {
		return err
	}
	priority := int64(0)
	if flags&wantPriority != 0 {
		if priority, err = c.priority(); err != nil {
			return err
		}
	}
	if e.Falls && priority-int64(e.Leaves.Count-1) < math.MinInt32 {
		return c.bad("wants.count", at, fmt.Errorf("%w: %w", ErrMalformed, errFalls))
	}
	e.Priority = int32(priority)
	return nil
}

func (c *swapCursor) priority() (int64, error) {
	const field = "wants.priority"
	at := c.pos
	level, err := c.byte(field)
	if err != nil {
		return 0, err
	}
	rank, err := c.u32(field)
	if err != nil {
		return 0, err
	}
	p := joinPriority(level, rank)
	if level >= levels || rank >= levelSpan || p == 0 || p > math.MaxInt32 || p < math.MinInt32 {
		return 0, c.bad(field, at, fmt.Errorf("%w: level %d and rank %d", ErrMalformed, level, rank))
	}
	return p, nil
}

// keyFields are the names of what an item is about.
type keyFields struct{ item, cid, feed, first, count string }

var (
	wantFields     = keyFields{"wants", "wants.cid", "wants.feed", "wants.first", "wants.count"}
	presenceFields = keyFields{"presences", "presences.cid", "presences.feed", "presences.first", "presences.count"}
)

// named reads either spelling of what is wanted or answered; the item's flags say which.
func (c *swapCursor) named(fields *keyFields, id *cid.Cid, l *Leaves, leaves, run bool) error {
	var err error
	if !leaves {
		if run {
			return c.bad(fields.item, c.pos-1, fmt.Errorf("%w: a run of CIDs", ErrMalformed))
		}
		*id, err = c.key(fields.cid)
		return err
	}
	l.Count = 1
	if l.Feed, err = c.feed(fields.feed); err != nil {
		return err
	}
	if l.First, err = c.u32(fields.first); err != nil || !run {
		return err
	}
	at := c.pos
	if l.Count, err = c.u32(fields.count); err != nil {
		return err
	}
	switch {
	case l.Count < 2:
		return c.bad(fields.count, at, fmt.Errorf("%w: a run of %d", ErrMalformed, l.Count))
	case uint64(l.First)+uint64(l.Count) > leafEnd:
		return c.bad(fields.count, at, fmt.Errorf("%w: %w", ErrMalformed, errRun))
	}
	return nil
}

func (c *swapCursor) swapPresence(p *Presence) error {
	flags, err := c.flags("presences", presenceLeaves|presenceIsHave|presenceRun)
	if err != nil {
		return err
	}
	p.Have = flags&presenceIsHave != 0
	return c.named(&presenceFields, &p.CID, &p.Leaves, flags&presenceLeaves != 0, flags&presenceRun != 0)
}

func (c *swapCursor) have(h *Have, room *Bits) error {
	at := c.pos
	flags, err := c.flags("haves", haveLost|haveDenied)
	if err != nil {
		return err
	}
	if flags == haveLost|haveDenied {
		return c.bad("haves", at, fmt.Errorf("%w: flags %#x", ErrMalformed, flags))
	}
	h.Lost, h.Denied = flags&haveLost != 0, flags&haveDenied != 0
	if h.Feed, err = c.feed("haves.feed"); err != nil || h.Denied {
		return err
	}
	if h.Leaves, err = c.u32("haves.leaves"); err != nil {
		return err
	}
	n, err := c.span("haves.bits")
	if err != nil {
		return err
	}
	h.Bits, err = c.bits("haves.bits", n, h.Leaves, room)
	return err
}

func (c *swapCursor) walk(w *Walk) error {
	at := c.pos
	flags, err := c.flags("walks", walkLeaves|walkSpread|walkStop|walkProof)
	if err != nil {
		return err
	}
	if flags&walkStop != 0 && flags != walkStop {
		return c.bad("walks", at, fmt.Errorf("%w: flags %#x", ErrMalformed, flags))
	}
	w.Leaves, w.Spread, w.Stop = flags&walkLeaves != 0, flags&walkSpread != 0, flags&walkStop != 0
	if w.ID, err = c.walkID("walks.id"); err != nil || w.Stop {
		return err
	}
	if w.Root, err = c.key("walks.root"); err != nil {
		return err
	}
	if w.Depth, err = c.u32("walks.depth"); err != nil {
		return err
	}
	if w.Bytes, err = c.number("walks.bytes", math.MaxUint64); err != nil {
		return err
	}
	if w.Push, err = c.number("walks.push", math.MaxUint64); err != nil || flags&walkProof == 0 {
		return err
	}
	return c.proof("walks.proof", &w.Proof)
}

// proof reads a proof, which is not zeros.
func (c *swapCursor) proof(field string, p *dray.Proof) error {
	at := c.pos
	if n := copy(p[:], c.b[c.pos:c.end]); n < len(p) {
		return c.bad(field, at, fmt.Errorf("%w: a proof of %d bytes", ErrMalformed, n))
	}
	c.pos += len(p)
	if p.IsZero() {
		return c.bad(field, at, fmt.Errorf("%w: a proof of zeros", ErrMalformed))
	}
	return nil
}

func (c *swapCursor) swapBlock(b *Block) error {
	at := c.pos
	p, n, err := swapPrefix(c.b[c.pos:c.end])
	if err != nil {
		return c.bad("blocks.prefix", at, err)
	}
	c.pos += n
	at = c.pos
	size, err := c.span("blocks.data")
	switch {
	case err != nil:
		return err
	case size > dray.MaxBlockSize:
		return c.bad("blocks.data", at, fmt.Errorf("%w: %d bytes, at most %d", dray.ErrTooBig, size, dray.MaxBlockSize))
	}
	b.Prefix, b.Data = p, c.b[c.pos:c.pos+size:c.pos+size]
	c.pos += size
	return nil
}

func (c *swapCursor) walked(w *Walked, room *Bits) error {
	at := c.pos
	status, err := c.byte("walked.status")
	if err != nil {
		return err
	}
	if w.Status = WalkStatus(status); w.Status > WalkDenied {
		return c.bad("walked.status", at, fmt.Errorf("%w: %w: %d", ErrMalformed, errStatus, status))
	}
	if w.ID, err = c.walkID("walked.id"); err != nil {
		return err
	}
	at = c.pos
	n, err := c.u32("walked.pushed")
	switch {
	case err != nil || n == 0:
		return err
	case w.Status > WalkPart:
		return c.bad("walked.pushed", at, fmt.Errorf("%w: %w", ErrMalformed, errPushed))
	}
	if w.Leaves, err = c.u32("walked.leaves"); err != nil {
		return err
	}
	if uint64(n) > uint64(c.end-c.pos) {
		return c.bad("walked.pushed", at, fmt.Errorf("%w: %d bytes announced, %d left", ErrMalformed, n, c.end-c.pos))
	}
	w.Pushed, err = c.bits("walked.pushed", int(n), w.Leaves, room)
	return err
}

// bits reads a bitmap of n bytes and copies it to the end of room, which holds those of one section.
func (c *swapCursor) bits(field string, n int, leaves uint32, room *Bits) (Bits, error) {
	if n == 0 {
		return nil, nil
	}
	b := Bits(c.b[c.pos : c.pos+n])
	if err := b.within(leaves); err != nil {
		return nil, c.bad(field, c.pos, err)
	}
	if *room == nil {
		*room = make(Bits, 0, c.end-c.pos)
	}
	c.pos += n
	at := len(*room)
	*room = append(*room, b...)
	return (*room)[at : at+n : at+n], nil
}

// key reads a CID with its length.
func (c *swapCursor) key(field string) (cid.Cid, error) {
	n, err := c.span(field)
	if err != nil {
		return cid.Undef, err
	}
	sub := cursor{b: c.b, pos: c.pos, end: c.pos + n}
	c.pos = sub.end
	id, err := sub.cid(field)
	if err == nil && !id.Defined() {
		return id, c.bad(field, sub.pos, badCID(errNotAllowed))
	}
	return id, err
}

func (c *swapCursor) feed(field string) (uint32, error) {
	x, err := c.positive(field, math.MaxUint32)
	return uint32(x), err
}

func (c *swapCursor) walkID(field string) (uint32, error) { return c.feed(field) }

func (c *swapCursor) u32(field string) (uint32, error) {
	x, err := c.number(field, math.MaxUint32)
	return uint32(x), err
}

// span reads how many bytes follow, which must be there.
func (c *swapCursor) span(field string) (int, error) {
	at := c.pos
	n, err := c.number(field, math.MaxUint64)
	if err == nil && n > uint64(c.end-c.pos) {
		err = c.bad(field, at, fmt.Errorf("%w: %d bytes announced, %d left", ErrMalformed, n, c.end-c.pos))
	}
	return int(n), err
}

func (c *swapCursor) positive(field string, limit uint64) (uint64, error) {
	at := c.pos
	x, err := c.number(field, limit)
	if err == nil && x == 0 {
		err = c.bad(field, at, fmt.Errorf("%w: zero", ErrMalformed))
	}
	return x, err
}

// number reads a varint in its shortest form that is at most limit.
func (c *swapCursor) number(field string, limit uint64) (uint64, error) {
	if c.pos < c.end && c.b[c.pos] < 0x80 && uint64(c.b[c.pos]) <= limit {
		x := uint64(c.b[c.pos])
		c.pos++
		return x, nil
	}
	x, n := binary.Uvarint(c.b[c.pos:c.end])
	switch {
	case n <= 0:
		return 0, c.bad(field, c.pos, fmt.Errorf("%w: no varint", ErrMalformed))
	case n > 1 && c.b[c.pos+n-1] == 0:
		return 0, c.bad(field, c.pos, fmt.Errorf("%w: a varint that is longer than it need be", ErrMalformed))
	case x > limit:
		return 0, c.bad(field, c.pos, fmt.Errorf("%w: %d, at most %d", ErrMalformed, x, limit))
	}
	c.pos += n
	return x, nil
}

func (c *swapCursor) byte(field string) (byte, error) {
	if !c.more() {
		return 0, c.bad(field, c.pos, fmt.Errorf("%w: nothing left", ErrMalformed))
	}
	b := c.b[c.pos]
	c.pos++
	return b, nil
}

// flags reads a byte of which only the given bits may be set.
func (c *swapCursor) flags(field string, known byte) (byte, error) {
	f, err := c.byte(field)
	if err == nil && f&^known != 0 {
		err = c.bad(field, c.pos-1, fmt.Errorf("%w: flags %#x", ErrMalformed, f))
	}
	return f, err
}

func (c *swapCursor) bad(field string, at int, err error) error {
	return &Error{Field: field, Offset: at, Err: err}
}
