package node

import (
	"os"
	"path/filepath"
	"testing"

	"dray/store"
	"dray/transport"
	"dray/unixfs"
)

// TestOneBlockOnce gets files of one block, which is root and leaf: it is sent once, and was not here before. When it is got again,
// it was.
func TestOneBlockOnce(t *testing.T) {
	for name, profile := range map[string]unixfs.Profile{"raw": unixfs.Native(), "dag-pb": unixfs.V0()} {
		for _, directory := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{})
				var nodes [2]*Node
				for i := range nodes {
					n, err := New(Config{Store: store.NewMem(0), Network: mem.NewHost()})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { n.Close() })
					nodes[i] = n
				}
				dir := t.TempDir()
				path, size := filepath.Join(dir, "one"), 0
				for i, f := range []string{"one", "two", "three"} {
					data := make([]byte, 50_000+i)
					data[0] = byte(i)
					if err := os.WriteFile(filepath.Join(dir, f), data, 0o600); err != nil {
						t.Fatal(err)
					}
					if directory || i == 0 {
						size += len(data)
					}
				}
				if directory {
					path = dir
				}
				added, err := nodes[0].Add(t.Context(), path, AddConfig{Profile: profile, Copy: true})
				if err != nil {
					t.Fatal(err)
				}
				p, err := nodes[1].Fetch(t.Context(), FetchConfig{
					Root: added.Root, Peers: []transport.Peer{{ID: nodes[0].Self(), Addrs: nodes[0].Addrs()}},
				})
				if err != nil {
					t.Fatal(err)
				}
				if p.Done != int64(size) || p.Reused != 0 || p.Fetched < int64(size) {
					t.Errorf("%d bytes, %d came and %d were here, want %d that came", p.Done, p.Fetched, p.Reused, size)
				}
				again, err := nodes[1].Fetch(t.Context(), FetchConfig{Root: added.Root})
				if err != nil || again.Done != int64(size) || again.Reused != int64(size) || again.Fetched != 0 {
					t.Errorf("again: %v, %d bytes, %d came and %d were here", err, again.Done, again.Fetched, again.Reused)
				}
				if sent := nodes[0].Totals().ServedBytes; sent > int64(size)+2000 {
					t.Errorf("%d bytes were sent for %d of content", sent, size)
				}
			})
		}
	}
}
