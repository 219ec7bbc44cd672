package settings

import "errors"

// Metrics says what machines are told.
type Metrics struct {
	// Enabled says that they are served.
	Enabled bool `toml:"enabled" doc:"whether metrics in Prometheus' format are served at /metrics"`
}

// Trace says where spans of transfers go.
type Trace struct {
	// Endpoint is a collector's URL. If empty, there are no spans.
	Endpoint string `toml:"endpoint" doc:"collector of OpenTelemetry spans that speaks OTLP over HTTP, such as http://127.0.0.1:4318; empty is none"`
	// Ratio is how many transfers are traced.
	Ratio float64 `toml:"ratio" doc:"how many of this host's transfers are traced, from 0 to 1"`
}

func (t *Trace) check() error {
	var errs []error
	if t.Endpoint != "" && !isWebURL(t.Endpoint) {
		errs = append(errs, Wrong("trace.endpoint", t.Endpoint, "a URL such as http://127.0.0.1:4318, or nothing"))
	}
	if !(t.Ratio >= 0 && t.Ratio <= 1) {
		errs = append(errs, Wrong("trace.ratio", t.Ratio, "between 0 and 1"))
	}
	return errors.Join(errs...)
}
