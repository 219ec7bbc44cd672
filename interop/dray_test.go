package interop

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/node"
	"dray/store/disk"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// Where peers listen, by transport.
const (
	overTCP  = "/ip4/127.0.0.1/tcp/0"
	overQUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
)

// patience is how long one step of a test may take. Whatever takes longer has stalled.
const patience = 3 * time.Minute

// within returns a context for one step of a test.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// drayPeer is a node with a network and a store on disk.
type drayPeer struct {
	*node.Node
	host *p2p.Host
}

// newDray returns a Dray peer that listens at listen.
func newDray(t testing.TB, listen string) *drayPeer {
	t.Helper()
	st, err := disk.Open(disk.Config{Dir: t.TempDir(), Split: unixfs.SplitLeaf})
	if err != nil {
		t.Fatal(err)
	}
	h, err := p2p.New(p2p.Config{Listen: []string{listen}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.New(node.Config{Store: st.Files(), Network: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(n.Close(), h.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	return &drayPeer{Node: n, host: h}
}

// add makes the tree at path available and returns its root.
func (d *drayPeer) add(t testing.TB, path string, p unixfs.Profile) cid.Cid {
	t.Helper()
	added, err := d.Add(within(t), path, node.AddConfig{Profile: p})
	if err != nil {
		t.Fatal(err)
	}
	return added.Root
}

// get fetches the tree under root from a peer and writes it to path. It fails the test unless all of it came from that
// peer over the given protocol, or any if that is "".
func (d *drayPeer) get(t testing.TB, root cid.Cid, path string, from transport.Peer, over transport.Protocol) {
	t.Helper()
	p, err := d.Fetch(within(t), node.FetchConfig{Root: root, Path: path, Peers: []transport.Peer{from}, Only: true})
	if err != nil {
		t.Fatalf("fetch: %v (%+v)", err, p)
	}
	for _, s := range p.Sources {
		if s.Peer != from.ID || over != "" && s.Protocol != string(over) {
			t.Errorf("%d bytes came from %v over %s, want all from %v over %s", s.Bytes, s.Peer, s.Protocol, from.ID, over)
		}
	}
	if len(p.Sources) == 0 {
		t.Errorf("no sources in %+v", p)
	}
}

// walk fetches everything under root from a peer into the store and returns how many blocks there are.
func (d *drayPeer) walk(t testing.TB, root cid.Cid, from transport.Peer) int {
	t.Helper()
	seen := cid.NewSet()
	err := d.FetchDAG(within(t), node.DAGConfig{
		Root: root, Peers: []transport.Peer{from}, Only: true,
		Each: func(b dray.Block) error {
			seen.Add(b.CID())
			return nil
		},
	})
	if err != nil {
		t.Fatalf("fetch of the graph: %v", err)
	}
	return seen.Len()
}
