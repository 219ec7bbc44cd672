package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
	h := testHouse(t, t.TempDir(), access{network: true})
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

// TestAnnouncedInTheDHT: open roots of a daemon are found in the DHT by others, also one that is added later; what is private, or was
// removed before it was announced, is not.
func TestAnnouncedInTheDHT(t *testing.T) {
	t.Setenv("DRAY_REACH_LAN", "false")
	t.Setenv("DRAY_REACH_MAP_PORTS", "false")
	open := func() *house { return testHouse(t, t.TempDir(), onLoopback()) }
	add := func(h *house, name string, q addRequest) cid.Cid {
		q.Path = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(q.Path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := taskAdd.do(t.Context(), h, q, pipes[addNote]{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := cid.Decode(r.CID)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := open(), open()
	first, private := add(a, "first", addRequest{}), add(a, "private", addRequest{Share: sharePrivate})
	ctx, cancel := context.WithCancel(t.Context())
	end := a.startAnnouncing(ctx)
	defer func() { cancel(); end() }()
	if err := b.node.Connect(t.Context(), transport.Peer{ID: a.finders.self, Addrs: a.node.Addrs()}); err != nil {
		t.Fatal(err)
	}
	finds := func(c cid.Cid) (found bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_ = b.net.Routing().Find(ctx, c, func(p transport.Peer) { found = found || p.ID == a.finders.self })
		return found
	}
	await := func(c cid.Cid, what string) {
		for until := time.Now().Add(30 * time.Second); !finds(c); {
			if time.Now().After(until) {
				t.Fatalf("what was %s is not in the DHT", what)
			}
			_ = pause(t.Context(), 100*time.Millisecond)
		}
	}
	await(first, "there at first")
	await(add(a, "later", addRequest{}), "added later")
	if finds(private) {
		t.Error("what is private is in the DHT")
	}
	if list, err := a.openRoots(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("open are %v, %v", list, err)
	}
}
