package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"dray"
)

// consecutive returns n wants of single leaves, as the engine makes them: each has a priority step lower than the last.
func consecutive(feed, first uint32, n int, step int32) []Entry {
	out := make([]Entry, n)
	for i := range out {
		out[i] = Entry{
			Priority: 1<<29 - int32(i)*step, SendDontHave: true, Leaves: Leaves{Feed: feed, First: first + uint32(i), Count: 1},
		}
	}
	return out
}

// What the encoding is for: many leaves in few bytes.
func TestSwapSizes(t *testing.T) {
	var all BitsWriter
	all.Add(0, 1_000_000)
	bits := all.Bits()
	if len(bits) != 3 {
		t.Errorf("a bitmap of a million leaves takes %d bytes", len(bits))
	}
	cancels := consecutive(1, 0, 10_000, 0)
	misses := make([]Presence, 10_000)
	for i := range cancels {
		cancels[i] = Entry{Leaves: cancels[i].Leaves, Cancel: true}
		misses[i] = Presence{Leaves: cancels[i].Leaves}
	}
	for _, test := range []struct {
		name  string
		m     Message
		frame int // bytes, header and number included
		part  int // bytes of the section
	}{
		{"10,000 leaves, one after the other", Message{Seq: 9, Wants: consecutive(1, 0, 10_000, 1)}, 21, 10},
		{"10,000 leaves, all alike", Message{Seq: 9, Wants: consecutive(1, 0, 10_000, 0)}, 21, 10},
		{"the last 10,000 leaves of a million", Message{Seq: 9, Wants: consecutive(1, 990_000, 10_000, 1)}, 23, 12},
		{"cancel of 10,000 leaves", Message{Seq: 9, Wants: cancels}, 19, 8},
		{"miss of 10,000 leaves", Message{Seq: 9, Presences: misses}, 19, 8},
		{"have of a million leaves", Message{Seq: 9, Haves: []Have{{Feed: 1, Leaves: 1_000_000, Bits: bits}}}, 23, 12},
	} {
		if n := test.m.Size(Swap1); n != test.frame || n-controlHead-3 != test.part || test.part >= 20 {
			t.Errorf("%s: %d bytes, want %d", test.name, n, test.frame)
		}
	}
}

