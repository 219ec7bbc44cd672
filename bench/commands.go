package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// home is the directory of a server for one data set.
func (s *suite) home(party string, r row) string {
	return filepath.Join(s.work, "homes", party, r.net+"-"+r.set+"-"+r.profile)
}

// prepare gives the row's server its data set, the first time, and returns the root that the client asks for.
func (s *suite) prepare(ctx context.Context, r row, set *dataset) (string, error) {
	home := s.home(r.server, r)
	if root, ok := s.homes[home]; ok {
		return root, nil
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	root, err := s.fill(ctx, r, set, home)
	if err != nil {
		return "", err
	}
	if set.sum == "" || root == "" {
		s.homes[home] = root
		return root, nil
	}
	// Whoever makes a DAG with the same parameters must get the same root, or rows of one group are not comparable.
	for _, party := range []string{"boxo", "dray"} {
		if other, ok := s.homes[s.home(party, r)]; ok && other != root {
			return "", fmt.Errorf("%s says the root is %s, %s says %s", r.server, root, party, other)
		}
	}
	s.homes[home] = root
	return root, nil
}

func (s *suite) fill(ctx context.Context, r row, set *dataset, home string) (string, error) {
	var last added
	run := func(c command) (string, error) {
		out, _, _, err := c.runToEnd(ctx)
		if err != nil {
			return "", err
		}
		return last.CID, errors.Join(lastLine(out, &last))
	}
	switch {
	case r.server == "ideal", r.server == "p2p":
		return "", nil
	case r.server == "boxo" && set.sum == "":
		_, err := run(s.role("boxo-add", "-home", home, "-car", set.path))
		return set.root.String(), err
	case r.server == "boxo":
		_, err := run(s.role("boxo-add", "-home", home, "-profile", r.profile, set.path))
		return last.CID, err
	case set.sum == "":
		_, _, _, err := s.drayRun(home, "car", "import", set.path).runToEnd(ctx)
		return set.root.String(), err
	}
	p, err := lookupProfile(r.profile)
	if err != nil {
		return "", err
	}
	if p.madeBy == "" {
		_, err := run(s.drayRun(home, "add", set.path, "--profile", r.profile, "--json"))
		return last.CID, err
	}
	// The other party makes the DAG and hands it over as a CAR.
	tmp := filepath.Join(s.work, "export")
	defer func() { _ = os.RemoveAll(tmp); _ = os.Remove(tmp + ".car") }()
	if _, err := run(s.role("boxo-add", "-home", tmp, "-profile", r.profile, "-export", tmp+".car", set.path)); err != nil {
		return "", err
	}
	_, _, _, err = s.drayRun(home, "car", "import", tmp+".car").runToEnd(ctx)
	return last.CID, err
}

// serve returns the row's server.
func (s *suite) serve(r row, set *dataset) command {
	home := s.home(r.server, r)
	switch r.server {
	case "boxo":
		return s.role("boxo-serve", "-home", home)
	case "ideal", "p2p":
		leaf, hash := idealParameters(r)
		return s.role("ideal-serve", "-leaf", leaf, "-hash", hash, fmt.Sprintf("-p2p=%t", r.server == "p2p"), set.path)
	}
	return s.drayRun(home, "serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--json")
}

// get returns the row's client.
func (s *suite) get(r row, set *dataset, root, addr, home, out string) command {
	switch r.client {
	case "boxo":
		args := []string{"-home", home, "-from", addr, "-o", out}
		if r.walk || set.sum == "" {
			args = append(args, "-walk")
		}
		return s.role("boxo-get", append(args, root)...)
	case "ideal", "p2p":
		leaf, hash := idealParameters(r)
		conns := s.conns
		if r.net == "link" {
			conns = s.linkConns
		}
		return s.role("ideal-get", "-leaf", leaf, "-hash", hash, "-conns", strconv.Itoa(conns),
			fmt.Sprintf("-p2p=%t", r.client == "p2p"), "-from", addr, "-o", out)
	}
	return s.drayRun(home, "get", root, "-o", out, "--from", addr, "--json")
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

// drayRun returns the Dray program on a home of its own.
func (s *suite) drayRun(home string, args ...string) command {
	return command{path: s.dray, args: append([]string{"--home", home}, args...)}
}

// idealParameters returns the leaf size and hash function of the row's profile, as arguments.
func idealParameters(r row) (leaf, hash string) {
	p, err := lookupProfile(r.profile)
	if err != nil {
		panic(err) // allRows names only profiles that there are
	}
	return strconv.Itoa(p.leaf), p.hash()
}
