package unixfs

import (
	"bytes"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
)

// TestLeafFrame builds leaves from content and frame: they hash to what the profile's leaves are called.
func TestLeafFrame(t *testing.T) {
	for _, p := range Profiles() {
		for _, n := range []int64{0, 1, 127, 128, 262144} {
			content := bytes.Repeat([]byte{7}, int(n))
			block := p.AppendLeafTail(append(p.AppendLeafHead(nil, n), content...), n)
			want, err := dray.Hashed(p.LeafPrefix(), block)
			if err != nil {
				t.Fatal(err)
			}
			head, tail, err := LeafFrame(want.CID(), n)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dray.NewBlock(want.CID(), append(append(head, content...), tail...)); err != nil {
				t.Errorf("%s, %d bytes: %v", p.Name, n, err)
			}
		}
	}
	if _, _, err := LeafFrame(cid.NewCidV1(cid.DagCBOR, testHash(t)), 1); err == nil {
		t.Error("a dag-cbor leaf has a frame")
	}
}

func testHash(t *testing.T) []byte {
	t.Helper()
	b, err := dray.Hashed(V1().LeafPrefix(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.CID().Hash()
}
