package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dray/store/disk"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

func testNode(t testing.TB, net transport.Network) *Node {
	t.Helper()
	ds, err := disk.Open(disk.Config{Dir: t.TempDir(), Split: unixfs.SplitLeaf, Frame: unixfs.LeafFrame})
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Store: ds.Files(), Network: net})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close()
		if net != nil {
			net.Close()
		}
		ds.Close()
	})
	return n
}

func randomFile(t testing.TB, size int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	r := rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))
	r.Read(data)
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func fetchAndCompare(t testing.TB, a, b *Node, profile unixfs.Profile, size int) Progress {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path, data := randomFile(t, size)
	added, err := a.Add(ctx, path, AddConfig{Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	start := time.Now()
	p, err := b.Fetch(ctx, FetchConfig{Root: added.Root, Path: out, Peers: []transport.Peer{{ID: a.Self(), Addrs: a.Addrs()}}})
	if err != nil {
		t.Fatalf("%v (%+v)", err, p)
	}
	d := time.Since(start)
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("%d bytes differ from the %d that were added", len(got), len(data))
	}
	t.Logf("%s %d MiB: %.0f MB/s, sources %v, duplicates %d", profile.Name, size>>20, float64(size)/d.Seconds()/1e6, p.Sources, p.Duplicates)
	return p
}

func TestFetchOverMemory(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	for _, p := range unixfs.Profiles() {
		for _, size := range []int{0, 1, 100, 300 << 10, 9 << 20} {
			fetchAndCompare(t, testNode(t, mem.NewHost()), testNode(t, mem.NewHost()), p, size)
		}
	}
}

func TestFetchOverP2P(t *testing.T) {
	host := func() transport.Network {
		h, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for _, p := range unixfs.Profiles() {
		fetchAndCompare(t, testNode(t, host()), testNode(t, host()), p, 256<<20)
	}
}
