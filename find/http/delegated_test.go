package delegated

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/server"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"dray"
)

const (
	ann = "12D3KooWBM4Jsizqz4XCWToRDHaA7pc3fcwsPxSK8ensnkhBc1td"
	bob = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
	cat = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
)

func id(t *testing.T, s string) dray.PeerID {
	p, err := dray.ParsePeerID(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func root(name string) cid.Cid {
	b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, 0x12), []byte(name))
	if err != nil {
		panic(err)
	}
	return b.CID()
}

// serving returns a server that knows two providers of the root film, and where ann is.
func serving(t *testing.T) *httptest.Server {
	records := []Record{
		{ID: id(t, ann), Addrs: []string{"/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.7/udp/4001/quic-v1"}, Protocols: []string{Bitswap}},
		{ID: id(t, bob), Addrs: []string{"/dns4/example.org/tcp/443/wss"}},
		{ID: id(t, cat), Addrs: []string{"/ip4/192.0.2.8/tcp/1"}, Protocols: []string{"transport-ipfs-gateway-http"}},
	}
	s := NewServer(ServerConfig{
		Providers: func(r *http.Request, c cid.Cid, each func(Record) bool) error {
			switch c {
			case root("film"):
				for _, x := range records {
					if !each(x) {
						break
					}
				}
			case root("broken"):
				return errors.New("no memory of that")
			}
			return nil
		},
		Peer: func(_ *http.Request, p dray.PeerID) (Record, bool) { return records[0], p == records[0].ID },
	})
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return ts
}

func newClient(t *testing.T, cfg ClientConfig) *Client {
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

// TestBoxosClient: boxo's client understands the server, in JSON and in streams, with filters and without results.
func TestBoxosClient(t *testing.T) {
	ts := serving(t)
	for name, opts := range map[string][]client.Option{
		"either": nil, "stream": {client.WithStreamResultsRequired()},
		"all": {client.WithProtocolFilter(nil), client.WithDisabledLocalFiltering(true)},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := client.New(ts.URL, opts...)
			if err != nil {
				t.Fatal(err)
			}
			it, err := b.FindProviders(t.Context(), root("film"))
			if err != nil {
				t.Fatal(err)
			}
			defer it.Close()
			var got []string
			for it.Next() {
				x := it.Val()
				if x.Err != nil {
					t.Fatal(x.Err)
				}
				r := x.Val.(*types.PeerRecord)
				got = append(got, fmt.Sprintf("%v %v %v", r.ID, r.Addrs, r.Protocols))
			}
			want := []string{
				ann + " [/ip4/192.0.2.7/tcp/4001 /ip4/192.0.2.7/udp/4001/quic-v1] [transport-bitswap]",
				bob + " [/dns4/example.org/tcp/443/wss] []",
			}
			if name == "all" {
				if len(got) != 3 || !reflect.DeepEqual(got[:2], want) {
					t.Errorf("got %q", got)
				}
			} else if !reflect.DeepEqual(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			it, err = b.FindProviders(t.Context(), root("book"))
			if err != nil {
				t.Fatal(err)
			}
			if it.Next() {
				t.Error("a provider of what nobody has")
			}
			it.Close()
			if _, err = b.FindProviders(t.Context(), root("broken")); err == nil {
				t.Error("no error")
			}
			p, err := peer.Decode(ann)
			if err != nil {
				t.Fatal(err)
			}
			peers, err := b.FindPeers(t.Context(), p)
			if err != nil || !peers.Next() || peers.Val().Val.ID.String() != ann {
				t.Errorf("where ann is: %v", err)
			} else {
				peers.Close()
			}
		})
	}
}

// boxoRouter is what boxo's server serves in the test.
type boxoRouter struct {
	server.DelegatedRouter
	asked atomic.Int32
}

