package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"dray/hub/mirror/mirrortest"
)

// Clients of a Hub that download a model at once: each from a dray of its own, all of which have the same upstream, or each from
// that upstream itself. The upstream's line is what binds.

const (
	hubRepo = "org/model"
	hubPath = "/" + hubRepo + "/resolve/main/model.bin"
)

// runHubServe is an upstream with one file. When it is told to stop, it says how much it sent.
func runHubServe(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("hub-serve", flag.ContinueOnError)
	rate := fs.Int64("rate", 0, "bytes a second of all answers together")
	if err := fs.Parse(args); err != nil {
		return err
	}
	data, err := os.ReadFile(fs.Arg(0))
	if err != nil {
		return err
	}
	up := mirrortest.New(hubRepo, map[string][]byte{"model.bin": data})
	defer up.Close()
	up.Set(func() { up.Rate = *rate })
	if err := printJSON(listening{Addr: up.URL}); err != nil {
		return err
	}
	<-ctx.Done()
	return printJSON(sums{Sent: up.Sent()})
}

// hubNode is the first line of a dray that serves HTTP.
type hubNode struct {
	serving
	HTTP string `json:"http"`
}

// runHub runs clients of a Hub once.
func (s *suite) runHub(ctx context.Context, r row, set *dataset) (m measure, err error) {
	up, err := s.role("hub-serve", "-rate", strconv.FormatInt(r.uplink, 10), set.path).start()
	if err != nil {
		return m, err
	}
	m, err = s.hubClients(ctx, r, set, up)
	end, stopErr := up.stop()
	if err = errors.Join(err, stopErr); err != nil {
		return m, err
	}
	m.Sent, err = end.sent(set.size)
	return m, err
}

func (s *suite) hubClients(ctx context.Context, r row, set *dataset, up *server) (m measure, err error) {
	var at listening
	if err := up.announced(&at); err != nil {
		return m, err
	}
	dir, err := s.clients()
	if err != nil {
		return m, err
	}
	defer removeAll(dir, &err)
	var nodes []*server
	defer func() {
		for _, n := range nodes {
			n.end(&err)
		}
	}()
	urls := make([]string, r.getters)
	var peers []string
	for i := range urls {
		urls[i] = at.Addr
		if r.client != "dray" {
			// The tree is asked for first, as by every client; curl does without.
			urls[i] += "/" + hubRepo + "/resolve/" + mirrortest.Commit + "/model.bin"
			continue
		}
		more := []string{"--http", "127.0.0.1:0", "--upstream", at.Addr}
		for _, p := range peers {
			more = append(more, "--peer", p)
		}
		n, err := s.drayServe(filepath.Join(dir, "home"+strconv.Itoa(i)), more...).start()
		if err != nil {
			return m, err
		}
		nodes = append(nodes, n)
		var first hubNode
		if err := n.announced(&first); err != nil {
			return m, err
		}
		addr, err := chooseAddr(first.serving)
		if err != nil {
			return m, err
		}
		peers = append(peers, addr)
		urls[i] = first.HTTP + hubPath
	}
	if err := errors.Join(s.connected(ctx, dir, len(nodes)), warm(set.path), s.settle()); err != nil {
		return m, err
	}
	m, err = s.hubRace(ctx, dir, urls, nodes)
	m.Bytes, m.Getters, m.InForce = set.size, r.getters, "HTTP"
	for i := range urls {
		err = errors.Join(err, set.checkFile(filepath.Join(dir, strconv.Itoa(i))))
	}
	return m, err
}

// connected waits until each of the nodes on homes in dir is connected to all others.
func (s *suite) connected(ctx context.Context, dir string, nodes int) error {
	pause := newPause()
	for i := range nodes {
		for {
			out, _, _, err := s.drayRun(filepath.Join(dir, "home"+strconv.Itoa(i)), "peers", "--json").runToEnd(ctx)
			if err != nil {
				return err
			}
			if bytes.Count(out, []byte("\n")) >= nodes-1 {
				break
			}
			if err := pause.wait(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// hubRace has all clients download at once and measures until the last has the file.
func (s *suite) hubRace(ctx context.Context, dir string, urls []string, nodes []*server) (m measure, err error) {
	before := make([]usage, len(nodes))
	for i, n := range nodes {
		if before[i], err = n.used(); err != nil {
			return m, err
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(urls))
	took := make([]time.Duration, len(urls))
	used := make([]usage, len(urls))
	start := s.now()
	for i, url := range urls {
		wg.Go(func() {
			c := command{path: "curl", args: []string{
				"--silent", "--show-error", "--fail", "--noproxy", "*", "--output", filepath.Join(dir, strconv.Itoa(i)), url,
			}}
			_, _, used[i], errs[i] = c.runToEnd(ctx)
			took[i] = s.now().Sub(start)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return m, err
	}
	if m.Synced, err = s.syncedSince(start); err != nil {
		return m, err
	}
	first := took[0]
	for i := range urls {
		m.Seconds = max(m.Seconds, took[i].Seconds())
		first = min(first, took[i])
		m.ClientCPU += used[i].CPU.Seconds()
		m.ClientRSS = max(m.ClientRSS, used[i].PeakRSS)
	}
	for i, n := range nodes {
		after, err := n.used()
		if err != nil {
			return m, err
		}
		m.ServerCPU += (after.CPU - before[i].CPU).Seconds()
		m.ServerRSS = max(m.ServerRSS, after.PeakRSS)
	}
	m.FirstDone = first.Seconds()
	return m, nil
}
