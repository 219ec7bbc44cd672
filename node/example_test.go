package node_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"dray/node"
	"dray/store"
	"dray/transport"
)

// Two nodes in one process: one adds a file, the other fetches it. Real hosts use package transport/p2p for the network
// and package store/disk for a store that refers to files where they lie.
func Example() {
	dir, err := os.MkdirTemp("", "dray-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.bin")
	if err := os.WriteFile(path, make([]byte, 3<<20), 0o644); err != nil {
		log.Fatal(err)
	}

	network := transport.NewMemory(transport.MemoryConfig{})
	open := func() (*node.Node, func()) {
		host, blocks := network.NewHost(), store.NewMem(0)
		n, err := node.New(node.Config{Store: blocks, Network: host})
		if err != nil {
			log.Fatal(err)
		}
		return n, func() { n.Close(); host.Close(); blocks.Close() }
	}
	alice, closeAlice := open()
	defer closeAlice()
	bob, closeBob := open()
	defer closeBob()

	ctx := context.Background()
	added, err := alice.Add(ctx, path, node.AddConfig{Copy: true})
	if err != nil {
		log.Fatal(err)
	}
	got, err := bob.Fetch(ctx, node.FetchConfig{
		Root:  added.Root,
		Peers: []transport.Peer{{ID: alice.Self(), Addrs: alice.Addrs()}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes in %d leaves, from %d peer\n", got.Done, got.Leaves, len(got.Sources))
	// Output: 3145728 bytes in 3 leaves, from 1 peer
}

// A Session gets single blocks: from the store, or from whichever peer delivers first.
func ExampleSession_Get() {
	network := transport.NewMemory(transport.MemoryConfig{})
	host, blocks := network.NewHost(), store.NewMem(0)
	defer host.Close()
	n, err := node.New(node.Config{Store: blocks, Network: host})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	dir, err := os.MkdirTemp("", "dray-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "hello.txt")
	if err := os.WriteFile(path, []byte("hello"), 0o644); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	added, err := n.Add(ctx, path, node.AddConfig{Copy: true})
	if err != nil {
		log.Fatal(err)
	}

	s := n.NewSession(node.SessionConfig{})
	defer s.Close()
	b, err := s.Get(ctx, added.Root)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", b.Data())
	// Output: hello
}
