package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/unixfs"
)

// memory is a store that reads parts, as the store on disk does.
type memory struct {
	mu     sync.Mutex
	blocks map[string][]byte // by multihash
	gets   int               // of whole blocks
}

func newMemory() *memory { return &memory{blocks: make(map[string][]byte)} }

func (m *memory) find(c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blocks[dray.HashKey(c)]
	if !ok {
		return nil, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
	}
	return data, nil
}

// Get implements dray.Getter.
func (m *memory) Get(_ context.Context, c cid.Cid) (dray.Block, error) {
	data, err := m.find(c)
	if err != nil {
		return dray.Block{}, err
	}
	m.mu.Lock()
	m.gets++
	m.mu.Unlock()
	return dray.NewBlock(c, data)
}

// GetPart implements dray.PartGetter.
func (m *memory) GetPart(_ context.Context, c cid.Cid, p []byte, offset int64) (int, int64, error) {
	data, err := m.find(c)
	if err != nil {
		return 0, 0, err
	}
	return copy(p, data[min(offset, int64(len(data))):]), int64(len(data)), nil
}

func (m *memory) put(b dray.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[dray.HashKey(b.CID())] = b.Data()
	return nil
}

func (m *memory) remove(c cid.Cid) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blocks, dray.HashKey(c))
}

// world is a gateway over a memory, and what tests put into it.
type world struct {
	t   *testing.T
	mem *memory
	cfg Config
	srv *httptest.Server
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, mem: newMemory()}
	w.cfg.Local = w.mem
	return w
}

// serve starts the gateway.
func (w *world) serve() *world {
	w.t.Helper()
	g, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.srv = httptest.NewServer(g)
	w.t.Cleanup(w.srv.Close)
	return w
}

// small is a profile with leaves of 1,000 bytes and nodes of 4 links, so that little content has much shape.
func small() unixfs.Profile {
	p := unixfs.V1()
	p.ChunkSize, p.MaxLinks = 1000, 4
	return p
}

// content returns n bytes that are different for each seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

// file adds a file.
func (w *world) file(p unixfs.Profile, data []byte) unixfs.Ref {
	w.t.Helper()
	ref, err := buildFile(p, data, w.mem.put)
	w.must(err)
	return ref
}

// buildFile makes the blocks of a file.
func buildFile(p unixfs.Profile, data []byte, put func(dray.Block) error) (unixfs.Ref, error) {
	b := unixfs.NewBuilder(p, put)
	for rest := data; len(rest) > 0; {
		n := min(int64(len(rest)), p.ChunkSize)
		block := append(p.AppendLeafHead(nil, n), rest[:n]...)
		block = p.AppendLeafTail(block, n)
		leaf, err := dray.Hashed(p.LeafPrefix(), block)
		if err == nil {
			err = put(leaf)
		}
		if err == nil {
			err = b.AddLeaf(leaf.CID(), n, int64(len(block)))
		}
		if err != nil {
			return unixfs.Ref{}, err
		}
		rest = rest[n:]
	}
	return b.Finish()
}

// dir adds a directory: names and children in turn.
func (w *world) dir(p unixfs.Profile, entries ...any) unixfs.Ref {
	w.t.Helper()
	d := unixfs.NewDirBuilder(p, w.mem.put)
	for i := 0; i < len(entries); i += 2 {
		w.must(d.Add(entries[i].(string), entries[i+1].(unixfs.Ref)))
	}
	ref, err := d.Finish()
	w.must(err)
	return ref
}

// block adds a block of a codec.
func (w *world) block(codec uint64, data []byte) cid.Cid {
	w.t.Helper()
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: codec, MhType: mh.SHA2_256, MhLength: 32}, data)
	w.must(err)
	w.must(w.mem.put(b))
	return b.CID()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// answer is what a client gets.
type answer struct {
	code   int
	header http.Header
	body   []byte
	err    error // of reading the body
}

// do sends a request: "METHOD URL" and headers "Name: value".
func (w *world) do(line string, headers ...string) answer {
	w.t.Helper()
	var method, path string
	if _, err := fmt.Sscan(line, &method, &path); err != nil {
		w.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.srv.URL+path, nil)
	w.must(err)
	for _, h := range headers {
		name, value, _ := bytes.Cut([]byte(h), []byte(": "))
		r.Header.Add(string(name), string(value))
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}

// car reads the blocks of an answer, in order, each checked against its CID.
func (a *answer) car(t *testing.T) (roots, blocks []cid.Cid) {
	t.Helper()
	stats, err := unixfs.ReadCAR(t.Context(), bytes.NewReader(a.body), func(b dray.Block) error {
		blocks = append(blocks, b.CID())
		return nil
	})
	if err != nil {
		t.Fatalf("the CAR: %v", err)
	}
	return stats.Roots, blocks
}
