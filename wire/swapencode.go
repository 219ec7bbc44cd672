package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"

	"dray"
)

// section is the type of a part of a control frame. A frame has each at most once, in this order.
type section uint8

const (
	sectionSeq       section = 1
	sectionContinues section = 2
	sectionCredit    section = 3
	sectionInfo      section = 4
	sectionPending   section = 5
	sectionFollows   section = 6
	sectionWants     section = 7
	sectionPresences section = 8
	sectionHaves     section = 9
	sectionWalks     section = 10
	sectionBlocks    section = 11
	sectionWalked    section = 12

	sections = 13

	// sectionMayBeSkipped is set in the types of sections, in versions to come, that a reader need not understand.
	sectionMayBeSkipped section = 0x80
)

// The flags of items and sections. Those that are not named here must be zero.
const (
	infoUploading   = 1
	infoDownloading = 2

	followDurable = 1
	followStop    = 2
	followRange   = 4
	followProof   = 8

	wantLeaves       = 0x01
	wantHave         = 0x02
	wantCancel       = 0x04
	wantSendDontHave = 0x08
	wantRun          = 0x10
	wantPriority     = 0x20
	wantFalls        = 0x40
	wantFeed         = 0x80

	presenceLeaves = 1
	presenceIsHave = 2
	presenceRun    = 4

	haveLost   = 1
	haveDenied = 2

	walkLeaves = 1
	walkSpread = 2
	walkStop   = 4
	walkProof  = 8
)

// leafEnd is how many leaves a root can have.
const leafEnd = 1 << 32

// A priority is written as level × 2^28 − rank, which makes both small for the ones that the engine uses: they count down
// from the top of a class. The level is written with lowestLevel taken off.
const (
	levelSpan   = 1 << 28
	lowestLevel = -8
	levels      = 17
)

func splitPriority(p int32) (level byte, rank uint32) {
	l := (int64(p) + levelSpan - 1) >> 28
	return byte(l - lowestLevel), uint32(l<<28 - int64(p))
}

func joinPriority(level byte, rank uint32) int64 {
	return (int64(level)+lowestLevel)<<28 - int64(rank)
}

var (
	errFeed    = errors.New("a feed has no number 0")
	errRun     = errors.New("a run that goes beyond the last leaf there can be")
	errFalls   = errors.New("a priority that falls below the lowest")
	errWalkID  = errors.New("a walk has no number 0")
	errStatus  = errors.New("an unknown status")
	errPushed  = errors.New("leaves pushed by a walk that did not take place")
	errFull    = errors.New("the message with number 1, and no other, is full")
	errNumber  = errors.New("a message of more than blocks has a number")
	errPending = errors.New("fewer than no pending bytes")
	errBits    = errors.New("a bitmap that is longer than the manifest")
)

// swapWant makes e the want that m.Wants[i] begins, with all that can be written as one with it, and returns the index of
// the next.
func (m *Message) swapWant(i int, e *Entry) int {
	*e = m.Wants[i]
	if e.Cancel {
		e.Priority, e.Type, e.SendDontHave, e.Falls, e.Feed = 0, 0, false, false, 0
	}
	i++
	if e.Leaves.Feed == 0 {
		e.Falls, e.Leaves = false, Leaves{}
		return i
	}
	e.Feed = 0
	n := uint64(e.Leaves.N())
	e.Falls = e.Falls && n > 1
	for ; i < len(m.Wants); i++ {
		x := &m.Wants[i]
		k := uint64(x.Leaves.N())
		if x.Leaves.Feed != e.Leaves.Feed || uint64(e.Leaves.First)+n != uint64(x.Leaves.First) || x.Cancel != e.Cancel ||
			n+k > math.MaxUint32 {
			break
		}
		if e.Cancel {
			n += k
			continue
		}
		if x.Type != e.Type || x.SendDontHave != e.SendDontHave {
			break
		}
		falls := int64(x.Priority) == int64(e.Priority)-int64(n)
		if !falls && x.Priority != e.Priority || n > 1 && e.Falls != falls || k > 1 && x.Falls != falls {
			break
		}
		e.Falls = falls
		n += k
	}
	e.Leaves.Count = uint32(n)
	return i
}

