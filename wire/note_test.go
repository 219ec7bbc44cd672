package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestNoteGolden fixes the bytes of notes, which are those in docs/wire.md.
func TestNoteGolden(t *testing.T) {
	for _, row := range []struct {
		name  string
		notes []Note
		want  string
	}{
		{"goodbye", []Note{{Kind: NoteGoodbye}}, "00 000000 05000000  80 03 01  01 00"},
		{
			"refused, and one of a kind that nobody knows",
			[]Note{{Kind: NoteRefused, Data: []byte("no member")}, {Kind: 300, Data: []byte{7}}},
			"00 000000 12000000  80 10 02  02 09 6e6f206d656d626572  ac02 01 07",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := AppendNotes([]byte("before"), row.notes...)
			if err != nil {
				t.Fatal(err)
			}
			got = bytes.TrimPrefix(got, []byte("before"))
			if want, _ := hex.DecodeString(strings.ReplaceAll(row.want, " ", "")); !bytes.Equal(got, want) {
				t.Errorf("got % x, want %s", got, row.want)
			}
			var m Message
			if err := Decode(Swap1, got, &m); err != nil || !m.Empty() || m.Seq != 0 {
				t.Errorf("read as a message it is %+v, %v", m, err)
			}
			notes, err := Notes(got)
			if err != nil || !sameNotes(notes, row.notes) {
				t.Errorf("read as %+v, %v", notes, err)
			}
			f := FrameReader{R: bytes.NewReader(got), Version: Swap1}
			if frame, err := f.Next(makeBytes); err != nil || !bytes.Equal(frame, got) {
				t.Errorf("the frame is read as % x, %v", frame, err)
			}
			for n := range got {
				if notes, err := Notes(got[:n]); n > controlHead && (err == nil || notes != nil) {
					t.Errorf("%d of its bytes are read as %+v", n, notes)
				}
			}
		})
	}
}

func sameNotes(a, b []Note) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Kind != b[i].Kind || !bytes.Equal(a[i].Data, b[i].Data) {
			return false
		}
	}
	return true
}

func TestNotesRefused(t *testing.T) {
	many := make([]Note, MaxNotes+1)
	for i := range many {
		many[i].Kind = 1
	}
	for name, notes := range map[string][]Note{
		"none": nil, "too many": many, "no kind": {{}}, "too long": {{Kind: 1, Data: make([]byte, MaxNote+1)}},
	} {
		if got, err := AppendNotes(nil, notes...); err == nil || len(got) > 0 {
			t.Errorf("%s: written as % x", name, got)
		}
	}
	for name, text := range map[string]string{
		"no count": "80 00", "none": "80 01 00", "too many": "80 01 11", "no kind": "80 03 01 00 00", "cut": "80 03 01 01 05",
		"longer than it need be": "80 04 01 8100 00", "bytes too many": "80 04 01 01 00 00",
		"too long": "80 8508 01 01 8108" + strings.Repeat("00", MaxNote+1),
	} {
		body, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		frame := append(appendControlHead(nil, len(body)), body...)
		if err := Decode(Swap1, frame, new(Message)); err != nil {
			t.Errorf("%s: a reader that skips notes says %v", name, err)
		}
		var fault *Error
		if notes, err := Notes(frame); !errors.As(err, &fault) || fault.Version != Swap1 || notes != nil {
			t.Errorf("%s: read as %+v, %v", name, notes, err)
		}
	}
	for _, frame := range [][]byte{nil, appendControlHead(nil, 0), {1, 0, 0, 0, 0, 0, 0, 0, 0x80}, {0, 0, 0, 0, 3, 0, 0, 0, 1, 1, 1}} {
		if notes, err := Notes(frame); notes != nil || err != nil {
			t.Errorf("% x has notes %+v, %v", frame, notes, err)
		}
	}
}

// FuzzNotes: what is read is written as the same bytes again.
func FuzzNotes(f *testing.F) {
	for _, notes := range [][]Note{{{Kind: 1}}, {{Kind: 2, Data: []byte("why")}, {Kind: 1 << 31}}} {
		frame, err := AppendNotes(nil, notes...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame[controlHead:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		frame := append(appendControlHead(nil, len(body)), body...)
		notes, err := Notes(frame)
		if err != nil || notes == nil {
			return
		}
		again, err := AppendNotes(nil, notes...)
		if err != nil || !bytes.HasPrefix(frame[controlHead:], again[controlHead:]) {
			t.Fatalf("% x became % x, %v", frame, again, err)
		}
		back, err := Notes(again)
		if err != nil || !reflect.DeepEqual(back, notes) {
			t.Fatalf("%+v became %+v, %v", notes, back, err)
		}
	})
}