// Entries are written as one when, and only when, the receiver can tell them apart again.
func TestSwapCoalesces(t *testing.T) {
	leaf := func(i uint32, p int32) Entry { return Entry{Priority: p, Leaves: Leaves{1, i, 0}} }
	run := func(first, n uint32, p int32, falls bool) Entry {
		return Entry{Priority: p, Leaves: Leaves{1, first, n}, Falls: falls}
	}
	for _, test := range []struct {
		name string
		in   []Entry
		want []Entry
	}{
		{"equal", []Entry{leaf(0, 5), leaf(1, 5), leaf(2, 5)}, []Entry{run(0, 3, 5, false)}},
		{"falling", []Entry{leaf(0, 5), leaf(1, 4), leaf(2, 3)}, []Entry{run(0, 3, 5, true)}},
		{"equal and then falling", []Entry{leaf(0, 5), leaf(1, 5), leaf(2, 4)}, []Entry{run(0, 2, 5, false), run(2, 1, 4, false)}},
		{"falling and then equal", []Entry{leaf(0, 5), leaf(1, 4), leaf(2, 4)}, []Entry{run(0, 2, 5, true), run(2, 1, 4, false)}},
		{"rising", []Entry{leaf(0, 5), leaf(1, 6)}, []Entry{run(0, 1, 5, false), run(1, 1, 6, false)}},
		{"a gap", []Entry{leaf(0, 5), leaf(2, 5)}, []Entry{run(0, 1, 5, false), run(2, 1, 5, false)}},
		{"backwards", []Entry{leaf(1, 5), leaf(0, 5)}, []Entry{run(1, 1, 5, false), run(0, 1, 5, false)}},
		{"runs that fall", []Entry{run(0, 3, 5, true), run(3, 3, 2, true)}, []Entry{run(0, 6, 5, true)}},
		{
			"runs that do not fall into each other",
			[]Entry{run(0, 3, 5, true), run(3, 3, 2, false)},
			[]Entry{run(0, 3, 5, true), run(3, 3, 2, false)},
		},
		{"a run and a leaf that falls", []Entry{run(0, 3, 5, true), leaf(3, 2)}, []Entry{run(0, 4, 5, true)}},
		{"a leaf and a run", []Entry{leaf(0, 5), run(1, 3, 5, false)}, []Entry{run(0, 4, 5, false)}},
		{"a leaf that falls to a run", []Entry{leaf(0, 5), run(1, 3, 4, true)}, []Entry{run(0, 4, 5, true)}},
		{"one leaf does not fall", []Entry{run(7, 1, 5, true)}, []Entry{run(7, 1, 5, false)}},
		{
			"the last leaves there can be",
			[]Entry{leaf(math.MaxUint32-1, 5), leaf(math.MaxUint32, 5), leaf(0, 5)},
			[]Entry{run(math.MaxUint32-1, 2, 5, false), run(0, 1, 5, false)},
		},
		{
			"a run is at most as long as can be written",
			[]Entry{run(0, math.MaxUint32, 5, false), leaf(math.MaxUint32, 5)},
			[]Entry{run(0, math.MaxUint32, 5, false), run(math.MaxUint32, 1, 5, false)},
		},
		{
			"the lowest priorities",
			[]Entry{leaf(0, math.MinInt32+1), leaf(1, math.MinInt32)},
			[]Entry{run(0, 2, math.MinInt32+1, true)},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := AppendMessage(nil, Swap1, &Message{Seq: 2, Wants: test.in})
			if err != nil {
				t.Fatal(err)
			}
			var m Message
			if err := Decode(Swap1, b, &m); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.Wants, test.want) {
				t.Errorf("read %+v\nwant %+v", m.Wants, test.want)
			}
		})
	}
	for i, p := range []int32{5, 4, 3} {
		falling, level := run(10, 3, 5, true), run(10, 3, 5, false)
		if falling.PriorityOf(10+uint32(i)) != p || level.PriorityOf(10+uint32(i)) != 5 {
			t.Errorf("leaf %d has priority %d or %d", i, falling.PriorityOf(10+uint32(i)), level.PriorityOf(10+uint32(i)))
		}
	}
}

// Every priority comes back, and those that the engine uses are short.
func TestSwapPriorities(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	ps := []int32{
		math.MinInt32, math.MinInt32 + 1, -levelSpan, 1 - levelSpan, -1, 0, 1, levelSpan - 1, levelSpan, levelSpan + 1,
		math.MaxInt32 - 1, math.MaxInt32,
	}
	for range 10_000 {
		ps = append(ps, int32(r.Uint32())>>r.IntN(32))
	}
	for _, p := range ps {
		level, rank := splitPriority(p)
		if level >= levels || rank >= levelSpan || joinPriority(level, rank) != int64(p) {
			t.Fatalf("%d is level %d and rank %d", p, level, rank)
		}
	}
}