// swapPresence is swapWant for presences.
func (m *Message) swapPresence(i int, p *Presence) int {
	*p = m.Presences[i]
	i++
	if p.Leaves.Feed == 0 {
		p.Leaves = Leaves{}
		return i
	}
	n := uint64(p.Leaves.N())
	for ; i < len(m.Presences); i++ {
		x := &m.Presences[i]
		k := uint64(x.Leaves.N())
		if x.Leaves.Feed != p.Leaves.Feed || uint64(p.Leaves.First)+n != uint64(x.Leaves.First) || x.Have != p.Have ||
			n+k > math.MaxUint32 {
			break
		}
		n += k
	}
	p.Leaves.Count = uint32(n)
	return i
}

// swapLayout is what must be known before the first byte of a TensorSwap message is written.
type swapLayout struct {
	size  [sections]int // of the content of each section; 0 where there is none
	count [sections]int // items of each section that has items
	items int           // together
	total int           // size of the frame
	data  bool          // it is a data frame
}

// swapItems calls do for each item of m that is written, in the order of writing: with its section, the index in m's list
// of the item that comes next, and its size. It stops when do returns false, and reports whether it came to the end.
func (m *Message) swapItems(do func(s section, next, size int) bool) bool {
	for i := range m.Follows {
		if !do(sectionFollows, i+1, m.Follows[i].swapSize()) {
			return false
		}
	}
	var e Entry
	for i := 0; i < len(m.Wants); {
		if i = m.swapWant(i, &e); !do(sectionWants, i, e.swapSize()) {
			return false
		}
	}
	var p Presence
	for i := 0; i < len(m.Presences); {
		if i = m.swapPresence(i, &p); !do(sectionPresences, i, p.swapSize()) {
			return false
		}
	}
	for i := range m.Haves {
		if !do(sectionHaves, i+1, m.Haves[i].swapSize()) {
			return false
		}
	}
	for i := range m.Walks {
		if !do(sectionWalks, i+1, m.Walks[i].swapSize()) {
			return false
		}
	}
	for i := range m.Blocks {
		if !do(sectionBlocks, i+1, m.Blocks[i].Size(Swap1)) {
			return false
		}
	}
	for i := range m.Walked {
		if !do(sectionWalked, i+1, m.Walked[i].swapSize()) {
			return false
		}
	}
	return true
}

// swapLayout returns m's layout.
func (m *Message) swapLayout() swapLayout {
	var l swapLayout
	if m.isData() {
		l.data = true
		l.total = dataHead + len(m.Blocks[0].Data)
		return l
	}
	if m.Seq != 0 {
		l.size[m.seqSection()] = uvarintSize(m.Seq)
	}
	if m.Credit != 0 {
		l.size[sectionCredit] = uvarintSize(m.Credit)
	}
	if m.Info.Set {
		l.size[sectionInfo] = 1
	}
	if m.PendingBytes != 0 {
		l.size[sectionPending] = uvarintSize(uint64(uint32(m.PendingBytes)))
	}
	m.swapItems(func(s section, _, size int) bool {
		l.size[s] += size
		l.count[s]++
		l.items++
		return true
	})
	l.total = controlHead
	for s := range l.size {
		if l.count[s] > 0 {
			l.size[s] += uvarintSize(uint64(l.count[s]))
		}
		if l.size[s] > 0 {
			l.total += fieldSize(l.size[s])
		}
	}
	return l
}

func (m *Message) seqSection() section {
	if m.Continues {
		return sectionContinues
	}
	return sectionSeq
}

// isData reports whether m is written as a data frame: it is one block and says nothing else.
func (m *Message) isData() bool { return len(m.Blocks) == 1 && m.Seq == 0 }

// numbered says why the number of m is wrong. Only what carries nothing but blocks has none.
func (m *Message) numbered() error {
	switch {
	case m.Full != (m.Seq == 1 && !m.Continues):
		return errFull
	case m.Seq == 0 && (m.Continues || m.Credit != 0 || m.Info.Set ||
		len(m.Follows)+len(m.Wants)+len(m.Presences)+len(m.Haves)+len(m.Walks)+len(m.Walked) > 0):
		return errNumber
	}
	return nil
}

func cidSize(c cid.Cid) int { return uvarintSize(uint64(c.ByteLen())) + c.ByteLen() }

func u32Size(x uint32) int { return uvarintSize(uint64(x)) }

