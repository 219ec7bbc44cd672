package main

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/gateway"
	"dray/node"
	"dray/settings"
)

// openGateway opens the door for IPFS clients: it serves what everybody may have, here and from peers.
func openGateway(_ context.Context, h *house, s settings.Settings) (opened, error) {
	if !s.Gateway.Enabled {
		return opened{}, nil
	}
	cfg := gateway.Config{
		Local: h.node.Store(), Public: h.node.Public, Used: h.used,
		Timeout: time.Duration(s.Gateway.Timeout), Requests: s.Gateway.Requests, Trustless: s.Gateway.Trustless, Log: h.env.log(),
	}
	if s.Gateway.Fetch && h.net != nil {
		sought := h.finders.inWords()
		cfg.Fetch = func(ctx context.Context, root cid.Cid) gateway.Fetch {
			if !h.node.Finds() && len(h.node.Peers()) == 0 {
				return nil // nobody to ask, and nobody will come by waiting
			}
			return newGatewayFetch(ctx, h.node, root, sought)
		}
	}
	g, err := gateway.New(cfg)
	if err != nil {
		return opened{}, err
	}
	door := crossOrigin(s.Gateway.Origins, h.traced("gateway", g))
	return opened{routes: []route{{"/ipfs/", door}, {"/ipns/", door}}}, nil
}

// gatewayFetch gets what one request misses, in order, as a stranger would.
type gatewayFetch struct {
	dray.Getter
	session *node.Session
	ahead   func([]cid.Cid)
	sought  string // who else is asked, in words
}

func newGatewayFetch(ctx context.Context, n *node.Node, root cid.Cid, sought string) *gatewayFetch {
	s := n.NewSession(node.SessionConfig{
		Order: exchange.InOrder, Root: root, Bystander: true, Origin: originOf(ctx, "gateway"),
	})
	return &gatewayFetch{s.Reading(), s, s.Ahead(), sought}
}

// Ahead implements [gateway.Fetch].
func (f *gatewayFetch) Ahead(cids []cid.Cid) { f.ahead(cids) }

// Progress implements [gateway.Fetch].
func (f *gatewayFetch) Progress() (p gateway.Progress) {
	f.session.Pulse(node.WithPulse(context.Background(), func(now node.Pulse) {
		p.Arrived = now.Arrived
		p.Hopeless, p.Sure = node.Hopeless(now.Waits)
		for _, w := range now.Waits {
			p.Slow = p.Slow || w.Reason == exchange.ReasonSlow
		}
	}))
	return p
}

// Waits implements [gateway.Fetch].
func (f *gatewayFetch) Waits() string {
	waits := f.session.Waits()
	if len(waits) == 0 {
		return ""
	}
	if _, sure := node.Hopeless(waits); sure {
		return notFound(len(f.session.Peers()), f.sought)
	}
	now := time.Now()
	return inWords(waits, now, now.Sub(waits[0].Since)).Text
}

// notFound says where was looked in vain.
func notFound(peers int, sought string) string {
	text := "nobody is connected"
	if peers > 0 {
		text = plural(int64(peers), "connected peer") + " asked, and none has it"
	}
	if sought != "" {
		text += "; looked for others by " + sought + ", and found nobody"
	}
	return text
}

// Close implements [gateway.Fetch].
func (f *gatewayFetch) Close() error { return f.session.Close() }

// crossOrigin lets the pages of some origins read answers by script, and answers their browsers' questions whether they
// may.
func crossOrigin(origins []string, door http.Handler) http.Handler {
	if len(origins) == 0 {
		return door
	}
	all := slices.Contains(origins, "*")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		h := w.Header()
		switch {
		case all:
			h.Set("Access-Control-Allow-Origin", "*")
		case slices.Contains(origins, origin):
			h.Set("Access-Control-Allow-Origin", origin)
			h.Add("Vary", "Origin")
		default:
			h.Add("Vary", "Origin")
			door.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Cache-Control, Content-Type, If-None-Match, Range, X-Requested-With")
		h.Set("Access-Control-Expose-Headers",
			"Content-Disposition, Content-Length, Content-Range, ETag, X-Ipfs-Path, X-Ipfs-Roots")
		door.ServeHTTP(w, r)
	})
}
