package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"dray/node"
	"dray/settings"
)

// The health of a daemon over HTTP:
//
//	GET /healthz           200 "ok" when the loop answers within aliveWithin, else 503: restart it
//	GET /readyz            200 "ready" when it also serves, is not stopping, and no part has failed, else 503: send others
//	GET /healthz?verbose   the same as /healthz with the parts in JSON, as `dray status --json` has them
//
// With a token, the first two need none: they say nothing but a word.
const (
	livePath    = "/healthz"
	readyPath   = "/readyz"
	profilePath = "/debug/pprof/"

	aliveWithin = 2 * time.Second
	aliveFresh  = 250 * time.Millisecond // an answer is good for so long, so that asking often costs nothing
)

// pulse asks whether a node's loop answers. It is safe for concurrent use.
type pulse struct {
	node *node.Node

	mu  sync.Mutex // held while it is asked, so that many ask once
	at  time.Time
	err error
}

func (p *pulse) alive(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < aliveFresh {
		return p.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), aliveWithin)
	defer cancel()
	p.err = p.node.Alive(ctx)
	p.at = time.Now()
	return p.err
}

// healthReport is what /healthz?verbose says.
type healthReport struct {
	Live    bool           `json:"live"`
	Ready   bool           `json:"ready"`
	Reason  string         `json:"reason,omitempty"` // why it is not live or not ready
	Health  node.Condition `json:"health"`
	Version string         `json:"version"`
	Since   time.Time      `json:"since"`
	Parts   []vitalPart    `json:"parts"`
}

func openHealth(_ context.Context, h *house, _ settings.Settings) (opened, error) {
	p := &pulse{node: h.node}
	return opened{routes: []route{
		{livePath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := p.alive(r.Context())
			if !r.URL.Query().Has("verbose") {
				say(w, err, "ok")
				return
			}
			report := h.report(err)
			code := http.StatusOK
			if !report.Live {
				code = http.StatusServiceUnavailable
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(code)
			_, _ = w.Write(append(encode(report), '\n')) // the client may be gone
		})},
		{readyPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := h.ready()
			if err == nil {
				err = p.alive(r.Context())
			}
			say(w, err, "ready")
		})},
	}}, nil
}

// say answers with a word, or with 503 and what is wrong.
func say(w http.ResponseWriter, err error, word string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		word = oneLine(err)
	}
	_, _ = fmt.Fprintln(w, word) // the client may be gone
}

// ready says why nobody should be sent here, or nil.
func (h *house) ready() error {
	switch {
	case h.leaving.Load():
		return errors.New("stopping")
	case !h.open.Load():
		return errors.New("starting")
	}
	_, parts := h.node.Vitals()
	for _, p := range parts {
		if p.Condition == node.Failed {
			return fmt.Errorf("%s: %v", p.Name, p.Condition)
		}
	}
	return nil
}

func (h *house) report(alive error) healthReport {
	r := healthReport{Live: alive == nil, Version: version(), Since: h.node.Since()}
	r.Health, r.Parts = h.vitals()
	err := alive
	if err == nil {
		err = h.ready()
	}
	if r.Ready = err == nil; !r.Ready {
		r.Reason = oneLine(err)
	}
	return r
}

// watchParts has what only the daemon knows watched beside the node's own parts.
func (h *house) watchParts() {
	h.node.Watch("space", node.Unhealthy, func(context.Context) error { // what it has it still serves
		free, _, known := freeSpace(h.home)
		if known && free < leastSpace {
			return fmt.Errorf("%s are free where %s is; `dray rm` removes what is not needed", size(free), h.home)
		}
		return nil
	})
	begun := h.net.Listening()
	h.node.Watch("swarm", node.Unknown, func(context.Context) error { return missingListeners(begun, h.net.Listening()) })
}

// missingListeners says which listeners there were and are no more.
func missingListeners(begun, now []string) error {
	var gone []string
	for _, a := range begun {
		if !slices.Contains(now, a) {
			gone = append(gone, a)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return fmt.Errorf("peers are not accepted any more at %s; restart the daemon", strings.Join(gone, ", "))
}

// openProfiles serves profiles of the process, where a token or a certificate keeps strangers from them.
func openProfiles(_ context.Context, _ *house, s settings.Settings) (opened, error) {
	if s.HTTP.Token == "" && s.HTTP.TokenFile == "" && s.HTTP.ClientCA == "" {
		return opened{}, nil
	}
	return opened{routes: []route{
		{profilePath, http.HandlerFunc(pprof.Index)},
		{profilePath + "cmdline", http.HandlerFunc(pprof.Cmdline)},
		{profilePath + "profile", http.HandlerFunc(pprof.Profile)},
		{profilePath + "symbol", http.HandlerFunc(pprof.Symbol)},
		{profilePath + "trace", http.HandlerFunc(pprof.Trace)},
	}}, nil
}
