package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	gauges "dray/meter"
	"dray/node"
	"dray/settings"
	"dray/store/disk"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// house is a home that this process has open.
type house struct {
	home  string
	env   *env
	store *disk.Store
	net   *p2p.Host // nil when offline
	node  *node.Node

	quota    quota       // of the store's own copies; None unless a daemon was given one
	backlog  *backlog    // the jobs that a daemon works at; nil without one
	stopping atomic.Bool // what fails now fails because of that
	open     atomic.Bool // a daemon's doors are
	leaving  atomic.Bool // a daemon was told to stop
	bans     banList
	door     *door
	edge     edgeDoor
	settings *settings.Effective // nil when offline
	repos    *repos
	meter    *gauges.Meter // nil unless it serves
	upstream *upstream     // nil without one
	finders  *finders      // nil when offline

	// rootsMu is held by whoever reads a root's record to write another one, and while it is decided which roots go.
	rootsMu sync.Mutex
	// growing counts who fetches a root, guarded by growingMu.
	growingMu sync.Mutex
	growing   map[cid.Cid]int
	// collecting has one slot, held while garbage is collected.
	collecting chan struct{}
	// changes counts what was done to roots.
	changes atomic.Int64
	// lost has one slot: something that a root needs may be gone.
	lost chan struct{}
}

// access says what a command needs of a home.
type access struct {
	// network says that it may ask peers.
	network bool
	// listen are the addresses that peers may connect to; if empty, none.
	listen []string
	// admission says who is served: "open" (or "") or "members".
	admission string
}

const (
	homeBusyFor  = 3 * time.Second // another command may be about to end
	homeBusyStep = 50 * time.Millisecond
)

// openBackend opens the home: through the daemon that has it open, or here.
func openBackend(ctx context.Context, e *env, a access) (backend, error) {
	home, err := e.home()
	if err != nil {
		return nil, err
	}
	if err := e.checkPlane(); err != nil {
		return nil, err
	}
	for until := time.Now().Add(homeBusyFor); ; {
		r, err := dialRemote(ctx, home)
		if r != nil {
			if err := errors.Join(e.uselessPlane(home), e.uselessLimits(home)); err != nil {
				r.Close()
				return nil, err
			}
		}
		if r != nil || err != nil {
			return r, err
		}
		h, err := openHouse(e, home, a)
		if err == nil {
			return h, nil
		}
		if !errors.Is(err, errBusy) || time.Now().After(until) {
			return nil, err
		}
		if err := pause(ctx, homeBusyStep); err != nil {
			return nil, err
		}
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errBusy means that another process has the home open.
var errBusy = errors.New("in use")

func openHouse(e *env, home string, a access) (_ *house, err error) {
	if err := makeHome(home); err != nil {
		return nil, err
	}
	h := &house{home: home, env: e, quota: quota{None: true}, lost: make(chan struct{}, 1), collecting: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	h.store, err = disk.Open(disk.Config{
		Dir: filepath.Join(home, "store"), Split: unixfs.SplitLeaf, Frame: unixfs.LeafFrame, Log: e.log(), Lost: h.lookAfter,
	})
	if err != nil {
		if strings.Contains(err.Error(), "in use by") {
			return nil, fmt.Errorf("%w: the home %s is open in another dray (%w); wait for it, or run `dray serve`, "+
				"which commands share", errBusy, home, err)
		}
		return nil, err
	}
	if h.door, err = openDoor(h, a); err != nil {
		return nil, err
	}
	if h.repos, err = openRepos(h, a.network); err != nil {
		return nil, err
	}
	cfg := node.Config{Store: h.store.Files(), Log: e.log(), Services: []node.Service{h.repos.service()}}
	if a.network {
		told, err := e.readSettings(home)
		if err != nil {
			return nil, err
		}
		h.settings = told
		spend(&told.Node, &cfg)
	}
	if cfg.Access, err = h.door.current(context.Background()); err != nil {
		return nil, err
	}
	if a.network {
		if h.net, err = h.connect(a.listen); err != nil {
			return nil, err
		}
		cfg.Network = h.net
		if h.finders, err = openFinders(h, &h.settings.Find, e.named); err != nil {
			return nil, err
		}
		cfg.Finder, cfg.Services = h.finders, append(cfg.Services, h.finders.service())
	}
	if !a.network {
		if h.node, err = node.New(cfg); err != nil {
			return h, err
		}
		h.door.node = h.node
		return h, h.enforceBans()
	}
	limits, err := h.beLimited(&cfg)
	if err != nil {
		return nil, err
	}
	if h.upstream, err = h.openUpstream(a, &cfg); err != nil {
		return nil, err
	}
	if err := h.openMeter(a, &cfg); err != nil {
		return nil, err
	}
	if h.node, err = node.New(cfg); err != nil {
		return h, err
	}
	h.door.node = h.node
	if h.meter != nil {
		h.meter.Bind(h.node)
	}
	h.upstream.begin()
	h.finders.node.Store(h.node)
	limits.classify(h.node)
	return h, h.enforceBans()
}

// spend tells a node that is about to be made, and the process, what they may spend.
func spend(s *settings.Node, cfg *node.Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(s.Memory))
	}
	cfg.Workers, cfg.HashWorkers, cfg.Streams, cfg.FrameBytes = s.Workers, s.HashWorkers, s.Streams, int64(s.Frames)
	cfg.Engine.ReceiveBytes, cfg.Engine.ServeBytes, cfg.Engine.PeerServeBytes = int64(s.Receive), int64(s.Serve), int64(s.ServePeer)
	if cfg.Engine.InlineBytes = int64(s.Inline); s.Inline == 0 {
		cfg.Engine.InlineBytes = -1
	}
}

func makeHome(home string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("the home cannot be made: %w; name another with --home DIR or DRAY_HOME", err)
	}
	return nil
}

