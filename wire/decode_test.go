package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// Every way to be wrong: the cause, the field that is blamed and the byte.
func TestDecodeRefuses(t *testing.T) {
	big := strings.Repeat("00", dray.MaxBlockSize+1)
	for _, test := range []struct {
		name   string
		hex    string
		want   error
		field  string
		offset int
	}{
		{"field number 0", "0a00 02", ErrMalformed, "message", 2},
		{"field number too great", "f8ffffff7f 00", ErrMalformed, "message", 0},
		{"tag cut", "0a00 80", ErrMalformed, "message", 2},
		{"length missing", "0a", ErrMalformed, "wantlist", 1},
		{"length beyond the end", "0a01", ErrMalformed, "wantlist", 1},
		{"length of 2^63", "0a ffffffffffffffff7f", ErrMalformed, "wantlist", 1},
		{"length of 2^64-1", "1a ffffffffffffffffff01", ErrMalformed, "payload", 1},
		{"varint of more than 64 bits", "28 ffffffffffffffffff02", ErrMalformed, "pendingBytes", 1},
		{"varint of eleven bytes", "28 8080808080808080808000", ErrMalformed, "pendingBytes", 1},
		{"reserved wire type", "0e 00", ErrMalformed, "message", 1},
		{"end of a group that never began", "0c", ErrMalformed, "message", 1},
		{"group that never ends", "0b", ErrMalformed, "message", 1},
		{"group that ends as another", "0b 14", ErrMalformed, "message", 1},
		{"unknown field cut", "39 00000000", ErrMalformed, "message", 1},
		{"length beyond its own message", "0a04 0a03 0a00 1202 0000", ErrMalformed, "wantlist.entries", 3},
		{"junk in a want list", "0a01 02", ErrMalformed, "wantlist", 2},
		{"junk in an entry", "0a03 0a01 02", ErrMalformed, "wantlist.entries", 4},
		{"junk in a block", "1a01 07", ErrMalformed, "payload", 2},
		{"junk in a presence", "2201 07", ErrMalformed, "blockPresences", 2},
		{"entry without a CID", "0a02 0a00", dray.ErrBadCID, "wantlist.entries.block", 4},
		{"entry with an empty CID", "0a04 0a02 0a00", dray.ErrBadCID, "wantlist.entries.block", 6},
		{"CIDv0 cut", "0a07 0a05 0a03 122000", dray.ErrBadCID, "wantlist.entries.block", 6},
		{"CIDv0 and a byte", "0a27 0a25 0a23 %v0 00", dray.ErrBadCID, "wantlist.entries.block", 6},
		{"CID of version 2", "0a29 0a27 0a25 02551221" + goldenDigest + "00", dray.ErrBadCID, "wantlist.entries.block", 6},
		{"CIDv1 cut", "0a27 0a25 0a23 01551220" + goldenDigest[2:], dray.ErrBadCID, "wantlist.entries.block", 6},
		{"CIDv1 and a byte", "0a29 0a27 0a25 %v1 00", dray.ErrBadCID, "wantlist.entries.block", 6},
		{"CID with a long varint", "0a29 0a27 0a25 8100551220" + goldenDigest, dray.ErrBadCID, "wantlist.entries.block", 6},
		{"CID with a digest of 2^63-1", "0a12 0a10 0a0e 015512ffffffffffffffff7f0000", dray.ErrBadCID, "wantlist.entries.block", 6},
		{"cancel with a bad CID", "0a07 0a05 0a01 00 1801", dray.ErrBadCID, "wantlist.entries.block", 6},
		{"presence without a CID", "2200", dray.ErrBadCID, "blockPresences.cid", 2},
		{"presence with a bad CID", "2203 0a01 01", dray.ErrBadCID, "blockPresences.cid", 4},
		{"block without a prefix", "1a00", dray.ErrBadCID, "payload.prefix", 2},
		{"prefix cut", "1a05 0a03 015512", dray.ErrBadCID, "payload.prefix", 4},
		{"prefix of version 2", "1a06 0a04 02551220", dray.ErrBadCID, "payload.prefix", 4},
		{"prefix of version 0 with blake3", "1a06 0a04 00701e20", dray.ErrBadCID, "payload.prefix", 4},
		{"prefix of version 0 with 20 bytes", "1a06 0a04 00701214", dray.ErrBadCID, "payload.prefix", 4},
		{"prefix with a long varint", "1a07 0a05 8100551220", dray.ErrBadCID, "payload.prefix", 4},
		{"prefix with a varint of 64 bits", "1a0f 0a0d 01 ffffffffffffffffff01 1220", dray.ErrBadCID, "payload.prefix", 4},
		{"legacy block too big", "12 efffff01" + big, dray.ErrTooBig, "blocks", 5},
		{"block too big", "1a faffff01 0a04 01551220 12 efffff01" + big, dray.ErrTooBig, "payload.data", 16},
		{"message too long", strings.Repeat("00", MaxMessageSize+1), ErrTooLong, "frame", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m Message
			err := Decode(V120, unhex(t, test.hex), &m)
			var e *Error
			if !errors.Is(err, test.want) || !errors.As(err, &e) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if e.Field != test.field || e.Offset != test.offset {
				t.Errorf("%v: blamed %s at byte %d, want %s at byte %d", err, e.Field, e.Offset, test.field, test.offset)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v looks like a broken connection", err)
			}
			if !m.Empty() {
				t.Errorf("left %+v behind", m)
			}
		})
	}
}

