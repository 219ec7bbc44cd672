package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	gw "github.com/ipfs/boxo/gateway"
	"github.com/prometheus/client_golang/prometheus"
)

// Boxo's own clients of trustless gateways, which verify what they get, serve the same content from ours: one by blocks, one by
// CARs in order.
func TestBoxoReadsFromIt(t *testing.T) {
	s := newSite(t)
	blocks, err := gw.NewRemoteBlocksBackend([]string{s.srv.URL}, nil, gw.WithNameSystem(noNames{}))
	s.must(err)
	cars, err := gw.NewRemoteCarBackend([]string{s.srv.URL}, nil, gw.WithNameSystem(noNames{}),
		gw.WithPrometheusRegistry(prometheus.NewRegistry()))
	s.must(err)
	for name, backend := range map[string]gw.IPFSBackend{"blocks": blocks, "CARs": cars} {
		second := httptest.NewServer(gw.NewHandler(gw.Config{
			DeserializedResponses: true, DisableHTMLErrors: true, MetricsRegistry: prometheus.NewRegistry(),
		}, backend))
		t.Cleanup(second.Close)
		for _, tt := range []struct {
			path, ranges string
		}{
			{"/ipfs/{root}/hello.txt", ""},
			{"/ipfs/{root}/big.bin", ""},
			{"/ipfs/{root}/big.bin", "bytes=3000-4999"},
			{"/ipfs/{root}/big.bin", "bytes=-700"},
			{"/ipfs/{root}/dup.bin", ""},
			{"/ipfs/{root}/old.bin", ""},
			{"/ipfs/{root}/many/137", ""},
			{"/ipfs/{root}/web/", ""},
			{"/ipfs/{big}?format=raw", ""},
			{"/ipfs/{root}/nope", ""},
		} {
			ours := get(t, s.srv.URL+s.fill(tt.path), tt.ranges)
			theirs := get(t, second.URL+s.fill(tt.path), tt.ranges)
			if ours.code != theirs.code || ours.code < 300 && !bytes.Equal(ours.body, theirs.body) {
				t.Errorf("by %s: %s %s: %d and %d bytes, and through boxo %d and %d bytes %.100q",
					name, tt.path, tt.ranges, ours.code, len(ours.body), theirs.code, len(theirs.body), theirs.body)
			}
			for _, h := range []string{"Etag", "X-Ipfs-Roots", "Cache-Control", "Content-Range"} {
				if ours.code < 300 && ours.header.Get(h) != theirs.header.Get(h) {
					t.Errorf("by %s: %s: %s: %s, and through boxo %s", name, tt.path, h, ours.header.Get(h), theirs.header.Get(h))
				}
			}
		}
	}
}

func get(t *testing.T, url, ranges string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}
