package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Programs is what the bench needs of the command that it is a part of.
type Programs struct {
	// Self is this program, which plays a role when its first argument is role=NAME: those of [Roles] and, if the rivals
	// are to run, http-serve, boxo-add and boxo-serve.
	Self string
	// Torrent is a script that is a BitTorrent peer; if nil, there is none.
	Torrent []byte
}

// program is who serves and gets the file.
type program struct {
	name string
	// missing says why it cannot run here, or "".
	missing func(b *bench) string
	// fill makes what a holder needs in dir, and returns what getters ask for.
	fill func(ctx context.Context, b *bench, dir string) (root string, err error)
	// serve returns the holder's command.
	serve func(b *bench, dir string) spec
	// get returns the getter's command. It is to end when the file is there.
	get func(b *bench, g getting) spec
	// asked says that the getter reads its orders and prints a line of JSON when it has the file, and does not end.
	asked bool
	// events says that the getter prints the events of `dray get --json`.
	events bool
	// alone says that it gets from one holder only.
	alone bool
	// forgets says that a holder of its kind comes back as somebody else when it is started again.
	forgets bool
	// unsure says that it does not verify what it gets.
	unsure bool
}

// getting is what a getter is to do.
type getting struct {
	root  string
	addrs []string
	home  string
	out   string
	// dray is the dray program to use, if it is not the usual one, and env what it finds in its environment.
	dray string
	env  []string
}

// programs are all there are, the one that is judged first.
func programs() []program {
	return []program{drayProgram("dray"), curlProgram, aria2Program, torrentProgram, boxoProgram}
}

