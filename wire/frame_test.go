package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func makeBytes(n int) []byte { return make([]byte, n) }

// countReader counts the reads and remembers the smallest room it was offered.
type countReader struct {
	r        io.Reader
	reads    int
	smallest int
}

func (c *countReader) Read(p []byte) (int, error) {
	if c.reads == 0 || len(p) < c.smallest {
		c.smallest = len(p)
	}
	c.reads++
	return c.r.Read(p)
}

// stream makes frames of the given lengths; each byte of frame i is i+1.
func stream(lengths []int) []byte {
	var b []byte
	for i, n := range lengths {
		b = binary.AppendUvarint(b, uint64(n))
		b = append(b, bytes.Repeat([]byte{byte(i + 1)}, n)...)
	}
	return b
}

func TestFrames(t *testing.T) {
	lengths := []int{
		0, 1, 2, 127, 128, 250, lookAhead - 2, lookAhead - 1, lookAhead, lookAhead + 1, 0, 0, 16383, 16384, 100_000,
		1, 1, 1, MaxMessageSize,
	}
	b := stream(lengths)
	for name, r := range map[string]io.Reader{
		"at once":     bytes.NewReader(b),
		"bytewise":    iotest.OneByteReader(bytes.NewReader(b)),
		"halves":      iotest.HalfReader(bytes.NewReader(b)),
		"end at once": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		t.Run(name, func(t *testing.T) {
			f := FrameReader{R: r}
			pool := make([]byte, MaxMessageSize+100)
			alloc := func(int) []byte { return pool }
			for i, n := range lengths {
				frame, err := f.Next(alloc)
				if err != nil || len(frame) != n {
					t.Fatalf("frame %d: %d bytes, %v; want %d", i, len(frame), err, n)
				}
				if n > 0 && &frame[0] != &pool[0] {
					t.Fatalf("frame %d is not in the buffer that was given", i)
				}
				if bytes.Count(frame, []byte{byte(i + 1)}) != n {
					t.Fatalf("frame %d holds the wrong bytes", i)
				}
			}
			for range 2 {
				if frame, err := f.Next(alloc); err != io.EOF || frame != nil {
					t.Fatalf("after the end: %d bytes, %v", len(frame), err)
				}
			}
		})
	}
}

// A frame costs two reads at most, a stream of small ones far fewer, and a length is never fetched byte by byte.
func TestFramesTakeFewReads(t *testing.T) {
	for _, test := range []struct {
		name    string
		lengths []int
		reads   int
	}{
		{"one block", []int{1 << 20}, 2},
		{"three blocks", []int{1 << 20, 256 << 10, 1 << 20}, 6},
		{"one want", []int{50}, 1},
		{"five wants", []int{50, 50, 50, 50, 50}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &countReader{r: bytes.NewReader(stream(test.lengths))}
			f := FrameReader{R: c}
			for range test.lengths {
				if _, err := f.Next(makeBytes); err != nil {
					t.Fatal(err)
				}
			}
			if c.reads != test.reads {
				t.Errorf("%d reads, want %d", c.reads, test.reads)
			}
		})
	}
}

func TestFrameRefuses(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit int
		hex   string
		want  error
	}{
		{"over the limit", 0, "81808002", ErrTooLong},
		{"over an own limit", 10, "0b 00", ErrTooLong},
		{"over a limit beyond the format's", MaxMessageSize + 1, "81808002", ErrTooLong},
		{"2^63-1", 0, "ffffffffffffffff7f", ErrTooLong},
		{"2^63", 0, "80808080808080808001", ErrMalformed},
		{"endless length", 0, "ffffffffffffffffffffffffffffffff", ErrMalformed},
		{"long varint", 0, "8000", ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := FrameReader{R: iotest.OneByteReader(bytes.NewReader(unhex(t, test.hex))), Limit: test.limit}
			for range 2 {
				_, err := f.Next(func(n int) []byte { t.Errorf("asked for %d bytes", n); return nil })
				var e *Error
				if !errors.Is(err, test.want) || !errors.As(err, &e) || e.Field != "frame" {
					t.Fatalf("got %v, want %v", err, test.want)
				}
			}
		})
	}
}

// Cut anywhere but between frames, a stream ends unexpectedly, and the buffer comes back.
func TestFrameTruncated(t *testing.T) {
	whole := stream([]int{300, 5})
	for i := range len(whole) {
		f := FrameReader{R: bytes.NewReader(whole[:i])}
		var given, frame []byte
		var err error
		for err == nil {
			given = nil
			frame, err = f.Next(func(n int) []byte { given = make([]byte, n); return given })
		}
		want := io.ErrUnexpectedEOF
		if i == 0 || i == 302 {
			want = io.EOF
		}
		if err != want {
			t.Errorf("cut at byte %d: %v, want %v", i, err, want)
		}
		if len(given) != len(frame) || (len(given) > 0 && &given[0] != &frame[0]) {
			t.Errorf("cut at byte %d: the buffer did not come back", i)
		}
	}
}

func TestFramePassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for i := range 6 {
		f := FrameReader{R: io.MultiReader(bytes.NewReader(stream([]int{5})[:i]), iotest.ErrReader(broken))}
		_, err := f.Next(makeBytes)
		if err == nil {
			t.Fatal("a cut frame was read")
		}
		if err != broken {
			t.Errorf("broken after %d bytes: %v", i, err)
		}
	}
	f := FrameReader{R: bytes.NewReader(stream([]int{5}))}
	_, err := f.Next(func(int) []byte { return make([]byte, 4) })
	var e *Error
	if !errors.Is(err, ErrNoBuffer) || errors.As(err, &e) {
		t.Errorf("without a buffer: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{}, 1)
	f.Add(stream([]int{0, 1, 300, 5}), 3)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f, 0}, 200)
	f.Fuzz(func(t *testing.T, b []byte, chunk int) {
		r := FrameReader{R: &chunkReader{b, 1 + (chunk&0x7fffffff)%512}}
		rest := b
		for {
			frame, err := r.Next(makeBytes)
			if err != nil {
				if err == io.EOF && len(rest) > 0 {
					t.Fatalf("%d bytes left unread", len(rest))
				}
				return
			}
			n, k := binary.Uvarint(rest)
			if k <= 0 || n != uint64(len(frame)) || !bytes.Equal(rest[k:k+len(frame)], frame) {
				t.Fatalf("read %x from %x", frame, rest)
			}
			rest = rest[k+len(frame):]
		}
	})
}

// chunkReader gives at most n bytes at a time.
type chunkReader struct {
	b []byte
	n int
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b[:min(c.n, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}