// What is harmless but cannot be meant is left out and counted; its neighbours are kept.
func TestDecodeIgnores(t *testing.T) {
	const good = "0a24 %v1"
	long := "0155 12 8001" + strings.Repeat("00", 128)      // no sha2-256 is that long, though the CID is short enough
	longer := "0155 1e 8101" + strings.Repeat("00", 129)    // a byte more than any digest
	widest := "0155 1e 8001" + strings.Repeat("00", 128)    // as long as a digest may be
	varints := "01 ffffffffffffffff7f 1220 " + goldenDigest // long varints are no reason
	field := func(tag byte, s string) string {
		b := unhex(t, s)
		return string(protowire.AppendBytes([]byte{tag}, b))
	}
	for _, test := range []struct {
		name, cid string
		kept      bool
	}{
		{"identity", "01550002 6869", false},
		{"empty identity", "01550000", false},
		{"long identity", "0155 00 8001" + strings.Repeat("00", 128), false},
		{"hash not allowed", "0155 22 08 0000000000000000", false},
		{"unknown hash", "0155 ffff7f 20" + goldenDigest, false},
		{"digest too short", "0155 12 13" + goldenDigest[:38], false},
		{"short digest", "0155 12 14" + goldenDigest[:40], true},
		{"digest longer than the hash", long, false},
		{"digest too long", longer, false},
		{"longest digest", widest, true},
		{"codec of nine bytes", varints, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := field(0x0a, test.cid)
			ok := string(unhex(t, good))
			list := string(protowire.AppendString([]byte{0x0a}, key)) + string(protowire.AppendString([]byte{0x0a}, ok))
			frame := protowire.AppendString([]byte{0x0a}, list)
			frame = protowire.AppendString(append(frame, 0x22), key)
			frame = protowire.AppendString(append(frame, 0x22), ok)
			var m Message
			if err := Decode(V120, frame, &m); err != nil {
				t.Fatal(err)
			}
			want := 1
			if test.kept {
				want = 2
			}
			if len(m.Wants) != want || len(m.Presences) != want || m.Ignored != 2*(2-want) {
				t.Fatalf("kept %d wants and %d presences, ignored %d", len(m.Wants), len(m.Presences), m.Ignored)
			}
			if c := goldenCID(t, "%v1"); m.Wants[want-1].CID != c || m.Presences[want-1].CID != c {
				t.Error("the neighbour is not itself any more")
			}
		})
	}
	for _, test := range []struct{ name, hex string }{
		{"want of an unknown type", "0a2a 0a28 0a24 %v1 2002"},
		{"presence of an unknown type", "2228 0a24 %v1 1002"},
		{"identity block", "1a0a 0a04 01550002 1202 6869"},
		{"block of an unknown hash", "1a0c 0a06 0155ffff7f20 1202 6869"},
		{"block with a short digest", "1a0a 0a04 01551213 1202 6869"},
		{"block with an endless digest", "1a12 0a0c 015512 ffffffffffffffff7f 1202 6869"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m Message
			if err := Decode(V120, unhex(t, test.hex), &m); err != nil {
				t.Fatal(err)
			}
			if want := (Message{Ignored: 1}); !sameMessage(&m, &want) {
				t.Errorf("read %+v", m)
			}
		})
	}
}

