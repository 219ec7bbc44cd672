package edge

import (
	"maps"
	"slices"
	"time"
)

// Stats says what an Edge has done since it was opened, and what it holds. Hits, Misses and Coalesced count segments
// and blocks that clients read: from the cache, by a fetch of their own, and from a fetch that another one had
// caused.
type Stats struct {
	Hits      int64 `json:"hits"`
	Misses    int64 `json:"misses"`
	Coalesced int64 `json:"coalesced"`
	// Revalidated counts objects of which a source said that they had not changed.
	Revalidated int64 `json:"revalidated"`
	// Stale counts requests that were answered although no source answered, and Passed those that went through.
	Stale  int64 `json:"stale"`
	Passed int64 `json:"passed"`
	// Failed counts requests that were not answered because of a source.
	Failed int64 `json:"failed"`
	// Invalidated counts objects that were dropped because somebody said so.
	Invalidated int64 `json:"invalidated"`
	// BytesServed is what clients got, and BytesFetched what sources sent.
	BytesServed  int64 `json:"bytes_served"`
	BytesFetched int64 `json:"bytes_fetched"`
	// Evicted counts leaves that made room for others, Rejected those that came and were not kept, and DiskErrors how
	// often the disk failed.
	Evicted    int64 `json:"evicted"`
	Rejected   int64 `json:"rejected"`
	DiskErrors int64 `json:"disk_errors"`
	// Held is what leaves take of the disk, in bytes, of Size at most.
	Held    int64 `json:"held"`
	Size    int64 `json:"size"`
	Leaves  int   `json:"leaves"`
	Objects int   `json:"objects"`
	// Sources are in the order of the settings.
	Sources []SourceStats `json:"sources"`
}

// SourceStats says what is known of one source.
type SourceStats struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	URL  string `json:"url,omitempty"`
	// State is "healthy", "ill" (more failures than answers lately) or "resting" (left alone for a while).
	State string `json:"state"`
	// Score is between 0, all fails, and 1.
	Score float64 `json:"score"`
	// Latency is the mean time until an answer begins; 0 is not known.
	Latency  time.Duration `json:"latency"`
	Requests int64         `json:"requests"`
	Failures int64         `json:"failures"`
	Bytes    int64         `json:"bytes"`
	// LastError is what failed last.
	LastError string `json:"last_error,omitempty"`
}

// HitRatio returns the share of what was read that came from the cache, between 0 and 1.
func (s *Stats) HitRatio() float64 {
	if all := s.Hits + s.Misses + s.Coalesced; all > 0 {
		return float64(s.Hits) / float64(all)
	}
	return 0
}

// count changes what is counted.
func (e *Edge) count(f func(*Stats)) {
	e.statsMu.Lock()
	defer e.statsMu.Unlock()
	f(&e.stats)
}

// Stats returns what has been counted.
func (e *Edge) Stats() Stats {
	e.statsMu.Lock()
	s := e.stats
	e.statsMu.Unlock()
	s.Evicted, s.Rejected, s.DiskErrors = e.hoard.evicted.Load(), e.hoard.rejected.Load(), e.hoard.failed.Load()
	s.Held, s.Leaves = e.hoard.bytes()
	s.Size = e.cfg.Size
	e.mu.Lock()
	s.Objects = len(e.objects)
	e.mu.Unlock()
	s.Sources = []SourceStats{}
	for _, name := range slices.Sorted(maps.Keys(e.groups)) {
		for _, v := range e.groups[name].servers {
			s.Sources = append(s.Sources, v.stats())
		}
	}
	return s
}

func (v *server) stats() SourceStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := SourceStats{
		Name: v.Name, Kind: v.Kind.String(), URL: v.Source.URL, State: "healthy", Score: v.score, Latency: v.latency,
		Requests: v.requests, Failures: v.failures, Bytes: v.bytes, LastError: v.last,
	}
	switch {
	case !v.rest.IsClosed():
		s.State = "resting"
	case v.score <= healthyAbove:
		s.State = "ill"
	}
	return s
}
