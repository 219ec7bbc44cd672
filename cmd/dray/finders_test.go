package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
	rules "dray/access"
	"dray/transport"
)

// TestPrivateIsNotAskedOutside: a router is asked about what is open, and never about what is private here.
func TestPrivateIsNotAskedOutside(t *testing.T) {
	var asked atomic.Int32
	router := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"Providers":[{"Schema":"peer","ID":"12D3KooWBM4Jsizqz4XCWToRDHaA7pc3fcwsPxSK8ensnkhBc1td",`+
			`"Addrs":["/ip4/127.0.0.1/tcp/1","/ip4/169.254.169.254/tcp/80"]}]}`)
	}))
	defer router.Close()
	t.Setenv("DRAY_FIND_ROUTERS", router.URL)
	t.Setenv("DRAY_REACH_LAN", "false")
	h, err := openHouse(&env{stdout: io.Discard, stderr: io.Discard, quiet: true}, t.TempDir(), access{network: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	root := func(name string) cid.Cid {
		b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, 0x12), []byte(name))
		if err != nil {
			t.Fatal(err)
		}
		return b.CID()
	}
	private, open := root("private"), root("open")
	if err := h.keep(t.Context(), target{root: private, secret: rules.Secret{1}}); err != nil {
		t.Fatal(err)
	}
	for c, want := range map[cid.Cid]int32{private: 0, open: 1} {
		asked.Store(0)
		found := int32(0)
		err := h.finders.Find(t.Context(), c, func(p transport.Peer) {
			if found++; strings.Join(p.Addrs, " ") != "/ip4/127.0.0.1/tcp/1" {
				t.Errorf("found at %q", p.Addrs)
			}
		})
		if err != nil || asked.Load() != want || found != want {
			t.Errorf("asked %d times, found %d, want %d: %v", asked.Load(), found, want, err)
		}
	}
}

// TestPlaces: where a router or a client is, as multiaddrs say it.
func TestPlaces(t *testing.T) {
	for router, want := range map[string]string{
		"http://127.0.0.1:80/x": "/ip4/127.0.0.1", "https://r.example": "/dns/r.example", "http://[::1]:1": "/ip6/::1",
		"http://localhost:1": "/ip4/127.0.0.1", "http://10.0.0.1": "/ip4/10.0.0.1", "http://[::ffff:10.0.0.1]": "/ip4/10.0.0.1",
	} {
		if got := placeOf(router); got != want {
			t.Errorf("%s is at %s", router, got)
		}
	}
	for remote, want := range map[string]string{"10.0.0.1:5": "/ip4/10.0.0.1", "[fe80::1%eth0]:5": "/ip6/fe80::1", "pipe": "", "": ""} {
		if got := clientPlace(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%q is at %q", remote, got)
		}
	}
}
