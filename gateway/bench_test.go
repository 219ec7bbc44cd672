package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"dray/unixfs"
)

// discard is a client that takes everything.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)               {}

// BenchmarkRange is what a request for a part of a file with a thousand leaves costs beside its bytes.
func BenchmarkRange(b *testing.B) {
	mem := newMemory()
	p := unixfs.Native()
	p.ChunkSize = 4096
	ref, err := buildFile(p, content(1, 4<<20), mem.put)
	if err != nil {
		b.Fatal(err)
	}
	g, err := New(Config{Local: mem})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/ipfs/"+ref.CID.String(), nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", i%1000*4096, i%1000*4096+999))
		g.ServeHTTP(discard{make(http.Header)}, r)
	}
}
