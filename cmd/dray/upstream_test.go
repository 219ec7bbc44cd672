package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/hub/mirror/mirrortest"
	"dray/node"
	"dray/settings"
)

// startMirrors starts daemons with an upstream, each connected to those before.
func startMirrors(t *testing.T, up *mirrortest.Hub, n int) []*hubHost {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DRAY_UPSTREAM_URL", up.URL)
	var list []*hubHost
	for i := range n {
		list = append(list, startHub(t, filepath.Join(dir, fmt.Sprint("home", i)), list...))
	}
	return list
}

func upstreamHub(t *testing.T, files map[string][]byte) *mirrortest.Hub {
	t.Helper()
	up := mirrortest.New("org/model", files)
	t.Cleanup(up.Close)
	return up
}

// Three daemons have the same upstream, which sends everything once; then it is gone, and one of them starts again.
func TestUpstream(t *testing.T) {
	files := map[string][]byte{
		"config.json": []byte(`{"a":1}`), "empty": {}, "big.bin": noise(5, 20<<20+7), "sub/dir/other.bin": noise(6, 3<<20),
	}
	up := upstreamHub(t, files)
	list := startMirrors(t, up, 3)
	download := func(h *hubHost) {
		for path, want := range files {
			resp, got := h.get("/org/model/resolve/main/" + path)
			if resp.StatusCode != 200 || !bytes.Equal(got, want) || resp.Header.Get("X-Repo-Commit") != mirrortest.Commit {
				t.Errorf("%s: %s, %d bytes of %d", path, resp.Status, len(got), len(want))
			}
		}
	}
	var wg sync.WaitGroup
	for _, h := range list {
		wg.Go(func() { download(h) })
	}
	wg.Wait()
	if err := up.Once(); err != nil {
		t.Error(err)
	}
	var came int64 // as the pages of all nodes show it
	for _, h := range list {
		for _, x := range h.house.node.Transfers().Ended {
			for _, g := range x.Gifts {
				if g.Kind == node.GiftOrigin && x.Kind == node.KindOutside && x.Origin.Who == "upstream" && g.Name != "" {
					came += g.Bytes
				}
			}
		}
	}
	if came != up.Size() {
		t.Errorf("%d bytes of %d are shown as the upstream's", came, up.Size())
	}
	list[0].wants("/org/other/resolve/main/x", 404, "RepoNotFound")
	list[0].wants("/org/model/resolve/v7/x", 404, "RevisionNotFound")
	list[0].wants("/org/model/resolve/main/nothing", 404, "EntryNotFound")
	list[0].wants("/org/model/resolve/main/..%2f..%2fetc/passwd", 404, "EntryNotFound")
	up.Set(func() { up.Down = true })
	for _, h := range list {
		h.stop()
	}
	again := startHub(t, list[1].home)
	download(again)
	if resp, body := again.get("/api/models/org/never"); resp.StatusCode != 502 {
		t.Errorf("what only the upstream could tell: %s: %s", resp.Status, body)
	}
	if err := up.Once(); err != nil {
		t.Error(err)
	}
	roots, err := again.house.store.Roots(t.Context())
	if err != nil || len(roots) != len(files)-1 { // what is empty is not even fetched
		t.Fatalf("%d roots, %v", len(roots), err)
	}
	for _, r := range roots {
		if !r.Collectable() {
			t.Errorf("%v is kept as %q", r.CID, r.Mode)
		}
	}
	// What was collected is not taken to be here.
	if _, err := again.house.collect(t.Context(), quota{Bytes: 0}, false); err != nil {
		t.Fatal(err)
	}
	up.Set(func() { up.Down = false })
	download(again)
	if got := up.Sent(); got != 2*up.Size() {
		t.Errorf("upstream sent %d bytes of %d", got, up.Size())
	}
}

// A client at one node sees the first bytes while the upstream is far from the end, and so does one at a node that follows.
func TestUpstreamStreams(t *testing.T) {
	files := map[string][]byte{"big.bin": noise(5, 24<<20)}
	up := upstreamHub(t, files)
	up.Set(func() { up.Rate = 12 << 20 })
	list := startMirrors(t, up, 2)
	var wg sync.WaitGroup
	for _, h := range list {
		wg.Go(func() {
			start := time.Now()
			resp, err := http.Get("http://" + h.http.addr + "/org/model/resolve/main/big.bin")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			first := time.Since(start)
			n, err := io.Copy(io.Discard, resp.Body)
			if whole := time.Since(start); err != nil || n != 24<<20-1 || first > whole/2 {
				t.Errorf("the first byte came after %v, and all %d after %v: %v", first, n+1, whole, err)
			}
		})
	}
	wg.Wait()
	if err := up.Once(); err != nil {
		t.Error(err)
	}
}

// Without a token in the settings the upstream is told that of the environment.
func TestUpstreamToken(t *testing.T) {
	told := make(chan string, 100)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("Authorization")
		w.WriteHeader(http.StatusNotFound)
	}))
	defer up.Close()
	t.Setenv("DRAY_UPSTREAM_URL", up.URL)
	t.Setenv("HF_TOKEN", "hf_of_the_environment")
	h := startHub(t, filepath.Join(t.TempDir(), "home"))
	h.wants("/org/model/resolve/main/x", http.StatusNotFound, "RevisionNotFound")
	if got := <-told; got != "Bearer hf_of_the_environment" {
		t.Errorf("the upstream is told %q", got)
	}
}

// What makes no sense as an upstream is said at the start.
func TestUpstreamSettings(t *testing.T) {
	for key, value := range map[string]string{
		"URL": "hub.example.org", "TOKEN": "a b", "FILES": "0", "SILENCE": "1ms", "TRUST": "nobody",
	} {
		t.Run(key, func(t *testing.T) {
			t.Setenv("DRAY_UPSTREAM_URL", "http://127.0.0.1:1")
			t.Setenv("DRAY_UPSTREAM_"+key, value)
			e := &env{stdout: new(lockedBuffer), stderr: new(lockedBuffer), homeFlag: t.TempDir(), http: settings.HTTPOff}
			d, err := startDaemon(t.Context(), e, []string{"/ip4/127.0.0.1/tcp/0"})
			if err == nil {
				d.close()
			}
			if err == nil || !strings.Contains(err.Error(), "upstream."+strings.ToLower(key)) {
				t.Errorf("%q: %v", value, err)
			}
		})
	}
}
