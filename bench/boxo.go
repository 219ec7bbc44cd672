package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/mount"
	dssync "github.com/ipfs/go-datastore/sync"
	flatfs "github.com/ipfs/go-ds-flatfs"
	ipld "github.com/ipfs/go-ipld-format"
	car "github.com/ipld/go-car/v2"
	carstorage "github.com/ipld/go-car/v2/storage"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor" // lets merkledag follow dag-cbor links, as Kubo's plugins do
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

// boxoNote says in the report how the rival was set up.
const boxoNote = "boxo v0.42.0 as Kubo sets it up: flatfs v0.6.1 (next-to-last/2, sync off) behind a 64 Ki key cache, " +
	"write-through; bitswap with Kubo's defaults (8 task workers, 128 store workers, 1 MiB outstanding a peer, 1 s " +
	"provider search delay); go-libp2p TCP with its default TLS and yamux, resource limits lifted; `get` is a session " +
	"with the UnixFS file reader copied into the destination, without Kubo's tar step in between; `walk` is the parallel " +
	"graph fetch behind `ipfs pin add`; there is no router, the client is told the server's address"

var boxoParties = []party{
	{
		name: "boxo", wire: "bitswap, TLS", address: peerAddress,
		fill: func(ctx context.Context, s *suite, r row, set *dataset, home string) (string, error) {
			var last added
			if !set.isFile() {
				err := answer(ctx, s.role("boxo-add", "-home", home, "-car", set.path), &last)
				return set.root.String(), err
			}
			err := answer(ctx, s.role("boxo-add", "-home", home, "-profile", r.profile, set.path), &last)
			return last.CID, err
		},
		serve: func(s *suite, _ row, _ *dataset, home string) (command, error) {
			return s.role("boxo-serve", "-home", home), nil
		},
		get: func(s *suite, g getting) command {
			args := []string{"-home", g.home, "-from", g.addr, "-o", g.out}
			if g.row.walk || !g.set.isFile() {
				args = append(args, "-walk")
			}
			return s.role("boxo-get", append(args, g.root)...)
		},
	},
}

// boxoStore is a repository on disk, laid out as Kubo lays out its own.
type boxoStore struct {
	blockstore.Blockstore
	ds datastore.Batching
}

func openBoxoStore(ctx context.Context, home string) (*boxoStore, error) {
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	flat, err := flatfs.CreateOrOpen(filepath.Join(home, "blocks"), flatfs.NextToLast(2), false)
	if err != nil {
		return nil, err
	}
	ds := mount.New([]mount.Mount{
		{Prefix: datastore.NewKey("/blocks"), Datastore: flat},
		{Prefix: datastore.NewKey("/"), Datastore: dssync.MutexWrap(datastore.NewMapDatastore())},
	})
	bs := blockstore.NewBlockstore(ds, blockstore.WriteThrough(true))
	opts := blockstore.DefaultCacheOpts()
	opts.HasBloomFilterSize = 0
	opts.HasTwoQueueCacheSize = 64 << 10
	bs, err = blockstore.CachedBlockstore(ctx, bs, opts)
	if err != nil {
		return nil, errors.Join(err, ds.Close())
	}
	return &boxoStore{Blockstore: blockstore.NewIdStore(bs), ds: ds}, nil
}

// Close releases the repository.
func (s *boxoStore) Close() error { return s.ds.Close() }

// boxoHost returns a libp2p host on TCP with go-libp2p's own choice of security and muxer.
func boxoHost(listen ...string) (host.Host, error) {
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ResourceManager(limits),
		libp2p.DisableRelay(),
	}
	if len(listen) == 0 {
		opts = append(opts, libp2p.NoListenAddrs)
	} else {
		opts = append(opts, libp2p.ListenAddrStrings(listen...))
	}
	return libp2p.New(opts...)
}

// boxoSwap returns a bitswap instance with the options that Kubo passes when its configuration is left alone.
func boxoSwap(ctx context.Context, h host.Host, bs blockstore.Blockstore) *bitswap.Bitswap {
	return bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, bs,
		bitswap.EngineBlockstoreWorkerCount(128),
		bitswap.TaskWorkerCount(8),
		bitswap.EngineTaskWorkerCount(8),
		bitswap.MaxOutstandingBytesPerPeer(1<<20),
		bitswap.WithWantHaveReplaceSize(1024),
		bitswap.WithServerEnabled(true),
	)
}

