package p2p_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dray"
	"dray/transport/p2p"
)

// group returns a way to start goroutines that the test waits for.
func group(t *testing.T) func(func()) {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return func(f func()) { wg.Go(f) }
}

func TestParseAddr(t *testing.T) {
	const id = "12D3KooWBM4Jsizqz4XCWToRDHaA7pc3fcwsPxSK8ensnkhBc1td"
	want, err := dray.ParsePeerID(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"/ip4/192.0.2.7/tcp/4001/p2p/" + id,
		" /ip4/192.0.2.7/tcp/4001/p2p/" + id + "\n",
		"/ip6/2001:db8::1/udp/4001/quic-v1/p2p/" + id,
		"/dns4/example.org/tcp/443/wss/p2p/" + id,
		"/dns/example.org/tcp/80/ws/p2p/" + id,
		"/ip4/192.0.2.7/udp/4001/quic-v1/webtransport/p2p/" + id,
		"/dnsaddr/example.org/p2p/" + id,
	} {
		p, err := p2p.ParseAddr(s)
		if err != nil || p.ID != want || len(p.Addrs) != 1 || p.Addrs[0] != strings.TrimSpace(s) {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	}
	for s, reason := range map[string]string{
		"":                                  "empty",
		"192.0.2.7:4001":                    "slash",
		"/ip4/192.0.2.7/tcp/4001":           "lacks the peer's id",
		"/p2p/" + id:                        "no address",
		"/ip4/192.0.2.7/p2p/" + id:          "dialled",
		"/ip4/300.0.2.7/tcp/1/p2p/x":        "no multiaddr",
		"/ip4/192.0.2.7/tcp/4001/p2p/":      "no multiaddr",
		"/ip4/192.0.2.7/udp/4001/p2p/" + id: "dialled",
		"/nonsense":                         "no multiaddr",
	} {
		_, err := p2p.ParseAddr(s)
		if err == nil {
			t.Errorf("%q was taken", s)
			continue
		}
		if text := err.Error(); !strings.Contains(text, reason) || strings.Contains(text, "\n") ||
			!strings.Contains(text, "right is") {
			t.Errorf("%q: error %q does not say %q and what is right, in one line", s, text, reason)
		}
	}
}

func TestLoadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "identity")
	first, err := p2p.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := first.ID()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o, want 0600", info.Mode().Perm())
	}
	again, err := p2p.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := again.ID(); other != id {
		t.Errorf("the key changed from %s to %s", id, other)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("files left beside the key: %v, %v", entries, err)
	}
	h, err := p2p.New(p2p.Config{Key: first, Listen: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.Self() != id {
		t.Errorf("the host is %s, its key is %s", h.Self(), id)
	}
}

// TestLoadKeyAtOnce makes the key from many sides; all must get the same.
func TestLoadKeyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity")
	ids := make([]dray.PeerID, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			k, err := p2p.LoadKey(path)
			if err == nil {
				ids[i], err = k.ID()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids[1:] {
		if id != ids[0] {
			t.Errorf("got %s and %s", ids[0], id)
		}
	}
}

func TestLoadKeyRefuses(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if _, err := p2p.LoadKey(good); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		data   []byte
		mode   os.FileMode
		reason string
	}{
		{"readable by others", key, 0o644, "chmod 600"},
		{"readable by the group", key, 0o640, "chmod 600"},
		{"empty", nil, 0o600, "empty"},
		{"no key", []byte("hello"), 0o600, "not a PEM"},
		{"cut", key[:len(key)/2], 0o600, "not a PEM"},
		{"damaged", bytes.Replace(key, []byte("MC4CAQ"), []byte("MC4CAz"), 1), 0o600, "damaged"},
	} {
		path := filepath.Join(dir, row.name)
		if err := os.WriteFile(path, row.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, row.mode); err != nil {
			t.Fatal(err)
		}
		_, err := p2p.LoadKey(path)
		if err == nil || !strings.Contains(err.Error(), row.reason) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one with the path that says %q", row.name, err, row.reason)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, row.data) {
			t.Errorf("%s: the file was changed", row.name)
		}
	}
	if _, err := p2p.LoadKey(dir); err == nil {
		t.Error("took a directory for a key")
	}
}
