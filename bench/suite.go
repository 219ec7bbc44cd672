package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are what the command line of a suite sets.
type options struct {
	dir      string
	dray     string
	size     int64
	linkSize int64
	rounds   int
	only     *regexp.Regexp
	skip     *regexp.Regexp
	delay    time.Duration
	rate     float64
	conns    int
	// linkConns is conns over the link.
	linkConns int
	timeout   time.Duration
}

// perRun bounds one run of one row.
const perRun = 10 * time.Minute

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.dir, "dir", "out", "where the data sets, the homes and the results go; the disk that is measured")
	fs.StringVar(&o.dray, "dray", "", "the dray program; if empty, it is built from ../cmd/dray")
	sizeMiB := fs.Int64("size", 1024, "MiB of the file that goes over loopback")
	linkMiB := fs.Int64("link-size", 64, "MiB of the file that goes over the link")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds")
	only := fs.String("run", "", "only rows that match this regular expression (-list shows their names)")
	skip := fs.String("skip", "", "no rows that match this regular expression")
	link := fs.String("link", "25ms,1000", "the link: delay each way, Mbit/s each way")
	fs.IntVar(&o.conns, "conns", 2, "connections (p2p: streams) of the ideal over loopback")
	fs.IntVar(&o.linkConns, "link-conns", 1, "connections (p2p: streams) of the ideal over the link")
	fs.DurationVar(&o.timeout, "timeout", perRun, "longest time for one run of one row")
	list := fs.Bool("list", false, "print the rows' names and end")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.size, o.linkSize = *sizeMiB<<20, *linkMiB<<20
	delay, mbit, ok := strings.Cut(*link, ",")
	if !ok {
		return o, fmt.Errorf("-link %q: want a delay and a rate, such as 25ms,1000", *link)
	}
	var err error
	if o.delay, err = time.ParseDuration(delay); err != nil {
		return o, fmt.Errorf("-link: %w", err)
	}
	if _, err := fmt.Sscanf(mbit, "%g", &o.rate); err != nil || o.rate <= 0 {
		return o, fmt.Errorf("-link %q: the rate is no positive number of Mbit/s", *link)
	}
	o.rate *= 1e6
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, err
	}
	if *skip != "" {
		if o.skip, err = regexp.Compile(*skip); err != nil {
			return o, err
		}
	}
	if *list {
		for _, r := range allRows() {
			fmt.Println(r)
		}
		return o, flag.ErrHelp
	}
	return o, nil
}

// suite is one run of the benchmark.
type suite struct {
	options
	self string
	work string // everything in here goes at the end
	sets map[string]*dataset
	// homes maps a server's home to the root that it holds.
	homes map[string]string
	now   func() time.Time
}

func runSuite(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.dir, "work-")
	if err != nil {
		return err
	}
	if work, err = filepath.Abs(work); err != nil {
		return err
	}
	s := &suite{options: o, self: self, work: work, sets: map[string]*dataset{}, homes: map[string]string{}, now: time.Now}
	rep, err := s.runRows(ctx)
	if err = errors.Join(err, os.RemoveAll(work)); err != nil {
		return err
	}
	rep.writeTable(os.Stdout)
	return rep.save(filepath.Join(o.dir, s.now().UTC().Format("20060102T150405Z")+".json"))
}

