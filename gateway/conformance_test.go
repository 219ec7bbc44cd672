package gateway

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/unixfs"
)

// site is the content that the conformance tables ask for:
//
//	/hello.txt     "hello gateway\n", one leaf
//	/big.bin       10,500 bytes in leaves of 1,000, nodes of 4 links
//	/dup.bin       six leaves that are the same
//	/old.bin       2,500 bytes in dag-pb leaves, CIDs of version 0
//	/link          a symlink to hello.txt
//	/sub/page.html
//	/web/index.html
//	/many/000 … 199 a sharded directory
type site struct {
	*world
	root, hello, big, dup, old, link, sub, page, web, index, many unixfs.Ref
	bigData                                                       []byte
}

func newSite(t *testing.T) *site {
	s := &site{world: newWorld(t), bigData: content(1, 10_500)}
	p := small()
	s.hello = s.file(p, []byte("hello gateway\n"))
	s.big = s.file(p, s.bigData)
	s.dup = s.file(p, bytes.Repeat(content(2, 1000), 6))
	old := unixfs.V0()
	old.ChunkSize = 1000
	s.old = s.file(old, content(3, 2500))
	var err error
	s.link, err = unixfs.BuildSymlink(p, "hello.txt", s.mem.put)
	s.must(err)
	s.page = s.file(p, []byte("<p>page</p>"))
	s.sub = s.dir(p, "page.html", s.page)
	s.index = s.file(p, []byte("<!doctype html><p>index</p>"))
	s.web = s.dir(p, "index.html", s.index)
	sharded := p
	sharded.ShardThreshold, sharded.ShardFanout = 1, 8
	var entries []any
	for i := range 200 {
		entries = append(entries, string([]byte{'0' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)}), s.hello)
	}
	s.many = s.dir(sharded, entries...)
	s.root = s.dir(p, "hello.txt", s.hello, "big.bin", s.big, "dup.bin", s.dup, "old.bin", s.old, "link", s.link,
		"sub", s.sub, "web", s.web, "many", s.many)
	s.serve()
	return s
}

// fill replaces {name} by the CID of that part of the site.
func (s *site) fill(text string) string {
	return strings.NewReplacer(
		"{root}", s.root.CID.String(), "{hello}", s.hello.CID.String(), "{big}", s.big.CID.String(), "{dup}", s.dup.CID.String(),
		"{old}", s.old.CID.String(), "{link}", s.link.CID.String(), "{sub}", s.sub.CID.String(), "{page}", s.page.CID.String(),
		"{web}", s.web.CID.String(), "{index}", s.index.CID.String(), "{many}", s.many.CID.String(),
		"{absent}", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
	).Replace(text)
}

const immutable = "Cache-Control: public, max-age=29030400, immutable"