// runBoxoAdd puts a file (or the blocks of a CAR) into a repository and prints its root.
func runBoxoAdd(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("boxo-add", flag.ContinueOnError)
	home := fs.String("home", "", "repository")
	name := fs.String("profile", "unixfs-v1-2025", "how to cut and hash the file")
	isCAR := fs.Bool("car", false, "the path is a CAR whose blocks are put as they are")
	export := fs.String("export", "", "write what was added to this CAR as well")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, err := os.Open(fs.Arg(0))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := openBoxoStore(ctx, *home)
	if err != nil {
		return err
	}
	root, err := boxoAdd(ctx, st, f, *name, *isCAR)
	if err == nil && *export != "" {
		err = boxoExport(ctx, st, root, *export)
	}
	if err = errors.Join(err, st.Close()); err != nil {
		return err
	}
	return printJSON(added{CID: root.String()})
}

func boxoAdd(ctx context.Context, st *boxoStore, f *os.File, name string, isCAR bool) (cid.Cid, error) {
	if isCAR {
		r, err := car.NewBlockReader(f)
		if err != nil {
			return cid.Undef, err
		}
		for {
			b, err := r.Next()
			if errors.Is(err, io.EOF) {
				return r.Roots[0], nil
			}
			if err != nil {
				return cid.Undef, err
			}
			if err := st.Put(ctx, b); err != nil {
				return cid.Undef, err
			}
		}
	}
	p, err := lookupProfile(name)
	if err != nil {
		return cid.Undef, err
	}
	dag := merkledag.NewDAGService(blockservice.New(st, offline.Exchange(st), blockservice.WriteThrough(true)))
	batch := ipld.NewBufferedDAG(ctx, dag)
	params := helpers.DagBuilderParams{
		Maxlinks:   p.links,
		RawLeaves:  p.rawLeaves,
		CidBuilder: p.prefix,
		Dagserv:    batch,
	}
	db, err := params.New(chunk.NewSizeSplitter(f, int64(p.leaf)))
	if err != nil {
		return cid.Undef, err
	}
	nd, err := balanced.Layout(db)
	if err != nil {
		return cid.Undef, err
	}
	return nd.Cid(), batch.Commit()
}

// boxoExport writes everything under root to a CAR.
func boxoExport(ctx context.Context, st *boxoStore, root cid.Cid, path string) error {
	return writeFile(path, func(f *os.File) error {
		w, err := carstorage.NewWritable(f, []cid.Cid{root}, car.WriteAsCarV1(true))
		if err != nil {
			return err
		}
		dag := merkledag.NewDAGService(blockservice.New(st, offline.Exchange(st)))
		links := func(ctx context.Context, c cid.Cid) ([]*ipld.Link, error) {
			nd, err := dag.Get(ctx, c)
			if err != nil {
				return nil, err
			}
			return nd.Links(), w.Put(ctx, c.KeyString(), nd.RawData())
		}
		if err := merkledag.Walk(ctx, links, root, cid.NewSet().Visit); err != nil {
			return err
		}
		return w.Finalize()
	})
}

// boxoNode is a running Bitswap peer.
type boxoNode struct {
	store *boxoStore
	host  host.Host
	swap  *bitswap.Bitswap
}

func newBoxoNode(ctx context.Context, home string, listen ...string) (*boxoNode, error) {
	st, err := openBoxoStore(ctx, home)
	if err != nil {
		return nil, err
	}
	h, err := boxoHost(listen...)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &boxoNode{store: st, host: h, swap: boxoSwap(ctx, h, st)}, nil
}

// Close ends the peer.
func (b *boxoNode) Close() error { return errors.Join(b.swap.Close(), b.host.Close(), b.store.Close()) }

// announce prints the line of `dray serve --json`.
func (b *boxoNode) announce() error {
	up := serving{Peer: b.host.ID().String()}
	for _, a := range b.host.Addrs() {
		up.Addrs = append(up.Addrs, a.String()+"/p2p/"+up.Peer)
	}
	return printJSON(up)
}

