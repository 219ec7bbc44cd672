package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// member is how a party takes part in a swarm: as a process that is there before the clock starts and serves others all
// the time, and is then told to get.
type member struct {
	// seed names the party that has the file; if empty, the party itself.
	seed string
	// start returns the process. If nil, there is none, and nobody serves but the seed.
	start func(s *suite, g getting) command
	// get has the process get the file from peers, and returns when it is there. The usage is of what it ran to that
	// end.
	get func(ctx context.Context, s *suite, m *swarmer, peers []string) (usage, error)
	// sent asks the seed, while all are connected to it still, how much it sent. If nil, the seed's last line says so.
	sent func(ctx context.Context, s *suite, home string) (int64, error)
}

// members are the parties that can be in swarms.
var members = map[string]member{
	"dray": {
		start: func(s *suite, g getting) command { return s.drayServe(g.home) }, get: drayJoins, sent: sentByDray,
	},
	"dray-auth": {
		start: func(s *suite, g getting) command { return s.drayServe(g.home, planeFlag, planeAuthenticated) },
		get:   drayJoins, sent: sentByDray,
	},
	"torrent": {
		start: func(s *suite, g getting) command { return s.torrentPeer(g.root, g.out) }, get: told,
	},
	"boxo": {
		start: func(s *suite, g getting) command { return s.role("boxo-serve", "-home", g.home) }, get: told,
	},
	"curl": {
		seed: "http",
		get: func(ctx context.Context, _ *suite, m *swarmer, peers []string) (usage, error) {
			return m.run(ctx, curl(peers[0], m.out))
		},
	},
}

// swarmer is one that gets the file.
type swarmer struct {
	getting
	proc *server // nil if the party has none
	addr string
	got  fetched
	used usage
	took time.Duration
}

// run runs a client to its end and keeps what it says.
func (m *swarmer) run(ctx context.Context, c command) (usage, error) {
	out, _, used, err := c.runToEnd(ctx)
	if err != nil {
		return used, err
	}
	return used, lastLine(out, &m.got)
}

// drayJoins runs `dray get` on the home of a running daemon, which does the work.
func drayJoins(ctx context.Context, s *suite, m *swarmer, peers []string) (usage, error) {
	return m.run(ctx, s.drayGet(m.home, m.root, m.out, peers...))
}

// told writes what to get to the process and waits for its answer.
func told(ctx context.Context, _ *suite, m *swarmer, peers []string) (usage, error) {
	if err := m.proc.tell(boxoAsk{Root: m.root, Out: m.out, Peers: peers}); err != nil {
		return usage{}, err
	}
	line, err := m.proc.next(ctx)
	if err != nil {
		return usage{}, err
	}
	return usage{}, json.Unmarshal(line, &m.got)
}

// runSwarm runs a swarm of one party once: one has the file and all others get it at the same time, from it and from
// each other.
func (s *suite) runSwarm(ctx context.Context, r row, set *dataset) (m measure, err error) {
	kind := members[r.client]
	r.server = r.client
	if kind.seed != "" {
		r.server = kind.seed
	}
	root, seed, err := s.serve(ctx, r, set)
	if err != nil {
		return m, err
	}
	m, err = s.swarmAround(ctx, r, set, root, seed)
	end, stopErr := seed.stop()
	if err = errors.Join(err, stopErr); err != nil {
		return m, err
	}
	if kind.sent == nil {
		m.Sent, err = end.sent(set.size)
	} else if m.Sent < set.size {
		err = fmt.Errorf("the seed says that it sent %d bytes, which is less than the file has", m.Sent)
	}
	return m, err
}

