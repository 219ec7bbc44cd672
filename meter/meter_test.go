package meter

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"dray"
	"dray/node"
	"dray/store"
	"dray/transport"
	"dray/wire"
)

// host is a node with a Meter.
type host struct {
	*node.Node
	meter *Meter
	spans *tracetest.InMemoryExporter
}

func newHost(t *testing.T, mem *transport.Memory, traced bool) *host {
	t.Helper()
	m, err := New(Config{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{meter: m}
	if traced {
		h.spans = tracetest.NewInMemoryExporter()
		m.tracer = newTracerTo(TraceConfig{Ratio: 1}, "test", m.cfg.Log, sdk.WithSyncer(h.spans))
	}
	h.Node, err = node.New(node.Config{Store: store.NewMem(0), Network: mem.NewHost(), Ended: m.Ended, Note: m.Noted})
	if err != nil {
		t.Fatal(err)
	}
	m.Bind(h.Node)
	t.Cleanup(func() {
		h.Close()
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// scrape reads the metrics as a scraper does.
func scrape(t *testing.T, m *Meter) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	return families
}

func series(families map[string]*dto.MetricFamily) (n int) {
	for name, f := range families {
		if strings.HasPrefix(name, "dray_") {
			n += len(f.GetMetric())
		}
	}
	return n
}

// value adds up the series of a metric that have all the labels.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (sum float64) {
	for _, m := range families[name].GetMetric() {
		has := make(map[string]bool)
		for _, l := range m.GetLabel() {
			has[l.GetValue()] = true
		}
		fits := true
		for _, l := range labels {
			fits = fits && has[l]
		}
		if fits {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// add makes content available at a host.
func add(t *testing.T, h *host, size int) cid.Cid {
	t.Helper()
	data := make([]byte, size)
	seed := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	_, _ = seed.Read(data)
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

func get(t *testing.T, h, from *host, root cid.Cid) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	peer := transport.Peer{ID: from.Self(), Addrs: from.Addrs()}
	if _, err := h.Fetch(ctx, node.FetchConfig{Root: root, Peers: []transport.Peer{peer}}); err != nil {
		t.Fatal(err)
	}
}

// TestMetrics scrapes a host: what it says is so, and how many series there are does not depend on how many peers and transfers.
func TestMetrics(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	a, b := newHost(t, mem, false), newHost(t, mem, false)
	get(t, b, a, add(t, a, 100_000))
	few := scrape(t, b.meter)
	for _, x := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"dray_peers", nil, 1},
		{"dray_block_bytes_total", []string{"in"}, 100_000},
		{"dray_block_bytes_total", []string{"out"}, 0},
		{"dray_transfer_bytes_total", []string{"peer"}, 100_000},
		{"dray_transfer_seconds", []string{"fetch", "done"}, 1},
		{"dray_component_condition", []string{"exchange"}, 1},
		{"dray_mode", nil, 1},
		{"dray_build_info", []string{"test"}, 1},
	} {
		if got := value(few, x.name, x.labels...); got != x.want {
			t.Errorf("%s%v is %v, want %v", x.name, x.labels, got, x.want)
		}
	}
	if got := value(scrape(t, a.meter), "dray_block_bytes_total", "out"); got != 100_000 {
		t.Errorf("the holder says it served %v bytes, %+v; the getter %+v", got, a.Totals(), b.Totals())
	}
	for i := range 20 {
		c := newHost(t, mem, false)
		get(t, b, c, add(t, c, 1000+i))
	}
	many := scrape(t, b.meter)
	if got := value(many, "dray_peers"); got != 21 {
		t.Errorf("%v peers, want 21", got)
	}
	if n := series(few); n != series(many) || n > 200 {
		t.Errorf("%d series with one peer and %d with 21", n, series(many))
	}
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	b.meter.ServeHTTP(w, r)
	if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("who asks for OpenMetrics gets %s", kind)
	}
}

// TestFront counts requests, and lets a handler do what it could without.
func TestFront(t *testing.T) {
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := m.Front("door", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("the system can no longer send from a file")
		}
	}))
	s := httptest.NewServer(h)
	defer s.Close()
	resp, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := value(scrape(t, m), "dray_http_request_seconds", "door", "200"); got != 1 {
		t.Errorf("%v requests are counted, want 1", got)
	}
}

