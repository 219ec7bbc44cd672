package transport

import (
	"bufio"
	"bytes"
	"io"
	"reflect"
	"testing"
)

// FuzzFrame: what is read is written in the same way again, and nothing larger than the bound is taken.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, &frame{flags: frameState | frameFull, seq: 1, label: StateLabel, data: []byte("all")}))
	f.Add(appendFrame(nil, &frame{flags: frameAgain, seq: 300, label: "x"}))
	f.Add([]byte{0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1 << 10
		in := bufio.NewReader(bytes.NewReader(b))
		for {
			got, err := readFrame(in, most)
			if err != nil {
				return
			}
			if len(got.data) > most || len(got.label) > MaxLabel {
				t.Fatalf("%d bytes of data, %d of a label", len(got.data), len(got.label))
			}
			again, err := readFrame(bufio.NewReader(bytes.NewReader(appendFrame(nil, &got))), most)
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%+v became %+v, %v", got, again, err)
			}
		}
	})
}

// TestFrameGolden fixes the bytes.
func TestFrameGolden(t *testing.T) {
	got := appendFrame(nil, &frame{flags: frameState | frameFull, seq: 200, label: "ab", data: []byte("data")})
	if want := "\x0a\x03\xc8\x01\x02abdata"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(appendAck(nil, 1, 300)), "\x01\xac\x02"; got != want {
		t.Errorf("acknowledgement: got %q, want %q", got, want)
	}
	for n := range got {
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(got[:n])), 100); err == nil || err == io.EOF && n > 0 {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, bad := range []string{"\x00", "\x04\x02\x01\x00", "\x04\x08\x01\x00", "\x03\x00\x00\x00", "\x03\x00\x01\x01", "\x03\x00\x80\x80"} {
		if _, err := readFrame(bufio.NewReader(bytes.NewReader([]byte(bad+"xxxx"))), 100); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
