package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// torrentScript is a peer that runs libtorrent through its Python binding.
//
//go:embed torrent.py
var torrentScript []byte

const (
	scriptName  = "torrent.py"
	torrentName = "file.torrent"
)

// torrentParties is libtorrent: clear text over TCP, pieces of 1 MiB checked with SHA-1.
var torrentParties = []party{{
	name: "torrent", wire: "BitTorrent in clear, SHA-1 pieces",
	missing: torrentMissing, fill: torrentFill, address: plainAddress,
	serve: func(s *suite, r row, set *dataset, home string) (command, error) {
		c := s.torrentPeer(filepath.Join(home, torrentName), set.path)
		if r.uplink > 0 {
			c.args = append(c.args, "--uplink="+strconv.FormatInt(r.uplink, 10))
		}
		return c, nil
	},
	get: func(s *suite, g getting) command {
		return s.torrentPeer(g.root, g.out, g.addr, "--once")
	},
}}

// torrentMissing says why libtorrent cannot be used. The first Python that knows it is: distributions put it beside
// their own, which need not be the first on the PATH.
func torrentMissing(ctx context.Context, s *suite) string {
	if s.python != "" {
		return ""
	}
	if err := os.WriteFile(s.torrentPath(), torrentScript, 0o644); err != nil {
		return err.Error()
	}
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		var v struct{ Version string }
		out, err := exec.CommandContext(ctx, python, s.torrentPath(), "version").Output()
		if err == nil && lastLine(out, &v) == nil {
			s.python = python
			s.note("libtorrent %s (python3-libtorrent): pieces of 1 MiB, no DHT, local discovery or port mapping, TCP "+
				"only, encryption off, connected directly; nothing else is changed; it maps its files into memory, so that "+
				"its peaks count the page cache too", strings.TrimSuffix(v.Version, ".0"))
			return ""
		}
	}
	return "python3-libtorrent is not installed"
}

func (s *suite) torrentPath() string { return filepath.Join(s.work, scriptName) }

func (s *suite) torrentRun(args ...string) command {
	return command{path: s.python, args: append([]string{s.torrentPath()}, args...)}
}

// torrentPeer returns a peer that holds or gets a torrent's file at a path.
func (s *suite) torrentPeer(torrent, path string, more ...string) command {
	return s.torrentRun(append([]string{"peer", torrent, path}, more...)...)
}

// torrentFill makes the torrent, whose path is what clients get for a root.
func torrentFill(ctx context.Context, s *suite, _ row, set *dataset, home string) (string, error) {
	path := filepath.Join(home, torrentName)
	_, _, _, err := s.torrentRun("make", set.path, path).runToEnd(ctx)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("make a torrent of %s", set.path), err)
	}
	return path, nil
}
