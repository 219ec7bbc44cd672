//go:build netns

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dray/transport"
	"dray/transport/p2p"
)

// These tests run whole processes on hosts of their own, network namespaces with routers between them:
//
//	        seed ── lan A ── router A ─┐
//	                                   ├── outside ── hub (relays, 5.0.0.2)
//	getter, twin ── lan B ── router B ─┘
//
// The routers translate addresses, and let in what belongs to a connection that began inside. They need root, iproute2 and nftables;
// `make netns` installs what is missing, and says so if it cannot.

// The kinds of router.
const (
	// cone is a router that gives a port of a host inside the same port outside, whomever it talks to.
	cone = "masquerade"
	// symmetric is one that gives every connection another port.
	symmetric = "masquerade fully-random"
)

// world is the hosts of one test.
type world struct {
	t      *testing.T
	prefix string
	dir    string
	dray   string
}

const outsideHub = "5.0.0.2"

// newWorld makes the hosts. natA and natB are kinds of router.
func newWorld(t *testing.T, natA, natB string) *world {
	t.Helper()
	w := &world{t: t, prefix: fmt.Sprintf("d%d%s-", os.Getpid()%10000, strings.ToLower(string(rune('a'+rand.IntN(26))))), dir: t.TempDir()}
	w.dray = builtDray(t)
	for _, name := range []string{"outside", "hub", "ra", "rb", "seed", "getter", "twin"} {
		w.sh("ip netns add %s", w.ns(name))
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", w.ns(name)).Run() })
		w.in(name, "ip link set lo up")
	}
	w.in("outside", "ip link add br0 type bridge")
	w.in("outside", "ip link set br0 up")
	w.join("hub", "eth0", outsideHub+"/24", "outside")
	for i, r := range []struct{ name, nat string }{{"ra", natA}, {"rb", natB}} {
		w.join(r.name, "wan", fmt.Sprintf("5.0.0.%d/24", 11+i), "outside")
		w.in(r.name, "ip link add br0 type bridge")
		w.in(r.name, "ip addr add 10.%d.0.1/24 dev br0", i+1)
		w.in(r.name, "ip link set br0 up")
		w.in(r.name, "sysctl -qw net.ipv4.ip_forward=1")
		w.nft(r.name, `table ip nat { chain post { type nat hook postrouting priority 100; oifname "wan" `+r.nat+"\n}\n}\n")
		w.nft(r.name, `table inet guard {
			chain input { type filter hook input priority 0; policy drop; iifname != "wan" accept; ct state established,related accept
}
			chain forward { type filter hook forward priority 0; policy drop; iifname != "wan" accept; ct state established,related accept
			}
		}
`)
	}
	w.join("seed", "eth0", "10.1.0.2/24", "ra")
	w.in("seed", "ip route add default via 10.1.0.1")
	w.join("getter", "eth0", "10.2.0.2/24", "rb")
	w.in("getter", "ip route add default via 10.2.0.1")
	w.join("twin", "eth0", "10.2.0.3/24", "rb")
	w.in("twin", "ip route add default via 10.2.0.1")
	return w
}

func (w *world) ns(name string) string { return w.prefix + name }

// sh runs a command of the machine's.
func (w *world) sh(format string, args ...any) {
	w.t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
}

// in runs one on a host.
func (w *world) in(name, format string, args ...any) {
	w.t.Helper()
	w.sh("ip netns exec "+w.ns(name)+" "+format, args...)
}

// nft adds rules on a host.
func (w *world) nft(name, rules string) {
	w.t.Helper()
	c := exec.Command("ip", "netns", "exec", w.ns(name), "nft", "-f", "-")
	c.Stdin = strings.NewReader(rules)
	if out, err := c.CombinedOutput(); err != nil {
		w.t.Fatalf("nft: %v: %s\n%s", err, out, rules)
	}
}

// join links a host with another one's bridge.
func (w *world) join(name, dev, addr, to string) {
	w.t.Helper()
	far := fmt.Sprintf("v%d", rand.IntN(1<<30))
	w.sh("ip link add %s netns %s type veth peer name %s netns %s", dev, w.ns(name), far, w.ns(to))
	w.in(to, "ip link set %s master br0", far)
	w.in(to, "ip link set %s up", far)
	w.in(name, "ip addr add %s dev %s", addr, dev)
	w.in(name, "ip link set %s up", dev)
}

