package p2p

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"dray/transport"
)

func TestLANService(t *testing.T) {
	if s := lanService(SwarmKey{}); s != "_dray._udp" {
		t.Errorf("the service is %s", s)
	}
	a, b := NewSwarmKey(), NewSwarmKey()
	if lanService(a) == lanService(b) || lanService(a) == lanService(SwarmKey{}) {
		t.Error("swarms have the same service")
	}
	name, _, _ := strings.Cut(lanService(a), ".")
	if len(name)-1 > 15 { // RFC 6335, section 5.1
		t.Errorf("the service name %s is too long", name)
	}
}

// TestLANSaysWhatIsOfUse looks at what a host would announce, and at what another one makes of it.
func TestLANSaysWhatIsOfUse(t *testing.T) {
	a := bulkHost(t, Config{Listen: LoopbackListen(), Reach: Reach{LAN: true}})
	if text := a.lan.text(); len(text) != 0 {
		t.Errorf("a host on loopback announces %v", text)
	}
	if r := a.Reachability(); r.LAN {
		t.Error("a host on loopback is seen")
	}
	b := bulkHost(t, Config{Listen: DefaultListen()})
	b.lan = &lan{host: b, stop: func() {}} // not started: tests are seen by nobody
	text := b.lan.text()
	size := 0
	for _, s := range text {
		size += len(s) + 1
		if !strings.HasPrefix(s, "dnsaddr=/ip") || strings.Contains(s, "/127.") || strings.Contains(s, "/::1/") || strings.Contains(s, "/ws") {
			t.Errorf("announces %s", s)
		}
	}
	if size > lanText {
		t.Errorf("%d bytes are announced", size)
	}
	if got := b.lan.read(text); len(got) != 0 {
		t.Errorf("a host is a neighbour of itself: %v", got)
	}
	id := "/p2p/" + b.host.ID().String()
	mixed := []string{
		"dnsaddr=/ip4/192.168.1.7/tcp/4001" + id, "dnsaddr=/ip4/192.168.1.7/udp/4001/quic-v1" + id,
		"dnsaddr=/ip4/127.0.0.1/tcp/4001" + id, "dnsaddr=/ip6/fe80::1/tcp/4001" + id, "dnsaddr=/ip4/192.168.1.7/tcp/4001",
		"dnsaddr=/dns4/dray.example/tcp/4001" + id, "dnsaddr=/ip4/192.168.1.7/sctp/1" + id, "/ip4/192.168.1.7/tcp/4001" + id, "dnsaddr=", "",
	}
	got := a.lan.read(mixed)
	want := []string{"/ip4/192.168.1.7/tcp/4001", "/ip4/192.168.1.7/udp/4001/quic-v1"}
	if len(got) != 1 || got[0].ID != b.Self() || !slices.Equal(got[0].Addrs, want) {
		t.Errorf("read %v, want %v of %v", got, want, b.Self())
	}
}

// TestDiscoverEnds has a search end with its context and with the host.
func TestDiscoverEnds(t *testing.T) {
	h := bulkHost(t, Config{Listen: []string{}, Reach: Reach{LAN: true}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Neighbours().Discover(ctx, func(transport.Peer) {}); err == nil {
		t.Error("a search that was called off went well")
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Neighbours().Discover(context.Background(), func(transport.Peer) {}); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a search of a closed host: %v", err)
	}
}
