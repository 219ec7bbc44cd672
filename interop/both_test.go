package interop

import (
	"path/filepath"
	"testing"

	"dray/node"
	"dray/transport"
	"dray/unixfs"
)

const tensorSwap = "/dray/tensorswap/1"

// TestNativeIsPreferred: a peer that speaks Bitswap and TensorSwap is asked over TensorSwap, from the first get on, over TCP
// and QUIC, whoever has dialled.
func TestNativeIsPreferred(t *testing.T) {
	for _, at := range []string{overTCP, overQUIC} {
		src := filepath.Join(t.TempDir(), "src")
		write(t, src, contents(1, 3<<20))
		seed := newDray(t, at)
		root := seed.add(t, src, unixfs.V1())
		from := transport.Peer{ID: seed.Self(), Addrs: seed.Addrs()}
		dials, dialled := newDray(t, at), newDray(t, at)
		if err := seed.Connect(within(t), transport.Peer{ID: dialled.Self(), Addrs: dialled.Addrs()}); err != nil {
			t.Fatal(err)
		}
		for _, d := range []*drayPeer{dials, dialled} {
			out := filepath.Join(t.TempDir(), "out")
			d.get(t, root, out, from, tensorSwap)
			sameTree(t, out, src)
		}
	}
}

// TestSwarmOfBoth fetches a directory of which a boxo peer and two Drays each have a part that the others lack: every one of
// them is asked in the best protocol that it speaks.
func TestSwarmOfBoth(t *testing.T) {
	for _, at := range []string{overTCP, overQUIC} {
		p := unixfs.V1()
		src := filepath.Join(t.TempDir(), "src")
		mkdir(t, src)
		names := []string{"x", "y", "z"}
		for i, name := range names {
			write(t, filepath.Join(src, name), contents(byte(i+1), 6<<20))
		}
		b := newBoxo(t, at)
		root := b.add(t, src, p)
		want := map[string]string{string(b.addr().ID): string(bitswap120)}
		peers := []transport.Peer{b.addr()}
		for _, name := range names[:2] {
			d := newDray(t, at)
			d.add(t, filepath.Join(src, name), p)
			for st, err := range d.Store().All(within(t)) {
				if err != nil {
					t.Fatal(err)
				}
				if err := b.store.DeleteBlock(within(t), st.CID); err != nil {
					t.Fatal(err)
				}
			}
			want[string(d.Self())] = tensorSwap
			peers = append(peers, transport.Peer{ID: d.Self(), Addrs: d.Addrs()})
		}
		getter := newDray(t, at)
		out := filepath.Join(t.TempDir(), "out")
		pr, err := getter.Fetch(within(t), node.FetchConfig{Root: root, Path: out, Peers: peers, Only: true})
		if err != nil {
			t.Fatalf("%v (%+v)", err, pr)
		}
		t.Logf("%s: %v, first after %v", at, pr.Elapsed, pr.First)
		sameTree(t, out, src)
		for _, s := range pr.Sources {
			if want[string(s.Peer)] != s.Protocol || s.Bytes < 6<<20 {
				t.Errorf("%d bytes came from %v over %s, want a file over %s", s.Bytes, s.Peer, s.Protocol, want[string(s.Peer)])
			}
			delete(want, string(s.Peer))
		}
		if len(want) > 0 {
			t.Errorf("nothing came from %d of the peers", len(want))
		}
	}
}
