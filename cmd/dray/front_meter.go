package main

import (
	"context"
	"net/http"
	"time"

	"dray/dash"
	gauges "dray/meter"
	"dray/node"
	"dray/settings"
)

// openMeter makes what tells machines how a home that serves fares, and has the node tell it what it needs.
func (h *house) openMeter(a access, cfg *node.Config) (err error) {
	if len(a.listen) == 0 {
		return nil
	}
	disk := &diskView{h: h}
	h.meter, err = gauges.New(gauges.Config{
		Version: version(), Log: h.env.log(),
		Trace: gauges.TraceConfig{Endpoint: h.settings.Trace.Endpoint, Ratio: h.settings.Trace.Ratio, Host: h.net.Self().String()},
		Wire: func() []gauges.Wire {
			t := h.net.Traffic()
			return []gauges.Wire{{Transport: "tcp", In: t.TCPIn, Out: t.TCPOut}, {Transport: "quic", In: t.QUICIn, Out: t.QUICOut}}
		},
		Storage: func(ctx context.Context) (gauges.Storage, error) {
			s, err := disk.look(ctx)
			return storageOf(s), err
		},
	})
	if err != nil {
		return usagef("trace.endpoint: %w", err)
	}
	cfg.Ended, cfg.Note = h.meter.Ended, h.meter.Noted
	return nil
}

func storageOf(s dash.Store) gauges.Storage {
	return gauges.Storage{Own: s.Own, Referenced: s.Referenced, Quota: s.Quota, Free: s.Free}
}

// openMetrics serves the metrics.
func openMetrics(_ context.Context, h *house, s settings.Settings) (opened, error) {
	if !s.Metrics.Enabled || h.meter == nil {
		return opened{}, nil
	}
	return opened{routes: []route{{"/metrics", h.meter}}}, nil
}

// spanTime is how long the last spans may take to be sent.
const spanTime = 2 * time.Second

// closeMeter sends the spans that wait.
func (h *house) closeMeter() error {
	if h.meter == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), spanTime)
	defer cancel()
	if err := h.meter.Close(ctx); err != nil {
		h.env.log().Warn("the last spans were not sent", "err", err)
	}
	return nil
}

// traced makes the requests to a front the roots of traces, if traces are made.
func (h *house) traced(name string, x http.Handler) http.Handler {
	if h.meter == nil {
		return x
	}
	return h.meter.Trace(name, x)
}

// originOf says on whose behalf something is transferred, and which trace that belongs to.
func originOf(ctx context.Context, who string) node.Origin {
	return node.Origin{Who: who, Trace: gauges.Parent(ctx)}
}
