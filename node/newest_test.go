package node

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/transport"
	"dray/transport/p2p"
	"dray/transport/transporttest"
	"dray/unixfs"
)

// TestComeBackFromHalfDead: a getter's connection dies without a word in the middle of a transfer, and a new process with the
// same key takes over. It has its first bytes within about two seconds, though the old connection is never seen to end.
func TestComeBackFromHalfDead(t *testing.T) {
	host := func(c p2p.Config) *p2p.Host {
		h, err := p2p.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	seedHost := host(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	seed := testNode(t, seedHost)
	path, data := randomFile(t, 64<<20)
	added, err := seed.Add(t.Context(), path, AddConfig{Profile: unixfs.Profiles()[0]})
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(seedHost.Addrs()[0], "/tcp/")
	port, _, _ := strings.Cut(rest, "/")
	way := transporttest.NewTube(t, "127.0.0.1:"+port)
	peers := []transport.Peer{{ID: seed.Self(), Addrs: []string{way.Addr(seed.Self())}}}
	key, err := p2p.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	getter := func() *Node { return testNode(t, host(p2p.Config{Key: key, Listen: []string{}})) }

	old := getter()
	ctx, cancel := context.WithCancel(t.Context())
	frozen := way.FreezeAfter(8 << 20)
	var fetching sync.WaitGroup
	ended := make(chan error, 1)
	fetching.Go(func() {
		_, err := old.Fetch(ctx, FetchConfig{Root: added.Root, Path: filepath.Join(t.TempDir(), "old"), Peers: peers})
		ended <- err
	})
	defer fetching.Wait()
	defer cancel()
	select {
	case <-frozen:
	case err := <-ended:
		t.Fatalf("nothing was left to be lost: %v", err)
	}

	out := filepath.Join(t.TempDir(), "new")
	p, err := getter().Fetch(t.Context(), FetchConfig{Root: added.Root, Path: out, Peers: peers})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
		t.Errorf("wrong bytes, %v", err)
	}
	t.Logf("first bytes after %v, all after %v", p.First, p.Elapsed)
	if p.First > 5*time.Second { // about two on a machine that has nothing else to do
		t.Errorf("first bytes after %v", p.First)
	}
}
