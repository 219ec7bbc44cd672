package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	mh "github.com/multiformats/go-multihash"

	"dray"
)

// swapBytes turns a vector into a control frame: a header and the bytes of the sections.
func swapBytes(t testing.TB, s string) []byte {
	body := unhex(t, s)
	return append(appendControlHead(nil, len(body)), body...)
}

// Every way to be wrong: the cause, the field that is blamed and the byte, counted from the header's first.
func TestSwapDecodeRefuses(t *testing.T) {
	const n = "010102 " // a number, as everything but blocks must have: three bytes
	id := func(c string) string { return n + "07 " + c }
	for _, test := range []struct {
		name   string
		hex    string // the sections
		want   error
		field  string
		offset int
	}{
		{"section 0", "00 00", ErrMalformed, "section", 8},
		{"unknown section", n + "0d 00", ErrMalformed, "section", 11},
		{"the last unknown section that must be understood", n + "7f 00", ErrMalformed, "section", 11},
		{"sections out of order", n + "0800 0700", ErrMalformed, "count", 13},
		{"section twice", n + "030101 030101", ErrMalformed, "section", 14},
		{"sections back to front", n + "030101 010102", ErrMalformed, "section", 14},
		{"section that may be skipped, twice", "8000 8000", ErrMalformed, "section", 10},
		{"section after one that may be skipped", "8000 010101", ErrMalformed, "section", 10},
		{"section without a length", n + "07", ErrMalformed, "section", 12},
		{"section cut", n + "0702 01", ErrMalformed, "section", 12},
		{"section to be skipped, cut", "8002 01", ErrMalformed, "section", 9},
		{"section of 2^64-1 bytes", n + "07 ffffffffffffffffff01", ErrMalformed, "section", 12},
		{"section with a long length", n + "03 8100 01", ErrMalformed, "section", 12},
		{"bytes after a number", "0102 0202", ErrMalformed, "section", 11},
		{"bytes after the items", n + "0706 01 010700 0100", ErrMalformed, "section", 17},
		{"no number", "030101", ErrMalformed, "seq", 8},
		{"number 0", "010100", ErrMalformed, "seq", 10},
		{"empty number", "0100", ErrMalformed, "seq", 10},
		{"two numbers", "010102 020102", ErrMalformed, "seq", 13},
		{"number of more than 64 bits", "010a ffffffffffffffffff02", ErrMalformed, "seq", 10},
		{"number with a long varint", "0102 8100", ErrMalformed, "seq", 10},
		{"credit 0", n + "030100", ErrMalformed, "credit", 13},
		{"info with an unknown flag", n + "040104", ErrMalformed, "info", 13},
		{"empty info", n + "0400", ErrMalformed, "info", 13},
		{"no pending bytes", "050100", ErrMalformed, "pending", 10},
		{"pending bytes beyond 2^31", "0505 8080808008", ErrMalformed, "pending", 10},

		{"no items", n + "070100", ErrMalformed, "count", 13},
		{"no count", n + "0700", ErrMalformed, "count", 13},
		{"more items than there are bytes", n + "0704 02 010700", ErrMalformed, "count", 13},
		{"more items than allowed", n + "0704 818004 00", ErrTooMany, "count", 13},
		{"fewer items than counted", n + "0707 02 0107ff01 0107", ErrMalformed, "wants.first", 20},

		{"follow with an unknown flag", n + "0628 01 10 07 24 %v1", ErrMalformed, "follows", 14},
		{"follow that stops with a proof", n + "0628 01 0a 07 24 %v1", ErrMalformed, "follows", 14},
		{"follow with half a proof", n + "0632 01 08 07 24 %v1 00010203040506070809", ErrMalformed, "follows.proof", 53},
		{"follow with a proof of zeros", n + "0650 01 08 07 24 %v1" + strings.Repeat("00", 40), ErrMalformed, "follows.proof", 53},
		{"follow that stops a range", n + "062a 01 06 07 24 %v1 0101", ErrMalformed, "follows", 14},
		{"follow that stops durably", n + "0628 01 03 07 24 %v1", ErrMalformed, "follows", 14},
		{"follow of feed 0", n + "0628 01 00 00 24 %v1", ErrMalformed, "follows.feed", 15},
		{"follow of feed 2^32", n + "062c 01 00 8080808010 24 %v1", ErrMalformed, "follows.feed", 15},
		{"follow without a root", n + "0604 01 00 07 00", dray.ErrBadCID, "follows.root", 17},
		{"follow of everything, as a range", n + "062a 01 04 07 24 %v1 0000", ErrMalformed, "follows.first", 53},
		{"follow beyond the last leaf", n + "062e 01 04 07 24 %v1 ffffffff0f 02", ErrMalformed, "follows.count", 58},
		{"follow cut after its first leaf", n + "0629 01 04 07 24 %v1 01", ErrMalformed, "follows.count", 54},

		{"want of a leaf and a CID", id("04 01 81 07 00"), ErrMalformed, "wants", 14},
		{"cancel of a want-have", id("04 01 07 07 00"), ErrMalformed, "wants", 14},
		{"cancel with a priority", id("06 01 25 07 00 0901"), ErrMalformed, "wants", 14},
		{"cancel in a feed", id("04 01 84 07 00"), ErrMalformed, "wants", 14},
		{"want of a CID in feed 0", id("28 01 80 00 24 %v1"), ErrMalformed, "wants.feed", 15},
		{"cancel that asks for DONT_HAVE", id("04 01 0d 07 00"), ErrMalformed, "wants", 14},
		{"want that falls alone", id("04 01 41 07 00"), ErrMalformed, "wants", 14},
		{"want of feed 0", id("04 01 01 00 00"), ErrMalformed, "wants.feed", 15},
		{"want of leaf 2^32", id("08 01 01 07 8080808010"), ErrMalformed, "wants.first", 16},
		{"want of a run of CIDs", id("28 01 10 24 %v1 02"), ErrMalformed, "wants", 14},
		{"want of a run of none", id("05 01 11 07 00 00"), ErrMalformed, "wants.count", 17},
		{"want of a run of one", id("05 01 11 07 00 01"), ErrMalformed, "wants.count", 17},
		{"want of a run beyond the last leaf", id("09 01 11 07 ffffffff0f 02"), ErrMalformed, "wants.count", 21},
		{"want of a run of 2^32", id("09 01 11 07 00 8080808010"), ErrMalformed, "wants.count", 17},
		{"priority 0, written", id("06 01 21 07 00 0800"), ErrMalformed, "wants.priority", 17},
		{"priority of level 17", id("06 01 21 07 00 1100"), ErrMalformed, "wants.priority", 17},
		{"priority 2^31", id("06 01 21 07 00 1000"), ErrMalformed, "wants.priority", 17},
		{"priority below -2^31", id("06 01 21 07 00 0001"), ErrMalformed, "wants.priority", 17},
		{"priority of rank 2^28", id("0a 01 21 07 00 0a 8080808001"), ErrMalformed, "wants.priority", 17},
		{"priority cut", id("05 01 21 07 00 0a"), ErrMalformed, "wants.priority", 18},
		{"priority that falls too low", id("07 01 71 07 00 02 0000"), ErrMalformed, "wants.count", 14},
		{"want without a CID", id("04 01 00 00 00"), dray.ErrBadCID, "wants.cid", 16},
		{"want of half a CID", id("15 01 00 12 015512 20 0001020304050607 08090a0b0c0d"), dray.ErrBadCID, "wants.cid", 16},
		{"want of an identity", id("0d 01 00 0a 01550006 686568656865"), dray.ErrBadCID, "wants.cid", 16},
		{"want of a weak hash", id("0f 01 00 0c 01552208 0001020304050607"), dray.ErrBadCID, "wants.cid", 16},
		{
			"want of a CID with a digest that is too long", id("8a01 01 00 8601 01551e8101" + strings.Repeat("00", 129)),
			dray.ErrBadCID, "wants.cid", 18,
		},

		{"presence with an unknown flag", n + "0804 01 09 07 00", ErrMalformed, "presences", 14},
		{"presence of feed 0", n + "0804 01 01 00 00", ErrMalformed, "presences.feed", 15},
		{"presence of a run of one", n + "0805 01 05 07 00 01", ErrMalformed, "presences.count", 17},
		{"presence of a run beyond the last leaf", n + "0809 01 05 07 ffffffff0f 02", ErrMalformed, "presences.count", 21},
		{"presence of a run of CIDs", n + "0828 01 04 24 %v1 02", ErrMalformed, "presences", 14},

		{"have with an unknown flag", n + "0905 01 04 07 09 00", ErrMalformed, "haves", 14},
		{"have that is lost and denied", n + "0905 01 03 07 09 00", ErrMalformed, "haves", 14},
		{"have that is denied, with leaves", n + "0905 01 02 07 09 00", ErrMalformed, "section", 16},
		{"have of feed 0", n + "0905 01 00 00 09 00", ErrMalformed, "haves.feed", 15},
		{"have in a manifest of 2^32", n + "0909 01 00 07 8080808010 00", ErrMalformed, "haves.leaves", 16},
		{"bitmap cut", n + "0906 01 00 07 09 02 07", ErrMalformed, "haves.bits", 17},
		{"bitmap of another kind", n + "0906 01 00 07 09 01 00", ErrMalformed, "haves.bits", 18},
		{"bitmap beyond the manifest", n + "0906 01 00 07 09 01 0f", ErrMalformed, "haves.bits", 18},
		{"bitmap of nothing beyond the manifest", n + "0906 01 00 07 09 01 0d", ErrMalformed, "haves.bits", 18},
		{"bitmap with a bit beyond the manifest", n + "0908 01 00 07 09 03 04 01 02", ErrMalformed, "haves.bits", 18},
		{"bitmap of no leaves", n + "0906 01 00 07 00 01 07", ErrMalformed, "haves.bits", 18},
		{"bitmap bomb", n + "090f 01 00 07 ffffffff0f 06 feffffffff07", ErrMalformed, "haves.bits", 22},

		{"walk with an unknown flag", n + "0a04 01 10 01 00", ErrMalformed, "walks", 14},
		{"walk that stops with a proof", n + "0a04 01 0c 01 00", ErrMalformed, "walks", 14},
		{"walk with half a proof", n + "0a2c 01 08 01 24 %v1 00 00 00 0102", ErrMalformed, "walks.proof", 56},
		{"walk that stops and spreads", n + "0a03 01 06 01", ErrMalformed, "walks", 14},
		{"walk 0", n + "0a03 01 04 00", ErrMalformed, "walks.id", 15},
		{"walk without a root", n + "0a07 01 00 01 00 00 00 00", dray.ErrBadCID, "walks.root", 17},
		{"walk cut", n + "0a2a 01 00 01 24 %v1 00 00", ErrMalformed, "walks.push", 55},
		{"walk to a depth of 2^32", n + "0a2f 01 00 01 24 %v1 8080808010 00 00", ErrMalformed, "walks.depth", 53},

		{"block with a prefix that is cut", "0b06 01 8155122000", dray.ErrBadCID, "blocks.prefix", 11},
		{"block of version 2", "0b06 01 02551220 00", dray.ErrBadCID, "blocks.prefix", 11},
		{"block of version 0, raw", "0b06 01 00551220 00", dray.ErrBadCID, "blocks.prefix", 11},
		{"identity block", "0b06 01 01550000 00", dray.ErrBadCID, "blocks.prefix", 11},
		{"block of a weak hash", "0b06 01 01552208 00", dray.ErrBadCID, "blocks.prefix", 11},
		{"block of an unknown hash", "0b08 01 0155ffff7f20 00", dray.ErrBadCID, "blocks.prefix", 11},
		{"block with an endless digest", "0b0e 01 015512ffffffffffffffff7f 00", dray.ErrBadCID, "blocks.prefix", 11},
		{"block cut", "0b07 01 01551220 02 00", ErrMalformed, "blocks.data", 15},
		{
			"block too big", "0bf8ffff01 01 01551220 efffff01" + strings.Repeat("00", dray.MaxBlockSize+1),
			dray.ErrTooBig, "blocks.data", 18,
		},

		{"end of a walk in an unknown way", n + "0c04 01 05 01 00", ErrMalformed, "walked.status", 14},
		{"end of walk 0", n + "0c04 01 00 00 00", ErrMalformed, "walked.id", 15},
		{"end of a walk that did not begin, with leaves", n + "0c06 01 02 01 01 09 07", ErrMalformed, "walked.pushed", 16},
		{"end of a walk with leaves that are cut", n + "0c06 01 00 01 02 09 07", ErrMalformed, "walked.pushed", 16},
		{"end of a walk with leaves beyond the manifest", n + "0c06 01 00 01 01 07 07", ErrMalformed, "walked.pushed", 18},
	} {
		t.Run(test.name, func(t *testing.T) {
			refused(t, swapBytes(t, test.hex), test.want, test.field, test.offset)
		})
	}
}