func (h *house) connect(listen []string) (*p2p.Host, error) {
	key, err := p2p.LoadKey(keyPath(h.home))
	if err != nil {
		return nil, err
	}
	swarm, err := h.env.findSwarmKey(h.home)
	if err != nil {
		return nil, err
	}
	if listen == nil {
		listen = []string{}
	}
	n := &h.settings.Node
	limits := p2p.Limits{
		Conns: n.Peers, ConnsPerIP: n.PeersPerAddress, Memory: int64(n.StreamMemory), MemoryPerPeer: int64(n.StreamMemoryPeer),
	}
	reach, err := reachOf(&h.settings.Reach)
	if err != nil {
		return nil, err
	}
	return p2p.New(p2p.Config{
		Limits: limits, Reach: reach,
		Key: key, Listen: listen, SwarmKey: swarm, DataPlane: h.env.dataPlane, Log: h.env.log(), UserAgent: "dray/" + version(),
	})
}

func keyPath(home string) string { return filepath.Join(home, "key") }

// isStopping reports whether the home is being closed, so that what fails now fails because of that.
func (h *house) isStopping() bool { return h.stopping.Load() }

func (h *house) dir() string { return h.home }

// Close ends what runs, and closes the home.
func (h *house) Close() error {
	h.stopping.Store(true)
	var errs []error
	if h.backlog != nil {
		errs = append(errs, h.backlog.close())
	}
	errs = append(errs, h.upstream.close())
	errs = append(errs, h.finders.close())
	if h.node != nil {
		errs = append(errs, h.node.Close(), h.closeMeter())
	}
	if h.net != nil {
		errs = append(errs, h.net.Close())
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	return errors.Join(errs...)
}

// parsePeers reads the addresses that a user named.
func parsePeers(list []string) ([]transport.Peer, error) {
	var peers []transport.Peer
	for _, s := range list {
		p, err := p2p.ParseAddr(s)
		if err != nil {
			var e *dray.Error
			if errors.As(err, &e) {
				err = e.Err
			}
			return nil, usagef("bad address: %w", err)
		}
		peers = append(peers, p)
	}
	return mergePeers(peers), nil
}

// mergePeers collects the addresses of each peer, keeping the order.
func mergePeers(peers []transport.Peer) []transport.Peer {
	var out []transport.Peer
	at := make(map[dray.PeerID]int)
	for _, p := range peers {
		i, known := at[p.ID]
		if !known {
			at[p.ID] = len(out)
			out = append(out, p)
			continue
		}
		out[i].Addrs = append(out[i].Addrs[:len(out[i].Addrs):len(out[i].Addrs)], p.Addrs...)
	}
	return out
}
