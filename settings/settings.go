// Package settings is what a daemon may be told: the file config.toml of a home, as Go values. Each part of the daemon has a
// section of its own; what is not said has the value that Default gives it.
//
// # Terms
//
// A section is a table of the file, such as [http], and a field of Settings. A key is a section's name, a dot and a field's,
// such as http.listen; preset alone stands above the sections. The tag toml of a field is its name in the file, the tag doc says
// what it means, to people, and the tag secret keeps its value from being printed.
//
// A value comes from one of five places, each of which has it over those before: the default, a preset, the file, the
// environment (DRAY_HTTP_LISTEN for http.listen), a flag. [Read] puts them together and remembers where each value came from.
//
// # A section for a new part
//
// It is a struct in a file of its own, with a field in Settings, its defaults in [Default] and its check in [Settings.Check]. Fields
// are strings, booleans, integers, numbers, lists of strings, or of a type that reads and writes itself as text, such as
// [Duration] and [Size]. The rest (environment, lines in complaints, nearest names, `dray config`, the table in
// docs/settings.md) follows from the tags.
//
// # What it does not do
//
// It starts nothing. It checks that values make sense alone, not that a port is free or a file exists.
package settings

import "errors"

// Settings are all that a daemon may be told. Sections are independent of each other. They are values, read once at the start.
type Settings struct {
	// Preset is whose defaults count; see [Presets].
	Preset string `toml:"preset" doc:"whose defaults count: balanced, low-latency, throughput, edge or federated"`
	// HTTP is the server that the other doors hang in.
	HTTP HTTP `toml:"http"`
	// Log is what an operator reads.
	Log Log `toml:"log"`
	// Node is what exchanging blocks may cost.
	Node Node `toml:"node"`
	// Jobs is how detached gets are worked at.
	Jobs Jobs `toml:"jobs"`
	// Metrics are what machines read, and Trace is where spans go.
	Metrics Metrics `toml:"metrics"`
	Trace   Trace   `toml:"trace"`
	// Gateway is the door for IPFS clients.
	Gateway Gateway `toml:"gateway"`
	// Dash is the page on which people see what the daemon does.
	Dash Dash `toml:"dash"`
	// Hub is the daemon as a Hugging Face Hub.
	Hub Hub `toml:"hub"`
	// Upstream is another Hub.
	Upstream Upstream `toml:"upstream"`
	// Find is how peers are found that hold what is sought.
	Find Find `toml:"find"`
	// Reach is how this host finds others and is found.
	Reach Reach `toml:"reach"`
	// Edge is the cache before origins.
	Edge EdgeCache `toml:"edge"`
}

// Default returns the settings of a daemon that was told nothing.
func Default() Settings {
	return Settings{
		Preset: "balanced",
		HTTP:   defaultHTTP(),
		Log:    Log{Level: "warn", Format: "text"},
		Node:   defaultNode(),
		Jobs:   defaultJobs(),

		Metrics:  Metrics{Enabled: true},
		Trace:    Trace{Ratio: 1},
		Gateway:  defaultGateway(),
		Dash:     defaultDash(),
		Hub:      Hub{On: true},
		Upstream: defaultUpstream(),
		Reach:    defaultReach(),
		Edge:     defaultEdge(),
	}
}

// Check says which values make no sense.
func (s *Settings) Check() error {
	return errors.Join(
		checkPreset(s.Preset),
		s.HTTP.check(),
		s.Log.check(),
		s.Node.check(),
		s.Jobs.check(),
		s.Trace.check(),
		s.Gateway.check(),
		s.Dash.check(),
		s.Hub.check(),
		s.Upstream.check(),
		s.Find.check(),
		s.Reach.check(),
		s.Edge.check(),
	)
}
