package meter

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dray/node"
)

// Wire is what passed sockets of one kind, in bytes.
type Wire struct {
	// Transport is "tcp" or "quic".
	Transport string
	// In and Out are what was received and sent since the start.
	In, Out int64
}

// Storage is what a store holds, in bytes.
type Storage struct {
	// Own are the store's copies, Referenced what lies in the user's own files.
	Own, Referenced int64
	// Quota bounds Own; 0 is no bound.
	Quota int64
	// Free is what the disk has left.
	Free int64
}

// Config says what a Meter tells of. Its zero value tells of the process alone.
type Config struct {
	// Version names the build.
	Version string
	// Wire returns what passed sockets. If nil, that is not told.
	Wire func() []Wire
	// Storage returns what the store holds; an error leaves it out of that scrape. If nil, it is not told.
	Storage func(ctx context.Context) (Storage, error)
	// Trace says where spans go. If its Endpoint is empty, there are none.
	Trace TraceConfig
	// Log hears of spans that could not be sent. If nil, nobody does.
	Log *slog.Logger
}

// Meter tells how a node fares. It is safe for concurrent use. Make one with [New], give [Meter.Ended] and [Meter.Noted] to the
// node's Config, and then the node to [Meter.Bind].
type Meter struct {
	cfg      Config
	registry *prometheus.Registry
	tracer   *tracer // nil without an endpoint
	node     atomic.Pointer[node.Node]

	transfers *prometheus.HistogramVec
	content   *prometheus.CounterVec
	requests  *prometheus.HistogramVec
	busy      *prometheus.GaugeVec
}

// How long transfers and requests take, in seconds: from what is here already to a model over a slow line.
var (
	transferBuckets = []float64{0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 36000}
	requestBuckets  = []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600}
)

// New returns a Meter without a node. The error says what is wrong with where spans go.
func New(cfg Config) (*Meter, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Meter{cfg: cfg, registry: prometheus.NewRegistry()}
	m.transfers = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dray_transfer_seconds", Help: "How long transfers took that have ended.", Buckets: transferBuckets,
	}, []string{"kind", "state"})
	m.content = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_transfer_bytes_total", Help: "Bytes of content that came into their places, by where they came from.",
	}, []string{"source"})
	m.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dray_http_request_seconds", Help: "How long HTTP requests took, by front and answer.", Buckets: requestBuckets,
	}, []string{"front", "code"})
	m.busy = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "dray_http_requests", Help: "HTTP requests that are being answered, by front.",
	}, []string{"front"})
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.transfers, m.content, m.requests, m.busy, &counted{m},
	)
	var err error
	if m.tracer, err = newTracer(cfg.Trace, cfg.Version, cfg.Log); err != nil {
		return nil, err
	}
	return m, nil
}

// Bind says which node it is. Before, there is nothing to tell of it.
func (m *Meter) Bind(n *node.Node) { m.node.Store(n) }

// Close sends the spans that wait, while ctx allows.
func (m *Meter) Close(ctx context.Context) error {
	if m.tracer == nil {
		return nil
	}
	return m.tracer.close(ctx)
}

// scrapes is how many may read the metrics at a time.
const scrapes = 4

// ServeHTTP writes the metrics, in the format that the client asks for.
func (m *Meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapes, Timeout: 10 * time.Second, EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError,
	}).ServeHTTP(w, r)
}

// Front counts the requests to a front, whose name is one of few.
func (m *Meter) Front(name string, h http.Handler) http.Handler {
	by := prometheus.Labels{"front": name}
	return promhttp.InstrumentHandlerInFlight(m.busy.With(by),
		promhttp.InstrumentHandlerDuration(m.requests.MustCurryWith(by), h))
}

// Ended takes a transfer that has ended. It does not block.
func (m *Meter) Ended(t node.Transfer) {
	m.transfers.WithLabelValues(string(t.Kind), string(t.State)).Observe(t.Ended.Sub(t.Began).Seconds())
	for _, g := range t.Gifts {
		m.content.WithLabelValues(string(g.Kind)).Add(float64(max(g.Bytes, 0)))
	}
	if m.tracer != nil {
		m.tracer.ended(m.node.Load(), &t)
	}
}

// errNoNode means that a scrape came before there was a node.
var errNoNode = errors.New("there is no node yet")