// refused checks what Decode says about a frame.
func refused(t *testing.T, frame []byte, want error, field string, offset int) {
	t.Helper()
	m := Message{Full: true}
	err := Decode(Swap1, frame, &m)
	var e *Error
	if !errors.Is(err, want) || !errors.As(err, &e) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if e.Field != field || e.Offset != offset || e.Version != Swap1 || !strings.HasPrefix(err.Error(), "tensorswap "+field) {
		t.Errorf("%v: blamed %s at byte %d, want %s at byte %d", err, e.Field, e.Offset, field, offset)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v looks like a broken connection", err)
	}
	if !m.Empty() || m.Seq != 0 {
		t.Errorf("left %+v behind", m)
	}
}

// What is wrong with a frame before its sections are looked at; the reader refuses what it sees in the first eight bytes.
func TestSwapFrameRefuses(t *testing.T) {
	const prefix = "01551220000000000000000000000000"
	for _, test := range []struct {
		name   string
		hex    string
		want   error
		field  string
		offset int
		reader bool
	}{
		{"kind 2", "02 000000 00000000", ErrMalformed, "frame", 0, true},
		{"reserved byte", "00 000001 00000000", ErrMalformed, "frame", 1, true},
		{"control frame too long", "00 000000 39004000", ErrTooLong, "frame", 4, true},
		{"control frame of 2^32-1", "00 000000 ffffffff", ErrTooLong, "frame", 4, true},
		{"block too big", "01 000000 efff3f00", dray.ErrTooBig, "frame", 4, true},
		{"header cut", "00 000000 000000", ErrMalformed, "frame", 0, false},
		{"body cut", "00 000000 03000000 0101", ErrMalformed, "frame", 4, false},
		{"body too long", "00 000000 03000000 01010101", ErrMalformed, "frame", 4, false},
		{"data header cut", "01 000000 00000000 00000000 00000000 0155122000", ErrMalformed, "frame", 4, false},
		{"pending bytes of 2^31", "01 000000 00000000 00000080 00000000" + prefix, ErrMalformed, "frame.pending", 8, false},
		{"reserved bytes of a data frame", "01 000000 00000000 00000000 01000000" + prefix, ErrMalformed, "frame", 12, false},
		{
			"prefix that does not parse", "01 000000 00000000 00000000 00000000 81551220000000000000000000000000",
			dray.ErrBadCID, "frame.prefix", 16, false,
		},
		{
			"prefix of zeros", "01 000000 00000000 00000000 00000000 00000000000000000000000000000000",
			dray.ErrBadCID, "frame.prefix", 16, false,
		},
		{
			"identity", "01 000000 00000000 00000000 00000000 01550000000000000000000000000000",
			dray.ErrBadCID, "frame.prefix", 16, false,
		},
		{
			"something after the prefix", "01 000000 00000000 00000000 00000000 01551220000000000000000000000001",
			ErrMalformed, "frame.prefix", 31, false,
		},
		{
			"prefix that fills its field", "01 000000 00000000 00000000 00000000 ffffffffffffffffffffffffffffffff",
			dray.ErrBadCID, "frame.prefix", 16, false,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := unhex(t, test.hex)
			refused(t, b, test.want, test.field, test.offset)
			if !test.reader {
				return
			}
			f := FrameReader{R: bytes.NewReader(b), Version: Swap1}
			_, err := f.Next(func(n int) []byte { t.Errorf("asked for %d bytes", n); return nil })
			var e *Error
			if !errors.Is(err, test.want) || !errors.As(err, &e) || e.Offset != test.offset || e.Version != Swap1 {
				t.Errorf("the reader says %v", err)
			}
		})
	}
}