// The Path Gateway: https://specs.ipfs.tech/http-gateways/path-gateway, by section.
func TestPathGateway(t *testing.T) {
	s := newSite(t)
	big := string(s.bigData)
	for _, tt := range []struct {
		section string
		request string
		headers []string
		code    int
		want    []string // headers; "Name: -" means that there is none, "Name: …x…" that it contains x
		body    string   // "~x" means that it contains x; "" that it does not matter, "-" that there is none
	}{
		// HTTP API
		{"GET /ipfs/{cid}/{path}", "GET /ipfs/{root}/hello.txt", nil, 200, []string{
			immutable, "Content-Type: text/plain; charset=utf-8", `Etag: "{hello}"`, "Content-Length: 14", "Accept-Ranges: bytes",
			"X-Ipfs-Path: /ipfs/{root}/hello.txt", "X-Ipfs-Roots: {root},{hello}", "Content-Disposition: -",
		}, "hello gateway\n"},
		{"GET /ipfs/{cid}", "GET /ipfs/{hello}", nil, 200, []string{immutable, `Etag: "{hello}"`}, "hello gateway\n"},
		{"GET of a file with leaves", "GET /ipfs/{big}", nil, 200, []string{"Content-Length: 10500"}, big},
		{"GET of a file of version 0", "GET /ipfs/{old}", nil, 200, []string{`Etag: "{old}"`}, string(content(3, 2500))},
		{"HEAD", "HEAD /ipfs/{root}/big.bin", nil, 200, []string{
			immutable, "Content-Length: 10500", `Etag: "{big}"`, "X-Ipfs-Roots: {root},{big}", "Content-Type: application/octet-stream",
		}, "-"},
		{"GET /ipns/{name}", "GET /ipns/example.org", nil, 501, nil, "~/ipfs/CID only"},
		{"other methods", "POST /ipfs/{hello}", nil, 405, nil, ""},

		// only-if-cached
		{"only-if-cached HEAD, cached", "HEAD /ipfs/{hello}", []string{"Cache-Control: only-if-cached"}, 200, nil, "-"},
		{"only-if-cached HEAD, not cached", "HEAD /ipfs/{absent}", []string{"Cache-Control: only-if-cached"}, 412, nil, "-"},
		{
			"only-if-cached GET, cached", "GET /ipfs/{hello}",
			[]string{"Cache-Control: only-if-cached"},
			200, nil, "hello gateway\n",
		},
		{
			"only-if-cached GET, not cached", "GET /ipfs/{absent}",
			[]string{"Cache-Control: max-age=0, only-if-cached"},
			412,
			[]string{"Etag: -", "X-Ipfs-Path: -"},
			"-",
		},

		// If-None-Match
		{
			"If-None-Match", "GET /ipfs/{root}/hello.txt",
			[]string{`If-None-Match: "{hello}"`},
			304,
			[]string{`Etag: "{hello}"`, immutable},
			"-",
		},
		{"If-None-Match, HEAD", "HEAD /ipfs/{root}/hello.txt", []string{`If-None-Match: W/"x", "{hello}"`}, 304, nil, "-"},
		{"If-None-Match, star", "GET /ipfs/{hello}", []string{`If-None-Match: *`}, 304, nil, "-"},
		{"If-None-Match, another", "GET /ipfs/{hello}", []string{`If-None-Match: "{big}"`}, 200, nil, "hello gateway\n"},
		{"If-None-Match, raw", "GET /ipfs/{hello}?format=raw", []string{`If-None-Match: "{hello}.raw"`}, 304, nil, "-"},
		{
			"If-None-Match, a file's for raw", "GET /ipfs/{hello}?format=raw",
			[]string{`If-None-Match: "{hello}"`},
			200, nil, "hello gateway\n",
		},

		// Range
		{"Range", "GET /ipfs/{big}", []string{"Range: bytes=990-1009"}, 206, []string{
			"Content-Range: bytes 990-1009/10500", "Content-Length: 20", immutable,
		}, big[990:1010]},
		{
			"Range, open", "GET /ipfs/{big}",
			[]string{"Range: bytes=10490-"},
			206,
			[]string{"Content-Range: bytes 10490-10499/10500"},
			big[10490:],
		},
		{
			"Range, suffix", "GET /ipfs/{big}",
			[]string{"Range: bytes=-5"},
			206,
			[]string{"Content-Range: bytes 10495-10499/10500"},
			big[10495:],
		},
		{
			"Range, suffix beyond", "GET /ipfs/{hello}",
			[]string{"Range: bytes=-500"},
			206,
			[]string{"Content-Range: bytes 0-13/14"},
			"hello gateway\n",
		},
		{
			"Range, end beyond", "GET /ipfs/{hello}",
			[]string{"Range: bytes=6-500"},
			206,
			[]string{"Content-Range: bytes 6-13/14"},
			"gateway\n",
		},
		{
			"Range, several", "GET /ipfs/{big}",
			[]string{"Range: bytes=0-3,5000-5003"},
			206,
			[]string{"Content-Type: …multipart/byteranges; boundary=…"},
			"~" + big[5000:5004],
		},
		{
			"Range, of a raw block", "GET /ipfs/{hello}?format=raw",
			[]string{"Range: bytes=0-4"},
			206,
			[]string{"Content-Range: bytes 0-4/14"},
			"hello",
		},
		{
			"Range, not satisfiable", "GET /ipfs/{hello}",
			[]string{"Range: bytes=14-"},
			416,
			[]string{"Content-Range: bytes */14"},
			"",
		},
		{
			"Range, If-Range of another", "GET /ipfs/{hello}",
			[]string{"Range: bytes=6-", `If-Range: "x"`},
			200, nil, "hello gateway\n",
		},
		{"Range, If-Range", "GET /ipfs/{hello}", []string{"Range: bytes=6-", `If-Range: "{hello}"`}, 206, nil, "gateway\n"},
		{"Range, another unit", "GET /ipfs/{hello}", []string{"Range: lines=1-2"}, 200, nil, "hello gateway\n"},

		// Service-Worker
		{"Service-Worker of a root", "GET /ipfs/{hello}", []string{"Service-Worker: script"}, 400, nil, ""},
		{"Service-Worker below", "GET /ipfs/{root}/hello.txt", []string{"Service-Worker: script"}, 200, nil, ""},

		// filename, download
		{"filename", "GET /ipfs/{hello}?filename=h%C3%A9.md", nil, 200, []string{
			`Content-Disposition: inline; filename="h_.md"; filename*=UTF-8''h%C3%A9.md`, "Content-Type: text/markdown; charset=utf-8",
		}, ""},
		{
			"download", "GET /ipfs/{hello}?filename=x.txt&download=true",
			nil, 200,
			[]string{"Content-Disposition: …attachment; filename=\"x.txt\"…"},
			"",
		},
		{
			"download without a name", "GET /ipfs/{hello}?download=true",
			nil, 200,
			[]string{"Content-Disposition: attachment"},
			"",
		},

		// format, Accept, Content-Location
		{
			"format before Accept", "GET /ipfs/{hello}?format=raw",
			[]string{"Accept: application/vnd.ipld.car"},
			200,
			[]string{"Content-Type: application/vnd.ipld.raw"},
			"hello gateway\n",
		},
		{
			"Content-Location", "GET /ipfs/{hello}",
			[]string{"Accept: application/vnd.ipld.raw"},
			200,
			[]string{"Content-Location: /ipfs/{hello}?format=raw"},
			"",
		},
		{
			"Content-Location, not when the URL says it", "GET /ipfs/{hello}?format=raw",
			nil, 200,
			[]string{"Content-Location: -"},
			"",
		},
		{"format that there is not", "GET /ipfs/{hello}?format=docx", nil, 406, nil, "~there are raw, car"},
		{
			"Accept that matches nothing", "GET /ipfs/{hello}",
			[]string{"Accept: text/html,*/*;q=0.8"},
			200, nil, "hello gateway\n",
		},

		// Response status codes
		{"404 no such name", "GET /ipfs/{root}/nope/x", nil, 404, nil, "~nope"},
		{"404 below a file", "GET /ipfs/{root}/hello.txt/x", nil, 404, nil, ""},
		{"404 missing root", "GET /ipfs/{absent}", nil, 404, nil, "~is not here"},
		{"400 no CID", "GET /ipfs/nocid", nil, 400, nil, "~is no CID"},
		{"400 hash that is not allowed", "GET /ipfs/bafkracqm6uplhn5vxhvq", nil, 400, nil, ""},

		// Location
		{"directory without slash", "GET /ipfs/{root}/sub", nil, 301, []string{"Location: /ipfs/{root}/sub/"}, ""},
		{"directory without slash, HEAD", "HEAD /ipfs/{root}/sub", nil, 301, []string{"Location: /ipfs/{root}/sub/"}, ""},
		{"superfluous namespace", "GET /ipfs/ipfs/{hello}", nil, 301, []string{"Location: /ipfs/{hello}"}, ""},

		// Response payload: directories
		{"directory", "GET /ipfs/{root}/", nil, 200, []string{
			"Content-Type: text/html", "Etag: …DirIndex-…", "Content-Security-Policy: …sandbox…", "X-Ipfs-Roots: {root}",
		}, "~hello.txt"},
		{"directory, HEAD", "HEAD /ipfs/{root}/", nil, 200, []string{"Content-Type: text/html"}, "-"},
		{
			"directory with index.html", "GET /ipfs/{root}/web/",
			nil, 200,
			[]string{"Content-Type: text/html"},
			"<!doctype html><p>index</p>",
		},
		{"range of index.html", "GET /ipfs/{root}/web/", []string{"Range: bytes=0-8"}, 206, nil, "<!doctype"},
		{"sharded directory", "GET /ipfs/{many}/", nil, 200, nil, "~137"},
		{
			"entry of a sharded directory", "GET /ipfs/{root}/many/137",
			nil, 200,
			[]string{"X-Ipfs-Roots: {root},{many},{hello}"},
			"hello gateway\n",
		},
		{"no such entry of a sharded directory", "GET /ipfs/{many}/300", nil, 404, nil, ""},
		{"symlink", "GET /ipfs/{root}/link", nil, 200, []string{"Content-Type: inode/symlink"}, "hello.txt"},
		{
			"TAR", "GET /ipfs/{sub}?format=tar",
			nil, 200,
			[]string{"Content-Type: application/x-tar", `Etag: W/"{sub}.x-tar"`},
			"~<p>page</p>",
		},
		{"JSON of a file is no conversion", "GET /ipfs/{sub}?format=dag-json", nil, 406, nil, ""},
	} {
		t.Run(tt.section, func(t *testing.T) {
			var headers []string
			for _, h := range tt.headers {
				headers = append(headers, s.fill(h))
			}
			for range 2 { // the second time it is known
				a := s.do(s.fill(tt.request), headers...)
				s.check(t, a, tt.code, tt.want)
				s.checkBody(t, a, tt.body)
			}
		})
	}
}

