package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
)

// What may be allocated: nothing for blocks, one string for a CID, nothing to write.
func TestAllocations(t *testing.T) {
	wants := benchWants(t, 100)
	block := &Message{Blocks: []Block{{rawSHA256, make([]byte, 256<<10)}}}
	blockFrame, _ := AppendMessage(nil, V120, block)
	wantFrame, _ := AppendMessage(nil, V120, wants)
	var m Message
	room := make([]byte, 0, 1<<20)
	vec := make([][]byte, 0, 8)
	buf := make([]byte, MaxBlockHeader+256<<10)
	stream := &loopReader{b: blockFrame}
	frames := FrameReader{R: stream}
	alloc := func(n int) []byte { return buf[:n] }
	for _, test := range []struct {
		name string
		want float64
		run  func() error
	}{
		{"decode a block", 0, func() error { return Decode(V120, blockFrame[len(blockFrame)-block.Size(V120):], &m) }},
		{"decode 100 wants", 100, func() error { return Decode(V120, wantFrame[len(wantFrame)-wants.Size(V120):], &m) }},
		{"append 100 wants", 0, func() error { _, err := AppendMessage(room, V120, wants); return err }},
		{"append vectors", 0, func() error { _, _, err := AppendVectors(vec, room, V120, block); return err }},
		{"append a header", 0, func() error { _, err := AppendBlockHeader(room, V120, rawSHA256, 1<<20, 1); return err }},
		{"put a header", 0, func() error { _, err := PutBlockHeader(buf, V120, rawSHA256, 1); return err }},
		{"read a frame", 0, func() error { _, err := frames.Next(alloc); return err }},
	} {
		got := testing.AllocsPerRun(100, func() {
			if err := test.run(); err != nil {
				t.Fatal(err)
			}
		})
		if got > test.want {
			t.Errorf("%s: %v allocations, want %v", test.name, got, test.want)
		}
	}
}

// loopReader repeats b for ever.
type loopReader struct {
	b  []byte
	at int
}

func (l *loopReader) Read(p []byte) (int, error) {
	if l.at == len(l.b) {
		l.at = 0
	}
	n := copy(p, l.b[l.at:])
	l.at += n
	return n, nil
}

func benchWants(t testing.TB, n int) *Message {
	r := rand.New(rand.NewPCG(11, 12))
	m := new(Message)
	for i := range n {
		c := randomCID(t, r)
		for c.Prefix() != rawSHA256 {
			c = randomCID(t, r)
		}
		m.Wants = append(m.Wants, Entry{CID: c, Priority: 1<<31 - 1 - int32(i), SendDontHave: true})
	}
	return m
}

var benchMessages = []struct {
	name string
	make func(testing.TB) *Message
}{
	{"1 block of 256 KiB", func(testing.TB) *Message {
		return &Message{Blocks: []Block{{rawSHA256, make([]byte, 256<<10)}}}
	}},
	{"1024 blocks of 1 KiB", func(testing.TB) *Message {
		m := &Message{}
		for i := range 1024 {
			m.Blocks = append(m.Blocks, Block{rawSHA256, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 512)})
		}
		return m
	}},
	{"1 want", func(t testing.TB) *Message { return benchWants(t, 1) }},
	{"1024 wants", func(t testing.TB) *Message { return benchWants(t, 1024) }},
}

func BenchmarkDecode(b *testing.B) {
	for _, bm := range benchMessages {
		frame, err := AppendMessage(nil, V120, bm.make(b))
		if err != nil {
			b.Fatal(err)
		}
		message, err := (&FrameReader{R: bytes.NewReader(frame)}).Next(makeBytes)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			var m Message
			for b.Loop() {
				if err := Decode(V120, message, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendVectors(b *testing.B) {
	for _, bm := range benchMessages {
		m := bm.make(b)
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(int64(m.Size(V120)))
			b.ReportAllocs()
			var vec [][]byte
			var scratch []byte
			var err error
			for b.Loop() {
				if vec, scratch, err = AppendVectors(vec[:0], scratch[:0], V120, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendBlockHeader(b *testing.B) {
	room := make([]byte, 0, MaxBlockHeader)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendBlockHeader(room, V120, rawSHA256, 256<<10, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFrameReader(b *testing.B) {
	for _, bm := range benchMessages {
		frame, err := AppendMessage(nil, V120, bm.make(b))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(bm.name, func(b *testing.B) {
			f := FrameReader{R: &loopReader{b: frame}}
			buf := make([]byte, MaxMessageSize)
			alloc := func(n int) []byte { return buf[:n] }
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Next(alloc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What boxo's codec takes for the same, which includes hashing every block.
func BenchmarkBoxo(b *testing.B) {
	for _, bm := range benchMessages {
		m := bm.make(b)
		frame, err := AppendMessage(nil, V120, m)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("decode "+bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := bsmsg.FromNet(bytes.NewReader(frame)); err != nil {
					b.Fatal(err)
				}
			}
		})
		theirs := toBoxo(b, m)
		b.Run("encode "+bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if err := theirs.ToNetV1(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
