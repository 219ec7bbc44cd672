package p2p

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"dray/transport"
)

func someToken(seed byte) (t token) {
	for i := range t {
		t[i] = seed + byte(i)
	}
	return t
}

// The messages as docs/data-plane.md shows them.
func TestBulkMessagesAreAsDocumented(t *testing.T) {
	numbers := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	tok := someToken(0x10)
	q := bulkRequest{clear: true, number: 0x0102030405060708, want: tok, protocol: "/p/1"}
	got, err := q.append(nil)
	want := append(append(append([]byte{1}, numbers...), tok[:]...), "\x04/p/1"...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("request %x, %v; want %x", got, err, want)
	}
	a := bulkAnswer{clear: true, number: 0x0102030405060708, want: tok}
	want = append(append([]byte{0, 1}, numbers...), tok[:]...)
	if got := a.append(nil); !bytes.Equal(got, want) {
		t.Errorf("answer %x, want %x", got, want)
	}
	h := bulkHello{number: 0x0102030405060708, token: tok}
	want = append(append([]byte("\xd7dray\x01\r\n"), numbers...), tok[:]...)
	if got := h.append(nil); !bytes.Equal(got, want) || len(got) != helloBytes {
		t.Errorf("hello %x, want %x", got, want)
	}
}

func TestBulkMessagesThatAreWrong(t *testing.T) {
	tok := someToken(1)
	good, _ := (&bulkRequest{want: tok, protocol: "/p/1"}).append(nil)
	request := func(b []byte) error { _, err := readRequest(bytes.NewReader(b)); return err }
	answer := func(b []byte) error { _, err := readBulkAnswer(bytes.NewReader(b)); return err }
	hello := func(b []byte) error {
		var buf [helloBytes]byte
		_, err := readHello(bytes.NewReader(b[1:]), &buf)
		return err
	}
	change := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	yes := (&bulkAnswer{want: tok}).append(nil)
	greeting := (&bulkHello{token: tok}).append(nil)
	for _, row := range []struct {
		name string
		read func([]byte) error
		b    []byte
		want error
	}{
		{"unknown flags", request, change(good, 0, 2), errMalformed},
		{"no protocol", request, change(good, requestHead-1, 0), errMalformed},
		{"protocol cut off", request, change(good, requestHead-1, 5), io.ErrUnexpectedEOF},
		{"request cut off", request, good[:20], io.ErrUnexpectedEOF},
		{"nothing", request, nil, io.ErrUnexpectedEOF},
		{"too many", answer, change(yes, 0, answerTooMany), transport.ErrTooMany},
		{"refused", answer, change(yes, 0, answerRefused), transport.ErrRefused},
		{"unknown answer", answer, change(yes, 0, 3), errMalformed},
		{"unknown flags of an answer", answer, change(yes, 1, 0x81), errMalformed},
		{"answer cut off", answer, yes[:len(yes)-1], io.ErrUnexpectedEOF},
		{"another version", hello, change(greeting, 5, 2), errMalformed},
		{"hello cut off", hello, greeting[:len(greeting)-1], io.ErrUnexpectedEOF},
	} {
		if err := row.read(row.b); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
	for _, id := range []string{"", "/" + strings.Repeat("x", maxProtocol)} {
		q := bulkRequest{protocol: transport.Protocol(id)}
		if _, err := q.append(nil); !errors.Is(err, transport.ErrRefused) {
			t.Errorf("a protocol of %d bytes: %v", len(id), err)
		}
	}
}

// FuzzBulkHandshake feeds bytes to all three parsers. What they take they must write again as it was, and they must take
// as much from a reader that hands out single bytes, and nothing beyond.
func FuzzBulkHandshake(f *testing.F) {
	tok := someToken(1)
	q, _ := (&bulkRequest{clear: true, number: 7, want: tok, protocol: "/dray/tensorswap/1"}).append(nil)
	f.Add(q)
	f.Add((&bulkAnswer{clear: true, number: 7, want: tok}).append(nil))
	f.Add((&bulkHello{number: 7, token: tok}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(name string, parse func(io.Reader) ([]byte, error)) {
			r := bytes.NewReader(b)
			again, err := parse(iotest.OneByteReader(r))
			if err != nil {
				return
			}
			if taken := b[:len(b)-r.Len()]; !bytes.Equal(again, taken) {
				t.Errorf("%s %x came back as %x", name, taken, again)
			}
		}
		read("request", func(r io.Reader) ([]byte, error) {
			q, err := readRequest(r)
			if err != nil {
				return nil, err
			}
			return q.append(nil)
		})
		read("answer", func(r io.Reader) ([]byte, error) {
			a, err := readBulkAnswer(r)
			return a.append(nil), err
		})
		read("hello", func(r io.Reader) ([]byte, error) {
			var buf [helloBytes]byte
			if _, err := io.ReadFull(r, buf[:1]); err != nil {
				return nil, err
			}
			h, err := readHello(r, &buf)
			return h.append(nil), err
		})
	})
}
