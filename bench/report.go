package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// measure is one run of one row.
type measure struct {
	Row     string `json:"row"`
	Group   string `json:"group"`
	Pairing string `json:"pairing"`
	Round   int    `json:"round"`
	// Seconds is from the start of the client's process to its end; in a swarm until the last getter has the file.
	// Synced goes on until the disk has it all.
	Seconds float64 `json:"seconds"`
	Synced  float64 `json:"synced_seconds"`
	Bytes   int64   `json:"bytes"`
	// The CPU times are user plus system seconds; the server's only while the client ran; the getters' of a swarm
	// summed up.
	ClientCPU float64 `json:"client_cpu_seconds"`
	ServerCPU float64 `json:"server_cpu_seconds"`
	// The peaks are bytes resident; the server's since it was started; of a swarm's getters the largest.
	ClientRSS int64   `json:"client_peak_rss"`
	ServerRSS int64   `json:"server_peak_rss"`
	Client    fetched `json:"client"`
	// InForce is what the bytes travelled in: as the program says, or else what is known of it.
	InForce string `json:"in_force,omitempty"`
	// First is the seconds until the client had the first payload: from its first connection, or for a client that
	// tells how long its dial took (dray-node), from the end of that. FirstLeaf goes on until the first leaf is
	// verified and in its place, for such a client. The trips are the same in round trips of the link; zero is what was
	// not observed.
	First          float64 `json:"first_payload_seconds,omitempty"`
	FirstTrips     float64 `json:"first_payload_round_trips,omitempty"`
	FirstLeaf      float64 `json:"first_leaf_seconds,omitempty"`
	FirstLeafTrips float64 `json:"first_leaf_round_trips,omitempty"`
	// Getters is how many got the file in a swarm or from a Hub, and FirstDone when the first of them had it.
	Getters   int     `json:"getters,omitempty"`
	FirstDone float64 `json:"first_done_seconds,omitempty"`
	// Sent is how many bytes of payload the seed of a swarm, or the upstream, sent, as it says, KernelSent how many bytes of all kinds
	// its connections had acknowledged, and Duplicates what the getters received twice.
	Sent       int64  `json:"seed_sent,omitempty"`
	KernelSent int64  `json:"seed_sent_kernel,omitempty"`
	Duplicates int64  `json:"duplicate_bytes,omitempty"`
	Error      string `json:"error,omitempty"`
}

// copies returns n bytes in copies of the file.
func (m *measure) copies(n int64) float64 {
	if m.Bytes == 0 {
		return 0
	}
	return float64(n) / float64(m.Bytes)
}

// firstText says how many round trips the first payload took, and from when where that is not the first connection.
func (m *measure) firstText() string {
	if m.FirstLeaf == 0 {
		return fmt.Sprintf("%.1f", m.FirstTrips)
	}
	return fmt.Sprintf("%.1f after the dial (whole leaf %.1f)", m.FirstTrips, m.FirstLeafTrips)
}

// String is the run in one line.
func (m measure) String() string {
	if m.Error != "" {
		return "failed: " + m.Error
	}
	text := fmt.Sprintf("%7.3f s  %7.1f MB/s  synced %7.3f s  cpu %5.2f+%5.2f s  peak %4d+%4d MiB",
		m.Seconds, rate(m.Bytes, m.Seconds), m.Synced, m.ClientCPU, m.ServerCPU, m.ClientRSS>>20, m.ServerRSS>>20)
	if m.Getters > 0 {
		text += fmt.Sprintf("  seed sent %.2f (kernel %.2f), %.3f twice",
			m.copies(m.Sent), m.copies(m.KernelSent), m.copies(m.Duplicates))
	}
	if m.First > 0 {
		text += "  first payload after " + m.firstText() + " round trips"
	}
	if m.InForce != "" {
		text += "  " + m.InForce
	}
	return text
}

