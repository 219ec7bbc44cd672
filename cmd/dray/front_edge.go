package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/edge"
	"dray/exchange"
	"dray/node"
	"dray/settings"
)

// edgeName is the cache's directory in the home.
const edgeName = "edge"

// edgeDoor is a house's cache before origins. It is open while somebody uses it: the front, all the time, or `dray
// warm`.
type edgeDoor struct {
	mu    sync.Mutex
	users int
	edge  *edge.Edge
	swarm *swarmGetter
}

// openEdge opens the door to the cache, if the settings name origins.
func openEdge(_ context.Context, h *house, s settings.Settings) (opened, error) {
	if len(s.Edge.Origins) == 0 {
		return opened{}, nil
	}
	e, release, err := h.useEdge(&s.Edge)
	if err != nil {
		return opened{}, err
	}
	return opened{
		routes: []route{{edge.Prefix, h.traced("edge", e)}},
		probe:  func(context.Context) error { return edgeHealth(e.Stats()) },
		worst:  node.Degraded,
		close:  release,
	}, nil
}

// edgeHealth says which origins have no source that is well.
func edgeHealth(s edge.Stats) error {
	well, ill := make(map[string]bool), make(map[string]string)
	for _, x := range s.Sources {
		if x.State == "healthy" {
			well[x.Name] = true
		} else {
			ill[x.Name] = x.LastError
		}
	}
	var errs []error
	for name, last := range ill {
		if !well[name] {
			errs = append(errs, fmt.Errorf("no source of origin %s answers: %s", name, last))
		}
	}
	return errors.Join(errs...)
}

// useEdge returns the house's cache, which stays open until release is called by everybody who uses it.
func (h *house) useEdge(s *settings.EdgeCache) (_ *edge.Edge, release func() error, err error) {
	d := &h.edge
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.edge == nil {
		cfg, err := h.edgeConfig(s)
		if err != nil {
			return nil, nil, err
		}
		if d.edge, err = edge.New(cfg); err != nil {
			return nil, nil, errors.Join(err, h.closeSwarm())
		}
	}
	d.users++
	return d.edge, sync.OnceValue(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.users--; d.users > 0 {
			return nil
		}
		e := d.edge
		d.edge = nil
		return errors.Join(e.Close(), h.closeSwarm())
	}), nil
}

func (h *house) closeSwarm() error {
	s := h.edge.swarm
	if s == nil {
		return nil
	}
	h.edge.swarm = nil
	return s.session.Close()
}

// edgeConfig makes the cache's configuration of settings.
func (h *house) edgeConfig(s *settings.EdgeCache) (edge.Config, error) {
	cfg := edge.Config{
		Dir: filepath.Join(h.home, edgeName), Size: int64(s.Size), TTL: time.Duration(s.TTL), Stale: time.Duration(s.Stale),
		Guarded: h.closed, Log: h.env.log(),
	}
	// Zero means none in the settings, and the default in a Config.
	if s.TTL == 0 {
		cfg.TTL = -1
	}
	if s.Stale == 0 {
		cfg.Stale = -1
	}
	for i := range s.Origins {
		x, err := h.edgeSource(&s.Origins[i])
		if err != nil {
			return cfg, err
		}
		if x.Kind == edge.Swarm && h.edge.swarm == nil {
			h.edge.swarm = &swarmGetter{h, h.node.NewSession(node.SessionConfig{Order: exchange.InOrder})}
		}
		cfg.Sources = append(cfg.Sources, x)
	}
	if h.edge.swarm != nil {
		cfg.Swarm = h.edge.swarm
	}
	return cfg, nil
}

var edgeKinds = map[string]edge.Kind{
	"": edge.Web, settings.EdgeURL: edge.Web, settings.EdgeS3: edge.Bucketed, settings.EdgeGateway: edge.Gateway,
	settings.EdgeSwarm: edge.Swarm,
}

func (h *house) edgeSource(o *settings.EdgeOrigin) (edge.Source, error) {
	x := edge.Source{
		Name: o.Name, Kind: edgeKinds[o.Kind], URL: o.URL, Priority: o.Priority, AllowPrivate: o.AllowPrivate,
		TTL: time.Duration(o.TTL), Authorization: o.PassAuth,
		Bucket: edge.Bucket{
			Name: o.Bucket, Prefix: o.Prefix, Region: o.Region, File: h.beside(o.Credentials), Profile: o.Profile,
		},
	}
	if o.TokenFile != "" {
		text, err := os.ReadFile(h.beside(o.TokenFile))
		if err != nil {
			return x, fmt.Errorf("origin %s: token: %w", o.Name, err)
		}
		x.Token = string(bytes.TrimSpace(text))
	}
	return x, nil
}

// beside returns a path that is relative to the home.
func (h *house) beside(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(h.home, path)
}

// closed reports whether a root is not for everybody.
func (h *house) closed(root cid.Cid) bool {
	_, closed := h.door.rule(root)
	return closed || h.door.only
}

// swarmGetter gets from peers what is for everybody.
type swarmGetter struct {
	house   *house
	session *node.Session
}

// Get implements [dray.Getter].
func (g *swarmGetter) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	if g.house.closed(c) {
		return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
	}
	return g.session.Get(ctx, c)
}
