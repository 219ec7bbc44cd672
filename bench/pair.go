package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// runPair runs a row of one server and one client once.
func (s *suite) runPair(ctx context.Context, r row, set *dataset) (m measure, err error) {
	root, srv, err := s.serve(ctx, r, set)
	if err != nil {
		return m, err
	}
	m, err = s.transfer(ctx, r, set, root, srv)
	end, stopErr := srv.stop()
	m.ServerRSS = max(m.ServerRSS, end.peak)
	return m, errors.Join(err, stopErr)
}

// transfer measures one client against a server that is ready.
func (s *suite) transfer(ctx context.Context, r row, set *dataset, root string, srv *server) (m measure, err error) {
	addr, err := lookupParty(r.server).address(ctx, s, srv, s.home(r.server, r))
	if err != nil {
		return m, err
	}
	if r.net == "link" {
		var (
			l  *server
			at listening
		)
		if l, err = s.relayTo(addr); err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, s.observed(l, &m)) }()
		if err := l.announced(&at); err != nil {
			return m, err
		}
		addr = replacePort(addr, at.Addr)
	}
	dir, err := s.clients()
	if err != nil {
		return m, err
	}
	defer removeAll(dir, &err)
	g := getting{
		row: r, set: set, root: root, addr: addr, home: filepath.Join(dir, "home"), out: filepath.Join(dir, "out"),
	}
	if err := errors.Join(warm(s.home(r.server, r)), warm(set.path), s.settle()); err != nil {
		return m, err
	}
	if err := usePages(s.work, min(set.size, 2<<30)); err != nil {
		return m, err
	}
	client := lookupParty(r.client)
	if client.join == nil {
		return s.timed(ctx, client, g, srv, nil)
	}
	helper, err := client.join(ctx, s, g)
	if err != nil {
		return m, err
	}
	defer helper.end(&err)
	return s.timed(ctx, client, g, srv, helper)
}

// timed runs the client and checks what it got. Helper, if any, is a process on the client's side that runs already.
func (s *suite) timed(ctx context.Context, client party, g getting, srv, helper *server) (m measure, err error) {
	side := func() (server, beside usage, err error) {
		if server, err = srv.used(); err == nil && helper != nil {
			beside, err = helper.used()
		}
		return server, beside, err
	}
	before, besideBefore, err := side()
	if err != nil {
		return m, err
	}
	start := s.now()
	stdout, took, used, err := client.get(s, g).runToEnd(ctx)
	if err != nil {
		return m, err
	}
	synced, err := s.syncedSince(start)
	if err != nil {
		return m, err
	}
	after, besideAfter, err := side()
	if err != nil {
		return m, err
	}
	m = measure{
		Seconds: took.Seconds(), Synced: synced, Bytes: g.set.size,
		ClientCPU: (used.CPU + besideAfter.CPU - besideBefore.CPU).Seconds(), ServerCPU: (after.CPU - before.CPU).Seconds(),
		ClientRSS: used.PeakRSS + besideAfter.PeakRSS, ServerRSS: after.PeakRSS, InForce: client.wire,
	}
	if !client.silent {
		if err := lastLine(stdout, &m.Client); err != nil {
			return m, err
		}
		m.InForce = cmp.Or(m.Client.inForce(), m.InForce)
	}
	if m.Client.ConnectSeconds > 0 {
		if m.FirstLeaf = m.Client.FirstSeconds; m.FirstLeaf == 0 {
			return m, errors.New("the client did not see a first leaf")
		}
	}
	return m, errors.Join(checkPlane(g.row, &m.Client), g.check(&m.Client))
}

// syncedSince has everything written and returns the seconds since start.
func (s *suite) syncedSince(start time.Time) (float64, error) {
	err := s.settle()
	return s.now().Sub(start).Seconds(), err
}

// check compares what a client got with the source.
func (g *getting) check(got *fetched) error {
	switch {
	case g.row.walk || !g.set.isFile() && g.row.client == "boxo":
		if g.set.blocks > 0 {
			return g.set.checkBlocks(got.Blocks)
		}
		if got.Blocks == 0 {
			return errors.New("walked no block")
		}
		return nil
	case !g.set.isFile():
		return g.set.checkCAR(g.out)
	}
	return g.set.checkFile(g.out)
}

// relayTo starts a link in front of a server.
func (s *suite) relayTo(addr string) (*server, error) {
	return s.role("link", "-target", hostPort(addr), "-delay", s.delay.String(), "-rate", fmt.Sprint(s.rate)).start()
}

// observed ends a link and notes when the first payload had passed it. A client that tells how long its dial took is
// not charged with that.
func (s *suite) observed(l *server, m *measure) error {
	end, err := l.stop()
	if err != nil {
		return err
	}
	var seen relayed
	if err := lastLine(end.last, &seen); err != nil {
		return err
	}
	if seen.First > 0 {
		m.First = seen.First - m.Client.ConnectSeconds
	}
	m.FirstTrips, m.FirstLeafTrips = s.roundTrips(m.First), s.roundTrips(m.FirstLeaf)
	return nil
}

// roundTrips returns a time in round trips of the link.
func (s *suite) roundTrips(seconds float64) float64 { return seconds / (2 * s.delay.Seconds()) }

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
	synced, err := s.syncedSince(start)
	if err != nil {
		return m, err
	}
	m = measure{
		Seconds: took.Seconds(), Synced: synced, Bytes: set.size, ClientCPU: used.CPU.Seconds(), ClientRSS: used.PeakRSS,
	}
	var last added
	return m, lastLine(stdout, &last)
}

// add returns the program that an "add" row times.
func (s *suite) add(r row, set *dataset, home string) command {
	switch r.client {
	case "boxo":
		return s.role("boxo-add", "-home", home, "-profile", r.profile, set.path)
	case "hash":
		leaf, hash := idealParameters(r)
		return s.role("hash", "-leaf", leaf, "-hash", hash, set.path)
	}
	return s.drayRun(home, "add", set.path, "--profile", r.profile, "--json")
}
