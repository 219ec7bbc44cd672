package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/proto"

	"dray"
)

// The other side of these tests is boxo's codec, which decides what Kubo reads and writes.
//
// Known differences, all of them Dray being stricter or leaving something out:
//   - a block over dray.MaxBlockSize, which boxo only never sends, and more than MaxBlocks blocks are refused;
//   - what Message.Ignored counts is kept by boxo's codec and thrown away by its server and client, and a block of a
//     hash that boxo does not know makes it refuse the whole message;
//   - a cancel's priority and type are dropped;
//   - boxo keys entries by CID and merges them on reading; Dray keeps them as they came. The tests merge with boxo's own
//     rules before they compare.

// content is what a message says, in a form that can be compared.
type content struct {
	full      bool
	wants     map[cid.Cid]Entry
	blocks    map[cid.Cid]string
	presences map[cid.Cid]bool
	pending   int32
}

func contentOf(m bsmsg.BitSwapMessage) content {
	c := content{m.Full(), map[cid.Cid]Entry{}, map[cid.Cid]string{}, map[cid.Cid]bool{}, m.PendingBytes()}
	for _, e := range m.Wantlist() {
		w := Entry{CID: e.Cid, Priority: e.Priority, Type: WantType(e.WantType), SendDontHave: e.SendDontHave}
		if e.Cancel {
			w = Entry{CID: e.Cid, Cancel: true}
		}
		c.wants[e.Cid] = w
	}
	for _, b := range m.Blocks() {
		c.blocks[b.Cid()] = string(b.RawData())
	}
	for _, p := range m.BlockPresences() {
		c.presences[p.Cid] = p.Type == pb.Message_Have
	}
	return c
}

func (c content) equal(d content) bool {
	return c.full == d.full && c.pending == d.pending && maps.Equal(c.wants, d.wants) &&
		maps.Equal(c.blocks, d.blocks) && maps.Equal(c.presences, d.presences)
}

// toBoxo says to boxo what m says, in m's order.
func toBoxo(t testing.TB, m *Message) bsmsg.BitSwapMessage {
	t.Helper()
	out := bsmsg.New(m.Full)
	for _, e := range m.Wants {
		if e.Cancel {
			out.Cancel(e.CID)
		} else {
			out.AddEntry(e.CID, e.Priority, pb.Message_Wantlist_WantType(e.Type), e.SendDontHave)
		}
	}
	for _, b := range m.Blocks {
		d, err := dray.Hashed(b.Prefix, b.Data)
		if err != nil {
			t.Fatal(err)
		}
		bb, err := blocks.NewBlockWithCid(b.Data, d.CID())
		if err != nil {
			t.Fatal(err)
		}
		out.AddBlock(bb)
	}
	for _, p := range m.Presences {
		kind := pb.Message_DontHave
		if p.Have {
			kind = pb.Message_Have
		}
		out.AddBlockPresence(p.CID, kind)
	}
	out.SetPendingBytes(m.PendingBytes)
	return out
}

func TestBoxoReadsWhatWeWrite(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, v := range []Version{Legacy, V100, V110, V120} {
		for range 500 {
			m := randomMessage(t, r, v)
			b, err := AppendMessage(nil, v, m)
			if err != nil {
				t.Fatal(err)
			}
			got, n, err := bsmsg.FromNet(bytes.NewReader(b))
			if err != nil || n != m.Size(v) {
				t.Fatalf("%v: boxo read %d bytes of %x: %v", v, n, b, err)
			}
			if g, w := contentOf(got), contentOf(toBoxo(t, m)); !g.equal(w) {
				t.Fatalf("%v: boxo read\n%+v\nwe wrote\n%+v", v, g, w)
			}
		}
	}
}

func TestWeReadWhatBoxoWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, v := range []Version{Legacy, V100, V110, V120} {
		for range 500 {
			theirs := toBoxo(t, randomMessage(t, r, v))
			var b bytes.Buffer
			var err error
			if v.Prefixes() {
				err = theirs.ToNetV1(&b)
			} else {
				err = theirs.ToNetV0(&b)
			}
			if err != nil {
				t.Fatal(err)
			}
			frame, err := (&FrameReader{R: &b}).Next(makeBytes)
			if err != nil {
				t.Fatal(err)
			}
			var m Message
			if err := Decode(v, frame, &m); err != nil || m.Ignored != 0 {
				t.Fatalf("%v: %x: %v, %d ignored", v, frame, err, m.Ignored)
			}
			if g, w := contentOf(toBoxo(t, &m)), contentOf(theirs); !g.equal(w) {
				t.Fatalf("%v: we read\n%+v\nboxo wrote\n%+v", v, g, w)
			}
		}
	}
}

// Sizes by which boxo's client decides what fits are ours as well.
func TestBoxoSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 500 {
		for _, e := range randomMessage(t, r, V120).Wants {
			theirs := toBoxo(t, &Message{Wants: []Entry{e}}).Wantlist()[0]
			if n := fieldSize(theirs.Size()); n != e.Size(V120) {
				t.Fatalf("%+v: Size %d, boxo %d", e, e.Size(V120), n)
			}
		}
	}
}