// block has a router drop a protocol, udp or tcp, between inside and outside; unblock ends it.
func (w *world) block(router, protocol string) {
	w.t.Helper()
	w.nft(router, `table inet block { chain forward { type filter hook forward priority -10; meta l4proto `+protocol+" drop\n}\n}\n")
}

func (w *world) unblock(router string) {
	w.t.Helper()
	w.in(router, "nft delete table inet block")
}

var (
	buildOnce sync.Once
	buildPath string
	buildErr  error
)

// builtDray builds the program.
func builtDray(t *testing.T) string {
	t.Helper()
	buildOnce.Do(func() {
		dir, err := os.MkdirTemp("", "dray-netns-")
		if err != nil {
			buildErr = err
			return
		}
		buildPath = filepath.Join(dir, "dray")
		out, err := exec.Command("go", "build", "-o", buildPath, ".").CombinedOutput()
		if err != nil {
			buildErr = fmt.Errorf("%w: %s", err, out)
		}
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return buildPath
}

// command is dray on a host, with a home of its own there.
func (w *world) command(host string, env []string, args ...string) *exec.Cmd {
	c := exec.Command("ip", append([]string{"netns", "exec", w.ns(host), w.dray}, args...)...)
	c.Dir = w.dir
	c.Env = append(os.Environ(), "DRAY_HOME="+filepath.Join(w.dir, host), "DRAY_HTTP_LISTEN=off", "DRAY_REACH_MAP_PORTS=false")
	c.Env = append(c.Env, env...)
	return c
}

// run runs dray on a host to its end, and returns what it printed.
func (w *world) run(host string, env []string, args ...string) string {
	w.t.Helper()
	c := w.command(host, env, args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		w.t.Fatalf("on %s: dray %s: %v\n%s\n%s", host, strings.Join(args, " "), err, errs.String(), out)
	}
	return string(out)
}

// serve starts a daemon on a host, which ends with the test, and returns its id.
func (w *world) serve(host string, env []string, args ...string) identity {
	w.t.Helper()
	c := w.command(host, env, append([]string{"serve", "--json", "-v"}, args...)...)
	var log bytes.Buffer
	c.Stderr = &log
	out, err := c.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, out)
		_ = c.Wait()
		if w.t.Failed() {
			w.t.Logf("%s:\n%s", host, log.String())
		}
	})
	var id identity
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &id)
	}
	if err != nil {
		w.t.Fatalf("serve on %s: %v: %s", host, err, line)
	}
	return id
}

// status returns what a daemon says of itself.
func (w *world) status(host string) (s status) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(w.run(host, nil, "status", "--json")), &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// until waits for something.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(45 * time.Second); !is(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("after 45 s it is not so that %s", what)
		}
	}
}

// file writes random bytes on a host and shares them there, and returns their CID.
func (w *world) file(host, name string, size int) string {
	w.t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size), name[0]}).Read(data)
	if err := os.WriteFile(filepath.Join(w.dir, name), data, 0o644); err != nil {
		w.t.Fatal(err)
	}
	var added struct{ CID string }
	lines := strings.Split(strings.TrimSpace(w.run(host, nil, "add", name, "--json")), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &added); err != nil {
		w.t.Fatal(err)
	}
	return added.CID
}

// same expects a file to be what another one is.
func (w *world) same(name, other string) {
	w.t.Helper()
	a, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(w.dir, other))
	if err != nil {
		w.t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		w.t.Errorf("%s is not %s", other, name)
	}
}

