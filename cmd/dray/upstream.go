package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/hub/mirror"
	"dray/node"
	"dray/store/disk"
	"dray/transport"
	"dray/unixfs"
)

// An upstream is another Hub, from which the swarm fetches once what it lacks: a Mirror over this home. See docs/upstream.md.

const upstreamName = "upstream" // the directory of a Mirror's notes

// upstream is a house's Mirror, and that Mirror's Blocks and Swarm. A nil one does nothing.
type upstream struct {
	h      *house
	client *mirror.Upstream
	mirror *mirror.Mirror
	trust  map[dray.PeerID]bool
	ready  chan struct{} // closed when the house has its node
}

// openUpstream opens what the settings say, for a home that serves, and adds what answers peers.
func (h *house) openUpstream(a access, cfg *node.Config) (*upstream, error) {
	s := &h.settings.Upstream
	if s.URL == "" || len(a.listen) == 0 {
		return nil, nil
	}
	u := &upstream{h: h, trust: make(map[dray.PeerID]bool), ready: make(chan struct{})}
	for _, text := range s.Trust {
		id, err := dray.ParsePeerID(text)
		if err != nil {
			return nil, usagef("upstream.trust: %q is no peer id; right is one as `dray id` prints it", clip(text))
		}
		u.trust[id] = true
	}
	token := s.Token
	if token == "" {
		token = os.Getenv("HF_TOKEN")
	}
	var err error
	u.client, err = mirror.NewUpstream(mirror.UpstreamConfig{
		URL: s.URL, Token: token, AllowPrivate: s.AllowPrivate, Log: h.env.log(),
	})
	if err != nil {
		return nil, usagef("%w", err)
	}
	u.mirror, err = mirror.New(mirror.Config{
		Upstream: u.client, Blocks: u, Swarm: u, Dir: filepath.Join(h.home, upstreamName), Trusts: u.trusts, Log: h.env.log(),
		Fresh: time.Duration(s.Fresh), Silence: time.Duration(s.Silence), Patience: time.Duration(s.Patience),
		Linger: max(time.Duration(s.Linger), time.Nanosecond), Leads: s.Files, Watch: u.watch(s.URL),
	})
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	cfg.Services = append(cfg.Services, node.Service{Protocol: mirror.Protocol, Serve: u.serve})
	return u, nil
}

// watch returns what shows files that come from the upstream, which is named by its host.
func (u *upstream) watch(from string) func(string, int64) mirror.Arrival {
	if at, err := url.Parse(from); err == nil {
		from = at.Host
	}
	return func(name string, size int64) mirror.Arrival {
		t := u.h.node.Track(node.TrackConfig{Origin: node.Origin{Who: "upstream", Name: name}, Total: size})
		return &arrival{t, from}
	}
}

// arrival is a file that comes from the upstream, as the page shows it.
type arrival struct {
	tracked *node.Tracked
	from    string
}

// Came and End implement [mirror.Arrival].
func (a *arrival) Came(bytes int64) { a.tracked.Came(a.from, bytes) }
func (a *arrival) End(err error)    { a.tracked.End(err) }

// begin says that the house has its node.
func (u *upstream) begin() {
	if u != nil {
		close(u.ready)
	}
}

func (u *upstream) serve(ctx context.Context, peer dray.PeerID, s transport.Stream) {
	select {
	case <-u.ready:
		u.mirror.Serve(ctx, peer, s)
	case <-ctx.Done():
		s.Reset()
	}
}

// close ends what is arriving; it continues another time.
func (u *upstream) close() error {
	if u == nil || u.mirror == nil {
		return nil
	}
	err := u.mirror.Close()
	u.client.Close()
	return err
}

// trusts reports whether a peer is believed about what a commit holds: a member, or one that the settings name.
func (u *upstream) trusts(peer dray.PeerID) bool {
	d := u.h.door
	d.mu.Lock()
	members := d.members
	d.mu.Unlock()
	return u.trust[peer] || members.Has(peer)
}

func (u *upstream) Local(ctx context.Context, c cid.Cid) (dray.Block, error) {
	return u.h.store.Get(ctx, c)
}

func (u *upstream) Put(ctx context.Context, blocks ...dray.Block) error {
	return u.h.node.Put(ctx, blocks...)
}

func (u *upstream) Hold() (release func()) { return u.h.store.Hold() }

func (u *upstream) Keep(ctx context.Context, f unixfs.Ref, leaves int) error {
	return u.h.remember(ctx, disk.Root{CID: f.CID, Size: f.Size, Leaves: int64(leaves)})
}

func (u *upstream) Kept(ctx context.Context, root cid.Cid) bool {
	_, err := u.h.store.Root(ctx, root)
	return err == nil
}

func (u *upstream) Used(ctx context.Context, root cid.Cid) { u.h.used(ctx, root) }

func (u *upstream) Self() dray.PeerID { return u.h.net.Self() }

func (u *upstream) Peers() []dray.PeerID {
	var ids []dray.PeerID
	for _, p := range u.h.node.Peers() {
		ids = append(ids, p.ID)
	}
	return ids
}

func (u *upstream) Call(ctx context.Context, peer dray.PeerID) (transport.Stream, error) {
	return u.h.node.Call(ctx, transport.Peer{ID: peer}, mirror.Protocol)
}

func (u *upstream) Session(only bool, peers ...dray.PeerID) mirror.Session {
	return u.h.node.NewSession(node.SessionConfig{Peers: peers, Only: only, Origin: node.Origin{Who: "upstream"}})
}