// rowState is a row that was chosen.
type rowState struct {
	Row     string `json:"row"`
	Group   string `json:"group"`
	Pairing string `json:"pairing"`
	// Missing says why the row cannot run here, or is empty.
	Missing string `json:"not_here,omitempty"`
}

// report is all that one suite found out.
type report struct {
	Machine         machine    `json:"machine"`
	Started         time.Time  `json:"started"`
	SizeBytes       int64      `json:"size_bytes"`
	LinkSizeBytes   int64      `json:"link_size_bytes"`
	SwarmSizeBytes  int64      `json:"swarm_size_bytes"`
	SparseSizeBytes int64      `json:"sparse_size_bytes"`
	LinkDelay       string     `json:"link_delay"`
	LinkRate        float64    `json:"link_bits_per_second"`
	Conns           int        `json:"ideal_connections"`
	LinkConns       int        `json:"ideal_link_connections"`
	Notes           []string   `json:"notes,omitempty"`
	Rows            []rowState `json:"rows"`
	Runs            []measure  `json:"runs"`
}

// line is a row and the median of its runs.
type line struct {
	measure
	missing      string
	runs, failed int
}

// median returns the middle of xs, or the mean of the two in the middle. It returns 0 for none.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	n := len(xs)
	return (xs[(n-1)/2] + xs[n/2]) / 2
}

// lines returns the medians, in the order of the rows.
func (r *report) lines() []line {
	runs := map[string][]measure{}
	for _, m := range r.Runs {
		runs[m.Row] = append(runs[m.Row], m)
	}
	var out []line
	for _, row := range r.Rows {
		if all := runs[row.Row]; len(all) > 0 {
			out = append(out, medianLine(all))
			continue
		}
		m := measure{Row: row.Row, Group: row.Group, Pairing: row.Pairing}
		out = append(out, line{measure: m, missing: cmp.Or(row.Missing, "not run")})
	}
	return out
}

func medianLine(all []measure) line {
	l := line{measure: all[0]}
	var ok []measure
	for _, m := range all {
		if m.Error == "" {
			ok = append(ok, m)
		} else {
			l.Error = m.Error
			l.failed++
		}
	}
	l.runs = len(ok)
	mid := func(get func(measure) float64) float64 {
		var xs []float64
		for _, m := range ok {
			xs = append(xs, get(m))
		}
		return median(xs)
	}
	l.Seconds = mid(func(m measure) float64 { return m.Seconds })
	l.Synced = mid(func(m measure) float64 { return m.Synced })
	l.ClientCPU = mid(func(m measure) float64 { return m.ClientCPU })
	l.ServerCPU = mid(func(m measure) float64 { return m.ServerCPU })
	l.First = mid(func(m measure) float64 { return m.First })
	l.FirstTrips = mid(func(m measure) float64 { return m.FirstTrips })
	l.FirstLeaf = mid(func(m measure) float64 { return m.FirstLeaf })
	l.FirstLeafTrips = mid(func(m measure) float64 { return m.FirstLeafTrips })
	l.FirstDone = mid(func(m measure) float64 { return m.FirstDone })
	l.Sent = int64(mid(func(m measure) float64 { return float64(m.Sent) }))
	l.KernelSent = int64(mid(func(m measure) float64 { return float64(m.KernelSent) }))
	l.Duplicates = int64(mid(func(m measure) float64 { return float64(m.Duplicates) }))
	l.InForce = ""
	// Memory is a promise about the worst case, so the largest counts.
	for _, m := range ok {
		l.ClientRSS, l.ServerRSS = max(l.ClientRSS, m.ClientRSS), max(l.ServerRSS, m.ServerRSS)
		l.Bytes, l.Getters = m.Bytes, m.Getters
		// What changes between rounds is shown.
		if !slices.Contains(strings.Split(l.InForce, " / "), m.InForce) {
			l.InForce = strings.TrimPrefix(l.InForce+" / "+m.InForce, " / ")
		}
	}
	return l
}

// save writes everything as JSON.
func (r *report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
