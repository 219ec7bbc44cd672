package node

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/store"
	"dray/transport"
	"dray/unixfs"
)

// These tests run in virtual time: what they measure is round trips and bytes, not this machine.

const (
	oneWay  = 25 * time.Millisecond
	gigabit = 125_000_000 // bytes a second
)

// bubble makes two nodes with stores in memory and a slow, fast-enough link between them, inside a synctest bubble.
func bubble(t *testing.T, cfg transport.MemoryConfig, nodes int, test func(ctx context.Context, n []*Node)) {
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(cfg)
		var all []*Node
		var nets []transport.Network
		for range nodes {
			net := mem.NewHost()
			n, err := New(Config{Store: store.NewMem(0), Network: net})
			if err != nil {
				t.Fatal(err)
			}
			all, nets = append(all, n), append(nets, net)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		test(ctx, all)
		for i, n := range all {
			n.Close()
			nets[i].Close()
		}
	})
}

func peerOf(n *Node) transport.Peer { return transport.Peer{ID: n.Self(), Addrs: n.Addrs()} }

// TestLinkedList follows 200 nodes, each of which names the next. Asking by CID takes one round trip each; one walk brings
// them all.
func TestLinkedList(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay}, 2, func(ctx context.Context, n []*Node) {
		const length = 200
		next := cid.Undef
		for i := range length {
			b := listNode(t, i, next)
			if err := n[0].Put(ctx, b); err != nil {
				t.Fatal(err)
			}
			next = b.CID()
		}
		start := time.Now()
		got := 0
		err := n[1].FetchDAG(ctx, DAGConfig{Root: next, Peers: []transport.Peer{peerOf(n[0])}, Each: func(dray.Block) error {
			got++
			return nil
		}})
		if err != nil || got != length {
			t.Fatalf("%d nodes, %v", got, err)
		}
		trips := float64(time.Since(start)) / float64(2*oneWay)
		t.Logf("%d nodes in %.1f round trips, dialling included", got, trips)
		if trips > 3 {
			t.Errorf("%.1f round trips for %d nodes", trips, length)
		}
	})
}

// listNode makes a dag-cbor map {"i": i, "next": link}.
func listNode(t *testing.T, i int, next cid.Cid) dray.Block {
	t.Helper()
	data := []byte{0xa1, 0x61, 'i', 0x19, byte(i >> 8), byte(i)}
	if next.Defined() {
		data = []byte{0xa2, 0x61, 'i', 0x19, byte(i >> 8), byte(i), 0x64, 'n', 'e', 'x', 't'}
		link := append([]byte{0}, next.Bytes()...)
		data = append(data, 0xd8, 42, 0x58, byte(len(link)))
		data = append(data, link...)
	}
	if i < 256 { // dag-cbor wants the shortest form
		data = append(append([]byte{}, data[:3]...), append(shortInt(i), data[6:]...)...)
	}
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: mh.SHA2_256, MhLength: 32}, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func shortInt(i int) []byte {
	if i < 24 {
		return []byte{byte(i)}
	}
	return []byte{0x18, byte(i)}
}

// TestFirstPayload: the first leaf is there two round trips after the connection at the latest, though the skeleton is not
// known. With leaves that are pushed it is one.
func TestFirstPayload(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay, Bandwidth: gigabit}, 2, func(ctx context.Context, n []*Node) {
		root := tinyTree(t, ctx, n[0], 10_000)
		if err := n[1].Connect(ctx, peerOf(n[0])); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var first time.Duration
		var wg sync.WaitGroup
		ended := make(chan struct{})
		wg.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for leaf := firstLeaf(t); ; {
				if _, err := n[1].Store().Stat(ctx, leaf); err == nil {
					first = time.Since(start)
					return
				}
				select {
				case <-ended:
					return
				case <-tick.C:
				}
			}
		})
		p, err := n[1].Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{peerOf(n[0])}})
		close(ended)
		wg.Wait()
		if err != nil || p.Leaves != 10_000 {
			t.Fatalf("%+v, %v", p, err)
		}
		trips := float64(first) / float64(2*oneWay)
		t.Logf("the first leaf came %.2f round trips after the connection", trips)
		if first == 0 || trips > 1.3 {
			t.Errorf("the first leaf came %.2f round trips after the connection", trips)
		}
	})
}

