package wire

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
)

// swapped returns m as it is read after it was written in TensorSwap: with runs for neighbours, and what means nothing
// dropped.
func swapped(m *Message) *Message {
	c := *m
	c.Wants, c.Presences, c.Follows, c.Haves, c.Walks, c.Walked = nil, nil, nil, nil, nil, nil
	for i := 0; i < len(m.Wants); {
		var e Entry
		if i = m.swapWant(i, &e); e.Leaves.Feed != 0 {
			e.CID = cid.Undef
		}
		c.Wants = append(c.Wants, e)
	}
	for i := 0; i < len(m.Presences); {
		var p Presence
		if i = m.swapPresence(i, &p); p.Leaves.Feed != 0 {
			p.CID = cid.Undef
		}
		c.Presences = append(c.Presences, p)
	}
	for _, f := range m.Follows {
		if f.Stop {
			f = Follow{Feed: f.Feed, Root: f.Root, Stop: true}
		}
		c.Follows = append(c.Follows, f)
	}
	for _, h := range m.Haves {
		if h.Denied {
			h = Have{Feed: h.Feed, Denied: true}
		}
		c.Haves = append(c.Haves, h)
	}
	for _, w := range m.Walks {
		if w.Stop {
			w = Walk{ID: w.ID, Stop: true}
		}
		c.Walks = append(c.Walks, w)
	}
	for _, w := range m.Walked {
		if len(w.Pushed) == 0 {
			w.Leaves, w.Pushed = 0, nil
		}
		c.Walked = append(c.Walked, w)
	}
	return &c
}

// sameSwap compares all of two messages, taking nil and empty slices for the same.
func sameSwap(a, b *Message) bool {
	eq := func(a, b any, n int) bool { return n == 0 || reflect.DeepEqual(a, b) }
	return sameMessage(a, b) && a.Seq == b.Seq && a.Continues == b.Continues && a.Credit == b.Credit && a.Info == b.Info &&
		len(a.Follows) == len(b.Follows) && eq(a.Follows, b.Follows, len(a.Follows)) &&
		len(a.Haves) == len(b.Haves) && eq(a.Haves, b.Haves, len(a.Haves)) &&
		len(a.Walks) == len(b.Walks) && eq(a.Walks, b.Walks, len(a.Walks)) &&
		len(a.Walked) == len(b.Walked) && eq(a.Walked, b.Walked, len(a.Walked))
}

const goldenProofHex = goldenDigest + "2021222324252627"

var goldenProof = func() (p dray.Proof) {
	for i := range p {
		p[i] = byte(i)
	}
	return p
}()

