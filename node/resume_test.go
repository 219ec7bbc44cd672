package node

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"dray"
	"dray/store/disk"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// TestResume stops a fetch in the middle, several times, and goes on with a new node on the same store: what had come is
// not fetched again.
func TestResume(t *testing.T) {
	host := func() transport.Network {
		h, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for _, profile := range []unixfs.Profile{unixfs.V0(), unixfs.V1(), unixfs.Native()} {
		t.Run(profile.Name, func(t *testing.T) {
			ctx := context.Background()
			seed := testNode(t, host())
			path, data := randomFile(t, 24<<20)
			added, err := seed.Add(ctx, path, AddConfig{Profile: profile})
			if err != nil {
				t.Fatal(err)
			}
			home, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			var came int64 // from the peer, over all attempts
			for attempt := 1; ; attempt++ {
				ds, err := disk.Open(disk.Config{Dir: home, Split: unixfs.SplitLeaf, Frame: unixfs.LeafFrame})
				if err != nil {
					t.Fatal(err)
				}
				net := host()
				n, err := New(Config{Store: ds.Files(), Network: net})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(ctx)
				var enough atomic.Bool
				counted := &cancelAfter{Store: ds.Files(), left: 6 << 20, cancel: func() { enough.Store(true); cancel() }}
				if attempt < 3 {
					n.Close()
					if n, err = New(Config{Store: counted, Network: net}); err != nil {
						t.Fatal(err)
					}
				}
				p, err := n.Fetch(ctx, FetchConfig{Root: added.Root, Path: out, Peers: []transport.Peer{peerOf(seed)}})
				came += p.Fetched
				cancel()
				n.Close()
				net.Close()
				ds.Close()
				if attempt == 3 {
					if err != nil {
						t.Fatal(err)
					}
					if p.Reused < 10<<20 {
						t.Errorf("the last attempt found %d bytes here", p.Reused)
					}
					break
				}
				if err == nil && !enough.Load() {
					t.Fatalf("attempt %d was not stopped: %+v", attempt, p)
				}
			}
			got, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			// What was under way at each stop may come twice, no more.
			if most := int64(len(data)) + 3*(8<<20); came > most {
				t.Errorf("%d bytes came for a file of %d", came, len(data))
			}
			t.Logf("%d bytes came for a file of %d", came, len(data))
		})
	}
}

// cancelAfter is a store that calls cancel once so many bytes of blocks were put, and takes no more.
type cancelAfter struct {
	dray.Store
	left   int64
	cancel func()
	used   atomic.Int64
}

func (s *cancelAfter) Grow(ctx context.Context, path string, size int64) (dray.Growing, error) {
	return s.Store.(dray.FileStore).Grow(ctx, path, size)
}

func (s *cancelAfter) GrowAs(ctx context.Context, path string, as dray.Growth) (dray.Growing, error) {
	return s.Store.(dray.FileStore).GrowAs(ctx, path, as)
}

func (s *cancelAfter) Grown(ctx context.Context, path, purpose string) bool {
	return s.Store.(dray.FileStore).Grown(ctx, path, purpose)
}

func (s *cancelAfter) Reference(ctx context.Context, path string) (dray.Reference, error) {
	return s.Store.(dray.FileStore).Reference(ctx, path)
}

func (s *cancelAfter) Put(ctx context.Context, blocks ...dray.Block) error {
	if s.used.Load() > s.left {
		return context.Canceled // a quick peer has sent the rest of the file by now
	}
	err := s.Store.Put(ctx, blocks...)
	for _, b := range blocks {
		if s.used.Add(int64(b.Size())) > s.left {
			s.cancel()
		}
	}
	return err
}