func (l Leaves) swapSize() int {
	n := u32Size(l.Feed) + u32Size(l.First)
	if l.N() > 1 {
		n += u32Size(l.Count)
	}
	return n
}

func (f *Follow) swapSize() int {
	n := 1 + u32Size(f.Feed) + cidSize(f.Root)
	if f.flags()&followRange != 0 {
		n += u32Size(f.First) + u32Size(f.Count)
	}
	if f.flags()&followProof != 0 {
		n += dray.ProofSize
	}
	return n
}

func (e *Entry) swapSize() int {
	n := 1
	if e.Leaves.Feed != 0 {
		n += e.Leaves.swapSize()
	} else {
		n += cidSize(e.CID)
		if e.Feed != 0 {
			n += u32Size(e.Feed)
		}
	}
	if e.Priority != 0 && !e.Cancel {
		_, rank := splitPriority(e.Priority)
		n += 1 + u32Size(rank)
	}
	return n
}

func (p *Presence) swapSize() int {
	if p.Leaves.Feed != 0 {
		return 1 + p.Leaves.swapSize()
	}
	return 1 + cidSize(p.CID)
}

func (h *Have) swapSize() int {
	if h.Denied {
		return 1 + u32Size(h.Feed)
	}
	return 1 + u32Size(h.Feed) + u32Size(h.Leaves) + uvarintSize(uint64(len(h.Bits))) + len(h.Bits)
}

func (w *Walk) swapSize() int {
	n := 1 + u32Size(w.ID)
	if w.Stop {
		return n
	}
	if !w.Proof.IsZero() {
		n += dray.ProofSize
	}
	return n + cidSize(w.Root) + u32Size(w.Depth) + uvarintSize(w.Bytes) + uvarintSize(w.Push)
}

func (w *Walked) swapSize() int {
	n := 1 + u32Size(w.ID) + uvarintSize(uint64(len(w.Pushed)))
	if len(w.Pushed) > 0 {
		n += u32Size(w.Leaves) + len(w.Pushed)
	}
	return n
}

func blame(id cid.Cid, err error) error { return &dray.Error{Op: "encode", CID: id, Err: err} }

// prepareSwap checks that m may be written in TensorSwap and returns its layout.
func (m *Message) prepareSwap() (swapLayout, error) {
	if err := m.checkSwap(); err != nil {
		return swapLayout{}, err
	}
	l := m.swapLayout()
	switch {
	case l.items > MaxItems:
		return l, blame(cid.Undef, fmt.Errorf("%w: %d, at most %d", ErrTooMany, l.items, MaxItems))
	case l.total > MaxFrameSize:
		return l, tooLong(l.total, MaxFrameSize)
	}
	return l, nil
}

func (m *Message) checkSwap() error {
	if err := m.numbered(); err != nil {
		return blame(cid.Undef, err)
	}
	if m.PendingBytes < 0 {
		return blame(cid.Undef, errPending)
	}
	for i := range m.Follows {
		f := &m.Follows[i]
		switch {
		case f.Feed == 0:
			return blame(f.Root, errFeed)
		case !f.Stop && uint64(f.First)+uint64(f.Count) > leafEnd:
			return blame(f.Root, errRun)
		}
		if err := checkCID(f.Root); err != nil {
			return blame(f.Root, err)
		}
	}
	for i := range m.Wants {
		e := &m.Wants[i]
		if err := checkKey(e.CID, e.Leaves); err != nil {
			return blame(e.CID, err)
		}
		switch {
		case e.Type > WantHave:
			return blame(e.CID, fmt.Errorf("want of type %d", e.Type))
		case e.Falls && !e.Cancel && int64(e.Priority)-int64(e.Leaves.N()-1) < math.MinInt32:
			return blame(e.CID, errFalls)
		}
	}
	for i := range m.Presences {
		if err := checkKey(m.Presences[i].CID, m.Presences[i].Leaves); err != nil {
			return blame(m.Presences[i].CID, err)
		}
	}
	for i := range m.Haves {
		h := &m.Haves[i]
		if h.Feed == 0 {
			return blame(cid.Undef, errFeed)
		}
		if err := h.Bits.within(h.Leaves); err != nil && !h.Denied {
			return blame(cid.Undef, err)
		}
	}
	for i := range m.Walks {
		w := &m.Walks[i]
		if w.ID == 0 {
			return blame(w.Root, errWalkID)
		}
		if err := checkCID(w.Root); err != nil && !w.Stop {
			return blame(w.Root, err)
		}
	}
	for i := range m.Blocks {
		if err := checkBlock(Swap1, m.Blocks[i].Prefix, len(m.Blocks[i].Data)); err != nil {
			return err
		}
	}
	for i := range m.Walked {
		if err := m.Walked[i].check(); err != nil {
			return blame(cid.Undef, err)
		}
	}
	return nil
}