func TestSwapEncodeRefuses(t *testing.T) {
	v1 := goldenCID(t, "%v1")
	numbered := func(m Message) Message { m.Seq = 2; return m }
	for _, test := range []struct {
		name string
		m    Message
		want error
	}{
		{"full without its number", Message{Full: true}, errFull},
		{"full with another number", Message{Full: true, Seq: 2}, errFull},
		{"number 1 and not full", Message{Seq: 1}, errFull},
		{"full continued", Message{Full: true, Seq: 1, Continues: true}, errFull},
		{"continues nothing", Message{Continues: true}, errNumber},
		{"wants without a number", Message{Wants: []Entry{{CID: v1}}}, errNumber},
		{"credit without a number", Message{Credit: 1}, errNumber},
		{"info without a number", Message{Info: Info{Set: true}}, errNumber},
		{"the end of a walk without a number", Message{Walked: []Walked{{ID: 1}}}, errNumber},
		{"pending bytes below zero", Message{PendingBytes: -1}, errPending},
		{"follow of feed 0", numbered(Message{Follows: []Follow{{Root: v1}}}), errFeed},
		{"follow of nothing", numbered(Message{Follows: []Follow{{Feed: 1}}}), dray.ErrBadCID},
		{"follow beyond the last leaf", numbered(Message{Follows: []Follow{{Feed: 1, Root: v1, First: 2, Count: math.MaxUint32}}}), errRun},
		{"want of nothing", numbered(Message{Wants: []Entry{{}}}), dray.ErrBadCID},
		{"want beyond the last leaf", numbered(Message{Wants: []Entry{{Leaves: Leaves{1, 2, math.MaxUint32}}}}), errRun},
		{"want of an unknown type", numbered(Message{Wants: []Entry{{CID: v1, Type: 2}}}), nil},
		{
			"want that falls too low",
			numbered(Message{Wants: []Entry{{Priority: math.MinInt32, Falls: true, Leaves: Leaves{1, 2, 2}}}}), errFalls,
		},
		{"presence beyond the last leaf", numbered(Message{Presences: []Presence{{Leaves: Leaves{1, math.MaxUint32, 2}}}}), errRun},
		{"have of feed 0", numbered(Message{Haves: []Have{{}}}), errFeed},
		{"have beyond the manifest", numbered(Message{Haves: []Have{{Feed: 1, Leaves: 8, Bits: Bits("\x0f")}}}), errBits},
		{"have with no bitmap", numbered(Message{Haves: []Have{{Feed: 1, Leaves: 8, Bits: Bits("\x00")}}}), ErrMalformed},
		{"walk 0", numbered(Message{Walks: []Walk{{Root: v1}}}), errWalkID},
		{"walk of nothing", numbered(Message{Walks: []Walk{{ID: 1}}}), dray.ErrBadCID},
		{"end of walk 0", numbered(Message{Walked: []Walked{{}}}), errWalkID},
		{"end of a walk in an unknown way", numbered(Message{Walked: []Walked{{ID: 1, Status: 5}}}), errStatus},
		{
			"end of a walk that did not begin, with leaves",
			numbered(Message{Walked: []Walked{{ID: 1, Status: WalkAbsent, Leaves: 8, Pushed: Bits("\x07")}}}), errPushed,
		},
		{"block too big", Message{Blocks: []Block{{rawSHA256, make([]byte, dray.MaxBlockSize+1)}}}, dray.ErrTooBig},
		{"identity block", Message{Blocks: []Block{{Data: nil}}}, dray.ErrBadCID},
		{"too long", Message{Blocks: slices.Repeat([]Block{{rawSHA256, make([]byte, 1<<20)}}, 5)}, ErrTooLong},
		{"too many blocks", Message{Blocks: slices.Repeat([]Block{{rawSHA256, nil}}, MaxItems+1)}, ErrTooMany},
		{
			"too many items", numbered(Message{
				Haves: slices.Repeat([]Have{{Feed: 1}}, MaxItems/2), Walked: slices.Repeat([]Walked{{ID: 1}}, MaxItems/2+1),
			}), ErrTooMany,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := AppendMessage([]byte("x"), Swap1, &test.m)
			var e *dray.Error
			if !errors.As(err, &e) || (test.want != nil && !errors.Is(err, test.want)) || string(b) != "x" {
				t.Errorf("got %q, %v", b, err)
			}
			vec, b, err := AppendVectors([][]byte{nil}, []byte("x"), Swap1, &test.m)
			if !errors.As(err, &e) || string(b) != "x" || len(vec) != 1 {
				t.Errorf("vectors: got %q, %q, %v", vec, b, err)
			}
		})
	}
	if _, err := AppendBlockHeader(nil, Swap1, rawSHA256, 1, -1); !errors.Is(err, errPending) {
		t.Errorf("a header with pending bytes below zero: %v", err)
	}
}

