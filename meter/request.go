package meter

import (
	"context"
	"io"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// parentHeader is where W3C Trace Context puts the trace and the span that something belongs to.
const parentHeader = "traceparent"

// Trace makes a span of each request to a front, whose name is one of few: the root of what the request causes, or a child of the
// span that its traceparent names. [Parent] tells of it under the request's context. Without an endpoint it is h itself.
func (m *Meter) Trace(name string, h http.Handler) http.Handler {
	if m.tracer == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := m.tracer.tracer.Start(ctx, spanMethod(r.Method)+" "+name, trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(
				attribute.String("http.request.method", spanMethod(r.Method)),
				attribute.String("url.path", r.URL.Path),
			))
		r = r.WithContext(ctx)
		if !span.IsRecording() {
			h.ServeHTTP(w, r)
			return
		}
		a := &answer{ResponseWriter: w, code: http.StatusOK}
		whole := false
		defer func() {
			span.SetAttributes(attribute.Int("http.response.status_code", a.code), attribute.Int64("http.response.body.size", a.bytes))
			switch {
			case !whole:
				span.SetStatus(codes.Error, "the answer broke off")
			case a.code >= http.StatusInternalServerError:
				span.SetStatus(codes.Error, http.StatusText(a.code))
			}
			span.End()
		}()
		h.ServeHTTP(a, r)
		whole = true
	})
}

// Parent returns the traceparent of the span that a context belongs to, for [node.Origin], or "".
func Parent(ctx context.Context) string {
	said := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, said)
	return said[parentHeader]
}

// under returns a context below a traceparent, which may be "".
func under(parent string) context.Context {
	if parent == "" {
		return context.Background()
	}
	return propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{parentHeader: parent})
}

// spanMethod names a method as OpenTelemetry's conventions do: those that are not known have one name together.
func spanMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// answer notes what is answered. It belongs to the handler's goroutine.
type answer struct {
	http.ResponseWriter
	code  int
	bytes int64
	told  bool // the code is what the handler said first
}

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(code int) {
	if !a.told && code >= http.StatusOK {
		a.code, a.told = code, true
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write implements [io.Writer].
func (a *answer) Write(p []byte) (int, error) {
	a.told = true
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// ReadFrom lets the writer below take the bytes straight from a file.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	a.told = true
	n, err := io.Copy(a.ResponseWriter, r)
	a.bytes += n
	return n, err
}

// Flush implements [http.Flusher], where the writer below does.
func (a *answer) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
