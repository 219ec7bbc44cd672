package faults

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// median returns the middle of xs, or 0 of none.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	n := len(xs)
	return (xs[(n-1)/2] + xs[n/2]) / 2
}

// verdict is what the rounds of one program on one fault come to.
type verdict struct {
	runs, good int
	times      float64 // × the run without a fault
	extra      float64 // seconds longer
	again      float64 // MiB
	twice      float64 // MiB
	wrong      int64   // the most
	silence    float64 // the longest
	gap        float64
	peak       int64
	note       string
	whys       []string
}

// verdicts sums the rounds up, each against its own run without a fault.
func (b *bench) verdicts(all []outcome, f *fault, p program) (v verdict) {
	frees := map[int]*outcome{}
	for i, o := range all {
		if o.Program == p.name && o.Fault == free(f.holders) {
			frees[o.Round] = &all[i]
		}
	}
	var times, extra, again, twice []float64
	for i := range all {
		o := &all[i]
		base := frees[o.Round]
		if o.Program != p.name || o.Fault != f.name || base == nil {
			continue
		}
		v.runs++
		v.wrong, v.silence, v.peak = max(v.wrong, o.Wrong), max(v.silence, o.Silence), max(v.peak, o.Peak)
		v.gap = max(v.gap, o.Gap)
		v.note = o.Note
		why := b.judge(f, base, o, p)
		if why == "" {
			v.good++
		} else if !slices.Contains(v.whys, why) {
			v.whys = append(v.whys, why)
		}
		if o.Error == "" && base.Seconds > 0 {
			times = append(times, o.Seconds/base.Seconds)
			extra = append(extra, o.Seconds-base.Seconds)
			again = append(again, mib(max(0, o.Wire-base.Wire)))
			twice = append(twice, mib(o.Duplicates))
		}
	}
	v.times, v.extra, v.again, v.twice = median(times), median(extra), median(again), median(twice)
	return v
}

// String is the verdict in a word, or in a few why not.
func (v *verdict) String() string {
	switch {
	case v.runs == 0:
		return "–"
	case v.good == v.runs:
		return "ok"
	}
	why := strings.Join(v.whys, "; ")
	if len(why) > 160 {
		why = why[:160] + "…"
	}
	return fmt.Sprintf("%d of %d: %s", v.good, v.runs, strings.ReplaceAll(why, "|", "/"))
}

// figures are the columns between a row's title and the verdict.
func (v *verdict) figures(f *fault) string {
	if v.times == 0 {
		return fmt.Sprintf("– | – | %.0f | – | – | –", f.lasts.Seconds())
	}
	return fmt.Sprintf("%.2f | %.1f | %.0f | %.1f | %d | %.1f", v.times, v.extra, f.lasts.Seconds(), v.again, v.wrong, v.silence)
}

// cell is the verdict on a rival, in one cell.
func (v *verdict) cell() string {
	switch {
	case v.runs == 0:
		return "–"
	case v.wrong > 0:
		return "wrong bytes"
	case v.times == 0:
		return "**no file**"
	}
	text := fmt.Sprintf("%.2f ×, %.0f MiB", v.times, v.again)
	if v.good < v.runs {
		text += " †"
	}
	return text
}

// writeTable writes the medians as Markdown.
func (b *bench) writeTable(w io.Writer, all []outcome) {
	fmt.Fprintf(w, "%d MiB of random bytes at %.0f MB/s; medians of %d rounds, the longest silence and the most wrong bytes.\n\n",
		b.size>>20, b.rate/1e6, b.rounds)
	ps := programs()
	mine, rivals := ps[0], ps[1:]
	rivals = slices.DeleteFunc(rivals, func(p program) bool {
		return !slices.ContainsFunc(all, func(o outcome) bool { return o.Program == p.name })
	})
	fmt.Fprintf(w, "| fault | time ÷ fault-free | longer by, s | fault's own, s | came again, MiB | wrong bytes | silence, s | verdict |")
	for _, p := range rivals {
		fmt.Fprintf(w, " %s |", p.name)
	}
	fmt.Fprintf(w, "\n|---|--:|--:|--:|--:|--:|--:|---|%s\n", strings.Repeat("---|", len(rivals)))
	var absent []string
	for _, f := range b.faults() {
		if !b.only.MatchString(f.name) || b.quick && !f.quick {
			continue
		}
		if f.missing != nil && b.saved == "" {
			if why := f.missing(b); why != "" {
				absent = append(absent, fmt.Sprintf("- %s: not here: %s", f.title, why))
				continue
			}
		}
		v := b.verdicts(all, f, mine)
		text := f.title
		if v.note != "" {
			text += " (" + v.note + ")"
		}
		fmt.Fprintf(w, "| %s | %s | %s |", text, v.figures(f), &v)
		for _, p := range rivals {
			rv := b.verdicts(all, f, p)
			fmt.Fprintf(w, " %s |", rv.cell())
		}
		fmt.Fprintln(w)
	}
	for _, p := range ps {
		if b.saved == "" && p.missing != nil && b.programs.MatchString(p.name) {
			if why := p.missing(b); why != "" {
				absent = append(absent, fmt.Sprintf("- %s: not here: %s", p.name, why))
			}
		}
	}
	if len(rivals) > 0 {
		fmt.Fprintf(w, "\n† not within the bounds. No file: it had not come %.0f s after the bound for its time.\n", patience.Seconds())
	}
	if len(absent) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(absent, "\n"))
	}
}
