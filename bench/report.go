package main

import (
	"encoding/json"
	"fmt"
	"io"
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
	// Seconds is from the start of the client's process to its end; Synced until the disk has it all.
	Seconds float64 `json:"seconds"`
	Synced  float64 `json:"synced_seconds"`
	Bytes   int64   `json:"bytes"`
	// The CPU times are user plus system seconds; the server's only while the client ran.
	ClientCPU float64 `json:"client_cpu_seconds"`
	ServerCPU float64 `json:"server_cpu_seconds"`
	// The peaks are bytes resident; the server's since it was started.
	ClientRSS int64   `json:"client_peak_rss"`
	ServerRSS int64   `json:"server_peak_rss"`
	Client    fetched `json:"client"`
	Error     string  `json:"error,omitempty"`
}

// String is the run in one line.
func (m measure) String() string {
	if m.Error != "" {
		return "failed: " + m.Error
	}
	return fmt.Sprintf("%7.3f s  %7.1f MB/s  synced %7.3f s  cpu %5.2f+%5.2f s  peak %4d+%4d MiB",
		m.Seconds, rate(m.Bytes, m.Seconds), m.Synced, m.ClientCPU, m.ServerCPU, m.ClientRSS>>20, m.ServerRSS>>20)
}

// report is all that one suite found out.
type report struct {
	Machine       machine   `json:"machine"`
	Started       time.Time `json:"started"`
	SizeBytes     int64     `json:"size_bytes"`
	LinkSizeBytes int64     `json:"link_size_bytes"`
	LinkDelay     string    `json:"link_delay"`
	LinkRate      float64   `json:"link_bits_per_second"`
	Conns         int       `json:"ideal_connections"`
	LinkConns     int       `json:"ideal_link_connections"`
	Notes         []string  `json:"notes,omitempty"`
	Runs          []measure `json:"runs"`
}

// line is the median of a row's runs.
type line struct {
	measure
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

// lines returns the medians, in the order in which the rows first ran.
func (r *report) lines() []line {
	var names []string
	runs := map[string][]measure{}
	for _, m := range r.Runs {
		if _, ok := runs[m.Row]; !ok {
			names = append(names, m.Row)
		}
		runs[m.Row] = append(runs[m.Row], m)
	}
	var out []line
	for _, name := range names {
		out = append(out, medianLine(runs[name]))
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
	// Memory is a promise about the worst case, so the largest counts.
	for _, m := range ok {
		l.ClientRSS, l.ServerRSS = max(l.ClientRSS, m.ClientRSS), max(l.ServerRSS, m.ServerRSS)
		l.Bytes = m.Bytes
	}
	return l
}

// baselines are the pairings that the others of a group are compared with: the rival and the best there is.
var baselines = map[string][2]string{
	"loop/add": {"boxo", "hash"},
}

func baselinesOf(group string) (rival, best string) {
	for prefix, b := range baselines {
		if strings.HasPrefix(group, prefix) {
			return b[0], b[1]
		}
	}
	return "boxo-from-boxo", "ideal-from-ideal"
}

// writeTable writes the medians as Markdown.
func (r *report) writeTable(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Machine: %s, %d cores (%s), %s, kernel %s, %s %s\n\n",
		m.CPU, m.Cores, strings.Join(m.Flags, " "), m.Memory, m.Kernel, m.Go, m.OS)
	fmt.Fprintf(w, "- loop: %d MiB over loopback; link: %d MiB with %s and %.0f Mbit/s each way, connection set-up included\n",
		r.SizeBytes>>20, r.LinkSizeBytes>>20, r.LinkDelay, r.LinkRate/1e6)
	fmt.Fprintf(w, "- medians of the rounds, largest peak; sources in the page cache, destination on the same disk\n")
	fmt.Fprintf(w, "- %s; %d over loopback, %d over the link\n- %s\n", idealNote, r.Conns, r.LinkConns, boxoNote)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "- %s\n", n)
	}
	lines := r.lines()
	byRow := map[string]line{}
	for _, l := range lines {
		byRow[l.Row] = l
	}
	group := ""
	for _, l := range lines {
		rival, best := baselinesOf(l.Group)
		if l.Group != group {
			group = l.Group
			fmt.Fprintf(w, "\n### %s\n\n", group)
			fmt.Fprintf(w, "| client-from-server | MB/s | s | synced s | CPU s client + server | peak MiB client + server "+
				"| × %s | of %s | of it, synced | runs |\n", rival, best)
			fmt.Fprintf(w, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
		}
		if l.runs == 0 {
			fmt.Fprintf(w, "| %s | failed: %s |\n", l.Pairing, strings.ReplaceAll(l.Error, "\n", " "))
			continue
		}
		runs := fmt.Sprint(l.runs)
		if l.failed > 0 {
			runs += fmt.Sprintf(" (%d failed)", l.failed)
		}
		seconds := func(l line) float64 { return l.Seconds }
		synced := func(l line) float64 { return l.Synced }
		fmt.Fprintf(w, "| %s | %.0f | %.3f | %.3f | %.2f + %.2f | %d + %d | %s | %s | %s | %s |\n",
			l.Pairing, rate(l.Bytes, l.Seconds), l.Seconds, l.Synced, l.ClientCPU, l.ServerCPU,
			l.ClientRSS>>20, l.ServerRSS>>20,
			speedup(byRow[group+"/"+rival], l, seconds), speedup(byRow[group+"/"+best], l, seconds),
			speedup(byRow[group+"/"+best], l, synced), runs)
	}
	fmt.Fprintln(w)
}

// speedup says how many times as fast l is as base, by the given time.
func speedup(base, l line, seconds func(line) float64) string {
	if base.runs == 0 || l.runs == 0 || seconds(l) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", seconds(base)/seconds(l))
}

func rate(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds / 1e6
}

// save writes everything as JSON.
func (r *report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return err
	}
	_, err = fmt.Printf("Every run: %s\n", path)
	return err
}
