package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"

	"dray"
	"dray/node"
	"dray/unixfs"
)

// model returns a safetensors file whose tensors have the given sizes, and where the first of them begins.
func model(sizes ...int) (content []byte, start int) {
	header, end := []byte("{"), 0
	for i, n := range sizes {
		if i > 0 {
			header = append(header, ',')
		}
		header = fmt.Appendf(header, `"t%d":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, i, n, end, end+n)
		end += n
	}
	header = append(header, '}')
	content = append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	return append(content, contents(7, end)...), len(content)
}

// TestTensorsToBoxo serves a file that is cut at the borders of its tensors, so that its branches differ in depth, to boxo:
// whole, by ranges, and one tensor by its own CID.
func TestTensorsToBoxo(t *testing.T) {
	// With leaves of 1 KiB and nodes of four links: one leaf, many, more than fit two levels, and many small ones.
	sizes := []int{700, 9000, 70_001, 1, 2, 3, 1024, 4096, 4097, 10, 10, 10, 33_333}
	file, start := model(sizes...)
	src := filepath.Join(t.TempDir(), "model.safetensors")
	write(t, src, file)
	for _, p := range []unixfs.Profile{small(unixfs.V0()), small(unixfs.V1()), small(unixfs.Native())} {
		t.Run(p.Name, func(t *testing.T) {
			d := newDray(t, overTCP)
			added, err := d.Add(within(t), src, node.AddConfig{Profile: p, Layout: node.LayoutTensors})
			if err != nil {
				t.Fatal(err)
			}
			if added.Tensors != len(sizes) {
				t.Fatalf("%d tensors, want %d", added.Tensors, len(sizes))
			}
			b := newBoxo(t, overTCP)
			b.connect(t, d.Addrs())
			all := b.walk(t, added.Root)
			out := filepath.Join(t.TempDir(), "out")
			b.get(t, added.Root, out)
			sameTree(t, out, src)

			// From the middle of the large tensor, by somebody who has nothing else.
			b = newBoxo(t, overTCP)
			b.connect(t, d.Addrs())
			from := start + 700 + 9000 + 35_000
			if got := b.read(t, added.Root, int64(from), 5000); !bytes.Equal(got, file[from:from+5000]) {
				t.Error("a range in the middle of a tensor differs")
			}
			if n := b.blocks(t); n > all/2 {
				t.Errorf("boxo fetched %d of %d blocks for 5000 bytes", n, all)
			}
			// Across the border of two tensors, and of many.
			for _, from := range []int{start + 690, start + 700 + 9000 + 70_001 - 5, len(file) - 33_400, 0} {
				if got := b.read(t, added.Root, int64(from), 100); !bytes.Equal(got, file[from:from+100]) {
					t.Errorf("bytes from %d differ", from)
				}
			}

			// The large tensor is a file of its own, the one that boxo makes of its bytes.
			large := filepath.Join(t.TempDir(), "tensor")
			write(t, large, file[start+9700:start+9700+70_001])
			whole := newBoxo(t, overTCP)
			tensor := whole.add(t, large, p)
			b = newBoxo(t, overTCP)
			b.connect(t, d.Addrs())
			out = filepath.Join(t.TempDir(), "out")
			b.get(t, tensor, out)
			sameTree(t, out, large)
		})
	}
}

// read returns n bytes of a file from an offset on.
func (b *boxoPeer) read(t testing.TB, root cid.Cid, offset, n int64) []byte {
	t.Helper()
	session := merkledag.NewReadOnlyDagService(merkledag.NewSession(within(t), b.dag))
	nd, err := session.Get(within(t), root)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	r, err := uio.NewDagReader(within(t), nd, session)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	defer r.Close()
	if _, err := r.Seek(offset, io.SeekStart); err != nil {
		t.Fatalf("read: %v", err)
	}
	got := make([]byte, n)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("read: %v", err)
	}
	return got
}

// blocks returns how many blocks the peer has.
func (b *boxoPeer) blocks(t testing.TB) int {
	t.Helper()
	keys, err := b.store.AllKeysChan(within(t))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range keys {
		n++
	}
	return n
}

// TestTensorsFromBoxo fetches a file that is cut at the borders of its tensors from a boxo peer, and reads ranges of it
// while most of it is not there.
func TestTensorsFromBoxo(t *testing.T) {
	file, start := model(700, 9000, 70_001, 1, 4097)
	src := filepath.Join(t.TempDir(), "model.safetensors")
	write(t, src, file)
	maker, b := newDray(t, overTCP), newBoxo(t, overTCP)
	p := small(unixfs.Native())
	root := maker.add(t, src, p)
	b.connect(t, maker.Addrs())
	b.walk(t, root)

	d := newDray(t, overTCP)
	out := filepath.Join(t.TempDir(), "out")
	d.get(t, root, out, b.addr(), bitswap120)
	sameTree(t, out, src)

	kept := boxoStore{b}
	r, err := unixfs.NewReader(within(t), kept, root, unixfs.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 12_345)
	at := start + 700 + 8990
	if _, err := r.ReadAt(got, int64(at)); err != nil || !bytes.Equal(got, file[at:at+len(got)]) {
		t.Errorf("a range of what boxo has differs, or %v", err)
	}
}

// boxoStore reads what a boxo peer has.
type boxoStore struct{ b *boxoPeer }

func (s boxoStore) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	b, err := s.b.store.Get(ctx, c)
	if err != nil {
		return dray.Block{}, err
	}
	return dray.NewBlock(c, b.RawData())
}