func swapGoldens(t testing.TB) []golden {
	v1, b3 := goldenCID(t, "%v1"), goldenCID(t, "%b3")
	wants := func(feed, first uint32, priorities ...int32) (out []Entry) {
		for i, p := range priorities {
			out = append(out, Entry{CID: v1, Priority: p, SendDontHave: true, Leaves: Leaves{feed, first + uint32(i), 0}})
		}
		return out
	}
	return []golden{
		{"keep-alive", Swap1, Message{}, "00 000000 00000000"},
		{"full and empty", Swap1, Message{Full: true, Seq: 1}, "00 000000 03000000  01 01 01"},
		{"numbered", Swap1, Message{Seq: 300}, "00 000000 04000000  01 02 ac02"},
		{"the rest of a message", Swap1, Message{Seq: 1, Continues: true}, "00 000000 03000000  02 01 01"},
		{"pending, and nothing else", Swap1, Message{PendingBytes: 1<<31 - 1}, "00 000000 07000000  05 05 ffffffff07"},
		{"credit", Swap1, Message{Seq: 2, Credit: 4 << 20}, "00 000000 09000000  01 01 02  03 04 80808002"},
		{"info", Swap1, Message{Seq: 2, Info: Info{Set: true, Downloading: true}}, "00 000000 06000000  01 01 02  04 01 02"},
		{"info, neither", Swap1, Message{Seq: 2, Info: Info{Set: true}}, "00 000000 06000000  01 01 02  04 01 00"},
		{"pending", Swap1, Message{Seq: 2, PendingBytes: 5}, "00 000000 06000000  01 01 02  05 01 05"},
		{
			"follow", Swap1,
			Message{Seq: 2, Follows: []Follow{{Feed: 7, Root: b3}}},
			"00 000000 2d000000  01 01 02  06 28 01  00 07 24 %b3",
		},
		{
			"follow a range until it is durable", Swap1,
			Message{Seq: 2, Follows: []Follow{{Feed: 7, Root: b3, First: 300, Count: 1, Durable: true}}},
			"00 000000 30000000  01 01 02  06 2b 01  05 07 24 %b3 ac02 01",
		},
		{
			"follow no more", Swap1,
			Message{Seq: 2, Follows: []Follow{{Feed: 7, Root: b3, Stop: true}}},
			"00 000000 2d000000  01 01 02  06 28 01  02 07 24 %b3",
		},
		{
			"follow with a proof", Swap1,
			Message{Seq: 2, Follows: []Follow{{Feed: 7, Root: b3, First: 300, Proof: goldenProof}}},
			"00 000000 58000000  01 01 02  06 53 01  0c 07 24 %b3 ac02 00" + goldenProofHex,
		},
		{
			"want by CID", Swap1,
			Message{Seq: 2, Wants: []Entry{{CID: v1, Priority: 1<<29 - 1, SendDontHave: true}}},
			"00 000000 2e000000  01 01 02  07 29 01  28 24 %v1 0a 01",
		},
		{
			"want by CID in a feed", Swap1,
			Message{Seq: 2, Wants: []Entry{{CID: v1, Feed: 300, SendDontHave: true}}},
			"00 000000 2e000000  01 01 02  07 29 01  88 ac02 24 %v1",
		},
		{"want of a leaf", Swap1, Message{Seq: 2, Wants: wants(7, 9, 0)}, "00 000000 09000000  01 01 02  07 04 01  09 07 09"},
		{
			"want of a run, all alike", Swap1,
			Message{Seq: 2, Wants: wants(7, 9, 1<<29, 1<<29, 1<<29)},
			"00 000000 0c000000  01 01 02  07 07 01  39 07 09 03 0a 00",
		},
		{
			"want of a run, one after the other", Swap1,
			Message{Seq: 2, Wants: wants(7, 9, 1<<29-5, 1<<29-6, 1<<29-7)},
			"00 000000 0c000000  01 01 02  07 07 01  79 07 09 03 0a 05",
		},
		{
			"want-have of a leaf", Swap1,
			Message{Seq: 2, Wants: []Entry{{Type: WantHave, Leaves: Leaves{1, 128, 1}}}},
			"00 000000 0a000000  01 01 02  07 05 01  03 01 8001",
		},
		{
			"cancel of a run and of a CID", Swap1,
			Message{Seq: 2, Wants: []Entry{{Cancel: true, Leaves: Leaves{1, 2, 10_000}}, {CID: b3, Cancel: true}}},
			"00 000000 31000000  01 01 02  07 2c 02  15 01 02 904e  04 24 %b3",
		},
		{
			"miss of a run, and have", Swap1,
			Message{Seq: 2, Presences: []Presence{
				{CID: v1, Leaves: Leaves{1, 2, 0}},
				{CID: v1, Leaves: Leaves{1, 3, 2}},
				{Have: true, Leaves: Leaves{1, 5, 1}},
				{CID: b3, Have: true},
				{CID: b3},
			}},
			"00 000000 59000000  01 01 02  08 54 04  05 01 02 03  03 01 05  02 24 %b3  00 24 %b3",
		},
		{
			"have of a million", Swap1,
			Message{Seq: 2, Haves: []Have{{Feed: 1, Leaves: 1_000_000, Bits: Bits("\xa3\xc2\x1e")}}},
			"00 000000 0f000000  01 01 02  09 0a 01  00 01 c0843d 03 a3c21e",
		},
		{
			"have of nothing yet", Swap1,
			Message{Seq: 2, Haves: []Have{{Feed: 1, Leaves: 9}}},
			"00 000000 0a000000  01 01 02  09 05 01  00 01 09 00",
		},
		{
			"unhave", Swap1,
			Message{Seq: 2, Haves: []Have{{Feed: 1, Leaves: 9, Lost: true, Bits: Bits("\x04\x01\x01")}}},
			"00 000000 0d000000  01 01 02  09 08 01  01 01 09 03 040101",
		},
		{
			"have that is denied", Swap1,
			Message{Seq: 2, Haves: []Have{{Feed: 7, Denied: true}, {Feed: 1, Leaves: 9}}},
			"00 000000 0c000000  01 01 02  09 07 02  02 07  00 01 09 00",
		},
		{
			"walk with a proof", Swap1,
			Message{Seq: 2, Walks: []Walk{{ID: 1, Root: b3, Bytes: 300, Proof: goldenProof}}},
			"00 000000 59000000  01 01 02  0a 54 01  08 01 24 %b3 00 ac02 00" + goldenProofHex,
		},
		{
			"walk", Swap1,
			Message{Seq: 2, Walks: []Walk{{ID: 1, Root: b3, Depth: 3, Bytes: 8 << 20, Push: 300, Leaves: true, Spread: true}}},
			"00 000000 34000000  01 01 02  0a 2f 01  03 01 24 %b3 03 80808004 ac02",
		},
		{"walk no more", Swap1, Message{Seq: 2, Walks: []Walk{{ID: 1, Stop: true}}}, "00 000000 08000000  01 01 02  0a 03 01  04 01"},
		{
			"a block", Swap1,
			Message{Blocks: []Block{{rawSHA256, []byte("hi")}}},
			"01 000000 02000000 00000000 00000000 01551220000000000000000000000000  6869",
		},
		{
			"a block, and more to come", Swap1,
			Message{PendingBytes: 258, Blocks: []Block{{cborBLAKE2, []byte("hi")}}},
			"01 000000 02000000 02010000 00000000 0171a0e4022000000000000000000000  6869",
		},
		{
			"an empty block", Swap1,
			Message{Blocks: []Block{{rawSHA256, []byte{}}}},
			"01 000000 00000000 00000000 00000000 01551220000000000000000000000000",
		},
		{
			"small blocks", Swap1,
			Message{Blocks: []Block{{rawSHA256, []byte("hi")}, {prefixV0, []byte{}}}},
			"00 000000 0f000000  0b 0d 02  01551220 02 6869  00701220 00",
		},
		{
			"the end of a walk", Swap1,
			Message{Seq: 2, Blocks: []Block{{rawSHA256, []byte("hi")}}, Walked: []Walked{
				{ID: 1, Leaves: 16, Pushed: Bits("\x07")},
				{ID: 2, Status: WalkPart},
				{ID: 300, Status: WalkAbsent},
				{ID: 3, Status: WalkRefused},
				{ID: 4, Status: WalkDenied},
			}},
			"00 000000 22000000  01 01 02  0b 08 01  01551220 02 6869  0c 13 05  00 01 01 10 07  01 02 00  02 ac02 00  03 03 00  04 04 00",
		},
	}
}

