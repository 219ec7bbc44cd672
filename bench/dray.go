package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// The ways in which dray is a party: as it is; with the data plane that is in clear and checked by hash; and as a
// library, for what the program does not print.
var drayParties = []party{
	{
		name: "dray", missing: drayMissing, fill: drayFill, address: peerAddress,
		serve: func(s *suite, r row, _ *dataset, home string) (command, error) {
			if r.uplink > 0 {
				return s.drayServe(home, "--limit-up", strconv.FormatInt(r.uplink, 10)), nil
			}
			return s.drayServe(home), nil
		},
		get: func(s *suite, g getting) command { return s.drayGet(g.home, g.root, g.out, g.addr) },
	},
	{
		name: "dray-auth", missing: authMissing, fill: drayFill, address: peerAddress,
		serve: func(s *suite, _ row, _ *dataset, home string) (command, error) {
			return s.drayServe(home, planeFlag, planeAuthenticated), nil
		},
		get: func(s *suite, g getting) command {
			c := s.drayGet(g.home, g.root, g.out, g.addr)
			c.args = append(c.args, planeFlag, planeAuthenticated)
			return c
		},
	},
	{
		name: "dray-node", missing: drayMissing,
		get: func(s *suite, g getting) command {
			return s.role("node-get", "-home", g.home, "-from", g.addr, "-o", g.out, g.root)
		},
	},
}

const (
	planeFlag          = "--data-plane"
	planeAuthenticated = "authenticated" // as opposed to encrypted, which is the default
)

// drayMissing says why there is no dray program.
func drayMissing(ctx context.Context, s *suite) string {
	if s.drayErr == nil && !s.drayFound {
		s.drayErr = s.findDray(ctx)
		s.drayFound = s.drayErr == nil
	}
	if s.drayErr != nil {
		return s.drayErr.Error()
	}
	return ""
}

// findDray builds the program unless one was given.
func (s *suite) findDray(ctx context.Context) error {
	if s.dray != "" {
		_, err := os.Stat(s.dray)
		return err
	}
	s.dray = filepath.Join(s.work, "dray")
	return buildDray(ctx, s.dray)
}

// buildDray builds the program as `make build` does.
func buildDray(ctx context.Context, path string) error {
	c := command{path: "go", args: []string{"build", "-C", "..", "-trimpath", "-o", path, "./cmd/dray"}, env: []string{"CGO_ENABLED=0"}}
	_, _, _, err := c.runToEnd(ctx)
	return err
}

// authMissing says why dray cannot send bulk data in clear.
func authMissing(ctx context.Context, s *suite) string {
	if why := drayMissing(ctx, s); why != "" {
		return why
	}
	for _, sub := range []string{"serve", "get"} {
		help, err := exec.CommandContext(ctx, s.dray, sub, "--help").Output()
		if err != nil {
			return fmt.Sprintf("dray %s --help: %v", sub, err)
		}
		if !bytes.Contains(help, []byte(planeFlag)) {
			return fmt.Sprintf("this dray %s has no %s", sub, planeFlag)
		}
	}
	return ""
}

// drayRun returns the program on a home of its own.
func (s *suite) drayRun(home string, args ...string) command {
	return command{path: s.dray, args: append([]string{"--home", home}, args...)}
}

func (s *suite) drayServe(home string, more ...string) command {
	return s.drayRun(home, append([]string{"serve", "--http", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--json"}, more...)...)
}

func (s *suite) drayGet(home, root, out string, from ...string) command {
	args := []string{"get", root, "-o", out, "--json"}
	for _, f := range from {
		args = append(args, "--from", f)
	}
	return s.drayRun(home, args...)
}

func drayFill(ctx context.Context, s *suite, r row, set *dataset, home string) (string, error) {
	var last added
	if !set.isFile() {
		_, _, _, err := s.drayRun(home, "car", "import", set.path).runToEnd(ctx)
		return set.root.String(), err
	}
	p, err := lookupProfile(r.profile)
	if err != nil {
		return "", err
	}
	if p.madeBy == "" {
		err := answer(ctx, s.drayRun(home, "add", set.path, "--profile", r.profile, "--json"), &last)
		return last.CID, err
	}
	// The other party makes the DAG and hands it over as a CAR.
	tmp := filepath.Join(s.work, "export")
	defer func() { _ = os.RemoveAll(tmp); _ = os.Remove(tmp + ".car") }()
	err = answer(ctx, s.role("boxo-add", "-home", tmp, "-profile", r.profile, "-export", tmp+".car", set.path), &last)
	if err != nil {
		return "", err
	}
	_, _, _, err = s.drayRun(home, "car", "import", tmp+".car").runToEnd(ctx)
	return last.CID, err
}

// drayPeer is a line of `dray peers --json`.
type drayPeer struct {
	Sent     int64 `json:"sent"`
	Received int64 `json:"received"`
}

// sentByDray asks a daemon how many bytes of blocks it sent to those who are connected to it.
func sentByDray(ctx context.Context, s *suite, home string) (int64, error) {
	out, _, _, err := s.drayRun(home, "peers", "--json").runToEnd(ctx)
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(out)) {
		var p drayPeer
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			return 0, fmt.Errorf("dray peers: %q: %w", line, err)
		}
		sum += p.Sent
	}
	return sum, nil
}

const (
	// What the summary calls a data plane that is authenticated only, and one that is encrypted. A number of connections
	// follows.
	planeClear = "clear"
	planeTLS   = "tls"
	// settled is how much a peer must have sent for its data plane to count: the first blocks travel with the messages.
	settled = 32 << 20
)

// checkPlane returns an error when a transfer that was to go in clear says that it did not, or does not say.
func checkPlane(r row, got *fetched) error {
	if r.client != "dray-auth" {
		return nil
	}
	var said bool
	for _, s := range got.Sources {
		said = said || s.DataPlane != ""
		clear := strings.HasPrefix(s.DataPlane, planeClear)
		if strings.HasPrefix(s.DataPlane, planeTLS) || s.Bytes >= settled && !clear {
			return fmt.Errorf("asked for a data plane in clear, and %d bytes took %q", s.Bytes, s.DataPlane)
		}
	}
	if !said {
		return errors.New("asked for a data plane in clear, and the summary does not say which it was")
	}
	return nil
}
