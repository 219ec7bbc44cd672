package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// kuboParties is Kubo itself: two daemons that are connected before the clock starts, and `ipfs get`.
var kuboParties = []party{{
	name: "kubo", wire: "ipfs get", missing: kuboMissing, fill: kuboFill, address: kuboAddress, silent: true,
	serve: func(s *suite, _ row, _ *dataset, home string) (command, error) { return s.kuboDaemon(home), nil },
	join: func(ctx context.Context, s *suite, g getting) (*server, error) {
		if err := s.kuboInit(ctx, g.home); err != nil {
			return nil, err
		}
		d, err := s.kuboDaemon(g.home).start()
		if err != nil {
			return nil, err
		}
		if _, _, _, err := s.kuboRun(g.home, "swarm", "connect", g.addr).runToEnd(ctx); err != nil {
			_, stopErr := d.stop()
			return nil, errors.Join(err, stopErr)
		}
		return d, nil
	},
	get: func(s *suite, g getting) command {
		return s.kuboRun(g.home, "get", "--progress=false", "-o", g.out, g.root)
	},
}}

func kuboMissing(ctx context.Context, s *suite) string {
	out, err := exec.CommandContext(ctx, s.ipfs, "version", "--number").Output()
	if err != nil {
		return "no Kubo: " + err.Error()
	}
	s.note("Kubo %s with its profile `test` (addresses on loopback only, no bootstrap, no mDNS) and no routing; both "+
		"daemons run and are connected before the clock starts, which stops with `ipfs get`", strings.TrimSpace(string(out)))
	return ""
}

// kuboRun returns the program on a repository.
func (s *suite) kuboRun(home string, args ...string) command {
	return command{path: s.ipfs, args: args, env: []string{"IPFS_PATH=" + home}}
}

func (s *suite) kuboDaemon(home string) command {
	c := s.kuboRun(home, "daemon", "--routing=none")
	c.ready = "Daemon is ready"
	return c
}

func (s *suite) kuboInit(ctx context.Context, home string) error {
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	_, _, _, err := s.kuboRun(home, "init", "--profile=test").runToEnd(ctx)
	return err
}

func kuboFill(ctx context.Context, s *suite, r row, set *dataset, home string) (string, error) {
	p, err := lookupProfile(r.profile)
	if err != nil {
		return "", err
	}
	if err := s.kuboInit(ctx, home); err != nil {
		return "", err
	}
	out, _, _, err := s.kuboRun(home, "add", "--quieter", "--progress=false", "--cid-version=1", "--hash="+p.hash(),
		fmt.Sprintf("--raw-leaves=%t", p.rawLeaves), fmt.Sprintf("--chunker=size-%d", p.leaf),
		"--max-file-links="+strconv.Itoa(p.links), set.path).runToEnd(ctx)
	return strings.TrimSpace(string(out)), err
}

func kuboAddress(ctx context.Context, s *suite, _ *server, home string) (string, error) {
	out, _, _, err := s.kuboRun(home, "id", "--format=<addrs>").runToEnd(ctx)
	if err != nil {
		return "", err
	}
	return chooseAddr(serving{Addrs: strings.Fields(string(out))})
}
