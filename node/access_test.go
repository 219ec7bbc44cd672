package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/access"
	"dray/exchange"
	"dray/store"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// closedBook returns rules that close a root to all but those who have a secret; none closes it to everybody.
func closedBook(t testing.TB, root cid.Cid, secrets ...byte) *access.Book {
	t.Helper()
	b := new(access.Book)
	b.AllowMembers(root)
	b.RevokeAll(root)
	for _, s := range secrets {
		if err := b.Give(root, access.Capability{Secret: access.Secret{s}}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func setAccess(t testing.TB, n *Node, a Access) {
	t.Helper()
	if err := n.SetAccess(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

func addFile(t testing.TB, n *Node, size int) (cid.Cid, []byte) {
	t.Helper()
	path, data := randomFile(t, size)
	r, err := n.Add(t.Context(), path, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Root, data
}

// clearNet counts the bytes that come on streams on which others could read.
type clearNet struct {
	transport.Network
	bytes atomic.Int64
}

func (x *clearNet) Handle(p []transport.Protocol, accept func(transport.Conn, transport.Stream)) {
	x.Network.Handle(p, func(c transport.Conn, s transport.Stream) {
		if e, ok := s.(transport.Exposed); ok {
			s = &countedStream{e, &x.bytes}
		}
		accept(c, s)
	})
}

type countedStream struct {
	transport.Exposed
	bytes *atomic.Int64
}

func (s *countedStream) Read(p []byte) (int, error) {
	n, err := s.Exposed.Read(p)
	s.bytes.Add(int64(n))
	return n, err
}

// Where blocks travel in clear, those of a private root do not: between the same hosts, an open file goes over clear
// connections and a private one does not, even once these are there.
func TestPrivateIsNeverInClear(t *testing.T) {
	host := func() *clearNet {
		h, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, DataPlane: "authenticated"})
		if err != nil {
			t.Fatal(err)
		}
		return &clearNet{Network: h}
	}
	wire := host()
	seed, getter := testNode(t, host()), testNode(t, wire)
	fetchAndCompare(t, seed, getter, unixfs.Native(), 64<<20)
	if wire.bytes.Load() < 32<<20 {
		t.Fatalf("only %d bytes of an open file came in clear: the test shows nothing", wire.bytes.Load())
	}
	path := filepath.Join(t.TempDir(), "private")
	data := bytes.Repeat([]byte("private "), 6<<20)
	for i := 0; i < len(data); i += 512 {
		copy(data[i:], fmt.Sprint(i)) // no two leaves alike
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	added, err := seed.Add(t.Context(), path, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	setAccess(t, seed, Access{Book: closedBook(t, added.Root, 7)})
	setAccess(t, getter, Access{Book: closedBook(t, added.Root, 7)})
	before := wire.bytes.Load()
	out := filepath.Join(t.TempDir(), "out")
	p, err := getter.Fetch(t.Context(), FetchConfig{Root: added.Root, Path: out, Peers: []transport.Peer{peerOf(seed)}})
	if err != nil {
		t.Fatalf("%v %+v", err, p)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
		t.Fatal("the private file came wrong", err)
	}
	if n := wire.bytes.Load() - before; n != 0 {
		t.Errorf("%d bytes came in clear during the transfer of a private file", n)
	}
}

// A capability that is revoked in the middle of a transfer ends it there: the getter is told so, and goes on with another
// holder if there is one.
func TestRevokedInTheMiddle(t *testing.T) {
	for _, another := range []bool{false, true} {
		t.Run(fmt.Sprintf("another holder %v", another), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond, Bandwidth: 20 << 20})
				seed, getter, other := testNode(t, mem.NewHost()), testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
				root, data := addFile(t, seed, 40<<20)
				setAccess(t, seed, Access{Book: closedBook(t, root, 7, 8)})
				setAccess(t, getter, Access{Book: closedBook(t, root, 7)})
				peers := []transport.Peer{peerOf(seed)}
				if another {
					path, _ := randomFile(t, 40<<20)
					if _, err := other.Add(t.Context(), path, AddConfig{}); err != nil {
						t.Fatal(err)
					}
					setAccess(t, other, Access{Book: closedBook(t, root, 7)})
					peers = append(peers, peerOf(other))
				}
				done := make(chan struct{}, 1)
				var at int64
				cfg := FetchConfig{Root: root, Path: filepath.Join(t.TempDir(), "out"), Peers: peers, Progress: func(p Progress) {
					if at == 0 && p.Done > 8<<20 {
						at = p.Done
						done <- struct{}{}
					}
				}}
				var p Progress
				var err error
				var wg sync.WaitGroup
				wg.Go(func() { p, err = getter.Fetch(t.Context(), cfg) })
				<-done
				setAccess(t, seed, Access{Book: closedBook(t, root, 8)})
				start := time.Now()
				wg.Wait()
				if another {
					if err != nil {
						t.Fatalf("with another holder: %v", err)
					}
					if got, err := os.ReadFile(cfg.Path); err != nil || !bytes.Equal(got, data) {
						t.Error("it came wrong", err)
					}
					return
				}
				if !errors.Is(err, dray.ErrRefused) {
					t.Fatalf("the transfer ended with %v", err)
				}
				if d := time.Since(start); d > 30*time.Second {
					t.Errorf("it took %v to say so", d)
				}
				// What was being written by then arrives: what the server keeps under way, and no more.
				if more := p.Done - at; more > 12<<20 {
					t.Errorf("%d bytes came after the capability was revoked", more)
				}
			})
		})
	}
}

// What was got of a private root before a crash is private after it: the rule is there before the first block, and what it
// covers is worked out from the skeleton.
func TestHalfGotIsPrivate(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{Bandwidth: 8 << 20, Latency: time.Millisecond})
	seed := testNode(t, mem.NewHost())
	root, _ := addFile(t, seed, 24<<20)
	setAccess(t, seed, Access{Book: closedBook(t, root, 7)})
	st := store.NewMem(0)
	book := closedBook(t, root, 7)
	net := mem.NewHost()
	half, err := New(Config{Store: st, Network: net, Access: Access{Book: book}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = half.Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{peerOf(seed)}, Progress: func(p Progress) {
		if p.Done > 4<<20 {
			cancel()
		}
	}})
	if err == nil {
		t.Fatal("the fetch was not interrupted")
	}
	// Neither before the crash nor after it does a stranger get a block of it.
	var held []cid.Cid
	for s, err := range st.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s.CID)
	}
	if len(held) < 4 {
		t.Fatalf("only %d blocks were got", len(held))
	}
	try := func(n *Node, when string) {
		t.Helper()
		guest := testNode(t, mem.NewHost())
		if err := guest.Connect(t.Context(), peerOf(n)); err != nil {
			t.Fatal(err)
		}
		s := guest.NewSession(SessionConfig{})
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		for _, c := range held {
			if _, err := s.Get(ctx, c); err == nil {
				t.Fatalf("%s a stranger got %v", when, c)
			}
		}
		if sent := n.Totals().Served; sent != 0 {
			t.Errorf("%s %d blocks were served", when, sent)
		}
	}
	try(half, "before the crash")
	half.Close()
	net.Close()
	again, err := New(Config{Store: st, Network: mem.NewHost(), Access: Access{Book: book}})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	try(again, "after the crash")
	// Who has the capability gets what is there.
	friend := testNode(t, mem.NewHost())
	setAccess(t, friend, Access{Book: closedBook(t, root, 7)})
	fctx, enough := context.WithTimeout(t.Context(), 20*time.Second)
	defer enough()
	most := int64(0)
	_, err = friend.Fetch(fctx, FetchConfig{
		Root: root, Path: filepath.Join(t.TempDir(), "out"), Peers: []transport.Peer{peerOf(again)},
		Progress: func(p Progress) {
			if most = p.Done; most > 4<<20 {
				enough() // the rest nobody has
			}
		},
	})
	if most < 4<<20 {
		t.Errorf("who has the capability got %d bytes of what is there: %v", most, err)
	}
}

