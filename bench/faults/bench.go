package faults

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Roles are what the program of the bench can be when it starts itself again; see [Programs].
var Roles = map[string]func(ctx context.Context, args []string) error{
	"cell":     runCell,
	"liar":     runLiar,
	"bad-disk": runBadDisk,
	"flood":    runFlood,
}

// bench is one run.
type bench struct {
	self, work, dray, file string
	torrent, python        string // the script, and the Python that knows libtorrent
	rivals                 bool
	isolated               bool
	quick                  bool
	size, flight           int64
	rate                   float64
	rounds                 int
	only, programs         *regexp.Regexp
	save, saved            string
	starter                *starter
	roots                  map[string]string // by a holder's directory
	stepped                string            // the dray whose wall clock steps
	leaves                 int               // of the file
	log                    io.Writer
}

// Run does what the command line says and prints a table.
func Run(ctx context.Context, args []string, from Programs) error {
	b, list, err := newBench(args, from)
	if err != nil {
		return err
	}
	if list {
		for _, f := range b.faults() {
			fmt.Printf("%-16s %s\n", f.name, f.title)
		}
		return b.close()
	}
	defer func() { _ = b.close() }()
	if b.saved != "" {
		all, err := load(strings.Split(b.saved, ","))
		if err == nil {
			b.writeTable(os.Stdout, all)
		}
		return err
	}
	all, err := b.run(ctx)
	if len(all) > 0 {
		b.writeTable(os.Stdout, all)
	}
	if b.save != "" && len(all) > 0 {
		raw, jerr := json.MarshalIndent(all, "", "  ")
		err = errors.Join(err, jerr, os.WriteFile(b.save, append(raw, '\n'), 0o644))
	}
	return err
}

