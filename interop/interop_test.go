package interop

import (
	"path/filepath"
	"sync"
	"testing"

	"dray/transport"
	"dray/unixfs"
)

// wires are the combinations of transport and protocol id, with the profiles whose trees the protocol can carry: before
// 1.1.0 a block travels without its prefix, so that only version 0 CIDs can be named.
func wires() []wire {
	v0, v1, native := small(unixfs.V0()), small(unixfs.V1()), small(unixfs.Native())
	var all []wire
	for _, at := range []struct{ name, listen string }{{"tcp", overTCP}, {"quic", overQUIC}} {
		for _, w := range []struct {
			name     string
			protocol transport.Protocol
			profiles []unixfs.Profile
		}{
			{"1.2.0", bitswap120, []unixfs.Profile{v0, v1, native}},
			{"1.1.0", bitswap110, []unixfs.Profile{v0, v1, native}},
			{"1.0.0", bitswap100, []unixfs.Profile{v0}},
			{"legacy", legacy, []unixfs.Profile{v0}},
		} {
			all = append(all, wire{at.name + "-" + w.name, at.listen, w.protocol, w.profiles})
		}
	}
	return all
}

type wire struct {
	name     string
	listen   string
	protocol transport.Protocol
	profiles []unixfs.Profile
}

// TestTreeFromBoxo fetches a tree that boxo imported and serves, over every transport and protocol id.
func TestTreeFromBoxo(t *testing.T) {
	for _, w := range wires() {
		for _, p := range w.profiles {
			t.Run(w.name+"-"+p.Name, func(t *testing.T) {
				// An empty file with raw leaves is an empty block, and boxo says of an empty block that it does not
				// have it, to boxo's own client too.
				src := tree(t, p.RawLeaves)
				b, d := newBoxo(t, w.listen, w.protocol), newDray(t, w.listen)
				root := b.add(t, src, p)
				out := filepath.Join(t.TempDir(), "out")
				d.get(t, root, out, b.addr(), w.protocol)
				sameTree(t, out, src)
			})
		}
	}
}

// TestTreeToBoxo serves a tree that Dray added to a boxo peer, over every transport and protocol id.
func TestTreeToBoxo(t *testing.T) {
	src := tree(t, false)
	for _, w := range wires() {
		for _, p := range w.profiles {
			t.Run(w.name+"-"+p.Name, func(t *testing.T) {
				b, d := newBoxo(t, w.listen, w.protocol), newDray(t, w.listen)
				root := d.add(t, src, p)
				if other := newBoxo(t, w.listen).add(t, src, p); !root.Equals(other) {
					t.Fatalf("Dray calls the tree %v, boxo %v", root, other)
				}
				b.connect(t, d.Addrs())
				b.walk(t, root)
				out := filepath.Join(t.TempDir(), "out")
				b.get(t, root, out)
				sameTree(t, out, src)
			})
		}
	}
}

// standard lists the profiles that both sides know, and a size that takes more than one level of nodes where that is
// possible in a test's time: with version 1 it would be over 1 GiB.
var standard = []struct {
	profile unixfs.Profile
	size    int
}{
	{unixfs.V0(), 175 * 256 << 10},
	{unixfs.V1(), 20<<20 + 1},
	{unixfs.Native(), 20<<20 + 1},
}

// TestFileBothWays moves a file of the standard profiles to boxo and from boxo.
func TestFileBothWays(t *testing.T) {
	for _, s := range standard {
		for _, at := range []string{overTCP, overQUIC} {
			src := filepath.Join(t.TempDir(), "src")
			write(t, src, contents(1, s.size))
			name := "tcp-"
			if at == overQUIC {
				name = "quic-"
			}
			t.Run(name+s.profile.Name+"-from-boxo", func(t *testing.T) {
				b, d := newBoxo(t, at), newDray(t, at)
				out := filepath.Join(t.TempDir(), "out")
				d.get(t, b.add(t, src, s.profile), out, b.addr(), bitswap120)
				sameTree(t, out, src)
			})
			t.Run(name+s.profile.Name+"-to-boxo", func(t *testing.T) {
				b, d := newBoxo(t, at), newDray(t, at)
				root := d.add(t, src, s.profile)
				b.connect(t, d.Addrs())
				out := filepath.Join(t.TempDir(), "out")
				b.get(t, root, out)
				sameTree(t, out, src)
			})
		}
	}
}

// TestShardedDirectoryBothWays moves a directory that is a tree of shards.
func TestShardedDirectoryBothWays(t *testing.T) {
	src := crowd(t)
	for _, p := range []unixfs.Profile{unixfs.V0(), unixfs.V1()} {
		t.Run(p.Name+"-from-boxo", func(t *testing.T) {
			b, d := newBoxo(t, overTCP), newDray(t, overTCP)
			root := b.add(t, src, p)
			if n := b.walk(t, root); n < 100 {
				t.Fatalf("only %d blocks: the directory is not sharded", n)
			}
			out := filepath.Join(t.TempDir(), "out")
			d.get(t, root, out, b.addr(), bitswap120)
			sameTree(t, out, src)
		})
		t.Run(p.Name+"-to-boxo", func(t *testing.T) {
			b, d := newPatientBoxo(t, overTCP), newDray(t, overTCP)
			root := d.add(t, src, p)
			b.connect(t, d.Addrs())
			if n := b.walk(t, root); n < 100 {
				t.Fatalf("only %d blocks: the directory is not sharded", n)
			}
			out := filepath.Join(t.TempDir(), "out")
			b.get(t, root, out)
			sameTree(t, out, src)
		})
	}
}

// TestBothAtOnce has each of two peers fetch from the other over one connection.
func TestBothAtOnce(t *testing.T) {
	b, d := newBoxo(t, overTCP), newDray(t, overTCP)
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	write(t, ours, contents(1, 10<<20))
	write(t, theirs, contents(2, 10<<20))
	toBoxo, toDray := d.add(t, ours, unixfs.V0()), b.add(t, theirs, unixfs.V1())
	b.connect(t, d.Addrs())
	var wg sync.WaitGroup
	wg.Go(func() { b.walk(t, toBoxo) })
	d.get(t, toDray, filepath.Join(dir, "from boxo"), b.addr(), bitswap120)
	wg.Wait()
	b.get(t, toBoxo, filepath.Join(dir, "from dray"))
	sameTree(t, filepath.Join(dir, "from boxo"), theirs)
	sameTree(t, filepath.Join(dir, "from dray"), ours)
}