func TestSwapGolden(t *testing.T) {
	for _, g := range swapGoldens(t) {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.hex)
			got, err := AppendMessage([]byte("kept"), g.v, &g.m)
			if err != nil {
				t.Fatal(err)
			}
			if string(got[:4]) != "kept" || !bytes.Equal(got[4:], want) {
				t.Errorf("wrote %x\n want %x", got[4:], want)
			}
			if n := g.m.Size(g.v); n != len(want) {
				t.Errorf("Size = %d, want %d", n, len(want))
			}
			frame, err := (&FrameReader{R: bytes.NewReader(want), Version: Swap1}).Next(makeBytes)
			if err != nil {
				t.Fatal(err)
			}
			var m Message
			if err := Decode(g.v, frame, &m); err != nil {
				t.Fatal(err)
			}
			if !sameSwap(&m, swapped(&g.m)) {
				t.Errorf("read %+v\nwant %+v", m, *swapped(&g.m))
			}
		})
	}
}

// randomSwap makes a message that TensorSwap carries, with neighbours that can be written as one.
func randomSwap(t testing.TB, r *rand.Rand) *Message {
	m := randomMessage(t, r, V120)
	m.PendingBytes &= 1<<31 - 1
	m.Full = false
	switch r.IntN(4) {
	case 0: // blocks alone
		return &Message{Blocks: m.Blocks, PendingBytes: m.PendingBytes}
	case 1:
		m.Full, m.Seq = true, 1
	case 2:
		m.Seq, m.Continues = 1+r.Uint64()>>(1+r.IntN(62)), true
	default:
		m.Seq = 2 + r.Uint64()>>(1+r.IntN(62))
	}
	if r.IntN(3) == 0 {
		m.Credit = r.Uint64() >> r.IntN(63)
	}
	if r.IntN(3) == 0 {
		m.Info = Info{Set: true, Uploading: r.IntN(2) == 0, Downloading: r.IntN(2) == 0}
	}
	small := func() uint32 { return 1 + r.Uint32()>>(1+r.IntN(30)) }
	leaves := func(last Leaves) Leaves {
		next := Leaves{last.Feed, last.First + last.N(), uint32(r.IntN(3))}
		if last.Feed == 0 || uint64(last.First)+uint64(last.N())+3 > leafEnd || r.IntN(4) == 0 {
			next = Leaves{small(), small(), uint32(r.IntN(3))}
		}
		return next
	}
	var last Leaves
	priority := int32(0)
	for range r.IntN(12) {
		e := Entry{CID: randomCID(t, r), Leaves: leaves(last), Priority: priority, SendDontHave: r.IntN(5) > 0}
		e.Type, e.Cancel, e.Falls = WantType(r.IntN(8)/7), r.IntN(6) == 0, r.IntN(2) == 0
		if r.IntN(4) == 0 {
			e.Feed, e.Leaves = small(), Leaves{}
		}
		last = e.Leaves
		switch r.IntN(6) {
		case 0:
			priority = int32(r.Uint32()) >> r.IntN(32)
		case 1, 2, 3:
			if e.Falls {
				priority -= int32(min(e.Leaves.N()-1, 1<<10))
			}
			priority--
		}
		if int64(e.Priority)-int64(e.Leaves.N()) < -1<<31 {
			continue
		}
		m.Wants = append(m.Wants, e)
	}
	for range r.IntN(12) {
		last = leaves(last)
		m.Presences = append(m.Presences, Presence{CID: randomCID(t, r), Leaves: last, Have: r.IntN(4) == 0})
	}
	bits := func() (Bits, uint32) {
		var w BitsWriter
		at := uint32(0)
		for range r.IntN(4) {
			at += uint32(r.IntN(300))
			n := uint32(r.IntN(300))
			w.Add(at, n)
			at += n
		}
		return w.Bits(), at
	}
	for range r.IntN(4) {
		f := Follow{
			Feed: small(), Root: randomCID(t, r), First: small(), Count: small(), Durable: r.IntN(2) == 0,
			Stop: r.IntN(4) == 0,
		}
		if r.IntN(2) == 0 {
			f.First, f.Count = 0, 0
		}
		if r.IntN(3) == 0 {
			f.Proof = randomProof(r)
		}
		m.Follows = append(m.Follows, f)
		h := Have{Feed: small(), Lost: r.IntN(3) == 0, Denied: r.IntN(4) == 0}
		h.Bits, h.Leaves = bits()
		m.Haves = append(m.Haves, h)
	}
	for range r.IntN(3) {
		m.Walks = append(m.Walks, Walk{
			ID: small(), Root: randomCID(t, r), Depth: r.Uint32() >> r.IntN(32), Bytes: r.Uint64() >> r.IntN(64),
			Leaves: r.IntN(2) == 0, Push: r.Uint64() >> r.IntN(64), Spread: r.IntN(2) == 0, Stop: r.IntN(4) == 0,
		})
		if r.IntN(3) == 0 {
			m.Walks[len(m.Walks)-1].Proof = randomProof(r)
		}
		w := Walked{ID: small(), Status: WalkStatus(r.IntN(5))}
		if w.Status <= WalkPart {
			w.Pushed, w.Leaves = bits()
		}
		m.Walked = append(m.Walked, w)
	}
	return m
}