// check compares the status and headers of an answer.
func (s *site) check(t *testing.T, a answer, code int, want []string) {
	t.Helper()
	if a.err != nil {
		t.Fatal(a.err)
	}
	if a.code != code {
		t.Fatalf("status %d, want %d: %.300s", a.code, code, a.body)
	}
	for _, h := range want {
		name, value, _ := strings.Cut(s.fill(h), ": ")
		got := a.header.Get(name)
		switch {
		case value == "-":
			if got != "" {
				t.Errorf("%s: %s, want none", name, got)
			}
		case strings.HasPrefix(value, "…"):
			if !strings.Contains(got, strings.Trim(value, "…")) {
				t.Errorf("%s: %s, want one with %s", name, got, value)
			}
		case got != value:
			t.Errorf("%s: %s, want %s", name, got, value)
		}
	}
	if a.header.Get("X-Content-Type-Options") != "nosniff" && code != http.StatusPreconditionFailed {
		t.Error("the client may guess the type")
	}
}

func (s *site) checkBody(t *testing.T, a answer, want string) {
	t.Helper()
	got := string(a.body)
	switch part, some := strings.CutPrefix(want, "~"); {
	case want == "":
	case want == "-":
		if got != "" {
			t.Errorf("a body: %.200q", got)
		}
	case some:
		if !strings.Contains(got, part) {
			t.Errorf("body %.200q, want one with %.100q", got, part)
		}
	case got != want:
		t.Errorf("body of %d bytes %.100q, want %d bytes %.100q", len(got), got, len(want), want)
	}
}

