package main

import (
	"context"
	"errors"
	"flag"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"dray/exchange"
	"dray/node"
	"dray/store/disk"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// runNodeGet fetches a root with Dray's library on a home of its own, as `dray get` does, and prints when what
// happened.
func runNodeGet(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("node-get", flag.ContinueOnError)
	home := fs.String("home", "", "where the store goes")
	from := fs.String("from", "", "multiaddr of the server")
	out := fs.String("o", "", "destination file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	root, err := cid.Decode(fs.Arg(0))
	if err != nil {
		return err
	}
	peer, err := p2p.ParseAddr(*from)
	if err != nil {
		return err
	}
	store, err := disk.Open(disk.Config{
		Dir: filepath.Join(*home, "store"), Split: unixfs.SplitLeaf, Frame: unixfs.LeafFrame,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	host, err := p2p.New(p2p.Config{Listen: []string{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	n, err := node.New(node.Config{Store: store.Files(), Network: host})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	start := time.Now()
	if err := n.Connect(ctx, peer); err != nil {
		return err
	}
	connected := time.Now()
	p, err := n.Fetch(ctx, node.FetchConfig{
		Root: root, Path: *out, Peers: []transport.Peer{peer}, Order: exchange.Rarest,
	})
	if err != nil {
		return err
	}
	got := fetched{
		CID: root.String(), Bytes: p.Total, Seconds: time.Since(start).Seconds(), DuplicateBytes: p.Duplicates,
		ConnectSeconds: connected.Sub(start).Seconds(), FirstSeconds: p.First.Seconds(),
	}
	for _, s := range p.Sources {
		got.Sources = append(got.Sources, source{Peer: s.Peer.String(), Protocol: s.Protocol, Bytes: s.Bytes})
	}
	return printJSON(got)
}