// A header in front of a block is a message with that block, and the block lies where it lay.
func TestSwapBlockHeader(t *testing.T) {
	for _, p := range testPrefixes {
		for _, size := range []int{0, 1, 1 << 20, dray.MaxBlockSize} {
			buf := make([]byte, MaxBlockHeader+size)
			data := buf[MaxBlockHeader:]
			want, err := AppendMessage(nil, Swap1, &Message{Blocks: []Block{{p, data}}, PendingBytes: 7})
			if err != nil {
				t.Fatal(err)
			}
			frame, err := PutBlockHeader(buf, Swap1, p, 7)
			if err != nil || !bytes.Equal(frame, want) || len(frame) != dataHead+size || len(frame) > MaxFrameSize {
				t.Fatalf("%+v, %d bytes: %v, frame begins %x", p, size, err, frame[:min(len(frame), dataHead)])
			}
			if size > 0 && &frame[dataHead] != &data[0] {
				t.Error("the block was copied")
			}
		}
	}
	// The largest block fits into a control frame too, with the longest of numbers and prefixes.
	m := Message{Seq: math.MaxUint64, PendingBytes: math.MaxInt32, Blocks: []Block{{testPrefixes[5], make([]byte, dray.MaxBlockSize)}}}
	if b, err := AppendMessage(nil, Swap1, &m); err != nil || len(b) > MaxFrameSize {
		t.Errorf("the largest block with a number: %d bytes, %v", len(b), err)
	}
}

// Frames of both kinds are read straight into the buffer, in few reads, however the stream comes.
func TestSwapFrames(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	var b []byte
	var want []*Message
	for i := range 60 {
		m := randomSwap(t, r)
		switch i % 6 {
		case 1:
			m = &Message{} // a keep-alive
		case 2:
			m = &Message{Blocks: []Block{{rawSHA256, randomBytes(r, r.IntN(100_000))}}}
		}
		var err error
		if b, err = AppendMessage(b, Swap1, m); err != nil {
			t.Fatal(err)
		}
		want = append(want, swapped(m))
	}
	for name, s := range map[string]io.Reader{
		"at once":     bytes.NewReader(b),
		"bytewise":    iotest.OneByteReader(bytes.NewReader(b)),
		"halves":      iotest.HalfReader(bytes.NewReader(b)),
		"end at once": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		t.Run(name, func(t *testing.T) {
			f := FrameReader{R: s, Version: Swap1}
			pool := make([]byte, MaxFrameSize)
			for i := range want {
				frame, err := f.Next(func(int) []byte { return pool })
				if err != nil {
					t.Fatal(err)
				}
				var m Message
				if err := Decode(Swap1, frame, &m); err != nil {
					t.Fatal(err)
				}
				if !sameSwap(&m, want[i]) {
					t.Fatalf("message %d: read %+v\nwant %+v", i, m, *want[i])
				}
				if len(frame) > 0 && &frame[0] != &pool[0] {
					t.Fatal("the frame is not in the buffer that was given")
				}
			}
			for range 2 {
				if frame, err := f.Next(makeBytes); err != io.EOF || frame != nil {
					t.Fatalf("after the end: %d bytes, %v", len(frame), err)
				}
			}
		})
	}
	for i := range 200 { // cut anywhere within the first frames
		f := FrameReader{R: bytes.NewReader(b[:i]), Version: Swap1}
		at := 0
		var err error
		for err == nil {
			var frame []byte
			if frame, err = f.Next(makeBytes); err == nil {
				at += max(len(frame), controlHead)
			}
		}
		if want := io.ErrUnexpectedEOF; at == i && err != io.EOF || at < i && err != want {
			t.Errorf("cut at byte %d of which %d are whole frames: %v", i, at, err)
		}
	}
	c := &countReader{r: bytes.NewReader(slices.Concat(dataFrame(1<<20), dataFrame(256<<10), dataFrame(1<<20)))}
	f := FrameReader{R: c, Version: Swap1}
	for range 3 {
		if _, err := f.Next(makeBytes); err != nil {
			t.Fatal(err)
		}
	}
	if c.reads != 6 {
		t.Errorf("three blocks took %d reads", c.reads)
	}
	f = FrameReader{R: bytes.NewReader(dataFrame(100)), Version: Swap1, Limit: 131}
	if _, err := f.Next(makeBytes); !errors.Is(err, ErrTooLong) {
		t.Errorf("a frame over an own limit: %v", err)
	}
}

