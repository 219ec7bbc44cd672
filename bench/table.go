package main

import (
	"fmt"
	"io"
	"strings"
)

// column is one column of a table behind the first, which names the pairing.
type column struct {
	title string
	// left says that it is text.
	left bool
	cell func(l line) string
}

func seconds(l line) float64 { return l.Seconds }
func synced(l line) float64  { return l.Synced }

// table is what the columns of a group's table need to know of it.
type table struct {
	lines map[string]line // by the pairing
}

// times says how many times as fast a row is as the pairing called base, by wall time.
func (t table) times(title, base string) column {
	return column{title: title, cell: func(l line) string { return speedup(t.lines[base], l, seconds) }}
}

// timesSynced is times by the time until the disk has everything.
func (t table) timesSynced(title, base string) column {
	return column{title: title, cell: func(l line) string { return speedup(t.lines[base], l, synced) }}
}

// measured are the columns that every table begins with.
var measured = []column{
	{title: "MB/s", cell: func(l line) string { return fmt.Sprintf("%.0f", rate(l.Bytes, l.Seconds)) }},
	{title: "s", cell: func(l line) string { return fmt.Sprintf("%.3f", l.Seconds) }},
	{title: "synced s", cell: func(l line) string { return fmt.Sprintf("%.3f", l.Synced) }},
	{title: "CPU s client + server", cell: func(l line) string {
		return fmt.Sprintf("%.2f + %.2f", l.ClientCPU, l.ServerCPU)
	}},
	{title: "peak MiB client + server", cell: func(l line) string {
		return fmt.Sprintf("%d + %d", l.ClientRSS>>20, l.ServerRSS>>20)
	}},
}

var (
	inForce = column{title: "what travelled", left: true, cell: func(l line) string { return l.InForce }}
	runs    = column{title: "runs", cell: func(l line) string {
		if l.failed > 0 {
			return fmt.Sprintf("%d (%d failed)", l.runs, l.failed)
		}
		return fmt.Sprint(l.runs)
	}}
	firstTrips = column{title: "round trips to the first payload", cell: func(l line) string {
		if l.First == 0 {
			return "–"
		}
		return l.firstText()
	}}
)

// columns returns the columns of a group's table.
func (t table) columns(group string) []column {
	all := append([]column(nil), measured...)
	switch {
	case strings.HasPrefix(group, "loop/add"):
		all = append(all, t.times("× boxo", "boxo"), t.times("of hash", "hash"), t.timesSynced("of it, synced", "hash"))
	case strings.HasPrefix(group, "loop/swarm"):
		return append(t.swarmColumns(), inForce, runs)
	case strings.HasPrefix(group, "loop/hub"):
		return hubColumns()
	case strings.HasPrefix(group, "loop/sparse"):
		all = append(all, inForce)
	case strings.HasPrefix(group, "loop/gateway"):
		all = append(all, t.times("of http", "reader-from-http"), inForce)
	case group == "loop/file/"+native:
		all = append(all,
			t.times("× boxo-from-boxo", "boxo-from-boxo"), t.times("× kubo", "kubo-from-kubo"),
			t.times("of ideal-from-ideal", "ideal-from-ideal"), t.timesSynced("of it, synced", "ideal-from-ideal"),
			t.times("of clear-from-clear", "clear-from-clear"), t.timesSynced("of it, synced", "clear-from-clear"),
			t.times("× curl", "curl-from-http"), t.timesSynced("× it, synced", "curl-from-http"), inForce)
	default:
		all = append(all, t.times("× boxo-from-boxo", "boxo-from-boxo"),
			t.times("of ideal-from-ideal", "ideal-from-ideal"), t.timesSynced("of it, synced", "ideal-from-ideal"))
		if strings.HasPrefix(group, "link/") {
			all = append(all, firstTrips)
		}
		all = append(all, inForce)
	}
	return append(all, runs)
}

