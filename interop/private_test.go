package interop

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"dray/access"
	"dray/node"
	"dray/unixfs"
)

// TestPrivateFromBoxo: a root that is not open does not go to boxo, neither its root nor its leaves, whatever it asks; what is
// open does, from the same host, and so does the root once it is open.
func TestPrivateFromBoxo(t *testing.T) {
	src := t.TempDir()
	write(t, filepath.Join(src, "private"), contents(1, 300_000))
	write(t, filepath.Join(src, "open"), contents(2, 300_000))
	b, d := newBoxo(t, overTCP), newDray(t, overTCP)
	profile := small(unixfs.V1())
	private, open := d.add(t, filepath.Join(src, "private"), profile), d.add(t, filepath.Join(src, "open"), profile)
	book := new(access.Book)
	if err := book.Give(private, access.Capability{Secret: access.Secret{1}}); err != nil {
		t.Fatal(err)
	}
	if err := d.SetAccess(within(t), node.Access{Book: book}); err != nil {
		t.Fatal(err)
	}
	b.connect(t, d.Addrs())
	b.get(t, open, filepath.Join(t.TempDir(), "open"))

	root, err := d.Store().Get(within(t), private)
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := unixfs.Links(root)
	if err != nil || len(leaves) < 2 {
		t.Fatalf("%d links: %v", len(leaves), err)
	}
	before := d.Totals().Served
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	got, err := b.swap.GetBlocks(ctx, append(leaves, private))
	if err != nil {
		t.Fatal(err)
	}
	for bl := range got {
		t.Errorf("boxo got %v of a private root", bl.Cid())
	}
	if n := d.Totals().Served - before; n != 0 {
		t.Errorf("%d blocks were served", n)
	}
	if err := d.SetAccess(within(t), node.Access{}); err != nil {
		t.Fatal(err)
	}
	b.get(t, private, filepath.Join(t.TempDir(), "private"))
}