func dataFrame(n int) []byte {
	return append(appendDataHead(nil, rawSHA256, n, 0), make([]byte, n)...)
}

func FuzzSwapFrames(f *testing.F) {
	f.Add(slices.Concat(dataFrame(3), appendControlHead(nil, 0), dataFrame(300)), 3)
	f.Add(unhex(f, "00 000000 ffffffff"), 1)
	f.Fuzz(func(t *testing.T, b []byte, chunk int) {
		r := FrameReader{R: &chunkReader{b, 1 + (chunk&0x7fffffff)%512}, Version: Swap1}
		rest := b
		for {
			frame, err := r.Next(makeBytes)
			if err != nil {
				if err == io.EOF && len(rest) > 0 {
					t.Fatalf("%d bytes left unread", len(rest))
				}
				return
			}
			if frame == nil {
				frame = unhex(t, "00 000000 00000000")
			}
			if !bytes.HasPrefix(rest, frame) || len(frame) > MaxFrameSize {
				t.Fatalf("read %x from %x", frame, rest)
			}
			rest = rest[len(frame):]
		}
	})
}

// The parts of a message are in order, short enough and numbered as its receiver checks it, and together say the same.
func TestSwapSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	for i := range 300 {
		m := &Message{Seq: uint64(r.IntN(3)), PendingBytes: int32(i % 3)}
		blocks := m.Seq == 0
		m.Full = m.Seq == 1
		for range r.IntN(30) {
			x := randomSwap(t, r)
			m.Blocks = append(m.Blocks, x.Blocks...)
			if blocks {
				continue
			}
			m.Credit = max(m.Credit, x.Credit)
			m.Follows, m.Wants = append(m.Follows, x.Follows...), append(m.Wants, x.Wants...)
			m.Presences, m.Haves = append(m.Presences, x.Presences...), append(m.Haves, x.Haves...)
			m.Walks, m.Walked = append(m.Walks, x.Walks...), append(m.Walked, x.Walked...)
		}
		limit := 300 + r.IntN(6000)
		all, parts := Message{}, 0
		before := limit
		for part := range m.Split(Swap1, limit) {
			if part.Seq != m.Seq || part.Continues != (parts > 0 && m.Seq != 0) || part.Full != (m.Full && parts == 0) {
				t.Fatalf("part %d of %d: %+v", parts, m.Seq, *part)
			}
			size := part.Size(Swap1)
			items := part.swapLayout().items
			if size > limit && items > 1 {
				t.Fatalf("a part of %d bytes and %d items, limit %d", size, items, limit)
			}
			if parts > 0 && before+size <= limit-swapOverhead {
				t.Fatalf("two parts in a row of %d and %d bytes, limit %d", before, size, limit)
			}
			if len(part.Walked) > 0 && len(all.Walked) == 0 && len(all.Blocks)+len(part.Blocks) != len(m.Blocks) {
				t.Fatal("a walk ends before its blocks")
			}
			b, err := AppendMessage(nil, Swap1, part)
			if err != nil {
				t.Fatal(err)
			}
			var got Message
			if err := Decode(Swap1, b, &got); err != nil {
				t.Fatal(err)
			}
			before = size
			all.Follows, all.Wants = append(all.Follows, got.Follows...), append(all.Wants, got.Wants...)
			all.Presences, all.Haves = append(all.Presences, got.Presences...), append(all.Haves, got.Haves...)
			all.Walks, all.Walked = append(all.Walks, got.Walks...), append(all.Walked, got.Walked...)
			all.Blocks = append(all.Blocks, got.Blocks...)
			if all.PendingBytes != 0 {
				t.Fatal("pending bytes before the last part")
			}
			all.PendingBytes, all.Credit = got.PendingBytes, all.Credit+got.Credit
			parts++
		}
		all.Full, all.Seq = m.Full, m.Seq
		if !sameSwap(&all, swapped(m)) {
			t.Fatalf("%d parts do not add up to the message", parts)
		}
	}
}

