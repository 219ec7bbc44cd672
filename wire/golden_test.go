package wire

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

// The digest of the golden vectors is the bytes 00 to 1f; %v1 and %v0 stand for the CIDs made of it.
const goldenDigest = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// unhex turns a vector into bytes: hex digits, blanks, and the CIDs' names.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	s = strings.NewReplacer("%v1", "01551220"+goldenDigest, "%v0", "1220"+goldenDigest, "%b3", "01551e20"+goldenDigest,
		" ", "", "\n", "", "\t", "").Replace(s)
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenCID(t testing.TB, name string) cid.Cid {
	t.Helper()
	c, err := cid.Cast(unhex(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	rawSHA256  = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}
	rawBLAKE3  = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x1e, MhLength: 32}
	cborBLAKE2 = cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: 0xb220, MhLength: 32}
)

type golden struct {
	name string
	v    Version
	m    Message
	hex  string // the frame, with its length
}

func goldens(t testing.TB) []golden {
	v0, v1, b3 := goldenCID(t, "%v0"), goldenCID(t, "%v1"), goldenCID(t, "%b3")
	return []golden{
		{"empty", V120, Message{}, "02 0a00"},
		{"empty for 1.1.0", V110, Message{}, "02 0a00"},
		{"empty for 1.0.0", V100, Message{}, "02 0a00"},
		{"empty for legacy", Legacy, Message{}, "02 0a00"},
		{"full and empty", V120, Message{Full: true}, "04 0a02 1001"},
		{
			"want of a block", V120,
			Message{Wants: []Entry{{CID: v1, Priority: 1, SendDontHave: true}}},
			"2e 0a2c 0a2a 0a24 %v1 1001 2801",
		},
		{
			"want for 1.1.0 without field 5", V110,
			Message{Wants: []Entry{{CID: v1, Priority: 1}}},
			"2c 0a2a 0a28 0a24 %v1 1001",
		},
		{"want of priority 0", V120, Message{Wants: []Entry{{CID: v0}}}, "28 0a26 0a24 0a22 %v0"},
		{
			"want-have of boxo's first priority", V120,
			Message{Wants: []Entry{{CID: v1, Priority: 1<<31 - 1, Type: WantHave}}},
			"32 0a30 0a2e 0a24 %v1 10ffffffff07 2001",
		},
		{
			"want of priority -1", V120,
			Message{Wants: []Entry{{CID: v0, Priority: -1}}},
			"33 0a31 0a2f 0a22 %v0 10ffffffffffffffffff01",
		},
		{"cancel", V120, Message{Wants: []Entry{{CID: v0, Cancel: true}}}, "2a 0a28 0a26 0a22 %v0 1801"},
		{
			"two entries, full", V120,
			Message{Full: true, Wants: []Entry{{CID: v0, Cancel: true}, {CID: b3, Priority: 300}}},
			"57 0a55 0a26 0a22 %v0 1801 0a29 0a24 %b3 10ac02 1001",
		},
		{"raw block", V120, Message{Blocks: []Block{{rawSHA256, []byte("hi")}}}, "0e 0a00 1a0a 0a04 01551220 1202 6869"},
		{"raw block for 1.1.0", V110, Message{Blocks: []Block{{rawSHA256, []byte("hi")}}}, "0e 0a00 1a0a 0a04 01551220 1202 6869"},
		{"raw blake3 block", V120, Message{Blocks: []Block{{rawBLAKE3, []byte("hi")}}}, "0e 0a00 1a0a 0a04 01551e20 1202 6869"},
		{"CIDv0 block", V120, Message{Blocks: []Block{{prefixV0, []byte("hi")}}}, "0e 0a00 1a0a 0a04 00701220 1202 6869"},
		{"blake2b block", V120, Message{Blocks: []Block{{cborBLAKE2, []byte("hi")}}}, "10 0a00 1a0c 0a06 0171a0e40220 1202 6869"},
		{"empty block", V120, Message{Blocks: []Block{{rawSHA256, []byte{}}}}, "0a 0a00 1a06 0a04 01551220"},
		{"CIDv0 block for 1.0.0", V100, Message{Blocks: []Block{{prefixV0, []byte("hi")}}}, "06 0a00 1202 6869"},
		{"CIDv0 block for legacy", Legacy, Message{Blocks: []Block{{prefixV0, []byte("hi")}}}, "06 0a00 1202 6869"},
		{"have", V120, Message{Presences: []Presence{{CID: v1, Have: true}}}, "2a 0a00 2226 0a24 %v1"},
		{"don't have", V120, Message{Presences: []Presence{{CID: v1, Have: false}}}, "2c 0a00 2228 0a24 %v1 1001"},
		{"pending", V120, Message{PendingBytes: 300}, "05 0a00 28ac02"},
		{
			"everything", V120,
			Message{
				Wants: []Entry{{CID: v0, Type: WantHave}}, PendingBytes: 1, Presences: []Presence{{CID: v1, Have: true}},
				Blocks: []Block{{rawSHA256, []byte("a")}, {prefixV0, []byte("b")}},
			},
			"6a 0a28 0a26 0a22 %v0 2001 2801 2226 0a24 %v1 1a09 0a04 01551220 1201 61 1a09 0a04 00701220 1201 62",
		},
	}
}

