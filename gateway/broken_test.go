package gateway

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/ipfs/go-cid"

	"dray/unixfs"
)

// What is missing in the middle cuts the connection, in whatever way it is sent; what is missing at once is an answer.
func TestMissingLeaf(t *testing.T) {
	for _, missing := range []int{0, 1, 10} { // of 11 leaves
		s := newSite(t)
		s.mem.remove(s.leaves(t)[missing])
		for _, request := range []string{
			"GET /ipfs/{root}/big.bin", "GET /ipfs/{big}?format=car", "GET /ipfs/{big}?format=car&dag-scope=entity&car-dups=y",
			"GET /ipfs/{big}?format=tar",
		} {
			a := s.do(s.fill(request))
			switch {
			case a.err != nil: // cut
			case a.code == http.StatusNotFound:
			default:
				t.Errorf("%s without leaf %d: status %d and %d bytes, as if whole", request, missing, a.code, len(a.body))
			}
		}
		if a := s.do(s.fill("GET /ipfs/{absent}?format=tar")); a.code != http.StatusNotFound || a.err != nil {
			t.Errorf("a TAR of nothing: status %d, %v", a.code, a.err)
		}
		first := s.do(s.fill("GET /ipfs/{big}"), "Range: bytes=0-")
		if missing == 0 && first.code != http.StatusNotFound {
			t.Errorf("without the first leaf: status %d, %v", first.code, first.err)
		}
		if missing > 0 && first.err == nil {
			t.Errorf("without leaf %d: no error", missing)
		}
		if a := s.do(s.fill("GET /ipfs/{big}"), "Range: bytes=5000-5999"); a.err != nil || string(a.body) != string(s.bigData[5000:6000]) {
			t.Errorf("a range beside leaf %d: status %d, %v %s", missing, a.code, a.err, a.body)
		}
		if a := s.do(s.fill("GET /ipfs/{big}?format=car&entity-bytes=5000:5999")); a.err != nil || a.code != http.StatusOK {
			t.Errorf("a CAR beside leaf %d: status %d, %v", missing, a.code, a.err)
		}
	}
}

func (s *site) leaves(t *testing.T) (list []cid.Cid) {
	for _, c := range s.under(t, s.big.CID) {
		if c.Type() == cid.Raw {
			list = append(list, c)
		}
	}
	return list
}

// Blocks that are no UnixFS are boxo's: they have a type of their own, and paths lead through their links.
func TestOtherCodecs(t *testing.T) {
	s := newSite(t)
	json := s.block(cid.DagJSON, []byte(`{"a":{"/":"`+s.hello.CID.String()+`"},"n":1}`))
	plain := s.block(0x0200, []byte(`{"x":1}`)) // JSON
	for request, want := range map[string]struct {
		code int
		typ  string
		body string
	}{
		"GET /ipfs/" + json.String():                   {200, "application/vnd.ipld.dag-json", "~\"n\":1"},
		"HEAD /ipfs/" + json.String():                  {200, "application/vnd.ipld.dag-json", "-"},
		"GET /ipfs/" + json.String() + "?format=raw":   {200, "application/vnd.ipld.raw", "~\"n\":1"},
		"GET /ipfs/" + json.String() + "/a":            {200, "", "hello gateway\n"},
		"GET /ipfs/" + json.String() + "/nope":         {404, "", ""},
		"GET /ipfs/" + json.String() + "/n":            {501, "", ""},
		"GET /ipfs/" + plain.String():                  {200, "application/json", `{"x":1}`},
		"GET /ipfs/" + json.String() + "?format=car":   {200, "", ""},
		"GET /ipfs/" + json.String() + "/a?format=car": {200, "", ""},
	} {
		a := s.do(request)
		var headers []string
		if want.typ != "" {
			headers = append(headers, "Content-Type: "+want.typ)
		}
		s.check(t, a, want.code, headers)
		s.checkBody(t, a, want.body)
	}
	page := s.do("GET /ipfs/"+json.String()+"/", "Accept: text/html")
	s.check(t, page, 200, []string{"Content-Type: text/html", "Content-Security-Policy: …sandbox…"})
	a := s.do("GET /ipfs/" + json.String() + "?format=car")
	if _, blocks := a.car(t); !equal(blocks, []cid.Cid{json, s.hello.CID}) {
		t.Errorf("the CAR of a graph: %v", blocks)
	}
}

// Blocks that make no sense are the client's to know, and not this server's fault.
func TestMalformedContent(t *testing.T) {
	s := newSite(t)
	for name, c := range map[string]cid.Cid{
		"no protobuf": s.block(cid.DagProtobuf, []byte("\xff\xff\xff")),
		"no UnixFS":   s.block(cid.DagProtobuf, []byte("\x0a\x02\x08\x63")),
		"empty":       s.block(cid.DagProtobuf, nil),
	} {
		for _, request := range []string{"GET /ipfs/" + c.String(), "HEAD /ipfs/" + c.String(), "GET /ipfs/" + c.String() + "/x"} {
			if a := s.do(request); a.code != http.StatusUnprocessableEntity {
				t.Errorf("%s, %s: status %d %q", name, request, a.code, a.body)
			}
		}
		if a := s.do("GET /ipfs/" + c.String() + "?format=raw"); a.code != http.StatusOK {
			t.Errorf("%s, raw: status %d", name, a.code)
		}
	}
	// A file whose node lies about the length of a leaf.
	leaf := s.block(cid.Raw, content(9, 50))
	b := unixfs.NewBuilder(small(), s.mem.put)
	s.must(b.AddLeaf(leaf, 60, 60))
	s.must(b.AddLeaf(s.hello.CID, 14, 14))
	lie, err := b.Finish()
	s.must(err)
	if a := s.do("GET /ipfs/" + lie.CID.String()); a.code != http.StatusUnprocessableEntity && !errors.Is(a.err, io.ErrUnexpectedEOF) {
		t.Errorf("a lie about a length: status %d, %s, %v", a.code, a.body, a.err)
	}
}
