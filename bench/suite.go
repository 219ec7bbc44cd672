package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// suite is one run of the benchmark.
type suite struct {
	options
	self string
	work string // everything in here goes at the end
	sets map[string]*dataset
	// homes maps a server's home to the root that it holds.
	homes map[string]string
	// gateways maps a home to where its daemon serves HTTP.
	gateways map[string]string
	now      func() time.Time
	// notes are what the report says of how the parties were set up.
	notes []string

	// drayFound says that dray is a program that is there, drayErr why it cannot be.
	drayFound bool
	drayErr   error
	python    string // the Python that knows libtorrent
}

func runSuite(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	s, err := newSuite(o)
	if err != nil {
		return err
	}
	if o.list {
		err = s.list(ctx, os.Stdout)
		return errors.Join(err, s.close(), flag.ErrHelp)
	}
	rep, err := s.runRows(ctx)
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	rep.writeTable(os.Stdout)
	path := filepath.Join(o.dir, s.now().UTC().Format("20060102T150405Z")+".json")
	if err := rep.save(path); err != nil {
		return err
	}
	_, err = fmt.Printf("Every run: %s\n", path)
	return err
}

func newSuite(o options) (*suite, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(o.dir, "work-")
	if err != nil {
		return nil, err
	}
	if work, err = filepath.Abs(work); err != nil {
		return nil, err
	}
	return &suite{
		options: o, self: self, work: work, sets: map[string]*dataset{}, homes: map[string]string{}, gateways: map[string]string{},
		now: time.Now,
	}, nil
}

// close removes what the suite made, save for the results.
func (s *suite) close() error { return os.RemoveAll(s.work) }

// list prints the names of the chosen rows, and why those that cannot run here cannot.
func (s *suite) list(ctx context.Context, w io.Writer) error {
	for _, r := range s.chosen() {
		line := r.String()
		if why := s.missing(ctx, r); why != "" {
			line = fmt.Sprintf("%-44s not here: %s", line, why)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// runRows runs every chosen row once a round. A row that fails is reported and does not end the suite; one that cannot
// run here, for want of a program, is said once and left out.
func (s *suite) runRows(ctx context.Context) (*report, error) {
	rep := &report{
		Machine: thisMachine(), Started: s.now().UTC(), SizeBytes: s.size, LinkSizeBytes: s.linkSize,
		SwarmSizeBytes: s.swarmSize, SparseSizeBytes: s.sparseSize,
		LinkDelay: s.delay.String(), LinkRate: s.rate, Conns: s.conns, LinkConns: s.linkConns,
	}
	if err := s.prime(); err != nil {
		return rep, err
	}
	var rows []row
	for _, r := range s.chosen() {
		why := s.missing(ctx, r)
		if why == "" {
			rows = append(rows, r)
		}
		// Also those that can run are listed, so that the tables have the order of allRows.
		rep.Rows = append(rep.Rows, rowState{Row: r.String(), Group: r.group(), Pairing: r.pairing(), Missing: why})
	}
	for round := range s.rounds {
		for _, r := range rows {
			if err := ctx.Err(); err != nil {
				return rep, err
			}
			m, err := s.runRow(ctx, r)
			m.Row, m.Group, m.Pairing, m.Round = r.String(), r.group(), r.pairing(), round
			if err != nil {
				m.Error = err.Error()
			}
			rep.Runs = append(rep.Runs, m)
			fmt.Fprintf(os.Stderr, "round %d  %-44s %s\n", round+1, r, m)
		}
	}
	rep.Notes = s.notes
	return rep, nil
}

// note adds to what the report says, once.
func (s *suite) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

// prime writes a scratch file and removes it. On a virtual machine the first use of each page of memory and of each
// block of the disk is slow, and without this the first rows would pay for it.
func (s *suite) prime() error {
	path := filepath.Join(s.work, "scratch")
	if _, err := makeFile(path, 4*s.size, 0); err != nil {
		return err
	}
	return errors.Join(s.settle(), os.Remove(path))
}

func (s *suite) chosen() []row {
	var rows []row
	for _, r := range allRows() {
		name := r.String()
		if s.only.MatchString(name) && (s.skip == nil || !s.skip.MatchString(name)) {
			rows = append(rows, r)
		}
	}
	return rows
}

// runRow runs one row once.
func (s *suite) runRow(ctx context.Context, r row) (measure, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	set, err := s.dataset(r)
	if err != nil {
		return measure{}, err
	}
	switch r.set {
	case "add":
		return s.runAdd(ctx, r, set)
	case "swarm":
		return s.runSwarm(ctx, r, set)
	case "gateway":
		return s.runGateway(ctx, r, set)
	case "hub":
		return s.runHub(ctx, r, set)
	}
	return s.runPair(ctx, r, set)
}

// dataset makes the row's data set, the first time that it is asked for.
func (s *suite) dataset(r row) (*dataset, error) {
	key := r.data()
	if set, ok := s.sets[key]; ok {
		return set, nil
	}
	var (
		set  *dataset
		err  error
		path = filepath.Join(s.work, key)
	)
	switch key {
	case "file":
		set, err = makeFile(path, s.size, 1)
	case "link-file":
		set, err = makeFile(path, s.linkSize, 2)
	case "swarm":
		set, err = makeFile(path, s.swarmSize, 3)
	case "list":
		set, err = makeList(path, s.listNodes)
	case "star":
		set, err = makeStar(path, s.starBlocks)
	case "sparse":
		set, err = makeSparse(path+".safetensors", s.sparseSize)
	default:
		err = fmt.Errorf("no data set %q", key)
	}
	if err != nil {
		return nil, err
	}
	s.sets[key] = set
	return set, nil
}

// settle has the operating system write what is in its caches, so that no run pays for the one before it.
func (s *suite) settle() error {
	f, err := os.Open(s.work)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

func (s *suite) role(name string, args ...string) command {
	return command{path: s.self, args: append([]string{"role=" + name}, args...)}
}
