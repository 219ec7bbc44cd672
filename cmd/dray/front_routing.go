package main

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/find"
	delegated "dray/find/http"
	"dray/find/seek"
	"dray/settings"
	"dray/transport"
)

// The front for clients that ask who provides a CID (delegated routing V1): other Drays, and IPFS nodes and browsers. It tells of
// open roots only: what this home holds, what it knows of others, and what its peers say. It asks no routers, so that two which
// name each other do not ask in a circle.

const routeWithin = 5 * time.Second // for what peers say

func openRouting(_ context.Context, h *house, _ settings.Settings) (opened, error) {
	s := delegated.NewServer(delegated.ServerConfig{Providers: h.route, Peer: h.routePeer})
	return opened{routes: []route{{"/routing/v1/", s}}}, nil
}

// route tells who provides c.
func (h *house) route(r *http.Request, c cid.Cid, each func(delegated.Record) bool) error {
	f := h.finders
	if h.door.only || h.node.Guarded(c) {
		return nil // as if it were not here
	}
	place := clientPlace(r)
	told := make(map[dray.PeerID]bool)
	more := true
	tell := func(id dray.PeerID, addrs []string, own, dray bool) {
		if addrs = seek.Reachable(addrs, place, own); !more || told[id] || len(addrs) == 0 {
			return
		}
		told[id] = true
		x := delegated.Record{ID: id, Addrs: bare(addrs, id)}
		if dray {
			x.Protocols = []string{delegated.Bitswap}
		}
		more = each(x)
	}
	share := f.Share(c)
	if share.Holds {
		tell(f.self, h.node.Addrs(), true, true)
	}
	for _, id := range share.Mates {
		tell(id, f.seek.Addrs(id), false, true)
	}
	for _, p := range f.seek.Providers(c) {
		if !p.Exhausted {
			tell(p.ID, p.Addrs, true, p.Source == find.Exchange || p.Source == find.Peers)
		}
	}
	if len(told) > 0 || !more {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), routeWithin)
	defer cancel()
	_ = f.peers.Connected().Find(ctx, c, func(p transport.Peer) { // who does not answer knows nothing
		f.seek.Learn(c, find.Provider{ID: p.ID, Addrs: p.Addrs, Source: find.Peers}, time.Hour)
		tell(p.ID, p.Addrs, false, true)
	})
	return nil
}

// routePeer tells where a peer is.
func (h *house) routePeer(r *http.Request, id dray.PeerID) (x delegated.Record, ok bool) {
	addrs := h.finders.seek.Addrs(id)
	if id == h.finders.self {
		addrs, x.Protocols = h.node.Addrs(), []string{delegated.Bitswap}
	}
	x.ID, x.Addrs = id, bare(seek.Reachable(addrs, clientPlace(r), true), id)
	return x, len(x.Addrs) > 0
}

// bare takes the peer's id off the end of its addresses.
func bare(addrs []string, id dray.PeerID) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = strings.TrimSuffix(a, "/p2p/"+id.String())
	}
	return out
}

// clientPlace writes where a client is, as an address of a connection to it.
func clientPlace(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	return placeOfIP(ip)
}