// verdict is what boxo's rules and Dray's stated differences make of a frame: the message without what is to be ignored,
// how much that is, and why the frame is to be refused.
func verdict(frame []byte) (*pb.Message, int, error) {
	m := new(pb.Message)
	if err := proto.Unmarshal(frame, m); err != nil {
		return nil, 0, err
	}
	ignored := 0
	keep := func(b []byte) (bool, error) {
		if len(b) == 0 {
			return false, fmt.Errorf("no CID")
		}
		c, err := cid.Cast(b)
		if err != nil {
			return false, err
		}
		return dray.CheckCID(c) == nil && !dray.IsIdentity(c), nil
	}
	wants := m.GetWantlist().GetEntries()[:0:0]
	for _, e := range m.GetWantlist().GetEntries() {
		ok, err := keep(e.Block)
		if err != nil {
			return nil, 0, err
		}
		if !ok || (!e.Cancel && (e.WantType < 0 || e.WantType > 1)) {
			ignored++
			continue
		}
		if e.Cancel {
			e = &pb.Message_Wantlist_Entry{Block: e.Block, Cancel: true}
		}
		wants = append(wants, e)
	}
	if m.Wantlist != nil {
		m.Wantlist.Entries = wants
	}
	presences := m.BlockPresences[:0:0]
	for _, p := range m.BlockPresences {
		ok, err := keep(p.Cid)
		if err != nil {
			return nil, 0, err
		}
		if !ok || p.Type < 0 || p.Type > 1 {
			ignored++
			continue
		}
		presences = append(presences, p)
	}
	m.BlockPresences = presences
	payload := m.Payload[:0:0]
	for _, b := range m.Payload {
		p, err := cid.PrefixFromBytes(b.Prefix)
		if err != nil {
			return nil, 0, err
		}
		if p.Version > 1 || (p.Version == 0 && (p.MhType != 0x12 || p.MhLength != 32)) {
			return nil, 0, fmt.Errorf("prefix %+v", p)
		}
		if p.MhType == 0 || !dray.AllowedDigest(p.MhType, p.MhLength) {
			ignored++
			continue
		}
		payload = append(payload, b)
	}
	m.Payload = payload
	for _, b := range payload {
		if len(b.Data) > dray.MaxBlockSize {
			return nil, 0, dray.ErrTooBig
		}
	}
	if len(m.Blocks)+len(payload) > MaxBlocks {
		return nil, 0, ErrTooMany
	}
	return m, ignored, nil
}

// FuzzDecode feeds the same bytes to both codecs. Dray must accept what the rules accept and nothing else, what boxo accepts
// must be among it, and both must have read the same; what was read must survive writing and reading once more.
func FuzzDecode(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(unhex(f, g.hex)[1:])
	}
	for _, s := range []string{
		"0a26 0a24 0a22 %v0 0a2a 0a26 0a24 %v1 1001", "0a08 0a06 0a04 01550000", "1a06 0a04 01550000 1a06 0a04 01551213",
		"3001 3904000000000000ff 42 03 616263 4d 00000001 53 0801 5b 5c 54 fa3f 00", "2228 0a24 %v1 1002",
		"1a0e 0a04 01550020 0a06 0155a0e40220", "0a2a 0a28 0a24 %v1 2002", "0a58 0a2a 0a24 %v1 1801 2002 0a2a 0a24 %v1 2001 2801",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) { compare(t, frame) })
}

// The same on messages with a few bytes changed, in every run of the tests.
func TestDamagedMessages(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	read := 0
	for range 20_000 {
		v := V120 - Version(r.IntN(4))
		b, err := AppendMessage(nil, v, randomMessage(t, r, v))
		if err != nil {
			t.Fatal(err)
		}
		_, n := binary.Uvarint(b)
		b = b[n:]
		for range r.IntN(3) {
			switch i := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b[i] = byte(r.Uint32())
			case 1:
				b[i] ^= 1 << r.IntN(8)
			case 2:
				b = append(b, b[i:]...)
			}
		}
		if compare(t, b) {
			read++
		}
	}
	if read < 2000 || read > 18_000 {
		t.Errorf("%d of 20000 messages could be read", read)
	}
}

// compare checks one frame for FuzzDecode and reports whether it could be read.
func compare(t *testing.T, frame []byte) bool {
	t.Helper()
	want, ignored, refused := verdict(frame)
	var m Message
	err := Decode(V120, frame, &m)
	if (err == nil) != (refused == nil) {
		t.Fatalf("%x\nDecode: %v\nexpected: %v", frame, err, refused)
	}
	if err != nil {
		stricter := refused == dray.ErrTooBig || refused == ErrTooMany
		if _, _, err := bsmsg.FromNet(bytes.NewReader(framed(frame))); err == nil && !stricter {
			t.Fatalf("%x\nboxo accepts what we refuse: %v", frame, refused)
		}
		return false
	}
	if m.Ignored != ignored {
		t.Fatalf("%x: %d ignored, want %d", frame, m.Ignored, ignored)
	}
	clean, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, err := bsmsg.FromNet(bytes.NewReader(framed(clean)))
	if err != nil {
		t.Fatalf("%x\nboxo refuses what is left: %v", frame, err)
	}
	if g, w := contentOf(toBoxo(t, &m)), contentOf(theirs); !g.equal(w) {
		t.Fatalf("%x\nwe read\n%+v\nboxo read\n%+v", frame, g, w)
	}
	m.Ignored = 0
	b, err := AppendMessage(nil, V120, &m)
	if err != nil {
		t.Fatalf("%x: cannot be written again: %v", frame, err)
	}
	_, n := binary.Uvarint(b)
	var again Message
	if err := Decode(V120, b[n:], &again); err != nil || !sameMessage(&again, &m) {
		t.Fatalf("%x\nread      %+v\nand again %+v, %v", frame, m, again, err)
	}
	return true
}

func framed(message []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(message))), message...)
}