func TestSwapSplitEnds(t *testing.T) {
	count := func(m *Message, limit int) (n []int) {
		for part := range m.Split(Swap1, limit) {
			if _, err := AppendMessage(nil, Swap1, part); err != nil {
				t.Fatal(err)
			}
			n = append(n, len(part.Wants)+len(part.Blocks)+len(part.Walked))
		}
		return n
	}
	huge := Block{rawSHA256, make([]byte, dray.MaxBlockSize)}
	scattered := make([]Entry, MaxItems+1)
	for i := range scattered {
		scattered[i] = Entry{Leaves: Leaves{1, 2 * uint32(i), 1}}
	}
	for _, test := range []struct {
		name  string
		m     Message
		limit int
		want  []int
	}{
		{"nothing", Message{}, 0, []int{0}},
		{"full and empty", Message{Full: true, Seq: 1}, 0, []int{0}},
		{"a million leaves in a row are one item", Message{Seq: 2, Wants: consecutive(1, 0, 1_000_000, 1)}, 0, []int{1_000_000}},
		{"scattered leaves are as many", Message{Seq: 2, Wants: scattered}, 0, []int{MaxItems, 1}},
		{"the largest blocks", Message{Seq: 2, Blocks: []Block{huge, huge}}, 0, []int{1, 1}},
		{"the largest block of a full message", Message{Seq: 1, Full: true, Credit: math.MaxUint64, Blocks: []Block{huge}}, 0, []int{0, 1}},
		{"the largest block and the end of a walk", Message{Seq: 2, Blocks: []Block{huge}, Walked: []Walked{{ID: 1}}}, 0, []int{1, 1}},
		{"a limit that nothing keeps", Message{Seq: 2, Wants: scattered[:3]}, 1, []int{1, 1, 1}},
	} {
		if got := count(&test.m, test.limit); !slices.Equal(got, test.want) {
			t.Errorf("%s: parts of %v, want %v", test.name, got, test.want)
		}
	}
	n := 0
	for range (&Message{Seq: 2, Wants: scattered}).Split(Swap1, 1000) {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Error("it did not stop")
	}
}