// What lies under an open root too is open; it is closed when that root is no more, and opened when the closed one is.
func TestSharedWithAnOpenRoot(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, guest := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	dir := t.TempDir()
	both := bytes.Repeat([]byte("both"), 1<<18)
	for _, name := range []string{"open", "closed"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string][]byte{"both": both, name: []byte("only in " + name)} {
			if err := os.WriteFile(filepath.Join(dir, name, file), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	roots := make(map[string]cid.Cid)
	for _, name := range []string{"open", "closed"} {
		r, err := seed.Add(t.Context(), filepath.Join(dir, name), AddConfig{})
		if err != nil {
			t.Fatal(err)
		}
		roots[name] = r.Root
	}
	shared, err := seed.Add(t.Context(), filepath.Join(dir, "open", "both"), AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := guest.Connect(t.Context(), peerOf(seed)); err != nil {
		t.Fatal(err)
	}
	gets := func(c cid.Cid) bool {
		s := guest.NewSession(SessionConfig{})
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		_, err := s.Get(ctx, c)
		if err == nil {
			if err := guest.store.Delete(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		return err == nil
	}
	for _, row := range []struct {
		name                 string
		a                    Access
		open, closed, shared bool
	}{
		{"one closed", Access{Book: closedBook(t, roots["closed"], 1), Open: []cid.Cid{roots["open"]}}, true, false, true},
		{"the open one is removed", Access{Book: closedBook(t, roots["closed"], 1)}, true, false, false},
		{"all are open", Access{Open: []cid.Cid{roots["open"], roots["closed"]}}, true, true, true},
	} {
		setAccess(t, seed, row.a)
		for _, x := range []struct {
			what string
			c    cid.Cid
			want bool
		}{{"the open root", roots["open"], row.open}, {"the closed root", roots["closed"], row.closed}, {"what is in both", shared.Root, row.shared}} {
			if got := gets(x.c); got != x.want {
				t.Errorf("%s: a stranger gets %s: %v", row.name, x.what, got)
			}
		}
	}
}

// Members are dialled, also after they were lost; strangers do not stay.
func TestMembersAreKeptConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(transport.MemoryConfig{})
		hub, member := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
		list, err := access.ParseMembers(fmt.Appendf(nil, "%v", member.Self()))
		if err != nil {
			t.Fatal(err)
		}
		// Addresses of the memory network are none for a members file.
		list.List()[0].Addrs = member.Addrs()
		setAccess(t, hub, Access{Members: list, MembersOnly: true})
		connected := func() bool {
			synctest.Wait()
			for _, p := range hub.Peers() {
				if p.ID == member.Self() {
					return true
				}
			}
			return false
		}
		wait := func(why string, most time.Duration) {
			t.Helper()
			for start := time.Now(); !connected(); time.Sleep(100 * time.Millisecond) {
				if time.Since(start) > most {
					t.Fatal(why)
				}
			}
		}
		wait("a member is not dialled", 5*time.Second)
		mem.Drop(hub.Self(), member.Self())
		wait("a member is not dialled again", 10*time.Second)
		for range 100 {
			n := mem.NewHost()
			defer n.Close()
			if _, err := n.Dial(t.Context(), hub.Self(), hub.Addrs()); err != nil {
				t.Fatal(err)
			}
		}
		if !connected() {
			t.Error("a member was let go")
		}
		if n := len(hub.Peers()); n != 1 {
			t.Errorf("%d are connected", n)
		}
		stranger := testNode(t, mem.NewHost())
		stranger.KeepConnected(transport.Peer{ID: hub.Self(), Addrs: hub.Addrs()})
		time.Sleep(time.Minute)
		synctest.Wait()
		away := stranger.Unreached(transport.Peer{ID: hub.Self()})
		if len(away) != 1 || !errors.Is(away[0].Err, dray.ErrRefused) || len(hub.Peers()) != 1 {
			t.Errorf("a stranger was told %v; %d are connected", away, len(hub.Peers()))
		}
		both, err := access.ParseMembers(fmt.Appendf(nil, "%v\n%v", member.Self(), stranger.Self()))
		if err != nil {
			t.Fatal(err)
		}
		setAccess(t, hub, Access{Members: both, MembersOnly: true})
		time.Sleep(time.Minute) // it tries again by itself, each time later
		if synctest.Wait(); len(hub.Peers()) != 2 {
			t.Errorf("%d are connected, now that both are members", len(hub.Peers()))
		}
		setAccess(t, hub, Access{Members: list, MembersOnly: true})
		time.Sleep(2 * time.Second)
		if synctest.Wait(); len(hub.Peers()) != 1 || !connected() {
			t.Errorf("%d are connected after a member was removed", len(hub.Peers()))
		}
	})
}

// What lies under the roots is worked out without reading leaves: so many blocks take so long, and the engine so much memory.
func TestGuardsOfManyBlocks(t *testing.T) {
	const leaves = 100_000
	st := &countedReads{Store: store.NewMem(0)}
	n, err := New(Config{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	p := unixfs.Native()
	b := unixfs.NewBuilder(p, func(b dray.Block) error { return st.Put(t.Context(), b) })
	for i := range leaves {
		leaf, err := dray.Hashed(p.LeafPrefix(), fmt.Appendf(nil, "leaf %d", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.AddLeaf(leaf.CID(), int64(leaf.Size()), int64(leaf.Size())); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	st.reads.Store(0)
	start := time.Now()
	setAccess(t, n, Access{Book: closedBook(t, ref.CID, 1)})
	took := time.Since(start)
	t.Logf("%d leaves: %v, %d blocks read", leaves, took, st.reads.Load())
	if st.reads.Load() > leaves/100 {
		t.Errorf("%d blocks were read", st.reads.Load())
	}
	if took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

type countedReads struct {
	dray.Store
	reads atomic.Int64
}

func (c *countedReads) Get(ctx context.Context, id cid.Cid) (dray.Block, error) {
	c.reads.Add(1)
	return c.Store.Get(ctx, id)
}

var _ exchange.Gate = (*access.Gate)(nil)