// swarmAround runs the getters of a swarm whose seed is ready.
func (s *suite) swarmAround(
	ctx context.Context, r row, set *dataset, root string, seed *server,
) (m measure, err error) {
	home := s.home(r.server, r)
	addr, err := lookupParty(r.server).address(ctx, s, seed, home)
	if err != nil {
		return m, err
	}
	dir, err := s.clients()
	if err != nil {
		return m, err
	}
	defer removeAll(dir, &err)
	var all []*swarmer
	defer func() {
		for _, w := range all {
			if w.proc != nil {
				w.proc.end(&err)
			}
		}
	}()
	for i := range r.getters {
		w := &swarmer{getting: getting{
			row: r, set: set, root: root,
			home: filepath.Join(dir, "home"+strconv.Itoa(i)), out: filepath.Join(dir, strconv.Itoa(i), "out"),
		}}
		all = append(all, w)
		if err := errors.Join(os.Mkdir(w.home, 0o755), os.Mkdir(filepath.Dir(w.out), 0o755), s.enlist(ctx, w)); err != nil {
			return m, err
		}
	}
	if err := errors.Join(warm(home), warm(set.path), s.settle()); err != nil {
		return m, err
	}
	if err := usePages(s.work, min(int64(r.getters)*set.size, 4<<30)); err != nil {
		return m, err
	}
	if m, err = s.race(ctx, all, addr, seed); err != nil {
		return m, err
	}
	if ask := members[r.client].sent; ask != nil {
		if m.Sent, err = ask(ctx, s, home); err != nil {
			return m, err
		}
	}
	for _, w := range all {
		if err := errors.Join(checkPlane(r, &w.got), w.check(&w.got)); err != nil {
			return m, err
		}
	}
	return m, nil
}

// enlist starts a getter's process, if its party has one.
func (s *suite) enlist(ctx context.Context, w *swarmer) error {
	kind := members[w.row.client]
	if kind.start == nil {
		return nil
	}
	var err error
	if w.proc, err = kind.start(s, w.getting).start(); err != nil {
		return err
	}
	w.addr, err = lookupParty(w.row.client).address(ctx, s, w.proc, w.home)
	return err
}

// race has all getters get the file at once and measures until the last has it.
func (s *suite) race(ctx context.Context, all []*swarmer, seedAddr string, seed *server) (m measure, err error) {
	r, set := all[0].row, all[0].set
	before := make([]usage, len(all))
	for i, w := range all {
		if w.proc != nil {
			if before[i], err = w.proc.used(); err != nil {
				return m, err
			}
		}
	}
	seedBefore, err := seed.used()
	if err != nil {
		return m, err
	}
	sent := watchSent(seed.cmd.Process.Pid)
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	start := s.now()
	for i, w := range all {
		peers := []string{seedAddr}
		for _, other := range all {
			if other != w && other.proc != nil {
				peers = append(peers, other.addr)
			}
		}
		wg.Go(func() {
			w.used, errs[i] = members[r.client].get(ctx, s, w, peers)
			w.took = s.now().Sub(start)
		})
	}
	wg.Wait()
	kernel, watchErr := sent()
	if err := errors.Join(errors.Join(errs...), watchErr); err != nil {
		return m, err
	}
	synced, err := s.syncedSince(start)
	if err != nil {
		return m, err
	}
	seedAfter, err := seed.used()
	if err != nil {
		return m, err
	}
	m = measure{
		Synced: synced, Bytes: set.size, Getters: len(all), KernelSent: kernel, InForce: lookupParty(r.client).wire,
		ServerCPU: (seedAfter.CPU - seedBefore.CPU).Seconds(), ServerRSS: seedAfter.PeakRSS,
	}
	first := all[0].took
	for i, w := range all {
		after := usage{}
		if w.proc != nil {
			if after, err = w.proc.used(); err != nil {
				return m, err
			}
		}
		m.Seconds = max(m.Seconds, w.took.Seconds())
		first = min(first, w.took)
		m.Duplicates += w.got.DuplicateBytes
		m.ClientCPU += (w.used.CPU + after.CPU - before[i].CPU).Seconds()
		m.ClientRSS = max(m.ClientRSS, w.used.PeakRSS+after.PeakRSS)
		m.Client.Sources = append(m.Client.Sources, w.got.Sources...)
	}
	m.InForce = cmp.Or(m.Client.inForce(), m.InForce)
	m.FirstDone = first.Seconds()
	return m, nil
}