// What may be allocated: nothing for a data frame, and for leaves by index nothing but the growth of the slices.
func TestSwapAllocations(t *testing.T) {
	block := &Message{Blocks: []Block{{rawSHA256, make([]byte, 256<<10)}}}
	run := &Message{Seq: 2, Wants: consecutive(1, 0, 1000, 1)}
	scattered := &Message{Seq: 2}
	for i := range uint32(1000) {
		scattered.Wants = append(scattered.Wants, Entry{Priority: 7, Leaves: Leaves{1, 2 * i, 1}})
	}
	haves := &Message{Seq: 2}
	for range 100 {
		haves.Haves = append(haves.Haves, Have{Feed: 1, Leaves: 800, Bits: Bits("\x04\x01\x01")})
	}
	frame := func(m *Message) []byte {
		b, err := AppendMessage(nil, Swap1, m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var m Message
	room := make([]byte, 0, 1<<20)
	vec := make([][]byte, 0, 8)
	buf := make([]byte, MaxBlockHeader+256<<10)
	frames := FrameReader{R: &loopReader{b: frame(block)}, Version: Swap1}
	alloc := func(n int) []byte { return buf[:n] }
	blockFrame, runFrame, scatteredFrame, havesFrame := frame(block), frame(run), frame(scattered), frame(haves)
	for _, test := range []struct {
		name string
		want float64
		run  func() error
	}{
		{"decode a block", 0, func() error { return Decode(Swap1, blockFrame, &m) }},
		{"decode a run", 0, func() error { return Decode(Swap1, runFrame, &m) }},
		{"decode 1000 leaves", 0, func() error { return Decode(Swap1, scatteredFrame, &m) }},
		{"decode 100 haves", 1, func() error { return Decode(Swap1, havesFrame, &m) }},
		{"append a run", 0, func() error { _, err := AppendMessage(room, Swap1, run); return err }},
		{"append 1000 leaves", 0, func() error { _, err := AppendMessage(room, Swap1, scattered); return err }},
		{"append vectors", 0, func() error { _, _, err := AppendVectors(vec, room, Swap1, block); return err }},
		{"append a header", 0, func() error { _, err := AppendBlockHeader(room, Swap1, rawSHA256, 1<<20, 1); return err }},
		{"put a header", 0, func() error { _, err := PutBlockHeader(buf, Swap1, rawSHA256, 1); return err }},
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

// One want in each spelling; every iteration is 1024 wants.
func BenchmarkWants(b *testing.B) {
	byCID := benchWants(b, 1024)
	byCID.Full = false
	run := &Message{Seq: 2, Wants: consecutive(1, 5000, 1024, 1)}
	scattered := &Message{Seq: 2, Wants: consecutive(1, 5000, 1024, 1)}
	for i := range scattered.Wants {
		scattered.Wants[i].Leaves.First *= 2
	}
	numbered := *byCID
	numbered.Seq = 2
	for _, bm := range []struct {
		name string
		v    Version
		m    *Message
	}{
		{"bitswap", V120, byCID},
		{"tensorswap by CID", Swap1, &numbered},
		{"tensorswap scattered leaves", Swap1, scattered},
		{"tensorswap a run of leaves", Swap1, run},
	} {
		frame, err := AppendMessage(nil, bm.v, bm.m)
		if err != nil {
			b.Fatal(err)
		}
		bytesPer := float64(len(frame)) / 1024
		b.Run("encode "+bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if frame, err = AppendMessage(frame[:0], bm.v, bm.m); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/want")
			b.ReportMetric(bytesPer, "B/want")
		})
		if bm.v != Swap1 {
			_, k := binary.Uvarint(frame)
			frame = frame[k:]
		}
		message := bytes.Clone(frame)
		b.Run("decode "+bm.name, func(b *testing.B) {
			b.ReportAllocs()
			var m Message
			for b.Loop() {
				if err := Decode(bm.v, message, &m); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/want")
			b.ReportMetric(bytesPer, "B/want")
		})
	}
}

// A data frame each: the header in front of a block, and the block out of the stream.
func BenchmarkDataFrame(b *testing.B) {
	for _, v := range []Version{V120, Swap1} {
		buf := make([]byte, MaxBlockHeader+256<<10)
		frame, err := PutBlockHeader(buf, v, rawSHA256, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("put %v", v), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := PutBlockHeader(buf, v, rawSHA256, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("read %v", v), func(b *testing.B) {
			f := FrameReader{R: &loopReader{b: bytes.Clone(frame)}, Version: v}
			into := make([]byte, MaxFrameSize)
			alloc := func(n int) []byte { return into[:n] }
			var m Message
			b.SetBytes(256 << 10)
			b.ReportAllocs()
			for b.Loop() {
				got, err := f.Next(alloc)
				if err != nil {
					b.Fatal(err)
				}
				if err := Decode(v, got, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
