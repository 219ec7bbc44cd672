package unixfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
	carstore "github.com/ipld/go-car/v2/storage"

	"dray"
)

func writeCAR(t testing.TB, g dray.Getter, roots ...cid.Cid) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteCAR(context.Background(), &buf, roots, g); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// atBuffer is a growing buffer that can be written to at offsets, as a version 2 CAR wants.
type atBuffer struct{ b []byte }

func (a *atBuffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(a.b) {
		a.b = append(a.b, make([]byte, need-len(a.b))...)
	}
	return copy(a.b[off:], p), nil
}

func (a *atBuffer) Write(p []byte) (int, error) { return a.WriteAt(p, int64(len(a.b))) }

// carV2 writes blocks as a version 2 CAR with the library.
func carV2(t testing.TB, root cid.Cid, blocks []dray.Block, opts ...car.Option) []byte {
	t.Helper()
	var buf atBuffer
	w, err := carstore.NewWritable(&buf, []cid.Cid{root}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if err := w.Put(context.Background(), b.CID().KeyString(), b.Data()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finalize(); err != nil {
		t.Fatal(err)
	}
	return buf.b
}

func TestCARRoundTrip(t *testing.T) {
	for _, p := range []Profile{small(V0(), 50, 3), small(V1(), 50, 3), small(Native(), 50, 3)} {
		m := blockMap{}
		root := addTree(t, p, randomTree(newRand(11), 3), m.put)
		data := writeCAR(t, m, root.CID)
		got := blockMap{}
		stats, err := ReadCAR(context.Background(), iotest.OneByteReader(bytes.NewReader(data)), got.put)
		if err != nil {
			t.Fatal(err)
		}
		var size int64
		for c, b := range got {
			size += int64(b.Size())
			if !bytes.Equal(b.Data(), m[c].Data()) {
				t.Errorf("%v differs", c)
			}
		}
		if len(got) != len(m) || stats.Blocks != int64(len(m)) || stats.Bytes != size ||
			!slices.Equal(stats.Roots, []cid.Cid{root.CID}) {
			t.Errorf("%s: %d blocks of %d, stats %+v", p.Name, len(got), len(m), stats)
		}
		// The library reads it too, verifying every block.
		br, err := car.NewBlockReader(bytes.NewReader(data))
		if err != nil || br.Version != 1 {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			if _, err := br.Next(); err != nil {
				if err != io.EOF {
					t.Fatal(err)
				}
				break
			}
		}
		if n != len(m) {
			t.Errorf("the library reads %d blocks of %d", n, len(m))
		}
	}
}

func TestCAROrder(t *testing.T) {
	m, root, order := graph(t)
	var got []cid.Cid
	data := writeCAR(t, m, root, order[2], root)
	stats, err := ReadCAR(context.Background(), bytes.NewReader(data), func(b dray.Block) error {
		got = append(got, b.CID())
		return nil
	})
	if err != nil || !slices.Equal(got, order) || len(stats.Roots) != 3 {
		t.Errorf("%v, want %v; %v", got, order, err)
	}
}

func TestCARVersion2(t *testing.T) {
	m, root, order := graph(t)
	var blocks []dray.Block
	for _, c := range order {
		blocks = append(blocks, m[c])
	}
	for name, data := range map[string][]byte{
		"indexed": carV2(t, root, blocks),
		"padded":  carV2(t, root, blocks, car.UseDataPadding(1000), car.UseIndexPadding(77)),
	} {
		got := blockMap{}
		stats, err := ReadCAR(context.Background(), bytes.NewReader(data), got.put)
		if err != nil || len(got) != len(m) || stats.Roots[0] != root {
			t.Errorf("%s: %d blocks, %v", name, len(got), err)
		}
		// Cut anywhere before the end of the blocks, it must not pass for whole.
		offset := binary.LittleEndian.Uint64(data[27:])
		end := offset + binary.LittleEndian.Uint64(data[35:])
		for n := 1; n < int(end); n++ {
			if _, err := ReadCAR(context.Background(), bytes.NewReader(data[:n]), blockMap{}.put); err == nil {
				t.Errorf("%s: the first %d of %d bytes pass for whole", name, n, end)
			}
		}
	}
}

// A CAR has no end mark, so one that ends between blocks is whole; one that ends anywhere else is not.
func TestCARTruncated(t *testing.T) {
	m, root, order := graph(t)
	data := writeCAR(t, m, root)
	ends := map[int]bool{}
	pos := len(data)
	for _, c := range slices.Backward(order) {
		ends[pos] = true
		n := c.ByteLen() + m[c].Size()
		pos -= n + len(binary.AppendUvarint(nil, uint64(n)))
	}
	ends[pos] = true // the header alone
	for n := range data {
		_, err := ReadCAR(context.Background(), bytes.NewReader(data[:n]), blockMap{}.put)
		if (err == nil) != ends[n] || (err != nil && !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("the first %d of %d bytes: %v", n, len(data), err)
		}
	}
}

func TestCARRefuses(t *testing.T) {
	m, root, _ := graph(t)
	good := writeCAR(t, m, root)
	header := len(writeCAR(t, blockMap{rawLeaf.CID(): rawLeaf}, rawLeaf.CID())) - 36 - 4 - 1
	head := good[:header]
	section := func(c cid.Cid, data string) string {
		s := c.KeyString() + data
		return string(binary.AppendUvarint(nil, uint64(len(s)))) + s
	}
	sha1short, _ := cid.Cast([]byte("\x01\x55\x11\x04abcd"))
	for _, tc := range []struct {
		name string
		data string
		want error
	}{
		{"nothing", "", io.ErrUnexpectedEOF},
		{"text", "hello world, this is no CAR at all", io.ErrUnexpectedEOF},
		{"binary", "\x05hello world", ErrInvalid},
		{"huge header", "\xff\xff\xff\xff\x07", ErrInvalid},
		{"version 3", strings.Replace(string(good), "gversion\x01", "gversion\x03", 1), ErrInvalid},
		{"wrong bytes", string(head) + section(rawLeaf.CID(), "fake"), dray.ErrCorrupt},
		{"hash not allowed", string(head) + section(sha1short, "fake"), dray.ErrBadCID},
		{"wrong identity", string(head) + section(identity(t, cid.Raw, []byte("a")), "b"), dray.ErrCorrupt},
		{"no CID", string(head) + "\x03abc", ErrInvalid},
		{"empty section", string(head) + "\x00", ErrInvalid},
		{"section of 1 GiB", string(head) + "\x80\x80\x80\x80\x04", ErrInvalid},
		{"block too big", string(head) + section(rawLeaf.CID(), strings.Repeat("x", dray.MaxBlockSize+1)), dray.ErrTooBig},
		{"varint without end", string(head) + strings.Repeat("\xff", 20), ErrInvalid},
		{"version 2 at offset 0", string(car.Pragma) + strings.Repeat("\x00", 40), ErrInvalid},
		{"version 2 of 2^64 bytes", string(car.Pragma) + strings.Repeat("\xff", 40), ErrInvalid},
		{"version 2 within 2", string(car.Pragma) + strings.Repeat("\x00", 16) + "\x33\x00\x00\x00\x00\x00\x00\x00" +
			"\x0b\x00\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 8) + string(car.Pragma), ErrInvalid},
	} {
		put := 0
		_, err := ReadCAR(context.Background(), strings.NewReader(tc.data), func(dray.Block) error { put++; return nil })
		if !errors.Is(err, tc.want) || put != 0 {
			t.Errorf("%s: %v, want %v; %d blocks", tc.name, err, tc.want, put)
		}
	}
}

func TestCARStops(t *testing.T) {
	m, root, _ := graph(t)
	data := writeCAR(t, m, root)
	boom := errors.New("boom")
	bg := context.Background()
	if _, err := ReadCAR(bg, bytes.NewReader(data), func(dray.Block) error { return boom }); err != boom {
		t.Errorf("put failed: %v", err)
	}
	broken := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(boom))
	if _, err := ReadCAR(bg, broken, blockMap{}.put); !errors.Is(err, boom) {
		t.Errorf("read failed: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ReadCAR(ctx, bytes.NewReader(data), blockMap{}.put); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := WriteCAR(context.Background(), io.Discard, nil, m); err == nil {
		t.Error("a CAR without roots was written")
	}
	err := WriteCAR(bg, io.Discard, []cid.Cid{root}, blockMap{root: m[root]})
	if !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("missing block: %v", err)
	}
	for n := range 12 {
		w := &failAfter{n: n, err: boom}
		if err := WriteCAR(context.Background(), w, []cid.Cid{root}, m); (w.n < 0) != (err != nil) {
			t.Errorf("write %d failed: %v", n, err)
		}
	}
}

// failAfter fails after n writes.
type failAfter struct {
	n   int
	err error
}

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, f.err
	}
	return len(p), nil
}

func FuzzReadCAR(f *testing.F) {
	m, root, order := graph(f)
	f.Add(writeCAR(f, m, root))
	f.Add(carV2(f, root, []dray.Block{m[order[0]], m[order[3]]}))
	f.Add([]byte("\x0a\xa1gversion\x02"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := blockMap{}
		stats, err := ReadCAR(context.Background(), bytes.NewReader(data), got.put)
		for c, b := range got {
			if _, bad := dray.NewBlock(c, b.Data()); bad != nil {
				t.Fatal("a block that does not match its CID was handed out")
			}
		}
		if err == nil && stats.Bytes > int64(len(data)) {
			t.Fatalf("%d bytes of blocks in %d bytes", stats.Bytes, len(data))
		}
	})
}

func BenchmarkCAR(b *testing.B) {
	p, m := V1(), blockMap{}
	root := addFile(b, p, noise(1, 32<<20), m.put)
	data := writeCAR(b, m, root.CID)
	ctx := context.Background()
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if err := WriteCAR(ctx, io.Discard, []cid.Cid{root.CID}, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("scan", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := ScanCAR(ctx, bytes.NewReader(data), func(cid.Cid, []byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := ReadCAR(ctx, bytes.NewReader(data), func(dray.Block) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