// A section of a later version that says so is skipped, whatever is in it.
func TestSwapSkips(t *testing.T) {
	var m Message
	if err := Decode(Swap1, swapBytes(t, "010107 030105 8003 ffffff ff00"), &m); err != nil {
		t.Fatal(err)
	}
	if want := (Message{Seq: 7, Credit: 5}); !sameSwap(&m, &want) {
		t.Errorf("read %+v", m)
	}
}

// A frame says how long it is and a section too, so that no cut goes unnoticed; and whatever is read is written again as
// the same bytes, but for runs that stand side by side.
func TestSwapEveryTruncation(t *testing.T) {
	for _, g := range swapGoldens(t) {
		whole := unhex(t, g.hex)
		var m Message
		for i := 1; i < len(whole); i++ {
			if err := Decode(Swap1, whole[:i:i], &m); err == nil {
				t.Errorf("%s: cut at byte %d of %d", g.name, i, len(whole))
			}
			if whole[0] == frameData || i < controlHead {
				continue
			}
			b := bytes.Clone(whole[:i:i]) // cut, and the header knows
			binary.LittleEndian.PutUint32(b[4:], uint32(i-controlHead))
			if Decode(Swap1, b, &m) == nil {
				writable(t, &m, b)
			}
		}
		for i := range whole {
			for _, x := range []byte{0, 1, 2, 0x7f, 0x80, 0xff, whole[i] ^ 1, whole[i] ^ 0x80} {
				b := bytes.Clone(whole)
				if b[i] = x; Decode(Swap1, b, &m) == nil {
					writable(t, &m, b)
				}
			}
		}
	}
}