// get gets something on a host, and returns the last event.
func (w *world) get(host string, env []string, args ...string) (r getResult) {
	w.t.Helper()
	lines := strings.Split(strings.TrimSpace(w.run(host, env, append([]string{"get", "--json", "--timeout", "60s"}, args...)...)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil || r.Event != "completed" {
		w.t.Fatalf("%v: %s", err, lines[len(lines)-1])
	}
	return r
}

// pathTo says how a daemon is connected to a peer.
func (w *world) pathTo(host, peer string) string {
	w.t.Helper()
	for line := range strings.Lines(w.run(host, nil, "peers", "--json")) {
		var c connected
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			w.t.Fatal(err)
		}
		if c.Peer == peer && c.Connected {
			return c.Path
		}
	}
	return ""
}

var everywhere = []string{"--listen", "/ip4/0.0.0.0/tcp/4001", "--listen", "/ip4/0.0.0.0/udp/4001/quic-v1"}

// hub starts the relay outside, which everybody knows, and returns the variable that says so.
func (w *world) hub(env []string, args ...string) (identity, []string) {
	w.t.Helper()
	id := w.serve("hub", env, append(append([]string{"--relay"}, everywhere...), args...)...)
	var at []string
	for _, a := range id.Addrs {
		if strings.Contains(a, outsideHub) {
			at = append(at, a)
		}
	}
	if len(at) == 0 {
		w.t.Fatalf("the hub is at %v", id.Addrs)
	}
	return id, append(env, "DRAY_REACH_RELAYS="+strings.Join(at, ","))
}

// leased waits until a host has a place at the relay, and returns its addresses there.
func (w *world) leased(host string) (addrs []string) {
	w.t.Helper()
	w.until(host+" is let through by the relay", func() bool {
		s := w.status(host)
		addrs = slices.DeleteFunc(s.Addrs, func(a string) bool { return !strings.Contains(a, "/p2p-circuit/") })
		return len(s.Reach.Relays) == 1 && len(addrs) > 0
	})
	return addrs
}

// from makes flags of addresses.
func from(addrs []string) (flags []string) {
	for _, a := range addrs {
		flags = append(flags, "--from", a)
	}
	return flags
}

// TestNetnsNATs has two hosts behind routers exchange a file, when they know each other's addresses at a relay. It arrives in any case.
// Where a hole can be punched the path ends up direct, else it leads through the relay.
func TestNetnsNATs(t *testing.T) {
	for _, row := range []struct {
		name, a, b string
		block      string // by both routers
		env        []string
		want       string // how the path begins
	}{
		{"cone and cone", cone, cone, "", nil, "direct over "},
		{"cone and cone without TCP", cone, cone, "tcp", nil, "direct over quic-v1"},
		{"cone and symmetric", cone, symmetric, "", nil, "relayed over quic-v1"},
		{"symmetric and symmetric", symmetric, symmetric, "", nil, "relayed over quic-v1"},
		{"cone and cone without UDP", cone, cone, "udp", nil, "direct over tcp"},
		{"symmetric and symmetric without UDP", symmetric, symmetric, "udp", nil, "relayed over tcp"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, row.a, row.b)
			if row.block != "" {
				w.block("ra", row.block)
				w.block("rb", row.block)
			}
			hub, env := w.hub(row.env)
			seed := w.serve("seed", env, everywhere...)
			addrs := w.leased("seed")
			w.serve("getter", row.env, everywhere...)
			small := w.file("seed", "small.bin", 3_000_000)
			r := w.get("getter", nil, append(from(addrs), small, "-o", "small.got")...)
			w.same("small.bin", "small.got")
			if len(r.Sources) != 1 || r.Sources[0].Peer != seed.Peer || r.Sources[0].Path == "" {
				t.Errorf("the sources are %+v", r.Sources)
			}
			var path string
			if strings.HasPrefix(row.want, "direct") {
				w.until("the path is "+row.want, func() bool {
					path = w.pathTo("getter", seed.Peer)
					return strings.HasPrefix(path, row.want)
				})
				w.until("the seed says so too", func() bool { return strings.HasPrefix(w.pathTo("seed", w.status("getter").Peer), row.want) })
			}
			large := w.file("seed", "large.bin", 20_000_000)
			r = w.get("getter", nil, append(from(addrs), large, "-o", "large.got")...)
			w.same("large.bin", "large.got")
			if len(r.Sources) != 1 || !strings.HasPrefix(r.Sources[0].Path, row.want) {
				t.Errorf("the sources are %+v, want %s", r.Sources, row.want)
			}
			if strings.HasPrefix(row.want, "relayed") && !strings.HasSuffix(r.Sources[0].Path, " via "+hub.Peer) {
				t.Errorf("the path is %s, not via %s", r.Sources[0].Path, hub.Peer)
			}
			if s := w.status("seed"); s.Reach.Standing != "private" {
				t.Errorf("the seed stands %+v", s.Reach)
			}
		})
	}
}