// checkKey says why neither spelling may be written.
func checkKey(c cid.Cid, l Leaves) error {
	if l.Feed == 0 {
		return checkCID(c)
	}
	if uint64(l.First)+uint64(l.N()) > leafEnd {
		return errRun
	}
	return nil
}

func (w *Walked) check() error {
	switch {
	case w.ID == 0:
		return errWalkID
	case w.Status > WalkDenied:
		return errStatus
	case len(w.Pushed) > 0 && w.Status > WalkPart:
		return errPushed
	case len(w.Pushed) == 0:
		return nil
	}
	return w.Pushed.within(w.Leaves)
}

// within says why b is not a bitmap of so many leaves. All eight bits of the last byte may be there, but what is beyond the
// last leaf is 0.
func (b Bits) within(leaves uint32) error {
	n, last, err := b.scan()
	switch {
	case err != nil:
		return err
	case n >= uint64(leaves)+8, n > uint64(leaves) && last>>(8-(n-uint64(leaves))) != 0:
		return fmt.Errorf("%w: %w: %d bits of %d leaves", ErrMalformed, errBits, n, leaves)
	}
	return nil
}

// appendSwapControl appends all of a control frame that comes before the first block's bytes: every section but the last
// two, and the beginning of the blocks'.
func (m *Message) appendSwapControl(dst []byte, l *swapLayout) []byte {
	if l.data {
		b := &m.Blocks[0]
		return appendDataHead(dst, b.Prefix, len(b.Data), m.PendingBytes)
	}
	dst = appendControlHead(dst, l.total-controlHead)
	if m.Seq != 0 {
		dst = binary.AppendUvarint(l.begin(dst, m.seqSection()), m.Seq)
	}
	if m.Credit != 0 {
		dst = binary.AppendUvarint(l.begin(dst, sectionCredit), m.Credit)
	}
	if m.Info.Set {
		dst = append(l.begin(dst, sectionInfo), flag(m.Info.Uploading, infoUploading)|flag(m.Info.Downloading, infoDownloading))
	}
	if m.PendingBytes != 0 {
		dst = appendU32(l.begin(dst, sectionPending), uint32(m.PendingBytes))
	}
	dst = l.begin(dst, sectionFollows)
	for i := range m.Follows {
		dst = m.Follows[i].appendSwap(dst)
	}
	dst = l.begin(dst, sectionWants)
	var e Entry
	for i := 0; i < len(m.Wants); {
		i = m.swapWant(i, &e)
		dst = e.appendSwap(dst)
	}
	dst = l.begin(dst, sectionPresences)
	var p Presence
	for i := 0; i < len(m.Presences); {
		i = m.swapPresence(i, &p)
		dst = p.appendSwap(dst)
	}
	dst = l.begin(dst, sectionHaves)
	for i := range m.Haves {
		dst = m.Haves[i].appendSwap(dst)
	}
	dst = l.begin(dst, sectionWalks)
	for i := range m.Walks {
		dst = m.Walks[i].appendSwap(dst)
	}
	return l.begin(dst, sectionBlocks)
}

// appendSwapBlock appends what comes before a block's bytes in a control frame.
func appendSwapBlock(dst []byte, b *Block) []byte {
	dst = AppendPrefix(dst, b.Prefix)
	return binary.AppendUvarint(dst, uint64(len(b.Data)))
}

// appendSwapEnd appends what comes after the blocks.
func (m *Message) appendSwapEnd(dst []byte, l *swapLayout) []byte {
	dst = l.begin(dst, sectionWalked)
	for i := range m.Walked {
		w := &m.Walked[i]
		dst = append(dst, byte(w.Status))
		dst = appendU32(dst, w.ID)
		dst = appendU32(dst, uint32(len(w.Pushed)))
		if len(w.Pushed) > 0 {
			dst = appendU32(dst, w.Leaves)
			dst = append(dst, w.Pushed...)
		}
	}
	return dst
}

