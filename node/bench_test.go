package node

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/store"
	"dray/transport"
	"dray/transport/p2p"
)

// benchPair makes two nodes over TCP, of which the first has n blocks of so many bytes.
func benchPair(b *testing.B, n, size int) (from, to *Node, cids []cid.Cid) {
	b.Helper()
	var nodes [2]*Node
	for i := range nodes {
		h, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			b.Fatal(err)
		}
		if nodes[i], err = New(Config{Store: store.NewMem(0), Network: h}); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			nodes[i].Close()
			h.Close()
		})
	}
	blocks := make([]dray.Block, n)
	for i := range blocks {
		data := make([]byte, size)
		binary.BigEndian.PutUint64(data, uint64(i))
		var err error
		if blocks[i], err = dray.Hashed(cid.NewPrefixV1(cid.Raw, mh.BLAKE3), data); err != nil {
			b.Fatal(err)
		}
		cids = append(cids, blocks[i].CID())
	}
	if err := nodes[0].Put(b.Context(), blocks...); err != nil {
		b.Fatal(err)
	}
	p := transport.Peer{ID: nodes[0].Self(), Addrs: nodes[0].Addrs()}
	if err := nodes[1].Connect(b.Context(), p); err != nil {
		b.Fatal(err)
	}
	return nodes[0], nodes[1], cids
}

// BenchmarkGetOne gets one small block after the other: a control message there, one block back.
func BenchmarkGetOne(b *testing.B) {
	from, to, cids := benchPair(b, b.N, 512)
	s := to.NewSession(SessionConfig{Peers: []dray.PeerID{from.Self()}})
	defer s.Close()
	b.ReportAllocs()
	b.ResetTimer()
	for _, c := range cids {
		if _, err := s.Get(context.Background(), c); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGetParallel gets blocks of 16 KiB, many at a time: control messages go all the while.
func BenchmarkGetParallel(b *testing.B) {
	from, to, cids := benchPair(b, b.N, 16<<10)
	s := to.NewSession(SessionConfig{Peers: []dray.PeerID{from.Self()}})
	defer s.Close()
	next := make(chan cid.Cid, len(cids))
	for _, c := range cids {
		next <- c
	}
	b.SetBytes(16 << 10)
	b.SetParallelism(64)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Get(context.Background(), <-next); err != nil {
				b.Error(err)
			}
		}
	})
}
