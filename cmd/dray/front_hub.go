package main

import (
	"context"

	"dray/hub"
	"dray/settings"
)

// The Hub: all paths that nobody else has. See docs/hub.md.

func openHub(_ context.Context, h *house, s settings.Settings) (opened, error) {
	if !s.Hub.On {
		return opened{}, nil
	}
	if err := h.repos.trustAlso(append(s.Hub.Trust, h.env.trust...)); err != nil {
		return opened{}, err
	}
	libraries := []hub.Library{h.repos.published}
	if h.upstream != nil {
		libraries = append(libraries, h.upstream.mirror)
	}
	server := hub.NewServer(hub.Config{Library: hub.First(libraries...), Requests: s.Hub.Requests, Log: h.env.log()})
	end := h.repos.begin()
	return opened{routes: []route{{"", h.traced("hub", server)}}, close: func() error { end(); return nil }}, nil
}
