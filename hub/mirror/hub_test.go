package mirror

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/names"
	"dray/node"
	"dray/store"
	"dray/transport"
	"dray/unixfs"
)

// The vocabulary of these tests: a fakeHub is an upstream that counts what it sends, and a party is a node with a Mirror.

const (
	testRepo   = "acme/tiny"
	testCommit = "0123456789abcdef0123456789abcdef01234567"
)

// fakeHub serves one commit of one repository, as the Hub does, over HTTP.
type fakeHub struct {
	t      *testing.T
	server *httptest.Server
	files  map[string][]byte

	body    atomic.Int64 // bytes of files that were sent
	opened  atomic.Int64 // answers with bytes of files
	catalog atomic.Int64 // answers about commits

	mu       sync.Mutex
	down     bool
	breakAt  int64                                             // an answer breaks off after so many bytes; 0 is never
	slow     time.Duration                                     // for each 64 KiB
	resolve  func(w http.ResponseWriter, r *http.Request) bool // takes over a request for a file
	lie      map[string]string                                 // sha256 that is said, by path
	gated    bool
	seen     []http.Header
	ranges   map[string][][2]int64
	noRanges bool
}

func newFakeHub(t *testing.T, files map[string][]byte) *fakeHub {
	h := &fakeHub{t: t, files: files, lie: make(map[string]string), ranges: make(map[string][][2]int64)}
	h.server = httptest.NewServer(h)
	t.Cleanup(h.server.Close)
	return h
}

func (h *fakeHub) size() (n int64) {
	for _, f := range h.files {
		n += int64(len(f))
	}
	return n
}

// set changes how it behaves.
func (h *fakeHub) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *fakeHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	down, resolve, gated := h.down, h.resolve, h.gated
	h.seen = append(h.seen, r.Header.Clone())
	h.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	api := "/api/models/" + testRepo + "/"
	switch path := r.URL.Path; {
	case path == api+"revision/main" || path == api+"revision/"+testCommit:
		h.catalog.Add(1)
		fmt.Fprintf(w, `{"id":%q,"sha":%q,"private":false,"gated":%v,"lastModified":"2026-01-02T03:04:05.000Z"}`, testRepo, testCommit, gated)
	case path == api+"tree/"+testCommit:
		h.tree(w, r)
	case strings.HasPrefix(path, api+"revision/"):
		w.Header().Set("X-Error-Code", "RevisionNotFound")
		w.WriteHeader(http.StatusNotFound)
	case strings.HasPrefix(path, "/"+testRepo+"/resolve/"+testCommit+"/"):
		if resolve == nil || !resolve(w, r) {
			h.file(w, r, strings.TrimPrefix(path, "/"+testRepo+"/resolve/"+testCommit+"/"))
		}
	default:
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusNotFound)
	}
}

// tree answers in pages of two.
func (h *fakeHub) tree(w http.ResponseWriter, r *http.Request) {
	names := make([]string, 0, len(h.files))
	for name := range h.files {
		names = append(names, name)
	}
	slices.Sort(names)
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	var page []map[string]any
	for _, name := range names[from:min(from+2, len(names))] {
		page = append(page, h.describe(name))
	}
	if from+2 < len(names) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.server.URL, r.URL.Path, from+2))
	}
	h.catalog.Add(1)
	if err := json.NewEncoder(w).Encode(page); err != nil {
		h.t.Error(err)
	}
}

func (h *fakeHub) describe(name string) map[string]any {
	data := h.files[name]
	blob := gitBlob(data)
	e := map[string]any{"type": "file", "path": name, "size": len(data), "oid": blob}
	if len(data) > 64<<10 {
		oid := fmt.Sprintf("%x", sha256.Sum256(data))
		h.mu.Lock()
		if l := h.lie[name]; l != "" {
			oid = l
		}
		h.mu.Unlock()
		e["lfs"] = map[string]any{"oid": oid, "size": len(data), "pointerSize": 134}
	}
	return e
}

func gitBlob(data []byte) string {
	s := sha1.New()
	fmt.Fprintf(s, "blob %d\x00", len(data))
	s.Write(data)
	return hex.EncodeToString(s.Sum(nil))
}

// file sends a file or a range of it, and counts.
func (h *fakeHub) file(w http.ResponseWriter, r *http.Request, name string) {
	data, ok := h.files[name]
	if !ok {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h.mu.Lock()
	noRanges := h.noRanges
	h.mu.Unlock()
	from, to := int64(0), int64(len(data))
	w.Header().Set("ETag", `"`+gitBlob(data)+`"`)
	if s := r.Header.Get("Range"); s != "" && !noRanges {
		if n, err := fmt.Sscanf(s, "bytes=%d-%d", &from, &to); n != 2 || err != nil {
			h.t.Errorf("range %q: %v", s, err)
		}
		to++
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
		w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	}
	h.opened.Add(1)
	h.mu.Lock()
	h.ranges[name] = append(h.ranges[name], [2]int64{from, to})
	h.mu.Unlock()
	sent := int64(0)
	for from < to {
		h.mu.Lock()
		slow, breakAt, down := h.slow, h.breakAt, h.down
		h.mu.Unlock()
		n := min(to-from, 64<<10)
		if breakAt > 0 && sent+n > breakAt || down {
			panic(http.ErrAbortHandler)
		}
		h.body.Add(n) // before it is sent, so that nobody who has it finds it not counted
		if _, err := w.Write(data[from : from+n]); err != nil {
			return
		}
		sent += n
		if breakAt > 0 || slow > 0 {
			w.(http.Flusher).Flush()
		}
		if slow > 0 {
			pause(r.Context(), slow)
		}
		from += n
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

// once fails unless the upstream has sent every byte of its files exactly once.
func (h *fakeHub) once(t *testing.T) {
	t.Helper()
	if got, want := h.body.Load(), h.size(); got != want {
		h.mu.Lock()
		defer h.mu.Unlock()
		t.Errorf("upstream sent %d bytes of %d, %.3f x: %v", got, want, float64(got)/float64(want), h.ranges)
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
func swarm(t *testing.T, h *fakeHub, n int, tune func(*Config, *UpstreamConfig)) []*party {
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

func newParty(t *testing.T, h *fakeHub, net *transport.Memory, tune func(*Config, *UpstreamConfig)) *party {
	t.Helper()
	p := &party{store: store.NewMem(0)}
	up := UpstreamConfig{URL: h.server.URL, Backoff: time.Millisecond}
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

func (p *party) Session(peers ...dray.PeerID) Session {
	return p.node.NewSession(node.SessionConfig{Peers: peers})
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
func (p *party) wants(t *testing.T, h *fakeHub) {
	t.Helper()
	for path, data := range h.files {
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
		"model.safetensors": safetensors(1, 3<<20+17, 5<<20, 100, 6<<20+1),
		"weights/extra.bin": noise(2, 9<<20+5),
		"config.json":       []byte(`{"hidden_size": 8}`),
		"README.md":         []byte("# tiny\n"),
		"empty.txt":         {},
	}
}