func (b *boxoRouter) FindProviders(_ context.Context, c cid.Cid, _ int) (iter.ResultIter[types.Record], error) {
	b.asked.Add(1)
	var list []iter.Result[types.Record]
	if c == root("film") {
		for _, s := range []string{ann, bob} {
			p, err := peer.Decode(s)
			if err != nil {
				return nil, err
			}
			a := multiaddr.StringCast("/ip4/192.0.2.7/tcp/4001/p2p/" + s)
			list = append(list, iter.Result[types.Record]{Val: &types.PeerRecord{
				Schema: types.SchemaPeer, ID: &p, Addrs: []types.Multiaddr{{Multiaddr: a}}, Protocols: []string{Bitswap},
			}})
		}
	}
	return iter.FromSlice(list), nil
}

func (b *boxoRouter) FindPeers(_ context.Context, p peer.ID, _ int) (iter.ResultIter[*types.PeerRecord], error) {
	return iter.FromSlice([]iter.Result[*types.PeerRecord]{{Val: &types.PeerRecord{
		Schema: types.SchemaPeer, ID: &p, Addrs: []types.Multiaddr{{Multiaddr: multiaddr.StringCast("/ip4/192.0.2.9/tcp/1")}},
	}}}), nil
}

// TestBoxosServer: the client understands boxo's server, and asks it once for as long as the answer may be kept.
func TestBoxosServer(t *testing.T) {
	r := &boxoRouter{}
	for _, opts := range [][]server.Option{nil, {server.WithStreamingResultsDisabled()}} {
		ts := httptest.NewServer(server.Handler(r, opts...))
		defer ts.Close()
		r.asked.Store(0)
		c := newClient(t, ClientConfig{URL: ts.URL + "/routing/v1/"})
		want := []Record{
			{ID: id(t, ann), Addrs: []string{"/ip4/192.0.2.7/tcp/4001"}, Protocols: []string{Bitswap}},
			{ID: id(t, bob), Addrs: []string{"/ip4/192.0.2.7/tcp/4001"}, Protocols: []string{Bitswap}},
		}
		for range 3 {
			var got []Record
			if err := c.Providers(t.Context(), root("film"), func(x Record) { got = append(got, x) }); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v", got)
			}
			if err := c.Providers(t.Context(), root("book"), func(Record) { t.Error("found") }); err != nil {
				t.Error(err)
			}
		}
		if n := r.asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		n := 0
		if err := c.Peers(t.Context(), id(t, ann), func(x Record) { n += len(x.Addrs) }); err != nil || n != 1 {
			t.Errorf("%d addresses of ann: %v", n, err)
		}
	}
}

