package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
)

// contact is how others dial a host.
func contact(h *p2p.Host) transport.Peer { return transport.Peer{ID: h.Self(), Addrs: h.Addrs()} }

func someCID(t *testing.T, text string) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits for something that happens by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s it is not so that %s", what)
		}
	}
}

// freePort returns a TCP port of loopback on which nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestPrivateDHT has ten hosts that know one of them, and nothing of each other. What one of them announces, another finds, with
// an address at which the holder can be dialled; and nobody finds what nobody has.
func TestPrivateDHT(t *testing.T) {
	first := start(t, p2p.Config{Listen: []string{tcpAddr}, Reach: p2p.Reach{DHT: p2p.DHTPrivate}})
	hosts := []*p2p.Host{first}
	for len(hosts) < 10 {
		hosts = append(hosts, start(t, p2p.Config{
			Listen: []string{tcpAddr, quicAddr},
			Reach:  p2p.Reach{DHT: p2p.DHTPrivate, Bootstrap: []transport.Peer{contact(first)}},
		}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, h := range hosts {
		eventually(t, "the DHT is known", func() bool { return h.Reachability().Known > 0 })
	}
	holder, seeker := hosts[3], hosts[8]
	c := someCID(t, "held")
	kept, err := holder.Routing().Announce(ctx, c)
	if err != nil || kept < time.Hour {
		t.Fatalf("announced for %v, %v", kept, err)
	}
	var got []transport.Peer
	if err := seeker.Routing().Find(ctx, c, func(p transport.Peer) { got = append(got, p) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].ID != holder.Self() {
		t.Fatalf("found %v, want %v", got, holder.Self())
	}
	echo(t, dial(t, seeker, got[0].ID, got[0].Addrs), "/echo")

	err = seeker.Routing().Find(ctx, someCID(t, "held by nobody"), func(p transport.Peer) { t.Errorf("found %v", p) })
	if err != nil {
		t.Errorf("looked for what nobody has: %v", err)
	}
	if r := seeker.Reachability(); r.DHT != p2p.DHTPrivate || !r.Serving {
		t.Errorf("reachability is %+v", r)
	}
}

// TestDHTAlone asks and tells a DHT that nobody else is in.
func TestDHTAlone(t *testing.T) {
	h := start(t, p2p.Config{Listen: []string{tcpAddr}, Reach: p2p.Reach{DHT: p2p.DHTPrivate}})
	ctx := context.Background()
	if _, err := h.Routing().Announce(ctx, someCID(t, "x")); !errors.Is(err, dray.ErrUnreachable) {
		t.Errorf("told nobody: %v", err)
	}
	err := h.Routing().Find(ctx, someCID(t, "x"), func(p transport.Peer) { t.Errorf("found %v", p) })
	if !errors.Is(err, dray.ErrUnreachable) {
		t.Errorf("asked nobody: %v", err)
	}
}

// TestDHTIsEntered starts a host before the one by which it enters.
func TestDHTIsEntered(t *testing.T) {
	key, err := p2p.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := key.ID()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	at := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)
	early := start(t, p2p.Config{Listen: []string{tcpAddr}, Reach: p2p.Reach{
		DHT: p2p.DHTPrivate, Bootstrap: []transport.Peer{{ID: id, Addrs: []string{at}}},
	}})
	start(t, p2p.Config{Key: key, Listen: []string{at}, Reach: p2p.Reach{DHT: p2p.DHTPrivate}})
	eventually(t, "the late host is known", func() bool { return early.Reachability().Known > 0 })
}

func TestNoDHT(t *testing.T) {
	if h := listener(t, tcpAddr); h.Routing() != nil || h.Neighbours() != nil {
		t.Error("a host that was told nothing has a DHT or looks around")
	}
	h, err := p2p.New(p2p.Config{Listen: []string{}, Reach: p2p.Reach{DHT: "pubic"}})
	if err == nil {
		h.Close()
		t.Error("there is a DHT of that name")
	}
}