func drayProgram(name string, more ...string) program {
	return program{
		name: name, events: true,
		fill: func(ctx context.Context, b *bench, dir string) (string, error) {
			return b.lastCID(ctx, spec{path: b.dray, args: []string{"--home", dir, "add", b.file, "--json"}})
		},
		serve: func(b *bench, dir string) spec {
			args := []string{"--home", dir, "serve", "--http", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--json"}
			return spec{path: b.dray, args: append(args, more...)}
		},
		get: func(b *bench, g getting) spec {
			args := append([]string{"--home", g.home, "get", g.root, "-o", g.out, "--json"}, more...)
			for _, a := range g.addrs {
				args = append(args, "--from", a)
			}
			path := b.dray
			if g.dray != "" {
				path = g.dray
			}
			return spec{path: path, args: args, env: g.env}
		},
	}
}

// lastCID runs a program that prints what it made last.
func (b *bench) lastCID(ctx context.Context, what spec) (string, error) {
	var last []byte
	p, err := b.starter.start(what, nil, nil, func(line []byte) { last = line })
	if err != nil {
		return "", err
	}
	if err := p.wait(ctx); err != nil {
		return "", err
	}
	var made struct {
		CID    string
		Leaves int
	}
	if err := json.Unmarshal(last, &made); err != nil || made.CID == "" {
		return "", fmt.Errorf("%s: no CID in %q", what, last)
	}
	b.leaves = max(b.leaves, made.Leaves)
	return made.CID, nil
}

// liar returns a liar of that kind, which claims as many leaves as the file has.
func (b *bench) liar(kind string) spec {
	return spec{path: b.self, args: []string{"role=liar", "-kind", kind, "-leaves", fmt.Sprint(b.leaves)}}
}

// httpServe is what curl and aria2 get from.
func httpServe(b *bench, _ string) spec {
	return spec{path: b.self, args: []string{"role=http-serve", b.file}}
}

func noFill(context.Context, *bench, string) (string, error) { return "", nil }

func onPath(name, from string) func(*bench) string {
	return func(*bench) string {
		if _, err := exec.LookPath(name); err != nil {
			return from + " is not installed"
		}
		return ""
	}
}

// curlProgram retries as somebody would have it who knows that the path is bad: it goes on where it was, and gives a
// connection up that brings less than 1 kB/s for 10 s.
var curlProgram = program{
	name: "curl", missing: onPath("curl", "curl"), fill: noFill, serve: httpServe, alone: true, unsure: true,
	get: func(_ *bench, g getting) spec {
		return spec{path: "curl", args: []string{
			"--silent", "--show-error", "--fail", "--noproxy", "*", "--retry", "100", "--retry-all-errors", "--retry-delay", "1",
			"--connect-timeout", "10", "--speed-limit", "1000", "--speed-time", "10", "-C", "-",
			"--output", g.out, "http://" + g.addrs[0] + "/file",
		}}
	},
}

// aria2Program does the same, on up to four connections with a holder.
var aria2Program = program{
	name: "aria2", missing: onPath("aria2c", "aria2"), fill: noFill, serve: httpServe, unsure: true,
	get: func(_ *bench, g getting) spec {
		args := []string{
			"--no-conf", "--quiet", "--dir", filepath.Dir(g.out), "--out", filepath.Base(g.out), "--continue=true",
			"--max-tries=0", "--retry-wait=1", "--connect-timeout=10", "--timeout=10", "--lowest-speed-limit=1K",
			"--split=4", "--max-connection-per-server=4", "--min-split-size=1M", "--file-allocation=none",
			"--auto-save-interval=1", "--all-proxy=", "--allow-overwrite=true",
		}
		for _, a := range g.addrs {
			args = append(args, "http://"+a+"/file")
		}
		return spec{path: "aria2c", args: args}
	},
}

// torrentProgram is libtorrent, told of its peers.
var torrentProgram = program{
	name: "libtorrent",
	missing: func(b *bench) string {
		if b.python == "" {
			return "python3-libtorrent is not installed"
		}
		return ""
	},
	fill: func(ctx context.Context, b *bench, dir string) (string, error) {
		path := filepath.Join(dir, "file.torrent")
		p, err := b.starter.start(spec{path: b.python, args: []string{b.torrent, "make", b.file, path}}, nil, nil, nil)
		if err != nil {
			return "", err
		}
		err = p.wait(ctx)
		if err == nil {
			_, err = os.Stat(path)
		}
		return path, err
	},
	serve: func(b *bench, dir string) spec {
		return spec{path: b.python, args: []string{b.torrent, "peer", filepath.Join(dir, "file.torrent"), b.file}}
	},
	get: func(b *bench, g getting) spec {
		return spec{path: b.python, args: append([]string{b.torrent, "peer", g.root, g.out, "--once"}, g.addrs...)}
	},
}

// boxoProgram is the library behind Kubo.
var boxoProgram = program{
	name: "boxo", asked: true, forgets: true,
	missing: func(b *bench) string {
		if !b.rivals {
			return "this program has no boxo in it"
		}
		return ""
	},
	fill: func(ctx context.Context, b *bench, dir string) (string, error) {
		return b.lastCID(ctx, spec{path: b.self, args: []string{"role=boxo-add", "-home", dir, b.file}})
	},
	serve: func(b *bench, dir string) spec {
		return spec{path: b.self, args: []string{"role=boxo-serve", "-home", dir}}
	},
	get: func(b *bench, g getting) spec {
		order, err := json.Marshal(map[string]any{"root": g.root, "out": g.out, "peers": g.addrs})
		if err != nil {
			panic(err) // they are strings
		}
		return spec{path: b.self, args: []string{"role=boxo-serve", "-home", g.home}, input: string(order) + "\n"}
	},
}

// findTorrent says which Python knows libtorrent, after writing the script.
func (b *bench) findTorrent(script []byte) error {
	if script == nil {
		return nil
	}
	b.torrent = filepath.Join(b.work, "torrent.py")
	if err := os.WriteFile(b.torrent, script, 0o644); err != nil {
		return err
	}
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		out, err := exec.CommandContext(ctx, python, b.torrent, "version").Output()
		cancel()
		if err == nil && strings.Contains(string(out), "version") {
			b.python = python
			return nil
		}
	}
	return nil
}

// holderDir is where a program's holder keeps what it needs. It is filled once, and lasts as long as the bench.
func (b *bench) holderDir(ctx context.Context, p program, i int) (dir, root string, err error) {
	dir = filepath.Join(b.work, "holders", fmt.Sprint(p.name, i))
	if root, ok := b.roots[dir]; ok {
		return dir, root, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	if root, err = p.fill(ctx, b, dir); err != nil {
		return "", "", errors.Join(err, os.RemoveAll(dir))
	}
	b.roots[dir] = root
	return dir, root, nil
}