// TestNetnsRelayCuts has a relay that carries less than the content: what is left comes on connections that are dialled anew.
func TestNetnsRelayCuts(t *testing.T) {
	w := newWorld(t, symmetric, symmetric)
	hub, env := w.hub([]string{"DRAY_REACH_RELAY_DATA=8MiB"})
	seed := w.serve("seed", env, everywhere...)
	addrs := w.leased("seed")
	r := w.get("getter", nil, append(from(addrs), w.file("seed", "large.bin", 30_000_000), "-o", "large.got")...)
	w.same("large.bin", "large.got")
	if len(r.Sources) != 1 || r.Sources[0].Peer != seed.Peer || !strings.HasSuffix(r.Sources[0].Path, " via "+hub.Peer) {
		t.Errorf("the sources are %+v", r.Sources)
	}
	t.Logf("30 MB through a relay that cuts after 8 MiB: %.1f s, %d bytes twice", r.Seconds, r.DuplicateBytes)
	if r.Seconds > 30 {
		t.Errorf("took %.1f s", r.Seconds)
	}
}

// TestNetnsPrivateSwarm is the same for hosts with a swarm key, which have TCP only.
func TestNetnsPrivateSwarm(t *testing.T) {
	w := newWorld(t, cone, cone)
	key := filepath.Join(w.dir, "swarm.key")
	w.run("hub", nil, "swarm-key", "--create")
	if err := os.Rename(filepath.Join(w.dir, "hub", "swarm.key"), key); err != nil {
		t.Fatal(err)
	}
	only := []string{"--swarm-key", key, "--listen", "/ip4/0.0.0.0/tcp/4001"}
	id := w.serve("hub", nil, append([]string{"--relay"}, only...)...)
	at := slices.DeleteFunc(id.Addrs, func(a string) bool { return !strings.Contains(a, outsideHub) })
	seed := w.serve("seed", []string{"DRAY_REACH_RELAYS=" + strings.Join(at, ",")}, only...)
	addrs := w.leased("seed")
	w.serve("getter", nil, only...)
	r := w.get("getter", nil, append(from(addrs), w.file("seed", "small.bin", 3_000_000), "-o", "small.got")...)
	w.same("small.bin", "small.got")
	if len(r.Sources) != 1 || r.Sources[0].Peer != seed.Peer {
		t.Errorf("the sources are %+v", r.Sources)
	}
	w.until("the path is direct", func() bool { return w.pathTo("getter", seed.Peer) == "direct over tcp" })
}

// TestNetnsTicket gets without a daemon, by a ticket that was made behind a router. What begins at the relay goes on without it.
func TestNetnsTicket(t *testing.T) {
	w := newWorld(t, cone, cone)
	_, env := w.hub(nil)
	seed := w.serve("seed", env, append([]string{"--limit-up", "4MB"}, everywhere...)...)
	w.leased("seed")
	w.file("seed", "model.bin", 16_000_000)
	var shared struct{ Ticket string }
	if err := json.Unmarshal([]byte(w.run("seed", nil, "share", "model.bin", "--json")), &shared); err != nil {
		t.Fatal(err)
	}
	out := w.run("getter", nil, "get", shared.Ticket, "-o", "model.got", "--json", "--timeout", "60s")
	w.same("model.bin", "model.got")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var r getResult
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Sources) != 1 || r.Sources[0].Peer != seed.Peer || !strings.HasPrefix(r.Sources[0].Path, "direct over ") {
		t.Errorf("the sources are %+v", r.Sources)
	}
}