func randomProof(r *rand.Rand) (p dray.Proof) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// What is written is read back, its size is as announced, and both ways of writing give the same bytes.
func TestSwapReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var got Message
	for i := range 5000 {
		m := randomSwap(t, r)
		b, err := AppendMessage(nil, Swap1, m)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != m.Size(Swap1) {
			t.Fatalf("message %d: %d bytes, Size %d", i, len(b), m.Size(Swap1))
		}
		frame, err := (&FrameReader{R: bytes.NewReader(b), Version: Swap1}).Next(makeBytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(Swap1, frame, &got); err != nil {
			t.Fatalf("message %d: %v\n%+v\n%x", i, err, *m, b)
		}
		if !sameSwap(&got, swapped(m)) {
			t.Fatalf("message %d:\nread  %+v\nwrote %+v", i, got, *swapped(m))
		}
		if again, err := AppendMessage(nil, Swap1, &got); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("message %d: what was read is written as\n%x, %v, not\n%x", i, again, err, b)
		}
		vec, _, err := AppendVectors(nil, nil, Swap1, m)
		if all := bytes.Join(vec, nil); err != nil || !bytes.Equal(all, b) {
			t.Fatalf("message %d: vectors %x, %v\nmessage %x", i, all, err, b)
		}
	}
}
