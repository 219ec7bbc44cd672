package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// party is a program that can be a side of a row.
type party struct {
	name string
	// wire says how its bytes travel and how they are checked, when the program does not tell by itself.
	wire string
	// missing says why the party cannot take part here, or "". If nil, it always can.
	missing func(ctx context.Context, s *suite) string
	// fill has home, an empty directory, hold the row's data set and returns the root that clients ask for. If nil, the
	// file is served from where it lies and there is no root.
	fill func(ctx context.Context, s *suite, r row, set *dataset, home string) (root string, err error)
	// serve returns the server; if nil, the party is a client only.
	serve func(s *suite, r row, set *dataset, home string) (command, error)
	// address returns where a server that is ready listens: a multiaddr, or host:port.
	address func(ctx context.Context, s *suite, srv *server, home string) (string, error)
	// join starts what must run on the client's side before the client. If nil, nothing.
	join func(ctx context.Context, s *suite, g getting) (*server, error)
	// get returns the client; if nil, the party is a server only.
	get func(s *suite, g getting) command
	// silent says that the client prints no line of JSON about what it got.
	silent bool
}

// getting is what a client is asked to do.
type getting struct {
	row       row
	set       *dataset
	root      string
	addr      string
	home, out string
}

// parties are all there are, by name.
var parties = func() map[string]party {
	m := map[string]party{}
	for _, list := range [][]party{
		drayParties, boxoParties, idealParties, httpParties, rsyncParties, torrentParties, kuboParties, gatewayParties,
	} {
		for _, p := range list {
			m[p.name] = p
		}
	}
	return m
}()

// lookupParty returns a party that allRows names.
func lookupParty(name string) party {
	p, ok := parties[name]
	if !ok {
		panic("no party " + name)
	}
	return p
}

// missing says why a row cannot run here, or "".
func (s *suite) missing(ctx context.Context, r row) string {
	if why := s.tooLarge(r); why != "" {
		return why
	}
	for _, name := range []string{r.client, r.server} {
		if name == "" {
			continue
		}
		if p := lookupParty(name); p.missing != nil {
			if why := p.missing(ctx, s); why != "" {
				return why
			}
		}
	}
	return ""
}

// tooLarge says why the disk has no room for what the row receives, or "".
func (s *suite) tooLarge(r row) string {
	size := map[string]int64{
		"file": s.size, "link-file": s.linkSize, "swarm": s.swarmSize * int64(r.getters), "sparse": s.sparseSize,
	}[r.data()]
	var fs unix.Statfs_t
	if err := unix.Statfs(s.work, &fs); err != nil {
		return err.Error()
	}
	// A store that keeps blocks and then writes the file needs twice the room, and the servers' homes are there too.
	if free := int64(fs.Bavail) * fs.Bsize; free < 4*size {
		return fmt.Sprintf("%d MiB are free on the disk, and it may need %d", free>>20, 4*size>>20)
	}
	return ""
}

// needs returns what says whether a program is on the PATH.
func needs(program string) func(context.Context, *suite) string {
	return func(context.Context, *suite) string {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed"
		}
		return ""
	}
}

// home is the directory of a server for one data set.
func (s *suite) home(party string, r row) string {
	return filepath.Join(s.work, "homes", party, r.net+"-"+r.data()+"-"+r.profile)
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
	var root string
	if fill := lookupParty(r.server).fill; fill != nil {
		var err error
		if root, err = fill(ctx, s, r, set, home); err != nil {
			return "", err
		}
	}
	// Whoever makes a DAG with the same parameters must get the same root, or rows of one group are not comparable.
	if set.isFile() && slices.Contains(rootMakers, r.server) {
		for _, other := range rootMakers {
			if got, ok := s.homes[s.home(other, r)]; ok && got != root {
				return "", fmt.Errorf("%s says the root is %s, %s says %s", r.server, root, other, got)
			}
		}
	}
	s.homes[home] = root
	return root, nil
}

// serve starts the row's server, with its data set, and returns what the client asks it for.
func (s *suite) serve(ctx context.Context, r row, set *dataset) (root string, srv *server, err error) {
	if root, err = s.prepare(ctx, r, set); err != nil {
		return "", nil, fmt.Errorf("prepare: %w", err)
	}
	c, err := lookupParty(r.server).serve(s, r, set, s.home(r.server, r))
	if err != nil {
		return "", nil, err
	}
	srv, err = c.start()
	return root, srv, err
}

// clients makes the directory for what the clients of a row get, which removeAll takes away in a defer.
func (s *suite) clients() (string, error) {
	dir := filepath.Join(s.work, "client")
	return dir, os.Mkdir(dir, 0o755)
}

func removeAll(dir string, err *error) { *err = errors.Join(*err, os.RemoveAll(dir)) }

// rootMakers are the parties that make DAGs.
var rootMakers = []string{"boxo", "dray", "dray-auth", "kubo"}

// answer runs c to its end and decodes its last line.
func answer(ctx context.Context, c command, v any) error {
	out, _, _, err := c.runToEnd(ctx)
	if err != nil {
		return err
	}
	return lastLine(out, v)
}

// listening is the first line of a server that has a host:port.
type listening struct {
	Addr string `json:"addr"`
}

// plainAddress reads the address of a server whose first line is a listening.
func plainAddress(_ context.Context, _ *suite, srv *server, _ string) (string, error) {
	var at listening
	if err := srv.announced(&at); err != nil {
		return "", err
	}
	if at.Addr == "" {
		return "", fmt.Errorf("%v: no address in %q", srv.what, srv.first)
	}
	return at.Addr, nil
}

// peerAddress reads the address of a server whose first line is a serving.
func peerAddress(_ context.Context, _ *suite, srv *server, _ string) (string, error) {
	var up serving
	if err := srv.announced(&up); err != nil {
		return "", err
	}
	return chooseAddr(up)
}

// chooseAddr returns a plain TCP address with the peer's id.
func chooseAddr(up serving) (string, error) {
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

// freePort returns a port of 127.0.0.1 that nobody listens on now, for a program that cannot choose one by itself.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, errors.Join(err, ln.Close())
}