// TestServerSays checks status, headers and bodies against the specification's.
func TestServerSays(t *testing.T) {
	ts := serving(t)
	film := "/routing/v1/providers/" + root("film").String()
	for name, row := range map[string]struct {
		method, path, accept string
		code                 int
		kind, cache, body    string
	}{
		"json":               {path: film, code: 200, kind: typeJSON, cache: "public, max-age=300, ", body: `{"Providers":[{"Schema":"peer","ID":"` + ann},
		"stream":             {path: film, accept: typeStream, code: 200, kind: typeStream, cache: "public, max-age=300, ", body: `{"Schema":"peer","ID":"` + ann},
		"both, stream first": {path: film, accept: typeStream + "," + typeJSON, code: 200, kind: typeStream},
		"both, by weight":    {path: film, accept: typeStream + ";q=0.1," + typeJSON, code: 200, kind: typeJSON},
		"anything":           {path: film, accept: "text/html, */*;q=0.1", code: 200, kind: typeJSON},
		"nothing that is":    {path: film, accept: "text/html", code: 406},
		"none":               {path: "/routing/v1/providers/" + root("x").String(), code: 200, cache: "public, max-age=15, ", body: `{"Providers":[]}`},
		"none, stream":       {path: "/routing/v1/providers/" + root("x").String(), accept: typeStream, code: 200, kind: typeStream},
		"no CID":             {path: "/routing/v1/providers/nonsense", code: 400, cache: "no-store", body: `"nonsense" is no CID`},
		"bad hash":           {path: "/routing/v1/providers/bafkqaaa", code: 200},
		"its fault":          {path: "/routing/v1/providers/" + root("broken").String(), code: 500, body: "no memory"},
		"by protocol":        {path: film + "?filter-protocols=transport-ipfs-gateway-http", code: 200, body: `"Addrs":["/ip4/192.0.2.8/tcp/1"]`},
		"by address":         {path: film + "?filter-addrs=!tcp", code: 200, body: `"Addrs":["/ip4/192.0.2.7/udp/4001/quic-v1"]`},
		"too many filters":   {path: film + "?filter-addrs=" + strings.Repeat("a,", 99), code: 400},
		"peer":               {path: "/routing/v1/peers/" + ann, code: 200, body: `{"Peers":[{"Schema":"peer"`},
		"peer by CID":        {path: "/routing/v1/peers/" + cid.NewCidV1(keyCodec, []byte(id(t, ann))).String(), code: 200, body: ann},
		"another peer":       {path: "/routing/v1/peers/" + bob, code: 200, body: `{"Peers":[]}`},
		"no peer":            {path: "/routing/v1/peers/" + root("x").String(), code: 400},
		"names":              {path: "/routing/v1/ipns/" + ann, code: 501},
		"publish":            {method: "PUT", path: "/routing/v1/providers", code: 404},
		"write":              {method: "PUT", path: film, code: 405},
		"preflight":          {method: "OPTIONS", path: film, code: 204},
		"head":               {method: "HEAD", path: film, code: 200},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := http.NewRequestWithContext(t.Context(), row.method, ts.URL+row.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if row.accept != "" {
				q.Header.Set("Accept", row.accept)
			}
			resp, err := ts.Client().Do(q)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			h := resp.Header
			if resp.StatusCode != row.code || !strings.Contains(string(body), row.body) ||
				!strings.HasPrefix(h.Get("Content-Type"), row.kind) || !strings.HasPrefix(h.Get("Cache-Control"), row.cache) {
				t.Errorf("%s %v %s", resp.Status, h, body)
			}
			if h.Get("Access-Control-Allow-Origin") != "*" || row.code == 200 && h.Get("Vary") != "Accept" {
				t.Errorf("headers %v", h)
			}
		})
	}
}

// TestRouterMisbehaves: what a router does wrong is an error that says so, and costs no more than it may.
func TestRouterMisbehaves(t *testing.T) {
	answer := func(code int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	one := `{"Schema":"peer","ID":"` + ann + `","Addrs":["/ip4/192.0.2.7/tcp/1","junk","/ip4/1.1.1.1/tcp/1/p2p/` + bob + `"]}`
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		err     string
		found   int
	}{
		"none":             {handler: answer(404, "text/plain", "not found")},
		"an old one":       {handler: answer(200, typeJSON, `{"Providers":null}`)},
		"error":            {handler: answer(500, "text/plain", "on fire"), err: "500 Internal Server Error"},
		"html":             {handler: answer(200, "text/html", "<p>"), err: "text/html"},
		"no type":          {handler: answer(200, "", "{}"), err: "type"},
		"no JSON":          {handler: answer(200, typeJSON, "{"), err: "unexpected end"},
		"other schemas":    {handler: answer(200, typeStream, `{"Schema":"sonnet"}`+"\n"+one), found: 1},
		"older schema":     {handler: answer(200, typeStream, `{"Schema":"bitswap","Protocol":"transport-bitswap","ID":"`+ann+`"}`), found: 1},
		"another protocol": {handler: answer(200, typeStream, `{"Schema":"bitswap","Protocol":"transport-x","ID":"`+ann+`"}`)},
		"no id":            {handler: answer(200, typeStream, one+"\n"+`{"Schema":"peer","ID":"x"}`), err: "no peer id", found: 1},
		"too many":         {handler: answer(200, typeStream, strings.Repeat(one+"\n", 500)), found: 100},
		"too long":         {handler: answer(200, typeStream, strings.Repeat(one+"\n", 20000)), err: "too large", found: 100},
		"one long line":    {handler: answer(200, typeStream, strings.Repeat("x", 300<<10)), err: "too long"},
		"dumb":             {handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, err: "not answered within 2s"},
	} {
		t.Run(name, func(t *testing.T) {
			ts := httptest.NewServer(row.handler)
			defer ts.Close()
			c := newClient(t, ClientConfig{URL: ts.URL, Timeout: 2 * time.Second, Cached: -1})
			n := 0
			err := c.Providers(t.Context(), root("film"), func(x Record) {
				if n++; x.ID != id(t, ann) || len(x.Addrs) > 1 {
					t.Errorf("found %+v", x)
				}
			})
			if n != row.found || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("found %d, %v", n, err)
			}
		})
	}
}