// connect dials every address, all at once.
func (b *boxoNode) connect(ctx context.Context, addrs ...string) error {
	var wg sync.WaitGroup
	errs := make([]error, len(addrs))
	for i, addr := range addrs {
		m, err := ma.NewMultiaddr(addr)
		if err != nil {
			return err
		}
		info, err := peer.AddrInfoFromP2pAddr(m)
		if err != nil {
			return err
		}
		wg.Go(func() { errs[i] = b.host.Connect(ctx, *info) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// runBoxoServe serves a repository until it is told to stop. Its first line of output is that of `dray serve --json`,
// its last a sums. In between it gets what its standard input says, a boxoAsk a line, and answers each with a fetched.
func runBoxoServe(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("boxo-serve", flag.ContinueOnError)
	home := fs.String("home", "", "repository")
	listen := fs.String("listen", "/ip4/127.0.0.1/tcp/0", "address")
	if err := fs.Parse(args); err != nil {
		return err
	}
	b, err := newBoxoNode(ctx, *home, *listen)
	if err != nil {
		return err
	}
	err = b.announce()
	// Whoever started this closes the input before it says stop.
	for lines := bufio.NewScanner(os.Stdin); err == nil && lines.Scan(); {
		err = b.obey(ctx, lines.Bytes())
	}
	if err == nil {
		<-ctx.Done()
		var stat *bitswap.Stat
		if stat, err = b.swap.Stat(); err == nil {
			err = printJSON(sums{Sent: int64(stat.DataSent)})
		}
	}
	return errors.Join(err, b.Close())
}

// boxoAsk is a request to get a root from whoever of the peers has it.
type boxoAsk struct {
	Root  string   `json:"root"`
	Out   string   `json:"out"`
	Peers []string `json:"peers"`
}

func (b *boxoNode) obey(ctx context.Context, line []byte) error {
	var q boxoAsk
	if err := json.Unmarshal(line, &q); err != nil {
		return err
	}
	root, err := cid.Decode(q.Root)
	if err != nil {
		return err
	}
	if err := b.connect(ctx, q.Peers...); err != nil {
		return err
	}
	got, err := b.get(ctx, root, q.Out, false)
	if err != nil {
		return err
	}
	return printJSON(got)
}

// runBoxoGet fetches a root from one server and, unless -walk is given, writes the file that it is the root of.
func runBoxoGet(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("boxo-get", flag.ContinueOnError)
	home := fs.String("home", "", "repository")
	from := fs.String("from", "", "multiaddr of the server")
	out := fs.String("o", "", "destination file")
	walk := fs.Bool("walk", false, "fetch the whole graph in parallel and write no file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	root, err := cid.Decode(fs.Arg(0))
	if err != nil {
		return err
	}
	b, err := newBoxoNode(ctx, *home)
	if err != nil {
		return err
	}
	var got fetched
	if err = b.connect(ctx, *from); err == nil {
		got, err = b.get(ctx, root, *out, *walk)
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	return printJSON(got)
}

func (b *boxoNode) get(ctx context.Context, root cid.Cid, out string, walk bool) (fetched, error) {
	got := fetched{CID: root.String()}
	dag := merkledag.NewDAGService(blockservice.New(b.store, b.swap, blockservice.WriteThrough(true)))
	session := merkledag.NewSession(ctx, dag)
	if walk {
		return boxoWalk(ctx, session, got, root)
	}
	nd, err := session.Get(ctx, root)
	if err != nil {
		return got, err
	}
	node, err := unixfile.NewUnixfsFile(ctx, merkledag.NewReadOnlyDagService(session), nd)
	if err != nil {
		return got, err
	}
	if got.Bytes, err = node.Size(); err != nil {
		return got, err
	}
	if err := errors.Join(files.WriteTo(node, out), node.Close()); err != nil {
		return got, err
	}
	stat, err := b.swap.Stat()
	if err == nil {
		got.DuplicateBytes = int64(stat.DupDataReceived)
	}
	return got, err
}

// boxoWalk fetches everything under root as `ipfs pin add` does and counts what it saw.
func boxoWalk(ctx context.Context, session ipld.NodeGetter, got fetched, root cid.Cid) (fetched, error) {
	seen := cid.NewSet()
	links := func(ctx context.Context, c cid.Cid) ([]*ipld.Link, error) {
		nd, err := session.Get(ctx, c)
		if err != nil {
			return nil, err
		}
		return nd.Links(), nil
	}
	// Walk calls Visit under a lock of its own.
	if err := merkledag.Walk(ctx, links, root, seen.Visit, merkledag.Concurrent()); err != nil {
		return got, err
	}
	got.Blocks = seen.Len()
	return got, nil
}

func printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n", b)
	return err
}
