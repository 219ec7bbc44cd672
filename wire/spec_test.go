package wire

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// The worked example of docs/wire.md: its bytes are what is written for these messages, and are read as them.
func TestSpecExample(t *testing.T) {
	root := goldenCID(t, "01701e20"+goldenDigest)
	rawBlock := Block{rawBLAKE3, []byte("leaf")}
	node := Block{root.Prefix(), []byte("node")}
	want := []Message{
		{
			Full: true, Seq: 1, Credit: 6 << 20, Follows: []Follow{{Feed: 1, Root: root}},
			Walks: []Walk{{ID: 1, Root: root, Bytes: 1 << 20, Push: 1 << 20}},
		},
		{Full: true, Seq: 1, Credit: 4 << 20},
		{
			Seq: 2, Haves: []Have{{Feed: 1, Leaves: 3, Bits: leaves(0, 3)}}, Blocks: []Block{node},
			Walked: []Walked{{ID: 1, Leaves: 3, Pushed: leaves(0, 1)}},
		},
		{Blocks: []Block{rawBlock}},
		{Seq: 2, Wants: []Entry{{Priority: 1<<29 - 1, SendDontHave: true, Falls: true, Leaves: Leaves{1, 1, 2}}}},
		{Seq: 3, Wants: []Entry{{Cancel: true, Leaves: Leaves{1, 2, 1}}}},
		{
			Seq: 3, Presences: []Presence{{Leaves: Leaves{1, 1, 1}}},
			Haves: []Have{{Feed: 1, Leaves: 3, Lost: true, Bits: leaves(1, 1)}},
		},
		{Seq: 4, Wants: []Entry{{CID: root, SendDontHave: true}}},
		{Seq: 4, Follows: []Follow{{Feed: 1, Root: root, Durable: true}}},
		{Seq: 5, Haves: []Have{{Feed: 1, Leaves: 3, Bits: leaves(0, 1)}}},
		{Seq: 6, Credit: 8 << 20},
		{Seq: 7, Info: Info{Set: true, Uploading: true}, Follows: []Follow{{Feed: 1, Root: root, Stop: true}}},
		{},
		{
			Seq: 8, Follows: []Follow{{Feed: 2, Root: root, Proof: goldenProof}},
			Wants: []Entry{{CID: root, Feed: 2, SendDontHave: true}},
		},
		{Seq: 5, Presences: []Presence{{CID: root}}, Haves: []Have{{Feed: 2, Denied: true}}},
	}
	var written []byte
	for i := range want {
		var err error
		if written, err = AppendMessage(written, Swap1, &want[i]); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	spec := specBytes(t, root.KeyString())
	if !bytes.Equal(spec, written) {
		t.Errorf("the page says\n%x\nand it is written as\n%x", spec, written)
	}
	f := FrameReader{R: bytes.NewReader(spec), Version: Swap1}
	for i := range want {
		frame, err := f.Next(makeBytes)
		if err != nil {
			t.Fatal(err)
		}
		var m Message
		if err := Decode(Swap1, frame, &m); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if !sameSwap(&m, &want[i]) {
			t.Errorf("message %d is read as %+v", i, m)
		}
	}
}

// leaves returns a bitmap of one run.
func leaves(first, count uint32) Bits {
	var w BitsWriter
	w.Add(first, count)
	return w.Bits()
}

// specBytes returns the bytes of the worked example: what is indented by four, up to the remark in the right column.
func specBytes(t *testing.T, root string) []byte {
	page, err := os.ReadFile("../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n### A worked example\n")
	text, _, _ = strings.Cut(text, "\n### ")
	var out []byte
	for line := range strings.Lines(text) {
		line, found := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if !found {
			continue
		}
		if len(line) <= 38 || line[37] != ' ' {
			t.Fatalf("no remark: %q", line)
		}
		digits := strings.NewReplacer(" ", "", "R", hex.EncodeToString([]byte(root))).Replace(line[:38])
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, b...)
	}
	return out
}