// TestTrace follows a get over two hosts: the holder's span lies below the getter's.
func TestTrace(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	a, b := newHost(t, mem, true), newHost(t, mem, true)
	root := add(t, a, 50_000)
	get(t, b, a, root)
	var fetch, from tracetest.SpanStub
	for _, s := range b.spans.GetSpans() {
		switch s.Name {
		case "fetch":
			fetch = s
		case "from peer":
			from = s
		}
	}
	if !fetch.SpanContext.IsValid() || from.Parent.SpanID() != fetch.SpanContext.SpanID() {
		t.Fatalf("the getter's spans are %v", b.spans.GetSpans())
	}
	deadline, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(a.spans.GetSpans()) == 0 {
		tick, done := context.WithTimeout(deadline, 5*time.Millisecond)
		<-tick.Done()
		done()
		if deadline.Err() != nil {
			t.Fatal("the holder adds no span")
		}
	}
	serve := a.spans.GetSpans()[0]
	if serve.Name != "serve" || serve.SpanContext.TraceID() != fetch.SpanContext.TraceID() ||
		serve.Parent.SpanID() != from.SpanContext.SpanID() || serve.SpanKind != trace.SpanKindServer {
		t.Errorf("the holder's span is %+v", serve)
	}
	said := make(map[string]string)
	for _, x := range serve.Attributes {
		said[string(x.Key)] = x.Value.String()
	}
	if said["dray.root"] != root.String() || said["dray.peer"] != b.Self().String() || said["dray.bytes"] != "50000" {
		t.Errorf("it says %v", said)
	}
}

// TestServedNote reads what was written, and nothing that is cut or made up.
func TestServedNote(t *testing.T) {
	c := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 1})
	root, err := cid.Decode("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
	if err != nil {
		t.Fatal(err)
	}
	note := servedNote{at: c, root: root, bytes: 1 << 40, took: 90 * time.Minute}
	text := note.encode()
	got, err := readServedNote(text)
	if err != nil || !got.root.Equals(root) || got.bytes != note.bytes || got.took != note.took ||
		got.at.TraceID() != c.TraceID() || got.at.SpanID() != c.SpanID() || !got.at.IsSampled() || !got.at.IsRemote() {
		t.Errorf("read %+v, %v", got, err)
	}
	for n := range text {
		if n == len(text)-len(root.Bytes()) {
			continue // without a root
		}
		if _, err := readServedNote(text[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were read", n, len(text))
		}
	}
	long := note
	long.took = 2 * longestServed
	nobody := note
	nobody.at = trace.SpanContext{}
	for name, x := range map[string][]byte{
		"version": append([]byte{2}, text[1:]...),
		"long":    long.encode(),
		"nobody":  nobody.encode(),
		"no CID":  append(bytes.Clone(text[:len(text)-len(root.Bytes())]), 1, 2, 3),
	} {
		if _, err := readServedNote(x); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// TestNotesAreBounded: a peer cannot make this host write spans without end, nor with what is no note.
func TestNotesAreBounded(t *testing.T) {
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	spans := tracetest.NewInMemoryExporter()
	m.tracer = newTracerTo(TraceConfig{Ratio: 1}, "test", m.cfg.Log, sdk.WithSyncer(spans))
	now := time.Now()
	note := servedNote{at: trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 1,
	})}
	for range 10 * notesPerSecond {
		_ = m.tracer.served(now, "p", note.encode()) // most are too many
	}
	if n := len(spans.GetSpans()); n != notesPerSecond {
		t.Errorf("%d spans in a second, want %d", n, notesPerSecond)
	}
	if err := m.tracer.served(now.Add(time.Second), "p", note.encode()); err != nil {
		t.Errorf("a second later: %v", err)
	}
	m.Noted("p", wire.Note{Kind: wire.NoteTrace, Data: []byte("nonsense")})
	m.Noted("p", wire.Note{Kind: wire.NoteGoodbye})
	if n := len(spans.GetSpans()); n != notesPerSecond+1 {
		t.Errorf("%d spans, want %d", n, notesPerSecond+1)
	}
}

// TestCollector sends spans to a server, and says in the log when it cannot.
func TestCollector(t *testing.T) {
	got := make(chan string, 8)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body) > 0 {
			got <- r.URL.Path + " " + r.Header.Get("Content-Type")
		}
	}))
	defer s.Close()
	m, err := New(Config{Trace: TraceConfig{Endpoint: s.URL, Ratio: 1}})
	if err != nil {
		t.Fatal(err)
	}
	m.Ended(node.Transfer{Kind: node.KindFetch, State: node.TransferDone, Began: time.Now(), Ended: time.Now()})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case where := <-got:
		if where != "/v1/traces application/x-protobuf" {
			t.Errorf("spans went to %s", where)
		}
	default:
		t.Error("the collector got nothing")
	}
	if _, err := New(Config{Trace: TraceConfig{Endpoint: "collector:4318"}}); err == nil {
		t.Error("what is no URL was taken")
	}
}
