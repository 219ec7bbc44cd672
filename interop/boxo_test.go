package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	ft "github.com/ipfs/boxo/ipld/unixfs"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor" // lets merkledag follow dag-cbor links, as Kubo's plugins do
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	"dray/transport"
	"dray/unixfs"
)

// boxoPeer is a peer that runs boxo.
type boxoPeer struct {
	host  host.Host
	swap  *bitswap.Bitswap
	store blockstore.Blockstore
	dag   ipld.DAGService
}

// newBoxo returns a boxo peer that listens at listen and speaks the given protocol ids, or all if there are none.
func newBoxo(t testing.TB, listen string, protocols ...transport.Protocol) *boxoPeer {
	t.Helper()
	return startBoxo(t, listen, protocols)
}

// newPatientBoxo returns a boxo peer that may be left alone with thousands of small blocks on a machine that is busy. By
// default its client takes a peer that has been silent for 50 ms to lack what was asked, strikes it from the session after
// sixteen such blocks, and then asks nobody for a minute: so do two boxo peers between themselves.
func newPatientBoxo(t testing.TB, listen string) *boxoPeer {
	t.Helper()
	return startBoxo(t, listen, nil, bitswap.SetSimulateDontHavesOnTimeout(false))
}

func startBoxo(t testing.TB, listen string, protocols []transport.Protocol, options ...bitswap.Option) *boxoPeer {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	var opts []bsnet.NetOpt
	if len(protocols) > 0 {
		ids := make([]protocol.ID, len(protocols))
		for i, p := range protocols {
			ids[i] = protocol.ID(p)
		}
		opts = append(opts, bsnet.SupportedProtocols(ids))
	}
	b := &boxoPeer{host: h}
	b.store = blockstore.NewIdStore(blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())))
	b.swap = bitswap.New(context.WithoutCancel(t.Context()), bsnet.NewFromIpfsHost(h, opts...), nil, b.store, options...)
	b.dag = merkledag.NewDAGService(blockservice.New(b.store, b.swap))
	t.Cleanup(func() {
		if err := errors.Join(b.swap.Close(), h.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// addr says where the peer is, in Dray's terms.
func (b *boxoPeer) addr() transport.Peer {
	p := transport.Peer{ID: dray.PeerID(b.host.ID())}
	for _, a := range b.host.Addrs() {
		p.Addrs = append(p.Addrs, a.String())
	}
	return p
}

// connect dials a Dray peer.
func (b *boxoPeer) connect(t testing.TB, addrs []string) {
	t.Helper()
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		info, err := peer.AddrInfoFromP2pAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.host.Connect(within(t), *info); err != nil {
			t.Fatal(err)
		}
	}
}

// put stores blocks.
func (b *boxoPeer) put(t testing.TB, all []dray.Block) {
	t.Helper()
	for _, bl := range all {
		bb, err := blocks.NewBlockWithCid(bl.Data(), bl.CID())
		if err != nil {
			t.Fatal(err)
		}
		if err := b.store.Put(within(t), bb); err != nil {
			t.Fatal(err)
		}
	}
}

// walk fetches everything under root, many blocks at a time, as `ipfs pin add` does, and returns how many there are.
func (b *boxoPeer) walk(t testing.TB, root cid.Cid) int {
	t.Helper()
	seen := cid.NewSet()
	links := merkledag.GetLinksDirect(merkledag.NewSession(within(t), b.dag))
	// Walk calls Visit under a lock of its own.
	if err := merkledag.Walk(within(t), links, root, seen.Visit, merkledag.Concurrent()); err != nil {
		t.Fatalf("walk: %v", err)
	}
	return seen.Len()
}

// get fetches the file or directory under root and writes it to path, as `ipfs get` does.
func (b *boxoPeer) get(t testing.TB, root cid.Cid, path string) {
	t.Helper()
	session := merkledag.NewSession(within(t), b.dag)
	nd, err := session.Get(within(t), root)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	f, err := unixfile.NewUnixfsFile(within(t), merkledag.NewReadOnlyDagService(session), nd)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if err := errors.Join(files.WriteTo(f, path), f.Close()); err != nil {
		t.Fatalf("get: %v", err)
	}
}

// add imports the file, symlink or directory at path with boxo's own importer and returns its root.
func (b *boxoPeer) add(t testing.TB, path string, p unixfs.Profile) cid.Cid {
	t.Helper()
	batch := ipld.NewBufferedDAG(within(t), b.dag)
	nd, err := boxoImport(within(t), batch, path, p)
	if err = errors.Join(err, batch.Commit()); err != nil {
		t.Fatalf("add %s: %v", path, err)
	}
	return nd.Cid()
}

func boxoImport(ctx context.Context, dag ipld.DAGService, path string, p unixfs.Profile) (ipld.Node, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case st.IsDir():
		return boxoImportDir(ctx, dag, path, p)
	case st.Mode()&os.ModeSymlink != 0:
		return boxoImportLink(ctx, dag, path, p)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is a %v", path, st.Mode())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	params := helpers.DagBuilderParams{
		Maxlinks: p.MaxLinks, RawLeaves: p.RawLeaves, CidBuilder: p.NodePrefix(), Dagserv: dag,
	}
	db, err := params.New(chunk.NewSizeSplitter(f, p.ChunkSize))
	if err != nil {
		return nil, err
	}
	return balanced.Layout(db)
}

func boxoImportDir(ctx context.Context, dag ipld.DAGService, path string, p unixfs.Profile) (ipld.Node, error) {
	mode := uio.SizeEstimationLinks
	if p.ShardRule == unixfs.BlockBytes {
		mode = uio.SizeEstimationBlock
	}
	dir, err := uio.NewDirectory(dag, uio.WithCidBuilder(p.NodePrefix()), uio.WithSizeEstimationMode(mode),
		uio.WithMaxHAMTFanout(p.ShardFanout))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	for _, e := range entries {
		child, err := boxoImport(ctx, dag, filepath.Join(path, e.Name()), p)
		if err != nil {
			return nil, err
		}
		if err := dir.AddChild(ctx, e.Name(), child); err != nil {
			return nil, err
		}
	}
	nd, err := dir.GetNode()
	if err != nil {
		return nil, err
	}
	return nd, dag.Add(ctx, nd)
}

func boxoImportLink(ctx context.Context, dag ipld.DAGService, path string, p unixfs.Profile) (ipld.Node, error) {
	target, err := os.Readlink(path)
	if err != nil {
		return nil, err
	}
	data, err := ft.SymlinkData(target)
	if err != nil {
		return nil, err
	}
	nd := merkledag.NodeWithData(data)
	if err := nd.SetCidBuilder(p.NodePrefix()); err != nil {
		return nil, err
	}
	return nd, dag.Add(ctx, nd)
}
