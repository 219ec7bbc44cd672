package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"dray"
	"dray/node"
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

	backlog  *backlog // the jobs that a daemon works at; nil without one
	stopping atomic.Bool
	bans     banList
}

// access says what a command needs of a home.
type access struct {
	// network says that it may ask peers.
	network bool
	// listen are the addresses that peers may connect to; if empty, none.
	listen []string
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
	h := &house{home: home, env: e}
	defer func() {
		if err != nil {
			h.shut()
		}
	}()
	h.store, err = disk.Open(disk.Config{Dir: filepath.Join(home, "store"), Split: unixfs.SplitLeaf, Frame: unixfs.LeafFrame, Log: e.log()})
	if err != nil {
		if strings.Contains(err.Error(), "in use by") {
			return nil, fmt.Errorf("%w: the home %s is open in another dray (%w); wait for it, or run `dray serve`, "+
				"which commands share", errBusy, home, err)
		}
		return nil, err
	}
	cfg := node.Config{Store: h.store.Files(), Log: e.log()}
	if a.network {
		if h.net, err = h.connect(a.listen); err != nil {
			return nil, err
		}
		cfg.Network = h.net
	}
	if !a.network {
		if h.node, err = node.New(cfg); err != nil {
			return nil, err
		}
		return h, h.enforceBans()
	}
	limits, err := h.beLimited(&cfg)
	if err != nil {
		return nil, err
	}
	if h.node, err = node.New(cfg); err != nil {
		return h, err
	}
	limits.classify(h.node)
	return h, h.enforceBans()
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
	if listen == nil {
		listen = []string{}
	}
	return p2p.New(p2p.Config{
		Key: key, Listen: listen, DataPlane: h.env.dataPlane, Log: h.env.log(), UserAgent: "dray/" + version(),
	})
}

func keyPath(home string) string { return filepath.Join(home, "key") }

// isStopping reports whether the home is being closed, so that what fails now fails because of that.
func (h *house) isStopping() bool { return h.stopping.Load() }

func (h *house) dir() string { return h.home }

// Close ends what runs, and closes the home.
func (h *house) Close() error { return h.shut() }

func (h *house) shut() error {
	h.stopping.Store(true)
	var errs []error
	if h.backlog != nil {
		errs = append(errs, h.backlog.close())
	}
	if h.node != nil {
		errs = append(errs, h.node.Close())
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