// begin appends the type, length and count of a section, unless it is left out.
func (l *swapLayout) begin(dst []byte, s section) []byte {
	if l.size[s] == 0 {
		return dst
	}
	dst = binary.AppendUvarint(append(dst, byte(s)), uint64(l.size[s]))
	if l.count[s] > 0 {
		dst = binary.AppendUvarint(dst, uint64(l.count[s]))
	}
	return dst
}

func appendU32(dst []byte, x uint32) []byte { return binary.AppendUvarint(dst, uint64(x)) }

func flag(set bool, f byte) byte {
	if set {
		return f
	}
	return 0
}

func (f *Follow) flags() byte {
	if f.Stop {
		return followStop
	}
	return flag(f.Durable, followDurable) | flag(f.First|f.Count != 0, followRange) | flag(!f.Proof.IsZero(), followProof)
}

func (f *Follow) appendSwap(dst []byte) []byte {
	dst = append(dst, f.flags())
	dst = appendU32(dst, f.Feed)
	dst = appendCID(dst, f.Root)
	if f.flags()&followRange != 0 {
		dst = appendU32(dst, f.First)
		dst = appendU32(dst, f.Count)
	}
	if f.flags()&followProof != 0 {
		dst = append(dst, f.Proof[:]...)
	}
	return dst
}

func (h *Have) appendSwap(dst []byte) []byte {
	if h.Denied {
		return appendU32(append(dst, haveDenied), h.Feed)
	}
	dst = append(dst, flag(h.Lost, haveLost))
	dst = appendU32(dst, h.Feed)
	dst = appendU32(dst, h.Leaves)
	dst = appendU32(dst, uint32(len(h.Bits)))
	return append(dst, h.Bits...)
}

func (l Leaves) appendSwap(dst []byte) []byte {
	dst = appendU32(dst, l.Feed)
	dst = appendU32(dst, l.First)
	if l.N() > 1 {
		dst = appendU32(dst, l.Count)
	}
	return dst
}

func (e *Entry) appendSwap(dst []byte) []byte {
	flags := flag(e.Leaves.Feed != 0, wantLeaves) | flag(e.Leaves.N() > 1, wantRun)
	if e.Cancel {
		flags |= wantCancel
	} else {
		flags |= flag(e.Type == WantHave, wantHave) | flag(e.SendDontHave, wantSendDontHave) |
			flag(e.Priority != 0, wantPriority) | flag(e.Falls, wantFalls) | flag(e.Leaves.Feed == 0 && e.Feed != 0, wantFeed)
	}
	dst = append(dst, flags)
	if e.Leaves.Feed != 0 {
		dst = e.Leaves.appendSwap(dst)
	} else {
		if flags&wantFeed != 0 {
			dst = appendU32(dst, e.Feed)
		}
		dst = appendCID(dst, e.CID)
	}
	if flags&wantPriority != 0 {
		level, rank := splitPriority(e.Priority)
		dst = appendU32(append(dst, level), rank)
	}
	return dst
}

func (p *Presence) appendSwap(dst []byte) []byte {
	dst = append(dst, flag(p.Leaves.Feed != 0, presenceLeaves)|flag(p.Have, presenceIsHave)|
		flag(p.Leaves.N() > 1, presenceRun))
	if p.Leaves.Feed != 0 {
		return p.Leaves.appendSwap(dst)
	}
	return appendCID(dst, p.CID)
}

func (w *Walk) appendSwap(dst []byte) []byte {
	if w.Stop {
		return appendU32(append(dst, walkStop), w.ID)
	}
	dst = append(dst, flag(w.Leaves, walkLeaves)|flag(w.Spread, walkSpread)|flag(!w.Proof.IsZero(), walkProof))
	dst = appendU32(dst, w.ID)
	dst = appendCID(dst, w.Root)
	dst = appendU32(dst, w.Depth)
	dst = binary.AppendUvarint(dst, w.Bytes)
	dst = binary.AppendUvarint(dst, w.Push)
	if !w.Proof.IsZero() {
		dst = append(dst, w.Proof[:]...)
	}
	return dst
}
