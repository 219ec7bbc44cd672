package meter

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"dray"
	"dray/node"
	"dray/transport"
)

// TestRequestIsTheRoot: a request that has another host send something is the root of a trace: below it is the session, below that
// the peer, and below that what the peer adds. With a traceparent it is the client's child, and not traced if that is not.
func TestRequestIsTheRoot(t *testing.T) {
	client := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, x := range []struct {
		name, header string
		traced       bool
	}{
		{"alone", "", true},
		{"below a client's span", client, true},
		{"below one that is not traced", strings.TrimSuffix(client, "1") + "0", false},
		{"with nonsense", "00-nonsense", true},
	} {
		t.Run(x.name, func(t *testing.T) {
			mem := transport.NewMemory(transport.MemoryConfig{})
			a, b := newHost(t, mem, true), newHost(t, mem, true)
			root := add(t, a, 50_000)
			if err := b.Connect(t.Context(), transport.Peer{ID: a.Self(), Addrs: a.Addrs()}); err != nil {
				t.Fatal(err)
			}
			door := b.meter.Trace("gateway", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := b.NewSession(node.SessionConfig{
					Root: root, Peers: []dray.PeerID{a.Self()}, Origin: node.Origin{Who: "gateway", Trace: Parent(r.Context())},
				})
				defer s.Close()
				block, err := s.Get(r.Context(), root)
				if err != nil {
					t.Error(err)
				}
				w.WriteHeader(http.StatusTeapot)
				if _, err := io.Copy(w, strings.NewReader(string(block.Data()))); err != nil {
					t.Error(err)
				}
			}))
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ipfs/"+root.String(), nil)
			if x.header != "" {
				r.Header.Set("traceparent", x.header)
			}
			w := httptest.NewRecorder()
			door.ServeHTTP(w, r)
			if w.Code != http.StatusTeapot || w.Body.Len() != 50_000 {
				t.Fatalf("%d, %d bytes", w.Code, w.Body.Len())
			}
			if !x.traced {
				if err := b.Close(); err != nil { // with the last of its sessions
					t.Fatal(err)
				}
				if s := b.spans.GetSpans(); len(s) > 0 {
					t.Errorf("%v", s)
				}
				return
			}
			request := spanOf(t, b, "GET gateway")
			session, from, serve := spanOf(t, b, "session"), spanOf(t, b, "from peer"), spanOf(t, a, "serve")
			for _, pair := range [][2]tracetest.SpanStub{{session, request}, {from, session}, {serve, from}} {
				if pair[0].Parent.SpanID() != pair[1].SpanContext.SpanID() || pair[0].SpanContext.TraceID() != pair[1].SpanContext.TraceID() {
					t.Errorf("%s is not below %s", pair[0].Name, pair[1].Name)
				}
			}
			if x.header == client {
				if request.Parent.SpanID().String() != "b7ad6b7169203331" ||
					request.SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
					t.Errorf("it is not below the client's span: %v", request.Parent)
				}
			} else if request.Parent.IsValid() {
				t.Errorf("it has a parent: %v", request.Parent)
			}
			said := make(map[string]string)
			for _, kv := range request.Attributes {
				said[string(kv.Key)] = kv.Value.String()
			}
			if said["http.response.status_code"] != "418" || said["http.response.body.size"] != "50000" ||
				said["url.path"] != r.URL.Path || request.SpanKind != trace.SpanKindServer {
				t.Errorf("it says %v", said)
			}
		})
	}
}

// TestBrokenAnswerIsAnError: the span of a request whose answer was cut says so.
func TestBrokenAnswerIsAnError(t *testing.T) {
	h := newHost(t, transport.NewMemory(transport.MemoryConfig{}), true)
	door := h.meter.Trace("gateway", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("the server is told %v", p)
			}
		}()
		door.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "BREW", "/", nil))
	}()
	if s := spanOf(t, h, "_OTHER gateway"); s.Status.Description != "the answer broke off" {
		t.Errorf("%+v", s.Status)
	}
}

// spanOf waits for a span.
func spanOf(t *testing.T, h *host, name string) tracetest.SpanStub {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, s := range h.spans.GetSpans() {
			if s.Name == name {
				return s
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("there is no span %q: %v", name, h.spans.GetSpans())
		}
	}
}
