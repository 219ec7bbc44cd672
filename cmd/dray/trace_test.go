package main

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
)

// collector keeps what a daemon sends to it.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	sent [][]byte
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sent = append(c.sent, body)
	}))
	t.Cleanup(c.Close)
	return c
}

// has reports whether a batch of spans came in which all of these stand.
func (c *collector) has(parts ...[]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
next:
	for _, body := range c.sent {
		for _, p := range parts {
			if !bytes.Contains(body, p) {
				continue next
			}
		}
		return true
	}
	return false
}

// TestRequestsAreTraced: what a request to the gateway or the Hub has another home send is in the trace that the client began,
// with the request's own span: in what both homes tell their collectors.
func TestRequestsAreTraced(t *testing.T) {
	dir := t.TempDir()
	of, by := newCollector(t), newCollector(t)
	t.Setenv("DRAY_TRACE_RATIO", "0") // they trace nothing of their own
	t.Setenv("DRAY_TRACE_ENDPOINT", of.URL)
	a := startHub(t, filepath.Join(dir, "a"))
	t.Setenv("DRAY_TRACE_ENDPOINT", by.URL)
	b := startHub(t, filepath.Join(dir, "b"), a)
	writeFiles(t, filepath.Join(dir, "films"), map[string][]byte{
		"small.bin": noise(1, 300_000), "big.bin": noise(2, 2*bringFrom), "loose.bin": noise(3, 500_000),
	})
	a.publish(filepath.Join(dir, "films"), "lab/films")
	b.trusts(a, "lab/*")
	added, err := taskAdd.do(t.Context(), a.house, addRequest{Path: filepath.Join(dir, "films", "loose.bin"), Profile: "native"}, pipes[addNote]{})
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("see the repository", func() bool {
		resp, _ := b.get("/api/models/lab/films")
		return resp.StatusCode == http.StatusOK
	})
	for i, x := range []struct {
		path, span, transfer string
		size                 int
	}{
		{"/ipfs/" + added.CID, "GET gateway", "session", 500_000},
		{"/lab/films/resolve/main/small.bin", "GET hub", "session", 300_000},
		{"/lab/films/resolve/main/big.bin", "GET hub", "fetch", 2 * bringFrom},
	} {
		trace := bytes.Repeat([]byte{byte(0xa0 + i)}, 16)
		resp, body := b.get(x.path, "traceparent", "00-"+hex.EncodeToString(trace)+"-b7ad6b7169203331-01")
		if resp.StatusCode != http.StatusOK || len(body) != x.size {
			t.Fatalf("%s: %s, %d bytes: %.300q", x.path, resp.Status, len(body), body[:min(len(body), 300)])
		}
		b.eventually("tell of "+x.path, func() bool { return by.has(trace, []byte(x.span), []byte(x.transfer), []byte("from peer")) })
		a.eventually("tell of "+x.path, func() bool { return of.has(trace, []byte("serve")) })
	}
	by.mu.Lock()
	before := len(by.sent)
	by.mu.Unlock()
	if resp, _ := b.get("/ipfs/" + added.CID); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	b.stop()
	by.mu.Lock()
	defer by.mu.Unlock()
	if len(by.sent) != before {
		t.Error("a request without a trace was traced, against the ratio")
	}
}
