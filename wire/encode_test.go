package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

var testPrefixes = []cid.Prefix{
	rawSHA256, prefixV0, rawBLAKE3, cborBLAKE2,
	{Version: 1, Codec: cid.DagProtobuf, MhType: mh.SHA1, MhLength: 20},
	{Version: 1, Codec: 1<<63 - 1, MhType: mh.SHA2_512, MhLength: 64},
	{Version: 1, Codec: cid.Raw, MhType: mh.BLAKE3, MhLength: 128},
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func randomCID(t testing.TB, r *rand.Rand) cid.Cid {
	p := testPrefixes[r.IntN(len(testPrefixes))]
	c, err := dray.CIDFromDigest(p, randomBytes(r, p.MhLength))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// randomMessage makes a message that version v carries in full.
func randomMessage(t testing.TB, r *rand.Rand, v Version) *Message {
	m := &Message{Full: r.IntN(2) == 0}
	for range r.IntN(6) {
		e := Entry{CID: randomCID(t, r), Priority: int32(r.Uint32()) >> r.IntN(32)}
		if v.Haves() {
			e.Type, e.SendDontHave = WantType(r.IntN(2)), r.IntN(2) == 0
		}
		if r.IntN(4) == 0 {
			e = Entry{CID: e.CID, Cancel: true}
		}
		m.Wants = append(m.Wants, e)
	}
	for range r.IntN(4) {
		p := prefixV0
		if v.Prefixes() {
			p = testPrefixes[r.IntN(len(testPrefixes))]
		}
		size := r.IntN(40)
		if r.IntN(3) == 0 {
			size = r.IntN(4 * inlineBlock)
		}
		m.Blocks = append(m.Blocks, Block{p, randomBytes(r, size)})
	}
	if v.Haves() {
		for range r.IntN(4) {
			m.Presences = append(m.Presences, Presence{CID: randomCID(t, r), Have: r.IntN(2) == 0})
		}
		m.PendingBytes = int32(r.Uint32()) >> r.IntN(32)
	}
	return m
}

// What is written is read back as it was, its size is as announced, and both ways of writing give the same bytes.
func TestReadBackIsWhatWasWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var got Message
	for _, v := range []Version{Legacy, V100, V110, V120} {
		for i := range 2000 {
			m := randomMessage(t, r, v)
			b, err := AppendMessage(nil, v, m)
			if err != nil {
				t.Fatal(err)
			}
			frame, err := (&FrameReader{R: bytes.NewReader(b)}).Next(makeBytes)
			if err != nil {
				t.Fatal(err)
			}
			if len(frame) != m.Size(v) {
				t.Fatalf("%v, message %d: %d bytes, Size %d", v, i, len(frame), m.Size(v))
			}
			if err := Decode(v, frame, &got); err != nil {
				t.Fatalf("%v, message %d: %v", v, i, err)
			}
			if !sameMessage(&got, m) {
				t.Fatalf("%v, message %d:\nread  %+v\nwrote %+v", v, i, got, *m)
			}
			vec, scratch, err := AppendVectors([][]byte{[]byte("a")}, []byte("bc"), v, m)
			if err != nil {
				t.Fatal(err)
			}
			if all := bytes.Join(vec, nil); all[0] != 'a' || string(scratch[:2]) != "bc" || !bytes.Equal(all[1:], b) {
				t.Fatalf("%v, message %d:\nvectors %x\nmessage %x", v, i, all, b)
			}
			large := 0
			for _, b := range m.Blocks {
				if len(b.Data) > inlineBlock {
					large += len(b.Data)
				}
			}
			if len(scratch)-2 != len(b)-large {
				t.Fatalf("%v, message %d: scratch holds %d bytes, want %d", v, i, len(scratch)-2, len(b)-large)
			}
		}
	}
}

// A header in front of a block is a message with that block, for every way to write one.
func TestBlockHeader(t *testing.T) {
	for _, v := range []Version{Legacy, V100, V110, V120} {
		for _, p := range testPrefixes {
			for _, size := range []int{0, 1, 127, 128, 16383, 16384, 1 << 20, dray.MaxBlockSize} {
				for _, pending := range []int32{0, 1, 1<<31 - 1, -1} {
					name := fmt.Sprintf("%v, prefix %x, %d bytes, %d pending", v, p.Bytes(), size, pending)
					buf := make([]byte, MaxBlockHeader+size)
					data := buf[MaxBlockHeader:]
					m := Message{Blocks: []Block{{p, data}}, PendingBytes: pending}
					want, err := AppendMessage(nil, v, &m)
					h, herr := AppendBlockHeader([]byte("x"), v, p, size, pending)
					frame, ferr := PutBlockHeader(buf, v, p, pending)
					if err != nil {
						tooLong := errors.Is(err, ErrTooLong) && size == dray.MaxBlockSize && prefixSize(p) > 4
						tooNew := errors.Is(err, dray.ErrBadCID) && !v.Prefixes() && p != prefixV0
						if !tooLong && !tooNew {
							t.Errorf("%s: %v", name, err)
						}
						if herr == nil || ferr == nil || string(h) != "x" || frame != nil {
							t.Errorf("%s: refused as a message only: %v, %v", name, herr, ferr)
						}
						continue
					}
					if herr != nil || ferr != nil {
						t.Fatalf("%s: refused as a header only: %v, %v", name, herr, ferr)
					}
					if h = h[1:]; len(h) > MaxBlockHeader || !bytes.HasPrefix(want, h) || len(h)+size != len(want) {
						t.Fatalf("%s: header %x", name, h)
					}
					if !bytes.Equal(frame, want) || (size > 0 && &frame[len(frame)-size] != &data[0]) {
						t.Fatalf("%s: frame begins %x", name, frame[:min(len(frame), 64)])
					}
					var got Message
					if err := Decode(v, frame[len(frame)-m.Size(v):], &got); err != nil || len(got.Blocks[0].Data) != size {
						t.Fatalf("%s: read back: %v", name, err)
					}
				}
			}
		}
	}
}

// The largest block's message is exactly as long as a message may be, so there is no room for pending bytes.
func TestLargestBlock(t *testing.T) {
	h, err := AppendBlockHeader(nil, V120, rawSHA256, dray.MaxBlockSize, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := unhex(t, "80808002 0a00 1af9ffff01 0a04 01551220 12eeffff01")
	if !bytes.Equal(h, want) {
		t.Errorf("header %x, want %x", h, want)
	}
	if len(h)-4 != 18 || len(h)-4+dray.MaxBlockSize != MaxMessageSize {
		t.Errorf("the envelope takes %d bytes", len(h)-4)
	}
}

func TestEncodeRefuses(t *testing.T) {
	identity, _ := cid.Cast([]byte{1, 0x55, 0, 2, 'h', 'i'})
	weak, _ := cid.Cast([]byte{1, 0x55, 0x22, 8, 1, 2, 3, 4, 5, 6, 7, 8})
	v1 := goldenCID(t, "%v1")
	wideCodec := cid.Prefix{Version: 1, Codec: 1 << 63, MhType: 0x12, MhLength: 32}
	block := func(p cid.Prefix) Message { return Message{Blocks: []Block{{p, []byte("hi")}}} }
	for _, test := range []struct {
		name string
		v    Version
		m    Message
		want error
	}{
		{"no version", 0, Message{}, errVersion},
		{"want of nothing", V120, Message{Wants: []Entry{{}}}, dray.ErrBadCID},
		{"want of an identity", V120, Message{Wants: []Entry{{CID: identity}}}, dray.ErrBadCID},
		{"want of a weak hash", V120, Message{Wants: []Entry{{CID: weak}}}, dray.ErrBadCID},
		{"want of an unknown type", V120, Message{Wants: []Entry{{CID: v1, Type: 2}}}, nil},
		{"cancel of an identity", V120, Message{Wants: []Entry{{CID: identity, Cancel: true}}}, dray.ErrBadCID},
		{"presence of an identity", V120, Message{Presences: []Presence{{CID: identity}}}, dray.ErrBadCID},
		{"presence of an identity, left out", V100, Message{Presences: []Presence{{CID: identity}}}, dray.ErrBadCID},
		{"identity block", V120, block(cid.Prefix{Version: 1, Codec: cid.Raw, MhLength: 2}), dray.ErrBadCID},
		{"block of a weak hash", V120, block(weak.Prefix()), dray.ErrBadCID},
		{"block with the default length", V120, block(cid.Prefix{Version: 1, MhType: 0x12, MhLength: -1}), dray.ErrBadCID},
		{"block of version 2", V120, block(cid.Prefix{Version: 2, Codec: cid.Raw, MhType: 0x12, MhLength: 32}), dray.ErrBadCID},
		{"block of version 0, raw", V120, block(cid.Prefix{Codec: cid.Raw, MhType: 0x12, MhLength: 32}), dray.ErrBadCID},
		{"block with a codec of 64 bits", V120, block(wideCodec), dray.ErrBadCID},
		{"CIDv1 block for 1.0.0", V100, block(rawSHA256), dray.ErrBadCID},
		{"CIDv1 block for legacy", Legacy, block(rawSHA256), dray.ErrBadCID},
		{"block too big", V120, Message{Blocks: []Block{{rawSHA256, make([]byte, dray.MaxBlockSize+1)}}}, dray.ErrTooBig},
		{"message too long", V120, Message{Blocks: slices.Repeat([]Block{{rawSHA256, make([]byte, 1<<20)}}, 4)}, ErrTooLong},
		{"too many blocks", V120, Message{Blocks: make([]Block, MaxBlocks+1)}, ErrTooMany},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := AppendMessage([]byte("x"), test.v, &test.m)
			var e *dray.Error
			if !errors.As(err, &e) || (test.want != nil && !errors.Is(err, test.want)) || string(b) != "x" {
				t.Errorf("got %q, %v", b, err)
			}
			vec, b, err := AppendVectors([][]byte{nil}, []byte("x"), test.v, &test.m)
			if !errors.As(err, &e) || string(b) != "x" || len(vec) != 1 {
				t.Errorf("vectors: got %q, %q, %v", vec, b, err)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 300 {
		m := &Message{Full: i%2 == 0, PendingBytes: int32(i % 3)}
		for range r.IntN(200) {
			m.Wants = append(m.Wants, Entry{CID: randomCID(t, r), Priority: r.Int32()})
		}
		for range r.IntN(100) {
			m.Presences = append(m.Presences, Presence{CID: randomCID(t, r), Have: true})
		}
		for range r.IntN(10) {
			m.Blocks = append(m.Blocks, Block{rawSHA256, randomBytes(r, r.IntN(3000))})
		}
		limit := 200 + r.IntN(6000)
		var all Message
		parts, before, last := 0, limit, int32(0)
		for part := range m.Split(V120, limit) {
			if part.Size(V120) > limit && !(len(part.Blocks) == 1 && len(part.Wants)+len(part.Presences) == 0) {
				t.Fatalf("a part of %d bytes, limit %d: %d wants, %d presences, %d blocks", part.Size(V120), limit,
					len(part.Wants), len(part.Presences), len(part.Blocks))
			}
			if before+part.Size(V120) <= limit-splitOverhead {
				t.Fatalf("two parts in a row of %d and %d bytes, limit %d", before, part.Size(V120), limit)
			}
			before = part.Size(V120)
			if part.Full != (m.Full && parts == 0) {
				t.Fatalf("part %d has Full = %v", parts, part.Full)
			}
			if last != 0 {
				t.Fatal("pending bytes before the last part")
			}
			if _, err := AppendMessage(nil, V120, part); err != nil {
				t.Fatal(err)
			}
			last = part.PendingBytes
			all.Wants = append(all.Wants, part.Wants...)
			all.Presences = append(all.Presences, part.Presences...)
			all.Blocks = append(all.Blocks, part.Blocks...)
			parts++
		}
		all.Full, all.PendingBytes = m.Full, last
		if !sameMessage(&all, m) {
			t.Fatal("the parts do not add up to the message")
		}
	}
}

func TestSplitEnds(t *testing.T) {
	// An empty message is still one message: a full one takes every want back.
	n := 0
	for part := range (&Message{Full: true}).Split(V120, 0) {
		n++
		if !part.Full {
			t.Error("Full is lost")
		}
	}
	if n != 1 {
		t.Errorf("%d parts of an empty message", n)
	}
	// The default limit, and stopping early.
	m := &Message{Wants: slices.Repeat([]Entry{{CID: goldenCID(t, "%v1"), Priority: 1 << 30}}, 100_000)}
	n = 0
	for part := range m.Split(V120, 0) {
		if size := part.Size(V120); size > MaxWantlistSize || (n == 0 && size < MaxWantlistSize-100) {
			t.Errorf("part %d has %d bytes", n, size)
		}
		if n++; n == 2 {
			break
		}
	}
	// A message may hold so many blocks and no more, however small they are.
	m = &Message{Blocks: slices.Repeat([]Block{{prefixV0, nil}}, MaxBlocks+1)}
	var sizes []int
	for part := range m.Split(Legacy, 0) {
		sizes = append(sizes, len(part.Blocks))
	}
	if !slices.Equal(sizes, []int{MaxBlocks, 1}) {
		t.Errorf("split into %d blocks", sizes)
	}
}