// runRows runs every chosen row once a round. A row that fails is reported and does not end the suite; what it cannot do
// at all, for want of a program, is said once and left out.
func (s *suite) runRows(ctx context.Context) (*report, error) {
	rep := &report{
		Machine: thisMachine(), Started: s.now().UTC(), SizeBytes: s.size, LinkSizeBytes: s.linkSize,
		LinkDelay: s.delay.String(), LinkRate: s.rate, Conns: s.conns, LinkConns: s.linkConns,
	}
	if err := s.prime(); err != nil {
		return rep, err
	}
	rows := s.chosen()
	if needsDray(rows) {
		if err := s.findDray(ctx); err != nil {
			rep.Notes = append(rep.Notes, fmt.Sprintf("no rows with dray: %v", err))
			rows = withoutDray(rows)
		}
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
	return rep, nil
}

// prime writes a scratch file and removes it. On a virtual machine the first use of each page of memory and of each block
// of the disk is slow, and without this the first rows would pay for it.
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

func needsDray(rows []row) bool { return len(withoutDray(rows)) < len(rows) }

func withoutDray(rows []row) []row {
	var kept []row
	for _, r := range rows {
		if r.client != "dray" && r.server != "dray" {
			kept = append(kept, r)
		}
	}
	return kept
}

// findDray builds the program unless one was given.
func (s *suite) findDray(ctx context.Context) error {
	if s.dray != "" {
		_, err := os.Stat(s.dray)
		return err
	}
	s.dray = filepath.Join(s.work, "dray")
	out, err := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", s.dray, "./cmd/dray").CombinedOutput()
	if err != nil {
		return fmt.Errorf("cmd/dray does not build: %w: %s", err, tail(out))
	}
	return nil
}

// runRow runs one row once.
func (s *suite) runRow(ctx context.Context, r row) (measure, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	set, err := s.dataset(r)
	if err != nil {
		return measure{}, err
	}
	if r.set == "add" {
		return s.runAdd(ctx, r, set)
	}
	root, err := s.prepare(ctx, r, set)
	if err != nil {
		return measure{}, fmt.Errorf("prepare: %w", err)
	}
	srv, err := s.serve(r, set).start()
	if err != nil {
		return measure{}, err
	}
	m, err := s.transfer(ctx, r, set, root, srv)
	_, stopErr := srv.stop()
	return m, errors.Join(err, stopErr)
}

// transfer measures one client against a server that is ready.
func (s *suite) transfer(ctx context.Context, r row, set *dataset, root string, srv *server) (m measure, err error) {
	addr, err := serverAddr(srv, r.server)
	if err != nil {
		return m, err
	}
	if r.net == "link" {
		l, err := s.relayTo(addr)
		if err != nil {
			return m, err
		}
		defer func() {
			_, stopErr := l.stop()
			err = errors.Join(err, stopErr)
		}()
		var at relaying
		if err := l.announced(&at); err != nil {
			return m, err
		}
		addr = replacePort(addr, at.Addr)
	}
	client := filepath.Join(s.work, "client")
	if err := os.Mkdir(client, 0o755); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(client)) }()
	out := filepath.Join(client, "out")
	if err := errors.Join(warm(s.home(r.server, r)), warm(set.path), s.settle()); err != nil {
		return m, err
	}

	before, err := srv.used()
	if err != nil {
		return m, err
	}
	start := s.now()
	stdout, took, used, err := s.get(r, set, root, addr, filepath.Join(client, "home"), out).runToEnd(ctx)
	if err != nil {
		return m, err
	}
	if err := s.settle(); err != nil {
		return m, err
	}
	synced := s.now().Sub(start)
	after, err := srv.used()
	if err != nil {
		return m, err
	}
	m = measure{
		Seconds: took.Seconds(), Synced: synced.Seconds(), Bytes: set.size,
		ClientCPU: used.CPU.Seconds(), ServerCPU: (after.CPU - before.CPU).Seconds(),
		ClientRSS: used.PeakRSS, ServerRSS: after.PeakRSS,
	}
	if err := lastLine(stdout, &m.Client); err != nil {
		return m, err
	}
	switch {
	case r.walk || set.sum == "" && r.client == "boxo":
		if set.blocks > 0 {
			err = set.checkBlocks(m.Client.Blocks)
		}
	case set.sum == "":
		err = set.checkCAR(out)
	default:
		err = set.checkFile(out)
	}
	return m, err
}

// runAdd measures how long a party takes to turn a file into a DAG that it can serve.
func (s *suite) runAdd(ctx context.Context, r row, set *dataset) (m measure, err error) {
	home := filepath.Join(s.work, "client")
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	if err := errors.Join(warm(set.path), s.settle()); err != nil {
		return m, err
	}
	start := s.now()
	stdout, took, used, err := s.add(r, set, home).runToEnd(ctx)
	if err != nil {
		return m, err
	}
	if err := s.settle(); err != nil {
		return m, err
	}
	m = measure{
		Seconds: took.Seconds(), Synced: s.now().Sub(start).Seconds(), Bytes: set.size,
		ClientCPU: used.CPU.Seconds(), ClientRSS: used.PeakRSS,
	}
	var last added
	return m, lastLine(stdout, &last)
}

// dataset makes the row's data set, the first time that it is asked for.
func (s *suite) dataset(r row) (*dataset, error) {
	key := r.set
	if r.set == "file" && r.net == "link" {
		key = "link-file"
	}
	if r.set == "add" {
		key = "file"
	}
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
	case "list":
		set, err = makeList(path, listNodes)
	case "star":
		set, err = makeStar(path, starBlocks)
	default:
		err = fmt.Errorf("no data set %q", key)
	}
	if err != nil {
		return nil, err
	}
	s.sets[key] = set
	return set, nil
}

// relayTo starts a link in front of a server.
func (s *suite) relayTo(addr string) (*server, error) {
	return s.role("link", "-target", hostPort(addr), "-delay", s.delay.String(), "-rate", fmt.Sprint(s.rate)).start()
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

// serverAddr reads where a server listens from its first line: a multiaddr, or host:port for the ideal.
func serverAddr(srv *server, party string) (string, error) {
	if party == "ideal" {
		var at relaying
		err := srv.announced(&at)
		return at.Addr, err
	}
	var up serving
	if err := srv.announced(&up); err != nil {
		return "", err
	}
	for _, a := range up.Addrs {
		if tcpAddr.MatchString(a) {
			if !strings.Contains(a, "/p2p/") {
				a += "/p2p/" + up.Peer
			}
			return a, nil
		}
	}
	return "", fmt.Errorf("no plain TCP address among %q", up.Addrs)
}

// tcpAddr matches a multiaddr of TCP without a WebSocket on top.
var tcpAddr = regexp.MustCompile(`^/ip4/([0-9.]+)/tcp/([0-9]+)(/p2p/[^/]+)?$`)

// hostPort returns where addr, in either form, listens.
func hostPort(addr string) string {
	if m := tcpAddr.FindStringSubmatch(addr); m != nil {
		return net.JoinHostPort(m[1], m[2])
	}
	return addr
}

// replacePort returns addr with the port of hostPort instead of its own.
func replacePort(addr, hostPort string) string {
	_, port, err := net.SplitHostPort(hostPort)
	m := tcpAddr.FindStringSubmatch(addr)
	if err != nil || m == nil {
		return hostPort
	}
	return fmt.Sprintf("/ip4/%s/tcp/%s%s", m[1], port, m[3])
}