// TestRest: a router that fails again and again is left alone for a while, and then asked again.
func TestRest(t *testing.T) {
	var asked atomic.Int32
	var well atomic.Bool
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if !well.Load() {
			w.WriteHeader(500)
			return
		}
		w.Header().Set("Content-Type", typeJSON)
		io.WriteString(w, `{"Providers":[]}`)
	}))
	defer ts.Close()
	c := newClient(t, ClientConfig{URL: ts.URL, Failures: 3, Pause: 300 * time.Millisecond, Cached: -1})
	ask := func() error { return c.Providers(t.Context(), root("film"), func(Record) {}) }
	for range 10 {
		if err := ask(); err == nil {
			t.Error("no error")
		}
	}
	if n := asked.Load(); n != 3 || !errors.Is(ask(), ErrResting) {
		t.Errorf("asked %d times", n)
	}
	well.Store(true)
	deadline := time.After(10 * time.Second)
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if ask() == nil {
			tick.Stop()
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it is never asked again")
		}
	}
	// Who loses interest does not count against the router.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 9 {
		c.Providers(ctx, root("film"), func(Record) {})
	}
	if err := ask(); err != nil {
		t.Error(err)
	}
}

// TestURLs: which URLs are a router's, and what is asked of it.
func TestURLs(t *testing.T) {
	for s, want := range map[string]string{
		"https://r.example":                "https://r.example/routing/v1/",
		"https://r.example/":               "https://r.example/routing/v1/",
		"https://r.example/routing/v1":     "https://r.example/routing/v1/",
		"http://r.example:1/x/routing/v1/": "http://r.example:1/x/routing/v1/",
		"ftp://r.example":                  "", "r.example": "", "https://": "", "https://r.example?a=b": "", "http://r.example/%zz": "",
	} {
		c, err := NewClient(ClientConfig{URL: s})
		if (err == nil) != (want != "") || err == nil && c.url.String() != want {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string]time.Duration{
		"public, max-age=300": 300 * time.Second, "max-age=\"20\"": 20 * time.Second, "no-store, max-age=300": 0, "": 0, "max-age=x": 0,
		"max-age=999999999": time.Hour,
	} {
		if got := freshness(http.Header{"Cache-Control": {s}}); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
	if got := freshness(http.Header{"Cache-Control": {"max-age=300"}, "Age": {"100"}}); got != 200*time.Second {
		t.Errorf("with an age: %v", got)
	}
}

// FuzzRecord: what is read of a record is written and read as the same again.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"Schema":"peer","ID":"` + ann + `","Addrs":["/ip4/192.0.2.7/tcp/1"],"Protocols":["transport-bitswap"]}`))
	f.Add([]byte(`{"Schema":"bitswap","ID":"` + bob + `","Protocol":"transport-bitswap"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		again, err := parseRecord(appendRecord(nil, &r))
		if err != nil || again.ID != r.ID || len(again.Addrs) != len(r.Addrs) || len(again.Protocols) != len(r.Protocols) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