// under returns the blocks below and with c, depth first, each as often as it comes.
func (s *site) under(t *testing.T, c cid.Cid) []cid.Cid {
	t.Helper()
	b, err := s.mem.Get(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	links, err := unixfs.Links(b)
	if err != nil {
		t.Fatal(err)
	}
	all := []cid.Cid{c}
	for _, l := range links {
		if !dray.IsIdentity(l) {
			all = append(all, s.under(t, l)...)
		}
	}
	return all
}

// leaf returns the blocks of /big.bin that hold the bytes [from, to), with those above them, depth first.
func (s *site) bytesOf(t *testing.T, c cid.Cid, from, to int64) []cid.Cid {
	t.Helper()
	b, err := s.mem.Get(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unixfs.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	all := []cid.Cid{c}
	at := int64(0)
	for _, l := range n.Links {
		if at < to && at+l.Size > from {
			all = append(all, s.bytesOf(t, l.CID, from-at, to-at)...)
		}
		at += l.Size
	}
	return all
}

// once leaves out what comes again.
func once(list []cid.Cid) (out []cid.Cid) {
	seen := make(map[cid.Cid]bool)
	for _, c := range list {
		if !seen[c] {
			out = append(out, c)
		}
		seen[c] = true
	}
	return out
}

// The Trustless Gateway: https://specs.ipfs.tech/http-gateways/trustless-gateway/, by section: blocks.
func TestTrustlessBlocks(t *testing.T) {
	s := newSite(t)
	node, err := s.mem.Get(t.Context(), s.big.CID)
	s.must(err)
	bin := `Content-Disposition: …attachment; filename="{big}.bin"…`
	for _, tt := range []struct {
		section string
		request string
		headers []string
		code    int
		want    []string
		body    string
	}{
		{
			"Accept raw MUST be supported", "GET /ipfs/{big}",
			[]string{"Accept: application/vnd.ipld.raw"},
			200,
			[]string{"Content-Type: application/vnd.ipld.raw", bin, `Etag: "{big}.raw"`, immutable},
			string(node.Data()),
		},
		{
			"format=raw", "GET /ipfs/{big}?format=raw",
			nil, 200,
			[]string{"Content-Type: application/vnd.ipld.raw", bin},
			string(node.Data()),
		},
		{"HEAD", "HEAD /ipfs/{hello}?format=raw", nil, 200, []string{"Content-Length: 14", `Etag: "{hello}.raw"`}, "-"},
		{"404 missing block", "GET /ipfs/{absent}?format=raw", nil, 404, nil, ""},
		{"404 missing block, HEAD", "HEAD /ipfs/{absent}?format=raw", nil, 404, nil, "-"},
		{"404 missing block, CAR", "GET /ipfs/{absent}?format=car", nil, 404, nil, ""},
		{"404 missing block, HEAD of a CAR", "HEAD /ipfs/{absent}?format=car", nil, 404, nil, "-"},
		{"only-if-cached", "GET /ipfs/{absent}?format=raw", []string{"Cache-Control: only-if-cached"}, 412, nil, "-"},
		{"probe", "GET /ipfs/bafkqaaa?format=raw", nil, 200, []string{"Content-Length: 0"}, "-"},
		{"probe by Accept", "GET /ipfs/bafkqaaa", []string{"Accept: application/vnd.ipld.raw"}, 200, nil, "-"},
		{"probe by HEAD", "HEAD /ipfs/bafkqaaa?format=raw", nil, 200, nil, "-"},
		{"another identity CID", "GET /ipfs/bafkqac3imvwgy3zao5xxe3de?format=raw", nil, 200, nil, "hello world"},
		{
			"filename", "GET /ipfs/{hello}?format=raw&filename=a.bin",
			nil, 200,
			[]string{`Content-Disposition: …attachment; filename="a.bin"…`},
			"",
		},
	} {
		t.Run(tt.section, func(t *testing.T) {
			a := s.do(s.fill(tt.request), tt.headers...)
			s.check(t, a, tt.code, tt.want)
			s.checkBody(t, a, tt.body)
		})
	}
}

// The Trustless Gateway: CARs. The blocks are compared in order.
func TestTrustlessCARs(t *testing.T) {
	s := newSite(t)
	way := []cid.Cid{s.root.CID}
	all := func(c cid.Cid) []cid.Cid { return s.under(t, c) }
	part := func(from, to int64) []cid.Cid { return once(s.bytesOf(t, s.big.CID, from, to)) }
	join := func(lists ...[]cid.Cid) (out []cid.Cid) {
		for _, l := range lists {
			out = append(out, l...)
		}
		return out
	}
	for _, tt := range []struct {
		section string
		request string
		headers []string
		want    []string
		root    cid.Cid
		blocks  []cid.Cid
	}{
		{"format=car", "GET /ipfs/{big}?format=car", nil, []string{
			"Content-Type: application/vnd.ipld.car; version=1; order=dfs; dups=n", "X-Content-Type-Options: nosniff",
			`Content-Disposition: …attachment; filename="{big}.car"…`, "Accept-Ranges: none", "Etag: …{big}.car…", immutable,
		}, s.big.CID, once(all(s.big.CID))},
		{
			"Accept with parameters", "GET /ipfs/{big}",
			[]string{"Accept: application/vnd.ipld.car; version=1; order=dfs; dups=y"},
			[]string{
				"Content-Type: application/vnd.ipld.car; version=1; order=dfs; dups=y", "Content-Location: …format=car…",
			},
			s.big.CID, all(s.big.CID),
		},
		{
			"Accept by weight", "GET /ipfs/{hello}",
			[]string{"Accept: application/vnd.ipld.raw;q=0.5, application/vnd.ipld.car;dups=y"},
			[]string{"Content-Type: application/vnd.ipld.car; version=1; order=dfs; dups=y"},
			s.hello.CID,
			[]cid.Cid{s.hello.CID},
		},
		{
			"Accept in several headers", "GET /ipfs/{hello}",
			[]string{"Accept: text/html", "Accept: application/vnd.ipld.car"},
			nil, s.hello.CID,
			[]cid.Cid{s.hello.CID},
		},
		{
			"car-dups before Accept", "GET /ipfs/{dup}?format=car&car-dups=y",
			[]string{"Accept: application/vnd.ipld.car; dups=n"},
			[]string{"Content-Type: …dups=y…"},
			s.dup.CID, all(s.dup.CID),
		},
		{
			"dups=n", "GET /ipfs/{dup}?format=car&car-dups=n",
			nil,
			[]string{"Content-Type: …dups=n…"},
			s.dup.CID, once(all(s.dup.CID)),
		},
		{"car-version", "GET /ipfs/{hello}?format=car&car-version=1", nil, nil, s.hello.CID, []cid.Cid{s.hello.CID}},
		{
			"order=unk", "GET /ipfs/{big}?format=car&car-order=unk",
			nil,
			[]string{"Content-Type: …order=unk…"},
			s.big.CID, once(all(s.big.CID)),
		},

		{"dag-scope=all is the default", "GET /ipfs/{root}?format=car", nil, nil, s.root.CID, once(all(s.root.CID))},
		{"dag-scope=all", "GET /ipfs/{root}/sub?format=car&dag-scope=all", nil, nil, s.sub.CID, join(way, all(s.sub.CID))},
		{
			"dag-scope=block", "GET /ipfs/{root}/big.bin?format=car&dag-scope=block",
			nil, nil, s.big.CID, join(way, []cid.Cid{s.big.CID}),
		},
		{
			"dag-scope=entity of a file", "GET /ipfs/{root}/big.bin?format=car&dag-scope=entity",
			nil, nil, s.big.CID, join(way, once(all(s.big.CID))),
		},
		{"dag-scope=entity of a directory", "GET /ipfs/{root}?format=car&dag-scope=entity", nil, nil, s.root.CID, way},
		{
			"dag-scope=entity of a sharded directory", "GET /ipfs/{many}?format=car&dag-scope=entity",
			nil, nil, s.many.CID, s.shards(t, s.many.CID),
		},
		{
			"dag-scope=entity of a symlink", "GET /ipfs/{root}/link?format=car&dag-scope=entity",
			nil, nil, s.link.CID, join(way, []cid.Cid{s.link.CID}),
		},

		{
			"entity-bytes implies entity", "GET /ipfs/{big}?format=car&entity-bytes=0:*",
			nil, nil, s.big.CID, once(all(s.big.CID)),
		},
		{"entity-bytes", "GET /ipfs/{big}?format=car&entity-bytes=999:1000", nil, nil, s.big.CID, part(999, 1001)},
		{
			"entity-bytes, one byte", "GET /ipfs/{big}?format=car&entity-bytes=4000:4000",
			nil, nil, s.big.CID, part(4000, 4001),
		},
		{
			"entity-bytes, the last", "GET /ipfs/{big}?format=car&entity-bytes=-1024:*",
			nil, nil, s.big.CID, part(10_500-1024, 10_500),
		},
		{
			"entity-bytes, to from the end", "GET /ipfs/{big}?format=car&entity-bytes=499:-1000",
			nil, nil, s.big.CID, part(499, 9501),
		},
		{
			"entity-bytes, both from the end", "GET /ipfs/{big}?format=car&entity-bytes=-2000:-1000",
			nil, nil, s.big.CID, part(8500, 9501),
		},
		{
			"entity-bytes, partly beyond the end", "GET /ipfs/{big}?format=car&entity-bytes=10000:99999",
			nil, nil, s.big.CID, part(10000, 10500),
		},
		{
			"entity-bytes, partly before", "GET /ipfs/{big}?format=car&entity-bytes=-99999:10",
			nil, nil, s.big.CID, part(0, 11),
		},
		{
			"entity-bytes, no length", "GET /ipfs/{big}?format=car&entity-bytes=5000:-9000",
			nil, nil, s.big.CID,
			[]cid.Cid{s.big.CID},
		},
		{"entity-bytes of a directory", "GET /ipfs/{root}?format=car&entity-bytes=0:100", nil, nil, s.root.CID, way},
		{
			"entity-bytes of a raw block", "GET /ipfs/{hello}?format=car&entity-bytes=2:3",
			nil, nil, s.hello.CID,
			[]cid.Cid{s.hello.CID},
		},
		{
			"entity-bytes of version 0", "GET /ipfs/{old}?format=car&entity-bytes=1500:1600", nil, nil, s.old.CID,
			once(s.bytesOf(t, s.old.CID, 1500, 1601)),
		},

		{
			"path through a sharded directory", "GET /ipfs/{root}/many/137?format=car", nil, nil, s.hello.CID,
			join(way, s.shardsTo(t, "137"), []cid.Cid{s.hello.CID}),
		},
		{"a name that there is not", "GET /ipfs/{root}/nope?format=car", nil, nil, probe, way},
		{"probe", "GET /ipfs/bafkqaaa?format=car", nil, nil, probe, nil},
	} {
		t.Run(tt.section, func(t *testing.T) {
			a := s.do(s.fill(tt.request), tt.headers...)
			s.check(t, a, http.StatusOK, tt.want)
			roots, blocks := a.car(t)
			if len(roots) != 1 || roots[0] != tt.root {
				t.Errorf("roots %v, want %v", roots, tt.root)
			}
			if !equal(blocks, tt.blocks) {
				t.Errorf("%d blocks\n%v\nwant %d\n%v", len(blocks), blocks, len(tt.blocks), tt.blocks)
			}
		})
	}
}

var probe = cid.MustParse("bafkqaaa")

func equal(a, b []cid.Cid) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// shards returns the blocks of a sharded directory, depth first.
func (s *site) shards(t *testing.T, c cid.Cid) []cid.Cid {
	t.Helper()
	b, err := s.mem.Get(t.Context(), c)
	s.must(err)
	n, err := unixfs.Parse(b)
	s.must(err)
	all := []cid.Cid{c}
	for _, l := range n.Links {
		if l.Name == "" {
			all = append(all, s.shards(t, l.CID)...)
		}
	}
	return all
}

// shardsTo returns the blocks on the way to a name.
func (s *site) shardsTo(t *testing.T, name string) (way []cid.Cid) {
	t.Helper()
	r := unixfs.NewResolve(s.many.CID, []string{name})
	for !r.Done() {
		way = append(way, r.Need())
		b, err := s.mem.Get(t.Context(), r.Need())
		s.must(err)
		s.must(r.Feed(b))
	}
	return way
}

// CARs that are refused, and what an Etag must tell apart.
func TestTrustlessCARRules(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		section, request string
		code             int
	}{
		{"entity-bytes outside", "GET /ipfs/{big}?format=car&entity-bytes=10500:*", 400},
		{"entity-bytes of one number", "GET /ipfs/{big}?format=car&entity-bytes=5", 400},
		{"entity-bytes of three", "GET /ipfs/{big}?format=car&entity-bytes=1:2:3", 400},
		{"entity-bytes backwards", "GET /ipfs/{big}?format=car&entity-bytes=5:4", 400},
		{"entity-bytes that overflows", "GET /ipfs/{big}?format=car&entity-bytes=0:9223372036854775808", 400},
		{"dag-scope that there is not", "GET /ipfs/{big}?format=car&dag-scope=some", 400},
		{"car-version=2", "GET /ipfs/{big}?format=car&car-version=2", 400},
		{"car-order that there is not", "GET /ipfs/{big}?format=car&car-order=bfs", 400},
		{"car-dups that there is not", "GET /ipfs/{big}?format=car&car-dups=maybe", 400},
	} {
		t.Run(tt.section, func(t *testing.T) {
			s.check(t, s.do(s.fill(tt.request)), tt.code, nil)
		})
	}
	etags := make(map[string]string)
	for _, request := range []string{
		"GET /ipfs/{root}/big.bin?format=car", "GET /ipfs/{root}/big.bin?format=car&dag-scope=entity",
		"GET /ipfs/{root}/big.bin?format=car&dag-scope=block", "GET /ipfs/{root}/big.bin?format=car&entity-bytes=0:10",
		"GET /ipfs/{root}/big.bin?format=car&entity-bytes=0:11", "GET /ipfs/{root}/big.bin?format=car&car-dups=y",
		"GET /ipfs/{root}/hello.txt?format=car", "GET /ipfs/{root}/big.bin?format=raw", "GET /ipfs/{root}/big.bin",
	} {
		a := s.do(s.fill(request))
		etag := a.header.Get("Etag")
		if other, twice := etags[etag]; twice || etag == "" {
			t.Errorf("%s has the Etag %q of %s", request, etag, other)
		}
		etags[etag] = request
		if again := s.do(s.fill(request), "If-None-Match: "+etag); again.code != http.StatusNotModified || len(again.body) > 0 {
			t.Errorf("%s, unchanged: status %d, %d bytes", request, again.code, len(again.body))
		}
	}
}

// A gateway that is trustless serves only what can be verified.
func TestTrustlessOnly(t *testing.T) {
	s := newSite(t)
	s.cfg.Trustless = true
	s.serve()
	for request, code := range map[string]int{
		"GET /ipfs/{hello}": 406, "GET /ipfs/{root}/": 406, "GET /ipfs/{root}/hello.txt": 406, "GET /ipfs/{root}?format=tar": 406,
		"GET /ipfs/{hello}?format=raw": 200, "HEAD /ipfs/{hello}?format=raw": 200, "GET /ipfs/{root}/hello.txt?format=car": 200,
	} {
		s.check(t, s.do(s.fill(request)), code, nil)
	}
}