// load reads runs that were saved.
func load(paths []string) (all []outcome, err error) {
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var some []outcome
		if err := json.Unmarshal(raw, &some); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func newBench(args []string, from Programs) (_ *bench, list bool, err error) {
	b := &bench{self: from.Self, roots: make(map[string]string), log: os.Stderr}
	fs := flag.NewFlagSet("faults", flag.ContinueOnError)
	dir := fs.String("dir", "out", "where the file, the homes and what is got go")
	fs.StringVar(&b.dray, "dray", "", "the dray program; if empty, it is built")
	size := fs.Int64("size", 256, "MiB of the file")
	rate := fs.Float64("rate", 40, "MB/s of the getter's line")
	flight := fs.Int64("flight", 4, "MiB that may be in flight when a fault strikes, and come again")
	fs.IntVar(&b.rounds, "rounds", 3, "rounds")
	only := fs.String("only", "", "only faults whose whole name matches this regular expression")
	who := fs.String("programs", "", "only programs whose whole name matches this regular expression")
	fs.BoolVar(&b.quick, "quick", false, "a few rows with a small file, to see that it works; the figures mean little")
	fs.StringVar(&b.save, "json", "", "also write every run to this file")
	fs.BoolVar(&list, "list", false, "print the faults and end")
	fs.StringVar(&b.saved, "table", "", "print the table of runs that -json wrote, in files separated by commas, and end")
	if err := fs.Parse(args); err != nil {
		return nil, false, err
	}
	if fs.NArg() > 0 {
		return nil, false, fmt.Errorf("argument %q: there are only flags", fs.Arg(0))
	}
	if b.quick {
		given := map[string]bool{}
		fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, set := range map[string]func(){
			"size": func() { *size = 32 }, "rate": func() { *rate = 25 }, "rounds": func() { b.rounds = 1 },
			"programs": func() { *who = "dray" },
		} {
			if !given[name] {
				set()
			}
		}
	}
	b.size, b.rate, b.flight = *size<<20, *rate*1e6, *flight<<20
	for _, x := range []struct {
		re   **regexp.Regexp
		text string
	}{{&b.only, *only}, {&b.programs, *who}} {
		text := x.text
		if text == "" {
			text = ".*"
		}
		if *x.re, err = regexp.Compile("^(?:" + text + ")$"); err != nil {
			return nil, false, err
		}
	}
	if list || b.saved != "" {
		return b, list, nil
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return nil, false, err
	}
	if b.work, err = os.MkdirTemp(*dir, "faults-"); err != nil {
		return nil, false, err
	}
	if b.work, err = filepath.Abs(b.work); err != nil {
		return nil, false, err
	}
	b.starter = newStarter()
	b.isolated = canIsolate()
	b.rivals = from.Torrent != nil
	b.file = filepath.Join(b.work, "file")
	if err = errors.Join(b.findTorrent(from.Torrent), b.makeFile()); err != nil {
		return nil, false, errors.Join(err, b.close())
	}
	return b, false, nil
}

func (b *bench) close() error {
	if b.starter == nil {
		return nil
	}
	b.starter.close()
	return os.RemoveAll(b.work)
}

// makeFile writes the file: random bytes, always the same.
func (b *bench) makeFile() error {
	f, err := os.Create(b.file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(rand.NewChaCha8([32]byte{1}), b.size))
	return errors.Join(err, f.Close())
}

// build makes dray unless it is there.
func (b *bench) build(ctx context.Context) error {
	if b.dray != "" {
		var err error
		if b.dray, err = filepath.Abs(b.dray); err != nil {
			return err
		}
		_, err = os.Stat(b.dray)
		return err
	}
	b.dray = filepath.Join(b.work, "dray")
	return b.buildDray(ctx, b.dray)
}

// buildDray builds cmd/dray from the source that this program was built from.
func (b *bench) buildDray(ctx context.Context, path string, more ...string) error {
	dir, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "dray").Output()
	if err != nil {
		return fmt.Errorf("the source of dray is not to be found from here: %w", err)
	}
	args := append([]string{"build", "-C", strings.TrimSpace(string(dir)), "-o", path}, more...)
	out, err := exec.CommandContext(ctx, "go", append(args, "./cmd/dray")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cmd/dray does not build: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

const (
	// noEnd is how long a run may take that has no allowance: the one without a fault.
	noEnd = 2 * time.Minute
	// patience is how much longer than allowed the bench waits for a transfer, to see whether it comes at all.
	patience = 20 * time.Second
)

// run runs every chosen row once a round. A row that fails is reported and does not end the bench.
func (b *bench) run(ctx context.Context) ([]outcome, error) {
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	var all []outcome
	for round := range b.rounds {
		for _, p := range programs() {
			if !b.programs.MatchString(p.name) || p.missing != nil && p.missing(b) != "" {
				continue
			}
			more, err := b.runProgram(ctx, p, round)
			all = append(all, more...)
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// free is the name of the run without a fault with so many holders.
func free(holders int) string { return fmt.Sprintf("none-%d", max(holders, 1)) }

// runProgram runs one program's rows of one round, those without a fault first.
func (b *bench) runProgram(ctx context.Context, p program, round int) ([]outcome, error) {
	var all []outcome
	frees := map[int]outcome{}
	for _, f := range b.faults() {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		if !b.only.MatchString(f.name) || b.quick && !f.quick || !f.applies(p) || f.missing != nil && f.missing(b) != "" {
			continue
		}
		n := max(f.holders, 1)
		base, ok := frees[n]
		if !ok {
			base = b.once(ctx, p, &fault{name: free(n), title: "no fault", holders: n}, noEnd, round)
			frees[n] = base
			all = append(all, base)
			if base.Error != "" {
				continue
			}
		}
		seconds, _ := b.allowed(f, base.Seconds)
		limit := time.Duration(seconds*float64(time.Second)) + patience
		if f.memory > 0 {
			limit += floodEnds // strangers come for longer than the transfer takes
		}
		all = append(all, b.once(ctx, p, f, limit, round))
	}
	return all, ctx.Err()
}

// applies reports whether the row says something about the program.
func (f *fault) applies(p program) bool {
	if p.name == programs()[0].name {
		return true
	}
	return f.rivals && !(p.alone && f.holders > 1)
}

// once runs one row once and reports it.
func (b *bench) once(ctx context.Context, p program, f *fault, limit time.Duration, round int) outcome {
	if f.prepare != nil {
		if err := f.prepare(ctx, b); err != nil {
			return b.told(outcome{}, p, f, round, err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not there after %.0f s", limit.Seconds()))
	defer cancel()
	out, err := b.play(ctx, p, f)
	return b.told(out, p, f, round, err)
}

// told completes an outcome and reports it.
func (b *bench) told(out outcome, p program, f *fault, round int, err error) outcome {
	out.Fault, out.Program, out.Round = f.name, p.name, round
	if err != nil {
		out.Error = strings.Join(strings.Fields(err.Error()), " ")
	}
	slices.Sort(out.Reasons)
	fmt.Fprintf(b.log, "round %d  %-10s %-14s %7.2f s  wire %6.1f MiB  twice %5.1f  silent %5.1f  gap %5.1f  conns %d  %s %s\n",
		round+1, p.name, f.name, out.Seconds, mib(out.Wire), mib(out.Duplicates), out.Silence, out.Gap, out.Connections,
		out.Note, out.Error)
	return out
}