func TestGolden(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.hex)
			got, err := AppendMessage([]byte("kept"), g.v, &g.m)
			if err != nil {
				t.Fatal(err)
			}
			if string(got[:4]) != "kept" || !bytes.Equal(got[4:], want) {
				t.Errorf("wrote %x\n want %x", got[4:], want)
			}
			if n := g.m.Size(g.v); n != len(want)-1 {
				t.Errorf("Size = %d, want %d", n, len(want)-1)
			}
			var m Message
			if err := Decode(g.v, want[1:], &m); err != nil {
				t.Fatal(err)
			}
			if !sameMessage(&m, &g.m) {
				t.Errorf("read %+v\nwant %+v", m, g.m)
			}
		})
	}
}

// sameMessage compares messages, taking nil and empty slices for the same.
func sameMessage(a, b *Message) bool {
	eq := a.Full == b.Full && a.PendingBytes == b.PendingBytes && a.Ignored == b.Ignored &&
		len(a.Wants) == len(b.Wants) && len(a.Presences) == len(b.Presences) && len(a.Blocks) == len(b.Blocks)
	if !eq {
		return false
	}
	for i := range a.Blocks {
		if a.Blocks[i].Prefix != b.Blocks[i].Prefix || !bytes.Equal(a.Blocks[i].Data, b.Blocks[i].Data) {
			return false
		}
	}
	return (len(a.Wants) == 0 || reflect.DeepEqual(a.Wants, b.Wants)) &&
		(len(a.Presences) == 0 || reflect.DeepEqual(a.Presences, b.Presences))
}

// What is left out towards older peers.
func TestOlderVersions(t *testing.T) {
	v0, v1 := goldenCID(t, "%v0"), goldenCID(t, "%v1")
	m := Message{
		Wants: []Entry{
			{CID: v0, Priority: 1, SendDontHave: true},
			{CID: v1, Priority: 1, Type: WantHave},
			{CID: v1, Priority: 9, Type: WantHave, SendDontHave: true, Cancel: true},
		},
		Presences:    []Presence{{CID: v1, Have: true}, {CID: v0, Have: false}},
		Blocks:       []Block{{prefixV0, []byte("hi")}},
		PendingBytes: 7,
	}
	const list = "0a52 0a26 0a22 %v0 1001 0a28 0a24 %v1 1801 "
	for v, want := range map[Version]string{
		V110:   "60 " + list + "1a0a 0a04 00701220 1202 6869",
		V100:   "58 " + list + "1202 6869",
		Legacy: "58 " + list + "1202 6869",
	} {
		got, err := AppendMessage(nil, v, &m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%v: wrote %x\nwant %x", v, got, unhex(t, want))
		}
		if n := m.Size(v); n != len(got)-1 {
			t.Errorf("%v: Size = %d, want %d", v, n, len(got)-1)
		}
	}
}