// TestNetnsBlocked has a router drop a protocol: another one is used at once, and the usual one again when it may.
func TestNetnsBlocked(t *testing.T) {
	w := newWorld(t, cone, cone)
	hub, _ := w.hub(nil)
	at := slices.DeleteFunc(hub.Addrs, func(a string) bool { return !strings.Contains(a, outsideHub) })
	c := w.file("hub", "small.bin", 100_000)
	for i, row := range []struct{ block, want string }{
		{"", "direct over tcp"},
		{"tcp", "direct over quic-v1"},
		{"", "direct over tcp"},
		{"udp", "direct over tcp"},
	} {
		if row.block != "" {
			w.block("rb", row.block)
		}
		got := fmt.Sprintf("small.%d", i)
		r := w.get("getter", []string{"DRAY_HOME=" + filepath.Join(w.dir, got+".home")}, append(from(at), c, "-o", got)...)
		w.same("small.bin", got)
		if len(r.Sources) != 1 || r.Sources[0].Path != row.want || r.Seconds > 1 {
			t.Errorf("%s blocked: %.2f s over %+v, want %s within a second", row.block, r.Seconds, r.Sources, row.want)
		}
		t.Logf("%q blocked: all there after %.0f ms", row.block, r.Seconds*1000)
		if row.block != "" {
			w.unblock("rb")
		}
	}
}

// TestNetnsNeighbours has two hosts behind one router see each other, those of other swarms not, and nobody beyond the router.
func TestNetnsNeighbours(t *testing.T) {
	if os.Getenv("DRAY_NETNS_LOOK") != "" {
		look(t)
		return
	}
	w := newWorld(t, cone, cone)
	w.serve("seed", nil, everywhere...)
	getter := w.serve("getter", nil, everywhere...)
	w.run("twin", nil, "swarm-key", "--create")
	seen := func(key string) (all []transport.Peer) {
		t.Helper()
		c := exec.Command("ip", "netns", "exec", w.ns("twin"), os.Args[0], "-test.run", "^TestNetnsNeighbours$")
		c.Env = append(os.Environ(), "DRAY_NETNS_LOOK=1", "DRAY_NETNS_KEY="+key)
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		if err := json.Unmarshal([]byte(line), &all); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return all
	}
	all := seen("")
	if len(all) != 1 || all[0].ID.String() != getter.Peer {
		t.Fatalf("saw %v, want %s alone", all, getter.Peer)
	}
	for _, a := range all[0].Addrs {
		if !strings.HasPrefix(a, "/ip4/10.2.0.2/") {
			t.Errorf("is told %s", a)
		}
	}
	if len(all[0].Addrs) != 2 {
		t.Errorf("is told %v", all[0].Addrs)
	}
	// So what one has, the other gets by its name alone.
	other := []string{"DRAY_HOME=" + filepath.Join(w.dir, "twin.home")}
	r := w.get("twin", other, w.file("getter", "near.bin", 3_000_000), "-o", "near.got")
	w.same("near.bin", "near.got")
	if len(r.Sources) != 1 || r.Sources[0].Peer != getter.Peer {
		t.Errorf("the sources are %+v", r.Sources)
	}
	if all := seen(filepath.Join(w.dir, "twin", "swarm.key")); len(all) != 0 {
		t.Errorf("a host of another swarm saw %v", all)
	}
}

// look prints whom a host sees around itself within a few seconds.
func look(t *testing.T) {
	c := p2p.Config{Listen: []string{}, Reach: p2p.Reach{LAN: true}}
	if path := os.Getenv("DRAY_NETNS_KEY"); path != "" {
		key, err := p2p.ReadSwarmKey(path)
		if err != nil {
			t.Fatal(err)
		}
		c.SwarmKey = key
	}
	h, err := p2p.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	all := []transport.Peer{}
	if err := h.Neighbours().Discover(ctx, func(p transport.Peer) { all = append(all, p) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		t.Fatal(err)
	}
}

// TestNetnsDHT has a host get by name alone what another one holds, behind another router: both know the hub outside and nobody
// else, and the DHT says who has it and through which relay.
func TestNetnsDHT(t *testing.T) {
	w := newWorld(t, cone, cone)
	_, env := w.hub(nil)
	seed := w.serve("seed", env, everywhere...)
	w.leased("seed")
	c := w.file("seed", "far.bin", 3_000_000)
	w.serve("getter", env, everywhere...)
	w.leased("getter")
	var out string
	w.until("the DHT says who has it", func() bool {
		b, err := w.command("getter", nil, "find", c, "--json").Output()
		out = string(b)
		return err == nil && strings.Contains(out, seed.Peer)
	})
	r := w.get("getter", nil, c, "-o", "far.got")
	w.same("far.bin", "far.got")
	if len(r.Sources) != 1 || r.Sources[0].Peer != seed.Peer {
		t.Errorf("the sources are %+v", r.Sources)
	}
}