func hubColumns() []column {
	return []column{
		{title: "s, first has it", cell: func(l line) string { return fmt.Sprintf("%.3f", l.FirstDone) }},
		{title: "s, all have it", cell: measured[1].cell},
		measured[2],
		{title: "upstream sent, copies", cell: func(l line) string { return fmt.Sprintf("%.3f", l.copies(l.Sent)) }},
		{title: "CPU s clients + drays", cell: measured[3].cell},
		{title: "peak MiB client + dray", cell: measured[4].cell},
		runs,
	}
}

func (t table) swarmColumns() []column {
	return []column{
		{title: "s, first has it", cell: func(l line) string { return fmt.Sprintf("%.3f", l.FirstDone) }},
		{title: "s, all have it", cell: measured[1].cell},
		measured[2],
		{title: "seed sent, copies", cell: func(l line) string { return fmt.Sprintf("%.2f", l.copies(l.Sent)) }},
		{title: "by the kernel, at least", cell: func(l line) string {
			return fmt.Sprintf("%.2f", l.copies(l.KernelSent))
		}},
		{title: "came twice, %", cell: func(l line) string { return fmt.Sprintf("%.1f", 100*l.copies(l.Duplicates)) }},
		{title: "CPU s getters + seed", cell: measured[3].cell},
		{title: "peak MiB largest getter + seed", cell: measured[4].cell},
		t.times("× torrent", "torrent"), t.times("× curl", "curl"), t.times("× boxo", "boxo"),
	}
}

// writeTable writes the medians as Markdown.
func (r *report) writeTable(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Machine: %s, %d cores (%s), %s, kernel %s, %s %s\n\n",
		m.CPU, m.Cores, strings.Join(m.Flags, " "), m.Memory, m.Kernel, m.Go, m.OS)
	fmt.Fprintf(w, "- loop: %d MiB over loopback; link: %d MiB with %s and %.0f Mbit/s each way, connection set-up "+
		"included; swarm: %d MiB; sparse: %d MiB\n", r.SizeBytes>>20, r.LinkSizeBytes>>20, r.LinkDelay, r.LinkRate/1e6,
		r.SwarmSizeBytes>>20, r.SparseSizeBytes>>20)
	fmt.Fprintf(w, "- medians of the rounds, largest peak; sources in the page cache, destination on the same disk\n")
	fmt.Fprintf(w, "- %s %d over loopback, %d over the link\n- %s\n", idealNote, r.Conns, r.LinkConns, boxoNote)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "- %s\n", n)
	}
	groups := map[string][]line{}
	var order []string
	for _, l := range r.lines() {
		if _, ok := groups[l.Group]; !ok {
			order = append(order, l.Group)
		}
		groups[l.Group] = append(groups[l.Group], l)
	}
	for _, group := range order {
		writeGroup(w, group, groups[group])
	}
	fmt.Fprintln(w)
}

// writeGroup writes one table, and below it what is not in it.
func writeGroup(w io.Writer, group string, lines []line) {
	t := table{lines: map[string]line{}}
	for _, l := range lines {
		t.lines[l.Pairing] = l
	}
	columns := t.columns(group)
	head, rule := "| client-from-server |", "|---|"
	if strings.HasPrefix(group, "loop/swarm") || strings.HasPrefix(group, "loop/add") || strings.HasPrefix(group, "loop/hub") {
		head = "| who |"
	}
	for _, c := range columns {
		head += " " + c.title + " |"
		if c.left {
			rule += "---|"
		} else {
			rule += "--:|"
		}
	}
	fmt.Fprintf(w, "\n### %s\n\n%s\n%s\n", group, head, rule)
	var absent []string
	for _, l := range lines {
		switch {
		case l.missing != "":
			absent = append(absent, fmt.Sprintf("- %s: not here: %s", l.Pairing, l.missing))
			continue
		case l.runs == 0:
			absent = append(absent, fmt.Sprintf("- %s failed: %s", l.Pairing, strings.ReplaceAll(l.Error, "\n", " ")))
			continue
		}
		text := "| " + l.Pairing + " |"
		for _, c := range columns {
			text += " " + c.cell(l) + " |"
		}
		fmt.Fprintln(w, text)
	}
	if len(absent) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(absent, "\n"))
	}
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