// firstLeaf is the first leaf of a tinyTree.
func firstLeaf(t *testing.T) cid.Cid {
	leaf, err := dray.Hashed(unixfs.V1().LeafPrefix(), make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	return leaf.CID()
}

// TestTinyBlocks fetches 10,000 small leaves under one root.
func TestTinyBlocks(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay, Bandwidth: gigabit}, 2, func(ctx context.Context, n []*Node) {
		root := tinyTree(t, ctx, n[0], 10_000)
		start := time.Now()
		p, err := n[1].Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{peerOf(n[0])}})
		if err != nil || p.Leaves != 10_000 {
			t.Fatalf("%+v, %v", p, err)
		}
		trips := float64(time.Since(start)) / float64(2*oneWay)
		t.Logf("%d leaves in %.1f round trips, %d bytes twice", p.Leaves, trips, p.Duplicates)
		if trips > 20 {
			t.Errorf("%.1f round trips", trips)
		}
	})
}

// TestTinyDAG fetches 10,000 small blocks under one node of links that give no sizes.
func TestTinyDAG(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay, Bandwidth: gigabit}, 2, func(ctx context.Context, n []*Node) {
		const count = 10_000
		data := []byte{0x99, count >> 8, count & 0xff} // a dag-cbor list
		for i := range count {
			b, err := dray.Hashed(rawPrefix, []byte{byte(i), byte(i >> 8), 'x'})
			if err != nil {
				t.Fatal(err)
			}
			if err := n[0].Put(ctx, b); err != nil {
				t.Fatal(err)
			}
			link := append([]byte{0}, b.CID().Bytes()...)
			data = append(append(data, 0xd8, 42, 0x58, byte(len(link))), link...)
		}
		root, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: mh.SHA2_256, MhLength: 32}, data)
		if err != nil {
			t.Fatal(err)
		}
		if err := n[0].Put(ctx, root); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		got := 0
		err = n[1].FetchDAG(ctx, DAGConfig{Root: root.CID(), Peers: []transport.Peer{peerOf(n[0])}, Each: func(dray.Block) error {
			got++
			return nil
		}})
		if err != nil || got != count+1 {
			t.Fatalf("%d blocks, %v", got, err)
		}
		trips := float64(time.Since(start)) / float64(2*oneWay)
		t.Logf("%d blocks in %.1f round trips", got, trips)
		if trips > 20 {
			t.Errorf("%.1f round trips", trips)
		}
	})
}

func tinyTree(t *testing.T, ctx context.Context, n *Node, leaves int) cid.Cid {
	t.Helper()
	p := unixfs.V1()
	p.ChunkSize = 64
	b := unixfs.NewBuilder(p, func(b dray.Block) error { return n.Put(ctx, b) })
	for i := range leaves {
		data := make([]byte, 64)
		data[0], data[1], data[2] = byte(i), byte(i>>8), byte(i>>16)
		leaf, err := dray.Hashed(p.LeafPrefix(), data)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Put(ctx, leaf); err != nil {
			t.Fatal(err)
		}
		if err := b.AddLeaf(leaf.CID(), 64, 64); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return ref.CID
}

// TestLongFatLink fetches 64 MiB over 50 ms and 1 Gbit/s with leaves of several sizes. The least time is the transmission
// and one round trip each for dialling, the root and the leaves.
func TestLongFatLink(t *testing.T) {
	const size = 64 << 20
	for _, chunk := range []int64{256 << 10, 1 << 20} {
		bubble(t, transport.MemoryConfig{Latency: oneWay, Bandwidth: gigabit, Window: 16 << 20}, 2, func(ctx context.Context, n []*Node) {
			p := unixfs.V1()
			p.ChunkSize = chunk
			path, _ := randomFile(t, size)
			r, err := n[0].Add(ctx, path, AddConfig{Profile: p, Copy: true})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			pr, err := n[1].Fetch(ctx, FetchConfig{Root: r.Root, Peers: []transport.Peer{peerOf(n[0])}})
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			seconds := float64(size) / gigabit
			ideal := time.Duration(seconds*float64(time.Second)) + 3*2*oneWay
			t.Logf("leaves of %d KiB: %v, least %v, %d bytes twice", chunk>>10, took, ideal, pr.Duplicates)
			if took > ideal*13/10 {
				t.Errorf("leaves of %d KiB: %v, least %v", chunk>>10, took, ideal)
			}
		})
	}
}
