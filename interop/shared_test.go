package interop

import (
	"fmt"
	"path/filepath"
	"testing"

	"dray/unixfs"
)

// TestSharedContentFromBoxo fetches files that share all, or some, of their leaves, each of which is sent once.
func TestSharedContentFromBoxo(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	mkdir(t, src)
	content := contents(1, 300_000)
	write(t, filepath.Join(src, "one"), content)
	write(t, filepath.Join(src, "two"), content)
	write(t, filepath.Join(src, "some"), append(content[:100<<10:100<<10], "and more"...))
	for i := range 50 {
		write(t, filepath.Join(src, fmt.Sprintf("tiny %d", i)), contents(byte(i%5), 100))
	}
	for _, p := range []unixfs.Profile{small(unixfs.V0()), small(unixfs.V1())} {
		t.Run(p.Name, func(t *testing.T) {
			b, d := newBoxo(t, overTCP), newDray(t, overTCP)
			root := b.add(t, src, p)
			out := filepath.Join(t.TempDir(), "out")
			d.get(t, root, out, b.addr(), bitswap120)
			sameTree(t, out, src)
		})
	}
}