// writable checks that what was read from a frame can be written, and is the same when it is read again.
func writable(t *testing.T, m *Message, frame []byte) {
	t.Helper()
	b, err := AppendMessage(nil, Swap1, m)
	if err != nil {
		t.Fatalf("%x is read as %+v, and not written: %v", frame, *m, err)
	}
	if len(b) != m.Size(Swap1) {
		t.Fatalf("%x is written as %d bytes, Size %d", frame, len(b), m.Size(Swap1))
	}
	var again Message
	if err := Decode(Swap1, b, &again); err != nil {
		t.Fatalf("%x is written as %x, and not read: %v", frame, b, err)
	}
	if !sameSwap(&again, swapped(m)) {
		t.Fatalf("%x is read as %+v\nand then as %+v", frame, *m, again)
	}
}

// The densest messages that there are: memory stays within a small multiple of the frame or, because the smallest items
// take more than ten times their bytes, within what [MaxItems] of them take.
func TestSwapDecodeIsBounded(t *testing.T) {
	// fill makes a section of as many items as fit, or as many as may be.
	fill := func(s section, item string) []byte {
		u := unhex(t, item)
		n := min((MaxFrameSize-32)/len(u), MaxItems)
		body := bytes.Repeat(u, n)
		c := binary.AppendUvarint(nil, uint64(n))
		b := binary.AppendUvarint([]byte{1, 1, 2, byte(s)}, uint64(len(c)+len(body)))
		b = append(append(b, c...), body...)
		return append(appendControlHead(nil, len(b)), b...)
	}
	short := "01551214" + goldenDigest[:40]
	for _, test := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"shortest wants", fill(sectionWants, "01 01 00"), nil},
		{"shortest wants by CID", fill(sectionWants, "00 18"+short), nil},
		{"longest wants by CID", fill(sectionWants, "00 8501 01551e8001"+strings.Repeat("00", 128)), nil},
		{"shortest presences", fill(sectionPresences, "01 01 00"), nil},
		{"shortest follows", fill(sectionFollows, "00 01 18"+short), nil},
		{"shortest haves", fill(sectionHaves, "00 01 00 00"), nil},
		{"haves with bits", fill(sectionHaves, "00 01 08 01 07"), nil},
		{"haves of everything", fill(sectionHaves, "00 01 f8ffffff0f 05 ffffffff07"), nil},
		{"shortest walks", fill(sectionWalks, "00 01 18"+short+"00 00 00"), nil},
		{"shortest ends of walks", fill(sectionWalked, "00 01 00"), nil},
		{"empty blocks", fill(sectionBlocks, "01551220 00"), nil},
		{"a count and no items", swapBytes(t, "010102 07 04 ffffff7f"), ErrTooMany},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m Message
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := Decode(Swap1, test.frame, &m)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, test.want) {
				t.Fatal(err)
			}
			got := after.TotalAlloc - before.TotalAlloc
			if got > max(10*uint64(len(test.frame)), 4<<20) {
				t.Errorf("a frame of %d bytes took %d bytes of memory", len(test.frame), got)
			}
		})
	}
	// The limit is one for all sections together.
	var m Message
	b := binary.AppendUvarint([]byte{1, 1, 2, byte(sectionWants)}, 3*MaxItems/2+3)
	b = append(binary.AppendUvarint(b, MaxItems/2), bytes.Repeat([]byte{1, 1, 0}, MaxItems/2)...)
	b = append(b, byte(sectionPresences))
	b = binary.AppendUvarint(b, 3*(MaxItems/2+1)+3)
	b = append(binary.AppendUvarint(b, MaxItems/2+1), bytes.Repeat([]byte{1, 1, 0}, MaxItems/2+1)...)
	if err := Decode(Swap1, append(appendControlHead(nil, len(b)), b...), &m); !errors.Is(err, ErrTooMany) {
		t.Errorf("more items than one message may have: %v", err)
	}
}

