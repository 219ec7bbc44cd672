// Package meter tells machines how a node fares: counters and gauges in Prometheus' format, and spans of transfers in
// OpenTelemetry's.
//
// # Terms
//
// A series is a metric with one value for each of its labels. Labels here are transports, directions, states and fronts, of which
// there are few and always the same; peers, roots, paths and transfers are never labels, because there is no end to them. The
// page (package dash) is for looking at those.
//
// A trace is a tree of spans, on several hosts. A get's span has one below it for each source, and each Dray that gave something
// adds its own: the getter sends it a [wire.NoteTrace] when it has what it wanted.
//
// # What it does not do
//
// It measures nothing: it reads what package node counts when somebody asks, so it costs nothing between two scrapes. Spans are
// made when a transfer has ended.
package meter