// Other spellings of the same message, as other writers choose them.
func TestDecodeOtherSpellings(t *testing.T) {
	v0, v1 := goldenCID(t, "%v0"), goldenCID(t, "%v1")
	hi := []Block{{rawSHA256, []byte("hi")}}
	for _, test := range []struct {
		name string
		hex  string
		want Message
	}{
		{"nothing at all", "", Message{}},
		{"no want list", "1a0a 0a04 01551220 1202 6869", Message{Blocks: hi}},
		{"pending first, list last", "2807 1a0a 0a04 01551220 1202 6869 0a00", Message{Blocks: hi, PendingBytes: 7}},
		{"data before prefix", "1a0a 1202 6869 0a04 01551220", Message{Blocks: hi}},
		{"prefix twice, the last counts", "1a10 0a04 00701220 0a04 01551220 1202 6869", Message{Blocks: hi}},
		{"long varints", "9a80808000 8c808000 0a04 01551220 9280 00 02 6869", Message{Blocks: hi}},
		{"bytes after the prefix", "1a0c 0a06 01551220ffff 1202 6869", Message{Blocks: hi}},
		{
			"prefix of version 0 with another codec", "1a0a 0a04 00551220 1202 6869",
			Message{Blocks: []Block{{prefixV0, []byte("hi")}}},
		},
		{
			"both forms of block", "1202 6869 1a0a 0a04 01551220 1202 6869",
			Message{Blocks: []Block{{prefixV0, []byte("hi")}, hi[0]}},
		},
		{"empty legacy block", "1200", Message{Blocks: []Block{{prefixV0, nil}}}},
		{
			"want list twice is merged", "0a26 0a24 0a22 %v0 0a2a 0a26 0a24 %v1 1001",
			Message{Full: true, Wants: []Entry{{CID: v0}, {CID: v1}}},
		},
		{"full is any number but 0", "0a03 10ac02", Message{Full: true}},
		{"full withdrawn", "0a04 1001 1000", Message{}},
		{"cancel drops the rest", "0a2e 0a2c 0a22 %v0 1005 1801 2001 2801", Message{Wants: []Entry{{CID: v0, Cancel: true}}}},
		{
			"numbers are cut to 32 bits", "0a38 0a36 0a22 %v0 108380808010 208180808010 288580808010",
			Message{Wants: []Entry{{CID: v0, Priority: 3, Type: WantHave, SendDontHave: true}}},
		},
		{"presence of type 0", "2228 0a24 %v1 1000", Message{Presences: []Presence{{CID: v1, Have: true}}}},
		{
			"unknown fields of every kind",
			"3001 3904000000000000ff 42 03 616263 4d 00000001 53 0801 5b 5c 54 fa3f 00 0a00 2807",
			Message{PendingBytes: 7},
		},
		{"known fields of another kind are unknown", "0801 1001 1801 2001 2a00 0a 06 0801 1202 6869", Message{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, v := range []Version{Legacy, V100, V110, V120} {
				var m Message
				if err := Decode(v, unhex(t, test.hex), &m); err != nil {
					t.Fatal(err)
				}
				if !sameMessage(&m, &test.want) {
					t.Errorf("%v: read %+v\nwant %+v", v, m, test.want)
				}
			}
		})
	}
}

func TestProtocols(t *testing.T) {
	want := []string{"/dray/tensorswap/1", "/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0", "/ipfs/bitswap/1.0.0", "/ipfs/bitswap"}
	got := Protocols()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("Protocols() = %q", got)
	}
	for i, id := range got {
		v, ok := ParseVersion(id)
		if !ok || v != Swap1-Version(i) || v.Protocol() != id {
			t.Errorf("ParseVersion(%q) = %v, %v; back: %q", id, v, ok, v.Protocol())
		}
	}
	for _, id := range []string{"", "/ipfs/bitswap/", "/ipfs/bitswap/1.3.0", "ipfs/bitswap", "/dray/tensorswap/2"} {
		if v, ok := ParseVersion(id); ok {
			t.Errorf("ParseVersion(%q) = %v", id, v)
		}
	}
	if id := Version(0).Protocol(); id != "" {
		t.Errorf("the zero Version has the id %q", id)
	}
}

func TestPrefix(t *testing.T) {
	for _, test := range []struct {
		p   cid.Prefix
		hex string
	}{
		{rawSHA256, "01551220"},
		{prefixV0, "00701220"},
		{rawBLAKE3, "01551e20"},
		{cborBLAKE2, "0171a0e40220"},
		{cid.Prefix{Version: 1, Codec: 1<<63 - 1, MhType: 0x12, MhLength: 128}, "01 ffffffffffffffff7f 12 8001"},
	} {
		b := AppendPrefix(nil, test.p)
		if !bytes.Equal(b, unhex(t, test.hex)) || len(b) != prefixSize(test.p) || !bytes.Equal(b, test.p.Bytes()) {
			t.Errorf("AppendPrefix(%+v) = %x, want %s", test.p, b, test.hex)
		}
		p, err := ParsePrefix(b)
		if err != nil || p != test.p {
			t.Errorf("ParsePrefix(%x) = %+v, %v", b, p, err)
		}
	}
}