// Bitmaps are copied, blocks are not.
func TestSwapDecodeAliases(t *testing.T) {
	frame := swapBytes(t, "010102 090f 02 01 07 09 03 04ff01 00 08 09 03 040200 0b08 01 01551220 02 6869")
	var m Message
	if err := Decode(Swap1, frame, &m); err != nil {
		t.Fatal(err)
	}
	if d := m.Blocks[0].Data; &d[0] != &frame[len(frame)-2] || cap(d) != 2 {
		t.Error("block data was copied, or could grow")
	}
	for i := range frame {
		frame[i] = 0xaa
	}
	if string(m.Haves[0].Bits) != "\x04\xff\x01" || string(m.Haves[1].Bits) != "\x04\x02\x00" || cap(m.Haves[0].Bits) != 3 {
		t.Errorf("bitmaps % x, % x", m.Haves[0].Bits, m.Haves[1].Bits)
	}
	data := append(appendDataHead(nil, rawSHA256, 2, 0), "hi"...)
	if err := Decode(Swap1, data, &m); err != nil {
		t.Fatal(err)
	}
	if d := m.Blocks[0].Data; &d[0] != &data[dataHead] || cap(d) != 2 {
		t.Error("the data of a data frame was copied, or could grow")
	}
}

// Every hash function that is allowed has a prefix that fits into a data frame, at any length and with any codec.
func TestEveryPrefixFits(t *testing.T) {
	n := 0
	for code := range uint64(0x20000) {
		if _, ok := dray.LookupHash(code); !ok || code == mh.IDENTITY {
			continue
		}
		for size := range dray.MaxDigest + 1 {
			if !dray.AllowedDigest(code, size) {
				continue
			}
			p := rawSHA256
			p.Codec, p.MhType, p.MhLength = 1<<63-1, code, size
			h, err := AppendBlockHeader(nil, Swap1, p, 7, 0)
			if err != nil || len(h) != dataHead {
				t.Fatalf("%+v: %x, %v", p, h, err)
			}
			var m Message
			if err := Decode(Swap1, append(h, "payload"...), &m); err != nil || m.Blocks[0].Prefix != p {
				t.Fatalf("%+v: %v", p, err)
			}
			n++
		}
	}
	if n < 100 {
		t.Errorf("only %d prefixes", n)
	}
}

func FuzzDecodeSwap(f *testing.F) {
	for _, g := range swapGoldens(f) {
		if b := unhex(f, g.hex); len(b) >= controlHead && b[0] == frameControl {
			f.Add(b[controlHead:], false)
		} else {
			f.Add(b, true)
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		b, err := AppendMessage(nil, Swap1, randomSwap(f, r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[controlHead:], false)
	}
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		if !raw {
			b = append(appendControlHead(nil, len(b)), b...)
		}
		var m Message
		err := Decode(Swap1, b, &m)
		var e *Error
		switch {
		case err == nil:
			writable(t, &m, b)
		case !errors.As(err, &e) || e.Version != Swap1 || e.Offset > len(b):
			t.Fatalf("%x: %v", b, err)
		}
	})
}