// A message has no end mark, so it may be cut between two fields, and nowhere else.
func TestDecodeEveryTruncation(t *testing.T) {
	gs := goldens(t)
	rich := unhex(t, gs[len(gs)-1].hex)[1:]
	rich = append(rich, unhex(t, "0a55 0a26 0a22 %v0 1801 0a29 0a24 %b3 10ac02 1001 "+
		"2228 0a24 %v1 1001 9206 03 616263 53 0801 54")...)
	between := map[int]bool{0: true}
	for at := 0; at < len(rich); between[at] = true {
		_, _, n := protowire.ConsumeField(rich[at:])
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		at += n
	}
	var m Message
	for i := range len(rich) + 1 {
		err := Decode(V120, rich[:i:i], &m)
		if (err == nil) != between[i] {
			t.Errorf("cut at byte %d of %d: %v", i, len(rich), err)
		}
	}
	// The same with one byte changed: anything but a panic, and what is read can be written again.
	for i := range rich {
		for _, x := range []byte{0, 1, 0x7f, 0x80, 0xff, rich[i] ^ 1, rich[i] ^ 0x80} {
			b := bytes.Clone(rich)
			b[i] = x
			if Decode(V120, b, &m) == nil {
				if _, err := AppendMessage(nil, V120, &m); err != nil {
					t.Errorf("byte %d made %#x: read, but %v", i, x, err)
				}
			}
		}
	}
}

func TestDecodeAliasesAndReuses(t *testing.T) {
	frame := unhex(t, "0a00 1a0a 0a04 01551220 1202 6869 1203 616263")
	var m Message
	if err := Decode(V120, frame, &m); err != nil {
		t.Fatal(err)
	}
	if &m.Blocks[0].Data[0] != &frame[12] || &m.Blocks[1].Data[0] != &frame[16] {
		t.Error("block data was copied")
	}
	if cap(m.Blocks[0].Data) != 2 || cap(m.Blocks[1].Data) != 3 {
		t.Error("block data could grow into what follows it")
	}
	first := &m.Blocks[0]
	if err := Decode(V120, frame, &m); err != nil {
		t.Fatal(err)
	}
	if &m.Blocks[0] != first || len(m.Blocks) != 2 {
		t.Error("the slice was not reused")
	}
	m.Reset()
	if m.Blocks[:1][0].Data != nil {
		t.Error("Reset keeps the frame alive")
	}
}

// The densest messages that there are: memory stays within a small multiple of the frame, and there is an end to blocks.
func TestDecodeIsBounded(t *testing.T) {
	fill := func(unit string) []byte {
		u := unhex(t, unit)
		return bytes.Repeat(u, MaxMessageSize/len(u))
	}
	list := func(unit string) []byte {
		u := unhex(t, unit)
		u = bytes.Repeat(u, (MaxMessageSize-8)/len(u))
		return append(binary.AppendUvarint([]byte{0x0a}, uint64(len(u))), u...)
	}
	for _, test := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"empty legacy blocks", fill("1200"), ErrTooMany},
		{"empty blocks", fill("1a06 0a04 01551220"), ErrTooMany},
		{"ignored blocks", fill("1a06 0a04 01550000"), nil},
		{"shortest wants", list("0a1a 0a18 01551214" + goldenDigest[:40]), nil},
		{"ignored wants", list("0a06 0a04 01550000"), nil},
		{"shortest presences", fill("221a 0a18 01551214" + goldenDigest[:40]), nil},
		{"one huge CID", append(unhex(t, "22fbffff01 0af6ffff01 01551eefffff01"), make([]byte, 4<<20-17)...), nil},
		{"deep groups", fill("0b"), ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m Message
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := Decode(V120, test.frame, &m); !errors.Is(err, test.want) {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 10*uint64(len(test.frame)) {
				t.Errorf("a frame of %d bytes took %d bytes of memory", len(test.frame), got)
			}
		})
	}
}

func TestDecodeVersion(t *testing.T) {
	for _, v := range []Version{0, Swap1 + 1} {
		m := Message{Full: true}
		err := Decode(v, unhex(t, "0a00"), &m)
		var e *dray.Error
		if !errors.As(err, &e) || !m.Empty() {
			t.Errorf("version %d: %v, %+v", v, err, m)
		}
	}
}
