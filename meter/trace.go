package meter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"dray"
	"dray/node"
	"dray/wire"
)

// TraceConfig says where spans go.
type TraceConfig struct {
	// Endpoint is the URL of a collector that speaks OTLP over HTTP, such as http://127.0.0.1:4318. If empty, there are no
	// spans, and nobody is told of any.
	Endpoint string
	// Ratio is how many of this host's transfers are traced, from 0 to 1.
	Ratio float64
	// Host names this host in spans: its peer id.
	Host string
}

// tracer makes spans of what has ended.
type tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	log      *slog.Logger

	mu    sync.Mutex
	since time.Time
	heard int // notes since then
}

func newTracer(c TraceConfig, version string, log *slog.Logger) (*tracer, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	at, err := url.Parse(c.Endpoint)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" {
		return nil, fmt.Errorf("%q is no URL of a collector; right is one like http://127.0.0.1:4318", c.Endpoint)
	}
	if at.Path == "" || at.Path == "/" {
		at.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(at.String()))
	if err != nil {
		return nil, err
	}
	return newTracerTo(c, version, log, sdk.WithBatcher(&quiet{SpanExporter: exporter, log: log})), nil
}

func newTracerTo(c TraceConfig, version string, log *slog.Logger, to sdk.TracerProviderOption) *tracer {
	t := &tracer{log: log}
	t.provider = sdk.NewTracerProvider(to,
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "dray"), attribute.String("service.version", version),
			attribute.String("service.instance.id", c.Host))),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(c.Ratio))))
	t.tracer = t.provider.Tracer("dray")
	return t
}

// quiet tells the daemon's log of spans that could not be sent, in place of standard error.
type quiet struct {
	sdk.SpanExporter
	log *slog.Logger
}

// ExportSpans implements the SDK's SpanExporter.
func (q *quiet) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := q.SpanExporter.ExportSpans(ctx, spans); err != nil {
		q.log.Warn("spans could not be sent", "spans", len(spans), "err", err)
	}
	return nil
}

func (t *tracer) close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// ended makes the spans of a transfer, and tells those who gave something, so that they add theirs.
func (t *tracer) ended(n *node.Node, x *node.Transfer) {
	root := x.Progress.Root
	ctx, span := t.tracer.Start(under(x.Origin.Trace), string(x.Kind), trace.WithTimestamp(x.Began),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("dray.root", cidText(root)),
			attribute.String("dray.origin", x.Origin.Who),
			attribute.String("dray.state", string(x.State)),
			attribute.Int64("dray.bytes", x.Progress.Done),
			attribute.Int64("dray.bytes.reused", x.Progress.Reused),
			attribute.Int64("dray.bytes.fetched", x.Progress.Fetched),
			attribute.Int("dray.leaves", x.Progress.Leaves),
			attribute.Int64("dray.first_byte_ms", x.Progress.First.Milliseconds()),
		))
	defer span.End(trace.WithTimestamp(x.Ended))
	if x.Err != nil {
		span.SetStatus(codes.Error, x.Err.Error())
	}
	if !span.IsRecording() {
		return
	}
	for _, g := range x.Gifts {
		_, from := t.tracer.Start(ctx, "from "+string(g.Kind), trace.WithTimestamp(x.Began), trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(attribute.Int64("dray.bytes", g.Bytes)))
		if g.Name != "" {
			from.SetAttributes(attribute.String("dray.source", g.Name))
		}
		if g.Peer != "" {
			from.SetAttributes(attribute.String("dray.peer", g.Peer.String()))
			note := servedNote{at: from.SpanContext(), root: root, bytes: g.Bytes, took: x.Ended.Sub(x.Began)}
			if n != nil {
				if err := n.Notify(g.Peer, wire.Note{Kind: wire.NoteTrace, Data: note.encode()}); err != nil {
					t.log.Debug("a peer was not told of a trace", "peer", g.Peer, "err", err)
				}
			}
		}
		from.End(trace.WithTimestamp(x.Ended))
	}
}

// notesPerSecond bounds the spans that peers can make this host write.
const notesPerSecond = 50

// Noted takes a note of a peer's, of which it heeds those about traces. It does not block.
func (m *Meter) Noted(from dray.PeerID, note wire.Note) {
	if m.tracer == nil || note.Kind != wire.NoteTrace {
		return
	}
	if err := m.tracer.served(time.Now(), from, note.Data); err != nil {
		m.cfg.Log.Debug("a note about a trace", "peer", from, "err", err)
	}
}

var errTooManyNotes = errors.New("too many of them")

// served makes the span of having served somebody, out of what he says.
func (t *tracer) served(now time.Time, from dray.PeerID, data []byte) error {
	t.mu.Lock()
	if now.Sub(t.since) >= time.Second {
		t.since, t.heard = now, 0
	}
	t.heard++
	many := t.heard > notesPerSecond
	t.mu.Unlock()
	if many {
		return errTooManyNotes
	}
	x, err := readServedNote(data)
	if err != nil {
		return err
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), x.at)
	_, span := t.tracer.Start(ctx, "serve", trace.WithTimestamp(now.Add(-x.took)), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(
			attribute.String("dray.root", cidText(x.root)),
			attribute.String("dray.peer", from.String()),
			attribute.Int64("dray.bytes", x.bytes)))
	span.End(trace.WithTimestamp(now))
	return nil
}

// servedNote is what a getter tells a peer that gave something: a version, the trace, the span, its flags, then the number of
// bytes and of milliseconds as varints, and the root's CID.
type servedNote struct {
	at    trace.SpanContext
	root  cid.Cid
	bytes int64
	took  time.Duration
}

const (
	servedVersion = 1
	servedHead    = 1 + 16 + 8 + 1
	// longestServed bounds what a peer may claim that serving took.
	longestServed = 30 * 24 * time.Hour
)

var errServedNote = errors.New("a note about a trace that cannot be read")

func (x *servedNote) encode() []byte {
	id, span := x.at.TraceID(), x.at.SpanID()
	b := append([]byte{servedVersion}, id[:]...)
	b = append(append(b, span[:]...), byte(x.at.TraceFlags()))
	b = binary.AppendUvarint(b, uint64(max(x.bytes, 0)))
	b = binary.AppendUvarint(b, uint64(max(x.took, 0).Milliseconds()))
	return append(b, x.root.Bytes()...)
}

func readServedNote(b []byte) (x servedNote, err error) {
	if len(b) < servedHead || b[0] != servedVersion {
		return x, errServedNote
	}
	c := trace.SpanContextConfig{
		TraceID: trace.TraceID(b[1:17]), SpanID: trace.SpanID(b[17:25]), TraceFlags: trace.TraceFlags(b[25]), Remote: true,
	}
	x.at = trace.NewSpanContext(c)
	b = b[servedHead:]
	n, k := binary.Uvarint(b)
	if k <= 0 || n > math.MaxInt64 || !x.at.IsValid() {
		return x, errServedNote
	}
	ms, l := binary.Uvarint(b[k:])
	if l <= 0 || ms > uint64(longestServed.Milliseconds()) {
		return x, errServedNote
	}
	x.bytes, x.took = int64(n), time.Duration(ms)*time.Millisecond
	if b = b[k+l:]; len(b) == 0 {
		return x, nil
	}
	if len(b) > dray.MaxCIDSize {
		return x, errServedNote
	}
	if x.root, err = cid.Cast(b); err != nil {
		return x, errServedNote
	}
	return x, nil
}

func cidText(c cid.Cid) string {
	if !c.Defined() {
		return ""
	}
	return c.String()
}
