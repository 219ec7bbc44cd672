package interop

import (
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

// list returns the blocks of a linked list, the first of them its root.
func list(t testing.TB, nodes int) []dray.Block {
	t.Helper()
	all := make([]dray.Block, nodes)
	for i := nodes - 1; i >= 0; i-- {
		all[i] = cborBlock(t, func(l datamodel.ListAssembler) {
			qp.ListEntry(l, qp.Int(int64(i)))
			if i < nodes-1 {
				qp.ListEntry(l, qp.Link(cidlink.Link{Cid: all[i+1].CID()}))
			}
		})
	}
	return all
}

// star returns the blocks of a node that names many tiny ones, the first of them that node.
func star(t testing.TB, leaves int) []dray.Block {
	t.Helper()
	raw := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}
	all := make([]dray.Block, 1, leaves+1)
	payload := contents(9, leaves*16)
	for i := range leaves {
		b, err := dray.Hashed(raw, payload[i*16:(i+1)*16])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	all[0] = cborBlock(t, func(l datamodel.ListAssembler) {
		for _, b := range all[1:] {
			qp.ListEntry(l, qp.Link(cidlink.Link{Cid: b.CID()}))
		}
	})
	return all
}

func cborBlock(t testing.TB, fill func(datamodel.ListAssembler)) dray.Block {
	t.Helper()
	n, err := qp.BuildList(basicnode.Prototype.Any, -1, fill)
	if err != nil {
		t.Fatal(err)
	}
	var out appender
	if err := dagcbor.Encode(n, &out); err != nil {
		t.Fatal(err)
	}
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: mh.SHA2_256, MhLength: 32}, out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// appender is a byte slice that can be written to.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// TestGraphsBothWays moves a long chain, where every block must be there before the next is known, and a crowd of tiny
// blocks, of which one message holds hundreds.
func TestGraphsBothWays(t *testing.T) {
	for _, g := range []struct {
		name   string
		blocks []dray.Block
	}{
		{"200-node-list", list(t, 200)},
		{"10000-tiny-blocks", star(t, 10_000)},
	} {
		root := g.blocks[0].CID()
		t.Run(g.name+"-from-boxo", func(t *testing.T) {
			b, d := newBoxo(t, overTCP), newDray(t, overTCP)
			b.put(t, g.blocks)
			if n := d.walk(t, root, b.addr()); n != len(g.blocks) {
				t.Errorf("%d blocks, want %d", n, len(g.blocks))
			}
			for _, want := range g.blocks {
				if _, err := d.Store().Get(within(t), want.CID()); err != nil {
					t.Fatal(err)
				}
			}
		})
		t.Run(g.name+"-to-boxo", func(t *testing.T) {
			b, d := newPatientBoxo(t, overTCP), newDray(t, overTCP)
			if err := d.Put(within(t), g.blocks...); err != nil {
				t.Fatal(err)
			}
			b.connect(t, d.Addrs())
			if n := b.walk(t, root); n != len(g.blocks) {
				t.Errorf("%d blocks, want %d", n, len(g.blocks))
			}
		})
	}
}
