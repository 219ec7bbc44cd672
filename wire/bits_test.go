package wire_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"dray/wire"
)

type run struct{ first, count uint32 }

func runsOf(b wire.Bits) []run {
	var out []run
	for f, n := range b.Ones() {
		out = append(out, run{f, n})
	}
	return out
}

func bitsOf(runs ...run) wire.Bits {
	var w wire.BitsWriter
	for _, r := range runs {
		w.Add(r.first, r.count)
	}
	return w.Bits()
}

func TestBits(t *testing.T) {
	for _, c := range []struct {
		runs []run
		want string // the bytes
	}{
		{nil, ""},
		{[]run{{0, 1}}, "\x02\x01"},
		{[]run{{0, 8}}, "\x07"},
		{[]run{{0, 1_000_000}}, "\xa3\xc2\x1e"},
		{[]run{{9, 2}}, "\x05\x02\x06"},
		{[]run{{0, 3}, {24, 8}, {33, 1}}, "\x0a\x07\x00\x00\xff\x02"},
		{[]run{{64, 1}}, "\x21\x02\x01"},
	} {
		b := bitsOf(c.runs...)
		if string(b) != c.want {
			t.Errorf("%v is written as % x, want % x", c.runs, b, c.want)
		}
		if got := runsOf(b); !slices.Equal(got, c.runs) {
			t.Errorf("%v is read as %v", c.runs, got)
		}
	}
}

func TestBitsRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var runs []run
		at := uint32(0)
		for range r.IntN(40) {
			at += 1 + uint32(r.IntN(1<<r.IntN(8)))
			n := 1 + uint32(r.IntN(1<<r.IntN(8)))
			runs = append(runs, run{at, n})
			at += n
		}
		b := bitsOf(runs...)
		n, err := b.Check()
		if err != nil || n < uint64(at) && len(runs) > 0 {
			t.Fatalf("%v: % x describes %d bits: %v", runs, b, n, err)
		}
		if got := runsOf(b); !slices.Equal(got, runs) {
			t.Fatalf("%v is read as %v from % x", runs, got, b)
		}
	}
}

func TestBitsMalformed(t *testing.T) {
	for _, s := range []string{
		"\x00",                         // no bytes
		"\x04\x01",                     // two announced, one there
		"\x80",                         // no varint
		"\x87\x00",                     // not the shortest
		"\xff\xff\xff\xff\xff\xff\x03", // more than there can be
		"\xff\xff\xff\xff\x07\x07\x07",
	} {
		if _, err := wire.Bits(s).Check(); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("% x: %v", s, err)
		}
	}
}

func FuzzBits(f *testing.F) {
	f.Add([]byte("\x0a\x07\x00\x00\xff\x02"))
	f.Fuzz(func(t *testing.T, s []byte) {
		b := wire.Bits(s)
		n, err := b.Check()
		if err != nil || n > 1<<20 {
			return
		}
		runs := runsOf(b)
		if again := runsOf(bitsOf(runs...)); !slices.Equal(again, runs) {
			t.Fatalf("% x: %v and then %v", s, runs, again)
		}
	})
}
