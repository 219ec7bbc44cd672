package mirror

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/hub/mirror/mirrortest"
	"dray/names"
	"dray/node"
	"dray/store"
	"dray/transport"
	"dray/unixfs"
)

// The vocabulary of these tests: a party is a node with a Mirror, and reads from an upstream that counts.

const testRepo = "acme/tiny"

func upstream(t *testing.T, files map[string][]byte) *mirrortest.Hub {
	h := mirrortest.New(testRepo, files)
	t.Cleanup(h.Close)
	return h
}

// once fails unless the upstream has sent every byte of its files exactly once.
func once(t *testing.T, h *mirrortest.Hub) {
	t.Helper()
	if err := h.Once(); err != nil {
		t.Error(err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// party is a node with a Mirror.
type party struct {
	*Mirror
	node  *node.Node
	store *store.Mem
	up    *Upstream
	roots sync.Map
}

// swarm starts n parties that are all connected, with the same upstream.
func swarm(t *testing.T, h *mirrortest.Hub, n int, tune func(*Config, *UpstreamConfig)) []*party {
	t.Helper()
	net := transport.NewMemory(transport.MemoryConfig{})
	var list []*party
	for range n {
		list = append(list, newParty(t, h, net, tune))
	}
	for i, a := range list {
		for _, b := range list[:i] {
			connect(t, a, b)
		}
	}
	return list
}

func connect(t *testing.T, a, b *party) {
	t.Helper()
	if err := a.node.Connect(t.Context(), transport.Peer{ID: b.node.Self(), Addrs: b.node.Addrs()}); err != nil {
		t.Fatal(err)
	}
	for !slices.Contains(a.Peers(), b.node.Self()) || !slices.Contains(b.Peers(), a.node.Self()) {
		pause(t.Context(), time.Millisecond)
		if t.Context().Err() != nil {
			t.Fatal("they do not connect")
		}
	}
}

func newParty(t *testing.T, h *mirrortest.Hub, net *transport.Memory, tune func(*Config, *UpstreamConfig)) *party {
	t.Helper()
	p := &party{store: store.NewMem(0)}
	up := UpstreamConfig{URL: h.URL, Backoff: time.Millisecond}
	cfg := Config{
		Blocks: p, Swarm: p, Dir: t.TempDir(), Silence: 3 * time.Second, Patience: 5 * time.Second,
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	if tune != nil {
		tune(&cfg, &up)
	}
	var err error
	if p.up, err = NewUpstream(up); err != nil {
		t.Fatal(err)
	}
	cfg.Upstream = p.up
	if p.Mirror, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	p.node, err = node.New(node.Config{
		Store: p.store, Network: net.NewHost(), Services: []node.Service{{Protocol: Protocol, Serve: p.Serve}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		p.node.Close()
		p.up.Close()
	})
	return p
}

// testLog writes to a test's log, while it runs.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// A party is its own Blocks and Swarm.

func (p *party) Local(ctx context.Context, c cid.Cid) (dray.Block, error) { return p.store.Get(ctx, c) }

func (p *party) Put(ctx context.Context, b ...dray.Block) error { return p.node.Put(ctx, b...) }
func (p *party) Hold() func()                                   { return func() {} }
func (p *party) Keep(_ context.Context, f unixfs.Ref, _ int) error {
	p.roots.Store(f.CID, true)
	return nil
}

func (p *party) Kept(_ context.Context, root cid.Cid) bool {
	_, ok := p.roots.Load(root)
	return ok
}
func (p *party) Used(context.Context, cid.Cid) {}

func (p *party) Self() dray.PeerID { return p.node.Self() }
func (p *party) Peers() (ids []dray.PeerID) {
	for _, s := range p.node.Peers() {
		ids = append(ids, s.ID)
	}
	return ids
}

func (p *party) Call(ctx context.Context, peer dray.PeerID) (transport.Stream, error) {
	return p.node.Call(ctx, transport.Peer{ID: peer}, Protocol)
}

func (p *party) Session(only bool, peers ...dray.PeerID) Session {
	return p.node.NewSession(node.SessionConfig{Peers: peers, Only: only})
}

// read reads a file of the commit, like a client does.
func (p *party) read(ctx context.Context, path string) ([]byte, error) {
	c, f, err := p.find(ctx, path)
	if err != nil {
		return nil, err
	}
	content, err := p.Open(ctx, c, f)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(content)
}

func (p *party) find(ctx context.Context, path string) (*names.Commit, names.File, error) {
	c, err := p.Commit(ctx, names.Repo{Name: testRepo}, "main")
	if err != nil {
		return nil, names.File{}, err
	}
	for _, f := range c.Files {
		if f.Path == path {
			return c, f, nil
		}
	}
	return nil, names.File{}, errors.New("not listed")
}

// wants fails unless a party reads each file as the upstream has it.
func (p *party) wants(t *testing.T, h *mirrortest.Hub) {
	t.Helper()
	for path, data := range h.Files {
		got, err := p.read(t.Context(), path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if string(got) != string(data) {
			t.Errorf("%s: %d bytes that are wrong", path, len(got))
		}
	}
}

// all runs something for each party at once.
func all(list []*party, f func(*party)) {
	var wg sync.WaitGroup
	for _, p := range list {
		wg.Go(func() { f(p) })
	}
	wg.Wait()
}

func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(data)
	return data
}

// safetensors makes a file with tensors of odd sizes.
func safetensors(seed uint64, sizes ...int) []byte {
	header := make(map[string]any)
	at := 0
	for i, n := range sizes {
		header[fmt.Sprintf("layer.%d.weight", i)] = map[string]any{"dtype": "U8", "shape": []int{n}, "data_offsets": []int{at, at + n}}
		at += n
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return append(append(file, text...), noise(seed, at)...)
}

// model is what most tests have upstream: a file of tensors, one of noise, small ones and an empty one.
func model() map[string][]byte {
	return map[string][]byte{
		"model.safetensors": safetensors(1, 1<<20+17, 2<<20, 100, 2<<20+1),
		"weights/extra.bin": noise(2, 3<<20+5),
		"config.json":       []byte(`{"hidden_size": 8}`),
		"README.md":         []byte("# tiny\n"),
		"empty.txt":         {},
	}
}
